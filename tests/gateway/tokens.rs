//! Tokens for programs: the gate's own, and those that their issuer is asked about.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use serde_json::json;

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
    std::thread::sleep(Duration::from_millis(1100));
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

/// A backend that answers GET with an event, and never comes to an end.
fn events() -> String {
    raw_backend(|mut stream| {
        let request = read_request(&mut stream).unwrap_or_default();
        if request.starts_with("HEAD ") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            return;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(b"5\r\nfirst\r\n");
        let _ = stream.read(&mut [0; 16]);
    })
}

#[test]
fn what_is_open_for_a_token_ends_when_it_is_taken_back() {
    let url = events();
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

/// An issuer that is asked about tokens, and does with each what its name says.
struct Issuer {
    url: String,
    /// The questions, each its credential and its form.
    asked: Arc<Mutex<Vec<String>>>,
    at_once: Arc<AtomicUsize>,
}

impl Issuer {
    fn new(audience: &'static str) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let at_once = Arc::new(AtomicUsize::new(0));
        let (all, now) = (asked.clone(), at_once.clone());
        let url = raw_backend(move |mut stream| {
            let Some(request) = read_request(&mut stream) else {
                return;
            };
            let form = request.split("\r\n\r\n").nth(1).expect("a form");
            let token = form.strip_prefix("token=").expect("the token first");
            let token = token.split('&').next().unwrap_or_default().to_owned();
            all.lock().expect("the questions").push(request);
            now.fetch_add(1, Ordering::SeqCst);
            answer(&mut stream, &token, audience);
            now.fetch_sub(1, Ordering::SeqCst);
        });
        Self {
            url: format!("{url}/introspect"),
            asked,
            at_once,
        }
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("the questions").len()
    }

    fn provider(&self, name: &str, more: &str) -> String {
        format!(
            "[provider.{name}]\nkind = \"introspection\"\nintrospection_url = \"{}\"\nclient_id = \"ga te\"\nclient_secret = {{ file = \"secret\" }}\ngroups_claim = \"groups\"\n{more}\n",
            self.url
        )
    }
}

fn answer(stream: &mut TcpStream, token: &str, audience: &str) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let mut said = json!({
        "active": true, "aud": audience, "sub": "robot", "groups": ["bots"], "scope": "wiki.read x",
        "token_type": "Bearer", "client_id": "cli", "exp": now + 600,
    });
    let mut head = "HTTP/1.1 200 OK\r\nContent-Type: application/json".to_owned();
    match token.split('-').next().unwrap_or_default() {
        "good" => {}
        "inactive" => said = json!({"active": false}),
        "text" => said["active"] = json!("true"),
        "one" => said["active"] = json!(1),
        "bare" => said = json!({"sub": "robot", "aud": audience}),
        "other" => said["aud"] = json!("somebody else"),
        "for" => said["aud"] = json!("nobody"),
        "dpop" => said["token_type"] = json!("DPoP"),
        "over" => said["exp"] = json!(now - 1),
        "brief" => said["exp"] = json!(now + 2),
        "error" => head = "HTTP/1.1 500 Internal Server Error".to_owned(),
        "denied" => head = "HTTP/1.1 401 Unauthorized".to_owned(),
        "moved" => head = "HTTP/1.1 302 Found\r\nLocation: /other".to_owned(),
        "endless" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while stream.write_all(b"10\r\n                \r\n").is_ok() {}
            return;
        }
        "slow" => {
            let _ = stream.read(&mut [0]);
            return;
        }
        "gone" => return,
        other => panic!("{other}"),
    }
    let said = said.to_string();
    let _ = stream
        .write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{said}", said.len()).as_bytes());
}

fn introspecting(backend: &str, providers: &str) -> Gate {
    let text = policy(
        backend,
        "access = { groups = [\"bots\"] }\n[rate]\nper_client = \"1000/s\"\nburst = 1000\n[sign_in]\nwith = [\"opaque\"]\n[[path]]\nprefix = \"/write\"\naccess = { groups = [\"bots\"], scopes = [\"wiki.write\"] }\n\
         [[path]]\nprefix = \"/b\"\nsign_in = { with = [\"b\"] }\n[[path]]\nprefix = \"/c\"\nsign_in = { with = [\"c\"] }",
    );
    Setup::plain(&text)
        .gateway(providers)
        .file("secret", "hu nter+2\n")
        .start()
}

/// One issuer, asked in three ways.
fn of_one(issuer: &Issuer) -> String {
    [
        issuer.provider("opaque", "audience = [\"app\"]"),
        issuer.provider("b", "audience = [\"other\"]"),
        issuer.provider("c", "audience = [\"app\"]\nclients = [\"another\"]"),
    ]
    .concat()
}

