//! Bounds on what a client may do.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::frames::{Frames, HEADERS, block};
use crate::streams::{connect, request, run};
use crate::support::{
    Backend, Client, Gate, PATIENCE, Setup, ask, get, policy, raw_backend, read_request, wait_until,
};
use crate::tls::Certificates;

fn open(backend: &Backend, limits: &str) -> Setup {
    Setup::plain(&policy(&backend.url(), "access = \"public\"")).gateway(limits)
}

#[test]
fn content_beyond_the_limit_is_413_and_the_connection_closes() {
    let backend = Backend::ok();
    let text = policy(
        &backend.url(),
        "access = \"public\"\n[limits]\nbody = \"1KiB\"",
    );
    let gate = Setup::plain(&text).start();
    let mut client = Client::connect(gate.address());
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1025\r\n\r\n");
    assert_eq!(client.read().status, 413);
    assert!(client.is_closed());
    assert_eq!(
        backend.received(),
        "",
        "a stated length is enough to refuse"
    );
    let chunk = "x".repeat(1025);
    let mut client = Client::connect(gate.address());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n{chunk}\r\n0\r\n\r\n"
    ));
    assert_eq!(client.read().status, 413);
    assert!(client.is_closed());
    assert_eq!(backend.requests(), 0);
    let fits = "x".repeat(1024);
    let request =
        format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1024\r\n\r\n{fits}");
    assert_eq!(ask(gate.address(), request).status, 200);
}

#[test]
fn a_head_that_does_not_end_is_408() {
    let backend = Backend::ok();
    let gate = open(&backend, "[limits]\nheader = \"200ms\"\n").start();
    let mut client = Client::connect(gate.address());
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n");
    assert_eq!(client.read().status, 408);
    assert!(client.is_closed());
    assert_eq!(backend.received(), "");
}

#[test]
fn content_that_does_not_come_ends_the_connection() {
    let backend = Backend::ok();
    let gate = open(&backend, "[limits]\nbody_idle = \"200ms\"\n").start();
    let mut client = Client::connect(gate.address());
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.read().status, 408);
    assert!(client.is_closed());
    assert_eq!(
        backend.requests(),
        0,
        "no backend takes it for a whole request"
    );
}

#[test]
fn an_idle_connection_is_closed() {
    let backend = Backend::ok();
    let gate = open(&backend, "[limits]\nkeep_alive = \"200ms\"\n").start();
    let mut client = Client::connect(gate.address());
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(client.read().status, 200);
    assert!(client.is_closed());
}

#[test]
fn too_many_fields_are_431_and_too_long_a_target_414() {
    let backend = Backend::ok();
    let gate = open(
        &backend,
        "[limits]\nheader_count = 10\nuri_bytes = \"256\"\nheader_bytes = \"4KiB\"\n",
    )
    .start();
    let fields: String = (0..10).map(|at| format!("X-{at}: 1\r\n")).collect();
    assert_eq!(get(gate.address(), "/", &fields).status, 431);
    assert_eq!(
        get(gate.address(), "/", &format!("X: {}\r\n", "a".repeat(5000))).status,
        431
    );
    assert_eq!(
        get(gate.address(), &format!("/{}", "a".repeat(256)), "").status,
        414
    );
    assert_eq!(backend.received(), "");
}

#[test]
fn one_network_has_no_more_than_its_share_of_connections() {
    let backend = Backend::ok();
    let gate = open(&backend, "[limits]\nconnections_per_network = 2\n").start();
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let mut held: Vec<Client> = (0..2).map(|_| Client::connect(gate.address())).collect();
    for client in &mut held {
        assert_eq!(client.send(request).read().status, 200);
    }
    let mut third = Client::connect(gate.address());
    let read = third.0.read(&mut [0]);
    assert!(!matches!(read, Ok(1..)), "the third is closed: {read:?}");
    drop(held);
    wait_until("there is room again", || {
        Client::connect(gate.address())
            .send(request)
            .try_read(false)
            .is_some()
    });
}

#[test]
fn too_many_requests_are_429_with_the_time_to_wait() {
    let backend = Backend::ok();
    let text = policy(
        &backend.url(),
        "access = \"public\"\n[rate]\nper_client = \"2/h\"",
    );
    let gate = Setup::plain(&text).start();
    let statuses: Vec<u16> = (0..3)
        .map(|_| get(gate.address(), "/", "").status)
        .collect();
    assert_eq!(statuses, [200, 200, 429]);
    let answer = get(gate.address(), "/", "");
    let wait: u64 = answer
        .field("retry-after")
        .expect("Retry-After")
        .parse()
        .expect("seconds");
    assert!((1..=1800).contains(&wait), "{wait}");
    assert!(answer.field("ratelimit").is_some(), "{}", answer.head);
    assert_eq!(backend.requests(), 2);
}

