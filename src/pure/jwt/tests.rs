//! Tests of tokens.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use serde_json::json;

use super::super::jwk::tests::{Signer, encode, set};
use super::*;

const NOW: u64 = 1_700_000_000;

struct Case {
    signer: Signer,
    algorithm: Algorithm,
    keys: KeySet,
    rule: Rule,
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

impl Case {
    fn new(signer: Signer, algorithm: Algorithm) -> Self {
        let keys = KeySet::parse(&set(&[signer.jwk("k1")])).unwrap();
        let rule = Rule {
            provider: "ci".into(),
            issuer: "https://idp.test".to_owned(),
            audience: vec!["wiki".to_owned(), "wiki2".to_owned()],
            algorithms: vec![algorithm],
            types: vec![Type::named("at+jwt").unwrap(), Type::named("JWT").unwrap()],
            name_claim: "sub".to_owned(),
            groups_claim: Some("groups".to_owned()),
            trust_unverified_email: false,
        };
        Self {
            signer,
            algorithm,
            keys,
            rule,
        }
    }

    fn ed25519() -> Self {
        Self::new(Signer::ed25519(), Algorithm::EdDsa)
    }

    fn header(&self) -> Value {
        json!({"alg": self.algorithm.name(), "kid": "k1", "typ": "JWT"})
    }

    fn signed(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signer.sign(self.algorithm, message.as_bytes());
        format!("{message}.{signature}")
    }

    fn check(&self, token: &str) -> Result<Proved, BadToken> {
        Token::parse(token)?.verify(&self.rule, &self.keys, now())
    }

    fn with_claims(&self, claims: &Value) -> Result<Proved, BadToken> {
        self.check(&self.signed(&self.header().to_string(), &claims.to_string()))
    }

