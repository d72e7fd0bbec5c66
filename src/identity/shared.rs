//! What lives as long as the process: sessions, what was verified a moment ago, who failed how often, and
//! what is known of issuers and providers, which a reload does not forget.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use zeroize::Zeroizing;

use crate::backend::fetch::Client;
use crate::backend::tls;
use crate::keys::{self, NoRandom, Signer};
use crate::pure::introspection::BadAnswer;
use crate::pure::machine_token::Id as TokenId;
use crate::pure::seal::{self, Mac};
use crate::session::{Live, Sessions};

use super::introspection::Introspector;
use super::machine_tokens::MachineTokens;
use super::oidc::Oidc;
use super::password::Pool;
use super::regulation::Regulation;
use super::verified::{UnderWay, Verified};
use super::{Standing, introspection, jwks, machine_tokens, oidc};

/// What lives as long as the process.
pub struct Shared {
    pub(super) sessions: Sessions,
    pub(super) pool: Pool,
    pub(super) verified: Verified,
    /// Programs that showed an issuer's token, until it ends or has to be asked about again.
    pub(super) programs: Verified<Arc<Live>>,
    /// Apart, so that a flood of what is no token pushes out nobody's.
    pub(super) not_active: Verified<BadAnswer>,
    pub(super) under_way: UnderWay,
    pub(super) regulation: Regulation,
    pub(super) keys: keys::Keys,
    pub(super) client_keys: Arc<Signer>,
    pub(super) issuers: Mutex<HashMap<[u8; 32], Weak<jwks::Keys>>>,
    pub(super) providers: Mutex<HashMap<[u8; 32], Weak<Oidc>>>,
    pub(super) introspectors: Mutex<HashMap<[u8; 32], Weak<Introspector>>>,
    /// What is open for each of the gate's own tokens waits here for its end.
    pub(super) standing: Mutex<HashMap<[u8; 32], Arc<Live>>>,
    pub(super) system_client: OnceLock<Result<Client, tls::Error>>,
    pub(super) generations: AtomicU64,
}

impl Shared {
    /// What is shared, with `hashes_at_once` passwords verified at a time.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn new(sessions: Sessions, hashes_at_once: usize) -> Result<Self, NoRandom> {
        Ok(Self {
            sessions,
            pool: Pool::new(hashes_at_once),
            verified: Verified::default(),
            programs: Verified::default(),
            not_active: Verified::default(),
            under_way: UnderWay::default(),
            regulation: Regulation::default(),
            keys: keys::Keys::generate()?,
            client_keys: Arc::default(),
            issuers: Mutex::default(),
            providers: Mutex::default(),
            introspectors: Mutex::default(),
            standing: Mutex::default(),
            system_client: OnceLock::new(),
            generations: AtomicU64::new(0),
        })
    }

    /// The same, with the keys that several gates have in common.
    ///
    /// # Errors
    /// [`NoRandom`] if the operating system gives no random bytes.
    pub fn in_common(self, common: &keys::Common) -> Result<Self, NoRandom> {
        let keys = keys::Keys::in_common(common)?;
        Ok(Self { keys, ..self })
    }

    /// The sessions.
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The keys by which providers know the gate; whoever keeps them puts them in.
    pub const fn client_keys(&self) -> &Arc<Signer> {
        &self.client_keys
    }

    pub(super) fn generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// The keys at `url`, of a server that is trusted by the files with this hash: those that are kept
    /// fresh already, or new ones.
    pub(super) fn issuer(&self, url: &str, trusted: &[u8; 32]) -> Arc<jwks::Keys> {
        let known_by = Mac::new(trusted).tag(&[url.as_bytes()]);
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        issuers.retain(|_, keys| keys.strong_count() > 0);
        if let Some(keys) = issuers.get(&known_by).and_then(Weak::upgrade) {
            return keys;
        }
        let keys = Arc::new(jwks::Keys::at(url.to_owned()));
        issuers.insert(known_by, Arc::downgrade(&keys));
        keys
    }

    /// The provider of these settings, and of the files with this hash: the one that is in use
    /// already, or a new one, so that a reload forgets nothing that the provider said.
    pub(super) fn provider(
        &self,
        settings: oidc::Settings,
        files: [u8; 32],
        client: Client,
        proof: oidc::Proof,
    ) -> Arc<Oidc> {
        let known_by = seal::hash(format!("{settings:?}{files:?}").as_bytes());
        let mut providers = self
            .providers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        providers.retain(|_, provider| provider.strong_count() > 0);
        if let Some(provider) = providers.get(&known_by).and_then(Weak::upgrade) {
            return provider;
        }
        let provider = Arc::new(Oidc::new(settings, client, proof));
        providers.insert(known_by, Arc::downgrade(&provider));
        provider
    }

    /// The introspector of these settings: the one that is in use already, or a new one, so that a reload
    /// lets no more questions be asked at once.
    pub(super) fn introspector(
        &self,
        settings: introspection::Settings,
        client: Client,
        secret: Zeroizing<String>,
        files: &[u8; 32],
    ) -> Arc<Introspector> {
        let secret_hash = seal::hash(secret.as_bytes());
        let text = format!("{settings:?}{secret_hash:?}{files:?}");
        let known_by = seal::hash(text.as_bytes());
        let mut introspectors = self
            .introspectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        introspectors.retain(|_, one| one.strong_count() > 0);
        if let Some(one) = introspectors.get(&known_by).and_then(Weak::upgrade) {
            return one;
        }
        let one = Arc::new(Introspector::new(settings, known_by, client, secret));
        introspectors.insert(known_by, Arc::downgrade(&one));
        one
    }

    /// What stands for each of these tokens: what stood for it before, so that a reload loses sight of
    /// nothing that is open.
    pub(super) fn stand(&self, tokens: &MachineTokens) -> BTreeMap<TokenId, Standing> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let stand = |(id, token): (&TokenId, &machine_tokens::MachineToken)| {
            let fingerprint = token.fingerprint(id);
            let live = standing.entry(fingerprint).or_insert_with(|| {
                let user = Arc::new(token.user(id));
                Arc::new(self.sessions.standing(user, fingerprint, token.expires))
            });
            let live = Arc::clone(live);
            (id.clone(), Standing { fingerprint, live })
        };
        tokens.iter().map(stand).collect()
    }

    /// What asks issuers that the system's authorities vouch for; these are read once.
    pub(super) fn system_client(&self) -> Result<Client, tls::Error> {
        let made = || tls::client_config(None, None).map(Client::new);
        self.system_client.get_or_init(made).clone()
    }
}
