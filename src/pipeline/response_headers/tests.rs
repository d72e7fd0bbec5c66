use proptest::prelude::*;

use super::fuzzing::{facts, rule};
use super::*;
use crate::pipeline::request_headers;
use crate::pure::table::Problems;

fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut headers = Fields::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn cleaned_by(rule: &Rule, lines: &[(&str, &str)]) -> Fields {
    let mut headers = fields(lines);
    rewrite(rule, &facts(StatusCode::OK), &mut headers);
    headers
}

fn values(headers: &Fields, name: &str) -> Vec<String> {
    let lines = headers.named(name);
    lines
        .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
        .collect()
}

/// What a client gets for `name` when a backend sends `value`.
fn sent(name: &str, value: &str) -> Vec<String> {
    values(&cleaned_by(&rule(), &[(name, value)]), name)
}

#[track_caller]
fn gone(name: &str, value: &str) {
    assert_eq!(sent(name, value), [""; 0], "{name}: {value}");
}

#[track_caller]
fn becomes(name: &str, value: &str, expected: &str) {
    assert_eq!(sent(name, value), [expected], "{name}: {value}");
}

#[test]
fn every_shipped_name_is_read() {
    let lists = shipped_lists().unwrap();
    for list in [&lists.strip, &lists.keep, &lists.allow, &lists.cookies] {
        assert!(!list.is_empty());
    }
}

#[test]
fn banners_of_every_kind_are_gone() {
    for name in [
        "Server",
        "Via",
        "X-Powered-By",
        "X-AspNet-Version",
        "X-Generator",
        "X-Drupal-Cache",
        "X-Jenkins",
        "X-Amz-Cf-Pop",
        "X-Envoy-Upstream-Service-Time",
        "X-Varnish",
        "X-Runtime",
        "Server-Timing",
        "X-Debug-Token-Link",
        "X-Backend-Server",
        "Alt-Svc",
        "$wsep",
        "l5d-proxy-error",
        "Kbn-Name",
        "X-Kong-Upstream-Latency",
        "CF-Ray",
        "traceparent",
        "X_Powered_By",
        "X.Runtime",
    ] {
        gone(name, "x");
    }
}

#[test]
fn what_clients_need_is_kept() {
    for name in [
        "Docker-Distribution-Api-Version",
        "X-Elastic-Product",
        "X-WP-Total",
        "X-WP-TotalPages",
        "X-Total-Count",
        "X-Inertia",
        "HX-Redirect",
        "OData-Version",
        "Grpc-Status",
        "Sec-WebSocket-Accept",
        "X-Request-Id",
        "X-RateLimit-Limit",
        "X-DNS-Prefetch-Control",
        "X-Csrf-Token",
    ] {
        becomes(name, "x", "x");
    }
}

#[test]
fn a_policy_keeps_and_removes_by_name_and_prefix() {
    let lists = |keep, remove| Rule {
        keep: Names::new([keep]).unwrap(),
        remove: Names::new([remove]).unwrap(),
        ..rule()
    };
    let lines = [
        ("X-Jenkins", "1"),
        ("X-Jenkins-Session", "2"),
        ("X-Own-Id", "3"),
    ];
    let headers = cleaned_by(&lists("X-Jenkins*", "X-Own-*"), &lines);
    assert_eq!(values(&headers, "x-jenkins"), ["1"]);
    assert_eq!(values(&headers, "x-jenkins-session"), ["2"]);
    assert!(!headers.has("x-own-id"));
    let both = cleaned_by(&lists("X-Own-Id", "X-Own-Id"), &lines);
    assert!(!both.has("x-own-id"));
}

#[test]
fn an_allowlist_lets_out_what_is_registered_or_listed_and_nothing_else() {
    let keep = Names::new(["X-Own"]).unwrap();
    let rule = Rule {
        mode: Mode::Allowlist,
        keep,
        ..rule()
    };
    let lines = [
        ("Content-Type", "text/html"),
        ("Access-Control-Allow-Origin", "*"),
        ("ETag", "\"1\""),
        ("X-Elastic-Product", "Elasticsearch"),
        ("X-Own", "1"),
        ("X-Other", "1"),
        ("Server", "nginx"),
    ];
    let headers = cleaned_by(&rule, &lines);
    for (name, _) in &lines[..5] {
        assert!(headers.has(name), "{name}");
    }
    assert!(!headers.has("x-other") && !headers.has("server"));
}

