//! Hash, MAC and AEAD envelope, given keys and nonces.
//!
//! An envelope is `version (1) | nonce (12) | ciphertext | tag (16)`, AES-256-GCM. The version and
//! the caller's context are authenticated with it, so that an envelope opens only as what it was
//! sealed as, in the place it was sealed for.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, hmac};
use zeroize::Zeroizing;

/// Bytes of a nonce; 96 random bits are enough for 2^32 envelopes a key (NIST SP 800-38D §8.3).
pub const NONCE_BYTES: usize = NONCE_LEN;
/// What sealing adds to the plain text.
pub const OVERHEAD_BYTES: usize = 1 + NONCE_LEN + MAX_TAG_LEN;
const VERSION: u8 = 1;

/// A key that seals and opens; derived, never stored.
pub struct Key(LessSafeKey);

/// Why an envelope was not made or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// The plain text is longer than AES-GCM allows, or the library failed.
    Seal,
    /// Shorter than an empty envelope.
    TooShort,
    /// Of a version this program does not know.
    UnknownVersion,
    /// Another key, another context, or altered bytes.
    NotAuthentic,
}

impl std::fmt::Display for SealError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Seal => "the envelope can't be made",
            Self::TooShort => "the envelope is cut short",
            Self::UnknownVersion => "the envelope is of an unknown version",
            Self::NotAuthentic => "the envelope was made with another key or was altered",
        })
    }
}

impl std::error::Error for SealError {}

impl Key {
    /// The key that `secret` gives for `purpose` (HKDF-SHA-256, RFC 5869). `secret` must be of full
    /// entropy: a password is not.
    ///
    /// # Errors
    /// [`SealError::Seal`] if the library fails.
    pub fn derive(secret: &[u8; 32], purpose: &[u8]) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"portcullis")
            .extract(secret)
            .expand(&[purpose], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(bytes.as_mut_slice()))
            .map_err(|_| SealError::Seal)?;
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map_err(|_| SealError::Seal)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// An envelope of `plain` that opens only with this key and `context`. A `nonce` must be random
    /// and never come twice with one key.
    ///
    /// # Errors
    /// [`SealError::Seal`] if the library fails.
    pub fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        context: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let mut body = Zeroizing::new(plain.to_vec());
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(versioned(context)),
                body.as_mut_slice(),
            )
            .map_err(|_| SealError::Seal)?;
        let mut envelope = Vec::with_capacity(plain.len().saturating_add(OVERHEAD_BYTES));
        envelope.push(VERSION);
        envelope.extend_from_slice(&nonce);
        envelope.extend_from_slice(&body);
        envelope.extend_from_slice(tag.as_ref());
        Ok(envelope)
    }

    /// What was sealed in `envelope` for `context`.
    ///
    /// # Errors
    /// Which of the ways in which it is not one of ours.
    pub fn open(&self, context: &[u8], envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if envelope.len() < OVERHEAD_BYTES {
            return Err(SealError::TooShort);
        }
        let (&version, rest) = envelope.split_first().ok_or(SealError::TooShort)?;
        if version != VERSION {
            return Err(SealError::UnknownVersion);
        }
        let (nonce, sealed) = rest.split_first_chunk().ok_or(SealError::TooShort)?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let opened = self
            .0
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(versioned(context)),
                plain.as_mut_slice(),
            )
            .map_err(|_| SealError::NotAuthentic)?
            .len();
        plain.truncate(opened);
        Ok(plain)
    }
}

fn versioned(context: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(context.len().saturating_add(1));
    aad.push(VERSION);
    aad.extend_from_slice(context);
    aad
}

/// SHA-256 of `bytes`.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    fixed(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// A key that makes and checks HMAC-SHA-256 over lists of parts.
pub struct Mac(hmac::Key);

