//! What the log says, and what it never says.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;

use crate::frames::{END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, block};
use crate::streams::{Answer, connect, request, run};
use crate::support::{
    Backend, Client, Gate, PASSWORD, SIGN_IN, Setup, basic, form, get, policy, sign_in,
    sign_in_with, sign_out,
};
use crate::tls::Certificates;

#[test]
fn a_refusal_is_in_the_log_with_its_stage_reason_and_rule() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(
        &backend.url(),
        "[access]\ngroups = [\"admins\"]\n[sign_in]\nwith = [\"basic\"]",
    ))
    .account("ada")
    .start();
    assert_eq!(
        get(gate.address(), "/x", &basic("ada", PASSWORD)).status,
        403
    );
    let line = gate.wait_for_log("\"/x\"");
    for part in [
        "\"status\":403",
        "\"user\":\"ada\"",
        "\"stage\":\"access\"",
        "access.",
        "app.toml:",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    assert_eq!(backend.received(), "");
}

#[test]
fn no_secret_is_in_a_log_of_any_level() {
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2VjcmV0LXNpZ25hdHVyZQ";
    const QUERY: &str = "reset-code-31337";
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nSet-Cookie: app=backend-secret-1\r\nContent-Length: 2\r\n\r\nok",
    );
    let gate = Setup::plain(&policy(
        &backend.url(),
        "access = \"signed-in\"\n[sign_in]\nwith = [\"local\", \"basic\", \"ci\"]",
    ))
    .gateway("[log]\nformat = \"json\"\nlevel = \"trace\"\n[provider.ci]\nkind = \"jwt\"\nissuer = \"https://i.test\"\naudience = [\"a\"]\njwks_file = \"keys.json\"\n")
    .file("keys.json", r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#)
    .account("ada")
    .start();
    let address = gate.address();
    let session = sign_in(address, "ada");
    let value = session.split_once('=').expect("a value").1.to_owned();
    let path = format!("/page?code={QUERY}");
    assert_eq!(
        get(
            address,
            &path,
            &format!("Cookie: {session}; other=cookie-secret-2\r\n")
        )
        .status,
        200
    );
    assert_eq!(get(address, &path, &basic("ada", PASSWORD)).status, 200);
    assert_eq!(
        get(address, &path, &basic("ada", "wrong-password-3")).status,
        401
    );
    assert_eq!(
        get(
            address,
            &path,
            &format!("Authorization: Bearer {TOKEN}\r\n")
        )
        .status,
        401
    );
    assert_eq!(get(address, &path, "Accept: text/html\r\n").status, 303);
    sign_in_with(address, "ada", "wrong-password-3", "");
    // Broken requests, whose bytes an error might quote.
    Client::connect(address)
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\nX: y\r\n\r\n"
        ))
        .read();
    Client::connect(address)
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: app.test\r\nAuthorization : Bearer {TOKEN}\r\n\r\n"
        ))
        .read();
    assert_eq!(sign_out(address, &session), 200);
    assert_eq!(get(address, "/last", "").status, 401);
    gate.wait_for_log("\"/last\"");
    let log = gate.log().join("\n");
    let encoded = basic("ada", PASSWORD);
    let encoded = encoded.trim().rsplit(' ').next().expect("base64");
    for secret in [
        PASSWORD,
        "correct+horse",
        "wrong-password-3",
        encoded,
        &value,
        TOKEN,
        "c2VjcmV0LXNpZ25hdHVyZQ",
        QUERY,
        "cookie-secret-2",
        "backend-secret-1",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
    assert!(log.contains("\"/page\""), "the log was written: {log}");
}

/// A secret as it is, and the hashes of it that the gate might keep.
fn with_hashes(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned()];
    let decoded = URL_SAFE_NO_PAD.decode(secret).unwrap_or_default();
    for bytes in [secret.as_bytes(), &decoded] {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let hash = hash.as_ref();
        all.push(hash.iter().map(|byte| format!("{byte:02x}")).collect());
        all.push(STANDARD_NO_PAD.encode(hash));
        all.push(URL_SAFE_NO_PAD.encode(hash));
        all.push(format!("{hash:?}"));
    }
    all
}

