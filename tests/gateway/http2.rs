//! HTTP/2: the same rules on many streams, and no flood that costs a client nothing.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use crate::frames::{
    CANCEL, CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GOAWAY, HEADERS,
    PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, block,
};
use crate::streams::{connect, ends_in_peace, request, run};
use crate::support::{
    Backend, Gate, PASSWORD, PATIENCE, SIGN_IN, form, policy, raw_backend, read_request,
};
use crate::tls::{Certificates, Person};

const OPEN: &str = "access = \"public\"\n[rate]\nper_client = \"off\"\n";
const PING: u8 = 6;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn open(certificates: &Certificates, backend: &str, gateway: &str) -> Gate {
    let setup = certificates.setup(&policy(backend, OPEN), "");
    setup.gateway(gateway).start()
}

fn frames(certificates: &Certificates, gate: &Gate) -> Frames {
    Frames::open(certificates.connect(gate.address(), "app.test", "h2"))
}

/// A backend that tells of each request and answers none of them.
fn silent() -> (String, mpsc::Receiver<String>, Arc<AtomicUsize>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let backend = raw_backend(move |mut stream| {
        if let Some(request) = read_request(&mut stream) {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = tell.lock().expect("a channel").send(request);
        }
        while stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
    });
    (backend, told, count)
}

#[test]
fn a_browser_signs_in_over_http2_works_and_signs_out() {
    let backend = Backend::ok();
    let certificates = Certificates::new();
    let text = policy(&backend.url(), "access = \"signed-in\"");
    let gate = certificates.setup(&text, "").account("ada").start();
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let stranger = client.get("/").await;
        assert_eq!(stranger.status, 401);
        let page = client.ask(request("GET", SIGN_IN).header("accept", "text/html"));
        let page = page.await.expect("the page");
        let crumbs = page.cookies();
        let mut post = request("POST", SIGN_IN)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "text/html")
            .header("sec-fetch-site", "same-origin");
        for crumb in &crumbs {
            post = post.header("cookie", *crumb);
        }
        let content = Bytes::from(form(&page.text(), "ada", PASSWORD));
        let signed_in = client.exchange(post, Some((&[content], None))).await;
        let signed_in = signed_in.expect("an answer");
        assert_eq!(signed_in.status, 303, "{signed_in:?}");
        let session = signed_in
            .cookies()
            .into_iter()
            .find(|cookie| cookie.starts_with("__Host-") && cookie.contains("session="))
            .expect("a session");
        // HTTP/2 may send each cookie in a line of its own (RFC 9113 §8.2.3).
        let with = |session: &str| {
            request("GET", "/")
                .header("cookie", "theme=dark")
                .header("cookie", session)
        };
        let answer = client.ask(with(session)).await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        let received = backend.received();
        assert!(
            received.contains("theme=dark") && !received.contains("session="),
            "{received}"
        );
        assert!(
            received
                .to_ascii_lowercase()
                .contains("x-portcullis-user: ada\r\n"),
            "{received}"
        );
        let out = request("POST", "/.portcullis/sign-out")
            .header("cookie", session)
            .header("sec-fetch-site", "same-origin");
        let out = client.exchange(out, Some((&[Bytes::new()], None))).await;
        assert_eq!(out.expect("an answer").status, 200);
        let after = client.ask(with(session)).await.expect("an answer");
        assert_eq!(after.status, 401);
        let write = request("POST", "/").header("cookie", session);
        let content = [
            Bytes::from_static(b"content"),
            Bytes::from("a".repeat(9_000)),
        ];
        let write = client.exchange(write, Some((&content, None))).await;
        let write = write.expect("an answer");
        assert_eq!(write.status, 401);
        assert!(write.text().contains("was not passed on"), "{write:?}");
        assert_eq!(backend.requests(), 1);
    });
}

