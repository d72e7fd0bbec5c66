//! What was verified a moment ago: tokens and passwords, remembered by keyed hashes.
//!
//! Holds no password and no token. A key is a tag over parts behind their lengths, the method and
//! its generation among them, so that neither two users nor two methods can share an answer
//! (SECURITY.md T2, J5), and an answer ends when the accounts or keys it rests on change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::pure::identity::User;
use crate::pure::session::Seconds;

/// The tag of what was verified.
pub type Key = [u8; 32];

const SHARDS: usize = 16;
/// Answers in one shard; when it is full and none has run out, it begins anew.
const SHARD_ANSWERS: usize = 512;

/// Verified users, or what else was found, by key, until a time each.
pub struct Verified<T = Arc<User>> {
    shards: [Shard<T>; SHARDS],
}

type Shard<T> = RwLock<HashMap<Key, (T, Seconds)>>;

impl<T> Default for Verified<T> {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
        }
    }
}

impl<T: Clone> Verified<T> {
    /// What was found with `key`, if that still holds.
    pub fn get(&self, key: &Key, now: SystemTime) -> Option<T> {
        let shard = self
            .shard(key)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let (user, until) = shard.get(key)?;
        (*until > Seconds::of(now)).then(|| user.clone())
    }

    /// Remembers that `key` is `user`, `until` then.
    pub fn put(&self, key: Key, user: T, until: Seconds, now: SystemTime) {
        let now = Seconds::of(now);
        let mut shard = self
            .shard(&key)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= SHARD_ANSWERS {
            shard.retain(|_, (_, until)| *until > now);
        }
        if shard.len() >= SHARD_ANSWERS {
            shard.clear();
        }
        shard.insert(key, (user, until));
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a number modulo SHARDS is below SHARDS"
    )]
    fn shard(&self, key: &Key) -> &Shard<T> {
        let [first, ..] = key;
        &self.shards[usize::from(*first) % SHARDS]
    }
}

/// Verifications that are under way: the same credentials sent over six connections at once cost
/// one hash, and one failure.
#[derive(Default)]
pub struct UnderWay(Mutex<HashMap<Key, watch::Receiver<Option<bool>>>>);

/// Whether to verify, or to wait for somebody who does.
pub enum Turn<'u> {
    /// Verify, and tell.
    Lead(Lead<'u>),
    /// Wait: `None` when nobody told, and the turn must be taken again.
    Follow(watch::Receiver<Option<bool>>),
}

/// Holds the turn; whoever waits is let go when it is dropped.
pub struct Lead<'u> {
    under_way: &'u UnderWay,
    key: Key,
    tell: watch::Sender<Option<bool>>,
}

impl UnderWay {
    /// A turn for `key`.
    pub fn enter(&self, key: Key) -> Turn<'_> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = map.get(&key) {
            return Turn::Follow(waiting.clone());
        }
        let (tell, told) = watch::channel(None);
        map.insert(key, told);
        Turn::Lead(Lead {
            under_way: self,
            key,
            tell,
        })
    }
}

impl Lead<'_> {
    /// Tells everybody who waits.
    pub fn tell(self, right: bool) {
        self.tell.send_replace(Some(right));
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.under_way
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

/// What the one who verifies tells; `None` if they went away.
pub async fn told(mut waiting: watch::Receiver<Option<bool>>) -> Option<bool> {
    waiting
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|told| *told)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn user(name: &str) -> Arc<User> {
        Arc::new(User {
            name: name.into(),
            provider: "basic".into(),
            email: None,
            groups: Vec::new(),
            claims: Arc::default(),
            signed_in_at: at(0),
        })
    }

    #[test]
    fn an_answer_holds_until_its_time_and_for_its_key() {
        let verified = Verified::default();
        verified.put([1; 32], user("bob"), Seconds(10), at(0));
        assert_eq!(&*verified.get(&[1; 32], at(9)).unwrap().name, "bob");
        assert!(verified.get(&[1; 32], at(10)).is_none());
        assert!(verified.get(&[2; 32], at(9)).is_none());
    }

    #[test]
    fn answers_are_bounded() {
        let verified = Verified::default();
        for number in 0..100_000_u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            verified.put(key, user("bob"), Seconds(10), at(0));
        }
        let held: usize = verified
            .shards
            .iter()
            .map(|shard| shard.read().unwrap().len())
            .sum();
        assert!(held <= SHARDS * SHARD_ANSWERS, "{held}");
    }

    #[tokio::test]
    async fn one_verifies_and_the_others_are_told() {
        let under_way = UnderWay::default();
        let Turn::Lead(lead) = under_way.enter([1; 32]) else {
            panic!("the first leads")
        };
        let Turn::Follow(follow) = under_way.enter([1; 32]) else {
            panic!("the second follows")
        };
        assert!(
            matches!(under_way.enter([2; 32]), Turn::Lead(_)),
            "another key is another turn"
        );
        lead.tell(true);
        assert_eq!(told(follow).await, Some(true));
        assert!(matches!(under_way.enter([1; 32]), Turn::Lead(_)));
    }

    #[tokio::test]
    async fn when_the_one_who_verifies_goes_away_the_next_takes_the_turn() {
        let under_way = UnderWay::default();
        let Turn::Lead(lead) = under_way.enter([1; 32]) else {
            panic!("the first leads")
        };
        let Turn::Follow(follow) = under_way.enter([1; 32]) else {
            panic!("the second follows")
        };
        drop(lead);
        assert_eq!(told(follow).await, None);
        assert!(matches!(under_way.enter([1; 32]), Turn::Lead(_)));
    }
}
