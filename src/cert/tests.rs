use super::*;
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, Error as TlsError,
    HandshakeKind, NamedGroup, PeerIncompatible, ProtocolVersion, ServerConnection,
    SignatureScheme, SupportedProtocolVersion,
};
use std::time::Duration;

type Ends = (ClientConnection, ServerConnection);

/// A handshake in memory, and whatever the server sends after it.
pub(super) fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<Ends, TlsError> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

pub(super) fn server(
    store: Store,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Arc<ServerConfig> {
    server_config(Arc::new(store), clients).unwrap()
}

/// Trusts every server: what is tested is the server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// A client, with a certificate when there is one to show.
fn client(versions: &[&'static SupportedProtocolVersion], shows: Option<&Issued>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    match shows {
        None => builder.with_no_client_auth(),
        Some(issued) => builder
            .with_client_auth_cert(vec![issued.certificate.clone()], issued.key().into())
            .unwrap(),
    }
}

fn modern() -> Arc<ClientConfig> {
    Arc::new(client(&[&TLS13, &TLS12], None))
}

/// Self-signed certificates in files, one for each list of names.
fn certificates(names: &[&[&str]]) -> Certificates {
    let directory = tempfile::tempdir().unwrap();
    let pairs: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(at, names)| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let chain = directory.path().join(format!("{at}.pem"));
            let key = directory.path().join(format!("{at}.key"));
            std::fs::write(&chain, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            (chain, key)
        })
        .collect();
    Certificates::load(&pairs).unwrap()
}

fn simple() -> Store {
    Store::new(certificates(&[&["a.test"]]))
}

/// The names of the certificate that a client sees.
fn seen(server: &Arc<ServerConfig>, asked: &str) -> String {
    let (client, _) = handshake(&modern(), server, asked).unwrap();
    let leaf = &client.peer_certificates().unwrap()[0];
    let parsed = webpki::EndEntityCert::try_from(leaf).unwrap();
    parsed.valid_dns_names().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_name_asked_for_chooses_the_certificate() {
    let server = server(
        Store::new(certificates(&[
            &["default.test", "twice.test"],
            &["A.test", "*.B.test", "twice.test"],
            &["exact.b.test"],
        ])),
        None,
    );
    let (first, second) = ("default.test twice.test", "A.test *.B.test twice.test");
    for (asked, expected) in [
        ("a.test", second),
        ("A.TEST", second),
        ("x.b.test", second),
        ("exact.b.test", "exact.b.test"),
        ("twice.test", first),
        // A wildcard stands for one whole label.
        ("x.y.b.test", first),
        ("b.test", first),
        ("unknown.test", first),
        // A client sends no name when it asks for an address.
        ("192.0.2.1", first),
    ] {
        assert_eq!(seen(&server, asked), expected, "{asked}");
    }
}

#[test]
fn replaced_certificates_serve_the_next_handshake() {
    let store = Arc::new(simple());
    let server = server_config(Arc::clone(&store), None).unwrap();
    assert_eq!(seen(&server, "a.test"), "a.test");
    store.replace(certificates(&[&["b.test"]]));
    assert_eq!(seen(&server, "a.test"), "b.test");
}

#[test]
fn an_empty_store_serves_nobody() {
    let server = server(Store::default(), None);
    assert!(handshake(&modern(), &server, "a.test").is_err());
    assert_eq!(Certificates::load(&[]).unwrap_err(), Error::None);
}

#[test]
fn the_store_tells_when_each_certificate_ends() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let (chain, key) = development::ensure(directory.path(), now).unwrap();
    let store = Store::new(Certificates::load(&[(chain.clone(), key)]).unwrap());
    let ends = now + Duration::from_secs(365 * 24 * 60 * 60);
    assert_eq!(store.expiries(), [(chain.display().to_string(), ends)]);
}

#[test]
fn the_post_quantum_group_is_the_first_offered_and_chosen() {
    let server = server(simple(), None);
    assert_eq!(
        server.crypto_provider().kx_groups[0].name(),
        NamedGroup::X25519MLKEM768
    );
    let (client, _) = handshake(&modern(), &server, "a.test").unwrap();
    let chosen = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(chosen, NamedGroup::X25519MLKEM768);
}

#[test]
fn aes_128_is_preferred_whatever_the_client_prefers() {
    let server = server(simple(), None);
    for (version, expected) in [
        (&TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
        (&TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ] {
        let client = Arc::new(client(&[version], None));
        let (client, _) = handshake(&client, &server, "a.test").unwrap();
        assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), expected);
    }
}

#[test]
fn a_client_that_knows_no_post_quantum_group_gets_another() {
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519];
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let server = server(simple(), None);
    let (client, _) = handshake(&Arc::new(client), &server, "a.test").unwrap();
    let chosen = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(chosen, NamedGroup::X25519);
}

#[test]
fn tls_1_3_and_1_2_are_spoken() {
    let server = server(simple(), None);
    for (version, expected) in [
        (&TLS13, ProtocolVersion::TLSv1_3),
        (&TLS12, ProtocolVersion::TLSv1_2),
    ] {
        let client = Arc::new(client(&[version], None));
        let (client, _) = handshake(&client, &server, "a.test").unwrap();
        assert_eq!(client.protocol_version(), Some(expected));
    }
}

