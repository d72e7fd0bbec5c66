//! Pages of other origins: preflights end at the gate, and only listed origins read an answer.

use bytes::Bytes;

use crate::streams::{connect, request, run};
use crate::support::{Answer, Backend, Gate, Setup, ask, get, policy, sign_in};
use crate::tls::Certificates;

const SPA: &str = "https://spa.example.com";
const CORS: &str = "access = \"signed-in\"\n[cors]\norigins = [\"https://spa.example.com\"]\n\
    methods = [\"GET\", \"PUT\"]\nheaders = [\"Content-Type\"]\nexpose = [\"X-Total\"]\ncredentials = true\n";

fn options(gate: &Gate, path: &str, fields: &str) -> Answer {
    ask(
        gate.address(),
        format!("OPTIONS {path} HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n"),
    )
}

fn preflight(gate: &Gate, path: &str, origin: &str, fields: &str) -> Answer {
    let fields = format!("Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n{fields}");
    options(gate, path, &fields)
}

fn from(gate: &Gate, path: &str, origin: &str, fields: &str) -> Answer {
    get(
        gate.address(),
        path,
        &format!("Origin: {origin}\r\n{fields}"),
    )
}

/// The fields that say who may read an answer, as `name: value`.
fn of_cors(answer: &Answer) -> Vec<String> {
    let lines = answer.head.lines().map(str::to_ascii_lowercase);
    let mut lines: Vec<_> = lines
        .filter(|line| line.starts_with("access-control-"))
        .collect();
    lines.sort();
    lines
}

fn varies_by_origin(answer: &Answer) -> bool {
    answer.fields("vary").contains(&"Origin")
}

/// What a listed origin's pages are told, with what they may read.
fn readable(exposed: &str) -> Vec<String> {
    vec![
        "access-control-allow-credentials: true".to_owned(),
        "access-control-allow-origin: https://spa.example.com".to_owned(),
        format!("access-control-expose-headers: {exposed}"),
    ]
}

const OF_REFUSALS: &str = "x-total, www-authenticate, retry-after";

#[test]
fn a_preflight_is_answered_by_the_gate_and_needs_no_sign_in() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), CORS)).start();
    for fields in [
        "",
        "Access-Control-Request-Headers: content-type\r\n",
        "Content-Length: 0\r\n",
    ] {
        let answer = preflight(&gate, "/a", SPA, fields);
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert_eq!(
            of_cors(&answer),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-headers: content-type",
                "access-control-allow-methods: get, put",
                "access-control-allow-origin: https://spa.example.com",
                "access-control-expose-headers: x-total",
                "access-control-max-age: 600",
            ]
        );
        assert!(varies_by_origin(&answer), "{answer:?}");
        assert_eq!(answer.field("content-length"), None);
    }
    assert_eq!(backend.requests(), 0);
    assert_eq!(backend.received(), "");
}

