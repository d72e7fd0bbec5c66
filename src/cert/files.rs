//! Certificates and keys from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Error;

/// Loads a chain and its key.
///
/// # Errors
/// What is wrong with either file.
pub fn load(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, Error> {
    let key_bytes = zeroize::Zeroizing::new(read(key)?);
    let chain_bytes = read(chain)?;
    let chain = certificates(&chain_bytes, &chain.display().to_string())?;
    certified_from(chain, &key_bytes, &key.display().to_string())
}

/// Reads a file, with a message that says what to do.
///
/// # Errors
/// [`Error::File`].
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path)
        .map_err(|error| Error::File(format!("`{}` can't be read: {error}", path.display())))
}

/// A chain and its key from PEM text; `file` names them in errors.
///
/// # Errors
/// What is wrong with either.
pub fn certified(chain: &[u8], key: &[u8], file: &str) -> Result<Arc<CertifiedKey>, Error> {
    certified_from(certificates(chain, file)?, key, file)
}

fn certified_from(
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
    file: &str,
) -> Result<Arc<CertifiedKey>, Error> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::NoKey(file.to_owned()))?;
    let key = any_supported_type(&key).map_err(|_| Error::KeyMismatch(file.to_owned()))?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(|_| Error::KeyMismatch(file.to_owned()))?;
    Ok(Arc::new(certified))
}

/// Every certificate of PEM text.
///
/// # Errors
/// None in it, or one that can't be read.
pub fn certificates(pem: &[u8], file: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::NoCertificate(file.to_owned())),
        Err(_) => Err(Error::Malformed(file.to_owned())),
    }
}
