//! Whose address a request comes from, and what that allows.

use crate::support::{Answer, Backend, Client, Setup, get, policy};

const PROXIED: &str = "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";
const ONLY: &str = "access = \"public\"\n[network]\nallow = [\"203.0.113.0/24\", \"2001:db8::/32\"]\ndeny = [\"203.0.113.9\"]";

fn behind_proxy(gateway: &str) -> Setup {
    let mut setup = Setup::plain(&policy("whoami", ONLY));
    setup.gateway = gateway.to_owned();
    setup
}

/// The client that a backend is told of.
fn client(answer: &Answer) -> Option<String> {
    let shown: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
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
