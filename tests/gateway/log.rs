//! What the log says, and what it never says.

use crate::support::{
    Backend, Client, PASSWORD, Setup, basic, get, policy, sign_in, sign_in_with, sign_out,
};

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
