//! Who may pass, by what the gate knows of a request; what is tried out; and what people are told.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::streams::{connect, run};
use crate::support::{Answer, Backend, PASSWORD, Setup, basic, get, policy, portcullis};
use crate::tls::{Certificates, Person};

const BASIC: &str = "[sign_in]\nwith = [\"basic\"]\n";

fn as_user(address: std::net::SocketAddr, name: &str, path: &str, fields: &str) -> Answer {
    get(address, path, &format!("{}{fields}", basic(name, PASSWORD)))
}

#[test]
fn conditions_in_conditions_hold_for_the_client_that_a_proxy_names() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(
        &backend.url(),
        &format!(
            "{BASIC}[access]\nwho = \"signed-in\"\nany = [\n{{ users = [\"ada\"] }},\n\
             {{ networks = [\"10.0.0.0/8\"], not = {{ paths = {{ prefix = [\"/admin\"] }} }} }},\n]\n"
        ),
    ))
    .gateway("[trusted_proxies]\nnetworks = [\"127.0.0.1\"]\n")
    .account("ada")
    .account("bob")
    .start();
    let at = |name, path, from: &str| {
        let fields = format!("X-Forwarded-For: {from}\r\n");
        as_user(gate.address(), name, path, &fields).status
    };
    for (name, path, from, expected) in [
        ("ada", "/admin", "192.0.2.1", 200),
        ("bob", "/", "192.0.2.1", 403),
        ("bob", "/", "10.1.2.3", 200),
        ("bob", "/admin", "10.1.2.3", 403),
        ("bob", "/admin/x", "10.1.2.3", 403),
        ("bob", "/x/../%61dmin/x", "10.1.2.3", 400),
        ("bob", "/%61dmin/x", "10.1.2.3", 403),
        ("bob", "/administration", "10.1.2.3", 200),
    ] {
        assert_eq!(at(name, path, from), expected, "{name} {path} {from}");
    }
    let fields = "X-Forwarded-For: 10.1.2.3\r\n";
    assert_eq!(get(gate.address(), "/", fields).status, 401);
    assert_eq!(backend.requests(), 3);
    let line = gate.wait_for_log("access.denied");
    // The line of the condition that did not hold.
    assert!(line.contains("\"rule\":\"policies/app.toml:7\""), "{line}");
}

#[test]
fn a_client_certificate_counts_by_its_name_and_another_name_does_not() {
    let backend = Backend::ok();
    let certificates = Certificates::new();
    let person = Person::new();
    let rest = "[access]\nwho = \"public\"\nclient_certificates = [\"cn:rcgen self signed cert\"]\n\
                [[path]]\nprefix = \"/other\"\naccess = { who = \"public\", client_certificates = [\"cn:eve\"] }\n";
    let gate = certificates
        .setup(
            &policy(&backend.url(), rest),
            "client_certificates = { ca = \"people.pem\", required = false }",
        )
        .file("people.pem", &person.authority)
        .start();
    run(async {
        let shown = connect(&gate, person.client(&certificates, "h2")).await;
        assert_eq!(shown.get("/").await.status, 200);
        assert_eq!(shown.get("/other").await.status, 403);
        let nobody = connect(&gate, certificates.client(&["h2"])).await;
        assert_eq!(nobody.get("/").await.status, 403);
    });
    assert_eq!(backend.requests(), 1);
}

