use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Barrier;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::pipeline::network::testing::client;
use crate::pure::table::Problems;

const FILE_KEYS: &[Key] = &[
    Key {
        name: "rate",
        kind: "",
        default: "",
        doc: "",
    },
    Key {
        name: "path",
        kind: "",
        default: "",
        doc: "",
    },
];

fn try_rules(text: &str) -> (Rule, Rule, Vec<String>) {
    let problems = Problems::default();
    let file = Table::parse("policies/wiki.toml", text, FILE_KEYS, &problems).unwrap();
    let app = read(
        file.table("rate", KEYS).as_ref(),
        "wiki",
        &Rule::usual("wiki"),
    );
    let path = read(file.table("path", KEYS).as_ref(), "wiki /login", &app);
    let problems = problems.into_sorted();
    (
        app,
        path,
        problems
            .into_iter()
            .map(|problem| problem.message)
            .collect(),
    )
}

#[track_caller]
fn rules(text: &str) -> (Rule, Rule) {
    let (app, path, problems) = try_rules(text);
    assert!(problems.is_empty(), "{problems:?}");
    (app, path)
}

#[track_caller]
fn rule(text: &str) -> Rule {
    rules(text).0
}

/// A known secret, so that every run meets the same tags.
fn cells(sets: usize) -> Cells {
    Cells::with(sets, [1, 2])
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How many of `tries` pass at one moment.
fn passing(rule: &Rule, cells: &Cells, ip: &str, now: Duration, tries: usize) -> usize {
    (0..tries)
        .filter(|_| admit(rule, cells, client(ip), now).is_ok())
        .count()
}

fn limited(retry_after: Duration, quota: u32, window: Duration) -> Limited {
    Limited {
        retry_after,
        quota,
        window,
    }
}

#[test]
fn a_client_has_a_burst_and_then_as_many_as_the_rate_gives_back() {
    let rule = rule("[rate]\nper_client = '20/s'\nburst = 40");
    let cells = cells(16);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(0), 100), 40);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(49), 100), 0);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(51), 100), 1);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(1051), 100), 20);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(60_000), 100), 40);
}

#[test]
fn a_client_that_passes_is_the_one_that_asked() {
    let answer = admit(&Rule::usual("wiki"), &cells(1), client("192.0.2.1"), ms(5));
    let Counted(client) = answer.unwrap();
    assert_eq!(client.ip(), Ipv4Addr::new(192, 0, 2, 1));
}

#[test]
fn who_asks_too_often_learns_when_to_come_back() {
    let rule = rule("[rate]\nper_client = '2/m'");
    let cells = cells(1);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(1000), 2), 2);
    let refused = admit(&rule, &cells, client("192.0.2.1"), ms(11_000)).unwrap_err();
    let expected = limited(ms(20_000), 2, ms(60_000));
    assert_eq!(refused, Refused::PerClient(expected.clone()));
    let at_the_time = admit(&rule, &cells, client("192.0.2.1"), ms(31_000));
    assert!(at_the_time.is_ok());
    assert_eq!(
        Refusal::from(refused),
        Refusal::new(Answer::TooManyRequests(expected), "rate.per_client")
    );
}

#[test]
fn refused_requests_do_not_count() {
    let rule = rule("[rate]\nper_client = '1/s'");
    let cells = cells(1);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(0), 1000), 1);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(1001), 1), 1);
}

#[test]
fn a_changed_rate_keeps_nobody_out_for_longer_than_its_own_burst() {
    let (before, after) = (
        rule("[rate]\nper_client = '10/h'"),
        rule("[rate]\nper_client = '2/s'"),
    );
    let cells = cells(1);
    assert_eq!(passing(&before, &cells, "192.0.2.1", ms(0), 20), 10);
    assert_eq!(passing(&after, &cells, "192.0.2.1", ms(0), 20), 0);
    assert_eq!(passing(&after, &cells, "192.0.2.1", ms(499), 20), 0);
    assert_eq!(passing(&after, &cells, "192.0.2.1", ms(500), 20), 1);
}

#[test]
fn an_ipv6_client_is_its_64_and_an_ipv4_client_its_address() {
    let rule = rule("[rate]\nper_client = '1/m'");
    let cells = cells(1024);
    assert_eq!(passing(&rule, &cells, "2001:db8:1:2::1", ms(0), 1), 1);
    assert_eq!(
        passing(&rule, &cells, "2001:db8:1:2:ffff:ffff:ffff:ffff", ms(0), 1),
        0
    );
    assert_eq!(passing(&rule, &cells, "2001:db8:1:3::1", ms(0), 1), 1);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(0), 1), 1);
    assert_eq!(passing(&rule, &cells, "192.0.2.2", ms(0), 1), 1);
    // SECURITY.md F8: the same client, however its address is written.
    assert_eq!(passing(&rule, &cells, "::ffff:192.0.2.1", ms(0), 1), 0);
}

