//! Tests of live sessions.

use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use tokio::time::Instant;

use super::*;

const HOUR: u64 = 3600;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn open(dir: &tempfile::TempDir) -> Sessions {
    Sessions::open(&dir.path().join("s.redb"), Lifetimes::default(), || at(1)).unwrap()
}

fn sessions() -> (tempfile::TempDir, Sessions) {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(&dir);
    (dir, sessions)
}

fn bob() -> SignIn {
    let user = User {
        name: "bob".into(),
        provider: "local".into(),
        email: None,
        groups: vec!["staff".into()],
        claims: Arc::default(),
        signed_in_at: at(0),
    };
    SignIn {
        user: Arc::new(user),
        proof: [1; 16],
        client: "192.0.2.1".parse().unwrap(),
        host: "wiki.test".to_owned(),
        user_agent: "curl".to_owned(),
        tokens: None,
        parent: None,
    }
}

const BOB: Index<'static> = Index::User {
    provider: "local",
    name: "bob",
};

async fn signed_in(sessions: &Sessions, id: &Id, seconds: u64) -> bool {
    sessions.find(id, at(seconds)).await.unwrap().is_some()
}

#[tokio::test]
async fn a_session_is_found_by_its_id_alone() {
    let (_dir, sessions) = sessions();
    let (id, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    let found = sessions.find(&id, at(1)).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&live, &found));
    assert_eq!(&*found.user().name, "bob");
    assert!(!signed_in(&sessions, &Id::new([0; 32]), 1).await);
}

#[tokio::test]
async fn a_users_sessions_are_listed_and_end_by_what_is_listed() {
    let (dir, sessions) = sessions();
    let (first, _) = sessions.create(bob(), None, at(0)).await.unwrap();
    let (second, open_there) = sessions.create(bob(), None, at(5)).await.unwrap();
    let nobody = Index::User {
        provider: "other",
        name: "bob",
    };
    assert_eq!(sessions.list(nobody, at(6)).await.unwrap(), []);
    let listed = sessions.list(BOB, at(6)).await.unwrap();
    let of = |id: &Id| listed.iter().find(|one| one.hash == id.hash()).unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(of(&second).seen, Seconds::of(at(5)));
    let summary = of(&first).summary.as_ref().unwrap();
    assert_eq!((&*summary.host, &*summary.name), ("wiki.test", "bob"));
    assert_eq!(summary.created, Seconds::of(at(0)));

    assert!(sessions.end_by_hash(second.hash(), at(7)).await.unwrap());
    assert!(open_there.is_over(at(7)));
    assert!(!signed_in(&sessions, &second, 7).await);
    assert!(signed_in(&sessions, &first, 7).await);
    assert_eq!(sessions.list(BOB, at(7)).await.unwrap().len(), 1);
    assert!(!sessions.end_by_hash(second.hash(), at(7)).await.unwrap());
    drop(sessions);
    let sessions = open(&dir);
    assert_eq!(sessions.list(BOB, at(8)).await.unwrap().len(), 1);
    let idle = HOUR + 8;
    assert_eq!(sessions.list(BOB, at(idle)).await.unwrap(), []);
}

#[tokio::test]
async fn a_session_is_listed_as_long_as_it_lives_though_a_reload_shortens_others() {
    let (dir, sessions) = sessions();
    let (id, _) = sessions.create(bob(), None, at(0)).await.unwrap();
    sessions.set_lifetimes(Lifetimes {
        idle: Duration::from_secs(10),
        ..Lifetimes::default()
    });
    assert!(signed_in(&sessions, &id, 60).await);
    assert_eq!(sessions.list(BOB, at(120)).await.unwrap().len(), 1);
    drop(sessions);
    let sessions = open(&dir);
    sessions.set_lifetimes(Lifetimes {
        idle: Duration::from_secs(10),
        ..Lifetimes::default()
    });
    assert_eq!(sessions.list(BOB, at(120)).await.unwrap(), []);
    assert!(!signed_in(&sessions, &id, 120).await);
}

