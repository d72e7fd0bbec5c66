use http::Method;

use super::policy::MAX_DEPTH;
use super::*;
use crate::identity::provider::kinds;
use crate::pure::certificate::Name;
use crate::pure::connection::ClientCertificate;
use crate::pure::identity::User;
use crate::pure::table::{Key, Problems, Table};
use crate::pure::target::Oddities;

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
    let context = Context {
        methods: &methods,
        sign_in_page: true,
        lifted: Oddities::NONE,
        ignore_case: false,
        tell_missing: false,
    };
    let rule = read(&app, &context);
    let paths = app.tables("path", PATH);
    let paths = paths
        .iter()
        .map(|path| read_path(path, &context, &rule))
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

fn asking<'a>(user: Option<&'a User>, method: &'a Method) -> Asked<'a> {
    Asked {
        user,
        method,
        path: "/",
        client: [192, 0, 2, 1].into(),
        certificate: None,
        now: now(),
    }
}

fn denied(as_whom: Option<&str>) -> Refused {
    Refused::Denied {
        as_whom: as_whom.map(Into::into),
        missing: Vec::new(),
    }
}

fn method(as_whom: Option<&str>) -> Refused {
    Refused::Method {
        as_whom: as_whom.map(Into::into),
        missing: Vec::new(),
    }
}

#[track_caller]
fn passes(rule: &Rule, line: u32) {
    let by = Place {
        file: "policies/wiki.toml".into(),
        line,
    };
    assert_eq!(
        rule.judge(&asking(Some(&bob()), &Method::GET)),
        (by, Ok(()))
    );
}

fn refused(rule: &Rule, user: Option<&User>, method: &Method) -> (u32, Refused) {
    let (by, result) = rule.judge(&asking(user, method));
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
    assert_eq!(public.judge(&asking(None, &Method::GET)).1, Ok(()));
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
    let method = method(Some("bob"));
    assert_eq!(refused(&rule, Some(&bob()), &Method::POST), (8, method));
    let denied = denied(Some("bob"));
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
    let stale = Refused::Stale(Again {
        within: Some(Duration::from_secs(900)),
        acr: Vec::new(),
        sign_in_page: true,
    });
    assert_eq!(refused(&rule, Some(&long_ago), &Method::GET), (9, stale));
}

#[test]
fn a_deny_beats_and_names_its_own_line() {
    let text = "[access]\nwho = \"signed-in\"\n[[access.deny]]\nusers = [\"eve\"]\n[[access.deny]]\ngroups = [\"staff\"]\nmethods = [\"DELETE\"]\n";
    let rule = rule(text);
    passes(&rule, 1);
    let denied = |as_whom: &str| denied(Some(as_whom));
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
    let method = method(Some("bob"));
    assert_eq!(refused(inherits, Some(&bob()), &Method::PUT), (7, method));
    passes(public, 10);
    assert!(!public.needs_sign_in());
    assert_eq!(
        refused(admins, Some(&bob()), &Method::GET).1,
        denied(Some("bob"))
    );
    assert_eq!(
        refused(admins, Some(&eve), &Method::GET),
        (4, denied(Some("eve")))
    );
}

