//! Whose address a request comes from, and what that allows.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use crate::support::{Answer, Backend, Client, Gate, PATIENCE, Setup, get, policy};
use crate::tls::{Certificates, server};

const PROXIED: &str = "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";
const ONLY: &str = "access = \"public\"\n[network]\nallow = [\"203.0.113.0/24\", \"2001:db8::/32\"]\ndeny = [\"203.0.113.9\"]";

fn behind_proxy(gateway: &str) -> Setup {
    let mut setup = Setup::plain(&policy("whoami", ONLY));
    setup.gateway = gateway.to_owned();
    setup
}

/// The client that a backend is told of.
fn client(answer: &Answer) -> Option<String> {
    let shown: Value = serde_json::from_str(&answer.body).ok()?;
    Some(shown["headers"]["x-forwarded-for"][0].as_str()?.to_owned())
}

#[test]
fn a_denied_network_reaches_nothing() {
    let backend = Backend::ok();
    let denied = "access = \"public\"\n[network]\ndeny = [\"127.0.0.0/8\"]";
    let gate = Setup::plain(&policy(&backend.url(), denied)).start();
    assert_eq!(get(gate.address(), "/", "").status, 403);
    // Nobody trusts what a client says of itself.
    assert_eq!(
        get(gate.address(), "/", "X-Forwarded-For: 203.0.113.1\r\n").status,
        403
    );
    assert_eq!(backend.received(), "");
    gate.wait_for_log("network.denied");
}

#[test]
fn the_proxy_protocol_says_who_the_client_is() {
    let gate = behind_proxy(PROXIED).start();
    let request = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n".as_slice();
    let ask = |header: &[u8]| {
        Client::connect(gate.address())
            .send([header, request].concat())
            .try_read(false)
    };
    let allowed = ask(b"PROXY TCP4 203.0.113.5 192.0.2.1 5555 80\r\n").expect("an answer");
    assert_eq!(
        (allowed.status, client(&allowed).as_deref()),
        (200, Some("203.0.113.5"))
    );
    let six = ask(b"PROXY TCP6 2001:db8::5 2001:db8::1 5555 80\r\n").expect("an answer");
    assert_eq!(
        (six.status, client(&six).as_deref()),
        (200, Some("2001:db8::5"))
    );
    assert_eq!(
        ask(b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 80\r\n")
            .expect("an answer")
            .status,
        403
    );
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend_from_slice(&[203, 0, 113, 6, 192, 0, 2, 1, 0x15, 0xb3, 0, 80]);
    let second = ask(&v2).expect("an answer");
    assert_eq!(
        (second.status, client(&second).as_deref()),
        (200, Some("203.0.113.6"))
    );
    assert!(ask(b"").is_none(), "a listed peer must send the header");
    assert!(ask(b"PROXY TCP4 203.0.113.5 192.0.2.1 5555\r\n").is_none());
}

#[test]
fn a_header_of_the_proxy_protocol_from_anybody_else_is_no_request() {
    let gate = Setup::plain(&policy("whoami", "access = \"public\"")).start();
    let answer = Client::connect(gate.address())
        .send(
            "PROXY TCP4 203.0.113.5 192.0.2.1 5555 80\r\nGET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        )
        .read();
    assert_eq!(answer.status, 400);
}

#[test]
fn x_forwarded_for_counts_from_a_trusted_proxy_up_to_the_first_stranger() {
    let trusting = "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n[trusted_proxies]\nnetworks = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n";
    let gate = behind_proxy(trusting).start();
    let from = |value: &str| {
        get(
            gate.address(),
            "/",
            &format!("X-Forwarded-For: {value}\r\n"),
        )
    };
    let passed = from("203.0.113.5, 10.1.2.3");
    assert_eq!(
        (passed.status, client(&passed).as_deref()),
        (200, Some("203.0.113.5"))
    );
    assert_eq!(
        from("203.0.113.5, 198.51.100.1").status,
        403,
        "the stranger is the client"
    );
    assert_eq!(from("203.0.113.9, 10.1.2.3").status, 403);
    assert_eq!(from("203.0.113.5, nonsense").status, 400);
    assert_eq!(
        get(gate.address(), "/", "").status,
        403,
        "the proxy itself is not allowed"
    );
}

/// What everybody sends who wants to be taken for somebody else, or for a proxy.
const CLAIMS: &str = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\n\
    X-Forwarded-Prefix: /x\r\nX-Forwarded-Server: evil\r\nX-Real-IP: 203.0.113.7\r\nTrue-Client-IP: 203.0.113.7\r\n\
    CF-Connecting-IP: 203.0.113.7\r\nX-Client-IP: 203.0.113.7\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n";

fn trusting(header: &str, trusted: &str) -> Gate {
    let mut setup = Setup::plain(&policy(
        "whoami",
        "access = \"public\"\n[headers]\nforwarded = true",
    ));
    if !trusted.is_empty() {
        setup.gateway.push_str(&format!(
            "[trusted_proxies]\nnetworks = [\"{trusted}\"]\nheader = \"{header}\"\n"
        ));
    }
    setup.start()
}

/// The fields that a backend is sent, all but those of tracing.
fn sent(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let shown: Value = serde_json::from_str(&answer.body).expect("JSON");
    let fields = shown["headers"].as_object().expect("fields");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut sent: Vec<(String, String)> = fields
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "traceparent"))
        .flat_map(|(name, values)| {
            let values = values.as_array().expect("values").iter();
            values.map(move |value| (name.clone(), text(value)))
        })
        .collect();
    sent.sort();
    sent
}