    fn with_header(&self, header: &Value) -> Result<Proved, BadToken> {
        self.check(&self.signed(&header.to_string(), &claims().to_string()))
    }
}

fn claims() -> Value {
    json!({"iss": "https://idp.test", "aud": "wiki", "sub": "bob", "exp": NOW + 300,
        "nbf": NOW, "iat": NOW, "email": "bob@corp.test", "email_verified": true, "groups": ["staff", "wiki"],
        "dept": "x"})
}

fn with(mut object: Value, name: &str, value: impl Into<Value>) -> Value {
    object[name] = value.into();
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

/// The refusal, in a form that can be compared.
fn refused(result: Result<Proved, BadToken>) -> Option<BadToken> {
    result.err()
}

#[test]
fn a_good_token_of_every_algorithm_is_a_user() {
    for (signer, algorithm) in [
        (Signer::rsa(), Algorithm::Rs256),
        (Signer::rsa(), Algorithm::Rs384),
        (Signer::rsa(), Algorithm::Rs512),
        (Signer::rsa(), Algorithm::Ps256),
        (Signer::rsa(), Algorithm::Ps384),
        (Signer::rsa(), Algorithm::Ps512),
        (Signer::p256(), Algorithm::Es256),
        (Signer::p384(), Algorithm::Es384),
        (Signer::ed25519(), Algorithm::EdDsa),
    ] {
        let proved = Case::new(signer, algorithm).with_claims(&claims()).unwrap();
        assert_eq!(proved.expires, Seconds(NOW + 300));
        let user = proved.user;
        assert_eq!((&*user.provider, &*user.name), ("ci", "bob"));
        assert_eq!(user.email.as_deref(), Some("bob@corp.test"));
        assert_eq!(user.groups, ["staff", "wiki"].map(Arc::<str>::from));
        assert_eq!(user.claims["dept"], "x");
        assert_eq!(user.signed_in_at, UNIX_EPOCH);
    }
}

#[test]
fn tokens_for_others_are_refused_though_well_signed_j2() {
    let case = Case::ed25519();
    let refused = |name, value: Value| refused(case.with_claims(&with(claims(), name, value)));
    for audience in [
        json!("other"),
        json!(["other"]),
        json!([]),
        json!(""),
        json!(1),
    ] {
        assert_eq!(refused("aud", audience), Some(BadToken::Audience));
    }
    assert_eq!(refused("aud", json!(["wiki", 1])), Some(BadToken::Audience));
    assert_eq!(refused("aud", json!(["wiki", "other"])), None);
    for issuer in [
        json!("https://idp.test/"),
        json!("HTTPS://idp.test"),
        json!(["https://idp.test"]),
        json!(null),
    ] {
        assert_eq!(refused("iss", issuer), Some(BadToken::Issuer));
    }
}

#[test]
fn a_token_without_a_required_claim_is_refused_j2() {
    let case = Case::ed25519();
    let refused = |name| refused(case.with_claims(&without(claims(), name)));
    assert_eq!(refused("exp"), Some(BadToken::Expiry));
    assert_eq!(refused("iss"), Some(BadToken::Issuer));
    assert_eq!(refused("aud"), Some(BadToken::Audience));
    assert_eq!(refused("sub"), Some(BadToken::Name));
    for optional in ["nbf", "iat", "groups", "email"] {
        assert_eq!(refused(optional), None);
    }
}

#[test]
fn times_are_checked_to_the_second_j2() {
    let case = Case::ed25519();
    let refused = |name, value: Value| refused(case.with_claims(&with(claims(), name, value)));
    assert_eq!(refused("exp", json!(NOW + 1)), None);
    assert_eq!(refused("exp", json!(NOW)), Some(BadToken::Expired));
    assert_eq!(refused("exp", json!(0)), Some(BadToken::Expired));
    for unbelievable in [
        json!(1e300),
        json!(1.5),
        json!(-1),
        json!(u64::MAX),
        json!("1900000000"),
        json!(null),
    ] {
        assert_eq!(refused("exp", unbelievable), Some(BadToken::Expiry));
    }
    assert_eq!(refused("nbf", json!(NOW + 60)), None);
    assert_eq!(refused("nbf", json!(NOW + 61)), Some(BadToken::NotYetValid));
    assert_eq!(refused("nbf", json!("now")), Some(BadToken::NotYetValid));
    assert_eq!(refused("iat", json!(NOW + 60)), None);
    assert_eq!(refused("iat", json!(NOW + 61)), Some(BadToken::IssuedAt));
    assert_eq!(refused("iat", json!(1.5)), Some(BadToken::IssuedAt));
}

#[test]
fn tokens_for_another_purpose_are_refused_j2() {
    let case = Case::ed25519();
    for kind in [
        "logout+jwt",
        "application/logout+jwt",
        "secevent+jwt",
        "JWE",
        "",
        "a b",
    ] {
        let result = case.with_header(&with(case.header(), "typ", kind));
        assert_eq!(refused(result), Some(BadToken::Type), "{kind}");
    }
    for kind in [
        "jwt",
        "JWT",
        "application/jwt",
        "at+JWT",
        "Application/AT+jwt",
    ] {
        assert_eq!(
            refused(case.with_header(&with(case.header(), "typ", kind))),
            None
        );
    }
    assert_eq!(
        refused(case.with_header(&without(case.header(), "typ"))),
        None
    );
    for (claim, value) in [
        ("at_hash", json!("x")),
        ("c_hash", json!("x")),
        ("events", json!({})),
        ("typ", json!("ID")),
        ("typ", json!("Refresh")),
        ("cnf", json!({"jkt": "x"})),
    ] {
        let result = case.with_claims(&with(claims(), claim, value));
        assert_eq!(refused(result), Some(BadToken::Type), "{claim}");
    }
    assert_eq!(
        refused(case.with_claims(&with(claims(), "typ", "Bearer"))),
        None
    );
    let mut strict = Case::ed25519();
    strict.rule.types = vec![Type::named("at+jwt").unwrap()];
    let result = strict.with_header(&without(strict.header(), "typ"));
    assert_eq!(refused(result), Some(BadToken::Type));
}

#[test]
fn an_unsigned_or_symmetric_token_is_refused_j3() {
    let case = Case::new(Signer::rsa(), Algorithm::Rs256);
    for algorithm in [
        "none", "None", "NONE", "HS256", "HS512", "rs256", "RS384", "ES256",
    ] {
        let header = with(case.header(), "alg", algorithm);
        assert_eq!(
            refused(case.with_header(&header)),
            Some(BadToken::Algorithm),
            "{algorithm}"
        );
    }
    let none = with(case.header(), "alg", "none").to_string();
    let unsigned = format!("{}.{}.", encode(none), encode(claims().to_string()));
    assert_eq!(refused(case.check(&unsigned)), Some(BadToken::Malformed));
    // HS256 keyed with the public key.
    let header = encode(with(case.header(), "alg", "HS256").to_string());
    let message = format!("{header}.{}", encode(claims().to_string()));
    let public = case.signer.jwk("k1")["n"].as_str().unwrap().to_owned();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    let forged = format!("{message}.{}", encode(tag));
    assert_eq!(refused(case.check(&forged)), Some(BadToken::Algorithm));
}

#[test]
fn a_token_that_says_where_its_key_is_is_refused_j3() {
    let case = Case::ed25519();
    for (name, value) in [
        ("jku", json!("https://evil.test/jwks")),
        ("x5u", json!("https://evil.test/x")),
        ("jwk", case.signer.jwk("k1")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
        ("cty", json!("JWT")),
    ] {
        let result = case.with_header(&with(case.header(), name, value));
        assert_eq!(refused(result), Some(BadToken::HeaderParameter), "{name}");
    }
    assert_eq!(
        refused(case.with_header(&with(case.header(), "x5t", "AA"))),
        None
    );
}

#[test]
fn keys_are_chosen_by_exact_id_j3() {
    let case = Case::ed25519();
    for id in ["k2", "K1", "../../k1", "k1' OR 1=1", "", "k1 "] {
        let result = case.with_header(&with(case.header(), "kid", id));
        assert_eq!(refused(result), Some(BadToken::UnknownKey), "{id}");
    }
    for id in [
        json!(1),
        json!(null),
        json!(["k1"]),
        json!("k".repeat(257)),
        json!("k1\0"),
    ] {
        let result = case.with_header(&with(case.header(), "kid", id));
        assert_eq!(refused(result), Some(BadToken::Header));
    }
    assert_eq!(
        refused(case.with_header(&without(case.header(), "kid"))),
        None
    );
}

#[test]
fn a_name_twice_in_header_or_claims_is_refused_j3() {
    let case = Case::ed25519();
    let good = claims().to_string();
    let header = case.header().to_string();
    let twice = header.replacen('{', r#"{"alg":"none","#, 1);
    assert_eq!(
        refused(case.check(&case.signed(&twice, &good))),
        Some(BadToken::Header)
    );
    let twice = good.replacen('{', r#"{"sub":"admin","#, 1);
    assert_eq!(
        refused(case.check(&case.signed(&header, &twice))),
        Some(BadToken::Claims)
    );
    let deep = good.replacen('{', r#"{"x":{"a":1,"a":2},"#, 1);
    assert_eq!(
        refused(case.check(&case.signed(&header, &deep))),
        Some(BadToken::Claims)
    );
}

#[test]
fn every_altered_part_is_noticed() {
    let case = Case::ed25519();
    let token = case.signed(&case.header().to_string(), &claims().to_string());
    let admin = encode(with(claims(), "sub", "admin").to_string());
    let parts: Vec<_> = token.split('.').collect();
    let swapped = format!("{}.{admin}.{}", parts[0], parts[2]);
    assert_eq!(refused(case.check(&swapped)), Some(BadToken::Signature));
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert!(case.check(&altered).is_err(), "byte {at}");
    }
    let other = Case::ed25519();
    let foreign = other.signed(&case.header().to_string(), &claims().to_string());
    assert_eq!(refused(case.check(&foreign)), Some(BadToken::Signature));
}

#[test]
fn what_is_no_token_is_refused() {
    let case = Case::ed25519();
    let token = case.signed(&case.header().to_string(), &claims().to_string());
    for (text, why) in [
        ("", BadToken::Malformed),
        ("a.b", BadToken::Malformed),
        ("..", BadToken::Malformed),
        (&format!("{token}.x"), BadToken::Malformed),
        (&format!("{token}="), BadToken::Malformed),
        (&format!(" {token}"), BadToken::Malformed),
        (&format!("{token}\n"), BadToken::Malformed),
        (&"a.".repeat(5000), BadToken::TooLong),
        (&format!("{}.e30.AAAA", encode("[]")), BadToken::Header),
        (&format!("{}.e30.AAAA", encode("{}")), BadToken::Header),
        (
            &format!("{}.e30.AAAA", encode(format!("{{{}}}", " ".repeat(3000)))),
            BadToken::Header,
        ),
        (
            &case.signed(&case.header().to_string(), "[]"),
            BadToken::Claims,
        ),
        (
            &case.signed(&case.header().to_string(), "{} {}"),
            BadToken::Claims,
        ),
    ] {
        assert_eq!(refused(case.check(text)), Some(why), "{text:.40}");
    }
}

#[test]
fn an_address_is_given_only_if_it_is_verified_and_plain_j1() {
    let case = Case::ed25519();
    let email = |claims: Value| case.with_claims(&claims).unwrap().user.email.clone();
    let verified = with(claims(), "email_verified", true);
    let given = |address: &str| email(with(verified.clone(), "email", address));
    assert_eq!(given("a@CORP.TEST").as_deref(), Some("a@CORP.TEST"));
    for address in [
        "attacker@evil.test@corp.test",
        "a@corp.test ",
        r#""x@evil.test"@corp.test"#,
        "@corp.test",
        "a@",
        "a",
        "",
        "a@corp.test,b@corp.test",
        "a\u{0}@corp.test",
    ] {
        assert_eq!(given(address), None, "{address}");
    }
    for verified in [
        json!(false),
        json!("true"),
        json!("false"),
        json!(1),
        json!(null),
    ] {
        assert_eq!(email(with(claims(), "email_verified", verified)), None);
    }
    assert!(email(with(claims(), "email_verified", true)).is_some());
    let unsaid = || without(claims(), "email_verified");
    assert_eq!(email(unsaid()), None, "nobody says that it is verified");
    let mut trusting = Case::ed25519();
    trusting.rule.trust_unverified_email = true;
    let email = |claims: Value| trusting.with_claims(&claims).unwrap().user.email.clone();
    assert!(email(unsaid()).is_some());
    assert_eq!(email(with(claims(), "email_verified", false)), None);
}

#[test]
fn names_and_groups_are_names_or_the_token_is_refused() {
    let case = Case::ed25519();
    let refused = |name, value: Value| refused(case.with_claims(&with(claims(), name, value)));
    for name in [
        json!(""),
        json!(1),
        json!(null),
        json!(" bob"),
        json!("a\nb"),
        json!("b".repeat(257)),
    ] {
        assert_eq!(refused("sub", name), Some(BadToken::Name));
    }
    for groups in [
        json!(1),
        json!({}),
        json!([1]),
        json!([""]),
        json!(["a", null]),
        json!(null),
    ] {
        assert_eq!(refused("groups", groups), Some(BadToken::Groups));
    }
    let many = vec!["g"; MAX_GROUPS + 1];
    assert_eq!(refused("groups", json!(many)), Some(BadToken::Groups));
    let one = case
        .with_claims(&with(claims(), "groups", "staff"))
        .unwrap();
    assert_eq!(one.user.groups, ["staff"].map(Arc::<str>::from));
}

#[test]
fn freshness_is_when_the_person_proved_it_and_long_ago_if_nobody_says() {
    let case = Case::ed25519();
    let at = |claims: &Value| case.with_claims(claims).unwrap().user.signed_in_at;
    let proved = with(claims(), "auth_time", NOW - 500);
    assert_eq!(at(&proved), now() - Duration::from_secs(500));
    // A token that was refreshed is new, and its person no nearer.
    assert_eq!(at(&with(claims(), "iat", NOW)), UNIX_EPOCH);
    assert_eq!(at(&with(claims(), "auth_time", "now")), UNIX_EPOCH);
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
        fuzzing::jwt(&bytes);
    }

    #[test]
    fn arbitrary_headers_do_not_panic(text in r#"\{("(alg|kid|typ|crit|x)":("[ -~]{0,6}"|[0-9]|null),?){0,4}\}"#) {
        fuzzing::jwt(text.as_bytes());
        fuzzing::jwt(format!("{}.e30.AAAA", encode(text)).as_bytes());
    }
}
