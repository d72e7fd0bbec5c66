//! Sessions and tickets in one file: an embedded database (redb) that survives a kill.
//!
//! Two threads of its own do all the work, so that no disk is ever waited for on a core's runtime:
//! one reads, one writes. The writer takes everything that waits into one transaction, so that a
//! crowd signing in shares one `fsync`. An answer is sent when its transaction is on the disk.
//! After a failure of the disk the file is opened anew every few seconds, and everything asked in
//! between fails: closed, never open.
//!
//! What stands in the file in clear: hashes of ids and tickets, keyed hashes of user names, and times.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    TableError, WriteTransaction,
};
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::pure::seal::Mac;
use crate::pure::session::{Hash, Seconds};
use crate::pure::ticket::Purpose;

use super::store::{Cursor, Index, IndexKey, MAX_SESSIONS_PER_USER, New, Page, Row, StoreError};

/// Rows that one pruning removes, so that the writer is not held up by it.
pub const MAX_PRUNED: usize = 1024;

/// What waits for each thread; beyond that the store is busy.
const QUEUE: usize = 1024;
/// Sessions on one page of all.
const PAGE: usize = 128;
/// What goes into one transaction.
const BATCH: usize = 128;
/// How often last-seen times are written, and a failed file is tried again.
const TICK: Duration = Duration::from_secs(5);
/// Last-seen times that wait for the tick. So many are written at once: each takes pages of its own, which the
/// file grows by before those of the last transaction are free. While that fails, more are dropped, and come
/// again in a minute.
const MAX_TOUCHED: usize = 8_192;
/// Tickets of one purpose at once; the one that ends first makes room, for anybody can have some made.
pub const MAX_TICKETS: u64 = 100_000;
const CACHE_BYTES: usize = 16 << 20;
const SCHEMA: u64 = 2;

/// Of each session its end, when it is over if it is not used again, its last use, what it is found by,
/// and its row. Elsewhere a part of its hash names it.
const SESSIONS: TableDefinition<&[u8; 32], Session> = TableDefinition::new("sessions");
const DEATHS: TableDefinition<(u64, &Part), ()> = TableDefinition::new("session_ends");
const INDEX: TableDefinition<(&Part, &Part), ()> = TableDefinition::new("index");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

type Session = (u64, u64, u64, &'static [u8], &'static [u8]);
/// Enough of a hash that no other has it.
type Part = [u8; 12];

/// Tables of earlier versions.
const FORMER: [&str; 7] = [
    "records",
    "marks",
    "deaths",
    "users",
    "owners",
    "tickets",
    "ticket_ends",
];

/// When a ticket ends, and what it stands for.
type Tickets = TableDefinition<'static, &'static [u8; 32], (u64, &'static [u8])>;
/// Tickets in the order in which they end.
type Ends = TableDefinition<'static, (u64, &'static [u8; 32]), ()>;

