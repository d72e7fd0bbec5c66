//! Tokens that the gate itself gives to programs: `pc_<id>_<secret><checksum>`.
//!
//! All but the beginning is lower-case hexadecimal: 12 digits that name the token, 64 of 256 random
//! bits, and 8 of a checksum over everything before them, so that a scanner for leaked secrets knows
//! one by `pc_[0-9a-f]{12}_[0-9a-f]{72}` and can tell it from a look-alike, and a mistyped one is told
//! from a revoked one. What is kept is SHA-256 of the secret: nobody guesses 256 random bits, however
//! quick the hash, so that one made slow on purpose, as for passwords, would slow down the gate alone.

use zeroize::Zeroizing;

use super::hex;
use super::seal;

/// What every token begins with.
pub const PREFIX: &str = "pc_";

const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;

/// What names a token: 12 lower-case hexadecimal digits, which are no secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Box<str>);

/// What a token looks like that was shown; nothing says yet that the gate gave it.
pub struct Shown {
    /// Which it claims to be.
    pub id: Id,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
}

/// It is no whole token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotWhole;

impl Id {
    /// The id of these random bytes.
    pub fn new(random: &[u8; ID_BYTES]) -> Self {
        Self(digits(random).into())
    }

    /// The id of this name.
    ///
    /// # Errors
    /// [`NotWhole`] for anything but its 12 digits.
    pub fn parse(text: &str) -> Result<Self, NotWhole> {
        bytes::<ID_BYTES>(text)?;
        Ok(Self(text.into()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text of a new token, which is shown once, and the hash of its secret, which is kept.
pub fn new(id: &Id, secret: &[u8; SECRET_BYTES]) -> (Zeroizing<String>, [u8; 32]) {
    let mut text = Zeroizing::new(String::with_capacity(88));
    text.push_str(PREFIX);
    text.push_str(&id.0);
    text.push('_');
    text.push_str(&Zeroizing::new(digits(secret)));
    let checksum = digits(&checksum(&text));
    text.push_str(&checksum);
    (text, seal::hash(secret))
}

/// Whether a token is one of ours by its looks, and nobody else's to see.
pub fn is_ours(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Reads a token that was shown.
///
/// # Errors
/// [`NotWhole`] if it is cut, altered by accident, or none of ours.
pub fn parse(text: &str) -> Result<Shown, NotWhole> {
    let rest = text.strip_prefix(PREFIX).ok_or(NotWhole)?;
    let (id, secret) = rest.split_once('_').ok_or(NotWhole)?;
    let id = Id::parse(id)?;
    let end = text.len().checked_sub(CHECKSUM_BYTES * 2).ok_or(NotWhole)?;
    let (before, check) = text.split_at_checked(end).ok_or(NotWhole)?;
    let (secret, _) = secret
        .split_at_checked(SECRET_BYTES * 2)
        .filter(|(_, check)| check.len() == CHECKSUM_BYTES * 2)
        .ok_or(NotWhole)?;
    let secret = Zeroizing::new(bytes::<SECRET_BYTES>(secret)?);
    if bytes::<CHECKSUM_BYTES>(check)? != checksum(before) {
        return Err(NotWhole);
    }
    let hash = seal::hash(secret.as_slice());
    Ok(Shown { id, hash })
}

/// The digits of a hash as files have it.
pub fn hash_text(hash: &[u8; 32]) -> String {
    digits(hash)
}

/// The hash that a file writes.
///
/// # Errors
/// [`NotWhole`] for anything but its 64 digits.
pub fn parse_hash(text: &str) -> Result<[u8; 32], NotWhole> {
    bytes(text)
}

fn checksum(text: &str) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = seal::hash(text.as_bytes());
    [a, b, c, d]
}

fn digits(bytes: &[u8]) -> String {
    let pairs = bytes.iter().flat_map(|byte| hex::lower(*byte));
    pairs.map(char::from).collect()
}

/// Exactly `N` bytes in lower-case digits: one spelling for one token.
fn bytes<const N: usize>(text: &str) -> Result<[u8; N], NotWhole> {
    let mut out = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(NotWhole);
    }
    for (to, [high, low]) in out.iter_mut().zip(pairs) {
        let high = hex::value_of(*high).ok_or(NotWhole)?;
        let low = hex::value_of(*low).ok_or(NotWhole)?;
        *to = high << 4 | low;
    }
    Ok(out)
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// Bytes make a token that reads as itself; a text that reads as a token has its one spelling.
    #[expect(clippy::expect_used, reason = "a panic is the finding")]
    pub fn machine_token(data: &[u8]) {
        if let Some((id, rest)) = data.split_first_chunk()
            && let Some(secret) = rest.first_chunk()
        {
            let (text, hash) = new(&Id::new(id), secret);
            let shown = parse(&text).expect("a token");
            assert_eq!((shown.id, shown.hash), (Id::new(id), hash));
        }
        if let Ok(text) = std::str::from_utf8(data)
            && let Ok(shown) = parse(text)
        {
            assert!(text.starts_with(&format!("pc_{}_", shown.id.as_str())));
            assert_eq!(text.len(), 88);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Zeroizing<String> {
        new(&Id::new(&[1; 6]), &[0xab; 32]).0
    }

    #[test]
    fn a_token_has_the_form_that_scanners_look_for() {
        let text = token();
        let secret = "ab".repeat(32);
        assert_eq!(text[..80], format!("pc_010101010101_{secret}"));
        assert_eq!(text.len(), 88);
        let shown = parse(&text).unwrap();
        assert_eq!(shown.id.as_str(), "010101010101");
        assert_eq!(shown.hash, seal::hash(&[0xab; 32]));
        assert_eq!(parse_hash(&hash_text(&shown.hash)), Ok(shown.hash));
    }

    #[test]
    fn a_token_that_is_not_whole_is_none() {
        let text = token();
        for end in 0..text.len() {
            assert!(parse(&text[..end]).is_err(), "{end}");
        }
        for at in 0..text.len() {
            let mut altered = text.as_bytes().to_vec();
            altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
            let altered = String::from_utf8(altered).unwrap();
            assert!(parse(&altered).is_err(), "{altered}");
        }
        for other in [
            format!("{}0", *text),
            text.to_uppercase(),
            text.replacen("pc_", "ghp_", 1),
            text.replacen('_', "", 1),
            format!(" {}", *text),
        ] {
            assert!(parse(&other).is_err(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_fuzz_body_holds(data in proptest::collection::vec(any::<u8>(), 0..48)) {
            fuzzing::machine_token(&data);
        }
    }
}
