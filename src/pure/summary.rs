//! What people are shown of a session that they do not hold: on which device, where and when.
//!
//! A record opens with its own cookie only. So that somebody can see their other sessions, and the
//! operator all, a summary stands before the record in the store, under a key that the gates keep apart
//! from the store. It holds no secret: whoever reads it is signed in nowhere.
//!
//! | bytes of a row | what |
//! |---|---|
//! | 1 | the version, unlike that of any envelope |
//! | 2 | how long the sealed summary is; 0 where there is none |
//! | so many | the sealed summary |
//! | the rest | the sealed record |

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::seal::{Key, NONCE_BYTES};
use super::session::{Hash, Record, Seconds};

const VERSION: u8 = 2;
/// The longest summary; of what is longer there is none.
const MAX_BYTES: usize = 4096;

/// What is shown of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Who vouched for the user.
    pub provider: String,
    /// The user's name.
    pub name: String,
    /// The host that it is for.
    pub host: String,
    /// When they signed in, in seconds since 1970.
    pub created: u64,
    /// When it ends, whatever happens.
    pub expires: u64,
    /// The address that signed in.
    pub client: IpAddr,
    /// The browser that signed in, as it named itself.
    pub user_agent: String,
    /// The session that it was made of.
    pub parent: Option<[u8; 32]>,
}

impl Summary {
    /// The summary of a record.
    pub fn of(record: &Record) -> Self {
        Self {
            provider: record.user.provider.to_string(),
            name: record.user.name.to_string(),
            host: record.host.clone(),
            created: record.created.0,
            expires: record.expires.0,
            client: record.client,
            user_agent: record.user_agent().to_owned(),
            parent: record.parent.as_ref().map(|parent| parent.id().hash().0),
        }
    }

    /// When it ends, whatever happens.
    pub const fn expires(&self) -> Seconds {
        Seconds(self.expires)
    }

    /// The row of a session: this before its sealed `record`. `nonce` is random.
    pub fn before(
        &self,
        record: &[u8],
        key: &Key,
        hash: Hash,
        nonce: [u8; NONCE_BYTES],
    ) -> Vec<u8> {
        let plain = serde_json::to_vec(self).unwrap_or_default();
        // What can't be shown keeps nobody from signing in.
        let sealed = if plain.len() <= MAX_BYTES {
            key.seal(nonce, &hash.0, &plain).unwrap_or_default()
        } else {
            Vec::new()
        };
        let length = u16::try_from(sealed.len()).unwrap_or_default();
        let room = sealed.len().saturating_add(record.len());
        let mut row = Vec::with_capacity(room.saturating_add(3));
        row.push(VERSION);
        row.extend_from_slice(&length.to_be_bytes());
        row.extend_from_slice(&sealed);
        row.extend_from_slice(record);
        row
    }

    /// The summary in a row; none if it has none that was sealed with this key for this session.
    pub fn in_row(row: &[u8], key: &Key, hash: Hash) -> Option<Self> {
        let (sealed, _) = split(row);
        let plain = key.open(&hash.0, sealed?).ok()?;
        serde_json::from_slice(&plain).ok()
    }
}

/// The sealed record in a row.
pub fn record_in(row: &[u8]) -> &[u8] {
    split(row).1
}

/// A row of a gate that knew no summaries is an envelope alone; what is cut short opens as nothing.
fn split(row: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match row {
        [VERSION, high, low, rest @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            match rest.split_at_checked(length) {
                Some((sealed, record)) => (Some(sealed), record),
                None => (None, &[]),
            }
        }
        _ => (None, row),
    }
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// No bytes have a summary that nobody sealed, and what is taken for the record is their end.
    #[expect(clippy::expect_used, reason = "a panic is the finding")]
    pub fn session_row(bytes: &[u8]) {
        let key = Key::derive(&[1; 32], b"fuzz").expect("a key");
        assert!(Summary::in_row(bytes, &key, Hash([0; 32])).is_none());
        assert!(bytes.ends_with(record_in(bytes)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::derive(&[byte; 32], b"test").unwrap()
    }

    fn summary() -> Summary {
        Summary {
            provider: "corp".to_owned(),
            name: "anna".to_owned(),
            host: "wiki.test".to_owned(),
            created: 1,
            expires: 2,
            client: "192.0.2.1".parse().unwrap(),
            user_agent: "Mozilla/5.0".to_owned(),
            parent: Some([7; 32]),
        }
    }

    #[test]
    fn a_row_gives_its_record_and_to_the_key_its_summary() {
        let hash = Hash([1; 32]);
        let row = summary().before(b"\x01record", &key(1), hash, [0; 12]);
        assert_eq!(record_in(&row), b"\x01record");
        assert_eq!(Summary::in_row(&row, &key(1), hash), Some(summary()));
        assert_eq!(Summary::in_row(&row, &key(2), hash), None);
        assert_eq!(Summary::in_row(&row, &key(1), Hash([2; 32])), None);
    }

    #[test]
    fn a_row_without_a_summary_gives_its_record() {
        assert_eq!(record_in(b"\x01record"), b"\x01record");
        let hash = Hash([1; 32]);
        assert_eq!(Summary::in_row(b"\x01record", &key(1), hash), None);
        let long = Summary {
            user_agent: "x".repeat(MAX_BYTES),
            ..summary()
        };
        let row = long.before(b"\x01record", &key(1), hash, [0; 12]);
        assert_eq!(record_in(&row), b"\x01record");
        assert_eq!(Summary::in_row(&row, &key(1), hash), None);
    }

    #[test]
    fn a_row_that_is_cut_short_gives_nothing() {
        let hash = Hash([1; 32]);
        let row = summary().before(b"", &key(1), hash, [0; 12]);
        for end in 0..row.len() {
            let cut = &row[..end];
            assert_eq!(Summary::in_row(cut, &key(1), hash), None);
            assert!(end == 1 || end == 2 || record_in(cut).is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_row_that_nobody_wrote(bytes: Vec<u8>) {
            fuzzing::session_row(&bytes);
        }
    }
}
