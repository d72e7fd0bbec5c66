//! Who can be known, and how: passwords, tokens and sessions, behind one door.
//!
//! [`Shared`] is made once and lives as long as the process: sessions, what was verified a moment
//! ago, who failed how often. An [`Identity`] is what the configuration in force makes of it; a
//! reload makes a new one, and what rests on accounts or methods that are gone ends with it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tracing::error;
use zeroize::Zeroizing;

use crate::keys::{self, NoRandom};
use crate::pure::csrf::{self, Forged};
use crate::pure::identity::{User, is_name};
use crate::pure::jwt::{self, BadToken, Proved, Token};
use crate::pure::session::{Id, Seconds};
use crate::pure::table::Problems;
use crate::refusal::{Answer, Limited, Refusal};
use crate::session::{Live, SessionError, Sessions, SignIn};

pub mod password;
pub mod verified;
pub mod regulation;
pub mod htpasswd;
pub mod accounts;
pub mod jwks;
pub mod provider;

use accounts::{Accounts, LOCAL};
use password::{Busy, MAX_PASSWORD_BYTES, Pool, Stored};
use provider::{BASIC, KeySource, Provider, Takes};
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
    under_way: UnderWay,
    regulation: Regulation,
    keys: keys::Keys,
    issuers: Mutex<HashMap<String, Weak<jwks::Keys>>>,
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
            under_way: UnderWay::default(),
            regulation: Regulation::default(),
            keys: keys::Keys::generate()?,
            issuers: Mutex::default(),
            generations: AtomicU64::new(0),
        })
    }

    /// The sessions.
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    fn generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// The keys at `url`: those that are kept fresh already, or new ones.
    fn issuer(&self, url: &str) -> Arc<jwks::Keys> {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        issuers.retain(|_, keys| keys.strong_count() > 0);
        if let Some(keys) = issuers.get(url).and_then(Weak::upgrade) {
            return keys;
        }
        let keys = Arc::new(jwks::Keys::at(url.to_owned()));
        issuers.insert(url.to_owned(), Arc::downgrade(&keys));
        keys
    }
}

/// Everybody who can be known under the configuration in force.
pub struct Identity {
    shared: Arc<Shared>,
    local: Passwords,
    methods: BTreeMap<Arc<str>, Method>,
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
}

struct Passwords {
    provider: Arc<str>,
    accounts: Accounts,
    generation: u64,
}

struct Tokens {
    rule: Arc<jwt::Rule>,
    keys: Arc<jwks::Keys>,
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
        }
    }

    /// The refusal for those failures that no other credential would help; `None` for the rest.
    pub fn refusal(&self) -> Option<Refusal> {
        let answer = match self {
            Self::WrongPassword | Self::BadToken(_) | Self::OtherIssuer => return None,
            Self::Slowed(wait) => Answer::TooManyRequests(Limited {
                retry_after: *wait,
                quota: 5,
                window: regulation::LONGEST_WAIT,
            }),
            Self::Busy | Self::NoKeys | Self::Store | Self::NoMethod => Answer::Unavailable,
        };
        Some(Refusal::new(answer, self.reason()))
    }
}

impl From<Slowed> for Failure {
    fn from(Slowed(wait): Slowed) -> Self {
        Self::Slowed(wait)
    }
}

