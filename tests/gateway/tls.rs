//! Certificates of a test's own, and clients that trust them.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{PATIENCE, Setup};

/// One certificate for every name of the tests; it is its own authority.
pub(crate) struct Certificates {
    chain: CertificateDer<'static>,
    chain_pem: String,
    key_pem: String,
}

/// A connection under TLS.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Certificates {
    /// For `app.test` and `other.test`.
    pub(crate) fn new() -> Self {
        let names = ["app.test".to_owned(), "other.test".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        Self {
            chain: made.cert.der().clone(),
            chain_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        }
    }

    /// A TLS listener with one policy for `app.test`; `listener` is what else the listener says.
    pub(crate) fn setup(&self, policy: &str, listener: &str) -> Setup {
        let mut setup = Setup::plain(policy);
        setup.gateway = format!(
            "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n{listener}\n\
             [tls]\ncertificates = [{{ chain = \"gate.pem\", key = \"gate.key\" }}]\n"
        );
        setup
            .file("gate.pem", &self.chain_pem)
            .file("gate.key", &self.key_pem)
    }

    /// What a client speaks in, of the protocols in `alpn`.
    pub(crate) fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut config = builder(self).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A connection to `name`, of which one byte has not been sent yet.
    pub(crate) fn connect(&self, address: SocketAddr, name: &'static str, alpn: &str) -> TlsStream {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let client = ClientConnection::new(self.client(&[alpn]), server(name));
        StreamOwned::new(client.expect("a client"), stream)
    }
}

/// The name of a server.
pub(crate) fn server(name: &'static str) -> ServerName<'static> {
    ServerName::try_from(name).expect("a name")
}

fn builder(
    certificates: &Certificates,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(certificates.chain.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
}

/// Somebody who shows a certificate.
pub(crate) struct Person {
    /// The authority, in PEM.
    pub(crate) authority: String,
    chain: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Person {
    /// With an authority of their own.
    pub(crate) fn new() -> Self {
        let authority_key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).expect("an authority");
        let issuer = rcgen::Issuer::new(params, authority_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let chain = params.signed_by(&key, &issuer).expect("a certificate");
        Self {
            authority: authority.pem(),
            chain: chain.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        }
    }

    /// A client of `certificates` that shows theirs.
    pub(crate) fn client(&self, certificates: &Certificates, alpn: &str) -> Arc<ClientConfig> {
        let chain = vec![self.chain.clone()];
        let config = builder(certificates).with_client_auth_cert(chain, self.key.clone_key());
        let mut config = config.expect("a client");
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Arc::new(config)
    }
}