const PUBLIC: &str = "access = \"public\"\n";

/// A backend that tells all that came on each connection, when the connection is over.
fn listening() -> (String, mpsc::Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let backend = raw_backend(move |mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let all = String::from_utf8_lossy(&all).into_owned();
        let _ = tell.lock().expect("a channel").send(all);
    });
    (backend, told)
}

/// A backend whose answer never ends.
fn endless() -> String {
    raw_backend(|mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while stream.write_all(chunk.as_bytes()).is_ok() {}
        }
    })
}

fn over_tls(certificates: &Certificates, backend: &str, rules: &str, limits: &str) -> Gate {
    let text = policy(backend, &format!("{PUBLIC}{rules}"));
    certificates.setup(&text, "").gateway(limits).start()
}

#[test]
fn content_that_grows_beyond_the_limit_is_never_a_whole_request_to_the_backend() {
    let (backend, told) = listening();
    let certificates = Certificates::new();
    let limited = "[limits]\nbody = \"64KiB\"";
    let plain = Setup::plain(&policy(&backend, &format!("{PUBLIC}{limited}"))).start();
    let part = "x".repeat(40 * 1024);
    let mut client = Client::connect(plain.address());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\na000\r\n{part}\r\na000\r\n{part}\r\n0\r\n\r\n"
    ));
    assert_eq!(client.read().status, 413);
    assert!(client.is_closed());
    let received = told.recv_timeout(PATIENCE).expect("what came");
    assert!(received.starts_with("POST / ") && !received.ends_with("0\r\n\r\n"));
    let gate = over_tls(&certificates, &backend, limited, "");
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let part = Bytes::from(part);
        let pieces = [part.clone(), part];
        let stated = request("POST", "/").header("content-length", "81920");
        let answer = client.exchange(stated, Some((&pieces, None))).await;
        assert_eq!(answer.expect("an answer").status, 413);
        let answer = client.exchange(request("POST", "/"), Some((&pieces, None)));
        assert_eq!(answer.await.expect("an answer").status, 413);
    });
    let received = told.recv_timeout(PATIENCE).expect("what came");
    assert!(received.starts_with("POST / ") && !received.ends_with("0\r\n\r\n"));
    assert!(
        !received.contains("content-length"),
        "a stated length is enough to refuse"
    );
    drop((plain, gate));
    assert!(told.try_recv().is_err(), "nothing else came");
}

#[test]
fn content_that_stops_coming_over_http2_is_408_and_never_a_whole_request() {
    let (backend, told) = listening();
    let certificates = Certificates::new();
    let limits = "[limits]\nbody_idle = \"200ms\"\n";
    let gate = over_tls(&certificates, &backend, "", limits);
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let mut streams = client.streams.clone().ready().await.expect("ready");
        let head = request("POST", "/").body(()).expect("a request");
        let (answer, mut sending) = streams.send_request(head, false).expect("a stream");
        let half = Bytes::from_static(b"half");
        sending.send_data(half, false).expect("some content");
        assert_eq!(answer.await.expect("an answer").status(), 408);
    });
    let received = told.recv_timeout(PATIENCE).expect("what came");
    assert!(received.ends_with("4\r\nhalf\r\n"), "{received}");
}

#[test]
fn content_that_trickles_below_the_minimum_rate_is_408() {
    let (backend, told) = listening();
    let certificates = Certificates::new();
    let limits = "[limits]\nminimum_rate = \"1KiB\"\n";
    let plain = Setup::plain(&policy(&backend, PUBLIC)).gateway(limits);
    let plain = plain.start();
    let gate = over_tls(&certificates, &backend, "", limits);
    let mut client = Client::connect(plain.address());
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000\r\n\r\n");
    let begun = Instant::now();
    run(async {
        let other = connect(&gate, certificates.client(&["h2"])).await;
        let mut streams = other.streams.clone().ready().await.expect("ready");
        let head = request("POST", "/").body(()).expect("a request");
        let (answer, mut sending) = streams.send_request(head, false).expect("a stream");
        let mut drip = tokio::time::interval(Duration::from_millis(100));
        let dripping = async {
            loop {
                drip.tick().await;
                client.send("x");
                let _ = sending.send_data(Bytes::from_static(b"x"), false);
            }
        };
        tokio::select! {
            () = dripping => {}
            answer = answer => assert_eq!(answer.expect("an answer").status(), 408),
        }
    });
    assert_eq!(client.read().status, 408);
    assert!(client.is_closed());
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(9) && took < Duration::from_secs(15),
        "{took:?}"
    );
    for _ in 0..2 {
        let received = told.recv_timeout(PATIENCE).expect("what came");
        assert!(received.starts_with("POST / ") && !received.ends_with("0\r\n\r\n"));
    }
}

