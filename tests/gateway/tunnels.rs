//! WebSockets and event streams: opened by the rules, ended with the session.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{
    Client, Gate, Setup, policy, raw_backend, read_request, replace, sign_in, sign_out,
};

/// The key of RFC 6455 §1.3, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn switching(accept: &'static str) -> String {
    raw_backend(move |mut stream| {
        if read_request(&mut stream).is_none() {
            return;
        }
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes());
        echo(stream);
    })
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 || stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

fn open(backend: &str, access: &str) -> Gate {
    Setup::plain(&policy(backend, &format!("access = \"{access}\"")))
        .account("ada")
        .start()
}

fn shake(gate: &Gate, fields: &str) -> Client {
    let mut client = Client::connect(gate.address());
    client.send(format!(
        "GET /socket HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    ));
    client
}

fn echoes(client: &mut Client) -> bool {
    let mut back = [0; 4];
    client.send("ping").0.read_exact(&mut back).is_ok() && &back == b"ping"
}

/// What would be said in a tunnel is no request, or the end.
#[track_caller]
fn is_no_tunnel(client: &mut Client) {
    client.send("ping\r\n\r\n");
    let next = client.try_read(false);
    assert!(next.is_none_or(|next| next.status == 400));
}

#[test]
fn a_websocket_opens_only_when_the_backend_accepts_this_handshake() {
    let gate = open(&switching(ACCEPT), "public");
    let mut client = shake(&gate, "");
    assert_eq!(client.read().status, 101);
    assert!(echoes(&mut client));
    let gate = open(&switching("AAAAAAAAAAAAAAAAAAAAAAAAAAA="), "public");
    let mut client = shake(&gate, "");
    assert_eq!(client.read().status, 502);
}

#[test]
fn a_websocket_that_the_backend_refuses_is_no_tunnel() {
    let backend =
        crate::support::Backend::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let gate = open(&backend.url(), "public");
    let mut client = shake(&gate, "");
    client.send("GET /admin HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!(client.read().status, 403);
    // What followed is a request like any other, or nothing at all: it is not the backend's to read.
    if let Some(next) = client.try_read(false) {
        assert_eq!(next.status, 421);
    }
    assert!(!backend.received().contains("other.test"));
}

#[test]
fn a_websocket_ends_with_the_session_within_a_second() {
    let gate = open(&switching(ACCEPT), "signed-in");
    let (ends, stays) = (
        sign_in(gate.address(), "ada"),
        sign_in(gate.address(), "ada"),
    );
    let mut ending = shake(&gate, &format!("Cookie: {ends}\r\n"));
    let mut staying = shake(&gate, &format!("Cookie: {stays}\r\n"));
    assert_eq!((ending.read().status, staying.read().status), (101, 101));
    assert!(echoes(&mut ending) && echoes(&mut staying));
    let begun = Instant::now();
    assert_eq!(sign_out(gate.address(), &ends), 200);
    assert!(ending.is_closed());
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert!(echoes(&mut staying), "another session's goes on");
    assert_eq!(
        shake(&gate, &format!("Cookie: {ends}\r\n")).read().status,
        401
    );
}

/// A backend that switches to WebSocket, and tells when it has been sent so many bytes, and then what
/// else it was until the end.
fn listening(bytes: usize) -> (String, std::sync::mpsc::Receiver<Vec<u8>>) {
    let (heard, hears) = std::sync::mpsc::channel();
    let backend = raw_backend(move |mut stream| {
        if read_request(&mut stream).is_none() {
            return;
        }
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        // A whole frame, so that the client's side begins with one.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(b"\x81\x02hi");
        let mut words = vec![0; bytes];
        let _ = stream.read_exact(&mut words);
        let _ = heard.send(std::mem::take(&mut words));
        let _ = stream.read_to_end(&mut words);
        let _ = heard.send(words);
    });
    (backend, hears)
}

/// What client and backend are sent once the session is over, after the client has said `last`.
fn last_words(last: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (backend, hears) = listening(last.len());
    let gate = open(&backend, "signed-in");
    let session = sign_in(gate.address(), "ada");
    let mut client = shake(&gate, &format!("Cookie: {session}\r\n"));
    assert_eq!(client.read().status, 101);
    let mut greeting = [0; 4];
    client.0.read_exact(&mut greeting).unwrap();
    client.send(last);
    assert_eq!(hears.recv().unwrap(), last);
    assert_eq!(sign_out(gate.address(), &session), 200);
    let mut words = Vec::new();
    client.0.read_to_end(&mut words).unwrap();
    drop(client);
    (words, hears.recv().unwrap())
}

#[test]
fn whoever_is_cut_off_by_the_gate_is_told_so_in_a_close_frame() {
    let hello = b"\x81\x85\x00\x00\x00\x00hello";
    let (client, backend) = last_words(hello);
    assert_eq!(client, [0x88, 2, 0x03, 0xF0], "1008, not masked");
    let [0x88, 0x82, a, b, _, _, high, low] = *backend else {
        panic!("no masked Close: {backend:?}");
    };
    assert_eq!([high ^ a, low ^ b], 1001_u16.to_be_bytes());
}

#[test]
fn nothing_is_put_into_the_middle_of_a_frame() {
    let half = b"\x81\x85\x00\x00\x00\x00hel";
    let (client, backend) = last_words(half);
    assert_eq!(client, [0x88, 2, 0x03, 0xF0]);
    assert_eq!(backend, b"");
}

#[test]
fn an_event_stream_ends_with_the_session_within_a_second() {
    let backend = raw_backend(|mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
            let _ = stream.read(&mut [0]);
        }
    });
    let gate = open(&backend, "signed-in");
    let session = sign_in(gate.address(), "ada");
    let mut client = Client::connect(gate.address());
    client.send(format!(
        "GET /events HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\n\r\n"
    ));
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: 1\n\n\r\n") {
        let mut byte = [0];
        client.0.read_exact(&mut byte).expect("the stream begins");
        seen.push(byte[0]);
    }
    let begun = Instant::now();
    assert_eq!(sign_out(gate.address(), &session), 200);
    let mut rest = Vec::new();
    let _ = client.0.read_to_end(&mut rest);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        !rest.ends_with(b"0\r\n\r\n"),
        "a stream cut short does not look complete"
    );
}