#[test]
fn content_and_trailers_pass_both_ways_over_http2() {
    let backend = Backend::new(|request| {
        let text = String::from_utf8_lossy(request);
        let (_, content) = text.split_once("\r\n\r\n").expect("a head");
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{content}\r\n0\r\nX-Sum: 2\r\nX-Portcullis-User: root\r\n\r\n",
            content.len()
        )
        .into_bytes()
    });
    let certificates = Certificates::new();
    let gate = open(&certificates, &backend.url(), "");
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        trailers.insert("x-portcullis-user", HeaderValue::from_static("root"));
        let pieces = [Bytes::from("a".repeat(100_000)), Bytes::from_static(b"end")];
        let answer = client
            .exchange(request("POST", "/"), Some((&pieces, Some(trailers))))
            .await
            .expect("an answer");
        let echoed = answer.text();
        assert!(echoed.len() > 100_003 && echoed.contains("end\r\n"));
        assert!(echoed.ends_with("0\r\nx-sum: 1\r\n\r\n"), "{answer:?}");
        assert_eq!(answer.headers.get("transfer-encoding"), None);
        let trailers = answer.trailers.expect("trailers");
        assert_eq!(trailers.get("x-sum"), Some(&HeaderValue::from_static("2")));
        assert_eq!(trailers.len(), 1, "{trailers:?}");
    });
    // A length that is stated is what is sent, or nothing is.
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let before = backend.requests();
        let short = request("POST", "/").header("content-length", "10");
        let answer = client
            .exchange(short, Some((&[Bytes::from_static(b"half")], None)))
            .await;
        assert!(answer.is_err_and(|error| error.reason() == Some(h2::Reason::PROTOCOL_ERROR)));
        assert_eq!(client.get("/").await.status, 200, "only the stream ends");
        assert_eq!(backend.requests(), before + 1);
    });
}

#[test]
fn one_slow_stream_does_not_hold_up_the_others() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = raw_backend(move |mut stream| {
        while let Some(request) = read_request(&mut stream) {
            let sent = if request.starts_with("GET /slow ") {
                let _ = wait.lock().expect("a channel").recv();
                stream.write_all(OK)
            } else if request.starts_with("GET /large ") {
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n";
                stream
                    .write_all(head)
                    .and_then(|()| stream.write_all(&[b'x'; 8_000_000]))
            } else {
                stream.write_all(OK)
            };
            if sent.is_err() {
                return;
            }
        }
    });
    let certificates = Certificates::new();
    let gate = open(&certificates, &backend, "");
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let mut streams = client.streams.clone().ready().await.expect("ready");
        let (slow, _) = streams
            .send_request(request("GET", "/slow").body(()).expect("a request"), true)
            .expect("a stream");
        let (large, _) = streams
            .send_request(request("GET", "/large").body(()).expect("a request"), true)
            .expect("a stream");
        // Nothing of it is taken until the others are through.
        let mut large = large.await.expect("a head").into_body();
        let first = large.data().await.expect("content").expect("data").len();
        for at in 0..20 {
            assert_eq!(client.get(&format!("/{at}")).await.status, 200, "{at}");
        }
        go.send(()).expect("the backend waits");
        assert_eq!(slow.await.expect("an answer").status(), 200);
        let mut size = first;
        large
            .flow_control()
            .release_capacity(first)
            .expect("capacity");
        while let Some(data) = large.data().await {
            let data = data.expect("data").len();
            size += data;
            large
                .flow_control()
                .release_capacity(data)
                .expect("capacity");
        }
        assert_eq!(size, 8_000_000);
    });
}

#[test]
fn another_applications_host_is_421_where_certificates_are_asked_for() {
    let (backend, other) = (Backend::ok(), Backend::ok());
    let certificates = Certificates::new();
    let person = Person::new();
    let with_other = |listener: &str| {
        let mut setup = certificates
            .setup(&policy(&backend.url(), OPEN), listener)
            .file("people.pem", &person.authority);
        let text = policy(&other.url(), OPEN).replace("app.test", "other.test");
        setup.policies.push(("other".to_owned(), text));
        setup.start()
    };
    let asking = with_other("client_certificates = { ca = \"people.pem\" }");
    run(async {
        let client = connect(&asking, person.client(&certificates, "h2")).await;
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(client.get("https://other.test/").await.status, 421);
        assert_eq!(client.get("/").await.status, 200, "the connection stays");
    });
    asking.wait_for_log("route.other_server_name");
    assert_eq!((backend.requests(), other.requests()), (2, 0));
    run(async {
        let nobody = connect(&asking, certificates.client(&["h2"])).await;
        assert!(nobody.ask(request("GET", "/")).await.is_err());
    });
    // Without certificates, browsers share a connection between hosts (RFC 9113 §9.1.1).
    let gate = with_other("");
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(client.get("https://other.test/").await.status, 200);
        assert_eq!(client.get("https://third.test/").await.status, 421);
    });
}

