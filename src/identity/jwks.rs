//! The keys of issuers: from a file, or from a URL, kept fresh ahead of time.
//!
//! | when | then |
//! |---|---|
//! | ten minutes have passed | the set is fetched again, while the old one serves |
//! | a token names an unknown key | the set is fetched, at most once in 30 s however many tokens do (SECURITY.md J4) |
//! | a fetch fails, is too slow, too large or no key set | the last good set stays; again in 30 s |
//! | there never was a good set | nobody is let in by it (503) |
//!
//! One task for each URL fetches; requests only ever wait for it, and not for long.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::pure::jwk::{BadKeySet, KeySet};
use crate::pure::session::Seconds;

/// How often a set is fetched when all is well.
const REFRESH: Duration = Duration::from_secs(600);
/// The least time between two fetches, whoever asks for them.
const SPACING: Duration = Duration::from_secs(30);
/// How long one fetch may take.
pub const FETCH_TIME: Duration = Duration::from_secs(5);

/// Why a fetch gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchFailed {
    /// No connection, or it broke.
    Unreachable,
    /// Longer than [`FETCH_TIME`].
    TooSlow,
    /// Larger than a key set may be.
    TooLarge,
    /// Answered, but not with 200; redirects are not followed.
    Status(u16),
    /// Answered with something that is no key set.
    NotKeys(BadKeySet),
}

