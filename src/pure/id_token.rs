//! ID tokens and logout tokens: what they must say beside what every token must (`pure::jwt`).
//!
//! | when | then |
//! |---|---|
//! | an ID token has no `iat`, or no `sub` of 1 to 255 visible characters (OpenID Connect Core §2) | refused |
//! | its `nonce` is not the attempt's, or is missing | refused |
//! | `azp` is not our client, or is missing where there are several audiences (Core §3.1.3.7) | refused |
//! | `at_hash` is there, and is not the access token's (Core §3.1.3.6) | refused |
//! | the sign-in is older than was asked for, or does not say when it was | refused |
//! | `acr` is none of those that were asked for | refused |
//! | a logout token has no `iat`, `jti` or event of back-channel logout, neither `sub` nor `sid`, or a `nonce` (Back-Channel Logout §2.6) | refused |
//! | it was issued more than five minutes ago | refused |

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::identity::Claims;
use super::jwk::Algorithm;
use super::jwt::{Issued, time};
use super::seal;
use super::session::Seconds;

/// How far the clocks of the provider and of the gateway may differ.
const SKEW: Duration = Duration::from_secs(60);
/// How old a logout token may be when it comes.
pub const LOGOUT_TOKEN_LIFE: Duration = Duration::from_secs(300);
/// The longest `sub` (OpenID Connect Core §2); `sid` and `jti` get the same.
const MAX_ID_BYTES: usize = 255;
/// The member of `events` that makes a logout token (Back-Channel Logout §2.4).
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What an ID token is expected to say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'e> {
    /// Our client id.
    pub client_id: &'e str,
    /// The attempt's nonce; none at a refresh, which has none to repeat.
    pub nonce: Option<&'e str>,
    /// The access token that came with it.
    pub access_token: Option<&'e str>,
    /// The greatest age of the sign-in that was asked for.
    pub max_age: Option<Duration>,
    /// The contexts that were asked for; any will do.
    pub acr: &'e [String],
}

/// Why an ID token or a logout token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadIdToken {
    /// No `sub`, or none that could be one.
    Subject,
    /// No `iat`.
    IssuedAt,
    /// Another `nonce`, or none; or one in a logout token.
    Nonce,
    /// It was made for another client.
    AuthorizedParty,
    /// The access token is not the one it was issued with.
    AccessTokenHash,
    /// The sign-in is too old, or does not say when it was.
    AuthTime,
    /// The sign-in was by other means than were asked for.
    Acr,
    /// It is no logout token.
    Events,
    /// No `jti`, or none that could be one.
    Jti,
    /// It says neither who nor which session.
    Whom,
    /// It came too late.
    TooOld,
}

impl BadIdToken {
    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Subject => "oidc.subject",
            Self::IssuedAt => "oidc.issued_at",
            Self::Nonce => "oidc.nonce",
            Self::AuthorizedParty => "oidc.authorized_party",
            Self::AccessTokenHash => "oidc.access_token_hash",
            Self::AuthTime => "oidc.auth_time",
            Self::Acr => "oidc.acr",
            Self::Events => "oidc.logout_events",
            Self::Jti => "oidc.logout_jti",
            Self::Whom => "oidc.logout_whom",
            Self::TooOld => "oidc.logout_too_old",
        }
    }
}

/// Checks an ID token, of which the signature, `iss`, `aud` and the times were checked before.
///
/// # Errors
/// The first thing that it does not say as it must.
pub fn check(
    token: &Issued<'_>,
    expected: &Expected<'_>,
    now: SystemTime,
) -> Result<(), BadIdToken> {
    let claims = token.claims;
    id(claims, "sub").ok_or(BadIdToken::Subject)?;
    time(claims, "iat").flatten().ok_or(BadIdToken::IssuedAt)?;
    if let Some(nonce) = expected.nonce {
        let said = claims.get("nonce").and_then(Value::as_str);
        if !said.is_some_and(|said| seal::same(said.as_bytes(), nonce.as_bytes())) {
            return Err(BadIdToken::Nonce);
        }
    }
    authorized_party(claims, expected.client_id)?;
    if let Some(access_token) = expected.access_token {
        access_token_hash(claims, token.algorithm, access_token)?;
    }
    if let Some(max_age) = expected.max_age {
        let since = time(claims, "auth_time").flatten();
        if since.is_none_or(|since| since.plus(max_age).plus(SKEW) < Seconds::of(now)) {
            return Err(BadIdToken::AuthTime);
        }
    }
    let acr = claims.get("acr").and_then(Value::as_str);
    let asked = expected.acr;
    if !asked.is_empty() && !acr.is_some_and(|acr| asked.iter().any(|one| one == acr)) {
        return Err(BadIdToken::Acr);
    }
    Ok(())
}

