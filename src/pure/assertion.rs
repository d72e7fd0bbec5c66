//! What the gateway states to a backend, to be signed: who asks, of which application, and for what
//! (JWS, RFC 7515; JWT, RFC 7519; ES256, RFC 7518 §3.4).
//!
//! | claim | says |
//! |---|---|
//! | `iss`, `aud` | the gateway, and the one application that it is for |
//! | `sub`, `idp` | the user's name, and the sign-in method that vouches for it |
//! | `email`, `groups` | where the policy lets the backend learn them |
//! | `iat`, `exp`, `jti` | a minute, and an id that no other has |
//! | `htm`, `host`, `path`, `qsh` | the one request that it is for: method, host, path, SHA-256 of the query |
//!
//! Only whole: what would be too long for a field is an error, and never cut.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Serialize, Serializer};

use super::identity::User;
use super::seal;
use super::session::Seconds;

/// `typ`: so that it passes for no other kind of token (RFC 8725 §3.11).
pub const TYPE: &str = "portcullis-assertion+jwt";
/// From `iat` to `exp`.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// The longest assertion: what servers commonly accept for all fields together is 8 KiB.
const MAX_BYTES: usize = 6 * 1024;
/// The longest path in one: clients choose it, and must not fill the field.
const MAX_PATH_BYTES: usize = 2 * 1024;

/// What is stated.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// Who states it.
    pub issuer: &'a str,
    /// The application.
    pub audience: &'a str,
    /// Who asks.
    pub user: &'a User,
    /// Whether the backend may learn the e-mail address.
    pub email: bool,
    /// Whether it may learn the groups.
    pub groups: bool,
    /// The method.
    pub method: &'a str,
    /// The host asked for, with a port where the client gave one.
    pub host: &'a str,
    /// The path as the backend gets it.
    pub path: &'a str,
    /// The query, without its `?`.
    pub query: Option<&'a str>,
    /// When.
    pub now: Seconds,
    /// Random bytes.
    pub id: [u8; 16],
}

/// Why something can't be stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unstated {
    /// The client's path has more than 2 KiB.
    Path,
    /// It would make a field longer than servers accept.
    TooLong,
    /// It can't be written, which no text can bring about.
    Unwritable,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    kid: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    idp: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Groups<'a>>,
    iat: u64,
    exp: u64,
    jti: String,
    htm: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    qsh: Option<String>,
}

struct Groups<'a>(&'a [Arc<str>]);

impl Serialize for Groups<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|group| &**group))
    }
}

impl Statement<'_> {
    /// What is to be signed by the key with this id: header and claims, in base64url.
    ///
    /// # Errors
    /// Why it can't be stated.
    pub fn to_sign(&self, key_id: &str) -> Result<String, Unstated> {
        if self.path.len() > MAX_PATH_BYTES {
            return Err(Unstated::Path);
        }
        let header = Header {
            alg: "ES256",
            typ: TYPE,
            kid: key_id,
        };
        let mut message = encoded(&header)?;
        message.push('.');
        message.push_str(&encoded(&self.claims())?);
        // A dot and the signature follow.
        if message.len() > MAX_BYTES.saturating_sub(87) {
            return Err(Unstated::TooLong);
        }
        Ok(message)
    }

    fn claims(&self) -> Claims<'_> {
        Claims {
            iss: self.issuer,
            aud: self.audience,
            sub: &self.user.name,
            idp: &self.user.provider,
            email: self.user.email.as_deref().filter(|_| self.email),
            groups: self.groups.then_some(Groups(&self.user.groups)),
            iat: self.now.0,
            exp: self.now.plus(LIFETIME).0,
            jti: URL_SAFE_NO_PAD.encode(self.id),
            htm: self.method,
            host: self.host,
            path: self.path,
            qsh: self.query.map(hashed),
        }
    }
}

/// The compact form (RFC 7515 §7.1) of what was signed.
pub fn signed(mut message: String, signature: &[u8]) -> String {
    message.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut message);
    message
}

/// A part of a JWS (RFC 7515 §2).
///
/// # Errors
/// [`Unstated::Unwritable`], which no text can bring about.
pub(super) fn encoded(part: &impl Serialize) -> Result<String, Unstated> {
    let json = serde_json::to_vec(part).map_err(|_| Unstated::Unwritable)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

fn hashed(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(seal::hash(text.as_bytes()))
}

/// The public half of a P-256 pair: a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    x: String,
    y: String,
}

impl PublicKey {
    /// The key at an uncompressed point (SEC 1 §2.3.3); none at anything else.
    pub fn at(point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
        (y.len() == 32).then(|| Self {
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        })
    }

    /// Its id: the thumbprint (RFC 7638), so that a key has the same one everywhere.
    pub fn id(&self) -> String {
        let Self { x, y } = self;
        hashed(&format!(
            r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#
        ))
    }

    fn jwk(&self) -> String {
        let (Self { x, y }, id) = (self, self.id());
        format!(
            r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","use":"sig","alg":"ES256","kid":"{id}"}}"#
        )
    }
}

