//! When keys that sign come and go, and the file that keeps them.
//!
//! | a key | from | until |
//! |---|---|---|
//! | is published | it is made | a day after its successor began to sign |
//! | signs | a day after it was made; the first one at once | its successor signs |
//!
//! So whoever fetched the published keys within a day of a signature, before or after, can verify it:
//! no rotation leaves a gap. The file has one line for each key, the oldest first: the second in which
//! it was made, a space, and the key pair (PKCS#8) in base64url.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::session::Seconds;

/// How long a key is published before it signs.
pub const LEAD: Duration = Duration::from_secs(24 * 3600);
/// How long it stays published after it signed last.
pub const TAIL: Duration = Duration::from_secs(24 * 3600);
/// The shortest time from one key to the next: a shorter one would pile keys up.
pub const SHORTEST: Duration = Duration::from_secs(2 * 24 * 3600);

/// Of a file: what is longer was not written by us.
const MAX_KEYS: usize = 16;
/// A P-256 pair takes 138.
const MAX_PAIR_BYTES: usize = 512;

/// What is to be done with the keys that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How many of the oldest are no longer published.
    pub drop: usize,
    /// Whether a new one is to be published.
    pub make: bool,
}

/// Which key signs at `now`, of those made at these times, the oldest first; none of none.
pub fn signer(made: &[Seconds], now: Seconds) -> Option<usize> {
    let ready = made.iter().rposition(|made| made.plus(LEAD) <= now);
    // The first key of all signs at once: nobody can have fetched an older set.
    (!made.is_empty()).then(|| ready.unwrap_or(0))
}

/// What is to be done at `now`, where each key signs for as long as `every`.
pub fn plan(made: &[Seconds], now: Seconds, every: Duration) -> Plan {
    let successors = made.iter().skip(1);
    let drop = successors
        .take_while(|next| next.plus(LEAD).plus(TAIL) <= now)
        .count();
    let every = every.max(SHORTEST);
    // What is made now signs in a day, when the newest has signed for `every`.
    let make = made.last().is_none_or(|newest| newest.plus(every) <= now);
    Plan { drop, make }
}

/// A key pair as the file has it.
pub struct Stored {
    /// When it was made, and published.
    pub made: Seconds,
    /// The pair.
    pub pkcs8: Zeroizing<Vec<u8>>,
}

/// A line of the file is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLine(pub usize);

