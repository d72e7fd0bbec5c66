//! Sessions in one file: an embedded database (redb) that survives a kill.
//!
//! Two threads of its own do all the work, so that no disk is ever waited for on a core's runtime:
//! one reads, one writes. The writer takes everything that waits into one transaction, so that a
//! crowd signing in shares one `fsync`. An answer is sent when its transaction is on the disk.
//! After a failure of the disk the file is opened anew every few seconds, and everything asked in
//! between fails: closed, never open.
//!
//! What stands in the file in clear: hashes of ids, keyed hashes of user names, and times.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{
    Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::pure::seal::Mac;
use crate::pure::session::{Hash, Seconds};

/// Sessions of one user; the one used longest ago ends when there is one more.
pub const MAX_SESSIONS_PER_USER: usize = 64;
/// Rows that one pruning removes, so that the writer is not held up by it.
pub const MAX_PRUNED: usize = 1024;

/// What waits for each thread; beyond that the store is busy.
const QUEUE: usize = 1024;
/// What goes into one transaction.
const BATCH: usize = 128;
/// How often last-seen times are written, and a failed file is tried again.
const TICK: Duration = Duration::from_secs(5);
/// Last-seen times that wait for the tick; more are dropped, and come again in a minute.
const MAX_TOUCHED: usize = 65_536;
const CACHE_BYTES: usize = 16 << 20;
const SCHEMA: u64 = 1;

const RECORDS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("records");
/// Expiry, time of death if it is not used again, last use, user.
const MARKS: TableDefinition<&[u8; 32], Marks> = TableDefinition::new("marks");
const DEATHS: TableDefinition<(u64, &[u8; 32]), ()> = TableDefinition::new("deaths");
const USERS: TableDefinition<(&[u8; 32], &[u8; 32]), ()> = TableDefinition::new("users");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

type Marks = (u64, u64, u64, &'static [u8; 32]);

/// A session as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The sealed record.
    pub sealed: Vec<u8>,
    /// The last use.
    pub seen: Seconds,
}

/// A session to be kept.
pub struct New {
    /// What it is known by.
    pub hash: Hash,
    /// The sealed record.
    pub sealed: Vec<u8>,
    /// When it ends, whatever happens.
    pub expires: Seconds,
    /// When it was made.
    pub seen: Seconds,
    /// How long it lives unused.
    pub idle: Duration,
    /// Whose it is.
    pub user: UserKey,
    /// The session that this one takes the place of.
    pub replaces: Option<Hash>,
}

/// A user as the index knows them: a keyed hash, so that the file lists no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserKey([u8; 32]);