#[test]
fn a_preflight_is_refused_by_what_it_asks_for() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), CORS))
        .gateway("[log]\nformat = \"json\"\n")
        .start();
    let of = |lines: &str| options(&gate, "/", lines);
    let mut skip = gate.log().len();
    for (lines, reason) in [
        (
            "Origin: https://evil.test\r\nAccess-Control-Request-Method: GET\r\n",
            "cors.origin",
        ),
        (
            "Origin: https://spa.example.com.evil.test\r\nAccess-Control-Request-Method: GET\r\n",
            "cors.origin",
        ),
        (
            "Origin: https://spa.example.com.\r\nAccess-Control-Request-Method: GET\r\n",
            "cors.origin",
        ),
        (
            "Origin: https://spa.example.com:8443\r\nAccess-Control-Request-Method: GET\r\n",
            "cors.origin",
        ),
        (
            "Origin: http://spa.example.com\r\nAccess-Control-Request-Method: GET\r\n",
            "cors.origin",
        ),
        (
            "Origin: null\r\nAccess-Control-Request-Method: GET\r\n",
            "cors.origin",
        ),
        (
            "Origin: https://spa.example.com\r\nAccess-Control-Request-Method: DELETE\r\n",
            "cors.method",
        ),
        (
            "Origin: https://spa.example.com\r\nAccess-Control-Request-Method: put\r\n",
            "cors.method",
        ),
        (
            "Origin: https://spa.example.com\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-portcullis-user\r\n",
            "cors.headers",
        ),
    ] {
        let answer = of(lines);
        assert_eq!(answer.status, 403, "{lines}");
        let expected = if reason == "cors.origin" {
            Vec::new()
        } else {
            readable(OF_REFUSALS)
        };
        assert_eq!(of_cors(&answer), expected, "{lines}");
        assert!(varies_by_origin(&answer), "{answer:?}");
        gate.wait_for_line(&format!("\"reason\":\"{reason}\""), skip);
        skip = gate.log().len();
    }
    // Canonically the same origin.
    let answer =
        of("Origin: HTTPS://SPA.example.com:443\r\nAccess-Control-Request-Method: GET\r\n");
    assert_eq!(answer.status, 204);
    // Two origins are no request at all.
    let answer = of(
        "Origin: https://spa.example.com\r\nOrigin: https://spa.example.com\r\nAccess-Control-Request-Method: GET\r\n",
    );
    assert_eq!((answer.status, of_cors(&answer)), (400, Vec::new()));
    assert_eq!(backend.requests(), 0);
}

#[test]
fn any_other_options_needs_a_sign_in_and_then_reaches_the_backend() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), CORS))
        .account("ada")
        .start();
    let session = sign_in(gate.address(), "ada");
    let method = "Access-Control-Request-Method: GET\r\n";
    let spa = format!("Origin: {SPA}\r\n");
    let mut passed = 0;
    for lines in [
        String::new(),
        spa.clone(),
        method.to_owned(),
        format!("{spa}{method}{method}"),
        format!("{spa}{method}Content-Length: 2\r\n"),
    ] {
        let content = if lines.contains("Length") { "{}" } else { "" };
        let of = |more: &str| {
            let text =
                format!("OPTIONS / HTTP/1.1\r\nHost: app.test\r\n{lines}{more}\r\n{content}");
            ask(gate.address(), text)
        };
        let stranger = of("");
        assert_eq!(stranger.status, 401, "{lines}");
        assert_eq!(backend.requests(), passed);
        // No field of a preflight's answer, whoever asks.
        assert_eq!(stranger.field("access-control-allow-methods"), None);
        let ours = of(&format!(
            "Cookie: {session}\r\nX-Portcullis-User: mallory\r\n"
        ));
        assert_eq!(ours.status, 200, "{lines}");
        passed += 1;
        assert_eq!(backend.requests(), passed);
    }
    let received = backend.received().to_ascii_lowercase();
    assert!(!received.contains("mallory"), "{received}");
    assert!(!received.contains("session="), "{received}");
    assert_eq!(received.matches("x-portcullis-user: ada").count(), passed);
}

#[test]
fn without_cors_nothing_changes() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok",
    );
    let rest = "access = \"signed-in\"\n[[path]]\nprefix = \"/open\"\naccess = \"public\"\n";
    let gate = Setup::plain(&policy(&backend.url(), rest)).start();
    let answer = preflight(&gate, "/", SPA, "");
    assert_eq!((answer.status, of_cors(&answer)), (401, Vec::new()));
    assert!(!varies_by_origin(&answer));
    assert_eq!(backend.requests(), 0);
    // The backend's own answer to a preflight, as before.
    let answer = preflight(&gate, "/open", SPA, "");
    assert_eq!(of_cors(&answer), ["access-control-allow-origin: *"]);
    assert!(!varies_by_origin(&answer));
    assert_eq!(backend.requests(), 1);
}

