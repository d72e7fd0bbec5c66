//! Passwords: hashes as files hold them, and a bounded pool that verifies them.
//!
//! A hash takes 20 MiB and tens of milliseconds by design, so it is made off the cores' runtimes, as
//! many at once as there are cores, with a short queue; beyond that the gateway is busy (503) and
//! stays responsive. Hashes that would take much more are refused when the file is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::pure::seal;

/// The longest password; longer ones only cost time.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// What new hashes cost: 19 MiB, two passes (OWASP's first choice for argon2id).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// What a hash from a file may cost at most.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 8;
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=15;
/// Verifications that wait for their turn: at 25 ms each, a wait under a second on two cores.
const QUEUE: usize = 64;

/// The hash of a password, as a file holds it. Never printed but to the file.
#[derive(Clone)]
pub struct Stored {
    text: Zeroizing<String>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Argon2id(Box<PasswordHash>),
    Bcrypt,
}

/// Why a text is not the hash of a password that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHash {
    /// `$apr1$`, `{SHA}`, crypt and the like: guessed by the billion a second.
    Weak(&'static str),
    /// A password in clear, or something else that is no hash.
    NotAHash,
    /// Begins like a hash that we know, and goes on otherwise.
    Malformed,
    /// Takes too much memory or time to verify.
    TooCostly,
}

impl std::fmt::Display for BadHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Weak(scheme) => {
                write!(
                    f,
                    "{scheme} hashes are too weak; make a new one with `portcullis hash-password`"
                )
            }
            Self::NotAHash => f.write_str(
                "this is not the hash of a password; make one with `portcullis hash-password`",
            ),
            Self::Malformed => f.write_str("the hash is cut short or altered"),
            Self::TooCostly => f.write_str(
                "the hash takes more than 256 MiB, 16 passes, 8 lanes or bcrypt cost 15 to verify",
            ),
        }
    }
}

impl std::error::Error for BadHash {}

impl Stored {
    /// The hash that `text` writes: argon2id as a PHC string, or bcrypt (`$2a$`, `$2b$`, `$2y$`).
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn parse(text: &str) -> Result<Self, BadHash> {
        let kind = if text.starts_with("$argon2id$") {
            let hash = PasswordHash::new(text).map_err(|_| BadHash::Malformed)?;
            check_cost(&hash)?;
            Kind::Argon2id(Box::new(hash))
        } else if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            check_bcrypt(text)?;
            Kind::Bcrypt
        } else {
            return Err(unknown(text));
        };
        Ok(Self {
            text: Zeroizing::new(text.to_owned()),
            kind,
        })
    }

    /// The hash of a new password; `salt` is random.
    ///
    /// # Errors
    /// [`BadPassword`] if it can't be one.
    pub fn new(password: &str, salt: &[u8; 16]) -> Result<Self, BadPassword> {
        acceptable(password)?;
        let params =
            Params::new(MEMORY_KIB, PASSES, 1, Some(32)).map_err(|_| BadPassword::Failed)?;
        Self::with(password, salt, params)
    }

    fn with(password: &str, salt: &[u8; 16], params: Params) -> Result<Self, BadPassword> {
        let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_with_salt(password.as_bytes(), salt)
            .map_err(|_| BadPassword::Failed)?;
        let text = Zeroizing::new(hash.to_string());
        Ok(Self {
            text,
            kind: Kind::Argon2id(Box::new(hash)),
        })
    }

    /// The text for a file of accounts, which only its owner may read.
    pub fn for_file(&self) -> &str {
        &self.text
    }

    /// What tells this hash from the one after a change of the password.
    pub fn fingerprint(&self) -> [u8; 16] {
        let hash = seal::hash(self.text.as_bytes());
        let mut short = [0; 16];
        for (to, from) in short.iter_mut().zip(hash) {
            *to = from;
        }
        short
    }

    /// Whether `password` is the one. Takes long; see [`Pool`].
    fn verify(&self, password: &str) -> bool {
        match &self.kind {
            Kind::Argon2id(hash) => Argon2::default()
                .verify_password(password.as_bytes(), &**hash)
                .is_ok(),
            // A password beyond bcrypt's 72 bytes is refused, not cut.
            Kind::Bcrypt => bcrypt::non_truncating_verify(password, &self.text).unwrap_or(false),
        }
    }
}

fn check_cost(hash: &PasswordHash) -> Result<(), BadHash> {
    let params = Params::try_from(hash).map_err(|_| BadHash::Malformed)?;
    let full = hash.salt.is_some() && hash.hash.as_ref().is_some_and(|out| out.len() >= 16);
    // Version 0x10 has a known weakness and nothing writes it any more.
    if !full || hash.version != Some(Version::V0x13.into()) {
        return Err(BadHash::Malformed);
    }
    if params.m_cost() > MAX_MEMORY_KIB
        || params.t_cost() > MAX_PASSES
        || params.p_cost() > MAX_LANES
    {
        return Err(BadHash::TooCostly);
    }
    Ok(())
}