/// The hashes of passwords, whole and the last part alone.
fn password_hashes(gate: &Gate) -> Vec<String> {
    let users = std::fs::read_to_string(gate.path().join("state/users.toml")).expect("accounts");
    let hashes: Vec<String> = users
        .split('"')
        .filter(|text| text.starts_with('$'))
        .flat_map(|hash| [hash, hash.rsplit('$').next().unwrap_or(hash)])
        .map(str::to_owned)
        .collect();
    assert!(!hashes.is_empty(), "{users}");
    hashes
}

#[track_caller]
fn holds_none(gate: &Gate, secrets: &[String]) {
    let log = gate.log().join("\n");
    for secret in secrets {
        assert!(
            !log.contains(secret.as_str()),
            "{secret} is in the log:\n{log}"
        );
    }
}

#[test]
fn no_secret_is_in_a_log_of_what_crosses_http2() {
    const SECRETS: [&str; 9] = [
        "bearer-secret-1",
        "wrong-secret-2",
        "query-secret-3",
        "content-secret-4",
        "answer-secret-5",
        "trailer-secret-6",
        "cookie-secret-7",
        "referer-secret-8",
        "broken-secret-9",
    ];
    let [
        bearer,
        wrong,
        query,
        content,
        _,
        trailer,
        cookie,
        referer,
        broken,
    ] = SECRETS;
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nSet-Cookie: app=answer-secret-5\r\nX-Api-Key: answer-secret-5\r\nContent-Length: 15\r\n\r\nanswer-secret-5",
    );
    let certificates = Certificates::new();
    let rules = "access = \"signed-in\"\n[sign_in]\nwith = [\"local\", \"basic\"]\n[limits]\nbody = \"1KiB\"";
    let gate = certificates
        .setup(&policy(&backend.url(), rules), "")
        .gateway("[log]\nformat = \"text\"\nlevel = \"trace\"\n")
        .account("ada")
        .start();
    let mut secrets: Vec<String> = SECRETS.map(str::to_owned).to_vec();
    secrets.extend([PASSWORD.to_owned(), PASSWORD.replace(' ', "+")]);
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        let path = format!("/page?code={query}");
        let ask = async |fields: &[(&str, &str)]| {
            let mut asked = request("GET", &path);
            for (name, value) in fields {
                asked = asked.header(*name, *value);
            }
            client.ask(asked).await.expect("an answer")
        };
        let page = client.ask(request("GET", SIGN_IN).header("accept", "text/html"));
        let page = page.await.expect("the page");
        let browser = page.cookies().join("; ");
        let post = |password: &str| {
            let form = form(&page.text(), "ada", password);
            secrets.push(form.split_once("csrf=").expect("a token").1[..20].to_owned());
            let head = request("POST", SIGN_IN)
                .header("content-type", "application/x-www-form-urlencoded")
                .header("sec-fetch-site", "same-origin")
                .header("cookie", &browser);
            (head, Bytes::from(form))
        };
        let mut answers: Vec<Answer> = Vec::new();
        for (head, form) in [wrong, PASSWORD].map(post) {
            answers.push(
                client
                    .exchange(head, Some((&[form], None)))
                    .await
                    .expect("an answer"),
            );
        }
        let session = answers
            .iter()
            .flat_map(Answer::cookies)
            .find(|cookie| cookie.contains("session=") && !cookie.ends_with("session="))
            .expect("a session")
            .to_owned();
        secrets.extend(with_hashes(session.split_once('=').expect("a value").1));
        let good = format!("{session}; app={cookie}");
        assert_eq!(
            ask(&[("cookie", &good), ("referer", referer)]).await.status,
            200
        );
        let pair = STANDARD.encode(format!("ada:{PASSWORD}"));
        let basic = format!("Basic {pair}");
        assert_eq!(ask(&[("authorization", &basic)]).await.status, 200);
        secrets.push(pair);
        let pair = STANDARD.encode(format!("ada:{wrong}"));
        let basic = format!("Basic {pair}");
        assert_eq!(ask(&[("authorization", &basic)]).await.status, 401);
        secrets.push(pair);
        let bearer = format!("Bearer {bearer}");
        assert_eq!(ask(&[("authorization", &bearer)]).await.status, 401);
        // Content that is too large, and trailers that are refused.
        let large = Bytes::from(content.repeat(100));
        let trailers = || {
            let value = trailer.parse().expect("a value");
            [(http::header::AUTHORIZATION, value)].into_iter().collect()
        };
        for piece in [Bytes::from(content), large] {
            let head = request("POST", &path).header("cookie", &good);
            let _ = client
                .exchange(head, Some((&[piece], Some(trailers()))))
                .await;
        }
        assert_eq!(
            ask(&[("cookie", &good), ("host", broken)]).await.status,
            400
        );
    });
    // Frames that the library refuses before the gate sees a request.
    for fields in [
        [("x-a", "broken-secret-9\r\n"), ("cookie", cookie)],
        [("connection", broken), ("cookie", cookie)],
        [("X-Upper", broken), ("authorization", broken)],
        [(":broken-secret-9", broken), ("te", broken)],
    ] {
        let mut client = Frames::open(certificates.connect(gate.address(), "app.test", "h2"));
        let head = [(":method", "GET"), (":scheme", "https"), (":path", "/")];
        let block = block(&[&head[..], &fields[..]].concat());
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block);
        client.find(&[HEADERS, RST_STREAM, GOAWAY]);
    }
    // Not TLS at all, by somebody who took the port for another.
    Client::connect(gate.address())
        .send(format!(
            "GET /?{broken} HTTP/1.1\r\nAuthorization: Bearer {broken}\r\n\r\n"
        ))
        .is_closed();
    secrets.extend(password_hashes(&gate));
    run(async {
        let client = connect(&gate, certificates.client(&["h2"])).await;
        assert_eq!(client.get("/last").await.status, 401);
    });
    gate.wait_for_log("/last");
    holds_none(&gate, &secrets);
}