#[test]
fn only_a_listed_origin_reads_an_answer_whatever_the_backend_says() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
         Access-Control-Expose-Headers: X-Inner\r\nAccess-Control-Allow-Private-Network: true\r\n\
         Vary: Accept-Encoding\r\nX-Total: 3\r\nTransfer-Encoding: chunked\r\nTrailer: Access-Control-Allow-Origin\r\n\r\n\
         2\r\nok\r\n0\r\nAccess-Control-Allow-Origin: *\r\n\r\n",
    );
    let gate = Setup::plain(&policy(
        &backend.url(),
        &CORS.replace("signed-in", "public"),
    ))
    .start();
    let answer = from(&gate, "/", SPA, "");
    assert_eq!(of_cors(&answer), readable("x-total"));
    assert_eq!(answer.fields("vary"), ["Accept-Encoding", "Origin"]);
    for origin in [
        "null",
        "https://evil.test",
        "https://spa.example.com.evil.test",
        "https://spa.example.com.",
        "https://spa.example.com:8443",
        "http://app.test",
    ] {
        let answer = from(&gate, "/", origin, "");
        assert_eq!(
            (answer.status, of_cors(&answer)),
            (200, Vec::new()),
            "{origin}"
        );
        assert!(varies_by_origin(&answer), "{answer:?}");
    }
    let answer = get(gate.address(), "/", "");
    assert_eq!((answer.status, of_cors(&answer)), (200, Vec::new()));
    assert!(varies_by_origin(&answer), "{answer:?}");
}

#[test]
fn a_page_reads_every_refusal() {
    let down = "http://127.0.0.1:1";
    let rest = format!(
        "{CORS}[[path]]\nprefix = \"/public\"\naccess = \"public\"\n\
         [[path]]\nprefix = \"/mine\"\naccess = {{ users = [\"nobody\"] }}\n\
         [[path]]\nprefix = \"/far\"\nnetwork = {{ allow = [\"192.0.2.0/24\"] }}\n\
         [[path]]\nprefix = \"/busy\"\nrate = {{ per_client = \"1/h\", burst = 1 }}\naccess = \"public\"\n\
         [[path]]\nprefix = \"/small\"\nlimits = {{ body = \"1\" }}\naccess = \"public\"\n"
    );
    let gate = Setup::plain(&policy(down, &rest)).account("ada").start();
    let session = format!("Cookie: {}\r\n", sign_in(gate.address(), "ada"));
    let xhr = "Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Site: same-site\r\n";
    assert_eq!(from(&gate, "/busy", SPA, "").status, 502);
    for (path, fields, status) in [
        ("/", xhr, 401),
        ("/mine", session.as_str(), 403),
        ("/far", "", 403),
        ("/busy", "", 429),
        ("/public", "", 502),
    ] {
        let answer = from(&gate, path, SPA, fields);
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(of_cors(&answer), readable(OF_REFUSALS), "{path}");
        assert!(varies_by_origin(&answer), "{answer:?}");
        assert_eq!(
            answer.field("content-type"),
            Some("application/problem+json")
        );
        let stranger = from(&gate, path, "https://evil.test", fields);
        assert_eq!((stranger.status, of_cors(&stranger)), (status, Vec::new()));
        assert!(varies_by_origin(&stranger), "{stranger:?}");
    }
    let answer = from(&gate, "/", SPA, xhr);
    let problem: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(problem["sign_in"], "/.portcullis/sign-in");
    assert!(answer.field("www-authenticate").is_some());
    assert!(from(&gate, "/busy", SPA, "").field("retry-after").is_some());
    let large = ask(
        gate.address(),
        format!(
            "POST /small HTTP/1.1\r\nHost: app.test\r\nOrigin: {SPA}\r\nContent-Length: 2\r\n\r\nok"
        ),
    );
    assert_eq!(
        (large.status, of_cors(&large)),
        (413, readable(OF_REFUSALS))
    );
}

