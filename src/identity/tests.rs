//! Tests of the door as a whole.

use std::collections::HashSet;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::pure::identity::User;
use crate::pure::jwk::Algorithm;
use crate::pure::jwk::tests::{Signer, encode, set};
use crate::pure::jwt::BadToken;
use crate::pure::return_to::ReturnTo;
use crate::pure::session::Lifetimes;
use crate::pure::table::{Key, Table};
use crate::refusal::Answer;
use crate::session::Sessions;

use super::accounts::Account;
use super::kept::Asker;
use super::password::Stored;
use super::provider::{KEYS, KeyFile, Kind, Takes, kinds};
use super::*;

pub(crate) const ISSUER: &str = "https://idp.test";

pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

pub(crate) fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

/// A gateway with the local accounts `bob` and `eve` and what else is asked for.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: Identity,
    pub(crate) providers: Vec<Provider>,
    pub(crate) signer: Signer,
}

pub(crate) fn account(password: &str, groups: &[&str]) -> Account {
    let groups = groups.iter().map(|group| Arc::from(*group)).collect();
    Account::new(password::cheap(password), groups, None)
}

pub(crate) fn accounts(list: &[(&str, Account)]) -> Accounts {
    let mut accounts = Accounts::default();
    for (name, account) in list {
        accounts.add(name, account.clone());
    }
    Accounts::parse("users.toml", &accounts.render(), &Problems::default()).unwrap()
}

fn read(text: &str) -> Result<Vec<Provider>, Vec<String>> {
    const FILE: &[Key] = &[Key {
        name: "provider",
        kind: "",
        default: "",
        doc: "",
    }];
    let problems = Problems::default();
    let table = Table::parse("portcullis.toml", text, FILE, &problems).unwrap();
    let named = table.named_tables("provider", KEYS);
    let providers = named
        .iter()
        .filter_map(|(name, table)| Provider::read(name, table));
    let providers = providers.collect();
    if problems.is_empty() {
        return Ok(providers);
    }
    Err(problems
        .into_sorted()
        .into_iter()
        .map(|problem| problem.message)
        .collect())
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::ed25519();
        std::fs::write(dir.path().join("jwks.json"), set(&[signer.jwk("k1")])).unwrap();
        let legacy = format!(
            "old:{}\nbob:{}\n",
            password::cheap("legacy password").for_file(),
            password::cheap("bob's other one").for_file()
        );
        std::fs::write(dir.path().join("htpasswd"), legacy).unwrap();
        let providers = read(&format!(
            "[provider.ci]\nkind = 'jwt'\nissuer = '{ISSUER}'\naudience = 'wiki'\n\
             jwks_file = 'jwks.json'\ngroups_claim = 'groups'\n\
             [provider.other]\nkind = 'jwt'\nissuer = 'https://other.test'\naudience = 'wiki'\n\
             jwks_url = 'https://other.test/jwks'\n\
             [provider.legacy]\nkind = 'basic'\nfile = 'htpasswd'\ngroups = ['old']\n"
        ))
        .unwrap();
        let sessions =
            Sessions::open(&dir.path().join("s.redb"), Lifetimes::default(), || at(0)).unwrap();
        let shared = Arc::new(Shared::new(sessions, 2).unwrap());
        let people = [
            ("bob", account("bobs password", &["staff"])),
            ("eve", account("eves password", &[])),
        ];
        let identity = Self::open(&shared, &dir, &providers, accounts(&people));
        Self {
            dir,
            shared,
            identity,
            providers,
            signer,
        }
    }

    fn open(
        shared: &Arc<Shared>,
        dir: &tempfile::TempDir,
        providers: &[Provider],
        accounts: Accounts,
    ) -> Identity {
        let problems = Problems::default();
        let identity = Identity::new(
            shared,
            accounts,
            MachineTokens::default(),
            providers,
            dir.path(),
            &problems,
        );
        identity.unwrap_or_else(|| panic!("{:?}", problems.into_sorted()))
    }

    /// What a reload does with other accounts.
    pub(crate) fn reload(&mut self, list: &[(&str, Account)]) {
        self.identity = Self::open(&self.shared, &self.dir, &self.providers, accounts(list));
    }

    pub(crate) async fn sign_in(
        &self,
        name: &str,
        password: &str,
        client: &str,
        presented: Option<&str>,
    ) -> Result<SignedIn, Failure> {
        let asked = AtSignIn {
            name,
            password: &secret(password),
            client: client.parse().unwrap(),
            host: "wiki.test",
            user_agent: "Mozilla/5.0",
            presented,
        };
        self.identity.sign_in_with_password(asked, at(0)).await
    }

    pub(crate) async fn cookie(&self) -> Zeroizing<String> {
        self.sign_in("bob", "bobs password", "192.0.2.1", None)
            .await
            .unwrap()
            .cookie
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut all = json!({"iss": ISSUER, "aud": "wiki", "sub": "robot",
            "exp": 1_700_000_300, "groups": ["bots"]});
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        let header = json!({"alg": "EdDSA", "kid": "k1"});
        let message = format!("{}.{}", encode(header.to_string()), encode(all.to_string()));
        let signature = self.signer.sign(Algorithm::EdDsa, message.as_bytes());
        format!("{message}.{signature}")
    }

    async fn basic(
        &self,
        methods: &[&str],
        name: &str,
        password: &str,
        client: &str,
    ) -> Result<Arc<User>, Failure> {
        let methods: Vec<_> = methods.iter().map(|method| Arc::from(*method)).collect();
        let client = client.parse().unwrap();
        self.identity
            .by_password(&methods, name, &secret(password), client, at(0))
            .await
    }

    async fn bearer(
        &self,
        methods: &[&str],
        token: &str,
        seconds: u64,
    ) -> Result<Arc<User>, Failure> {
        let methods: Vec<_> = methods.iter().map(|method| Arc::from(*method)).collect();
        let program = self.identity.by_token(&methods, token, at(seconds)).await;
        program.map(|program| program.user())
    }
}

