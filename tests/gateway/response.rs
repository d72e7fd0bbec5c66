//! What a client learns of a backend.

use std::io::Write as _;

use crate::support::{Backend, Client, Gate, Setup, get, policy, raw_backend, read_request};

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

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn what_a_backend_says_before_its_answer_does_no_harm() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let answers = [
        format!("{hints}{OK}"),
        format!(
            "{hints}{}HTTP/1.1 102 Processing\r\n\r\n{OK}",
            "HTTP/1.1 100 Continue\r\n\r\n"
        ),
        // An interim response has no content, whatever it says (RFC 9110 §15.2).
        format!(
            "HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=b\r\nX-Portcullis-User: root\r\n\r\n{OK}"
        ),
    ];
    for said in answers {
        let answer = said.clone();
        let backend = raw_backend(move |mut stream| {
            while read_request(&mut stream).is_some() && stream.write_all(answer.as_bytes()).is_ok()
            {
            }
        });
        let gate = Setup::plain(&policy(&backend, "access = \"public\"")).start();
        let mut client = Client::connect(gate.address());
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
            let (early, answer) = client.read_all();
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{said}");
            assert_eq!(answer.field("set-cookie"), None, "{said}");
            // A 100 is the gate's to send, and nobody waits for one here.
            assert!(early.iter().all(|answer| answer.status > 101), "{said}");
            assert_eq!(
                early.len(),
                said.matches("HTTP/1.1 10").count() - said.matches(" 100 ").count()
            );
            for answer in &early {
                for name in ["x-portcullis-user", "date", "x-content-type-options"] {
                    assert_eq!(answer.field(name), None, "{said}");
                }
            }
        }
        // A client of HTTP/1.0 knows no interim responses (RFC 9110 §15.2).
        let old = crate::support::ask(gate.address(), "GET / HTTP/1.0\r\nHost: app.test\r\n\r\n");
        assert_eq!((old.status, old.body.as_str()), (200, "ok"), "{said}");
    }
}

/// A backend that answers with `early`, and with 200 once it is told to.
fn hesitant(early: &'static str) -> (String, std::sync::mpsc::Sender<()>) {
    let (go, told) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let backend = raw_backend(move |mut stream| {
        while read_request(&mut stream).is_some() {
            stream.write_all(early.as_bytes()).unwrap();
            if told.lock().unwrap().recv().is_err() {
                return;
            }
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    (backend, go)
}

#[test]
fn early_hints_are_passed_on_at_once_and_clean() {
    let (backend, go) = hesitant(
        "HTTP/1.1 103 Early Hints\r\nServer: nginx\r\nLink: <http://10.0.0.5:8080/a.css>; rel=preload\r\n\
         Set-Cookie: __Host-portcullis_session=evil\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 5\r\n\r\n",
    );
    let gate = Setup::plain(&policy(&backend, "access = \"public\"")).start();
    let mut client = Client::connect(gate.address());
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
        let early = client.read();
        assert_eq!(
            early.head,
            "HTTP/1.1 103 Early Hints\r\nlink: <http://app.test/a.css>; rel=preload\r\n\r\n"
        );
        go.send(()).unwrap();
        let answer = client.read();
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    }
}

#[test]
fn a_request_that_a_backend_has_begun_to_answer_is_not_sent_again() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let backend = raw_backend(move |mut stream| {
        for answer in [OK, "HTTP/1.1 103 Early Hints\r\n\r\n"] {
            if read_request(&mut stream).is_some() {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    let gate = Setup::plain(&policy(&backend, "access = \"public\"")).start();
    assert_eq!(get(gate.address(), "/", "").status, 200);
    let mut client = Client::connect(gate.address());
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(client.read_all().1.status, 502);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[test]
fn early_hints_come_before_a_refusal_of_the_backend_too() {
    let backend = raw_backend(|mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        }
    });
    let gate = Setup::plain(&policy(&backend, "access = \"public\"")).start();
    let mut client = Client::connect(gate.address());
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let (early, answer) = client.read_all();
    assert_eq!((early.len(), answer.status), (1, 502));
}

#[test]
fn a_backend_that_only_ever_begins_to_answer_is_502() {
    for said in [
        "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000),
        "HTTP/1.1 103 Early Hints\r\n\r\n".to_owned(),
        format!(
            "HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n",
            "x".repeat(200_000)
        ),
        format!("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello{OK}"),
        "HTTP/1.1 199".to_owned(),
    ] {
        let begun: String = said.chars().take(40).collect();
        let backend = raw_backend(move |mut stream| {
            if read_request(&mut stream).is_some() {
                let _ = stream.write_all(said.as_bytes());
            }
        });
        let gate = Setup::plain(&policy(&backend, "access = \"public\"")).start();
        let mut client = Client::connect(gate.address());
        client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
        let (early, answer) = client.read_all();
        assert_eq!(answer.status, 502, "{begun:?}");
        assert!(early.len() <= 16, "{begun:?}");
    }
}

#[test]
fn content_where_there_can_be_none_answers_no_other_request() {
    // RFC 9112 §6.3: what follows these heads is not theirs; read as a response it would be the
    // next client's.
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let backend = raw_backend(move |mut stream| {
        while let Some(request) = read_request(&mut stream) {
            let answer = match request.split(' ').nth(1) {
                Some("/204") => format!("HTTP/1.1 204 No Content\r\n\r\n{evil}"),
                Some("/304") => {
                    format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n{evil}")
                }
                _ if request.starts_with("HEAD") => {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n{evil}")
                }
                _ => OK.to_owned(),
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let gate = Setup::plain(&policy(&backend, "access = \"public\"")).start();
    let mut client = Client::connect(gate.address());
    for (request, status) in [("GET /204", 204), ("GET /304", 304), ("HEAD /", 200)] {
        for _ in 0..5 {
            client.send(format!("{request} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
            assert_eq!(client.read_head().status, status, "{request}");
            client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
            assert_eq!(client.read().body, "ok", "after {request}");
        }
    }
}

#[test]
fn a_204_with_a_length_or_chunks_leaves_the_connection_in_step() {
    for framing in ["Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n"] {
        let backend = raw_backend(move |mut stream| {
            while let Some(request) = read_request(&mut stream) {
                let answer = match request.split(' ').nth(1) {
                    Some("/204") => format!("HTTP/1.1 204 No Content\r\n{framing}\r\n"),
                    _ => OK.to_owned(),
                };
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let gate = Setup::plain(&policy(&backend, "access = \"public\"")).start();
        let mut client = Client::connect(gate.address());
        client.send("GET /204 HTTP/1.1\r\nHost: app.test\r\n\r\n");
        let answer = client.read_head();
        assert!(matches!(answer.status, 204 | 502), "{framing}");
        if answer.status == 204 {
            // RFC 9110 §8.6 and RFC 9112 §6.1: neither may be in a 204.
            assert_eq!(answer.field("content-length"), None, "{framing}");
            assert_eq!(answer.field("transfer-encoding"), None, "{framing}");
            client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
            assert_eq!(client.read().body, "ok", "{framing}");
        }
    }
}
