//! Sign-in methods as the configuration states them: `[provider.NAME]`.
//!
//! Reads text only; the files named here are opened when the configuration is put in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openidconnect::{AuthUrl, TokenUrl};

use crate::pure::introspection::Rule as AnswerRule;
use crate::pure::jwk::Algorithm;
use crate::pure::jwt::{self, Type};
use crate::pure::secret::{self, SecretSource};
use crate::pure::table::{Key, Table, nearest};
use crate::pure::unit;

use super::accounts::{self, LOCAL};
use super::introspection;
use super::machine_tokens::TOKENS;
use super::metadata::{Metadata, is_safe};
use super::oidc::{Authentication, Settings};

/// The name of the method that takes local accounts by HTTP basic.
pub const BASIC: &str = "basic";

/// Keys of `[provider.NAME]`.
pub const KEYS: &[Key] = &[
    key(
        "kind",
        "`oidc`, `jwt`, `introspection` or `basic`",
        "none: required",
        "What the method takes: people, by an OpenID provider's sign-in page; bearer tokens that an issuer has signed; bearer tokens that only their issuer can read, which is asked about each (RFC 7662); or names and passwords by HTTP basic.",
    ),
    key(
        "issuer",
        "string",
        "none: required for `oidc` and `jwt`",
        "`iss` of its tokens, exactly; where it is stated for `introspection`, answers must name it. Below it an OpenID provider states everything else (`/.well-known/openid-configuration`).",
    ),
    key(
        "preset",
        "name of a provider's product",
        "none",
        "Scopes and claims as this product has them, where nothing else is said: `keycloak`, `entra`, `google`, `okta`, `auth0`, `gitlab`, `authentik`, `zitadel`, `dex`.",
    ),
    key(
        "title",
        "text",
        "the method's name",
        "What people call the provider: the button of the sign-in page says `Continue with ..`.",
    ),
    key(
        "client_id",
        "string",
        "none: required for `oidc` and `introspection`",
        "The gate's name at the provider.",
    ),
    key(
        "introspection_url",
        "https URL",
        "none: required for `introspection`",
        "Where the issuer is asked about a token. That one is active is remembered for a minute, and never beyond its end; that one is not, for ten seconds. Sixteen questions are asked at once, and sixty-four wait. While the issuer is away, nobody is let in by tokens that are not remembered (503).",
    ),
    key(
        "clients",
        "list of strings",
        "any",
        "`client_id` of the issuer's answer must be one of these: for issuers that answer without `aud`, in place of `audience`, or beside it.",
    ),
    key(
        "client_secret",
        "secret",
        "none",
        "The secret that the provider gave with it; required unless `client_auth` says otherwise.",
    ),
    key(
        "client_auth",
        "`client_secret_basic`, `client_secret_post`, `tls` or `none`",
        "a secret, as the provider takes it",
        "How the gate proves to the provider who it is (for `introspection`, by a secret alone): `tls` by `certificate`, `none` not at all, which leaves a code to PKCE alone.",
    ),
    key(
        "scopes",
        "list of strings",
        "[\"profile\", \"email\"]",
        "What is asked for besides `openid`. Ask for `offline_access` where a provider gives no refresh token without.",
    ),
    key(
        "email_domains",
        "list of domains",
        "none",
        "Whoever gives an e-mail address of one of these on the sign-in page is sent to this provider.",
    ),
    key(
        "prompt",
        "list of strings",
        "none",
        "`prompt` of each request: `login`, `consent`, `select_account`, `none`.",
    ),
    key(
        "acr_values",
        "list of strings",
        "none",
        "Authentication contexts of which each sign-in must meet one.",
    ),
    key(
        "max_age",
        "duration",
        "any",
        "People prove who they are to the provider anew, if they did longer ago than this.",
    ),
    key(
        "response_mode",
        "`query` or `form_post`",
        "query",
        "How the provider's answer comes by way of the browser.",
    ),
    key(
        "refresh",
        "duration",
        "5m",
        "How often the provider is asked whether somebody who is signed in still may, and what their groups are. At the latest after this, who was disabled there is out here. Needs a refresh token.",
    ),
    key(
        "sign_out_by",
        "`link` or `form`",
        "link",
        "How people sign out at the provider after they have signed out here: by a link, to which the provider may add a question of its own, or by a form that brings it the ID token (`id_token_hint`), for providers that demand one. A form from another site comes without the provider's cookie where that is `SameSite=Lax`.",
    ),
    key(
        "authorization_url",
        "https URL",
        "as the provider states",
        "Where browsers sign in, for providers that state nothing. With `token_url` and `jwks_url` in place of discovery.",
    ),
    key(
        "token_url",
        "https URL",
        "as the provider states",
        "Where codes are redeemed.",
    ),
    key(
        "userinfo_url",
        "https URL",
        "as the provider states",
        "Where claims are asked for that the ID token has not.",
    ),
    key(
        "end_session_url",
        "https URL",
        "as the provider states",
        "Where browsers sign out.",
    ),
    key(
        "ca",
        "file",
        "the system's",
        "The authorities to trust for the provider, in PEM; nobody else is.",
    ),
    key(
        "certificate",
        "file",
        "none",
        "The gate's own certificate for a provider that asks for one, in PEM.",
    ),
    key("key", "file", "none", "Its key, in PEM."),
    key(
        "audience",
        "list of strings",
        "none: required for `jwt`, and for `introspection` without `clients`",
        "`aud` must name one of these: tokens made for somebody else, or for nobody in particular, are refused.",
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
        "sub; for `introspection`, `username` where there is no `sub`",
        "The claim that becomes the user's name. Take one that users can't choose.",
    ),
    key(
        "groups_claim",
        "string",
        "none",
        "The claim that lists the user's groups; a dot goes one level down, as in `realm_access.roles`.",
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
        /// How their issuer is reached.
        trust: Trust,
    },
    /// Bearer tokens that their issuer is asked about.
    Introspected {
        /// How it is asked, and what it must answer.
        settings: Box<introspection::Settings>,
        /// Where the client's secret is kept.
        secret: SecretSource,
        /// How it is reached.
        trust: Trust,
    },
    /// People, by an OpenID provider.
    People {
        /// What it is asked and how it answers.
        settings: Box<Settings>,
        /// Where the client's secret is kept.
        secret: Option<SecretSource>,
        /// How it is reached.
        trust: Trust,
    },
}

