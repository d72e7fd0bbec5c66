//! The only holder of key bytes of this process, and the only source of random ones.
//!
//! What needs a key asks here; nothing here can be printed, copied or compared.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::pure::assertion::{self, PublicKey, Statement, Unstated};
use crate::pure::rotation::{self, BadLine, Plan};
use crate::pure::seal::{self, Mac, same};
use crate::pure::session::Seconds;

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

/// A pair whose private half signs assertions.
struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    id: String,
    made: Seconds,
}

impl SigningKey {
    fn new(pair: EcdsaKeyPair, made: Seconds) -> Option<Self> {
        let public = PublicKey::at(pair.public_key().as_ref())?;
        let id = public.id();
        Some(Self {
            pair,
            public,
            id,
            made,
        })
    }

    fn generate(made: Seconds) -> Result<Self, NoRandom> {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| NoRandom)?;
        Self::new(pair, made).ok_or(NoRandom)
    }

    fn sign(&self, statement: &Statement<'_>, id: &str) -> Result<String, Unsigned> {
        let message = statement.to_sign(id).map_err(Unsigned::Unstated)?;
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes());
        let signature = signature.map_err(|_| Unsigned::NoKey)?;
        Ok(assertion::signed(message, signature.as_ref()))
    }
}

/// The keys that sign assertions, or did, or will: the oldest first, and at least one.
pub struct SigningKeys(Vec<Arc<SigningKey>>);

/// Why a file holds no signing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKeys {
    /// A line that is none of ours.
    Line(usize),
    /// A pair that is none on P-256.
    Pair(usize),
    /// There is none in it.
    None,
}

impl std::fmt::Display for BadKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number} is not as the gate writes it"),
            Self::Pair(number) => write!(f, "line {number} has no P-256 key"),
            Self::None => f.write_str("there is no key in it"),
        }
    }
}

impl std::error::Error for BadKeys {}

/// Why nothing is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    /// It can't be stated.
    Unstated(Unstated),
    /// There is no key, or signing failed.
    NoKey,
}

