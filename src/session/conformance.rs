//! What every store has to do, held against each of them.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use super::any::Store;
use super::embedded;
use super::redis::tests::Server;
use super::store::{Index, IndexKey, MAX_SESSIONS_PER_USER, New, Row};
use crate::pure::seal;
use crate::pure::session::{Hash, Seconds};
use crate::pure::ticket::{Purpose, Ticket};

const HOUR: Duration = Duration::from_secs(3600);
const PURPOSE: Purpose = Purpose::Attempt;

type Behaviour = for<'c> fn(&'c Case<'c>) -> Pin<Box<dyn Future<Output = ()> + 'c>>;

const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("a session is there until it is removed", |case| {
        Box::pin(a_session_is_there_until_it_is_removed(case))
    }),
    ("all sessions of one user end, and nobody else's", |case| {
        Box::pin(all_sessions_of_one_user_end(case))
    }),
    ("a replaced session is gone", |case| {
        Box::pin(a_replaced_session_is_gone(case))
    }),
    ("the session used longest ago makes room", |case| {
        Box::pin(the_session_used_longest_ago_makes_room(case))
    }),
    ("the last use is kept and never goes back", |case| {
        Box::pin(the_last_use_never_goes_back(case))
    }),
    ("what is idle or expired is gone, and leaves room", |case| {
        Box::pin(what_is_over_is_gone(case))
    }),
    (
        "a session is found by each index and leaves them all",
        |case| Box::pin(a_session_leaves_every_index(case)),
    ),
    ("a record is replaced only where there is one", |case| {
        Box::pin(a_record_is_replaced_where_there_is_one(case))
    }),
    ("every session is on a page of all", |case| {
        Box::pin(every_session_is_on_a_page(case))
    }),
    ("a ticket is taken once and not after its end", |case| {
        Box::pin(a_ticket_is_taken_once(case))
    }),
    ("a ticket is one of each purpose by itself", |case| {
        Box::pin(a_ticket_is_one_of_each_purpose(case))
    }),
    ("of fifty who take a ticket one gets it", |case| {
        Box::pin(of_fifty_takers_one_gets_it(case))
    }),
    ("of fifty who keep a ticket one is the first", |case| {
        Box::pin(of_fifty_keepers_one_is_first(case))
    }),
];

/// A store, and a corner of it that no other behaviour touches.
struct Case<'s> {
    store: &'s Store,
    name: &'static str,
    now: Seconds,
}

pub(super) async fn conforms(store: &Store) {
    for (name, behaviour) in BEHAVIOURS {
        eprintln!("{name}");
        let now = Seconds::of(SystemTime::now());
        behaviour(&Case { store, name, now }).await;
    }
}

#[tokio::test]
async fn the_embedded_store_does_what_every_store_has_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = embedded::Store::open(&dir.path().join("s.redb"), &[5; 32]).unwrap();
    conforms(&Store::Embedded(store)).await;
}

#[tokio::test]
#[ignore = "needs redis-server; `tests/run --only peers` runs it"]
async fn redis_does_what_every_store_has_to() {
    let server = Server::start();
    conforms(&Store::Redis(server.store([1; 8]))).await;
}

impl Case<'_> {
    fn hash(&self, number: u8) -> Hash {
        Hash(seal::hash(format!("{} {number}", self.name).as_bytes()))
    }

    fn user(&self, user: &str) -> IndexKey {
        let name = format!("{} {user}", self.name);
        let provider = "local";
        let name = &name;
        self.store.key(Index::User { provider, name })
    }

    fn session(&self, number: u8, user: &str) -> New {
        New {
            hash: self.hash(number),
            sealed: vec![number; 300],
            expires: self.now.plus(HOUR),
            seen: self.now,
            idle: HOUR,
            user: self.user(user),
            others: Vec::new(),
            replaces: None,
        }
    }

    async fn create(&self, new: New) -> Vec<Hash> {
        self.store.create(new).await.unwrap()
    }

    async fn load(&self, number: u8) -> Option<Row> {
        self.store.load(self.hash(number)).await.unwrap()
    }

    async fn remove_all(&self, key: IndexKey) -> Vec<Hash> {
        sorted(self.store.remove_all(key).await.unwrap())
    }

    fn hashes<const N: usize>(&self, numbers: [u8; N]) -> Vec<Hash> {
        sorted(numbers.map(|number| self.hash(number)).to_vec())
    }

    fn row(&self, number: u8) -> Option<Row> {
        let sealed = vec![number; 300];
        let seen = self.now;
        Some(Row { sealed, seen })
    }

    /// Waits until a session is as expected, for what a store may do some seconds later.
    async fn becomes(&self, number: u8, expected: Option<Row>) {
        for _ in 0..100 {
            self.store
                .prune(Seconds::of(SystemTime::now()))
                .await
                .unwrap();
            if self.load(number).await == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(self.load(number).await, expected);
    }
}

fn sorted(mut hashes: Vec<Hash>) -> Vec<Hash> {
    hashes.sort_by_key(|hash| hash.0);
    hashes
}

