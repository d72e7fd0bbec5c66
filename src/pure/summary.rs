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

use super::seal::{Key, NONCE_BYTES};
use super::session::{Hash, Seconds};

const VERSION: u8 = 2;
/// The longest summary; of what is longer there is none.
const MAX_BYTES: usize = 4096;

/// What is shown of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Who vouched for the user.
    pub provider: String,
    /// The user's name.
    pub name: String,
    /// The host that it is for.
    pub host: String,
    /// When they signed in.
    pub created: Seconds,
    /// When it ends, whatever happens.
    pub expires: Seconds,
    /// The address that signed in.
    pub client: IpAddr,
    /// The browser that signed in, as people call it.
    pub browser: String,
    /// The session that it was made of.
    pub parent: Option<Hash>,
}

/// A summary as it is written: an array, for names would take more room than what they name.
type Written = (String, String, String, u64, u64, IpAddr, String, String);

impl Summary {
    /// Sealed with `key` for one session; nothing where it can't be, which keeps nobody from signing
    /// in. `nonce` is random.
    pub fn seal(self, key: &Key, hash: Hash, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let parent = self
            .parent
            .map_or_else(String::new, |hash| hash.to_string());
        let written: Written = (
            self.provider,
            self.name,
            self.host,
            self.created.0,
            self.expires.0.saturating_sub(self.created.0),
            self.client,
            self.browser,
            parent,
        );
        let plain = serde_json::to_vec(&written).unwrap_or_default();
        if plain.len() > MAX_BYTES {
            return Vec::new();
        }
        key.seal(nonce, &hash.0, &plain).unwrap_or_default()
    }

    /// The summary in a row; none if it has none that was sealed with this key for this session.
    pub fn in_row(row: &[u8], key: &Key, hash: Hash) -> Option<Self> {
        let plain = key.open(&hash.0, summary_in(row)).ok()?;
        let (provider, name, host, created, lasts, client, browser, parent): Written =
            serde_json::from_slice(&plain).ok()?;
        Some(Self {
            provider,
            name,
            host,
            created: Seconds(created),
            expires: Seconds(created.saturating_add(lasts)),
            client,
            browser,
            parent: Hash::parse(parent.as_bytes()),
        })
    }
}

/// The row of a session: its sealed summary, and its sealed record.
pub fn row(summary: &[u8], record: &[u8]) -> Vec<u8> {
    let (length, summary) = match u16::try_from(summary.len()) {
        Ok(length) => (length, summary),
        Err(_) => (0, &[][..]),
    };
    [&[VERSION][..], &length.to_be_bytes(), summary, record].concat()
}

/// The sealed summary in a row.
pub fn summary_in(row: &[u8]) -> &[u8] {
    split(row).0
}

/// The sealed record in a row.
pub fn record_in(row: &[u8]) -> &[u8] {
    split(row).1
}

/// What is no row, or cut short, has neither: it opens as nothing.
fn split(row: &[u8]) -> (&[u8], &[u8]) {
    match row {
        [VERSION, high, low, rest @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            rest.split_at_checked(length).unwrap_or_default()
        }
        _ => (&[], &[]),
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
        let (summary, record) = (summary_in(bytes), record_in(bytes));
        let is_row = bytes.ends_with(&[summary, record].concat());
        assert!(is_row);
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
            created: Seconds(1),
            expires: Seconds(2),
            client: "2001:db8::1".parse().unwrap(),
            browser: "Firefox on Linux".to_owned(),
            parent: Some(Hash([7; 32])),
        }
    }

    #[test]
    fn a_row_gives_its_record_and_to_the_key_its_summary() {
        let hash = Hash([1; 32]);
        for parent in [None, Some(Hash([7; 32]))] {
            let summary = Summary {
                parent,
                ..summary()
            };
            let sealed = summary.clone().seal(&key(1), hash, [0; 12]);
            let row = row(&sealed, b"record");
            assert_eq!(
                (summary_in(&row), record_in(&row)),
                (&*sealed, &b"record"[..])
            );
            assert_eq!(Summary::in_row(&row, &key(1), hash), Some(summary));
            assert_eq!(Summary::in_row(&row, &key(2), hash), None);
            assert_eq!(Summary::in_row(&row, &key(1), Hash([2; 32])), None);
        }
    }

    #[test]
    fn a_row_without_a_summary_gives_its_record() {
        let hash = Hash([1; 32]);
        let long = Summary {
            name: "x".repeat(MAX_BYTES),
            ..summary()
        };
        for sealed in [long.seal(&key(1), hash, [0; 12]), vec![0; 70_000]] {
            let row = row(&sealed, b"record");
            assert_eq!(record_in(&row), b"record");
            assert_eq!(Summary::in_row(&row, &key(1), hash), None);
        }
    }

    #[test]
    fn a_row_that_is_cut_short_gives_nothing() {
        let row = row(&summary().seal(&key(1), Hash([1; 32]), [0; 12]), b"");
        for end in 0..row.len() {
            assert_eq!(split(&row[..end]), (&[][..], &[][..]));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_row_that_nobody_wrote(bytes: Vec<u8>) {
            fuzzing::session_row(&bytes);
        }
    }
}
