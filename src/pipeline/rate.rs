//! 3. rate: how often a client and an application may be asked for.
//!
//! | when | then |
//! |---|---|
//! | the client (IPv4 address, or IPv6 /64) asks more often than `per_client` | 429 `rate.per_client` |
//! | all clients together ask more often than `per_app` | 429 `rate.per_app` |
//!
//! Counts by GCRA (`governor`): a burst, and then as many as the rate gives back. A refused request
//! does not count; one refused for the application counted for its client. Trusts the client that
//! `network` found. Limits per user wait for the user: see `user_rate`.
//!
//! Where gates share a store, what passes here is counted there once more, by the same rule: never
//! instead, so that a flood ends here and is none of the store. While the store does not count in time
//! the request passes.
//!
//! The counts of a gate stand in one array of fixed size, [`Cells`], so that a flood of keys takes no
//! memory:
//! 1. A key is hashed, with a secret of this process, to one set of eight cells (a cache line) and
//!    to a tag of 16 bits. Two keys share a cell once in 2^32.
//! 2. A cell is its tag and the time until which it counts for something; after that it is free,
//!    and nothing is forgotten by taking it for another key.
//! 3. Where all eight are taken by others, the key is counted with others like it in one of a few
//!    lanes that belong to its limit alone: a flood makes newcomers share a limit, never go without
//!    one, and never meet the debts of another application.

use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use crate::pipeline::network::Client;
use crate::pure::identity::User;
use crate::pure::table::{Key, Table};
use crate::pure::unit::Rate;
use crate::refusal::{Answer, Limited, Refusal};
use crate::session::Sessions;
use crate::session::store::Pace;

/// How often one path of an application may be asked for.
#[derive(Debug, Clone)]
pub struct Rule {
    per_client: Option<Limit>,
    per_user: Option<Limit>,
    per_app: Option<Limit>,
}

/// Proof that a client has not asked this gate too often.
#[derive(Debug, PartialEq, Eq)]
pub struct Counted(Client);

/// Proof that a client has not asked too often, whichever gate.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit(Client);

impl Permit {
    /// The client's address.
    pub const fn ip(&self) -> IpAddr {
        self.0.ip()
    }
}

/// Which limit was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// That of the client.
    PerClient(Limited),
    /// That of the application.
    PerApp(Limited),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let (limited, reason) = match refused {
            Refused::PerClient(limited) => (limited, "rate.per_client"),
            Refused::PerApp(limited) => (limited, "rate.per_app"),
        };
        Self::new(Answer::TooManyRequests(limited), reason)
    }
}

/// Counts a request of `client`; `now` is the time since the process began.
///
/// # Errors
/// [`Refused`], with the time until a request can pass.
pub fn admit(
    rule: &Rule,
    cells: &Cells,
    client: Client,
    now: Duration,
) -> Result<Counted, Refused> {
    // The client first, so that one client alone does not use up what is there for all.
    if let Some(count) = rule.of_client(client.ip()) {
        count.here(cells, now).map_err(Refused::PerClient)?;
    }
    if let Some(count) = rule.of_app() {
        count.here(cells, now).map_err(Refused::PerApp)?;
    }
    Ok(Counted(client))
}

/// Counts the request at all gates, where they share a store.
///
/// # Errors
/// [`Refused`], with the time until a request can pass.
pub async fn admit_everywhere(
    rule: &Rule,
    sessions: &Sessions,
    counted: Counted,
) -> Result<Permit, Refused> {
    let Counted(client) = counted;
    if sessions.counts_rates() {
        // In a box, so that it takes no room in every other exchange.
        Box::pin(count_everywhere(rule, sessions, client.ip())).await?;
    }
    Ok(Permit(client))
}

/// One after the other, for the same reason as here.
async fn count_everywhere(rule: &Rule, sessions: &Sessions, ip: IpAddr) -> Result<(), Refused> {
    if let Some(count) = rule.of_client(ip) {
        let counted = count.everywhere(sessions).await;
        counted.map_err(Refused::PerClient)?;
    }
    if let Some(count) = rule.of_app() {
        let counted = count.everywhere(sessions).await;
        counted.map_err(Refused::PerApp)?;
    }
    Ok(())
}

