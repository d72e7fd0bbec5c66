//! Regulation: guessing passwords is slow, for whoever guesses and for nobody else.
//!
//! | failures | then |
//! |---|---|
//! | of one account from one network, beyond 5 | each next attempt waits 1 s, 2 s, 4 s .. 15 min |
//! | of any accounts from one network, beyond 50 | likewise: passwords sprayed over accounts |
//! | of one account from other networks | nothing: nobody locks an owner out (SECURITY.md T3, T4) |
//!
//! Where several gates share a store, failures are counted there as well, by the same rule, so that
//! one who guesses gains nothing by going from gate to gate. While the store is away each gate slows
//! down alone.
//!
//! An attempt counts when it begins and is taken back when it succeeds, so that a thousand at once
//! are not a thousand guesses. Counts leak away with time. A network is an IPv4 address or an IPv6
//! /64. The table is bounded; what has failed least makes room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::pure::seal::Mac;
use crate::session::Sessions;
use crate::session::store::Leniency;

/// The longest wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
const SHARDS: usize = 16;
const SHARD_COUNTS: usize = 4096;

const PAIR: Leniency = Leniency {
    free: 5,
    leak: Duration::from_secs(10 * 60),
    longest: LONGEST_WAIT,
};
const NETWORK: Leniency = Leniency {
    free: 50,
    leak: Duration::from_secs(30),
    longest: LONGEST_WAIT,
};

/// Try again after this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slowed(pub Duration);

/// Failures by account and network.
#[derive(Default)]
pub struct Regulation {
    shards: [Mutex<HashMap<Name, Count>>; SHARDS],
}

/// The two counts that an attempt goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pair: Name,
    network: Name,
}

type Name = [u8; 16];

#[derive(Clone, Copy)]
struct Count {
    failures: u32,
    /// When `failures` was right; it leaks from there.
    as_of: Duration,
    /// No attempt before that.
    until: Duration,
}

impl Attempt {
    /// An attempt to be `account` of `provider` from `client`. Accounts that do not exist count
    /// like those that do.
    pub fn new(mac: &Mac, provider: &str, account: &str, client: IpAddr) -> Self {
        let network = network(client);
        let name = |parts: &[&[u8]]| {
            let mut name = Name::default();
            for (to, from) in name.iter_mut().zip(mac.tag(parts)) {
                *to = from;
            }
            name
        };
        Self {
            pair: name(&[b"pair", provider.as_bytes(), account.as_bytes(), &network]),
            network: name(&[b"network", &network]),
        }
    }
}

impl Regulation {
    /// Whether this account may be tried from this network now; counts nothing. To be asked before
    /// anything that could tell a right guess from a wrong one.
    ///
    /// # Errors
    /// [`Slowed`] with how long to wait.
    pub fn check(&self, attempt: &Attempt, now: SystemTime) -> Result<(), Slowed> {
        let shard = self.shard(attempt.pair);
        shard
            .get(&attempt.pair)
            .map_or(Ok(()), |count| count.check(since_1970(now)))
    }

    /// Begins an attempt, counted as a failure until it [succeeds](Self::succeeded).
    ///
    /// # Errors
    /// [`Slowed`] with how long to wait. What the network is refused counts for the account all the
    /// same: else guesses would be free while the network is slowed.
    pub fn begin(&self, attempt: &Attempt, now: SystemTime) -> Result<(), Slowed> {
        let now = since_1970(now);
        self.count(attempt.pair, PAIR, now)?;
        self.count(attempt.network, NETWORK, now)
    }

    /// The attempt was right: the account's count from this network is forgotten, the network's
    /// count is as if there had been no attempt.
    pub fn succeeded(&self, attempt: &Attempt) {
        self.shard(attempt.pair).remove(&attempt.pair);
        self.take_back(attempt.network);
    }

    /// The attempt was neither right nor wrong: it was not made after all.
    pub fn withdrawn(&self, attempt: &Attempt) {
        self.take_back(attempt.pair);
        self.take_back(attempt.network);
    }

    /// The same at all gates.
    ///
    /// # Errors
    /// [`Slowed`] with how long to wait; this gate knows it by then, too.
    pub async fn begin_everywhere(
        &self,
        attempt: &Attempt,
        sessions: &Sessions,
        now: SystemTime,
    ) -> Result<(), Slowed> {
        self.begin(attempt, now)?;
        for (name, leniency) in [(attempt.pair, PAIR), (attempt.network, NETWORK)] {
            if let Some(wait) = sessions.count(name, leniency).await {
                let wait = wait.min(LONGEST_WAIT);
                if let Some(count) = self.shard(name).get_mut(&name) {
                    count.until = count.until.max(since_1970(now).saturating_add(wait));
                }
                return Err(Slowed(wait));
            }
        }
        Ok(())
    }

