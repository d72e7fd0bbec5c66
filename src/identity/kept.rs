//! A document of an issuer, such as its keys: at a URL, and kept fresh ahead of time.
//!
//! | when | then |
//! |---|---|
//! | ten minutes have passed | it is fetched again, while the old one serves |
//! | somebody needs a newer one, as for a token of an unknown key | it is fetched, at most once in 30 s however many ask (SECURITY.md J4) |
//! | .. for a token that the issuer itself has just given | the same, counted apart, so that no stranger's token keeps new keys from being learned |
//! | a fetch fails, is too slow, too large or no such document | the last good one stays; again in 2 s, then 4, 8 .. 30 s |
//! | there never was a good one | nobody is let in by it (503) |
//!
//! One task for each URL fetches; requests only ever wait for it, and not for long.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::backend::fetch::{self, Client};
use crate::pure::session::Seconds;

/// How often a set is fetched when all is well.
const REFRESH: Duration = Duration::from_secs(600);
/// The least time between two fetches, whoever asks for them.
const SPACING: Duration = Duration::from_secs(30);
/// How soon after the first failure it is tried again; twice as long after each further one.
const RETRY: Duration = Duration::from_secs(2);
/// How long one fetch may take.
pub const FETCH_TIME: Duration = Duration::from_secs(5);

/// Why a fetch gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchFailed {
    /// No connection, or it broke.
    Unreachable,
    /// Longer than [`FETCH_TIME`].
    TooSlow,
    /// Larger than such a document may be.
    TooLarge,
    /// Answered, but not with 200; redirects are not followed.
    Status(u16),
    /// Answered with something else than such a document.
    Unusable(String),
}

impl std::fmt::Display for FetchFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable => f.write_str("the issuer can't be reached"),
            Self::TooSlow => f.write_str("the issuer took longer than 5 s"),
            Self::TooLarge => f.write_str("the document is too large"),
            Self::Status(status) => write!(f, "the issuer answered with status {status}"),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for FetchFailed {}

/// What can be kept.
pub trait Document: Sized {
    /// What it is, in the log.
    const WHAT: &'static str;
    /// The longest there may be.
    const MOST_BYTES: usize;

    /// The document of these bytes.
    ///
    /// # Errors
    /// Why they are none.
    fn parse(bytes: &[u8]) -> Result<Self, String>;
}

/// For whose token a newer document is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// One that anybody could have sent.
    Anybody,
    /// One that came from the issuer over TLS, when it was asked.
    Issuer,
}

/// Why there is no newer document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoNewer {
    /// It was fetched, and is the same.
    Same,
    /// It could not be fetched, or was a moment ago.
    Unfetched,
}

/// A document, shared by every core.
pub struct Kept<T> {
    url: Option<String>,
    current: ArcSwapOption<Loaded<T>>,
    /// When the next fetch is due, and before when there must be none because the last one failed.
    due: AtomicU64,
    resting: AtomicU64,
    /// Before when each kind of asker must not have another fetch.
    allowed: [AtomicU64; 2],
    /// Whether somebody waits for a fetch that is due.
    awaited: AtomicBool,
    failures: AtomicU32,
    asked: Arc<Notify>,
    attempts: watch::Sender<u64>,
    attended: AtomicBool,
}

/// A document, and which one it is.
pub struct Loaded<T> {
    /// What it says.
    pub value: T,
    /// Another number for each one with other contents; what was verified with an earlier one need
    /// not hold.
    pub generation: u64,
    bytes: Bytes,
}

impl<T> Kept<T> {
    /// A document that is at hand, and never fetched.
    pub fn fixed(value: T) -> Self {
        let kept = Self::new(None);
        kept.current.store(Some(Arc::new(Loaded {
            value,
            generation: 1,
            bytes: Bytes::new(),
        })));
        kept
    }

    /// The document at a URL, of which there is none before the first fetch.
    pub fn at(url: String) -> Self {
        Self::new(Some(url))
    }

    fn new(url: Option<String>) -> Self {
        Self {
            url,
            current: ArcSwapOption::empty(),
            due: AtomicU64::new(0),
            resting: AtomicU64::new(0),
            allowed: Default::default(),
            awaited: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            asked: Arc::default(),
            attempts: watch::Sender::new(0),
            attended: AtomicBool::new(false),
        }
    }

    /// The document as it is known now.
    pub fn current(&self) -> Option<Arc<Loaded<T>>> {
        self.current.load_full()
    }