#[test]
fn a_request_that_no_http2_client_may_send_never_reaches_the_backend() {
    let backend = Backend::ok();
    let certificates = Certificates::new();
    let gate = open(&certificates, &backend.url(), "");
    let head = |changes: &[(&'static str, &'static str)]| {
        let mut fields = vec![
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/"),
            (":authority", "app.test"),
        ];
        for &(name, value) in changes {
            match fields.iter_mut().find(|field| field.0 == name) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
        }
        fields
    };
    let stream_ends: [&[(&str, &str)]; 13] = [
        &[("connection", "close")],
        &[("connection", "x-portcullis-user")],
        &[("keep-alive", "timeout=5")],
        &[("proxy-connection", "keep-alive")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "websocket")],
        &[("te", "gzip")],
        &[("te", "trailers, gzip")],
        &[(":path", "")],
        &[(":protocol", "websocket")],
        &[(":status", "200")],
        &[("x-a", "1"), (":extra", "1")],
        &[("content-length", "5")],
    ];
    for fields in stream_ends {
        let mut client = frames(&certificates, &gate);
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&head(fields)));
        let ended = client.find(&[RST_STREAM, GOAWAY, HEADERS]);
        let ended = ended.unwrap_or_else(|| panic!("{fields:?}"));
        assert_ne!(ended.kind, HEADERS, "{fields:?}");
        assert_eq!(ended.error(), PROTOCOL_ERROR, "{fields:?}");
    }
    // A field name in upper case, a value with a line end, a pseudo-field behind a field.
    for (name, value) in [("X-Upper", "1"), ("x-a", "1\r\nx-b: 2"), ("x-a", "1\0")] {
        let mut client = frames(&certificates, &gate);
        client.get(1, "/", &[(name, value)]);
        let ended = client.find(&[RST_STREAM, GOAWAY, HEADERS]);
        assert!(
            ended.is_none_or(|frame| frame.kind != HEADERS),
            "{name}: {value:?}"
        );
    }
    let mut late = frames(&certificates, &gate);
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        ("x-a", "1"),
        (":path", "/"),
        (":authority", "app.test"),
    ];
    late.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
    let ended = late.find(&[RST_STREAM, GOAWAY, HEADERS]);
    assert!(ended.is_none_or(|frame| frame.kind != HEADERS));
    // What is well-formed, and still can be read in two ways.
    for (fields, reason) in [
        (&[("host", "other.test")][..], "wire.host_contradicts"),
        (&[("host", "app.test:444")], "wire.host_contradicts"),
        (
            &[("host", "app.test"), ("host", "app.test")],
            "wire.two_hosts",
        ),
        (&[(":authority", "user@app.test")], "wire."),
        (&[(":method", "TRACE")], "wire.method"),
        (&[(":scheme", "ftp")], "wire."),
        (&[("expect", "200-ok")], "wire.expectation"),
        (
            &[("authorization", "a"), ("authorization", "b")],
            "wire.repeated_field",
        ),
    ] {
        let before = gate.log().len();
        let mut client = frames(&certificates, &gate);
        let mut all = head(&fields[..1]);
        all.extend(fields.iter().skip(1));
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&all));
        let answer = client.find(&[RST_STREAM, GOAWAY, HEADERS]);
        let answer = answer.unwrap_or_else(|| panic!("{fields:?}"));
        if answer.kind == HEADERS {
            gate.wait_for_line(&format!("\"reason\":\"{reason}"), before);
        } else {
            assert_eq!(answer.error(), PROTOCOL_ERROR, "{fields:?}");
        }
    }
    assert_eq!(backend.received(), "");
    let mut client = frames(&certificates, &gate);
    client.get(
        1,
        "/",
        &[("http2-settings", "AAMAAABk"), ("te", "trailers")],
    );
    assert!(
        client
            .find(&[RST_STREAM, GOAWAY, HEADERS])
            .is_some_and(|frame| frame.kind == HEADERS)
    );
    let received = backend.received().to_ascii_lowercase();
    assert!(
        !received.contains("http2-settings") && received.contains("\r\nte: trailers\r\n"),
        "{received}"
    );
}

