//! Names and passwords by HTTP basic, and tokens of an issuer.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::{
    Answer, Backend, Client, Gate, PASSWORD, Setup, ask, basic, get, policy, sign_in,
};

/// An issuer's key.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    /// The set with its public key.
    fn keys(&self) -> String {
        let point = self.0.public_key().as_ref();
        let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "one",
            "x": coordinate(&point[1..33]), "y": coordinate(&point[33..65]),
        }]})
        .to_string()
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let signature = self
            .0
            .sign(&SystemRandom::new(), signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

fn header() -> Value {
    json!({"alg": "ES256", "typ": "JWT", "kid": "one"})
}

fn claims() -> Value {
    json!({"iss": "https://issuer.test", "aud": "app", "sub": "robot", "exp": now() + 600, "iat": now(), "groups": ["bots"]})
}

fn by_token(backend: &str, issuer: &Issuer) -> Gate {
    Setup::plain(&policy(backend, "access = \"signed-in\"\n[sign_in]\nwith = [\"ci\", \"basic\"]"))
        .gateway(
            "[provider.ci]\nkind = \"jwt\"\nissuer = \"https://issuer.test\"\naudience = [\"app\"]\njwks_file = \"keys.json\"\ngroups_claim = \"groups\"\n",
        )
        .file("keys.json", &issuer.keys())
        .start()
}

fn bearer(gate: &Gate, token: &str) -> Answer {
    get(
        gate.address(),
        "/",
        &format!("Authorization: Bearer {token}\r\n"),
    )
}

#[test]
fn a_token_of_the_issuer_signs_in_and_stays_inside() {
    let backend = Backend::ok();
    let issuer = Issuer::new();
    let gate = by_token(&backend.url(), &issuer);
    let token = issuer.token(&header(), &claims());
    for _ in 0..2 {
        assert_eq!(bearer(&gate, &token).status, 200);
    }
    let received = backend.received();
    assert!(
        received.contains("x-portcullis-user: robot\r\n"),
        "{received}"
    );
    assert!(
        received.contains("x-portcullis-groups: bots\r\n"),
        "{received}"
    );
    assert!(!received.contains(&token), "the credential was used up");
}

#[test]
fn a_token_that_is_wrong_in_any_way_is_401_and_reaches_nothing() {
    let backend = Backend::ok();
    let issuer = Issuer::new();
    let gate = by_token(&backend.url(), &issuer);
    let with = |key: &str, value: Value| {
        let mut claims = claims();
        claims[key] = value;
        issuer.token(&header(), &claims)
    };
    let head = |key: &str, value: Value| {
        let mut header = header();
        header[key] = value;
        issuer.token(&header, &claims())
    };
    let none = format!(
        "{}.",
        unsigned(&json!({"alg": "none", "typ": "JWT"}), &claims())
    );
    let symmetric = {
        let signed = unsigned(
            &json!({"alg": "HS256", "typ": "JWT", "kid": "one"}),
            &claims(),
        );
        let public = issuer.0.public_key().as_ref();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public);
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let good = issuer.token(&header(), &claims());
    let (start, signature) = good.rsplit_once('.').expect("three parts");
    for (what, token) in [
        ("expired", with("exp", json!(now() - 600))),
        ("never expires", with("exp", Value::Null)),
        ("not yet valid", with("nbf", json!(now() + 600))),
        ("for another audience", with("aud", json!("other"))),
        (
            "of another issuer",
            with("iss", json!("https://other.test")),
        ),
        ("of another key", Issuer::new().token(&header(), &claims())),
        ("of another kind", head("typ", json!("logout+jwt"))),
        ("with a critical extension", head("crit", json!(["x"]))),
        ("alg none", none),
        ("HS256 with the public key", symmetric),
        ("without a signature", format!("{start}.")),
        ("cut short", format!("{start}.{}", &signature[1..])),
        ("no token", "abc".to_owned()),
    ] {
        let answer = bearer(&gate, &token);
        assert_eq!(answer.status, 401, "{what}");
        assert!(
            answer
                .fields("www-authenticate")
                .iter()
                .any(|value| value.starts_with("Bearer ")),
            "{what}: {}",
            answer.head
        );
    }
    assert_eq!(backend.received(), "");
}

#[test]
fn a_token_needs_the_scope_and_the_context_that_the_path_asks_for() {
    let backend = Backend::ok();
    let issuer = Issuer::new();
    let rest = "access = \"signed-in\"\n[sign_in]\nwith = [\"ci\"]\n\
        [[path]]\nprefix = \"/read\"\naccess = { groups = [\"bots\"], scopes = [\"wiki.read\", \"wiki.admin\"] }\n\
        [[path]]\nprefix = \"/pay\"\naccess = { who = \"signed-in\", acr = [\"mfa\", \"hwk\"], signed_in_within = \"15m\" }";
    let gate = Setup::plain(&policy(&backend.url(), rest))
        .gateway(
            "[provider.ci]\nkind = \"jwt\"\nissuer = \"https://issuer.test\"\naudience = [\"app\"]\njwks_file = \"keys.json\"\ngroups_claim = \"groups\"\n",
        )
        .file("keys.json", &issuer.keys())
        .start();
    let ask = |path: &str, more: Value| {
        let mut claims = claims();
        for (name, value) in more.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        let token = issuer.token(&header(), &claims);
        get(
            gate.address(),
            path,
            &format!("Authorization: Bearer {token}\r\n"),
        )
    };
    let pointer = "resource_metadata=\"http://app.test/.well-known/oauth-protected-resource\"";
    for claims in [
        json!({"scope": "openid wiki.read"}),
        json!({"scp": ["wiki.admin"]}),
    ] {
        assert_eq!(ask("/read", claims).status, 200);
    }
    for claims in [json!({}), json!({"scope": "wiki"}), json!({"scope": 1})] {
        let refused = ask("/read", claims);
        assert_eq!(refused.status, 403);
        let expected =
            format!("Bearer error=\"insufficient_scope\", scope=\"wiki.read\", {pointer}");
        assert_eq!(refused.field("www-authenticate"), Some(&*expected));
    }
    // Who may not pass anyway is not sent for another token.
    let stranger = ask("/read", json!({"groups": [], "scope": "x"}));
    assert_eq!(
        (stranger.status, stranger.field("www-authenticate")),
        (403, None)
    );
    let recent = json!({"acr": "hwk", "auth_time": now() - 100});
    assert_eq!(ask("/pay", recent).status, 200);
    for claims in [
        json!({"acr": "pwd", "auth_time": now() - 100}),
        json!({"acr": "hwk"}),
        json!({}),
        json!({"acr": "mfa", "auth_time": now() - 1000}),
    ] {
        let refused = ask("/pay", claims);
        assert_eq!(refused.status, 401);
        let expected = format!(
            "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa hwk\", max_age=\"900\", {pointer}"
        );
        assert_eq!(refused.field("www-authenticate"), Some(&*expected));
    }
    assert_eq!(backend.requests(), 3);
}

#[test]
fn a_person_whose_sign_in_was_too_weak_is_led_to_a_stronger_one() {
    let rest = "access = \"signed-in\"\n[[path]]\nprefix = \"/pay\"\naccess = { who = \"signed-in\", acr = [\"mfa\", \"hwk\"] }";
    let gate = Setup::plain(&policy("whoami", rest)).account("ada").start();
    let session = sign_in(gate.address(), "ada");
    let fields = format!("Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nCookie: {session}\r\n");
    assert_eq!(get(gate.address(), "/", &fields).status, 200);
    let led = get(gate.address(), "/pay?x=1", &fields);
    assert_eq!(led.status, 303);
    let expected = "/.portcullis/sign-in?to=%2Fpay%3Fx%3D1&acr=mfa%20hwk";
    assert_eq!(led.field("location"), Some(expected));
}

#[test]
fn a_password_signs_in_and_stays_inside() {
    let backend = Backend::ok();
    let text = policy(
        &backend.url(),
        "access = \"signed-in\"\n[sign_in]\nwith = [\"basic\"]",
    );
    let gate = Setup::plain(&text).account("ada").start();
    for _ in 0..2 {
        assert_eq!(
            get(gate.address(), "/", &basic("ada", PASSWORD)).status,
            200
        );
    }
    let received = backend.received();
    assert!(
        received.contains("x-portcullis-user: ada\r\n"),
        "{received}"
    );
    assert!(
        !received.to_ascii_lowercase().contains("authorization"),
        "{received}"
    );
}

#[test]
fn a_bad_password_is_401_with_every_challenge_and_no_redirect() {
    let backend = Backend::ok();
    let text = policy(
        &backend.url(),
        "access = \"signed-in\"\n[sign_in]\nwith = [\"local\", \"basic\"]",
    );
    let gate = Setup::plain(&text).account("ada").start();
    for (name, password) in [("ada", "wrong"), ("nobody", PASSWORD), ("ada", "")] {
        let fields = format!("Accept: text/html\r\n{}", basic(name, password));
        let answer = get(gate.address(), "/", &fields);
        assert_eq!(answer.status, 401, "{name}:{password}");
        assert!(
            answer
                .fields("www-authenticate")
                .iter()
                .any(|value| value.starts_with("Basic "))
        );
    }
    let browser = get(
        gate.address(),
        "/x?y=1",
        "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n",
    );
    assert_eq!(browser.status, 303, "who showed nothing is led to the page");
    assert_eq!(
        browser.field("location"),
        Some("/.portcullis/sign-in?to=%2Fx%3Fy%3D1")
    );
    assert_eq!(backend.received(), "");
}

#[test]
fn a_stranger_leaves_no_byte_at_the_backend() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), "access = \"signed-in\"")).start();
    let content = "x".repeat(100_000);
    let request = format!(
        "POST /upload HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    );
    assert_eq!(ask(gate.address(), request).status, 401);
    let mut waiting = Client::connect(gate.address());
    waiting.send(
        "POST / HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    assert_eq!(waiting.read().status, 401, "not asked for its content");
    assert_eq!(backend.received(), "");
}
