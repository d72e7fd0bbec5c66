//! Who is signed in right now: live sessions in memory, in front of the store on disk.
//!
//! Every request with a cookie asks here, so a hit takes one shard's read lock and no more. A miss
//! asks the store and keeps what it finds. A session that ends leaves a mark, so that a request
//! that had read it from the store a moment before can't bring it back.
//!
//! A [`Live`] session tells whoever holds it when it is over: tunnels and streams wait for that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::keys::{self, NoRandom};
use crate::pure::identity::User;
use crate::pure::quick::Quick;
use crate::pure::session::{BadRecord, Hash, Id, Lifetimes, Parent, Record, Seconds, Tokens};
use crate::pure::ticket::{Purpose, Ticket};

pub mod store;
pub mod embedded;

pub use embedded::OpenError;
pub use store::{Index, StoreError};

/// A key is the hash of a secret that only the gate makes up.
type Entries = HashMap<Hash, Entry, Quick>;

/// Sessions kept in memory are at most this many times [`SHARD_SESSIONS`].
const SHARDS: usize = 64;
/// Sessions and marks in one shard; those used longest ago, and held by nobody, make room. A session takes
/// 4 KiB with the claims that providers state, and with an ID token more.
const SHARD_SESSIONS: usize = 512;
/// Sessions that make room at once, so that not every new one costs a search.
const MAKE_ROOM: usize = 32;
/// How often the last use of one session is written back.
const WRITE_BACK_SECONDS: u64 = 60;
/// How long the mark of an ended session stays once the store has forgotten it: longer than any
/// read of the store takes.
const MARK_SECONDS: u64 = 60;
/// How long an open stream sleeps at most before it looks at the clock again, which may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

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
    hash: Hash,
    record: ArcSwap<Record>,
    /// To seal the record anew, where a provider may change it.
    id: Option<Id>,
    /// Held by whoever asks the provider.
    renewing: tokio::sync::Mutex<()>,
    idle: Duration,
    seen: AtomicU64,
    written: AtomicU64,
    ended: AtomicBool,
    signal: Notify,
    clock: Clock,
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
    fn new(id: &Id, record: Record, idle: Duration, seen: Seconds, clock: Clock) -> Self {
        Self {
            hash: id.hash(),
            id: record.tokens.is_some().then(|| id.again()),
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

    /// The turn, if nobody has it.
    pub fn free_turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.renewing.try_lock().ok()
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

    fn dies(&self) -> Seconds {
        self.seen().plus(self.idle).min(self.expires())
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.signal.notify_waiters();
    }
}

/// Who signs in, and from where.
pub struct SignIn {
    /// Who.
    pub user: Arc<User>,
    /// The fingerprint of what was proved.
    pub proof: [u8; 16],
    /// From which address.
    pub client: IpAddr,
    /// With which browser.
    pub user_agent: String,
    /// What a provider gave with it.
    pub tokens: Option<Tokens>,
    /// The session that this one is made of, and its record.
    pub parent: Option<(Parent, Arc<Record>)>,
}

/// Every session of this gateway.
pub struct Sessions {
    shards: [RwLock<Entries>; SHARDS],
    store: embedded::Store,
    lifetimes: ArcSwap<Lifetimes>,
    clock: Clock,
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
    /// The sessions in the file at `path`, made if there is none.
    ///
    /// # Errors
    /// Why the file can't be used.
    pub fn open(path: &Path, lifetimes: Lifetimes, clock: Clock) -> Result<Self, OpenError> {
        let salt = keys::random().map_err(|why| OpenError::File(std::io::Error::other(why)))?;
        Ok(Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            store: embedded::Store::open(path, &salt)?,
            lifetimes: ArcSwap::from_pointee(lifetimes),
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
        match self.read(hash).get(&hash) {
            Some(Entry::Live(live)) => {
                let live = Arc::clone(live);
                return Ok(self.used(live, now));
            }
            Some(Entry::Ended(_)) => return Ok(None),
            None => {}
        }
        let Some(row) = self.store.load(hash).await.map_err(SessionError::Store)? else {
            return Ok(None);
        };
        let record = Record::open(id, &row.sealed).map_err(SessionError::Record)?;
        let live = Live::new(id, record, self.lifetimes.load().idle, row.seen, self.clock);
        if live.is_over(now) {
            return Ok(None);
        }
        Ok(self.keep(live, now)?.and_then(|live| self.used(live, now)))
    }

    /// The session known by a hash, if it is in memory.
    pub fn in_memory(&self, hash: Hash) -> Option<Arc<Live>> {
        match self.read(hash).get(&hash) {
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
            csrf: *keys::random()?,
            client: sign_in.client,
            user_agent: sign_in.user_agent,
            user: sign_in.user,
            tokens: sign_in.tokens,
            parent,
        };
        let hash = id.hash();
        if let Some(old) = replaces {
            self.mark(old.hash, old.expires());
        }
        let new = store::New {
            hash,
            sealed: record
                .seal(&id, *keys::random()?)
                .map_err(SessionError::Record)?,
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
        for ended in self.store.create(new).await.map_err(SessionError::Store)? {
            self.mark(ended, created.plus(Duration::from_secs(MARK_SECONDS)));
        }
        let live = Live::new(&id, record, lifetimes.idle, created, self.clock);
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
        let sealed = match &live.id {
            Some(id) => after
                .seal(id, *keys::random()?)
                .map_err(SessionError::Record)?,
            None => return Ok(()),
        };
        live.record.store(Arc::new(after));
        let there = self.store.replace(live.hash, sealed).await;
        if !there.map_err(SessionError::Store)? {
            // Somebody ended it meanwhile.
            self.mark(live.hash, live.expires());
        }
        Ok(())
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
            .keep(ticket.hash(purpose), sealed, now, now.plus(life))
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
            .peek(ticket.hash(purpose), Seconds::of(now))
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
            .take(ticket.hash(purpose), Seconds::of(now))
            .await
            .map_err(SessionError::Store)?;
        Ok(sealed.and_then(|sealed| ticket.open(purpose, &sealed).ok()))
    }

    /// Whether this is the first time, within `life`, that `what` is seen.
    ///
    /// # Errors
    /// Why it can't be said.
    pub async fn is_first(
        &self,
        what: &[&[u8]],
        now: SystemTime,
        life: Duration,
    ) -> Result<bool, SessionError> {
        let now = Seconds::of(now);
        let mac = crate::pure::seal::Mac::new(b"what was seen before, as a hash.");
        self.store
            .keep(mac.tag(what), Vec::new(), now, now.plus(life))
            .await
            .map_err(SessionError::Store)
    }

    /// The sessions in memory that `wanted` picks.
    pub fn live(&self, wanted: impl Fn(&Arc<Live>) -> bool) -> Vec<Arc<Live>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let entries = shard.read().unwrap_or_else(PoisonError::into_inner);
            for entry in entries.values() {
                match entry {
                    Entry::Live(live) if wanted(live) => found.push(Arc::clone(live)),
                    Entry::Live(_) | Entry::Ended(_) => {}
                }
            }
        }
        found
    }

    /// Forgets what is over, here and, up to a bound, in the store. To be called once a minute.
    /// Answers how many the store forgot.
    ///
    /// # Errors
    /// Why the store may still have them.
    pub async fn prune(&self, now: SystemTime) -> Result<usize, SessionError> {
        let at = Seconds::of(now);
        for shard in &self.shards {
            let mut entries = shard.write().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|_, entry| match entry {
                Entry::Live(live) => !live.is_over(now),
                Entry::Ended(until) => *until > at,
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
        let seen = live.seen().0;
        let written = live.written.load(Ordering::Relaxed);
        if seen.saturating_sub(written) >= WRITE_BACK_SECONDS
            && live
                .written
                .compare_exchange(written, seen, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.write_back(&live, written);
        }
        Some(live)
    }

    fn write_back(&self, live: &Live, written: u64) {
        if !self.store.touch(live.hash, live.seen(), live.idle) {
            live.written.store(written, Ordering::Relaxed);
        }
    }

    /// Keeps a session in memory, unless it ended meanwhile; the one that is there already counts.
    fn keep(&self, live: Live, now: SystemTime) -> Result<Option<Arc<Live>>, SessionError> {
        let mut entries = self.write(live.hash);
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

    /// Ends what is in memory of a session, and keeps it from being loaded again.
    fn mark(&self, hash: Hash, until: Seconds) {
        if let Some(Entry::Live(live)) = self.write(hash).insert(hash, Entry::Ended(until)) {
            live.end();
        }
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
mod tests;