/// Why the store can't say.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// Too much waits already.
    Busy,
    /// The thread that does the work did not answer.
    Gone,
    /// The file can't be read or written; it is being tried again.
    Broken(Arc<redb::Error>),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => f.write_str("too many requests wait for the session store"),
            Self::Gone => f.write_str("the session store did not answer"),
            Self::Broken(why) => write!(f, "the session store can't be used: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Why the store did not open.
#[derive(Debug)]
pub enum OpenError {
    /// The file can't be made or read.
    File(std::io::Error),
    /// It is no database of ours, or another process has it open.
    Database(Box<redb::Error>),
    /// It was written by a later version of this program.
    Schema(u64),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(why) => write!(f, "the session store can't be opened: {why}"),
            Self::Database(why) => write!(f, "the session store can't be opened: {why}"),
            Self::Schema(version) => write!(
                f,
                "the session store is of version {version}, which this program does not know; \
                 move the file away, and everybody signs in anew"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// The file, and the threads that work on it. Dropping it finishes what was asked.
pub struct Store {
    reads: Option<SyncSender<Read>>,
    writes: Option<SyncSender<Write>>,
    threads: Vec<JoinHandle<()>>,
    users: Mac,
}

struct Read {
    hash: Hash,
    answer: oneshot::Sender<Result<Option<Row>, StoreError>>,
}

enum Write {
    Create(New, oneshot::Sender<Result<Vec<Hash>, StoreError>>),
    Remove(Hash, oneshot::Sender<Result<bool, StoreError>>),
    RemoveUser(UserKey, oneshot::Sender<Result<Vec<Hash>, StoreError>>),
    Prune(Seconds, oneshot::Sender<Result<usize, StoreError>>),
    Touch(Hash, Seconds, Duration),
}

impl Store {
    /// The store in the file at `path`, made if there is none; only its owner may read it. `salt`
    /// is random and used for a new file only.
    ///
    /// # Errors
    /// Why it can't be opened.
    pub fn open(path: &Path, salt: &[u8; 32]) -> Result<Self, OpenError> {
        let database = open(path)?;
        let salt = prepare(&database, salt)?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            salt,
            database: RwLock::new(Some(Arc::new(database))),
            suspect: AtomicBool::new(false),
        });
        let (reads, to_read) = sync_channel(QUEUE);
        let (writes, to_write) = sync_channel(QUEUE);
        let reader = spawn("sessions-read", {
            let shared = Arc::clone(&shared);
            move || read_all(&shared, &to_read)
        })?;
        let writer = spawn("sessions-write", move || write_all(&shared, &to_write))?;
        Ok(Self {
            reads: Some(reads),
            writes: Some(writes),
            threads: vec![reader, writer],
            users: Mac::new(&salt),
        })
    }

    /// How the index knows a user.
    pub fn user_key(&self, provider: &str, name: &str) -> UserKey {
        UserKey(self.users.tag(&[provider.as_bytes(), name.as_bytes()]))
    }

    /// The session known by `hash`.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn load(&self, hash: Hash) -> Result<Option<Row>, StoreError> {
        let (answer, answered) = oneshot::channel();
        send(self.reads.as_ref(), Read { hash, answer })?;
        answered.await.unwrap_or(Err(StoreError::Gone))
    }

    /// Keeps a new session; it is on the disk when this returns. Answers with the sessions that
    /// ended for it: the one it replaces, and the user's oldest beyond [`MAX_SESSIONS_PER_USER`].
    ///
    /// # Errors
    /// Why it is not kept.
    pub async fn create(&self, new: New) -> Result<Vec<Hash>, StoreError> {
        self.write(|answer| Write::Create(new, answer)).await
    }

    /// Ends a session; answers whether there was one.
    ///
    /// # Errors
    /// Why it may still be there.
    pub async fn remove(&self, hash: Hash) -> Result<bool, StoreError> {
        self.write(|answer| Write::Remove(hash, answer)).await
    }

    /// Ends every session of a user, and answers which.
    ///
    /// # Errors
    /// Why they may still be there.
    pub async fn remove_user(&self, user: UserKey) -> Result<Vec<Hash>, StoreError> {
        self.write(|answer| Write::RemoveUser(user, answer)).await
    }

    /// Removes up to [`MAX_PRUNED`] sessions that are over, and answers how many it was.
    ///
    /// # Errors
    /// Why they are still there.
    pub async fn prune(&self, now: Seconds) -> Result<usize, StoreError> {
        self.write(|answer| Write::Prune(now, answer)).await
    }

    /// Notes the last use of a session, some seconds from now; lost if too much waits.
    pub fn touch(&self, hash: Hash, seen: Seconds, idle: Duration) -> bool {
        send(self.writes.as_ref(), Write::Touch(hash, seen, idle)).is_ok()
    }

    async fn write<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Write,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        send(self.writes.as_ref(), ask(answer))?;
        answered.await.unwrap_or(Err(StoreError::Gone))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.reads = None;
        self.writes = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; there is nothing left to finish.
            drop(thread.join());
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(OpenError::File)
}

