//! Who is signed in right now: live sessions in memory, in front of the store.
//!
//! Every request with a cookie asks here, so a hit takes one shard's read lock and no more. A miss
//! asks the store and keeps what it finds. A session that ends leaves a mark, so that a request
//! that had read it from the store a moment before can't bring it back.
//!
//! A [`Live`] session tells whoever holds it when it is over: tunnels and streams wait for that.
//!
//! Where several gates share a store, what is in memory counts only as long as the others are heard:
//!
//! | a session in memory | then |
//! |---|---|
//! | read while the others were heard, and they still are | it counts |
//! | another gate ended it | it is over, and what is open for it closes |
//! | another gate renewed it, or the others are not heard | the store is asked, at most once a second |
//! | the store does not say, for less than `offline` | it counts |
//! | the store does not say for longer | refused; what is open for it closes |

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::keys::{self, NoRandom};
use crate::pure::identity::User;
use crate::pure::quick::Quick;
use crate::pure::seal::{Key, Mac};
use crate::pure::session::{BadRecord, Hash, Id, Lifetimes, Parent, Record, Seconds, Tokens};
use crate::pure::summary::{self, Summary};
use crate::pure::ticket::{Purpose, Ticket};
use crate::pure::user_agent;

pub mod store;
pub mod embedded;
pub mod link;
pub mod redis;
pub mod any;
mod key_file;
pub mod operator;

pub use embedded::OpenError;
pub use store::{Cursor, Index, StoreError};

use self::redis::Store as RedisStore;
use any::Store;
use link::News;

/// A key is the hash of a secret that only the gate makes up.
type Entries = HashMap<Hash, Entry, Quick>;

/// Sessions kept in memory are at most this many times [`SHARD_SESSIONS`].
const SHARDS: usize = 64;
/// Sessions and marks in one shard; those used longest ago, and held by nobody, make room. A session takes
/// 4 KiB with the claims that providers state, and with an ID token more.
const SHARD_SESSIONS: usize = 512;
/// Sessions that make room at once, so that not every new one costs a search.
const MAKE_ROOM: usize = 32;
/// How often the last use of one session is written back, at least.
const WRITE_BACK_SECONDS: u64 = 60;
/// How long the mark of an ended session stays once the store has forgotten it: longer than any
/// read of the store takes.
const MARK_SECONDS: u64 = 60;
/// How long an open stream sleeps at most before it looks at the clock again, which may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How often a shared store is asked about one session at most.
const ASK_MS: u64 = 1000;
/// A session that falls idle so soon may be in use at another gate.
const SOON: Duration = Duration::from_secs(5);
/// Sessions that the store is asked about at once.
const AT_ONCE: usize = 64;
/// How often it is looked whether another gate has renewed a session.
const LOOK: Duration = Duration::from_millis(100);
/// How long another gate may take to renew one.
const LOOKS: u32 = 320;

/// Why it can't be said whether somebody is signed in; nobody is let in then.
#[derive(Debug, Clone)]
pub enum SessionError {
    /// The store can't say.
    Store(StoreError),
    /// The store holds a record that is not what was sealed.
    Record(BadRecord),
    /// Every session in memory is in use.
    Full,
    /// There are no random bytes for a new session.
    NoRandom,
}

impl std::fmt::Display for SessionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(why) => why.fmt(f),
            Self::Record(why) => why.fmt(f),
            Self::Full => f.write_str("too many sessions are in use"),
            Self::NoRandom => NoRandom.fmt(f),
        }
    }
}

impl std::error::Error for SessionError {}

impl From<NoRandom> for SessionError {
    fn from(_: NoRandom) -> Self {
        Self::NoRandom
    }
}

/// A session in use.
pub struct Live {
    in_store: bool,
    hash: Hash,
    record: ArcSwap<Record>,
    /// To write the record anew, where a provider may change it.
    sealing: Option<Sealing>,
    /// Held by whoever asks the provider.
    renewing: tokio::sync::Mutex<()>,
    idle: Duration,
    seen: AtomicU64,
    written: AtomicU64,
    ended: AtomicBool,
    signal: Notify,
    clock: Clock,
    asked: Asked,
}

/// What it takes to write a session anew.
struct Sealing {
    id: Id,
    /// What is shown of it, which stays as it is.
    summary: Vec<u8>,
}

/// When a shared store last said that the session is there.
struct Asked {
    /// In which epoch, see [`link`].
    epoch: AtomicU64,
    /// When, in milliseconds since 1970.
    ms: AtomicU64,
    /// Whether another gate has changed it since.
    stale: AtomicBool,
    /// Whether what its provider said last is still to be written.
    unsaved: AtomicBool,
    /// Held by whoever asks.
    turn: tokio::sync::Mutex<()>,
}

/// The clock that open streams look at: `SystemTime::now`, but in tests.
pub type Clock = fn() -> SystemTime;

impl std::fmt::Debug for Live {
    /// Without the hash and the secret of forms.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("user", &self.user().name)
            .finish_non_exhaustive()
    }
}

impl Live {
    fn new(
        id: &Id,
        record: Record,
        summary: &[u8],
        idle: Duration,
        seen: Seconds,
        clock: Clock,
    ) -> Self {
        let kept = record.tokens.is_some().then(|| Sealing {
            id: id.again(),
            summary: summary.to_vec(),
        });
        Self::made(id.hash(), kept, record, idle, seen, clock)
    }