#[test]
fn a_client_that_takes_its_answer_at_a_trickle_is_given_up() {
    let backend = endless();
    let limits = "[limits]\nbody_idle = \"500ms\"\n";
    let certificates = Certificates::new();
    let plain = Setup::plain(&policy(&backend, PUBLIC)).gateway(limits);
    let plain = plain.start();
    let mut client = Client::connect(plain.address());
    client.send("GET /trickle HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let mut byte = [0];
    wait_until("it is given up", || {
        let _ = client.0.read(&mut byte);
        plain.log().iter().any(|line| line.contains("/trickle"))
    });
    let line = plain.wait_for_log("/trickle");
    assert!(line.contains("wire.body_timeout"), "{line}");
    // Over HTTP/2, a client that gives no window back holds the connection no longer.
    let gate = over_tls(&certificates, &backend, "", limits);
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let mut streams = client.streams.clone().ready().await.expect("ready");
        let head = request("GET", "/kept").body(()).expect("a request");
        let (answer, _) = streams.send_request(head, true).expect("a stream");
        let _kept = answer.await.expect("an answer").into_body();
        let _ = client.task.await.expect("a task");
    });
    gate.wait_for_log("/kept");
}

#[test]
fn a_tls_handshake_that_does_not_end_ends_the_connection() {
    let backend = Backend::ok();
    let certificates = Certificates::new();
    let limits = "[limits]\ntls_handshake = \"300ms\"\nheader = \"1h\"\n";
    let gate = over_tls(&certificates, &backend.url(), "", limits);
    let hello: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    for sent in [&[], hello] {
        let mut client = Client::connect(gate.address());
        assert!(client.send(sent).is_closed());
    }
    let mut trickle = Client::connect(gate.address());
    trickle.send(hello);
    let begun = Instant::now();
    while trickle.0.write_all(&[0]).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "a byte now and then buys time");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_head_that_trickles_gets_no_more_time_for_it() {
    let backend = Backend::ok();
    let gate = open(&backend, "[limits]\nheader = \"300ms\"\n").start();
    let mut client = Client::connect(gate.address());
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\nX: ");
    client
        .0
        .set_read_timeout(Some(Duration::from_millis(10)))
        .expect("a timeout");
    let begun = Instant::now();
    let mut first = [0];
    while client.0.read(&mut first).is_err() {
        assert!(begun.elapsed() < PATIENCE, "a byte now and then buys time");
        client.send("x");
    }
    client
        .0
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout");
    let mut rest = String::new();
    let _ = client.0.read_to_string(&mut rest);
    assert!(rest.starts_with("TTP/1.1 408 "), "{rest}");
    assert_eq!(backend.received(), "");
}

#[test]
fn an_http2_connection_without_requests_is_closed() {
    let backend = Backend::ok();
    let certificates = Certificates::new();
    let limits = "[limits]\nkeep_alive = \"200ms\"\nheader = \"200ms\"\n";
    let gate = over_tls(&certificates, &backend.url(), "", limits);
    // One that is idle, and one with a head that never ends.
    let mut half = Frames::open(certificates.connect(gate.address(), "app.test", "h2"));
    half.send(HEADERS, 0, 1, &block(&[(":method", "GET")]));
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        assert_eq!(client.get("/").await.status, 200);
        let _ = client.task.await.expect("a task");
    });
    while half.read().is_some() {}
}

#[test]
fn a_header_of_the_proxy_protocol_that_does_not_come_ends_the_connection() {
    let mut setup =
        Setup::plain(&policy("whoami", PUBLIC)).gateway("[limits]\nheader = \"200ms\"\n");
    setup.gateway = setup.gateway.replace(
        "tls = false\n",
        "tls = false\nproxy_protocol_from = [\"127.0.0.0/8\"]\n",
    );
    let gate = setup.start();
    for sent in ["", "PROXY TCP4 203.0.113.5 "] {
        let mut client = Client::connect(gate.address());
        assert!(client.send(sent).is_closed(), "{sent:?}");
    }
}

#[test]
fn there_are_no_more_connections_than_the_gate_may_have() {
    let backend = Backend::ok();
    let gate = open(&backend, "[limits]\nconnections = 2\n").start();
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
    // One in use, one that says nothing at all.
    let mut held = Client::connect(gate.address());
    assert_eq!(held.send(request).read().status, 200);
    let silent = TcpStream::connect(gate.address()).expect("a connection");
    let mut third = Client::connect(gate.address());
    assert!(third.send(request).is_closed());
    assert_eq!(held.send(request).read().status, 200, "who is in stays in");
    drop(silent);
    wait_until("there is room again", || {
        let mut next = Client::connect(gate.address());
        next.send(request).try_read(false).is_some()
    });
}