/// Whom to trust to be the issuer, and who we are to it: files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Authorities; the system's where there are none.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
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
    /// Sessions that the sign-in page makes, by a local account or a provider.
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
    let built_in = [
        (LOCAL.into(), Kind::Session),
        (BASIC.into(), Kind::Basic),
        (TOKENS.into(), Kind::Bearer),
    ];
    let stated = providers.iter().map(|provider| {
        let kind = match provider.takes {
            Takes::Passwords { .. } => Kind::Basic,
            Takes::Tokens { .. } | Takes::Introspected { .. } => Kind::Bearer,
            Takes::People { .. } => Kind::Session,
        };
        (Arc::clone(&provider.name), kind)
    });
    built_in.into_iter().chain(stated).collect()
}

impl Provider {
    /// The files that it is read from.
    pub fn files(&self) -> Vec<&Path> {
        let (own, trust) = match &self.takes {
            Takes::Passwords { file, .. } => return vec![file],
            Takes::Tokens { keys, trust, .. } => match keys {
                KeySource::File(file) => (Some(file), trust),
                KeySource::Url(_) => (None, trust),
            },
            Takes::Introspected { secret, trust, .. } => match secret {
                SecretSource::File(file) => (Some(file), trust),
                SecretSource::Env(_) | SecretSource::Credential(_) => (None, trust),
            },
            Takes::People { secret, trust, .. } => match secret {
                Some(SecretSource::File(file)) => (Some(file), trust),
                Some(SecretSource::Env(_) | SecretSource::Credential(_)) | None => (None, trust),
            },
        };
        let pair = trust
            .certificate
            .iter()
            .flat_map(|(chain, key)| [chain, key]);
        own.into_iter()
            .chain(&trust.ca)
            .chain(pair)
            .map(PathBuf::as_path)
            .collect()
    }

