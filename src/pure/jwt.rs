//! Signed tokens (RFC 7519), read strictly and checked against a rule, keys and the time.
//!
//! | when | then |
//! |---|---|
//! | not three base64url parts, longer than 8 KiB, or a name twice in an object | refused |
//! | the header has `crit`, a key or a place to fetch one, compression or encryption | refused |
//! | `alg` is not of the rule, or `typ` is not (a missing one is `JWT`) | refused |
//! | the key that `kid` and `alg` name does not verify the signature | refused |
//! | `iss`, `aud`, `exp`, `nbf`, `iat` are missing where they must be, or do not fit | refused |
//! | it is an ID, refresh or logout token, where an access token is asked for | refused |
//! | it is bound to a key of whoever may show it (`cnf`), which nobody has proved | refused |
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

/// The longest access token: one that comes with each request.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The longest token that comes from the issuer itself, such as one that lists hundreds of groups.
pub const MAX_ISSUED_BYTES: usize = 96 * 1024;

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
    /// Whether an e-mail address counts of which the token does not say that it is verified.
    pub trust_unverified_email: bool,
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
    /// Longer than [`MAX_TOKEN_BYTES`], or than [`MAX_ISSUED_BYTES`] where the issuer itself gave it.
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
        Self::parse_within(token, MAX_TOKEN_BYTES)
    }

    /// The parts of a token that its issuer gave to us.
    ///
    /// # Errors
    /// Why it is not a token that we would ever accept.
    pub fn parse_issued(token: &'t str) -> Result<Self, BadToken> {
        Self::parse_within(token, MAX_ISSUED_BYTES)
    }

    fn parse_within(token: &'t str, most_bytes: usize) -> Result<Self, BadToken> {
        if token.len() > most_bytes {
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

    /// What an access token proves at `now`, if it is what `rule` asks for and a key of `keys` signed
    /// it.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub fn verify(&self, rule: &Rule, keys: &KeySet, now: SystemTime) -> Result<Proved, BadToken> {
        let issued = self.issued(rule, keys, now)?;
        check_purpose(&self.header.kind, issued.claims)?;
        let user = user(issued.claims, rule)?;
        Ok(Proved {
            user: Arc::new(user),
            expires: issued.expires,
        })
    }

    /// What the issuer says in a token of any purpose, which whoever asks has to check.
    ///
    /// # Errors
    /// Why the issuer did not say it, or not to us, or not for now.
    pub fn issued(
        &self,
        rule: &Rule,
        keys: &KeySet,
        now: SystemTime,
    ) -> Result<Issued<'_>, BadToken> {
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
        Ok(Issued {
            claims: &self.claims,
            algorithm,
            expires: check_claims(&self.claims, rule, now)?,
        })
    }
}

/// What an issuer says in a token that is for us and for now.
#[derive(Debug, Clone, Copy)]
pub struct Issued<'t> {
    /// Everything it says.
    pub claims: &'t Claims,
    /// How it is signed.
    pub algorithm: Algorithm,
    /// Until when it counts.
    pub expires: Seconds,
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
    check_audience(claims, &rule.audience)?;
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
pub(super) fn time(claims: &Map<String, Value>, name: &str) -> Option<Option<Seconds>> {
    claims.get(name).map(|value| value.as_u64().map(Seconds))
}

/// Whether `aud` names one of these, and nothing that is no name.
pub(super) fn check_audience(claims: &Claims, audience: &[String]) -> Result<(), BadToken> {
    let is_ours = |value: &Value| {
        value
            .as_str()
            .map(|text| audience.iter().any(|audience| audience == text))
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
pub(super) fn check_purpose(kind: &Type, claims: &Claims) -> Result<(), BadToken> {
    let said = claims.get("typ").and_then(Value::as_str);
    let keycloak = said.is_some_and(|said| matches!(said, "ID" | "Refresh" | "Offline" | "Logout"));
    // An ID token need not have the hash of an access token; its nonce tells it from tokens that do
    // not say what they are for.
    let says_access = kind.0 == "at+jwt" || said == Some("Bearer");
    // Whoever steals a bound token can't use it elsewhere, and must not be able to here (RFC 7800).
    if keycloak
        || claims.contains_key("cnf")
        || !says_access && claims.contains_key("nonce")
        || FORBIDDEN_CLAIMS
            .iter()
            .any(|name| claims.contains_key(*name))
    {
        return Err(BadToken::Type);
    }
    Ok(())
}

/// The user that claims of the rule's issuer are about. The claims must be known to be the issuer's.
///
/// # Errors
/// [`BadToken::Name`] and [`BadToken::Groups`].
pub fn user(claims: &Claims, rule: &Rule) -> Result<User, BadToken> {
    user_named(
        claims,
        &rule.provider,
        &rule.name_claim,
        rule.groups_claim.as_deref(),
        rule.trust_unverified_email,
    )
}

/// The same, where the claims come by themselves.
pub(super) fn user_named(
    claims: &Claims,
    provider: &Arc<str>,
    name_claim: &str,
    groups_claim: Option<&str>,
    trust_unverified_email: bool,
) -> Result<User, BadToken> {
    let name = claims
        .get(name_claim)
        .and_then(Value::as_str)
        .filter(|name| is_name(name))
        .ok_or(BadToken::Name)?;
    let groups = groups_claim.and_then(|claim| at(claims, claim));
    // When nobody says when the person proved it, it was long ago: `iat` is new with each refresh.
    let proved = time(claims, "auth_time").flatten();
    Ok(User {
        name: name.into(),
        provider: Arc::clone(provider),
        email: email(claims, trust_unverified_email),
        groups: groups.map_or(Ok(Vec::new()), group_names)?,
        claims: Arc::new(claims.clone()),
        signed_in_at: proved
            .and_then(Seconds::time)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

/// The claim of a name: one that stands there as written, else one level down at each dot, as in
/// `realm_access.roles`.
pub fn at<'c>(claims: &'c Claims, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| {
        let mut parts = name.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_object()?.get(part))
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

/// The e-mail address, if the issuer says that it is verified, in no words of its own, and it is one
/// plain address (SECURITY.md J1).
fn email(claims: &Claims, trust_unverified: bool) -> Option<Arc<str>> {
    match claims.get("email_verified") {
        Some(Value::Bool(true)) => {}
        None if trust_unverified => {}
        None | Some(_) => return None,
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
mod tests;