/// A limit, and whose requests it counts.
pub struct Count<'r> {
    limit: &'r Limit,
    kind: Kind<'r>,
}

impl Count<'_> {
    /// Counts a request at this gate; `now` is the time since the process began.
    ///
    /// # Errors
    /// The limit was met.
    pub fn here(&self, cells: &Cells, now: Duration) -> Result<(), Limited> {
        self.limit.count(cells, &self.kind, now)
    }

    /// Counts a request at all gates.
    ///
    /// # Errors
    /// The limit was met.
    pub async fn everywhere(&self, sessions: &Sessions) -> Result<(), Limited> {
        let octets;
        let (whose, one, other): (&str, &[u8], &[u8]) = match &self.kind {
            Kind::Client(ip) => {
                octets = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                ("client", &octets, b"")
            }
            Kind::User { provider, name } => ("user", provider.as_bytes(), name.as_bytes()),
            Kind::App => ("app", b"", b""),
        };
        let scope = self.limit.scope.as_bytes();
        let name = [b"rate", whose.as_bytes(), scope, one, other];
        let wait = sessions.count_request(&name, self.limit.pace()).await;
        wait.map_or(Ok(()), |wait| Err(self.limit.met(wait)))
    }
}

/// Whose requests a cell counts; with the limit's scope, the key.
#[derive(Hash)]
enum Kind<'k> {
    Client(IpAddr),
    User { provider: &'k str, name: &'k str },
    App,
}

/// The address, or of IPv6 the /64 that a client has whole and can change its address in.
fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// One rate, and what it counts for.
#[derive(Debug, Clone)]
struct Limit {
    rate: Rate,
    quota: Quota,
    /// What tells the keys of this limit from those of others: the application or path.
    scope: Arc<str>,
    lanes: Arc<[AtomicU64; LANES]>,
}

impl Limit {
    /// # Errors
    /// What was expected of the burst.
    fn new(rate: Rate, burst: NonZeroU32, scope: &str) -> Result<Self, String> {
        // In whole microseconds, as cells count: what is rounded with each request adds up, and
        // would cost the last of a burst.
        let interval_us = rate.per.as_micros().checked_div(rate.count.get().into());
        let quota = interval_us
            .and_then(|us| u64::try_from(us).ok())
            .map(Duration::from_micros)
            .filter(|interval| interval.saturating_mul(burst.get()) <= MAX_DEBT)
            .and_then(Quota::with_period)
            .ok_or("a burst that the rate gives back within 30 days")?;
        Ok(Self {
            rate,
            quota: quota.allow_burst(burst),
            scope: scope.into(),
            lanes: Arc::new([const { AtomicU64::new(0) }; LANES]),
        })
    }

    fn count(&self, cells: &Cells, kind: &Kind<'_>, now: Duration) -> Result<(), Limited> {
        let key = cells.hash((&*self.scope, kind));
        let at = At {
            cells,
            lanes: &self.lanes,
            full_us: u64::try_from(self.pace().rest().as_micros()).unwrap_or(u64::MAX),
            now_us: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
        };
        RateLimiter::<_, _, _, NoOpMiddleware<Duration>>::new(self.quota, at, Still)
            .check_key(&key)
            .map_err(|until| self.met(until.wait_time_from(Duration::ZERO)))
    }

    const fn pace(&self) -> Pace {
        Pace {
            interval: self.quota.replenish_interval(),
            burst: self.quota.burst_size(),
        }
    }

    const fn met(&self, wait: Duration) -> Limited {
        Limited {
            retry_after: wait,
            quota: self.rate.count.get(),
            window: self.rate.per,
        }
    }
}

/// Time as `governor` sees it: always zero, since a cell's time is told to it relative to now. So
/// the one reading of the clock, the caller's, holds for all of a decision.
struct Still;