/// The set that verifiers fetch (RFC 7517 §5).
pub fn key_set<'k>(keys: impl IntoIterator<Item = &'k PublicKey>) -> String {
    let keys: Vec<String> = keys.into_iter().map(PublicKey::jwk).collect();
    format!("{{\"keys\":[{}]}}", keys.join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn user() -> User {
        User {
            name: "bob".into(),
            provider: "corp".into(),
            email: Some("bob@corp.test".into()),
            groups: vec!["staff".into(), "a,b".into()],
            claims: Arc::default(),
            signed_in_at: std::time::UNIX_EPOCH,
        }
    }

    fn statement(user: &User) -> Statement<'_> {
        Statement {
            issuer: "https://wiki.test",
            audience: "wiki",
            user,
            email: true,
            groups: true,
            method: "GET",
            host: "wiki.test",
            path: "/a/b%20c",
            query: Some("x=1&y=%22"),
            now: Seconds(1_700_000_000),
            id: [7; 16],
        }
    }

    #[track_caller]
    fn parts(message: &str) -> (Value, Value) {
        let part = |text: &str| {
            let json = URL_SAFE_NO_PAD.decode(text).unwrap();
            super::super::json::parse(&json).unwrap()
        };
        let (header, claims) = message.split_once('.').unwrap();
        (part(header), part(claims))
    }

    #[test]
    fn it_says_who_asks_and_for_what() {
        let (header, claims) = parts(&statement(&user()).to_sign("k1").unwrap());
        let expected = json!({ "alg": "ES256", "typ": "portcullis-assertion+jwt", "kid": "k1" });
        assert_eq!(header, expected);
        let expected = json!({
            "iss": "https://wiki.test",
            "aud": "wiki",
            "sub": "bob",
            "idp": "corp",
            "email": "bob@corp.test",
            "groups": ["staff", "a,b"],
            "iat": 1_700_000_000,
            "exp": 1_700_000_060,
            "jti": "BwcHBwcHBwcHBwcHBwcHBw",
            "htm": "GET",
            "host": "wiki.test",
            "path": "/a/b%20c",
            "qsh": hashed("x=1&y=%22"),
        });
        assert_eq!(claims, expected);
    }

    #[test]
    fn what_the_policy_keeps_back_and_what_is_not_there_are_not_said() {
        let user = user();
        let quiet = Statement {
            email: false,
            groups: false,
            query: None,
            ..statement(&user)
        };
        let (_, claims) = parts(&quiet.to_sign("k1").unwrap());
        for absent in ["email", "groups", "qsh"] {
            assert_eq!(claims.get(absent), None, "{absent}");
        }
        let nameless = User {
            email: None,
            groups: Vec::new(),
            ..user
        };
        let (_, claims) = parts(&statement(&nameless).to_sign("k1").unwrap());
        assert_eq!(claims.get("email"), None);
        assert_eq!(claims["groups"], json!([]));
    }

    #[test]
    fn an_empty_query_is_one() {
        let user = user();
        let empty = Statement {
            query: Some(""),
            ..statement(&user)
        };
        let (_, claims) = parts(&empty.to_sign("k1").unwrap());
        // SHA-256 of nothing.
        assert_eq!(claims["qsh"], "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    }

    #[test]
    fn what_is_too_long_for_a_field_is_refused_and_not_cut() {
        let long = "a".repeat(MAX_PATH_BYTES + 1);
        let user = user();
        let far = Statement {
            path: &long,
            ..statement(&user)
        };
        assert_eq!(far.to_sign("k1"), Err(Unstated::Path));
        let near = Statement {
            path: &long[1..],
            ..far
        };
        assert!(near.to_sign("k1").is_ok());
        let social = User {
            groups: vec!["group".into(); 1024],
            ..user.clone()
        };
        assert_eq!(statement(&social).to_sign("k1"), Err(Unstated::TooLong));
    }

    #[test]
    fn the_id_of_a_key_is_its_thumbprint() {
        let point = |byte| [&[4][..], &[byte; 32], &[2; 32]].concat();
        let (one, other) = (
            PublicKey::at(&point(1)).unwrap(),
            PublicKey::at(&point(3)).unwrap(),
        );
        assert_ne!(one.id(), other.id());
        let set: Value = serde_json::from_str(&key_set([&one, &other])).unwrap();
        assert_eq!(set["keys"][0]["kid"], one.id());
        assert_eq!(set["keys"][1]["y"], URL_SAFE_NO_PAD.encode([2; 32]));
        // The members of RFC 7638 §3.2, in their order and without space.
        let thumbprint = json!({ "crv": "P-256", "kty": "EC", "x": one.x, "y": one.y });
        assert_eq!(one.id(), hashed(&thumbprint.to_string()));
        for not_one in [
            &point(1)[..64],
            &[&point(1)[..], &[0]].concat(),
            &[],
            &[2; 33],
        ] {
            assert_eq!(PublicKey::at(not_one), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_user_is_called_stays_within_its_claim(
            name in "\\PC{1,40}|[\"\\\\,:{}]{1,9}",
            group in "\\PC{1,40}|[\"\\\\,:{}\n]{1,9}",
            path in "/[!-~]{0,40}",
        ) {
            let user = User {
                name: (&*name).into(),
                groups: vec![(&*group).into()],
                ..user()
            };
            let stated = Statement { path: &path, ..statement(&user) };
            let message = stated.to_sign("k1").unwrap();
            prop_assert!(message.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
            let (_, claims) = parts(&message);
            prop_assert_eq!(claims.as_object().unwrap().len(), 13);
            prop_assert_eq!(&claims["sub"], &name);
            prop_assert_eq!(&claims["groups"], &json!([group]));
            prop_assert_eq!(&claims["path"], &path);
        }
    }
}
