//! Quantities with their unit in the text: `20/s`, `15m`, `10MiB`.
//!
//! A number without its unit is refused, and so is what two people would read in two ways: `10M`,
//! `1.5h`, `90m1h`. What is wrong is said as what was expected, without the word.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The longest duration that can be said: a century, so that a time plus a duration stays a time.
pub const MAX_DURATION: Duration = Duration::from_secs(36_500 * DAY_SECS);

/// The window of the slowest rate; a longer memory of a client is a ban, not a rate.
const MAX_WINDOW: Duration = Duration::from_secs(DAY_SECS);
/// A million a second is as good as no limit.
const MIN_INTERVAL_US: u128 = 1;

const DAY_SECS: u64 = 86_400;
/// Longest first, which is the order they are written in.
const TIMES: [(&str, u64); 5] = [
    ("d", DAY_SECS * 1000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
const SIZES: [(&str, u64); 11] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("kB", 1000),
    ("B", 1),
    ("", 1),
];

/// So many in a window: `20/s`, `300/m`, `1000/h`, `5/10s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In how long, at most a day.
    pub per: Duration,
}

impl Rate {
    /// The rate that `text` says.
    ///
    /// # Errors
    /// What was expected: a count from 1, a `/`, and `s`, `m`, `h`, `d` or a duration up to a day;
    /// at most a million a second.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || "a rate such as `20/s`, `300/m`, `1000/h` or `5/10s`".to_owned();
        let (count, window) = text.split_once('/').ok_or_else(form)?;
        let count = whole(count)
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(form)?;
        let count = NonZeroU32::new(count).ok_or("a rate of at least one, such as `1/m`")?;
        let per = match window {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(DAY_SECS),
            other => duration(other).map_err(|_| form())?,
        };
        if per.is_zero() || per > MAX_WINDOW {
            return Err("a rate whose window is more than nothing and at most a day".to_owned());
        }
        let interval_us = per.as_micros().checked_div(u128::from(count.get()));
        if interval_us < Some(MIN_INTERVAL_US) {
            return Err("a rate of at most `1000000/s`".to_owned());
        }
        Ok(Self { count, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = show_duration(self.per);
        let short = match window.as_str() {
            "1s" | "1m" | "1h" | "1d" => window.trim_start_matches('1'),
            other => other,
        };
        write!(f, "{}/{short}", self.count)
    }
}

/// The duration that `text` says: numbers with `d`, `h`, `m`, `s`, `ms`, each at most once and the
/// longer first, up to [`MAX_DURATION`]. `0s` is one; where it makes no sense, the key says so.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let form = || "a duration with its units, such as `15m`, `1h30m` or `500ms`".to_owned();
    let mut units = TIMES.iter();
    let mut rest = text;
    let mut total_ms = 0_u64;
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end).ok_or_else(form)?;
        // Taking the units in turn is what refuses one that comes twice or out of order.
        let (_, ms) = units
            .by_ref()
            .find(|(name, _)| *name == unit)
            .ok_or_else(form)?;
        let part = whole(number).ok_or_else(form)?.checked_mul(*ms);
        total_ms = part
            .and_then(|part| total_ms.checked_add(part))
            .filter(|total| u128::from(*total) <= MAX_DURATION.as_millis())
            .ok_or("a duration of at most `36500d`")?;
        rest = after;
    }
    if text.is_empty() {
        return Err(form());
    }
    Ok(Duration::from_millis(total_ms))
}

/// The number of bytes that `text` says: a number alone, or with `B`, `KB`, `MB`, `GB`, `TB`
/// (thousands) or `KiB`, `MiB`, `GiB`, `TiB` (1024s).
///
/// # Errors
/// What was expected.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text);
    let number = whole(number).ok_or("a size such as `10MiB`, `64KiB`, `1GB` or `512`")?;
    let (_, factor) = SIZES
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or("a size in `B`, `KB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB` or `TiB`")?;
    number
        .checked_mul(*factor)
        .ok_or_else(|| "a size below 16777216 TiB".to_owned())
}

