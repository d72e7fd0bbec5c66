//! Certificates and keys from PEM files.

use std::path::Path;
use std::sync::Arc;

use memchr::memmem;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use zeroize::Zeroizing;

use super::Error;

/// Loads a chain, the certificate first, and its key.
///
/// # Errors
/// What is wrong with either file.
pub fn load(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, Error> {
    let pem = Zeroizing::new(read(key)?);
    let (chain_name, key_name) = (chain.display().to_string(), key.display().to_string());
    let parsed = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        // Neither of the two forms of an encrypted key is read as a key.
        if memmem::find(&pem, b"ENCRYPTED").is_some() {
            Error::EncryptedKey(key_name.clone())
        } else if matches!(error, pem::Error::NoItemsFound) {
            Error::NoKey(key_name.clone())
        } else {
            Error::MalformedKey(key_name.clone())
        }
    })?;
    let signing =
        any_supported_type(&parsed).map_err(|_| Error::UnsupportedKey(key_name.clone()))?;
    let certified = CertifiedKey::new(certificates(chain)?, signing);
    match certified.keys_match() {
        Ok(()) => Ok(Arc::new(certified)),
        Err(TlsError::InconsistentKeys(
            InconsistentKeys::KeyMismatch | InconsistentKeys::Unknown,
        )) => Err(Error::KeyMismatch {
            chain: chain_name,
            key: key_name,
        }),
        Err(_) => Err(Error::MalformedCertificate(chain_name)),
    }
}

/// Every certificate of a file.
///
/// # Errors
/// None in it, or one that can't be read.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let name = || file.display().to_string();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(Error::NoCertificate(name())),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(Error::MalformedCertificate(name())),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| Error::Unreadable {
        file: file.display().to_string(),
        why: error.kind(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::path::PathBuf;

    struct Files {
        directory: tempfile::TempDir,
        chain: String,
        key: String,
    }

    fn files() -> Files {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        Files {
            directory: tempfile::tempdir().unwrap(),
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    impl Files {
        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        /// What loading says, with the directory taken out of the names.
        fn load(&self, chain: &str, key: &str) -> Result<(), String> {
            std::fs::write(self.path("a.pem"), chain).unwrap();
            std::fs::write(self.path("a.key"), key).unwrap();
            let loaded = load(&self.path("a.pem"), &self.path("a.key"));
            let directory = format!("{}/", self.directory.path().display());
            loaded
                .map(|_| ())
                .map_err(|error| error.to_string().replace(&directory, ""))
        }
    }

    #[test]
    fn a_chain_and_its_key_are_loaded() {
        let files = files();
        assert_eq!(files.load(&files.chain, &files.key), Ok(()));
        let both = format!("{}{}", files.key, files.chain);
        assert_eq!(files.load(&both, &both), Ok(()), "in one file");
    }

    #[test]
    fn each_fault_is_named_with_its_file_and_what_to_do() {
        let files = files();
        let other = self::files();
        let malformed = |pem: &str| {
            let (head, body) = pem.split_once('\n').unwrap();
            let (_, foot) = body.split_at(body.find("-----END").unwrap());
            format!("{head}\nMAMCAQE=\n{foot}")
        };
        let encrypted = files.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        for (chain, key, expected) in [
            (
                &files.chain,
                &other.key,
                "the key in `a.key` is not that of the first certificate in `a.pem`; the \
                 certificate comes first, then those that signed it",
            ),
            (
                &files.key,
                &files.key,
                "`a.pem` holds no certificate; expected PEM, `-----BEGIN CERTIFICATE-----`",
            ),
            (
                &files.chain,
                &files.chain,
                "`a.key` holds no private key; expected PEM, `-----BEGIN PRIVATE KEY-----`",
            ),
            (
                &files.chain,
                &encrypted,
                "the key in `a.key` is encrypted; decrypt it with `openssl pkey` and keep the file \
                 readable by the gate alone",
            ),
            (
                &malformed(&files.chain),
                &files.key,
                "a certificate in `a.pem` can't be read; is the file whole?",
            ),
            (
                &files.chain.replace("END", "ENT"),
                &files.key,
                "a certificate in `a.pem` can't be read; is the file whole?",
            ),
            (
                &files.chain,
                &files.key.replace("END", "ENT"),
                "the key in `a.key` can't be read; is the file whole?",
            ),
            (
                &files.chain,
                &malformed(&files.key),
                "the key in `a.key` is of a kind that is not supported; expected ECDSA P-256, P-384 \
                 or P-521, Ed25519, or RSA from 2048 to 8192 bits",
            ),
        ] {
            assert_eq!(files.load(chain, key), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let files = files();
        let missing = files.path("none.pem");
        assert_eq!(
            certificates(&missing),
            Err(Error::Unreadable {
                file: missing.display().to_string(),
                why: ErrorKind::NotFound,
            })
        );
    }
}
