//! Sessions and tickets in Redis or Valkey, which several gates share.
//!
//! A thread of its own keeps the connection, and all commands run there. Each key stands alone, so that
//! a cluster may keep it anywhere, and what has to happen at once is one command or one script on one
//! key. A session is written before what it is found by, and whoever signs in gets the cookie after
//! both: a session that can't be found by its user is nobody's.
//!
//! What stands there in clear: hashes of ids and tickets, keyed hashes of user names and networks, and
//! times. Redis itself forgets what is over.
//!
//! Rates are counted here for all gates, on the way of every request, which does not wait for long:
//!
//! | when | then |
//! |---|---|
//! | there is no epoch (see [`link`](super::link)) | each gate counts alone, at once |
//! | no answer in 100 ms, an error, or too many wait | the same for a second, and until an answer comes in time |

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use redis::{ErrorKind, RedisError, RedisResult, Script};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::pure::hex;
use crate::pure::seal::Mac;
use crate::pure::session::{Hash, Seconds};

use super::link::{Connection, Hear, Link, News, PATIENCE, Settings};
use super::store::{
    Cursor, Index, IndexKey, Leniency, MAX_SESSIONS_PER_USER, New, Pace, Page, Row, StoreError,
};

/// Names that the server looks at for one page of all.
const PAGE: usize = 256;
/// Commands under way; beyond that the store is busy.
const QUEUE: usize = 1024;
/// Counts of rates under way, apart from the others: whoever asks often keeps nobody from a session.
const RATES: usize = 1024;
/// How long a request waits for a count of its rate.
const RATE_PATIENCE: Duration = Duration::from_millis(100);
/// How long rates are not counted in the store where it did not count them in time.
const RATE_PAUSE: Duration = Duration::from_secs(1);
/// How long the start waits for the first connection.
const FIRST: Duration = Duration::from_secs(3);
/// How long the last commands may take when the store closes.
const LAST: Duration = Duration::from_secs(2);
/// How long a gate may have the turn to ask a provider: longer than it waits for all of the answers, which
/// are metadata, tokens, keys, userinfo and groups, or GitHub's pages.
const LOCK: Duration = Duration::from_secs(90);

/// A session: its sealed record, its last use, its expiry, and what it is found by.
static CREATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('HSET', KEYS[1], 'r', ARGV[1], 's', ARGV[2], 'x', ARGV[3], 'o', ARGV[4]) \
         return redis.call('EXPIREAT', KEYS[1], ARGV[5])",
    )
});

/// Notes a use; time never goes back, and no use outlives expiry.
static TOUCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local there = redis.call('HMGET', KEYS[1], 's', 'x') \
         local seen = tonumber(ARGV[1]) \
         if not there[1] or seen <= tonumber(there[1]) then return 0 end \
         redis.call('HSET', KEYS[1], 's', ARGV[1]) \
         local dies = math.min(seen + tonumber(ARGV[2]), tonumber(there[2])) \
         return redis.call('EXPIREAT', KEYS[1], string.format('%d', dies))",
    )
});

static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end \
         redis.call('HSET', KEYS[1], 'r', ARGV[1]) \
         redis.call('PUBLISH', ARGV[2], ARGV[3]) \
         return 1",
    )
});

/// The other gates are told even of what is not there: they may have it in memory.
static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local found_by = redis.call('HGET', KEYS[1], 'o') \
         redis.call('DEL', KEYS[1]) \
         redis.call('PUBLISH', ARGV[1], ARGV[2]) \
         return found_by",
    )
});

/// Adds a session to an index, which lives as long as the last of them; answers how many there are.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3]) \
         redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1]) \
         local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES') \
         redis.call('EXPIREAT', KEYS[1], string.format('%d', tonumber(last[2]))) \
         return redis.call('ZCARD', KEYS[1])",
    )
});

/// Counts a failure by the server's clock, unless one is to wait: answers how many milliseconds.
/// The same as `identity::regulation` does in memory.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME') \
         local now = time[1] * 1000 + math.floor(time[2] / 1000) \
         local free, leak, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]) \
         local there = redis.call('HMGET', KEYS[1], 'f', 'a', 'u') \
         local failures, as_of = tonumber(there[1]) or 0, tonumber(there[2]) or now \
         local wait = math.min((tonumber(there[3]) or 0) - now, longest) \
         if wait > 0 then return wait end \
         local leaked = math.floor((now - as_of) / leak) \
         if leaked > 0 then failures = math.max(0, failures - leaked) as_of = now end \
         failures = failures + 1 \
         local till = 0 \
         if failures >= free then till = now + math.min(1000 * 2 ^ (failures - free), longest) end \
         local number = function(n) return string.format('%d', n) end \
         redis.call('HSET', KEYS[1], 'f', number(failures), 'a', number(as_of), 'u', number(till)) \
         redis.call('PEXPIRE', KEYS[1], number(failures * leak + longest)) \
         return 0",
    )
});

