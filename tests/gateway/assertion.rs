//! Signed identity: what a backend can verify, for whom, for what, and that nobody else can say it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::{
    Backend, Client, Gate, PASSWORD, Setup, ask, basic, get, policy, portcullis, replace, sign_in,
    wait_until,
};

const FIELD: &str = "x-portcullis-assertion";
const KEYS: &str = "/.portcullis/jwks.json";
const SIGNED: &str =
    "access = \"signed-in\"\n[headers]\nidentity = [\"email\", \"groups\", \"assertion\"]\n";

fn open(backend: &Backend, rest: &str) -> Gate {
    Setup::plain(&policy(&backend.url(), rest))
        .account("ada")
        .start()
}

/// Every value of a field that the backend received.
fn values(backend: &Backend, name: &str) -> Vec<String> {
    let received = backend.received();
    let lines = received.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_owned())
        .collect()
}

fn part(text: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(text).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

fn key_set(gate: &Gate) -> Value {
    let answer = get(gate.address(), KEYS, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).expect("JSON")
}

/// The claims of an assertion, by a reading of its own, if a published key signed it.
#[track_caller]
fn verified(gate: &Gate, assertion: &str) -> Option<Value> {
    let parts: Vec<&str> = assertion.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("no JWS: {assertion}");
    };
    let said = part(header);
    assert_eq!(
        (&said["alg"], &said["typ"]),
        (&json!("ES256"), &json!("portcullis-assertion+jwt"))
    );
    let set = key_set(gate);
    let keys = set["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["kid"] == said["kid"])?;
    let coordinate = |name: &str| {
        let text = key[name].as_str().expect("a coordinate");
        URL_SAFE_NO_PAD.decode(text).expect("base64url")
    };
    let point = [&[4][..], &coordinate("x"), &coordinate("y")].concat();
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let message = format!("{header}.{claims}");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(message.as_bytes(), &signature)
        .ok()
        .map(|()| part(claims))
}

/// The claims of the last assertion that the backend received.
#[track_caller]
fn last(gate: &Gate, backend: &Backend) -> Value {
    let assertion = values(backend, FIELD).pop().expect("an assertion");
    verified(gate, &assertion).expect("a signature by a published key")
}

#[test]
fn a_backend_can_verify_who_asks_and_for_what() {
    let backend = Backend::ok();
    let gate = open(&backend, SIGNED);
    let session = sign_in(gate.address(), "ada");
    let fields = format!("Cookie: {session}\r\n");
    assert_eq!(get(gate.address(), "/a%20b/c?x=1&y", &fields).status, 200);
    let assertion = values(&backend, FIELD).pop().expect("an assertion");
    let mut claims = verified(&gate, &assertion).expect("a signature by a published key");
    let claims = claims.as_object_mut().expect("claims");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("now")
        .as_secs();
    let issued = claims
        .remove("iat")
        .and_then(|iat| iat.as_u64())
        .expect("iat");
    assert!(issued.abs_diff(now) <= 20);
    assert_eq!(claims.remove("exp"), Some(json!(issued + 60)));
    let id = claims.remove("jti").expect("jti");
    assert_eq!(id.as_str().expect("text").len(), 22);
    let expected = json!({
        "iss": "https://app.test",
        "aud": "app",
        "sub": "ada",
        "idp": "local",
        "groups": [],
        "htm": "GET",
        "host": "app.test",
        "path": "/a%20b/c",
        "qsh": hash("x=1&y"),
    });
    assert_eq!(Value::Object(claims.clone()), expected);
    // What was changed in it afterwards, no key verifies.
    let (message, signature) = assertion.rsplit_once('.').expect("a signature");
    let (header, said) = message.split_once('.').expect("claims");
    let mut forged = part(said);
    forged["sub"] = json!("admin");
    let forged = URL_SAFE_NO_PAD.encode(forged.to_string());
    assert_eq!(
        verified(&gate, &format!("{header}.{forged}.{signature}")),
        None
    );
}

#[test]
fn each_assertion_is_for_one_request() {
    let backend = Backend::ok();
    let gate = open(&backend, SIGNED);
    let session = sign_in(gate.address(), "ada");
    let mut seen = Vec::new();
    for (method, target, content) in [
        ("GET", "/", ""),
        ("GET", "/", ""),
        ("DELETE", "/x?", ""),
        ("POST", "/x", "hello"),
    ] {
        let length = content.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\nContent-Length: {length}\r\n\r\n{content}"
        );
        assert_eq!(ask(gate.address(), request).status, 200);
        let claims = last(&gate, &backend);
        assert_eq!(claims["htm"], method);
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(p, q)| (p, Some(q)));
        assert_eq!(claims["path"], path);
        assert_eq!(
            claims.get("qsh"),
            query.map(|query| json!(hash(query))).as_ref()
        );
        seen.push(claims["jti"].to_string());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_websocket_is_opened_with_an_assertion() {
    let backend = Backend::ok();
    let gate = open(&backend, SIGNED);
    let session = sign_in(gate.address(), "ada");
    let fields = format!(
        "Cookie: {session}\r\nOrigin: http://app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    get(gate.address(), "/live", &fields);
    assert!(backend.received().contains("upgrade: websocket"));
    let claims = last(&gate, &backend);
    assert_eq!(
        (&claims["htm"], &claims["path"]),
        (&json!("GET"), &json!("/live"))
    );
}

#[test]
fn a_clients_assertion_never_reaches_the_backend_in_any_spelling() {
    let backend = Backend::ok();
    let rest = format!("{SIGNED}[[path]]\nprefix = \"/public\"\naccess = \"public\"\n");
    let gate = open(&backend, &rest);
    let session = sign_in(gate.address(), "ada");
    let cookie = format!("Cookie: {session}\r\n");
    for name in [
        "X-Portcullis-Assertion",
        "x-portcullis-assertion",
        "X-PORTCULLIS-ASSERTION",
    ] {
        let forged = format!("{name}: eyJmb3JnZWQ\r\n{name}: eyJmb3JnZWQ\r\n");
        assert_eq!(
            get(gate.address(), "/", &format!("{cookie}{forged}")).status,
            200
        );
        assert_eq!(get(gate.address(), "/public", &forged).status, 200);
    }
    for name in [
        "X_Portcullis_Assertion",
        "X-Portcullis.Assertion",
        "X-Portcullis_Assertion",
    ] {
        let forged = format!("{cookie}{name}: eyJmb3JnZWQ\r\n");
        assert_eq!(get(gate.address(), "/", &forged).status, 400);
    }
    let trailer = format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\n{cookie}Transfer-Encoding: chunked\r\nTrailer: {FIELD}\r\n\r\n0\r\n{FIELD}: eyJmb3JnZWQ\r\n\r\n"
    );
    ask(gate.address(), trailer);
    assert!(!backend.received().contains("eyJmb3JnZWQ"));
    // One for each request of hers, and none for a stranger's.
    assert_eq!(values(&backend, FIELD).len(), 4);
}

#[test]
fn a_stranger_has_no_assertion() {
    let backend = Backend::ok();
    let rest = format!("{SIGNED}[[path]]\nprefix = \"/public\"\naccess = \"public\"\n");
    let gate = open(&backend, &rest);
    assert_eq!(get(gate.address(), "/public", "").status, 200);
    assert_eq!(get(gate.address(), "/", "").status, 401);
    assert_eq!(backend.requests(), 1);
    assert_eq!(values(&backend, FIELD), Vec::<String>::new());
}

#[test]
fn an_assertion_is_off_until_a_policy_asks_for_it() {
    let backend = Backend::ok();
    let gate = open(
        &backend,
        "access = \"signed-in\"\n[sign_in]\nwith = [\"basic\"]\n",
    );
    assert_eq!(
        get(gate.address(), "/", &basic("ada", PASSWORD)).status,
        200
    );
    assert!(values(&backend, FIELD).is_empty());
    assert_eq!(values(&backend, "x-portcullis-user"), ["ada"]);
    assert_eq!(get(gate.address(), KEYS, "").status, 404);
    assert!(!gate.path().join("state/assertion.keys").exists());
    // Taken up by a reload, keys and all.
    let rest = "access = \"signed-in\"\n[sign_in]\nwith = [\"basic\"]\n[headers]\nidentity = [\"assertion\"]\n";
    replace(
        &gate.path(),
        "policies/app.toml",
        &policy(&backend.url(), rest),
    );
    gate.wait_for_log("reloaded");
    assert_eq!(
        get(gate.address(), "/", &basic("ada", PASSWORD)).status,
        200
    );
    let claims = last(&gate, &backend);
    assert_eq!(claims["sub"], "ada");
    // What the policy keeps back is not in it either.
    assert_eq!((claims.get("email"), claims.get("groups")), (None, None));
}

#[test]
fn the_key_set_is_served_to_whoever_may_knock() {
    let backend = Backend::ok();
    let gate = open(&backend, SIGNED);
    let answer = get(gate.address(), KEYS, "");
    assert_eq!(
        answer.field("content-type"),
        Some("application/jwk-set+json")
    );
    assert_eq!(answer.field("cache-control"), Some("public, max-age=3600"));
    assert_eq!(answer.fields("set-cookie"), Vec::<&str>::new());
    let set = key_set(&gate);
    let key = set["keys"][0].as_object().expect("a key");
    let mut members: Vec<&str> = key.keys().map(String::as_str).collect();
    members.sort_unstable();
    // Nothing private.
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    let head = format!("HEAD {KEYS} HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let answer = Client::connect(gate.address()).send(head).read_head();
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let post = format!("POST {KEYS} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(ask(gate.address(), post).status, 405);
    assert_eq!(backend.requests(), 0);
    let hidden = format!("{SIGNED}[network]\nallow = [\"192.0.2.0/24\"]\n");
    let gate = open(&backend, &hidden);
    assert_eq!(get(gate.address(), KEYS, "").status, 403);
}

#[test]
fn keys_survive_a_kill_and_are_the_gates_alone() {
    let backend = Backend::ok();
    let gate = open(&backend, SIGNED);
    let file = gate.path().join("state/assertion.keys");
    let mode = std::fs::metadata(&file)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = key_set(&gate);
    let gate = gate.kill_and_restart();
    assert_eq!(key_set(&gate), before);
    let log = gate.log().join("\n");
    let secret = std::fs::read_to_string(&file).expect("a file");
    let secret = secret.trim().rsplit(' ').next().expect("a key");
    assert!(!log.contains(secret));
}

#[test]
fn a_key_that_signs_long_enough_is_followed_by_another() {
    let backend = Backend::ok();
    let gate = open(&backend, SIGNED);
    let old = key_set(&gate)["keys"][0]["kid"].clone();
    let file = gate.path().join("state/assertion.keys");
    let text = std::fs::read_to_string(&file).expect("a file");
    // As if it had been made forty days ago.
    let (made, pair) = text.split_once(' ').expect("a line");
    let made: u64 = made.parse().expect("a time");
    let aged = format!("{} {pair}", made - 40 * 24 * 3600);
    std::fs::write(&file, aged).expect("written");
    let gate = gate.kill_and_restart();
    let set = key_set(&gate);
    let keys: Vec<&Value> = set["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .map(|key| &key["kid"])
        .collect();
    assert_eq!((keys.len(), keys[0]), (2, &old));
    let session = sign_in(gate.address(), "ada");
    get(gate.address(), "/", &format!("Cookie: {session}\r\n"));
    // Published for the day to come; the one before signs yet.
    let assertion = values(&backend, FIELD).pop().expect("an assertion");
    assert_eq!(
        part(assertion.split('.').next().expect("a header"))["kid"],
        old
    );
}

#[test]
fn keys_that_can_not_be_read_stop_the_start_and_not_the_gate() {
    let backend = Backend::ok();
    let dir = Setup::plain(&policy(&backend.url(), SIGNED))
        .account("ada")
        .file("state/assertion.keys", "nonsense\n")
        .write();
    let refused = |dir: &Path| portcullis(dir).arg("run").output().expect("it runs");
    let output = refused(dir.path());
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("assertion.keys") && said.contains("line 1"),
        "{said}"
    );
    std::fs::remove_file(dir.path().join("state/assertion.keys")).expect("removed");
    drop(Gate::start_in(dir));
}

#[test]
fn name_and_issuer_are_the_operators() {
    let backend = Backend::ok();
    let other = Backend::ok();
    let mut setup = Setup::plain(&policy(
        &backend.url(),
        &format!("{SIGNED}assertion = \"X-Signed\"\n"),
    ))
    .gateway("[assertion]\nissuer = \"https://gate.test\"\n")
    .account("ada");
    let public = format!(
        "host = \"other.test\"\nbackends = [\"{}\"]\naccess = \"public\"\n",
        other.url()
    );
    setup.policies.push(("other".to_owned(), public));
    let gate = setup.start();
    let session = sign_in(gate.address(), "ada");
    get(
        gate.address(),
        "/",
        &format!("Cookie: {session}\r\nX-Portcullis-Assertion: eyJx\r\nX-Signed: eyJx\r\n"),
    );
    assert!(values(&backend, FIELD).is_empty());
    let signed = values(&backend, "x-signed");
    assert_eq!(signed.len(), 1);
    assert_eq!(
        verified(&gate, &signed[0]).expect("signed")["iss"],
        "https://gate.test"
    );
    // What one backend believes, no client may say to any.
    ask(
        gate.address(),
        "GET / HTTP/1.1\r\nHost: other.test\r\nX-Signed: eyJx\r\n\r\n",
    );
    wait_until("the other backend is asked", || other.requests() == 1);
    assert!(!other.received().to_ascii_lowercase().contains("x-signed"));
}

#[test]
fn a_path_that_no_assertion_can_hold_is_refused() {
    let backend = Backend::ok();
    let gate = open(&backend, SIGNED);
    let session = sign_in(gate.address(), "ada");
    let cookie = format!("Cookie: {session}\r\n");
    let long = format!("/{}", "a".repeat(2048));
    assert_eq!(get(gate.address(), &long, &cookie).status, 414);
    gate.wait_for_log("request_headers.asserted_path");
    assert_eq!(get(gate.address(), &long[..2048], &cookie).status, 200);
    assert_eq!(backend.requests(), 1);
}
