//! Who can be known, and how: passwords, tokens and sessions, behind one door.
//!
//! [`Shared`] is made once and lives as long as the process: sessions, what was verified a moment
//! ago, who failed how often. An [`Identity`] is what the configuration in force makes of it; a
//! reload makes a new one, and what rests on accounts or methods that are gone ends with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tracing::{error, info};
use zeroize::Zeroizing;

use crate::backend::fetch::Client;
use crate::backend::tls;
use crate::keys::{self, ClientKey, GivenKey, NoRandom, Signer};
use crate::observe::audit::{self, By};
use crate::pure::attempt;
use crate::pure::callback;
use crate::pure::csrf::{self, Forged};
use crate::pure::hand_over::{self, Admission, HandOver};
use crate::pure::identity::{User, is_name};
use crate::pure::introspection::BadAnswer;
use crate::pure::jwt::{self, BadToken, Proved, Token};
use crate::pure::machine_token::{self, Id as TokenId};
use crate::pure::return_to::ReturnTo;
use crate::pure::seal::{self, Mac};
use crate::pure::session::{Hash, Id, Parent, Seconds};
use crate::pure::table::Problems;
use crate::pure::target::Authority;
use crate::pure::ticket::{Purpose, Ticket};
use crate::refusal::{Answer, Limited, Refusal};
use crate::session::{Index, Listed, Live, SessionError, Sessions, SignIn, StoreError};

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

use accounts::{Accounts, LOCAL};
use introspection::Introspector;
use kept::Asker;
use machine_tokens::{BadMachineToken, MachineTokens, Scope, TOKENS};
use oidc::Oidc;
use password::{Busy, MAX_PASSWORD_BYTES, Pool, Stored};
use provider::{BASIC, KeyFile, KeySource, Provider, Takes, Trust};
use regulation::{Attempt, Regulation, Slowed};
use verified::{Turn, UnderWay, Verified};

/// How long a verified password need not be verified again.
const PASSWORD_SECONDS: u64 = 300;
/// How long a sign-in form may be open.
const FORM_SECONDS: u64 = 3600;

/// What lives as long as the process.
pub struct Shared {
    sessions: Sessions,
    pool: Pool,
    verified: Verified,
    /// Programs that showed an issuer's token, until it ends or has to be asked about again.
    programs: Verified<Arc<Live>>,
    /// Apart, so that a flood of what is no token pushes out nobody's.
    not_active: Verified<BadAnswer>,
    under_way: UnderWay,
    regulation: Regulation,
    keys: keys::Keys,
    client_keys: Arc<Signer>,
    issuers: Mutex<HashMap<[u8; 32], Weak<jwks::Keys>>>,
    providers: Mutex<HashMap<[u8; 32], Weak<Oidc>>>,
    introspectors: Mutex<HashMap<[u8; 32], Weak<Introspector>>>,
    /// What is open for each of the gate's own tokens waits here for its end.
    standing: Mutex<HashMap<[u8; 32], Arc<Live>>>,
    system_client: OnceLock<Result<Client, tls::Error>>,
    generations: AtomicU64,
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