/// The tables of one purpose, so that a flood of its tickets pushes out no others.
const fn tables(purpose: Purpose) -> (Tickets, Ends) {
    let (tickets, ends) = match purpose {
        Purpose::Attempt => ("attempts", "attempt_ends"),
        Purpose::Posted => ("posted", "posted_ends"),
        Purpose::HandOver => ("hand_overs", "hand_over_ends"),
        Purpose::Admission => ("admissions", "admission_ends"),
        Purpose::Seen => ("seen", "seen_ends"),
    };
    (TableDefinition::new(tickets), TableDefinition::new(ends))
}

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
            Self::File(why) => why.fmt(f),
            Self::Database(why) if matches!(**why, redb::Error::DatabaseAlreadyOpen) => {
                f.write_str("another gate has it open")
            }
            Self::Database(why) => write!(
                f,
                "{why}; if it is not whole, move it away, and everybody signs in anew"
            ),
            Self::Schema(version) => write!(
                f,
                "it is of version {version}, which this program does not know; \
                 move it away, and everybody signs in anew"
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

enum Read {
    Session(Hash, oneshot::Sender<Result<Option<Row>, StoreError>>),
    Of(IndexKey, oneshot::Sender<Result<Vec<Hash>, StoreError>>),
    Page(Hash, oneshot::Sender<Result<Page, StoreError>>),
    Ticket(
        Purpose,
        [u8; 32],
        Seconds,
        oneshot::Sender<Result<Option<Vec<u8>>, StoreError>>,
    ),
}

/// What a ticket stands for, and until when.
struct Kept {
    purpose: Purpose,
    ticket: [u8; 32],
    value: Vec<u8>,
    now: Seconds,
    ends: Seconds,
}

enum Write {
    Create(New, oneshot::Sender<Result<Vec<Hash>, StoreError>>),
    Remove(Hash, oneshot::Sender<Result<bool, StoreError>>),
    RemoveAll(IndexKey, oneshot::Sender<Result<Vec<Hash>, StoreError>>),
    Replace(Hash, Vec<u8>, oneshot::Sender<Result<bool, StoreError>>),
    Keep(Kept, oneshot::Sender<Result<bool, StoreError>>),
    Take(
        Purpose,
        [u8; 32],
        Seconds,
        oneshot::Sender<Result<Option<Vec<u8>>, StoreError>>,
    ),
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

    /// How sessions are found that have something in common.
    pub fn key(&self, index: Index<'_>) -> IndexKey {
        index.key(&self.users)
    }

    /// The session known by `hash`.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn load(&self, hash: Hash) -> Result<Option<Row>, StoreError> {
        self.read(|answer| Read::Session(hash, answer)).await
    }

    /// Which sessions there are of an index.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn of(&self, key: IndexKey) -> Result<Vec<Hash>, StoreError> {
        self.read(|answer| Read::Of(key, answer)).await
    }

    /// A page of all sessions there are.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn page(&self, from: Option<Cursor>) -> Result<Page, StoreError> {
        let after = match from {
            Some(Cursor::After(hash)) => hash,
            Some(Cursor::At(_)) | None => Hash([0; 32]),
        };
        self.read(|answer| Read::Page(after, answer)).await
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

    /// Ends every session of an index, and answers which.
    ///
    /// # Errors
    /// Why they may still be there.
    pub async fn remove_all(&self, key: IndexKey) -> Result<Vec<Hash>, StoreError> {
        self.write(|answer| Write::RemoveAll(key, answer)).await
    }

    /// Keeps another record of a session; answers whether there still is one.
    ///
    /// # Errors
    /// Why the record before may still be there.
    pub async fn replace(&self, hash: Hash, sealed: Vec<u8>) -> Result<bool, StoreError> {
        self.write(|answer| Write::Replace(hash, sealed, answer))
            .await
    }

    /// Keeps what a ticket stands for until it ends; answers whether the ticket is new. One that is
    /// there already stays as it is.
    ///
    /// # Errors
    /// Why it may not be kept.
    pub async fn keep(
        &self,
        purpose: Purpose,
        ticket: [u8; 32],
        value: Vec<u8>,
        now: Seconds,
        ends: Seconds,
    ) -> Result<bool, StoreError> {
        let kept = Kept {
            purpose,
            ticket,
            value,
            now,
            ends,
        };
        self.write(|answer| Write::Keep(kept, answer)).await
    }

    /// What a ticket stands for; it may be asked again.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn peek(
        &self,
        purpose: Purpose,
        ticket: [u8; 32],
        now: Seconds,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|answer| Read::Ticket(purpose, ticket, now, answer))
            .await
    }

    /// What a ticket stands for, which from now on is nothing.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn take(
        &self,
        purpose: Purpose,
        ticket: [u8; 32],
        now: Seconds,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.write(|answer| Write::Take(purpose, ticket, now, answer))
            .await
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

    async fn read<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Read,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        send(self.reads.as_ref(), ask(answer))?;
        answered.await.unwrap_or(Err(StoreError::Gone))
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
    let why: redb::Error = why.into();
    StoreError::Broken(why.to_string().into())
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
        // To sign in anew is all that is lost.
        Some(Ok(1)) => {
            for name in FORMER {
                let former: TableDefinition<'_, (), ()> = TableDefinition::new(name);
                write.delete_table(former)?;
            }
            meta.insert("version", SCHEMA.to_be_bytes().as_slice())?;
        }
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
        match ask {
            Read::Session(hash, to) => read(shared, to, |database| session(database, hash)),
            Read::Of(key, to) => read(shared, to, |database| of(database, key)),
            Read::Page(after, to) => read(shared, to, |database| page(database, after)),
            Read::Ticket(purpose, ticket, now, to) => {
                read(shared, to, |database| {
                    value(database, purpose, &ticket, now)
                });
            }
        }
    }
}