/// Reads the file.
///
/// # Errors
/// The first line that is not as this writes it, or is out of order.
pub fn read(text: &str) -> Result<Vec<Stored>, BadLine> {
    let mut keys: Vec<Stored> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let key = read_line(line).ok_or(BadLine(number))?;
        let in_order = keys.last().is_none_or(|before| before.made <= key.made);
        if !in_order || keys.len() >= MAX_KEYS {
            return Err(BadLine(number));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn read_line(line: &str) -> Option<Stored> {
    let (made, pair) = line.split_once(' ')?;
    let plain = made.bytes().all(|byte| byte.is_ascii_digit());
    let made = made.parse().ok().filter(|_| plain)?;
    let pkcs8 = Zeroizing::new(URL_SAFE_NO_PAD.decode(pair).ok()?);
    (!pkcs8.is_empty() && pkcs8.len() <= MAX_PAIR_BYTES).then_some(Stored {
        made: Seconds(made),
        pkcs8,
    })
}

/// Writes the file.
pub fn write<'k>(keys: impl IntoIterator<Item = (Seconds, &'k [u8])>) -> Zeroizing<String> {
    // Enough for all keys, so that no copy is left behind where the text grew.
    let most = MAX_KEYS.saturating_mul(MAX_PAIR_BYTES.saturating_mul(2));
    let mut text = Zeroizing::new(String::with_capacity(most));
    for (made, pair) in keys {
        text.push_str(&made.0.to_string());
        text.push(' ');
        URL_SAFE_NO_PAD.encode_string(pair, &mut text);
        text.push('\n');
    }
    text
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read is written so that it reads as the same again, and has an order.
    #[expect(clippy::expect_used, reason = "a panic is the finding")]
    pub fn signing_keys(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let Ok(keys) = read(text) else { return };
        let pairs = |keys: &[Stored]| -> Vec<(Seconds, Vec<u8>)> {
            keys.iter().map(|k| (k.made, k.pkcs8.to_vec())).collect()
        };
        let written = write(keys.iter().map(|key| (key.made, &**key.pkcs8)));
        let again = read(&written).expect("reads again");
        assert_eq!(pairs(&again), pairs(&keys));
        assert!(keys.is_sorted_by_key(|key| key.made));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    const MONTH: Duration = Duration::from_secs(30 * DAY);

    fn at(times: &[u64]) -> Vec<Seconds> {
        times.iter().copied().map(Seconds).collect()
    }

    #[track_caller]
    fn planned(made: &[u64], now: u64, drop: usize, make: bool) {
        let planned = plan(&at(made), Seconds(now), MONTH);
        assert_eq!(planned, Plan { drop, make });
    }

    #[test]
    fn the_first_key_is_made_and_signs_at_once() {
        planned(&[], 0, 0, true);
        assert_eq!(signer(&[], Seconds(0)), None);
        planned(&[5], 5, 0, false);
        assert_eq!(signer(&at(&[5]), Seconds(5)), Some(0));
    }

    #[test]
    fn a_new_key_is_published_for_a_day_before_it_signs() {
        planned(&[0], 30 * DAY - 1, 0, false);
        planned(&[0], 30 * DAY, 0, true);
        let made = at(&[0, 30 * DAY]);
        assert_eq!(signer(&made, Seconds(31 * DAY - 1)), Some(0));
        assert_eq!(signer(&made, Seconds(31 * DAY)), Some(1));
    }

    #[test]
    fn an_old_key_stays_published_for_a_day_after_it_signed_last() {
        planned(&[0, 30 * DAY], 32 * DAY - 1, 0, false);
        planned(&[0, 30 * DAY], 32 * DAY, 1, false);
    }

    #[test]
    fn after_a_long_sleep_the_old_key_signs_until_the_new_one_may() {
        planned(&[0], 400 * DAY, 0, true);
        let made = at(&[0, 400 * DAY]);
        assert_eq!(signer(&made, Seconds(400 * DAY + 5)), Some(0));
    }

    #[test]
    fn a_clock_that_went_back_leaves_a_key_that_signs() {
        let made = at(&[100 * DAY, 130 * DAY]);
        assert_eq!(signer(&made, Seconds(0)), Some(0));
        planned(&[100 * DAY, 130 * DAY], 0, 0, false);
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_by_its_line() {
        for (text, line) in [
            ("x", 1),
            ("1 ", 1),
            ("1 AA==\n", 1),
            ("+1 AAAA\n", 1),
            ("1 AAAA\n\n", 2),
            ("2 AAAA\n1 AAAA\n", 2),
            ("99999999999999999999 AAAA\n", 1),
        ] {
            assert_eq!(read(text).err(), Some(BadLine(line)), "{text:?}");
        }
        assert_eq!(read(&"1 AAAA\n".repeat(17)).err(), Some(BadLine(17)));
        assert!(read(&"1 AAAA\n".repeat(16)).is_ok());
        assert!(read("").is_ok_and(|keys| keys.is_empty()));
    }

    proptest! {
        /// However often somebody looks, whoever fetched the set within a day of a signature has
        /// its key.
        #[test]
        fn no_rotation_leaves_a_gap(
            every in 2..9_u64,
            steps in prop::collection::vec(1..20_u64, 1..150),
        ) {
            let every = Duration::from_secs(every * DAY);
            let mut keys: Vec<Seconds> = Vec::new();
            let mut seen: Vec<(Seconds, Vec<Seconds>, Seconds)> = Vec::new();
            let mut now = Seconds(1_700_000_000);
            for step in steps {
                let Plan { drop, make } = plan(&keys, now, every);
                keys.drain(..drop);
                keys.extend(make.then_some(now));
                let signs = keys[signer(&keys, now).unwrap()];
                seen.push((now, keys.clone(), signs));
                now = Seconds(now.0 + step * HOUR);
            }
            for (signed, _, key) in &seen {
                for (fetched, set, _) in &seen {
                    let apart = signed.0.abs_diff(fetched.0);
                    prop_assert!(apart > DAY || set.contains(key), "{signed:?} {fetched:?}");
                }
            }
            prop_assert!(seen.iter().all(|(_, set, _)| set.len() <= 3));
        }

        #[test]
        fn what_is_written_reads_as_the_same(
            keys in prop::collection::vec((0..9_u64, prop::collection::vec(any::<u8>(), 1..9)), 0..5),
        ) {
            let mut keys = keys;
            keys.sort();
            let text = write(keys.iter().map(|(made, pair)| (Seconds(*made), &**pair)));
            fuzzing::signing_keys(text.as_bytes());
            prop_assert_eq!(read(&text).ok().map(|read| read.len()), Some(keys.len()));
        }
    }
}
