//! Whole configurations: what is shipped, what is inherited, and what is refused in which words.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use super::*;
use crate::explain::{self, Outcome, Question};
use crate::pure::identity::User;

/// A gateway for tests of policies.
pub(super) const GATEWAY: &str = "[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n";

/// Reads a configuration; its problems as they are shown when there are any.
pub(super) fn read(
    gateway: &str,
    policies: &[(&str, &str)],
    tests: &[(&str, &str)],
) -> Result<Config, String> {
    let owned = |files: &[(&str, &str)]| {
        let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        files.iter().map(own).collect()
    };
    let files = Files {
        gateway: gateway.to_owned(),
        policies: owned(policies),
        tests: owned(tests),
        load: &load,
    };
    let problems = Problems::default();
    let config = super::read(&files, &problems);
    let shown: String = problems
        .into_sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(config.is_some(), shown.is_empty(), "{shown}");
    config.ok_or(shown)
}

/// Files that examples name.
fn load(file: &str) -> Result<String, String> {
    match file {
        "certs/internal-ca.pem" => {
            let names = ["ca.test".to_owned()];
            Ok(rcgen::generate_simple_self_signed(names)
                .unwrap()
                .cert
                .pem())
        }
        "networks/abuse.txt" => Ok("192.0.2.0/24 # abuse\n".to_owned()),
        _ => Err(format!("there is no `{file}`")),
    }
}

/// The expectations that do not hold, and how.
pub(super) fn broken(config: &Config) -> Vec<String> {
    let at = |one: &Expectation| {
        let broken = one.broken_by(&config.routes, Instant::now(), SystemTime::now())?;
        Some(format!("{}: {broken}", one.name))
    };
    config.expectations.iter().filter_map(at).collect()
}

