//! Tests of the store.

use redb::TableHandle;

use crate::pure::seal;

use super::*;

const PURPOSE: Purpose = Purpose::Attempt;
const IDLE: Duration = Duration::from_secs(100);

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.redb"), &[5; 32]).unwrap();
    (dir, store)
}

fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

fn new(store: &Store, byte: u8, name: &str) -> New {
    New {
        hash: hash(byte),
        sealed: vec![byte; 300],
        expires: Seconds(10_000),
        seen: Seconds(1_000),
        idle: IDLE,
        user: store.key(user("local", name)),
        others: Vec::new(),
        replaces: None,
    }
}

const fn user<'i>(provider: &'i str, name: &'i str) -> Index<'i> {
    Index::User { provider, name }
}

fn row(byte: u8, seen: u64) -> Row {
    Row {
        sealed: vec![byte; 300],
        seen: Seconds(seen),
    }
}

#[tokio::test]
async fn a_session_is_there_after_a_crash_as_soon_as_create_has_returned() {
    let (dir, store) = store();
    store.create(new(&store, 1, "bob")).await.unwrap();
    // The file as the disk has it while the store is still open: what a kill would leave.
    let copy = dir.path().join("crashed.redb");
    std::fs::copy(dir.path().join("s.redb"), &copy).unwrap();
    let crashed = Store::open(&copy, &[6; 32]).unwrap();
    assert_eq!(crashed.load(hash(1)).await.unwrap(), Some(row(1, 1_000)));
    let bob = store.key(user("local", "bob"));
    assert_eq!(
        crashed.key(user("local", "bob")),
        bob,
        "the salt is the file's"
    );
}