#[test]
fn all_clients_together_meet_the_limit_of_the_application() {
    let rule = rule("[rate]\nper_client = 'off'\nper_app = '3/s'\nburst = 99");
    let cells = cells(16);
    for ip in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        assert_eq!(passing(&rule, &cells, ip, ms(0), 1), 1);
    }
    let refused = admit(&rule, &cells, client("192.0.2.4"), ms(0)).unwrap_err();
    let retry_after = Duration::from_micros(333_333);
    let expected = limited(retry_after, 3, ms(1000));
    assert_eq!(refused, Refused::PerApp(expected));
    assert_eq!(Refusal::from(refused).reason, "rate.per_app");
}

#[test]
fn a_client_over_its_limit_uses_up_nothing_of_the_application() {
    let rule = rule("[rate]\nper_client = '2/m'\nper_app = '3/m'");
    let cells = cells(16);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(0), 100), 2);
    assert_eq!(passing(&rule, &cells, "192.0.2.2", ms(0), 1), 1);
}

#[test]
fn applications_count_by_themselves() {
    let wiki = rule("[rate]\nper_client = '1/m'");
    let cells = cells(1024);
    assert_eq!(passing(&wiki, &cells, "192.0.2.1", ms(0), 2), 1);
    assert_eq!(
        passing(&wiki.for_scope("shop"), &cells, "192.0.2.1", ms(0), 2),
        1
    );
    assert_eq!(passing(&wiki, &cells, "192.0.2.1", ms(0), 2), 0);
}

#[test]
fn a_path_counts_by_itself_what_it_says_and_with_the_application_what_it_does_not() {
    let (app, path) =
        rules("[rate]\nper_client = '10/m'\nper_app = '4/m'\n[path]\nper_client = '2/m'");
    let cells = cells(1024);
    assert_eq!(passing(&path, &cells, "192.0.2.1", ms(0), 9), 2);
    assert_eq!(passing(&app, &cells, "192.0.2.1", ms(0), 9), 2);
    assert!(matches!(
        admit(&path, &cells, client("192.0.2.2"), ms(0)),
        Err(Refused::PerApp(_))
    ));
}

#[test]
fn users_are_told_apart_by_provider_and_name() {
    let rule = rule("[rate]\nper_user = '1/m'");
    let cells = cells(1024);
    let count = |provider: &str, name: &str| {
        let user = User {
            name: name.into(),
            provider: provider.into(),
            email: None,
            groups: Vec::new(),
            claims: Arc::default(),
            signed_in_at: SystemTime::UNIX_EPOCH,
        };
        rule.of_user(&user).unwrap().here(&cells, ms(0))
    };
    assert_eq!(count("local", "bob"), Ok(()));
    assert_eq!(
        count("local", "bob"),
        Err(limited(ms(60_000), 1, ms(60_000)))
    );
    for (provider, name) in [
        ("ci", "bob"),
        ("local", "alice"),
        ("localb", "ob"),
        ("loca", "lbob"),
    ] {
        assert_eq!(count(provider, name), Ok(()), "{provider} {name}");
    }
}

#[test]
fn nothing_said_is_a_hundred_a_second_with_a_burst_of_two_hundred() {
    for text in ["", "[rate]", "[rate]\nper_app = '1000/s'"] {
        let rule = rule(text);
        let cells = cells(16);
        assert_eq!(
            passing(&rule, &cells, "192.0.2.1", ms(0), 500),
            200,
            "{text}"
        );
        assert_eq!(
            passing(&rule, &cells, "192.0.2.1", ms(1001), 500),
            100,
            "{text}"
        );
    }
}

#[test]
fn a_burst_alone_keeps_the_rate() {
    let (app, path) = rules("[rate]\nburst = 5\n[path]\nburst = 3");
    for (rule, burst) in [(app, 5), (path, 3)] {
        let cells = cells(16);
        assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(0), 500), burst);
        assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(11), 500), 1);
    }
}

#[test]
fn a_limit_can_be_off() {
    let rule = rule("[rate]\nper_client = 'off'");
    assert_eq!(passing(&rule, &cells(1), "192.0.2.1", ms(0), 1000), 1000);
}

#[test]
fn what_is_no_rate_is_a_problem() {
    for (text, expected) in [
        ("per_client = '20'", "or `off`"),
        ("per_client = '0/s'", "at least one"),
        ("per_user = 20", "expected a string"),
        ("burst = 0", "from 1 to 1000000"),
        ("per_client = '1/d'\nburst = 31", "within 30 days"),
        ("per_second = '1/s'", "unknown key"),
    ] {
        let (_, _, problems) = try_rules(&format!("[rate]\n{text}"));
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{text}: {problems:?}"
        );
    }
    rule("[rate]\nper_client = '1/d'\nburst = 30");
}

