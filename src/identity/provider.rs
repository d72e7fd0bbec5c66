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
use super::github;
use super::introspection;
use super::machine_tokens::TOKENS;
use super::metadata::{Aliases, Metadata, is_safe};
use super::oidc::{Audience, Authentication, Settings};
use super::parameter::Parameter;

/// The name of the method that takes local accounts by HTTP basic.
pub const BASIC: &str = "basic";

/// Keys of `[provider.NAME]`.
pub const KEYS: &[Key] = &[
    key(
        "kind",
        "`oidc`, `github`, `jwt`, `introspection` or `basic`",
        "none: required",
        "What the method takes: people, by an OpenID provider's sign-in page or by GitHub's; bearer tokens that an issuer has signed; bearer tokens that only their issuer can read, which is asked about each (RFC 7662); or names and passwords by HTTP basic.",
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
        "the method's name; GitHub for `github`",
        "What people call the provider: the button of the sign-in page says `Continue with ..`.",
    ),
    key(
        "client_id",
        "string",
        "none: required for `oidc`, `github` and `introspection`",
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
        "`client_secret_basic`, `client_secret_post`, `private_key_jwt`, `tls` or `none`",
        "a secret, as the provider takes it",
        "How the gate proves to the provider who it is (for `introspection`, by a secret alone): `private_key_jwt` by what a key has signed, `tls` by `certificate`, `none` not at all, which leaves a code to PKCE alone.",
    ),
    key(
        "client_key",
        "file",
        "keys of the gate's own",
        "The key of `private_key_jwt` where the provider takes an uploaded public key or certificate: P-256 or RSA, PKCS#8 in PEM. Without it the gate makes keys, keeps them in `state/client.keys`, rotates them, and publishes them at `/.portcullis/client-keys.json` of each application that takes this provider: give that to the provider as `jwks_uri`.",
    ),
    key(
        "client_key_id",
        "string",
        "none",
        "The id (`kid`) of `client_key` at the provider.",
    ),
    key(
        "client_key_certificate",
        "file",
        "none",
        "The certificate of `client_key`, in PEM, for providers that know a key by it (`x5t#S256`), as Entra does.",
    ),
    key(
        "client_assertion_audience",
        "`issuer` or `token_endpoint`",
        "issuer",
        "For whom the key signs: older providers, Entra among them, know only `token_endpoint`.",
    ),
    key(
        "scopes",
        "list of strings",
        "[\"profile\", \"email\"]",
        "What is asked for besides `openid`. Ask for `offline_access` where a provider gives no refresh token without; some give it only with `prompt = [\"consent\"]`, too (OpenID Connect Core §11). With a `preset`, what its product needs for that.",
    ),
    key(
        "url",
        "https URL",
        "https://github.com",
        "Where GitHub is, for `github`. A GitHub Enterprise Server has its API below it, at `/api/v3`.",
    ),
    key(
        "organizations",
        "list of strings",
        "none: required for `github`",
        "The organisations at GitHub whose members are let in; nobody else is. Each is a group of its members, and each team in it one by the name of `organization/team`.",
    ),
    key(
        "any_user",
        "true or false",
        "false",
        "Whether everybody who has an account at this GitHub is let in, which anybody can make at github.com.",
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
        "none; [\"consent\"] for `google`",
        "`prompt` of each request: `login`, `consent`, `select_account`, `none`.",
    ),
    key(
        "authorization_parameters",
        "table of texts",
        "none; `access_type = \"offline\"` for `google`",
        "What each request to sign in says besides, as in `{ hd = \"example.com\" }`. Nothing that the gate says itself, or that has a key of its own here, can be said so: `state`, `nonce`, `redirect_uri`, `scope`, `prompt` and the like.",
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
        "groups_url",
        "https URL",
        "none",
        "Where all groups of a user are asked for when they do not fit a token, as with more than 200 at Entra: for that `https://graph.microsoft.com/v1.0/me/getMemberObjects`, with `User.Read` among `scopes`. It is sent the user's access token, once at sign-in and at each refresh; more than 1024 groups are refused. Where the token itself says that the groups are is never asked. Without `groups_url`, nobody whose groups do not fit signs in.",
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
        "sub; login for `github`; for `introspection`, `username` where there is no `sub`",
        "The claim that becomes the user's name. Take one that users can't choose. At GitHub `login` can be renamed, and then taken by somebody else: `id`, a number, stays. Whoever is called otherwise when the provider is asked again signs in anew.",
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
        /// The key of `private_key_jwt`, where it is not one of the gate's own.
        key: Option<KeyFile>,
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

/// A key that the operator made, for the provider to know the gate by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// The key.
    pub file: PathBuf,
    /// Its id at the provider.
    pub id: Option<String>,
    /// Its certificate.
    pub certificate: Option<PathBuf>,
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
    /// Whether it knows the gate by keys that the gate makes and publishes.
    pub fn needs_published_keys(&self) -> bool {
        match &self.takes {
            Takes::People { settings, key, .. } => {
                matches!(settings.authentication, Authentication::Key(_)) && key.is_none()
            }
            Takes::Passwords { .. } | Takes::Tokens { .. } | Takes::Introspected { .. } => false,
        }
    }

    /// The files that it is read from.
    pub fn files(&self) -> Vec<&Path> {
        let (own, trust) = match &self.takes {
            Takes::Passwords { file, .. } => return vec![file],
            Takes::Tokens { keys, trust, .. } => match keys {
                KeySource::File(file) => (vec![file], trust),
                KeySource::Url(_) => (Vec::new(), trust),
            },
            Takes::Introspected { secret, trust, .. } => match secret {
                SecretSource::File(file) => (vec![file], trust),
                SecretSource::Env(_) | SecretSource::Credential(_) => (Vec::new(), trust),
            },
            Takes::People {
                secret, key, trust, ..
            } => {
                let secret = match secret {
                    Some(SecretSource::File(file)) => Some(file),
                    Some(SecretSource::Env(_) | SecretSource::Credential(_)) | None => None,
                };
                let key = key.iter().flat_map(|key| {
                    let certificate = key.certificate.as_ref();
                    std::iter::once(&key.file).chain(certificate)
                });
                (secret.into_iter().chain(key).collect(), trust)
            }
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
            "oidc" | "github" | "jwt" | "introspection" | "basic" => Ok(text.to_owned()),
            _ => Err("`oidc`, `github`, `jwt`, `introspection` or `basic`".to_owned()),
        });
        let name = Arc::from(name);
        if kind.as_deref() != Some("github") {
            foreign(table, &["url", "organizations", "any_user"], "github");
        }
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
            Some("github") => {
                foreign(table, &["file", "groups"], "basic");
                foreign(table, &["audience", "jwks_file"], "jwt");
                foreign(table, INTROSPECTION_KEYS, "introspection");
                foreign(table, OPENID_KEYS, "oidc");
                for key in PEOPLE_KEYS
                    .iter()
                    .chain(CLIENT_KEYS)
                    .filter(|key| !OAUTH_KEYS.contains(key))
                {
                    foreign(table, &[*key], "oidc");
                }
                github(&name, table)?
            }
            Some(_) => {
                foreign(table, &["file", "groups"], "basic");
                foreign(table, &["audience", "jwks_file"], "jwt");
                foreign(table, INTROSPECTION_KEYS, "introspection");
                people(&name, table)?
            }
            None => {
                if !table.has("kind") {
                    table.missing(
                        "kind",
                        "`oidc`, `github`, `jwt`, `introspection` or `basic`",
                    );
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
    "authorization_parameters",
    "acr_values",
    "max_age",
    "response_mode",
    "sign_out_by",
    "refresh",
    "authorization_url",
    "token_url",
    "userinfo_url",
    "groups_url",
    "end_session_url",
];

/// Those of [`TOKEN_KEYS`] that mean nothing without ID tokens.
const OPENID_KEYS: &[&str] = &[
    "issuer",
    "jwks_url",
    "algorithms",
    "type",
    "groups_claim",
    "trust_unverified_email",
];

/// Those of [`PEOPLE_KEYS`] that mean something without OpenID, too.
const OAUTH_KEYS: &[&str] = &[
    "title",
    "client_id",
    "client_secret",
    "email_domains",
    "refresh",
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
    prompt: &'static [&'static str],
    parameters: &'static [(&'static str, &'static str)],
    /// It signs nobody out without the ID token.
    sign_out_by_form: bool,
}

const NO_PRESET: Preset = Preset {
    name: "",
    scopes: &["profile", "email"],
    groups_claim: None,
    prompt: &[],
    parameters: &[],
    sign_out_by_form: false,
};

const PRESETS: &[Preset] = &[
    // `offline_access` would have a refresh token outlive the session there.
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
    // It has no groups in tokens; `hd` names the organisation. It does not know `offline_access`, and
    // gives a refresh token for its own parameter, with the first consent or a new one.
    Preset {
        name: "google",
        prompt: &["consent"],
        parameters: &[("access_type", "offline")],
        ..NO_PRESET
    },
    Preset {
        name: "okta",
        scopes: &["profile", "email", "groups", "offline_access"],
        groups_claim: Some("groups"),
        sign_out_by_form: true,
        ..NO_PRESET
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
    let (authentication, key) = authentication(table);
    match (authentication, table.has("client_secret")) {
        (Authentication::None | Authentication::Tls | Authentication::Key(_), true) => {
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
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let scopes = words("scopes").unwrap_or_else(|| owned(preset.scopes));
    let prompt = words("prompt").unwrap_or_else(|| owned(preset.prompt));
    let parameters = parameters(table, preset);
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
    let groups_claim = groups_claim.or_else(|| preset.groups_claim.map(str::to_owned));
    let groups_url = table.value("groups_url", safe_url);
    if groups_url.is_some() && groups_claim.is_none() && !table.has("groups_claim") {
        table.missing("groups_claim", "the claim that lists groups where they fit");
    }
    let email_domains = email_domains(table);
    let age = table.value("max_age", unit::duration);
    let refresh = refresh(table);
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
    if authentication == Authentication::Tls && !table.has("certificate") {
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
        groups_claim,
        trust_unverified_email: table.boolean("trust_unverified_email").unwrap_or(false),
    };
    let settings = Settings {
        title: title.unwrap_or_else(|| provider.to_string()),
        client_id,
        authentication,
        scopes,
        rule: Arc::new(rule),
        email_domains,
        prompt,
        parameters,
        acr: words("acr_values").unwrap_or_default(),
        max_age: age,
        by_form: by_form.unwrap_or(false),
        sign_out_by_form: sign_out_by_form.unwrap_or(preset.sign_out_by_form),
        refresh,
        metadata: metadata?.map(Box::new),
        groups_url,
        github: None,
    };
    Some(Takes::People {
        settings: Box::new(settings),
        secret,
        key,
        trust: trust?,
    })
}

fn github(provider: &Arc<str>, table: &Table) -> Option<Takes> {
    let before = table.problems().count();
    let url = table.value("url", |text| {
        let origin = text.trim_end_matches('/');
        let is_origin = origin
            .split_once("://")
            .is_some_and(|(_, host)| !host.contains(['/', '?']));
        (is_origin && is_safe(origin))
            .then(|| origin.to_owned())
            .ok_or_else(|| "an `https://` URL without a path".to_owned())
    });
    let url = url.unwrap_or_else(|| "https://github.com".to_owned());
    for (key, what) in [
        ("client_id", "the gate's name at GitHub"),
        ("client_secret", "where the client's secret is kept"),
    ] {
        if !table.has(key) {
            table.missing(key, what);
        }
    }
    let organizations = some_of(
        table,
        "organizations",
        "an empty list would let nobody in",
        |text| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (!text.is_empty() && text.len() <= 100 && text.bytes().all(plain))
                .then(|| text.to_owned())
                .ok_or_else(|| "an organisation's name, as in its address at GitHub".to_owned())
        },
    );
    let any_user = table.boolean("any_user").unwrap_or(false);
    match (any_user, table.has("organizations")) {
        (true, true) => {
            let message = "`any_user` lets in everybody, whatever `organizations` says";
            let hint = "take one of them".to_owned();
            table.problem("any_user", message, Some(hint));
        }
        (false, false) => {
            let what = "whose members are let in, or `any_user = true` for everybody";
            table.missing("organizations", what);
        }
        (true, false) | (false, true) => {}
    }
    let client_id = table.value("client_id", |text| not_empty(text, "a client id"));
    let secret = SecretSource::read(table, "client_secret");
    let title = table.value("title", |text| not_empty(text, "what people call it"));
    let name_claim = table.value("name_claim", |text| match text {
        "login" | "id" => Ok(text.to_owned()),
        _ => Err("`login` or `id`".to_owned()),
    });
    let (email_domains, refresh) = (email_domains(table), refresh(table));
    let trust = trust(table);
    if table.problems().count() > before {
        return None;
    }
    let (client_id, metadata) = (client_id?, github::metadata(&url)?);
    let rule = jwt::Rule {
        provider: Arc::clone(provider),
        issuer: metadata.issuer.clone(),
        audience: Vec::new(),
        algorithms: Vec::new(),
        types: Vec::new(),
        name_claim: name_claim.unwrap_or_else(|| "login".to_owned()),
        groups_claim: Some("groups".to_owned()),
        trust_unverified_email: false,
    };
    let settings = Settings {
        title: title.unwrap_or_else(|| "GitHub".to_owned()),
        client_id,
        authentication: Authentication::Post,
        scopes: github::SCOPES.map(str::to_owned).to_vec(),
        rule: Arc::new(rule),
        email_domains,
        prompt: Vec::new(),
        parameters: Vec::new(),
        acr: Vec::new(),
        max_age: None,
        by_form: false,
        sign_out_by_form: false,
        refresh,
        metadata: Some(Box::new(metadata)),
        groups_url: None,
        github: Some(Box::new(github::Rule::new(
            &url,
            organizations.unwrap_or_default(),
            any_user,
        ))),
    };
    Some(Takes::People {
        settings: Box::new(settings),
        secret,
        key: None,
        trust: trust?,
    })
}

/// What each request says besides: what is stated, and what the preset has that is not.
fn parameters(table: &Table, preset: &Preset) -> Vec<Parameter> {
    const KEY: &str = "authorization_parameters";
    let mut stated = Vec::new();
    for (name, values) in table.free_lists(KEY) {
        let parsed = match values.as_slice() {
            [value] => Parameter::new(&name, value),
            [] | [_, ..] => Err(format!("one text for `{name}`")),
        };
        match parsed {
            Ok(parameter) => stated.push(parameter),
            Err(expected) => table.problem(KEY, format!("expected {expected}"), None),
        }
    }
    if stated.len() > MOST_PARAMETERS {
        let message = format!("more than {MOST_PARAMETERS} parameters");
        table.problem(KEY, message, None);
    }
    let of_preset = preset
        .parameters
        .iter()
        .filter_map(|(name, value)| Parameter::new(name, value).ok());
    let unstated: Vec<_> = of_preset
        .filter(|one| stated.iter().all(|other| other.name() != one.name()))
        .collect();
    stated.extend(unstated);
    stated
}

/// More would make an address that providers cut off.
const MOST_PARAMETERS: usize = 16;

/// The domains of the addresses that lead to a provider.
fn email_domains(table: &Table) -> Vec<String> {
    let domains = table.list("email_domains", |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        (!text.is_empty() && text.bytes().all(plain))
            .then(|| text.to_ascii_lowercase())
            .ok_or_else(|| "a domain such as `example.com`".to_owned())
    });
    domains.unwrap_or_default()
}

/// How often a provider is asked about who is signed in.
fn refresh(table: &Table) -> Duration {
    let stated = table.value("refresh", |text| match unit::duration(text) {
        Ok(short) if short < LEAST_REFRESH => Err("expected at least 2s".to_owned()),
        parsed => parsed,
    });
    stated.unwrap_or(Duration::from_secs(300))
}

/// How the gate proves who it is, and the key that the operator made for that.
fn authentication(table: &Table) -> (Authentication, Option<KeyFile>) {
    const OF_A_GIVEN_KEY: [&str; 2] = ["client_key_id", "client_key_certificate"];
    let audience = table.value("client_assertion_audience", |text| match text {
        "issuer" => Ok(Audience::Issuer),
        "token_endpoint" => Ok(Audience::TokenEndpoint),
        _ => Err("`issuer` or `token_endpoint`".to_owned()),
    });
    let stated = table.value("client_auth", |text| match text {
        "client_secret_basic" => Ok(Authentication::Basic),
        "client_secret_post" => Ok(Authentication::Post),
        "private_key_jwt" => Ok(Authentication::Key(audience.unwrap_or(Audience::Issuer))),
        "tls" => Ok(Authentication::Tls),
        "none" => Ok(Authentication::None),
        _ => Err(
            "`client_secret_basic`, `client_secret_post`, `private_key_jwt`, `tls` or `none`"
                .to_owned(),
        ),
    });
    let file = secret::key_file(table, "client_key").map(PathBuf::from);
    let id = table.value("client_key_id", |text| not_empty(text, "the key's id"));
    let certificate = table.string("client_key_certificate").map(PathBuf::from);
    let authentication = stated.unwrap_or(Authentication::Secret);
    let by_key = matches!(authentication, Authentication::Key(_));
    let unused = ["client_key", "client_assertion_audience"]
        .into_iter()
        .filter(|_| !by_key)
        .map(|key| (key, "`client_auth = \"private_key_jwt\"`"));
    let without = OF_A_GIVEN_KEY
        .into_iter()
        .filter(|_| !table.has("client_key"))
        .map(|key| (key, "a `client_key`"));
    for (key, needed) in unused.chain(without) {
        if table.has(key) {
            table.problem(key, format!("`{key}` is for {needed} only"), None);
        }
    }
    let key = file.map(|file| KeyFile {
        file,
        id,
        certificate,
    });
    (authentication, key)
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
        takes_pss: false,
        aliases: Aliases::default(),
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