#[test]
fn an_empty_list_is_a_problem() {
    for key in ["users", "providers", "groups", "emails", "email_domains"] {
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
        "[access]\ngroups = [\"a\"]\nany = []",
        "[access]\ngroups = [\"a\"]\nall = []",
        "[access]\ngroups = [\"a\"]\nany = [{}]",
        "[access]\ngroups = [\"a\"]\nnot = {}",
        "[access]\ngroups = [\"a\"]\nnot = { users = [] }",
        "[access]\ngroups = [\"a\"]\npaths = {}",
        "[access]\ngroups = [\"a\"]\npaths = { prefix = [] }",
        "[access]\ngroups = [\"a\"]\ndeny = { report_only = true }",
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
        "not = { groups = [\"a\"] }",
        "any = [{ methods = [\"GET\"] }, { emails = [\"a@b.test\"] }]",
        "deny = { not = { all = [{ users = [\"bob\"] }] } }",
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
        "[access]\nnetworks = [\"10.0.0.0/8\"]",
        "[access]\nclient_certificates = [\"cn:a\"]",
        "[access]\npaths = { prefix = [\"/a\"] }",
        "[access]\nnot = { users = [\"eve\"] }",
        "[access]\ngroups = [\"a\"]\nnetworks = [\"10.1.2.3/8\"]",
        "[access]\ngroups = [\"a\"]\nclient_certificates = [\"alice\"]",
        "[access]\ngroups = [\"a\"]\npaths = { prefix = [\"/a/../b\"] }",
        "[access]\ngroups = [\"a\"]\npaths = { exact = [\"/a?b\"] }",
        "[access]\ngroups = [\"a\"]\npaths = { prefixes = [\"/a\"], exact = [\"/\"] }",
        "[access]\ngroups = [\"a\"]\npaths = [\"/a\"]",
        "[access]\nemails = [\"alice\"]",
        "[access]\nany = [{ group = [\"a\"], users = [\"b\"] }]",
        "[access]\nany = [{ who = \"public\", users = [\"b\"] }]",
        "[access]\nany = [{ deny = { users = [\"b\"] }, users = [\"b\"] }]",
        "[access]\nany = { users = [\"b\"] }",
        "[access]\ngroups = [\"a\"]\nnot = [{ users = [\"b\"] }]",
        "[access]\ngroups = [\"a\"]\nreport_only = \"yes\"",
        "[access]\ngroups = [\"a\"]\ntell_missing = 1",
        "[access]\nwho = \"nobody\"\nreport_only = true",
        "[access]\ngroups = [\"a\"]\ndeny = { tell_missing = true, users = [\"a\"] }",
        "[access]\ngroups = [\"a\"]\ndeny = { signed_in_within = \"1h\", users = [\"a\"] }",
    ] {
        assert_eq!(problems(text).len(), 1, "{text}: {:?}", problems(text));
    }
}

#[test]
fn a_sign_in_that_is_too_old_and_too_weak_is_asked_for_once() {
    let rule = rule(
        "[access]\ngroups = [\"staff\"]\nacr = [\"mfa\", \"hwk\"]\nsigned_in_within = \"15m\"\n",
    );
    let again = Again {
        within: Some(Duration::from_secs(900)),
        acr: vec!["mfa".into(), "hwk".into()],
        sign_in_page: true,
    };
    let challenge = Challenge {
        challenges: vec![
            "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa hwk\", max_age=\"900\""
                .to_owned(),
        ],
        sign_in_page: true,
        within: Some(900),
        acr: Some("mfa hwk".to_owned()),
    };
    assert_eq!(Challenge::from(again.clone()), challenge);
    let weak = Refused::Weak(again.clone());
    assert_eq!(weak.reason(), "access.weak_sign_in");
    assert_eq!(refused(&rule, Some(&bob()), &Method::GET), (3, weak));
    let long_ago = User {
        signed_in_at: SystemTime::UNIX_EPOCH,
        ..bob()
    };
    let stale = Refused::Stale(again);
    assert_eq!(refused(&rule, Some(&long_ago), &Method::GET), (4, stale));
    for text in [
        "access = { who = \"public\", acr = [\"mfa\"] }",
        "access = { who = \"signed-in\", acr = [] }",
        "access = { who = \"signed-in\", acr = [\"m fa\"] }",
        "access = { who = \"signed-in\", scopes = [\"a\\\"b\"] }",
        "access = { who = \"signed-in\", scopes = [] }",
        "access = { acr = [\"mfa\"] }",
        &format!(
            "access = {{ who = \"signed-in\", acr = [{}] }}",
            format!("\"{}\",", "a".repeat(250)).repeat(5)
        ),
    ] {
        assert_eq!(problems(text).len(), 1, "{text}: {:?}", problems(text));
    }
}

#[test]
fn a_token_without_the_scope_is_told_the_least_that_would_do() {
    let rule = rule(
        "[access]\nscopes = [\"wiki.read\", \"wiki.admin\"]\nall = [{ groups = [\"staff\"] }, { scopes = [\"x\"] }]\n",
    );
    assert_eq!(rule.scopes(), ["wiki.read", "wiki.admin", "x"]);
    let (line, refused) = refused(&rule, Some(&bob()), &Method::GET);
    let answer = Answer::InsufficientScope {
        as_whom: bobs(),
        missing: Vec::new(),
        challenge: "Bearer error=\"insufficient_scope\", scope=\"wiki.read\"".to_owned(),
    };
    assert_eq!(
        (line, Refusal::from(refused)),
        (2, Refusal::new(answer, "access.scope"))
    );
}