impl Clock for Still {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// A key's hash: the set in its low bits, the tag in its high bits, the lane between.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Hashed(u64);

/// All counts: shared by all cores, of fixed size.
pub struct Cells {
    sets: Box<[Set]>,
    /// So that nobody can choose keys that meet.
    secret: [u64; 2],
}

/// A cache line of cells. A cell is a tag above the microsecond, since the process began, up to
/// which it counts; 48 bits last for nine years. A cell never used is zero.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; 8]);

/// 4 MiB: half a million clients that were active in the last moment.
const SETS: usize = 1 << 16;
/// A longer memory of a burst is a ban, not a rate.
const MAX_DEBT: Duration = Duration::from_secs(30 * 86_400);
/// A limit's lanes for keys that find no cell.
const LANES: usize = 32;
const LANES_MASK: u64 = LANES as u64 - 1;
const TIME_BITS: u32 = 48;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

impl Cells {
    /// Cells that count nothing yet, with a secret of their own.
    pub fn new() -> Self {
        let random = RandomState::new();
        Self::with(SETS, [random.hash_one(0_u8), random.hash_one(1_u8)])
    }

    /// `sets` must be a power of two.
    fn with(sets: usize, secret: [u64; 2]) -> Self {
        Self {
            sets: std::iter::repeat_with(Set::default).take(sets).collect(),
            secret,
        }
    }

    fn hash(&self, key: impl Hash) -> Hashed {
        let mut hasher = DefaultHasher::new();
        (self.secret, key).hash(&mut hasher);
        Hashed(hasher.finish())
    }

    fn set(&self, key: Hashed) -> &[AtomicU64] {
        let low = usize::try_from(key.0 & u64::from(u32::MAX)).unwrap_or(0);
        let at = low & self.sets.len().saturating_sub(1);
        self.sets.get(at).map_or(&[], |set| &set.0)
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells").finish_non_exhaustive()
    }
}

impl Default for Cells {
    fn default() -> Self {
        Self::new()
    }
}

/// Cells as `governor` sees them at one moment.
struct At<'c> {
    cells: &'c Cells,
    lanes: &'c [AtomicU64; LANES],
    /// What can be left of a limit. Of another, before the configuration changed, there may be more,
    /// which would keep somebody out for longer than this one says.
    full_us: u64,
    now_us: u64,
}

impl At<'_> {
    /// The cell that counts for `key`, and what it holds.
    fn find(&self, key: Hashed) -> (&AtomicU64, u64) {
        let tag = key.0 & !TIME_MASK;
        let (mut own, mut free) = (None, None);
        for cell in self.cells.set(key) {
            let held = cell.load(Ordering::Relaxed);
            // Two cores that see different cells free can give a key two cells once; the one that
            // counts for longer is then the key's.
            if held & !TIME_MASK == tag && own.is_none_or(|(_, other)| held > other) {
                own = Some((cell, held));
            } else if held & TIME_MASK <= self.now_us && free.is_none() {
                free = Some((cell, held));
            }
        }
        own.or(free).unwrap_or_else(|| {
            let [first, ..] = self.lanes;
            let number = (key.0 >> 32) & LANES_MASK;
            let lane = usize::try_from(number)
                .ok()
                .and_then(|at| self.lanes.get(at));
            let lane = lane.unwrap_or(first);
            (lane, lane.load(Ordering::Relaxed))
        })
    }
}

impl StateStore for At<'_> {
    type Key = Hashed;

    fn measure_and_replace<T, F, E>(&self, key: &Hashed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        loop {
            let (cell, held) = self.find(*key);
            // Of a free cell nothing is left, whoever's it was.
            let left_us = (held & TIME_MASK).saturating_sub(self.now_us);
            if left_us > self.full_us {
                let until_us = self.now_us.saturating_add(self.full_us).min(TIME_MASK);
                let capped = (held & !TIME_MASK) | until_us;
                // Whether it is this core or another that does so.
                let _ = cell.compare_exchange(held, capped, Ordering::Relaxed, Ordering::Relaxed);
                continue;
            }
            let (answer, next) = decide(Some(Nanos::new(left_us.saturating_mul(1000))))?;
            let until_us = self
                .now_us
                .saturating_add(next.as_u64().div_ceil(1000))
                .min(TIME_MASK);
            let new = (key.0 & !TIME_MASK) | until_us;
            // Relaxed: the word is all there is, nothing else is published by it.
            let swapped =
                cell.compare_exchange_weak(held, new, Ordering::Relaxed, Ordering::Relaxed);
            if swapped.is_ok() {
                return Ok(answer);
            }
        }
    }
}