#[test]
fn a_stream_that_never_pauses_ends_with_the_session() {
    let backend = raw_backend(|mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
        }
    });
    let gate = open(&backend, "signed-in");
    let session = sign_in(gate.address(), "ada");
    let mut client = Client::connect(gate.address());
    client.send(format!(
        "GET /camera HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\n\r\n"
    ));
    // Slower than the backend, so that there is always more at hand.
    let mut some = [0; 4096];
    let mut read = || {
        std::thread::sleep(Duration::from_micros(500));
        matches!(client.0.read(&mut some), Ok(read) if read > 0)
    };
    assert!((0..100).all(|_| read()), "the stream begins");
    assert_eq!(sign_out(gate.address(), &session), 200);
    let begun = Instant::now();
    while read() {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(10), "it goes on after the end");
    }
}

#[test]
fn a_101_that_answers_another_question_is_502_and_no_tunnel() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\n";
    for fields in [
        format!("Connection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n"),
        format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n"),
        format!("Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n"),
        format!(
            "Upgrade: websocket, h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n"
        ),
        "Upgrade: websocket\r\nConnection: Upgrade\r\n".to_owned(),
        format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Accept: {ACCEPT}\r\n"
        ),
        format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
            ACCEPT.to_lowercase()
        ),
    ] {
        let head = format!("{switching}{fields}\r\n");
        let backend = raw_backend(move |mut stream| {
            if read_request(&mut stream).is_some() && stream.write_all(head.as_bytes()).is_ok() {
                echo(stream);
            }
        });
        let gate = open(&backend, "public");
        let mut client = shake(&gate, "");
        assert_eq!(client.read().status, 502, "{fields}");
        is_no_tunnel(&mut client);
        gate.wait_for_log("forward.switched");
    }
}

#[test]
fn a_200_to_a_handshake_is_an_answer_and_no_tunnel() {
    let backend = raw_backend(|mut stream| {
        while let Some(request) = read_request(&mut stream) {
            let status = if request.contains("/socket") {
                200
            } else {
                500
            };
            let head = format!(
                "HTTP/1.1 {status} OK\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nok"
            );
            let _ = stream.write_all(head.as_bytes());
        }
    });
    let gate = open(&backend, "public");
    let mut client = shake(&gate, "");
    let answer = client.read();
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    assert_eq!(answer.field("upgrade"), None);
    is_no_tunnel(&mut client);
}

#[test]
fn a_websocket_on_which_nothing_moves_is_closed() {
    let gate = Setup::plain(&policy(&switching(ACCEPT), "access = \"public\""))
        .gateway(
            "[limits]\ntunnel_idle = \"300ms\"\nkeep_alive = \"100ms\"\nbody_idle = \"100ms\"\n",
        )
        .start();
    let mut client = shake(&gate, "");
    assert_eq!(client.read().status, 101);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert!(echoes(&mut client), "who speaks stays");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(client.is_closed());
    let line = gate.wait_for_log("\"/socket\"");
    assert!(line.contains("wire.tunnel_idle"), "{line}");
}