fn send<T>(queue: Option<&SyncSender<T>>, ask: T) -> Result<(), StoreError> {
    match queue.map(|queue| queue.try_send(ask)) {
        Some(Ok(())) => Ok(()),
        Some(Err(TrySendError::Full(_))) => Err(StoreError::Busy),
        Some(Err(TrySendError::Disconnected(_))) | None => Err(StoreError::Gone),
    }
}

/// What the two threads share: the database, or none while it is broken.
struct Shared {
    path: PathBuf,
    salt: [u8; 32],
    database: RwLock<Option<Arc<Database>>>,
    suspect: AtomicBool,
}

impl Shared {
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        self.database
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| broken(redb::Error::PreviousIo))
    }

    /// Notes a failure for the writer, which opens the file anew.
    fn failed(&self, why: &StoreError) {
        if !self.suspect.swap(true, Ordering::Relaxed) {
            error!(error = %why, "session store failed; everybody is refused until it works again");
        }
    }

    /// Opens the file anew after a failure. The lock on the file falls with the last user of the
    /// old database, so this may take more than one try.
    fn mend(&self) {
        if !self.suspect.load(Ordering::Relaxed) {
            return;
        }
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *database = None;
        if let Ok(opened) = open(&self.path)
            && prepare(&opened, &self.salt).is_ok_and(|salt| salt == self.salt)
        {
            *database = Some(Arc::new(opened));
            self.suspect.store(false, Ordering::Relaxed);
            info!("session store works again");
        }
    }
}

fn broken(why: impl Into<redb::Error>) -> StoreError {
    StoreError::Broken(Arc::new(why.into()))
}

fn open(path: &Path) -> Result<Database, OpenError> {
    let file = private_file(path).map_err(OpenError::File)?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    FileBackend::new(file)
        .and_then(|file| builder.create_with_backend(file))
        .map_err(|why| OpenError::Database(Box::new(why.into())))
}

