//! Sign-in by GitHub's OAuth 2.0, at a server that answers as GitHub documents it, and does not.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{
    Answer, Backend, Gate, SIGN_IN, Setup, cookies, get, policy, portcullis, wait_until,
};

const TOKEN: &str = "gho_16C7e42F292c6912E7710c838347Ae178B4a";
const CALLBACK: &str = "/.portcullis/callback/hub";

/// How it behaves.
#[derive(Debug, Clone)]
struct Mode {
    organizations: Vec<&'static str>,
    teams: usize,
    endless: bool,
    /// What the token endpoint says with status 200.
    token: String,
    /// Status and content of `/user`.
    user: (u16, &'static str),
    /// A content that is announced and never comes.
    hangs: bool,
    emails: &'static str,
}

const OCTOCAT: &str = r#"{"id":583231,"login":"octocat","name":"The Octocat","type":"User"}"#;

impl Default for Mode {
    fn default() -> Self {
        Self {
            organizations: vec!["Acme", "elsewhere"],
            teams: 2,
            endless: false,
            token: format!(
                r#"{{"access_token":"{TOKEN}","scope":"read:org,user:email","token_type":"bearer"}}"#
            ),
            user: (200, OCTOCAT),
            hangs: false,
            emails: r#"[{"email":"cat@octo.test","primary":true,"verified":true},
                        {"email":"ceo@acme.test","primary":false,"verified":false}]"#,
        }
    }
}

/// A GitHub, and the gate in front of an application that asks it.
struct Site {
    hub: Backend,
    mode: Arc<Mutex<Mode>>,
    app: Backend,
    gate: Gate,
}

fn answer(status: u16, content: &str) -> Vec<u8> {
    let length = content.len();
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{content}")
        .into_bytes()
}

fn page(mode: &Mode, target: &str, all: &[String]) -> Vec<u8> {
    let number: usize = target.rsplit('=').next().unwrap().parse().unwrap();
    assert!(target.contains("per_page=100&"), "{target}");
    let first = if mode.endless { 0 } else { (number - 1) * 100 };
    let some: Vec<_> = all.iter().skip(first).take(100).cloned().collect();
    answer(200, &format!("[{}]", some.join(",")))
}

