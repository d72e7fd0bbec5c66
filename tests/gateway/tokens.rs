//! Tokens for programs: the gate's own.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Output};

use crate::support::{
    Answer, Backend, Client, Gate, Setup, ask, get, policy, portcullis, raw_backend, read_request,
};

fn tokens(dir: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command: Command = portcullis(dir);
    command
        .arg("tokens")
        .args(arguments)
        .output()
        .expect("it runs")
}

/// Makes a token; its text.
#[track_caller]
fn create(dir: &std::path::Path, arguments: &[&str]) -> String {
    let made = tokens(dir, &[&["create"], arguments].concat());
    let errors = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{errors}");
    String::from_utf8(made.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

fn id(token: &str) -> &str {
    token.split('_').nth(1).expect("an id")
}

fn bearer(address: SocketAddr, request: &str, token: &str) -> Answer {
    ask(
        address,
        format!("{request} HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {token}\r\n\r\n"),
    )
}

fn gate(backend: &str) -> Gate {
    Setup::plain(&policy(
        backend,
        "access = { groups = [\"bots\"] }\n[sign_in]\nwith = [\"local\", \"tokens\"]",
    ))
    .start()
}

#[test]
fn a_token_of_the_gates_own_signs_in_where_it_is_for_and_stays_inside() {
    let backend = Backend::ok();
    let gate = gate(&backend.url());
    let seen = gate.log().len();
    let token = create(
        &gate.path(),
        &[
            "backup",
            "--app",
            "app",
            "--path",
            "/api",
            "--method",
            "GET",
            "--group",
            "bots",
            "--expires",
            "90d",
        ],
    );
    gate.wait_for_line("reloaded", seen);
    assert_eq!(bearer(gate.address(), "GET /api/pages", &token).status, 200);
    let received = backend.received();
    assert!(
        received.contains("x-portcullis-user: backup\r\n"),
        "{received}"
    );
    assert!(
        received.contains("x-portcullis-groups: bots\r\n"),
        "{received}"
    );
    assert!(!received.contains("pc_"), "the credential was used up");
    for request in ["GET /", "GET /apis", "POST /api", "DELETE /api/pages"] {
        let answer = bearer(gate.address(), request, &token);
        assert_eq!(answer.status, 403, "{request}");
        gate.wait_for_log("sign_in.token_scope");
    }
    assert_eq!(backend.requests(), 1);
    let file = std::fs::read_to_string(gate.path().join("state/tokens.toml")).expect("the file");
    assert!(!file.contains(&token[16..80]), "only a hash is kept");
    let log = gate.log().join("\n");
    assert!(!log.contains(&token[16..80]), "no secret is in the log");
}

#[test]
fn a_token_that_is_not_whole_not_known_or_over_is_401_and_reaches_nothing() {
    let backend = Backend::ok();
    let gate = gate(&backend.url());
    let seen = gate.log().len();
    let make = |name: &str, life: &str| {
        create(
            &gate.path(),
            &[name, "--app", "app", "--group", "bots", "--expires", life],
        )
    };
    let brief = make("brief", "1s");
    gate.wait_for_line("reloaded", seen);
    let whole = make("whole", "1h");
    let gone = make("gone", "1h");
    let revoked = tokens(&gate.path(), &["revoke", id(&gone)]);
    assert!(revoked.status.success());
    let is_taken = || bearer(gate.address(), "GET /", &whole).status == 200;
    crate::support::wait_until("the token is taken up", is_taken);
    let answered = backend.requests();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    for (token, reason) in [
        (&*gone, "sign_in.token_unknown"),
        (&*brief, "sign_in.token_expired"),
        (&whole[..70], "sign_in.token_malformed"),
        (
            &*whole.to_uppercase().replacen("PC_", "pc_", 1),
            "sign_in.token_malformed",
        ),
    ] {
        let answer = bearer(gate.address(), "GET /", token);
        assert_eq!(answer.status, 401, "{reason}");
        let challenges = answer.fields("www-authenticate");
        let told =
            |one: &&str| one.starts_with("Bearer ") && one.contains("error=\"invalid_token\"");
        assert!(challenges.iter().any(told), "{challenges:?}");
        gate.wait_for_log(reason);
    }
    assert_eq!(backend.requests(), answered);
}

#[test]
fn what_is_open_for_a_token_ends_when_it_is_taken_back() {
    let url = raw_backend(|mut stream| {
        let _ = read_request(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(b"5\r\nfirst\r\n");
        let _ = stream.read(&mut [0; 16]);
    });
    let gate = gate(&url);
    let seen = gate.log().len();
    let make = |name| {
        create(
            &gate.path(),
            &[name, "--app", "app", "--group", "bots", "--expires", "1h"],
        )
    };
    let (token, other) = (make("one"), make("two"));
    gate.wait_for_line("reloaded", seen);
    crate::support::wait_until("both are taken", || {
        let ask = |token| {
            let mut client = Client::connect(gate.address());
            client.send(format!("HEAD / HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"));
            client.read_head().status
        };
        ask(&token) == 200 && ask(&other) == 200
    });
    let open = |token: &str| {
        let mut client = Client::connect(gate.address());
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        let mut got = Vec::new();
        while !got.ends_with(b"first\r\n") {
            let mut byte = [0];
            client.0.read_exact(&mut byte).expect("the first event");
            got.push(byte[0]);
        }
        client
    };
    let (mut ends, stays) = (open(&token), open(&other));
    assert!(
        tokens(&gate.path(), &["revoke", id(&token)])
            .status
            .success()
    );
    assert!(ends.is_closed());
    gate.wait_for_log("session_over");
    stays.0.set_nonblocking(true).expect("a mode");
    let nothing = (&stays.0).read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(
        nothing.err(),
        Some(std::io::ErrorKind::WouldBlock),
        "the other stays"
    );
}

#[test]
fn the_command_makes_no_token_that_would_do_too_much() {
    let setup = Setup::plain(&policy(
        "whoami",
        "access = \"signed-in\"\n[sign_in]\nwith = [\"tokens\"]",
    ));
    let dir = setup.write();
    let dir = dir.path();
    for arguments in [
        &["x", "--app", "app"][..],
        &["x", "--expires", "1h"],
        &["x", "--app", "other", "--expires", "1h"],
        &["x", "--app", "app", "--expires", "0s"],
        &["x", "--app", "app", "--expires", "800d"],
        &["x", "--app", "app", "--expires", "1h", "--path", "api"],
        &["x", "--app", "app", "--expires", "1h", "--path", "/a/../b"],
        &["x", "--app", "app", "--expires", "1h", "--method", "get"],
        &["x", "--app", "app", "--expires", "1h", "--group", "a,b"],
        &[" x", "--app", "app", "--expires", "1h"],
    ] {
        let made = tokens(dir, &[&["create"], arguments].concat());
        assert!(
            !made.status.success() && made.stdout.is_empty(),
            "{arguments:?}"
        );
    }
    assert!(!dir.join("state/tokens.toml").exists());
    let token = create(dir, &["x", "--app", "app", "--expires", "1h"]);
    let listed = tokens(dir, &["list"]).stdout;
    let listed = String::from_utf8(listed).expect("text");
    let start = format!("{}\tx\tapp\t/\t\t\t", id(&token));
    assert!(
        listed.starts_with(&start) && !listed.contains(&token[16..80]),
        "{listed}"
    );
    assert!(!tokens(dir, &["revoke", "0123456789ab"]).status.success());
    std::fs::write(dir.join("policies/app.toml"), "hots = 1\n").expect("a file");
    let revoked = tokens(dir, &["revoke", id(&token)]);
    let told = String::from_utf8_lossy(&revoked.stderr);
    assert!(
        !revoked.status.success() && told.contains("until these are mended"),
        "{told}"
    );
}

#[test]
fn a_token_of_the_gates_own_is_nothing_where_the_policy_does_not_take_it() {
    let text = policy(
        "whoami",
        "access = \"signed-in\"\n[sign_in]\nwith = [\"basic\"]",
    );
    let gate = Setup::plain(&text).start();
    let seen = gate.log().len();
    let token = create(&gate.path(), &["x", "--app", "app", "--expires", "1h"]);
    gate.wait_for_line("reloaded", seen);
    assert_eq!(bearer(gate.address(), "GET /", &token).status, 401);
    assert_eq!(get(gate.address(), "/", "").status, 401);
}