#[test]
fn providers_are_read() {
    let providers = World::new().providers;
    let kinds = kinds(&providers);
    assert_eq!(kinds.len(), 6);
    assert_eq!(kinds["tokens"], Kind::Bearer);
    assert_eq!(kinds["local"], Kind::Session);
    assert_eq!(kinds["basic"], Kind::Basic);
    assert_eq!(kinds["legacy"], Kind::Basic);
    assert_eq!(kinds["ci"], Kind::Bearer);
}

#[test]
fn an_issuer_that_is_asked_says_for_whom_its_tokens_are() {
    let said = |more: &str| read(&format!("[provider.x]\nkind = 'introspection'\n{more}"));
    let client =
        "introspection_url = 'https://i/'\nclient_id = 'a'\nclient_secret = { file = 's' }\n";
    for more in [
        "audience = 'a'",
        "clients = 'c'",
        "audience = ['a', 'b']\nclients = ['c']\nissuer = 'i'\nclient_auth = 'client_secret_post'",
    ] {
        assert!(said(&format!("{client}{more}")).is_ok(), "{more}");
    }
    assert_eq!(said("").unwrap_err().len(), 4);
    for more in [
        "",
        "audience = []",
        "audience = 'a'\nclients = []",
        "audience = 'a'\nissuer = ''",
        "audience = 'a'\nscopes = ['b']",
        "audience = 'a'\njwks_file = 'b'",
        "audience = 'a'\nclient_auth = 'none'",
        "audience = 'a'\nintrospection_urls = 'b'",
    ] {
        let problems = said(&format!("{client}{more}")).unwrap_err();
        assert_eq!(problems.len(), 1, "{more}: {problems:?}");
    }
    let clear = client.replace("https", "http");
    assert!(said(&format!("{clear}audience = 'a'")).is_err());
}

#[test]
fn an_issuer_that_is_asked_is_another_when_anything_about_it_changes() {
    let world = World::new();
    let authority = || {
        let made = rcgen::generate_simple_self_signed(["i".to_owned()]).unwrap();
        std::fs::write(world.dir.path().join("ca.pem"), made.cert.pem()).unwrap();
    };
    std::fs::write(world.dir.path().join("s"), "secret").unwrap();
    authority();
    let open = |audience: &str| {
        let providers = read(&format!(
            "[provider.x]\nkind = 'introspection'\nintrospection_url = 'https://i/'\nclient_id = 'a'\n\
             client_secret = {{ file = 's' }}\naudience = '{audience}'\nca = 'ca.pem'\n"
        ));
        let providers = providers.unwrap();
        let identity = World::open(&world.shared, &world.dir, &providers, accounts(&[]));
        match identity.methods.get("x") {
            Some(Method::Introspection(one)) => Arc::clone(one),
            _ => panic!("no introspector"),
        }
    };
    let first = open("a");
    assert!(Arc::ptr_eq(&first, &open("a")));
    assert_ne!(first.fingerprint, open("b").fingerprint);
    std::fs::write(world.dir.path().join("s"), "another").unwrap();
    let second = open("a");
    assert_ne!(first.fingerprint, second.fingerprint);
    authority();
    assert_ne!(second.fingerprint, open("a").fingerprint);
}