    fn generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// The keys at `url`, of a server that is trusted by the files with this hash: those that are kept
    /// fresh already, or new ones.
    fn issuer(&self, url: &str, trusted: &[u8; 32]) -> Arc<jwks::Keys> {
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
    fn provider(
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
    fn introspector(
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
    fn stand(&self, tokens: &MachineTokens) -> BTreeMap<TokenId, Standing> {
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
    fn system_client(&self) -> Result<Client, tls::Error> {
        let made = || tls::client_config(None, None).map(Client::new);
        self.system_client.get_or_init(made).clone()
    }
}

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

enum Method {
    Passwords(Passwords),
    Tokens(Tokens),
    People(Arc<Oidc>),
    Introspection(Arc<Introspector>),
}

struct Passwords {
    provider: Arc<str>,
    accounts: Accounts,
    generation: u64,
}

struct Tokens {
    rule: Arc<jwt::Rule>,
    keys: Arc<jwks::Keys>,
    client: Client,
    generation: u64,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The name or the password is wrong; nobody is told which.
    WrongPassword,
    /// Too many failures; try again after this long.
    Slowed(Duration),
    /// Too many passwords are being verified.
    Busy,
    /// The token proves nothing.
    BadToken(BadToken),
    /// The token is of an issuer that no method here takes.
    OtherIssuer,
    /// The issuer's keys were never seen.
    NoKeys,
    /// The session store can't say, or can't keep a session.
    Store,
    /// The rule names a method that is not there.
    NoMethod,
    /// The provider does not vouch for them.
    Provider(oidc::Error),
    /// The token is of the gate's own, and nobody's.
    MachineToken(BadMachineToken),
    /// Its issuer does not stand by the token, or can't say.
    Introspection(introspection::Error),
}

impl Failure {
    /// The reason in log and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::WrongPassword => "sign_in.wrong_password",
            Self::Slowed(_) => "sign_in.slowed",
            Self::Busy => "sign_in.busy",
            Self::BadToken(why) => why.reason(),
            Self::OtherIssuer => "sign_in.jwt_other_issuer",
            Self::NoKeys => "sign_in.no_keys",
            Self::Store => "sign_in.session_store",
            Self::NoMethod => "sign_in.no_method",
            Self::Provider(why) => why.reason(),
            Self::MachineToken(why) => why.reason(),
            Self::Introspection(why) => why.reason(),
        }
    }

    /// The refusal for those failures that no other credential would help; `None` for the rest.
    pub fn refusal(&self) -> Option<Refusal> {
        let answer = match self {
            Self::WrongPassword
            | Self::BadToken(_)
            | Self::OtherIssuer
            | Self::MachineToken(_)
            | Self::Introspection(introspection::Error::Refused(_))
            | Self::Provider(_) => {
                return None;
            }
            Self::Slowed(wait) => Answer::TooManyRequests(Limited {
                retry_after: *wait,
                quota: 5,
                window: regulation::LONGEST_WAIT,
            }),
            Self::Busy
            | Self::NoKeys
            | Self::Store
            | Self::NoMethod
            | Self::Introspection(introspection::Error::Away | introspection::Error::Busy) => {
                Answer::Unavailable
            }
        };
        Some(Refusal::new(answer, self.reason()))
    }
}

impl From<Slowed> for Failure {
    fn from(Slowed(wait): Slowed) -> Self {
        Self::Slowed(wait)
    }
}

impl From<oidc::Error> for Failure {
    fn from(why: oidc::Error) -> Self {
        Self::Provider(why)
    }
}

impl From<Busy> for Failure {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl From<SessionError> for Failure {
    fn from(why: SessionError) -> Self {
        // A line for each request would make of an outage a flood.
        if !matches!(why, SessionError::Store(StoreError::Away)) {
            error!(error = %why, "sessions can't be used");
        }
        Self::Store
    }
}

/// A program that shows a token of the gate's own.
#[derive(Debug)]
pub struct Machine {
    /// What is open for it ends with this.
    pub live: Arc<Live>,
    /// What its token is for; whoever lets it pass has to look.
    pub scope: Arc<Scope>,
}

/// Somebody at the sign-in page.
pub struct AtSignIn<'a> {
    /// The name they gave.
    pub name: &'a str,
    /// The password they gave.
    pub password: &'a Zeroizing<String>,
    /// Where they sign in.
    pub host: &'a str,
    /// Where they are.
    pub client: IpAddr,
    /// The browser they use, as it names itself.
    pub user_agent: &'a str,
    /// The session cookie they have already: never adopted, always ended.
    pub presented: Option<&'a str>,
}

/// The browser that brings a provider's answer.
#[derive(Debug, Clone, Copy)]
pub struct Browser<'b> {
    /// The cookie that the sign-in was begun for.
    pub cookie: Option<&'b str>,
    /// Where it brings it.
    pub host: &'b str,
    /// Where it is.
    pub client: IpAddr,
    /// As it names itself.
    pub user_agent: &'b str,
    /// The session cookie it has already: never adopted, always ended.
    pub presented: Option<&'b str>,
}

/// Where somebody goes who has signed in at a provider.
pub enum Onward {
    /// To a path of this host.
    Here(ReturnTo),
    /// To the host that waits for the sign-in.
    HandOver(Ticket),
}

/// A new session.
pub struct SignedIn {
    /// The value of the session cookie; the only copy.
    pub cookie: Zeroizing<String>,
    /// The session.
    pub live: Arc<Live>,
}

/// A live session, and its user as of now.
#[derive(Debug)]
pub struct Known {
    /// The session.
    pub live: Arc<Live>,
    /// Its user, with the groups of today.
    pub user: Arc<User>,
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

    /// Begins a sign-in at a provider: where the browser goes.
    ///
    /// # Errors
    /// Why it can't.
    pub async fn begin(
        &self,
        provider: &str,
        asked: oidc::Begin<'_>,
        now: SystemTime,
    ) -> Result<String, Failure> {
        let provider = self.provider(provider).ok_or(Failure::NoMethod)?;
        let begun = provider.begin(asked, now).await?;
        let plain = begun.attempt.encode().map_err(|_| oidc::Error::Internal)?;
        let plain = Zeroizing::new(plain);
        self.shared
            .sessions
            .keep_for(&begun.state, Purpose::Attempt, &plain, now, oidc::ATTEMPT)
            .await?;
        Ok(begun.url)
    }

    /// Keeps a provider's answer that came as a form, which the browser sends without its cookies: the
    /// ticket to ask for it with them. Nothing is kept for what answers no sign-in.
    ///
    /// # Errors
    /// Why it is not kept.
    pub async fn keep_answer(&self, form: &[u8], now: SystemTime) -> Result<Ticket, Failure> {
        let callback = callback::parse(form).map_err(oidc::Error::Callback)?;
        self.shared
            .sessions
            .look_at(&callback.state, Purpose::Attempt, now)
            .await?
            .ok_or(oidc::Error::Over)?;
        self.keep(Purpose::Posted, form, oidc::POSTED, now).await
    }

    /// An answer that was kept; it is given out once.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn kept_answer(
        &self,
        ticket: &Ticket,
        now: SystemTime,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let sessions = &self.shared.sessions;
        let form = sessions.redeem(ticket, Purpose::Posted, now).await?;
        Ok(form.ok_or(oidc::Error::Over)?)
    }