#[test]
fn refusals_have_their_answers_and_reasons() {
    let forbidden = || Answer::Forbidden { as_whom: bobs() };
    let stale = Refused::Stale(Again {
        within: Some(Duration::from_secs(900)),
        acr: Vec::new(),
        sign_in_page: true,
    });
    let challenge = Challenge {
        challenges: vec![
            "Bearer error=\"insufficient_user_authentication\", max_age=\"900\"".to_owned(),
        ],
        sign_in_page: true,
        within: Some(900),
        acr: None,
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
        (denied(Some("bob")), forbidden(), "access.denied"),
        (method(Some("bob")), forbidden(), "access.method"),
        (stale, Answer::Challenge(challenge), "access.stale_sign_in"),
    ] {
        assert_eq!(Refusal::from(refused), Refusal::new(answer, reason));
    }
}

#[test]
fn p10_a_rule_by_method_sees_the_method_and_no_override() {
    let rule = rule("access = { who = \"public\", methods = [\"GET\"] }");
    let method = method(None);
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

#[test]
fn public_goes_with_any_conditions_on_the_request() {
    let rule = rule(
        r#"
[access]
who = "public"
networks = ["192.0.2.0/24"]
client_certificates = ["cn:alice"]
paths = { prefix = ["/a"], exact = ["/"] }
not = { methods = ["DELETE"] }
"#,
    );
    assert!(!rule.needs_sign_in());
    let get = || asking(None, &Method::GET);
    assert_eq!(rule.judge(&get()).0.line, 5);
    let alice = ClientCertificate::with_names(vec![Name::parse("cn:alice").unwrap()]);
    let certificate = Some(&alice);
    let shown = || Asked {
        certificate,
        ..get()
    };
    assert_eq!(rule.judge(&shown()).1, Ok(()));
    for (asked, line) in [
        (
            Asked {
                client: [10, 0, 0, 1].into(),
                ..shown()
            },
            4,
        ),
        (
            Asked {
                path: "/b",
                ..shown()
            },
            6,
        ),
        (
            Asked {
                method: &Method::DELETE,
                ..shown()
            },
            7,
        ),
    ] {
        let (by, result) = rule.judge(&asked);
        assert_eq!((by.line, result), (line, Err(denied(None))));
    }
}

#[test]
fn conditions_stand_in_each_other_up_to_a_depth() {
    let nested = |depth: usize| {
        let (open, close) = ("not = { ".repeat(depth), " }".repeat(depth));
        format!("[access]\ngroups = [\"staff\"]\n{open}users = [\"eve\"]{close}\n")
    };
    // An even number of them says that the user is Eve.
    let deepest = rule(&nested(MAX_DEPTH));
    assert_eq!(
        refused(&deepest, Some(&bob()), &Method::GET),
        (3, denied(Some("bob")))
    );
    passes(&rule(&nested(MAX_DEPTH - 1)), 1);
    let found = problems(&nested(MAX_DEPTH + 1));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("more than 8 deep"), "{found:?}");
    assert_eq!(problems(&nested(60)).len(), 1);
}

#[test]
fn a_condition_in_any_asks_for_a_sign_in_all_the_same() {
    let rule = rule("[access]\nany = [{ groups = [\"ops\"] }, { networks = [\"192.0.2.0/24\"] }]");
    assert!(rule.needs_sign_in());
    passes(&rule, 1);
    assert_eq!(refused(&rule, None, &Method::GET), (1, Refused::SignedOut));
}

/// Where `rule` would refuse Bob, and why.
fn tried(rule: &Rule) -> Option<(u32, &'static str)> {
    let bob = bob();
    let asked = asking(Some(&bob), &Method::GET);
    let (by, why) = rule.tried(&asked)?;
    Some((by.line, rule.refused(why, &asked).reason()))
}

#[test]
fn a_rule_that_is_tried_lets_pass_and_says_what_it_would_have_refused() {
    let rule = rule("[access]\ngroups = [\"ops\"]\nreport_only = true");
    passes(&rule, 1);
    assert_eq!(tried(&rule), Some((2, "access.denied")));
    // Who is to be judged has to sign in.
    assert!(rule.needs_sign_in());
    assert_eq!(refused(&rule, None, &Method::GET), (1, Refused::SignedOut));
    for (text, expected) in [
        ("groups = [\"staff\"]", None),
        (
            "groups = [\"staff\"]\ndeny = { users = [\"bob\"] }",
            Some((4, "access.denied")),
        ),
        (
            "groups = [\"staff\"]\nmethods = [\"PUT\"]",
            Some((4, "access.method")),
        ),
        (
            "groups = [\"staff\"]\nsigned_in_within = \"1m\"",
            Some((4, "access.stale_sign_in")),
        ),
        (
            "who = \"public\"\nnetworks = [\"10.0.0.0/8\"]",
            Some((4, "access.denied")),
        ),
    ] {
        let rule = self::rule(&format!("[access]\nreport_only = true\n{text}\n"));
        assert_eq!(
            rule.judge(&asking(Some(&bob()), &Method::GET)).1,
            Ok(()),
            "{text}"
        );
        assert_eq!(tried(&rule), expected, "{text}");
    }
}