#[track_caller]
fn tells(answer: &Answer, client: &str, forwarded: &str) {
    let expected = [
        ("forwarded", forwarded),
        ("x-forwarded-for", client),
        ("x-forwarded-host", "app.test"),
        ("x-forwarded-port", "80"),
        ("x-forwarded-proto", "http"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(sent(answer), expected);
}

#[test]
fn a_backend_learns_of_the_client_from_the_gate_alone() {
    let own = "for=127.0.0.1;host=app.test;proto=http";
    let claimed = format!(
        "{CLAIMS}X-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.7;host=evil.test;proto=https\r\n"
    );
    let gate = trusting("x-forwarded-for", "");
    tells(&get(gate.address(), "/", &claimed), "127.0.0.1", own);
    // A proxy that is trusted vouches for the client, by the one field that it writes.
    let theirs = "for=203.0.113.7;host=app.test;proto=http";
    let gate = trusting("x-forwarded-for", "127.0.0.0/8");
    tells(&get(gate.address(), "/", &claimed), "203.0.113.7", theirs);
    let only = format!("{CLAIMS}Forwarded: for=203.0.113.7\r\n");
    tells(&get(gate.address(), "/", &only), "127.0.0.1", own);
    let gate = trusting("forwarded", "127.0.0.0/8");
    tells(&get(gate.address(), "/", &claimed), "203.0.113.7", theirs);
    let only = format!("{CLAIMS}X-Forwarded-For: 203.0.113.7\r\n");
    tells(&get(gate.address(), "/", &only), "127.0.0.1", own);
    let six = "Forwarded: for=198.51.100.1, for=\"[2001:db8::7]:4711\"; proto=https\r\n";
    tells(
        &get(gate.address(), "/", six),
        "2001:db8::7",
        "for=\"[2001:db8::7]\";host=app.test;proto=http",
    );
    for broken in [
        "for=unknown",
        "for=_hidden",
        "for=203.0.113.7;for=1.2.3.4",
        "nonsense",
    ] {
        let field = format!("Forwarded: {broken}\r\n");
        let status = get(gate.address(), "/", &field).status;
        assert_eq!(status, 400, "{broken}");
    }
}

#[test]
fn a_trailer_says_no_more_of_the_client_than_a_field() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), "access = \"public\"")).start();
    for name in ["X-Real-IP", "X-Forwarded-User", "X-Client-IP", "X_Real_IP"] {
        let answer = Client::connect(gate.address())
            .send(format!(
                "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n{name}: 203.0.113.7\r\n\r\n"
            ))
            .read();
        assert!(matches!(answer.status, 200 | 400), "{name}: {answer:?}");
    }
    let received = backend.received();
    assert!(!received.contains("203.0.113.7"), "{received}");
}

/// A header of version 2, with addresses or without.
fn version_2(command: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let family = if addresses.is_empty() { 0 } else { 0x11 };
    header.extend_from_slice(&[command, family, 0]);
    header.push(u8::try_from(addresses.len()).expect("a short header"));
    header.extend_from_slice(addresses);
    header
}

const PROXIED_CLIENT: [u8; 12] = [203, 0, 113, 6, 192, 0, 2, 1, 0x15, 0xb3, 0, 80];

#[test]
fn version_2_of_the_proxy_protocol_is_taken_from_who_is_listed_alone() {
    let request = b"GET / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    let ask = |gate: &Gate, header: &[u8]| {
        Client::connect(gate.address())
            .send([header, request].concat())
            .try_read(false)
    };
    let open = || Setup::plain(&policy("whoami", "access = \"public\""));
    let unlisted = open().start();
    let answer = ask(&unlisted, &version_2(0x21, &PROXIED_CLIENT));
    assert!(answer.is_none_or(|answer| answer.status == 400));
    let mut setup = open();
    setup.gateway = PROXIED.to_owned();
    let listed = setup.start();
    let proxied = ask(&listed, &version_2(0x21, &PROXIED_CLIENT)).expect("an answer");
    assert_eq!(client(&proxied).as_deref(), Some("203.0.113.6"));
    // The proxy's own health check.
    let local = ask(&listed, &version_2(0x20, &[])).expect("an answer");
    assert_eq!(client(&local).as_deref(), Some("127.0.0.1"));
    let mut cases = vec![
        version_2(0x11, &PROXIED_CLIENT),
        version_2(0x22, &PROXIED_CLIENT),
        version_2(0x21, &PROXIED_CLIENT[..8]),
    ];
    let mut twice = version_2(0x21, &PROXIED_CLIENT);
    twice.extend(version_2(0x21, &PROXIED_CLIENT));
    cases.push(twice);
    for header in cases {
        let answer = ask(&listed, &header);
        assert!(
            answer.is_none_or(|answer| answer.status == 400),
            "{header:?}"
        );
    }
}

#[test]
fn the_proxy_protocol_comes_before_tls() {
    let certificates = Certificates::new();
    let text = policy("whoami", "access = \"public\"");
    let listener = "proxy_protocol_from = [\"127.0.0.0/8\"]";
    let gate = certificates.setup(&text, listener).start();
    let connect = |header: &[u8]| {
        let mut stream = TcpStream::connect(gate.address()).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(header).expect("a header");
        let config = certificates.client(&["http/1.1"]);
        let session = ClientConnection::new(Arc::clone(&config), server("app.test"));
        StreamOwned::new(session.expect("a client"), stream)
    };
    let mut proxied = connect(&version_2(0x21, &PROXIED_CLIENT));
    proxied
        .write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
        .expect("a request");
    let mut answer = String::new();
    proxied.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.contains("203.0.113.6") && answer.contains("https"),
        "{answer}"
    );
    assert!(connect(b"").write_all(b"GET / HTTP/1.1\r\n\r\n").is_err());
}
