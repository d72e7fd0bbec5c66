//! What an issuer answers about a token that only it can read (RFC 7662 §2.2).
//!
//! | when | then |
//! |---|---|
//! | it is no strict JSON object, or `active` is missing or no boolean | no answer at all: nothing is known of the token |
//! | `active` is `false` | refused |
//! | `aud` names none of the rule's, or is missing where the rule names some | refused |
//! | `client_id` likewise | refused |
//! | `iss` is another than the rule's, or is missing where the rule has one | refused |
//! | `token_type` is another than `Bearer` | refused |
//! | `token_type` is missing, and no `aud` says what the token is for | refused: it may be a refresh token |
//! | `exp` has come, `nbf` has not, or one of them is no time | refused |
//! | it is an ID, refresh or logout token, or bound to a key that was not shown | refused |
//! | there is no name in it | refused |
//!
//! `active: true` says that the issuer gave the token to somebody, for something: that it was for us is
//! what the rest is asked for.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::identity::{Claims, User};
use super::json;
use super::jwt::{self, BadToken};
use super::session::Seconds;

/// The longest answer: one with hundreds of groups, of which thousands can be remembered.
pub const MAX_ANSWER_BYTES: usize = 32 * 1024;
/// How far the issuer's clock may be ahead.
const SKEW: Duration = Duration::from_secs(60);

/// What an answer must say.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The name of the sign-in method, which becomes the user's provider.
    pub provider: Arc<str>,
    /// `iss`, exactly, where the rule has one.
    pub issuer: Option<String>,
    /// `aud` must name one of these, where there are some.
    pub audience: Vec<String>,
    /// `client_id` must be one of these, where there are some.
    pub clients: Vec<String>,
    /// The claim that is the user's name; else `sub`, or `username` where there is none.
    pub name_claim: Option<String>,
    /// The claim that lists the user's groups.
    pub groups_claim: Option<String>,
    /// Whether an e-mail address counts of which the answer does not say that it is verified.
    pub trust_unverified_email: bool,
}

/// A token that the issuer stands by.
#[derive(Debug, Clone)]
pub struct Active {
    /// Whose it is.
    pub user: Arc<User>,
    /// When it ends, where the issuer says so.
    pub expires: Option<Seconds>,
}

/// Why an answer lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAnswer {
    /// It does not say whether the token is active.
    NoAnswer,
    /// The token is not active.
    Inactive,
    /// It is for somebody else, or for nobody in particular.
    Audience,
    /// It was given to another client.
    Client,
    /// It is of another issuer.
    Issuer,
    /// It is no bearer token, or no access token.
    Type,
    /// It has ended, or its end is no time.
    Expired,
    /// It does not hold yet, or from no time on.
    NotYetValid,
    /// There is no name in the answer.
    Name,
    /// The claim with the groups is not a list of names.
    Groups,
}

impl BadAnswer {
    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoAnswer => "sign_in.introspection_no_answer",
            Self::Inactive => "sign_in.introspection_inactive",
            Self::Audience => "sign_in.introspection_audience",
            Self::Client => "sign_in.introspection_client",
            Self::Issuer => "sign_in.introspection_issuer",
            Self::Type => "sign_in.introspection_type",
            Self::Expired => "sign_in.introspection_expired",
            Self::NotYetValid => "sign_in.introspection_not_yet_valid",
            Self::Name => "sign_in.introspection_name",
            Self::Groups => "sign_in.introspection_groups",
        }
    }
}