/// Keys of `[rate]`.
pub const KEYS: &[Key] = &[
    Key {
        name: "per_client",
        kind: "rate or `off`",
        default: "`100/s`, with a burst of 200",
        doc: "Requests of one client, which is an IPv4 address or an IPv6 /64, such as `20/s`, `300/m` or `5/10s`.",
    },
    Key {
        name: "per_user",
        kind: "rate or `off`",
        default: "`off`",
        doc: "Requests of one user, from wherever they come.",
    },
    Key {
        name: "per_app",
        kind: "rate or `off`",
        default: "`off`",
        doc: "Requests of all clients together. Its burst is its count.",
    },
    Key {
        name: "burst",
        kind: "number",
        default: "the count of the rate",
        doc: "Requests that a client or a user who has been quiet may make at once.",
    },
];

/// `per_client` when nothing is said.
const USUAL: (u32, u32) = (100, 200);

impl Rule {
    /// What holds when nothing is said: 100 a second per client, with a burst of 200.
    pub fn usual(scope: &str) -> Self {
        let limit = |(count, burst)| {
            let rate = Rate {
                count: NonZeroU32::new(count)?,
                per: Duration::from_secs(1),
            };
            Limit::new(rate, NonZeroU32::new(burst)?, scope).ok()
        };
        Self {
            per_client: limit(USUAL),
            per_user: None,
            per_app: None,
        }
    }

    /// The same rates, counted by themselves.
    #[must_use]
    pub fn for_scope(&self, scope: &str) -> Self {
        let again = |limit: &Option<Limit>| {
            let limit = limit.as_ref()?;
            Limit::new(limit.rate, limit.quota.burst_size(), scope).ok()
        };
        Self {
            per_client: again(&self.per_client),
            per_user: again(&self.per_user),
            per_app: again(&self.per_app),
        }
    }

    fn of_client(&self, ip: IpAddr) -> Option<Count<'_>> {
        let kind = Kind::Client(network_of(ip));
        self.per_client.as_ref().map(|limit| Count { limit, kind })
    }

    fn of_app(&self) -> Option<Count<'_>> {
        let kind = Kind::App;
        self.per_app.as_ref().map(|limit| Count { limit, kind })
    }

    /// What counts the requests of a user, for `user_rate`.
    pub fn of_user<'r>(&'r self, user: &'r User) -> Option<Count<'r>> {
        let kind = Kind::User {
            provider: &user.provider,
            name: &user.name,
        };
        self.per_user.as_ref().map(|limit| Count { limit, kind })
    }
}

/// Reads `[rate]` of an application, or of a path within `outer`. What is not said holds as `outer`
/// says it, and is counted together with it; what is said is counted by itself, under `scope`, which
/// must name the application or path and no other.
pub fn read(table: Option<&Table>, scope: &str, outer: &Rule) -> Rule {
    let Some(table) = table else {
        return outer.clone();
    };
    let burst = table
        .integer("burst", 1..=1_000_000)
        .and_then(|burst| NonZeroU32::new(u32::try_from(burst).ok()?));
    let limit = |key, outer: &Option<Limit>, burst: Option<NonZeroU32>| {
        let said = table.value(key, |text| match text {
            "off" => Ok(None),
            text => Rate::parse(text)
                .map(Some)
                .map_err(|error| error + ", or `off`"),
        });
        let rate = match said {
            None if burst.is_none() => return outer.clone(),
            None => outer.as_ref()?.rate,
            Some(rate) => rate?,
        };
        Limit::new(rate, burst.unwrap_or(rate.count), scope)
            .map_err(|expected| table.problem("burst", format!("expected {expected}"), None))
            .ok()
    };
    Rule {
        per_client: limit("per_client", &outer.per_client, burst),
        per_user: limit("per_user", &outer.per_user, burst),
        per_app: limit("per_app", &outer.per_app, None),
    }
}

/// Proofs for the tests of the stages after this one.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::pipeline::network;

    /// The proof that the client at `ip` has not asked too often.
    pub(crate) fn permit(ip: &str) -> Permit {
        Permit(network::testing::client(ip))
    }
}

#[cfg(test)]
mod tests;
