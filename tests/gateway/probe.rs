//! `portcullis probe` against backends that believe too much, and one that does not.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::keys::SigningKeys;
use portcullis::pure::jwk::{Algorithm, KeySet};
use serde_json::Value;

use crate::support::{Backend, Gate, Setup, policy, portcullis};

const SIGNED: &str = "access = \"signed-in\"\n[headers]\nidentity = [\"assertion\"]\n";

/// What a probe of `app` printed, and its exit status.
fn probe(gate: &Gate, more: &[&str]) -> (String, Option<i32>) {
    let mut command = portcullis(&gate.path());
    let output = command.args(["probe", "app"]).args(more).output();
    let output = output.expect("it runs");
    let said = String::from_utf8(output.stdout).expect("a text")
        + &String::from_utf8(output.stderr).expect("a text");
    (said, output.status.code())
}

fn open(backend: &Backend, rest: &str) -> Gate {
    Setup::plain(&policy(&backend.url(), rest)).start()
}

fn field(request: &str, name: &str) -> Option<String> {
    let lines = request.lines().filter_map(|line| line.split_once(": "));
    let found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.to_owned()).next()
}

fn lines<'a>(said: &'a str, verdict: &str) -> Vec<&'a str> {
    said.lines()
        .filter(|line| line.trim_start().starts_with(verdict))
        .collect()
}

/// A backend that answers 200 to an assertion by a key of the gate whose claims are as they must be,
/// but for those that it forgets; 401 else.
fn verifying(forgets: &'static [&'static str]) -> (Backend, Arc<OnceLock<PathBuf>>) {
    let keys = Arc::new(OnceLock::<PathBuf>::new());
    let file = Arc::clone(&keys);
    let accepts = move |request: &str| -> Option<()> {
        let assertion = field(request, "x-portcullis-assertion")?;
        let (message, signature) = assertion.rsplit_once('.')?;
        let (_, claims) = message.split_once('.')?;
        let text = std::fs::read_to_string(file.get()?).ok()?;
        let set = SigningKeys::read(&text).ok()?.key_set();
        let set = KeySet::parse(set.as_bytes()).ok()?;
        let key = set.find(Algorithm::Es256, None).ok()?;
        if !forgets.contains(&"signature")
            && !key.verifies(Algorithm::Es256, message.as_bytes(), signature)
        {
            return None;
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let right = [
            ("aud", claims["aud"] == "app"),
            ("path", claims["path"] == "/"),
            ("htm", claims["htm"] == "GET"),
            ("exp", claims["exp"].as_u64()? > now),
        ];
        let holds = |(name, right): &(&str, bool)| *right || forgets.contains(name);
        right.iter().all(holds).then_some(())
    };
    let backend = Backend::new(move |request| {
        let request = String::from_utf8_lossy(request);
        let status = accepts(&request).map_or("401 No", |()| "200 OK");
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    (backend, keys)
}

fn verifying_gate(forgets: &'static [&'static str]) -> (Gate, Backend) {
    let (backend, keys) = verifying(forgets);
    let gate = open(&backend, SIGNED);
    let file = gate.path().join("state/assertion.keys");
    keys.set(file).expect("set once");
    (gate, backend)
}

#[test]
fn a_backend_that_verifies_assertions_accepts_none_of_it() {
    let (gate, _backend) = verifying_gate(&[]);
    let (said, status) = probe(&gate, &[]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(lines(&said, "ACCEPTED"), Vec::<&str>::new());
    assert_eq!(lines(&said, "refused").len(), 30);
    // That the backend takes the right one says that it is this that it refuses the others for.
    assert_eq!(
        lines(&said, "control"),
        ["  control  200  a right assertion, to compare"]
    );
    assert!(said.contains("from this machine alone"), "{said}");
}

#[test]
fn what_a_backend_forgets_to_check_is_named() {
    for (forgets, accepted) in [
        (&["aud"][..], vec!["an assertion for another application"]),
        (&["path"], vec!["an assertion for another path"]),
        (&["htm"], vec!["an assertion for another method"]),
        (&["exp"], vec!["an expired assertion"]),
        (
            &["signature"],
            vec!["an unsigned assertion", "a forged assertion"],
        ),
    ] {
        let (gate, _backend) = verifying_gate(forgets);
        let (said, status) = probe(&gate, &[]);
        assert_eq!(status, Some(1), "{said}");
        let expected: Vec<String> = accepted
            .iter()
            .map(|name| format!("  ACCEPTED 200  {name}"))
            .collect();
        assert_eq!(lines(&said, "ACCEPTED"), expected);
    }
}

#[test]
fn a_backend_that_believes_another_gateways_field_is_found_out() {
    let backend = Backend::new(|request| {
        let request = String::from_utf8_lossy(request);
        let status = field(&request, "x-forwarded-user").map_or("401 No", |_| "200 OK");
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nServer: Leaky/1.0\r\nX-Powered-By: PHP\u{9b}2J\r\nX-Own: 1\r\n\r\n").into_bytes()
    });
    let gate = open(&backend, "access = \"signed-in\"");
    let (said, status) = probe(&gate, &["--json", "--path", "/a?b"]);
    assert_eq!(status, Some(1), "{said}");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(report["app"], "app");
    let found = &report["backends"][0];
    assert_eq!(
        (&found["address"], &found["accepted"]),
        (&Value::from(backend.url()), &Value::from(1))
    );
    let answers = found["answers"].as_array().expect("answers");
    let accepted = answers.iter().filter(|one| one["accepted"] == true);
    let names: Vec<&Value> = accepted.map(|one| &one["attack"]).collect();
    assert_eq!(names, ["X-Forwarded-User"]);
    assert!(
        backend
            .received()
            .contains("GET /a?b HTTP/1.1\r\nhost: app.test\r\n")
    );
    // It asks nothing of who has no assertions to verify, and writes nothing that a terminal obeys.
    assert!(!said.contains("assertion") && !said.contains('\u{9b}'));
}

#[test]
fn a_backend_that_serves_everybody_is_open_and_shows_its_banners() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: Leaky/1.0\r\nX-Powered-By: PHP\r\nX-Own: 1\r\n\r\nok",
    );
    let gate = open(&backend, "access = \"signed-in\"");
    let (said, status) = probe(&gate, &[]);
    assert_eq!(status, Some(1), "{said}");
    assert_eq!(lines(&said, "ACCEPTED")[0], "  ACCEPTED 200  no identity");
    let banners = [
        "  gives itself away: server: Leaky/1.0",
        "  gives itself away: x-powered-by: PHP",
    ];
    assert_eq!(lines(&said, "gives itself away"), banners);
    assert!(said.contains("=> accepted 23 of 23"), "{said}");
}

#[test]
fn what_can_not_be_asked_is_not_shown_to_be_safe() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", closed.local_addr().expect("an address"));
    drop(closed);
    let gate = Setup::plain(&policy(&url, "access = \"signed-in\"")).start();
    let (said, status) = probe(&gate, &[]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("can't be reached"), "{said}");
    let mut command = portcullis(&gate.path());
    let output = command.args(["probe", "wiki"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "there is no application `wiki`; there are `app`\n");
}