/// Takes a failure back, and with it the wait.
static UNCOUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local failures = tonumber(redis.call('HGET', KEYS[1], 'f') or 0) \
         if failures > 1 then \
         redis.call('HSET', KEYS[1], 'f', string.format('%d', failures - 1), 'u', '0') \
         else redis.call('DEL', KEYS[1]) end \
         return 0",
    )
});

/// Counts a request by GCRA, unless it has to wait: answers how many microseconds. What is kept is when
/// the bucket will be full again, which `pipeline::rate` counts in memory by the same rule; what is left of
/// another rate, before the configuration changed, becomes an empty bucket.
const RATE: &str = "\
    local interval, full = tonumber(ARGV[1]), tonumber(ARGV[2]) \
    local function keep(left) \
    local function number(n) return string.format('%.0f', n) end \
    redis.call('SET', KEYS[1], number(now + left), 'PX', number(math.ceil(left / 1000))) end \
    local left = math.max((tonumber(redis.call('GET', KEYS[1])) or 0) - now, 0) \
    if left > full then left = full keep(left) end \
    local wait = left + interval - full \
    if wait > 0 then return wait end \
    keep(left + interval) \
    return 0";

/// By the server's clock, in microseconds since 1970.
static COUNT_REQUEST: LazyLock<Script> = LazyLock::new(|| {
    let now = "local time = redis.call('TIME') local now = time[1] * 1000000 + time[2]";
    Script::new(&format!("{now} {RATE}"))
});

static UNLOCK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end \
         return 0",
    )
});

/// The servers, and the thread that speaks to them. Dropping it finishes what was asked.
pub struct Store {
    link: Arc<Link>,
    names: Arc<Names>,
    room: Arc<Semaphore>,
    rates: Arc<Rates>,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    users: Mac,
}

/// Names of keys.
struct Names {
    prefix: String,
}

impl Names {
    /// What the names of all sessions begin with.
    fn of_sessions(&self) -> String {
        self.name('s', &[])
    }

    fn session(&self, hash: Hash) -> String {
        self.name('s', &hash.0)
    }

    fn index(&self, key: IndexKey) -> String {
        self.name('i', &key.0)
    }

    fn ticket(&self, ticket: &[u8; 32]) -> String {
        self.name('t', ticket)
    }

    fn lock(&self, hash: Hash) -> String {
        self.name('l', &hash.0)
    }

    fn failures(&self, name: [u8; 16]) -> String {
        self.name('f', &name)
    }

    fn rate(&self, name: &[u8; 32]) -> String {
        // Half of it tells clients apart, and there may be many.
        let half = name.first_chunk::<16>();
        self.name('r', half.map_or(name.as_slice(), |half| half.as_slice()))
    }

    fn name(&self, kind: char, hash: &[u8]) -> String {
        let digits = hash.iter().flat_map(|byte| hex::lower(*byte));
        let colons = [':', kind, ':'];
        let name = self.prefix.chars().chain(colons);
        name.chain(digits.map(char::from)).collect()
    }
}

