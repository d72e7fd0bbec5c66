//! What passes, passes unchanged.

use std::io::{Read as _, Write as _};

use crate::support::{Backend, Client, Gate, Setup, ask, get, policy, raw_backend, read_request};

fn open(backend: &str) -> Gate {
    Setup::plain(&policy(backend, "access = \"public\"")).start()
}

/// The content of a request whose framing is a length.
fn content(request: &[u8]) -> &[u8] {
    let head = request
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head");
    &request[head + 4..]
}

#[test]
fn method_path_query_fields_and_content_reach_the_backend() {
    let backend = Backend::ok();
    let gate = open(&backend.url());
    let answer = ask(
        gate.address(),
        "REPORT /a/b?c=d&e=%2F HTTP/1.1\r\nHost: app.test\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    let received = backend.received();
    assert!(
        received.starts_with("REPORT /a/b?c=d&e=%2F HTTP/1.1\r\nhost: app.test\r\n"),
        "{received}"
    );
    assert!(received.contains("x-one: 1\r\n"), "{received}");
    assert!(received.ends_with("\r\n\r\nhello"), "{received}");
}

#[test]
fn chunks_and_trailers_reach_the_backend_in_the_gates_own_framing() {
    let backend = Backend::ok();
    let gate = open(&backend.url());
    let answer = ask(
        gate.address(),
        "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         005;a=b\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    assert_eq!(answer.status, 200);
    let received = backend.received();
    assert!(
        received.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n"),
        "{received}"
    );
}

#[test]
fn a_response_without_content_leaves_the_connection_in_step() {
    let backend = Backend::new(|request| {
        let text = String::from_utf8_lossy(request);
        match text.split(' ').nth(1) {
            Some("/204") => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            Some("/304") => {
                b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n".to_vec()
            }
            _ if text.starts_with("HEAD") => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n".to_vec()
            }
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        }
    });
    let gate = open(&backend.url());
    let mut client = Client::connect(gate.address());
    for (request, status) in [("HEAD /", 200), ("GET /204", 204), ("GET /304", 304)] {
        client.send(format!("{request} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
        let answer = client.read_head();
        assert_eq!(answer.status, status, "{request}");
        if request == "HEAD /" {
            assert_eq!(answer.field("content-length"), Some("12345"));
        }
        client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
        assert_eq!(client.read().body, "ok", "after {request}");
    }
}

#[test]
fn a_response_arrives_whole_however_the_backend_frames_it() {
    let backend = raw_backend(|mut stream| {
        let Some(request) = read_request(&mut stream) else {
            return;
        };
        let _ = match request.split(' ').nth(1) {
            Some("/length") => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            Some("/chunked") => stream.write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n",
            ),
            _ => stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello"),
        };
    });
    let gate = open(&backend);
    for path in ["/length", "/chunked", "/close"] {
        let answer = get(gate.address(), path, "");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "hello"),
            "{path}"
        );
    }
    let mut client = Client::connect(gate.address());
    client.send("GET /chunked HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    let mut raw = String::new();
    client.0.read_to_string(&mut raw).expect("a response");
    assert!(
        raw.ends_with("0\r\nx-sum: 1\r\n\r\n"),
        "trailers are kept: {raw}"
    );
    // HTTP/1.0 knows no chunks.
    let old = ask(
        gate.address(),
        "GET /chunked HTTP/1.0\r\nHost: app.test\r\n\r\n",
    );
    assert_eq!(
        (old.field("transfer-encoding"), old.body.as_str()),
        (None, "hello")
    );
}

#[test]
fn a_response_cut_short_does_not_look_complete() {
    let backend = raw_backend(|mut stream| {
        let Some(request) = read_request(&mut stream) else {
            return;
        };
        let framing = if request.contains("/chunked") {
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        } else {
            "Content-Length: 10\r\n\r\nhello"
        };
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes());
    });
    let gate = open(&backend);
    for path in ["/length", "/chunked"] {
        let mut client = Client::connect(gate.address());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
        assert!(client.try_read(false).is_none(), "{path}");
    }
}

#[test]
fn large_content_passes_both_ways() {
    let backend = Backend::new(|request| {
        let content = content(request);
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            content.len()
        )
        .into_bytes();
        response.extend_from_slice(content);
        response
    });
    let gate = open(&backend.url());
    let sent: Vec<u8> = (0..8_u32 << 20)
        .map(|at| b'a' + u8::try_from(at % 23).expect("small"))
        .collect();
    let mut request = format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n",
        sent.len()
    )
    .into_bytes();
    request.extend_from_slice(&sent);
    let answer = ask(gate.address(), request);
    assert_eq!(answer.status, 200);
    assert!(answer.body.as_bytes() == sent, "the same bytes come back");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::new(|request| {
        let text = String::from_utf8_lossy(request);
        let path = text.split(' ').nth(1).expect("a path");
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
            path.len()
        )
        .into_bytes()
    });
    let gate = open(&backend.url());
    let mut client = Client::connect(gate.address());
    let requests: String = (0..20)
        .map(|at| format!("POST /{at} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\nx"))
        .collect();
    client.send(requests);
    for at in 0..20 {
        assert_eq!(client.read().body, format!("/{at}"));
    }
    assert_eq!(backend.requests(), 20);
}

#[test]
fn content_that_waits_for_100_continue_is_asked_for() {
    let backend = Backend::ok();
    let gate = open(&backend.url());
    let mut client = Client::connect(gate.address());
    client.send(
        "POST / HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    assert_eq!(client.read().status, 100);
    client.send("hello");
    assert_eq!(client.read().status, 200);
    assert!(backend.received().ends_with("hello"));
}

#[test]
fn whether_trailers_are_taken_is_told_in_the_gates_own_words() {
    let backend = Backend::ok();
    let gate = open(&backend.url());
    get(
        gate.address(),
        "/",
        "TE: trailers, gzip\r\nConnection: te, close\r\n",
    );
    let received = backend.received().to_ascii_lowercase();
    assert!(received.contains("\r\nte: trailers\r\n"), "{received}");
    assert!(received.contains("\r\nconnection: te\r\n"), "{received}");
    let backend = Backend::ok();
    let gate = open(&backend.url());
    get(gate.address(), "/", "TE: trailers\r\n");
    assert!(!backend.received().to_ascii_lowercase().contains("\r\nte:"));
}

#[test]
fn an_event_stream_is_not_held_back() {
    let backend = raw_backend(|mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
            );
            // Until the gate leaves.
            let _ = stream.read(&mut [0]);
        }
    });
    let gate = open(&backend);
    let mut client = Client::connect(gate.address());
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(7).any(|window| window == b"data: 1") {
        let read = client.0.read(&mut buffer).expect("in time");
        assert!(read > 0, "the stream goes on");
        seen.extend_from_slice(&buffer[..read]);
    }
}
