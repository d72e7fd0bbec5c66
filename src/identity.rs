//! Who can be known, and how: passwords, tokens and sessions, behind one door.
//!
//! [`Shared`] is made once and lives as long as the process: sessions, what was verified a moment
//! ago, who failed how often. An [`Identity`] is what the configuration in force makes of it; a
//! reload makes a new one, and what rests on accounts or methods that are gone ends with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::backend::fetch::Client;
use crate::keys::{self, NoRandom};
use crate::observe::audit;
use crate::pure::csrf::{self, Forged};
use crate::pure::machine_token::Id as TokenId;
use crate::pure::session::{Id, Seconds};
use crate::pure::table::Problems;
use crate::pure::target::Authority;
use crate::session::{Live, SignIn};

pub mod password;
pub mod verified;
pub mod regulation;
pub mod htpasswd;
pub mod accounts;
pub mod machine_tokens;
pub mod kept;
pub mod jwks;
pub mod metadata;
pub mod github;
pub mod secrets;
pub mod parameter;
pub mod oidc;
pub mod introspection;
pub mod provider;
mod shared;
mod failure;
mod method;
mod by_password;
mod programs;
mod sign_on;
mod live;
mod sign_out;

use accounts::{Accounts, LOCAL};
use machine_tokens::MachineTokens;
use method::{Method, Passwords};
use oidc::Oidc;
use provider::Provider;

pub use by_password::AtSignIn;
pub use failure::Failure;
pub use live::Known;
pub use programs::Machine;
pub use shared::Shared;
pub use sign_on::{Browser, Onward};

/// How long a sign-in form may be open.
const FORM_SECONDS: u64 = 3600;

/// Everybody who can be known under the configuration in force.
pub struct Identity {
    /// The host where people sign in for all others.
    pub sign_in_host: Option<Authority>,
    shared: Arc<Shared>,
    local: Passwords,
    methods: BTreeMap<Arc<str>, Method>,
    machine_tokens: MachineTokens,
    standing: BTreeMap<TokenId, Standing>,
}

/// What of a token of the gate's own outlives a request.
struct Standing {
    fingerprint: [u8; 32],
    live: Arc<Live>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("methods", &self.methods.keys())
            .finish_non_exhaustive()
    }
}

/// A new session.
pub struct SignedIn {
    /// The value of the session cookie; the only copy.
    pub cookie: Zeroizing<String>,
    /// The session.
    pub live: Arc<Live>,
}

impl Identity {
    /// What the configuration makes of local `accounts`, `machine_tokens` and `providers`, whose files
    /// are below `base`; `None` after adding what can't be used.
    pub fn new(
        shared: &Arc<Shared>,
        accounts: Accounts,
        machine_tokens: MachineTokens,
        providers: &[Provider],
        base: &Path,
        problems: &Problems,
    ) -> Option<Self> {
        let mut methods = BTreeMap::new();
        let mut whole = true;
        for provider in providers {
            match Method::open(shared, provider, base, problems) {
                Some(method) => drop(methods.insert(Arc::clone(&provider.name), method)),
                None => whole = false,
            }
        }
        let local = Passwords {
            provider: LOCAL.into(),
            accounts,
            generation: shared.generation(),
        };
        whole.then(|| Self {
            sign_in_host: None,
            shared: Arc::clone(shared),
            local,
            methods,
            standing: shared.stand(&machine_tokens),
            machine_tokens,
        })
    }

    /// What is shared with the configurations before and after.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The keys that nobody keeps fresh yet, and what asks for them: whoever takes them has to, by
    /// [`kept::Kept::keep_fresh`].
    pub fn unattended_keys(&self) -> Vec<(Arc<jwks::Keys>, Client)> {
        let tokens = self.methods.values().filter_map(|method| match method {
            Method::Tokens(tokens) => Some(tokens),
            Method::Passwords(_) | Method::People(_) | Method::Introspection(_) => None,
        });
        tokens
            .filter(|tokens| tokens.keys.needs_attendance())
            .map(|tokens| (Arc::clone(&tokens.keys), tokens.client.clone()))
            .collect()
    }

    /// The providers of which nobody keeps fresh yet what is known: whoever takes them has to, by
    /// [`oidc::keep_fresh`].
    pub fn unattended_providers(&self) -> Vec<Arc<Oidc>> {
        let providers = self.methods.values().filter_map(|method| match method {
            Method::People(provider) => Some(provider),
            Method::Passwords(_) | Method::Tokens(_) | Method::Introspection(_) => None,
        });
        providers
            .filter(|provider| provider.needs_attendance())
            .map(Arc::clone)
            .collect()
    }

    /// The provider with a name.
    pub fn provider(&self, name: &str) -> Option<&Arc<Oidc>> {
        match self.methods.get(name) {
            Some(Method::People(provider)) => Some(provider),
            Some(Method::Passwords(_) | Method::Tokens(_) | Method::Introspection(_)) | None => {
                None
            }
        }
    }

    /// The issuer whose bearer tokens a method takes, where it is stated.
    pub fn issuer(&self, method: &str) -> Option<&str> {
        match self.methods.get(method)? {
            Method::Tokens(tokens) => Some(&tokens.rule.issuer),
            Method::Introspection(introspector) => introspector.settings.rule.issuer.as_deref(),
            Method::Passwords(_) | Method::People(_) => None,
        }
    }

    /// A new session in place of the one that the browser had.
    async fn sign_in(
        &self,
        sign_in: SignIn,
        presented: Option<&str>,
        now: SystemTime,
    ) -> Result<SignedIn, Failure> {
        let sessions = &self.shared.sessions;
        let presented = match presented.map(Id::from_cookie) {
            Some(Ok(id)) => sessions.find(&id, now).await?,
            Some(Err(_)) | None => None,
        };
        let (host, client) = (sign_in.host.clone(), sign_in.client);
        let (id, live) = sessions.create(sign_in, presented.as_deref(), now).await?;
        let user = live.user();
        audit::signed_in(&user, &host, client, live.hash());
        Ok(SignedIn {
            cookie: id.to_cookie(),
            live,
        })
    }

    /// The value of a new cookie for sign-in forms.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn new_form_cookie(&self) -> Result<String, NoRandom> {
        Ok(csrf::cookie(&*keys::random()?))
    }

    /// The token that a form for `purpose` carries, for the browser with this cookie.
    pub fn form_token(&self, purpose: &str, cookie: &str, now: SystemTime) -> String {
        let expires = Seconds::of(now).plus(Duration::from_secs(FORM_SECONDS));
        csrf::token(self.shared.keys.csrf(), purpose, cookie, expires)
    }

    /// Checks that a form for `purpose` was made for the browser with this cookie.
    ///
    /// # Errors
    /// Why it was not.
    pub fn check_form(
        &self,
        purpose: &str,
        cookie: Option<&str>,
        token: &str,
        now: SystemTime,
    ) -> Result<(), Forged> {
        csrf::check(
            self.shared.keys.csrf(),
            purpose,
            cookie,
            token,
            Seconds::of(now),
        )
    }
}

#[cfg(test)]
pub(crate) mod tests;