    /// Finishes a sign-in: a new session, and where the person was going. A session they had ends.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn finish(
        &self,
        provider: &str,
        answer: &[u8],
        browser: Browser<'_>,
        now: SystemTime,
    ) -> Result<(SignedIn, Onward), Failure> {
        let provider = self.provider(provider).ok_or(Failure::NoMethod)?;
        let callback = callback::parse(answer).map_err(oidc::Error::Callback)?;
        let sessions = &self.shared.sessions;
        let waiting = sessions
            .look_at(&callback.state, Purpose::Attempt, now)
            .await?
            .and_then(|plain| attempt::Attempt::decode(&plain).ok())
            .ok_or(oidc::Error::Over)?;
        // Before it is used up: somebody else's browser must not end it.
        if !browser.cookie.is_some_and(|cookie| waiting.is_of(cookie)) {
            return Err(oidc::Error::OtherBrowser.into());
        }
        let attempt = sessions
            .redeem(&callback.state, Purpose::Attempt, now)
            .await?
            .and_then(|plain| attempt::Attempt::decode(&plain).ok())
            .ok_or(oidc::Error::Over)?;
        let code = provider.check(&attempt, callback, now).await?;
        let vouched = provider.redeem(&attempt, code, now).await?;
        let sign_in = SignIn {
            user: vouched.user,
            proof: provider.fingerprint(),
            host: browser.host.to_owned(),
            client: browser.client,
            user_agent: browser.user_agent.to_owned(),
            tokens: Some(vouched.tokens),
            parent: None,
        };
        let signed_in = self.sign_in(sign_in, browser.presented, now).await?;
        let waits = attempt.hand_over.as_deref().map(Ticket::parse);
        let onward = match waits {
            Some(Ok(ticket)) => Onward::HandOver(ticket),
            Some(Err(_)) | None => Onward::Here(ReturnTo::parse(&attempt.to)),
        };
        Ok((signed_in, onward))
    }

    /// Asks the sign-in host for a session: the ticket that the browser brings there.
    ///
    /// # Errors
    /// Why it can't be asked.
    pub async fn ask_sign_in_host(
        &self,
        asked: &HandOver,
        now: SystemTime,
    ) -> Result<Ticket, Failure> {
        let plain = hand_over::encode(asked).map_err(|_| oidc::Error::Internal)?;
        self.keep(Purpose::HandOver, &plain, oidc::ATTEMPT, now)
            .await
    }

    async fn keep(
        &self,
        purpose: Purpose,
        plain: &[u8],
        life: Duration,
        now: SystemTime,
    ) -> Result<Ticket, Failure> {
        let ticket = Ticket::new(*keys::random().map_err(|_| oidc::Error::Internal)?);
        self.shared
            .sessions
            .keep_for(&ticket, purpose, plain, now, life)
            .await?;
        Ok(ticket)
    }

    /// What another host asks, by its ticket.
    ///
    /// # Errors
    /// [`oidc::Error::Over`] if it asks no more, or why that can't be said.
    pub async fn asked_by(&self, ticket: &Ticket, now: SystemTime) -> Result<HandOver, Failure> {
        let sessions = &self.shared.sessions;
        let asked = sessions.look_at(ticket, Purpose::HandOver, now).await?;
        let asked = asked.and_then(|plain| hand_over::decode(&plain).ok());
        Ok(asked.ok_or(oidc::Error::Over)?)
    }

    /// Gives another host what it asks, out of the session of this cookie: the ticket to bring it.
    ///
    /// # Errors
    /// Why it gets nothing.
    pub async fn hand_over(
        &self,
        ticket: &Ticket,
        cookie: &str,
        now: SystemTime,
    ) -> Result<(Ticket, HandOver), Failure> {
        let id = Id::from_cookie(cookie).map_err(|_| oidc::Error::Over)?;
        let sessions = &self.shared.sessions;
        let live = sessions.find(&id, now).await?.ok_or(oidc::Error::Over)?;
        // Where people signed in elsewhere before a reload, it is that session that providers are asked about.
        let parent = live.record().parent.clone();
        let parent = parent.unwrap_or_else(|| id.as_parent());
        let asked = sessions.redeem(ticket, Purpose::HandOver, now).await?;
        let asked: HandOver = asked
            .and_then(|plain| hand_over::decode(&plain).ok())
            .ok_or(oidc::Error::Over)?;
        let admission = Admission {
            origin: asked.origin.clone(),
            to: asked.to.clone(),
            browser: asked.browser,
            parent: *parent.0,
        };
        let plain = hand_over::encode(&admission).map_err(|_| oidc::Error::Internal)?;
        let plain = Zeroizing::new(plain);
        let life = Duration::from_secs(hand_over::ADMISSION_SECONDS);
        let ticket = self.keep(Purpose::Admission, &plain, life, now).await?;
        Ok((ticket, asked))
    }

    /// Admits a browser by what the sign-in host has given: a session that ends with the one there.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub async fn admit(
        &self,
        ticket: &Ticket,
        origin: &str,
        browser: Browser<'_>,
        now: SystemTime,
    ) -> Result<(SignedIn, ReturnTo), Failure> {
        let sessions = &self.shared.sessions;
        let given = sessions.redeem(ticket, Purpose::Admission, now).await?;
        let given: Admission = given
            .and_then(|plain| hand_over::decode(&plain).ok())
            .ok_or(oidc::Error::Over)?;
        let known = browser.cookie.map(attempt::Attempt::browser);
        let is_theirs = known.is_some_and(|known| seal::same(&known, &given.browser));
        if !is_theirs || given.origin != origin {
            return Err(oidc::Error::OtherBrowser.into());
        }
        let parent = Parent(Zeroizing::new(given.parent));
        let of = sessions.find(&parent.id(), now).await?;
        let of = of.ok_or(oidc::Error::Over)?.record();
        let sign_in = SignIn {
            user: Arc::clone(&of.user),
            proof: of.proof,
            host: browser.host.to_owned(),
            client: browser.client,
            user_agent: browser.user_agent.to_owned(),
            tokens: None,
            parent: Some((parent, of)),
        };
        let signed_in = self.sign_in(sign_in, browser.presented, now).await?;
        Ok((signed_in, ReturnTo::parse(&given.to)))
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

    /// Ends the sessions that a provider's logout token names, and answers how many (Back-Channel
    /// Logout §2.7).
    ///
    /// # Errors
    /// Why the token counts for nothing, or the store may still have some.
    pub async fn signed_out_by(
        &self,
        provider: &str,
        token: &str,
        now: SystemTime,
    ) -> Result<usize, Failure> {
        let oidc = self.provider(provider).ok_or(Failure::NoMethod)?;
        let logout = oidc.logout(token, now).await?;
        let sessions = &self.shared.sessions;
        // As long as the token could come again, and the clocks differ.
        let life = crate::pure::id_token::LOGOUT_TOKEN_LIFE.saturating_mul(2);
        let name = [b"logout", provider.as_bytes(), logout.id.as_bytes()];
        if sessions.was_seen(&name, now).await? {
            return Err(oidc::Error::Replayed.into());
        }
        let index = match (&logout.session, &logout.subject) {
            (Some(session), _) => Index::ProviderSession { provider, session },
            (None, Some(subject)) => Index::Subject { provider, subject },
            (None, None) => return Ok(0),
        };
        let ended = sessions.end_all_of(index, now).await?;
        // Last: a provider that is told that it did not work tries the same token again.
        sessions.see(&name, now, life).await?;
        let whom = logout.subject.as_deref().or(logout.session.as_deref());
        audit::ended_all(By::Provider, provider, whom.unwrap_or_default(), ended);
        Ok(ended)
    }

    /// The live session of a cookie; `None` if there is none, or if its account is gone or has
    /// another password by now (the session ends then).
    ///
    /// # Errors
    /// [`Failure::Store`] if it can't be said.
    pub async fn session(&self, cookie: &str, now: SystemTime) -> Result<Option<Known>, Failure> {
        let Ok(id) = Id::from_cookie(cookie) else {
            return Ok(None);
        };
        let Some(live) = self.shared.sessions.find(&id, now).await? else {
            return Ok(None);
        };
        // One that was made of another is what that is by now.
        let parent = live.record().parent.as_ref().map(Parent::id);
        let user = match parent {
            None => self.user_of(&live, now).await?,
            // In a box, as what is rare and long below.
            Some(parent) => match self.shared.sessions.find(&parent, now).await? {
                Some(parent) => Box::pin(self.user_of(&parent, now)).await?,
                None => None,
            },
        };
        match user {
            Some(user) => Ok(Some(Known { live, user })),
            None => {
                self.shared.sessions.end(&live, now).await?;
                Ok(None)
            }
        }
    }

    /// The user of a session as of now; the session ends where there is none.
    async fn user_of(
        &self,
        live: &Arc<Live>,
        now: SystemTime,
    ) -> Result<Option<Arc<User>>, Failure> {
        if self.is_stale(live, now) {
            Box::pin(self.ask_again(live, now)).await?;
            if live.is_over(now) {
                return Ok(None);
            }
        }
        let user = self.as_of_now(live);
        if user.is_none() {
            self.shared.sessions.end(live, now).await?;
        }
        Ok(user)
    }

    /// Whether the provider has to be asked before the session counts.
    fn is_stale(&self, live: &Live, now: SystemTime) -> bool {
        let record = live.record();
        record.tokens.as_ref().is_some_and(|tokens| {
            tokens.refresh.is_some()
                && self
                    .provider(&record.user.provider)
                    .is_some_and(|provider| {
                        tokens.checked.plus(provider.settings.refresh) <= Seconds::of(now)
                    })
        })
    }

    /// Asks the provider whether a session's user still may; ends the session if not. Of all who come
    /// at this moment one asks.
    async fn ask_again(&self, live: &Live, now: SystemTime) -> Result<(), Failure> {
        let _turn = live.turn().await;
        if live.is_over(now) || !self.is_stale(live, now) {
            return Ok(());
        }
        let Some(provider) = self.provider(&live.user().provider) else {
            return Ok(());
        };
        let later = || live.checked_at(provider.checked_until_retry(now));
        let sessions = &self.shared.sessions;
        // A refresh token that is used twice may end the session (RFC 9700 §4.14.2), so of all gates one
        // uses it.
        let _turn_of_all = match sessions.turn_of_all(live).await {
            Ok(Some(turn)) => turn,
            Ok(None) => return Ok(()),
            // The token that comes instead could not be kept. How long the session still counts is for
            // the sessions to say.
            Err(SessionError::Store(_)) => {
                later();
                return Ok(());
            }
            Err(why) => return Err(why.into()),
        };
        let record = live.record();
        let Some(tokens) = &record.tokens else {
            return Ok(());
        };
        match provider.renew(&record.user, tokens, now).await {
            Ok(None) => Ok(()),
            Ok(Some(vouched)) => Ok(sessions.renew(live, vouched.user, vouched.tokens).await?),
            // What the provider does not say, being away, it can't take back either: who is signed in
            // stays so, and it is asked again soon.
            Err(oidc::Error::Away) => {
                later();
                Ok(())
            }
            Err(why) => {
                let provider = &**provider.name();
                let reason = why.reason();
                info!(provider, reason, "the provider does not renew a session");
                audit::ended(By::Refusal, Some(&record.user), live.hash());
                Ok(sessions.end(live, now).await?)
            }
        }
    }

    /// Asks providers about the sessions that something is open for, which no request would ask about.
    pub async fn ask_about_open_sessions(&self, now: SystemTime) {
        let sessions = &self.shared.sessions;
        let due = sessions.live(|live| {
            Arc::strong_count(live) > 1
                && !live.is_over(now)
                && (live.record().parent.is_some() || self.is_stale(live, now))
        });
        for live in due {
            let parent = live.record().parent.as_ref().map(Parent::id);
            let asked = match parent {
                None => self.ask_again(&live, now).await,
                // Whoever uses what was made of a session uses that session.
                Some(parent) => match sessions.find(&parent, now).await {
                    Ok(Some(parent)) => self.user_of(&parent, now).await.map(drop),
                    Ok(None) => sessions.end(&live, now).await.map_err(Failure::from),
                    Err(why) => Err(why.into()),
                },
            };
            if let Err(why) = asked {
                error!(reason = why.reason(), "a session can't be renewed");
            }
        }
    }

    /// Ends the sessions in memory whose account is gone or has another password by now, and tokens of
    /// the gate's own that are gone or changed, and with them what is open for them. To be called after a
    /// reload; others end at their next request.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have some; here they are over all the same.
    pub async fn end_orphans(&self, now: SystemTime) -> Result<usize, Failure> {
        self.end_orphaned_tokens();
        let orphans = self
            .shared
            .sessions
            .live(|live| self.as_of_now(live).is_none());
        for live in &orphans {
            let user = live.user();
            audit::ended(By::Account, Some(&user), live.hash());
            self.shared.sessions.end(live, now).await?;
        }
        Ok(orphans.len())
    }

    /// The user of a session in memory, as of now.
    pub fn known_now(&self, live: &Live) -> Option<Arc<User>> {
        let parent = live
            .record()
            .parent
            .as_ref()
            .map(|parent| parent.id().hash());
        match parent.and_then(|parent| self.shared.sessions.in_memory(parent)) {
            Some(parent) => self.as_of_now(&parent),
            None => self.as_of_now(live),
        }
    }

    /// A user who has proved who they are with each request, as of now: none where their account or
    /// method is gone.
    pub fn still_known(&self, user: &Arc<User>) -> Option<Arc<User>> {
        let passwords = match self.methods.get(&user.provider) {
            Some(Method::Passwords(passwords)) => passwords,
            Some(Method::Tokens(_) | Method::Introspection(_) | Method::People(_)) => {
                return Some(Arc::clone(user));
            }
            // What stands for one of these ends with it.
            None if *user.provider == *TOKENS => return Some(Arc::clone(user)),
            None if *user.provider == *LOCAL => &self.local,
            None => return None,
        };
        passwords.user(&user.name, user.signed_in_at)
    }

    fn end_orphaned_tokens(&self) {
        let mut standing = self
            .shared
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known: HashSet<_> = self.standing.values().map(|one| one.fingerprint).collect();
        standing.retain(|fingerprint, live| {
            let stays = known.contains(fingerprint);
            if !stays {
                live.finish();
            }
            stays
        });
    }

    /// Groups and address are read anew at each request, so that taking one away takes effect
    /// (SECURITY.md J8).
    fn as_of_now(&self, live: &Live) -> Option<Arc<User>> {
        let record = live.record();
        let user = &record.user;
        if *user.provider != *LOCAL {
            // What its provider says by now is in the session already.
            let provider = self.provider(&user.provider)?;
            return (provider.fingerprint() == record.proof).then(|| Arc::clone(user));
        }
        let account = self.local.accounts.get(&user.name)?;
        if *account.fingerprint() != record.proof {
            return None;
        }
        if account.groups == user.groups && account.email == user.email {
            return Some(Arc::clone(user));
        }
        let (groups, email) = (account.groups.clone(), account.email.clone());
        Some(Arc::new(User {
            groups,
            email,
            ..User::clone(user)
        }))
    }

    /// Signs somebody in to a new session by a local account. A session they had ends.
    ///
    /// # Errors
    /// Why there is no session.
    pub async fn sign_in_with_password(
        &self,
        asked: AtSignIn<'_>,
        now: SystemTime,
    ) -> Result<SignedIn, Failure> {
        let AtSignIn {
            name,
            password,
            host,
            client,
            user_agent,
            presented,
        } = asked;
        self.check_password(&[&self.local], name, password, client, now, false)
            .await?;
        let user = self.local.user(name, now).ok_or(Failure::WrongPassword)?;
        let account = self
            .local
            .accounts
            .get(name)
            .ok_or(Failure::WrongPassword)?;
        let sign_in = SignIn {
            user,
            proof: *account.fingerprint(),
            host: host.to_owned(),
            client,
            user_agent: user_agent.to_owned(),
            tokens: None,
            parent: None,
        };
        self.sign_in(sign_in, presented, now).await
    }

    /// Ends the session of a cookie; answers with it, if there was one.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have it.
    pub async fn sign_out(
        &self,
        cookie: &str,
        now: SystemTime,
    ) -> Result<Option<Arc<Live>>, Failure> {
        let Ok(id) = Id::from_cookie(cookie) else {
            return Ok(None);
        };
        let sessions = &self.shared.sessions;
        let Some(live) = sessions.find(&id, now).await? else {
            return Ok(None);
        };
        let user = live.user();
        audit::ended(By::User, Some(&user), live.hash());
        sessions.end(&live, now).await?;
        // Who signs out at one host signs out at all that share the sign-on.
        let parent = live.record().parent.as_ref().map(Parent::id);
        let Some(parent) = parent else {
            return Ok(Some(live));
        };
        let Some(parent) = sessions.find(&parent, now).await? else {
            return Ok(Some(live));
        };
        sessions.end(&parent, now).await?;
        Ok(Some(parent))
    }

    /// The sessions of a user, wherever they signed in.
    ///
    /// # Errors
    /// [`Failure::Store`] if it can't be said.
    pub async fn sessions_of(&self, user: &User, now: SystemTime) -> Result<Vec<Listed>, Failure> {
        let index = Index::User {
            provider: &user.provider,
            name: &user.name,
        };
        Ok(self.shared.sessions.list(index, now).await?)
    }

    /// Ends some of a user's sessions.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have some.
    pub async fn end_sessions(
        &self,
        user: &User,
        which: &[Hash],
        now: SystemTime,
    ) -> Result<(), Failure> {
        for hash in which {
            audit::ended(By::User, Some(user), *hash);
            self.shared.sessions.end_by_hash(*hash, now).await?;
        }
        Ok(())
    }

    /// Ends all sessions of a user, wherever they signed in, and answers how many.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have some.
    pub async fn sign_out_everywhere(
        &self,
        user: &User,
        now: SystemTime,
    ) -> Result<usize, Failure> {
        let index = Index::User {
            provider: &user.provider,
            name: &user.name,
        };
        let ended = self.shared.sessions.end_all_of(index, now).await?;
        audit::ended_all(By::User, &user.provider, &user.name, ended);
        Ok(ended)
    }

    /// How somebody whose session has ended signs out at their provider, too, and comes back to `back`.
    pub fn end_at_provider(&self, live: &Live, back: &str) -> Option<oidc::EndSession> {
        let record = live.record();
        let provider = self.provider(&record.user.provider)?;
        provider.end_session(record.tokens.as_ref()?, back)
    }

    /// Ends the sessions of a session at a provider, which the provider names by way of a browser
    /// (OpenID Connect Front-Channel Logout §2); the provider alone, and whom it told, knows the name.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have some.
    pub async fn signed_out_in_frame(
        &self,
        provider: &str,
        issuer: &str,
        session: &str,
        now: SystemTime,
    ) -> Result<usize, Failure> {
        let oidc = self.provider(provider).ok_or(Failure::NoMethod)?;
        if issuer != oidc.settings.rule.issuer {
            return Ok(0);
        }
        let index = Index::ProviderSession { provider, session };
        let ended = self.shared.sessions.end_all_of(index, now).await?;
        audit::ended_all(By::Provider, provider, session, ended);
        Ok(ended)
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

    /// Who a name and password are to `methods`: the first of them that knows the name decides.
    ///
    /// # Errors
    /// Why they are nobody.
    pub async fn by_password(
        &self,
        methods: &[Arc<str>],
        name: &str,
        password: &Zeroizing<String>,
        client: IpAddr,
        now: SystemTime,
    ) -> Result<Arc<User>, Failure> {
        let mut stated = Vec::with_capacity(methods.len());
        for method in methods {
            stated.push(self.passwords(method)?);
        }
        self.check_password(&stated, name, password, client, now, true)
            .await
    }

    fn passwords(&self, method: &str) -> Result<&Passwords, Failure> {
        if method == BASIC {
            return Ok(&self.local);
        }
        match self.methods.get(method) {
            Some(Method::Passwords(passwords)) => Ok(passwords),
            Some(Method::Tokens(_) | Method::People(_) | Method::Introspection(_)) | None => {
                Err(Failure::NoMethod)
            }
        }
    }

    /// Which program shows a token of the gate's own to `methods`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn by_machine_token(
        &self,
        methods: &[Arc<str>],
        token: &str,
        now: SystemTime,
    ) -> Result<Machine, Failure> {
        if !methods.iter().any(|method| **method == *TOKENS) {
            return Err(Failure::OtherIssuer);
        }
        let found = self.machine_tokens.find(token, now);
        let (id, token) = found.map_err(Failure::MachineToken)?;
        // INVARIANT: each token has what stands for it.
        let standing = self.standing.get(id).ok_or(Failure::NoMethod)?;
        Ok(Machine {
            live: Arc::clone(&standing.live),
            scope: Arc::clone(&token.scope),
        })
    }

    /// Who a bearer token is to `methods`, and until when: those whose issuer it claims try it in turn. One that claims
    /// none of theirs is shown to the issuers that are asked about tokens.
    ///
    /// # Errors
    /// Why it is nobody.
    pub async fn by_token(
        &self,
        methods: &[Arc<str>],
        token: &str,
        now: SystemTime,
    ) -> Result<Arc<Live>, Failure> {
        // The gate's own is nobody else's to see.
        if machine_token::is_ours(token) {
            return Err(Failure::OtherIssuer);
        }
        let (mut stated, mut asked) = (Vec::with_capacity(methods.len()), Vec::new());
        for method in methods.iter().filter(|method| ***method != *TOKENS) {
            match self.methods.get(method) {
                Some(Method::Tokens(tokens)) => {
                    if let Some(program) = self.remembered(tokens, token, now) {
                        return Ok(program);
                    }
                    stated.push(tokens);
                }
                Some(Method::Introspection(introspector)) => asked.push(introspector),
                Some(Method::Passwords(_) | Method::People(_)) | None => {
                    return Err(Failure::NoMethod);
                }
            }
        }
        let read = Token::parse(token);
        let claimed = read.as_ref().ok().and_then(Token::claimed_issuer);
        stated.retain(|tokens| claimed == Some(&tokens.rule.issuer));
        asked.retain(|one| {
            // To whom it can't belong is not shown it.
            let issuer = one.settings.rule.issuer.as_deref();
            claimed.is_none() || issuer.is_none() || claimed == issuer
        });
        let read = match read {
            Ok(read) => Some(read),
            Err(why @ BadToken::TooLong) => return Err(Failure::BadToken(why)),
            Err(why) if asked.is_empty() => return Err(Failure::BadToken(why)),
            Err(_) => None,
        };
        let mut failure = Failure::OtherIssuer;
        if let Some(read) = read.filter(|_| !stated.is_empty()) {
            for tokens in stated {
                match self.check_token(tokens, token, &read, now).await {
                    Ok(program) => return Ok(program),
                    Err(why) => failure = why,
                }
            }
            return Err(failure);
        }
        for introspector in asked {
            match self.introspect(introspector, token, now).await {
                Ok(program) => return Ok(program),
                // That one does not know it says nothing where another can't be asked.
                Err(_) if failure.refusal().is_some() => {}
                Err(why) => failure = Failure::Introspection(why),
            }
        }
        Err(failure)
    }

    /// Who a token is to its issuer; asked by one of all who show it at this moment.
    async fn introspect(
        &self,
        introspector: &Introspector,
        token: &str,
        now: SystemTime,
    ) -> Result<Arc<Live>, introspection::Error> {
        let Shared {
            sessions,
            keys,
            programs,
            not_active,
            under_way,
            ..
        } = &*self.shared;
        let key = keys.credentials().tag(&[
            b"introspection",
            &introspector.fingerprint,
            token.as_bytes(),
        ]);
        let lead = loop {
            if let Some(program) = programs.get(&key, now) {
                return Ok(program);
            }
            if let Some(why) = not_active.get(&key, now) {
                return Err(introspection::Error::Refused(why));
            }
            match under_way.enter(key) {
                Turn::Lead(lead) => break lead,
                Turn::Follow(waiting) => {
                    if verified::told(waiting).await == Some(false) {
                        return Err(introspection::Error::Away);
                    }
                }
            }
        };
        let answer = introspector.ask(token, now).await.map(|active| {
            let until = Seconds::of(now).plus(introspection::KEPT);
            let ends = active.expires.unwrap_or(Seconds(u64::MAX));
            let program = Arc::new(sessions.standing(active.user, key, ends));
            programs.put(key, Arc::clone(&program), until.min(ends), now);
            program
        });
        let known = match &answer {
            Ok(_) => true,
            Err(introspection::Error::Refused(why)) => {
                let until = Seconds::of(now).plus(introspection::KEPT_REFUSED);
                not_active.put(key, *why, until, now);
                true
            }
            Err(introspection::Error::Away | introspection::Error::Busy) => false,
        };
        lead.tell(known);
        answer
    }

    fn remembered(&self, tokens: &Tokens, token: &str, now: SystemTime) -> Option<Arc<Live>> {
        let generation = tokens.keys.current()?.generation;
        self.shared
            .programs
            .get(&self.token_key(tokens, generation, token), now)
    }

    fn token_key(&self, tokens: &Tokens, keys: u64, token: &str) -> verified::Key {
        self.shared.keys.credentials().tag(&[
            b"token",
            &tokens.generation.to_be_bytes(),
            &keys.to_be_bytes(),
            token.as_bytes(),
        ])
    }

    async fn check_token(
        &self,
        tokens: &Tokens,
        token: &str,
        read: &Token<'_>,
        now: SystemTime,
    ) -> Result<Arc<Live>, Failure> {
        let mut keys = match tokens.keys.current() {
            Some(keys) => keys,
            None => {
                let newer = tokens.keys.newer(None, Asker::Anybody, now).await;
                newer.map_err(|_| Failure::NoKeys)?
            }
        };
        let mut proved = read.verify(&tokens.rule, &keys.value, now);
        if matches!(proved, Err(BadToken::UnknownKey))
            && let Ok(newer) = tokens
                .keys
                .newer(Some(keys.generation), Asker::Anybody, now)
                .await
        {
            proved = read.verify(&tokens.rule, &newer.value, now);
            keys = newer;
        }
        let Proved { user, expires } = proved.map_err(Failure::BadToken)?;
        let key = self.token_key(tokens, keys.generation, token);
        let Shared {
            sessions, programs, ..
        } = &*self.shared;
        let program = Arc::new(sessions.standing(user, key, expires));
        programs.put(key, Arc::clone(&program), expires, now);
        Ok(program)
    }

    /// Verifies a password once for all who send it at this moment; counts failures. The first of
    /// the methods `asked` that knows the name decides.
    async fn check_password(
        &self,
        asked: &[&Passwords],
        name: &str,
        password: &Zeroizing<String>,
        client: IpAddr,
        now: SystemTime,
        may_remember: bool,
    ) -> Result<Arc<User>, Failure> {
        if !is_name(name) || password.len() > MAX_PASSWORD_BYTES {
            return Err(Failure::WrongPassword);
        }
        let passwords = Passwords::that_decides(asked, name).ok_or(Failure::NoMethod)?;
        let mac = self.shared.keys.credentials();
        let failures = self.shared.keys.failures();
        let attempt = Attempt::new(failures, &passwords.provider, name, client);
        // Before the memory is asked: it would tell right guesses from wrong ones.
        self.shared.regulation.check(&attempt, now)?;
        let key = mac.tag(&[
            b"password",
            &passwords.generation.to_be_bytes(),
            name.as_bytes(),
            password.as_bytes(),
        ]);
        if may_remember && let Some(user) = self.shared.verified.get(&key, now) {
            return Ok(user);
        }
        let lead = loop {
            match self.shared.under_way.enter(key) {
                Turn::Lead(lead) => break lead,
                Turn::Follow(waiting) => match verified::told(waiting).await {
                    Some(true) => return passwords.user(name, now).ok_or(Failure::WrongPassword),
                    Some(false) => return Err(Failure::WrongPassword),
                    None => {}
                },
            }
        };
        let (regulation, sessions) = (&self.shared.regulation, &self.shared.sessions);
        regulation.begin_everywhere(&attempt, sessions, now).await?;
        let right = match self.verify(asked, name, password).await {
            Ok(right) => right,
            Err(busy) => {
                regulation.withdrawn_everywhere(&attempt, sessions);
                return Err(busy.into());
            }
        };
        let user = passwords.user(name, now).filter(|_| right);
        if let Some(user) = &user {
            regulation.succeeded_everywhere(&attempt, sessions);
            let until = Seconds::of(now).plus(Duration::from_secs(PASSWORD_SECONDS));
            self.shared.verified.put(key, Arc::clone(user), until, now);
        }
        lead.tell(user.is_some());
        user.ok_or(Failure::WrongPassword)
    }

    /// An unknown name takes as long as a known one, and is wrong (SECURITY.md T1).
    async fn verify(
        &self,
        asked: &[&Passwords],
        name: &str,
        password: &Zeroizing<String>,
    ) -> Result<bool, Busy> {
        let (known, stored) = Passwords::hash_for(asked, name, &self.shared.keys);
        let Some(stored) = stored else {
            return Ok(false);
        };
        Ok(self.shared.pool.verify(stored, password.clone()).await? && known)
    }
}

impl Method {
    fn open(
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
    fn user(&self, name: &str, now: SystemTime) -> Option<Arc<User>> {
        self.accounts.user(&self.provider, name, now).map(Arc::new)
    }

    /// The first of `asked` that knows the name; the first of all where none does.
    fn that_decides<'p>(asked: &[&'p Self], name: &str) -> Option<&'p Self> {
        let knows = |passwords: &&&Self| passwords.accounts.get(name).is_some();
        asked.iter().find(knows).or_else(|| asked.first()).copied()
    }

    /// Whether there is such an account, and the hash to check against in either case.
    fn hash_for(asked: &[&Self], name: &str, keys: &keys::Keys) -> (bool, Option<Arc<Stored>>) {
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

#[cfg(test)]
pub(crate) mod tests;