    /// The method that `[provider.NAME]` states; `None` after adding what is wrong with it.
    pub fn read(name: &str, table: &Table) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            let hint = "take lower-case letters, digits and `-`".to_owned();
            table.problem("kind", format!("`{name}` can't name a method"), Some(hint));
            return None;
        }
        if name == LOCAL || name == BASIC || name == TOKENS {
            let hint = "it is built in, and needs no table".to_owned();
            table.problem("kind", format!("`{name}` is taken"), Some(hint));
            return None;
        }
        let kind = table.value("kind", |text| match text {
            "oidc" | "jwt" | "introspection" | "basic" => Ok(text.to_owned()),
            _ => Err("`oidc`, `jwt`, `introspection` or `basic`".to_owned()),
        });
        let name = Arc::from(name);
        let takes = match kind.as_deref() {
            Some("jwt") => {
                foreign(table, &["file", "groups"], "basic");
                foreign(table, CLIENT_KEYS, "oidc");
                foreign(table, PEOPLE_KEYS, "oidc");
                foreign(table, INTROSPECTION_KEYS, "introspection");
                tokens(&name, table)?
            }
            Some("introspection") => {
                foreign(table, &["file", "groups"], "basic");
                foreign(table, PEOPLE_KEYS, "oidc");
                foreign(table, SIGNED_KEYS, "jwt");
                introspected(&name, table)?
            }
            Some("basic") => {
                foreign(table, TOKEN_KEYS, "jwt");
                foreign(table, SIGNED_KEYS, "jwt");
                foreign(table, CLIENT_KEYS, "oidc");
                foreign(table, PEOPLE_KEYS, "oidc");
                foreign(table, INTROSPECTION_KEYS, "introspection");
                foreign(table, TRUST_KEYS, "oidc");
                passwords(table)?
            }
            Some(_) => {
                foreign(table, &["file", "groups"], "basic");
                foreign(table, &["audience", "jwks_file"], "jwt");
                foreign(table, INTROSPECTION_KEYS, "introspection");
                people(&name, table)?
            }
            None => {
                if !table.has("kind") {
                    table.missing("kind", "`oidc`, `jwt`, `introspection` or `basic`");
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
    "name_claim",
    "groups_claim",
    "trust_unverified_email",
];

const SIGNED_KEYS: &[&str] = &["jwks_url", "jwks_file", "algorithms", "type"];

const INTROSPECTION_KEYS: &[&str] = &["introspection_url", "clients"];

const CLIENT_KEYS: &[&str] = &["client_id", "client_secret", "client_auth"];

const PEOPLE_KEYS: &[&str] = &[
    "preset",
    "title",
    "scopes",
    "email_domains",
    "prompt",
    "acr_values",
    "max_age",
    "response_mode",
    "sign_out_by",
    "refresh",
    "authorization_url",
    "token_url",
    "userinfo_url",
    "end_session_url",
];

const TRUST_KEYS: &[&str] = &["ca", "certificate", "key"];

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
        trust: trust(table)?,
    })
}

fn introspected(provider: &Arc<str>, table: &Table) -> Option<Takes> {
    let before = table.problems().count();
    for (key, what) in [
        (
            "introspection_url",
            "where the issuer is asked about a token",
        ),
        ("client_id", "the gate's name at the issuer"),
        ("client_secret", "where the client's secret is kept"),
    ] {
        if !table.has(key) {
            table.missing(key, what);
        }
    }
    if !table.has("audience") && !table.has("clients") {
        let what =
            "who the tokens are for, as in `aud`; or `clients`, where the issuer gives no `aud`";
        table.missing("audience", what);
    }
    let url = table.value("introspection_url", safe_url);
    let client_id = table.value("client_id", |text| not_empty(text, "a client id"));
    let secret = SecretSource::read(table, "client_secret");
    let by_form = table.value("client_auth", |text| match text {
        "client_secret_basic" => Ok(false),
        "client_secret_post" => Ok(true),
        _ => Err("`client_secret_basic` or `client_secret_post`".to_owned()),
    });
    let names = |key, what: &'static str| {
        some_of(table, key, "an empty list would take no token", |text| {
            not_empty(text, what)
        })
    };
    let text = |key, what: &'static str| table.value(key, |text| not_empty(text, what));
    let rule = AnswerRule {
        provider: Arc::clone(provider),
        issuer: text("issuer", "the issuer's URL"),
        audience: names("audience", "an audience").unwrap_or_default(),
        clients: names("clients", "a client id").unwrap_or_default(),
        name_claim: text("name_claim", "a claim's name"),
        groups_claim: text("groups_claim", "a claim's name"),
        trust_unverified_email: table.boolean("trust_unverified_email").unwrap_or(false),
    };
    let trust = trust(table);
    // What can't be read must not come to be what is not asked.
    if table.problems().count() > before {
        return None;
    }
    let settings = introspection::Settings {
        url: url?,
        client_id: client_id?,
        by_form: by_form.unwrap_or(false),
        rule: Arc::new(rule),
    };
    Some(Takes::Introspected {
        settings: Box::new(settings),
        secret: secret?,
        trust: trust?,
    })
}

fn safe_url(text: &str) -> Result<String, String> {
    is_safe(text).then(|| text.to_owned()).ok_or_else(|| {
        "an `https://` URL, or an `http://` one of this machine (127.0.0.1, [::1], localhost)"
            .to_owned()
    })
}

/// What a provider's product has in its own way.
struct Preset {
    name: &'static str,
    scopes: &'static [&'static str],
    groups_claim: Option<&'static str>,
    /// It signs nobody out without the ID token.
    sign_out_by_form: bool,
}