#[test]
fn off_still_keeps_back_what_is_the_gateways() {
    let rule = Rule {
        mode: Mode::Off,
        ..rule()
    };
    let lines = [
        ("Server", "nginx"),
        ("X-Portcullis-User", "admin"),
        ("X-Forwarded-For", "10.0.0.5"),
        ("Connection", "x-hop"),
        ("X-Hop", "1"),
        ("Set-Cookie", "__Host-portcullis_session=x"),
        ("Location", "http://10.0.0.5:8080/"),
    ];
    let headers = cleaned_by(&rule, &lines);
    assert_eq!(values(&headers, "server"), ["nginx"]);
    assert_eq!(values(&headers, "location"), ["https://wiki.example.com/"]);
    for (name, _) in &lines[1..6] {
        assert!(!headers.has(name), "{name}");
    }
}

#[test]
fn identity_is_never_sent_back_whatever_a_policy_keeps() {
    let keep = Names::new(["X-*", "Forwarded"]).unwrap();
    let rule = Rule { keep, ..rule() };
    for name in [
        "X-Portcullis-User",
        "X_Portcullis.User",
        "X-Groups",
        "X_Mail",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "Forwarded",
        "X-Real-Ip",
    ] {
        assert!(!cleaned_by(&rule, &[(name, "x")]).has(name), "{name}");
    }
    assert!(!cleaned_by(&rule, &[("Remote-User", "x")]).has("remote-user"));
}

#[test]
fn a_backend_cannot_set_or_clear_the_gateways_cookies() {
    for line in [
        "__Host-portcullis_session=evil; Secure; Path=/",
        "__Host-portcullis_session=; Max-Age=0",
        "__host-PORTCULLIS_session=evil",
        " __Host-portcullis_session =evil",
        "=__Host-portcullis_session=evil",
        " = __Host-portcullis_session=evil",
        "__Host-portcullis_session",
        "__Host-portcullis_anything=x",
    ] {
        gone("Set-Cookie", line);
    }
    let lines = [
        ("Set-Cookie", "a=1; HttpOnly"),
        ("Set-Cookie", "__Host-portcullis_session=evil"),
        ("Set-Cookie", "b=__Host-portcullis_session; Path=/x"),
    ];
    let kept = values(&cleaned_by(&rule(), &lines), "set-cookie");
    assert_eq!(
        kept,
        ["a=1; HttpOnly", "b=__Host-portcullis_session; Path=/x"]
    );
}

#[test]
fn clear_site_data_loses_what_would_sign_out() {
    gone("Clear-Site-Data", "\"cookies\"");
    gone("Clear-Site-Data", "cookies");
    gone("Clear-Site-Data", "\"Cookies\"");
    becomes(
        "Clear-Site-Data",
        "\"cache\", \"cookies\", \"storage\"",
        "\"cache\", \"storage\"",
    );
    becomes("Clear-Site-Data", "\"*\"", "\"cache\", \"storage\"");
    becomes("Clear-Site-Data", "\"cache\"", "\"cache\"");
}