impl SigningKeys {
    /// The keys of a file.
    ///
    /// # Errors
    /// Why there are none that can be used; not one of them is passed over.
    pub fn read(text: &str) -> Result<Self, BadKeys> {
        let stored = rotation::read(text).map_err(|BadLine(number)| BadKeys::Line(number))?;
        if stored.is_empty() {
            return Err(BadKeys::None);
        }
        let keys = stored.iter().zip(1..).map(|(key, number)| {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.pkcs8)
                .ok()
                .and_then(|pair| SigningKey::new(pair, key.made))
                .map(Arc::new)
                .ok_or(BadKeys::Pair(number))
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The file of these keys.
    ///
    /// # Errors
    /// [`NoRandom`] if the library can't write one.
    pub fn write(&self) -> Result<Zeroizing<String>, NoRandom> {
        let pairs = self.0.iter().map(|key| {
            let pair = key.pair.to_pkcs8v1().map_err(|_| NoRandom)?;
            Ok((key.made, pair))
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        Ok(rotation::write(
            pairs.iter().map(|(made, pair)| (*made, pair.as_ref())),
        ))
    }

    /// One new key.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn generate(now: SystemTime) -> Result<Self, NoRandom> {
        Ok(Self(vec![Arc::new(SigningKey::generate(Seconds::of(
            now,
        ))?)]))
    }

    /// The keys that there are to be at `now`, where each signs for as long as `every`; none if
    /// these are they.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn rotated(&self, now: SystemTime, every: Duration) -> Result<Option<Self>, NoRandom> {
        let now = Seconds::of(now);
        let Plan { drop, make } = rotation::plan(&self.made(), now, every);
        if drop == 0 && !make {
            return Ok(None);
        }
        let mut keys: Vec<_> = self.0.iter().skip(drop).map(Arc::clone).collect();
        if make {
            keys.push(Arc::new(SigningKey::generate(now)?));
        }
        Ok(Some(Self(keys)))
    }

    /// Signs a statement with the key whose turn it is.
    ///
    /// # Errors
    /// Why it can't be stated or signed.
    pub fn sign(&self, statement: &Statement<'_>) -> Result<String, Unsigned> {
        let key = self.turn_at(statement.now).ok_or(Unsigned::NoKey)?;
        key.sign(statement, &key.id)
    }

    /// A forgery: signed by a key that nobody knows, under the id of the one whose turn it is.
    ///
    /// # Errors
    /// Why it can't be stated or signed.
    pub fn forge(&self, statement: &Statement<'_>) -> Result<String, Unsigned> {
        let key = self.turn_at(statement.now).ok_or(Unsigned::NoKey)?;
        let other = SigningKey::generate(statement.now).map_err(|_| Unsigned::NoKey)?;
        other.sign(statement, &key.id)
    }

    fn turn_at(&self, now: Seconds) -> Option<&SigningKey> {
        let turn = rotation::signer(&self.made(), now);
        turn.and_then(|turn| self.0.get(turn)).map(|key| &**key)
    }

    /// The public halves, for whoever verifies.
    pub fn key_set(&self) -> String {
        assertion::key_set(self.0.iter().map(|key| &key.public))
    }

    fn made(&self) -> Vec<Seconds> {
        self.0.iter().map(|key| key.made).collect()
    }
}

/// The signing keys in force; none until a policy asks for assertions.
#[derive(Default)]
pub struct Signer(ArcSwapOption<SigningKeys>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// The keys.
    pub fn keys(&self) -> Option<Arc<SigningKeys>> {
        self.0.load_full()
    }

    /// Puts other keys in force.
    pub fn replace(&self, keys: SigningKeys) {
        self.0.store(Some(Arc::new(keys)));
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
    /// The key of this text.
    ///
    /// # Errors
    /// [`WeakKey`] if it is too short, too long, or not visible ASCII.
    pub fn new(text: &[u8]) -> Result<Self, WeakKey> {
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
            (&[&key[..], b"\n"].concat(), false),
            (&[b'k'; 31], false),
            (&[&key[..], b" k"].concat(), false),
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

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const BEGIN: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn signing_keys_survive_their_file() {
        let keys = SigningKeys::generate(BEGIN + 5 * DAY).unwrap();
        let keys = keys.rotated(BEGIN + 40 * DAY, 30 * DAY).unwrap().unwrap();
        let text = keys.write().unwrap();
        assert_eq!(text.lines().count(), 2);
        let again = SigningKeys::read(&text).unwrap();
        assert_eq!(again.key_set(), keys.key_set());
        assert_eq!(again.made(), keys.made());
        assert_eq!(*again.write().unwrap(), *text);
    }

    #[test]
    fn rotation_publishes_then_signs_then_forgets() {
        let month = 30 * DAY;
        let first = SigningKeys::generate(BEGIN).unwrap();
        assert!(first.rotated(BEGIN + 29 * DAY, month).unwrap().is_none());
        let both = first.rotated(BEGIN + month, month).unwrap().unwrap();
        assert_eq!(both.0.len(), 2);
        assert!(both.rotated(BEGIN + 31 * DAY, month).unwrap().is_none());
        let last = both.rotated(BEGIN + 32 * DAY, month).unwrap().unwrap();
        assert_eq!(last.0.len(), 1);
        assert!(both.key_set().contains(&last.0[0].id));
        assert!(!last.key_set().contains(&first.0[0].id));
    }

    #[test]
    fn a_file_with_a_bad_key_has_no_good_ones() {
        let good = SigningKeys::generate(BEGIN).unwrap().write().unwrap();
        let bad = |text: String| SigningKeys::read(&text).err();
        assert_eq!(bad(format!("{}1 AAAA\n", *good)), Some(BadKeys::Pair(2)));
        assert_eq!(bad(format!("{}\n", *good)), Some(BadKeys::Line(2)));
        assert_eq!(bad(String::new()), Some(BadKeys::None));
    }

    #[test]
    fn the_published_key_verifies_what_was_signed_and_no_other_does() {
        use crate::pure::identity::User;
        use crate::pure::jwk::{Algorithm, KeySet};
        let user = User {
            name: "bob".into(),
            provider: "corp".into(),
            email: None,
            groups: Vec::new(),
            claims: Arc::default(),
            signed_in_at: BEGIN,
        };
        let statement = Statement {
            issuer: "https://wiki.test",
            audience: "wiki",
            user: &user,
            email: true,
            groups: true,
            method: "GET",
            host: "wiki.test",
            path: "/",
            query: None,
            now: Seconds(0),
            id: [0; 16],
        };
        let keys = SigningKeys::generate(BEGIN).unwrap();
        let token = keys.sign(&statement).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let verifies = |keys: &SigningKeys, id: Option<&str>, message: &str| {
            let set = KeySet::parse(keys.key_set().as_bytes()).unwrap();
            let key = set.find(Algorithm::Es256, id).unwrap();
            key.verifies(Algorithm::Es256, message.as_bytes(), signature)
        };
        assert!(verifies(&keys, Some(&keys.0[0].id), message));
        assert!(!verifies(&keys, None, &message[1..]));
        assert!(!verifies(
            &SigningKeys::generate(BEGIN).unwrap(),
            None,
            message
        ));
        // As long as was reckoned with.
        assert_eq!(signature.len(), 86);
    }
}
