use super::*;
use crate::identity::provider::kinds;
use crate::pure::table::Problems;

const fn key(name: &'static str) -> Key {
    Key {
        name,
        kind: "",
        default: "",
        doc: "",
    }
}

const APP: &[Key] = &[key("access"), key("path")];
const PATH: &[Key] = &[key("access"), key("methods")];

/// The rules of the application and of its paths.
fn parse(text: &str, problems: &Problems) -> (Rule, Vec<Rule>) {
    let app = Table::parse("policies/wiki.toml", text, APP, problems).unwrap();
    let methods = kinds(&[]);
    let rule = read(&app, &methods, true);
    let paths = app.tables("path", PATH);
    let paths = paths
        .iter()
        .map(|path| read_path(path, &methods, &rule))
        .collect();
    (rule, paths)
}

#[track_caller]
fn rules(text: &str) -> (Rule, Vec<Rule>) {
    let problems = Problems::default();
    let rules = parse(text, &problems);
    assert_eq!(problems.into_sorted(), []);
    rules
}

#[track_caller]
fn rule(text: &str) -> Rule {
    rules(text).0
}

/// Where the problems are, and the first words of each.
fn problems(text: &str) -> Vec<String> {
    let problems = Problems::default();
    parse(text, &problems);
    let show = |p: crate::pure::table::Problem| format!("{}:{} {}", p.line, p.column, p.message);
    problems.into_sorted().into_iter().map(show).collect()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
}

fn bob() -> User {
    let claims = serde_json::json!({"realm": {"roles": ["editor"]}, "level": 3});
    let serde_json::Value::Object(claims) = claims else {
        panic!("an object")
    };
    User {
        name: "bob".into(),
        provider: "local".into(),
        email: Some("bob@corp.test".into()),
        groups: vec!["staff".into()],
        claims: Arc::new(claims),
        signed_in_at: now() - Duration::from_secs(600),
    }
}

#[track_caller]
fn passes(rule: &Rule, line: u32) {
    let by = Place {
        file: "policies/wiki.toml".into(),
        line,
    };
    assert_eq!(rule.judge(Some(&bob()), &Method::GET, now()), (by, Ok(())));
}

fn refused(rule: &Rule, user: Option<&User>, method: &Method) -> (u32, Refused) {
    let (by, result) = rule.judge(user, method, now());
    (by.line, result.expect_err("granted"))
}

fn bobs() -> Option<Arc<str>> {
    Some("bob".into())
}

#[test]
fn nothing_said_means_nobody() {
    let rule = rule("");
    assert!(rule.needs_sign_in());
    let nobody = Refused::Nobody { as_whom: bobs() };
    assert_eq!(refused(&rule, Some(&bob()), &Method::GET), (1, nobody));
}

#[test]
fn a_word_says_whom() {
    passes(&rule("access = \"signed-in\""), 1);
    let public = rule("access = \"public\"");
    passes(&public, 1);
    assert!(!public.needs_sign_in());
    assert_eq!(public.judge(None, &Method::GET, now()).1, Ok(()));
    let closed = rule("access = \"nobody\"");
    let nobody = Refused::Nobody { as_whom: None };
    assert_eq!(refused(&closed, None, &Method::GET), (1, nobody));
}

#[test]
fn who_is_signed_out_is_refused_even_here() {
    let rule = rule("access = \"signed-in\"");
    assert_eq!(refused(&rule, None, &Method::GET), (1, Refused::SignedOut));
}