const NO_PRESET: Preset = Preset {
    name: "",
    scopes: &["profile", "email"],
    groups_claim: None,
    sign_out_by_form: false,
};

const PRESETS: &[Preset] = &[
    Preset {
        name: "keycloak",
        groups_claim: Some("groups"),
        ..NO_PRESET
    },
    // Refresh tokens come for `offline_access` only.
    Preset {
        name: "entra",
        scopes: &["profile", "email", "offline_access"],
        groups_claim: Some("groups"),
        ..NO_PRESET
    },
    // It has no groups in tokens; `hd` names the organisation.
    Preset {
        name: "google",
        ..NO_PRESET
    },
    Preset {
        name: "okta",
        scopes: &["profile", "email", "groups", "offline_access"],
        groups_claim: Some("groups"),
        sign_out_by_form: true,
    },
    // Claims of one's own must be named by a URL there; an action adds them.
    Preset {
        name: "auth0",
        scopes: &["profile", "email", "offline_access"],
        ..NO_PRESET
    },
    // Groups are in userinfo, those that one is a direct member of in the ID token.
    Preset {
        name: "gitlab",
        groups_claim: Some("groups_direct"),
        ..NO_PRESET
    },
    Preset {
        name: "authentik",
        scopes: &["profile", "email", "offline_access"],
        groups_claim: Some("groups"),
        ..NO_PRESET
    },
    Preset {
        name: "zitadel",
        scopes: &["profile", "email", "offline_access"],
        ..NO_PRESET
    },
    Preset {
        name: "dex",
        scopes: &["profile", "email", "groups", "offline_access"],
        groups_claim: Some("groups"),
        ..NO_PRESET
    },
];

fn people(provider: &Arc<str>, table: &Table) -> Option<Takes> {
    let preset = table.value("preset", |text| {
        let names = || PRESETS.iter().map(|preset| preset.name);
        PRESETS
            .iter()
            .find(|preset| preset.name == text)
            .ok_or_else(|| match nearest(text, names()) {
                Some(near) => format!("there is none of this name; did you mean `{near}`?"),
                None => format!("one of `{}`", names().collect::<Vec<_>>().join("`, `")),
            })
    });
    let preset = preset.unwrap_or(&NO_PRESET);
    let before = table.problems().count();
    let issuer = table.value("issuer", |text| {
        is_safe(text)
            .then(|| text.to_owned())
            .ok_or_else(|| "an `https://` URL, exactly as the provider writes it".to_owned())
    });
    for (key, what) in [
        ("issuer", "the provider's URL, exactly as it writes it"),
        ("client_id", "the gate's name at the provider"),
    ] {
        if !table.has(key) {
            table.missing(key, what);
        }
    }
    let client_id = table.value("client_id", |text| not_empty(text, "a client id"));
    let secret = SecretSource::read(table, "client_secret");
    let authentication = table
        .value("client_auth", |text| match text {
            "client_secret_basic" => Ok(Authentication::Basic),
            "client_secret_post" => Ok(Authentication::Post),
            "tls" | "none" => Ok(Authentication::None),
            _ => Err("`client_secret_basic`, `client_secret_post`, `tls` or `none`".to_owned()),
        })
        .unwrap_or(Authentication::Secret);
    match (authentication, table.has("client_secret")) {
        (Authentication::None, true) => {
            let message = "`client_auth` says that there is none";
            table.problem("client_secret", message, None);
        }
        (Authentication::Secret | Authentication::Basic | Authentication::Post, false) => {
            table.missing("client_secret", "where the client's secret is kept");
        }
        (_, _) => {}
    }
    let words = |key| {
        table.list(key, |text| {
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
            (!text.is_empty() && text.bytes().all(plain))
                .then(|| text.to_owned())
                .ok_or_else(|| "a word without spaces and quotes".to_owned())
        })
    };
    let scopes = words("scopes").unwrap_or_else(|| {
        preset
            .scopes
            .iter()
            .map(|&scope| scope.to_owned())
            .collect()
    });
    let algorithms = some_of(
        table,
        "algorithms",
        "an empty list would take no token",
        |text| {
            Algorithm::named(text).ok_or_else(|| {
                let names = Algorithm::ALL.map(Algorithm::name).join("`, `");
                format!("one of `{names}`")
            })
        },
    );
    let types = some_of(table, "type", "an empty list would take no token", |text| {
        Type::named(text).ok_or_else(|| "a media type such as `JWT`".to_owned())
    });
    let claim = |key| table.value(key, |text| not_empty(text, "a claim's name"));
    let (name_claim, groups_claim) = (claim("name_claim"), claim("groups_claim"));
    let email_domains = table.list("email_domains", |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        (!text.is_empty() && text.bytes().all(plain))
            .then(|| text.to_ascii_lowercase())
            .ok_or_else(|| "a domain such as `example.com`".to_owned())
    });
    let age = table.value("max_age", unit::duration);
    let refresh = table.value("refresh", |text| match unit::duration(text) {
        Ok(short) if short < LEAST_REFRESH => Err("expected at least 2s".to_owned()),
        parsed => parsed,
    });
    let by_form = table.value("response_mode", |text| match text {
        "query" => Ok(false),
        "form_post" => Ok(true),
        _ => Err("`query` or `form_post`".to_owned()),
    });
    let sign_out_by_form = table.value("sign_out_by", |text| match text {
        "link" => Ok(false),
        "form" => Ok(true),
        _ => Err("`link` or `form`".to_owned()),
    });
    let title = table.value("title", |text| not_empty(text, "what people call it"));
    let metadata = endpoints(table, issuer.as_deref());
    let trust = trust(table);
    if authentication == Authentication::None
        && table.string("client_auth").as_deref() == Some("tls")
        && !table.has("certificate")
    {
        table.missing("certificate", "the gate's own certificate, in PEM");
    }
    if table.problems().count() > before {
        return None;
    }
    let client_id = client_id?;
    let rule = jwt::Rule {
        provider: Arc::clone(provider),
        issuer: issuer?,
        audience: vec![client_id.clone()],
        algorithms: algorithms.unwrap_or_else(|| Algorithm::ALL.to_vec()),
        types: types.or_else(|| Type::named("JWT").map(|kind| vec![kind]))?,
        name_claim: name_claim.unwrap_or_else(|| "sub".to_owned()),
        groups_claim: groups_claim.or_else(|| preset.groups_claim.map(str::to_owned)),
        trust_unverified_email: table.boolean("trust_unverified_email").unwrap_or(false),
    };
    let settings = Settings {
        title: title.unwrap_or_else(|| provider.to_string()),
        client_id,
        authentication,
        scopes,
        rule: Arc::new(rule),
        email_domains: email_domains.unwrap_or_default(),
        prompt: words("prompt").unwrap_or_default(),
        acr: words("acr_values").unwrap_or_default(),
        max_age: age,
        by_form: by_form.unwrap_or(false),
        sign_out_by_form: sign_out_by_form.unwrap_or(preset.sign_out_by_form),
        refresh: refresh.unwrap_or(Duration::from_secs(300)),
        metadata: metadata?.map(Box::new),
    };
    Some(Takes::People {
        settings: Box::new(settings),
        secret,
        trust: trust?,
    })
}

