use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use super::*;

fn headers(lines: &[(&'static str, &'static [u8])]) -> Fields {
    let mut headers = Fields::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    headers
}

const NAVIGATE: (&str, &[u8]) = ("sec-fetch-mode", b"navigate");

fn ask(method: &Method, lines: &[(&'static str, &'static [u8])]) -> Response<Bytes> {
    let received = Received {
        method,
        target: "/a?b=<i>",
        version: Version::HTTP_11,
        host: "whoami.example.com",
        headers: &headers(lines),
    };
    respond(&received, &[HeaderName::from_static("remote-user")])
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

fn json(response: &Response<Bytes>) -> Value {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

#[test]
fn a_program_sees_every_line_that_an_application_would() {
    let response = ask(
        &Method::POST,
        &[
            ("remote-user", b"ada"),
            ("x-portcullis-groups", b"staff"),
            ("x-forwarded-for", b"192.0.2.1"),
            ("x-a", b"1"),
            ("x-a", b"2"),
            ("x-b", b"\xff"),
        ],
    );
    assert_eq!(
        json(&response),
        json!({
            "method": "POST",
            "target": "/a?b=<i>",
            "version": "HTTP/1.1",
            "host": "whoami.example.com",
            "identity": {"remote-user": ["ada"], "x-portcullis-groups": ["staff"]},
            "headers": {
                "remote-user": ["ada"],
                "x-portcullis-groups": ["staff"],
                "x-forwarded-for": ["192.0.2.1"],
                "x-a": ["1", "2"],
                "x-b": ["\\xff"],
            },
        })
    );
}

#[test]
fn t14_a_person_sees_what_they_sent_as_text() {
    let response = ask(
        &Method::GET,
        &[
            NAVIGATE,
            ("remote-user", b"<b>"),
            ("x-a", b"\"><script>alert(1)</script>"),
        ],
    );
    let html = text(&response);
    assert!(html.contains("/a?b=&lt;i&gt;") && html.contains("&lt;b&gt;"));
    assert!(!html.contains("<script") && !html.contains("<i>"));
    let policy = response.headers()[CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"));
}

#[test]
fn h12_no_secret_is_shown() {
    let lines: &[(_, &[u8])] = &[
        ("authorization", b"Bearer s3cret"),
        ("proxy-authorization", b"s3cret"),
        ("cookie", b"theme=s3cret; session=\"s3cret\"; s3cret"),
        ("x-assertion", b"eyJhbGciOiJ9.s3cret.sig"),
        ("x-portcullis-assertion", b"s3cret"),
        ("x-api-key", b"s3cret"),
        ("x-auth-token", b"s3cret"),
    ];
    for mode in [None, Some(NAVIGATE)] {
        let lines: Vec<_> = lines.iter().copied().chain(mode).collect();
        let response = ask(&Method::GET, &lines);
        assert!(!text(&response).contains("s3cret"), "{}", text(&response));
        assert!(text(&response).contains("Bearer (13 bytes, not shown)"));
        assert!(text(&response).contains("theme=(not shown)"));
    }
}

#[test]
fn h12_another_site_learns_nothing() {
    let fetch = |site: &'static [u8], mode: &'static [u8]| {
        let lines = [
            ("sec-fetch-site", site),
            ("sec-fetch-mode", mode),
            ("remote-user", b"ada"),
        ];
        ask(&Method::GET, &lines)
    };
    for site in [&b"cross-site"[..], b"same-site", b""] {
        for mode in [&b"cors"[..], b"no-cors", b""] {
            let response = fetch(site, mode);
            assert_eq!(response.status(), 403);
            assert!(!text(&response).contains("ada"));
        }
    }
    for (site, mode) in [
        (&b"cross-site"[..], &b"navigate"[..]),
        (b"same-origin", b"cors"),
        (b"none", b"navigate"),
    ] {
        assert_eq!(fetch(site, mode).status(), 200);
    }
}

#[test]
fn who_is_not_signed_in_is_told_so_and_offered_no_way_out() {
    let response = ask(&Method::GET, &[NAVIGATE]);
    assert!(text(&response).contains("nobody is signed in"));
    assert!(!text(&response).contains("<form"));
    let response = ask(&Method::GET, &[NAVIGATE, ("x-portcullis-user", b"ada")]);
    assert!(text(&response).contains("<form method=\"post\" action=\"/.portcullis/sign-out\">"));
}

#[test]
fn head_has_no_content() {
    let response = ask(&Method::HEAD, &[]);
    assert!(response.body().is_empty());
    assert_ne!(response.headers()["content-length"], "0");
}

/// For the eyes: `cargo test pages_for_the_eyes -- --ignored`, then open the files.
#[test]
#[ignore = "writes the page to a directory"]
fn whoami_pages_for_the_eyes() {
    let directory = std::env::temp_dir().join("portcullis-pages");
    std::fs::create_dir_all(&directory).unwrap();
    let lines: &[(_, &[u8])] = &[
        ("accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
        ("accept-language", b"en-GB,en;q=0.9"),
        ("cookie", b"theme=dark"),
        NAVIGATE,
        ("sec-fetch-dest", b"document"),
        ("user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"),
        ("x-forwarded-for", b"192.0.2.17"),
        ("x-forwarded-proto", b"https"),
        ("x-forwarded-host", b"localhost:8443"),
        ("x-request-id", b"00112233445566778899aabbccddeeff"),
        ("traceparent", b"00-00112233445566778899aabbccddeeff-0011223344556677-01"),
    ];
    let signed_in: Vec<_> = lines
        .iter()
        .copied()
        .chain([
            ("x-portcullis-user", &b"ada"[..]),
            ("x-portcullis-email", b"ada@example.com"),
            ("x-portcullis-groups", b"engineering,wiki-admins"),
        ])
        .collect();
    for (name, lines) in [("whoami", &*signed_in), ("whoami-nobody", lines)] {
        let response = ask(&Method::GET, lines);
        std::fs::write(directory.join(format!("{name}.html")), response.body()).unwrap();
    }
}