#[test]
fn every_condition_of_a_table_is_read_with_its_line() {
    let rule = rule(
        r#"
[access]
users = "bob"
providers = ["local"]
groups = ["ops", "staff"]
email_domains = ["corp.test"]
claims = { "realm.roles" = ["editor"], level = ["3"] }
methods = ["GET", "HEAD"]
signed_in_within = "15m"
"#,
    );
    passes(&rule, 2);
    let method = Refused::Method { as_whom: bobs() };
    assert_eq!(refused(&rule, Some(&bob()), &Method::POST), (8, method));
    let denied = Refused::Denied { as_whom: bobs() };
    let elsewhere = User {
        email: Some("bob@evil.test".into()),
        ..bob()
    };
    assert_eq!(
        refused(&rule, Some(&elsewhere), &Method::GET),
        (6, denied.clone())
    );
    let unclaimed = User {
        claims: Arc::default(),
        ..bob()
    };
    assert_eq!(refused(&rule, Some(&unclaimed), &Method::GET), (7, denied));
    let long_ago = User {
        signed_in_at: SystemTime::UNIX_EPOCH,
        ..bob()
    };
    let within = Duration::from_secs(900);
    let stale = Refused::Stale {
        within,
        sign_in_page: true,
    };
    assert_eq!(refused(&rule, Some(&long_ago), &Method::GET), (9, stale));
}

#[test]
fn a_deny_beats_and_names_its_own_line() {
    let text = "[access]\nwho = \"signed-in\"\n[[access.deny]]\nusers = [\"eve\"]\n[[access.deny]]\ngroups = [\"staff\"]\nmethods = [\"DELETE\"]\n";
    let rule = rule(text);
    passes(&rule, 1);
    let denied = |as_whom: &str| Refused::Denied {
        as_whom: Some(as_whom.into()),
    };
    let (line, why) = refused(&rule, Some(&bob()), &Method::DELETE);
    assert_eq!(why, denied("bob"));
    assert!((5..=7).contains(&line), "{line}");
    let eve = User {
        name: "eve".into(),
        ..bob()
    };
    let (line, why) = refused(&rule, Some(&eve), &Method::GET);
    assert_eq!(why, denied("eve"));
    assert!((3..=4).contains(&line), "{line}");
    let table = "access = { who = \"signed-in\", deny = { users = [\"bob\"] } }";
    assert_eq!(
        refused(&self::rule(table), Some(&bob()), &Method::GET).1,
        denied("bob")
    );
}

#[test]
fn a_path_narrows_opens_or_inherits_but_never_lifts_a_deny() {
    let (_, paths) = rules(
        r#"
[access]
groups = ["staff"]
deny = { users = ["eve"] }

[[path]]
methods = ["GET"]

[[path]]
access = "public"

[[path]]
access = { groups = ["admins"] }
"#,
    );
    let eve = User {
        name: "eve".into(),
        groups: vec!["admins".into()],
        ..bob()
    };
    let [inherits, public, admins] = &paths[..] else {
        panic!("three paths")
    };
    passes(inherits, 2);
    let method = Refused::Method { as_whom: bobs() };
    assert_eq!(refused(inherits, Some(&bob()), &Method::PUT), (7, method));
    passes(public, 10);
    assert!(!public.needs_sign_in());
    assert_eq!(
        refused(admins, Some(&bob()), &Method::GET).1,
        Refused::Denied { as_whom: bobs() }
    );
    assert_eq!(
        refused(admins, Some(&eve), &Method::GET),
        (
            4,
            Refused::Denied {
                as_whom: Some("eve".into())
            }
        )
    );
}

#[test]
fn an_empty_list_is_a_problem() {
    for key in ["users", "providers", "groups", "email_domains"] {
        let found = problems(&format!("[access]\n{key} = []\n"));
        assert_eq!(
            found,
            [format!(
                "2:{} `{key}` has an empty list, which nothing can meet",
                key.len() + 4
            )]
        );
    }
    for text in [
        "[access]\nclaims = {}\ngroups = [\"a\"]",
        "[access]\nclaims = { a = [] }",
        "[access]\nmethods = []\ngroups = [\"a\"]",
        "[access]\ngroups = [\"a\"]\ndeny = []",
        "[access]\ngroups = [\"a\"]\ndeny = {}",
        "[access]\ngroups = [\"a\"]\ndeny = { users = [] }",
        "[[path]]\nmethods = []",
    ] {
        assert_eq!(problems(text).len(), 1, "{text}: {:?}", problems(text));
    }
}

