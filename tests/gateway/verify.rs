//! Beside another proxy, which asks and forwards by itself: what it is told, and what nobody is.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use rustls::{ClientConnection, StreamOwned};

use crate::support::{
    Answer, Backend, Client, Gate, PASSWORD, Setup, ask, basic, get, policy, portcullis, replace,
    sign_in, sign_out,
};
use crate::tls::{Certificates, Person, server};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const RULES: &str = "access = \"signed-in\"
[sign_in]
with = [\"local\", \"basic\"]
[target]
resolve_dot_segments = true
merge_slashes = true
allow_invalid_encoding = true
[[path]]
prefix = \"/public\"
access = \"public\"
[[path]]
prefix = \"/admin\"
access = { groups = [\"admins\"] }
[[path]]
prefix = \"/office\"
access = \"public\"
network = { allow = [\"192.0.2.0/24\"] }
[[path]]
prefix = \"/seldom\"
access = \"public\"
rate = { per_client = \"1/h\", burst = 1 }";

/// The styles, each with how it tells of one request.
const STYLES: [&str; 3] = ["x-original", "x-forwarded", "envoy"];

fn setup(style: &str, callers: &str) -> Setup {
    Setup::plain(&policy(&Backend::ok().url(), RULES))
        .gateway(&format!(
            "[verify]\naddress = \"127.0.0.1:0\"\ntls = false\nstyle = \"{style}\"\n{callers}\n"
        ))
        .file("key", KEY)
        .account("ada")
}

fn open(style: &str) -> Gate {
    setup(style, "key = { file = \"key\" }").start()
}

/// Path and field lines by which a proxy tells of a request.
fn told(style: &str, method: &str, target: &str) -> (String, Vec<(&'static str, String)>) {
    let client = ("X-Forwarded-For", "192.0.2.1".to_owned());
    let key = ("X-Portcullis-Key", KEY.to_owned());
    let https = ("X-Forwarded-Proto", "https".to_owned());
    match style {
        "x-original" => (
            "/verify".to_owned(),
            vec![
                ("X-Original-Method", method.to_owned()),
                ("X-Original-URL", format!("https://app.test{target}")),
                client,
                key,
            ],
        ),
        "x-forwarded" => (
            "/verify".to_owned(),
            vec![
                ("X-Forwarded-Method", method.to_owned()),
                https,
                ("X-Forwarded-Host", "app.test".to_owned()),
                ("X-Forwarded-Uri", target.to_owned()),
                client,
                key,
            ],
        ),
        _ => (format!("/verify{target}"), vec![https, client, key]),
    }
}

fn send(gate: &Gate, method: &str, path: &str, lines: &[(&str, String)], more: &str) -> Answer {
    let lines: String = lines
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: app.test\r\n{lines}{more}\r\n");
    ask(gate.addresses[1], request)
}

/// Asks about a GET as a proxy does; `more` is what it hands on of the client's fields.
#[track_caller]
fn verify(gate: &Gate, style: &str, target: &str, more: &str) -> Answer {
    let (path, lines) = told(style, "GET", target);
    send(gate, "GET", &path, &lines, more)
}

/// That an answer says no, and that the log says why.
#[track_caller]
fn is_refused(gate: &Gate, status: u16, reason: &str, answer: impl FnOnce() -> Answer) -> Answer {
    let before = gate.log().len();
    let answer = answer();
    assert_eq!(answer.status, status, "{reason}: {answer:?}");
    for name in ["X-Portcullis-User", "Set-Cookie"] {
        assert_eq!(answer.field(name), None, "{reason}");
    }
    gate.wait_for_line(&format!("\"{reason}\""), before);
    answer
}

fn identity(answer: &Answer) -> [Vec<&str>; 3] {
    [
        "X-Portcullis-User",
        "X-Portcullis-Email",
        "X-Portcullis-Groups",
    ]
    .map(|name| answer.fields(name))
}

#[test]
fn who_is_signed_in_may_pass_and_is_named() {
    for style in STYLES {
        let gate = open(style);
        let session = format!("Cookie: a=b; {}\r\n", sign_in(gate.address(), "ada"));
        for proof in [session, basic("ada", PASSWORD)] {
            let answer = verify(&gate, style, "/a?b=c", &proof);
            assert_eq!((answer.status, &*answer.body), (200, ""), "{style}");
            assert_eq!(identity(&answer), [vec!["ada"], vec![""], vec![""]]);
            let all = answer.head.to_ascii_lowercase();
            assert!(
                !all.contains("cookie") && !all.contains("authorization"),
                "{all}"
            );
        }
        // The log has the request, not the question.
        gate.wait_for_log("\"/a\"");
    }
}

#[test]
fn what_is_said_of_a_user_is_what_the_backend_would_be_told() {
    let told = "[headers]\nuser = \"X-WEBAUTH-USER\"\nidentity = [\"user\", \"groups\"]";
    let mut setup = setup("envoy", "key = { file = \"key\" }");
    setup.policies[0].1 = policy("whoami", &format!("access = \"signed-in\"\n{told}"));
    setup.accounts.clear();
    let dir = setup.write();
    let adding = portcullis(dir.path())
        .args(["users", "add", "zoë", "--email", "zoe@app.test"])
        .args(["--group", "staff", "--group", "admins", "--password-stdin"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn();
    let mut adding = adding.expect("users add");
    writeln!(adding.stdin.take().expect("its input"), "{PASSWORD}").expect("it reads");
    assert!(adding.wait().expect("it ends").success());
    let gate = Gate::start_in(dir);
    let session = sign_in(gate.address(), "zo%C3%AB");
    let fields =
        format!("Cookie: {session}\r\nX-Webauth-User: root\r\nX-Portcullis-User: root\r\n");
    let answer = verify(&gate, "envoy", "/", &fields);
    assert_eq!(answer.fields("x-webauth-user"), ["zo%C3%AB"]);
    assert_eq!(answer.fields("x-portcullis-groups"), ["staff,admins"]);
    // It would not be sent to the backend, and neither may the client's.
    assert_eq!(answer.fields("x-portcullis-email"), [""]);
    assert_eq!(answer.fields("x-portcullis-user"), [""; 0]);
}

#[test]
fn who_is_not_signed_in_may_not_pass() {
    for style in STYLES {
        let gate = open(style);
        for target in ["/", "/a?x=/public/", "/publicity", "/%70ublicity"] {
            is_refused(&gate, 401, "sign_in.no_credential", || {
                verify(&gate, style, target, "")
            });
        }
        let session = sign_in(gate.address(), "ada");
        let cookie = format!("Cookie: {session}\r\n");
        is_refused(&gate, 403, "access.denied", || {
            verify(&gate, style, "/admin", &cookie)
        });
        assert_eq!(sign_out(gate.address(), &session), 200);
        is_refused(&gate, 401, "sign_in.session_over", || {
            verify(&gate, style, "/", &cookie)
        });
        is_refused(&gate, 401, "sign_in.wrong_password", || {
            verify(&gate, style, "/", &basic("ada", "wrong"))
        });
    }
}

#[test]
fn a_person_is_led_to_the_sign_in_page_of_the_application() {
    for (style, status) in [("x-original", 401), ("x-forwarded", 303), ("envoy", 303)] {
        let gate = open(style);
        let answer = is_refused(&gate, status, "sign_in.no_credential", || {
            verify(&gate, style, "/a?b=c&d", "Accept: text/html\r\n")
        });
        let page = "https://app.test/.portcullis/sign-in?to=%2Fa%3Fb%3Dc%26d";
        assert_eq!(answer.field("location"), Some(page), "{style}");
        assert_eq!(answer.field("www-authenticate").is_some(), status == 401);
    }
}

// F7: nowhere but to a host that is an application's.
#[test]
fn nobody_is_led_to_a_host_that_is_no_applications() {
    let gate = open("x-forwarded");
    let (path, mut lines) = told("x-forwarded", "GET", "/");
    lines[2].1 = "evil.test".to_owned();
    let answer = is_refused(&gate, 421, "route.unknown_host", || {
        send(&gate, "GET", &path, &lines, "Accept: text/html\r\n")
    });
    assert_eq!(answer.field("location"), None);
}

#[test]
fn a_public_path_needs_nobody_and_names_nobody() {
    for style in STYLES {
        let gate = open(style);
        let answer = verify(&gate, style, "/public/a", "");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(identity(&answer), [vec![""], vec![""], vec![""]]);
    }
}

// H4, H8: a name that there is nothing to say of is said to be empty, so that the proxy removes it.
#[test]
fn what_a_client_says_of_itself_is_never_said_again() {
    for style in STYLES {
        let gate = open(style);
        let session = format!("Cookie: {}\r\n", sign_in(gate.address(), "ada"));
        let spoofed = "X-Portcullis-User: root\r\nX-Portcullis-Email: root@app.test\r\n\
                       X-Portcullis-Groups: admins\r\nx-portcullis-groups: root\r\nX-Forwarded-User: root\r\n";
        let answer = verify(&gate, style, "/public", spoofed);
        assert_eq!(identity(&answer), [vec![""], vec![""], vec![""]]);
        let answer = verify(&gate, style, "/", &format!("{spoofed}{session}"));
        assert_eq!(identity(&answer), [vec!["ada"], vec![""], vec![""]]);
        assert!(!answer.head.contains("root"), "{}", answer.head);
        // H1: the proxy could not remove it.
        for alias in ["X_Portcullis_User: root\r\n", "X.Portcullis.User: root\r\n"] {
            is_refused(
                &gate,
                if style == "x-original" { 403 } else { 400 },
                "request_headers.odd_name",
                || verify(&gate, style, "/public", alias),
            );
        }
    }
}

// P12: a question that can't be read is answered with no.
#[test]
fn p12_a_missing_or_doubled_field_denies() {
    for (style, names) in [
        ("x-original", &["method", "url", "client"][..]),
        (
            "x-forwarded",
            &["method", "scheme", "host", "target", "client"],
        ),
        ("envoy", &["scheme", "client"]),
    ] {
        let gate = open(style);
        // Public, so that nothing else refuses.
        let (path, lines) = told(style, "GET", "/public");
        assert_eq!(send(&gate, "GET", &path, &lines, "").status, 200);
        for (at, name) in names.iter().enumerate() {
            let mut fewer = lines.clone();
            let line = fewer.remove(at);
            is_refused(&gate, 400, &format!("verify.no_{name}"), || {
                send(&gate, "GET", &path, &fewer, "")
            });
            let doubled = format!("{}: {}\r\n", line.0, line.1);
            is_refused(&gate, 400, &format!("verify.two_{name}s"), || {
                send(&gate, "GET", &path, &lines, &doubled)
            });
            // As a client could write it, which a proxy hands on because it only knows one spelling.
            let alias = format!("{}: {}\r\n", line.0.replace('-', "_"), line.1);
            is_refused(&gate, 400, &format!("verify.no_{name}"), || {
                send(&gate, "GET", &path, &fewer, &alias)
            });
            // H10: named away by the client, which can't be done with its own address.
            if *name == "client" {
                continue;
            }
            let away = format!("Connection: close, {}\r\n", line.0.to_ascii_lowercase());
            is_refused(&gate, 400, &format!("verify.no_{name}"), || {
                send(&gate, "GET", &path, &lines, &away)
            });
        }
    }
}

// P12.
#[test]
fn p12_a_field_that_does_not_parse_denies() {
    for (style, at, values, reason) in [
        (
            "x-original",
            0,
            &["get", "TRACE", "GET, GET", "GET /"][..],
            "verify.bad_method",
        ),
        (
            "x-original",
            1,
            &[
                "/public",
                "//app.test/public",
                "https://app.test",
                "https://app.test?/public",
                "https://admin@app.test/public",
                "https://app.test:65536/public",
                "https://app.test/public#/admin",
                "https://app.test/public /admin",
                "https://app.test\\.evil.test/public",
                "javascript://app.test/public",
            ],
            "verify.bad_url",
        ),
        (
            "x-original",
            2,
            &["a", "192.0.2.1, ", "192.0.2.1, unknown", "999.0.2.1"],
            "verify.bad_client",
        ),
        (
            "x-forwarded",
            1,
            &["HTTPS", "https, http", "ws"],
            "verify.bad_scheme",
        ),
        (
            "x-forwarded",
            2,
            &[
                "app.test, app.test",
                "a@app.test",
                "app.test/public",
                "app.test:",
            ],
            "verify.bad_host",
        ),
        (
            "x-forwarded",
            3,
            &[
                "public",
                "/public#",
                "/public, /admin",
                "https://app.test/public",
            ],
            "verify.bad_target",
        ),
    ] {
        let gate = open(style);
        for value in values {
            let (path, mut lines) = told(style, "GET", "/public");
            lines[at].1 = (*value).to_owned();
            is_refused(&gate, 400, reason, || send(&gate, "GET", &path, &lines, ""));
        }
    }
    let gate = open("envoy");
    let (_, lines) = told("envoy", "GET", "/public");
    for (path, status, reason) in [
        ("/verify", 400, "verify.bad_target"),
        ("/verifypublic", 400, "verify.bad_target"),
        ("/public", 404, "verify.elsewhere"),
        ("/verify/../public", 404, "verify.elsewhere"),
        ("/verify/../verify/public", 400, "verify.rewritten"),
    ] {
        is_refused(&gate, status, reason, || {
            send(&gate, "GET", path, &lines, "")
        });
    }
}

// F1: of the field families of proxies one is read, which the asking proxy writes itself.
#[test]
fn f1_fields_of_another_style_make_no_path_public() {
    for style in STYLES {
        let gate = open(style);
        let mut spoofed = String::new();
        for other in STYLES.iter().filter(|other| **other != style) {
            let (_, own) = told(style, "GET", "/admin");
            let (_, lines) = told(other, "GET", "/public");
            for (name, value) in lines {
                if !own.iter().any(|(told, _)| *told == name) {
                    spoofed.push_str(&format!("{name}: {value}\r\n"));
                }
            }
        }
        spoofed.push_str(
            "X-Rewrite-Url: /public\r\nX-Original-Uri: /public\r\nX-HTTP-Method-Override: GET\r\n",
        );
        is_refused(&gate, 401, "sign_in.no_credential", || {
            verify(&gate, style, "/admin", &spoofed)
        });
    }
}

// F6: what the client wrote to the left of it is not read.
#[test]
fn f6_the_client_is_the_hop_that_the_proxy_added() {
    for style in STYLES {
        let gate = open(style);
        let from = |hops: &str| {
            let (path, mut lines) = told(style, "GET", "/office");
            lines
                .iter_mut()
                .filter(|line| line.0 == "X-Forwarded-For")
                .for_each(|line| {
                    line.1 = hops.to_owned();
                });
            send(&gate, "GET", &path, &lines, "")
        };
        for hops in [
            "192.0.2.9",
            "198.51.100.1, 192.0.2.9",
            "a, ::ffff:192.0.2.9",
        ] {
            assert_eq!(from(hops).status, 200, "{hops}");
        }
        for hops in ["198.51.100.1", "192.0.2.9, 198.51.100.1", "127.0.0.1"] {
            is_refused(&gate, 403, "network.not_allowed", || from(hops));
        }
    }
}

#[test]
fn a_proxy_before_the_asking_one_says_who_the_client_is_where_it_is_trusted() {
    let trusted = "[trusted_proxies]\nnetworks = [\"10.0.0.0/8\"]";
    let gate = setup("envoy", &format!("key = {{ file = \"key\" }}\n{trusted}")).start();
    let (path, mut lines) = told("envoy", "GET", "/office");
    for (hops, status) in [
        ("192.0.2.9, 10.0.0.1", 200),
        ("192.0.2.9, 198.51.100.1, 10.0.0.1", 403),
        ("a, 10.0.0.1", 400),
    ] {
        lines[1].1 = hops.to_owned();
        assert_eq!(
            send(&gate, "GET", &path, &lines, "").status,
            status,
            "{hops}"
        );
    }
}

#[test]
fn a_proxy_that_does_not_prove_who_it_is_learns_nothing() {
    let gate = open("x-original");
    let session = format!("Cookie: {}\r\n", sign_in(gate.address(), "ada"));
    let (path, mut lines) = told("x-original", "GET", "/");
    lines.pop();
    let doubled = format!("X-Portcullis-Key: {KEY}\r\nX-Portcullis-Key: {KEY}\r\n");
    for key in [
        String::new(),
        "X-Portcullis-Key: \r\n".to_owned(),
        format!("X-Portcullis-Key: {}\r\n", &KEY[1..]),
        format!("X-Portcullis-Key: {KEY}0\r\n"),
        format!("X-Portcullis-Key: {}\r\n", KEY.to_ascii_uppercase()),
        format!("X_Portcullis_Key: {KEY}\r\n"),
        format!("Authorization: Bearer {KEY}\r\n"),
        format!("X-Portcullis-Key: {KEY}\r\nConnection: close, X-Portcullis-Key\r\n"),
        doubled,
    ] {
        for path in [&*path, "/", "/verify/a", "/.portcullis/sign-in", "/metrics"] {
            let answer = is_refused(&gate, 403, "verify.caller", || {
                send(&gate, "GET", path, &lines, &format!("{key}{session}"))
            });
            assert_eq!(
                (answer.field("location"), answer.field("www-authenticate")),
                (None, None)
            );
            assert!(
                !answer.body.contains("ada") && !answer.body.contains("app"),
                "{}",
                answer.body
            );
        }
    }
    let log = gate.log().join("\n");
    assert!(!log.contains(&KEY[1..]), "the key is in the log:\n{log}");
}

#[test]
fn a_peer_that_is_not_listed_learns_nothing() {
    let listed = setup("x-original", "from = [\"127.0.0.1\"]").start();
    assert_eq!(verify(&listed, "x-original", "/public", "").status, 200);
    let other = setup("x-original", "from = [\"10.0.0.0/8\", \"::1\"]").start();
    // What the client is said to be does not count.
    let (path, mut lines) = told("x-original", "GET", "/public");
    lines[2].1 = "10.0.0.1".to_owned();
    is_refused(&other, 403, "verify.caller", || {
        send(&other, "GET", &path, &lines, "")
    });
}

#[test]
fn a_proxy_proves_who_it_is_by_a_certificate() {
    let (certificates, proxy, stranger) = (Certificates::new(), Person::new(), Person::new());
    let gate = certificates
        .setup(&policy("whoami", RULES), "")
        .gateway(
            "[verify]\naddress = \"127.0.0.1:0\"\nstyle = \"x-original\"\nclient_certificates = \"proxies.pem\"\n",
        )
        .file("proxies.pem", &proxy.authority)
        .start();
    let (path, lines) = told("x-original", "GET", "/public");
    let lines: String = lines
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n{lines}\r\n");
    let asked = |client| {
        let stream = TcpStream::connect(gate.addresses[1]).expect("a connection");
        let client = ClientConnection::new(client, server("app.test")).expect("a client");
        let mut stream = StreamOwned::new(client, stream);
        let mut answer = String::new();
        let sent = stream.write_all(request.as_bytes());
        let read = std::io::Read::read_to_string(&mut stream, &mut answer);
        (sent.is_ok() && read.is_ok(), answer)
    };
    let (_, answer) = asked(proxy.client(&certificates, "http/1.1"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(
        asked(stranger.client(&certificates, "http/1.1")),
        (false, String::new())
    );
    assert_eq!(
        asked(certificates.client(&["http/1.1"])),
        (false, String::new())
    );
}

#[test]
fn the_gates_own_pages_are_nobody_elses() {
    for style in STYLES {
        let gate = open(style);
        let session = format!("Cookie: {}\r\n", sign_in(gate.address(), "ada"));
        for target in [
            "/.portcullis/sign-in",
            "/.portcullis/",
            "/.PORTCULLIS/x",
            "/%2eportcullis/a",
        ] {
            is_refused(&gate, 403, "verify.own_page", || {
                verify(&gate, style, target, &session)
            });
        }
    }
}

// P4: the proxy sends on what the client wrote, so that no other path may be decided on.
#[test]
fn p4_a_path_that_the_gate_would_write_anew_is_denied() {
    for style in ["x-original", "x-forwarded"] {
        let gate = open(style);
        let status = if style == "x-original" { 403 } else { 400 };
        for target in [
            "/admin/../public",
            "/admin/%2e%2e/public",
            "/public/./a",
            "//public",
            "/public//a",
            "/public/%",
            "/public/%zz",
        ] {
            is_refused(&gate, status, "verify.rewritten", || {
                verify(&gate, style, target, "")
            });
        }
        is_refused(&gate, status, "route.encoded_slash", || {
            verify(&gate, style, "/public%2fa", "")
        });
    }
}

#[test]
fn the_method_is_the_clients() {
    let rules = "access = \"public\"\n[[path]]\nprefix = \"/read\"\nmethods = [\"GET\"]";
    for style in STYLES {
        let mut setup = setup(style, "key = { file = \"key\" }");
        setup.policies[0].1 = policy("whoami", rules);
        let gate = setup.start();
        for (method, status) in [("GET", 200), ("DELETE", 403), ("HEAD", 403)] {
            let (path, lines) = told(style, method, "/read");
            let asked = if style == "envoy" { method } else { "GET" };
            let mut client = Client::connect(gate.addresses[1]);
            let lines: String = lines
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            client.send(format!(
                "{asked} {path} HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n"
            ));
            let answer = if asked == "HEAD" {
                client.read_head()
            } else {
                client.read()
            };
            assert_eq!(answer.status, status, "{style} {method}");
        }
    }
}

#[test]
fn a_page_of_another_host_opens_no_websocket() {
    for style in STYLES {
        let gate = open(style);
        let session = format!("Cookie: {}\r\n", sign_in(gate.address(), "ada"));
        // Whether the proxy hands on the handshake as such or keeps what is the connection's.
        for handshake in [
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        ] {
            let from = |origin: &str| {
                verify(
                    &gate,
                    style,
                    "/",
                    &format!("{session}{handshake}Origin: {origin}\r\n"),
                )
            };
            assert_eq!(from("https://app.test").status, 200);
            is_refused(&gate, 403, "sign_in.websocket_origin", || {
                from("https://evil.test")
            });
        }
    }
}

#[test]
fn who_asks_too_often_is_told_so() {
    for (style, status) in [("x-original", 403), ("x-forwarded", 429), ("envoy", 429)] {
        let gate = open(style);
        assert_eq!(verify(&gate, style, "/seldom", "").status, 200);
        let answer = is_refused(&gate, status, "rate.per_client", || {
            verify(&gate, style, "/seldom", "")
        });
        assert!(answer.field("retry-after").is_some());
    }
}

#[test]
fn the_question_is_asked_nowhere_else() {
    let gate = open("x-original");
    let public: SocketAddr = gate.address();
    let (path, lines) = told("x-original", "GET", "/public");
    let lines: String = lines
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    assert_eq!(get(public, &path, &lines).status, 401);
    for path in [
        "/",
        "/public",
        "/verify/",
        "/Verify",
        "/.portcullis/sign-in",
    ] {
        is_refused(&gate, 404, "verify.elsewhere", || {
            let (_, lines) = told("x-original", "GET", "/public");
            send(&gate, "GET", path, &lines, "")
        });
    }
}

// T12: without the key nobody could be told from anybody.
#[test]
fn without_a_key_that_can_be_used_the_gate_does_not_start() {
    for (callers, key) in [
        ("key = { file = \"gone\" }", KEY),
        ("key = { file = \"key\" }", "short"),
        ("key = { file = \"key\" }", ""),
        ("key = { env = \"PORTCULLIS_NO_SUCH_KEY\" }", KEY),
        ("key = \"0123456789abcdef0123456789abcdef\"", KEY),
        ("", KEY),
    ] {
        let setup = setup("envoy", callers).file("key", key);
        let run = portcullis(setup.write().path())
            .arg("run")
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(78), "{callers}: {said}");
        assert!(!said.contains(KEY), "{said}");
    }
}

#[test]
fn without_its_table_nobody_may_ask_any_more() {
    let gate = open("envoy");
    assert_eq!(verify(&gate, "envoy", "/public", "").status, 200);
    let text = std::fs::read_to_string(gate.path().join("portcullis.toml")).expect("it is read");
    let (without, _) = text.split_once("[verify]").expect("the table");
    let before = gate.log().len();
    replace(&gate.path(), "portcullis.toml", without);
    gate.wait_for_line("reloaded", before);
    is_refused(&gate, 403, "verify.caller", || {
        verify(&gate, "envoy", "/public", "")
    });
}

#[test]
fn a_new_key_is_taken_up_and_a_broken_one_changes_nothing() {
    let gate = open("envoy");
    let ask = |key: &str| {
        let (path, mut lines) = told("envoy", "GET", "/public");
        lines[2].1 = key.to_owned();
        send(&gate, "GET", &path, &lines, "").status
    };
    let new = KEY.replace('0', "f");
    assert_eq!((ask(KEY), ask(&new)), (200, 403));
    let before = gate.log().len();
    replace(&gate.path(), "key", "short");
    gate.wait_for_line("can't be used", before);
    assert_eq!((ask(KEY), ask("short")), (200, 403));
    let before = gate.log().len();
    replace(&gate.path(), "key", &new);
    gate.wait_for_line("reloaded", before);
    assert_eq!((ask(KEY), ask(&new)), (403, 200));
}
