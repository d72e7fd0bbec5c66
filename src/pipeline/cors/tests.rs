//! Tests of the stage.

use proptest::prelude::*;

use super::*;
use crate::pipeline::rate;
use crate::pure::table::Problems;
use crate::pure::target::{Authority, Target};

const SPA: &str = "https://spa.example.com";
const METHOD: &str = "access-control-request-method";
const HEADERS: &str = "access-control-request-headers";
/// Two origins, and something of everything.
const RULE: &str = "origins = ['https://spa.example.com', 'http://[::1]:5173']\n\
    methods = ['GET', 'PUT', 'PATCH']\nheaders = ['Content-Type', 'X-Csrf']\n\
    expose = ['X-Total']\ncredentials = true\nmax_age = '1h'\n";

fn problems(text: &str) -> Result<Rule, Vec<(u32, String)>> {
    let problems = Problems::default();
    let table = Table::parse("policies/api.toml", text, KEYS, &problems).unwrap();
    let rule = Rule::read(&table);
    if problems.is_empty() {
        return Ok(rule);
    }
    let shown = problems.into_sorted().into_iter();
    Err(shown
        .map(|problem| (problem.line, problem.message))
        .collect())
}

fn rule(text: &str) -> Rule {
    problems(text).unwrap()
}

fn head(method: &str, lines: &[(&str, &str)]) -> Head {
    let line = |(name, value): &(&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
    Head {
        method: method.parse().unwrap(),
        version: http::Version::HTTP_11,
        authority: Authority::parse(b"api.example.com").unwrap(),
        target: Target::parse(b"/").unwrap(),
        headers: lines.iter().map(line).collect(),
        content: Content::None,
        takes_trailers: false,
        upgrade: None,
        expects_continue: false,
        keeps_alive: true,
    }
}

fn ask(rule: &Rule, head: &Head) -> Result<Option<Response>, Refused> {
    preflight(Some(rule), &rate::testing::permit("192.0.2.1"), head)
}

/// What a preflight with these lines is told; `Ok(false)` where it is none.
fn told(lines: &[(&str, &str)]) -> Result<bool, &'static str> {
    match ask(&rule(RULE), &head("OPTIONS", lines)) {
        Ok(answer) => Ok(answer.is_some()),
        Err(refused) => Err(Refusal::from(refused).reason),
    }
}

fn shown(fields: &Fields) -> Vec<String> {
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    fields.iter().map(line).collect()
}

#[test]
fn a_preflight_learns_what_may_be_asked() {
    let preflight = head("OPTIONS", &[("origin", SPA), (METHOD, "PUT")]);
    let answer = ask(&rule(RULE), &preflight).unwrap().unwrap();
    assert_eq!(answer.status, 204);
    assert_eq!(
        shown(&answer.fields),
        [
            "access-control-allow-methods: GET, PUT, PATCH",
            "access-control-allow-headers: content-type, x-csrf",
            "access-control-max-age: 3600",
        ]
    );
    let preflight = head("OPTIONS", &[("origin", SPA), (METHOD, "POST")]);
    let usual = ask(&rule(&format!("origins = '{SPA}'")), &preflight);
    assert_eq!(
        shown(&usual.unwrap().unwrap().fields),
        [
            "access-control-allow-methods: GET, HEAD, POST",
            "access-control-max-age: 600",
        ]
    );
}

#[test]
fn a_preflight_is_told_no_for_one_of_three_reasons() {
    let get = (METHOD, "GET");
    let spa = ("origin", SPA);
    for (lines, expected) in [
        (&[spa, get][..], Ok(true)),
        (&[("origin", "http://[::1]:5173"), get], Ok(true)),
        (&[("origin", "HTTPS://SPA.example.com:443"), get], Ok(true)),
        (
            &[("origin", "http://spa.example.com"), get],
            Err("cors.origin"),
        ),
        (
            &[("origin", "https://spa.example.com:8443"), get],
            Err("cors.origin"),
        ),
        (
            &[("origin", "https://spa.example.com."), get],
            Err("cors.origin"),
        ),
        (
            &[("origin", "https://spa.example.com.evil.test"), get],
            Err("cors.origin"),
        ),
        (
            &[("origin", "https://evil.test/https://spa.example.com"), get],
            Err("cors.origin"),
        ),
        (
            &[("origin", "https://api.example.com"), get],
            Err("cors.origin"),
        ),
        (&[("origin", "null"), get], Err("cors.origin")),
        (&[("origin", ""), get], Err("cors.origin")),
        // The first of the reasons.
        (&[("origin", "null"), (METHOD, "TRACE")], Err("cors.origin")),
        (&[spa, (METHOD, "DELETE")], Err("cors.method")),
        (&[spa, (METHOD, "patch")], Err("cors.method")),
        (&[spa, (METHOD, "GET, PUT")], Err("cors.method")),
        (&[spa, (METHOD, "")], Err("cors.method")),
        (
            &[spa, (METHOD, "DELETE"), (HEADERS, "x")],
            Err("cors.method"),
        ),
        (&[spa, get, (HEADERS, "content-type,x-csrf")], Ok(true)),
        (
            &[spa, get, (HEADERS, "X-CSRF"), (HEADERS, "Content-Type")],
            Ok(true),
        ),
        (&[spa, get, (HEADERS, "")], Ok(true)),
        (&[spa, get, (HEADERS, "authorization")], Err("cors.headers")),
        (
            &[spa, get, (HEADERS, "content-type, x_csrf")],
            Err("cors.headers"),
        ),
        (
            &[spa, get, (HEADERS, "x-csrf"), (HEADERS, "x-other")],
            Err("cors.headers"),
        ),
        (&[spa, get, (HEADERS, "*")], Err("cors.headers")),
        (&[spa, get, (HEADERS, "\"x-csrf")], Err("cors.headers")),
    ] {
        assert_eq!(told(lines), expected, "{lines:?}");
    }
}

