//! 4. sign-in: who asks.
//!
//! | when | then |
//! |---|---|
//! | `Authorization`, or one of our cookies, comes twice; or no scheme can be read | 400 |
//! | the first method of the application for which there is a credential takes it | that user |
//! | .. its session is over, or there never was one | as if there were no cookie |
//! | .. its password or token is bad, malformed, or of an issuer that no method takes | 401, and no other method is asked |
//! | .. who sends it has failed too often | 429 `sign_in.slowed` |
//! | .. it can't be checked now | 503 |
//! | no method has a credential, and the rule is for everybody | nobody, which is for `access` to judge |
//! | no method has a credential | 401 `sign_in.no_credential`, listing every method |
//! | `Authorization` has a scheme of no method here | it is the application's own, and no credential |
//!
//! Of several basic methods the first that knows the name is asked; a token is tried by the methods
//! of exactly the issuer that it claims. Trusts no identity field of a client, and makes nothing of a
//! cookie that is malformed (ADVISORIES S4). A credential of a scheme that a method takes never goes
//! on to the backend, whichever method decided.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use crate::identity::provider::{Kind, some_of};
use crate::identity::{Failure, Identity};
use crate::pure::cookie::{self, BadCookies};
use crate::pure::credential::{BadCredential, Credential};
use crate::pure::head::Head;
use crate::pure::identity::User;
use crate::pure::return_to::OWN_PAGES;
use crate::pure::table::{Key, Table, nearest};
use crate::record::Record;
use crate::refusal::{Answer, Challenge, Refusal};
use crate::session::Live;

use super::rate::Permit;

/// Keys of `[sign_in]`.
pub const KEYS: &[Key] = &[Key {
    name: "with",
    kind: "list of methods",
    default: "[\"local\"]",
    doc: "How people and programs prove who they are, in this order: `local` (accounts, by a sign-in \
          page), `basic` (accounts, by HTTP basic), or the name of a `[provider.NAME]`.",
}];

/// How an application's users prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    ways: Vec<Way>,
    realm: Arc<str>,
    /// Whether those who prove nothing are let through to `access` all the same: for public paths.
    pub anonymous: bool,
}

/// One method of an application, or several of one kind, in the place of the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Session,
    Basic(Vec<Arc<str>>),
    Bearer(Vec<Arc<str>>),
}

impl Rule {
    /// The rule of the application `app` that `[sign_in]` states; without one, the sign-in page with
    /// local accounts. `known` are the methods that there are.
    pub fn read(table: Option<&Table>, known: &BTreeMap<Arc<str>, Kind>, app: &str) -> Self {
        let mut rule = Self {
            ways: Vec::new(),
            realm: realm(app),
            anonymous: false,
        };
        let stated = table.and_then(|table| {
            let names = || known.keys().map(|name| &**name);
            let empty = "an empty list would let nobody sign in";
            some_of(table, "with", empty, |name| {
                match known.get_key_value(name) {
                    Some((name, kind)) => Ok((Arc::clone(name), *kind)),
                    None => Err(match nearest(name, names()) {
                        Some(near) => format!("no method has this name; did you mean `{near}`?"),
                        None => format!("one of `{}`", names().collect::<Vec<_>>().join("`, `")),
                    }),
                }
            })
        });
        for (name, kind) in stated.unwrap_or_else(|| vec![("local".into(), Kind::Session)]) {
            rule.add(name, kind);
        }
        rule
    }

    fn add(&mut self, name: Arc<str>, kind: Kind) {
        for way in &mut self.ways {
            match (way, kind) {
                (Way::Session, Kind::Session) => return,
                (Way::Basic(names), Kind::Basic) | (Way::Bearer(names), Kind::Bearer) => {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                    return;
                }
                (Way::Session | Way::Basic(_) | Way::Bearer(_), _) => {}
            }
        }
        self.ways.push(match kind {
            Kind::Session => Way::Session,
            Kind::Basic => Way::Basic(vec![name]),
            Kind::Bearer => Way::Bearer(vec![name]),
        });
    }

    /// Whether people can sign in by our page.
    pub fn has_page(&self) -> bool {
        self.ways.contains(&Way::Session)
    }

