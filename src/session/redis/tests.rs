//! Tests with a server of their own, as several gates use it. `tests/run --only peers` runs them.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use governor::clock::{Clock, FakeRelativeClock};
use governor::{Quota, RateLimiter};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use zeroize::Zeroizing;

use super::super::{Index, Live, SessionError, Sessions, SignIn};
use super::*;
use crate::pure::identity::User;
use crate::pure::redis_url::RedisUrl;
use crate::pure::session::{Id, Lifetimes, Tokens};

/// A server on a socket of its own, which ends with this.
pub(in crate::session) struct Server {
    directory: tempfile::TempDir,
    more: Vec<String>,
    process: Mutex<Child>,
}

impl Server {
    pub(in crate::session) fn start() -> Self {
        Self::with(&[])
    }

    fn with(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let more: Vec<_> = more.iter().map(|&text| text.to_owned()).collect();
        let process = Mutex::new(spawn(&directory, &more));
        Self {
            directory,
            more,
            process,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis")
    }

    fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn start_again(&self) {
        *self.process.lock().unwrap() = spawn(&self.directory, &self.more);
    }

    fn signal(&self, name: &str) {
        let id = self.process.lock().unwrap().id().to_string();
        let done = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(done.success());
    }

    fn settings(&self) -> Settings {
        Settings {
            servers: vec![RedisUrl::Unix(self.socket())],
            sentinel_master: None,
            user: None,
            password: None,
            ca: None,
            prefix: "portcullis".to_owned(),
        }
    }

    pub(in crate::session) fn store(&self, gate: [u8; 8]) -> Store {
        let hear: Hear = Box::new(|_| {});
        let users = Mac::new(&[7; 32]);
        Store::open(self.settings(), users, gate, hear, SystemTime::now).unwrap()
    }

    /// The sessions of another gate.
    fn gate(&self) -> Sessions {
        self.gate_with(Lifetimes::default(), Duration::from_secs(60))
    }

    fn gate_with(&self, lifetimes: Lifetimes, offline: Duration) -> Sessions {
        let shared = super::super::Redis {
            servers: self.settings(),
            index: Mac::new(&[7; 32]),
            summaries: crate::pure::seal::Key::derive(&[8; 32], b"test").unwrap(),
            offline,
            rates: true,
        };
        Sessions::share(shared, lifetimes, SystemTime::now).unwrap()
    }

    fn ask(&self, command: &[&str]) -> Vec<u8> {
        let mut asked = Command::new("redis-cli");
        asked.arg("-s").arg(self.socket()).args(command);
        let done = asked.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        done.stdout
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(directory: &tempfile::TempDir, more: &[String]) -> Child {
    let socket = directory.path().join("redis");
    let program = ["redis-server", "valkey-server"].into_iter().find(|name| {
        let mut asked = Command::new(name);
        asked.arg("--version").stdout(Stdio::null());
        asked.status().is_ok()
    });
    let mut process = Command::new(program.expect("redis-server is installed"))
        .args(["--port", "0", "--unixsocket"])
        .arg(&socket)
        .arg("--dir")
        .arg(directory.path())
        .args(["--save", "", "--appendonly", "no"])
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..1000 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return process;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    process.kill().unwrap();
    panic!("redis-server does not listen: {}", process.wait().unwrap());
}

fn roberta() -> SignIn {
    let user = User {
        name: "roberta".into(),
        provider: "local".into(),
        email: None,
        groups: vec!["staff".into()],
        claims: Arc::default(),
        signed_in_at: SystemTime::now(),
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

fn roberta_of_a_provider() -> SignIn {
    let tokens = Tokens {
        subject: "number-1234".to_owned(),
        session: Some("s1".to_owned()),
        id: Some(Zeroizing::new("an id token".to_owned())),
        refresh: Some(Zeroizing::new("first".to_owned())),
        checked: Seconds::of(SystemTime::now()),
    };
    SignIn {
        tokens: Some(tokens),
        ..roberta()
    }
}

async fn found(gate: &Sessions, id: &Id) -> Option<Arc<Live>> {
    gate.find(id, SystemTime::now()).await.unwrap()
}

async fn refused(gate: &Sessions, id: &Id) -> bool {
    let found = gate.find(id, SystemTime::now()).await;
    matches!(found, Err(SessionError::Store(_)))
}

/// Waits for what has to come true within this long.
#[track_caller]
fn within(time: Duration) -> impl AsyncFn(&dyn Fn() -> bool) {
    let place = std::panic::Location::caller();
    async move |condition| {
        let begun = std::time::Instant::now();
        while !condition() {
            assert!(begun.elapsed() < time, "not within {time:?}: {place}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_session_that_ends_at_one_gate_is_over_at_another_within_a_second() {
    let server = Server::start();
    let (one, other) = (server.gate(), server.gate());
    let now = SystemTime::now;
    for end in 0..3 {
        let (id, here) = one.create(roberta(), None, now()).await.unwrap();
        let there = found(&other, &id).await.unwrap();
        let open = tokio::spawn(async move {
            there.ended().await;
        });
        match end {
            0 => one.end(&here, now()).await.unwrap(),
            1 => drop(one.create(roberta(), Some(&here), now()).await.unwrap()),
            _ => {
                let (provider, name) = ("local", "roberta");
                let index = Index::User { provider, name };
                assert_eq!(one.end_all_of(index, now()).await.unwrap(), 2);
            }
        }
        timeout(SECOND, open).await.unwrap().unwrap();
        assert!(found(&other, &id).await.is_none());
        assert!(found(&one, &id).await.is_none());
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn what_one_gate_lists_ends_at_another() {
    let server = Server::start();
    let (one, other) = (server.gate(), server.gate());
    let now = SystemTime::now;
    let (id, here) = one.create(roberta(), None, now()).await.unwrap();
    let (provider, name) = ("local", "roberta");
    let index = Index::User { provider, name };
    let listed = other.list(index, now()).await.unwrap();
    let hosts = listed
        .iter()
        .map(|one| &*one.summary.as_ref().unwrap().host);
    assert_eq!(hosts.collect::<Vec<_>>(), ["wiki.test"]);
    assert!(other.end_by_hash(listed[0].hash, now()).await.unwrap());
    timeout(SECOND, here.ended()).await.unwrap();
    assert!(found(&one, &id).await.is_none());
    assert_eq!(one.list(index, now()).await.unwrap(), []);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn while_others_are_heard_the_store_is_not_asked_about_what_is_in_memory() {
    let server = Server::start();
    let gate = server.gate();
    let (id, live) = gate
        .create(roberta(), None, SystemTime::now())
        .await
        .unwrap();
    // Behind the gates' backs, so that nobody is told.
    server.ask(&["FLUSHALL"]);
    for _ in 0..100 {
        assert!(found(&gate, &id).await.is_some());
    }
    assert!(!live.is_over_now());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn an_end_that_could_not_be_heard_is_noticed_all_the_same() {
    let server = Server::start();
    let gate = server.gate();
    let (used, _) = gate
        .create(roberta(), None, SystemTime::now())
        .await
        .unwrap();
    let (_, open) = gate
        .create(roberta(), None, SystemTime::now())
        .await
        .unwrap();
    server.kill();
    server.start_again();
    tokio::time::sleep(SECOND).await;
    // The server has forgotten everything, and nobody said so.
    assert!(found(&gate, &used).await.is_none());
    gate.ask_about_open(SystemTime::now()).await;
    assert!(open.is_over_now());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn while_the_store_is_away_who_is_in_memory_stays_and_nobody_else_gets_in() {
    let server = Server::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let gate = server.gate_with(Lifetimes::default(), 2 * SECOND);
    let now = SystemTime::now;
    let (known, live) = gate.create(roberta(), None, now()).await.unwrap();
    let (unknown, _) = server.gate().create(roberta(), None, now()).await.unwrap();
    server.kill();
    let away = std::time::Instant::now();
    assert!(found(&gate, &known).await.is_some());
    assert!(refused(&gate, &unknown).await);
    let signed_in = gate.create(roberta(), None, now()).await;
    assert!(matches!(signed_in, Err(SessionError::Store(_))));
    while !refused(&gate, &known).await {
        assert!(away.elapsed() < 4 * SECOND);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(away.elapsed() > SECOND);
    assert!(live.is_over_now(), "what is open closes");
    server.start_again();
    let back = std::time::Instant::now();
    while gate.create(roberta(), None, now()).await.is_err() {
        assert!(back.elapsed() < 2 * SECOND);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(found(&gate, &known).await.is_some());
    assert!(found(&gate, &unknown).await.is_some());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_store_that_hangs_is_away() {
    let server = Server::start();
    let gate = server.gate();
    let (known, _) = gate
        .create(roberta(), None, SystemTime::now())
        .await
        .unwrap();
    server.signal("-STOP");
    tokio::time::sleep(SECOND).await;
    for _ in 0..3 {
        assert!(found(&gate, &known).await.is_some());
        assert!(refused(&gate, &Id::new([3; 32])).await);
    }
    server.signal("-CONT");
    let back = std::time::Instant::now();
    while refused(&gate, &Id::new([3; 32])).await {
        assert!(back.elapsed() < 5 * SECOND);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_session_ended_while_the_store_was_away_or_lost_by_it_stays_ended() {
    let server = Server::start();
    let (one, other) = (server.gate(), server.gate());
    let now = SystemTime::now;
    let (lost, here) = one.create(roberta(), None, now()).await.unwrap();
    let (away, also_here) = one.create(roberta(), None, now()).await.unwrap();
    assert!(found(&other, &lost).await.is_some());
    server.ask(&["SAVE"]);
    one.end(&here, now()).await.unwrap();
    server.kill();
    assert!(one.end(&also_here, now()).await.is_err());
    server.start_again();
    within(5 * SECOND)(&|| one.epoch() != 0 && other.epoch() != 0).await;
    // Both are in the file that the server has read.
    let kept = String::from_utf8(server.ask(&["KEYS", "portcullis:s:*"])).unwrap();
    assert_eq!(kept.lines().count(), 2);
    assert!(found(&one, &lost).await.is_none() && found(&other, &lost).await.is_none());
    assert!(found(&one, &away).await.is_none());
    one.ask_about_open(now()).await;
    let third = server.gate();
    assert!(found(&third, &lost).await.is_none() && found(&third, &away).await.is_none());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_session_in_use_at_one_gate_does_not_fall_idle_at_another() {
    let server = Server::start();
    let lifetimes = Lifetimes {
        absolute: 100 * SECOND,
        idle: 4 * SECOND,
    };
    let gates = [0; 2].map(|_| server.gate_with(lifetimes, SECOND));
    let [one, other] = &gates;
    let (id, _) = one
        .create(roberta(), None, SystemTime::now())
        .await
        .unwrap();
    let open = found(other, &id).await.unwrap();
    for _ in 0..6 {
        tokio::time::sleep(SECOND).await;
        assert!(found(one, &id).await.is_some());
        other.ask_about_open(SystemTime::now()).await;
    }
    assert!(!open.is_over_now());
    assert!(found(other, &id).await.is_some());
    tokio::time::sleep(5 * SECOND).await;
    assert!(open.is_over_now());
    assert!(found(other, &id).await.is_none());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn of_all_gates_one_asks_the_provider_and_the_others_take_up_its_answer() {
    let server = Server::start();
    let gates = [0; 3].map(|_| server.gate());
    let (id, _) = gates[0]
        .create(roberta_of_a_provider(), None, SystemTime::now())
        .await
        .unwrap();
    let mut asked = 0;
    let mut lives = Vec::new();
    for gate in &gates {
        lives.push(found(gate, &id).await.unwrap());
    }
    let renew = async |gate: &Sessions, live: &Live| {
        let Some(_turn) = gate.turn_of_all(live).await.unwrap() else {
            return 0;
        };
        let record = live.record();
        let mut tokens = record.tokens.clone().unwrap();
        assert_eq!(tokens.refresh.unwrap().as_str(), "first");
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokens.refresh = Some(Zeroizing::new("second".to_owned()));
        tokens.checked = Seconds(tokens.checked.0 + 300);
        gate.renew(live, live.user(), tokens).await.unwrap();
        1
    };
    let (a, b, c) = tokio::join!(
        renew(&gates[0], &lives[0]),
        renew(&gates[1], &lives[1]),
        renew(&gates[2], &lives[2])
    );
    asked += a + b + c;
    assert_eq!(asked, 1);
    for (gate, live) in gates.iter().zip(&lives) {
        assert!(found(gate, &id).await.is_some());
        let tokens = live.record().tokens.clone().unwrap();
        assert_eq!(tokens.refresh.unwrap().as_str(), "second");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn what_a_provider_said_while_the_store_was_away_is_written_once_it_is_back() {
    let server = Server::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (one, other) = (server.gate(), server.gate());
    let now = SystemTime::now;
    let (id, live) = one
        .create(roberta_of_a_provider(), None, now())
        .await
        .unwrap();
    let there = found(&other, &id).await.unwrap();
    let mut tokens = live.record().tokens.clone().unwrap();
    tokens.refresh = Some(Zeroizing::new("second".to_owned()));
    tokens.checked = Seconds(tokens.checked.0 + 300);
    server.kill();
    assert!(one.renew(&live, live.user(), tokens).await.is_err());
    server.start_again();
    within(5 * SECOND)(&|| one.epoch() != 0 && other.epoch() != 0).await;
    tokio::time::sleep(SECOND).await;
    assert!(found(&one, &id).await.is_some());
    tokio::time::sleep(SECOND).await;
    assert!(found(&other, &id).await.is_some());
    let tokens = there.record().tokens.clone().unwrap();
    assert_eq!(tokens.refresh.unwrap().as_str(), "second");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_record_altered_in_redis_lets_nobody_in_where_it_was_in_memory_or_not() {
    let server = Server::start();
    let gates = [0; 2].map(|_| server.gate());
    let (id, _) = gates[0]
        .create(roberta_of_a_provider(), None, SystemTime::now())
        .await
        .unwrap();
    tokio::time::sleep(SECOND).await;
    let stranger = server.store([9; 8]);
    assert!(stranger.replace(id.hash(), vec![9; 300]).await.unwrap());
    tokio::time::sleep(SECOND / 2).await;
    for gate in gates {
        let found = gate.find(&id, SystemTime::now()).await;
        assert!(matches!(found, Err(SessionError::Record(_))), "{found:?}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn the_turn_of_a_gate_that_died_ends_by_itself() {
    let server = Server::start();
    let store = server.store([1; 8]);
    let hash = Hash([1; 32]);
    assert!(store.lock(hash, [1; 16]).await.unwrap());
    assert!(!store.lock(hash, [2; 16]).await.unwrap());
    store.unlock(hash, [2; 16]);
    assert!(!store.lock(hash, [2; 16]).await.unwrap(), "nobody else's");
    let key = store.names.lock(hash);
    let left = String::from_utf8(server.ask(&["PTTL", &key])).unwrap();
    let left: u64 = left.trim().parse().unwrap();
    assert!((85_000..=90_000).contains(&left), "{left}");
    server.ask(&["DEL", &key]);
    assert!(store.lock(hash, [2; 16]).await.unwrap());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_stolen_store_names_nobody_and_everything_in_it_ends() {
    let server = Server::start();
    let gate = server.gate();
    let now = SystemTime::now;
    let (id, _) = gate
        .create(roberta_of_a_provider(), None, now())
        .await
        .unwrap();
    gate.see(&[b"roberta"], now(), SECOND * 60).await.unwrap();
    server.ask(&["SAVE"]);
    let file = std::fs::read(server.directory.path().join("dump.rdb")).unwrap();
    let cookie = id.to_cookie();
    let secrets = [
        "roberta",
        "number-1234",
        "staff",
        "first",
        "curl",
        cookie.as_str(),
    ];
    for secret in secrets {
        let found = file
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "{secret}");
    }
    let keys = String::from_utf8(server.ask(&["KEYS", "*"])).unwrap();
    assert_eq!(keys.lines().count(), 5);
    for key in keys.lines() {
        let life = String::from_utf8(server.ask(&["TTL", key])).unwrap();
        assert!(life.trim().parse::<i64>().unwrap() > 0, "{key}: {life}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn failures_are_counted_for_all_gates_as_one_gate_counts_them() {
    let server = Server::start();
    let gates = [0; 2].map(|_| server.gate());
    let leniency = Leniency {
        free: 3,
        leak: 1000 * SECOND,
        longest: 3 * SECOND,
    };
    let count = async |gate: usize, name| gates[gate].count([name; 16], leniency).await;
    for failure in 0..3 {
        assert_eq!(count(failure % 2, 1).await, None, "it is free");
    }
    // Each wait is twice as long, up to the longest; nothing counts that has to wait.
    for wait in [1, 2, 3, 3] {
        let (here, there) = (count(0, 1).await.unwrap(), count(1, 1).await.unwrap());
        assert!(
            here.max(there) <= SECOND * wait,
            "{wait} {here:?} {there:?}"
        );
        assert!(
            here.min(there) > SECOND * wait - SECOND / 2,
            "{wait} {here:?} {there:?}"
        );
        tokio::time::sleep(there + SECOND / 100).await;
        assert_eq!(count(1, 1).await, None);
    }
    assert_eq!(count(0, 2).await, None, "nobody else is slowed");
    gates[0].uncount([1; 16], false);
    tokio::time::sleep(SECOND / 5).await;
    assert_eq!(count(1, 1).await, None, "the wait is taken back");
    assert!(count(0, 1).await.is_some());
    gates[0].uncount([1; 16], true);
    tokio::time::sleep(SECOND / 5).await;
    for _ in 0..3 {
        assert_eq!(count(1, 1).await, None, "all is forgotten");
    }
    assert!(count(0, 1).await.is_some());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn failures_leak_away_at_all_gates_and_of_fifty_at_once_the_free_ones_pass() {
    let server = Server::start();
    let gate = server.gate();
    let leniency = Leniency {
        free: 5,
        leak: SECOND,
        longest: 100 * SECOND,
    };
    let mut free = 0;
    let all = (0..50).map(|_| gate.count([1; 16], leniency));
    for passed in super::super::conformance::all(all).await {
        free += u32::from(passed.is_none());
    }
    assert_eq!(free, 5);
    tokio::time::sleep(3 * SECOND).await;
    for _ in 0..2 {
        assert_eq!(gate.count([1; 16], leniency).await, None);
    }
    server.kill();
    assert_eq!(
        gate.count([1; 16], leniency).await,
        None,
        "each gate counts for itself"
    );
}

fn pace(interval: Duration, burst: u32) -> Pace {
    let burst = NonZeroU32::new(burst).unwrap();
    Pace { interval, burst }
}

#[test]
#[ignore = "needs redis-server"]
fn redis_counts_requests_as_governor_does() {
    let server = Server::start();
    let store = server.store([1; 8]);
    let script = Script::new(&format!("local now = tonumber(ARGV[3]) {RATE}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let case = Cell::new(0);
    // Slow rates, so that Redis, whose clock goes on, forgets nothing within a case.
    let cases = (
        60_000_000..600_000_000_u64,
        1..40_u32,
        prop::collection::vec((0..3_usize, 0..1_500_000_000_u64), 1..120),
    );
    let run = TestRunner::new(Config::with_cases(100)).run(&cases, |(interval_us, burst, asks)| {
        case.set(case.get() + 1);
        let interval = Duration::from_micros(interval_us);
        let pace = pace(interval, burst);
        let quota = Quota::with_period(interval).unwrap();
        let clock = FakeRelativeClock::default();
        let limits: [_; 3] = std::array::from_fn(|_| {
            RateLimiter::direct_with_clock(quota.allow_burst(pace.burst), clock.clone())
        });
        let mut now_us = 1_800_000_000_000_000_u64;
        for (who, after_us) in asks {
            // Often none at all: several at one moment.
            let after_us = after_us.saturating_sub(500_000_000);
            now_us += after_us;
            clock.advance(Duration::from_micros(after_us));
            let mut connection = store.link.connection().unwrap();
            let counting = async {
                let mut count = script.key(format!("{}:{who}", case.get()));
                let full_us = u64::try_from(pace.rest().as_micros()).unwrap();
                count.arg(interval_us).arg(full_us).arg(now_us);
                count.invoke_async::<u64>(&mut connection).await.unwrap()
            };
            let wait = runtime.block_on(counting);
            let expected = limits[who].check().map_or_else(
                |until| until.wait_time_from(clock.now()),
                |()| Duration::ZERO,
            );
            prop_assert_eq!(Duration::from_micros(wait), expected);
        }
        Ok(())
    });
    run.unwrap();
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn requests_are_counted_for_all_gates_and_what_is_kept_of_them_names_nobody_and_ends() {
    let server = Server::start();
    let gates = [0; 2].map(|_| server.gate());
    let minute = pace(60 * SECOND, 5);
    let ask = async |gate: usize, name: &[u8], pace| {
        gates[gate].count_request(&[b"rate", name], pace).await
    };
    for request in 0..5 {
        assert_eq!(ask(request % 2, b"192.0.2.1", minute).await, None);
    }
    for gate in [0, 1, 1] {
        let wait = ask(gate, b"192.0.2.1", minute).await.unwrap();
        assert!((50 * SECOND..=60 * SECOND).contains(&wait), "{wait:?}");
    }
    assert_eq!(
        ask(1, b"192.0.2.2", minute).await,
        None,
        "nobody else waits"
    );
    let keys = String::from_utf8(server.ask(&["KEYS", "*"])).unwrap();
    assert_eq!(keys.lines().count(), 2);
    assert!(!keys.contains("192"));
    for key in keys.lines() {
        let life = String::from_utf8(server.ask(&["PTTL", key])).unwrap();
        let life = life.trim().parse::<u64>().unwrap();
        assert!((30_000..=300_000).contains(&life), "{key}: {life}");
    }
    // A rate that was changed keeps nobody out for longer than its own burst.
    let second = pace(SECOND, 2);
    let wait = ask(0, b"192.0.2.1", second).await.unwrap();
    assert!(wait <= SECOND, "{wait:?}");
    tokio::time::sleep(wait + SECOND / 100).await;
    assert_eq!(ask(1, b"192.0.2.1", second).await, None);
    assert!(ask(0, b"192.0.2.1", second).await.is_some());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn of_fifty_requests_at_once_at_two_gates_those_of_the_burst_pass() {
    let server = Server::start();
    let gates = [0; 2].map(|_| server.gate());
    let minute = pace(60 * SECOND, 20);
    let all = (0..50).map(|request| gates[request % 2].count_request(&[b"one"], minute));
    let waits = super::super::conformance::all(all).await;
    assert_eq!(waits.iter().filter(|wait| wait.is_none()).count(), 20);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_store_that_hangs_or_is_away_holds_up_no_request_and_counts_again_by_itself() {
    let server = Server::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let gate = server.gate();
    let minute = pace(60 * SECOND, 1);
    assert!(gate.counts_rates());
    assert_eq!(gate.count_request(&[b"one"], minute).await, None);
    assert!(gate.count_request(&[b"one"], minute).await.is_some());
    for away in [false, true] {
        if away {
            server.kill();
        } else {
            server.signal("-STOP");
        }
        let begun = std::time::Instant::now();
        let all = (0..2 * RATES).map(|_| gate.count_request(&[b"one"], minute));
        let waits = super::super::conformance::all(all).await;
        assert!(waits.iter().all(Option::is_none), "each gate counts alone");
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        assert!(!gate.counts_rates() && !gate.are_rates_shared());
        if away {
            server.start_again();
        } else {
            server.signal("-CONT");
        }
        within(10 * SECOND)(&|| gate.counts_rates()).await;
        assert!(gate.count_request(&[b"one"], minute).await.is_some());
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_store_that_takes_no_more_counts_leaves_them_to_each_gate() {
    let server = Server::start();
    let gate = server.gate();
    let minute = pace(60 * SECOND, 1);
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..3 {
        assert_eq!(gate.count_request(&[b"one"], minute).await, None);
    }
    assert!(!gate.counts_rates());
    assert_ne!(gate.epoch(), 0, "nothing else is wrong");
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    within(10 * SECOND)(&|| gate.counts_rates()).await;
    assert_eq!(gate.count_request(&[b"one"], minute).await, None);
    assert!(gate.count_request(&[b"one"], minute).await.is_some());
}