#[tokio::test]
async fn a_removed_session_is_gone() {
    let (_dir, store) = store();
    store.create(new(&store, 1, "bob")).await.unwrap();
    assert!(store.remove(hash(1)).await.unwrap());
    assert!(!store.remove(hash(1)).await.unwrap());
    assert_eq!(store.load(hash(1)).await.unwrap(), None);
    assert_eq!(
        store
            .remove_all(store.key(user("local", "bob")))
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn all_sessions_of_one_user_end_and_nobody_elses() {
    let (_dir, store) = store();
    for (byte, user) in [(1, "bob"), (2, "bob"), (3, "eve")] {
        store.create(new(&store, byte, user)).await.unwrap();
    }
    let bob = store.key(user("local", "bob"));
    assert_eq!(store.remove_all(bob).await.unwrap(), [hash(1), hash(2)]);
    assert_eq!(store.load(hash(1)).await.unwrap(), None);
    assert_eq!(store.load(hash(3)).await.unwrap(), Some(row(3, 1_000)));
    assert_eq!(
        store
            .remove_all(store.key(user("oidc", "eve")))
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn a_replaced_session_is_gone_with_the_same_commit() {
    let (_dir, store) = store();
    store.create(new(&store, 1, "bob")).await.unwrap();
    let mut next = new(&store, 2, "bob");
    next.replaces = Some(hash(1));
    assert_eq!(store.create(next).await.unwrap(), [hash(1)]);
    assert_eq!(store.load(hash(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_users_oldest_session_makes_room() {
    let (_dir, store) = store();
    for byte in 0..=64_u8 {
        let mut new = new(&store, byte, "bob");
        // The third is the one used longest ago.
        new.seen = if byte == 3 {
            Seconds(1)
        } else {
            Seconds(1_000)
        };
        let ended = store.create(new).await.unwrap();
        assert_eq!(ended, if byte == 64 { vec![hash(3)] } else { vec![] });
    }
    let of_bob = store
        .remove_all(store.key(user("local", "bob")))
        .await
        .unwrap();
    assert_eq!(of_bob.len(), MAX_SESSIONS_PER_USER);
}

#[tokio::test]
async fn pruning_takes_what_is_over_and_what_is_idle() {
    let (_dir, store) = store();
    for byte in 1..=3 {
        store.create(new(&store, byte, "bob")).await.unwrap();
    }
    store.touch(hash(2), Seconds(1_090), IDLE);
    store.touch(hash(3), Seconds(9_950), IDLE);
    assert_eq!(store.prune(Seconds(1_099)).await.unwrap(), 0);
    assert_eq!(
        store.prune(Seconds(1_100)).await.unwrap(),
        1,
        "the first was idle too long"
    );
    assert_eq!(store.load(hash(2)).await.unwrap(), Some(row(2, 1_090)));
    assert_eq!(store.prune(Seconds(9_999)).await.unwrap(), 1);
    assert_eq!(
        store.prune(Seconds(10_000)).await.unwrap(),
        1,
        "use does not pass expiry"
    );
}

#[tokio::test]
async fn one_pruning_is_bounded() {
    let (_dir, store) = store();
    let mut waiting = Vec::new();
    for number in 0..MAX_PRUNED + 10 {
        let mut new = new(&store, 0, &number.to_string());
        new.hash.0[..8].copy_from_slice(&number.to_be_bytes());
        waiting.push(new);
    }
    for chunk in waiting.chunks_mut(500) {
        let creates = chunk.iter_mut().map(|new| {
            let new = std::mem::replace(new, tests::new(&store, 0, "x"));
            store.create(new)
        });
        for create in creates.collect::<Vec<_>>() {
            create.await.unwrap();
        }
    }
    assert_eq!(store.prune(Seconds(20_000)).await.unwrap(), MAX_PRUNED);
    assert_eq!(store.prune(Seconds(20_000)).await.unwrap(), 10);
}

#[tokio::test]
async fn last_use_is_kept_when_the_store_closes_and_never_goes_back() {
    let (dir, store) = store();
    store.create(new(&store, 1, "bob")).await.unwrap();
    store.touch(hash(1), Seconds(1_050), IDLE);
    store.touch(hash(9), Seconds(1_050), IDLE);
    drop(store);
    let store = Store::open(&dir.path().join("s.redb"), &[6; 32]).unwrap();
    assert_eq!(store.load(hash(1)).await.unwrap(), Some(row(1, 1_050)));
    assert_eq!(store.load(hash(9)).await.unwrap(), None);
    store.touch(hash(1), Seconds(1_020), IDLE);
    store.remove(hash(9)).await.unwrap();
    assert_eq!(store.load(hash(1)).await.unwrap(), Some(row(1, 1_050)));
}

#[test]
fn the_file_is_its_owners_alone() {
    let (dir, store) = store();
    drop(store);
    let path = dir.path().join("s.redb");
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&path, &[5; 32]).unwrap());
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_file_that_is_no_store_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    std::fs::write(&path, "not a database at all, but precious").unwrap();
    assert!(matches!(
        Store::open(&path, &[5; 32]),
        Err(OpenError::Database(_))
    ));
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"not a database at all, but precious"
    );
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let (dir, store) = store();
    drop(store);
    let path = dir.path().join("s.redb");
    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    write
        .open_table(META)
        .unwrap()
        .insert("version", 3_u64.to_be_bytes().as_slice())
        .unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(
        Store::open(&path, &[5; 32]),
        Err(OpenError::Schema(3))
    ));
}

#[tokio::test]
async fn a_store_of_the_first_version_is_emptied_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let records: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("records");
        let mut records = write.open_table(records).unwrap();
        records.insert(&[1; 32], b"record".as_slice()).unwrap();
        let marks: TableDefinition<'_, &[u8; 32], (u64, u64, u64, &[u8; 32])> =
            TableDefinition::new("marks");
        let mut marks = write.open_table(marks).unwrap();
        marks.insert(&[1; 32], (9, 9, 9, &[2; 32])).unwrap();
        let tickets: TableDefinition<'_, &[u8; 32], (u64, &[u8])> = TableDefinition::new("tickets");
        let mut tickets = write.open_table(tickets).unwrap();
        tickets.insert(&[1; 32], (9, b"".as_slice())).unwrap();
        let mut meta = write.open_table(META).unwrap();
        let version = 1_u64.to_be_bytes();
        meta.insert("version", version.as_slice()).unwrap();
        meta.insert("salt", [7; 32].as_slice()).unwrap();
    }
    write.commit().unwrap();
    drop(database);
    let store = Store::open(&path, &[5; 32]).unwrap();
    assert_eq!(store.load(Hash([1; 32])).await.unwrap(), None);
    drop(store);
    let database = Database::open(&path).unwrap();
    let read = database.begin_read().unwrap();
    let tables: Vec<_> = read.list_tables().unwrap().collect();
    assert!(tables.iter().all(|table| !FORMER.contains(&table.name())));
}

#[test]
fn a_broken_store_says_so_and_is_mended() {
    let (dir, store) = store();
    drop(store);
    let shared = Shared {
        path: dir.path().join("s.redb"),
        salt: [5; 32],
        database: RwLock::new(None),
        suspect: AtomicBool::new(true),
    };
    assert!(matches!(shared.database(), Err(StoreError::Broken(_))));
    shared.mend();
    assert!(shared.database().is_ok());
    assert!(!shared.suspect.load(Ordering::Relaxed));
}

#[test]
fn a_store_in_use_is_refused() {
    let (dir, _store) = store();
    assert!(matches!(
        Store::open(&dir.path().join("s.redb"), &[5; 32]),
        Err(OpenError::Database(_))
    ));
}

#[tokio::test]
async fn a_session_is_found_by_each_of_its_indexes_and_leaves_them_all() {
    let (_dir, store) = store();
    let provider = "corp";
    let by_session = |session| store.key(Index::ProviderSession { provider, session });
    let subject = "b0b";
    let by_subject = store.key(Index::Subject { provider, subject });
    for (byte, session) in [(1, "a"), (2, "b")] {
        let mut new = new(&store, byte, "bob");
        new.others = vec![by_session(session), by_subject];
        store.create(new).await.unwrap();
    }
    assert_eq!(store.of(by_subject).await.unwrap(), [hash(1), hash(2)]);
    assert_eq!(store.remove_all(by_session("a")).await.unwrap(), [hash(1)]);
    assert_eq!(store.of(by_subject).await.unwrap(), [hash(2)]);
    assert_eq!(store.remove_all(by_subject).await.unwrap(), [hash(2)]);
    assert_eq!(store.remove_all(by_session("b")).await.unwrap(), []);
}

#[tokio::test]
async fn a_record_is_replaced_only_where_there_is_one() {
    let (_dir, store) = store();
    store.create(new(&store, 1, "bob")).await.unwrap();
    assert!(store.replace(hash(1), vec![9; 300]).await.unwrap());
    assert!(!store.replace(hash(2), vec![9; 300]).await.unwrap());
    assert_eq!(store.load(hash(1)).await.unwrap(), Some(row(9, 1_000)));
    assert_eq!(store.load(hash(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_ticket_is_taken_once_and_not_after_its_end() {
    let (_dir, store) = store();
    let (now, ends) = (Seconds(1), Seconds(10));
    assert!(
        store
            .keep(PURPOSE, [1; 32], vec![7], now, ends)
            .await
            .unwrap()
    );
    assert!(
        !store
            .keep(PURPOSE, [1; 32], vec![8], now, ends)
            .await
            .unwrap()
    );
    assert_eq!(
        store.peek(PURPOSE, [1; 32], now).await.unwrap(),
        Some(vec![7])
    );
    assert_eq!(store.peek(PURPOSE, [1; 32], ends).await.unwrap(), None);
    assert_eq!(
        store.take(PURPOSE, [1; 32], now).await.unwrap(),
        Some(vec![7])
    );
    assert_eq!(store.take(PURPOSE, [1; 32], now).await.unwrap(), None);
    assert!(
        store
            .keep(PURPOSE, [1; 32], vec![8], now, ends)
            .await
            .unwrap()
    );
    assert_eq!(store.take(PURPOSE, [1; 32], ends).await.unwrap(), None);
    store
        .keep(PURPOSE, [2; 32], vec![], now, ends)
        .await
        .unwrap();
    assert!(
        store
            .keep(PURPOSE, [2; 32], vec![], ends, Seconds(20))
            .await
            .unwrap()
    );
    store.prune(Seconds(30)).await.unwrap();
    assert_eq!(store.peek(PURPOSE, [2; 32], now).await.unwrap(), None);
}

#[test]
fn a_flood_of_one_purpose_pushes_out_its_own_tickets_alone() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("s.redb")).unwrap();
    prepare(&database, &[5; 32]).unwrap();
    let write = database.begin_write().unwrap();
    let mut tables = Tables::open(&write).unwrap();
    let kept = |purpose, number: u64, ends| Kept {
        purpose,
        ticket: seal::hash(&number.to_be_bytes()),
        value: number.to_be_bytes().to_vec(),
        now: Seconds(1),
        ends: Seconds(ends),
    };
    for flooded in Purpose::ALL {
        for purpose in Purpose::ALL {
            // They end before all that comes.
            for number in [1, 2, 3] {
                let kept = kept(purpose, number, 10 + number);
                tables.tickets(purpose).keep(&kept, 3).unwrap();
            }
        }
        for number in 100..120 {
            let kept = kept(flooded, number, 1000 + number);
            assert!(tables.tickets(flooded).keep(&kept, 3).unwrap());
        }
        for purpose in Purpose::ALL {
            let of_it = tables.tickets(purpose);
            assert_eq!(of_it.tickets.len().unwrap(), 3);
            assert_eq!(of_it.ends.len().unwrap(), 3);
            let expected = if purpose == flooded {
                [117, 118, 119]
            } else {
                [1, 2, 3]
            };
            for number in expected {
                let ticket = kept(purpose, number, 0).ticket;
                let value = of_it.take(&ticket, Seconds(1)).unwrap();
                assert_eq!(value, Some(number.to_be_bytes().to_vec()), "{purpose:?}");
            }
        }
    }
}

#[test]
fn last_uses_wait_for_company_but_not_for_too_many_nor_too_long() {
    let hash = |number: usize| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        Hash(hash)
    };
    let idle = Duration::from_secs(60);
    let mut touched = Touched::default();
    for number in 0..MAX_TOUCHED {
        assert!(!touched.is_full());
        touched.note(hash(number), Seconds(1), idle);
    }
    assert!(touched.is_full() && !touched.waited());
    touched.note(hash(MAX_TOUCHED), Seconds(2), idle);
    assert_eq!(touched.of.len(), MAX_TOUCHED, "one more is dropped");
    touched.note(hash(0), Seconds(6), idle);
    assert_eq!(touched.of[&hash(0).0], (Seconds(6), idle));
    assert!(touched.waited());
}
