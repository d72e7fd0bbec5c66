//! Browsers that sign in, stay signed in, and sign out.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Instant;

use crate::support::{
    Answer, Backend, Gate, PASSWORD, SIGN_IN, Setup, ask, basic, cookies, get, policy, portcullis,
    sign_in, sign_in_with, sign_out, wait_until,
};
use crate::tls::Certificates;

const SESSIONS: &str = "/.portcullis/sessions";

fn open(backend: &str) -> Gate {
    Setup::plain(&policy(backend, "access = \"signed-in\""))
        .account("ada")
        .start()
}

fn with(gate: &Gate, cookie: &str) -> u16 {
    get(gate.address(), "/", &format!("Cookie: {cookie}\r\n")).status
}

#[test]
fn a_browser_signs_in_works_and_signs_out() {
    let backend = Backend::ok();
    let gate = open(&backend.url());
    let (answer, session) = sign_in_with(gate.address(), "ada", PASSWORD, "");
    let session = session.expect("a session");
    assert_eq!((answer.status, answer.field("location")), (303, Some("/")));
    let set = answer.fields("set-cookie");
    let set = set
        .iter()
        .find(|line| line.starts_with(&session))
        .expect("its line");
    for attribute in [
        "__Host-portcullis_session=",
        "Secure",
        "HttpOnly",
        "SameSite=Lax",
        "Path=/",
    ] {
        assert!(set.contains(attribute), "{set}");
    }
    assert_eq!(with(&gate, &format!("theme=dark; {session}; lang=de")), 200);
    let received = backend.received();
    assert!(
        received.contains("cookie: theme=dark; lang=de\r\n"),
        "{received}"
    );
    assert!(!received.contains("portcullis_session"), "{received}");
    assert!(
        received.contains("x-portcullis-user: ada\r\n"),
        "{received}"
    );
    assert_eq!(sign_out(gate.address(), &session), 200);
    assert_eq!(with(&gate, &session), 401, "the same cookie again");
    assert_eq!(backend.requests(), 1);
}

/// What the page of one's sessions shows: the token of its forms, and what they end.
fn devices(gate: &Gate, session: &str) -> (String, Vec<String>) {
    let cookie = format!("Cookie: {session}\r\n");
    let page = get(gate.address(), SESSIONS, &cookie);
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        !page
            .body
            .contains(session.split('=').nth(1).expect("a value"))
    );
    let values = |name: &str| {
        let before = format!("name=\"{name}\" value=\"");
        let parts = page.body.split(&before).skip(1);
        let values = parts.filter_map(|part| part.split('"').next());
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    (values("csrf").remove(0), values("end"))
}

