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

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::pure::connection::Connection;
use crate::pure::head::Head;
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

impl<R> App<R> {
    /// The rules at a canonical path.
    pub fn rules_at(&self, path: &str) -> &Arc<R> {
        let matching = self.paths.iter().filter_map(|(pattern, rules)| {
            let specificity = pattern.matches(path, self.ignores_case)?;
            Some((specificity, rules))
        });
        let most = matching.max_by_key(|(specificity, _)| *specificity);
        most.map_or(&self.rules, |(_, rules)| rules)
    }
}

/// Which paths a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// One path.
    Exact(String),
    /// A path and everything below it, by whole segments: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
}

/// How much a pattern says; the most specific match decides, an exact one before any prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Specificity {
    exact: bool,
    length: usize,
}

impl Pattern {
    fn matches(&self, path: &str, ignores_case: bool) -> Option<Specificity> {
        let (own, path) = match (self, ignores_case) {
            (Self::Exact(own) | Self::Prefix(own), false) => (Cow::from(own), Cow::from(path)),
            (Self::Exact(own) | Self::Prefix(own), true) => (fold(own).into(), fold(path).into()),
        };
        match self {
            Self::Exact(exact) => (path == own).then_some(Specificity {
                exact: true,
                length: exact.len(),
            }),
            Self::Prefix(prefix) => {
                let stem = own.strip_suffix('/').unwrap_or(&own);
                let (head, rest) = path.split_at_checked(stem.len())?;
                let whole = rest.is_empty() || rest.starts_with('/');
                // `/a/` is about what is below `/a`, not about `/a` itself.
                let below = stem.len() == own.len() || !rest.is_empty() || stem.is_empty();
                (head == stem && whole && below).then_some(Specificity {
                    exact: false,
                    length: prefix.len(),
                })
            }
        }
    }
}

/// A canonical path without the case of its letters, by the alphabets of all who ignore it: beside
/// `A`, some take the dotless i for `i`, the long s for `s` and the sign of Kelvin for `k`.
pub fn fold(path: &str) -> String {
    if !path.contains('%') {
        return path.to_ascii_lowercase();
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        // What is ASCII and still encoded means something else than its character.
        let byte = match tail {
            [high @ (b'8' | b'9' | b'A'..=b'F'), low, ..] if *first == b'%' => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4) | low),
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => tail.get(2..).unwrap_or_default(),
            None => tail,
        };
    }
    let simple =
        |c: char, mapped: &mut dyn Iterator<Item = char>| match (mapped.next(), mapped.next()) {
            (Some(one), None) => one,
            _ => c,
        };
    let folded = |c: char| match c {
        // Its small letter is `i` with a dot above, in two characters.
        '\u{130}' => 'i',
        c => {
            let upper = simple(c, &mut c.to_uppercase());
            simple(upper, &mut upper.to_lowercase())
        }
    };
    let mut text = String::with_capacity(path.len());
    for chunk in decoded.utf8_chunks() {
        text.extend(chunk.valid().chars().map(folded));
        for byte in chunk.invalid() {
            // Writing to a string can't fail.
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
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

    /// A host of the application with a name, the same each time.
    pub fn host_of(&self, name: &str) -> Option<&str> {
        let of = |(_, at): &(_, &usize)| self.apps.get(**at).is_some_and(|app| *app.name == *name);
        self.hosts.iter().filter(of).map(|(host, _)| &**host).min()
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
    Ok(At {
        app: Arc::clone(app),
        rules: Arc::clone(app.rules_at(&head.target.path)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen<'a>(patterns: &'a [Pattern], path: &str) -> Option<&'a Pattern> {
        patterns
            .iter()
            .filter_map(|p| Some((p.matches(path, false)?, p)))
            .max_by_key(|(specificity, _)| *specificity)
            .map(|(_, p)| p)
    }

    #[test]
    fn p11_a_prefix_matches_whole_segments_only() {
        let public = [Pattern::Prefix("/public".to_owned())];
        for path in ["/public", "/public/", "/public/a"] {
            assert!(chosen(&public, path).is_some(), "{path}");
        }
        for path in ["/publicity", "/publi", "/", "/Public", "/a/public"] {
            assert!(chosen(&public, path).is_none(), "{path}");
        }
        let below = [Pattern::Prefix("/public/".to_owned())];
        assert!(chosen(&below, "/public").is_none());
        assert!(chosen(&below, "/public/a").is_some());
        assert!(chosen(&[Pattern::Prefix("/".to_owned())], "/").is_some());
    }

    #[test]
    fn the_most_specific_pattern_decides() {
        let (short, long) = (
            Pattern::Prefix("/a".to_owned()),
            Pattern::Prefix("/a/b".to_owned()),
        );
        let exact = Pattern::Exact("/a/b".to_owned());
        for patterns in [
            [short.clone(), long.clone(), exact.clone()],
            [exact.clone(), long.clone(), short.clone()],
        ] {
            assert_eq!(chosen(&patterns, "/a/b"), Some(&exact));
            assert_eq!(chosen(&patterns, "/a/b/c"), Some(&long));
            assert_eq!(chosen(&patterns, "/a/c"), Some(&short));
        }
    }

    #[test]
    fn p8_case_is_ignored_where_the_backend_ignores_it() {
        let admin = Pattern::Prefix("/admin".to_owned());
        assert!(admin.matches("/ADMIN/x", true).is_some());
        assert!(admin.matches("/ADMIN/x", false).is_none());
        // The long s, the dotless and the dotted i, the sign of Kelvin, and letters of others.
        for (pattern, path) in [
            ("/press", "/pre%C5%BF%C5%BF/x"),
            ("/admin", "/adm%C4%B1n/x"),
            ("/admin", "/adm%C4%B0n/x"),
            ("/backup", "/bac%E2%84%AAup/x"),
            ("/caf%C3%A9", "/CAF%C3%89/x"),
            ("/%CF%83%CF%82", "/%CE%A3%CE%A3/x"),
        ] {
            for pattern in [
                Pattern::Prefix(pattern.to_owned()),
                Pattern::Exact(format!("{pattern}/X")),
            ] {
                assert!(pattern.matches(path, true).is_some(), "{pattern:?} {path}");
                assert!(pattern.matches(path, false).is_none(), "{pattern:?} {path}");
            }
        }
        // An encoded slash is none, and what is no text stays apart from everything else.
        assert!(admin.matches("/admin%2Fx", true).is_none());
        assert!(admin.matches("/%C4%B1/%FF", true).is_none());
        assert!(admin.matches("/ADM%C4%B1N/%FF", true).is_some());
        let bytes = Pattern::Exact("/%FF".to_owned());
        assert!(bytes.matches("/%FF", true).is_some());
        assert!(bytes.matches("/%FE", true).is_none());
    }
}