#[test]
fn addresses_in_known_fields_become_the_clients() {
    becomes(
        "Location",
        "http://10.0.0.5:8080/a?b",
        "https://wiki.example.com/a?b",
    );
    becomes("Location", "//10.0.0.5:8080/a", "//wiki.example.com/a");
    becomes(
        "Location",
        "http://localhost:3000/",
        "https://wiki.example.com/",
    );
    becomes("Location", "/a", "/a");
    becomes("Location", "https://example.org/", "https://example.org/");
    becomes(
        "Content-Location",
        "http://10.0.0.5:8080/x",
        "https://wiki.example.com/x",
    );
    becomes(
        "Refresh",
        "3; url=http://10.0.0.5:8080/",
        "3; url=https://wiki.example.com/",
    );
    becomes(
        "Link",
        "<http://10.0.0.5:8080/p?2>; rel=next",
        "<https://wiki.example.com/p?2>; rel=next",
    );
    becomes(
        "Content-Security-Policy",
        "connect-src 10.0.0.5:8080; report-uri http://10.0.0.5:8080/r",
        "connect-src wiki.example.com; report-uri https://wiki.example.com/r",
    );
    becomes(
        "Access-Control-Allow-Origin",
        "http://10.0.0.5:8080",
        "https://wiki.example.com",
    );
    becomes(
        "WWW-Authenticate",
        "Bearer realm=\"http://10.0.0.5:8080/token\"",
        "Bearer realm=\"https://wiki.example.com/token\"",
    );
    becomes(
        "X-Next",
        "http://10.0.0.5:8080/n",
        "https://wiki.example.com/n",
    );
}

#[test]
fn addresses_stay_where_a_policy_wants_them() {
    let rule = Rule {
        rewrite_addresses: false,
        ..rule()
    };
    let lines = [
        ("Location", "http://10.0.0.5:8080/"),
        ("Set-Cookie", "a=1; Domain=localhost"),
    ];
    let headers = cleaned_by(&rule, &lines);
    assert_eq!(values(&headers, "location"), ["http://10.0.0.5:8080/"]);
    assert_eq!(values(&headers, "set-cookie"), ["a=1; Domain=localhost"]);
}

#[test]
fn a_cookie_for_an_internal_domain_is_for_this_host() {
    becomes(
        "Set-Cookie",
        "a=1; Domain=app.internal; Path=/x; Secure",
        "a=1; Path=/x; Secure",
    );
    becomes("Set-Cookie", "a=1;DOMAIN = .10.0.0.5", "a=1");
    becomes(
        "Set-Cookie",
        "a=1; Domain=example.com",
        "a=1; Domain=example.com",
    );
    becomes(
        "Set-Cookie",
        "a=1; Domain=wiki.example.com",
        "a=1; Domain=wiki.example.com",
    );
    becomes(
        "Set-Cookie",
        "domain=localhost; Path=/",
        "domain=localhost; Path=/",
    );
    becomes(
        "Set-Cookie",
        "u=http://10.0.0.5:8080/; Path=/",
        "u=http://10.0.0.5:8080/; Path=/",
    );
}

#[test]
fn cookies_that_name_a_machine_go_where_a_policy_says_so() {
    let line = (
        "Set-Cookie",
        "BIGipServerpool_wiki=1677787402.36895.0000; path=/",
    );
    assert_eq!(
        values(&cleaned_by(&rule(), &[line]), "set-cookie"),
        [line.1]
    );
    let strict = Rule {
        strip_balancer_cookies: true,
        ..rule()
    };
    let headers = cleaned_by(&strict, &[line, ("Set-Cookie", "PHPSESSID=1")]);
    assert_eq!(values(&headers, "set-cookie"), ["PHPSESSID=1"]);
}

