//! Secrets from where the configuration says they are kept.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::pure::secret::SecretSource;

/// The longest secret.
const MOST_BYTES: u64 = 64 * 1024;

/// Why there is no secret. The text names where it was looked for, and nothing of what was found.
#[derive(Debug)]
pub enum BadSecret {
    /// The file can't be read.
    Unreadable(PathBuf, std::io::Error),
    /// The file, variable or credential is empty.
    Empty(String),
    /// It is longer than 64 KiB, or no text.
    NoText(String),
    /// There is no such environment variable.
    NoVariable(String),
    /// The process was started without systemd credentials.
    NoCredentials,
}

impl std::fmt::Display for BadSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, why) => {
                write!(f, "the secret in `{}` can't be read: {why}", path.display())
            }
            Self::Empty(place) => write!(f, "the secret in `{place}` is empty"),
            Self::NoText(place) => write!(f, "the secret in `{place}` is too long, or no text"),
            Self::NoVariable(name) => write!(f, "the environment variable `{name}` is not set"),
            Self::NoCredentials => {
                f.write_str("there are no systemd credentials: `$CREDENTIALS_DIRECTORY` is not set")
            }
        }
    }
}

impl std::error::Error for BadSecret {}

/// The secret that `source` names; files are below `base`.
///
/// # Errors
/// Why there is none.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the environment is read"
)]
pub fn load(source: &SecretSource, base: &Path) -> Result<Zeroizing<String>, BadSecret> {
    match source {
        SecretSource::File(file) => read(&base.join(file)),
        SecretSource::Credential(name) => {
            let directory =
                std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(BadSecret::NoCredentials)?;
            read(&Path::new(&directory).join(name))
        }
        SecretSource::Env(name) => match std::env::var(name) {
            Ok(value) if value.is_empty() => Err(BadSecret::Empty(name.clone())),
            Ok(value) => Ok(Zeroizing::new(value)),
            Err(std::env::VarError::NotPresent) => Err(BadSecret::NoVariable(name.clone())),
            Err(std::env::VarError::NotUnicode(_)) => Err(BadSecret::NoText(name.clone())),
        },
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, BadSecret> {
    let unreadable = |why| BadSecret::Unreadable(path.to_owned(), why);
    let place = || path.display().to_string();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = Zeroizing::new(String::new());
    let read = file
        .take(MOST_BYTES.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|why| {
            if why.kind() == std::io::ErrorKind::InvalidData {
                BadSecret::NoText(place())
            } else {
                unreadable(why)
            }
        })?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MOST_BYTES {
        return Err(BadSecret::NoText(place()));
    }
    // A line end after it does not belong to it.
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(BadSecret::Empty(place()));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_a_file_ends_before_its_line_end() {
        let home = tempfile::tempdir().unwrap();
        let source = SecretSource::File("s".into());
        for (text, secret) in [
            ("hunter2", Some("hunter2")),
            ("hunter2\n", Some("hunter2")),
            ("hunter2\r\n", Some("hunter2")),
            (" a b \n\n", Some(" a b \n")),
            ("\n", None),
            ("", None),
        ] {
            std::fs::write(home.path().join("s"), text).unwrap();
            let loaded = load(&source, home.path()).ok();
            assert_eq!(
                loaded.as_ref().map(|text| text.as_str()),
                secret,
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_said_without_showing_it_t12() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("long"), "x".repeat(70_000)).unwrap();
        std::fs::write(home.path().join("bytes"), b"hunter2\xff").unwrap();
        for source in [
            SecretSource::File("none".into()),
            SecretSource::File("long".into()),
            SecretSource::File("bytes".into()),
            SecretSource::Env("PORTCULLIS_NO_SUCH_VARIABLE".to_owned()),
        ] {
            let why = load(&source, home.path()).unwrap_err().to_string();
            assert!(!why.contains("hunter2") && !why.contains("xxx"), "{why}");
        }
    }
}