fn end(gate: &Gate, session: &str, token: &str, which: &str, from: &str) -> Answer {
    let body = format!("csrf={token}&end={which}");
    let length = body.len();
    ask(
        gate.address(),
        format!(
            "POST {SESSIONS} HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\n{from}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

const HERE: &str = "Origin: http://app.test";

#[test]
fn people_see_where_they_are_signed_in_and_end_one_session_or_all() {
    let gate = Setup::plain(&policy(&Backend::ok().url(), "access = \"signed-in\""))
        .account("ada")
        .account("bob")
        .start();
    let here = sign_in(gate.address(), "ada");
    let there = sign_in(gate.address(), "ada");
    let third = sign_in(gate.address(), "ada");
    let other = sign_in(gate.address(), "bob");
    let (token, ends) = devices(&gate, &here);
    assert_eq!(ends.len(), 3, "two other devices, and everywhere");
    assert_eq!(ends[2], "everywhere");

    assert_eq!(end(&gate, &here, &token, &ends[0], HERE).status, 303);
    let left = [&there, &third].map(|session| with(&gate, session));
    assert!(left == [200, 401] || left == [401, 200], "{left:?}");
    assert_eq!(with(&gate, &here), 200);
    assert_eq!(devices(&gate, &here).1.len(), 2);

    let all = end(&gate, &here, &token, "everywhere", HERE);
    assert_eq!(all.status, 200);
    assert!(all.fields("set-cookie")[0].contains("Max-Age=0"));
    for session in [&here, &there, &third] {
        assert_eq!(with(&gate, session), 401);
    }
    assert_eq!(with(&gate, &other), 200, "nobody else's");
    let nobody = get(gate.address(), SESSIONS, "");
    assert_eq!(
        (nobody.status, nobody.field("location")),
        (303, Some(SIGN_IN))
    );
}

#[test]
fn nobody_ends_the_sessions_of_others_s2() {
    let gate = Setup::plain(&policy(&Backend::ok().url(), "access = \"signed-in\""))
        .account("ada")
        .account("bob")
        .start();
    let ada = sign_in(gate.address(), "ada");
    let also_ada = sign_in(gate.address(), "ada");
    let bob = sign_in(gate.address(), "bob");
    let (adas, ends) = devices(&gate, &ada);
    let (bobs, _) = devices(&gate, &bob);
    for (session, token, from, status) in [
        // Another site, another's token, no token at all.
        (&ada, &*adas, "Origin: http://evil.test", 403),
        (&ada, &*adas, "Sec-Fetch-Site: cross-site", 403),
        (&ada, &*bobs, HERE, 303),
        (&ada, "", HERE, 303),
        // What is named is another's.
        (&bob, &*bobs, HERE, 303),
    ] {
        assert_eq!(end(&gate, session, token, &ends[0], from).status, status);
        assert_eq!(with(&gate, &also_ada), 200, "{token} {from}");
    }
    for session in [&ada, &bob] {
        assert_eq!(end(&gate, session, &bobs, "", HERE).status, 303);
        assert_eq!(with(&gate, session), 200);
    }
}

/// `portcullis sessions`: whether it did, the lines that it lists, and what it says besides.
fn operator(dir: &Path, arguments: &[&str]) -> (bool, Vec<Vec<String>>, String) {
    let mut command = portcullis(dir);
    let done = command.arg("sessions").args(arguments).output();
    let done = done.expect("it runs");
    let listed = String::from_utf8(done.stdout).expect("text");
    let lines = listed.lines();
    let lines = lines.map(|line| line.split('\t').map(str::to_owned).collect());
    let said = String::from_utf8(done.stderr).expect("text");
    (done.status.success(), lines.collect(), said)
}

#[test]
fn the_operator_lists_sessions_and_ends_them_while_the_gate_runs_and_while_it_does_not() {
    let mut gate = Setup::plain(&policy(&Backend::ok().url(), "access = \"signed-in\""))
        .account("ada")
        .account("bob")
        .start();
    let ada = [
        sign_in(gate.address(), "ada"),
        sign_in(gate.address(), "ada"),
    ];
    let bob = sign_in(gate.address(), "bob");
    let dir = gate.dir.path().to_owned();
    // What can't be used for a gate is no reason to leave sessions alone.
    std::fs::write(dir.join("policies/broken.toml"), "access =").expect("a file");

    let (done, all, said) = operator(&dir, &["list"]);
    assert!(done, "{said}");
    let names = |lines: &[Vec<String>]| {
        let mut names: Vec<_> = lines.iter().map(|line| line[1..4].join(" ")).collect();
        names.sort();
        names
    };
    let (adas, bobs) = ("local ada app.test", "local bob app.test");
    assert_eq!(names(&all), [adas, adas, bobs]);
    let secrets = ada
        .iter()
        .chain([&bob])
        .filter_map(|cookie| cookie.split('=').nth(1));
    for secret in secrets {
        assert!(!format!("{all:?}").contains(secret));
    }
    let (_, one, _) = operator(&dir, &["list", "--user", "bob"]);
    assert_eq!(names(&one), [bobs]);
    let (_, none, _) = operator(&dir, &["list", "--user", "bob", "--method", "corp"]);
    assert!(none.is_empty());

    let (done, _, said) = operator(&dir, &["revoke", &one[0][0]]);
    assert!(done, "{said}");
    assert_eq!(with(&gate, &bob), 401);
    let (done, _, said) = operator(&dir, &["revoke", &one[0][0]]);
    assert!(!done && said.contains("no such session"), "{said}");
    for wrong in [
        &["revoke"][..],
        &["revoke", "x"],
        &["revoke", "--method", "local"],
    ] {
        assert!(!operator(&dir, wrong).0);
    }
    assert!(ada.iter().all(|cookie| with(&gate, cookie) == 200));

    gate.signal("KILL");
    gate.wait();
    let (done, left, said) = operator(&dir, &["list"]);
    assert!(done, "{said}");
    assert_eq!(names(&left), [adas, adas]);
    let (done, _, said) = operator(&dir, &["revoke", "--user", "ada"]);
    assert!(done && said.contains("2 sessions ended"), "{said}");
    std::fs::remove_file(dir.join("policies/broken.toml")).expect("a file");
    let gate = gate.kill_and_restart();
    assert!(ada.iter().all(|cookie| with(&gate, cookie) == 401));
}

#[test]
fn content_that_meets_a_session_that_is_over_reaches_no_backend_and_is_told_so() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), "access = \"signed-in\""))
        .account("ada")
        .account("bob")
        .gateway("[session]\nidle = \"2s\"\n")
        .start();
    let [idle, out, revoked] = ["ada", "ada", "bob"].map(|name| sign_in(gate.address(), name));
    let since = Instant::now();
    assert_eq!(with(&gate, &idle), 200);
    assert_eq!(sign_out(gate.address(), &out), 200);
    assert!(operator(gate.dir.path(), &["revoke", "--user", "bob"]).0);
    wait_until("the session is idle", || since.elapsed().as_secs() > 2);
    for session in [&idle, &out, &revoked] {
        for fields in [
            "",
            "Accept: application/json\r\n",
            "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
        ] {
            let post = format!(
                "POST /orders HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\n{fields}Content-Length: 7\r\n\r\ncontent"
            );
            let answer = ask(gate.address(), post);
            assert_eq!((answer.status, answer.field("location")), (401, None));
            assert!(answer.body.contains("was not passed on"), "{}", answer.body);
        }
    }
    assert_eq!(backend.requests(), 1, "{}", backend.received());
    wait_until("each is logged", || {
        gate.log()
            .concat()
            .matches("\"sign_in.session_over\"")
            .count()
            == 9
    });
}

