//! One-time tickets: 256 random bits that a browser carries, of which the store keeps the hash alone.
//!
//! What a ticket stands for is sealed under a key that it gives, as sessions are: a stolen store
//! holds neither tickets nor what they are for. A ticket for one purpose is none for another.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::seal::{self, Key, NONCE_BYTES, SealError};

/// Characters of a ticket.
const CHARACTERS: usize = 43;

/// What tickets are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A sign-in that was begun; the ticket is its `state`.
    Attempt,
    /// The answer of a provider that came as a form.
    Posted,
    /// A sign-in at the sign-in host that another host has asked for.
    HandOver,
    /// A session for another host.
    Admission,
    /// What must not come a second time; it stands for nothing else.
    Seen,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Attempt,
        Self::Posted,
        Self::HandOver,
        Self::Admission,
        Self::Seen,
    ];

    const fn name(self) -> &'static [u8] {
        match self {
            Self::Attempt => b"sign-in attempt",
            Self::Posted => b"posted answer",
            Self::HandOver => b"hand-over",
            Self::Admission => b"admission",
            Self::Seen => b"seen",
        }
    }
}

/// A ticket. Whoever holds it may use it once.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Ticket([u8; 32]);

/// A text that is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotATicket;

impl Ticket {
    /// The ticket of these random bytes.
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The ticket that a text spells, exactly as [`Ticket::text`] does.
    ///
    /// # Errors
    /// [`NotATicket`] for anything else.
    pub fn parse(text: &str) -> Result<Self, NotATicket> {
        if text.len() != CHARACTERS {
            return Err(NotATicket);
        }
        let mut ticket = Self([0; 32]);
        match URL_SAFE_NO_PAD.decode_slice(text, &mut ticket.0) {
            Ok(32) => Ok(ticket),
            Ok(_) | Err(_) => Err(NotATicket),
        }
    }

    /// How a URL carries it.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0))
    }

    /// What the store knows it by.
    pub fn hash(&self, purpose: Purpose) -> [u8; 32] {
        let mut bytes = Zeroizing::new(purpose.name().to_vec());
        bytes.push(0);
        bytes.extend_from_slice(&self.0);
        seal::hash(&bytes)
    }

    /// What it stands for, sealed. `nonce` is random.
    ///
    /// # Errors
    /// [`SealError::Seal`] if the library fails.
    pub fn seal(
        &self,
        purpose: Purpose,
        nonce: [u8; NONCE_BYTES],
        plain: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        Key::derive(&self.0, purpose.name())?.seal(nonce, &self.hash(purpose), plain)
    }

    /// What was sealed for it.
    ///
    /// # Errors
    /// Why the envelope is none of it.
    pub fn open(&self, purpose: Purpose, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        Key::derive(&self.0, purpose.name())?.open(&self.hash(purpose), sealed)
    }
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read as a ticket is written as it was read.
    pub fn ticket(bytes: &[u8]) {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(ticket) = Ticket::parse(text)
        {
            assert_eq!(*ticket.text(), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ticket_opens_what_was_sealed_for_it_and_its_purpose_only() {
        let (one, other) = (Ticket::new([1; 32]), Ticket::new([2; 32]));
        let sealed = one.seal(Purpose::Attempt, [3; 12], b"plain").unwrap();
        assert_eq!(**one.open(Purpose::Attempt, &sealed).unwrap(), *b"plain");
        assert!(one.open(Purpose::Posted, &sealed).is_err());
        assert!(other.open(Purpose::Attempt, &sealed).is_err());
        assert_ne!(one.hash(Purpose::Attempt), one.hash(Purpose::Posted));
        assert_ne!(one.hash(Purpose::Attempt), other.hash(Purpose::Attempt));
    }

    #[test]
    fn a_ticket_is_read_as_it_is_written_and_in_no_other_spelling() {
        let text = Ticket::new([0xfb; 32]).text();
        assert_eq!(*Ticket::parse(&text).unwrap().text(), *text);
        let padded = format!("{}=", *text);
        let standard = text.replace('-', "+");
        for wrong in ["", "x", &text[..42], &padded, &standard, &"=".repeat(43)] {
            assert!(Ticket::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-_A-Za-z0-9=+]{40,46}") {
            fuzzing::ticket(text.as_bytes());
        }
    }
}