fn authorized_party(claims: &Claims, client_id: &str) -> Result<(), BadIdToken> {
    match claims.get("azp") {
        Some(Value::String(party)) if party == client_id => Ok(()),
        Some(_) => Err(BadIdToken::AuthorizedParty),
        None => match claims.get("aud") {
            Some(Value::Array(all)) if all.len() > 1 => Err(BadIdToken::AuthorizedParty),
            Some(_) | None => Ok(()),
        },
    }
}

/// The left half of the hash that the signature's algorithm names.
fn access_token_hash(
    claims: &Claims,
    algorithm: Algorithm,
    access_token: &str,
) -> Result<(), BadIdToken> {
    let said = match claims.get("at_hash") {
        None => return Ok(()),
        Some(Value::String(said)) => said,
        Some(_) => return Err(BadIdToken::AccessTokenHash),
    };
    let hash = match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Es256 => &digest::SHA256,
        Algorithm::Rs384 | Algorithm::Ps384 | Algorithm::Es384 => &digest::SHA384,
        // Ed25519 hashes with SHA-512 (RFC 8032 §5.1).
        Algorithm::Rs512 | Algorithm::Ps512 | Algorithm::EdDsa => &digest::SHA512,
    };
    let whole = digest::digest(hash, access_token.as_bytes());
    let half = whole.as_ref().get(..whole.as_ref().len() / 2);
    let is_half = half
        .is_some_and(|half| seal::same(URL_SAFE_NO_PAD.encode(half).as_bytes(), said.as_bytes()));
    if is_half {
        Ok(())
    } else {
        Err(BadIdToken::AccessTokenHash)
    }
}

/// Whom a provider signs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    /// The user's `sub`: all of their sessions, if no session is named.
    pub subject: Option<String>,
    /// The provider's session.
    pub session: Option<String>,
    /// The token's own id: it counts once.
    pub id: String,
}

/// Reads a logout token, of which the signature, `iss`, `aud` and the times were checked before.
///
/// # Errors
/// The first thing that it does not say as it must.
pub fn logout(token: &Issued<'_>, now: SystemTime) -> Result<Logout, BadIdToken> {
    let claims = token.claims;
    let event = claims
        .get("events")
        .and_then(Value::as_object)
        .and_then(|events| events.get(LOGOUT_EVENT));
    if !event.is_some_and(Value::is_object) {
        return Err(BadIdToken::Events);
    }
    // It tells a logout token from an ID token, by all who check neither `typ` nor `events`.
    if claims.contains_key("nonce") {
        return Err(BadIdToken::Nonce);
    }
    let issued = time(claims, "iat").flatten().ok_or(BadIdToken::IssuedAt)?;
    if issued.plus(LOGOUT_TOKEN_LIFE) < Seconds::of(now) {
        return Err(BadIdToken::TooOld);
    }
    let named = |name| match claims.get(name) {
        None => Ok(None),
        Some(_) => id(claims, name).map(Some).ok_or(BadIdToken::Whom),
    };
    let (subject, session) = (named("sub")?, named("sid")?);
    if subject.is_none() && session.is_none() {
        return Err(BadIdToken::Whom);
    }
    Ok(Logout {
        subject,
        session,
        id: id(claims, "jti").ok_or(BadIdToken::Jti)?,
    })
}