#[test]
fn an_opaque_token_that_its_issuer_stands_by_signs_in_and_is_asked_about_once() {
    let (backend, issuer) = (Backend::ok(), Issuer::new("app"));
    let gate = introspecting(&backend.url(), &of_one(&issuer));
    for _ in 0..3 {
        assert_eq!(bearer(gate.address(), "GET /", "good-1").status, 200);
    }
    let received = backend.received();
    assert!(
        received.contains("x-portcullis-user: robot\r\n"),
        "{received}"
    );
    assert!(!received.contains("good-1"), "the credential was used up");
    assert_eq!(issuer.asked(), 1);
    let question = issuer.asked.lock().expect("the questions")[0].clone();
    // RFC 6749 §2.3.1: both are form-encoded before they are joined.
    let pair = base64::engine::general_purpose::STANDARD.encode("ga+te:hu+nter%2B2");
    let shown = question
        .to_lowercase()
        .contains(&format!("authorization: basic {pair}").to_lowercase());
    assert!(shown, "{question}");
    let refused = bearer(gate.address(), "GET /write", "good-1");
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.field("www-authenticate"),
        Some("Bearer error=\"insufficient_scope\", scope=\"wiki.write\"")
    );
    gate.wait_for_log("access.scope");
    let log = gate.log().join("\n");
    assert!(!log.contains("hu nter") && !log.contains("good-1"), "{log}");
}

#[test]
fn an_issuer_that_misbehaves_lets_nobody_in() {
    let (backend, issuer) = (Backend::ok(), Issuer::new("app"));
    let gate = introspecting(&backend.url(), &of_one(&issuer));
    for (token, status, reason) in [
        ("inactive", 401, "sign_in.introspection_inactive"),
        ("other", 401, "sign_in.introspection_audience"),
        ("for", 401, "sign_in.introspection_audience"),
        ("dpop", 401, "sign_in.introspection_type"),
        ("over", 401, "sign_in.introspection_expired"),
        ("text", 503, "sign_in.introspection_away"),
        ("one", 503, "sign_in.introspection_away"),
        ("bare", 503, "sign_in.introspection_away"),
        ("error", 503, "sign_in.introspection_away"),
        ("denied", 503, "sign_in.introspection_away"),
        ("moved", 503, "sign_in.introspection_away"),
        ("endless", 503, "sign_in.introspection_away"),
        ("slow", 503, "sign_in.introspection_away"),
        ("gone", 503, "sign_in.introspection_away"),
    ] {
        let seen = gate.log().len();
        let begun = Instant::now();
        let answer = bearer(gate.address(), "GET /", token);
        assert_eq!(answer.status, status, "{token}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{token}");
        gate.wait_for_line(reason, seen);
        let challenge = answer.field("www-authenticate");
        let told = challenge.is_some_and(|one| one.contains("error=\"invalid_token\""));
        assert_eq!(told, status == 401, "{token}: {challenge:?}");
    }
    let asked = issuer.asked();
    assert_eq!(bearer(gate.address(), "GET /", "inactive").status, 401);
    assert_eq!(issuer.asked(), asked, "remembered for a while");
    assert_eq!(bearer(gate.address(), "GET /", "error").status, 503);
    assert_eq!(
        issuer.asked(),
        asked + 1,
        "what is not known is asked again"
    );
    assert_eq!(backend.received(), "");
}

#[test]
fn what_one_issuer_or_demand_says_of_a_token_is_not_what_another_says_j5() {
    let backend = Backend::ok();
    let (one, another) = (Issuer::new("app"), Issuer::new("other"));
    let providers = [
        one.provider("opaque", "audience = [\"app\"]"),
        one.provider("b", "audience = [\"other\"]"),
        another.provider("c", "audience = [\"app\"]"),
    ]
    .concat();
    let gate = introspecting(&backend.url(), &providers);
    for _ in 0..2 {
        for (path, status) in [("/", 200), ("/b", 401), ("/c", 401), ("/", 200)] {
            let answer = bearer(gate.address(), &format!("GET {path}"), "good");
            assert_eq!(answer.status, status, "{path}");
        }
    }
    assert_eq!((one.asked(), another.asked()), (2, 1));
}

#[test]
fn a_token_is_not_remembered_beyond_its_end_j5() {
    let (backend, issuer) = (Backend::ok(), Issuer::new("app"));
    let gate = introspecting(&backend.url(), &of_one(&issuer));
    assert_eq!(bearer(gate.address(), "GET /", "brief").status, 200);
    assert_eq!(issuer.asked(), 1);
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(bearer(gate.address(), "GET /", "brief").status, 200);
    assert_eq!(issuer.asked(), 2, "the issuer says whether it still holds");
}

#[test]
fn what_is_open_for_an_issuers_token_ends_with_it() {
    let url = events();
    let issuer = Issuer::new("app");
    let gate = introspecting(&url, &of_one(&issuer));
    let begun = Instant::now();
    let mut client = Client::connect(gate.address());
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer brief\r\n\r\n");
    assert!(client.is_closed());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    gate.wait_for_log("session_over");
}