#[test]
fn a_websocket_ends_when_either_side_does_and_when_the_gate_stops() {
    let backend = raw_backend(|mut stream| {
        if read_request(&mut stream).is_some() {
            let head = format!(
                "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\nhello"
            );
            let _ = stream.write_all(head.as_bytes());
            // Says something, hears something, and goes.
            let _ = stream.read(&mut [0; 4]);
        }
    });
    let gate = open(&backend, "public");
    let mut client = shake(&gate, "");
    assert_eq!(client.read().status, 101);
    let mut hello = [0; 5];
    client
        .0
        .read_exact(&mut hello)
        .expect("what came with the 101");
    assert_eq!(&hello, b"hello");
    client.send("done");
    assert!(client.is_closed());
    let mut gate = Setup::plain(&policy(&switching(ACCEPT), "access = \"public\""))
        .gateway("[limits]\ndrain = \"200ms\"\n")
        .start();
    let mut client = shake(&gate, "");
    assert_eq!(client.read().status, 101);
    assert!(echoes(&mut client));
    gate.signal("TERM");
    assert!(client.is_closed());
    assert_eq!(gate.wait().code(), Some(0));
}

/// Puts another policy in force.
fn edit(gate: &Gate, text: &str) {
    let before = gate.log().len();
    replace(&gate.path(), "policies/app.toml", text);
    gate.wait_for_line("\"reloaded\"", before);
}

#[test]
fn a_websocket_ends_when_a_policy_does_not_allow_it_any_more() {
    let backend = switching(ACCEPT);
    let gate = open(&backend, "signed-in");
    let session = sign_in(gate.address(), "ada");
    let cookie = format!("Cookie: {session}\r\n");
    let allowed = "access = \"signed-in\"";
    for refusing in [
        "[access]\ngroups = [\"others\"]",
        "access = \"signed-in\"\n[network]\ndeny = [\"127.0.0.0/8\"]",
        "access = \"signed-in\"\n[[path]]\nprefix = \"/socket\"\naccess = { users = [\"bob\"] }",
        "[sign_in]\nwith = [\"basic\"]\n[access]\nwho = \"signed-in\"",
    ] {
        let mut socket = shake(&gate, &cookie);
        assert_eq!(socket.read().status, 101, "{refusing}");
        edit(
            &gate,
            &policy(&backend, &format!("contact = \"it\"\n{allowed}")),
        );
        assert!(echoes(&mut socket), "another edit leaves it open");
        let begun = Instant::now();
        edit(&gate, &policy(&backend, refusing));
        assert!(socket.is_closed(), "{refusing}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{refusing}");
        gate.wait_for_line("access.no_longer", 0);
        edit(&gate, &policy(&backend, allowed));
    }
}

#[test]
fn a_websocket_of_nobody_ends_when_somebody_has_to_sign_in() {
    let backend = switching(ACCEPT);
    let gate = open(&backend, "public");
    let mut socket = shake(&gate, "");
    assert_eq!(socket.read().status, 101);
    assert!(echoes(&mut socket));
    edit(&gate, &policy(&backend, "access = \"signed-in\""));
    assert!(socket.is_closed());
}

#[test]
fn an_event_stream_ends_when_a_policy_does_not_allow_it_any_more() {
    let backend = raw_backend(|mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
            let _ = stream.read(&mut [0]);
        }
    });
    for access in ["public", "signed-in"] {
        let gate = open(&backend, access);
        let session = sign_in_where_there_is_a_page(&gate, access);
        let mut client = Client::connect(gate.address());
        client.send(format!(
            "GET /events HTTP/1.1\r\nHost: app.test\r\n{session}\r\n"
        ));
        let mut seen = Vec::new();
        while !seen.ends_with(b"data: 1\n\n\r\n") {
            let mut byte = [0];
            client.0.read_exact(&mut byte).expect("the stream begins");
            seen.push(byte[0]);
        }
        edit(&gate, &policy(&backend, "[access]\ngroups = [\"others\"]"));
        let mut rest = Vec::new();
        let _ = client.0.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{access}: it looks complete");
    }
}

fn sign_in_where_there_is_a_page(gate: &Gate, access: &str) -> String {
    if access == "public" {
        return String::new();
    }
    format!("Cookie: {}\r\n", sign_in(gate.address(), "ada"))
}