#[test]
fn a_preflight_is_counted_and_comes_from_where_others_may() {
    let backend = Backend::ok();
    let rest = format!(
        "{CORS}[[path]]\nprefix = \"/far\"\nnetwork = {{ allow = [\"192.0.2.0/24\"] }}\n\
         [[path]]\nprefix = \"/busy\"\nrate = {{ per_client = \"1/h\", burst = 1 }}\n"
    );
    let gate = Setup::plain(&policy(&backend.url(), &rest)).start();
    assert_eq!(preflight(&gate, "/far", SPA, "").status, 403);
    assert_eq!(preflight(&gate, "/busy", SPA, "").status, 204);
    assert_eq!(preflight(&gate, "/busy", SPA, "").status, 429);
    assert_eq!(backend.requests(), 0);
}

#[test]
fn a_path_has_origins_of_its_own() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok",
    );
    let other = "https://other.example.com";
    let rest = format!(
        "{}[[path]]\nprefix = \"/other\"\ncors = {{ origins = [\"{other}\"] }}\n\
         [[path]]\nprefix = \"/closed\"\ncors = {{ origins = [] }}\nheaders = {{ keep = [\"Access-Control-*\"] }}\n\
         [[path]]\nprefix = \"/inner\"\nheaders = {{ remove = [\"X-A\"] }}\n",
        CORS.replace("signed-in", "public")
    );
    let gate = Setup::plain(&policy(&backend.url(), &rest)).start();
    for (path, origin, expected) in [
        ("/inner", SPA, Some(SPA)),
        ("/inner", other, None),
        ("/other", other, Some(other)),
        ("/other", SPA, None),
        ("/closed", SPA, None),
        ("/closed", other, None),
    ] {
        let answer = from(&gate, path, origin, "");
        let allowed = answer.field("access-control-allow-origin");
        assert_eq!(allowed, expected, "{path} {origin}");
        let status = preflight(&gate, path, origin, "").status;
        // `/other` lets nobody PUT.
        let expected = if path == "/inner" && expected.is_some() {
            204
        } else {
            403
        };
        assert_eq!(status, expected, "{path} {origin}");
    }
    let credentials = from(&gate, "/other", other, "");
    assert_eq!(credentials.field("access-control-allow-credentials"), None);
    assert_eq!(backend.requests(), 7);
}

#[test]
fn no_other_origin_reads_the_gates_own_pages() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), CORS)).start();
    for path in [
        "/.portcullis/sign-in",
        "/.portcullis/jwks.json",
        "/.portcullis/no",
    ] {
        assert_eq!(of_cors(&from(&gate, path, SPA, "")), Vec::<String>::new());
        let answer = preflight(&gate, path, SPA, "");
        assert!(answer.status >= 400, "{answer:?}");
        assert_eq!(of_cors(&answer), Vec::<String>::new());
    }
}

#[test]
fn it_is_the_same_over_http2() {
    let backend = Backend::ok();
    let certificates = Certificates::new();
    let gate = certificates
        .setup(&policy(&backend.url(), CORS), "")
        .start();
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let preflight = |origin: &str| {
            request("OPTIONS", "/")
                .header("origin", origin)
                .header("access-control-request-method", "PUT")
        };
        let allowed = |answer: &crate::streams::Answer| {
            let value = answer.headers.get("access-control-allow-origin");
            value.map(|value| value.to_str().expect("text").to_owned())
        };
        let answer = client.ask(preflight(SPA)).await.expect("an answer");
        assert_eq!(
            (answer.status, allowed(&answer)),
            (204, Some(SPA.to_owned()))
        );
        assert_eq!(answer.headers["access-control-allow-methods"], "GET, PUT");
        let answer = client.ask(preflight("null")).await.expect("an answer");
        assert_eq!((answer.status, allowed(&answer)), (403, None));
        let content = Bytes::from_static(b"{}");
        let answer = client
            .exchange(preflight(SPA), Some((&[content], None)))
            .await;
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status, allowed(&answer)),
            (401, Some(SPA.to_owned()))
        );
        let doubled = preflight(SPA).header("origin", SPA);
        let answer = client.ask(doubled).await.expect("an answer");
        assert_eq!((answer.status, allowed(&answer)), (400, None));
    });
    assert_eq!(backend.requests(), 0);
}