    /// [Succeeded](Self::succeeded) at all gates.
    pub fn succeeded_everywhere(&self, attempt: &Attempt, sessions: &Sessions) {
        self.succeeded(attempt);
        sessions.uncount(attempt.pair, true);
        sessions.uncount(attempt.network, false);
    }

    /// [Withdrawn](Self::withdrawn) at all gates.
    pub fn withdrawn_everywhere(&self, attempt: &Attempt, sessions: &Sessions) {
        self.withdrawn(attempt);
        sessions.uncount(attempt.pair, false);
        sessions.uncount(attempt.network, false);
    }

    fn count(&self, name: Name, limit: Leniency, now: Duration) -> Result<(), Slowed> {
        let mut shard = self.shard(name);
        if !shard.contains_key(&name) && shard.len() >= SHARD_COUNTS {
            make_room(&mut shard, now);
        }
        let count = shard.entry(name).or_insert(Count {
            failures: 0,
            as_of: now,
            until: Duration::ZERO,
        });
        count.check(now)?;
        count.leak(limit.leak, now);
        count.failures = count.failures.saturating_add(1);
        if let Some(over) = count.failures.checked_sub(limit.free) {
            let wait = 1_u64
                .checked_shl(over)
                .map_or(LONGEST_WAIT, Duration::from_secs);
            count.until = now.saturating_add(wait.min(LONGEST_WAIT));
        }
        Ok(())
    }