#[test]
fn the_log_says_who_signed_in_and_by_whom_sessions_ended() {
    let gate = Setup::plain(&policy(&Backend::ok().url(), "access = \"signed-in\""))
        .account("ada")
        .account("bob")
        .start();
    let [out, other, revoked, gone] =
        ["ada", "ada", "ada", "bob"].map(|name| sign_in(gate.address(), name));
    let dir = gate.dir.path().to_owned();
    let event = |parts: &[&str]| {
        let lines = gate.log();
        let is_it = |line: &&String| parts.iter().all(|part| line.contains(part));
        lines.iter().filter(is_it).count()
    };
    let signed_in = r#""event":"signed_in""#;
    let from = r#""host":"app.test","client":"127.0.0.1""#;
    assert_eq!(event(&[signed_in, r#""user":"ada""#, from]), 3);
    for line in operator(&dir, &["list", "--user", "ada"]).1 {
        let id = format!(r#""session":"{}""#, &line[0][..16]);
        assert_eq!(event(&[signed_in, &id]), 1, "{id}");
    }

    assert_eq!(sign_out(gate.address(), &out), 200);
    let ended = r#""event":"session_ended","by":"user","provider":"local","user":"ada""#;
    assert_eq!(event(&[ended]), 1);
    let (token, ends) = devices(&gate, &other);
    assert_eq!(end(&gate, &other, &token, &ends[0], HERE).status, 303);
    assert_eq!(event(&[ended]), 2);
    assert_eq!(with(&gate, &revoked), 401);

    assert!(operator(&dir, &["revoke", "--user", "ada"]).0);
    gate.wait_for_log(
        r#""event":"sessions_ended","by":"operator","provider":"local","whom":"ada","sessions":1"#,
    );
    let id = operator(&dir, &["list", "--user", "bob"])
        .1
        .remove(0)
        .remove(0);
    assert!(
        portcullis(&dir)
            .args(["users", "remove", "bob"])
            .output()
            .expect("it runs")
            .status
            .success()
    );
    gate.wait_for_log(r#""event":"session_ended","by":"account","provider":"local","user":"bob""#);
    assert_eq!(with(&gate, &gone), 401);
    assert!(!operator(&dir, &["revoke", &id]).0);
}

#[test]
fn who_asked_the_sign_in_host_in_the_clear_is_told_nothing_of_who_speaks_tls() {
    let certificates = Certificates::new();
    let app = policy(&Backend::ok().url(), "access = \"signed-in\"");
    let clear = "[session]\nsign_in_host = \"app.test\"\n[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n";
    let gate = certificates
        .setup(&app, "")
        .gateway(clear)
        .file("policies/wiki.toml", &app.replace("app.test", "wiki.test"))
        .account("ada")
        .start();
    let plain = gate.addresses[1];
    let at = |host: &str, path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
        )
    };
    let sent = ask(plain, at("wiki.test", SIGN_IN));
    let to = sent.field("location").expect("a way").to_owned();
    let to = to
        .strip_prefix("http://app.test")
        .expect("the sign-in host");
    assert_eq!(ask(plain, at("app.test", to)).status, 200);
    let mut tls = certificates.connect(gate.address(), "app.test", "http/1.1");
    tls.write_all(at("app.test", to).as_bytes())
        .expect("it is sent");
    let mut answer = String::new();
    let _ = tls.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    gate.wait_for_log("\"oidc.attempt_over\"");
}

#[test]
fn a_wrong_password_gives_no_session() {
    let backend = Backend::ok();
    let gate = open(&backend.url());
    let (answer, session) = sign_in_with(gate.address(), "ada", "wrong", "");
    assert_eq!((answer.status, session), (403, None));
    let (answer, session) = sign_in_with(gate.address(), "<i>\"x", PASSWORD, "");
    assert_eq!((answer.status, session), (403, None));
    assert!(!answer.body.contains("<i>"), "nothing is shown unescaped");
}

#[test]
fn a_session_that_somebody_else_put_there_is_not_taken_over() {
    let gate = open(&Backend::ok().url());
    let planted = sign_in(gate.address(), "ada");
    let (_, session) = sign_in_with(
        gate.address(),
        "ada",
        PASSWORD,
        &format!("Cookie: {planted}\r\n"),
    );
    assert_ne!(session.expect("a session"), planted);
    let made_up = format!("__Host-portcullis_session={}", "A".repeat(43));
    let (_, session) = sign_in_with(
        gate.address(),
        "ada",
        PASSWORD,
        &format!("Cookie: {made_up}\r\n"),
    );
    assert_ne!(session.expect("a session"), made_up);
    assert_eq!(with(&gate, &made_up), 401);
}

#[test]
fn another_sites_form_signs_nobody_in_or_out() {
    let gate = open(&Backend::ok().url());
    let session = sign_in(gate.address(), "ada");
    for from in [
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Origin: http://evil.test",
    ] {
        let request = format!(
            "POST /.portcullis/sign-out HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\n{from}\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(ask(gate.address(), request).status, 403, "{from}");
    }
    assert_eq!(
        get(
            gate.address(),
            "/.portcullis/sign-out",
            &format!("Cookie: {session}\r\n")
        )
        .status,
        200
    );
    assert_eq!(with(&gate, &session), 200, "a link signs nobody out");
    let page = get(gate.address(), SIGN_IN, "");
    let token = page
        .body
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .expect("a token");
    let token = token.split('"').next().expect("its end");
    let body = format!(
        "to=%2F&csrf={token}&name=ada&password={}",
        PASSWORD.replace(' ', "+")
    );
    let post = |cookie: &str| {
        ask(
            gate.address(),
            format!(
                "POST {SIGN_IN} HTTP/1.1\r\nHost: app.test\r\n{cookie}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    };
    let other = get(gate.address(), SIGN_IN, "");
    assert_eq!(post("").status, 403, "no cookie");
    assert_eq!(
        post(&format!("Cookie: {}\r\n", cookies(&other)[0])).status,
        403,
        "another browser's"
    );
    assert_eq!(
        post(&format!("Cookie: {}\r\n", cookies(&page)[0])).status,
        303
    );
    // Which of them it was is for the log to say: a browser that keeps no cookies, above all.
    gate.wait_for_log("\"portal.form_without_cookie\"");
    gate.wait_for_log("\"portal.form_token\"");
}

#[test]
fn sign_in_leads_nowhere_but_to_this_host() {
    let gate = open(&Backend::ok().url());
    for to in [
        "//evil.test/",
        "https://evil.test/",
        "/%5Cevil.test",
        "%2F%2Fevil.test",
        "/%09/evil.test",
        "javascript:alert(1)",
    ] {
        let page = get(gate.address(), &format!("{SIGN_IN}?to={to}"), "");
        assert!(
            page.body.contains("name=\"to\" value=\"/\""),
            "{to}: {}",
            page.body
        );
    }
    let page = get(gate.address(), &format!("{SIGN_IN}?to=%2Fa%3Fb"), "");
    assert!(
        page.body.contains("name=\"to\" value=\"/a?b\""),
        "{}",
        page.body
    );
}

#[test]
fn sessions_and_sign_outs_survive_a_kill() {
    let backend = Backend::ok();
    let gate = open(&backend.url());
    let (stays, ends) = (
        sign_in(gate.address(), "ada"),
        sign_in(gate.address(), "ada"),
    );
    assert_eq!(sign_out(gate.address(), &ends), 200);
    let gate = gate.kill_and_restart();
    assert_eq!((with(&gate, &stays), with(&gate, &ends)), (200, 401));
}

#[test]
fn another_account_is_offered_where_the_path_has_a_sign_in_page() {
    let backend = Backend::ok();
    let rest = |by_default: &str, by_path: &str| {
        format!(
            "access = {{ groups = [\"staff\"] }}\nsign_in = {{ with = [\"{by_default}\"] }}\n\
             [[path]]\nprefix = \"/part\"\nsign_in = {{ with = [\"{by_path}\"] }}"
        )
    };
    let as_ada = format!("Accept: text/html\r\n{}", basic("ada", PASSWORD));
    let denied = |gate: &Gate, path: &str, fields: &str| {
        let answer = get(gate.address(), path, fields);
        assert_eq!(answer.status, 403, "{path}");
        answer.body.contains("/.portcullis/sign-out")
    };
    let text = policy(&backend.url(), &rest("local", "basic"));
    let gate = Setup::plain(&text).account("ada").start();
    let session = sign_in(gate.address(), "ada");
    let fields = format!("Accept: text/html\r\nCookie: {session}\r\n");
    assert!(denied(&gate, "/", &fields));
    assert!(!denied(&gate, "/part", &as_ada));

    let text = policy(&backend.url(), &rest("basic", "local\", \"basic"));
    let gate = Setup::plain(&text).account("ada").start();
    assert!(!denied(&gate, "/", &as_ada));
    assert!(denied(&gate, "/part", &as_ada));
    assert_eq!(backend.requests(), 0);
}

#[test]
fn a_path_may_have_a_sign_in_page_where_the_application_has_none() {
    let backend = Backend::ok();
    let text = policy(
        &backend.url(),
        "access = \"signed-in\"\nsign_in = { with = [\"basic\"] }\n\
         [[path]]\nprefix = \"/part\"\nsign_in = { with = [\"local\"] }",
    );
    let gate = Setup::plain(&text).account("ada").start();
    let stranger = get(gate.address(), "/part", "Accept: text/html\r\n");
    assert_eq!(stranger.status, 303);
    assert!(stranger.field("location").unwrap().starts_with(SIGN_IN));
    let session = sign_in(gate.address(), "ada");
    let fields = format!("Cookie: {session}\r\n");
    assert_eq!(get(gate.address(), "/part", &fields).status, 200);
    // The session is for the path; the rest asks for what it asked for before.
    assert_eq!(get(gate.address(), "/", &fields).status, 401);
}

#[test]
fn an_account_that_is_removed_ends_its_sessions() {
    let backend = Backend::ok();
    let gate = open(&backend.url());
    let session = sign_in(gate.address(), "ada");
    assert_eq!(with(&gate, &session), 200);
    let removed = portcullis(&gate.path())
        .args(["users", "remove", "ada"])
        .output();
    assert!(removed.expect("it runs").status.success());
    wait_until("the session is over", || with(&gate, &session) == 401);
}

#[test]
fn a_kill_in_the_midst_of_sign_outs_brings_none_back() {
    let backend = Backend::ok();
    let gate = open(&backend.url());
    let sessions: Vec<String> = (0..6).map(|_| sign_in(gate.address(), "ada")).collect();
    let address = gate.address();
    let (tell, told) = std::sync::mpsc::channel();
    let leaving = sessions.clone();
    let signing_out = std::thread::spawn(move || {
        for session in leaving {
            let request = format!(
                "POST /.portcullis/sign-out HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n\r\n"
            );
            let Ok(mut stream) = std::net::TcpStream::connect(address) else {
                return;
            };
            let _ = std::io::Write::write_all(&mut stream, request.as_bytes());
            let answer = crate::support::Client(stream).try_read(false);
            if answer.is_none_or(|answer| answer.status != 200) || tell.send(session).is_err() {
                return;
            }
        }
    });
    let mut gone: Vec<String> = told.iter().take(3).collect();
    let gate = gate.kill_and_restart();
    signing_out.join().expect("it ends");
    gone.extend(told.try_iter());
    for session in &sessions {
        let status = with(&gate, session);
        assert!(!gone.contains(session) || status == 401, "{status}");
        assert!(matches!(status, 200 | 401), "{status}");
    }
}
