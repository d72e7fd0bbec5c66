//! A secret from where the configuration says that it is kept.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::secret::SecretSource;

/// Bytes of a secret.
const MOST_BYTES: u64 = 64 * 1024;

/// Reads a secret; the configuration is in `directory`.
///
/// # Errors
/// Why it can't be read, which shows nothing of it.
pub fn load(source: &SecretSource, directory: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    if let SecretSource::Env(variable) = source {
        let secret =
            std::env::var_os(variable).ok_or_else(|| format!("there is no `${variable}`"))?;
        return Ok(Zeroizing::new(secret.into_encoded_bytes()));
    }
    let path =
        file(source, directory).ok_or("there are no credentials: systemd did not start this")?;
    let shown = path.display();
    let failed = |error| format!("`{shown}` can't be read: {error}");
    if std::fs::metadata(&path).map_err(failed)?.len() > MOST_BYTES {
        return Err(format!("`{shown}` is larger than 64 KiB"));
    }
    std::fs::read(&path).map(Zeroizing::new).map_err(failed)
}

/// The file that holds a secret, when one does.
pub fn file(source: &SecretSource, directory: &Path) -> Option<PathBuf> {
    match source {
        SecretSource::File(file) => Some(directory.join(file)),
        SecretSource::Credential(name) => {
            let credentials = std::env::var_os("CREDENTIALS_DIRECTORY")?;
            Some(Path::new(&credentials).join(name))
        }
        SecretSource::Env(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_its_file_holds() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("key"), "hunter2\n").unwrap();
        let read = |name: &str| load(&SecretSource::File(name.into()), home.path());
        assert_eq!(**read("key").unwrap(), *b"hunter2\n");
        assert!(read("gone").unwrap_err().contains("gone` can't be read"));
        std::fs::write(home.path().join("large"), [b'a'; 65 * 1024]).unwrap();
        assert!(
            read("large")
                .unwrap_err()
                .ends_with("is larger than 64 KiB")
        );
        let variable = SecretSource::Env("PORTCULLIS_NO_SUCH_SECRET".to_owned());
        let error = load(&variable, home.path()).unwrap_err();
        assert_eq!(error, "there is no `$PORTCULLIS_NO_SUCH_SECRET`");
    }
}