fn read<T>(
    shared: &Shared,
    to: oneshot::Sender<Result<T, StoreError>>,
    look: impl FnOnce(&Database) -> Result<T, redb::Error>,
) {
    // Nobody waits any more if the client has gone.
    if to.is_closed() {
        return;
    }
    let found = shared
        .database()
        .and_then(|database| look(&database).map_err(broken));
    if let Err(why) = &found {
        shared.failed(why);
    }
    drop(to.send(found));
}

fn session(database: &Database, hash: Hash) -> Result<Option<Row>, redb::Error> {
    let sessions = database.begin_read()?.open_table(SESSIONS)?;
    let found = sessions.get(&hash.0)?;
    Ok(found.map(|found| {
        let (_, _, seen, _, row) = found.value();
        Row {
            sealed: row.to_vec(),
            seen: Seconds(seen),
        }
    }))
}

fn page(database: &Database, after: Hash) -> Result<Page, redb::Error> {
    let sessions = database.begin_read()?.open_table(SESSIONS)?;
    let behind = (Bound::Excluded(&after.0), Bound::Unbounded);
    let mut rows = Vec::new();
    for found in sessions.range::<&[u8; 32]>(behind)?.take(PAGE) {
        let (hash, found) = found?;
        let (_, _, seen, _, row) = found.value();
        let row = Row {
            sealed: row.to_vec(),
            seen: Seconds(seen),
        };
        rows.push((Hash(*hash.value()), row));
    }
    let next = rows.last().filter(|_| rows.len() == PAGE);
    let next = next.map(|(hash, _)| Cursor::After(*hash));
    Ok((rows, next))
}

fn of(database: &Database, key: IndexKey) -> Result<Vec<Hash>, redb::Error> {
    let read = database.begin_read()?;
    hashes(&read.open_table(INDEX)?, &read.open_table(SESSIONS)?, &key)
}

fn part(whole: &[u8; 32]) -> Part {
    let (part, _) = whole.split_at(12);
    part.try_into().unwrap_or_default()
}

/// The sessions of an index, by their whole hashes.
fn hashes(
    index: &impl ReadableTable<(&'static Part, &'static Part), ()>,
    sessions: &impl ReadableTable<&'static [u8; 32], Session>,
    key: &IndexKey,
) -> Result<Vec<Hash>, redb::Error> {
    let key = part(&key.0);
    let mut hashes = Vec::new();
    for row in index.range((&key, &[0; 12])..=(&key, &[0xff; 12]))? {
        hashes.extend(whole(sessions, row?.0.value().1)?);
    }
    Ok(hashes)
}

/// The session that part of its hash names.
fn whole(
    sessions: &impl ReadableTable<&'static [u8; 32], Session>,
    part: &Part,
) -> Result<Option<Hash>, redb::Error> {
    let (mut first, mut last) = ([0; 32], [0xff; 32]);
    for bound in [&mut first, &mut last] {
        for (to, from) in bound.iter_mut().zip(part) {
            *to = *from;
        }
    }
    let found = sessions
        .range::<&[u8; 32]>(&first..=&last)?
        .next()
        .transpose()?;
    Ok(found.map(|(hash, _)| Hash(*hash.value())))
}

