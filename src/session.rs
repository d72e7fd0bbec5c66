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

use crate::keys::{self, NoRandom};
use crate::pure::identity::User;
use crate::pure::quick::Quick;
use crate::pure::session::{BadRecord, Hash, Id, Lifetimes, Record, Seconds};

pub mod embedded;

pub use embedded::{OpenError, StoreError};

/// A key is the hash of a secret that only the gate makes up.
type Entries = HashMap<Hash, Entry, Quick>;

/// Sessions kept in memory are at most this many times [`SHARD_SESSIONS`].
const SHARDS: usize = 64;
/// Sessions and marks in one shard; the one used longest ago, and held by nobody, makes room.
const SHARD_SESSIONS: usize = 1024;
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
    record: Record,
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
            .field("user", &self.record.user.name)
            .finish_non_exhaustive()
    }
}

impl Live {
    fn new(hash: Hash, record: Record, idle: Duration, seen: Seconds, clock: Clock) -> Self {
        Self {
            hash,
            record,
            idle,
            seen: AtomicU64::new(seen.0),
            written: AtomicU64::new(seen.0),
            ended: AtomicBool::new(false),
            signal: Notify::new(),
            clock,
        }
    }

    /// Who signed in, as of then.
    pub const fn user(&self) -> &Arc<User> {
        &self.record.user
    }

    /// The fingerprint of what was proved at sign-in.
    pub const fn proof(&self) -> &[u8; 16] {
        &self.record.proof
    }

    /// The secret that forms of this session carry.
    pub const fn csrf(&self) -> &[u8; 32] {
        &self.record.csrf
    }

    /// When the session was made.
    pub const fn created(&self) -> Seconds {
        self.record.created
    }

    /// When it ends, whatever happens.
    pub const fn expires(&self) -> Seconds {
        self.record.expires
    }

    /// The address that signed in.
    pub const fn client(&self) -> IpAddr {
        self.record.client
    }

    /// The browser that signed in, as it named itself.
    pub fn user_agent(&self) -> &str {
        &self.record.user_agent
    }

    /// The last use.
    pub fn seen(&self) -> Seconds {
        Seconds(self.seen.load(Ordering::Relaxed))
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
        self.seen().plus(self.idle).min(self.record.expires)
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
        let live = Live::new(
            hash,
            record,
            self.lifetimes.load().idle,
            row.seen,
            self.clock,
        );
        if live.is_over(now) {
            return Ok(None);
        }
        Ok(self.keep(live, now)?.and_then(|live| self.used(live, now)))
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
        let record = Record {
            created,
            expires: created.plus(lifetimes.absolute),
            proof: sign_in.proof,
            csrf: *keys::random()?,
            client: sign_in.client,
            user_agent: sign_in.user_agent,
            user: sign_in.user,
        };
        let hash = id.hash();
        if let Some(old) = replaces {
            self.mark(old.hash, old.expires());
        }
        let new = embedded::New {
            hash,
            sealed: record
                .seal(&id, *keys::random()?)
                .map_err(SessionError::Record)?,
            expires: record.expires,
            seen: created,
            idle: lifetimes.idle,
            user: self
                .store
                .user_key(&record.user.provider, &record.user.name),
            replaces: replaces.map(|old| old.hash),
        };
        for ended in self.store.create(new).await.map_err(SessionError::Store)? {
            self.mark(ended, created.plus(Duration::from_secs(MARK_SECONDS)));
        }
        let live = Live::new(hash, record, lifetimes.idle, created, self.clock);
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
        self.store
            .remove(live.hash)
            .await
            .map_err(SessionError::Store)?;
        self.mark(
            live.hash,
            Seconds::of(now).plus(Duration::from_secs(MARK_SECONDS)),
        );
        Ok(())
    }

    /// Ends every session of a user, and answers how many the store had.
    ///
    /// # Errors
    /// Why the store may still have some; those in memory are over all the same.
    pub async fn end_all_of(
        &self,
        provider: &str,
        name: &str,
        now: SystemTime,
    ) -> Result<usize, SessionError> {
        for live in
            self.live(|live| *live.user().provider == *provider && *live.user().name == *name)
        {
            self.mark(live.hash, live.expires());
        }
        let user = self.store.user_key(provider, name);
        let ended = self
            .store
            .remove_user(user)
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

    /// The sessions in memory that `wanted` picks.
    pub fn live(&self, wanted: impl Fn(&Live) -> bool) -> Vec<Arc<Live>> {
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
        let (_, hash) = unheld.min().ok_or(SessionError::Full)?;
        if let Some(Entry::Live(live)) = entries.remove(&hash) {
            self.write_back(&live, live.seen().0);
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