async fn a_session_is_there_until_it_is_removed(case: &Case<'_>) {
    assert_eq!(case.load(1).await, None);
    assert_eq!(case.create(case.session(1, "bob")).await, []);
    assert_eq!(case.load(1).await, case.row(1));
    let of_bob = case.store.of(case.user("bob")).await.unwrap();
    assert_eq!(of_bob, case.hashes([1]));
    assert!(case.store.remove(case.hash(1)).await.unwrap());
    assert!(!case.store.remove(case.hash(1)).await.unwrap());
    assert_eq!(case.load(1).await, None);
    assert_eq!(case.store.of(case.user("bob")).await.unwrap(), []);
    assert_eq!(case.remove_all(case.user("bob")).await, []);
}

async fn all_sessions_of_one_user_end(case: &Case<'_>) {
    for (number, user) in [(1, "bob"), (2, "bob"), (3, "eve")] {
        case.create(case.session(number, user)).await;
    }
    assert_eq!(case.remove_all(case.user("bob")).await, case.hashes([1, 2]));
    assert_eq!((case.load(1).await, case.load(2).await), (None, None));
    assert_eq!(case.load(3).await, case.row(3));
    assert_eq!(case.remove_all(case.user("bob")).await, []);
}

async fn every_session_is_on_a_page(case: &Case<'_>) {
    // More than one page; a few users, for each has so many and no more.
    let users = ["bob", "eve", "kim", "lou", "pat"];
    for number in 0..=250 {
        let user = users[usize::from(number) % users.len()];
        case.create(case.session(number, user)).await;
    }
    let (mut found, mut pages, mut from) = (Vec::new(), 0, None);
    loop {
        let (rows, next) = case.store.page(from).await.unwrap();
        found.extend(rows.into_iter().filter(|(_, row)| row.sealed.len() == 300));
        pages += 1;
        from = next;
        if from.is_none() {
            break;
        }
    }
    assert!(pages > 1);
    for number in 0..=250 {
        let row = case.row(number).unwrap();
        assert!(found.contains(&(case.hash(number), row)), "{number}");
    }
    for user in users {
        case.remove_all(case.user(user)).await;
    }
}

async fn a_replaced_session_is_gone(case: &Case<'_>) {
    case.create(case.session(1, "bob")).await;
    let mut next = case.session(2, "bob");
    next.replaces = Some(case.hash(1));
    assert_eq!(case.create(next).await, [case.hash(1)]);
    assert_eq!(case.load(1).await, None);
    let mut again = case.session(3, "bob");
    again.replaces = Some(case.hash(1));
    assert_eq!(case.create(again).await, []);
    assert_eq!(case.remove_all(case.user("bob")).await, case.hashes([2, 3]));
}

async fn the_session_used_longest_ago_makes_room(case: &Case<'_>) {
    for number in 0..=64_u8 {
        let mut new = case.session(number, "bob");
        if number == 3 {
            new.seen = Seconds(case.now.0 - 100);
        }
        let expected = if number == 64 {
            vec![case.hash(3)]
        } else {
            vec![]
        };
        assert_eq!(case.create(new).await, expected, "{number}");
    }
    let ended = case.remove_all(case.user("bob")).await;
    assert_eq!(ended.len(), MAX_SESSIONS_PER_USER);
    assert!(!ended.contains(&case.hash(3)));
}

async fn the_last_use_never_goes_back(case: &Case<'_>) {
    case.create(case.session(1, "bob")).await;
    let at = |seconds: u64| Seconds(case.now.0 + seconds);
    let seen = |seen| case.row(1).map(|row| Row { seen, ..row });
    assert!(case.store.touch(case.hash(1), at(20), HOUR));
    case.becomes(1, seen(at(20))).await;
    case.store.touch(case.hash(1), at(10), HOUR);
    case.store.touch(case.hash(2), at(10), HOUR);
    // What is asked after the uses is done after them.
    case.store.remove(case.hash(2)).await.unwrap();
    assert_eq!(case.load(1).await, seen(at(20)));
    case.store.touch(case.hash(1), at(30), HOUR);
    case.becomes(1, seen(at(30))).await;
    assert_eq!(case.load(2).await, None, "no session comes from a use");
}

async fn what_is_over_is_gone(case: &Case<'_>) {
    let second = Duration::from_secs(2);
    let idle = |number| New {
        idle: second,
        ..case.session(number, "bob")
    };
    case.create(idle(1)).await;
    case.create(idle(2)).await;
    case.store.touch(case.hash(2), case.now.plus(second), HOUR);
    let expires = case.now.plus(second);
    case.create(New {
        expires,
        ..case.session(3, "bob")
    })
    .await;
    case.store
        .touch(case.hash(3), case.now.plus(second / 2), HOUR);
    case.create(case.session(4, "bob")).await;
    case.becomes(1, None).await;
    case.becomes(3, None).await;
    assert!(case.load(2).await.is_some(), "it was used");
    let there = case.store.of(case.user("bob")).await.unwrap();
    assert_eq!(sorted(there), case.hashes([2, 4]));
    assert_eq!(case.remove_all(case.user("bob")).await, case.hashes([2, 4]));
}