#[test]
fn a_deny_that_is_tried_refuses_nobody_and_others_do() {
    let text =
        "[access]\ngroups = [\"staff\"]\n[[access.deny]]\nusers = [\"bob\"]\nreport_only = true\n";
    let (app, paths) = rules(&format!("{text}[[path]]\naccess = \"signed-in\"\n"));
    passes(&app, 1);
    assert_eq!(tried(&app), Some((3, "access.denied")));
    // It is tried on the paths, too, as it would be in force there.
    passes(&paths[0], 7);
    assert_eq!(tried(&paths[0]), Some((3, "access.denied")));
    let enforced = rule(&format!("{text}[[access.deny]]\ngroups = [\"staff\"]\n"));
    assert_eq!(
        refused(&enforced, Some(&bob()), &Method::GET),
        (6, denied(Some("bob")))
    );
}

#[test]
fn a_rule_in_force_on_a_path_takes_the_place_of_one_that_is_tried() {
    let (_, paths) = rules(
        "[access]\ngroups = [\"ops\"]\nreport_only = true\n[[path]]\naccess = \"signed-in\"\n[[path]]\nmethods = [\"PUT\"]\n",
    );
    passes(&paths[0], 5);
    assert_eq!(tried(&paths[0]), None);
    assert_eq!(
        refused(&paths[1], Some(&bob()), &Method::GET),
        (7, method(Some("bob")))
    );
}

#[test]
fn who_is_tried_signs_in_where_the_application_is_public() {
    let (_, paths) = rules(
        "access = \"public\"\n[[path]]\naccess = { groups = [\"staff\"], report_only = true }\n\
         [[path]]\naccess = { who = \"public\", methods = [\"PUT\"], report_only = true }\n",
    );
    assert!(paths[0].needs_sign_in() && !paths[1].needs_sign_in());
    assert_eq!(
        refused(&paths[0], None, &Method::GET),
        (1, Refused::SignedOut)
    );
    passes(&paths[0], 1);
    assert_eq!(tried(&paths[0]), None);
    assert_eq!(tried(&paths[1]), Some((5, "access.method")));
}

#[test]
fn without_the_word_nothing_is_asked_twice() {
    let (app, paths) = rules(
        "[access]\ngroups = [\"staff\"]\ndeny = { users = [\"eve\"] }\n[[path]]\nmethods = [\"GET\"]\n\
         [[path]]\naccess = { groups = [\"ops\"] }\nmethods = [\"GET\"]\n",
    );
    assert!(app.trial.is_none() && paths.iter().all(|path| path.trial.is_none()));
}

#[test]
fn what_is_tried_never_lets_pass_what_is_refused_without_it() {
    let users = [
        None,
        Some(bob()),
        Some(User {
            groups: vec!["ops".into()],
            ..bob()
        }),
        Some(User {
            name: "eve".into(),
            ..bob()
        }),
    ];
    let conditions = [
        "groups = [\"staff\"]",
        "groups = [\"ops\"]",
        "users = [\"bob\"]\nmethods = [\"GET\"]",
        "who = \"signed-in\"\nsigned_in_within = \"1m\"",
        "who = \"public\"",
        "who = \"public\"\nnetworks = [\"10.0.0.0/8\"]",
        "any = [{ groups = [\"staff\"] }, { not = { users = [\"eve\"] } }]",
    ];
    let denies = [
        "",
        "\ndeny = { methods = [\"GET\"] }",
        "\ndeny = { not = { methods = [\"GET\"] } }",
    ];
    for app in conditions.iter().map(|one| Some(*one)).chain([None]) {
        for (path, deny) in conditions
            .iter()
            .flat_map(|one| denies.map(|deny| (one, deny)))
        {
            let app = app
                .map(|app| format!("[access]\n{app}\n"))
                .unwrap_or_default();
            let (alone, with) = (
                rules(&format!("{app}[[path]]\n")),
                rules(&format!(
                    "{app}[[path]]\n[path.access]\n{path}{deny}\nreport_only = true\n"
                )),
            );
            let (alone, with) = (&alone.1[0], &with.1[0]);
            for (user, method) in users
                .iter()
                .flat_map(|user| [(user, Method::GET), (user, Method::PUT)])
            {
                let asked = asking(user.as_ref(), &method);
                let (alone, with) = (alone.judge(&asked).1, with.judge(&asked).1);
                // The one difference: who is to be judged signs in.
                let signs_in = user.is_none() && with == Err(Refused::SignedOut);
                assert!(
                    alone == with || signs_in,
                    "{app}{path}{deny}: {alone:?}, {with:?}"
                );
            }
        }
    }
}

