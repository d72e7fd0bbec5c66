//! Signed tokens (RFC 7519), read strictly and checked against a rule, keys and the time.
//!
//! | when | then |
//! |---|---|
//! | not three base64url parts, longer than 8 KiB, or a name twice in an object | refused |
//! | the header has `crit`, a key or a place to fetch one, compression or encryption | refused |
//! | `alg` is not of the rule, or `typ` is not (a missing one is `JWT`) | refused |
//! | the key that `kid` and `alg` name does not verify the signature | refused |
//! | `iss`, `aud`, `exp`, `nbf`, `iat` are missing where they must be, or do not fit | refused |
//! | it is an ID, refresh or logout token | refused |
//!
//! Nothing of a token is believed, and no claim is handed out, before its signature is verified; the
//! issuer alone is read before, to choose whom to ask. The library verifies signatures and nothing
//! else: it would read the clock by itself (RFC 8725 is the list this follows).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::identity::{Claims, User, is_email, is_name};
use super::json;
use super::jwk::{Algorithm, KeySet, MAX_KID_BYTES, NoKey};
use super::session::{MAX_GROUPS, Seconds};

/// The longest token.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

const MAX_HEADER_BYTES: usize = 2 * 1024;
/// How far the issuer's clock may be ahead. An expired token gets nothing on top.
const SKEW: Duration = Duration::from_secs(60);
/// No token is issued for longer; a later time is a mistake or an attack on arithmetic.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Where a token says which key to take, or how to read it, instead of the rule.
const FORBIDDEN_HEADERS: [&str; 9] = [
    "crit", "jku", "x5u", "jwk", "x5c", "b64", "zip", "enc", "cty",
];
/// Claims of ID tokens (OpenID Connect Core §3.3.2.11) and of security events (RFC 8417 §2.2).
const FORBIDDEN_CLAIMS: [&str; 3] = ["at_hash", "c_hash", "events"];