    fn challenge(&self, bad_token: bool) -> Challenge {
        let realm = &self.realm;
        let challenges = self.ways.iter().map(|way| match way {
            // A 401 must name a scheme (RFC 9110 §15.5.2); browsers pass over one they don't know.
            Way::Session => format!("Cookie realm=\"{realm}\", form-action=\"{OWN_PAGES}sign-in\""),
            // RFC 7617 §2.1: names and passwords are UTF-8.
            Way::Basic(_) => format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            // RFC 6750 §3.1: the error only where there was a token.
            Way::Bearer(_) if bad_token => {
                format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")
            }
            Way::Bearer(_) => format!("Bearer realm=\"{realm}\""),
        });
        Challenge {
            challenges: challenges.collect(),
            sign_in_page: self.has_page(),
        }
    }
}

/// The application's name as it can stand between quotes.
fn realm(app: &str) -> Arc<str> {
    let plain = |c: &char| c.is_ascii_graphic() && !matches!(c, '"' | '\\') || *c == ' ';
    app.chars().filter(plain).collect::<String>().into()
}

/// Which credentials of the request are the gateway's, so that no backend sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consumed {
    /// `Authorization` is of a scheme that a method here takes.
    pub authorization: bool,
}

/// Why nobody is let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There are two `Authorization` fields.
    RepeatedAuthorization,
    /// `Authorization` has no scheme.
    NoScheme,
    /// A cookie of ours came twice: somebody else set one (ADVISORIES S10).
    RepeatedCookie,
    /// There are more cookies than a browser sends.
    TooManyCookies,
    /// There is nothing that a method here takes.
    NoCredential(Challenge),
    /// There is a session cookie, but no session any more.
    SessionOver(Challenge),
    /// `Basic` is not followed by base64 of a name and a password.
    MalformedBasic(Challenge),
    /// `Bearer` is not followed by a token.
    MalformedBearer(Challenge),
    /// The credential was checked and is bad, or can't be checked.
    Failed(Failure, Challenge),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let challenge = |challenge, reason| Self::new(Answer::Challenge(challenge), reason);
        match refused {
            Refused::RepeatedAuthorization => {
                Self::new(Answer::BadRequest, "sign_in.repeated_authorization")
            }
            Refused::NoScheme => Self::new(Answer::BadRequest, "sign_in.no_scheme"),
            Refused::RepeatedCookie => Self::new(Answer::BadRequest, "sign_in.repeated_cookie"),
            Refused::TooManyCookies => {
                Self::new(Answer::FieldsTooLarge, "sign_in.too_many_cookies")
            }
            Refused::NoCredential(ways) => challenge(ways, "sign_in.no_credential"),
            Refused::SessionOver(ways) => challenge(ways, "sign_in.session_over"),
            Refused::MalformedBasic(ways) => challenge(ways, "sign_in.malformed_basic"),
            Refused::MalformedBearer(ways) => challenge(ways, "sign_in.malformed_bearer"),
            Refused::Failed(failure, ways) => failure
                .refusal()
                .unwrap_or_else(|| challenge(ways, failure.reason())),
        }
    }
}

/// Somebody, or nobody: made here only, from a [`Permit`], and asked for by the limits of users.
#[derive(Debug)]
pub struct Subject {
    permit: Permit,
    found: Found,
}

impl Subject {
    /// The proof of the stage before.
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Who asks; none on a path for everybody.
    pub const fn user(&self) -> Option<&Arc<User>> {
        self.found.user.as_ref()
    }

    /// The session that says so; what is open for it ends with it.
    pub const fn session(&self) -> Option<&Arc<Live>> {
        self.found.session.as_ref()
    }

    /// Which credentials no backend may see.
    pub const fn consumed(&self) -> Consumed {
        self.found.consumed
    }
}

/// What was found of who asks.
#[derive(Debug, Default)]
struct Found {
    user: Option<Arc<User>>,
    session: Option<Arc<Live>>,
    consumed: Consumed,
}

/// The credential of a request, as far as a method here could take it.
enum Authorization {
    None,
    Basic(Option<Credential>),
    Bearer(Option<Credential>),
}

impl Authorization {
    fn read(headers: &HeaderMap) -> Result<Self, Refused> {
        match Credential::of(headers) {
            Ok(None | Some(Credential::Other)) => Ok(Self::None),
            Ok(Some(basic @ Credential::Basic { .. })) => Ok(Self::Basic(Some(basic))),
            Ok(Some(bearer @ Credential::Bearer(_))) => Ok(Self::Bearer(Some(bearer))),
            Err(BadCredential::Basic) => Ok(Self::Basic(None)),
            Err(BadCredential::Bearer) => Ok(Self::Bearer(None)),
            Err(BadCredential::Repeated) => Err(Refused::RepeatedAuthorization),
            Err(BadCredential::Scheme) => Err(Refused::NoScheme),
        }
    }