fn value(
    database: &Database,
    purpose: Purpose,
    ticket: &[u8; 32],
    now: Seconds,
) -> Result<Option<Vec<u8>>, redb::Error> {
    let tickets = database.begin_read()?.open_table(tables(purpose).0)?;
    let kept = tickets.get(ticket)?;
    Ok(kept.and_then(|kept| {
        let (ends, value) = kept.value();
        (ends > now.0).then(|| value.to_vec())
    }))
}

/// Last uses that wait to be written, in the order of the table.
#[derive(Default)]
struct Touched {
    of: BTreeMap<[u8; 32], (Seconds, Duration)>,
    /// The first and the last time since the last transaction.
    span: Option<(Seconds, Seconds)>,
}

impl Touched {
    fn note(&mut self, hash: Hash, seen: Seconds, idle: Duration) {
        if self.is_full() && !self.of.contains_key(&hash.0) {
            return;
        }
        self.of.insert(hash.0, (seen, idle));
        let (first, last) = self.span.unwrap_or((seen, seen));
        self.span = Some((first.min(seen), last.max(seen)));
    }

    fn is_full(&self) -> bool {
        self.of.len() >= MAX_TOUCHED
    }

    /// Whether some have waited for a tick: the times tell by themselves how long.
    fn waited(&self) -> bool {
        self.span
            .is_some_and(|(first, last)| last >= first.plus(TICK))
    }
}

fn write_all(shared: &Shared, asks: &Receiver<Write>) {
    let mut touched = Touched::default();
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
                touched.note(hash, seen, idle);
            } else {
                work.push(ask);
            }
        }
        shared.mend();
        // Times wait for company, but no longer than a tick.
        let is_due = touched.is_full() || touched.waited() || tick && !touched.of.is_empty();
        if !work.is_empty() || is_due {
            commit(shared, work, &mut touched);
        }
        if !open {
            return;
        }
    }
}

/// An answer that waits for the commit.
type Answer = Box<dyn FnOnce(Result<(), StoreError>)>;

fn commit(shared: &Shared, work: Vec<Write>, touched: &mut Touched) {
    let mut answers = Vec::with_capacity(work.len());
    let done = shared
        .database()
        .and_then(|database| apply(&database, work, touched, &mut answers).map_err(broken));
    match &done {
        Ok(()) => *touched = Touched::default(),
        Err(why) => shared.failed(why),
    }
    for answer in answers {
        answer(done.clone());
    }
}

fn apply(
    database: &Database,
    work: Vec<Write>,
    touched: &Touched,
    answers: &mut Vec<Answer>,
) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut tables = Tables::open(&write)?;
        for (hash, (seen, idle)) in &touched.of {
            tables.touch(hash, *seen, *idle)?;
        }
        for ask in work {
            match ask {
                Write::Create(new, to) => answer(answers, to, tables.create(&new))?,
                Write::Remove(hash, to) => answer(answers, to, tables.remove(&hash.0))?,
                Write::RemoveAll(key, to) => answer(answers, to, tables.remove_all(&key))?,
                Write::Replace(hash, sealed, to) => {
                    answer(answers, to, tables.replace(&hash.0, &sealed))?;
                }
                Write::Keep(kept, to) => {
                    let tickets = tables.tickets(kept.purpose);
                    answer(answers, to, tickets.keep(&kept, MAX_TICKETS))?;
                }
                Write::Take(purpose, ticket, now, to) => {
                    let tickets = tables.tickets(purpose);
                    answer(answers, to, tickets.take(&ticket, now))?;
                }
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

/// Of a session, in seconds since 1970.
struct Times {
    expires: u64,
    dies: u64,
    seen: u64,
}

/// The tables of one transaction, which change together.
struct Tables<'t> {
    sessions: Table<'t, &'static [u8; 32], Session>,
    deaths: Table<'t, (u64, &'static Part), ()>,
    index: Table<'t, (&'static Part, &'static Part), ()>,
    attempts: Kind<'t>,
    posted: Kind<'t>,
    hand_overs: Kind<'t>,
    admissions: Kind<'t>,
    seen: Kind<'t>,
}