#[test]
fn a_table_that_does_not_say_who_is_a_problem() {
    for text in [
        "[access]",
        "[access]\nmethods = [\"GET\"]",
        "[access]\nsigned_in_within = \"1h\"",
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].ends_with("nothing says who may pass, so nobody may"),
            "{found:?}"
        );
    }
}

#[test]
fn public_with_conditions_on_users_is_a_problem() {
    for rest in [
        "groups = [\"a\"]",
        "signed_in_within = \"1h\"",
        "deny = { users = [\"bob\"] }",
    ] {
        let found = problems(&format!("[access]\nwho = \"public\"\n{rest}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
    }
    rule("[access]\nwho = \"public\"\nmethods = [\"GET\"]\ndeny = { methods = [\"PUT\"] }\n");
}

#[test]
fn what_cannot_be_meant_is_a_problem() {
    for text in [
        "access = \"everybody\"",
        "access = true",
        "access = [\"public\"]",
        "[access]\nwho = \"admins\"",
        "[access]\ngroups = [\"\"]",
        "[access]\nemail_domains = [\"@corp.test\"]",
        "[access]\ngroups = [\"a\"]\nmethods = [\"get\"]",
        "[access]\ngroups = [\"a\"]\nmethods = [\"CONNECT\"]",
        "[access]\nclaims = { \"a..b\" = [\"x\"] }\nusers = [\"u\"]",
        "[access]\ngroups = [\"a\"]\nsigned_in_within = \"soon\"",
        "[access]\ngroups = [\"a\"]\nsigned_in_within = \"0s\"",
        "[access]\ngroup = [\"a\"]\nusers = [\"b\"]",
        "[access]\ngroups = [\"a\"]\ndeny = { signed_in_within = \"1h\", users = [\"a\"] }",
    ] {
        assert_eq!(problems(text).len(), 1, "{text}: {:?}", problems(text));
    }
}

#[test]
fn refusals_have_their_answers_and_reasons() {
    let forbidden = || Answer::Forbidden { as_whom: bobs() };
    let stale = Refused::Stale {
        within: Duration::from_secs(900),
        sign_in_page: true,
    };
    let challenge = Challenge {
        challenges: vec![
            "Bearer error=\"insufficient_user_authentication\", max_age=\"900\"".to_owned(),
        ],
        sign_in_page: true,
        within: Some(900),
    };
    for (refused, answer, reason) in [
        (
            Refused::Nobody { as_whom: bobs() },
            forbidden(),
            "access.nobody",
        ),
        (
            Refused::SignedOut,
            Answer::Forbidden { as_whom: None },
            "access.signed_out",
        ),
        (
            Refused::Denied { as_whom: bobs() },
            forbidden(),
            "access.denied",
        ),
        (
            Refused::Method { as_whom: bobs() },
            forbidden(),
            "access.method",
        ),
        (stale, Answer::Challenge(challenge), "access.stale_sign_in"),
    ] {
        assert_eq!(Refusal::from(refused), Refusal::new(answer, reason));
    }
}

#[test]
fn p10_a_rule_by_method_sees_the_method_and_no_override() {
    let rule = rule("access = { who = \"public\", methods = [\"GET\"] }");
    let method = Refused::Method { as_whom: None };
    assert_eq!(refused(&rule, None, &Method::DELETE), (1, method.clone()));
    let lower = Method::from_bytes(b"get").unwrap();
    assert_eq!(refused(&rule, None, &lower), (1, method));
}

#[test]
fn a_sign_in_method_that_there_is_none_of_is_a_problem() {
    assert_eq!(
        problems("[access]\nproviders = [\"loca\"]"),
        ["2:14 `loca` can't be used: no method has this name; did you mean `local`?"]
    );
    let deny = "[access]\nwho = \"signed-in\"\ndeny = { providers = [\"x\"] }";
    assert_eq!(problems(deny).len(), 1);
}