/// Asking more often would be an attack on the provider.
const LEAST_REFRESH: Duration = Duration::from_secs(2);

/// The endpoints that the configuration states in the provider's place, if it does; nothing after
/// adding what is wrong with them.
fn endpoints(table: &Table, issuer: Option<&str>) -> Option<Option<Metadata>> {
    let url = |key| table.value(key, safe_url);
    const REQUIRED: [&str; 3] = ["authorization_url", "token_url", "jwks_url"];
    const OTHERS: [&str; 2] = ["userinfo_url", "end_session_url"];
    if !REQUIRED.iter().chain(&OTHERS).any(|key| table.has(key)) {
        return Some(None);
    }
    for key in REQUIRED {
        if !table.has(key) {
            table.missing(
                key,
                "its URL, since others are stated in place of discovery",
            );
        }
    }
    let authorization = url("authorization_url").and_then(|url| AuthUrl::new(url).ok());
    let token = url("token_url").and_then(|url| TokenUrl::new(url).ok());
    Some(Some(Metadata {
        issuer: issuer?.to_owned(),
        authorization: authorization?,
        token: token?,
        jwks: url("jwks_url")?,
        userinfo: url("userinfo_url"),
        end_session: url("end_session_url"),
        pushed_requests: None,
        names_itself: false,
        takes_basic: true,
    }))
}

fn trust(table: &Table) -> Option<Trust> {
    let before = table.problems().count();
    let certificate = table.string("certificate").map(PathBuf::from);
    let key = secret::key_file(table, "key").map(PathBuf::from);
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            table.problem("certificate", "`certificate` and `key` go together", None);
            None
        }
    };
    let ca = table.string("ca").map(PathBuf::from);
    (table.problems().count() == before).then_some(Trust { ca, certificate })
}

fn key_source(table: &Table) -> Option<KeySource> {
    let url = table.value("jwks_url", safe_url);
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
