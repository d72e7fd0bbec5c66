//! The keys of issuers: from a file, or from a URL, kept fresh ahead of time.

use std::path::Path;

use crate::pure::jwk::{BadKeySet, KeySet, MAX_SET_BYTES};

use super::kept::{Document, Kept};

/// An issuer's keys.
pub type Keys = Kept<KeySet>;

impl Document for KeySet {
    const WHAT: &'static str = "keys";
    const MOST_BYTES: usize = MAX_SET_BYTES;

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::parse(bytes).map_err(|why| why.to_string())
    }
}

/// Why the keys of a file can't be used.
#[derive(Debug)]
pub enum BadFile {
    /// It can't be read.
    Unreadable(std::io::Error),
    /// It is no key set.
    NotKeys(BadKeySet),
}

impl std::fmt::Display for BadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "the key set can't be read: {why}"),
            Self::NotKeys(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for BadFile {}

/// The keys in a file.
///
/// # Errors
/// Why they can't be used.
pub fn from_file(path: &Path) -> Result<Keys, BadFile> {
    let bytes = std::fs::read(path).map_err(BadFile::Unreadable)?;
    KeySet::parse(&bytes)
        .map(Kept::fixed)
        .map_err(BadFile::NotKeys)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use crate::identity::kept::{Asker, NoNewer};
    use crate::pure::jwk::Algorithm;
    use crate::pure::jwk::tests::{Signer, set};

    use super::*;

    #[tokio::test]
    async fn keys_of_a_file_are_there_at_once_and_never_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        std::fs::write(&path, set(&[Signer::ed25519().jwk("a")])).unwrap();
        let keys = from_file(&path).unwrap();
        let known = keys.current().unwrap();
        assert!(known.value.find(Algorithm::EdDsa, Some("a")).is_ok());
        assert!(!keys.needs_attendance());
        let later = UNIX_EPOCH + Duration::from_secs(40);
        let newer = keys.newer(Some(1), Asker::Issuer, later).await;
        assert_eq!(newer.err(), Some(NoNewer::Same));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(
            from_file(&path),
            Err(BadFile::NotKeys(BadKeySet::NotASet))
        ));
        let missing = from_file(&dir.path().join("none"));
        assert!(matches!(missing, Err(BadFile::Unreadable(_))));
    }
}