fn private_file(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    // A file made by hand, or restored from a backup, may be readable by others.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Makes the tables of a new file, checks the version of an old one, and answers with its salt.
fn prepare(database: &Database, salt: &[u8; 32]) -> Result<[u8; 32], OpenError> {
    let fail = |why: redb::Error| OpenError::Database(Box::new(why));
    let write = database.begin_write().map_err(|why| fail(why.into()))?;
    let salt = prepare_tables(&write, salt).map_err(fail)??;
    write.commit().map_err(|why| fail(why.into()))?;
    Ok(salt)
}

fn prepare_tables(
    write: &WriteTransaction,
    salt: &[u8; 32],
) -> Result<Result<[u8; 32], OpenError>, redb::Error> {
    Tables::open(write)?;
    let mut meta = write.open_table(META)?;
    let version = meta
        .get("version")?
        .map(|value| value.value().try_into().map(u64::from_be_bytes));
    match version {
        None => {
            meta.insert("version", SCHEMA.to_be_bytes().as_slice())?;
            meta.insert("salt", salt.as_slice())?;
        }
        Some(Ok(SCHEMA)) => {}
        Some(Ok(other)) => return Ok(Err(OpenError::Schema(other))),
        Some(Err(_)) => return Ok(Err(OpenError::Schema(0))),
    }
    let salt = meta
        .get("salt")?
        .and_then(|value| value.value().try_into().ok());
    Ok(salt.ok_or(OpenError::Schema(0)))
}

fn read_all(shared: &Shared, asks: &Receiver<Read>) {
    while let Ok(ask) = asks.recv() {
        // Nobody waits any more if the client has gone.
        if ask.answer.is_closed() {
            continue;
        }
        let row = shared
            .database()
            .and_then(|database| read(&database, ask.hash).map_err(broken));
        if let Err(why) = &row {
            shared.failed(why);
        }
        drop(ask.answer.send(row));
    }
}

fn read(database: &Database, hash: Hash) -> Result<Option<Row>, redb::Error> {
    let read = database.begin_read()?;
    let Some(sealed) = read
        .open_table(RECORDS)?
        .get(&hash.0)?
        .map(|row| row.value().to_vec())
    else {
        return Ok(None);
    };
    let seen = read
        .open_table(MARKS)?
        .get(&hash.0)?
        .map(|marks| Seconds(marks.value().2));
    Ok(seen.map(|seen| Row { sealed, seen }))
}

fn write_all(shared: &Shared, asks: &Receiver<Write>) {
    let mut touched = HashMap::new();
    loop {
        let (mut batch, open) = match asks.recv_timeout(TICK) {
            Ok(first) => (vec![first], true),
            Err(RecvTimeoutError::Timeout) => (Vec::new(), true),
            Err(RecvTimeoutError::Disconnected) => (Vec::new(), false),
        };
        let tick = batch.is_empty();
        batch.extend(asks.try_iter().take(BATCH));
        let mut work = Vec::with_capacity(batch.len());
        for ask in batch {
            if let Write::Touch(hash, seen, idle) = ask {
                if touched.len() < MAX_TOUCHED || touched.contains_key(&hash) {
                    touched.insert(hash, (seen, idle));
                }
            } else {
                work.push(ask);
            }
        }
        shared.mend();
        // Times wait for company, but no longer than a tick: they tell by themselves how long.
        let times = touched.values().map(|(seen, _)| *seen);
        let waited = times
            .clone()
            .min()
            .is_some_and(|least: Seconds| times.max().is_some_and(|most| most >= least.plus(TICK)));
        if !work.is_empty() || waited || tick && !touched.is_empty() {
            commit(shared, work, &mut touched);
        }
        if !open {
            return;
        }
    }
}

/// An answer that waits for the commit.
type Answer = Box<dyn FnOnce(Result<(), StoreError>)>;

fn commit(shared: &Shared, work: Vec<Write>, touched: &mut HashMap<Hash, (Seconds, Duration)>) {
    let mut answers = Vec::with_capacity(work.len());
    let done = shared
        .database()
        .and_then(|database| apply(&database, work, touched, &mut answers).map_err(broken));
    match &done {
        Ok(()) => touched.clear(),
        Err(why) => shared.failed(why),
    }
    for answer in answers {
        answer(done.clone());
    }
}

fn apply(
    database: &Database,
    work: Vec<Write>,
    touched: &HashMap<Hash, (Seconds, Duration)>,
    answers: &mut Vec<Answer>,
) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut tables = Tables::open(&write)?;
        for (hash, (seen, idle)) in touched {
            tables.touch(hash, *seen, *idle)?;
        }
        for ask in work {
            match ask {
                Write::Create(new, to) => answer(answers, to, tables.create(&new))?,
                Write::Remove(hash, to) => answer(answers, to, tables.remove(&hash.0))?,
                Write::RemoveUser(user, to) => answer(answers, to, tables.remove_user(&user))?,
                Write::Prune(now, to) => answer(answers, to, tables.prune(now))?,
                Write::Touch(..) => {}
            }
        }
    }
    write.commit()?;
    Ok(())
}

/// Keeps a result until the transaction has been committed or has failed.
fn answer<T: 'static>(
    answers: &mut Vec<Answer>,
    to: oneshot::Sender<Result<T, StoreError>>,
    result: Result<T, redb::Error>,
) -> Result<(), redb::Error> {
    let (value, failed) = match result {
        Ok(value) => (Some(value), Ok(())),
        Err(why) => (None, Err(why)),
    };
    answers.push(Box::new(move |committed| {
        let result = committed.and_then(|()| value.ok_or(StoreError::Gone));
        drop(to.send(result));
    }));
    failed
}

/// The tables of one transaction, which change together.
struct Tables<'t> {
    records: Table<'t, &'static [u8; 32], &'static [u8]>,
    marks: Table<'t, &'static [u8; 32], Marks>,
    deaths: Table<'t, (u64, &'static [u8; 32]), ()>,
    users: Table<'t, (&'static [u8; 32], &'static [u8; 32]), ()>,
}