#[test]
fn a_flood_of_clients_takes_no_memory_and_hurts_no_client_that_is_counted() {
    let rule = rule("[rate]\nper_client = '10/m'");
    let cells = cells(4);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(0), 3), 3);
    let flood =
        |n: u32| admit(&rule, &cells, client(&Ipv4Addr::from(n).to_string()), ms(1)).is_ok();
    let passed = (0x0a00_0000..0x0a00_2710).filter(|n| flood(*n)).count();
    // Each of 31 cells lets one pass or more, and each of 32 lanes ten: the rest share, and wait.
    assert!((31..=32 * 8 + 32 * 10).contains(&passed), "{passed}");
    assert_eq!(cells.sets.len(), 4);
    assert_eq!(passing(&rule, &cells, "192.0.2.1", ms(2), 100), 7);
}

#[test]
fn a_flood_of_one_application_does_not_use_up_another() {
    let slow = rule("[rate]\nper_client = '1/h'");
    let cells = cells(4);
    for n in 0..10_000_u32 {
        let _ = admit(&slow, &cells, client(&Ipv4Addr::from(n).to_string()), ms(0));
    }
    let other = rule("[rate]\nper_client = '10/s'").for_scope("shop");
    assert_eq!(passing(&other, &cells, "192.0.2.1", ms(1), 100), 10);
    assert_eq!(passing(&other, &cells, "192.0.2.1", ms(1002), 100), 10);
}

#[test]
fn a_cell_is_free_again_when_its_time_is_over() {
    let rule = rule("[rate]\nper_client = '1/s'");
    let cells = cells(1);
    for n in 0..1000_u32 {
        let ip = Ipv6Addr::from(u128::from(n) << 64).to_string();
        // Eight a second find a cell, and no lane fills up.
        let now = ms(u64::from(n) * 126);
        assert_eq!(passing(&rule, &cells, &ip, now, 2), 1, "{n}");
    }
    for lane in &*rule.per_client.unwrap().lanes {
        assert_eq!(lane.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn cores_that_count_at_once_lose_no_request() {
    let rule = rule("[rate]\nper_client = '500/d'");
    let cells = cells(1);
    let start = Barrier::new(4);
    let count = || {
        start.wait();
        passing(&rule, &cells, "192.0.2.1", ms(7), 1000)
    };
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(passed, 500);
}

#[test]
fn cells_are_shared_by_cores() {
    fn shared<T: Send + Sync>() {}
    shared::<Cells>();
    shared::<Rule>();
    assert_eq!(size_of::<Set>(), 64);
    assert_eq!(size_of::<Set>() * SETS, 4 << 20);
}

/// GCRA as it is told: a bucket of `burst` that is given one back each `interval_us`.
struct Bucket {
    until_us: u64,
    interval_us: u64,
    burst: u64,
}

impl Bucket {
    fn take(&mut self, now_us: u64) -> bool {
        let until = self.until_us.max(now_us);
        let passes = until - now_us <= self.interval_us * (self.burst - 1);
        if passes {
            self.until_us = until + self.interval_us;
        }
        passes
    }
}

#[test]
fn each_process_hashes_by_a_secret_of_its_own() {
    let (one, other) = (Cells::new(), Cells::new());
    assert_ne!(one.secret, other.secret);
    assert!(one.hash("key") != other.hash("key"));
    assert_eq!(one.sets.len(), SETS);
}

proptest! {
    #[test]
    fn counts_are_those_of_a_bucket(
        count in 1..50_u32,
        burst in 1..60_u32,
        per_ms in 10..5000_u64,
        asks in prop::collection::vec((0..4_u8, 0..200_000_u64), 1..200),
    ) {
        let per = ms(per_ms);
        let interval_us = per_ms * 1000 / u64::from(count);
        let rate = Rate { count: NonZeroU32::new(count).unwrap(), per };
        let limit = Limit::new(rate, NonZeroU32::new(burst).unwrap(), "wiki").unwrap();
        let rule = Rule { per_client: Some(limit), per_user: None, per_app: None };
        let cells = cells(1);
        let mut buckets: Vec<Bucket> = (0..4)
            .map(|_| Bucket { until_us: 0, interval_us, burst: u64::from(burst) })
            .collect();
        let mut now_us = 0;
        for (who, after_us) in asks {
            now_us += after_us;
            let ip = format!("192.0.2.{who}");
            let passes = admit(&rule, &cells, client(&ip), Duration::from_micros(now_us)).is_ok();
            prop_assert_eq!(passes, buckets[usize::from(who)].take(now_us));
        }
    }
}