#[test]
fn tls_1_1_is_refused() {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    // No session, ECDHE_ECDSA and ECDHE_RSA with AES-128-CBC, no compression.
    body.extend([0, 0, 4, 0xc0, 0x09, 0xc0, 0x13, 1, 0]);
    // Extensions: P-256, uncompressed points, ECDSA with SHA-256.
    body.extend([0, 22, 0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0]);
    body.extend([0, 13, 0, 4, 0, 2, 4, 3]);
    let length = u8::try_from(body.len()).unwrap();
    let hello = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], &body[..]].concat();
    let mut server = ServerConnection::new(server(simple(), None)).unwrap();
    server.read_tls(&mut &hello[..]).unwrap();
    assert_eq!(
        server.process_new_packets().unwrap_err(),
        TlsError::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
    );
}

#[test]
fn http_2_is_preferred_and_other_protocols_are_refused() {
    let server = server(simple(), None);
    let with = |protocols: &[&[u8]]| {
        let mut client = client(&[&TLS13], None);
        client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        handshake(&Arc::new(client), &server, "a.test")
            .map(|(_, server)| server.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(with(&[b"http/1.1", b"h2"]), Ok(Some(b"h2".to_vec())));
    assert_eq!(with(&[b"http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(with(&[]), Ok(None));
    assert_eq!(with(&[b"ftp"]), Err(TlsError::NoApplicationProtocol));
}

#[test]
fn a_session_resumes_at_its_listener_and_at_no_other() {
    for version in [&TLS13, &TLS12] {
        let (one, other) = (server(simple(), None), server(simple(), None));
        let client = Arc::new(client(&[version], None));
        let kind = |server| {
            let (_, server) = handshake(&client, server, "a.test").unwrap();
            server.handshake_kind()
        };
        assert_eq!(kind(&one), Some(HandshakeKind::Full));
        assert_eq!(kind(&one), Some(HandshakeKind::Resumed));
        assert_eq!(kind(&other), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_session_does_not_resume_for_another_name() {
    let server = server(Store::new(certificates(&[&["a.test"], &["b.test"]])), None);
    let client = modern();
    let (first, _) = handshake(&client, &server, "a.test").unwrap();
    let (second, _) = handshake(&client, &server, "b.test").unwrap();
    assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(second.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn no_early_data_is_taken() {
    let server = server(simple(), None);
    let mut client = client(&[&TLS13], None);
    client.enable_early_data = true;
    let client = Arc::new(client);
    handshake(&client, &server, "a.test").unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let mut second = ClientConnection::new(client, name).unwrap();
    assert!(second.early_data().is_none());
    assert_eq!(server.max_early_data_size, 0);
}

/// A client certificate and its key.
struct Issued {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Issued {
    fn key(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der())
    }
}

/// An authority's certificate in PEM, and a client certificate that it signed.
fn authority() -> (String, Issued) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let signing = KeyPair::generate().unwrap();
    let pem = params.self_signed(&signing).unwrap().pem();
    let issuer = Issuer::new(params, signing);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["bob".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
    (pem, Issued { certificate, key })
}

#[test]
fn client_certificates_are_taken_from_the_stated_authority_alone() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let (pem, known) = authority();
    let (_, stranger) = authority();
    std::fs::write(&ca, pem).unwrap();
    for version in [&TLS13, &TLS12] {
        for (required, shows, expected) in [
            (true, Some(&known), Ok(true)),
            (true, None, Err(())),
            (true, Some(&stranger), Err(())),
            (false, Some(&known), Ok(true)),
            (false, None, Ok(false)),
            (false, Some(&stranger), Err(())),
        ] {
            let server = server(simple(), Some(client_verifier(&ca, required).unwrap()));
            let client = Arc::new(client(&[version], shows));
            let got = handshake(&client, &server, "a.test")
                .map(|(_, server)| server.peer_certificates().is_some())
                .map_err(|_| ());
            assert_eq!(got, expected, "{version:?}, required {required}");
        }
    }
}

#[test]
fn a_resumed_session_keeps_its_client_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let (pem, known) = authority();
    std::fs::write(&ca, pem).unwrap();
    let server = server(simple(), Some(client_verifier(&ca, true).unwrap()));
    let client = Arc::new(client(&[&TLS13], Some(&known)));
    handshake(&client, &server, "a.test").unwrap();
    let (_, resumed) = handshake(&client, &server, "a.test").unwrap();
    assert_eq!(resumed.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(resumed.peer_certificates().unwrap()[0], known.certificate);
}

#[test]
fn an_authority_that_can_not_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let file = ca.display().to_string();
    let fails = |text: &str, expected: Error| {
        std::fs::write(&ca, text).unwrap();
        assert_eq!(client_verifier(&ca, true).unwrap_err(), expected);
    };
    fails("", Error::NoCertificate(file.clone()));
    let none = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    fails(none, Error::NoAuthority(file));
}
