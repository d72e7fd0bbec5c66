//! The key of what is shown of sessions: in a file of its own beside the store, so that a copy of the
//! store alone tells nobody who was signed in.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::keys::{self, SUMMARIES};
use crate::pure::seal::Key;

use super::OpenError;

/// The key beside the store at `path`, made if there is none. Whoever calls has the store open, which
/// only one process at a time has.
///
/// # Errors
/// The file can't be made or read, or holds no key.
pub(super) fn key(path: &Path) -> Result<Key, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".key");
    let file = PathBuf::from(name);
    let secret = match read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => make(&file),
        other => other,
    };
    secret
        .and_then(|secret| Key::derive(&secret, SUMMARIES).map_err(Error::other))
        .map_err(|error| {
            let named = format!("`{}`: {error}", file.display());
            OpenError::File(Error::new(error.kind(), named))
        })
}

fn read(path: &Path) -> Result<Zeroizing<[u8; 32]>, Error> {
    let file = File::open(path)?;
    // A file that was restored from a backup may be readable by others.
    file.set_permissions(Permissions::from_mode(0o600))?;
    let mut bytes = Zeroizing::new([0; 33]);
    let mut read = 0;
    let mut file = file.take(33);
    while let Some(rest) = bytes.get_mut(read..)
        && !rest.is_empty()
    {
        match file.read(rest)? {
            0 => break,
            some => read = read.saturating_add(some),
        }
    }
    let key = bytes.first_chunk().filter(|_| read == 32);
    key.map(|key| Zeroizing::new(*key)).ok_or_else(|| {
        let what = "this is no key of the gate's; with the file away one is made, \
                    and earlier sessions are listed without their devices";
        Error::new(ErrorKind::InvalidData, what)
    })
}

fn make(path: &Path) -> Result<Zeroizing<[u8; 32]>, Error> {
    let secret = keys::random().map_err(Error::other)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // What a killed gate left behind.
    drop(std::fs::remove_file(&new));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(secret.as_slice())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.redb");
        let sealed = key(&path).unwrap().seal([0; 12], b"", b"x").unwrap();
        assert_eq!(**key(&path).unwrap().open(b"", &sealed).unwrap(), *b"x");
        let file = dir.path().join("s.redb.key");
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_holds_no_key_is_said_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.redb.key");
        for wrong in [&[1_u8; 31][..], &[1; 33], b""] {
            std::fs::write(&file, wrong).unwrap();
            let error = key(&dir.path().join("s.redb")).err().unwrap().to_string();
            assert!(error.contains("s.redb.key"), "{error}");
            assert_eq!(std::fs::read(&file).unwrap(), wrong);
        }
    }
}