#[test]
fn a_provider_that_would_take_too_much_or_nothing_is_a_problem() {
    let good = "issuer = 'i'\naudience = 'a'\njwks_file = 'f'\n";
    let jwt = |more: &str| read(&format!("[provider.x]\nkind = 'jwt'\n{more}")).unwrap_err();
    assert!(read(&format!("[provider.x]\nkind = 'jwt'\n{good}")).is_ok());
    assert_eq!(jwt("").len(), 3, "issuer, audience and keys");
    for (more, expected) in [
        (
            format!("{good}algorithms = ['HS256']"),
            "`HS256` can't be used: one of `RS256`",
        ),
        (
            format!("{good}algorithms = ['none']"),
            "`none` can't be used: one of `RS256`",
        ),
        (
            format!("{good}algorithms = []"),
            "an empty list would take no token",
        ),
        (
            format!("{good}type = []"),
            "an empty list would take no token",
        ),
        (
            format!("{good}file = 'x'"),
            "`file` is for `kind = \"basic\"` only",
        ),
        (
            format!("{good}jwks_url = 'https://x/'"),
            "take either `jwks_url` or `jwks_file`",
        ),
        (
            "issuer = 'i'\naudience = []\njwks_file = 'f'".to_owned(),
            "an empty list would",
        ),
        (
            "issuer = ''\naudience = 'a'\njwks_file = 'f'".to_owned(),
            "`` can't be used",
        ),
    ] {
        let problems = jwt(&more);
        assert!(
            problems.iter().any(|problem| problem.starts_with(expected)),
            "{problems:?}"
        );
    }
    for url in [
        "http://idp.test/jwks",
        "ftp://x/",
        "file:///etc/passwd",
        "https://a@b/",
        "x",
    ] {
        let problems = jwt(&format!("issuer = 'i'\naudience = 'a'\njwks_url = '{url}'"));
        assert!(
            problems[0].contains("an `https://` URL"),
            "{url}: {problems:?}"
        );
    }
    for url in [
        "https://idp.test/jwks",
        "http://127.0.0.1:8080/x",
        "http://[::1]/x",
    ] {
        let text =
            format!("[provider.x]\nkind = 'jwt'\nissuer = 'i'\naudience = 'a'\njwks_url = '{url}'");
        assert!(read(&text).is_ok(), "{url}");
    }
    for name in ["local", "basic", "Upper", "\"a b\"", "\"\""] {
        assert!(
            read(&format!("[provider.{name}]\nkind = 'jwt'\n{good}")).is_err(),
            "{name}"
        );
    }
    assert!(read("[provider.x]\nkind = 'ldap'").is_err());
    assert!(read("[provider.x]\nissuer = 'i'").is_err());
    assert!(read("[provider.x]\nkind = 'basic'").is_err());
    assert!(read("[provider.x]\nkind = 'basic'\nfile = 'f'\nissuer = 'i'").is_err());
}

#[test]
fn a_client_proves_itself_in_one_way_that_is_whole() {
    use oidc::{Audience, Authentication};
    const PEOPLE: &str =
        "[provider.x]\nkind = 'oidc'\nissuer = 'https://i.test'\nclient_id = 'g'\n";
    const SECRET: &str = "client_secret = { env = 'S' }\n";
    let stated = |more: &str| {
        read(&format!("{PEOPLE}{more}")).map(|providers| match &providers[0].takes {
            Takes::People { settings, key, .. } => {
                let published = providers[0].needs_published_keys();
                (settings.authentication, key.clone(), published)
            }
            Takes::Passwords { .. } | Takes::Tokens { .. } | Takes::Introspected { .. } => {
                panic!("another kind")
            }
        })
    };
    for (name, secret, expected) in [
        ("client_secret_basic", SECRET, Authentication::Basic),
        ("client_secret_post", SECRET, Authentication::Post),
        ("private_key_jwt", "", Authentication::Key(Audience::Issuer)),
        ("tls", "certificate = 'c'\nkey = 'k'", Authentication::Tls),
        ("none", "", Authentication::None),
    ] {
        let (authentication, key, published) =
            stated(&format!("client_auth = '{name}'\n{secret}")).unwrap();
        assert_eq!((authentication, key), (expected, None));
        assert_eq!(published, name == "private_key_jwt");
    }
    let by_key = "client_auth = 'private_key_jwt'\n";
    let given = "client_key = 'k'\nclient_key_id = '1'\nclient_key_certificate = 'c'\n\
                 client_assertion_audience = 'token_endpoint'";
    let (authentication, key, published) = stated(&format!("{by_key}{given}")).unwrap();
    assert_eq!(authentication, Authentication::Key(Audience::TokenEndpoint));
    let file = KeyFile {
        file: "k".into(),
        id: Some("1".to_owned()),
        certificate: Some("c".into()),
    };
    assert_eq!((key, published), (Some(file), false));
    for wrong in [
        format!("{by_key}{SECRET}"),
        format!("{by_key}client_key_id = '1'"),
        format!("{by_key}client_key_certificate = 'c'"),
        format!("{by_key}client_assertion_audience = 'me'"),
        format!("{by_key}client_key = '-----BEGIN PRIVATE KEY-----'"),
        format!("{SECRET}client_key = 'k'"),
        format!("{SECRET}client_assertion_audience = 'issuer'"),
        "client_auth = 'tls'".to_owned(),
        "client_auth = 'client_secret_post'".to_owned(),
        format!("{SECRET}client_auth = 'magic'"),
        String::new(),
    ] {
        assert_eq!(stated(&wrong).unwrap_err().len(), 1, "{wrong}");
    }
}