    fn made(
        hash: Hash,
        sealing: Option<Sealing>,
        record: Record,
        idle: Duration,
        seen: Seconds,
        clock: Clock,
    ) -> Self {
        let asked = Asked {
            epoch: AtomicU64::new(0),
            ms: AtomicU64::new(0),
            stale: AtomicBool::new(false),
            unsaved: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        };
        Self {
            in_store: true,
            asked,
            hash,
            sealing,
            record: ArcSwap::from_pointee(record),
            renewing: tokio::sync::Mutex::default(),
            idle,
            seen: AtomicU64::new(seen.0),
            written: AtomicU64::new(seen.0),
            ended: AtomicBool::new(false),
            signal: Notify::new(),
            clock,
        }
    }

    /// Whether the store has it; else it stands for a credential that comes with each request.
    pub const fn is_in_store(&self) -> bool {
        self.in_store
    }

    /// Who signed in, as of then or of the last answer of their provider.
    pub fn user(&self) -> Arc<User> {
        Arc::clone(&self.record.load().user)
    }

    /// All that is kept of the sign-in.
    pub fn record(&self) -> Arc<Record> {
        self.record.load_full()
    }

    /// A fingerprint of the session that tells sessions apart and opens none.
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// The turn to ask the provider about this session; whoever waits finds it asked.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.renewing.lock().await
    }

    /// Notes, in memory alone, that the provider was asked as of then.
    pub fn checked_at(&self, checked: Seconds) {
        let mut record = Record::clone(&self.record());
        if let Some(tokens) = &mut record.tokens {
            tokens.checked = checked;
        }
        self.record.store(Arc::new(record));
    }

    /// When it ends, whatever happens.
    pub fn expires(&self) -> Seconds {
        self.record.load().expires
    }

    /// The last use.
    pub fn seen(&self) -> Seconds {
        Seconds(self.seen.load(Ordering::Relaxed))
    }

    /// Whether it has this in common with others.
    fn is_of(&self, index: Index<'_>) -> bool {
        let record = self.record.load();
        let at = |provider: &str| *record.user.provider == *provider;
        let tokens = record.tokens.as_ref();
        match index {
            Index::User { provider, name } => at(provider) && *record.user.name == *name,
            Index::Subject { provider, subject } => {
                at(provider) && tokens.is_some_and(|tokens| tokens.subject == subject)
            }
            Index::ProviderSession { provider, session } => {
                at(provider)
                    && tokens.is_some_and(|tokens| tokens.session.as_deref() == Some(session))
            }
            Index::Parent(hash) => {
                let parent = record.parent.as_ref();
                parent.is_some_and(|parent| parent.id().hash() == hash)
            }
        }
    }

    /// Whether it was ended, has expired or was unused for too long.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.ended.load(Ordering::Acquire) || self.dies() <= Seconds::of(now)
    }

    /// Whether it is over by the clock that open streams look at.
    pub fn is_over_now(&self) -> bool {
        self.is_over((self.clock)())
    }

    /// Waits until the session is over: at once when somebody ends it, and by the clock when it
    /// expires or falls idle. What is open for a session waits here, and then closes.
    pub async fn ended(&self) {
        loop {
            let mut signal = pin!(self.signal.notified());
            // From here on an end is noticed, so none is lost between the look and the wait.
            signal.as_mut().enable();
            let at = (self.clock)();
            if self.is_over(at) {
                return;
            }
            let left = self.dies().0.saturating_sub(Seconds::of(at).0);
            let sleep = tokio::time::sleep(Duration::from_secs(left).min(LONGEST_SLEEP));
            tokio::select! {
                () = signal => {}
                () = sleep => {}
            }
        }
    }

    /// Notes a use that is no request of its own, such as traffic in an open tunnel. What is over
    /// stays over.
    pub fn touch(&self, now: SystemTime) {
        if self.is_over(now) {
            return self.end();
        }
        let now = Seconds::of(now).0;
        // The load keeps the line shared between cores: it changes once a second.
        if self.seen.load(Ordering::Relaxed) < now {
            self.seen.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Ends what stands for no session of the store (see [`Sessions::standing`]).
    pub fn finish(&self) {
        self.end();
    }

    fn dies(&self) -> Seconds {
        self.seen().plus(self.idle).min(self.expires())
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.signal.notify_waiters();
    }

    /// Whether it was ended, and did not only run out.
    fn was_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Notes that it was in the store then.
    fn is_there(&self, epoch: u64, ms: u64) {
        self.asked.epoch.store(epoch, Ordering::Release);
        self.asked.ms.store(ms, Ordering::Release);
    }

    /// Takes up a record of the store, unless what is here is newer.
    fn take_up(&self, record: Record) -> bool {
        let checked = |record: &Record| record.tokens.as_ref().map(|tokens| tokens.checked);
        let before = self.record();
        if checked(&record) <= checked(&before) {
            return false;
        }
        let is_news = record.user != before.user;
        self.record.store(Arc::new(record));
        is_news
    }
}

/// Who signs in, and from where.
pub struct SignIn {
    /// Who.
    pub user: Arc<User>,
    /// The fingerprint of what was proved.
    pub proof: [u8; 16],
    /// To which host.
    pub host: String,
    /// From which address.
    pub client: IpAddr,
    /// With which browser.
    pub user_agent: String,
    /// What a provider gave with it.
    pub tokens: Option<Tokens>,
    /// The session that this one is made of, and its record.
    pub parent: Option<(Parent, Arc<Record>)>,
}

/// A session as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What it is known by; it opens nothing.
    pub hash: Hash,
    /// The last use, to the minute.
    pub seen: Seconds,
    /// Whose it is, and where; none if this gate can't read it.
    pub summary: Option<Summary>,
}