#[test]
fn no_hash_and_no_refused_content_is_in_a_log() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nX: answer-secret-1\nbroken\r\n\r\n");
    let gate = Setup::plain(&policy(
        &backend.url(),
        "access = \"signed-in\"\n[sign_in]\nwith = [\"local\", \"basic\"]",
    ))
    .gateway("[log]\nformat = \"json\"\nlevel = \"trace\"\n")
    .account("ada")
    .start();
    let address = gate.address();
    let session = sign_in(address, "ada");
    let mut secrets = with_hashes(session.split_once('=').expect("a value").1);
    secrets.extend(["content-secret-2", "answer-secret-1", "broken-secret-3"].map(str::to_owned));
    // A backend's broken answer, and content to it.
    let head = format!("Host: app.test\r\nCookie: {session}\r\n");
    let content = "{\"card\":\"content-secret-2\"}";
    let asked = [
        format!("POST /a HTTP/1.1\r\n{head}Content-Length: 27\r\n\r\n{content}"),
        format!("POST /b HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\ncontent-secret-2\r\n"),
        format!(
            "POST /c HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n1;content-secret-2\r\nx\r\n0\r\nbroken-secret-3\r\n\r\n"
        ),
        format!("GET http://ada:broken-secret-3@app.test/d HTTP/1.1\r\n{head}\r\n"),
        format!("GET /e HTTP/broken-secret-3\r\n{head}\r\n"),
        format!("broken-secret-3 /f HTTP/1.1\r\n{head}\r\n"),
        format!("GET /g HTTP/1.1\r\nHost: broken-secret-3@app.test\r\nCookie: {session}\r\n\r\n"),
        format!("GET /h HTTP/1.1\r\n{head}Cookie: {session}\r\nCookie: broken-secret-3\r\n\r\n"),
        format!("GET /i HTTP/1.1\r\n{head}Authorization: Basic broken-secret-3\r\n\r\n"),
        format!(
            "POST {SIGN_IN} HTTP/1.1\r\n{head}Content-Length: 28\r\n\r\npassword=content-secret-2&x=%"
        ),
        format!("GET {SIGN_IN}?name=ada&password=broken-secret-3 HTTP/1.1\r\n{head}\r\n"),
        format!("GET /%zz?token=broken-secret-3 HTTP/1.1\r\n{head}\r\n"),
    ];
    for request in asked {
        let answer = Client::connect(address).send(&request).try_read(false);
        let answer = answer.unwrap_or_else(|| panic!("no answer to {request}"));
        for secret in &secrets {
            assert!(
                !answer.body.contains(secret.as_str()),
                "{request}: {answer:?}"
            );
        }
    }
    secrets.extend(password_hashes(&gate));
    assert_eq!(get(address, "/last", "").status, 401);
    gate.wait_for_log("\"/last\"");
    holds_none(&gate, &secrets);
}