#[test]
fn groups_that_do_not_fit_a_token_are_asked_for_where_the_configuration_says_and_nowhere_else() {
    const PEOPLE: &str = "[provider.x]\nkind = 'oidc'\nissuer = 'https://i.test'\nclient_id = 'g'\n\
                          client_secret = { env = 'S' }\n";
    const GRAPH: &str = "https://graph.microsoft.com/v1.0/me/getMemberObjects";
    let stated = |more: &str| {
        read(&format!("{PEOPLE}{more}")).map(|providers| match &providers[0].takes {
            Takes::People { settings, .. } => settings.groups_url.clone(),
            Takes::Passwords { .. } | Takes::Tokens { .. } | Takes::Introspected { .. } => {
                panic!("another kind")
            }
        })
    };
    let at = format!("groups_url = '{GRAPH}'\n");
    for groups in ["preset = 'entra'", "groups_claim = 'groups'"] {
        let stated = stated(&format!("{at}{groups}")).unwrap();
        assert_eq!(stated.as_deref(), Some(GRAPH), "{groups}");
    }
    assert_eq!(stated("preset = 'entra'").unwrap(), None, "no preset asks");
    for wrong in [
        at.clone(),
        format!("{at}preset = 'google'"),
        "groups_url = 'http://graph.test/'\npreset = 'entra'".to_owned(),
        "groups_url = 'https://a@graph.test/'\npreset = 'entra'".to_owned(),
        "groups_url = ''\npreset = 'entra'".to_owned(),
    ] {
        assert_eq!(stated(&wrong).unwrap_err().len(), 1, "{wrong}");
    }
}

/// What a browser is sent to a provider with that is stated so.
async fn asks_of(more: &str) -> Vec<(String, String)> {
    let text = format!(
        "[provider.x]\nkind = 'oidc'\nissuer = 'https://i.test'\nclient_id = 'g'\n\
         client_secret = {{ env = 'S' }}\nauthorization_url = 'https://i.test/authorize'\n\
         token_url = 'https://i.test/token'\njwks_url = 'https://i.test/jwks'\n{more}"
    );
    let settings = match &read(&text).unwrap()[0].takes {
        Takes::People { settings, .. } => oidc::Settings::clone(settings),
        Takes::Passwords { .. } | Takes::Tokens { .. } | Takes::Introspected { .. } => {
            panic!("another kind")
        }
    };
    let provider = Oidc::new(settings, Client::without_tls(), oidc::Proof::None);
    let asked = oidc::Begin {
        browser: "b",
        redirect_uri: "https://wiki.test/.portcullis/callback/x",
        to: &ReturnTo::parse("/"),
        max_age: None,
        acr: &[],
        login_hint: None,
        hand_over: None,
    };
    let begun = provider.begin(asked, at(0)).await.unwrap();
    assert!(begun.url.starts_with("https://i.test/authorize?"));
    let url = openidconnect::url::Url::parse(&begun.url).unwrap();
    url.query_pairs().into_owned().collect()
}

fn one<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    let mut of_name = pairs.iter().filter(|(own, _)| own == name);
    let value = of_name.next().map(|(_, value)| &**value);
    assert_eq!(of_name.next(), None, "{name} comes once");
    value
}

#[tokio::test]
async fn each_preset_asks_for_what_gives_a_refresh_token_there() {
    for (preset, scope, own) in [
        ("keycloak", "openid profile email", &[][..]),
        ("entra", "openid profile email offline_access", &[]),
        (
            "google",
            "openid profile email",
            &[("access_type", "offline"), ("prompt", "consent")],
        ),
        ("okta", "openid profile email groups offline_access", &[]),
        ("auth0", "openid profile email offline_access", &[]),
        ("gitlab", "openid profile email", &[]),
        ("authentik", "openid profile email offline_access", &[]),
        ("zitadel", "openid profile email offline_access", &[]),
        ("dex", "openid profile email groups offline_access", &[]),
    ] {
        let pairs = asks_of(&format!("preset = '{preset}'")).await;
        assert_eq!(one(&pairs, "scope"), Some(scope), "{preset}");
        for name in ["access_type", "prompt"] {
            let expected = own.iter().find(|(own, _)| *own == name);
            let expected = expected.map(|(_, value)| *value);
            assert_eq!(one(&pairs, name), expected, "{preset}");
        }
    }
}

#[tokio::test]
async fn what_the_configuration_says_of_a_request_counts_before_the_preset() {
    let pairs = asks_of(
        "preset = 'google'\nprompt = []\n\
         authorization_parameters = { access_type = 'online', hd = 'a&state=b.test' }",
    )
    .await;
    assert_eq!(one(&pairs, "prompt"), None);
    assert_eq!(one(&pairs, "access_type"), Some("online"));
    assert_eq!(one(&pairs, "hd"), Some("a&state=b.test"));
    assert_eq!(one(&pairs, "state").map(str::len), Some(43));
    let pairs =
        asks_of("preset = 'google'\nauthorization_parameters = { hd = 'example.com' }").await;
    assert_eq!(one(&pairs, "access_type"), Some("offline"));
    assert_eq!(one(&pairs, "hd"), Some("example.com"));
}

