//! 1. route: which application, and which of its rules.
//!
//! | when | then |
//! |---|---|
//! | the listener asks for client certificates, and the host is not the name TLS was asked for | 421 `route.other_server_name` |
//! | no application has the host | 421 `route.unknown_host` |
//! | the target holds something the application does not lift | 400 `route.encoded_slash` and the other reasons of `pure::target` |
//! | else | the `[[path]]` that says most about the path, or the application's own rules |
//!
//! Routes once; every later stage is handed what was found here. A path rule matches the canonical
//! path, which is byte for byte what the backend is sent.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pure::connection::Connection;
use crate::pure::head::Head;
use crate::pure::pattern::Pattern;
use crate::pure::quick::Quick;
use crate::pure::target::{Host, Oddities};
use crate::record::Record;
use crate::refusal::{Answer, Refusal};

/// All applications, by host.
#[derive(Debug)]
pub struct Table<R> {
    apps: Vec<Arc<App<R>>>,
    hosts: HashMap<Box<str>, usize, Quick>,
}

/// One application: its rules, and those of parts of it.
#[derive(Debug)]
pub struct App<R> {
    /// Its name: the policy file's.
    pub name: Arc<str>,
    /// What its backends are trusted to read as the gateway does.
    pub lifted: Oddities,
    /// Whether its backends ignore the case of paths, so that rules must too.
    pub ignores_case: bool,
    /// Whom to ask for access, shown on the denied page.
    pub contact: Option<Arc<str>>,
    /// The rules where no path says otherwise.
    pub rules: Arc<R>,
    /// The rules of parts.
    pub paths: Vec<(Pattern, Arc<R>)>,
}

/// A request's place: where every later stage takes application, host and path from.
#[derive(Debug, Clone)]
pub struct At<R> {
    app: Arc<App<R>>,
    rules: Arc<R>,
}

impl<R> At<R> {
    /// The application.
    pub fn app(&self) -> &App<R> {
        &self.app
    }

    /// Whom to ask for access to the application.
    pub fn contact(&self) -> Option<&str> {
        self.app.contact.as_deref()
    }

    /// The rules in force.
    pub fn rules(&self) -> &R {
        &self.rules
    }

    /// The application's rules, and those of all its paths.
    pub fn all_rules(&self) -> impl Iterator<Item = &R> {
        let paths = self.app.paths.iter().map(|(_, rules)| &**rules);
        std::iter::once(&*self.app.rules).chain(paths)
    }
}

/// Why a request belongs to no application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// This connection was made for another name.
    OtherServerName,
    /// No application has this host.
    UnknownHost,
    /// The target holds what two readers may read differently.
    Ambiguous(&'static str),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::OtherServerName => Self::new(Answer::Misdirected, "route.other_server_name"),
            Refused::UnknownHost => Self::new(Answer::Misdirected, "route.unknown_host"),
            Refused::Ambiguous(reason) => Self::new(Answer::BadRequest, reason),
        }
    }
}

impl<R> Table<R> {
    /// A table of applications and the hosts of each; a host belongs to one application.
    pub fn new(apps: Vec<(Vec<Host>, App<R>)>) -> Self {
        let mut table = Self {
            apps: Vec::with_capacity(apps.len()),
            hosts: HashMap::default(),
        };
        for (hosts, app) in apps {
            for host in hosts {
                table.hosts.insert(host.as_str().into(), table.apps.len());
            }
            table.apps.push(Arc::new(app));
        }
        table
    }

    /// Every application.
    pub fn apps(&self) -> &[Arc<App<R>>] {
        &self.apps
    }
}

/// Finds a request's application and rules.
///
/// # Errors
/// Another host's connection, an unknown host, or an ambiguous target.
pub fn find<R>(
    table: &Table<R>,
    conn: &Connection,
    head: &Head,
    seen: &mut Record,
) -> Result<At<R>, Refused> {
    let host = head.authority.host.as_str();
    if let Some(tls) = &conn.tls
        && tls.bound_to_server_name
        && tls.server_name.as_deref() != Some(host)
    {
        return Err(Refused::OtherServerName);
    }
    let app = table
        .hosts
        .get(host)
        .and_then(|&at| table.apps.get(at))
        .ok_or(Refused::UnknownHost)?;
    seen.app = Some(Arc::clone(&app.name));
    if let Some(reason) = head.target.oddities.refused_by(app.lifted) {
        return Err(Refused::Ambiguous(reason));
    }
    let path = head.target.path.as_str();
    let rules = app
        .paths
        .iter()
        .filter_map(|(pattern, rules)| Some((pattern.matches(path, app.ignores_case)?, rules)))
        .max_by_key(|(specificity, _)| *specificity)
        .map_or(&app.rules, |(_, rules)| rules);
    Ok(At {
        app: Arc::clone(app),
        rules: Arc::clone(rules),
    })
}
