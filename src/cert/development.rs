//! A certificate for trying out: an authority made at first run, which signs one certificate for
//! localhost and is then forgotten, so that nobody can sign another with it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use zeroize::Zeroizing;

use super::{Error, files};
use crate::pure::validity::{self, Validity};

/// The authority, for a browser to trust.
pub const AUTHORITY: &str = "development-ca.pem";
/// The certificate.
pub const CHAIN: &str = "development.pem";
/// Its key.
pub const KEY: &str = "development.key";

/// What the certificate is for. Few clients take the wildcard, since it stands right below a top-level
/// name; it serves those that do.
const NAMES: [&str; 4] = ["localhost", "*.localhost", "127.0.0.1", "::1"];
/// Browsers refuse certificates that hold for more than 398 days.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Made anew when less is left.
const RENEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// For clients whose clock is behind ours.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// Makes the certificate in `directory` unless a fresh one is there; the chain's and the key's paths.
///
/// # Errors
/// What can't be made or written.
pub fn ensure(directory: &Path, now: SystemTime) -> Result<(PathBuf, PathBuf), Error> {
    let authority = directory.join(AUTHORITY);
    let (chain, key) = (directory.join(CHAIN), directory.join(KEY));
    if files::certificates(&authority).is_ok() && is_fresh(&chain, &key, now) {
        return Ok((chain, key));
    }
    let made = make(now).map_err(Error::Making)?;
    std::fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
    // A run that ends between two of these leaves what `is_fresh` refuses.
    write(&authority, &made.authority, 0o644)?;
    write(&key, &made.key, 0o600)?;
    write(&chain, &made.chain, 0o644)?;
    Ok((chain, key))
}

/// Whether the certificate and its key can be used for some time yet.
fn is_fresh(chain: &Path, key: &Path, now: SystemTime) -> bool {
    let Ok(loaded) = files::load(chain, key) else {
        return false;
    };
    let validity = loaded.cert.first().map(|leaf| validity::parse(leaf));
    let (Some(Ok(Validity { begins, ends })), Some(soon)) = (validity, now.checked_add(RENEW))
    else {
        return false;
    };
    begins <= now && soon <= ends
}

struct Made {
    authority: String,
    chain: String,
    key: Zeroizing<String>,
}

fn make(now: SystemTime) -> Result<Made, rcgen::Error> {
    let begins = now.checked_sub(BACKDATED).unwrap_or(now);
    let ends = now.checked_add(LIFETIME).unwrap_or(now);
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name = name("Portcullis development authority");
    (authority.not_before, authority.not_after) = (begins.into(), ends.into());
    let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let mut leaf = CertificateParams::new(NAMES.map(str::to_owned))?;
    leaf.distinguished_name = name("localhost");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Tells the authorities of two years apart, which share a name.
    leaf.use_authority_key_identifier_extension = true;
    (leaf.not_before, leaf.not_after) = (begins.into(), ends.into());
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    Ok(Made {
        authority: authority_certificate.pem(),
        chain: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

fn name(common: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Writes beside and renames, so that nobody reads half a file; a key is never readable by others.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    // One left by a run that was killed; what can't be removed can't be created either.
    let _ = std::fs::remove_file(&beside);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::Unwritable {
        file: path.display().to_string(),
        why: error.kind(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::tests::{handshake, server};
    use crate::cert::{Certificates, Store};
    use rustls::{ClientConfig, RootCertStore};
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    #[test]
    fn it_is_made_once_and_renewed_when_a_month_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let certs = directory.path().join("made/certs");
        let now = SystemTime::now();
        ensure(&certs, now).unwrap();
        let first = contents(&certs);
        assert_eq!(
            first.keys().collect::<Vec<_>>(),
            [AUTHORITY, KEY, CHAIN],
            "and nothing else, the authority's key above all"
        );
        ensure(&certs, now + LIFETIME - RENEW - DAY).unwrap();
        assert_eq!(contents(&certs), first);
        ensure(&certs, now + LIFETIME - RENEW + DAY).unwrap();
        let second = contents(&certs);
        assert!(first.iter().all(|(name, text)| second[name] != *text));
        ensure(&certs, now).unwrap();
        assert_ne!(contents(&certs), second, "it is from the future");
    }

    #[test]
    fn it_is_made_anew_when_a_file_is_missing_or_broken() {
        for name in [AUTHORITY, CHAIN, KEY] {
            for text in [None, Some("broken")] {
                let directory = tempfile::tempdir().unwrap();
                let now = SystemTime::now();
                let (chain, key) = ensure(directory.path(), now).unwrap();
                let path = directory.path().join(name);
                match text {
                    None => std::fs::remove_file(&path).unwrap(),
                    Some(text) => std::fs::write(&path, text).unwrap(),
                }
                ensure(directory.path(), now).unwrap();
                assert!(is_fresh(&chain, &key, now), "{name} {text:?}");
                assert!(files::certificates(&directory.path().join(AUTHORITY)).is_ok());
            }
        }
    }

    #[test]
    fn its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let (_, key) = ensure(directory.path(), SystemTime::now()).unwrap();
        let mode = std::fs::metadata(key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_is_not_written_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = directory.path().join("elsewhere");
        std::fs::write(&elsewhere, "mine").unwrap();
        let certs = directory.path().join("certs");
        std::fs::create_dir(&certs).unwrap();
        std::os::unix::fs::symlink(&elsewhere, certs.join(KEY)).unwrap();
        ensure(&certs, SystemTime::now()).unwrap();
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "mine");
    }

    #[test]
    fn what_can_not_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("certs");
        std::fs::write(&file, "").unwrap();
        assert_eq!(
            ensure(&file, SystemTime::now()),
            Err(Error::Unwritable {
                file: file.display().to_string(),
                why: io::ErrorKind::AlreadyExists,
            })
        );
    }

    #[test]
    fn a_browser_that_trusts_the_authority_trusts_it_for_localhost_alone() {
        let directory = tempfile::tempdir().unwrap();
        let pair = ensure(directory.path(), SystemTime::now()).unwrap();
        let server = server(Store::new(Certificates::load(&[pair]).unwrap()), None);
        let mut roots = RootCertStore::empty();
        for authority in files::certificates(&directory.path().join(AUTHORITY)).unwrap() {
            roots.add(authority).unwrap();
        }
        let client = ClientConfig::builder_with_provider(server.crypto_provider().clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Arc::new(client);
        for name in ["localhost", "127.0.0.1", "::1"] {
            handshake(&client, &server, name).unwrap();
        }
        for name in ["example.com", "a.b.localhost", "127.0.0.2"] {
            assert!(handshake(&client, &server, name).is_err(), "{name}");
        }
    }
}
