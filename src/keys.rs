//! The only holder of key bytes of this process, and the only source of random ones.
//!
//! What needs a key asks here; nothing here can be printed, copied or compared.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::pure::seal::{self, Mac};

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

/// A secret that several gates have in common, and the keys that come from it.
pub struct Common(Mac);

impl Common {
    /// The keys of a secret, which must be as hard to guess as 32 random bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(Mac::new(&seal::hash(secret)))
    }

    /// The key of what sessions are found by.
    pub fn index(&self) -> Mac {
        self.key(b"index of sessions")
    }

    fn key(&self, purpose: &[u8]) -> Mac {
        Mac::new(&Zeroizing::new(self.0.tag(&[purpose])))
    }
}

/// Keys made anew at each start: what they protect need not outlive the process.
pub struct Keys {
    csrf: Mac,
    credentials: Mac,
    failures: Mac,
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
            failures: Mac::new(&*random()?),
        })
    }

    /// Fresh keys, but for what another gate has to know: a form that one of them made may be sent
    /// to the other, and who guesses at one is to be slowed at the other.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn in_common(common: &Common) -> Result<Self, NoRandom> {
        Ok(Self {
            csrf: common.key(b"forms"),
            credentials: Mac::new(&*random()?),
            failures: common.key(b"failures"),
        })
    }

    /// The key of the sign-in form's tokens.
    pub const fn csrf(&self) -> &Mac {
        &self.csrf
    }

    /// The key under which verified credentials are remembered.
    pub const fn credentials(&self) -> &Mac {
        &self.credentials
    }

    /// The key under which failures are counted.
    pub const fn failures(&self) -> &Mac {
        &self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_ne!(keys.csrf().tag(&[b"x"]), keys.failures().tag(&[b"x"]));
    }

    #[test]
    fn gates_with_one_secret_know_each_others_forms_and_nothing_else_of_each_other() {
        let (secret, other) = (Common::new(&[7; 32]), Common::new(&[8; 32]));
        let gate = || Keys::in_common(&secret).unwrap();
        let tag = |mac: &Mac| mac.tag(&[b"x"]);
        assert_eq!(tag(gate().csrf()), tag(gate().csrf()));
        assert_ne!(tag(gate().credentials()), tag(gate().credentials()));
        assert_eq!(tag(gate().failures()), tag(gate().failures()));
        assert_ne!(tag(&secret.index()), tag(gate().csrf()));
        assert_ne!(tag(gate().failures()), tag(gate().csrf()));
        assert_ne!(tag(&secret.index()), tag(&other.index()));
    }
}