#[test]
fn a_flood_of_made_up_tokens_asks_a_bounded_number_of_questions_at_once_j5() {
    let (backend, issuer) = (Backend::ok(), Issuer::new("app"));
    let gate = introspecting(&backend.url(), &of_one(&issuer));
    assert_eq!(bearer(gate.address(), "GET /", "good").status, 200);
    let address = gate.address();
    let flood: Vec<_> = (0..150)
        .map(|number| {
            std::thread::spawn(move || bearer(address, "GET /", &format!("slow-{number}")).status)
        })
        .collect();
    crate::support::wait_until("the issuer is busy", || {
        issuer.at_once.load(Ordering::SeqCst) == 16
    });
    gate.wait_for_log("sign_in.introspection_busy");
    assert_eq!(issuer.asked(), 17, "the others wait, or are turned away");
    assert_eq!(
        bearer(gate.address(), "GET /", "good").status,
        200,
        "who is known passes"
    );
    assert_eq!(
        bearer(gate.address(), "GET /", "good-2").status,
        503,
        "who is not waits in vain"
    );
    for one in flood {
        assert_eq!(one.join().expect("an answer"), 503);
    }
    crate::support::wait_until("it is over", || {
        bearer(gate.address(), "GET /", "good-2").status == 200
    });
}

#[test]
fn one_token_shown_many_times_at_once_is_asked_about_once() {
    let (backend, issuer) = (Backend::ok(), Issuer::new("app"));
    let gate = introspecting(&backend.url(), &of_one(&issuer));
    let address = gate.address();
    let asking: Vec<_> = (0..20)
        .map(|_| std::thread::spawn(move || bearer(address, "GET /", "good").status))
        .collect();
    for one in asking {
        assert_eq!(one.join().expect("an answer"), 200);
    }
    assert_eq!(issuer.asked(), 1);
}

#[test]
fn a_token_of_the_gates_own_is_shown_to_no_issuer() {
    let (backend, issuer) = (Backend::ok(), Issuer::new("app"));
    let gate = introspecting(&backend.url(), &of_one(&issuer));
    let token = create(&gate.path(), &["x", "--app", "app", "--expires", "1h"]);
    for token in [&*token, &token[..60], "pc_x"] {
        assert_eq!(bearer(gate.address(), "GET /", token).status, 401);
    }
    assert_eq!(issuer.asked(), 0);
}

const METADATA: &str = "/.well-known/oauth-protected-resource";

#[test]
fn a_program_learns_who_issues_tokens_and_for_what() {
    let (backend, issuer) = (Backend::ok(), Issuer::new("app"));
    let opaque = "audience = [\"app\"]\nissuer = \"https://idp.test\"";
    let providers = [
        issuer.provider("opaque", opaque),
        issuer.provider("b", opaque),
        issuer.provider("c", "audience = [\"app\"]\nissuer = \"https://other.test\""),
    ]
    .concat();
    let gate = introspecting(&backend.url(), &providers);
    let answer = get(gate.address(), METADATA, "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let metadata: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(
        metadata,
        json!({
            "resource": "http://app.test",
            "authorization_servers": ["https://idp.test", "https://other.test"],
            "scopes_supported": ["wiki.write"],
            "bearer_methods_supported": ["header"],
        })
    );
    let pointer = format!(", resource_metadata=\"http://app.test{METADATA}\"");
    let stranger = get(gate.address(), "/", "");
    let expected = format!("Bearer realm=\"app\"{pointer}");
    assert_eq!(stranger.field("www-authenticate"), Some(&*expected));
    let bad = bearer(gate.address(), "GET /", "inactive");
    let expected = format!("Bearer realm=\"app\", error=\"invalid_token\"{pointer}");
    assert_eq!(bad.field("www-authenticate"), Some(&*expected));
    // Whose answers have no `iss` is let in nowhere here.
    assert_eq!(bearer(gate.address(), "GET /write", "good").status, 401);
    assert_eq!(
        ask(
            gate.address(),
            format!("PUT {METADATA} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n")
        )
        .status,
        401
    );
    assert_eq!(
        get(gate.address(), &format!("{METADATA}/x"), "").status,
        401
    );
    assert_eq!(backend.received(), "");
}

#[test]
fn where_no_issuer_is_stated_the_path_is_the_applications_own() {
    let backend = Backend::ok();
    let text = policy(
        &backend.url(),
        "access = \"signed-in\"\n[sign_in]\nwith = [\"tokens\"]\n[[path]]\nprefix = \"/.well-known\"\naccess = \"public\"",
    );
    let gate = Setup::plain(&text).start();
    assert_eq!(get(gate.address(), METADATA, "").body, "ok");
    assert_eq!(backend.requests(), 1);
    let challenged = get(gate.address(), "/", "");
    assert_eq!(
        challenged.field("www-authenticate"),
        Some("Bearer realm=\"app\"")
    );
}
