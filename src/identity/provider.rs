//! Sign-in methods as the configuration states them: `[provider.NAME]`.
//!
//! Reads text only; the files named here are opened when the configuration is put in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::pure::jwk::Algorithm;
use crate::pure::jwt::{self, Type};
use crate::pure::table::{Key, Table, nearest};

use super::accounts::{self, LOCAL};

/// The name of the method that takes local accounts by HTTP basic.
pub const BASIC: &str = "basic";

/// Keys of `[provider.NAME]`.
pub const KEYS: &[Key] = &[
    key(
        "kind",
        "`jwt` or `basic`",
        "none: required",
        "What the method takes: bearer tokens of an issuer, or names and passwords by HTTP basic.",
    ),
    key(
        "issuer",
        "string",
        "none: required for `jwt`",
        "`iss` of its tokens, exactly.",
    ),
    key(
        "audience",
        "list of strings",
        "none: required for `jwt`",
        "`aud` must name one of these: tokens made for somebody else are refused.",
    ),
    key(
        "jwks_url",
        "https URL",
        "none",
        "Where the issuer publishes its keys. They are fetched ahead of time, and the last good ones serve while it is down.",
    ),
    key(
        "jwks_file",
        "file",
        "none",
        "The issuer's keys, instead of `jwks_url`.",
    ),
    key(
        "algorithms",
        "list of strings",
        "all of them",
        "How tokens may be signed: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`. There are no symmetric ones.",
    ),
    key(
        "type",
        "list of strings",
        "[\"at+jwt\", \"JWT\"]",
        "`typ` of its tokens; a missing one counts as `JWT`.",
    ),
    key(
        "name_claim",
        "string",
        "sub",
        "The claim that becomes the user's name. Take one that users can't choose.",
    ),
    key(
        "groups_claim",
        "string",
        "none",
        "The claim that lists the user's groups.",
    ),
    key(
        "trust_unverified_email",
        "true or false",
        "false",
        "Whether an e-mail address counts although the token does not say `email_verified`: for issuers \
         whose users can't choose their address. `email_verified: false` never counts.",
    ),
    key(
        "file",
        "file",
        "none: required for `basic`",
        "An `htpasswd` file with bcrypt or argon2id hashes.",
    ),
    key(
        "groups",
        "list of strings",
        "[]",
        "The groups of everybody in `file`.",
    ),
];

const fn key(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        doc,
    }
}

/// A sign-in method as the configuration states it.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name.
    pub name: Arc<str>,
    /// What it takes.
    pub takes: Takes,
}

/// What a method takes.
#[derive(Debug, Clone)]
pub enum Takes {
    /// Names and passwords by HTTP basic, checked against an `htpasswd` file.
    Passwords {
        /// The file.
        file: PathBuf,
        /// The groups of everybody in it.
        groups: Vec<Arc<str>>,
    },
    /// Bearer tokens.
    Tokens {
        /// What they must be.
        rule: Arc<jwt::Rule>,
        /// Who signs them.
        keys: KeySource,
    },
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// At this URL.
    Url(String),
    /// In this file.
    File(PathBuf),
}

/// The kind of a method, as a rule needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sessions that the sign-in page makes.
    Session,
    /// HTTP basic.
    Basic,
    /// Bearer tokens.
    Bearer,
}

/// The kinds of all methods, by name.
pub type Methods = BTreeMap<Arc<str>, Kind>;

/// The method with a name.
///
/// # Errors
/// What was expected instead.
pub fn named(name: &str, methods: &Methods) -> Result<(Arc<str>, Kind), String> {
    let names = || methods.keys().map(|name| &**name);
    match methods.get_key_value(name) {
        Some((name, kind)) => Ok((Arc::clone(name), *kind)),
        None => Err(match nearest(name, names()) {
            Some(near) => format!("no method has this name; did you mean `{near}`?"),
            None => format!("one of `{}`", names().collect::<Vec<_>>().join("`, `")),
        }),
    }
}

/// The methods that there are: the built-in ones and those of the configuration.
pub fn kinds(providers: &[Provider]) -> Methods {
    let built_in = [(LOCAL.into(), Kind::Session), (BASIC.into(), Kind::Basic)];
    let stated = providers.iter().map(|provider| {
        let kind = match provider.takes {
            Takes::Passwords { .. } => Kind::Basic,
            Takes::Tokens { .. } => Kind::Bearer,
        };
        (Arc::clone(&provider.name), kind)
    });
    built_in.into_iter().chain(stated).collect()
}

impl Provider {
    /// The file that it is read from, if it is.
    pub fn file(&self) -> Option<&Path> {
        match &self.takes {
            Takes::Passwords { file, .. }
            | Takes::Tokens {
                keys: KeySource::File(file),
                ..
            } => Some(file),
            Takes::Tokens {
                keys: KeySource::Url(_),
                ..
            } => None,
        }
    }