#[test]
fn what_is_no_preflight_goes_on() {
    let (spa, get) = (("origin", SPA), (METHOD, "GET"));
    for lines in [
        &[][..],
        &[spa],
        &[get],
        &[spa, (HEADERS, "x-csrf")],
        &[spa, spa, get],
        &[spa, ("origin", "https://evil.test"), get],
        &[spa, get, get],
        &[spa, get, (METHOD, "DELETE")],
    ] {
        assert_eq!(told(lines), Ok(false), "{lines:?}");
    }
    for method in ["GET", "HEAD", "POST", "PUT"] {
        assert!(
            ask(&rule(RULE), &head(method, &[spa, get]))
                .unwrap()
                .is_none()
        );
    }
    for (content, expected) in [
        (Content::Length(0), true),
        (Content::Length(1), false),
        (Content::Unknown, false),
    ] {
        let preflight = Head {
            content,
            ..head("OPTIONS", &[spa, get])
        };
        let answer = ask(&rule(RULE), &preflight).unwrap();
        assert_eq!(answer.is_some(), expected, "{content:?}");
    }
}

#[test]
fn without_cors_nothing_is_said_and_nothing_answered() {
    let preflight = head("OPTIONS", &[("origin", SPA), (METHOD, "GET")]);
    assert_eq!(readers(None, &preflight), None);
    let permit = rate::testing::permit("192.0.2.1");
    assert!(
        super::preflight(None, &permit, &preflight)
            .unwrap()
            .is_none()
    );
}

#[test]
fn answers_are_for_the_pages_of_one_listed_origin() {
    let rule = rule(RULE);
    let says = |lines: &[(&str, &str)]| {
        let mut fields = Fields::new();
        let readers = readers(Some(&rule), &head("GET", lines));
        readers.unwrap().say(&mut fields, false);
        shown(&fields)
    };
    for origin in [SPA, "http://[::1]:5173"] {
        assert_eq!(
            says(&[("origin", origin)]),
            [
                "vary: Origin",
                &format!("access-control-allow-origin: {origin}"),
                "access-control-allow-credentials: true",
                "access-control-expose-headers: x-total",
            ]
        );
    }
    for lines in [
        &[][..],
        &[("origin", "null")],
        &[("origin", "https://evil.test")],
        &[("origin", "https://spa.example.com.")],
        &[("origin", SPA), ("origin", SPA)],
    ] {
        assert_eq!(says(lines), ["vary: Origin"], "{lines:?}");
    }
    assert_eq!(
        readers(
            Some(&self::rule("origins = []")),
            &head("GET", &[("origin", SPA)])
        ),
        Some(Readers::none())
    );
}

#[test]
fn what_is_no_rule_is_a_problem_in_its_line() {
    let bad_origin =
        "expected one origin such as `https://spa.example.com`, without path, `*` or final dot";
    for (text, line, expected) in [
        (
            "credentials = true",
            1,
            "`origins` is missing: expected the origins of the pages that may ask, such as `[\"https://spa.example.com\"]`".to_owned(),
        ),
        ("origins = [\n'*']", 2, format!("`*` can't be used: {bad_origin}")),
        ("origins = 'null'", 1, format!("`null` can't be used: {bad_origin}")),
        (
            "origins = 'https://*.example.com'",
            1,
            format!("`https://*.example.com` can't be used: {bad_origin}"),
        ),
        (
            "origins = 'https://spa.example.com/'",
            1,
            format!("`https://spa.example.com/` can't be used: {bad_origin}"),
        ),
        (
            "origins = []\nmethods = ['put']",
            2,
            "`put` can't be used: expected a method in capitals, such as `PUT`".to_owned(),
        ),
        (
            "origins = []\nmethods = ['*']",
            2,
            "`*` can't be used: expected a method in capitals, such as `PUT`".to_owned(),
        ),
        (
            "origins = []\n\nheaders = ['*']",
            3,
            "`*` can't be used: expected the whole name of a field, such as `X-Total-Count`".to_owned(),
        ),
        (
            "origins = []\nexpose = ['X-*']",
            2,
            "`X-*` can't be used: expected the whole name of a field, such as `X-Total-Count`".to_owned(),
        ),
        (
            "origins = []\nmax_age = '25h'",
            2,
            "`25h` can't be used: a duration of at most `1d`".to_owned(),
        ),
        (
            "origins = []\ncredentials = 'yes'",
            2,
            "`credentials` is a string, expected true or false".to_owned(),
        ),
    ] {
        assert_eq!(problems(text), Err(vec![(line, expected)]), "{text}");
    }
}

proptest! {
    /// However an origin is written, its pages read an answer only where it is one of the list.
    #[test]
    fn an_origin_is_listed_or_reads_nothing(
        start in "(https?://|HTTPS://|//)?",
        host in "(spa|sp|xspa|spa\\.example\\.com)(\\.example\\.com)?[.]?(\\.evil\\.test)?",
        end in "(:443|:80|:8443|/|@evil\\.test| https://spa\\.example\\.com)?",
    ) {
        let origin = format!("{start}{host}{end}");
        let listed = rule("origins = 'https://spa.example.com'");
        let may = readers(Some(&listed), &head("GET", &[("origin", &origin)])) != Some(Readers::none());
        let is_ours = origin.to_ascii_lowercase().trim_end_matches(":443") == SPA;
        prop_assert_eq!(may, is_ours, "{}", origin);
    }
}
