//! Text to rules, or every problem at once. It reads no file itself: [`Files`] has their texts.

pub mod gateway;
pub mod verify;
pub mod fixed;
pub mod policy;
pub mod expectation;
pub mod reference;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::backend::tls;
use crate::identity::provider::{self, Kind, Provider};
use crate::pipeline::network::{self, Trust};
use crate::pipeline::request_headers::{self, ReservedNames};
use crate::pipeline::{Rules, response_headers, route};
use crate::pure::banner::Lists;
use crate::pure::internal_url::Internal;
use crate::pure::table::{Problems, Table};
use crate::pure::target::Host;

use expectation::Expectation;
use gateway::Gateway;
use verify::Verify;

/// The texts of a configuration.
pub struct Files<'a> {
    /// `portcullis.toml`.
    pub gateway: String,
    /// `policies/*.toml`: name and text, sorted by name.
    pub policies: Vec<(String, String)>,
    /// `policies/tests/*.toml`: name and text.
    pub tests: Vec<(String, String)>,
    /// Reads another file that these name, relative to the configuration's directory.
    pub load: &'a dyn Fn(&str) -> Result<String, String>,
}

/// What a configuration says.
pub struct Config {
    /// What belongs to the gateway.
    pub gateway: Gateway,
    /// Where other proxies ask.
    pub verify: Option<Verify>,
    /// Sign-in methods besides the built-in ones.
    pub providers: Vec<Provider>,
    /// The applications.
    pub routes: route::Table<Rules>,
    /// What only the gateway may say to any of them.
    pub reserved: ReservedNames,
    /// What the policies are expected to say.
    pub expectations: Vec<Expectation>,
}

impl Config {
    /// Whether any listener speaks TLS.
    pub fn speaks_tls(&self) -> bool {
        let proxies = self.verify.as_ref().is_some_and(|verify| verify.tls);
        proxies || self.gateway.listeners.iter().any(|listener| listener.tls)
    }
}

/// Reads a configuration; `None` after adding what can't be used.
pub fn read(files: &Files<'_>, problems: &Problems) -> Option<Config> {
    read_with(files, problems, OnceCell::new())
}

fn read_with(
    files: &Files<'_>,
    problems: &Problems,
    system_tls: OnceCell<Result<Arc<ClientConfig>, tls::Error>>,
) -> Option<Config> {
    let root = Table::parse(gateway::FILE, &files.gateway, gateway::KEYS, problems);
    let policies: Vec<(&str, Table)> = files
        .policies
        .iter()
        .filter_map(|(name, text)| {
            let file = format!("policies/{name}.toml");
            Some((&**name, Table::parse(&file, text, policy::KEYS, problems)?))
        })
        .collect();
    let tests: Vec<Table> = files
        .tests
        .iter()
        .filter_map(|(name, text)| {
            let file = format!("policies/tests/{name}.toml");
            Table::parse(&file, text, expectation::KEYS, problems)
        })
        .collect();
    // Only now, so that what is no TOML is shown of every file.
    let root = root?;
    let gateway = Gateway::read(&root);
    let verify = verify::read(&root, &gateway);
    let trust = Arc::new(Trust::read(
        root.table("trusted_proxies", network::TRUST_KEYS).as_ref(),
    ));
    let tables = root.named_tables("provider", provider::KEYS);
    let providers: Vec<Provider> = tables
        .iter()
        .filter_map(|(name, table)| Provider::read(name, table))
        .collect();
    let mut methods = provider::kinds(&providers);
    for (name, _) in &tables {
        // One that can't be used has its own problem; that policies name it is none.
        methods.entry(Arc::from(&**name)).or_insert(Kind::Bearer);
    }
    let headers = root.table("headers", request_headers::GATEWAY_KEYS);
    let names = request_headers::read_names(headers.as_ref());
    let lists = lists(headers.as_ref(), files.load, problems)?;
    let hosts: Vec<_> = policies
        .iter()
        .map(|(_, table)| policy::hosts(table))
        .collect();
    report_twins(&policies, &hosts);
    if let Some(there) = &gateway.session.sign_in_host
        && !hosts.iter().flatten().any(|host| *host == there.host)
    {
        let hint = "write a policy for it, such as the built-in `whoami` for who is signed in";
        let message = format!("`sign_in_host`: no policy has the host `{}`", there.host);
        root.problem("session", message, Some(hint.to_owned()));
    }
    let served: Vec<&str> = hosts.iter().flatten().map(|host| host.as_str()).collect();
    let internal = Internal::new([], served);
    let context = policy::Context {
        network: network::Rule::everybody(trust),
        methods,
        request_headers: request_headers::Rule::new(names.clone()),
        response_headers: &|backends| {
            let internal =
                internal.of_backends(backends.iter().map(|(host, port)| (&**host, *port)));
            response_headers::Rule::new(Arc::clone(&lists), None, internal)
        },
        load: files.load,
        system_tls,
    };
    let mut apps = Vec::new();
    let mut all_names = vec![names];
    for ((name, table), hosts) in policies.iter().zip(&hosts) {
        let app = policy::read(name, table, &context);
        let rules = app.paths.iter().map(|(_, rules)| rules).chain([&app.rules]);
        all_names.extend(rules.map(|rules| rules.request_headers.names.clone()));
        apps.push((hosts.clone(), app));
    }
    let reserved = match ReservedNames::new(&all_names) {
        Ok(reserved) => reserved,
        Err(word) => {
            problems.about_file(
                gateway::FILE,
                format!("the shipped list of reserved fields has `{word}`"),
                None,
            );
            return None;
        }
    };
    let expectations = tests
        .iter()
        .flat_map(|table| expectation::read(table, &context.methods))
        .collect();
    problems.is_empty().then(|| Config {
        gateway,
        verify,
        providers,
        routes: route::Table::new(apps),
        reserved,
        expectations,
    })
}