async fn a_session_leaves_every_index(case: &Case<'_>) {
    let provider = case.name;
    let by_session = |session| case.store.key(Index::ProviderSession { provider, session });
    let subject = "b0b";
    let by_subject = case.store.key(Index::Subject { provider, subject });
    for (number, session) in [(1, "a"), (2, "b")] {
        let mut new = case.session(number, "bob");
        new.others = vec![by_session(session), by_subject];
        case.create(new).await;
    }
    let there = case.store.of(by_subject).await.unwrap();
    assert_eq!(sorted(there), case.hashes([1, 2]));
    assert_eq!(case.remove_all(by_session("a")).await, case.hashes([1]));
    assert_eq!(case.store.of(by_subject).await.unwrap(), case.hashes([2]));
    assert_eq!(case.remove_all(by_subject).await, case.hashes([2]));
    assert_eq!(case.remove_all(by_session("b")).await, []);
    assert_eq!(case.remove_all(case.user("bob")).await, []);
}

async fn a_record_is_replaced_where_there_is_one(case: &Case<'_>) {
    case.create(case.session(1, "bob")).await;
    let replace = async |number| {
        let sealed = vec![9; 300];
        case.store.replace(case.hash(number), sealed).await.unwrap()
    };
    assert!(replace(1).await);
    assert!(!replace(2).await);
    let sealed = vec![9; 300];
    let expected = case.row(1).map(|row| Row { sealed, ..row });
    assert_eq!(case.load(1).await, expected);
    assert_eq!(case.load(2).await, None);
}

async fn a_ticket_is_taken_once(case: &Case<'_>) {
    let (store, now) = (case.store, case.now);
    let ticket = |number| case.hash(number).0;
    let keep = async |number, value: u8, now: Seconds, life| {
        let ends = now.plus(Duration::from_secs(life));
        store
            .keep(PURPOSE, ticket(number), vec![value], now, ends)
            .await
            .unwrap()
    };
    let take = async |number, now| store.take(PURPOSE, ticket(number), now).await.unwrap();
    assert!(keep(1, 7, now, 60).await);
    assert!(!keep(1, 8, now, 60).await, "it stays as it is");
    assert_eq!(
        store.peek(PURPOSE, ticket(1), now).await.unwrap(),
        Some(vec![7])
    );
    assert_eq!(take(1, now).await, Some(vec![7]));
    assert_eq!(take(1, now).await, None);
    assert!(keep(1, 8, now, 60).await);

    assert!(keep(2, 7, now, 1).await && keep(3, 7, now, 1).await);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let later = now.plus(Duration::from_secs(2));
    assert_eq!(store.peek(PURPOSE, ticket(2), later).await.unwrap(), None);
    assert_eq!(take(2, later).await, None);
    assert!(keep(3, 8, later, 60).await, "what has ended is not there");
    assert_eq!(take(3, later).await, Some(vec![8]));

    let ends = now.plus(HOUR);
    assert!(
        store
            .keep(PURPOSE, ticket(4), Vec::new(), now, ends)
            .await
            .unwrap()
    );
    assert_eq!(take(4, now).await, Some(Vec::new()));
}

async fn a_ticket_is_one_of_each_purpose(case: &Case<'_>) {
    let (store, now) = (case.store, case.now);
    let (ticket, ends) = (Ticket::new(case.hash(1).0), now.plus(HOUR));
    for (purpose, value) in Purpose::ALL.into_iter().zip(0..) {
        let kept = store.keep(purpose, ticket.hash(purpose), vec![value], now, ends);
        assert!(kept.await.unwrap(), "{purpose:?}");
    }
    for (purpose, value) in Purpose::ALL.into_iter().zip(0..) {
        let hash = ticket.hash(purpose);
        let value = Some(vec![value]);
        assert_eq!(store.peek(purpose, hash, now).await.unwrap(), value);
        assert_eq!(store.take(purpose, hash, now).await.unwrap(), value);
        assert_eq!(store.peek(purpose, hash, now).await.unwrap(), None);
    }
}

async fn of_fifty_takers_one_gets_it(case: &Case<'_>) {
    let (ticket, now) = (case.hash(1).0, case.now);
    let ends = now.plus(HOUR);
    case.store
        .keep(PURPOSE, ticket, vec![7], now, ends)
        .await
        .unwrap();
    let takers = (0..50).map(|_| case.store.take(PURPOSE, ticket, now));
    let got = all(takers).await;
    let got: Vec<_> = got.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(got, [vec![7]]);
}

async fn of_fifty_keepers_one_is_first(case: &Case<'_>) {
    let (ticket, now) = (case.hash(1).0, case.now);
    let ends = now.plus(HOUR);
    let keepers = (0..50).map(|_| case.store.keep(PURPOSE, ticket, Vec::new(), now, ends));
    let first = all(keepers).await;
    let first = first
        .into_iter()
        .filter_map(Result::ok)
        .filter(|first| *first);
    assert_eq!(first.count(), 1);
}

/// What all of them give, at the same time.
pub(super) async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if waiting.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done
}