impl<'t> Tables<'t> {
    fn open(write: &'t WriteTransaction) -> Result<Self, TableError> {
        Ok(Self {
            sessions: write.open_table(SESSIONS)?,
            deaths: write.open_table(DEATHS)?,
            index: write.open_table(INDEX)?,
            attempts: Kind::open(write, Purpose::Attempt)?,
            posted: Kind::open(write, Purpose::Posted)?,
            hand_overs: Kind::open(write, Purpose::HandOver)?,
            admissions: Kind::open(write, Purpose::Admission)?,
            seen: Kind::open(write, Purpose::Seen)?,
        })
    }

    const fn tickets(&mut self, purpose: Purpose) -> &mut Kind<'t> {
        match purpose {
            Purpose::Attempt => &mut self.attempts,
            Purpose::Posted => &mut self.posted,
            Purpose::HandOver => &mut self.hand_overs,
            Purpose::Admission => &mut self.admissions,
            Purpose::Seen => &mut self.seen,
        }
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
        let found_by = || [&new.user].into_iter().chain(&new.others);
        let keys: Vec<u8> = found_by().flat_map(|key| part(&key.0)).collect();
        self.sessions.insert(
            hash,
            (new.expires.0, dies.0, new.seen.0, &*keys, &*new.sealed),
        )?;
        self.deaths.insert((dies.0, &part(hash)), ())?;
        for key in found_by() {
            self.index.insert((&part(&key.0), &part(hash)), ())?;
        }
        Ok(ended)
    }

    fn remove(&mut self, hash: &[u8; 32]) -> Result<bool, redb::Error> {
        let Some((dies, keys)) = self.sessions.remove(hash)?.map(|found| {
            let (_, dies, _, keys, _) = found.value();
            (dies, keys.to_vec())
        }) else {
            return Ok(false);
        };
        let part = part(hash);
        self.deaths.remove((dies, &part))?;
        for key in keys.as_chunks::<12>().0 {
            self.index.remove((key, &part))?;
        }
        Ok(true)
    }

    /// Changes what is kept of a session, if there is one.
    fn change(
        &mut self,
        hash: &[u8; 32],
        change: impl FnOnce(&mut Times, &mut Vec<u8>),
    ) -> Result<bool, redb::Error> {
        let found = self.sessions.get(hash)?.map(|found| {
            let (expires, dies, seen, keys, row) = found.value();
            let times = Times {
                expires,
                dies,
                seen,
            };
            (times, keys.to_vec(), row.to_vec())
        });
        let Some((mut times, keys, mut row)) = found else {
            return Ok(false);
        };
        let died = times.dies;
        change(&mut times, &mut row);
        let Times {
            expires,
            dies,
            seen,
        } = times;
        self.sessions
            .insert(hash, (expires, dies, seen, &*keys, &*row))?;
        if dies != died {
            self.deaths.remove((died, &part(hash)))?;
            self.deaths.insert((dies, &part(hash)), ())?;
        }
        Ok(true)
    }

    fn replace(&mut self, hash: &[u8; 32], sealed: &[u8]) -> Result<bool, redb::Error> {
        self.change(hash, |_, row| *row = sealed.to_vec())
    }

    fn remove_all(&mut self, key: &IndexKey) -> Result<Vec<Hash>, redb::Error> {
        let hashes = hashes(&self.index, &self.sessions, key)?;
        for hash in &hashes {
            self.remove(&hash.0)?;
        }
        Ok(hashes)
    }

    /// The user's session used longest ago, if there is no room for another.
    fn one_too_many(&self, user: &IndexKey) -> Result<Option<Hash>, redb::Error> {
        let hashes = hashes(&self.index, &self.sessions, user)?;
        if hashes.len() < MAX_SESSIONS_PER_USER {
            return Ok(None);
        }
        let mut oldest = None;
        for hash in hashes {
            let found = self.sessions.get(&hash.0)?;
            let seen = found.map_or(0, |found| found.value().2);
            if oldest.is_none_or(|(least, _)| seen < least) {
                oldest = Some((seen, hash));
            }
        }
        Ok(oldest.map(|(_, hash)| hash))
    }

    fn touch(&mut self, hash: &[u8; 32], seen: Seconds, idle: Duration) -> Result<(), redb::Error> {
        let is_later = match self.sessions.get(hash)? {
            Some(found) => seen.0 > found.value().2,
            None => false,
        };
        if is_later {
            self.change(hash, |times, _| {
                times.seen = seen.0;
                times.dies = seen.plus(idle).0.min(times.expires);
            })?;
        }
        Ok(())
    }

    fn prune(&mut self, now: Seconds) -> Result<usize, redb::Error> {
        let mut dead = Vec::new();
        for row in self.deaths.range(..=(now.0, &[0xff; 12]))?.take(MAX_PRUNED) {
            let (died, part) = {
                let key = row?.0;
                (key.value().0, *key.value().1)
            };
            dead.push((died, part));
        }
        for (died, part) in &dead {
            match whole(&self.sessions, part)? {
                Some(hash) => drop(self.remove(&hash.0)?),
                None => drop(self.deaths.remove((*died, part))?),
            }
        }
        for purpose in Purpose::ALL {
            self.tickets(purpose).prune(now)?;
        }
        Ok(dead.len())
    }
}