fn github(mode: &Mutex<Mode>, request: &[u8]) -> Vec<u8> {
    let mode = mode.lock().unwrap().clone();
    let request = String::from_utf8_lossy(request).into_owned();
    let target = request.split(' ').nth(1).unwrap();
    assert!(request.to_ascii_lowercase().contains("\r\nuser-agent: "));
    if target == "/login/oauth/access_token" {
        assert!(request.contains("client_secret=s3cret") && request.contains("code_verifier="));
        return answer(200, &mode.token);
    }
    if !request.contains(&format!("Bearer {TOKEN}")) {
        return answer(401, r#"{"message":"Bad credentials"}"#);
    }
    let (path, _) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/api/v3/user" if mode.hangs => b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{".to_vec(),
        "/api/v3/user" => answer(mode.user.0, mode.user.1),
        "/api/v3/user/emails" => answer(200, mode.emails),
        "/api/v3/user/orgs" => {
            let all: Vec<_> = mode
                .organizations
                .iter()
                .map(|name| format!(r#"{{"login":"{name}","id":1}}"#))
                .collect();
            page(&mode, target, &all)
        }
        "/api/v3/user/teams" => {
            let all: Vec<_> = (0..mode.teams)
                .map(|n| format!(r#"{{"slug":"t{n}","organization":{{"login":"Acme"}}}}"#))
                .collect();
            page(&mode, target, &all)
        }
        _ => answer(404, "{}"),
    }
}

impl Site {
    fn new(access: &str) -> Self {
        Self::with("organizations = [\"acme\"]", access)
    }

    fn with(who: &str, access: &str) -> Self {
        let mode = Arc::new(Mutex::new(Mode::default()));
        let said = Arc::clone(&mode);
        let hub = Backend::new(move |request| github(&said, request));
        let app = Backend::ok();
        let policy = policy(
            &app.url(),
            &format!(
                "[sign_in]\nwith = [\"hub\"]\n[access]\n{access}\n[headers]\nidentity = [\"user\", \"email\", \"groups\"]"
            ),
        );
        let gate = Setup::plain(&policy)
            .gateway(&format!(
                "[provider.hub]\nkind = \"github\"\nurl = \"{}\"\nclient_id = \"gate\"\n\
                 client_secret = {{ file = \"hub.secret\" }}\nrefresh = \"2s\"\n{who}\n",
                hub.url()
            ))
            .file("hub.secret", "s3cret\n")
            .start();
        Self {
            hub,
            mode,
            app,
            gate,
        }
    }

    fn set(&self, change: impl FnOnce(&mut Mode)) {
        change(&mut self.mode.lock().unwrap());
    }

    /// Begins a sign-in: the browser's cookie, and GitHub's URL.
    fn begin(&self) -> (String, String) {
        let begun = get(
            self.gate.address(),
            &format!("{SIGN_IN}?to=/wiki"),
            "Accept: text/html\r\n",
        );
        assert_eq!(begun.status, 303, "{begun:?}");
        let url = begun.field("location").unwrap().to_owned();
        (cookies(&begun).join("; "), url)
    }

    fn come_back(&self, browser: &str, query: &str) -> Answer {
        get(
            self.gate.address(),
            &format!("{CALLBACK}?{query}"),
            &format!("Accept: text/html\r\nCookie: {browser}\r\n"),
        )
    }

    fn finish(&self) -> Answer {
        let (browser, url) = self.begin();
        self.come_back(
            &browser,
            &format!("code=abc&state={}", parameter(&url, "state")),
        )
    }

    /// Signs in; the session's cookie.
    fn sign_in(&self) -> String {
        session(&self.finish()).expect("a session")
    }

    fn visit(&self, session: &str) -> u16 {
        get(
            self.gate.address(),
            "/wiki",
            &format!("Accept: text/html\r\nCookie: {session}\r\n"),
        )
        .status
    }

    /// Nobody gets in, for this reason, and whoever comes is answered so.
    #[track_caller]
    fn refuses(&self, status: u16, reason: &str) {
        let refused = self.finish();
        assert_eq!((refused.status, session(&refused)), (status, None));
        self.gate.wait_for_log(reason);
    }
}

fn session(answer: &Answer) -> Option<String> {
    cookies(answer)
        .into_iter()
        .find(|cookie| cookie.contains("session="))
}

fn parameter(url: &str, name: &str) -> String {
    let query = url.split_once('?').unwrap().1;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).unwrap().1.to_owned()
}

#[test]
fn somebody_of_the_organisation_signs_in_with_their_teams() {
    let site = Site::new("groups = [\"acme/t1\"]");
    let (_, url) = site.begin();
    assert!(url.starts_with(&format!("{}/login/oauth/authorize?", site.hub.url())));
    assert_eq!(parameter(&url, "scope"), "read%3Aorg+user%3Aemail");
    assert_eq!(parameter(&url, "code_challenge_method"), "S256");
    assert_eq!(parameter(&url, "response_type"), "code");
    let done = site.finish();
    assert_eq!((done.status, done.field("location")), (303, Some("/wiki")));
    assert_eq!(site.visit(&session(&done).unwrap()), 200);
    let seen = site.app.received();
    assert!(seen.contains("x-portcullis-user: octocat\r\n"), "{seen}");
    assert!(
        seen.contains("x-portcullis-email: cat@octo.test\r\n"),
        "{seen}"
    );
    assert!(
        !seen.contains("elsewhere") && seen.contains("acme/t0"),
        "{seen}"
    );
    for secret in [TOKEN, "s3cret"] {
        assert!(!seen.contains(secret));
        assert!(!site.gate.log().iter().any(|line| line.contains(secret)));
    }
}

#[test]
fn the_name_is_the_number_where_it_is_asked_for() {
    let site = Site::with(
        "organizations = [\"ACME\"]\nname_claim = \"id\"",
        "groups = [\"ACME\"]",
    );
    assert_eq!(site.visit(&site.sign_in()), 200);
    assert!(
        site.app
            .received()
            .contains("x-portcullis-user: 583231\r\n")
    );
}

#[test]
fn who_is_in_none_of_the_organisations_is_not_let_in() {
    let site = Site::new("groups = [\"acme\"]");
    for organizations in [vec![], vec!["elsewhere"], vec!["acme-evil", "ac"]] {
        site.set(|mode| mode.organizations = organizations);
        site.refuses(403, "oidc.not_a_member");
    }
}

#[test]
fn any_user_is_let_in_where_it_is_said_and_has_no_groups() {
    let site = Site::with("any_user = true", "groups = [\"Acme\", \"acme\"]");
    let session = site.sign_in();
    // Signed in, and told that they may not.
    assert_eq!(site.visit(&session), 403);
}

#[test]
fn an_address_that_is_not_verified_or_not_primary_is_none() {
    for emails in [
        r#"[{"email":"ceo@acme.test","primary":true,"verified":false}]"#,
        r#"[{"email":"ceo@acme.test","primary":false,"verified":true}]"#,
        "[]",
    ] {
        let site = Site::new("groups = [\"acme\"]");
        site.set(|mode| mode.emails = emails);
        assert_eq!(site.visit(&site.sign_in()), 200);
        assert!(!site.app.received().contains("ceo@acme.test"));
    }
}

#[test]
fn five_hundred_teams_over_pages_are_all_known_and_too_many_are_refused() {
    let site = Site::new("groups = [\"acme/t499\"]");
    site.set(|mode| mode.teams = 500);
    assert_eq!(site.visit(&site.sign_in()), 200);
    site.set(|mode| mode.teams = 1025);
    site.refuses(403, "oidc.group_overage");
    let before = site.hub.requests();
    site.set(|mode| mode.endless = true);
    site.refuses(403, "oidc.group_overage");
    assert!(site.hub.requests() - before < 40);
}

#[test]
fn an_answer_without_the_state_of_this_browser_is_refused() {
    let site = Site::new("groups = [\"acme\"]");
    let asked = site.hub.requests();
    let (browser, url) = site.begin();
    let state = parameter(&url, "state");
    for (cookie, query) in [
        (&*browser, "code=abc".to_owned()),
        (&browser, "code=abc&state=".to_owned()),
        (&browser, format!("code=abc&state={state}&state={state}")),
        ("a=b", format!("code=abc&state={state}")),
    ] {
        let refused = site.come_back(cookie, &query);
        assert_eq!((refused.status, session(&refused)), (400, None), "{query}");
    }
    assert_eq!(site.hub.requests(), asked, "nothing was asked of GitHub");
    let good = format!("code=abc&state={state}");
    assert!(session(&site.come_back(&browser, &good)).is_some());
    assert_eq!(
        site.come_back(&browser, &good).status,
        400,
        "it counts once"
    );
}

#[test]
fn an_error_in_an_answer_of_status_200_gives_no_session() {
    let site = Site::new("groups = [\"acme\"]");
    for (error, status, reason) in [
        ("bad_verification_code", 400, "oidc.invalid_grant"),
        ("incorrect_client_credentials", 502, "oidc.misconfigured"),
        ("redirect_uri_mismatch", 502, "oidc.misconfigured"),
    ] {
        // With a token beside it, too.
        for token in ["", &format!(r#","access_token":"{TOKEN}""#)] {
            site.set(|mode| mode.token = format!(r#"{{"error":"{error}"{token}}}"#));
            site.refuses(status, reason);
        }
    }
    for nonsense in [
        "",
        "{}",
        "[]",
        "access_token=abc&token_type=bearer",
        r#"{"access_token":""}"#,
    ] {
        site.set(|mode| mode.token = nonsense.to_owned());
        site.refuses(403, "oidc.userinfo");
    }
}

#[test]
fn what_is_no_user_is_nobody() {
    let site = Site::new("groups = [\"acme\"]");
    for (user, status, reason) in [
        ((200, "{}"), 403, "oidc.userinfo"),
        (
            (200, r#"{"id":1,"id":2,"login":"a"}"#),
            403,
            "oidc.userinfo",
        ),
        ((200, r#"{"id":"1","login":"a"}"#), 403, "oidc.userinfo"),
        (
            (200, r#"{"id":1,"login":"a\u0000"}"#),
            403,
            "sign_in.jwt_name",
        ),
        ((404, "{}"), 403, "oidc.userinfo"),
        ((302, "{}"), 403, "oidc.userinfo"),
        ((401, "{}"), 400, "oidc.invalid_grant"),
        (
            (403, r#"{"message":"Sorry. Your account was suspended"}"#),
            400,
            "oidc.invalid_grant",
        ),
        ((500, "{}"), 503, "oidc.away"),
        (
            (
                403,
                r#"{"message":"API rate limit exceeded for user ID 1."}"#,
            ),
            503,
            "oidc.away",
        ),
    ] {
        site.set(|mode| mode.user = user);
        site.refuses(status, reason);
    }
}

#[test]
fn an_answer_that_is_too_long_or_never_ends_is_given_up() {
    let site = Site::new("groups = [\"acme\"]");
    let long = format!(
        r#"{{"id":1,"login":"a","bio":"{}"}}"#,
        "x".repeat(1024 * 1024)
    );
    site.set(|mode| mode.user = (200, long.leak()));
    site.refuses(503, "oidc.away");
    site.set(|mode| mode.hangs = true);
    let begun = Instant::now();
    site.refuses(503, "oidc.away");
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn an_answer_of_another_issuer_is_refused() {
    let site = Site::new("groups = [\"acme\"]");
    let issuer = format!("{}/login/oauth", site.hub.url());
    let asked = site.hub.requests();
    for (issuer, status) in [("https://evil.test/login/oauth", 403), (&issuer, 303)] {
        let (browser, url) = site.begin();
        let state = parameter(&url, "state");
        let done = site.come_back(&browser, &format!("code=abc&state={state}&iss={issuer}"));
        assert_eq!(done.status, status, "{issuer}");
        assert_eq!(site.hub.requests() == asked, status == 403);
    }
}

/// The status that a session has after GitHub was asked again.
#[track_caller]
fn becomes(site: &Site, session: &str, status: u16) {
    wait_until("the session is another one", || {
        site.visit(session) == status
    });
}

#[test]
fn a_token_that_is_taken_back_ends_the_session() {
    let site = Site::new("groups = [\"acme\"]");
    let session = site.sign_in();
    assert_eq!(site.visit(&session), 200);
    site.set(|mode| mode.user = (401, r#"{"message":"Bad credentials"}"#));
    becomes(&site, &session, 303);
    site.set(|mode| mode.user = (200, OCTOCAT));
    assert_eq!(site.visit(&session), 303, "it does not come back");
}

#[test]
fn who_leaves_a_team_or_the_organisation_or_becomes_somebody_else_is_out() {
    let site = Site::new("groups = [\"acme/t1\"]");
    let session = site.sign_in();
    assert_eq!(site.visit(&session), 200);
    site.set(|mode| mode.teams = 1);
    becomes(&site, &session, 403);
    site.set(|mode| mode.organizations = vec!["elsewhere"]);
    becomes(&site, &session, 303);
    site.set(|mode| *mode = Mode::default());
    let session = site.sign_in();
    site.set(|mode| mode.user = (200, r#"{"id":2,"login":"octocat"}"#));
    becomes(&site, &session, 303);
}

#[test]
fn while_github_is_away_who_is_signed_in_stays_so() {
    let site = Site::new("groups = [\"acme\"]");
    let session = site.sign_in();
    site.set(|mode| mode.user = (502, "<html>"));
    std::thread::sleep(Duration::from_millis(2_100));
    let asked = site.hub.requests();
    assert_eq!(site.visit(&session), 200);
    assert!(site.hub.requests() > asked, "it was asked");
}

#[test]
fn a_github_without_organisations_and_keys_of_others_are_problems() {
    let gate = |keys: &[&str]| {
        let mut text = String::from("[provider.hub]\nkind = \"github\"\n");
        for key in keys {
            writeln!(text, "{key}").unwrap();
        }
        let setup = Setup::plain(&policy("whoami", "access = \"public\"")).gateway(&text);
        let checked = setup.file("s", "x").write();
        let out = portcullis(checked.path()).arg("check").output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8(said).unwrap())
    };
    let good = [
        "client_id = \"a\"",
        "client_secret = { file = \"s\" }",
        "organizations = [\"acme\"]",
    ];
    let (fine, said) = gate(&good);
    assert!(fine, "{said}");
    for (keys, problem) in [
        (&good[..2], "organizations"),
        (&good[1..], "client_id"),
        (&[good[0], good[2]], "client_secret"),
        (&[good[0], good[1], "organizations = []"], "nobody"),
        (
            &[good[0], good[1], "organizations = [\"a/b\"]"],
            "organisation's name",
        ),
        (&[good[0], good[1], good[2], "any_user = true"], "everybody"),
        (
            &[good[0], good[1], good[2], "url = \"http://git.test\""],
            "https",
        ),
        (
            &[good[0], good[1], good[2], "url = \"https://git.test/x\""],
            "without a path",
        ),
        (
            &[good[0], good[1], good[2], "groups_claim = \"x\""],
            "groups_claim",
        ),
        (
            &[good[0], good[1], good[2], "scopes = [\"repo\"]"],
            "scopes",
        ),
        (
            &[good[0], good[1], good[2], "name_claim = \"name\""],
            "`login` or `id`",
        ),
    ] {
        let (fine, said) = gate(keys);
        assert!(!fine && said.contains(problem), "{keys:?}: {said}");
    }
}