    fn take_back(&self, name: Name) {
        let mut shard = self.shard(name);
        if let Some(count) = shard.get_mut(&name) {
            count.failures = count.failures.saturating_sub(1);
            count.until = Duration::ZERO;
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a number modulo SHARDS is below SHARDS"
    )]
    fn shard(&self, name: Name) -> MutexGuard<'_, HashMap<Name, Count>> {
        let [first, ..] = name;
        self.shards[usize::from(first) % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn check(&self, now: Duration) -> Result<(), Slowed> {
        match self.until.checked_sub(now) {
            None | Some(Duration::ZERO) => Ok(()),
            // The clock may have been set back; nobody waits longer than the longest wait.
            Some(wait) => Err(Slowed(wait.min(LONGEST_WAIT))),
        }
    }

    fn leak(&mut self, each: Duration, now: Duration) {
        let passed = now.saturating_sub(self.as_of).as_secs();
        let leaked = passed.checked_div(each.as_secs()).unwrap_or(0);
        if leaked > 0 || now < self.as_of {
            self.failures = self
                .failures
                .saturating_sub(u32::try_from(leaked).unwrap_or(u32::MAX));
            self.as_of = now;
        }
    }
}

/// Takes out what has leaked away, or else all that has failed least.
fn make_room(shard: &mut HashMap<Name, Count>, now: Duration) {
    // The slower leak: nothing is forgotten too early.
    shard.retain(|_, count| {
        count.leak(PAIR.leak, now);
        count.failures > 0
    });
    if shard.len() >= SHARD_COUNTS {
        let least = shard
            .values()
            .map(|count| count.failures)
            .min()
            .unwrap_or(0);
        shard.retain(|_, count| count.failures > least);
    }
}

fn since_1970(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

fn network(client: IpAddr) -> Vec<u8> {
    match client.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().into_iter().take(8).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        mac: Mac,
        regulation: Regulation,
    }

    impl Case {
        fn new() -> Self {
            Self {
                mac: Mac::new(&[1; 32]),
                regulation: Regulation::default(),
            }
        }

        fn attempt(&self, account: &str, client: &str) -> Attempt {
            Attempt::new(&self.mac, "local", account, client.parse().unwrap())
        }

        fn fail(&self, account: &str, client: &str, seconds: u64) -> Result<(), u64> {
            self.regulation
                .begin(&self.attempt(account, client), at(seconds))
                .map_err(|Slowed(wait)| wait.as_secs())
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn after_five_failures_each_next_waits_twice_as_long_t3() {
        let case = Case::new();
        for _ in 0..5 {
            case.fail("bob", "192.0.2.1", 0).unwrap();
        }
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = case.fail("bob", "192.0.2.1", now).unwrap_err();
            waits.push(wait);
            now += wait;
            case.fail("bob", "192.0.2.1", now).unwrap();
        }
        assert_eq!(waits[..9], [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert!(waits.iter().all(|wait| *wait <= 900), "{waits:?}");
    }

    #[test]
    fn other_networks_and_other_accounts_are_not_slowed_t4() {
        let case = Case::new();
        for second in 0..10_000 {
            let _ = case.fail("bob", "192.0.2.1", second / 100);
        }
        assert!(case.fail("bob", "192.0.2.1", 100).is_err());
        case.fail("bob", "192.0.2.2", 100).unwrap();
        case.fail("bob", "2001:db8::1", 100).unwrap();
    }

    #[test]
    fn another_account_of_the_same_network_has_its_own_count() {
        let case = Case::new();
        for _ in 0..6 {
            let _ = case.fail("bob", "192.0.2.1", 0);
        }
        assert_eq!(case.fail("bob", "192.0.2.1", 0), Err(1));
        case.fail("eve", "192.0.2.1", 0).unwrap();
    }

    #[test]
    fn spraying_one_password_over_many_accounts_is_slowed() {
        let case = Case::new();
        for account in 0..50 {
            case.fail(&account.to_string(), "192.0.2.1", 0).unwrap();
        }
        assert_eq!(case.fail("51", "192.0.2.1", 0), Err(1));
        case.fail("51", "192.0.2.2", 0).unwrap();
    }

    #[test]
    fn a_slowed_network_does_not_slow_what_is_remembered_but_guesses_count() {
        let case = Case::new();
        let bob = case.attempt("bob", "192.0.2.1");
        for account in 0..50 {
            case.fail(&account.to_string(), "192.0.2.1", 0).unwrap();
        }
        for _ in 0..5 {
            assert_eq!(case.regulation.check(&bob, at(0)), Ok(()));
            assert_eq!(case.fail("bob", "192.0.2.1", 0), Err(1));
        }
        assert_eq!(
            case.regulation.check(&bob, at(0)),
            Err(Slowed(Duration::from_secs(1)))
        );
    }

    #[test]
    fn a_network_is_an_ipv6_64_and_a_mapped_address_is_its_ipv4() {
        let case = Case::new();
        let attempt = |client| case.attempt("bob", client);
        assert_eq!(attempt("2001:db8::1"), attempt("2001:db8::ffff:1"));
        assert_ne!(attempt("2001:db8::1"), attempt("2001:db8:0:1::1"));
        assert_eq!(attempt("::ffff:192.0.2.1"), attempt("192.0.2.1"));
    }

    #[test]
    fn a_success_forgets_the_pair_and_does_not_count_for_the_network() {
        let case = Case::new();
        let bob = case.attempt("bob", "192.0.2.1");
        for _ in 0..4 {
            case.fail("bob", "192.0.2.1", 0).unwrap();
        }
        for _ in 0..200 {
            case.regulation.begin(&bob, at(0)).unwrap();
            case.regulation.succeeded(&bob);
        }
        for _ in 0..5 {
            case.fail("bob", "192.0.2.1", 0).unwrap();
        }
        assert_eq!(case.fail("bob", "192.0.2.1", 0), Err(1));
    }

    #[test]
    fn a_withdrawn_attempt_counts_nothing() {
        let case = Case::new();
        let bob = case.attempt("bob", "192.0.2.1");
        for _ in 0..200 {
            case.regulation.begin(&bob, at(0)).unwrap();
            case.regulation.withdrawn(&bob);
        }
        case.regulation.check(&bob, at(0)).unwrap();
    }

    #[test]
    fn many_attempts_at_once_are_not_many_guesses() {
        let case = Case::new();
        let begun = (0..1000)
            .filter(|_| case.fail("bob", "192.0.2.1", 0).is_ok())
            .count();
        assert_eq!(begun, 5);
    }

    #[test]
    fn failures_leak_away() {
        let case = Case::new();
        for _ in 0..5 {
            case.fail("bob", "192.0.2.1", 0).unwrap();
        }
        for _ in 0..5 {
            case.fail("bob", "192.0.2.1", 3001).unwrap();
        }
        assert_eq!(case.fail("bob", "192.0.2.1", 3001), Err(1));
    }

    #[test]
    fn a_clock_set_back_slows_nobody_for_longer_than_the_longest_wait() {
        let case = Case::new();
        for _ in 0..5 {
            case.fail("bob", "192.0.2.1", 1_000_000).unwrap();
        }
        assert_eq!(case.fail("bob", "192.0.2.1", 0), Err(900));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_failed_most() {
        let case = Case::new();
        for _ in 0..5 {
            case.fail("bob", "192.0.2.1", 0).unwrap();
        }
        for number in 0..100_000_u32 {
            let client = std::net::Ipv4Addr::from(number + 0x0a00_0000).to_string();
            case.fail("x", &client, 0).unwrap();
        }
        let held: usize = case
            .regulation
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum();
        assert!(held <= SHARDS * SHARD_COUNTS, "{held}");
        assert_eq!(case.fail("bob", "192.0.2.1", 0), Err(1));
    }
}
