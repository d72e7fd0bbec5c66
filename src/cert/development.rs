//! A certificate for trying out: an authority made at first run, which signs one certificate for
//! localhost and is then forgotten, so that nobody can sign another with it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::Error;

/// The authority, for a browser to trust.
pub const AUTHORITY: &str = "development-ca.pem";
/// The certificate.
pub const CHAIN: &str = "development.pem";
/// Its key.
pub const KEY: &str = "development.key";

/// Browsers refuse longer ones.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Made anew when less is left.
const RENEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Makes the certificate in `directory` unless a fresh one is there; the chain's and the key's paths.
///
/// # Errors
/// What can't be made or written.
pub fn ensure(directory: &Path, now: SystemTime) -> Result<(PathBuf, PathBuf), Error> {
    let (chain, key) = (directory.join(CHAIN), directory.join(KEY));
    if is_fresh(&chain, &key, now) {
        return Ok((chain, key));
    }
    let made = make(now).map_err(|error| Error::Library(error.to_string()))?;
    std::fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
    write(&directory.join(AUTHORITY), &made.authority, 0o644)?;
    write(&key, &made.key, 0o600)?;
    write(&chain, &made.chain, 0o644)?;
    Ok((chain, key))
}

fn is_fresh(chain: &Path, key: &Path, now: SystemTime) -> bool {
    let made = std::fs::metadata(chain).and_then(|file| file.modified());
    let age = made
        .ok()
        .map(|made| now.duration_since(made).unwrap_or_default());
    age.is_some_and(|age| age < LIFETIME.saturating_sub(RENEW))
        && super::files::load(chain, key).is_ok()
}

struct Made {
    authority: String,
    chain: String,
    key: String,
}

fn make(now: SystemTime) -> Result<Made, rcgen::Error> {
    let begins = now.checked_sub(Duration::from_secs(3600)).unwrap_or(now);
    let ends = now.checked_add(LIFETIME).unwrap_or(now);
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority
        .distinguished_name
        .push(DnType::CommonName, "Portcullis development authority");
    (authority.not_before, authority.not_after) = (begins.into(), ends.into());
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let names = ["localhost", "*.localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name
        .push(DnType::CommonName, "localhost");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (leaf.not_before, leaf.not_after) = (begins.into(), ends.into());
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    Ok(Made {
        authority: authority_certificate.pem(),
        chain: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// Writes beside and renames, so that nobody reads half a file; a key is never readable by others.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let result = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .and_then(|()| std::fs::rename(&beside, path));
    result.map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::File(format!("`{}` can't be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let (chain, key) = ensure(directory.path(), now).unwrap();
        assert_eq!(
            std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let before = std::fs::read(&chain).unwrap();
        ensure(directory.path(), now).unwrap();
        assert_eq!(std::fs::read(&chain).unwrap(), before);
        ensure(directory.path(), now + LIFETIME).unwrap();
        assert_ne!(std::fs::read(&chain).unwrap(), before);
    }
}