/// A claim that identifies something: bounded, with nothing invisible in it.
pub fn id(claims: &Claims, name: &str) -> Option<String> {
    claims
        .get(name)
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES)
        .filter(|id| !id.chars().any(char::is_control))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn claims(changes: Value) -> Claims {
        let mut claims = json!({
            "iss": "https://idp.test", "aud": "gate", "sub": "ada", "iat": NOW - 5, "nonce": "n",
            "auth_time": NOW - 100, "acr": "mfa",
        });
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims.as_object().unwrap().clone()
    }

    fn issued(claims: &Claims) -> Issued<'_> {
        Issued {
            claims,
            algorithm: Algorithm::Rs256,
            expires: Seconds(NOW + 60),
        }
    }

    #[track_caller]
    fn checked(changes: Value, expected: Result<(), BadIdToken>) {
        let acr = ["mfa".to_owned(), "hwk".to_owned()];
        let wanted = Expected {
            client_id: "gate",
            nonce: Some("n"),
            // OpenID Connect Core, appendix A.3.
            access_token: Some("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"),
            max_age: Some(Duration::from_secs(300)),
            acr: &acr,
        };
        let claims = claims(changes.clone());
        assert_eq!(
            check(&issued(&claims), &wanted, now()),
            expected,
            "{changes}"
        );
    }

    #[test]
    fn an_id_token_says_for_which_attempt_and_client_it_is() {
        checked(json!({}), Ok(()));
        checked(json!({"sub": null}), Err(BadIdToken::Subject));
        checked(json!({"sub": ""}), Err(BadIdToken::Subject));
        checked(json!({"sub": 7}), Err(BadIdToken::Subject));
        checked(json!({"sub": "x".repeat(256)}), Err(BadIdToken::Subject));
        checked(json!({"iat": null}), Err(BadIdToken::IssuedAt));
        checked(json!({"nonce": null}), Err(BadIdToken::Nonce));
        checked(json!({"nonce": "m"}), Err(BadIdToken::Nonce));
        checked(json!({"nonce": ["n"]}), Err(BadIdToken::Nonce));
        checked(json!({"azp": "gate"}), Ok(()));
        checked(json!({"azp": "other"}), Err(BadIdToken::AuthorizedParty));
        checked(json!({"azp": 1}), Err(BadIdToken::AuthorizedParty));
        checked(
            json!({"aud": ["gate", "other"]}),
            Err(BadIdToken::AuthorizedParty),
        );
        checked(json!({"aud": ["gate", "other"], "azp": "gate"}), Ok(()));
    }

    #[test]
    fn an_id_token_is_bound_to_its_access_token() {
        checked(json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}), Ok(()));
        checked(
            json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RR"}),
            Err(BadIdToken::AccessTokenHash),
        );
        checked(json!({"at_hash": 1}), Err(BadIdToken::AccessTokenHash));
    }

    #[test]
    fn a_sign_in_is_as_fresh_and_as_strong_as_was_asked() {
        checked(json!({"auth_time": NOW - 360}), Ok(()));
        checked(json!({"auth_time": NOW - 361}), Err(BadIdToken::AuthTime));
        checked(json!({"auth_time": null}), Err(BadIdToken::AuthTime));
        checked(json!({"auth_time": "now"}), Err(BadIdToken::AuthTime));
        checked(json!({"acr": "hwk"}), Ok(()));
        checked(json!({"acr": "pwd"}), Err(BadIdToken::Acr));
        checked(json!({"acr": null}), Err(BadIdToken::Acr));
    }

    #[track_caller]
    fn logged_out(changes: Value) -> Result<Logout, BadIdToken> {
        let mut all = json!({"nonce": null, "jti": "1", "events": {LOGOUT_EVENT: {}}});
        for (name, value) in changes.as_object().unwrap() {
            all[name] = value.clone();
        }
        logout(&issued(&claims(all)), now())
    }

    #[test]
    fn a_logout_token_names_whom_and_counts_once_j10() {
        let whom = logged_out(json!({"sid": "s"})).unwrap();
        assert_eq!(
            (whom.subject.as_deref(), whom.session.as_deref(), &*whom.id),
            (Some("ada"), Some("s"), "1")
        );
        assert_eq!(logged_out(json!({})).unwrap().session, None);
        for (changes, why) in [
            (json!({"sub": null}), BadIdToken::Whom),
            (json!({"sid": ""}), BadIdToken::Whom),
            (json!({"sid": 1}), BadIdToken::Whom),
            (json!({"jti": null}), BadIdToken::Jti),
            (json!({"jti": ""}), BadIdToken::Jti),
            (json!({"iat": null}), BadIdToken::IssuedAt),
            (json!({"iat": NOW - 301}), BadIdToken::TooOld),
            (json!({"nonce": "n"}), BadIdToken::Nonce),
            (json!({"events": null}), BadIdToken::Events),
            (json!({"events": {}}), BadIdToken::Events),
            (json!({"events": {LOGOUT_EVENT: true}}), BadIdToken::Events),
            (json!({"events": [LOGOUT_EVENT]}), BadIdToken::Events),
        ] {
            assert_eq!(logged_out(changes.clone()), Err(why), "{changes}");
        }
    }
}