/// Every session of this gateway.
pub struct Sessions {
    memory: Arc<Memory>,
    store: Store,
    /// The key of what is shown of sessions.
    summaries: Key,
    lifetimes: ArcSwap<Lifetimes>,
    /// How long sessions in memory count while a shared store does not say.
    offline: Duration,
    /// Whether rates are counted in a shared store, too.
    rates: bool,
    /// The epoch in which the store was told again of what ended.
    told_again: AtomicU64,
    /// Grows whenever something else is known of a user.
    changes: AtomicU64,
    clock: Clock,
}

/// Sessions in memory.
struct Memory {
    shards: [RwLock<Entries>; SHARDS],
}

/// Servers that several gates share, and what the gates have in common.
pub struct Redis {
    /// The servers.
    pub servers: link::Settings,
    /// The key of what sessions are found by.
    pub index: Mac,
    /// The key of what is shown of them.
    pub summaries: Key,
    /// How long sessions in memory count while the servers are away.
    pub offline: Duration,
    /// Whether rates are counted there, too.
    pub rates: bool,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

enum Entry {
    Live(Arc<Live>),
    /// It ended; kept until then.
    Ended(Seconds),
}

impl Sessions {
    /// What stands for a session where there is none in the store, for a credential that its holder shows
    /// with each request: until `expires`, or until somebody ends it by [`Live::finish`].
    pub fn standing(&self, user: Arc<User>, name: [u8; 32], expires: Seconds) -> Live {
        let created = Seconds::of(user.signed_in_at);
        let record = Record {
            user,
            created,
            expires,
            proof: [0; 16],
            tokens: None,
            parent: None,
        };
        Live {
            in_store: false,
            ..Live::made(Hash(name), None, record, Duration::MAX, created, self.clock)
        }
    }

    /// The sessions in the file at `path`, made if there is none.
    ///
    /// # Errors
    /// Why the file can't be used.
    pub fn open(path: &Path, lifetimes: Lifetimes, clock: Clock) -> Result<Self, OpenError> {
        let salt = keys::random().map_err(|why| OpenError::File(std::io::Error::other(why)))?;
        Ok(Self {
            memory: Arc::default(),
            store: Store::Embedded(embedded::Store::open(path, &salt)?),
            summaries: key_file::key(path)?,
            lifetimes: ArcSwap::from_pointee(lifetimes),
            offline: Duration::ZERO,
            rates: false,
            told_again: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            clock,
        })
    }

    /// The sessions at servers that other gates use, too; it is waited for them some seconds, and no
    /// longer.
    ///
    /// # Errors
    /// The system has no thread or no random bytes for it.
    pub fn share(shared: Redis, lifetimes: Lifetimes, clock: Clock) -> Result<Self, OpenError> {
        let gate = keys::random().map_err(|why| OpenError::File(std::io::Error::other(why)))?;
        let memory = Arc::new(Memory::default());
        let hearing = Arc::clone(&memory);
        let hear = move |news| match news {
            News::Ended(hash) => {
                let until = Seconds::of(clock()).plus(Duration::from_secs(MARK_SECONDS));
                hearing.mark(hash, until);
            }
            News::Replaced(hash) => {
                if let Some(Entry::Live(live)) = hearing.read(hash).get(&hash) {
                    live.asked.stale.store(true, Ordering::Release);
                }
            }
        };
        let Redis {
            servers,
            index,
            summaries,
            offline,
            rates,
        } = shared;
        let store = RedisStore::open(servers, index, *gate, Box::new(hear), clock);
        Ok(Self {
            memory,
            store: Store::Redis(store.map_err(OpenError::File)?),
            summaries,
            lifetimes: ArcSwap::from_pointee(lifetimes),
            offline,
            rates,
            told_again: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            clock,
        })
    }

    /// How long sessions made or loaded from now on last.
    pub fn set_lifetimes(&self, lifetimes: Lifetimes) {
        self.lifetimes.store(Arc::new(lifetimes));
    }

    /// The session of `id`, and notes its use; `None` if there is none, or none any more.
    ///
    /// # Errors
    /// Why it can't be said.
    pub async fn find(&self, id: &Id, now: SystemTime) -> Result<Option<Arc<Live>>, SessionError> {
        let hash = id.hash();
        let known = match self.memory.read(hash).get(&hash) {
            Some(Entry::Live(live)) => Some(Arc::clone(live)),
            Some(Entry::Ended(_)) => return Ok(None),
            None => None,
        };
        if let Some(live) = known {
            if self.has_to_ask(&live, now) && !Box::pin(self.ask(&live, now)).await? {
                return Ok(None);
            }
            return Ok(self.used(live, now));
        }
        let epoch = self.epoch();
        let Some(row) = self.store.load(hash).await.map_err(SessionError::Store)? else {
            return Ok(None);
        };
        let sealed = summary::record_in(&row.sealed);
        let record = match Record::open(id, sealed) {
            Ok(record) => record,
            // Of another version of this program: to sign in anew is all that is lost.
            Err(BadRecord::UnknownVersion) => return Ok(None),
            Err(why) => return Err(SessionError::Record(why)),
        };
        let idle = self.lifetimes.load().idle;
        let shown = summary::summary_in(&row.sealed);
        let live = Live::new(id, record, shown, idle, row.seen, self.clock);
        live.is_there(epoch, link::millis(now));
        if live.is_over(now) {
            return Ok(None);
        }
        Ok(self.keep(live, now)?.and_then(|live| self.used(live, now)))
    }