    /// The method that `[provider.NAME]` states; `None` after adding what is wrong with it.
    pub fn read(name: &str, table: &Table) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            let hint = "take lower-case letters, digits and `-`".to_owned();
            table.problem("kind", format!("`{name}` can't name a method"), Some(hint));
            return None;
        }
        if name == LOCAL || name == BASIC {
            let hint = "it is built in, and needs no table".to_owned();
            table.problem("kind", format!("`{name}` is taken"), Some(hint));
            return None;
        }
        let kind = table.value("kind", |text| match text {
            "jwt" => Ok(Kind::Bearer),
            "basic" => Ok(Kind::Basic),
            _ => Err("`jwt` or `basic`".to_owned()),
        });
        let name = Arc::from(name);
        let takes = match kind {
            Some(Kind::Bearer) => {
                foreign(table, &["file", "groups"], "basic");
                tokens(&name, table)?
            }
            Some(Kind::Basic) => {
                foreign(table, TOKEN_KEYS, "jwt");
                passwords(table)?
            }
            Some(Kind::Session) | None => {
                if !table.has("kind") {
                    table.missing("kind", "`jwt` or `basic`");
                }
                return None;
            }
        };
        Some(Self { name, takes })
    }
}

const TOKEN_KEYS: &[&str] = &[
    "issuer",
    "audience",
    "jwks_url",
    "jwks_file",
    "algorithms",
    "type",
    "name_claim",
    "groups_claim",
    "trust_unverified_email",
];

/// Keys that are for another kind would be read as if they did something.
fn foreign(table: &Table, keys: &[&'static str], kind: &str) {
    for key in keys.iter().filter(|key| table.has(key)) {
        table.problem(
            key,
            format!("`{key}` is for `kind = \"{kind}\"` only"),
            None,
        );
    }
}

fn passwords(table: &Table) -> Option<Takes> {
    let groups = table.list("groups", |text| {
        accounts::group_name(text).ok_or_else(|| "a group's name".to_owned())
    });
    if !table.has("file") {
        table.missing("file", "an `htpasswd` file");
    }
    let file = table.string("file")?.into();
    Some(Takes::Passwords {
        file,
        groups: groups.unwrap_or_default(),
    })
}

fn tokens(provider: &Arc<str>, table: &Table) -> Option<Takes> {
    const NONE: &str = "an empty list would take no token";
    let issuer = table.value("issuer", |text| not_empty(text, "the issuer's URL"));
    if !table.has("issuer") {
        table.missing("issuer", "the issuer's URL, exactly as in `iss`");
    }
    let audience = some_of(table, "audience", NONE, |text| {
        not_empty(text, "an audience")
    });
    if !table.has("audience") {
        table.missing("audience", "who the tokens are for, as in `aud`");
    }
    let algorithms = some_of(table, "algorithms", NONE, |text| {
        Algorithm::named(text).ok_or_else(|| {
            let names = Algorithm::ALL.map(Algorithm::name).join("`, `");
            format!("one of `{names}`")
        })
    });
    let types = some_of(table, "type", NONE, |text| {
        Type::named(text).ok_or_else(|| "a media type such as `at+jwt`".to_owned())
    });
    let claim = |key| table.value(key, |text| not_empty(text, "a claim's name"));
    let (name_claim, groups_claim) = (claim("name_claim"), claim("groups_claim"));
    let keys = key_source(table);
    let rule = jwt::Rule {
        provider: Arc::clone(provider),
        issuer: issuer?,
        audience: audience?,
        algorithms: algorithms.unwrap_or_else(|| Algorithm::ALL.to_vec()),
        types: types.or_else(|| ["at+jwt", "JWT"].into_iter().map(Type::named).collect())?,
        name_claim: name_claim.unwrap_or_else(|| "sub".to_owned()),
        groups_claim,
        trust_unverified_email: table.boolean("trust_unverified_email").unwrap_or(false),
    };
    Some(Takes::Tokens {
        rule: Arc::new(rule),
        keys: keys?,
    })
}

fn key_source(table: &Table) -> Option<KeySource> {
    let url = table.value("jwks_url", |text| {
        fetchable(text).then(|| text.to_owned()).ok_or_else(|| {
            "an `https://` URL, or an `http://` one of this machine (127.0.0.1, [::1], localhost)"
                .to_owned()
        })
    });
    let file = table.string("jwks_file");
    match (table.has("jwks_url"), table.has("jwks_file")) {
        (true, true) => {
            table.problem("jwks_file", "take either `jwks_url` or `jwks_file`", None);
            None
        }
        (false, false) => {
            table.missing(
                "jwks_url",
                "where the issuer publishes its keys, or `jwks_file`",
            );
            None
        }
        (true, false) => url.map(KeySource::Url),
        (false, true) => file.map(|file| KeySource::File(file.into())),
    }
}

/// Keys fetched in the clear are whatever the network says they are.
fn fetchable(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else {
        return false;
    };
    let here = matches!(uri.host(), Some("127.0.0.1" | "[::1]" | "localhost"));
    let secure = uri.scheme_str() == Some("https");
    let no_user = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    no_user && (secure || here && uri.scheme_str() == Some("http"))
}

/// A list of which at least one element must be written; `empty` says why.
pub fn some_of<T>(
    table: &Table,
    key: &'static str,
    empty: &str,
    mut parse: impl FnMut(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let mut written = false;
    let list = table.list(key, |text| {
        written = true;
        parse(text)
    });
    // One that could not be read has its own problem.
    if !written && list.is_some() {
        table.problem(key, empty, None);
    }
    list
}

fn not_empty(text: &str, expected: &str) -> Result<String, String> {
    if text.is_empty() {
        Err(expected.to_owned())
    } else {
        Ok(text.to_owned())
    }
}