impl Store {
    /// The store at these servers, with the key of what sessions are found by; `hear` is told what
    /// other gates do. While the servers can't be reached everything asked fails.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn open(
        settings: Settings,
        users: Mac,
        gate: [u8; 8],
        hear: Hear,
        clock: fn() -> SystemTime,
    ) -> std::io::Result<Self> {
        let link = Arc::new(Link::new(&settings, gate, clock));
        let names = Arc::new(Names {
            prefix: settings.prefix.clone(),
        });
        let room = Arc::new(Semaphore::new(QUEUE));
        let rates = Arc::new(Rates {
            link: Arc::clone(&link),
            probe: names.rate(&[0; 32]),
            room: Arc::new(Semaphore::new(RATES)),
            is_paused: AtomicBool::new(false),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (first, connected) = std::sync::mpsc::channel();
        let work = {
            let (link, room) = (Arc::clone(&link), Arc::clone(&room));
            async move {
                let watched = Arc::clone(&link);
                tokio::spawn(link.keep(settings, hear));
                let look = async {
                    while watched.epoch() == 0 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                drop(timeout(FIRST, look).await);
                let _ = first.send(());
                drop(stopped.await);
                let all = u32::try_from(QUEUE).unwrap_or(u32::MAX);
                drop(timeout(LAST, room.acquire_many(all)).await);
            }
        };
        let thread = std::thread::Builder::new()
            .name("sessions-redis".to_owned())
            .spawn(move || runtime.block_on(work))?;
        // Gates and servers may start in any order; where all is well the first request needs no luck.
        let _ = connected.recv();
        Ok(Self {
            link,
            names,
            room,
            rates,
            handle,
            stop: Some(stop),
            thread: Some(thread),
            users,
        })
    }

    /// The link to the servers.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// How sessions are found that have something in common.
    pub fn key(&self, index: Index<'_>) -> IndexKey {
        index.key(&self.users)
    }

    /// The session known by `hash`.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn load(&self, hash: Hash) -> Result<Option<Row>, StoreError> {
        let key = self.names.session(hash);
        self.ask(move |mut connection| async move {
            let row: (Option<Vec<u8>>, Option<u64>) = redis::cmd("HMGET")
                .arg(key)
                .arg(&["r", "s"])
                .query_async(&mut connection)
                .await?;
            Ok(match row {
                (Some(sealed), Some(seen)) => Some(Row {
                    sealed,
                    seen: Seconds(seen),
                }),
                (None, _) | (_, None) => None,
            })
        })
        .await
    }

    /// Which sessions there are of an index.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn of(&self, key: IndexKey) -> Result<Vec<Hash>, StoreError> {
        let work = self.work();
        self.ask(move |connection| async move {
            let mut work = work.on(connection);
            let mut there = Vec::new();
            for hash in work.members(key).await? {
                if work.seen(hash).await?.is_some() {
                    there.push(hash);
                }
            }
            Ok(there)
        })
        .await
    }

    /// A page of all sessions there are, where one server has them all.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn page(&self, from: Option<Cursor>) -> Result<Page, StoreError> {
        if matches!(self.link.connection()?, Connection::Cluster(_)) {
            return Err(StoreError::NotListed);
        }
        let at = match from {
            Some(Cursor::At(at)) => at,
            Some(Cursor::After(_)) | None => 0,
        };
        let prefix = self.names.of_sessions();
        let (next, hashes) = self
            .ask(move |mut connection| async move {
                let (next, names): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
                    .arg(at)
                    .arg("MATCH")
                    .arg(format!("{}*", escaped(&prefix)))
                    .arg("COUNT")
                    .arg(PAGE)
                    .query_async(&mut connection)
                    .await?;
                let hashes = names.iter().filter_map(|name| {
                    let digits = name.strip_prefix(prefix.as_bytes())?;
                    Hash::parse(digits)
                });
                Ok((next, hashes.collect::<Vec<_>>()))
            })
            .await?;
        let mut rows = Vec::new();
        for hash in hashes {
            let row = self.load(hash).await?;
            rows.extend(row.map(|row| (hash, row)));
        }
        Ok((rows, (next != 0).then_some(Cursor::At(next))))
    }

    /// Keeps a new session. Answers with the sessions that ended for it: the one it replaces, and the
    /// user's oldest beyond [`MAX_SESSIONS_PER_USER`].
    ///
    /// # Errors
    /// Why it is not kept.
    pub async fn create(&self, new: New) -> Result<Vec<Hash>, StoreError> {
        let work = self.work();
        self.ask(move |connection| async move { work.on(connection).create(&new).await })
            .await
    }

    /// Ends a session; answers whether there was one.
    ///
    /// # Errors
    /// Why it may still be there.
    pub async fn remove(&self, hash: Hash) -> Result<bool, StoreError> {
        let work = self.work();
        self.ask(move |connection| async move { work.on(connection).remove(hash).await })
            .await
    }

    /// Ends every session of an index, and answers which.
    ///
    /// # Errors
    /// Why they may still be there.
    pub async fn remove_all(&self, key: IndexKey) -> Result<Vec<Hash>, StoreError> {
        let work = self.work();
        self.ask(move |connection| async move {
            let mut work = work.on(connection);
            let mut removed = Vec::new();
            for hash in work.members(key).await? {
                if work.remove(hash).await? {
                    removed.push(hash);
                } else {
                    work.forget(key, hash).await?;
                }
            }
            Ok(removed)
        })
        .await
    }

    /// Keeps another record of a session; answers whether there still is one.
    ///
    /// # Errors
    /// Why the record before may still be there.
    pub async fn replace(&self, hash: Hash, sealed: Vec<u8>) -> Result<bool, StoreError> {
        let key = self.names.session(hash);
        let link = Arc::clone(&self.link);
        self.ask(move |mut connection| async move {
            REPLACE
                .key(key)
                .arg(sealed)
                .arg(link.channel())
                .arg(News::Replaced(hash).message(link.gate()))
                .invoke_async(&mut connection)
                .await
        })
        .await
    }

    /// Keeps what a ticket stands for until it ends; answers whether the ticket is new. One that is
    /// there already stays as it is.
    ///
    /// # Errors
    /// Why it may not be kept.
    pub async fn keep(
        &self,
        ticket: [u8; 32],
        value: Vec<u8>,
        now: Seconds,
        ends: Seconds,
    ) -> Result<bool, StoreError> {
        let key = self.names.ticket(&ticket);
        // A span and not a time: the clocks need not agree to the minute.
        let life = ends.0.saturating_sub(now.0).max(1);
        self.ask(move |mut connection| async move {
            let kept: Option<String> = redis::cmd("SET")
                .arg(key)
                .arg(value)
                .arg("NX")
                .arg("EX")
                .arg(life)
                .query_async(&mut connection)
                .await?;
            Ok(kept.is_some())
        })
        .await
    }

    /// What a ticket stands for; it may be asked again.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn peek(&self, ticket: [u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.value("GET", ticket).await
    }

    /// What a ticket stands for, which from now on is nothing.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn take(&self, ticket: [u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.value("GETDEL", ticket).await
    }

    async fn value(
        &self,
        command: &'static str,
        ticket: [u8; 32],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.names.ticket(&ticket);
        self.ask(move |mut connection| async move {
            redis::cmd(command)
                .arg(key)
                .query_async(&mut connection)
                .await
        })
        .await
    }

    /// Notes the last use of a session; lost if the store is away, or too much waits.
    pub fn touch(&self, hash: Hash, seen: Seconds, idle: Duration) -> bool {
        let key = self.names.session(hash);
        let started = self.start(move |mut connection| async move {
            TOUCH
                .key(key)
                .arg(seen.0)
                .arg(idle.as_secs())
                .invoke_async::<()>(&mut connection)
                .await
        });
        started.is_ok()
    }

    /// Takes the turn to ask a provider about a session, of all gates; `token` gives it back. It ends
    /// by itself where its gate does not live to do so.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn lock(&self, hash: Hash, token: [u8; 16]) -> Result<bool, StoreError> {
        let key = self.names.lock(hash);
        self.ask(move |mut connection| async move {
            let locked: Option<String> = redis::cmd("SET")
                .arg(key)
                .arg(&token)
                .arg("NX")
                .arg("PX")
                .arg(u64::try_from(LOCK.as_millis()).unwrap_or(u64::MAX))
                .query_async(&mut connection)
                .await?;
            Ok(locked.is_some())
        })
        .await
    }

    /// Gives the turn back.
    pub fn unlock(&self, hash: Hash, token: [u8; 16]) {
        let key = self.names.lock(hash);
        // Where it can't be given back it ends by itself.
        drop(self.start(move |mut connection| async move {
            UNLOCK
                .key(key)
                .arg(&token)
                .invoke_async::<()>(&mut connection)
                .await
        }));
    }

    /// Counts a failure of somebody at all gates, unless they have to wait: how long. The time is the
    /// server's.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn count(
        &self,
        name: [u8; 16],
        leniency: Leniency,
    ) -> Result<Option<Duration>, StoreError> {
        let key = self.names.failures(name);
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.ask(move |mut connection| async move {
            let wait: u64 = COUNT
                .key(key)
                .arg(leniency.free)
                .arg(ms(leniency.leak))
                .arg(ms(leniency.longest))
                .invoke_async(&mut connection)
                .await?;
            Ok((wait > 0).then_some(Duration::from_millis(wait)))
        })
        .await
    }

    /// Takes a failure back at all gates, or all of them.
    pub fn uncount(&self, name: [u8; 16], all: bool) {
        let key = self.names.failures(name);
        // What can't be taken back is forgotten in time.
        drop(self.start(move |mut connection| async move {
            if all {
                return redis::cmd("DEL").arg(key).exec_async(&mut connection).await;
            }
            UNCOUNT.key(key).invoke_async(&mut connection).await
        }));
    }

    /// Whether rates are counted here now.
    pub fn counts_rates(&self) -> bool {
        self.rates.are_counted()
    }

    /// Counts a request at all gates, unless it has to wait: how long. The time is the server's.
    /// Nothing is counted where the server does not say so in time.
    pub async fn count_request(&self, name: &[&[u8]], pace: Pace) -> Option<Duration> {
        if !self.rates.are_counted() {
            return None;
        }
        let connection = self.link.connection().ok()?;
        let Ok(place) = Arc::clone(&self.rates.room).try_acquire_owned() else {
            self.rates.pause(&self.handle, "too many requests wait");
            return None;
        };
        let rates = Arc::clone(&self.rates);
        let key = self.names.rate(&self.users.tag(name));
        let counting = async move {
            let counted = rates.count(connection, &key, pace).await;
            drop(place);
            counted
                .inspect_err(|why| rates.pause(&Handle::current(), &why.to_string()))
                .ok()
        };
        let wait = self.handle.spawn(counting).await.ok().flatten()?;
        // No answer of the store may keep somebody out for longer than the rate says.
        (wait > 0).then(|| Duration::from_micros(wait).min(pace.interval))
    }

    fn work(&self) -> Work {
        Work {
            link: Arc::clone(&self.link),
            names: Arc::clone(&self.names),
        }
    }

    async fn ask<T, F>(&self, work: impl FnOnce(Connection) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = RedisResult<T>> + Send + 'static,
    {
        self.start(work)?.await.unwrap_or(Err(StoreError::Gone))
    }

    /// Begins work, which goes on whether somebody waits for it or not.
    fn start<T, F>(&self, work: impl FnOnce(Connection) -> F) -> Result<Doing<T>, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = RedisResult<T>> + Send + 'static,
    {
        let connection = self.link.connection()?;
        let place = Arc::clone(&self.room)
            .try_acquire_owned()
            .map_err(|_| StoreError::Busy)?;
        let link = Arc::clone(&self.link);
        Ok(self.handle.spawn(finish(link, place, work(connection))))
    }
}