    /// One other than `than`, fetched for somebody who needs it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn newer(
        &self,
        than: Option<u64>,
        asker: Asker,
        now: SystemTime,
    ) -> Result<Arc<Loaded<T>>, NoNewer> {
        let is_newer =
            |loaded: &Arc<Loaded<T>>| than.is_none_or(|generation| loaded.generation != generation);
        // Subscribed before the look, so that a fetch that ends in between is not missed.
        let mut attempts = self.attempts.subscribe();
        if let Some(loaded) = self.current().filter(is_newer) {
            return Ok(loaded);
        }
        if self.url.is_none() {
            return Err(NoNewer::Same);
        }
        let now = Seconds::of(now);
        // Whoever comes while one is under way waits for that one.
        if !self.awaited.swap(true, Ordering::AcqRel) {
            let [of_anybody, of_the_issuer] = &self.allowed;
            let allowed = match asker {
                Asker::Anybody => of_anybody,
                Asker::Issuer => of_the_issuer,
            };
            let rests = self.resting.load(Ordering::Relaxed);
            if now.0 < rests.max(allowed.load(Ordering::Relaxed)) {
                self.awaited.store(false, Ordering::Release);
                return Err(NoNewer::Unfetched);
            }
            allowed.store(now.plus(SPACING).0, Ordering::Relaxed);
            self.due.fetch_min(now.0, Ordering::Relaxed);
            self.asked.notify_one();
        }
        // With nobody to fetch, nobody waits for ever.
        let patience = FETCH_TIME.saturating_add(Duration::from_secs(1));
        match tokio::time::timeout(patience, attempts.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => {
                self.awaited.store(false, Ordering::Release);
                return Err(NoNewer::Unfetched);
            }
        }
        match self.current().filter(is_newer) {
            Some(loaded) => Ok(loaded),
            None if self.failures.load(Ordering::Relaxed) > 0 => Err(NoNewer::Unfetched),
            None => Err(NoNewer::Same),
        }
    }

    /// Tells after each fetch that there was one.
    pub fn learned(&self) -> watch::Receiver<u64> {
        self.attempts.subscribe()
    }

    /// Whether nobody keeps it fresh yet; the one who asks first has to.
    pub fn needs_attendance(&self) -> bool {
        self.url.is_some() && !self.attended.swap(true, Ordering::Relaxed)
    }
}

impl<T: Document> Kept<T> {
    /// Keeps the document fresh by `fetch`, until nobody else holds it. `fetch` follows no redirects,
    /// and stops at [`Document::MOST_BYTES`].
    pub async fn keep_fresh<Fetched>(
        kept: Weak<Self>,
        fetch: impl Fn(&str) -> Fetched,
        now: impl Fn() -> SystemTime,
    ) where
        Fetched: Future<Output = Result<Bytes, FetchFailed>>,
    {
        while let Some(held) = kept.upgrade() {
            let wait = held.due_in(now());
            if wait.is_zero() {
                held.refresh(&fetch, now()).await;
                continue;
            }
            let asked = Arc::clone(&held.asked);
            drop(held);
            // A minute at most, to notice that nobody holds it any more.
            drop(tokio::time::timeout(wait.min(Duration::from_secs(60)), asked.notified()).await);
        }
    }

    fn due_in(&self, now: SystemTime) -> Duration {
        let rests = self.resting.load(Ordering::Relaxed);
        let due = self.due.load(Ordering::Relaxed).max(rests);
        Duration::from_secs(due.saturating_sub(Seconds::of(now).0))
    }

    /// Fetches once.
    async fn refresh<Fetched>(&self, fetch: impl Fn(&str) -> Fetched, now: SystemTime)
    where
        Fetched: Future<Output = Result<Bytes, FetchFailed>>,
    {
        let Some(url) = self.url.as_deref() else {
            return;
        };
        let now = Seconds::of(now);
        // Before the fetch, not after: one that hangs or is dropped counts too.
        self.due.store(now.plus(REFRESH).0, Ordering::Relaxed);
        let fetched = tokio::time::timeout(FETCH_TIME, fetch(url)).await;
        let learned = fetched
            .unwrap_or(Err(FetchFailed::TooSlow))
            .and_then(|bytes| {
                if bytes.len() > T::MOST_BYTES {
                    return Err(FetchFailed::TooLarge);
                }
                let value = T::parse(&bytes).map_err(FetchFailed::Unusable)?;
                Ok((value, bytes))
            });
        match learned {
            Ok((value, bytes)) => {
                self.failures.store(0, Ordering::Relaxed);
                self.learn(value, bytes, url);
            }
            Err(why) => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed);
                let wait = RETRY
                    .saturating_mul(2_u32.saturating_pow(failures))
                    .min(SPACING);
                self.resting.store(now.plus(wait).0, Ordering::Relaxed);
                self.due.store(now.plus(wait).0, Ordering::Relaxed);
                let kept = if self.current().is_some() {
                    "the last good one"
                } else {
                    "none"
                };
                warn!(
                    url,
                    what = T::WHAT,
                    error = %why,
                    kept,
                    retry_s = wait.as_secs(),
                    "document of an issuer not fetched; trying again"
                );
            }
        }
        self.awaited.store(false, Ordering::Release);
        self.attempts
            .send_modify(|attempts| *attempts = attempts.wrapping_add(1));
    }

    fn learn(&self, value: T, bytes: Bytes, url: &str) {
        let before = self.current();
        if before.as_ref().is_some_and(|before| before.bytes == bytes) {
            return;
        }
        info!(url, what = T::WHAT, "document of an issuer fetched");
        let generation = before.map_or(1, |before| before.generation.wrapping_add(1));
        self.current.store(Some(Arc::new(Loaded {
            value,
            generation,
            bytes,
        })));
    }
}