#[test]
fn a_head_beyond_its_limits_is_431_or_414_over_http2() {
    let backend = Backend::ok();
    let certificates = Certificates::new();
    let limits = "[limits]\nheader_count = 10\nheader_bytes = \"4KiB\"\nuri_bytes = \"256\"\n";
    let gate = open(&certificates, &backend.url(), limits);
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let fields = |count: usize| {
            (0..count).fold(request("GET", "/"), |request, at| {
                request.header(format!("x-{at}"), "1")
            })
        };
        let crumbs = (0..50).fold(request("GET", "/"), |request, at| {
            request.header("cookie", format!("c{at}=1"))
        });
        let status = async |request| client.ask(request).await.expect("an answer").status;
        assert_eq!(status(fields(9)).await, 200);
        assert_eq!(status(crumbs).await, 200, "cookies are one field");
        assert_eq!(status(fields(11)).await, 431);
        assert_eq!(
            status(request("GET", "/").header("x", "a".repeat(5000))).await,
            431
        );
        let long = format!("/{}", "a".repeat(256));
        assert_eq!(status(request("GET", &long)).await, 414);
    });
    assert_eq!(backend.requests(), 2);
}

#[test]
fn streams_beyond_their_number_are_refused_and_the_others_go_on() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = raw_backend(move |mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = wait.lock().expect("a channel").recv();
            let _ = stream.write_all(OK);
        }
    });
    let certificates = Certificates::new();
    let gate = open(&certificates, &backend, "[limits]\nhttp2_streams = 2\n");
    let mut client = frames(&certificates, &gate);
    for stream in [1, 3, 5] {
        assert!(client.get(stream, "/", &[]));
    }
    let refused = client
        .find(&[RST_STREAM, GOAWAY, HEADERS])
        .expect("a frame");
    assert_eq!(
        (refused.kind, refused.stream, refused.error()),
        (RST_STREAM, 5, REFUSED_STREAM)
    );
    drop(go);
    let mut answered = [0, 0].map(|_| client.find(&[HEADERS]).expect("an answer").stream);
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
}

#[test]
fn a_client_that_takes_its_requests_back_over_and_over_is_cut_off() {
    // CVE-2023-44487: each reset frees a stream for the next request, and the backend works for nobody.
    let (backend, told, count) = silent();
    let certificates = Certificates::new();
    let gate = open(&certificates, &backend, "[limits]\nhttp2_resets = 10\n");
    let mut client = frames(&certificates, &gate);
    let mut alive = true;
    let mut stream = 1;
    while alive && stream < 2 * 1000 {
        alive = client.get(stream, "/", &[]) && ping(&mut client);
        while alive && told.recv_timeout(Duration::from_millis(100)).is_err() {
            alive = ping(&mut client);
        }
        alive = alive && client.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        stream += 2;
    }
    assert!(!alive, "the connection ends");
    let worked = count.load(Ordering::SeqCst);
    assert!((10..=20).contains(&worked), "{worked} requests got through");
}

#[test]
fn requests_taken_back_in_one_breath_do_not_reach_the_backend() {
    let (backend, _told, count) = silent();
    let certificates = Certificates::new();
    let gate = open(&certificates, &backend, "");
    let mut client = frames(&certificates, &gate);
    let mut alive = true;
    for stream in (1..40_000).step_by(2) {
        alive = client.get(stream, "/", &[])
            && client.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        if !alive {
            break;
        }
    }
    let goodbye = client.find(&[GOAWAY]);
    assert!(!alive || goodbye.is_some(), "the connection ends");
    assert!(
        goodbye.is_none_or(|frame| frame.error() == ENHANCE_YOUR_CALM),
        "it says why"
    );
    let worked = count.load(Ordering::SeqCst);
    assert!(worked < 400, "{worked} requests got through");
    let again = Frames::open(certificates.connect(gate.address(), "app.test", "h2")).find(&[4]);
    assert!(again.is_some(), "the gate serves others");
}