#[test]
fn every_connection_line_names_what_goes() {
    let lines = [
        ("Connection", "close, x-one"),
        ("Connection", "X-Two"),
        ("X-One", "1"),
        ("X-Two", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Upgrade", "h2c"),
    ];
    let headers = cleaned_by(&rule(), &lines);
    assert!(
        lines.iter().all(|(name, _)| !headers.has(name)),
        "{headers:?}"
    );
    let unreadable = cleaned_by(&rule(), &[("Connection", "a b"), ("Keep-Alive", "1")]);
    assert!(!unreadable.has("keep-alive") && !unreadable.has("connection"));
}

#[test]
fn a_backends_error_page_gives_way_to_ours() {
    let lines = [
        ("Content-Type", "text/html"),
        ("Content-Length", "123"),
        ("Content-Encoding", "gzip"),
        ("ETag", "\"1\""),
        ("X-Own", "1"),
        ("Retry-After", "5"),
        ("Set-Cookie", "a=1"),
        ("Access-Control-Allow-Origin", "*"),
    ];
    let mut headers = fields(&lines);
    let status = StatusCode::BAD_GATEWAY;
    assert_eq!(
        rewrite(&rule(), &facts(status), &mut headers),
        Content::Ours
    );
    for (name, _) in &lines[..5] {
        assert!(!headers.has(name), "{name}");
    }
    for (name, _) in &lines[5..] {
        assert!(headers.has(name), "{name}");
    }

    let pass = Rule {
        errors: Errors::Pass,
        ..rule()
    };
    assert_eq!(
        rewrite(&pass, &facts(status), &mut fields(&lines)),
        Content::Backends
    );
    let missing = facts(StatusCode::NOT_FOUND);
    assert_eq!(
        rewrite(&rule(), &missing, &mut fields(&lines)),
        Content::Backends
    );
}

#[test]
fn fields_that_protect_the_browser_are_set_where_there_are_none() {
    let headers = cleaned_by(&rule(), &[]);
    assert_eq!(values(&headers, "x-content-type-options"), ["nosniff"]);
    assert_eq!(
        values(&headers, "referrer-policy"),
        ["strict-origin-when-cross-origin"]
    );
    assert_eq!(values(&headers, "x-frame-options"), ["SAMEORIGIN"]);
    assert_eq!(
        values(&headers, "strict-transport-security"),
        ["max-age=31536000"]
    );
    assert_eq!(headers.len(), 4);

    let own = [
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Strict-Transport-Security", "max-age=1"),
    ];
    let headers = cleaned_by(&rule(), &own);
    for (name, value) in own {
        assert_eq!(values(&headers, name), [value]);
    }
    let framed = [(
        "Content-Security-Policy",
        "default-src 'self'; Frame-Ancestors *",
    )];
    assert!(!cleaned_by(&rule(), &framed).has("x-frame-options"));
    let off = Rule {
        protect: false,
        hsts: None,
        ..rule()
    };
    assert!(cleaned_by(&off, &[]).is_empty());
}

#[test]
fn nothing_is_said_of_tls_over_plain_http() {
    let mut headers = fields(&[("Strict-Transport-Security", "max-age=1")]);
    let public = Public {
        scheme: "http",
        authority: "wiki.example.com",
    };
    let plain = Facts {
        public,
        ..facts(StatusCode::OK)
    };
    rewrite(&rule(), &plain, &mut headers);
    assert!(!headers.has("strict-transport-security"));
}

#[test]
fn an_interim_response_is_cleaned_and_nothing_is_added() {
    let mut headers = fields(&[("Link", "<//10.0.0.5/a.css>; rel=preload"), ("Server", "x")]);
    rewrite(&rule(), &facts(StatusCode::EARLY_HINTS), &mut headers);
    assert_eq!(
        headers,
        fields(&[("Link", "<//wiki.example.com/a.css>; rel=preload")])
    );
}

#[test]
fn a_message_is_cleaned_head_and_content() {
    let message = |status: StatusCode| {
        let response = Response {
            status,
            fields: fields(&[("Server", "nginx")]),
            body: Body::full("stack trace"),
        };
        let reserved = ReservedNames::new([]).unwrap();
        let public = facts(status).public;
        clean_message(&Arc::new(rule()), &Arc::new(reserved), &public, response)
    };
    let (fine, content) = message(StatusCode::OK);
    assert!(!fine.fields.has("server"));
    assert_eq!(content, Content::Backends);
    assert!(matches!(fine.body, Body::Full(_)));
    let (broken, content) = message(StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(content, Content::Ours);
    assert!(matches!(broken.body, Body::Empty));
}

#[test]
fn trailers_pass_the_same_filter() {
    let mut trailers = fields(&[
        ("Server", "nginx"),
        ("X-Portcullis-User", "admin"),
        ("Set-Cookie", "a=1"),
        ("Content-Type", "text/html"),
        ("Grpc-Status", "0"),
        ("Grpc-Message", "see http://10.0.0.5:8080/x"),
    ]);
    clean_trailers(&rule(), &facts(StatusCode::OK), &mut trailers);
    let expected = fields(&[
        ("Grpc-Status", "0"),
        ("Grpc-Message", "see https://wiki.example.com/x"),
    ]);
    assert_eq!(trailers, expected);
}

#[test]
fn where_a_policy_says_who_reads_a_backend_does_not() {
    let lines = [
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Anything-New", "true"),
        ("Vary", "Origin"),
    ];
    let keep = Names::new(["Access-Control-*"]).unwrap();
    for mode in [Mode::Strip, Mode::Allowlist, Mode::Off] {
        for has_cors in [false, true] {
            let rule = Rule {
                mode,
                keep: keep.clone(),
                has_cors,
                ..rule()
            };
            for status in [200, 103, 304, 500] {
                let mut headers = fields(&lines);
                let status = StatusCode::from_u16(status).unwrap();
                rewrite(&rule, &facts(status), &mut headers);
                for (name, _) in &lines[..2] {
                    assert_eq!(headers.has(name), !has_cors, "{mode:?} {status} {name}");
                }
            }
            let mut trailers = fields(&lines);
            clean_trailers(&rule, &facts(StatusCode::OK), &mut trailers);
            assert!(trailers.is_empty());
        }
    }
}

fn read_policy(text: &str) -> (Rule, Vec<String>) {
    let problems = Problems::default();
    let keys = request_headers::KEYS;
    let table = Table::parse("policies/wiki.toml", text, keys, &problems).unwrap();
    let rule = read(Some(&table), &rule());
    (
        rule,
        problems
            .into_sorted()
            .into_iter()
            .map(|p| p.message)
            .collect(),
    )
}

#[test]
fn every_key_of_a_policy_is_read() {
    let (rule, problems) = read_policy(
        r#"
mode = "allowlist"
keep = ["X-Own-*"]
remove = ["X-Own-Secret"]
addresses = "pass"
external = ["sso.internal"]
balancer_cookies = "strip"
errors = "pass"
security_fields = false
"#,
    );
    assert_eq!(problems, [""; 0]);
    assert_eq!((rule.mode, rule.errors), (Mode::Allowlist, Errors::Pass));
    assert!(rule.strip_balancer_cookies && !rule.rewrite_addresses && !rule.protect);
    let lines = [("X-Own-Id", "1"), ("X-Own-Secret", "2"), ("X-Other", "3")];
    let headers = cleaned_by(&rule, &lines);
    assert!(headers.has("x-own-id"));
    assert!(!headers.has("x-own-secret") && !headers.has("x-other"));
    let rewriting = Rule {
        rewrite_addresses: true,
        ..rule
    };
    let lines = [("Location", "https://sso.internal/")];
    assert_eq!(
        values(&cleaned_by(&rewriting, &lines), "location"),
        [lines[0].1]
    );
}

#[test]
fn what_cannot_be_meant_is_a_problem() {
    for text in [
        "mode = \"block\"",
        "keep = [\"*\"]",
        "remove = [\"X Y\"]",
        "addresses = \"strip\"",
        "external = [\"https://sso.internal\"]",
        "balancer_cookies = true",
        "errors = \"off\"",
        "security_fields = \"off\"",
    ] {
        let problems = read_policy(text).1;
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
    }
}

fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "Server|Via|Location|Link|Refresh|Set-Cookie|Clear-Site-Data|Connection|ETag|X-Own",
        "Content-Security-Policy|X[-_]Groups|X-Forwarded-[a-c]|X-Amz-[a-c]|X-WP-Total",
    ]
}

fn a_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,3}",
        "(http|ws|//)?(://)?10\\.0\\.0\\.5(:8080)?/?",
        "\"(cookies|cache|\\*)\"(, ?\"(cookies|storage|\\*)\")?",
        "[= ]{0,2}__[Hh]ost-portcullis_session=x(; ?Domain=(app\\.local|example\\.com))?",
        "a=b; ?[Dd]omain= ?(localhost|example\\.com)(; Path=/)?(; ?domain=10\\.0\\.0\\.5)?",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_a_backend_sends_is_clean_after_once(
        lines in proptest::collection::vec((a_name(), a_value()), 0..8),
    ) {
        let lines: Vec<_> = lines.iter().map(|(n, v)| format!("{n}:{v}")).collect();
        fuzzing::response_headers(lines.join("\n").as_bytes());
    }
}