/// The first lines of the problems of a configuration.
#[track_caller]
fn heads(gateway: &str, policies: &[(&str, &str)], tests: &[(&str, &str)]) -> Vec<String> {
    let Err(shown) = read(gateway, policies, tests) else {
        panic!("it can be used")
    };
    let heads = shown.lines().filter(|line| !line.starts_with(' '));
    heads.map(str::to_owned).collect()
}

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The TOML files of a directory of ours.
fn toml_files(directory: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(shipped(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = policy_name(&path)?;
            Some((name, std::fs::read_to_string(&path).unwrap()))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{directory}");
    files
}

fn shipped_gateway() -> String {
    std::fs::read_to_string(shipped("portcullis.toml")).unwrap()
}

#[test]
fn the_shipped_configuration_can_be_used_and_says_what_is_expected() {
    let borrow = |files: &[(String, String)]| -> Vec<(String, String)> { files.to_vec() };
    let (policies, tests) = (toml_files("policies"), toml_files("policies/tests"));
    let files = Files {
        gateway: shipped_gateway(),
        policies: borrow(&policies),
        tests: borrow(&tests),
        load: &|file| Err(format!("`{file}` is not shipped")),
    };
    let problems = Problems::default();
    let config = super::read(&files, &problems);
    assert_eq!(problems.into_sorted(), []);
    let config = config.unwrap();
    assert!(config.expectations.len() >= 2);
    assert_eq!(broken(&config), Vec::<String>::new());
    assert!(config.gateway.tls.development);
    for address in config
        .gateway
        .listeners
        .iter()
        .flat_map(|one| &one.addresses)
    {
        assert!(address.ip().is_loopback(), "{address}");
    }
}

/// What an example says belongs into `portcullis.toml`: the indented lines of its first comment.
fn asked_of_gateway(example: &str) -> String {
    let comment = example.lines().take_while(|line| line.starts_with('#'));
    let lines = comment.filter_map(|line| line.strip_prefix("#     "));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn every_example_can_be_used_and_says_what_is_expected() {
    let tests = toml_files("policies/examples/tests");
    for (name, text) in toml_files("policies/examples") {
        let gateway = shipped_gateway() + "\n" + &asked_of_gateway(&text);
        let of_example = tests.iter().find(|(of, _)| *of == name);
        let (_, expected) = of_example.unwrap_or_else(|| panic!("nothing is expected of {name}"));
        let config = read(&gateway, &[(&name, &text)], &[(&name, expected)]);
        let config = config.unwrap_or_else(|shown| panic!("{name}\n{shown}"));
        assert!(!config.expectations.is_empty());
        assert_eq!(broken(&config), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn what_an_example_has_in_comments_can_be_used_too() {
    let text = std::fs::read_to_string(shipped("policies/examples/admin-area.toml")).unwrap();
    let text = text.replace("# [target]", "[target]");
    let text = text
        .replace("# ignore_case ", "ignore_case ")
        .replace("# merge_", "merge_");
    let config = read(GATEWAY, &[("shop", &text)], &[]).unwrap();
    assert!(config.routes.apps()[0].ignores_case);
}

#[test]
fn every_prefix_of_a_shipped_file_is_valid_or_has_a_problem_with_a_place() {
    fuzzing::gateway_config(shipped_gateway().as_bytes());
    for (end, _) in shipped_gateway().char_indices() {
        fuzzing::gateway_config(&shipped_gateway().as_bytes()[..end]);
    }
    for (_, text) in toml_files("policies/examples") {
        for (end, _) in text.char_indices().step_by(3) {
            fuzzing::policy(&text.as_bytes()[..end]);
        }
    }
}

fn outcome(config: &Config, url: &str, user: Option<(&str, &[&str])>) -> Outcome {
    let (tls, authority, target) = explain::url(url).unwrap();
    let user = user.map(|(name, groups)| {
        Arc::new(User {
            name: name.into(),
            provider: "local".into(),
            email: None,
            groups: groups.iter().map(|group| Arc::from(*group)).collect(),
            claims: Arc::default(),
            signed_in_at: SystemTime::now(),
        })
    });
    let question = Question {
        tls,
        authority,
        target,
        method: http::Method::GET,
        from: [192, 0, 2, 1].into(),
        client_certificate: None,
        user,
    };
    explain::explain(&config.routes, &question, Instant::now(), SystemTime::now()).1
}

#[test]
fn an_application_without_access_lets_nobody_pass() {
    let text = "host = \"a.test\"\nbackends = [\"whoami\"]\n[[path]]\nprefix = \"/x\"\n";
    let config = read(GATEWAY, &[("a", text)], &[]).unwrap();
    for url in ["https://a.test/", "https://a.test/x"] {
        assert_eq!(outcome(&config, url, None), Outcome::SignIn);
        assert_eq!(
            outcome(&config, url, Some(("ada", &["staff"]))),
            Outcome::Refuse("access.nobody")
        );
    }
}

#[test]
fn a_path_says_what_differs_and_has_the_rest_of_its_application() {
    let text = "host = \"a.test\"\nbackends = [\"whoami\"]\naccess = \"signed-in\"\n\
        [network]\nallow = [\"192.0.2.0/24\"]\n[limits]\nbody = \"1KiB\"\n\
        [[path]]\nprefix = \"/open\"\naccess = \"public\"\n\
        [[path]]\nprefix = \"/open/office\"\nnetwork = { allow = [\"10.0.0.0/8\"] }\n\
        [[path]]\nexact = \"/upload\"\nlimits = { body = \"1GiB\" }\n";
    let config = read(GATEWAY, &[("a", text)], &[]).unwrap();
    let ada = Some(("ada", &[][..]));
    for (url, user, expected) in [
        ("https://a.test/", None, Outcome::SignIn),
        ("https://a.test/", ada, Outcome::Allow),
        ("https://a.test/open/a", None, Outcome::Allow),
        ("https://a.test/opener", None, Outcome::SignIn),
        (
            "https://a.test/open/office",
            ada,
            Outcome::Refuse("network.not_allowed"),
        ),
        (
            "https://b.test/",
            ada,
            Outcome::Refuse("route.unknown_host"),
        ),
    ] {
        assert_eq!(outcome(&config, url, user), expected, "{url}");
    }
    let app = &config.routes.apps()[0];
    let most = |rules: &Rules| rules.backends.most_content_bytes;
    let of_paths: Vec<_> = app.paths.iter().map(|(_, rules)| most(rules)).collect();
    assert_eq!(
        (most(&app.rules), of_paths),
        (1024, vec![1024, 1024, 1 << 30])
    );
}

#[test]
fn a_path_can_name_what_the_application_lets_through() {
    let policy = |lift: &str| {
        format!(
            "host = \"a.test\"\nbackends = [\"whoami\"]\naccess = \"signed-in\"\n{lift}\
             [[path]]\nprefix = \"/group%2fapp\"\naccess = \"public\"\n"
        )
    };
    let lifted = policy("[target]\nallow_encoded_slash = true\n");
    let config = read(GATEWAY, &[("a", &lifted)], &[]).unwrap();
    assert_eq!(
        outcome(&config, "https://a.test/group%2Fapp/x", None),
        Outcome::Allow
    );
    assert_eq!(
        outcome(&config, "https://a.test/group/app/x", None),
        Outcome::SignIn
    );
    assert_eq!(
        heads(GATEWAY, &[("a", &policy(""))], &[]),
        [
            "policies/a.toml:5:10: `/group%2fapp` can't be used: no request has such a path (`route.encoded_slash`)"
        ]
    );
}

#[test]
fn problems_of_all_files_are_shown_at_once() {
    let a = "host = \"a.test\"\nbackends = [\"ftp://a\"]\n[sign_in]\nwith = [\"lokal\"]\n[acess]\n";
    let b = "host = \"A.test\"\nbackends = []\n[[path]]\nprefix = \"x\"\n[[path]]\n";
    let test = "[[test]]\nurl = \"https://a.test/\"\nexpect = \"deny\"\ngroups = [\"a\"]\n";
    assert_eq!(
        heads(
            "[limits]\nbody = 1\n",
            &[("a", a), ("b", b)],
            &[("a", test)]
        ),
        [
            "policies/a.toml:2:13: `ftp://a` can't be used: expected `http://host:port`, `https://host:port`, `unix:/path` or `whoami`",
            "policies/a.toml:4:9: `lokal` can't be used: no method has this name; did you mean `local`?",
            "policies/a.toml:5:2: unknown key `acess`",
            "policies/b.toml:1:8: `a.test` belongs to `policies/a.toml`, line 1, already",
            "policies/b.toml:2:12: there is nowhere to send requests to",
            "policies/b.toml:4:10: `x` can't be used: expected a path that begins with `/`, of visible ASCII",
            "policies/b.toml:5:1: `prefix` is missing: expected the path that the rules are about, such as `/admin`",
            "policies/tests/a.toml:3:10: `deny` can't be used: expected one of `allow`, `sign-in`, `refuse`, `route.unknown_host`, `network.denied`, `network.not_allowed`, `access.nobody`, `access.signed_out`, `access.denied`, `access.method`, `access.scope`, `route.encoded_slash`, `route.backslash`, `route.control_byte`, `route.encoded_hash`, `route.dot_segment`, `route.invalid_encoding`, `route.double_encoding`, `route.not_utf8`, `route.parameter`, `route.empty_segment`, `route.hidden_dot_segment`",
            "policies/tests/a.toml:4:10: `groups` is of a `user`, and there is none",
            "portcullis.toml:1:1: `listen` is missing: expected at least one `[[listen]]` with an `address`",
            "portcullis.toml:2:1: unknown key `body`",
        ]
    );
}

#[test]
fn what_is_no_toml_is_shown_of_every_file() {
    let bad = [("a", "host = \n"), ("b", "x = 1\n")];
    assert_eq!(
        heads("[[listen\n", &bad, &[("c", "[[test]]\nurl =\n")])
            .iter()
            .map(|head| head.split(':').next().unwrap())
            .collect::<Vec<_>>(),
        [
            "policies/a.toml",
            "policies/b.toml",
            "policies/tests/c.toml",
            "portcullis.toml"
        ]
    );
}

#[test]
fn a_method_that_can_not_be_used_is_no_problem_of_the_policies_that_name_it() {
    let gateway = format!("{GATEWAY}[provider.ci]\nkind = \"oauth\"\n");
    let policy = "host = \"a.test\"\nbackends = [\"whoami\"]\n[sign_in]\nwith = [\"ci\"]\n";
    assert_eq!(
        heads(&gateway, &[("a", policy)], &[]),
        [
            "portcullis.toml:5:8: `oauth` can't be used: `oidc`, `github`, `jwt`, `introspection` or `basic`"
        ]
    );
}

#[track_caller]
fn one_problem(policy: &str, expected: &str) {
    let text = format!("host = \"a.test\"\n{policy}");
    assert_eq!(heads(GATEWAY, &[("a", &text)], &[]), [expected]);
}

#[test]
fn what_two_rules_would_decide_is_refused() {
    one_problem(
        "backends = [\"whoami\"]\n[[path]]\nprefix = \"/a\"\n[[path]]\nexact = \"/a\"\n[[path]]\nprefix = \"/%61\"\n",
        "policies/a.toml:8:10: the `[[path]]` in line 3 has this path already",
    );
    one_problem(
        "backends = [\"whoami\"]\n[target]\nignore_case = true\n[[path]]\nexact = \"/a\"\n[[path]]\nexact = \"/A\"\n",
        "policies/a.toml:8:9: the `[[path]]` in line 5 has this path already",
    );
    let twice = "host = [\"a.test\", \"A.test.\"]\nbackends = [\"whoami\"]\n";
    assert_eq!(
        heads(GATEWAY, &[("a", twice)], &[]),
        ["policies/a.toml:1:8: `a.test` is in this list twice"]
    );
}

#[test]
fn origins_that_are_more_than_one_are_refused() {
    let expected = "can't be used: expected one origin such as `https://spa.example.com`, without path, `*` or final dot";
    one_problem(
        "backends = [\"whoami\"]\n[cors]\norigins = [\"*\"]\n",
        &format!("policies/a.toml:4:12: `*` {expected}"),
    );
    one_problem(
        "backends = [\"whoami\"]\n[[path]]\nprefix = \"/a\"\ncors = { origins = \"https://*.example.com\" }\n",
        &format!("policies/a.toml:5:20: `https://*.example.com` {expected}"),
    );
    one_problem(
        "backends = [\"whoami\"]\n[cors]\norigin = []\norigins = []\n",
        "policies/a.toml:4:1: unknown key `origin`",
    );
}

#[test]
fn tls_of_backends_without_tls_is_refused() {
    one_problem(
        "backends = [\"http://10.0.0.5\"]\n[backend]\nca = \"certs/internal-ca.pem\"\n",
        "policies/a.toml:4:6: `ca` is for `https://` backends, and there is none",
    );
    one_problem(
        "backends = [\"https://10.0.0.5\"]\n[backend]\nca = \"no.pem\"\n",
        "policies/a.toml:4:6: there is no `no.pem`",
    );
    one_problem(
        "backends = [\"https://10.0.0.5\"]\n[backend]\nca = \"certs/internal-ca.pem\"\nkey = '''-----BEGIN'''\n",
        "policies/a.toml:5:1: `key` is the path of a file, not what the file holds",
    );
}

#[test]
fn a_list_with_nothing_in_it_is_refused_whatever_else_is_wrong() {
    let text = "host = []\nbackends = []\n";
    assert_eq!(
        heads(GATEWAY, &[("a", text)], &[]),
        [
            "policies/a.toml:1:8: an application without a host can't be reached",
            "policies/a.toml:2:12: there is nowhere to send requests to",
        ]
    );
}

#[test]
fn expectations_are_held_to_words_and_methods_that_there_are() {
    let policy = "host = \"a.test\"\nbackends = [\"whoami\"]\naccess = \"signed-in\"\n";
    let test = "[[test]]\nurl = \"https://a.test/\"\nexpect = \"alow\"\nuser = \"a\"\nprovider = \"locla\"\n\
        [[test]]\nurl = \"a.test\"\nexpect = \"rate.per_client\"\n[[test]]\n";
    let heads = heads(GATEWAY, &[("a", policy)], &[("a", test)]);
    let starts = [
        "policies/tests/a.toml:3:10: `alow` can't be used: did you mean `allow`?",
        "policies/tests/a.toml:5:12: `locla` can't be used: no method has this name; did you mean `local`?",
        "policies/tests/a.toml:7:7: `a.test` can't be used: expected a URL",
        "policies/tests/a.toml:8:10: `rate.per_client` can't be used: expected one of",
        "policies/tests/a.toml:9:1: `url` is missing",
        "policies/tests/a.toml:9:1: `expect` is missing",
    ];
    assert_eq!(heads.len(), starts.len(), "{heads:#?}");
    for (head, start) in heads.iter().zip(starts) {
        assert!(head.starts_with(start), "{head}");
    }
}

#[test]
fn an_expectation_that_does_not_hold_says_what_came_instead() {
    let policy = "host = \"a.test\"\nbackends = [\"whoami\"]\naccess = \"signed-in\"\n";
    let test = "[[test]]\nname = \"x\"\nurl = \"https://a.test/\"\nexpect = \"allow\"\n";
    let config = read(GATEWAY, &[("a", policy)], &[("a", test)]).unwrap();
    assert_eq!(
        broken(&config),
        ["x: expected `allow`, got `sign-in` (sign_in.no_credential: nobody is signed in)"]
    );
}

#[test]
fn what_somebody_lacks_is_named_in_the_words_of_the_policy() {
    let policy =
        "host = \"a.test\"\nbackends = [\"whoami\"]\naccess = { groups = [\"admins\", \"ops\"] }\n";
    let test =
        "[[test]]\nname = \"x\"\nurl = \"https://a.test/\"\nuser = \"ada\"\nexpect = \"allow\"\n";
    let config = read(GATEWAY, &[("a", policy)], &[("a", test)]).unwrap();
    assert_eq!(
        broken(&config),
        ["x: expected `allow`, got `access.denied` (access.denied: needs group `admins` or `ops`)"]
    );
}

#[test]
fn expectations_say_what_is_known_of_a_request_and_what_is_tried() {
    let policy = "host = \"a.test\"\nbackends = [\"whoami\"]\n[access]\nclaims = { \"realm.roles\" = [\"a\"] }\n\
        client_certificates = [\"cn:ada\"]\nsigned_in_within = \"1h\"\nreport_only = true\n";
    let ask = |rest: &str| {
        let test = format!(
            "[[test]]\nname = \"x\"\nurl = \"https://a.test/\"\nexpect = \"allow\"\nuser = \"ada\"\n{rest}\n"
        );
        broken(&read(GATEWAY, &[("a", policy)], &[("a", &test)]).unwrap())
    };
    let known =
        "claims = { \"realm.roles\" = [\"b\", \"a\"] }\nclient_certificate = [\"cn:ada\"]\n";
    assert_eq!(ask("would_refuse = \"access.denied\""), [""; 0]);
    assert_eq!(ask(&format!("{known}would_refuse = \"nothing\"")), [""; 0]);
    let stale = "signed_in_ago = \"2h\"\nwould_refuse = \"access.stale_sign_in\"";
    assert_eq!(ask(&format!("{known}{stale}")), [""; 0]);
    assert_eq!(ask(&format!("{known}signed_in_ago = \"2h\"")), [""; 0]);
    assert_eq!(
        ask(&format!("{known}would_refuse = \"access.denied\"")),
        ["x: expected `access.denied` of what is `report_only`, got `nothing`"]
    );
    let test = "[[test]]\nurl = \"http://a.test/\"\nexpect = \"allow\"\nclaims = { a = [\"b\"] }\n\
        client_certificate = [\"cn:ada\"]\nwould_refuse = \"network.denied\"\n";
    assert_eq!(
        heads(GATEWAY, &[("a", policy)], &[("a", test)]),
        [
            "policies/tests/a.toml:4:10: `claims` is of a `user`, and there is none",
            "policies/tests/a.toml:5:22: a certificate is shown under TLS, and the URL is `http`",
            "policies/tests/a.toml:6:16: `network.denied` can't be used: expected a reason such as `access.denied`, or `nothing`",
        ]
    );
}

#[test]
fn a_part_of_access_follows_what_the_application_says_of_paths() {
    let policy = "host = \"a.test\"\nbackends = [\"whoami\"]\n[target]\nignore_case = true\nallow_encoded_slash = true\n\
        [access]\nwho = \"signed-in\"\nnot = { paths = { prefix = [\"/admin\"], exact = [\"/a%2fb\"] } }\n";
    let config = read(GATEWAY, &[("a", policy)], &[]).unwrap();
    for (path, expected) in [
        ("/", Outcome::Allow),
        ("/ADM%C4%B1N/x", Outcome::Refuse("access.denied")),
        ("/A%2FB", Outcome::Refuse("access.denied")),
    ] {
        let url = format!("https://a.test{path}");
        assert_eq!(
            outcome(&config, &url, Some(("ada", &[]))),
            expected,
            "{path}"
        );
    }
    one_problem(
        "backends = [\"whoami\"]\n[access]\nwho = \"signed-in\"\nnot = { paths = { exact = [\"/a%2fb\"] } }\n",
        "policies/a.toml:5:28: `/a%2fb` can't be used: no request has such a path (`route.encoded_slash`)",
    );
}

#[test]
fn the_name_of_a_policy_is_its_files() {
    for (path, name) in [
        ("policies/wiki.toml", Some("wiki")),
        ("policies/.wiki.toml", None),
        ("policies/.toml", None),
        ("policies/wiki.toml~", None),
        ("policies/examples", None),
    ] {
        assert_eq!(policy_name(Path::new(path)).as_deref(), name);
    }
}

/// Every prefix, down to the byte, of what is shipped.
#[test]
fn every_prefix_of_a_shipped_file_is_valid_or_has_problems_with_a_place() {
    let shipped = |file: &str| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::read(root.join(file)).expect("a shipped file")
    };
    let (gateway, whoami) = (shipped("portcullis.toml"), shipped("policies/whoami.toml"));
    for end in 0..=gateway.len() {
        fuzzing::gateway_config(&gateway[..end]);
    }
    for end in 0..=whoami.len() {
        fuzzing::policy(&whoami[..end]);
    }
}