#[test]
fn a_stop_lets_streams_end_and_then_the_connection() {
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let (tell, wait) = (Mutex::new(tell), Mutex::new(wait));
    let backend = raw_backend(move |mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
            let _ = tell.lock().expect("a channel").send(());
            let _ = wait.lock().expect("a channel").recv();
            let _ = stream.write_all(b"-last");
        }
    });
    let certificates = Certificates::new();
    let mut gate = open(&certificates, &backend, "");
    run(async {
        let idle = connect(&gate, certificates.client(&["h2"])).await;
        let busy = connect(&gate, certificates.client(&["h2"])).await;
        let asking = busy.ask(request("GET", "/"));
        let stopping = async {
            tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE))
                .await
                .expect("a task")
                .expect("the request came");
            gate.signal("TERM");
            ends_in_peace(idle).await;
            go.send(()).expect("the backend waits");
        };
        let (answer, ()) = tokio::join!(asking, stopping);
        let answer = answer.expect("a whole answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "first-last"));
        ends_in_peace(busy).await;
    });
    assert_eq!(gate.wait().code(), Some(0));
}

#[test]
fn a_response_cut_short_does_not_look_complete_over_http2() {
    let backend = raw_backend(|mut stream| {
        let Some(request) = read_request(&mut stream) else {
            return;
        };
        let framing = if request.contains("/chunked") {
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        } else if request.contains("/broken") {
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"
        } else {
            "Content-Length: 10\r\n\r\nhello"
        };
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes());
    });
    let certificates = Certificates::new();
    let gate = open(&certificates, &backend, "");
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        for path in ["/length", "/chunked", "/broken"] {
            let answer = client.ask(request("GET", path)).await;
            assert!(answer.is_err_and(|error| error.is_reset()), "{path}");
        }
        assert!(!client.task.is_finished(), "only the streams end");
    });
}

#[test]
fn a_response_without_content_has_none_over_http2() {
    let backend = raw_backend(|mut stream| {
        while let Some(request) = read_request(&mut stream) {
            let answer = match request.split(' ').nth(1) {
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => {
                    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n"
                }
                Some("/hints") => {
                    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                }
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let certificates = Certificates::new();
    let gate = open(&certificates, &backend, "");
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        for (method, path, status, content) in [
            ("HEAD", "/", 200, ""),
            ("GET", "/204", 204, ""),
            ("GET", "/304", 304, ""),
            ("GET", "/hints", 200, "ok"),
        ] {
            let answer = client.ask(request(method, path)).await.expect("an answer");
            let got = (answer.status, answer.text());
            assert_eq!(got, (status, content.to_owned()), "{method} {path}");
            if method == "HEAD" {
                let length = HeaderValue::from_static("12345");
                assert_eq!(answer.headers.get("content-length"), Some(&length));
            }
        }
    });
}

fn ping(client: &mut Frames) -> bool {
    client.send(PING, 0, 0, &[0; 8]) && client.find(&[PING]).is_some()
}

/// The most memory that the gate has held, in KiB.
fn peak_memory(gate: &Gate) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid()));
    let status = status.expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let size = line.and_then(|line| line.split_whitespace().next());
    size.and_then(|size| size.parse().ok()).expect("a size")
}

#[test]
fn a_head_that_never_ends_ends_the_connection_and_costs_no_memory() {
    let backend = Backend::ok();
    let certificates = Certificates::new();
    let gate = open(&certificates, &backend.url(), "");
    // As one field that goes on, as many small fields, and as nothing at all (CVE-2024-27316).
    let many = block(&[("x-a", "1")]).repeat(1500);
    for piece in [vec![b'a'; 16_000], many, Vec::new()] {
        let before = peak_memory(&gate);
        let mut client = frames(&certificates, &gate);
        let mut head = block(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/"),
            (":authority", "app.test"),
        ]);
        if piece.first() == Some(&b'a') {
            // The name of a field whose value is said to be 100 MB long.
            head.extend_from_slice(&[0, 1, b'x', 0x7f, 0x81, 0xff, 0xd6, 0x2f]);
        }
        assert!(client.send(HEADERS, END_STREAM, 1, &head));
        let sent = (0..20_000)
            .take_while(|_| client.send(CONTINUATION, 0, 1, &piece))
            .count();
        assert!(sent < 20_000, "frames of {} bytes", piece.len());
        let grown = peak_memory(&gate).saturating_sub(before);
        assert!(grown < 8 * 1024, "{grown} KiB for {} bytes", piece.len());
    }
    assert_eq!(backend.received(), "");
    let still = run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        client.get("/").await.status
    });
    assert_eq!(still, 200);
}