/// What a token must be.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The name of the sign-in method, which becomes the user's provider.
    pub provider: Arc<str>,
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud` must name one of these.
    pub audience: Vec<String>,
    /// `alg` must be one of these.
    pub algorithms: Vec<Algorithm>,
    /// `typ` must be one of these.
    pub types: Vec<Type>,
    /// The claim that is the user's name.
    pub name_claim: String,
    /// The claim that lists the user's groups.
    pub groups_claim: Option<String>,
}

/// A media type of tokens, such as `JWT` or `at+jwt`; case and `application/` make no difference
/// (RFC 7515 §4.1.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type(String);

impl Type {
    /// The type of this name; none for what is no name of one.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let short = name.strip_prefix("application/").unwrap_or(&name);
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
        (!short.is_empty() && short.len() <= 64 && short.bytes().all(plain))
            .then(|| Self(short.to_owned()))
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadToken {
    /// Longer than [`MAX_TOKEN_BYTES`].
    TooLong,
    /// Not three parts of base64url.
    Malformed,
    /// The header is not strict JSON, or one of its values is not what it must be.
    Header,
    /// The header has a parameter that asks for what we don't do.
    HeaderParameter,
    /// `alg` is none of the rule's.
    Algorithm,
    /// `typ`, or the claims, make it a token for another purpose.
    Type,
    /// The issuer's set has no such key.
    UnknownKey,
    /// The issuer's set has more than one such key.
    AmbiguousKey,
    /// The signature is not the key's.
    Signature,
    /// The claims are not strict JSON.
    Claims,
    /// Another `iss`, or none.
    Issuer,
    /// Another `aud`, or none.
    Audience,
    /// No `exp`, or not a believable time.
    Expiry,
    /// `exp` has come.
    Expired,
    /// `nbf` has not come, or is no time.
    NotYetValid,
    /// `iat` is in the future, or is no time.
    IssuedAt,
    /// The claim with the name is missing or can't be one.
    Name,
    /// The claim with the groups is not a list of names.
    Groups,
}

impl BadToken {
    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "sign_in.jwt_too_long",
            Self::Malformed => "sign_in.jwt_malformed",
            Self::Header => "sign_in.jwt_header",
            Self::HeaderParameter => "sign_in.jwt_header_parameter",
            Self::Algorithm => "sign_in.jwt_algorithm",
            Self::Type => "sign_in.jwt_type",
            Self::UnknownKey => "sign_in.jwt_unknown_key",
            Self::AmbiguousKey => "sign_in.jwt_ambiguous_key",
            Self::Signature => "sign_in.jwt_signature",
            Self::Claims => "sign_in.jwt_claims",
            Self::Issuer => "sign_in.jwt_issuer",
            Self::Audience => "sign_in.jwt_audience",
            Self::Expiry => "sign_in.jwt_expiry",
            Self::Expired => "sign_in.jwt_expired",
            Self::NotYetValid => "sign_in.jwt_not_yet_valid",
            Self::IssuedAt => "sign_in.jwt_issued_at",
            Self::Name => "sign_in.jwt_name",
            Self::Groups => "sign_in.jwt_groups",
        }
    }
}

/// A token that has been read, and of which nothing is known to be true.
pub struct Token<'t> {
    header: Header,
    message: &'t str,
    signature: &'t str,
    claims: Map<String, Value>,
}

struct Header {
    algorithm: Option<Algorithm>,
    key_id: Option<String>,
    kind: Type,
}

/// What a token proved.
#[derive(Debug, Clone)]
pub struct Proved {
    /// Who.
    pub user: Arc<User>,
    /// Until when.
    pub expires: Seconds,
}

impl<'t> Token<'t> {
    /// The parts of `token`.
    ///
    /// # Errors
    /// Why it is not a token that we would ever accept.
    pub fn parse(token: &'t str) -> Result<Self, BadToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(BadToken::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(BadToken::Malformed)?;
        let signed = decode(signature)?;
        if signed.is_empty() || claims.contains('.') {
            return Err(BadToken::Malformed);
        }
        let header = Header::parse(&decode(header)?)?;
        let claims = json::object(&decode(claims)?)
            .map_err(|_| BadToken::Claims)?
            .ok_or(BadToken::Claims)?;
        Ok(Self {
            header,
            message,
            signature,
            claims,
        })
    }

    /// Who says that it issued this; not verified.
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// What the token proves at `now`, if it is what `rule` asks for and a key of `keys` signed it.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub fn verify(&self, rule: &Rule, keys: &KeySet, now: SystemTime) -> Result<Proved, BadToken> {
        let algorithm = self
            .header
            .algorithm
            .filter(|algorithm| rule.algorithms.contains(algorithm))
            .ok_or(BadToken::Algorithm)?;
        if !rule.types.contains(&self.header.kind) {
            return Err(BadToken::Type);
        }
        let key = keys
            .find(algorithm, self.header.key_id.as_deref())
            .map_err(|why| match why {
                NoKey::Unknown => BadToken::UnknownKey,
                NoKey::Ambiguous => BadToken::AmbiguousKey,
            })?;
        if !key.verifies(algorithm, self.message.as_bytes(), self.signature) {
            return Err(BadToken::Signature);
        }
        let expires = check_claims(&self.claims, rule, now)?;
        let user = user(&self.claims, rule)?;
        Ok(Proved {
            user: Arc::new(user),
            expires,
        })
    }
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, BadToken> {
        if bytes.len() > MAX_HEADER_BYTES {
            return Err(BadToken::Header);
        }
        let header = json::object(bytes)
            .map_err(|_| BadToken::Header)?
            .ok_or(BadToken::Header)?;
        if FORBIDDEN_HEADERS
            .iter()
            .any(|name| header.contains_key(*name))
        {
            return Err(BadToken::HeaderParameter);
        }
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(BadToken::Header),
        };
        let algorithm = Algorithm::named(text("alg")?.ok_or(BadToken::Header)?);
        let key_id = text("kid")?;
        if key_id.is_some_and(|id| id.len() > MAX_KID_BYTES || id.chars().any(char::is_control)) {
            return Err(BadToken::Header);
        }
        let kind = Type::named(text("typ")?.unwrap_or("JWT")).ok_or(BadToken::Type)?;
        Ok(Self {
            algorithm,
            key_id: key_id.map(str::to_owned),
            kind,
        })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, BadToken> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| BadToken::Malformed)
}

/// Checks all claims that say whether the token counts; answers until when it does.
fn check_claims(
    claims: &Map<String, Value>,
    rule: &Rule,
    now: SystemTime,
) -> Result<Seconds, BadToken> {
    let now = Seconds::of(now);
    if claims.get("iss").and_then(Value::as_str) != Some(&rule.issuer) {
        return Err(BadToken::Issuer);
    }
    check_audience(claims, rule)?;
    check_purpose(claims)?;
    // An integer: what arithmetic does to 1e300 need not be thought about.
    let expires = time(claims, "exp").flatten().ok_or(BadToken::Expiry)?;
    if expires > now.plus(LONGEST_LIFE) {
        return Err(BadToken::Expiry);
    }
    if expires <= now {
        return Err(BadToken::Expired);
    }
    let latest = now.plus(SKEW);
    if time(claims, "nbf").is_some_and(|time| time.is_none_or(|from| from > latest)) {
        return Err(BadToken::NotYetValid);
    }
    if time(claims, "iat").is_some_and(|time| time.is_none_or(|issued| issued > latest)) {
        return Err(BadToken::IssuedAt);
    }
    Ok(expires)
}

/// A claim that is a time: none if it is absent, none within if it is no whole number of seconds.
fn time(claims: &Map<String, Value>, name: &str) -> Option<Option<Seconds>> {
    claims.get(name).map(|value| value.as_u64().map(Seconds))
}

fn check_audience(claims: &Map<String, Value>, rule: &Rule) -> Result<(), BadToken> {
    let is_ours = |value: &Value| {
        value
            .as_str()
            .map(|text| rule.audience.iter().any(|audience| audience == text))
    };
    let ours = match claims.get("aud") {
        Some(one @ Value::String(_)) => is_ours(one),
        Some(Value::Array(list)) => list
            .iter()
            .map(is_ours)
            .try_fold(false, |found, one| one.map(|ours| found || ours)),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => None,
    };
    if ours == Some(true) {
        Ok(())
    } else {
        Err(BadToken::Audience)
    }
}

/// Access tokens only. Keycloak says what a token is for in a claim `typ`.
fn check_purpose(claims: &Map<String, Value>) -> Result<(), BadToken> {
    let keycloak = claims
        .get("typ")
        .and_then(Value::as_str)
        .is_some_and(|kind| matches!(kind, "ID" | "Refresh" | "Offline" | "Logout"));
    if keycloak
        || FORBIDDEN_CLAIMS
            .iter()
            .any(|name| claims.contains_key(*name))
    {
        return Err(BadToken::Type);
    }
    Ok(())
}

fn user(claims: &Claims, rule: &Rule) -> Result<User, BadToken> {
    let name = claims
        .get(&rule.name_claim)
        .and_then(Value::as_str)
        .filter(|name| is_name(name))
        .ok_or(BadToken::Name)?;
    let groups = rule
        .groups_claim
        .as_ref()
        .and_then(|claim| claims.get(claim));
    // When nobody says when the person proved it, it was long ago.
    let proved = ["auth_time", "iat"]
        .iter()
        .find_map(|name| time(claims, name).flatten());
    Ok(User {
        name: name.into(),
        provider: Arc::clone(&rule.provider),
        email: email(claims),
        groups: groups.map_or(Ok(Vec::new()), group_names)?,
        claims: Arc::new(claims.clone()),
        signed_in_at: proved
            .and_then(Seconds::time)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

fn group_names(value: &Value) -> Result<Vec<Arc<str>>, BadToken> {
    let name = |value: &Value| {
        value
            .as_str()
            .filter(|name| is_name(name))
            .map(Arc::from)
            .ok_or(BadToken::Groups)
    };
    match value {
        one @ Value::String(_) => Ok(vec![name(one)?]),
        Value::Array(list) if list.len() <= MAX_GROUPS => list.iter().map(name).collect(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(BadToken::Groups)
        }
    }
}

/// The e-mail address, unless the issuer says that it is not verified, or says so in words of its
/// own, or it is not one plain address (ADVISORIES J1).
fn email(claims: &Claims) -> Option<Arc<str>> {
    if !matches!(claims.get("email_verified"), None | Some(Value::Bool(true))) {
        return None;
    }
    claims
        .get("email")?
        .as_str()
        .filter(|email| is_email(email))
        .map(Arc::from)
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// A token is read or refused, whatever it is; a header likewise.
    pub fn jwt(bytes: &[u8]) {
        if let Ok(header) = Header::parse(bytes) {
            assert!(header.key_id.is_none_or(|id| id.len() <= MAX_KID_BYTES));
        }
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(token) = Token::parse(text)
        {
            assert_eq!(format!("{}.{}", token.message, token.signature), text);
        }
    }
}

#[cfg(test)]
mod tests {
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
            "nbf": NOW, "iat": NOW, "email": "bob@corp.test", "groups": ["staff", "wiki"],
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
            assert_eq!(user.groups, ["staff".into(), "wiki".into()]);
            assert_eq!(user.claims["dept"], "x");
            assert_eq!(user.signed_in_at, now());
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
        let given = |address: &str| email(with(claims(), "email", address));
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
        assert_eq!(one.user.groups, ["staff".into()]);
    }

    #[test]
    fn freshness_is_when_the_person_proved_it_and_long_ago_if_nobody_says() {
        let case = Case::ed25519();
        let at = |claims: &Value| case.with_claims(claims).unwrap().user.signed_in_at;
        let proved = with(claims(), "auth_time", NOW - 500);
        assert_eq!(at(&proved), now() - Duration::from_secs(500));
        assert_eq!(at(&without(claims(), "iat")), UNIX_EPOCH);
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
}