/// A name that stands in a pattern for itself.
fn escaped(name: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    let escape = |c: char| special(c).then_some('\\').into_iter().chain([c]);
    name.chars().flat_map(escape).collect()
}

/// Rates that all gates count together.
struct Rates {
    link: Arc<Link>,
    /// A key that stands for nobody.
    probe: String,
    room: Arc<Semaphore>,
    is_paused: AtomicBool,
}

impl Rates {
    fn are_counted(&self) -> bool {
        self.link.epoch() != 0 && !self.is_paused.load(Ordering::Relaxed)
    }

    async fn count(&self, mut connection: Connection, key: &str, pace: Pace) -> RedisResult<u64> {
        let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let mut count = COUNT_REQUEST.key(key);
        count.arg(us(pace.interval)).arg(us(pace.rest()));
        match timeout(RATE_PATIENCE, count.invoke_async(&mut connection)).await {
            Ok(counted) => counted.inspect_err(|why| self.link.failed(why)),
            // Sessions are more patient: it is for them to say that the server is away.
            Err(_) => Err(RedisError::from((ErrorKind::Io, "no answer in 100 ms"))),
        }
    }

    /// Leaves the counting to each gate until the store does it in time again, which no request has to
    /// find out.
    fn pause(self: &Arc<Self>, runtime: &Handle, why: &str) {
        if self.is_paused.swap(true, Ordering::Relaxed) {
            return;
        }
        warn!(error = why, "rates are counted by each gate for itself");
        let rates = Arc::clone(self);
        runtime.spawn(async move {
            let pace = Pace {
                interval: RATE_PATIENCE,
                burst: NonZeroU32::MIN,
            };
            loop {
                tokio::time::sleep(RATE_PAUSE).await;
                if let Ok(connection) = rates.link.connection()
                    && rates.count(connection, &rates.probe, pace).await.is_ok()
                {
                    break;
                }
            }
            rates.is_paused.store(false, Ordering::Relaxed);
            info!("rates are counted for all gates again");
        });
    }
}