/// The tickets of one purpose.
struct Kind<'t> {
    tickets: Table<'t, &'static [u8; 32], (u64, &'static [u8])>,
    ends: Table<'t, (u64, &'static [u8; 32]), ()>,
}

impl<'t> Kind<'t> {
    fn open(write: &'t WriteTransaction, purpose: Purpose) -> Result<Self, TableError> {
        let (tickets, ends) = tables(purpose);
        Ok(Self {
            tickets: write.open_table(tickets)?,
            ends: write.open_table(ends)?,
        })
    }

    fn keep(&mut self, kept: &Kept, most: u64) -> Result<bool, redb::Error> {
        let there = self.tickets.get(&kept.ticket)?.map(|kept| kept.value().0);
        match there {
            Some(ends) if ends > kept.now.0 => return Ok(false),
            Some(ends) => drop(self.ends.remove((ends, &kept.ticket))?),
            None => {}
        }
        if self.tickets.len()? >= most
            && let Some(first) = self.ends.pop_first()?.map(|row| *row.0.value().1)
        {
            self.tickets.remove(&first)?;
        }
        self.tickets
            .insert(&kept.ticket, (kept.ends.0, kept.value.as_slice()))?;
        self.ends.insert((kept.ends.0, &kept.ticket), ())?;
        Ok(true)
    }

    fn take(&mut self, ticket: &[u8; 32], now: Seconds) -> Result<Option<Vec<u8>>, redb::Error> {
        let Some((ends, value)) = self.tickets.remove(ticket)?.map(|kept| {
            let (ends, value) = kept.value();
            (ends, value.to_vec())
        }) else {
            return Ok(None);
        };
        self.ends.remove((ends, ticket))?;
        Ok((ends > now.0).then_some(value))
    }

    fn prune(&mut self, now: Seconds) -> Result<(), redb::Error> {
        let mut ended = Vec::new();
        for row in self.ends.range(..=(now.0, &[0xff; 32]))?.take(MAX_PRUNED) {
            let key = row?.0;
            let (ends, ticket) = key.value();
            ended.push((ends, *ticket));
        }
        for (ends, ticket) in ended {
            self.tickets.remove(&ticket)?;
            self.ends.remove((ends, &ticket))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
