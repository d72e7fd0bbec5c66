//! Backends that come, go, hang and lie.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{
    Backend, Client, Gate, Setup, ask, get, policy, raw_backend, read_request, serve_raw,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn open(backend: &str) -> Gate {
    Setup::plain(&policy(
        backend,
        "access = \"public\"\n[rate]\nper_client = \"off\"",
    ))
    .start()
}

/// How the requests of one client are answered, `method` each time.
fn statuses(gate: &Gate, method: &str, times: usize) -> Vec<u16> {
    let mut client = Client::connect(gate.address());
    (0..times)
        .map(|_| {
            client.send(format!(
                "{method} / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\nx"
            ));
            client.read().status
        })
        .collect()
}

#[test]
fn a_connection_to_the_backend_is_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let backend = raw_backend(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        while read_request(&mut stream).is_some() && stream.write_all(OK).is_ok() {}
    });
    let gate = open(&backend);
    for _ in 0..10 {
        assert_eq!(get(gate.address(), "/", "").status, 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_stale_connection_costs_no_client_an_error() {
    // Answers once on each connection, and closes it without a word.
    let backend = raw_backend(|mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(OK);
        }
    });
    let gate = open(&backend);
    let mut client = Client::connect(gate.address());
    for at in 0..200 {
        client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
        assert_eq!(client.read().status, 200, "request {at}");
    }
}

#[test]
fn a_request_that_may_have_had_an_effect_is_not_sent_twice() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let backend = raw_backend(move |mut stream| {
        // What is read may have had an effect; it is dropped without an answer.
        if read_request(&mut stream).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let gate = open(&backend);
    assert_eq!(statuses(&gate, "POST", 2), [502, 502]);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[test]
fn a_backend_that_is_away_is_502_until_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let gate = open(&format!("http://{address}"));
    let answer = get(gate.address(), "/", "");
    assert_eq!(answer.status, 502);
    assert!(
        !answer.body.contains(&address.port().to_string()),
        "{}",
        answer.body
    );
    let listener = TcpListener::bind(address).expect("the port again");
    serve_raw(listener, |mut stream| {
        while read_request(&mut stream).is_some() && stream.write_all(OK).is_ok() {}
    });
    assert_eq!(statuses(&gate, "POST", 5), [200; 5]);
}

#[test]
fn while_one_backend_is_away_the_other_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let away = listener.local_addr().expect("an address");
    drop(listener);
    let backend = Backend::ok();
    let both = format!("http://{away}\", \"{}", backend.url());
    let gate = open(&both);
    assert_eq!(statuses(&gate, "POST", 10), [200; 10]);
    assert_eq!(backend.requests(), 10);
}

#[test]
fn a_backend_that_says_nothing_is_504() {
    let backend = raw_backend(|mut stream| {
        // Reads until the gate leaves.
        while stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
    });
    let text = policy(
        &backend,
        "access = \"public\"\n[backend]\nfirst_byte = \"200ms\"",
    );
    let gate = Setup::plain(&text).start();
    let answer = ask(
        gate.address(),
        "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\nx",
    );
    assert_eq!(answer.status, 504);
    gate.wait_for_log("forward.first_byte_timeout");
}

#[test]
fn a_response_that_two_readers_read_differently_is_502() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let backend = raw_backend(move |mut stream| {
            if read_request(&mut stream).is_some() {
                let _ = stream.write_all(response.as_bytes());
            }
        });
        let gate = open(&backend);
        assert_eq!(get(gate.address(), "/", "").status, 502, "{response:?}");
    }
}

#[test]
fn bytes_behind_a_response_never_answer_the_next_request() {
    let backend = raw_backend(|mut stream| {
        while read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        }
    });
    let gate = open(&backend);
    for _ in 0..20 {
        assert_eq!(get(gate.address(), "/", "").body, "ok");
    }
}
