//! The ways to be known that the configuration states, opened for use.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::backend::fetch::Client;
use crate::backend::tls;
use crate::keys::{self, ClientKey, GivenKey};
use crate::pure::identity::User;
use crate::pure::jwt;
use crate::pure::seal;
use crate::pure::table::Problems;

use super::accounts::Accounts;
use super::introspection::Introspector;
use super::oidc::Oidc;
use super::password::Stored;
use super::provider::{KeyFile, KeySource, Provider, Takes, Trust};
use super::shared::Shared;
use super::{accounts, introspection, jwks, oidc, secrets};

pub(super) enum Method {
    Passwords(Passwords),
    Tokens(Tokens),
    People(Arc<Oidc>),
    Introspection(Arc<Introspector>),
}

pub(super) struct Passwords {
    pub(super) provider: Arc<str>,
    pub(super) accounts: Accounts,
    pub(super) generation: u64,
}

pub(super) struct Tokens {
    pub(super) rule: Arc<jwt::Rule>,
    pub(super) keys: Arc<jwks::Keys>,
    pub(super) client: Client,
    pub(super) generation: u64,
}

impl Method {
    pub(super) fn open(
        shared: &Shared,
        provider: &Provider,
        base: &Path,
        problems: &Problems,
    ) -> Option<Self> {
        let generation = shared.generation();
        match &provider.takes {
            Takes::Passwords { file, groups } => {
                let accounts = accounts::load_htpasswd(&base.join(file), groups, problems)?;
                let provider = Arc::clone(&provider.name);
                Some(Self::Passwords(Passwords {
                    provider,
                    accounts,
                    generation,
                }))
            }
            Takes::People {
                settings,
                secret,
                key,
                trust,
            } => {
                let mut urls = settings.metadata.as_deref().map_or_else(
                    || vec![&*settings.rule.issuer],
                    |stated| vec![stated.token.as_str(), &stated.jwks],
                );
                urls.extend(settings.groups_url.as_deref());
                // Before they are read for use: what changes meanwhile makes the next reload's differ.
                let mut files = format!("{trust:?}{key:?}").into_bytes();
                for file in provider.files() {
                    files.extend(seal::hash(&read(&base.join(file), provider, problems)?));
                }
                let client = client(shared, trust, &urls, base, provider, problems)?;
                let proof = match (secret, settings.authentication) {
                    (Some(source), _) => {
                        let secret = secrets::load(source, base);
                        let secret = secret.map_err(|why| about(provider, &why, problems));
                        oidc::Proof::Secret(secret.ok()?)
                    }
                    (None, oidc::Authentication::Key(_)) => oidc::Proof::Key(client_key(
                        shared,
                        key.as_ref(),
                        base,
                        provider,
                        problems,
                    )?),
                    (None, _) => oidc::Proof::None,
                };
                if let oidc::Proof::Secret(secret) = &proof {
                    files.extend(seal::hash(secret.as_bytes()));
                }
                let settings = oidc::Settings::clone(settings);
                let files = seal::hash(&files);
                Some(Self::People(
                    shared.provider(settings, files, client, proof),
                ))
            }
            Takes::Introspected {
                settings,
                secret,
                trust,
            } => {
                // Before they are read for use, as above.
                let files = trusted(trust, base);
                let client = client(shared, trust, &[&settings.url], base, provider, problems)?;
                let secret = secrets::load(secret, base)
                    .map_err(|why| about(provider, &why, problems))
                    .ok()?;
                let settings = introspection::Settings::clone(settings);
                Some(Self::Introspection(
                    shared.introspector(settings, client, secret, &files),
                ))
            }
            Takes::Tokens { rule, keys, trust } => {
                let url = match keys {
                    KeySource::Url(url) => vec![url.as_str()],
                    KeySource::File(_) => Vec::new(),
                };
                let files = trusted(trust, base);
                let client = client(shared, trust, &url, base, provider, problems)?;
                let keys = match keys {
                    KeySource::Url(url) => shared.issuer(url, &files),
                    KeySource::File(file) => {
                        let path = base.join(file);
                        let keys = jwks::from_file(&path).map_err(|why| {
                            problems.about_file(&path.display().to_string(), why.to_string(), None);
                        });
                        Arc::new(keys.ok()?)
                    }
                };
                Some(Self::Tokens(Tokens {
                    rule: Arc::clone(rule),
                    keys,
                    client,
                    generation,
                }))
            }
        }
    }
}