/// A document at `url`, as [`Kept::keep_fresh`] has it fetched.
///
/// # Errors
/// Why there is none.
pub async fn fetched<T: Document>(client: Client, url: String) -> Result<Bytes, FetchFailed> {
    client
        .get(&url, T::MOST_BYTES, FETCH_TIME)
        .await
        .map_err(|error| match error {
            fetch::Error::Url | fetch::Error::Backend(_) => FetchFailed::Unreachable,
            fetch::Error::Status(status) => FetchFailed::Status(status.as_u16()),
            fetch::Error::Content => FetchFailed::TooLarge,
            fetch::Error::Timeout => FetchFailed::TooSlow,
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::time::UNIX_EPOCH;

    use crate::identity::jwks::Keys;
    use crate::pure::jwk::tests::{Signer, set};
    use crate::pure::jwk::{Algorithm, MAX_SET_BYTES};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn key_set(kid: &str) -> Bytes {
        set(&[Signer::ed25519().jwk(kid)]).into()
    }

    /// An issuer that answers with what it is told, and counts.
    struct Issuer {
        answer: Mutex<Result<Bytes, FetchFailed>>,
        fetches: AtomicUsize,
    }

    impl Issuer {
        fn new(kid: &str) -> Arc<Self> {
            Arc::new(Self {
                answer: Mutex::new(Ok(key_set(kid))),
                fetches: AtomicUsize::new(0),
            })
        }

        fn answer(&self, answer: Result<Bytes, FetchFailed>) {
            *self.answer.lock().unwrap() = answer;
        }

        fn fetches(&self) -> usize {
            self.fetches.load(Ordering::Relaxed)
        }

        fn fetch(
            self: &Arc<Self>,
        ) -> impl Fn(&str) -> std::future::Ready<Result<Bytes, FetchFailed>> + use<> {
            let issuer = Arc::clone(self);
            move |url| {
                assert_eq!(url, "https://idp.test/jwks");
                issuer.fetches.fetch_add(1, Ordering::Relaxed);
                std::future::ready(issuer.answer.lock().unwrap().clone())
            }
        }
    }

    fn keys() -> Arc<Keys> {
        Arc::new(Keys::at("https://idp.test/jwks".to_owned()))
    }

    fn knows(keys: &Keys, kid: &str) -> bool {
        keys.current()
            .is_some_and(|loaded| loaded.value.find(Algorithm::EdDsa, Some(kid)).is_ok())
    }

    #[tokio::test]
    async fn keys_are_fetched_at_once_and_again_ahead_of_time() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        assert!(keys.current().is_none());
        assert_eq!(keys.due_in(at(0)), Duration::ZERO);
        keys.refresh(issuer.fetch(), at(0)).await;
        assert!(knows(&keys, "a"));
        assert_eq!(keys.due_in(at(1)), REFRESH - Duration::from_secs(1));
        issuer.answer(Ok(key_set("b")));
        keys.refresh(issuer.fetch(), at(600)).await;
        assert!(knows(&keys, "b") && !knows(&keys, "a"));
    }

    #[tokio::test]
    async fn the_last_good_keys_serve_while_the_issuer_is_down() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        keys.refresh(issuer.fetch(), at(0)).await;
        for failure in [
            Err(FetchFailed::Unreachable),
            Err(FetchFailed::Status(302)),
            Ok(Bytes::from_static(b"<html>")),
            Ok(Bytes::from_static(br#"{"keys":[]}"#)),
            Ok(vec![b' '; MAX_SET_BYTES + 1].into()),
        ] {
            issuer.answer(failure);
            keys.refresh(issuer.fetch(), at(600)).await;
            assert!(knows(&keys, "a"));
            let waits = [2, 4, 8, 16, 30];
            let wait = waits[issuer.fetches() - 2];
            assert_eq!(keys.due_in(at(600)), Duration::from_secs(wait));
        }
    }

    #[tokio::test]
    async fn the_same_keys_again_are_not_another_generation() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        keys.refresh(issuer.fetch(), at(0)).await;
        keys.refresh(issuer.fetch(), at(600)).await;
        assert_eq!(keys.current().unwrap().generation, 1);
        issuer.answer(Ok(key_set("a")));
        keys.refresh(issuer.fetch(), at(1200)).await;
        assert_eq!(keys.current().unwrap().generation, 2);
    }

    #[tokio::test]
    async fn unknown_keys_are_fetched_at_a_bounded_rate_j4() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        keys.refresh(issuer.fetch(), at(0)).await;
        let task = tokio::spawn(Keys::keep_fresh(
            Arc::downgrade(&keys),
            issuer.fetch(),
            || at(40),
        ));
        // A thousand tokens with random keys at one moment, and a thousand more after it.
        for _ in 0..2 {
            let asking = (0..1000).map(|_| {
                let keys = Arc::clone(&keys);
                tokio::spawn(
                    async move { keys.newer(Some(1), Asker::Anybody, at(40)).await.is_err() },
                )
            });
            for asked in asking.collect::<Vec<_>>() {
                assert!(asked.await.unwrap());
            }
        }
        assert_eq!(issuer.fetches(), 2);
        task.abort();
    }

    #[tokio::test]
    async fn unknown_keys_are_fetched_at_a_bounded_rate_though_the_issuer_is_down_j4() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        issuer.answer(Err(FetchFailed::Unreachable));
        let task = tokio::spawn(Keys::keep_fresh(
            Arc::downgrade(&keys),
            issuer.fetch(),
            || at(40),
        ));
        for _ in 0..1000 {
            assert!(keys.newer(None, Asker::Anybody, at(40)).await.is_err());
        }
        assert_eq!(issuer.fetches(), 1);
        task.abort();
    }

    #[tokio::test]
    async fn whoever_needs_a_new_key_gets_it_as_soon_as_it_is_there() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        keys.refresh(issuer.fetch(), at(0)).await;
        issuer.answer(Ok(key_set("b")));
        let task = tokio::spawn(Keys::keep_fresh(
            Arc::downgrade(&keys),
            issuer.fetch(),
            || at(1),
        ));
        assert_eq!(
            keys.newer(Some(1), Asker::Anybody, at(1))
                .await
                .unwrap()
                .generation,
            2
        );
        assert!(knows(&keys, "b"));
        issuer.answer(Ok(key_set("c")));
        let soon = keys.newer(Some(2), Asker::Anybody, at(30)).await;
        assert_eq!(soon.err(), Some(NoNewer::Unfetched), "too soon");
        assert_eq!(issuer.fetches(), 2);
        task.abort();
    }

    #[tokio::test]
    async fn whoever_keeps_them_fresh_stops_when_nobody_holds_them() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        assert!(keys.needs_attendance());
        assert!(!keys.needs_attendance());
        let weak = Arc::downgrade(&keys);
        drop(keys);
        Keys::keep_fresh(weak, issuer.fetch(), || at(0)).await;
        assert_eq!(issuer.fetches(), 0);
    }

    #[tokio::test]
    async fn a_fetch_that_fails_is_not_taken_for_the_same_keys() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        keys.refresh(issuer.fetch(), at(0)).await;
        issuer.answer(Err(FetchFailed::Unreachable));
        let task = tokio::spawn(Keys::keep_fresh(
            Arc::downgrade(&keys),
            issuer.fetch(),
            || at(1),
        ));
        let down = keys.newer(Some(1), Asker::Issuer, at(1)).await;
        assert_eq!(down.err(), Some(NoNewer::Unfetched));
        task.abort();
    }

    #[tokio::test]
    async fn strangers_do_not_use_up_what_is_fetched_for_tokens_of_the_issuer() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        keys.refresh(issuer.fetch(), at(0)).await;
        let task = tokio::spawn(Keys::keep_fresh(
            Arc::downgrade(&keys),
            issuer.fetch(),
            || at(1),
        ));
        let stranger = keys.newer(Some(1), Asker::Anybody, at(1)).await;
        assert_eq!(stranger.err(), Some(NoNewer::Same));
        issuer.answer(Ok(key_set("b")));
        let again = keys.newer(Some(1), Asker::Anybody, at(1)).await;
        assert_eq!(again.err(), Some(NoNewer::Unfetched));
        assert!(keys.newer(Some(1), Asker::Issuer, at(1)).await.is_ok());
        task.abort();
    }
}