/// Reads an answer.
///
/// # Errors
/// Why it lets nobody in.
pub fn read(content: &[u8], rule: &Rule, now: SystemTime) -> Result<Active, BadAnswer> {
    if content.len() > MAX_ANSWER_BYTES {
        return Err(BadAnswer::NoAnswer);
    }
    let claims = json::object(content).ok().flatten();
    let claims = claims.ok_or(BadAnswer::NoAnswer)?;
    match claims.get("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Err(BadAnswer::Inactive),
        Some(_) | None => return Err(BadAnswer::NoAnswer),
    }
    check_purpose(&claims, rule)?;
    let now = Seconds::of(now);
    let expires = match jwt::time(&claims, "exp") {
        None => None,
        Some(Some(expires)) if expires > now => Some(expires),
        Some(_) => return Err(BadAnswer::Expired),
    };
    let latest = now.plus(SKEW);
    if jwt::time(&claims, "nbf").is_some_and(|time| time.is_none_or(|from| from > latest)) {
        return Err(BadAnswer::NotYetValid);
    }
    let name_claim = match &rule.name_claim {
        Some(claim) => claim,
        None if claims.contains_key("sub") => "sub",
        None => "username",
    };
    let groups_claim = rule.groups_claim.as_deref();
    let trusts = rule.trust_unverified_email;
    let user = jwt::user_named(&claims, &rule.provider, name_claim, groups_claim, trusts);
    let user = user.map_err(|why| {
        if why == BadToken::Groups {
            BadAnswer::Groups
        } else {
            BadAnswer::Name
        }
    })?;
    Ok(Active {
        user: Arc::new(user),
        expires,
    })
}