fn about(provider: &Provider, why: &dyn std::fmt::Display, problems: &Problems) {
    let message = format!("`[provider.{}]` can't be used: {why}", provider.name);
    problems.about_file("portcullis.toml", message, None);
}

/// The key by which a provider knows the gate; nothing after adding why there is none.
fn client_key(
    shared: &Shared,
    given: Option<&KeyFile>,
    base: &Path,
    provider: &Provider,
    problems: &Problems,
) -> Option<ClientKey> {
    let Some(given) = given else {
        return Some(ClientKey::Published(Arc::clone(&shared.client_keys)));
    };
    let read = |file: &Path| read(&base.join(file), provider, problems);
    let pem = read(&given.file)?;
    let certificate = match &given.certificate {
        Some(file) => Some(read(file)?),
        None => None,
    };
    let certificate = certificate.as_ref().map(|pem| pem.as_slice());
    match GivenKey::read(&pem, given.id.clone(), certificate) {
        Ok(key) => Some(ClientKey::Given(key)),
        Err(why) => {
            let why = format!("`{}`: {why}", given.file.display());
            about(provider, &why, problems);
            None
        }
    }
}

/// What a file holds; nothing after adding why it can't be read.
fn read(path: &Path, provider: &Provider, problems: &Problems) -> Option<Zeroizing<Vec<u8>>> {
    let content = std::fs::read(path).map(Zeroizing::new);
    content
        .map_err(|why| {
            let why = format!("`{}` can't be read: {why}", path.display());
            about(provider, &why, problems);
        })
        .ok()
}

/// What tells the files of `trust` from those before a change: whom they name is whom it trusts.
fn trusted(trust: &Trust, base: &Path) -> [u8; 32] {
    let pair = trust
        .certificate
        .iter()
        .flat_map(|(chain, key)| [chain, key]);
    let files = trust.ca.iter().chain(pair);
    let contents: Vec<_> = files
        .map(|file| std::fs::read(base.join(file)).map(Zeroizing::new).ok())
        .map(|content| content.map(|content| seal::hash(&content)))
        .collect();
    seal::hash(format!("{trust:?}{contents:?}").as_bytes())
}

/// What asks the servers of these URLs; nothing after adding why there is none.
fn client(
    shared: &Shared,
    trust: &Trust,
    urls: &[&str],
    base: &Path,
    provider: &Provider,
    problems: &Problems,
) -> Option<Client> {
    let made = if *trust == Trust::default() {
        // Reading the system's authorities takes a while, and issuers of this machine need none.
        if urls.iter().any(|url| url.starts_with("https:")) {
            shared.system_client()
        } else {
            Ok(Client::without_tls())
        }
    } else {
        let read = |file: &Path| read(&base.join(file), provider, problems);
        let ca = match trust.ca.as_deref() {
            Some(file) => Some(read(file)?),
            None => None,
        };
        let pair = match &trust.certificate {
            None => None,
            Some((chain, key)) => Some((read(chain)?, read(key)?)),
        };
        let ca = ca.as_ref().map(|pem| pem.as_slice());
        let pair = pair
            .as_ref()
            .map(|(chain, key)| (chain.as_slice(), key.as_slice()));
        tls::client_config(ca, pair).map(Client::new)
    };
    made.map_err(|why| about(provider, &why, problems)).ok()
}

impl Passwords {
    pub(super) fn user(&self, name: &str, now: SystemTime) -> Option<Arc<User>> {
        self.accounts.user(&self.provider, name, now).map(Arc::new)
    }

    /// The first of `asked` that knows the name; the first of all where none does.
    pub(super) fn that_decides<'p>(asked: &[&'p Self], name: &str) -> Option<&'p Self> {
        let knows = |passwords: &&&Self| passwords.accounts.get(name).is_some();
        asked.iter().find(knows).or_else(|| asked.first()).copied()
    }

    /// Whether there is such an account, and the hash to check against in either case.
    pub(super) fn hash_for(
        asked: &[&Self],
        name: &str,
        keys: &keys::Keys,
    ) -> (bool, Option<Arc<Stored>>) {
        match asked
            .iter()
            .find_map(|passwords| passwords.accounts.get(name))
        {
            Some(account) => (true, Some(Arc::clone(&account.stored))),
            None => {
                let tag = keys.credentials().tag(&[b"decoy", name.as_bytes()]);
                let accounts = asked.iter().map(|passwords| &passwords.accounts);
                (false, Accounts::decoy(accounts, &tag))
            }
        }
    }
}