#[test]
fn no_parameter_takes_the_place_of_what_the_gate_says() {
    let stated = |parameters: &str| {
        read(&format!(
            "[provider.x]\nkind = 'oidc'\nissuer = 'https://i.test'\nclient_id = 'g'\n\
             client_secret = {{ env = 'S' }}\nauthorization_parameters = {parameters}\n"
        ))
    };
    for name in [
        "state",
        "nonce",
        "redirect_uri",
        "code_challenge",
        "response_type",
        "client_id",
        "scope",
        "prompt",
        "request_uri",
        "'Redirect.Uri'",
    ] {
        let problems = stated(&format!("{{ {name} = 'x', hd = 'y' }}")).unwrap_err();
        let bare = name.trim_matches('\'');
        let expected = format!("expected no `{bare}`, which the gate says itself");
        assert_eq!(problems, [expected]);
    }
    let many: Vec<_> = (0..17).map(|number| format!("a{number} = 'x'")).collect();
    for wrong in [
        "{ hd = [] }",
        "{ hd = ['a', 'b'] }",
        "{ hd = '' }",
        "{ hd = 1 }",
        "{ 'h d' = 'a' }",
        "'hd'",
        &format!("{{ {} }}", many.join(", ")),
    ] {
        assert_eq!(stated(wrong).unwrap_err().len(), 1, "{wrong}");
    }
}

#[test]
fn a_renewed_key_is_taken_up_and_nothing_else_forgets_what_is_known() {
    let world = World::new();
    let base = world.dir.path();
    let providers = read(
        "[provider.x]\nkind = 'oidc'\nissuer = 'http://localhost:1'\nclient_id = 'g'\n\
         client_auth = 'private_key_jwt'\nclient_key = 'client.pem'",
    )
    .unwrap();
    let renew = || {
        let pair = rcgen::KeyPair::generate().unwrap();
        std::fs::write(base.join("client.pem"), pair.serialize_pem()).unwrap();
    };
    let open = || {
        let problems = Problems::default();
        let made = Identity::new(
            &world.shared,
            Accounts::default(),
            MachineTokens::default(),
            &providers,
            base,
            &problems,
        );
        made.ok_or_else(|| problems.into_sorted().remove(0).message)
    };
    let of = |identity: &Identity| Arc::clone(identity.provider("x").unwrap());
    renew();
    let first = open().unwrap();
    assert!(Arc::ptr_eq(&of(&first), &of(&open().unwrap())));
    renew();
    assert!(!Arc::ptr_eq(&of(&first), &of(&open().unwrap())));
    std::fs::write(base.join("client.pem"), "nonsense").unwrap();
    assert!(open().unwrap_err().contains("`client.pem`: expected a key"));
}

#[test]
fn a_provider_whose_file_is_missing_or_broken_is_a_problem_t12() {
    let world = World::new();
    for file in ["htpasswd", "jwks.json"] {
        let path = world.dir.path().join(file);
        let good = std::fs::read(&path).unwrap();
        let refused = || {
            let problems = Problems::default();
            let accounts = Accounts::default();
            let base = world.dir.path();
            let made = Identity::new(
                &world.shared,
                accounts,
                MachineTokens::default(),
                &world.providers,
                base,
                &problems,
            );
            assert!(made.is_none() && problems.count() == 1, "{file}");
        };
        std::fs::write(&path, "nonsense").unwrap();
        refused();
        std::fs::remove_file(&path).unwrap();
        refused();
        std::fs::write(&path, good).unwrap();
    }
}