#[tokio::test]
async fn who_has_the_store_alone_reads_nothing_of_who_was_signed_in() {
    let (dir, sessions) = sessions();
    let _ = sessions.create(bob(), None, at(0)).await.unwrap();
    drop(sessions);
    let file = std::fs::read(dir.path().join("s.redb")).unwrap();
    for word in ["bob", "staff", "wiki.test", "curl", "192.0.2.1"] {
        let words = file.windows(word.len());
        assert_eq!(words.filter(|part| *part == word.as_bytes()).count(), 0);
    }
    std::fs::remove_file(dir.path().join("s.redb.key")).unwrap();
    let listed = open(&dir).list(BOB, at(1)).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].summary, None);
}

#[tokio::test]
async fn a_session_is_there_after_a_restart() {
    let (dir, sessions) = sessions();
    let (id, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    drop(sessions);
    let sessions = open(&dir);
    let found = sessions.find(&id, at(1)).await.unwrap().unwrap();
    assert_eq!(found.record(), live.record());
}

#[tokio::test]
async fn every_sign_in_has_an_id_of_its_own_and_ends_the_session_before_s2() {
    let (dir, sessions) = sessions();
    let (first, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    let (second, _) = sessions.create(bob(), Some(&live), at(1)).await.unwrap();
    assert_ne!(first.hash(), second.hash());
    assert!(live.is_over(at(1)));
    assert!(!signed_in(&sessions, &first, 1).await);
    assert!(signed_in(&sessions, &second, 1).await);
    drop(sessions);
    assert!(!signed_in(&open(&dir), &first, 1).await);
}

#[tokio::test]
async fn a_session_that_was_ended_stays_ended_s3() {
    let (dir, sessions) = sessions();
    let (id, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    sessions.end(&live, at(1)).await.unwrap();
    assert!(live.is_over(at(1)));
    assert!(!signed_in(&sessions, &id, 1).await);
    sessions.prune(at(2 * 60)).await.unwrap();
    assert!(!signed_in(&sessions, &id, 2 * 60).await);
    drop(sessions);
    assert!(!signed_in(&open(&dir), &id, 1).await);
}

#[tokio::test]
async fn a_session_read_before_its_end_and_kept_after_does_not_come_back() {
    let (_dir, sessions) = sessions();
    let (id, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    let row = sessions.store.load(id.hash()).await.unwrap().unwrap();
    sessions.end(&live, at(1)).await.unwrap();
    let record = Record::open(&id, summary::record_in(&row.sealed)).unwrap();
    let late = Live::new(
        &id,
        record,
        &[],
        Duration::from_secs(HOUR),
        row.seen,
        sessions.clock,
    );
    assert!(sessions.keep(late, at(1)).unwrap().is_none());
}

#[tokio::test]
async fn all_sessions_of_a_user_end_whether_in_memory_or_not() {
    let (dir, sessions) = sessions();
    let (in_store, _) = sessions.create(bob(), None, at(0)).await.unwrap();
    drop(sessions);
    let sessions = open(&dir);
    let (in_memory, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    let mut eve = bob();
    eve.user = Arc::new(User {
        name: "eve".into(),
        ..(*eve.user).clone()
    });
    let (other, _) = sessions.create(eve, None, at(0)).await.unwrap();
    assert_eq!(sessions.end_all_of(BOB, at(1)).await.unwrap(), 2);
    assert!(live.is_over(at(1)));
    assert!(!signed_in(&sessions, &in_store, 1).await);
    assert!(!signed_in(&sessions, &in_memory, 1).await);
    assert!(signed_in(&sessions, &other, 1).await);
}

#[tokio::test]
async fn an_idle_session_ends_and_use_does_not_outlive_expiry() {
    let (_dir, sessions) = sessions();
    let (idle, _) = sessions.create(bob(), None, at(0)).await.unwrap();
    assert!(signed_in(&sessions, &idle, HOUR - 1).await);
    assert!(signed_in(&sessions, &idle, 2 * HOUR - 2).await);
    assert!(!signed_in(&sessions, &idle, 3 * HOUR - 2).await);
    let (busy, _) = sessions.create(bob(), None, at(0)).await.unwrap();
    for half_hours in 1..24 {
        assert!(signed_in(&sessions, &busy, half_hours * HOUR / 2).await);
    }
    assert!(!signed_in(&sessions, &busy, 12 * HOUR).await);
}

#[tokio::test]
async fn a_restart_keeps_the_last_use_to_the_minute() {
    let (dir, sessions) = sessions();
    let (id, _) = sessions.create(bob(), None, at(0)).await.unwrap();
    assert!(signed_in(&sessions, &id, 59).await);
    assert!(signed_in(&sessions, &id, 61).await);
    assert!(signed_in(&sessions, &id, 70).await);
    drop(sessions);
    let sessions = open(&dir);
    let found = sessions.find(&id, at(71)).await.unwrap().unwrap();
    assert_eq!(found.written.load(Ordering::Relaxed), 1_000_061);
    drop((found, sessions));
    assert!(!signed_in(&open(&dir), &id, 61 + HOUR).await);
}

#[tokio::test]
async fn holders_are_told_at_once_when_a_session_is_ended() {
    let (_dir, sessions) = sessions();
    let (_, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    let (first, second) = (live.ended(), live.ended());
    let ((), (), ended) = tokio::join!(first, second, sessions.end(&live, at(1)));
    ended.unwrap();
    live.ended().await;
}

#[tokio::test]
async fn holders_are_told_when_a_session_expires() {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    let started = *STARTED.get_or_init(Instant::now);
    let dir = tempfile::tempdir().unwrap();
    let clock = || at(HOUR - 1) + STARTED.get().unwrap().elapsed();
    let sessions = Sessions::open(&dir.path().join("s.redb"), Lifetimes::default(), clock).unwrap();
    let (_, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    live.ended().await;
    assert!((900..5_000).contains(&started.elapsed().as_millis()));
}

#[tokio::test]
async fn a_tunnel_in_use_keeps_its_session_from_falling_idle() {
    let (_dir, sessions) = sessions();
    let (_, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    live.touch(at(HOUR - 1));
    assert!(!live.is_over(at(HOUR)));
    live.touch(at(1));
    assert!(!live.is_over(at(HOUR)), "time does not go back");
    live.touch(at(2 * HOUR));
    assert!(
        live.is_over(at(2 * HOUR)) && live.is_over(at(1)),
        "what fell idle stays over"
    );
}

#[tokio::test]
async fn memory_is_bounded_and_what_is_held_stays() {
    let (_dir, sessions) = sessions();
    let record = sessions
        .create(bob(), None, at(0))
        .await
        .unwrap()
        .1
        .record();
    let live = |number: usize, seen| {
        let mut hash = Hash([7; 32]);
        hash.0[8..16].copy_from_slice(&number.to_be_bytes());
        let live = Live::new(
            &Id::new([7; 32]),
            Record::clone(&record),
            &[],
            Duration::from_secs(HOUR),
            seen,
            sessions.clock,
        );
        Live { hash, ..live }
    };
    let now = Seconds::of(at(10));
    let held = sessions
        .keep(live(0, Seconds::of(at(0))), at(10))
        .unwrap()
        .unwrap();
    for number in 1..SHARD_SESSIONS + 100 {
        sessions.keep(live(number, now), at(10)).unwrap().unwrap();
    }
    let shard = sessions.memory.read(held.hash);
    assert!((SHARD_SESSIONS - MAKE_ROOM..=SHARD_SESSIONS).contains(&shard.len()));
    assert!(shard.contains_key(&held.hash));
}

#[tokio::test]
async fn a_record_altered_in_the_store_lets_nobody_in() {
    let (_dir, sessions) = sessions();
    let (id, live) = sessions.create(bob(), None, at(0)).await.unwrap();
    let other = Id::new([3; 32]);
    let new = store::New {
        hash: other.hash(),
        sealed: live.record().seal(&id, [0; 12]).unwrap(),
        expires: live.expires(),
        seen: live.record().created,
        idle: Duration::from_secs(HOUR),
        user: sessions.store.key(BOB),
        others: Vec::new(),
        replaces: None,
    };
    sessions.store.create(new).await.unwrap();
    let refused = sessions.find(&other, at(1)).await;
    assert!(matches!(
        refused,
        Err(SessionError::Record(BadRecord::Seal(_)))
    ));
}
