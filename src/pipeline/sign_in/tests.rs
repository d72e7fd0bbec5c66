//! Tests of the stage.

use http::HeaderValue;
use http::header::{AUTHORIZATION, COOKIE};
use serde_json::json;

use crate::identity::provider::kinds;
use crate::identity::tests::{World, at};
use crate::pure::head::Content;
use crate::pure::jwt::BadToken;
use crate::pure::table::Problems;
use crate::pure::target::{Authority, Target};

use super::super::rate;
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

fn headers(lines: &[(http::HeaderName, &str)]) -> Fields {
    let mut headers = Fields::new();
    for (name, value) in lines {
        headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
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
        ["`kerberos` can't be used: one of `basic`, `ci`, `legacy`, `local`, `other`, `tokens`"]
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
        within: None,
        acr: None,
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
    assert_eq!(&*token_first.session.unwrap().user().name, "robot");
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

#[tokio::test]
async fn whoever_is_found_is_handed_on_with_the_permit_and_noted() {
    let world = World::new();
    let head = Head {
        method: http::Method::GET,
        version: http::Version::HTTP_11,
        authority: Authority::parse(b"wiki.test").unwrap(),
        target: Target::parse(b"/").unwrap(),
        headers: headers(&[(AUTHORIZATION, &basic("bob:bobs password"))]),
        content: Content::None,
        takes_trailers: false,
        upgrade: None,
        expects_continue: false,
        keeps_alive: true,
    };
    let permit = rate::testing::permit(CLIENT);
    let mut seen = Record::new("0".into(), tokio::time::Instant::now().into_std(), at(1));
    let rule = with(&world, &["basic"]);
    let subject = identify(&rule, &world.identity, permit, &head, at(1), &mut seen)
        .await
        .unwrap();
    assert_eq!(subject.user().unwrap(), seen.user.as_ref().unwrap());
    assert_eq!(subject.permit().ip().to_string(), CLIENT);
    assert!(subject.session().is_none() && subject.consumed().authorization);
}

/// A head that asks for a WebSocket, from a page of `origin`.
fn handshake(origins: &[&str]) -> Head {
    let origins: Vec<_> = origins.iter().map(|origin| (ORIGIN, *origin)).collect();
    Head {
        method: http::Method::GET,
        version: http::Version::HTTP_11,
        authority: Authority::parse(b"wiki.test:8443").unwrap(),
        target: Target::parse(b"/socket").unwrap(),
        headers: headers(&origins),
        content: Content::None,
        takes_trailers: false,
        upgrade: Some(crate::pure::head::WebSocket),
        expects_continue: false,
        keeps_alive: true,
    }
}

#[test]
fn a_websocket_is_opened_from_its_own_host_or_a_listed_one() {
    let world = World::new();
    let own = with(&world, &["local"]);
    let listed = rule_of(&world, "websocket_from = ['App.test', 'other.test']").unwrap();
    for (origins, by_own, by_listed) in [
        (&[][..], true, true),
        (&["https://wiki.test:8443"], true, true),
        (&["http://WIKI.test."], true, true),
        (&["https://app.test"], false, true),
        (&["https://app.test:444"], false, true),
        (&["https://sub.wiki.test"], false, false),
        (&["https://wiki.test.evil.test"], false, false),
        (&["https://evilwiki.test"], false, false),
        (&["https://wiki.test@evil.test"], false, false),
        (&["https://evil.test#https://wiki.test"], false, false),
        (&["https://evil.test/://wiki.test"], false, false),
        (&["wiki.test"], false, false),
        (&["null"], false, false),
        (&[""], false, false),
        (&["https://wiki.test", "https://evil.test"], false, false),
    ] {
        let head = handshake(origins);
        let opens = (own.opens_websockets(&head), listed.opens_websockets(&head));
        assert_eq!(opens, (by_own, by_listed), "{origins:?}");
    }
    let bad = rule_of(&world, "websocket_from = ['https://app.test/']").unwrap_err();
    assert!(bad[0].contains("a host such as"), "{bad:?}");
}
