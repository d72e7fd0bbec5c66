//! Certificates of the gate: which one a client gets, and taking new ones up.

pub mod files;
pub mod development;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, RootCertStore, ServerConfig};

use crate::pure::validity;

/// Why a certificate can't be used; the text says what to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// A file can't be read.
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        why: io::ErrorKind,
    },
    /// A file or directory can't be written.
    Unwritable {
        /// The file.
        file: String,
        /// What the system says.
        why: io::ErrorKind,
    },
    /// The file holds no certificate in PEM.
    NoCertificate(String),
    /// A certificate in the file is none.
    MalformedCertificate(String),
    /// A certificate in the file can't be an authority.
    NoAuthority(String),
    /// The file holds no private key in PEM.
    NoKey(String),
    /// The key in the file is none.
    MalformedKey(String),
    /// The key in the file needs a passphrase.
    EncryptedKey(String),
    /// The key in the file is of another algorithm or size.
    UnsupportedKey(String),
    /// The key is not the certificate's.
    KeyMismatch {
        /// The certificate's file.
        chain: String,
        /// The key's file.
        key: String,
    },
    /// No certificate is configured.
    None,
    /// The TLS library refuses.
    Library(rustls::Error),
    /// The development certificate can't be made.
    Making(rcgen::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, why } => {
                write!(
                    f,
                    "`{file}` can't be read: {why}; the gate's user must be able to"
                )
            }
            Self::Unwritable { file, why } => {
                write!(
                    f,
                    "`{file}` can't be written: {why}; the gate's user must be able to"
                )
            }
            Self::NoCertificate(file) => write!(
                f,
                "`{file}` holds no certificate; expected PEM, `-----BEGIN CERTIFICATE-----`"
            ),
            Self::MalformedCertificate(file) => {
                write!(
                    f,
                    "a certificate in `{file}` can't be read; is the file whole?"
                )
            }
            Self::NoAuthority(file) => write!(
                f,
                "a certificate in `{file}` can't be an authority for client certificates"
            ),
            Self::NoKey(file) => write!(
                f,
                "`{file}` holds no private key; expected PEM, `-----BEGIN PRIVATE KEY-----`"
            ),
            Self::MalformedKey(file) => {
                write!(f, "the key in `{file}` can't be read; is the file whole?")
            }
            Self::EncryptedKey(file) => write!(
                f,
                "the key in `{file}` is encrypted; decrypt it with `openssl pkey` and keep the file \
                 readable by the gate alone"
            ),
            Self::UnsupportedKey(file) => write!(
                f,
                "the key in `{file}` is of a kind that is not supported; expected ECDSA P-256, \
                 P-384 or P-521, Ed25519, or RSA from 2048 to 8192 bits"
            ),
            Self::KeyMismatch { chain, key } => write!(
                f,
                "the key in `{key}` is not that of the first certificate in `{chain}`; the \
                 certificate comes first, then those that signed it"
            ),
            Self::None => f.write_str(
                "no certificate: set `[tls] certificates`, or `development = true` to try out",
            ),
            Self::Library(error) => write!(f, "TLS can't be set up: {error}"),
            Self::Making(error) => {
                write!(f, "the development certificate can't be made: {error}")
            }
        }
    }
}

impl std::error::Error for Error {}

/// The certificates in force, by the names they are for.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the part after `*.`; a wildcard stands for one label (RFC 6125 §6.4.3).
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
    expiries: Vec<(String, SystemTime)>,
}

impl Certificates {
    /// Loads chains and their keys, in the order of the configuration: the first one for a name
    /// serves it, and the first of all serves the names that none is for.
    ///
    /// # Errors
    /// What is wrong with any of the files, or that there is none.
    pub fn load(pairs: &[(PathBuf, PathBuf)]) -> Result<Self, Error> {
        let mut certificates = Self::default();
        for (chain, key) in pairs {
            certificates.add(chain.display().to_string(), files::load(chain, key)?)?;
        }
        match certificates.default {
            Some(_) => Ok(certificates),
            None => Err(Error::None),
        }
    }

    fn add(&mut self, file: String, key: Arc<CertifiedKey>) -> Result<(), Error> {
        let malformed = || Error::MalformedCertificate(file.clone());
        let leaf = key.end_entity_cert().map_err(|_| malformed())?;
        let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|_| malformed())?;
        let ends = validity::parse(leaf).map_err(|_| malformed())?.ends;
        for name in parsed.valid_dns_names() {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()),
                None => self.exact.entry(name),
            }
            .or_insert_with(|| Arc::clone(&key));
        }
        self.default.get_or_insert(key);
        self.expiries.push((file, ends));
        Ok(())
    }

    /// When each certificate ends, by the file it came from.
    pub fn expiries(&self) -> &[(String, SystemTime)] {
        &self.expiries
    }

    /// `name` is in lower case.
    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let by_name = name.and_then(|name| {
            let name = name.strip_suffix('.').unwrap_or(name);
            let by_parent = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(by_parent)
        });
        by_name.or(self.default.as_ref())
    }
}

/// What handshakes choose from; replaced whole when files change.
#[derive(Debug, Default)]
pub struct Store(ArcSwap<Certificates>);

impl Store {
    /// With these certificates in force.
    pub fn new(certificates: Certificates) -> Self {
        Self(ArcSwap::from_pointee(certificates))
    }

    /// Takes new certificates up: handshakes from now on see them.
    pub fn replace(&self, certificates: Certificates) {
        self.0.store(Arc::new(certificates));
    }

    /// When each certificate in force ends, by the file it came from.
    pub fn expiries(&self) -> Vec<(String, SystemTime)> {
        self.0.load().expiries().to_vec()
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.0.load().find(name.as_deref()).cloned()
    }
}

/// Takes client certificates that an authority in `ca` signed; without `required`, clients that
/// show none are let in too, and the pipeline sees that they showed none.
///
/// # Errors
/// What is wrong with the file.
pub fn client_verifier(ca: &Path, required: bool) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in files::certificates(ca)? {
        roots
            .add(certificate)
            .map_err(|_| Error::NoAuthority(ca.display().to_string()))?;
    }
    let provider = Arc::new(default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder
        .build()
        .map_err(|error| Error::Library(rustls::Error::General(error.to_string())))
}

/// The server's side of TLS: 1.3 and 1.2, HTTP/2 and HTTP/1.1, X25519MLKEM768 first. Of the groups
/// that both know the client's order decides, so that a client which knows X25519MLKEM768 and does
/// not prefer it gets what it prefers.
///
/// Each call makes its own ticket keys, so that no session resumes at a listener, or after a
/// reload, with another rule about client certificates.
///
/// # Errors
/// What the library refuses.
pub fn server_config(
    store: Arc<Store>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, Error> {
    let mut provider = default_provider();
    // As Mozilla's guidelines have it: AES-128 is as far out of reach as AES-256, and its SHA-256 is in
    // hardware where SHA-384, a sixth of a handshake, is not.
    provider
        .cipher_suites
        .sort_by_key(|suite| !is_aes_128(suite.suite()));
    let builder = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(Error::Library)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(store);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    config.ticketer = Ticketer::new().map_err(Error::Library)?;
    config.send_tls13_tickets = 1;
    // Early data can be replayed; no gate can tell a replayed request from a new one.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

const fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

#[cfg(test)]
mod tests;