#[test]
fn what_is_missing_is_told_to_those_who_are_signed_in_where_the_operator_allows() {
    let told = |text: &str, user: Option<&User>| {
        let rule = rule(&format!("[access]\n{text}\n"));
        match refused(&rule, user, &Method::GET).1 {
            Refused::Denied { missing, .. } | Refused::Method { missing, .. } => missing,
            other @ (Refused::Nobody { .. }
            | Refused::SignedOut
            | Refused::Scope { .. }
            | Refused::Stale(_)
            | Refused::Weak(_)) => panic!("{other:?}"),
        }
    };
    let bob = bob();
    let tell = |text: &str| told(&format!("{text}\ntell_missing = true"), Some(&bob));
    assert_eq!(told("groups = [\"ops\"]", Some(&bob)), [""; 0]);
    assert_eq!(
        tell(
            "groups = [\"ops\", \"wiki-admins\"]\nnetworks = [\"10.0.0.0/8\"]\nproviders = [\"local\"]"
        ),
        [
            "You need to be in one of these groups: ops, wiki-admins",
            "You need to come from one of these networks: 10.0.0.0/8",
        ]
    );
    // People and certificates are not named, and of a deny nobody is told.
    for text in [
        "users = [\"eve\"]",
        "emails = [\"eve@corp.test\"]",
        "groups = [\"staff\"]\nclient_certificates = [\"cn:eve\"]",
        "groups = [\"staff\"]\nany = [{ users = [\"eve\"] }, { not = { users = [\"bob\"] } }]",
    ] {
        let said = tell(text);
        assert_eq!(said.len(), 1, "{text}");
        assert!(
            !said[0].contains("eve") && !said[0].contains("bob"),
            "{said:?}"
        );
    }
    assert_eq!(
        tell("groups = [\"ops\"]\ndeny = { users = [\"bob\"] }"),
        [""; 0]
    );
    let public = "who = \"public\"\nmethods = [\"PUT\"]\ntell_missing = true";
    assert_eq!(told(public, None), [""; 0]);
    assert_eq!(
        told(public, Some(&bob)),
        ["You need to use one of these methods: PUT"]
    );
    assert_eq!(
        tell(
            "groups = [\"staff\"]\nany = [{ groups = [\"a\"], methods = [\"GET\"] }, { not = { paths = { exact = [\"/\"] } } }]"
        ),
        [
            "You need to be in one of these groups: a and use one of these methods: GET, or not ask for one of these paths: = /"
        ]
    );
    let many: Vec<_> = (0..100).map(|n| format!("\"g{n}\"")).collect();
    let said = tell(&format!("groups = [{}]", many.join(", ")));
    assert!(said[0].ends_with("g11, and 88 more"), "{said:?}");
}

#[test]
fn a_path_tells_as_the_application_does_unless_it_says_otherwise() {
    let (app, paths) = rules(
        "[access]\ngroups = [\"a\"]\ntell_missing = true\n[[path]]\naccess = { groups = [\"b\"] }\n[[path]]\naccess = { groups = [\"b\"], tell_missing = false }\n[[path]]\n",
    );
    assert!(
        app.tell_missing
            && paths[0].tell_missing
            && !paths[1].tell_missing
            && paths[2].tell_missing
    );
}

#[test]
fn who_is_told_what_is_missing_gets_it_with_the_answer() {
    let missing = vec!["You need to be in one of these groups: ops".to_owned()];
    let refused = Refused::Denied {
        as_whom: bobs(),
        missing: missing.clone(),
    };
    let as_whom = "bob".into();
    let answer = Answer::Lacking { as_whom, missing };
    assert_eq!(
        Refusal::from(refused),
        Refusal::new(answer, "access.denied")
    );
}