impl From<Busy> for Failure {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl From<SessionError> for Failure {
    fn from(why: SessionError) -> Self {
        error!(error = %why, "sessions can't be used");
        Self::Store
    }
}

/// Somebody at the sign-in page.
pub struct AtSignIn<'a> {
    /// The name they gave.
    pub name: &'a str,
    /// The password they gave.
    pub password: &'a Zeroizing<String>,
    /// Where they are.
    pub client: IpAddr,
    /// The browser they use, as it names itself.
    pub user_agent: &'a str,
    /// The session cookie they have already: never adopted, always ended.
    pub presented: Option<&'a str>,
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
    /// What the configuration makes of local `accounts` and `providers`, whose files are below
    /// `base`; `None` after adding what can't be used.
    pub fn new(
        shared: &Arc<Shared>,
        accounts: Accounts,
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
            shared: Arc::clone(shared),
            local,
            methods,
        })
    }

    /// What is shared with the configurations before and after.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The keys that nobody keeps fresh yet: whoever asks has to, by [`jwks::Keys::keep_fresh`].
    pub fn unattended(&self) -> Vec<Arc<jwks::Keys>> {
        let keys = self.methods.values().filter_map(|method| match method {
            Method::Tokens(tokens) => Some(&tokens.keys),
            Method::Passwords(_) => None,
        });
        keys.filter(|keys| keys.needs_attendance())
            .map(Arc::clone)
            .collect()
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
        match self.as_of_now(&live) {
            Some(user) => Ok(Some(Known { live, user })),
            None => {
                self.shared.sessions.end(&live, now).await?;
                Ok(None)
            }
        }
    }

    /// Ends the sessions in memory whose account is gone or has another password by now, and with
    /// them what is open for them. To be called after a reload; others end at their next request.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have some; here they are over all the same.
    pub async fn end_orphans(&self, now: SystemTime) -> Result<usize, Failure> {
        let orphans = self
            .shared
            .sessions
            .live(|live| self.as_of_now(live).is_none());
        for live in &orphans {
            self.shared.sessions.end(live, now).await?;
        }
        Ok(orphans.len())
    }

    /// Groups and address are read anew at each request, so that taking one away takes effect
    /// (SECURITY.md J8).
    fn as_of_now(&self, live: &Live) -> Option<Arc<User>> {
        let user = live.user();
        if *user.provider != *LOCAL {
            return None;
        }
        let account = self.local.accounts.get(&user.name)?;
        if account.fingerprint() != live.proof() {
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
        let presented = match presented.map(Id::from_cookie) {
            Some(Ok(id)) => self.shared.sessions.find(&id, now).await?,
            Some(Err(_)) | None => None,
        };
        let sign_in = SignIn {
            user,
            proof: *account.fingerprint(),
            client,
            user_agent: user_agent.to_owned(),
        };
        let (id, live) = self
            .shared
            .sessions
            .create(sign_in, presented.as_deref(), now)
            .await?;
        Ok(SignedIn {
            cookie: id.to_cookie(),
            live,
        })
    }

    /// Ends the session of a cookie; answers whether there was one.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have it.
    pub async fn sign_out(&self, cookie: &str, now: SystemTime) -> Result<bool, Failure> {
        let Ok(id) = Id::from_cookie(cookie) else {
            return Ok(false);
        };
        let Some(live) = self.shared.sessions.find(&id, now).await? else {
            return Ok(false);
        };
        self.shared.sessions.end(&live, now).await?;
        Ok(true)
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
            Some(Method::Tokens(_)) | None => Err(Failure::NoMethod),
        }
    }

    /// Who a bearer token is to `methods`: those whose issuer it claims try it in turn.
    ///
    /// # Errors
    /// Why it is nobody.
    pub async fn by_token(
        &self,
        methods: &[Arc<str>],
        token: &str,
        now: SystemTime,
    ) -> Result<Arc<User>, Failure> {
        let mut stated = Vec::with_capacity(methods.len());
        for method in methods {
            let Some(Method::Tokens(tokens)) = self.methods.get(method) else {
                return Err(Failure::NoMethod);
            };
            if let Some(user) = self.remembered(tokens, token, now) {
                return Ok(user);
            }
            stated.push(tokens);
        }
        let read = Token::parse(token).map_err(Failure::BadToken)?;
        let claimed = read.claimed_issuer();
        let mut failure = Failure::OtherIssuer;
        for tokens in stated {
            if claimed != Some(&tokens.rule.issuer) {
                continue;
            }
            match self.check_token(tokens, token, &read, now).await {
                Ok(user) => return Ok(user),
                Err(why) => failure = why,
            }
        }
        Err(failure)
    }

    fn remembered(&self, tokens: &Tokens, token: &str, now: SystemTime) -> Option<Arc<User>> {
        let generation = tokens.keys.current()?.generation;
        self.shared
            .verified
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
    ) -> Result<Arc<User>, Failure> {
        let mut keys = match tokens.keys.current() {
            Some(keys) => keys,
            None => tokens.keys.newer(None, now).await.ok_or(Failure::NoKeys)?,
        };
        let mut proved = read.verify(&tokens.rule, &keys.set, now);
        if matches!(proved, Err(BadToken::UnknownKey))
            && let Some(newer) = tokens.keys.newer(Some(keys.generation), now).await
        {
            proved = read.verify(&tokens.rule, &newer.set, now);
            keys = newer;
        }
        let Proved { user, expires } = proved.map_err(Failure::BadToken)?;
        let key = self.token_key(tokens, keys.generation, token);
        self.shared
            .verified
            .put(key, Arc::clone(&user), expires, now);
        Ok(user)
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
        let attempt = Attempt::new(mac, &passwords.provider, name, client);
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
        self.shared.regulation.begin(&attempt, now)?;
        let right = match self.verify(asked, name, password).await {
            Ok(right) => right,
            Err(busy) => {
                self.shared.regulation.withdrawn(&attempt);
                return Err(busy.into());
            }
        };
        let user = passwords.user(name, now).filter(|_| right);
        if let Some(user) = &user {
            self.shared.regulation.succeeded(&attempt);
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
            Takes::Tokens { rule, keys } => {
                let keys = match keys {
                    KeySource::Url(url) => shared.issuer(url),
                    KeySource::File(file) => {
                        let path = base.join(file);
                        let keys = jwks::Keys::from_file(&path).map_err(|why| {
                            problems.about_file(&path.display().to_string(), why.to_string(), None);
                        });
                        Arc::new(keys.ok()?)
                    }
                };
                Some(Self::Tokens(Tokens {
                    rule: Arc::clone(rule),
                    keys,
                    generation,
                }))
            }
        }
    }
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
