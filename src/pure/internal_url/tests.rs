use proptest::prelude::*;

use super::*;

const PUBLIC: Public<'_> = Public {
    scheme: "https",
    authority: "wiki.example.com",
};

fn internal() -> Internal {
    Internal::new(
        [
            ("10.0.0.5", Some(8080)),
            ("Wiki-Backend.corp.example.", Some(8443)),
        ],
        ["10.9.9.9", "sso.internal"],
    )
}

#[track_caller]
fn becomes(value: &str, expected: &str) {
    let out = internal().rewrite(value.as_bytes(), Kind::References, &PUBLIC);
    let out = out.unwrap_or_else(|| value.into());
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[track_caller]
fn stays(value: &str) {
    assert_eq!(
        internal().rewrite(value.as_bytes(), Kind::References, &PUBLIC),
        None,
        "{value}"
    );
}

#[track_caller]
fn stays_for(public: &str, value: &str) {
    let public = Public {
        scheme: "https",
        authority: public,
    };
    assert_eq!(
        internal().rewrite(value.as_bytes(), Kind::References, &public),
        None,
        "{value}"
    );
}

#[test]
fn a_backends_origin_becomes_the_clients() {
    becomes(
        "http://10.0.0.5:8080/a?b=c#d",
        "https://wiki.example.com/a?b=c#d",
    );
    becomes("http://10.0.0.5:8080", "https://wiki.example.com");
    becomes(
        "HTTP://WIKI-BACKEND.CORP.EXAMPLE:8443/",
        "https://wiki.example.com/",
    );
    becomes(
        "https://wiki-backend.corp.example/",
        "https://wiki.example.com/",
    );
    becomes("ws://10.0.0.5:8080/s", "wss://wiki.example.com/s");
    becomes("//10.0.0.5:8080/x", "//wiki.example.com/x");
    becomes("ftp://10.0.0.5/x", "ftp://wiki.example.com/x");
}

#[test]
fn private_hosts_become_the_clients_even_if_no_backend_is_called_so() {
    for host in [
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255:9000",
        "192.168.1.1",
        "127.0.0.1:3000",
        "0.0.0.0:3000",
        "169.254.169.254",
        "100.64.0.1",
        "[::1]:3000",
        "[fd12::1]",
        "[fe80::1]",
        "[::ffff:10.0.0.1]",
        "localhost",
        "LocalHost.:8080",
        "app",
        "app:3000",
        "printer.local",
        "db.internal",
        "wiki.default.svc.cluster.local:80",
        "wiki.default.svc",
        "2130706433",
        "0x7f.1",
        "user:secret@10.0.0.9",
        "10%2e0%2e0%2E9",
    ] {
        becomes(&format!("http://{host}/x"), "https://wiki.example.com/x");
        becomes(&format!("//{host}/x"), "//wiki.example.com/x");
    }
}

#[test]
fn other_peoples_origins_stay() {
    for value in [
        "/relative/path",
        "?q=1",
        "",
        "https://example.org/",
        "https://172.32.0.1/",
        "https://192.169.0.1/",
        "https://[2001:db8::1]/",
        "https://internal.example.org/",
        "https://local.example/",
        "https://mylocal/../".trim_end_matches("mylocal/../"),
        "https://10.0.0.5.example.org/",
        "https://sso.internal/login",
        "http://10.9.9.9/",
        "mailto:root@10.0.0.5",
        "/a//10.0.0.5/",
        "file:///etc",
    ] {
        stays(value);
    }
}

#[test]
fn the_clients_own_origin_stays_but_a_backends_port_does_not() {
    stays("https://wiki.example.com/x");
    stays("https://wiki.example.com:443/x");
    stays("https://wiki.example.com:9999/x");
    becomes(
        "http://wiki.example.com:8080/x",
        "https://wiki.example.com/x",
    );
    becomes(
        "https://wiki.example.com:8443/x",
        "https://wiki.example.com/x",
    );
}

#[test]
fn an_application_that_does_not_know_of_tls_causes_no_downgrade() {
    becomes("http://wiki.example.com/x", "https://wiki.example.com/x");
    becomes("ws://wiki.example.com/x", "wss://wiki.example.com/x");
    becomes(
        "http://wiki.example.com:443/x",
        "https://wiki.example.com/x",
    );
}

#[test]
fn the_clients_port_is_kept() {
    let public = Public {
        scheme: "https",
        authority: "localhost:8443",
    };
    let rewritten = |value: &str| {
        let out = internal().rewrite(value.as_bytes(), Kind::References, &public);
        out.map(|out| String::from_utf8(out).unwrap())
    };
    let expected = Some("https://localhost:8443/x".to_owned());
    assert_eq!(rewritten("http://10.0.0.5:8080/x"), expected);
    assert_eq!(rewritten("http://localhost:8080/x"), expected);
    assert_eq!(rewritten("http://localhost/x"), expected);
    assert_eq!(rewritten("https://localhost:8443/x"), None);
}

#[test]
fn in_an_intranet_the_next_application_is_no_leak() {
    stays_for("wiki.corp.internal", "https://sso2.corp.internal/login");
    stays_for("192.168.1.10", "https://192.168.1.11/login");
    stays_for("wiki", "https://sso/login");
    let public = Public {
        scheme: "https",
        authority: "wiki.corp.internal",
    };
    let backend = internal().rewrite(b"http://10.0.0.5:8080/", Kind::Text, &public);
    assert_eq!(backend.unwrap(), b"https://wiki.corp.internal/");
}

#[test]
fn an_encoded_url_in_a_query_is_rewritten_encoded() {
    becomes(
        "https://sso.example.org/a?redirect_uri=http%3A%2F%2F10.0.0.5%3A8080%2Fcb&x=http%3a%2f%2fapp",
        "https://sso.example.org/a?redirect_uri=https%3A%2F%2Fwiki.example.com%2Fcb&x=https%3a%2f%2fwiki.example.com",
    );
    stays("https://sso.example.org/a?redirect_uri=https%3A%2F%2Fwiki.example.com%2Fcb");
}

#[test]
fn every_address_of_a_field_is_rewritten() {
    becomes(
        "<http://10.0.0.5:8080/a>; rel=next, <//app/b>; rel=prev, <https://example.org/c>; rel=up",
        "<https://wiki.example.com/a>; rel=next, <//wiki.example.com/b>; rel=prev, <https://example.org/c>; rel=up",
    );
    becomes(
        "5; url=http://app:3000/x",
        "5; url=https://wiki.example.com/x",
    );
    becomes(
        "0;URL='http://10.0.0.5/'",
        "0;URL='https://wiki.example.com/'",
    );
    becomes(
        "Bearer realm=\"http://app/token\"",
        "Bearer realm=\"https://wiki.example.com/token\"",
    );
}

#[test]
fn a_double_slash_in_text_is_no_host() {
    assert_eq!(
        internal().rewrite(b"//depot/main", Kind::Text, &PUBLIC),
        None
    );
    assert_eq!(
        internal().rewrite(b"vfs://depot/main", Kind::Text, &PUBLIC),
        None
    );
}

#[test]
fn sources_of_a_policy_lose_internal_hosts_without_scheme() {
    let csp = "default-src 'self' https:; connect-src 10.0.0.5:8080 ws://app:3000 *.svc.cluster.local; img-src cdn.example.org data:";
    let expected = "default-src 'self' https:; connect-src wiki.example.com wss://wiki.example.com wiki.example.com; img-src cdn.example.org data:";
    let out = internal()
        .rewrite(csp.as_bytes(), Kind::Sources, &PUBLIC)
        .unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert_eq!(
        internal().rewrite(expected.as_bytes(), Kind::Sources, &PUBLIC),
        None
    );
}

#[test]
fn hosts_of_cookies_are_told_apart() {
    assert!(internal().has_host("10.0.0.5", &PUBLIC));
    assert!(internal().has_host("app.internal", &PUBLIC));
    assert!(!internal().has_host("wiki.example.com", &PUBLIC));
    assert!(!internal().has_host("example.com", &PUBLIC));
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "https?|wss?|ftp|HTTP",
        Just("://".to_owned()),
        Just("//".to_owned()),
        "%3[aA]|%2[fF]%2[fF]|%",
        "10\\.0\\.0\\.5(:8080)?",
        "app|sso\\.internal|localhost|x\\.local|wiki\\.example\\.com(:8080)?",
        "[ ;,<>=\"'/@*.:\\[\\]a-z0-9]",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn rewriting_twice_is_rewriting_once(pieces in proptest::collection::vec(piece(), 0..8)) {
        fuzzing::internal_url(pieces.concat().as_bytes());
    }
}
