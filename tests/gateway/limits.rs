//! Bounds on what a client may do.

use std::io::Read as _;

use crate::support::{Backend, Client, Setup, ask, get, policy};

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
    crate::support::wait_until("there is room again", || {
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
