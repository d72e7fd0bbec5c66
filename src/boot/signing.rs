//! The keys that sign, on disk: made when something is first to be signed, rotated by age.
//!
//! Only the gate reads and writes the file, and nobody else may. A key is on the disk before it is
//! published, so that no restart loses one that verifiers know.

use std::fmt;
use std::fs::{File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::identity::accounts;
use crate::keys::{BadKeys, NoRandom, Signer, SigningKeys};

/// Sixteen keys, the most that there can be, are shorter.
const MOST_BYTES: u64 = 16 * 1024;

/// Why the keys can't be used.
#[derive(Debug)]
pub enum Error {
    /// The file can't be read or written.
    File(std::io::Error),
    /// It holds none.
    Keys(BadKeys),
    /// None can be made.
    Random(NoRandom),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Keys(why) => write!(f, "{why}; move the file away to begin with a new key"),
            Self::Random(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

impl From<NoRandom> for Error {
    fn from(why: NoRandom) -> Self {
        Self::Random(why)
    }
}

/// Keeps the keys; one for as long as the process lives.
pub struct Keeper {
    file: PathBuf,
    signer: Arc<Signer>,
    every_s: AtomicU64,
}

impl Keeper {
    /// One for the keys in `file`, which is not touched before somebody asks for them; `signer` signs
    /// with them.
    pub fn new(file: PathBuf, signer: Arc<Signer>) -> Self {
        Self {
            file,
            signer,
            every_s: AtomicU64::new(u64::MAX),
        }
    }

    /// What signs with them.
    pub const fn signer(&self) -> &Arc<Signer> {
        &self.signer
    }

    /// The file that they are in.
    pub fn file(&self) -> std::path::Display<'_> {
        self.file.display()
    }

    /// Sees to it that there are keys, and that each signs for as long as `every` from now on.
    ///
    /// # Errors
    /// Why there are none.
    pub fn ensure(&self, every: Duration, now: SystemTime) -> Result<(), Error> {
        self.every_s.store(every.as_secs(), Ordering::Relaxed);
        if self.signer.keys().is_none() {
            let keys = match self.read()? {
                Some(keys) => keys,
                None => self.keep(SigningKeys::generate(now)?)?,
            };
            self.signer.replace(keys);
        }
        self.rotate(now).map(|_| ())
    }

    /// Publishes a new key and forgets old ones, as their ages have it; whether anything changed.
    ///
    /// # Errors
    /// Why it can't; the keys before stay in force.
    pub fn rotate(&self, now: SystemTime) -> Result<bool, Error> {
        let every = Duration::from_secs(self.every_s.load(Ordering::Relaxed));
        let Some(keys) = self.signer.keys() else {
            return Ok(false);
        };
        let Some(rotated) = keys.rotated(now, every)? else {
            return Ok(false);
        };
        self.signer.replace(self.keep(rotated)?);
        Ok(true)
    }

    /// The keys in the file; none where there is no file.
    ///
    /// # Errors
    /// Why it can't be read.
    pub fn read(&self) -> Result<Option<SigningKeys>, Error> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        file.set_permissions(Permissions::from_mode(0o600))?;
        // As much as may be read at once, so that no copy is left behind where the text grew.
        let most = usize::try_from(MOST_BYTES).unwrap_or_default();
        let mut text = Zeroizing::new(String::with_capacity(most));
        file.take(MOST_BYTES).read_to_string(&mut text)?;
        SigningKeys::read(&text).map(Some).map_err(Error::Keys)
    }

    fn keep(&self, keys: SigningKeys) -> Result<SigningKeys, Error> {
        let text = keys.write()?;
        if let Some(directory) = self.file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let mut new = self.file.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        // What a killed gate left behind.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        accounts::replace(&self.file, &new, &text)?;
        Ok(keys)
    }
}

/// The keepers of all keys that sign: what was signed for one purpose never counts for another.
pub struct Keepers {
    /// Of what backends are told.
    pub assertions: Arc<Keeper>,
    /// Of what providers know the gate by.
    pub client: Arc<Keeper>,
}

/// Where the keys are that providers know the gate by.
pub const CLIENT_FILE: &str = "state/client.keys";
/// How long each of them signs.
pub const CLIENT_TURN: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const BEGIN: SystemTime = SystemTime::UNIX_EPOCH;

    fn published(keeper: &Keeper) -> String {
        keeper.signer().keys().unwrap().key_set()
    }

    #[test]
    fn a_first_key_is_made_for_the_gate_alone_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("state/assertion.keys");
        let keeper = Keeper::new(file.clone(), Arc::default());
        assert!(keeper.signer().keys().is_none() && !file.exists());
        keeper.ensure(30 * DAY, BEGIN).unwrap();
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        // Restored from somewhere, for everybody to read.
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let again = Keeper::new(file.clone(), Arc::default());
        again.ensure(30 * DAY, BEGIN + DAY).unwrap();
        assert_eq!(published(&again), published(&keeper));
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn a_new_key_is_on_the_disk_before_it_is_published() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("assertion.keys");
        let keeper = Keeper::new(file.clone(), Arc::default());
        keeper.ensure(30 * DAY, BEGIN).unwrap();
        let first = published(&keeper);
        assert!(!keeper.rotate(BEGIN + 29 * DAY).unwrap());
        // A directory in the place of the new file: nothing can be written.
        std::fs::create_dir(home.path().join("assertion.keys.new")).unwrap();
        assert!(keeper.rotate(BEGIN + 30 * DAY).is_err());
        assert_eq!(published(&keeper), first);
        std::fs::remove_dir(home.path().join("assertion.keys.new")).unwrap();
        assert!(keeper.rotate(BEGIN + 30 * DAY).unwrap());
        assert_ne!(published(&keeper), first);
        let again = Keeper::new(file, Arc::default());
        again.ensure(30 * DAY, BEGIN + 30 * DAY).unwrap();
        assert_eq!(published(&again), published(&keeper));
    }

    #[test]
    fn a_file_that_can_not_be_read_is_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("assertion.keys");
        std::fs::write(&file, "nonsense\n").unwrap();
        let keeper = Keeper::new(file.clone(), Arc::default());
        let error = keeper.ensure(30 * DAY, BEGIN).unwrap_err();
        assert!(matches!(error, Error::Keys(BadKeys::Line(1))), "{error}");
        assert!(keeper.signer().keys().is_none());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "nonsense\n");
    }
}