#[tokio::test]
async fn the_right_password_makes_a_session_and_no_other_does() {
    let world = World::new();
    let signed_in = world
        .sign_in("bob", "bobs password", "192.0.2.1", None)
        .await
        .unwrap();
    let known = world
        .identity
        .session(&signed_in.cookie, at(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((&*known.user.name, &*known.user.provider), ("bob", "local"));
    assert_eq!(known.user.signed_in_at, at(0));
    for (name, password) in [
        ("bob", "eves password"),
        ("bob", ""),
        ("bob", "bobs password "),
        ("Bob", "bobs password"),
        ("mallory", "bobs password"),
        ("", ""),
        ("bob\0", "bobs password"),
    ] {
        let refused = world.sign_in(name, password, "192.0.2.2", None).await.err();
        assert_eq!(refused, Some(Failure::WrongPassword), "{name}");
    }
}

#[tokio::test]
async fn signing_in_over_somebody_elses_cookie_ends_it_and_makes_a_new_one_s2() {
    let world = World::new();
    let attackers = world
        .sign_in("eve", "eves password", "192.0.2.1", None)
        .await
        .unwrap()
        .cookie;
    let chosen = Id::new([7; 32]).to_cookie();
    for presented in [&*attackers, &*chosen, "nonsense"] {
        let signed_in = world
            .sign_in("bob", "bobs password", "192.0.2.1", Some(presented))
            .await
            .unwrap();
        assert_ne!(*signed_in.cookie, presented);
        assert!(
            world
                .identity
                .session(presented, at(1))
                .await
                .unwrap()
                .is_none()
        );
        let known = world
            .identity
            .session(&signed_in.cookie, at(1))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&*known.user.name, "bob");
    }
}

#[tokio::test]
async fn a_failed_sign_in_leaves_the_session_before_alone() {
    let world = World::new();
    let cookie = world.cookie().await;
    assert!(
        world
            .sign_in("bob", "wrong", "192.0.2.1", Some(&cookie))
            .await
            .is_err()
    );
    assert!(
        world
            .identity
            .session(&cookie, at(1))
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn sign_out_ends_the_session_for_good_s3() {
    let world = World::new();
    let cookie = world.cookie().await;
    let known = world
        .identity
        .session(&cookie, at(1))
        .await
        .unwrap()
        .unwrap();
    assert!(
        world
            .identity
            .sign_out(&cookie, at(1))
            .await
            .unwrap()
            .is_some()
    );
    known.live.ended().await;
    assert!(
        world
            .identity
            .session(&cookie, at(1))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        world
            .identity
            .sign_out(&cookie, at(1))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        world
            .identity
            .sign_out("nonsense", at(1))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn groups_are_those_of_today_j8() {
    let mut world = World::new();
    let cookie = world.cookie().await;
    world.reload(&[("bob", account("bobs password", &["other"]))]);
    let known = world
        .identity
        .session(&cookie, at(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(known.user.groups, ["other"].map(Arc::<str>::from));
    assert_eq!(known.user.signed_in_at, at(0));
}

#[tokio::test]
async fn a_session_ends_with_its_account_and_with_its_password() {
    let mut world = World::new();
    let first = world.cookie().await;
    world.reload(&[("eve", account("eves password", &[]))]);
    assert!(
        world
            .identity
            .session(&first, at(1))
            .await
            .unwrap()
            .is_none()
    );
    world.reload(&[("bob", account("bobs password", &[]))]);
    assert!(
        world
            .identity
            .session(&first, at(1))
            .await
            .unwrap()
            .is_none(),
        "it was ended"
    );
    let second = world.cookie().await;
    world.reload(&[("bob", account("bobs new password", &[]))]);
    assert!(
        world
            .identity
            .session(&second, at(1))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn what_is_open_for_an_account_that_is_gone_ends_with_the_reload() {
    let mut world = World::new();
    let bob = world
        .sign_in("bob", "bobs password", "192.0.2.1", None)
        .await
        .unwrap()
        .live;
    let eve = world
        .sign_in("eve", "eves password", "192.0.2.1", None)
        .await
        .unwrap()
        .live;
    world.reload(&[("bob", account("bobs password", &["other"]))]);
    assert_eq!(world.identity.end_orphans(at(1)).await, Ok(1));
    eve.ended().await;
    assert!(eve.is_over(at(1)) && !bob.is_over(at(1)));
}

#[tokio::test]
async fn names_are_looked_up_where_they_are_known() {
    let world = World::new();
    let user = |methods, name, password| world.basic(methods, name, password, "192.0.2.1");
    let both = &["basic", "legacy"][..];
    let old = user(both, "old", "legacy password").await.unwrap();
    assert_eq!(
        (&*old.provider, &*old.groups),
        ("legacy", &["old".into()][..])
    );
    let bob = user(both, "bob", "bobs password").await.unwrap();
    assert_eq!(&*bob.provider, "local");
    // The first method that knows bob decides; the other one's password does not help.
    assert_eq!(
        user(both, "bob", "bob's other one").await,
        Err(Failure::WrongPassword)
    );
    let other = user(&["legacy", "basic"], "bob", "bob's other one")
        .await
        .unwrap();
    assert_eq!(&*other.provider, "legacy");
    assert_eq!(user(&["ci"], "bob", "x").await, Err(Failure::NoMethod));
    assert_eq!(user(&["gone"], "bob", "x").await, Err(Failure::NoMethod));
}

#[tokio::test]
async fn a_verified_password_is_remembered_until_the_accounts_change() {
    let mut world = World::new();
    let bob = || world.basic(&["basic"], "bob", "bobs password", "192.0.2.1");
    let (first, second) = (bob().await.unwrap(), bob().await.unwrap());
    assert!(Arc::ptr_eq(&first, &second), "from memory");
    world.reload(&[("bob", account("bobs new password", &[]))]);
    let refused = world
        .basic(&["basic"], "bob", "bobs password", "192.0.2.1")
        .await;
    assert_eq!(refused, Err(Failure::WrongPassword));
}

#[tokio::test]
async fn names_and_passwords_that_join_to_the_same_text_are_independent_t2() {
    let mut world = World::new();
    world.reload(&[
        ("ab", account("cdefghij", &[])),
        ("abc", account("defghij!", &[])),
    ]);
    let ask = |name, password| world.basic(&["basic"], name, password, "192.0.2.1");
    let (a, b, c, d) = tokio::join!(
        ask("ab", "cdefghij"),
        ask("abc", "defghij"),
        ask("abc", "defghij!"),
        ask("a", "bcdefghij"),
    );
    assert_eq!(&*a.unwrap().name, "ab");
    assert_eq!(b, Err(Failure::WrongPassword));
    assert_eq!(&*c.unwrap().name, "abc");
    assert_eq!(d, Err(Failure::WrongPassword));
}

#[tokio::test]
async fn many_connections_with_the_right_password_are_no_failures() {
    let world = World::new();
    let ask = || world.basic(&["basic"], "bob", "bobs password", "192.0.2.1");
    let (a, b, c, d, e, f, g, h) =
        tokio::join!(ask(), ask(), ask(), ask(), ask(), ask(), ask(), ask());
    for result in [a, b, c, d, e, f, g, h] {
        assert_eq!(&*result.unwrap().name, "bob");
    }
}

#[tokio::test]
async fn guessing_is_slowed_for_who_guesses_and_for_nobody_else_t3_t4() {
    let world = World::new();
    for number in 0..5 {
        let wrong = world
            .sign_in("bob", &format!("guess {number}"), "192.0.2.66", None)
            .await;
        assert_eq!(wrong.err(), Some(Failure::WrongPassword));
    }
    let slowed = Failure::Slowed(Duration::from_secs(1));
    let right = world
        .sign_in("bob", "bobs password", "192.0.2.66", None)
        .await;
    assert_eq!(right.err(), Some(slowed.clone()));
    // By the other door to the same account, too.
    let basic = world
        .basic(&["basic"], "bob", "bobs password", "192.0.2.66")
        .await;
    assert_eq!(basic, Err(slowed));
    assert!(
        world
            .sign_in("bob", "bobs password", "192.0.2.1", None)
            .await
            .is_ok()
    );
    assert!(
        world
            .sign_in("eve", "eves password", "192.0.2.66", None)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn what_is_remembered_does_not_answer_whoever_is_slowed() {
    let world = World::new();
    let bob = |password, client| world.basic(&["basic"], "bob", password, client);
    bob("bobs password", "192.0.2.1").await.unwrap();
    for number in 0..5 {
        let guess = format!("guess {number}");
        let _ = world.basic(&["basic"], "bob", &guess, "192.0.2.66").await;
    }
    assert!(matches!(
        bob("bobs password", "192.0.2.66").await,
        Err(Failure::Slowed(_))
    ));
    assert!(bob("bobs password", "192.0.2.1").await.is_ok());
}

#[tokio::test]
async fn names_that_do_not_exist_are_slowed_alike_t1() {
    let world = World::new();
    let mut told = Vec::new();
    for name in ["bob", "nobody"] {
        let client = if name == "bob" {
            "192.0.2.1"
        } else {
            "192.0.2.2"
        };
        for number in 0..7 {
            let password = format!("guess {number}");
            told.push(
                world
                    .sign_in(name, &password, client, None)
                    .await
                    .err()
                    .unwrap(),
            );
        }
    }
    assert_eq!(told[..7], told[7..]);
}

#[test]
fn a_name_that_does_not_exist_costs_a_hash_of_the_same_cost_t1() {
    let world = World::new();
    let asked = [&world.identity.local];
    let (known, stored) = Passwords::hash_for(&asked, "nobody", &world.shared.keys);
    let stored = stored.unwrap();
    let parameters = |stored: &Stored| stored.for_file().split('$').nth(3).unwrap().to_owned();
    assert!(!known);
    assert_eq!(parameters(&stored), parameters(&password::cheap("x")));
}

/// The time of an answer would tell names of the second method from names of nobody: the first may
/// have hashes of another kind, or no account at all.
#[test]
fn a_name_that_no_method_knows_costs_a_hash_of_any_of_them_t1() {
    let mut world = World::new();
    let hashes = |world: &World| {
        let asked = ["basic", "legacy"].map(|method| world.identity.passwords(method).unwrap());
        (0..64)
            .map(|number| {
                let name = format!("nobody{number}");
                let (known, stored) = Passwords::hash_for(&asked, &name, &world.shared.keys);
                assert!(!known);
                stored.unwrap().for_file().to_owned()
            })
            .collect::<HashSet<_>>()
    };
    assert_eq!(hashes(&world).len(), 4, "bob, eve, old, and the other bob");
    world.reload(&[]);
    assert_eq!(hashes(&world).len(), 2, "of nobody here, so of those there");
}

#[tokio::test]
async fn a_token_of_a_method_of_the_application_is_a_user() {
    let world = World::new();
    let token = world.token(&json!({}));
    let user = world.bearer(&["other", "ci"], &token, 0).await.unwrap();
    assert_eq!((&*user.provider, &*user.name), ("ci", "robot"));
    let again = world.bearer(&["ci"], &token, 1).await.unwrap();
    assert!(Arc::ptr_eq(&user, &again), "from memory");
    let late = world.bearer(&["ci"], &token, 300).await;
    assert_eq!(late, Err(Failure::BadToken(BadToken::Expired)));
}

#[tokio::test]
async fn a_token_is_tried_by_methods_of_its_issuer_only() {
    let world = World::new();
    let foreign = world.token(&json!({"iss": "https://idp.test/"}));
    assert_eq!(
        world.bearer(&["ci"], &foreign, 0).await,
        Err(Failure::OtherIssuer)
    );
    // Remembered for one method, unknown to another (J5).
    let token = world.token(&json!({}));
    world.bearer(&["ci"], &token, 0).await.unwrap();
    assert_eq!(
        world.bearer(&["other"], &token, 0).await,
        Err(Failure::OtherIssuer)
    );
    let wrong = world.token(&json!({"aud": "x"}));
    let wrong = world.bearer(&["ci"], &wrong, 0).await;
    assert_eq!(wrong, Err(Failure::BadToken(BadToken::Audience)));
    assert_eq!(
        world.bearer(&["legacy"], &token, 0).await,
        Err(Failure::NoMethod)
    );
    let nonsense = world.bearer(&["ci"], "nonsense", 0).await;
    assert_eq!(nonsense, Err(Failure::BadToken(BadToken::Malformed)));
}

#[tokio::test]
async fn without_the_issuers_keys_nobody_is_let_in() {
    let world = World::new();
    let unattended = world.identity.unattended_keys();
    assert_eq!(unattended.len(), 1);
    assert!(
        world.identity.unattended_keys().is_empty(),
        "it was handed out"
    );
    let token = world.token(&json!({"iss": "https://other.test"}));
    let fetch = |_: &str| std::future::ready(Err(kept::FetchFailed::Unreachable));
    let task = tokio::spawn(jwks::Keys::keep_fresh(
        Arc::downgrade(&unattended[0].0),
        fetch,
        || at(0),
    ));
    assert_eq!(
        world.bearer(&["other"], &token, 0).await,
        Err(Failure::NoKeys)
    );
    task.abort();
    let keys = Bytes::from(set(&[world.signer.jwk("k1")]));
    let fetch = move |_: &str| std::future::ready(Ok(keys.clone()));
    let task = tokio::spawn(jwks::Keys::keep_fresh(
        Arc::downgrade(&unattended[0].0),
        fetch,
        || at(30),
    ));
    assert_eq!(
        &*world.bearer(&["other"], &token, 30).await.unwrap().provider,
        "other"
    );
    task.abort();
}

#[tokio::test]
async fn what_is_remembered_of_a_token_ends_when_its_keys_change() {
    let world = World::new();
    let (keys, _) = world.identity.unattended_keys().remove(0);
    let serve = |signer: &Signer| {
        let bytes = Bytes::from(set(&[signer.jwk("k1")]));
        move |_: &str| std::future::ready(Ok(bytes.clone()))
    };
    let token = world.token(&json!({"iss": "https://other.test"}));
    let task = tokio::spawn(jwks::Keys::keep_fresh(
        Arc::downgrade(&keys),
        serve(&world.signer),
        || at(0),
    ));
    world.bearer(&["other"], &token, 0).await.unwrap();
    task.abort();
    let task = tokio::spawn(jwks::Keys::keep_fresh(
        Arc::downgrade(&keys),
        serve(&Signer::ed25519()),
        || at(40),
    ));
    keys.newer(Some(1), Asker::Anybody, at(40)).await.unwrap();
    let refused = world.bearer(&["other"], &token, 40).await;
    assert_eq!(refused, Err(Failure::BadToken(BadToken::Signature)));
    task.abort();
}

#[test]
fn a_form_is_bound_to_its_browser_purpose_and_time() {
    let world = World::new();
    let identity = &world.identity;
    let cookie = identity.new_form_cookie().unwrap();
    let token = identity.form_token("sign-in", &cookie, at(0));
    assert_eq!(
        identity.check_form("sign-in", Some(&cookie), &token, at(3599)),
        Ok(())
    );
    let late = identity.check_form("sign-in", Some(&cookie), &token, at(3600));
    assert_eq!(late, Err(Forged::Expired));
    let other = identity.new_form_cookie().unwrap();
    let stolen = identity.check_form("sign-in", Some(&other), &token, at(1));
    assert_eq!(stolen, Err(Forged::Token));
}

#[test]
fn issuers_keys_outlive_a_reload_but_not_their_last_method() {
    let mut world = World::new();
    let keys = world.identity.unattended_keys();
    world.reload(&[]);
    assert!(
        world.identity.unattended_keys().is_empty(),
        "the same keys, kept fresh already"
    );
    let weak = Arc::downgrade(&keys[0].0);
    drop(keys);
    assert!(weak.upgrade().is_some());
    world
        .providers
        .retain(|provider| &*provider.name != "other");
    world.reload(&[]);
    assert!(weak.upgrade().is_none());
}

#[test]
fn keys_are_those_of_a_server_that_whoever_asks_trusts() {
    let world = World::new();
    for file in ["a.pem", "b.pem"] {
        let made = rcgen::generate_simple_self_signed(["i".to_owned()]).unwrap();
        std::fs::write(world.dir.path().join(file), made.cert.pem()).unwrap();
    }
    let method = |name: &str, ca: &str| {
        format!(
            "[provider.{name}]\nkind = 'jwt'\nissuer = 'https://i.test'\naudience = '{name}'\n\
             jwks_url = 'https://i.test/jwks'\nca = '{ca}.pem'\n"
        )
    };
    let keys_of = |methods: [String; 2]| {
        let providers = read(&methods.concat()).unwrap();
        World::open(&world.shared, &world.dir, &providers, accounts(&[]))
            .unattended_keys()
            .len()
    };
    assert_eq!(keys_of([method("one", "a"), method("two", "a")]), 1);
    assert_eq!(keys_of([method("one", "a"), method("two", "b")]), 2);
}

#[test]
fn what_can_not_be_checked_now_is_unavailable_to_everybody() {
    for failure in [
        Failure::Store,
        Failure::Busy,
        Failure::NoKeys,
        Failure::NoMethod,
    ] {
        let refusal = failure.refusal().unwrap();
        assert!(matches!(refusal.answer, Answer::Unavailable), "{failure:?}");
        assert_eq!(refusal.reason, failure.reason());
    }
}