impl std::fmt::Display for FetchFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable => f.write_str("the issuer can't be reached"),
            Self::TooSlow => f.write_str("the issuer took longer than 5 s"),
            Self::TooLarge => f.write_str("the key set is larger than 256 KiB"),
            Self::Status(status) => write!(f, "the issuer answered with status {status}"),
            Self::NotKeys(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for FetchFailed {}

/// Why the keys of a file can't be used.
#[derive(Debug)]
pub enum BadFile {
    /// It can't be read.
    Unreadable(std::io::Error),
    /// It is no key set.
    NotKeys(BadKeySet),
}

impl std::fmt::Display for BadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "the key set can't be read: {why}"),
            Self::NotKeys(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for BadFile {}

/// An issuer's keys, shared by every core.
pub struct Keys {
    url: Option<String>,
    current: ArcSwapOption<Loaded>,
    /// When the next fetch is due, and before when there must be none.
    due: AtomicU64,
    allowed: AtomicU64,
    asked: Arc<Notify>,
    attempts: watch::Sender<u64>,
    attended: AtomicBool,
}

/// A set of keys, and which one it is.
pub struct Loaded {
    /// The keys.
    pub set: KeySet,
    /// Another number for each set with other contents; what was verified with an earlier one need
    /// not hold.
    pub generation: u64,
    bytes: Bytes,
}

impl Keys {
    /// The keys in a file.
    ///
    /// # Errors
    /// Why they can't be used.
    pub fn from_file(path: &Path) -> Result<Self, BadFile> {
        let bytes = std::fs::read(path).map_err(BadFile::Unreadable)?;
        let set = KeySet::parse(&bytes).map_err(BadFile::NotKeys)?;
        let keys = Self::new(None);
        keys.current.store(Some(Arc::new(Loaded {
            set,
            generation: 1,
            bytes: bytes.into(),
        })));
        Ok(keys)
    }

    /// The keys at a URL, of which there are none before the first fetch.
    pub fn at(url: String) -> Self {
        Self::new(Some(url))
    }

    fn new(url: Option<String>) -> Self {
        Self {
            url,
            current: ArcSwapOption::empty(),
            due: AtomicU64::new(0),
            allowed: AtomicU64::new(0),
            asked: Arc::default(),
            attempts: watch::Sender::new(0),
            attended: AtomicBool::new(false),
        }
    }

    /// The keys as they are known now.
    pub fn current(&self) -> Option<Arc<Loaded>> {
        self.current.load_full()
    }

    /// Keys other than `than`, fetched for somebody who needs them; none if there are no others, or
    /// if it was tried a moment ago.
    pub async fn newer(&self, than: Option<u64>, now: SystemTime) -> Option<Arc<Loaded>> {
        let is_newer =
            |loaded: &Arc<Loaded>| than.is_none_or(|generation| loaded.generation != generation);
        // Subscribed before the look, so that a fetch that ends in between is not missed.
        let mut attempts = self.attempts.subscribe();
        if let Some(loaded) = self.current().filter(is_newer) {
            return Some(loaded);
        }
        let now = Seconds::of(now).0;
        if self.url.is_none() || now < self.allowed.load(Ordering::Relaxed) {
            return None;
        }
        self.due.fetch_min(now, Ordering::Relaxed);
        self.asked.notify_one();
        // With nobody to fetch, nobody waits for ever.
        let patience = FETCH_TIME.saturating_add(Duration::from_secs(1));
        tokio::time::timeout(patience, attempts.changed())
            .await
            .ok()?
            .ok()?;
        self.current().filter(is_newer)
    }

    /// Whether nobody keeps these fresh yet; the one who asks first has to.
    pub fn needs_attendance(&self) -> bool {
        self.url.is_some() && !self.attended.swap(true, Ordering::Relaxed)
    }

    /// Keeps the keys fresh by `fetch`, until nobody else holds them. `fetch` follows no redirects,
    /// and stops at [`crate::pure::jwk::MAX_SET_BYTES`].
    pub async fn keep_fresh<Fetched>(
        keys: Weak<Self>,
        fetch: impl Fn(&str) -> Fetched,
        now: impl Fn() -> SystemTime,
    ) where
        Fetched: Future<Output = Result<Bytes, FetchFailed>>,
    {
        while let Some(held) = keys.upgrade() {
            let wait = held.due_in(now());
            if wait.is_zero() {
                held.refresh(&fetch, now()).await;
                continue;
            }
            let asked = Arc::clone(&held.asked);
            drop(held);
            // A minute at most, to notice that nobody holds the keys any more.
            drop(tokio::time::timeout(wait.min(Duration::from_secs(60)), asked.notified()).await);
        }
    }

    fn due_in(&self, now: SystemTime) -> Duration {
        let due = self
            .due
            .load(Ordering::Relaxed)
            .max(self.allowed.load(Ordering::Relaxed));
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
        self.allowed.store(now.plus(SPACING).0, Ordering::Relaxed);
        self.due.store(now.plus(REFRESH).0, Ordering::Relaxed);
        let fetched = tokio::time::timeout(FETCH_TIME, fetch(url)).await;
        let learned = fetched
            .unwrap_or(Err(FetchFailed::TooSlow))
            .and_then(|bytes| {
                let set = KeySet::parse(&bytes).map_err(FetchFailed::NotKeys)?;
                Ok((set, bytes))
            });
        match learned {
            Ok((set, bytes)) => self.learn(set, bytes, url),
            Err(why) => {
                self.due.store(now.plus(SPACING).0, Ordering::Relaxed);
                let kept = if self.current().is_some() {
                    "the last good ones"
                } else {
                    "none"
                };
                warn!(url, error = %why, kept, "signing keys not fetched; trying again in 30 s");
            }
        }
        self.attempts
            .send_modify(|attempts| *attempts = attempts.wrapping_add(1));
    }

    fn learn(&self, set: KeySet, bytes: Bytes, url: &str) {
        let before = self.current();
        if before.as_ref().is_some_and(|before| before.bytes == bytes) {
            return;
        }
        let passed_over: Vec<_> = set.passed_over().iter().map(|why| why.name()).collect();
        info!(
            url,
            keys = set.usable(),
            ?passed_over,
            "signing keys fetched"
        );
        let generation = before.map_or(1, |before| before.generation.wrapping_add(1));
        self.current.store(Some(Arc::new(Loaded {
            set,
            generation,
            bytes,
        })));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::time::UNIX_EPOCH;

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
            .is_some_and(|loaded| loaded.set.find(Algorithm::EdDsa, Some(kid)).is_ok())
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
            assert_eq!(keys.due_in(at(600)), SPACING);
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
                tokio::spawn(async move { keys.newer(Some(1), at(40)).await.is_none() })
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
            assert!(keys.newer(None, at(40)).await.is_none());
        }
        assert_eq!(issuer.fetches(), 1);
        task.abort();
    }

    #[tokio::test]
    async fn whoever_needs_a_new_key_gets_it_as_soon_as_it_is_there() {
        let (keys, issuer) = (keys(), Issuer::new("a"));
        keys.refresh(issuer.fetch(), at(0)).await;
        issuer.answer(Ok(key_set("b")));
        assert!(keys.newer(Some(1), at(29)).await.is_none(), "too soon");
        assert_eq!(issuer.fetches(), 1);
        let task = tokio::spawn(Keys::keep_fresh(
            Arc::downgrade(&keys),
            issuer.fetch(),
            || at(30),
        ));
        assert_eq!(keys.newer(Some(1), at(30)).await.unwrap().generation, 2);
        assert!(knows(&keys, "b"));
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
    async fn keys_of_a_file_are_there_at_once_and_never_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        std::fs::write(&path, key_set("a")).unwrap();
        let keys = Keys::from_file(&path).unwrap();
        assert!(knows(&keys, "a"));
        assert!(!keys.needs_attendance());
        assert!(keys.newer(Some(1), at(40)).await.is_none());
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(
            Keys::from_file(&path),
            Err(BadFile::NotKeys(BadKeySet::NotASet))
        ));
        let missing = Keys::from_file(&dir.path().join("none"));
        assert!(matches!(missing, Err(BadFile::Unreadable(_))));
    }
}