type Doing<T> = tokio::task::JoinHandle<Result<T, StoreError>>;

async fn finish<T>(
    link: Arc<Link>,
    _place: OwnedSemaphorePermit,
    work: impl Future<Output = RedisResult<T>>,
) -> Result<T, StoreError> {
    let done = match timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(RedisError::from((ErrorKind::Io, "no answer in time"))),
    };
    done.map_err(|why| {
        link.failed(&why);
        StoreError::Broken(why.to_string().into())
    })
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so; there is nothing left to finish.
            drop(thread.join());
        }
    }
}

/// What takes more than one command.
struct Work {
    link: Arc<Link>,
    names: Arc<Names>,
}

struct Working {
    work: Work,
    connection: Connection,
}

impl Work {
    const fn on(self, connection: Connection) -> Working {
        Working {
            work: self,
            connection,
        }
    }
}

impl Working {
    async fn create(&mut self, new: &New) -> RedisResult<Vec<Hash>> {
        let mut ended = Vec::new();
        if let Some(old) = new.replaces
            && self.remove(old).await?
        {
            ended.push(old);
        }
        let found_by = || [&new.user].into_iter().chain(&new.others);
        let dies = new.seen.plus(new.idle).min(new.expires);
        CREATE
            .key(self.work.names.session(new.hash))
            .arg(&new.sealed)
            .arg(new.seen.0)
            .arg(new.expires.0)
            .arg(found_by().flat_map(|key| key.0).collect::<Vec<u8>>())
            .arg(dies.0)
            .invoke_async::<()>(&mut self.connection)
            .await?;
        let mut of_user = 0;
        for key in found_by() {
            let there: usize = ADD
                .key(self.work.names.index(*key))
                .arg(&new.hash.0)
                .arg(new.expires.0)
                .arg(new.seen.0)
                .invoke_async(&mut self.connection)
                .await?;
            if *key == new.user {
                of_user = there;
            }
        }
        if of_user > MAX_SESSIONS_PER_USER {
            self.make_room(new, &mut ended).await?;
        }
        Ok(ended)
    }

