//! Certificates of the gate: which one a client gets, and taking new ones up.

pub mod files;
pub mod development;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

/// Why a certificate can't be used; the message says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A file can't be read or written.
    File(String),
    /// The file holds no certificate in PEM.
    NoCertificate(String),
    /// The file holds no private key in PEM.
    NoKey(String),
    /// The key is of a kind that is not supported, or not the certificate's.
    KeyMismatch(String),
    /// A certificate can't be read.
    Malformed(String),
    /// The cryptography library refuses.
    Library(String),
    /// No certificate is configured.
    None,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(text) => f.write_str(text),
            Self::NoCertificate(file) => write!(
                f,
                "`{file}` holds no PEM certificate; it begins with `-----BEGIN CERTIFICATE-----`"
            ),
            Self::NoKey(file) => write!(
                f,
                "`{file}` holds no PEM private key; it begins with `-----BEGIN PRIVATE KEY-----`"
            ),
            Self::KeyMismatch(file) => write!(
                f,
                "the key in `{file}` is not the certificate's, or of a kind that is not supported"
            ),
            Self::Malformed(file) => write!(f, "a certificate in `{file}` can't be read"),
            Self::Library(text) => write!(f, "TLS can't be set up: {text}"),
            Self::None => f.write_str(
                "no certificate: set `[tls] certificates`, or `development = true` to try out",
            ),
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
}

impl Certificates {
    /// In the order of the configuration: the first one for a name serves it, and the first of all
    /// serves the names that none is for.
    ///
    /// # Errors
    /// A certificate that can't be read, by its place.
    pub fn new(keys: Vec<Arc<CertifiedKey>>) -> Result<Self, Error> {
        let mut certificates = Self::default();
        for (at, key) in keys.into_iter().enumerate() {
            let malformed = || Error::Malformed(format!("certificate {}", at.saturating_add(1)));
            let leaf = key.end_entity_cert().map_err(|_| malformed())?;
            let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|_| malformed())?;
            for name in parsed.valid_dns_names() {
                let name = name.to_ascii_lowercase();
                match name.strip_prefix("*.") {
                    Some(parent) => certificates.wildcard.entry(parent.to_owned()),
                    None => certificates.exact.entry(name),
                }
                .or_insert_with(|| Arc::clone(&key));
            }
            certificates.default.get_or_insert(key);
        }
        Ok(certificates)
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let by_name = name.and_then(|name| {
            let parent = || {
                name.split_once('.')
                    .and_then(|(_, parent)| self.wildcard.get(parent))
            };
            self.exact.get(name).or_else(parent)
        });
        by_name.or(self.default.as_ref()).cloned()
    }
}

/// What handshakes choose from; replaced whole when files change.
#[derive(Debug, Default)]
pub struct Store(ArcSwap<Certificates>);

impl Store {
    /// Takes new certificates up: handshakes from now on see them.
    pub fn replace(&self, certificates: Certificates) {
        self.0.store(Arc::new(certificates));
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.0.load().find(name.as_deref())
    }
}

/// The server's side of TLS: 1.3 and 1.2, X25519MLKEM768 first, HTTP/2 and HTTP/1.1. Each listener
/// has its own ticket keys, so that a session never resumes where another rule about client
/// certificates holds.
///
/// # Errors
/// What the library refuses.
pub fn server_config(
    store: Arc<Store>,
    clients: Option<(&[u8], bool)>,
) -> Result<Arc<ServerConfig>, Error> {
    let library = |error: rustls::Error| Error::Library(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(library)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((authorities, required)) => {
            let mut roots = RootCertStore::empty();
            for certificate in files::certificates(authorities, "ca")? {
                roots.add(certificate).map_err(library)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier
                .build()
                .map_err(|error| Error::Library(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(store);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(library)?;
    config.send_tls13_tickets = 1;
    // Early data can be replayed; no gate can tell a replayed request from a new one.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, ServerConnection};

    fn key(names: &[&str]) -> Arc<CertifiedKey> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        files::certified(
            made.cert.pem().as_bytes(),
            made.signing_key.serialize_pem().as_bytes(),
            "test",
        )
        .unwrap()
    }

    fn handshake(keys: &[Arc<CertifiedKey>], name: &str) -> (Vec<u8>, rustls::NamedGroup) {
        let store = Arc::new(Store::default());
        store.replace(Certificates::new(keys.to_vec()).unwrap());
        let mut server = ServerConnection::new(server_config(store, None).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for key in keys {
            roots.add(key.cert[0].clone()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut &bytes[..]).unwrap();
            client.process_new_packets().unwrap();
        }
        let shown = client.peer_certificates().unwrap()[0].to_vec();
        (
            shown,
            client.negotiated_key_exchange_group().unwrap().name(),
        )
    }

    #[derive(Debug)]
    struct Anybody;
    impl rustls::client::danger::ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            provider
                .signature_verification_algorithms
                .supported_schemes()
        }
    }

    #[test]
    fn the_name_asked_for_chooses_the_certificate() {
        let keys = [key(&["default.test"]), key(&["a.test", "*.b.test"])];
        let second = keys[1].cert[0].to_vec();
        let first = keys[0].cert[0].to_vec();
        for (name, expected) in [
            ("a.test", &second),
            ("x.b.test", &second),
            ("x.y.b.test", &first),
            ("b.test", &first),
            ("unknown.test", &first),
        ] {
            assert_eq!(&handshake(&keys, name).0, expected, "{name}");
        }
    }

    #[test]
    fn the_post_quantum_group_is_chosen_first() {
        assert_eq!(
            handshake(&[key(&["a.test"])], "a.test").1,
            rustls::NamedGroup::X25519MLKEM768
        );
    }
}
