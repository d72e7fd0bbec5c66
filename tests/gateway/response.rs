//! What a client learns of a backend.

use crate::support::{Backend, Gate, Setup, get, policy};

fn open(backend: &Backend, more: &str) -> Gate {
    Setup::plain(&policy(
        &backend.url(),
        &format!("access = \"public\"\n{more}"),
    ))
    .start()
}

#[test]
fn what_gives_the_backend_away_stays_inside() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nServer: nginx/1.2\r\nX-Powered-By: PHP/5\r\nVia: 1.1 cache\r\nX-AspNet-Version: 4\r\n\
         X-Kept: yes\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
    );
    let gate = open(&backend, "");
    let answer = get(gate.address(), "/", "");
    for name in [
        "server",
        "x-powered-by",
        "via",
        "x-aspnet-version",
        "x-hop",
        "keep-alive",
        "connection",
    ] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    assert_eq!(answer.field("x-kept"), Some("yes"));
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    let kept = open(&backend, "[headers]\nkeep = [\"X-Powered-By\"]");
    assert_eq!(
        get(kept.address(), "/", "").field("x-powered-by"),
        Some("PHP/5")
    );
}

#[test]
fn only_listed_fields_leave_where_a_policy_says_so() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nX-Secret: 1\r\nContent-Type: text/plain\r\nETag: \"x\"\r\nContent-Length: 2\r\n\r\nok",
    );
    let gate = open(&backend, "[headers]\nmode = \"allowlist\"");
    let answer = get(gate.address(), "/", "");
    assert_eq!(answer.field("x-secret"), None);
    assert_eq!(
        (answer.field("content-type"), answer.field("etag")),
        (Some("text/plain"), Some("\"x\""))
    );
}

#[test]
fn the_gates_cookies_and_identity_are_not_the_backends_to_write() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nSet-Cookie: __Host-portcullis_session=evil; Path=/; Secure\r\n\
         Set-Cookie: __HOST-Portcullis_session=; Max-Age=0\r\nSet-Cookie: theme=dark; Domain=10.0.0.5; Path=/\r\n\
         Clear-Site-Data: \"cookies\", \"cache\"\r\nX-Portcullis-User: root\r\nX_Portcullis_User: root\r\nContent-Length: 2\r\n\r\nok",
    );
    let gate = open(&backend, "");
    let answer = get(gate.address(), "/", "");
    assert_eq!(answer.status, 200);
    let cookies = answer.fields("set-cookie");
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert!(
        cookies[0].starts_with("theme=dark") && !cookies[0].contains("10.0.0.5"),
        "{cookies:?}"
    );
    assert!(
        !answer.head.to_ascii_lowercase().contains("root"),
        "{}",
        answer.head
    );
    assert!(
        answer
            .fields("clear-site-data")
            .iter()
            .all(|value| !value.contains("cookies"))
    );
}

#[test]
fn internal_addresses_become_the_public_one() {
    let port = std::sync::Arc::new(std::sync::OnceLock::new());
    let known = std::sync::Arc::clone(&port);
    let backend = Backend::new(move |_| {
        let port: u16 = *known.get().expect("its port");
        format!(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/there?x\r\nLink: <http://127.0.0.1:{port}/next>; rel=next\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    });
    port.set(backend.address.port()).expect("once");
    let gate = open(&backend, "");
    let answer = get(gate.address(), "/", "");
    assert_eq!(answer.field("location"), Some("http://app.test/there?x"));
    assert_eq!(
        answer.field("link"),
        Some("<http://app.test/next>; rel=next")
    );
}

#[test]
fn what_a_backend_says_of_its_faults_stays_inside() {
    let backend = Backend::answering(
        "HTTP/1.1 500 Oops\r\nX-Trace: db1.internal\r\nContent-Type: text/html\r\nContent-Length: 19\r\n\r\nat db.rs line 42 :(",
    );
    let gate = open(&backend, "");
    let answer = get(gate.address(), "/", "");
    assert_eq!(answer.status, 500);
    assert!(
        !answer.body.contains("db.rs") && !answer.head.contains("Oops"),
        "{answer:?}"
    );
    assert_eq!(
        answer.field("content-type"),
        Some("application/problem+json")
    );
    assert!(answer.field("x-request-id").is_some());
    let passing = open(&backend, "[headers]\nerrors = \"pass\"");
    assert!(get(passing.address(), "/", "").body.contains("db.rs"));
}