fn lists(
    headers: Option<&Table>,
    load: &dyn Fn(&str) -> Result<String, String>,
    problems: &Problems,
) -> Option<Arc<Lists>> {
    let mut lists = match response_headers::shipped_lists() {
        Ok(lists) => lists,
        Err(bad) => {
            problems.about_file(
                "backend_fields.txt",
                format!("line {} can't be read", bad.line),
                None,
            );
            return None;
        }
    };
    if let Some(table) = headers
        && let Some(file) = table.string("backend_fields")
    {
        match load(&file) {
            Ok(text) => {
                if let Err(bad) = lists.add(&text) {
                    let message = format!(
                        "line {} of `{file}`: `{}` is no field name",
                        bad.line, bad.word
                    );
                    table.problem("backend_fields", message, None);
                }
            }
            Err(error) => table.problem("backend_fields", error, None),
        }
    }
    Some(Arc::new(lists))
}

/// A host belongs to one application: two would leave it to chance which rules hold.
fn report_twins(policies: &[(&str, Table)], hosts: &[Vec<Host>]) {
    let mut owners: BTreeMap<&Host, &Table> = BTreeMap::new();
    for ((_, table), hosts) in policies.iter().zip(hosts) {
        for host in hosts {
            let Some(owner) = owners.insert(host, table) else {
                continue;
            };
            let (file, line) = (owner.file(), owner.line_of("host"));
            let (message, hint) = if file == table.file() {
                (format!("`{host}` is in this list twice"), None)
            } else {
                let hint =
                    "give each application a host of its own, or write `[[path]]` for parts of one";
                (
                    format!("`{host}` belongs to `{file}`, line {line}, already"),
                    Some(hint.to_owned()),
                )
            };
            table.problem("host", message, hint);
        }
    }
}

/// The name of a policy: its file's, without `.toml`.
pub fn policy_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".toml")?;
    (!name.is_empty() && !name.starts_with('.')).then(|| name.to_owned())
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the readers, for fuzz targets and tests.

    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::explain::{Outcome, Question, explain, url};
    use crate::pure::connection::ClientCertificate;
    use crate::pure::identity::User;
    use crate::pure::validity::Malformed;

    const POLICY: &str = "host = \"a.test\"\nbackends = [\"whoami\"]\naccess = \"signed-in\"\n";
    const GATEWAY: &str = "[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n\
        [provider.ci]\nkind = \"jwt\"\nissuer = \"https://i.test\"\naudience = [\"a\"]\njwks_file = \"jwks\"\n";

    /// Any text as `portcullis.toml` is a configuration, or has problems that can be shown.
    pub fn gateway_config(data: &[u8]) {
        if let Ok(text) = std::str::from_utf8(data) {
            read_or_problems(text, POLICY, text);
        }
    }

    /// Any text as a policy is one, or has problems that can be shown; and nobody passes without
    /// signing in where it does not say `public`.
    pub fn policy(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else {
            return;
        };
        let Some(config) = read_or_problems(GATEWAY, text, text) else {
            return;
        };
        let app = config.routes.apps().first().expect("one policy");
        let said = text.contains("public") || text.contains('\\');
        let needs = |rules: &Rules| rules.access.needs_sign_in() && !rules.sign_in.anonymous;
        let all = || app.paths.iter().map(|(_, rules)| rules).chain([&app.rules]);
        assert!(said || all().all(|rules| needs(rules)), "{text}");
        for path in ["/", "/x", "/admin/%2e%2e/x", "/a%2fb"] {
            let (tls, authority, target) = url(&format!("https://a.test{path}")).expect("a URL");
            let mut question = Question {
                tls,
                authority,
                target,
                method: http::Method::GET,
                from: [127, 0, 0, 1].into(),
                client_certificate: None,
                user: None,
            };
            let ask = |question: &Question| {
                let (routes, at) = (&config.routes, SystemTime::UNIX_EPOCH);
                explain(routes, question, Instant::now(), at).1
            };
            let outcome = ask(&question);
            assert!(said || outcome != Outcome::Allow, "{text}");
            question.user = Some(Arc::new(somebody()));
            question.client_certificate = Some(Arc::new(ClientCertificate {
                fingerprint: String::new(),
                names: Err(Malformed),
            }));
            ask(&question);
        }
    }

    /// With what can be read and what can't.
    fn somebody() -> User {
        let odd = serde_json::Value::Null;
        User {
            name: "a".into(),
            provider: "local".into(),
            email: Some("a@b@c".into()),
            groups: vec!["a".into()],
            claims: Arc::new([("a".to_owned(), odd)].into_iter().collect()),
            signed_in_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn read_or_problems(gateway: &str, policy: &str, fuzzed: &str) -> Option<Config> {
        let files = Files {
            gateway: gateway.to_owned(),
            policies: vec![("a".to_owned(), policy.to_owned())],
            tests: Vec::new(),
            load: &|_| Err("there is no such file".to_owned()),
        };
        let problems = Problems::default();
        // The system's authorities are no part of what is tried.
        let no_tls = OnceCell::from(Err(tls::Error::NoSystemAuthorities));
        let config = read_with(&files, &problems, no_tls);
        let problems = problems.into_sorted();
        assert_eq!(config.is_some(), problems.is_empty());
        let lines = u32::try_from(fuzzed.matches('\n').count()).expect("few lines") + 1;
        for problem in problems {
            assert!((1..=lines.max(9)).contains(&problem.line), "{problem}");
            assert!(problem.to_string().lines().count() <= 4, "{problem}");
        }
        config
    }
}

#[cfg(test)]
mod tests;