    /// Another number whenever something else is known of somebody who is signed in.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The session known by a hash, if it is in memory.
    pub fn in_memory(&self, hash: Hash) -> Option<Arc<Live>> {
        match self.memory.read(hash).get(&hash) {
            Some(Entry::Live(live)) => Some(Arc::clone(live)),
            Some(Entry::Ended(_)) | None => None,
        }
    }

    /// Begins a session with an id of its own, never one that a browser brought (SECURITY.md S2), and
    /// ends the one it takes the place of. It is on the disk when this returns.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn create(
        &self,
        sign_in: SignIn,
        replaces: Option<&Live>,
        now: SystemTime,
    ) -> Result<(Id, Arc<Live>), SessionError> {
        let id = Id::new(*keys::random()?);
        let lifetimes = **self.lifetimes.load();
        let created = Seconds::of(now);
        let (parent, of) = sign_in.parent.unzip();
        let expires = created.plus(lifetimes.absolute);
        let record = Record {
            created,
            expires: of.as_ref().map_or(expires, |of| expires.min(of.expires)),
            proof: sign_in.proof,
            user: sign_in.user,
            tokens: sign_in.tokens,
            parent,
        };
        let hash = id.hash();
        let shown = Summary {
            provider: record.user.provider.to_string(),
            name: record.user.name.to_string(),
            host: sign_in.host,
            created,
            expires: record.expires,
            client: sign_in.client,
            browser: user_agent::name(&sign_in.user_agent),
            parent: record.parent.as_ref().map(|parent| parent.id().hash()),
        };
        let shown = shown.seal(&self.summaries, hash, *keys::random()?);
        if let Some(old) = replaces {
            self.mark(old.hash, old.expires());
        }
        let new = store::New {
            hash,
            sealed: row(&record, &id, &shown)?,
            expires: record.expires,
            seen: created,
            idle: lifetimes.idle,
            user: self.store.key(Index::User {
                provider: &record.user.provider,
                name: &record.user.name,
            }),
            others: self.others(&record, of.as_deref()),
            replaces: replaces.map(|old| old.hash),
        };
        let epoch = self.epoch();
        for ended in self.store.create(new).await.map_err(SessionError::Store)? {
            self.mark(ended, created.plus(Duration::from_secs(MARK_SECONDS)));
        }
        let live = Live::new(&id, record, &shown, lifetimes.idle, created, self.clock);
        live.is_there(epoch, link::millis(now));
        let live = self.keep(live, now)?.ok_or(SessionError::Full)?;
        Ok((id, live))
    }

    /// Ends a session here at once, and then in the store (SECURITY.md S3).
    ///
    /// # Errors
    /// Why the store may still have it; here it is over all the same.
    pub async fn end(&self, live: &Live, now: SystemTime) -> Result<(), SessionError> {
        // Until the store has forgotten it the mark stays as long as the session could have.
        self.mark(live.hash, live.expires());
        let made_of_it = Index::Parent(live.hash);
        let is_parent = live.record.load().parent.is_none();
        if is_parent {
            for child in self.live(|one| one.is_of(made_of_it)) {
                self.mark(child.hash, child.expires());
            }
        }
        self.store
            .remove(live.hash)
            .await
            .map_err(SessionError::Store)?;
        self.mark(
            live.hash,
            Seconds::of(now).plus(Duration::from_secs(MARK_SECONDS)),
        );
        if is_parent {
            self.end_all_of(made_of_it, now).await?;
        }
        Ok(())
    }

    /// What of a shared store is heard; always the same where there is nobody else.
    fn epoch(&self) -> u64 {
        match &self.store {
            Store::Embedded(_) => 0,
            Store::Redis(store) => store.link().epoch(),
        }
    }

    /// Whether the store is there and, where it is shared, the other gates are heard.
    pub fn are_heard(&self) -> bool {
        matches!(self.store, Store::Embedded(_)) || self.epoch() != 0
    }

    /// Whether what is in memory of a session does not count by itself.
    fn has_to_ask(&self, live: &Live, now: SystemTime) -> bool {
        let Store::Redis(store) = &self.store else {
            return false;
        };
        let epoch = store.link().epoch();
        let falls_idle = || {
            let dies = live.dies();
            dies < live.expires() && dies <= Seconds::of(now).plus(SOON)
        };
        epoch == 0
            || !store.link().hears_everybody()
            || live.asked.epoch.load(Ordering::Acquire) != epoch
            || live.asked.stale.load(Ordering::Acquire)
            || live.asked.unsaved.load(Ordering::Acquire)
            || falls_idle()
    }

