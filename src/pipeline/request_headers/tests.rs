use proptest::prelude::*;

use super::fuzzing::{facts, reserved, rule, user};
use super::*;
use crate::pure::table::{Problems, Table};

fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut headers = Fields::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[track_caller]
fn rebuilt(rule: &Rule, facts: &Facts<'_>, lines: &[(&str, &str)]) -> Fields {
    let mut headers = fields(lines);
    assert_eq!(rewrite(rule, facts, &mut headers), Ok(()));
    headers
}

/// What a backend gets for `name`, all lines of it, when bob sends `lines`.
#[track_caller]
fn received(lines: &[(&str, &str)], name: &str) -> Vec<String> {
    values(&rebuilt(&rule(), &facts(Some(&user())), lines), name)
}

fn values(headers: &Fields, name: &str) -> Vec<String> {
    let lines = headers.named(name);
    lines
        .map(|line| line.to_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn refused(lines: &[(&str, &str)], expected: Refused) {
    let mut headers = fields(lines);
    assert_eq!(
        rewrite(&rule(), &facts(Some(&user())), &mut headers),
        Err(expected)
    );
}

/// The value a CGI program sees for `HTTP_<name>`: one per spelling that it folds together.
fn cgi(headers: &Fields, name: &str) -> Vec<String> {
    let fold = |name: &str| -> String {
        let sign = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        name.to_ascii_uppercase().chars().map(sign).collect()
    };
    let folded = fold(name);
    let same = headers.iter().filter(|(n, _)| fold(n.as_str()) == folded);
    same.map(|(_, value)| value.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_gateway_names_the_user_and_the_connection() {
    let headers = rebuilt(&rule(), &facts(Some(&user())), &[("Accept", "text/html")]);
    for (name, value) in [
        ("accept", "text/html"),
        ("x-portcullis-user", "bob"),
        ("x-mail", "bob@corp.test"),
        ("x-groups", "staff,a%2Cb"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "wiki.example.com"),
        ("x-forwarded-port", "443"),
        (
            "forwarded",
            "for=192.0.2.1;host=wiki.example.com;proto=https",
        ),
        ("x-request-id", "0123456789abcdef0123456789abcdef"),
        (
            "traceparent",
            "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
        ),
    ] {
        assert_eq!(values(&headers, name), [value], "{name}");
    }
    assert_eq!(headers.len(), 11);
}

#[test]
fn h1_h5_an_underscore_alias_is_refused() {
    for alias in [
        "X_Portcullis_User",
        "X-Portcullis_User",
        "Remote_Groups",
        "X_Groups",
    ] {
        refused(&[(alias, "admin")], Refused::OddName);
    }
}

#[test]
fn h2_an_alias_that_a_policy_allows_is_removed() {
    let headers = rebuilt(
        &rule(),
        &facts(Some(&user())),
        &[("X_Mail", "admin@corp.test")],
    );
    assert_eq!(cgi(&headers, "X-Mail"), ["bob@corp.test"]);
}

#[test]
fn h3_every_alias_by_another_sign_is_refused() {
    for sign in [
        ".", "~", "!", "+", "'", "*", "_", "|", "`", "^", "#", "$", "%", "&",
    ] {
        refused(&[(&format!("X{sign}Groups"), "admins")], Refused::OddName);
    }
}

#[test]
fn h4_a_claim_that_is_missing_does_not_let_the_clients_pass() {
    let nameless = User {
        email: None,
        groups: Vec::new(),
        ..user()
    };
    let spoofed = [("X-Mail", "admin@corp.test"), ("X-Groups", "admins")];
    let headers = rebuilt(&rule(), &facts(Some(&nameless)), &spoofed);
    assert!(cgi(&headers, "X-Mail").is_empty());
    assert!(cgi(&headers, "X-Groups").is_empty());
}

#[test]
fn h6_case_makes_no_other_name() {
    for name in ["x-groups", "X-GROUPS", "x-GrOuPs"] {
        assert_eq!(received(&[(name, "admins")], "x-groups"), ["staff,a%2Cb"]);
    }
}

#[test]
fn h8_nobody_signed_in_means_no_identity() {
    let spoofed = [
        ("X-Portcullis-User", "admin"),
        ("X-User", "admin"),
        ("Remote-User", "admin"),
        ("X-Mail", "admin@corp.test"),
    ];
    let headers = rebuilt(&rule(), &facts(None), &spoofed);
    for (name, _) in spoofed {
        assert!(cgi(&headers, name).is_empty(), "{name}");
    }
}

#[test]
fn h9_authorization_goes_in_every_spelling_of_case() {
    for name in ["authorization", "Authorization", "AUTHORIZATION"] {
        assert!(received(&[(name, "Basic Ym9iOng=")], "authorization").is_empty());
    }
}

#[test]
fn an_authorization_that_signed_nobody_in_is_the_applications() {
    let user = user();
    let facts = Facts {
        authorization_consumed: false,
        ..facts(Some(&user))
    };
    let headers = rebuilt(&rule(), &facts, &[("Authorization", "Bearer abc")]);
    assert_eq!(values(&headers, "authorization"), ["Bearer abc"]);
}

#[test]
fn h10_connection_cannot_name_away_what_the_gateway_sets() {
    let lines = [
        ("Connection", "close, x-portcullis-user, X-Forwarded-For"),
        ("Connection", "X-GROUPS, x-request-id, x-app"),
        ("X-App", "1"),
        ("X-Portcullis-User", "admin"),
    ];
    assert_eq!(received(&lines, "x-portcullis-user"), ["bob"]);
    assert_eq!(received(&lines, "x-groups"), ["staff,a%2Cb"]);
    assert_eq!(received(&lines, "x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(
        received(&lines, "x-request-id"),
        ["0123456789abcdef0123456789abcdef"]
    );
    assert!(received(&lines, "x-app").is_empty());
    assert!(received(&lines, "connection").is_empty());
}

#[test]
fn a_connection_line_that_cannot_be_read_is_refused() {
    refused(&[("Connection", "close, x app")], Refused::BadConnection);
}

#[test]
fn h11_two_lines_of_an_identity_field_are_the_gateways_one() {
    let lines = [("X-Portcullis-User", "a"), ("X-Portcullis-User", "b")];
    assert_eq!(received(&lines, "x-portcullis-user"), ["bob"]);
}

#[test]
fn f2_f3_forwarding_fields_are_rebuilt_or_gone() {
    let lines = [
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Proto", "evil"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-Prefix", "/public"),
        ("X-Forwarded-Server", "evil"),
        ("X-Forwarded-Client-Cert", "By=evil"),
        ("X-Forwarded-User", "admin"),
        ("X-Real-Ip", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
    ];
    let headers = rebuilt(&rule(), &facts(None), &lines);
    let all: Vec<_> = headers
        .iter()
        .map(|(_, value)| value)
        .map(|value| value.to_str().unwrap())
        .collect();
    assert!(
        !all.iter()
            .any(|v| v.contains("evil") || v.contains("10.0.0.1")),
        "{all:?}"
    );
    assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.1"]);
    assert!(!headers.has("x-forwarded-prefix"));
    assert!(!headers.has("x-real-ip"));
    refused(&[("X_Forwarded_Proto", "https")], Refused::OddName);
    refused(&[("X.Forwarded.Host", "trusted")], Refused::OddName);
}

#[test]
fn f7_the_host_is_the_one_that_was_routed() {
    let lines = [("X-Forwarded-Host", "evil.test"), ("Host", "evil.test")];
    assert_eq!(received(&lines, "x-forwarded-host"), ["wiki.example.com"]);
    assert!(received(&lines, "host").is_empty());
}

#[test]
fn f1_p10_a_client_cannot_give_another_path_or_method() {
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Original-Uri",
        "X-Rewrite-Url",
        "X-Forwarded-Uri",
        "X-Middleware-Subrequest",
    ] {
        assert!(received(&[(name, "DELETE")], name).is_empty(), "{name}");
    }
}

#[test]
fn t11_no_credential_of_the_gateway_reaches_a_backend() {
    let lines = [
        ("Cookie", "a=1; __Host-portcullis_session=secret"),
        ("Cookie", "__host-PORTCULLIS_signin=secret; b=2"),
        ("Authorization", "Basic c2VjcmV0"),
    ];
    let headers = rebuilt(&rule(), &facts(Some(&user())), &lines);
    assert_eq!(values(&headers, "cookie"), ["a=1; b=2"]);
    assert!(!headers.has("authorization"));
}

#[test]
fn a_cookie_line_with_nothing_but_ours_goes() {
    let lines = [("Cookie", "__Host-portcullis_session=secret")];
    assert!(received(&lines, "cookie").is_empty());
}

#[test]
fn every_family_is_reserved_in_every_spelling() {
    let is = |name: &str| {
        let reservation = reserved().of(&HeaderName::from_bytes(name.as_bytes()).unwrap());
        reservation.is_own() || reservation.family
    };
    for name in [
        "X-WEBAUTH-USER",
        "x_webauth.user",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Authentik-Username",
        "X-Authenticated-User",
        "X-Auth-Request-Email",
        "X_Auth_Token",
        "Remote-User",
        "Proxy",
        "X-Envoy-Original-Path",
        "X-Accel-Redirect",
        "X-Sendfile",
        "X-SSL-Client-Verify",
        "Tailscale-User-Login",
        "X-Request-Id",
        "X-Elsewhere",
        "X_Elsewhere",
    ] {
        assert!(is(name), "{name}");
    }
    for name in [
        "X-Auth-Token",
        "X-Requested-With",
        "X-CSRF-Token",
        "User-Agent",
        "Accept",
    ] {
        assert!(!is(name), "{name}");
    }
}

#[test]
fn a_policy_can_trust_clients_with_a_family_but_not_with_our_own_names() {
    let name = HeaderName::from_static;
    let trusted = ["x-user-id", "x-groups", "x-forwarded-for", "x-request-id"];
    let rule = Rule {
        trust_client_fields: trusted.map(name).into(),
        ..rule()
    };
    let lines = trusted.map(|name| (name, "client"));
    let headers = rebuilt(&rule, &facts(None), &lines);
    assert_eq!(values(&headers, "x-user-id"), ["client"]);
    assert!(!headers.has("x-groups"));
    assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(
        values(&headers, "x-request-id"),
        ["0123456789abcdef0123456789abcdef"]
    );
}

#[test]
fn an_odd_name_passes_only_if_it_is_listed_exactly() {
    assert_eq!(received(&[("X_Odd_Name", "1")], "x_odd_name"), ["1"]);
    refused(&[("X_Odd-Name", "1")], Refused::OddName);
    refused(&[("X.Odd.Name", "1")], Refused::OddName);
}

#[test]
fn an_identity_that_cannot_be_written_is_an_error_and_not_a_skip() {
    use Unencodable::{Control, Empty};
    let refused = |user: User, why| {
        let refused = rewrite(&rule(), &facts(Some(&user)), &mut Fields::new());
        assert_eq!(refused, Err(Refused::IdentityUnencodable(why)));
    };
    refused(
        User {
            name: "a\r\nX-Admin: 1".into(),
            ..user()
        },
        Control,
    );
    refused(
        User {
            name: "".into(),
            ..user()
        },
        Empty,
    );
    refused(
        User {
            email: Some("".into()),
            ..user()
        },
        Empty,
    );
    refused(
        User {
            groups: vec!["a".into(), "".into()],
            ..user()
        },
        Empty,
    );
    let refusal = Refusal::from(Refused::IdentityUnencodable(Control));
    assert_eq!(refusal.reason, "request_headers.identity_unencodable");
    assert_eq!(refusal.answer, Answer::Internal);
}

#[test]
fn what_is_of_the_connection_or_of_the_framing_is_not_sent_on() {
    let lines = [
        ("Connection", "keep-alive"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic x"),
        ("TE", "gzip"),
        ("Trailer", "X-User"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "5"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "x"),
        ("Host", "evil.test"),
        ("Expect", "100-continue"),
    ];
    let headers = rebuilt(&rule(), &facts(None), &lines);
    for (name, _) in lines {
        assert!(!headers.has(name), "{name}");
    }
}

#[test]
fn a_clients_trace_is_kept_only_where_a_policy_says_so_and_it_is_valid() {
    let theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let ours = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
    let lines = [
        ("traceparent", theirs),
        ("tracestate", "a=1"),
        ("baggage", "user=admin"),
    ];
    let keep = Rule {
        trace: Trace::Keep,
        ..rule()
    };
    let off = Rule {
        trace: Trace::Off,
        ..rule()
    };

    let kept = rebuilt(&keep, &facts(None), &lines);
    assert_eq!(values(&kept, "traceparent"), [theirs]);
    assert_eq!(values(&kept, "tracestate"), ["a=1"]);
    let new = rebuilt(&rule(), &facts(None), &lines);
    assert_eq!(values(&new, "traceparent"), [ours]);
    assert!(!new.has("tracestate") && !new.has("baggage"));
    let none = rebuilt(&off, &facts(None), &lines);
    assert!(lines.iter().all(|(name, _)| !none.has(name)));

    for bad in [
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-00",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-00",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-x",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "",
    ] {
        let headers = rebuilt(
            &keep,
            &facts(None),
            &[("traceparent", bad), ("tracestate", "a=1")],
        );
        assert_eq!(values(&headers, "traceparent"), [ours], "{bad}");
        assert!(!headers.has("tracestate"), "{bad}");
    }
    let twice = [("traceparent", theirs), ("traceparent", theirs)];
    assert_eq!(
        values(&rebuilt(&keep, &facts(None), &twice), "traceparent"),
        [ours]
    );
}

#[test]
fn ipv6_and_ports_are_written_as_rfc_7239_has_it() {
    let facts = Facts {
        client: "2001:db8::1".parse().unwrap(),
        authority: "[2001:db8::2]:8443",
        ..facts(None)
    };
    let headers = rebuilt(&rule(), &facts, &[]);
    let expected = "for=\"[2001:db8::1]\";host=\"[2001:db8::2]:8443\";proto=https";
    assert_eq!(values(&headers, "forwarded"), [expected]);
    assert_eq!(values(&headers, "x-forwarded-for"), ["2001:db8::1"]);
    assert_eq!(values(&headers, "x-forwarded-port"), ["8443"]);
    let portless = Facts {
        authority: "[2001:db8::2]",
        scheme: "http",
        ..facts
    };
    assert_eq!(
        values(&rebuilt(&rule(), &portless, &[]), "x-forwarded-port"),
        ["80"]
    );
}

#[test]
fn trailers_carry_no_identity_and_no_framing() {
    let mut trailers = fields(&[
        ("X-Portcullis-User", "admin"),
        ("X_Groups", "admins"),
        ("X_Mail", "admin@corp.test"),
        ("Authorization", "Basic x"),
        ("Cookie", "a=1"),
        ("Content-Length", "5"),
        ("Host", "evil.test"),
        ("X-Checksum", "abc"),
    ]);
    clean_trailers(&rule(), reserved(), &mut trailers);
    assert_eq!(trailers, fields(&[("X-Checksum", "abc")]));
}

#[test]
fn refusals_have_their_reasons() {
    for (refused, answer, reason) in [
        (
            Refused::OddName,
            Answer::BadRequest,
            "request_headers.odd_name",
        ),
        (
            Refused::BadConnection,
            Answer::BadRequest,
            "request_headers.bad_connection",
        ),
        (
            Refused::BadCookie,
            Answer::BadRequest,
            "request_headers.bad_cookie",
        ),
        (
            Refused::Unwritable,
            Answer::Internal,
            "request_headers.unwritable",
        ),
    ] {
        assert_eq!(Refusal::from(refused), Refusal::new(answer, reason));
    }
}

fn read_policy(text: &str) -> (Rule, Vec<String>) {
    let problems = Problems::default();
    let table = Table::parse("policies/wiki.toml", text, KEYS, &problems).unwrap();
    let rule = read(Some(&table), &Rule::new(FieldNames::default()));
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
fn nothing_said_sends_the_whole_identity_under_our_names() {
    let base = Rule::new(FieldNames::default());
    assert_eq!(read(None, &base), base);
    assert_eq!(read_policy(""), (base, Vec::new()));
}

#[test]
fn every_key_of_a_policy_is_read() {
    let text = r#"
identity = ["user", "assertion"]
user = "X-WEBAUTH-USER"
assertion = "X-Signed"
forwarded = true
trace = "keep"
allow_names = ["X_Odd_Name"]
trust_client_fields = ["X-HTTP-Method-Override"]
"#;
    let name = HeaderName::from_static;
    let names = FieldNames {
        user: name("x-webauth-user"),
        assertion: name("x-signed"),
        ..FieldNames::default()
    };
    let expected = Rule {
        identity: Identity {
            user: true,
            email: false,
            groups: false,
            assertion: true,
        },
        forwarded: true,
        trace: Trace::Keep,
        allow_names: HashSet::from([name("x_odd_name")]),
        trust_client_fields: HashSet::from([name("x-http-method-override")]),
        ..Rule::new(names)
    };
    assert_eq!(read_policy(text), (expected, Vec::new()));
    assert!(!read_policy("identity = []").0.identity.user);
}

#[test]
fn what_would_open_a_hole_is_a_problem() {
    for text in [
        "user = \"X_User\"",
        "user = \"Cookie\"",
        "user = \"Content-Length\"",
        "user = \"X-Forwarded-For\"",
        "user = \"X-Request-Id\"",
        "user = \"X-Portcullis-Groups\"",
        "assertion = \"X-Portcullis-User\"",
        "assertion = \"X_Signed\"",
        "trust_client_fields = [\"X-Portcullis-Assertion\"]",
        "user = \"\"",
        "identity = [\"name\"]",
        "trace = \"yes\"",
        "allow_names = [\"X-Plain\"]",
        "allow_names = [\"Content_Length\"]",
        "allow_names = [\"X_Forwarded_For\"]",
        "allow_names = [\"X Y\"]",
        "trust_client_fields = [\"X-Forwarded-For\"]",
        "trust_client_fields = [\"X-Portcullis-User\"]",
        "trust_client_fields = [\"X-Request-Id\"]",
        "trust_client_fields = [\"Accept\"]",
        "email = \"X-Mail\"\ngroups = \"X-Mail\"\n# twice",
    ] {
        let problems = read_policy(text).1;
        let expected = if text.ends_with("twice") { 2 } else { 1 };
        assert_eq!(problems.len(), expected, "{text}: {problems:?}");
    }
}

#[test]
fn the_gateways_names_are_read() {
    let problems = Problems::default();
    let text = "user = \"Remote-User\"\nrequest_id = \"X-Trace-Id\"\n";
    let table = Table::parse("portcullis.toml", text, GATEWAY_KEYS, &problems).unwrap();
    let name = HeaderName::from_static;
    let expected = FieldNames {
        user: name("remote-user"),
        request_id: name("x-trace-id"),
        ..FieldNames::default()
    };
    assert_eq!(read_names(Some(&table)), expected);
    assert!(problems.is_empty());
}

fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[Xx][-_.]?(Groups|Mail|Signed|Portcullis[-_]User|Forwarded[-_.]For|Request-Id|Odd_Name)",
        "Cookie|Connection|Authorization|TE|Expect|traceparent|Host|Forwarded|Accept",
        "[Xx]-[a-c]{1,2}|Proxy|Remote[-_]User",
    ]
}

fn a_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,3}",
        "(__[Hh]ost-portcullis_session=[a-c]; ?)?a=b",
        "close, (x-groups|x-a|X-Forwarded-For|cookie)",
        "trailers",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_a_client_sends_changes_nothing_of_what_the_gateway_says(
        lines in proptest::collection::vec((a_name(), a_value()), 0..8),
    ) {
        let lines: Vec<_> = lines.iter().map(|(n, v)| format!("{n}:{v}")).collect();
        fuzzing::request_headers(lines.join("\n").as_bytes());
    }
}
