//! How other gateways were broken, where it takes a conversation to show that this one is not. The
//! id above each test is that of `SECURITY.md`; single requests are in `tests/attacks`.

use crate::support::{
    Backend, PASSWORD, SIGN_IN, Setup, ask, basic, get, policy, portcullis, sign_in, sign_in_with,
};

/// Addresses of another site, as a return path could spell them.
const ELSEWHERE: [&str; 9] = [
    "//evil.test/",
    "///evil.test/",
    "/%5Cevil.test",
    "/%09/evil.test",
    "/%0d%0aLocation:%20https://evil.test",
    "https://evil.test/",
    "https:evil.test",
    "https://app.test@evil.test/",
    "https://app.test.evil.test/",
];

// H12: an application behind the gate that has a hole may read every page of its host.
#[test]
fn no_page_shows_a_credential_or_lets_another_origin_read_it() {
    let gate = Setup::plain(&policy(
        "whoami",
        "access = \"signed-in\"\n[sign_in]\nwith = [\"local\", \"basic\"]",
    ))
    .account("ada")
    .start();
    let session = sign_in(gate.address(), "ada");
    let (_, secret) = session.split_once('=').expect("a cookie");
    let password = basic("ada", PASSWORD);
    let encoded = password.trim_end().rsplit(' ').next().expect("base64");
    for path in ["/", SIGN_IN, "/.portcullis/sign-out"] {
        for accept in ["text/html", "application/json"] {
            for proof in [format!("Cookie: {session}\r\n"), password.clone()] {
                let fields = format!(
                    "{proof}Accept: {accept}\r\nOrigin: https://evil.test\r\nSec-Fetch-Site: cross-site\r\n"
                );
                let answer = get(gate.address(), path, &fields);
                // The page that says who somebody is does not answer another site at all.
                let expected = if path == "/" { 403 } else { 200 };
                assert_eq!(answer.status, expected, "{path}");
                let all = format!("{}{}", answer.head, answer.body);
                assert!(!all.contains(secret) && !all.contains(encoded), "{all}");
                assert!(
                    !all.to_ascii_lowercase().contains("access-control-allow"),
                    "{all}"
                );
            }
        }
    }
}

// R3: after sign-in and after sign-out alike.
#[test]
fn neither_signing_in_nor_signing_out_leads_elsewhere() {
    let gate = Setup::plain(&policy(&Backend::ok().url(), "access = \"signed-in\""))
        .account("ada")
        .start();
    for to in ELSEWHERE {
        let session = sign_in(gate.address(), "ada");
        for (path, body) in [
            (
                format!("/.portcullis/sign-out?to={to}&rd={to}"),
                String::new(),
            ),
            (
                "/.portcullis/sign-out".to_owned(),
                format!("to={to}&rd={to}"),
            ),
        ] {
            let answer = ask(
                gate.address(),
                format!(
                    "POST {path} HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\nSec-Fetch-Site: same-origin\r\n\
                     Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
            );
            assert_eq!((answer.status, answer.field("location")), (200, None));
            assert!(!answer.body.contains("evil"), "{}", answer.body);
        }
        // What the form says is not believed either: whoever sends it can have written it.
        let page = get(gate.address(), SIGN_IN, "Accept: text/html\r\n");
        let form_cookie = crate::support::cookies(&page).join("; ");
        let token = page
            .body
            .split_once("name=\"csrf\" value=\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .expect("a token")
            .0;
        let body = format!(
            "csrf={token}&to={to}&name=ada&password={}",
            PASSWORD.replace(' ', "+")
        );
        let answer = ask(
            gate.address(),
            format!(
                "POST {SIGN_IN} HTTP/1.1\r\nHost: app.test\r\nCookie: {form_cookie}\r\nSec-Fetch-Site: same-origin\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        // Some of them no form of ours can have said.
        let led = (answer.status, answer.field("location"));
        assert!(
            matches!(led, (303, Some("/")) | (400, None)),
            "{to}: {led:?}"
        );
    }
}

// S1: a link to the page must not sign anybody out, and whoever signs in takes over from nobody.
#[test]
fn the_sign_in_page_ends_no_session_and_signing_in_ends_the_one_that_was_there() {
    let gate = Setup::plain(&policy(&Backend::ok().url(), "access = \"signed-in\""))
        .account("ada")
        .account("bob")
        .start();
    let status = |session: &str| get(gate.address(), "/", &format!("Cookie: {session}\r\n")).status;
    let adas = sign_in(gate.address(), "ada");
    get(gate.address(), SIGN_IN, &format!("Cookie: {adas}\r\n"));
    assert_eq!(status(&adas), 200);
    let cookie = format!("Cookie: {adas}\r\n");
    let (_, bobs) = sign_in_with(gate.address(), "bob", PASSWORD, &cookie);
    assert_eq!(
        (status(&adas), status(&bobs.expect("a session"))),
        (401, 200)
    );
}

// S6: a cookie is looked up, and nothing in it is believed.
#[test]
fn no_part_of_one_session_fits_another() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), "access = \"signed-in\""))
        .account("ada")
        .account("bob")
        .start();
    let (adas, bobs) = (
        sign_in(gate.address(), "ada"),
        sign_in(gate.address(), "bob"),
    );
    let (name, ada) = adas.split_once('=').expect("a cookie");
    let (_, bob) = bobs.split_once('=').expect("a cookie");
    let middle = ada.len() / 2;
    let swapped = ada.to_ascii_uppercase();
    for value in [
        format!("{}{}", &ada[..middle], &bob[middle..]),
        format!("{}{}", &bob[..middle], &ada[middle..]),
        format!("{ada}.{bob}"),
        ada[..ada.len() - 1].to_owned(),
        format!("{ada}A"),
        swapped,
    ] {
        let cookie = format!("Cookie: {name}={value}\r\n");
        assert_eq!(get(gate.address(), "/", &cookie).status, 401, "{value}");
    }
    assert_eq!(backend.requests(), 0);
    let cookie = format!("Cookie: {adas}\r\n");
    assert_eq!(get(gate.address(), "/", &cookie).status, 200);
}

// T12: what a check needs is there, or the gate does not start.
#[test]
fn without_a_file_that_a_check_needs_the_gate_does_not_start() {
    let by = |method: &str| {
        policy(
            "whoami",
            &format!("access = \"signed-in\"\n[sign_in]\nwith = [\"{method}\"]"),
        )
    };
    let htpasswd = "[provider.old]\nkind = \"basic\"\nfile = \"gone\"\n";
    let keys = "[provider.old]\nkind = \"jwt\"\nissuer = \"https://i.test\"\naudience = [\"a\"]\njwks_file = \"gone\"\n";
    for (method, gateway) in [
        ("old", htpasswd),
        ("old", keys),
        ("odl", htpasswd),
        ("none", ""),
    ] {
        let setup = Setup::plain(&by(method)).gateway(gateway);
        let setup = if method == "odl" {
            setup.file("gone", "")
        } else {
            setup
        };
        let ended = portcullis(setup.write().path())
            .arg("run")
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(78), "{method}: {said}");
    }
}