impl Mac {
    /// The key of these bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The tag of `parts`. Each part goes in behind its length, so that no two lists are one
    /// (SECURITY.md T2: `a:bc` and `ab:c`).
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        fixed(self.over(parts).sign().as_ref())
    }

    /// Whether `tag` is the tag of `parts`, in constant time.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        same(&self.tag(parts), tag)
    }

    fn over(&self, parts: &[&[u8]]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            // INVARIANT: a length fits 64 bits on every platform we build for.
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        context
    }
}

/// Whether two byte strings are equal, in a time that tells nothing but their lengths.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

fn fixed(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // INVARIANT: SHA-256 gives 32 bytes; zip can't run over either end.
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// No bytes are an envelope that somebody sealed.
    #[expect(clippy::expect_used, reason = "a panic is the finding")]
    pub fn envelope(bytes: &[u8]) {
        let key = Key::derive(&[1; 32], b"fuzz").expect("a key");
        assert!(key.open(b"", bytes).is_err());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::derive(&[byte; 32], b"test").unwrap()
    }

    #[test]
    fn an_envelope_opens_with_its_key_and_context_only() {
        let envelope = key(1).seal([7; 12], b"here", b"secret").unwrap();
        assert_eq!(**key(1).open(b"here", &envelope).unwrap(), *b"secret");
        assert_eq!(
            key(2).open(b"here", &envelope).unwrap_err(),
            SealError::NotAuthentic
        );
        assert_eq!(
            key(1).open(b"there", &envelope).unwrap_err(),
            SealError::NotAuthentic
        );
        let other_purpose = Key::derive(&[1; 32], b"other").unwrap();
        assert_eq!(
            other_purpose.open(b"here", &envelope).unwrap_err(),
            SealError::NotAuthentic
        );
    }

    #[test]
    fn every_altered_bit_is_noticed() {
        let envelope = key(1).seal([7; 12], b"here", b"secret").unwrap();
        for at in 0..envelope.len() {
            for bit in 0..8 {
                let mut altered = envelope.clone();
                altered[at] ^= 1 << bit;
                let expected = if at == 0 {
                    SealError::UnknownVersion
                } else {
                    SealError::NotAuthentic
                };
                assert_eq!(
                    key(1).open(b"here", &altered).unwrap_err(),
                    expected,
                    "byte {at}"
                );
            }
        }
    }

    #[test]
    fn a_cut_envelope_is_refused_at_every_length() {
        let envelope = key(1).seal([7; 12], b"here", b"s").unwrap();
        for length in 0..envelope.len() {
            assert!(
                key(1).open(b"here", &envelope[..length]).is_err(),
                "length {length}"
            );
        }
    }

    #[test]
    fn a_tag_knows_where_its_parts_end() {
        let mac = Mac::new(&[1; 32]);
        assert_ne!(mac.tag(&[b"a", b"bc"]), mac.tag(&[b"ab", b"c"]));
        assert_ne!(mac.tag(&[b"abc"]), mac.tag(&[b"abc", b""]));
        assert!(mac.verify(&[b"a", b"bc"], &mac.tag(&[b"a", b"bc"])));
        assert!(!mac.verify(&[b"a", b"bc"], &[]));
    }

    #[test]
    fn sha_256_is_that_of_fips_180() {
        assert_eq!(hash(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_an_envelope(bytes: Vec<u8>) {
            fuzzing::envelope(&bytes);
        }

        #[test]
        fn what_is_sealed_opens(plain: Vec<u8>, context: Vec<u8>, nonce: [u8; 12]) {
            let envelope = key(1).seal(nonce, &context, &plain).unwrap();
            prop_assert_eq!(envelope.len(), plain.len() + OVERHEAD_BYTES);
            prop_assert_eq!(&**key(1).open(&context, &envelope).unwrap(), &plain[..]);
        }

        #[test]
        fn different_lists_have_different_tags(a: Vec<Vec<u8>>, b: Vec<Vec<u8>>) {
            let mac = Mac::new(&[1; 32]);
            let tag = |list: &[Vec<u8>]| {
                mac.tag(&list.iter().map(Vec::as_slice).collect::<Vec<_>>())
            };
            prop_assert_eq!(a == b, tag(&a) == tag(&b));
        }
    }
}