    /// Ends the sessions of a user that were used longest ago, beyond so many.
    async fn make_room(&mut self, new: &New, ended: &mut Vec<Hash>) -> RedisResult<()> {
        let mut live = Vec::new();
        for hash in self.members(new.user).await? {
            match self.seen(hash).await? {
                Some(seen) if hash != new.hash => live.push((seen, hash)),
                Some(_) => {}
                // It fell idle, which the index does not notice.
                None => self.forget(new.user, hash).await?,
            }
        }
        live.sort_unstable_by_key(|(seen, hash)| (*seen, hash.0));
        let beyond = live
            .len()
            .saturating_sub(MAX_SESSIONS_PER_USER.saturating_sub(1));
        for (_, hash) in live.into_iter().take(beyond) {
            self.remove(hash).await?;
            ended.push(hash);
        }
        Ok(())
    }

    async fn members(&mut self, key: IndexKey) -> RedisResult<Vec<Hash>> {
        let members: Vec<Vec<u8>> = redis::cmd("ZRANGE")
            .arg(self.work.names.index(key))
            .arg(0)
            .arg(-1)
            .query_async(&mut self.connection)
            .await?;
        let hashes = members.iter().map(|hash| hash.as_slice().try_into());
        let all: Result<Vec<[u8; 32]>, _> = hashes.collect();
        let strange =
            |_| RedisError::from((ErrorKind::UnexpectedReturnType, "no hash in an index"));
        Ok(all.map_err(strange)?.into_iter().map(Hash).collect())
    }

    async fn seen(&mut self, hash: Hash) -> RedisResult<Option<u64>> {
        redis::cmd("HGET")
            .arg(self.work.names.session(hash))
            .arg("s")
            .query_async(&mut self.connection)
            .await
    }

    async fn remove(&mut self, hash: Hash) -> RedisResult<bool> {
        let link = &self.work.link;
        let found_by: Option<Vec<u8>> = REMOVE
            .key(self.work.names.session(hash))
            .arg(link.channel())
            .arg(News::Ended(hash).message(link.gate()))
            .invoke_async(&mut self.connection)
            .await?;
        let Some(found_by) = found_by else {
            return Ok(false);
        };
        for key in found_by.as_chunks::<32>().0 {
            self.forget(IndexKey(*key), hash).await?;
        }
        Ok(true)
    }

    async fn forget(&mut self, key: IndexKey, hash: Hash) -> RedisResult<()> {
        redis::cmd("ZREM")
            .arg(self.work.names.index(key))
            .arg(&hash.0)
            .exec_async(&mut self.connection)
            .await
    }
}

#[cfg(test)]
pub(super) mod tests;
