//! What the gate states to a provider, to be signed, to prove that it is the client it says it is
//! (`private_key_jwt`: OpenID Connect Core §9, RFC 7523 §3).
//!
//! | claim | says |
//! |---|---|
//! | `iss`, `sub` | the client's name at the provider, twice |
//! | `aud` | the one provider that it is for |
//! | `iat`, `exp`, `jti` | a minute, and an id that no other has |

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::assertion::{Unstated, encoded};
use super::session::Seconds;

/// `client_assertion_type` of such a statement (RFC 7523 §2.2).
pub const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// From `iat` to `exp`.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// What is stated.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// The client's name at the provider.
    pub client_id: &'a str,
    /// The provider.
    pub audience: &'a str,
    /// When.
    pub now: Seconds,
    /// Random bytes.
    pub id: [u8; 16],
}

/// How it is signed, and where the key is to be found.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Header<'a> {
    /// The algorithm's name (RFC 7518 §3.1).
    pub alg: &'static str,
    /// The key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<&'a str>,
    /// SHA-256 of the key's certificate (RFC 7515 §4.1.8).
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    pub certificate: Option<&'a str>,
}

#[derive(Serialize)]
struct Typed<'a> {
    // What providers have seen since RFC 7523; these keys sign nothing else that it could pass for.
    typ: &'static str,
    #[serde(flatten)]
    header: Header<'a>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: String,
}

impl Statement<'_> {
    /// What is to be signed: header and claims, in base64url.
    ///
    /// # Errors
    /// [`Unstated::Unwritable`], which no text can bring about.
    pub fn to_sign(&self, header: Header<'_>) -> Result<String, Unstated> {
        let typ = "JWT";
        let mut message = encoded(&Typed { typ, header })?;
        message.push('.');
        message.push_str(&encoded(&Claims {
            iss: self.client_id,
            sub: self.client_id,
            aud: self.audience,
            iat: self.now.0,
            exp: self.now.plus(LIFETIME).0,
            jti: URL_SAFE_NO_PAD.encode(self.id),
        })?);
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn stated(header: Header<'_>) -> (Value, Value) {
        let statement = Statement {
            client_id: "gate \"1\"",
            audience: "https://idp.test/realms/corp",
            now: Seconds(1_700_000_000),
            id: [7; 16],
        };
        let message = statement.to_sign(header).unwrap();
        let part = |text: &str| {
            let json = URL_SAFE_NO_PAD.decode(text).unwrap();
            super::super::json::parse(&json).unwrap()
        };
        let (header, claims) = message.split_once('.').unwrap();
        (part(header), part(claims))
    }

    #[test]
    fn a_client_states_who_it_is_to_one_provider_for_a_minute() {
        let (header, claims) = stated(Header {
            alg: "ES256",
            kid: Some("k1"),
            certificate: None,
        });
        assert_eq!(header, json!({"typ": "JWT", "alg": "ES256", "kid": "k1"}));
        let id = "BwcHBwcHBwcHBwcHBwcHBw";
        let expected = json!({
            "iss": "gate \"1\"",
            "sub": "gate \"1\"",
            "aud": "https://idp.test/realms/corp",
            "iat": 1_700_000_000,
            "exp": 1_700_000_060,
            "jti": id,
        });
        assert_eq!(claims, expected);
    }

    #[test]
    fn a_certificate_is_named_by_its_hash() {
        let (header, _) = stated(Header {
            alg: "PS256",
            kid: None,
            certificate: Some("abc"),
        });
        let expected = json!({"typ": "JWT", "alg": "PS256", "x5t#S256": "abc"});
        assert_eq!(header, expected);
    }
}