    /// Asks a shared store whether a session is still there, for all who come at this moment.
    async fn ask(&self, live: &Arc<Live>, now: SystemTime) -> Result<bool, SessionError> {
        let Store::Redis(store) = &self.store else {
            return Ok(true);
        };
        if live.was_ended() {
            return Ok(false);
        }
        let _turn = live.asked.turn.lock().await;
        let at = link::millis(now);
        let asked = live.asked.ms.load(Ordering::Acquire);
        let is_stale = live.asked.stale.load(Ordering::Acquire);
        if !is_stale && !live.is_over(now) && at.abs_diff(asked) < ASK_MS {
            return Ok(true);
        }
        let epoch = store.link().epoch();
        // Before the store is read: what another gate does from here on is to be read once more.
        live.asked.stale.store(false, Ordering::Release);
        match self.read_again(live).await {
            Ok(true) => {
                live.is_there(epoch, at);
                Ok(true)
            }
            Ok(false) => {
                let now = Seconds::of(now);
                self.mark(live.hash, now.plus(Duration::from_secs(MARK_SECONDS)));
                Ok(false)
            }
            Err(why) => {
                if is_stale {
                    live.asked.stale.store(true, Ordering::Release);
                }
                let heard = store
                    .link()
                    .heard_until(live.asked.epoch.load(Ordering::Acquire));
                let known = Duration::from_millis(at.saturating_sub(asked.max(heard)));
                let is_away = matches!(why, SessionError::Store(_));
                if is_away && known <= self.offline && !live.is_over(now) {
                    return Ok(true);
                }
                self.memory.forget(live);
                Err(why)
            }
        }
    }

    /// Takes up what the store has of a session; answers whether it has it.
    async fn read_again(&self, live: &Live) -> Result<bool, SessionError> {
        // Else another gate would ask with a refresh token that was used, which may end the session.
        if live.asked.unsaved.load(Ordering::Acquire) && !self.save(live).await? {
            return Ok(false);
        }
        let Some(row) = self
            .store
            .load(live.hash)
            .await
            .map_err(SessionError::Store)?
        else {
            return Ok(false);
        };
        if let Some(Sealing { id, .. }) = &live.sealing {
            let record = Record::open(id, summary::record_in(&row.sealed));
            if live.take_up(record.map_err(SessionError::Record)?) {
                self.changes.fetch_add(1, Ordering::Relaxed);
            }
        }
        live.seen.fetch_max(row.seen.0, Ordering::Relaxed);
        Ok(true)
    }