fn check_bcrypt(text: &str) -> Result<(), BadHash> {
    let bytes = text.as_bytes();
    let (Some(&[tens, units, b'$']), Some(rest)) = (
        bytes.get(4..7).and_then(|cost| cost.first_chunk::<3>()),
        bytes.get(7..),
    ) else {
        return Err(BadHash::Malformed);
    };
    let cost = std::str::from_utf8(&[tens, units])
        .ok()
        .and_then(|cost| cost.parse::<u32>().ok());
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    if rest.len() != 53 || !rest.iter().all(alphabet) || !tens.is_ascii_digit() {
        return Err(BadHash::Malformed);
    }
    // The base64 of salt and hash is checked by the library itself; at the least cost it is quick.
    let cheapest = format!("$2b$04${}", text.get(7..).unwrap_or(""));
    bcrypt::verify("", &cheapest).map_err(|_| BadHash::Malformed)?;
    match cost {
        Some(cost) if BCRYPT_COSTS.contains(&cost) => Ok(()),
        Some(_) => Err(BadHash::TooCostly),
        None => Err(BadHash::Malformed),
    }
}

fn unknown(text: &str) -> BadHash {
    const WEAK: [(&str, &str); 10] = [
        ("$apr1$", "apr1 (MD5)"),
        ("$1$", "MD5"),
        ("{SHA}", "SHA-1"),
        ("{SSHA}", "salted SHA-1"),
        ("{MD5}", "MD5"),
        ("$2x$", "bcrypt 2x"),
        ("$5$", "SHA-256-crypt"),
        ("$6$", "SHA-512-crypt"),
        ("$argon2i$", "argon2i"),
        ("$argon2d$", "argon2d"),
    ];
    WEAK.iter()
        .find(|(prefix, _)| text.starts_with(prefix))
        .map_or(BadHash::NotAHash, |(_, name)| BadHash::Weak(name))
}

/// Why a password is not taken for a new account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPassword {
    /// Fewer than 8 characters (NIST SP 800-63B §5.1.1.2).
    TooShort,
    /// More than [`MAX_PASSWORD_BYTES`].
    TooLong,
    /// A control character, which no sign-in form can send.
    Control,
    /// The library failed, for want of memory for instance.
    Failed,
}

impl std::fmt::Display for BadPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the password is too short; take 8 characters or more",
            Self::TooLong => "the password is too long; take 1024 bytes or fewer",
            Self::Control => "the password holds a control character; leave it out",
            Self::Failed => "the password can't be hashed; is there enough memory?",
        })
    }
}

impl std::error::Error for BadPassword {}

fn acceptable(password: &str) -> Result<(), BadPassword> {
    if password.chars().count() < 8 {
        Err(BadPassword::TooShort)
    } else if password.len() > MAX_PASSWORD_BYTES {
        Err(BadPassword::TooLong)
    } else if password.chars().any(char::is_control) {
        Err(BadPassword::Control)
    } else {
        Ok(())
    }
}

/// Too many passwords are being verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// Verifies passwords off the request path, a bounded number at once.
pub struct Pool {
    turns: Arc<Semaphore>,
    inside: AtomicUsize,
    most: usize,
}

impl Pool {
    /// A pool that verifies `at_once` passwords at a time.
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.clamp(1, 256);
        Self {
            turns: Arc::new(Semaphore::new(at_once)),
            inside: AtomicUsize::new(0),
            most: at_once.saturating_add(QUEUE),
        }
    }

    /// Whether `password` is the one that `stored` was made of.
    ///
    /// # Errors
    /// [`Busy`] if too many wait, or the work was lost.
    pub async fn verify(
        &self,
        stored: Arc<Stored>,
        password: Zeroizing<String>,
    ) -> Result<bool, Busy> {
        let _place = Place::take(self).ok_or(Busy)?;
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(|_| Busy)?;
        // The turn goes along: a client that leaves does not make room while its hash is computed.
        tokio::task::spawn_blocking(move || {
            let right = stored.verify(&password);
            drop(turn);
            right
        })
        .await
        .map_err(|_| Busy)
    }
}

/// A place in the queue, given up when the request goes away.
struct Place<'p>(&'p Pool);

