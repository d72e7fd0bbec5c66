//! Sign-in by an OpenID provider: the code flow, with PKCE, `state`, `nonce` and the issuer's name
//! always checked (OpenID Connect Core §3.1, RFC 7636, RFC 9207, RFC 9700).
//!
//! | when | then |
//! |---|---|
//! | somebody begins | a ticket in the store, bound to their browser, and the provider's URL |
//! | an answer comes without the browser's cookie, or with another's | refused, and the ticket stays: whoever began it may still finish |
//! | its ticket was used, has ended, or never was | refused before anything is asked of the provider |
//! | it names another issuer, or none where the provider always does, or came to another provider's address | refused |
//! | it brings a code | the code is redeemed, the ID token verified by the provider's keys, and userinfo asked for what is missing |
//! | the provider is away | 503; whoever is signed in already stays so |
//!
//! Nothing of a provider is believed but what its keys have signed, or it said itself over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tracing::warn;
use zeroize::Zeroizing;

use crate::backend::fetch::Client;
use crate::keys::ClientKey;
use crate::pure::attempt;
use crate::pure::jwt;
use crate::pure::seal;

use super::github;
use super::jwks::Keys;
use super::kept::{Asker, FETCH_TIME, Kept};
use super::metadata::Metadata;
use super::parameter::Parameter;

mod error;
mod endpoint;
mod begin;
mod vouch;
mod end;

pub use begin::{Begin, Begun};
pub use end::EndSession;
pub use error::Error;
pub use vouch::Vouched;

pub(super) use endpoint::basic;

/// A provider as the configuration states it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What people call it.
    pub title: String,
    /// Our name there.
    pub client_id: String,
    /// How we prove that we are it.
    pub authentication: Authentication,
    /// What is asked for, besides `openid`.
    pub scopes: Vec<String>,
    /// What its tokens must be, and how they name users.
    pub rule: Arc<jwt::Rule>,
    /// Whose e-mail addresses are signed in there.
    pub email_domains: Vec<String>,
    /// `prompt` of each request.
    pub prompt: Vec<String>,
    /// What each request says besides.
    pub parameters: Vec<Parameter>,
    /// `acr_values` of each request; one of them must be met.
    pub acr: Vec<String>,
    /// The greatest age of a sign-in at the provider.
    pub max_age: Option<Duration>,
    /// Whether it answers by a form.
    pub by_form: bool,
    /// Whether it wants the ID token of whoever signs out.
    pub sign_out_by_form: bool,
    /// How often it is asked whether a user still may.
    pub refresh: Duration,
    /// Its endpoints, where it does not state them itself.
    pub metadata: Option<Box<Metadata>>,
    /// Where all groups of a user are asked for, when they do not fit a token.
    pub groups_url: Option<String>,
    /// Who is let in there, where it is GitHub, which speaks no OpenID.
    pub github: Option<Box<github::Rule>>,
}

/// How a client proves to a provider who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// By its secret, in whichever way the provider takes.
    Secret,
    /// By its secret as HTTP basic.
    Basic,
    /// By its secret in the form.
    Post,
    /// By what its key has signed, for this audience.
    Key(Audience),
    /// By its certificate.
    Tls,
    /// Not at all.
    None,
}

/// For whom a client states who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The issuer: one name for whichever endpoint it is sent to.
    Issuer,
    /// The token endpoint, for providers that know only that.
    TokenEndpoint,
}

/// What a client proves by who it is.
pub enum Proof {
    /// A secret that the provider knows.
    Secret(Zeroizing<String>),
    /// A key, of which the provider knows the public half.
    Key(ClientKey),
    /// Its certificate, or nothing.
    None,
}

/// A provider in use.
pub struct Oidc {
    /// What the configuration says of it.
    pub settings: Settings,
    client: Client,
    proof: Proof,
    fingerprint: [u8; 16],
    metadata: Arc<Kept<Metadata>>,
    keys: ArcSwapOption<KeysAt>,
    attended: AtomicBool,
    /// Whether it was said that it gives no refresh tokens.
    once_and_for_all: AtomicBool,
}

struct KeysAt {
    url: String,
    keys: Arc<Keys>,
}

/// What sessions rest on that the provider of `issuer` vouched for to `client_id`, as far as `given`
/// allows ([`crate::pure::session::Record::proof`]).
pub fn fingerprint(issuer: &str, client_id: &str, given: &str) -> [u8; 16] {
    let whole = seal::hash(format!("{issuer}\0{client_id}{given}").as_bytes());
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(whole) {
        *to = from;
    }
    half
}