    const fn is_for(&self, way: &Way) -> bool {
        matches!(
            (self, way),
            (Self::Basic(_), Way::Basic(_)) | (Self::Bearer(_), Way::Bearer(_))
        )
    }
}

/// Finds who asks.
///
/// # Errors
/// Why nobody is let through.
pub async fn identify(
    rule: &Rule,
    identity: &Identity,
    permit: Permit,
    head: &Head,
    now: SystemTime,
    seen: &mut Record,
) -> Result<Subject, Refused> {
    let client = permit.ip();
    let found = find(rule, identity, client, &head.headers, now).await?;
    seen.user.clone_from(&found.user);
    Ok(Subject { permit, found })
}

async fn find(
    rule: &Rule,
    identity: &Identity,
    client: IpAddr,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<Found, Refused> {
    let authorization = Authorization::read(headers)?;
    let consumed = Consumed {
        authorization: rule.ways.iter().any(|way| authorization.is_for(way)),
    };
    // Asked whether or not a method takes it: two cookies of ours are never an accident.
    let cookie = match cookie::ours(headers, cookie::SESSION) {
        Ok(cookie) => cookie,
        Err(BadCookies::Malformed) => None,
        Err(BadCookies::Repeated) => return Err(Refused::RepeatedCookie),
        Err(BadCookies::TooMany) => return Err(Refused::TooManyCookies),
    };
    let failed = |why: Failure| {
        let bad_token = matches!(why, Failure::BadToken(_) | Failure::OtherIssuer);
        Refused::Failed(why, rule.challenge(bad_token))
    };
    for way in &rule.ways {
        let user = match (way, &authorization) {
            (Way::Session, _) => {
                let Some(cookie) = cookie else { continue };
                match identity.session(cookie, now).await.map_err(failed)? {
                    Some(known) => {
                        let (user, session) = (Some(known.user), Some(known.live));
                        return Ok(Found {
                            user,
                            session,
                            consumed,
                        });
                    }
                    None => continue,
                }
            }
            (Way::Basic(methods), Authorization::Basic(basic)) => {
                let Some(Credential::Basic { user, password }) = basic else {
                    return Err(Refused::MalformedBasic(rule.challenge(false)));
                };
                identity
                    .by_password(methods, user, password, client, now)
                    .await
            }
            (Way::Bearer(methods), Authorization::Bearer(bearer)) => {
                let Some(Credential::Bearer(token)) = bearer else {
                    return Err(Refused::MalformedBearer(rule.challenge(true)));
                };
                identity.by_token(methods, token, now).await
            }
            (Way::Basic(_), Authorization::None | Authorization::Bearer(_))
            | (Way::Bearer(_), Authorization::None | Authorization::Basic(_)) => continue,
        };
        let user = Some(user.map_err(failed)?);
        return Ok(Found {
            user,
            session: None,
            consumed,
        });
    }
    if rule.anonymous {
        return Ok(Found {
            consumed,
            ..Found::default()
        });
    }
    let challenge = rule.challenge(false);
    Err(if cookie.is_some() && rule.has_page() {
        Refused::SessionOver(challenge)
    } else {
        Refused::NoCredential(challenge)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{AUTHORIZATION, COOKIE};
    use serde_json::json;

    use crate::identity::provider::kinds;
    use crate::identity::tests::{World, at};
    use crate::pure::jwt::BadToken;
    use crate::pure::table::Problems;

    use super::*;

    const CLIENT: &str = "192.0.2.1";

    fn rule_of(world: &World, with: &str) -> Result<Rule, Vec<String>> {
        let problems = Problems::default();
        let table = Table::parse("wiki.toml", with, KEYS, &problems);
        let rule = Rule::read(table.as_ref(), &kinds(&world.providers), "wiki");
        if problems.is_empty() {
            return Ok(rule);
        }
        Err(problems
            .into_sorted()
            .into_iter()
            .map(|problem| problem.message)
            .collect())
    }

    fn with(world: &World, methods: &[&str]) -> Rule {
        rule_of(world, &format!("with = {methods:?}")).unwrap()
    }

    fn headers(lines: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn basic(text: &str) -> String {
        use base64::Engine as _;
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(text)
        )
    }

    fn session(cookie: &str) -> String {
        format!("theme=dark; {}={cookie}", cookie::SESSION)
    }

    impl World {
        async fn find(
            &self,
            rule: &Rule,
            lines: &[(http::HeaderName, &str)],
        ) -> Result<Found, Refused> {
            find(
                rule,
                &self.identity,
                CLIENT.parse().unwrap(),
                &headers(lines),
                at(1),
            )
            .await
        }

        async fn name(
            &self,
            rule: &Rule,
            lines: &[(http::HeaderName, &str)],
        ) -> Result<String, (&'static str, bool)> {
            match self.find(rule, lines).await {
                Ok(found) => Ok(found
                    .user
                    .map_or_else(|| "-".to_owned(), |user| user.name.to_string())),
                Err(refused) => {
                    let refusal = Refusal::from(refused);
                    Err((
                        refusal.reason,
                        matches!(refusal.answer, Answer::Challenge(_)),
                    ))
                }
            }
        }
    }

    const fn challenged(reason: &'static str) -> Result<String, (&'static str, bool)> {
        Err((reason, true))
    }

    const fn refused(reason: &'static str) -> Result<String, (&'static str, bool)> {
        Err((reason, false))
    }

    #[test]
    fn a_rule_names_methods_that_exist() {
        let world = World::new();
        assert_eq!(rule_of(&world, "").unwrap(), with(&world, &["local"]));
        let problems = |text| rule_of(&world, text).unwrap_err();
        assert_eq!(
            problems("with = [\"legcy\"]"),
            ["`legcy` can't be used: no method has this name; did you mean `legacy`?"]
        );
        assert_eq!(
            problems("with = [\"kerberos\"]"),
            ["`kerberos` can't be used: one of `basic`, `ci`, `legacy`, `local`, `other`"]
        );
        assert_eq!(
            problems("with = []"),
            ["an empty list would let nobody sign in"]
        );
        assert_eq!(problems("wiht = [\"local\"]"), ["unknown key `wiht`"]);
    }

    #[tokio::test]
    async fn without_a_credential_nobody_passes_and_every_way_is_listed() {
        let world = World::new();
        let rule = with(&world, &["local", "ci", "basic", "legacy", "other"]);
        let refusal = Refusal::from(world.find(&rule, &[]).await.unwrap_err());
        let challenge = Challenge {
            challenges: vec![
                r#"Cookie realm="wiki", form-action="/.portcullis/sign-in""#.to_owned(),
                r#"Bearer realm="wiki""#.to_owned(),
                r#"Basic realm="wiki", charset="UTF-8""#.to_owned(),
            ],
            sign_in_page: true,
        };
        assert_eq!(
            refusal,
            Refusal::new(Answer::Challenge(challenge), "sign_in.no_credential")
        );
        let programs = with(&world, &["ci"]);
        let refusal = Refusal::from(world.find(&programs, &[]).await.unwrap_err());
        let Answer::Challenge(challenge) = refusal.answer else {
            panic!("no challenge")
        };
        assert!(!challenge.sign_in_page);
    }

    #[test]
    fn a_realm_cannot_end_its_quotes_t16() {
        assert_eq!(&*realm("a\"b\\c\nd e\u{e9}"), "abcd e");
    }

    #[tokio::test]
    async fn a_live_session_is_its_user_and_is_handed_on() {
        let world = World::new();
        let rule = with(&world, &["local"]);
        let cookie = session(&world.cookie().await);
        let found = world.find(&rule, &[(COOKIE, &cookie)]).await.unwrap();
        assert_eq!(&*found.user.unwrap().name, "bob");
        assert!(!found.session.unwrap().is_over(at(1)));
        assert_eq!(found.consumed, Consumed::default());
    }

    #[tokio::test]
    async fn a_cookie_that_is_no_session_signs_nobody_in_s4() {
        let world = World::new();
        let rule = with(&world, &["local"]);
        let good = world.cookie().await;
        for value in [
            "".to_owned(),
            "A".to_owned(),
            "A".repeat(43),
            "A".repeat(8192),
            "!!!".to_owned(),
            format!("{}x", *good),
            format!("{}.x", *good),
            good[..42].to_owned(),
            format!("\"{}\"", *good),
        ] {
            let name = world.name(&rule, &[(COOKIE, &session(&value))]).await;
            let Err((reason, true)) = name else {
                panic!("{value}: {name:?}")
            };
            assert!(["sign_in.session_over", "sign_in.no_credential"].contains(&reason));
        }
        let huge = session(&"A".repeat(65_536));
        let refusal = world.name(&rule, &[(COOKIE, &huge)]).await;
        assert_eq!(refusal, refused("sign_in.too_many_cookies"));
    }

    #[tokio::test]
    async fn two_session_cookies_are_refused_though_one_is_good_s10() {
        let world = World::new();
        let good = session(&world.cookie().await);
        for rule in [with(&world, &["local"]), with(&world, &["ci"])] {
            for lines in [
                vec![(COOKIE, good.clone()), (COOKIE, good.clone())],
                vec![(COOKIE, format!("{good}; {good}"))],
                vec![(COOKIE, format!("{}=; {good}", cookie::SESSION))],
            ] {
                let lines: Vec<_> = lines
                    .iter()
                    .map(|(name, value)| (name.clone(), &**value))
                    .collect();
                let name = world.name(&rule, &lines).await;
                assert_eq!(name, refused("sign_in.repeated_cookie"));
            }
        }
    }

    #[tokio::test]
    async fn a_session_counts_only_where_the_page_is_a_method() {
        let world = World::new();
        let cookie = session(&world.cookie().await);
        let name = world
            .name(&with(&world, &["ci"]), &[(COOKIE, &cookie)])
            .await;
        assert_eq!(name, challenged("sign_in.no_credential"));
    }

    #[tokio::test]
    async fn a_session_that_ended_says_so() {
        let world = World::new();
        let cookie = world.cookie().await;
        world.identity.sign_out(&cookie, at(1)).await.unwrap();
        let name = world
            .name(&with(&world, &["local"]), &[(COOKIE, &session(&cookie))])
            .await;
        assert_eq!(name, challenged("sign_in.session_over"));
    }

    #[tokio::test]
    async fn name_and_password_are_taken_and_kept_from_the_backend() {
        let world = World::new();
        let rule = with(&world, &["basic"]);
        let right = basic("bob:bobs password");
        let found = world.find(&rule, &[(AUTHORIZATION, &right)]).await.unwrap();
        assert_eq!(&*found.user.unwrap().name, "bob");
        assert!(found.session.is_none() && found.consumed.authorization);
    }

    #[tokio::test]
    async fn a_bad_credential_is_refused_and_no_other_method_is_asked() {
        let world = World::new();
        let rule = with(&world, &["basic", "ci", "local"]);
        let cookie = session(&world.cookie().await);
        let expired = format!("Bearer {}", world.token(&json!({"exp": 1})));
        let foreign = format!(
            "Bearer {}",
            world.token(&json!({"iss": "https://evil.test"}))
        );
        for (value, reason) in [
            (&*basic("bob:wrong"), "sign_in.wrong_password"),
            (&*basic("nobody:wrong"), "sign_in.wrong_password"),
            ("Basic !!!", "sign_in.malformed_basic"),
            ("Basic", "sign_in.malformed_basic"),
            (&*expired, BadToken::Expired.reason()),
            (&*foreign, "sign_in.jwt_other_issuer"),
            ("Bearer x", BadToken::Malformed.reason()),
            ("Bearer", "sign_in.malformed_bearer"),
            ("Bearer a b", "sign_in.malformed_bearer"),
            ("bEaReR x", BadToken::Malformed.reason()),
        ] {
            let lines = [(COOKIE, &*cookie), (AUTHORIZATION, value)];
            assert_eq!(
                world.name(&rule, &lines).await,
                challenged(reason),
                "{value}"
            );
        }
    }

    #[tokio::test]
    async fn a_bad_token_is_named_in_the_challenge() {
        let world = World::new();
        let rule = with(&world, &["ci"]);
        for value in ["Bearer x", "Bearer"] {
            let lines = [(AUTHORIZATION, value)];
            let refusal = Refusal::from(world.find(&rule, &lines).await.unwrap_err());
            let Answer::Challenge(challenge) = refusal.answer else {
                panic!("no challenge")
            };
            assert_eq!(
                challenge.challenges,
                [r#"Bearer realm="wiki", error="invalid_token""#]
            );
        }
    }

    #[tokio::test]
    async fn methods_are_asked_in_the_stated_order() {
        let world = World::new();
        let cookie = session(&world.cookie().await);
        let bearer = format!("Bearer {}", world.token(&json!({})));
        let both = [(COOKIE, &*cookie), (AUTHORIZATION, &*bearer)];
        let session_first = world
            .find(&with(&world, &["local", "ci"]), &both)
            .await
            .unwrap();
        assert_eq!(&*session_first.user.unwrap().name, "bob");
        assert!(
            session_first.consumed.authorization,
            "no backend sees the token"
        );
        let token_first = world
            .find(&with(&world, &["ci", "local"]), &both)
            .await
            .unwrap();
        assert_eq!(&*token_first.user.unwrap().name, "robot");
        assert!(token_first.session.is_none());
    }

    #[tokio::test]
    async fn a_scheme_of_no_method_is_the_applications_own() {
        let world = World::new();
        let rule = with(&world, &["local"]);
        let cookie = session(&world.cookie().await);
        for value in [
            &*basic("app:secret"),
            "Bearer x",
            "Bearer",
            "Basic !",
            "AWS4-HMAC-SHA256 x",
        ] {
            let own = (AUTHORIZATION, value);
            let alone = world.name(&rule, std::slice::from_ref(&own)).await;
            assert_eq!(alone, challenged("sign_in.no_credential"), "{value}");
            let found = world.find(&rule, &[(COOKIE, &cookie), own]).await.unwrap();
            assert_eq!(&*found.user.unwrap().name, "bob");
            assert!(!found.consumed.authorization);
        }
    }

    #[tokio::test]
    async fn two_authorization_lines_are_refused_h11() {
        let world = World::new();
        let right = basic("bob:bobs password");
        for methods in [&["basic"][..], &["local"]] {
            let rule = with(&world, methods);
            let lines = [(AUTHORIZATION, &*right), (AUTHORIZATION, &*right)];
            assert_eq!(
                world.name(&rule, &lines).await,
                refused("sign_in.repeated_authorization")
            );
            let name = world.name(&rule, &[(AUTHORIZATION, ", x")]).await;
            assert_eq!(name, refused("sign_in.no_scheme"));
        }
    }

    #[tokio::test]
    async fn on_a_public_path_nobody_passes_as_nobody_and_a_user_as_themselves() {
        let world = World::new();
        let mut rule = with(&world, &["local", "basic"]);
        rule.anonymous = true;
        assert_eq!(world.name(&rule, &[]).await.unwrap(), "-");
        let cookie = session(&world.cookie().await);
        assert_eq!(
            world.name(&rule, &[(COOKIE, &cookie)]).await.unwrap(),
            "bob"
        );
        let over = session(&"A".repeat(43));
        assert_eq!(world.name(&rule, &[(COOKIE, &over)]).await.unwrap(), "-");
        let wrong = basic("bob:wrong");
        let name = world.name(&rule, &[(AUTHORIZATION, &wrong)]).await;
        assert_eq!(name, challenged("sign_in.wrong_password"));
    }

    #[tokio::test]
    async fn guessing_is_answered_with_when_to_try_again_t3() {
        let world = World::new();
        let rule = with(&world, &["basic"]);
        for number in 0..5 {
            let wrong = basic(&format!("bob:guess {number}"));
            let name = world.name(&rule, &[(AUTHORIZATION, &wrong)]).await;
            assert_eq!(name, challenged("sign_in.wrong_password"));
        }
        let right = basic("bob:bobs password");
        let refusal = world
            .find(&rule, &[(AUTHORIZATION, &right)])
            .await
            .unwrap_err();
        let refusal = Refusal::from(refusal);
        assert_eq!(refusal.reason, "sign_in.slowed");
        let Answer::TooManyRequests(limited) = refusal.answer else {
            panic!("not slowed")
        };
        assert_eq!(limited.retry_after.as_secs(), 1);
    }

    #[tokio::test]
    async fn a_method_that_is_not_there_any_more_lets_nobody_in_t12() {
        let mut world = World::new();
        let rule = with(&world, &["legacy", "ci"]);
        world.providers.clear();
        world.reload(&[]);
        let old = basic("old:legacy password");
        let name = world.name(&rule, &[(AUTHORIZATION, &old)]).await;
        assert_eq!(name, refused("sign_in.no_method"));
        let bearer = format!("Bearer {}", world.token(&json!({})));
        let name = world.name(&rule, &[(AUTHORIZATION, &bearer)]).await;
        assert_eq!(name, refused("sign_in.no_method"));
    }
}