    /// Asks a shared store about the sessions that something is open for, which no request would ask
    /// about; and tells a store that was away once more what ended meanwhile. To be called once a second.
    pub async fn ask_about_open(&self, now: SystemTime) {
        let Store::Redis(store) = &self.store else {
            return;
        };
        let epoch = store.link().epoch();
        if epoch != 0 && self.told_again.load(Ordering::Acquire) != epoch {
            let mut told = true;
            for hash in self.memory.ended() {
                told = told && store.remove(hash).await.is_ok();
            }
            if told {
                self.told_again.store(epoch, Ordering::Release);
            }
        }
        let open = self.live(|live| Arc::strong_count(live) > 1);
        for live in &open {
            self.note_use(live);
        }
        let due: Vec<_> = open
            .into_iter()
            .filter(|live| self.has_to_ask(live, now))
            .collect();
        for some in due.chunks(AT_ONCE) {
            let asking = some.iter().map(|live| Box::pin(self.ask(live, now)));
            let mut asking: Vec<_> = asking.collect();
            std::future::poll_fn(|context| {
                // Whoever asks about one next says what came of it.
                asking.retain_mut(|one| one.as_mut().poll(context).is_pending());
                if asking.is_empty() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    }

    /// What a session is found by beside its user; one that is made `of` another by what that has, too.
    fn others(&self, record: &Record, of: Option<&Record>) -> Vec<store::IndexKey> {
        let provider = &record.user.provider;
        let tokens = of.unwrap_or(record).tokens.as_ref();
        let subject = tokens.map(|tokens| Index::Subject {
            provider,
            subject: &tokens.subject,
        });
        let session = tokens
            .and_then(|tokens| tokens.session.as_deref())
            .map(|session| Index::ProviderSession { provider, session });
        let parent = record
            .parent
            .as_ref()
            .map(|parent| Index::Parent(parent.id().hash()));
        let all = [subject, session, parent].into_iter().flatten();
        all.map(|index| self.store.key(index)).collect()
    }

    /// The turn of all gates to ask the provider about a session, for whoever has this gate's; none if
    /// another gate had it, whose answer is taken up by then.
    ///
    /// # Errors
    /// The store can't say, or another gate takes too long.
    pub async fn turn_of_all(&self, live: &Live) -> Result<Option<TurnOfAll<'_>>, SessionError> {
        let Store::Redis(store) = &self.store else {
            return Ok(Some(TurnOfAll(None)));
        };
        let token = *keys::random()?;
        let before = live.record();
        for _ in 0..LOOKS {
            let locked = store.lock(live.hash, token).await;
            if locked.map_err(SessionError::Store)? {
                let turn = TurnOfAll(Some((store, live.hash, token)));
                // Another gate may have had it a moment ago.
                if !self.read_again(live).await? {
                    self.mark(live.hash, live.expires());
                    return Ok(None);
                }
                return Ok(Arc::ptr_eq(&before, &live.record()).then_some(turn));
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(SessionError::Store(StoreError::Busy))
    }

    /// Takes up what a provider says of a session's user by now. Whoever calls has the session's turn.
    ///
    /// # Errors
    /// Why it is not kept; it holds here all the same.
    pub async fn renew(
        &self,
        live: &Live,
        user: Arc<User>,
        tokens: Tokens,
    ) -> Result<(), SessionError> {
        let before = live.record();
        let after = Record {
            user,
            tokens: Some(tokens),
            ..Record::clone(&before)
        };
        let changed = after.user != before.user;
        live.record.store(Arc::new(after));
        if changed {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        if !self.save(live).await? {
            // Somebody ended it meanwhile.
            self.mark(live.hash, live.expires());
        }
        Ok(())
    }

    /// Writes a session's record as it is here; answers whether the store still has the session.
    async fn save(&self, live: &Live) -> Result<bool, SessionError> {
        let Some(Sealing { id, summary }) = &live.sealing else {
            return Ok(true);
        };
        live.asked.unsaved.store(true, Ordering::Release);
        let row = row(&live.record(), id, summary)?;
        let replaced = self.store.replace(live.hash, row).await;
        let is_there = replaced.map_err(SessionError::Store)?;
        live.asked.unsaved.store(false, Ordering::Release);
        Ok(is_there)
    }

    /// The sessions of an index that are not over, for people to see.
    ///
    /// # Errors
    /// Why it can't be said.
    pub async fn list(
        &self,
        index: Index<'_>,
        now: SystemTime,
    ) -> Result<Vec<Listed>, SessionError> {
        let key = self.store.key(index);
        let mut listed = Vec::new();
        for hash in self.store.of(key).await.map_err(SessionError::Store)? {
            let row = self.store.load(hash).await.map_err(SessionError::Store)?;
            listed.extend(row.and_then(|row| self.listed(hash, &row, now)));
        }
        Ok(listed)
    }

    /// A page of all sessions that are not over.
    ///
    /// # Errors
    /// Why it can't be said.
    pub async fn page(
        &self,
        from: Option<Cursor>,
        now: SystemTime,
    ) -> Result<(Vec<Listed>, Option<Cursor>), SessionError> {
        let (rows, next) = self.store.page(from).await.map_err(SessionError::Store)?;
        let listed = rows
            .iter()
            .filter_map(|(hash, row)| self.listed(*hash, row, now));
        Ok((listed.collect(), next))
    }

    /// What is shown of a row, if its session is not over.
    fn listed(&self, hash: Hash, row: &store::Row, now: SystemTime) -> Option<Listed> {
        let live = match self.memory.read(hash).get(&hash) {
            Some(Entry::Live(live)) => Some(Arc::clone(live)),
            Some(Entry::Ended(_)) => return None,
            None => None,
        };
        let live = live.as_ref();
        let seen = live.map_or(row.seen, |live| live.seen().max(row.seen));
        let summary = Summary::in_row(&row.sealed, &self.summaries, hash);
        // One that was read before a reload has the time of then.
        let idle = live.map_or_else(|| self.lifetimes.load().idle, |live| live.idle);
        let idles = seen.plus(idle);
        let dies = summary
            .as_ref()
            .map_or(idles, |summary| summary.expires.min(idles));
        (dies > Seconds::of(now)).then_some(Listed {
            hash,
            seen,
            summary,
        })
    }

    /// Ends a session that is known by its hash alone, those that were made of it, and the one that it
    /// was made of, which would make it anew; answers whether the store had it.
    ///
    /// # Errors
    /// Why the store may still have some; here they are over all the same.
    pub async fn end_by_hash(&self, hash: Hash, now: SystemTime) -> Result<bool, SessionError> {
        // Until the store has forgotten it, as long as the session could last.
        let longest = Seconds::of(now).plus(self.lifetimes.load().absolute);
        self.mark(hash, longest);
        let row = self.store.load(hash).await.map_err(SessionError::Store)?;
        let summary = row
            .as_ref()
            .and_then(|row| Summary::in_row(&row.sealed, &self.summaries, hash));
        let parent = summary.and_then(|summary| summary.parent);
        for hash in [hash].into_iter().chain(parent) {
            self.mark(hash, longest);
            self.store.remove(hash).await.map_err(SessionError::Store)?;
            self.mark(
                hash,
                Seconds::of(now).plus(Duration::from_secs(MARK_SECONDS)),
            );
            self.end_all_of(Index::Parent(hash), now).await?;
        }
        Ok(row.is_some())
    }

    /// Ends every session of an index, and answers how many the store had.
    ///
    /// # Errors
    /// Why the store may still have some; those in memory are over all the same.
    pub async fn end_all_of(
        &self,
        index: Index<'_>,
        now: SystemTime,
    ) -> Result<usize, SessionError> {
        for live in self.live(|live| live.is_of(index)) {
            self.mark(live.hash, live.expires());
        }
        let ended = self
            .store
            .remove_all(self.store.key(index))
            .await
            .map_err(SessionError::Store)?;
        for hash in &ended {
            self.mark(
                *hash,
                Seconds::of(now).plus(Duration::from_secs(MARK_SECONDS)),
            );
        }
        Ok(ended.len())
    }

    /// Keeps what a ticket stands for.
    ///
    /// # Errors
    /// Why it is not kept.
    pub async fn keep_for(
        &self,
        ticket: &Ticket,
        purpose: Purpose,
        plain: &[u8],
        now: SystemTime,
        life: Duration,
    ) -> Result<(), SessionError> {
        let sealed = ticket
            .seal(purpose, *keys::random()?, plain)
            .map_err(|why| SessionError::Record(BadRecord::Seal(why)))?;
        let now = Seconds::of(now);
        self.store
            .keep(purpose, ticket.hash(purpose), sealed, now, now.plus(life))
            .await
            .map(drop)
            .map_err(SessionError::Store)
    }

    /// What a ticket stands for; nothing if it was used, has ended or never was.
    ///
    /// # Errors
    /// Why it can't be said.
    pub async fn look_at(
        &self,
        ticket: &Ticket,
        purpose: Purpose,
        now: SystemTime,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, SessionError> {
        let sealed = self
            .store
            .peek(purpose, ticket.hash(purpose), Seconds::of(now))
            .await
            .map_err(SessionError::Store)?;
        // What does not open was not sealed for it: the store was tampered with.
        Ok(sealed.and_then(|sealed| ticket.open(purpose, &sealed).ok()))
    }

    /// Uses a ticket up: what it stood for.
    ///
    /// # Errors
    /// Why it can't be said.
    pub async fn redeem(
        &self,
        ticket: &Ticket,
        purpose: Purpose,
        now: SystemTime,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, SessionError> {
        let sealed = self
            .store
            .take(purpose, ticket.hash(purpose), Seconds::of(now))
            .await
            .map_err(SessionError::Store)?;
        Ok(sealed.and_then(|sealed| ticket.open(purpose, &sealed).ok()))
    }

    /// Whether `what` was seen, and not too long ago.
    ///
    /// # Errors
    /// Why it can't be said.
    pub async fn was_seen(&self, what: &[&[u8]], now: SystemTime) -> Result<bool, SessionError> {
        let seen = self
            .store
            .peek(Purpose::Seen, seen(what), Seconds::of(now))
            .await;
        seen.map(|seen| seen.is_some()).map_err(SessionError::Store)
    }

    /// Notes for `life` that `what` was seen; answers whether it is the first time.
    ///
    /// # Errors
    /// Why it may not be noted.
    pub async fn see(
        &self,
        what: &[&[u8]],
        now: SystemTime,
        life: Duration,
    ) -> Result<bool, SessionError> {
        let now = Seconds::of(now);
        self.store
            .keep(Purpose::Seen, seen(what), Vec::new(), now, now.plus(life))
            .await
            .map_err(SessionError::Store)
    }

    /// Counts a failure at all gates, unless whoever it is has to wait: how long. Nothing is counted
    /// where there are no others, or while they can't be reached: each gate counts for itself, too.
    pub async fn count(&self, name: [u8; 16], leniency: store::Leniency) -> Option<Duration> {
        let Store::Redis(store) = &self.store else {
            return None;
        };
        store.count(name, leniency).await.ok().flatten()
    }

    /// Takes back at all gates a failure that was counted, or all of them.
    pub fn uncount(&self, name: [u8; 16], all: bool) {
        if let Store::Redis(store) = &self.store {
            store.uncount(name, all);
        }
    }

    /// Whether rates are counted at all gates together by now.
    pub fn counts_rates(&self) -> bool {
        matches!(&self.store, Store::Redis(store) if self.rates && store.counts_rates())
    }

    /// Whether they are where they should be.
    pub fn are_rates_shared(&self) -> bool {
        !self.rates || self.counts_rates()
    }

    /// Counts a request at all gates, by a name that the store is not told, unless it has to wait: how
    /// long. Nothing is counted while that can't be done in time: each gate counts for itself, too.
    pub async fn count_request(&self, name: &[&[u8]], pace: store::Pace) -> Option<Duration> {
        match &self.store {
            Store::Redis(store) if self.rates => store.count_request(name, pace).await,
            Store::Redis(_) | Store::Embedded(_) => None,
        }
    }

    /// The sessions in memory that `wanted` picks.
    pub fn live(&self, wanted: impl Fn(&Arc<Live>) -> bool) -> Vec<Arc<Live>> {
        self.memory.pick(|_, entry| match entry {
            Entry::Live(live) => wanted(live).then(|| Arc::clone(live)),
            Entry::Ended(_) => None,
        })
    }

    /// Forgets what is over, here and, up to a bound, in the store. To be called once a minute.
    /// Answers how many the store forgot.
    ///
    /// # Errors
    /// Why the store may still have them.
    pub async fn prune(&self, now: SystemTime) -> Result<usize, SessionError> {
        let at = Seconds::of(now);
        // A store that is away may have lost in a crash what it was told a moment before.
        let has_told = self.told_again.load(Ordering::Acquire) == self.epoch();
        for shard in &self.memory.shards {
            let mut entries = shard.write().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|_, entry| match entry {
                Entry::Live(live) => !live.is_over(now),
                Entry::Ended(until) => *until > at || !has_told,
            });
        }
        self.store.prune(at).await.map_err(SessionError::Store)
    }

    /// A session that is not over, its use noted.
    fn used(&self, live: Arc<Live>, now: SystemTime) -> Option<Arc<Live>> {
        if live.is_over(now) {
            return None;
        }
        live.touch(now);
        self.note_use(&live);
        Some(live)
    }

    /// Writes the last use back, now and then.
    fn note_use(&self, live: &Live) {
        let seen = live.seen().0;
        let written = live.written.load(Ordering::Relaxed);
        // Before a store that forgets what is idle would do so.
        let often = WRITE_BACK_SECONDS.min(live.idle.as_secs() / 4);
        if seen.saturating_sub(written) >= often.max(1)
            && live
                .written
                .compare_exchange(written, seen, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.write_back(live, written);
        }
    }

    fn write_back(&self, live: &Live, written: u64) {
        if !self.store.touch(live.hash, live.seen(), live.idle) {
            live.written.store(written, Ordering::Relaxed);
        }
    }

    /// Keeps a session in memory, unless it ended meanwhile; the one that is there already counts.
    fn keep(&self, live: Live, now: SystemTime) -> Result<Option<Arc<Live>>, SessionError> {
        let mut entries = self.memory.write(live.hash);
        match entries.get(&live.hash) {
            Some(Entry::Live(there)) => return Ok(Some(Arc::clone(there))),
            Some(Entry::Ended(_)) => return Ok(None),
            None => {}
        }
        if entries.len() >= SHARD_SESSIONS {
            self.make_room(&mut entries, now)?;
        }
        let live = Arc::new(live);
        entries.insert(live.hash, Entry::Live(Arc::clone(&live)));
        Ok(Some(live))
    }

    /// Nobody can take hold of a session while the shard is locked, so one that is held by the map
    /// alone has no open stream that would miss its end.
    fn make_room(&self, entries: &mut Entries, now: SystemTime) -> Result<(), SessionError> {
        let at = Seconds::of(now);
        entries.retain(|_, entry| match entry {
            Entry::Live(live) => !live.is_over(now),
            Entry::Ended(until) => *until > at,
        });
        if entries.len() < SHARD_SESSIONS {
            return Ok(());
        }
        let unheld = entries.values().filter_map(|entry| match entry {
            Entry::Live(live) if Arc::strong_count(live) == 1 => Some((live.seen(), live.hash)),
            Entry::Live(_) | Entry::Ended(_) => None,
        });
        let mut unheld: Vec<_> = unheld.collect();
        if unheld.is_empty() {
            return Err(SessionError::Full);
        }
        unheld.sort_unstable();
        for (_, hash) in unheld.into_iter().take(MAKE_ROOM) {
            if let Some(Entry::Live(live)) = entries.remove(&hash) {
                let written = live.written.load(Ordering::Relaxed);
                if live.seen().0 > written {
                    self.write_back(&live, written);
                }
            }
        }
        Ok(())
    }

    fn mark(&self, hash: Hash, until: Seconds) {
        self.memory.mark(hash, until);
    }
}

/// What the store keeps of a session.
fn row(record: &Record, id: &Id, shown: &[u8]) -> Result<Vec<u8>, SessionError> {
    let sealed = record
        .seal(id, *keys::random()?)
        .map_err(SessionError::Record)?;
    Ok(summary::row(shown, &sealed))
}

/// What the store knows by that something was seen.
fn seen(what: &[&[u8]]) -> [u8; 32] {
    Mac::new(b"what was seen before, as a hash.").tag(what)
}

/// The turn of all gates; it ends with this.
pub struct TurnOfAll<'s>(Option<(&'s RedisStore, Hash, [u8; 16])>);

impl Drop for TurnOfAll<'_> {
    fn drop(&mut self) {
        if let Some((store, hash, token)) = self.0.take() {
            store.unlock(hash, token);
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
        }
    }
}

impl Memory {
    /// What `wanted` makes of the entries.
    fn pick<T>(&self, wanted: impl Fn(Hash, &Entry) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let entries = shard.read().unwrap_or_else(PoisonError::into_inner);
            found.extend(
                entries
                    .iter()
                    .filter_map(|(hash, entry)| wanted(*hash, entry)),
            );
        }
        found
    }

    /// What ended.
    fn ended(&self) -> Vec<Hash> {
        self.pick(|hash, entry| match entry {
            Entry::Live(_) => None,
            Entry::Ended(_) => Some(hash),
        })
    }

    /// Ends what is in memory of a session, and keeps it from being loaded again.
    fn mark(&self, hash: Hash, until: Seconds) {
        if let Some(Entry::Live(live)) = self.write(hash).insert(hash, Entry::Ended(until)) {
            live.end();
        }
    }

    /// Ends what is open for a session of which nothing is known any more; it may be loaded again.
    fn forget(&self, live: &Arc<Live>) {
        let mut entries = self.write(live.hash);
        if let Some(Entry::Live(there)) = entries.get(&live.hash)
            && Arc::ptr_eq(there, live)
        {
            entries.remove(&live.hash);
        }
        live.end();
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a number modulo SHARDS is below SHARDS"
    )]
    fn shard(&self, hash: Hash) -> &RwLock<Entries> {
        let [first, ..] = hash.0;
        &self.shards[usize::from(first) % SHARDS]
    }

    fn read(&self, hash: Hash) -> RwLockReadGuard<'_, Entries> {
        self.shard(hash)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, hash: Hash) -> RwLockWriteGuard<'_, Entries> {
        self.shard(hash)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
