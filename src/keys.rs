//! The only holder of key bytes of this process, and the only source of random ones.
//!
//! What needs a key asks here; nothing here can be printed, copied or compared.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::pure::seal::{Mac, same};

/// The operating system gave no random bytes; nothing that needs them may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandom;

impl std::fmt::Display for NoRandom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the operating system gives no random bytes")
    }
}

impl std::error::Error for NoRandom {}

/// `N` bytes from the operating system's generator (SECURITY.md S9).
///
/// # Errors
/// [`NoRandom`] if it gives none.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandom> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// Keys made anew at each start: what they protect need not outlive the process.
pub struct Keys {
    csrf: Mac,
    credentials: Mac,
}

impl Keys {
    /// Fresh keys.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandom> {
        Ok(Self {
            csrf: Mac::new(&*random()?),
            credentials: Mac::new(&*random()?),
        })
    }

    /// The key of the sign-in form's tokens.
    pub const fn csrf(&self) -> &Mac {
        &self.csrf
    }

    /// The key under which verified and failed credentials are remembered.
    pub const fn credentials(&self) -> &Mac {
        &self.credentials
    }
}

/// A key that another program has, too.
pub struct SharedKey(Zeroizing<Vec<u8>>);

/// A key that can be guessed, or that does not fit into a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeakKey;

impl std::fmt::Display for WeakKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("expected a key of 32 to 1024 visible ASCII characters, as `openssl rand -hex 32` makes one")
    }
}

impl std::error::Error for WeakKey {}

impl SharedKey {
    /// The key that a file holds; a line end after it is not part of it.
    ///
    /// # Errors
    /// [`WeakKey`] if it is too short, too long, or not visible ASCII.
    pub fn new(text: &[u8]) -> Result<Self, WeakKey> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let fits = (32..=1024).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        fits.then(|| Self(Zeroizing::new(text.to_vec())))
            .ok_or(WeakKey)
    }

    /// Whether somebody has said it, in a time that tells nothing but its length.
    pub fn is(&self, said: &[u8]) -> bool {
        same(&self.0, said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_key_is_long_enough_and_visible() {
        let key = [b'k'; 32];
        for (text, fits) in [
            (&key[..], true),
            (&[&key[..], b"\r\n"].concat(), true),
            (&[b'k'; 31], false),
            (&[&key[..], b" k"].concat(), false),
            (&[&key[..], b"\n\n"].concat(), false),
            (&[&key[..], "é".as_bytes()].concat(), false),
            (&[b'k'; 1025], false),
        ] {
            let read = SharedKey::new(text);
            assert_eq!(read.as_ref().is_ok_and(|read| read.is(&key)), fits);
            assert!(!read.is_ok_and(|read| read.is(b"") || read.is(&key[1..])));
        }
    }

    #[test]
    fn random_bytes_differ_and_are_balanced() {
        let mut ones = 0;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let bytes = random::<32>().unwrap();
            ones += bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
            assert!(seen.insert(*bytes));
        }
        // 256,000 fair bits: mean 128,000, standard deviation 253; ten of them never happen.
        assert!((125_470..=130_530).contains(&ones), "{ones}");
    }

    #[test]
    fn keys_differ_from_each_other() {
        let keys = Keys::generate().unwrap();
        assert_ne!(keys.csrf().tag(&[b"x"]), keys.credentials().tag(&[b"x"]));
    }
}