impl Oidc {
    /// A provider that `client` asks.
    pub fn new(settings: Settings, client: Client, proof: Proof) -> Self {
        let metadata = match settings.metadata.clone() {
            Some(stated) => Kept::fixed(*stated),
            None => Kept::at(super::metadata::url(&settings.rule.issuer)),
        };
        let given = settings.github.as_ref();
        let given = given.map_or_else(String::new, |github| format!("\0{}", github.lets_in()));
        Self {
            fingerprint: fingerprint(&settings.rule.issuer, &settings.client_id, &given),
            settings,
            client,
            proof,
            metadata: Arc::new(metadata),
            keys: ArcSwapOption::empty(),
            attended: AtomicBool::new(false),
            once_and_for_all: AtomicBool::new(false),
        }
    }

    /// Whether nobody keeps fresh yet what is known of it; the one who asks first has to.
    pub fn needs_attendance(&self) -> bool {
        !self.attended.swap(true, Ordering::Relaxed)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.settings.rule.provider
    }

    /// Whether it learns who we are by keys that we publish.
    pub const fn needs_published_keys(&self) -> bool {
        matches!(self.proof, Proof::Key(ClientKey::Published(_)))
    }

    /// What asks it.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Its metadata, for whoever keeps them fresh.
    pub const fn metadata(&self) -> &Arc<Kept<Metadata>> {
        &self.metadata
    }

    /// What sessions by this provider rest on: they end when it is another one.
    pub const fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    /// What the provider says of itself; fetched for whoever comes first after it was away.
    async fn stated(&self, now: SystemTime) -> Result<Arc<super::kept::Loaded<Metadata>>, Error> {
        let stated = match self.metadata.current() {
            Some(stated) => stated,
            None => {
                let newer = self.metadata.newer(None, Asker::Anybody, now).await;
                newer.map_err(|_| Error::Away)?
            }
        };
        // Metadata of another issuer would have us take its word for this one's (RFC 8414 §3.3).
        if stated.value.issuer != self.settings.rule.issuer {
            warn!(
                provider = &**self.name(),
                issuer = stated.value.issuer,
                expected = self.settings.rule.issuer,
                "the provider's metadata name another issuer; correct `issuer`"
            );
            return Err(Error::Misconfigured);
        }
        Ok(stated)
    }

    /// The keys at a URL, and whether somebody has to keep them fresh.
    fn keys_at(&self, url: &str) -> Arc<Keys> {
        if let Some(known) = self.keys.load_full().filter(|known| known.url == url) {
            return Arc::clone(&known.keys);
        }
        let keys = Arc::new(Keys::at(url.to_owned()));
        self.keys.store(Some(Arc::new(KeysAt {
            url: url.to_owned(),
            keys: Arc::clone(&keys),
        })));
        keys
    }

    /// The keys that nobody keeps fresh yet, as soon as it is known where they are.
    pub fn unattended_keys(&self) -> Option<Arc<Keys>> {
        if self.settings.github.is_some() {
            return None;
        }
        let stated = self.metadata.current()?;
        let keys = self.keys_at(&stated.value.jwks);
        keys.needs_attendance().then_some(keys)
    }

    const fn is_basic(&self, stated: &Metadata) -> bool {
        match self.settings.authentication {
            Authentication::Basic => true,
            Authentication::Secret => stated.takes_basic,
            Authentication::Post
            | Authentication::Key(_)
            | Authentication::Tls
            | Authentication::None => false,
        }
    }
}

/// How long a sign-in may take.
pub const ATTEMPT: Duration = Duration::from_secs(attempt::SECONDS);

/// How long a browser may take to come back for the answer that it has just posted.
pub const POSTED: Duration = Duration::from_secs(60);

/// How soon a provider that was away is asked again about the same session.
pub const RETRY: Duration = Duration::from_secs(15);

/// Keeps everything that is known of a provider fresh, until nobody holds it.
pub async fn keep_fresh(oidc: std::sync::Weak<Oidc>, now: fn() -> SystemTime) {
    let Some(held) = oidc.upgrade() else { return };
    let client = held.client.clone();
    if held.metadata.needs_attendance() {
        let fetch = client.clone();
        let weak = Arc::downgrade(&held.metadata);
        tokio::task::spawn_local(Kept::keep_fresh(
            weak,
            move |url: &str| super::kept::fetched::<Metadata>(fetch.clone(), url.to_owned()),
            now,
        ));
    }
    let mut learned = held.metadata.learned();
    drop(held);
    loop {
        let Some(held) = oidc.upgrade() else { return };
        if let Some(keys) = held.unattended_keys() {
            let fetch = client.clone();
            tokio::task::spawn_local(Keys::keep_fresh(
                Arc::downgrade(&keys),
                move |url: &str| {
                    super::kept::fetched::<crate::pure::jwk::KeySet>(fetch.clone(), url.to_owned())
                },
                now,
            ));
        }
        drop(held);
        // A minute at most, to notice that nobody holds it any more.
        let minute = FETCH_TIME.saturating_mul(12);
        drop(tokio::time::timeout(minute, learned.changed()).await);
    }
}