impl<'p> Place<'p> {
    fn take(pool: &'p Pool) -> Option<Self> {
        let place = Self(pool);
        (pool.inside.fetch_add(1, Ordering::Relaxed) < pool.most).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A hash that is cheap to verify, for tests of what stands above.
#[cfg(test)]
pub fn cheap(password: &str) -> Stored {
    Stored::with(password, &[1; 16], Params::new(64, 1, 1, Some(32)).unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, why: BadHash) {
        assert_eq!(Stored::parse(text).err(), Some(why), "{text}");
    }

    #[test]
    fn a_new_hash_is_argon2id_with_our_cost_and_verifies() {
        let stored = Stored::new("correct horse", &[7; 16]).unwrap();
        assert!(
            stored
                .for_file()
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
        let read = Stored::parse(stored.for_file()).unwrap();
        assert!(read.verify("correct horse"));
        assert!(!read.verify("correct horsf"));
        assert!(!read.verify(""));
    }

    #[test]
    fn bcrypt_of_htpasswd_verifies() {
        // Made by `htpasswd -nbB -C 5 x secret12`'s algorithm, in its three names.
        let made = bcrypt::hash_with_salt("secret12", 5, [9; 16]).unwrap();
        for version in ["2a", "2b", "2y"] {
            let text = made
                .format_for_version(bcrypt::Version::TwoB)
                .replace("2b", version);
            let stored = Stored::parse(&text).unwrap();
            assert!(stored.verify("secret12"), "{text}");
            assert!(!stored.verify("secret13"));
        }
    }

    #[test]
    fn a_password_beyond_bcrypts_reach_is_refused_and_not_cut() {
        let made = bcrypt::hash_with_salt("x".repeat(72), 4, [9; 16]).unwrap();
        let stored = Stored::parse(&made.format_for_version(bcrypt::Version::TwoY)).unwrap();
        assert!(!stored.verify(&"x".repeat(73)));
    }

    #[test]
    fn weak_schemes_are_named_and_refused() {
        refused(
            "$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00",
            BadHash::Weak("apr1 (MD5)"),
        );
        refused("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", BadHash::Weak("SHA-1"));
        refused("$6$salt$hash", BadHash::Weak("SHA-512-crypt"));
        refused("$2x$05$abc", BadHash::Weak("bcrypt 2x"));
        refused(
            "$argon2i$v=19$m=64,t=1,p=1$AAAA$AAAA",
            BadHash::Weak("argon2i"),
        );
        refused("hunter2", BadHash::NotAHash);
        refused("rqXexS6ZhobKA", BadHash::NotAHash);
        refused("", BadHash::NotAHash);
    }

    #[test]
    fn cut_or_costly_hashes_are_refused() {
        let salt_and_hash = "$AQEBAQEBAQEBAQEBAQEBAQ$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
        let argon2id = |head: &str| format!("$argon2id${head}{salt_and_hash}");
        assert!(Stored::parse(&argon2id("v=19$m=64,t=1,p=1")).is_ok());
        refused(&argon2id("v=16$m=64,t=1,p=1"), BadHash::Malformed);
        refused(&argon2id("v=19$m=262145,t=1,p=1"), BadHash::TooCostly);
        refused(&argon2id("v=19$m=64,t=17,p=1"), BadHash::TooCostly);
        refused(&argon2id("v=19$m=1024,t=1,p=9"), BadHash::TooCostly);
        refused("$argon2id$v=19$m=64,t=1,p=1", BadHash::Malformed);
        refused(
            "$argon2id$v=19$m=64,t=1,p=1$AQEBAQEBAQEBAQEBAQEBAQ",
            BadHash::Malformed,
        );
        let good = bcrypt::hash_with_salt("x", 4, [9; 16]).unwrap();
        let good = good.format_for_version(bcrypt::Version::TwoY);
        refused(&good.replace("$04$", "$16$"), BadHash::TooCostly);
        refused(&good.replace("$04$", "$+4$"), BadHash::Malformed);
        refused(&good[..59], BadHash::Malformed);
        refused(&good.replace("$04$", "$04_"), BadHash::Malformed);
    }

    #[test]
    fn new_passwords_have_bounds() {
        for (password, why) in [
            ("short12", BadPassword::TooShort),
            ("", BadPassword::TooShort),
            ("with\0null", BadPassword::Control),
            (&"x".repeat(1025), BadPassword::TooLong),
        ] {
            assert_eq!(Stored::new(password, &[0; 16]).err(), Some(why));
        }
    }

    #[test]
    fn a_changed_password_changes_the_fingerprint() {
        assert_eq!(cheap("x").fingerprint(), cheap("x").fingerprint());
        assert_ne!(cheap("x").fingerprint(), cheap("y").fingerprint());
    }

    #[tokio::test]
    async fn the_pool_verifies() {
        let pool = Pool::new(2);
        let stored = Arc::new(cheap("right"));
        let ask =
            |password: &str| pool.verify(Arc::clone(&stored), Zeroizing::new(password.to_owned()));
        assert_eq!(ask("right").await, Ok(true));
        assert_eq!(ask("wrong").await, Ok(false));
    }

    #[tokio::test]
    async fn beyond_its_queue_the_pool_is_busy_and_places_come_back() {
        let pool = Arc::new(Pool::new(1));
        let turn = Arc::clone(&pool.turns).acquire_owned().await.unwrap();
        let stored = Arc::new(cheap("right"));
        let ask = || {
            let (pool, stored) = (Arc::clone(&pool), Arc::clone(&stored));
            async move {
                pool.verify(stored, Zeroizing::new("right".to_owned()))
                    .await
            }
        };
        let waiting: Vec<_> = (0..pool.most).map(|_| tokio::spawn(ask())).collect();
        while pool.inside.load(Ordering::Relaxed) < pool.most {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask().await, Err(Busy));
        for one in &waiting[1..] {
            one.abort();
        }
        while pool.inside.load(Ordering::Relaxed) > 1 {
            tokio::task::yield_now().await;
        }
        drop(turn);
        assert_eq!(ask().await, Ok(true));
    }
}