/// The text that [`duration`] reads as `value`, to the millisecond.
pub fn show_duration(value: Duration) -> String {
    let mut rest = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, ms) in TIMES {
        let (Some(n), Some(left)) = (rest.checked_div(ms), rest.checked_rem(ms)) else {
            continue;
        };
        if n > 0 {
            text.push_str(&n.to_string());
            text.push_str(unit);
        }
        rest = left;
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// The shortest text that [`bytes()`] reads as `value`, in units of 1024.
pub fn show_bytes(value: u64) -> String {
    let largest = SIZES
        .iter()
        .filter(|(name, _)| name.ends_with("iB"))
        .find(|(_, factor)| value > 0 && value.checked_rem(*factor) == Some(0));
    match largest.and_then(|(name, factor)| Some((name, value.checked_div(*factor)?))) {
        Some((name, n)) => format!("{n}{name}"),
        None => value.to_string(),
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// `str::parse` alone would take a `+`.
fn whole(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read can be shown, and reads the same again.
    pub fn unit(input: &[u8]) {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        if let Ok(rate) = Rate::parse(text) {
            assert!(rate.per <= MAX_WINDOW && !rate.per.is_zero());
            assert_eq!(Rate::parse(&rate.to_string()), Ok(rate));
        }
        if let Ok(value) = duration(text) {
            assert!(value <= MAX_DURATION);
            assert_eq!(duration(&show_duration(value)), Ok(value));
        }
        if let Ok(value) = bytes(text) {
            assert_eq!(bytes(&show_bytes(value)), Ok(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn rate(text: &str, count: u32, per_ms: u64) {
        let expected = Rate {
            count: NonZeroU32::new(count).unwrap(),
            per: Duration::from_millis(per_ms),
        };
        assert_eq!(Rate::parse(text), Ok(expected), "{text}");
        assert_eq!(expected.to_string(), text);
    }

    #[test]
    fn a_rate_is_a_count_in_a_window() {
        rate("20/s", 20, 1000);
        rate("300/m", 300, 60_000);
        rate("1000/h", 1000, 3_600_000);
        rate("1/d", 1, 86_400_000);
        rate("5/10s", 5, 10_000);
        rate("5/1m30s", 5, 90_000);
        rate("1000000/s", 1_000_000, 1000);
    }

    #[test]
    fn a_rate_that_says_nothing_clear_is_refused() {
        for text in [
            "",
            "/",
            "20",
            "20/",
            "/s",
            "0/s",
            "-1/s",
            "+1/s",
            "20 /s",
            "20/ s",
            "20/S",
            "20/w",
            "20/0s",
            "20/25h",
            "20/s/s",
            "1.5/s",
            "1000001/s",
            "4294967296/d",
            "20/month",
        ] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_add_up_their_parts() {
        for (text, ms) in [
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("12h", 43_200_000),
            ("30d", 2_592_000_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
            ("90m", 5_400_000),
            ("36500d", 3_153_600_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_unit_out_of_order_or_too_long_is_refused() {
        for text in [
            "",
            "15",
            "m",
            "1h30",
            "30m1h",
            "1h1h",
            "1.5h",
            "-1s",
            "+1s",
            "1 h",
            " 1h",
            "1H",
            "1w",
            "1us",
            "36501d",
            "99999999999999999999d",
            "18446744073709551615d",
            "1msms",
            "١s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_in_thousands_or_in_1024s_as_written() {
        for (text, value) in [
            ("512", 512),
            ("0", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("1KB", 1000),
            ("1kB", 1000),
            ("10MiB", 10_485_760),
            ("1GB", 1_000_000_000),
            ("1GiB", 1_073_741_824),
            ("2TB", 2_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn a_size_that_two_people_read_in_two_ways_is_refused() {
        for text in [
            "",
            "MiB",
            "10M",
            "10mb",
            "10 MiB",
            "1.5GiB",
            "-1",
            "+1",
            "0x10",
            "10MiB ",
            "18446744073709551616",
            "16777216TiB",
            "99999999TB",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_expected_reads_as_a_noun() {
        assert_eq!(
            duration("15").unwrap_err(),
            "a duration with its units, such as `15m`, `1h30m` or `500ms`"
        );
        assert_eq!(
            Rate::parse("0/s").unwrap_err(),
            "a rate of at least one, such as `1/m`"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9]{0,6}[/a-zA-Z]{0,4}[0-9]{0,4}[a-zA-Z]{0,3}|.*") {
            fuzzing::unit(text.as_bytes());
        }

        #[test]
        fn every_value_can_be_written(count in 1..=1000_u32, ms in 1..=86_400_000_u64, n: u64) {
            let rate = Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_millis(ms) };
            prop_assert_eq!(Rate::parse(&rate.to_string()), Ok(rate));
            prop_assert_eq!(duration(&show_duration(rate.per)), Ok(rate.per));
            prop_assert_eq!(bytes(&show_bytes(n)), Ok(n));
        }
    }
}