#[test]
fn a_rule_that_is_tried_is_logged_and_counted_and_not_followed() {
    let backend = Backend::ok();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("admin.sock");
    let gate = Setup::plain(&policy(
        &backend.url(),
        &format!(
            "{BASIC}[access]\nwho = \"signed-in\"\n[[access.deny]]\nusers = [\"eve\"]\n\
             [[access.deny]]\npaths = {{ exact = [\"/a\"] }}\nreport_only = true\n\
             [[path]]\nprefix = \"/admin\"\n[path.access]\nusers = [\"ada\"]\nreport_only = true\n"
        ),
    ))
    .gateway(&format!(
        "[admin]\naddress = \"unix:{}\"\n[log]\nformat = \"json\"\n",
        socket.display()
    ))
    .account("bob")
    .account("eve")
    .start();
    let address = gate.address();
    assert_eq!(as_user(address, "bob", "/a", "").status, 200);
    assert_eq!(as_user(address, "bob", "/admin", "").status, 200);
    // What is in force refuses as ever, and who is tried signs in.
    assert_eq!(as_user(address, "eve", "/admin/eve", "").status, 403);
    assert_eq!(get(address, "/admin/nobody", "").status, 401);
    assert_eq!(backend.requests(), 2);
    for (path, rule) in [("/a", 9), ("/admin", 15)] {
        let line = gate.wait_for_log(&format!("\"path\":\"{path}\""));
        assert!(line.contains("\"verdict\":\"allow\""), "{line}");
        let would = format!(
            "\"would_refuse\":{{\"reason\":\"access.denied\",\"rule\":\"policies/app.toml:{rule}\"}}"
        );
        assert!(line.contains(&would), "{line}");
    }
    for path in ["/admin/eve", "/admin/nobody"] {
        let line = gate.wait_for_log(&format!("\"path\":\"{path}\""));
        assert!(!line.contains("would_refuse"), "{line}");
    }
    let mut admin = UnixStream::connect(&socket).expect("a connection");
    let request = "GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n";
    admin.write_all(request.as_bytes()).expect("sent");
    let mut metrics = String::new();
    admin.read_to_string(&mut metrics).expect("read");
    let counted = "portcullis_would_refuse_total{app=\"app\",reason=\"access.denied\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn who_is_denied_is_told_as_whom_and_what_is_missing_where_the_operator_allows() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(
        &backend.url(),
        &format!(
            "contact = \"it@corp.test\"\n{BASIC}[access]\ngroups = [\"<b>wiki-admins\"]\n\
             tell_missing = true\n\
             [[path]]\nprefix = \"/quiet\"\naccess = {{ groups = [\"wiki-admins\"], tell_missing = false }}\n"
        ),
    ))
    .account("bob")
    .start();
    let browser = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    let page = as_user(gate.address(), "bob", "/", browser);
    assert_eq!(page.status, 403);
    for part in [
        "You are signed in as <b>bob</b>",
        "You need to be in one of these groups: &lt;b&gt;wiki-admins.",
        "mailto:it@corp.test",
    ] {
        assert!(page.body.contains(part), "no {part} in {}", page.body);
    }
    let problem = as_user(gate.address(), "bob", "/", "");
    let problem: serde_json::Value = serde_json::from_str(&problem.body).expect("JSON");
    assert_eq!(
        problem["missing"],
        serde_json::json!(["You need to be in one of these groups: <b>wiki-admins"])
    );
    for fields in [browser, ""] {
        let quiet = as_user(gate.address(), "bob", "/quiet", fields);
        assert_eq!(quiet.status, 403);
        assert!(!quiet.body.contains("wiki-admins"), "{}", quiet.body);
        let stranger = get(gate.address(), "/", fields);
        assert!(!stranger.body.contains("wiki-admins"), "{}", stranger.body);
    }
}

#[test]
fn explain_shows_the_stage_the_line_and_what_is_missing() {
    let rest = "[access]\nwho = \"signed-in\"\nany = [{ networks = [\"10.0.0.0/8\"] }, { emails = [\"ada@corp.test\"] }]\n\
                client_certificates = [\"cn:ada\"]\nclaims = { team = [\"a\"] }\npaths = { exact = [\"/x\"] }\n\
                deny = { not = { methods = [\"GET\"] }, report_only = true }\n";
    let directory = Setup::plain(&policy("whoami", rest)).write();
    let explain = |arguments: &str| {
        let output = portcullis(directory.path())
            .args(["explain", "--user", "ada"])
            .args(arguments.split(' '))
            .output()
            .expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };
    for (arguments, expected) in [
        (
            "--url https://app.test/x",
            "stop access   access.denied: needs claim `team` of `a`  (policies/app.toml:7)",
        ),
        (
            "--url https://app.test/x --claim team=b --claim team=a",
            "stop access   access.denied: needs client certificate `cn:ada`  (policies/app.toml:6)",
        ),
        (
            "--url https://app.test/y --claim team=a --client-certificate cn:ada",
            "stop access   access.denied: needs path `= /x`  (policies/app.toml:8)",
        ),
        (
            "--url https://app.test/x --claim team=a --client-certificate cn:ada",
            "stop access   access.denied: needs any of (client in `10.0.0.0/8`) (e-mail `ada@corp.test`)  (policies/app.toml:5)",
        ),
        (
            "--url https://app.test/x --claim team=a --client-certificate cn:ada --email ada@CORP.test",
            "=> allow",
        ),
        (
            "--url https://app.test/x --claim team=a --client-certificate cn:ada --from 10.1.2.3 --method PUT",
            "pass access   report only, would refuse: access.denied: denied to not (method `GET`)  (policies/app.toml:9)\n=> allow",
        ),
    ] {
        let shown = explain(arguments);
        assert!(shown.contains(expected), "{arguments}\n{shown}");
    }
}