impl<'t> Tables<'t> {
    fn open(write: &'t WriteTransaction) -> Result<Self, TableError> {
        Ok(Self {
            records: write.open_table(RECORDS)?,
            marks: write.open_table(MARKS)?,
            deaths: write.open_table(DEATHS)?,
            users: write.open_table(USERS)?,
        })
    }

    fn create(&mut self, new: &New) -> Result<Vec<Hash>, redb::Error> {
        let mut ended = Vec::new();
        if let Some(old) = new.replaces
            && self.remove(&old.0)?
        {
            ended.push(old);
        }
        while let Some(oldest) = self.one_too_many(&new.user)? {
            self.remove(&oldest.0)?;
            ended.push(oldest);
        }
        let dies = new.seen.plus(new.idle).min(new.expires);
        let hash = &new.hash.0;
        self.records.insert(hash, new.sealed.as_slice())?;
        self.marks
            .insert(hash, (new.expires.0, dies.0, new.seen.0, &new.user.0))?;
        self.deaths.insert((dies.0, hash), ())?;
        self.users.insert((&new.user.0, hash), ())?;
        Ok(ended)
    }

    fn remove(&mut self, hash: &[u8; 32]) -> Result<bool, redb::Error> {
        self.records.remove(hash)?;
        let Some((dies, user)) = self
            .marks
            .remove(hash)?
            .map(|marks| (marks.value().1, *marks.value().3))
        else {
            return Ok(false);
        };
        self.deaths.remove((dies, hash))?;
        self.users.remove((&user, hash))?;
        Ok(true)
    }

    fn remove_user(&mut self, user: &UserKey) -> Result<Vec<Hash>, redb::Error> {
        let hashes = self.of(user)?;
        for hash in &hashes {
            self.remove(&hash.0)?;
        }
        Ok(hashes)
    }

    fn of(&self, user: &UserKey) -> Result<Vec<Hash>, redb::Error> {
        let mut hashes = Vec::new();
        for row in self
            .users
            .range((&user.0, &[0; 32])..=(&user.0, &[0xff; 32]))?
        {
            hashes.push(Hash(*row?.0.value().1));
        }
        Ok(hashes)
    }

    /// The user's session used longest ago, if there is no room for another.
    fn one_too_many(&self, user: &UserKey) -> Result<Option<Hash>, redb::Error> {
        let hashes = self.of(user)?;
        if hashes.len() < MAX_SESSIONS_PER_USER {
            return Ok(None);
        }
        let mut oldest = None;
        for hash in hashes {
            let seen = self.marks.get(&hash.0)?.map_or(0, |marks| marks.value().2);
            if oldest.is_none_or(|(least, _)| seen < least) {
                oldest = Some((seen, hash));
            }
        }
        Ok(oldest.map(|(_, hash)| hash))
    }

    fn touch(&mut self, hash: &Hash, seen: Seconds, idle: Duration) -> Result<(), redb::Error> {
        let hash = &hash.0;
        let Some((expires, died, was_seen, user)) = self.marks.get(hash)?.map(|marks| {
            let (expires, dies, seen, user) = marks.value();
            (expires, dies, seen, *user)
        }) else {
            return Ok(());
        };
        if seen.0 <= was_seen {
            return Ok(());
        }
        let dies = seen.plus(idle).0.min(expires);
        self.marks.insert(hash, (expires, dies, seen.0, &user))?;
        self.deaths.remove((died, hash))?;
        self.deaths.insert((dies, hash), ())?;
        Ok(())
    }

    fn prune(&mut self, now: Seconds) -> Result<usize, redb::Error> {
        let mut dead = Vec::new();
        for row in self.deaths.range(..=(now.0, &[0xff; 32]))?.take(MAX_PRUNED) {
            dead.push(*row?.0.value().1);
        }
        for hash in &dead {
            self.remove(hash)?;
        }
        Ok(dead.len())
    }
}

#[cfg(test)]
mod tests;