/// Whether the token is one to be shown here.
fn check_purpose(claims: &Claims, rule: &Rule) -> Result<(), BadAnswer> {
    let text = |name| claims.get(name).and_then(Value::as_str);
    if !rule.audience.is_empty() {
        jwt::check_audience(claims, &rule.audience).map_err(|_| BadAnswer::Audience)?;
    }
    let is_known = |client: &str| rule.clients.iter().any(|known| known == client);
    if !rule.clients.is_empty() && !text("client_id").is_some_and(is_known) {
        return Err(BadAnswer::Client);
    }
    if rule
        .issuer
        .as_deref()
        .is_some_and(|issuer| text("iss") != Some(issuer))
    {
        return Err(BadAnswer::Issuer);
    }
    match claims.get("token_type") {
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        None if !rule.audience.is_empty() => {}
        Some(_) | None => return Err(BadAnswer::Type),
    }
    // The issuer was asked about an access token, and says that it is one.
    let kind = jwt::Type::named("at+jwt").ok_or(BadAnswer::Type)?;
    jwt::check_purpose(&kind, claims).map_err(|_| BadAnswer::Type)
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// An answer lets somebody in only if it says `true` in so many letters, and names the audience.
    pub fn introspection(bytes: &[u8]) {
        let rule = Rule {
            provider: "corp".into(),
            issuer: None,
            audience: vec!["wiki".to_owned()],
            clients: Vec::new(),
            name_claim: None,
            groups_claim: Some("groups".to_owned()),
            trust_unverified_email: false,
        };
        let now = SystemTime::UNIX_EPOCH;
        if let Ok(active) = read(bytes, &rule, now) {
            let text = String::from_utf8_lossy(bytes);
            assert!(text.contains("true") && !active.user.name.is_empty());
            assert!(active.expires.is_none_or(|end| end > Seconds::of(now)));
            assert!(active.user.claims.contains_key("aud"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn rule() -> Rule {
        Rule {
            provider: "corp".into(),
            issuer: None,
            audience: vec!["wiki".to_owned(), "shop".to_owned()],
            clients: Vec::new(),
            name_claim: None,
            groups_claim: Some("groups".to_owned()),
            trust_unverified_email: false,
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn whole() -> Value {
        json!({
            "active": true, "aud": "wiki", "sub": "ada", "username": "Ada", "client_id": "cli",
            "iss": "https://idp.test", "token_type": "Bearer", "exp": NOW + 1, "scope": "a b",
            "groups": ["staff"],
        })
    }

    fn with(rule: &Rule, changes: &Value) -> Result<Active, BadAnswer> {
        let mut answer = whole();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                answer.as_object_mut().unwrap().remove(name);
            } else {
                answer[name] = value.clone();
            }
        }
        read(answer.to_string().as_bytes(), rule, now())
    }

    #[track_caller]
    fn refused(rule: &Rule, changes: Value, why: BadAnswer) {
        assert_eq!(with(rule, &changes).err(), Some(why), "{changes}");
    }

    #[test]
    fn an_active_token_is_its_users() {
        let active = with(&rule(), &json!({"aud": ["x", "shop"]})).unwrap();
        assert_eq!(
            (&*active.user.name, &*active.user.provider),
            ("ada", "corp")
        );
        assert_eq!(active.user.groups, [Arc::<str>::from("staff")]);
        assert_eq!(active.user.claims["scope"], "a b");
        assert_eq!(active.expires, Some(Seconds(NOW + 1)));
        let named = with(&rule(), &json!({"sub": null, "exp": null})).unwrap();
        assert_eq!((&*named.user.name, named.expires), ("Ada", None));
        let name_claim = Some("client_id".to_owned());
        let by_client = Rule {
            name_claim,
            ..rule()
        };
        assert_eq!(&*with(&by_client, &json!({})).unwrap().user.name, "cli");
    }

    #[test]
    fn only_true_is_active() {
        refused(&rule(), json!({"active": false}), BadAnswer::Inactive);
        for active in [
            json!("true"),
            json!(1),
            json!([true]),
            json!({}),
            Value::Null,
        ] {
            refused(&rule(), json!({"active": active}), BadAnswer::NoAnswer);
        }
        for text in [
            "",
            "true",
            "[]",
            "{",
            r#"{"active":false,"active":true,"aud":"wiki","sub":"a"}"#,
        ] {
            let answer = read(text.as_bytes(), &rule(), now());
            assert_eq!(answer.err(), Some(BadAnswer::NoAnswer), "{text}");
        }
    }

    #[test]
    fn a_token_for_somebody_else_is_refused() {
        for aud in [
            json!("wik"),
            json!([]),
            json!(["x"]),
            json!(["wiki", 1]),
            json!({}),
            Value::Null,
        ] {
            refused(&rule(), json!({"aud": aud}), BadAnswer::Audience);
        }
        let issuer = Some("https://idp.test".to_owned());
        let of_issuer = Rule { issuer, ..rule() };
        assert!(with(&of_issuer, &json!({})).is_ok());
        for iss in [
            json!("https://idp.test/"),
            json!(["https://idp.test"]),
            Value::Null,
        ] {
            refused(&of_issuer, json!({"iss": iss}), BadAnswer::Issuer);
        }
        let of_client = Rule {
            audience: Vec::new(),
            clients: vec!["cli".to_owned()],
            ..rule()
        };
        assert!(with(&of_client, &json!({"aud": null})).is_ok());
        for client in [json!("other"), json!(["cli"]), Value::Null] {
            refused(&of_client, json!({"client_id": client}), BadAnswer::Client);
        }
        // Where nothing else says what it is for.
        refused(&of_client, json!({"token_type": null}), BadAnswer::Type);
        assert!(with(&rule(), &json!({"token_type": null})).is_ok());
    }

    #[test]
    fn a_token_for_another_purpose_or_time_is_refused() {
        for changes in [
            json!({"token_type": "DPoP"}),
            json!({"token_type": ["Bearer"]}),
            json!({"cnf": {"jkt": "x"}}),
            json!({"typ": "Refresh"}),
            json!({"events": {}}),
        ] {
            refused(&rule(), changes, BadAnswer::Type);
        }
        for exp in [
            json!(NOW),
            json!(0),
            json!("later"),
            json!(1e300),
            json!(-1),
        ] {
            refused(&rule(), json!({"exp": exp}), BadAnswer::Expired);
        }
        for nbf in [json!(NOW + 61), json!("now")] {
            refused(&rule(), json!({"nbf": nbf}), BadAnswer::NotYetValid);
        }
        refused(
            &rule(),
            json!({"sub": null, "username": null}),
            BadAnswer::Name,
        );
        refused(&rule(), json!({"sub": ""}), BadAnswer::Name);
        refused(&rule(), json!({"groups": [1]}), BadAnswer::Groups);
    }

    proptest! {
        #[test]
        fn the_fuzz_body_holds(text in r#"\{"active":(true|false|1)(,"aud":("wiki"|"x"))?(,"sub":"a")?\}"#) {
            fuzzing::introspection(text.as_bytes());
        }
    }
}
