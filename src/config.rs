//! Text to rules, or every problem at once. It reads no file itself: [`Files`] has their texts.

pub mod gateway;
pub mod policy;
pub mod expectation;
pub mod reference;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::identity::provider::{self, Provider};
use crate::pipeline::network::{self, Trust};
use crate::pipeline::request_headers::{self, ReservedNames};
use crate::pipeline::{Rules, response_headers, route};
use crate::pure::internal_url::Internal;
use crate::pure::table::{Problems, Table};

use expectation::Expectation;
use gateway::Gateway;

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
    /// Sign-in methods besides the built-in ones.
    pub providers: Vec<Provider>,
    /// The applications.
    pub routes: route::Table<Rules>,
    /// What only the gateway may say to any of them.
    pub reserved: ReservedNames,
    /// What the policies are expected to say.
    pub expectations: Vec<Expectation>,
}

/// Reads a configuration; `None` after adding what can't be used.
pub fn read(files: &Files<'_>, problems: &Problems) -> Option<Config> {
    let root = Table::parse(gateway::FILE, &files.gateway, gateway::KEYS, problems)?;
    let gateway = Gateway::read(&root);
    let trust = Arc::new(Trust::read(
        root.table("trusted_proxies", network::TRUST_KEYS).as_ref(),
    ));
    let tables = root.named_tables("provider", provider::KEYS);
    let providers: Vec<Provider> = tables
        .iter()
        .filter_map(|(name, table)| Provider::read(name, table))
        .collect();
    let headers = root.table("headers", request_headers::GATEWAY_KEYS);
    let names = request_headers::read_names(headers.as_ref());
    let lists = lists(headers.as_ref(), files.load, problems)?;
    let parsed: Vec<(String, Table)> = files
        .policies
        .iter()
        .filter_map(|(name, text)| {
            let file = format!("policies/{name}.toml");
            Some((
                name.clone(),
                Table::parse(&file, text, policy::KEYS, problems)?,
            ))
        })
        .collect();
    let hosts: Vec<_> = parsed
        .iter()
        .map(|(_, table)| policy::hosts(table))
        .collect();
    report_twins(&parsed, &hosts);
    let served: Vec<&str> = hosts.iter().flatten().map(|host| host.as_str()).collect();
    let internal = Internal::new([], served);
    let context = policy::Context {
        network: network::Rule::everybody(trust),
        methods: provider::kinds(&providers),
        request_headers: request_headers::Rule::new(names.clone()),
        response_headers: &|backends| {
            let internal =
                internal.of_backends(backends.iter().map(|(host, port)| (&**host, *port)));
            response_headers::Rule::new(Arc::clone(&lists), None, internal)
        },
        load: files.load,
    };
    let mut apps = Vec::new();
    let mut all_names = vec![names];
    for ((name, table), hosts) in parsed.iter().zip(&hosts) {
        if let Some(app) = policy::read(name, table, &context) {
            let rules = app.paths.iter().map(|(_, rules)| rules).chain([&app.rules]);
            all_names.extend(rules.map(|rules| rules.request_headers.names.clone()));
            apps.push((hosts.clone(), app));
        }
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
    let expectations = files
        .tests
        .iter()
        .flat_map(|(name, text)| expectation::read(name, text, problems))
        .collect();
    problems.is_empty().then(|| Config {
        gateway,
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
) -> Option<Arc<crate::pure::banner::Lists>> {
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
fn report_twins(parsed: &[(String, Table)], hosts: &[Vec<crate::pure::target::Host>]) {
    let mut owners = BTreeMap::new();
    for ((name, table), hosts) in parsed.iter().zip(hosts) {
        for host in hosts {
            if let Some(owner) = owners.insert(host.clone(), name) {
                let message = format!("`{host}` belongs to `policies/{owner}.toml` already");
                let hint = "an application has a host of its own; use `[[path]]` for parts of it"
                    .to_owned();
                table.problem("host", message, Some(hint));
            }
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
    //! Properties of the whole configuration's reader, for fuzz targets and tests.

    use super::*;

    const GATEWAY: &str = "[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n";
    const POLICY: &str = "host = \"app.test\"\nbackends = [\"whoami\"]\naccess = \"public\"\n";

    /// Any text of a policy is rules, or problems each with a place in it.
    pub fn policy(data: &[u8]) {
        if let Ok(text) = std::str::from_utf8(data) {
            reads(GATEWAY, text, &format!("policies/{NAME}.toml"), text);
        }
    }

    /// Any text of `portcullis.toml` is a configuration, or problems each with a place in it.
    pub fn gateway_config(data: &[u8]) {
        if let Ok(text) = std::str::from_utf8(data) {
            reads(text, POLICY, gateway::FILE, text);
        }
    }

    const NAME: &str = "app";

    fn reads(gateway: &str, policy: &str, file: &str, text: &str) {
        let problems = Problems::default();
        let files = Files {
            gateway: gateway.to_owned(),
            policies: vec![(NAME.to_owned(), policy.to_owned())],
            tests: Vec::new(),
            load: &|_| Ok("10.0.0.0/8\n".to_owned()),
        };
        let config = read(&files, &problems);
        assert_eq!(config.is_some(), problems.is_empty());
        let lines = u32::try_from(text.matches('\n').count()).expect("few lines") + 1;
        for problem in problems.into_sorted() {
            assert!(!problem.message.is_empty());
            assert!(
                *problem.file != *file || (1..=lines).contains(&problem.line),
                "{problem}"
            );
        }
    }

    #[cfg(test)]
    mod tests {
        /// Every prefix, down to the byte, of what is shipped.
        #[test]
        fn every_prefix_of_a_shipped_file_is_valid_or_has_problems_with_a_place() {
            let shipped = |file: &str| {
                let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
                std::fs::read(root.join(file)).expect("a shipped file")
            };
            let (gateway, whoami) = (shipped("portcullis.toml"), shipped("policies/whoami.toml"));
            for end in 0..=gateway.len() {
                super::gateway_config(&gateway[..end]);
            }
            for end in 0..=whoami.len() {
                super::policy(&whoami[..end]);
            }
        }
    }
}
