//! From when until when a certificate holds: the one fact of X.509 that the TLS library knows and
//! does not tell. Reads nothing else, and decides nothing: whether a certificate is any good is for
//! the library.

use std::time::{Duration, SystemTime};

/// The times between which a certificate holds (RFC 5280 §4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub begins: SystemTime,
    /// The last second.
    pub ends: SystemTime,
}

/// Not a certificate in DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no certificate in DER")
    }
}

impl std::error::Error for Malformed {}

/// Reads the validity of a certificate.
///
/// # Errors
/// Anything that is not DER, or is something else than a certificate up to its validity.
pub fn parse(certificate: &[u8]) -> Result<Validity, Malformed> {
    let (certificate, &[]) = element(certificate, SEQUENCE)? else {
        return Err(Malformed);
    };
    let (signed, _) = element(certificate, SEQUENCE)?;
    // Version 1 says nothing of its version.
    let (_, signed) = optional(signed, VERSION)?;
    let (_serial, rest) = element(signed, INTEGER)?;
    let (_algorithm, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (begins, rest) = time(validity)?;
    let (ends, &[]) = time(rest)? else {
        return Err(Malformed);
    };
    Ok(Validity { begins, ends })
}

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const VERSION: u8 = 0xa0;

/// The content of the element of `tag` at the start, and what follows it (X.690 §8.1, §10.1).
pub(super) fn element(input: &[u8], tag: u8) -> Result<(&[u8], &[u8]), Malformed> {
    let (&[first, length], rest) = input.split_first_chunk().ok_or(Malformed)?;
    if first != tag {
        return Err(Malformed);
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // 64 KiB is more than any certificate that a client takes.
        0x81 | 0x82 => {
            let (bytes, rest) = rest
                .split_at_checked(usize::from(length & 0x0f))
                .ok_or(Malformed)?;
            let length = bytes
                .iter()
                .fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
            // DER has one form of each length.
            let least = if bytes.len() == 1 { 0x80 } else { 0x100 };
            if length < least {
                return Err(Malformed);
            }
            (length, rest)
        }
        _ => return Err(Malformed),
    };
    rest.split_at_checked(length).ok_or(Malformed)
}

/// Whether an element of `tag` is next.
pub(super) fn is_at(input: &[u8], tag: u8) -> bool {
    input.first() == Some(&tag)
}

/// The content of an element that can be left out, empty where it is, and what follows it.
pub(super) fn optional(input: &[u8], tag: u8) -> Result<(&[u8], &[u8]), Malformed> {
    if is_at(input, tag) {
        element(input, tag)
    } else {
        Ok((&[], input))
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5.1, §4.1.2.5.2).
fn time(input: &[u8]) -> Result<(SystemTime, &[u8]), Malformed> {
    let (year, rest_of_time, rest) = match element(input, UTC_TIME) {
        Ok((text, rest)) => {
            let (year, text) = two_digits(text)?;
            let century = if year < 50 { 2000 } else { 1900 };
            (year.saturating_add(century), text, rest)
        }
        Err(Malformed) => {
            let (text, rest) = element(input, GENERALIZED_TIME)?;
            let (century, text) = two_digits(text)?;
            let (year, text) = two_digits(text)?;
            (century.saturating_mul(100).saturating_add(year), text, rest)
        }
    };
    let (month, text) = two_digits(rest_of_time)?;
    let (day, text) = two_digits(text)?;
    let (hour, text) = two_digits(text)?;
    let (minute, text) = two_digits(text)?;
    let (second, text) = two_digits(text)?;
    let is_time = hour < 24 && minute < 60 && second < 60 && text == b"Z";
    let days = days_since_1970(year, month, day).filter(|_| is_time);
    let seconds = days
        .ok_or(Malformed)?
        .saturating_mul(24)
        .saturating_add(hour)
        .saturating_mul(60)
        .saturating_add(minute)
        .saturating_mul(60)
        .saturating_add(second);
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    Ok((at.ok_or(Malformed)?, rest))
}

fn two_digits(text: &[u8]) -> Result<(i64, &[u8]), Malformed> {
    let (&[tens, ones], rest) = text.split_first_chunk().ok_or(Malformed)?;
    let digit = |byte: u8| char::from(byte).to_digit(10).ok_or(Malformed);
    let number = digit(tens)?.saturating_mul(10).saturating_add(digit(ones)?);
    Ok((i64::from(number), rest))
}

/// None for a day that is not in the Gregorian calendar (Hinnant, `days_from_civil`).
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a year has four digits, a month and a day two"
)]
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! What holds for any input.

    /// A certificate that was cut short is none.
    pub fn validity(data: &[u8]) {
        if super::parse(data).is_ok() {
            let shorter = data.split_last().map_or(data, |(_, shorter)| shorter);
            assert!(super::parse(shorter).is_err());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::sync::LazyLock;

    static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

    fn at(seconds: i64) -> SystemTime {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            SystemTime::UNIX_EPOCH - distance
        } else {
            SystemTime::UNIX_EPOCH + distance
        }
    }

    fn made(begins: SystemTime, ends: SystemTime) -> Vec<u8> {
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (begins.into(), ends.into());
        params.self_signed(&*KEY).unwrap().der().to_vec()
    }

    /// 1950-01-01 and 9999-12-31, what a certificate can say.
    const TIMES: std::ops::RangeInclusive<i64> = -631_152_000..=253_402_300_799;

    #[test]
    fn the_times_of_a_certificate_are_read() {
        for (begins, ends) in [
            (0, 951_782_400),
            (*TIMES.start(), *TIMES.end()),
            // The last second of UTCTime and the first of GeneralizedTime.
            (2_524_607_999, 2_524_608_000),
        ] {
            let expected = Validity {
                begins: at(begins),
                ends: at(ends),
            };
            assert_eq!(parse(&made(at(begins), at(ends))), Ok(expected));
        }
    }

    #[test]
    fn a_certificate_cut_anywhere_is_refused() {
        let whole = made(at(0), at(1));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), Err(Malformed), "{length}");
        }
        assert_eq!(parse(&[&whole[..], b"\0"].concat()), Err(Malformed));
    }

    #[track_caller]
    fn reads(text: &str, expected: Option<i64>) {
        let tag = if text.len() == 13 {
            UTC_TIME
        } else {
            GENERALIZED_TIME
        };
        let length = u8::try_from(text.len()).unwrap();
        let der = [&[tag, length], text.as_bytes()].concat();
        let expected = expected.map(|seconds| (at(seconds), &[][..]));
        assert_eq!(time(&der).ok(), expected, "{text}");
    }

    #[test]
    fn times_are_read_by_the_calendar() {
        reads("700101000000Z", Some(0));
        reads("491231235959Z", Some(2_524_607_999));
        reads("500101000000Z", Some(-631_152_000));
        reads("20000229000000Z", Some(951_782_400));
        reads("20240229123456Z", Some(1_709_210_096));
        reads("99991231235959Z", Some(253_402_300_799));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "000230000000Z",
            "21000229000000Z",
            "240431000000Z",
            "240001000000Z",
            "241301000000Z",
            "240100000000Z",
            "240101240000Z",
            "240101006000Z",
            "240101000060Z",
            "240101000000z",
            "2401010000Z",
            "240101000000+0000",
            "20240101000000.5Z",
            "+40101000000Z",
            " 40101000000Z",
        ] {
            reads(text, None);
        }
    }

    #[test]
    fn a_length_in_any_but_its_shortest_form_is_refused() {
        assert_eq!(element(&[2, 1, 7], INTEGER), Ok((&[7][..], &[][..])));
        for der in [
            &[2, 0x81, 1, 7][..],
            &[2, 0x82, 0, 1, 7],
            &[2, 0x80, 7, 0, 0],
            &[2, 0x83, 0, 0, 1, 7],
            &[2, 0xff],
            &[2, 2, 7],
            &[2],
        ] {
            assert_eq!(element(der, INTEGER), Err(Malformed), "{der:?}");
        }
    }

    proptest! {
        #[test]
        fn any_times_are_read_as_they_were_written(begins in TIMES, ends in TIMES) {
            let expected = Validity { begins: at(begins), ends: at(ends) };
            prop_assert_eq!(parse(&made(at(begins), at(ends))), Ok(expected));
        }

        #[test]
        fn a_changed_byte_never_panics(place in 0_usize..300, byte: u8) {
            let mut der = made(at(0), at(1));
            if let Some(changed) = der.get_mut(place) {
                *changed = byte;
            }
            fuzzing::validity(&der);
        }
    }
}
