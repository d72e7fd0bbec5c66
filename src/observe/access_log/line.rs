//! One exchange as one line.
//!
//! What a client can choose is escaped to printable ASCII, so that it can't forge a line or speak to
//! a terminal.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use http::Method;

use crate::record::{Record, STAGES, WouldRefuse};

use super::Format;

/// Room for most lines.
const LINE_BYTES: usize = 512;

/// Appends one line.
pub fn line(format: Format, record: &Record, out: &mut String) {
    match format {
        Format::Text => text(record, out),
        Format::Json => json(record, out),
    }
}

fn text(record: &Record, out: &mut String) {
    let client = record.client.map(|client| client.to_string());
    let method = record.method.as_ref().map(Method::as_str);
    let mut place = printable(record.host.as_deref());
    place.push_str(&printable(record.path.as_deref().or(Some(""))));
    let user = record.user.as_ref().map(|user| &*user.name);
    let why = record.refused.or(record.ended_early).unwrap_or("-");
    let mut why = why.to_owned();
    if let Some(decider) = &record.decider {
        let _ = write!(why, " {}:{}", printable(Some(&decider.file)), decider.line);
    }
    push_time(record.time, out);
    let _ = write!(
        out,
        " {:<15} {:<7} {place:<40} {:03} {:<12} {:<12} {why:<32} {:>9.1}ms {}",
        client.as_deref().unwrap_or("-"),
        printable(method),
        record.status.map_or(0, |status| status.as_u16()),
        printable(record.app.as_deref()),
        printable(user),
        milliseconds(record.duration),
        record.request_id
    );
    if let Some(WouldRefuse { reason, by }) = &record.would_refuse {
        // Last and in one word, so that no column moves.
        let file = printable(Some(&by.file));
        let _ = write!(out, " would_refuse={reason}@{file}:{}", by.line);
    }
    out.push('\n');
}

/// What is not known is left out. Every request pays for its line, so that numbers and times are
/// written without the machinery of formatting, and each key with what stands around it.
fn json(record: &Record, out: &mut String) {
    out.reserve(LINE_BYTES);
    out.push_str(r#"{"time":""#);
    push_time(record.time, out);
    word(r#"","request_id":""#, Some(&record.request_id), out);
    address(r#"","client":""#, record.client, out);
    word(
        r#"","method":""#,
        record.method.as_ref().map(Method::as_str),
        out,
    );
    text_of(r#"","host":""#, record.host.as_deref(), out);
    text_of(r#"","path":""#, record.path.as_deref(), out);
    text_of(r#"","app":""#, record.app.as_deref(), out);
    if let Some(user) = &record.user {
        text_of(r#"","user":""#, Some(&user.name), out);
        text_of(r#"","provider":""#, Some(&user.provider), out);
    }
    word(r#"","verdict":""#, verdict(record), out);
    word(r#"","stage":""#, decided_by(record), out);
    word(r#"","reason":""#, record.refused, out);
    word(r#"","ended_early":""#, record.ended_early, out);
    if let Some(decider) = &record.decider {
        text_of(r#"","rule":""#, Some(&decider.file), out);
        number(":", decider.line.into(), out);
    }
    if let Some(WouldRefuse { reason, by }) = &record.would_refuse {
        word(r#"","would_refuse":{"reason":""#, Some(reason), out);
        text_of(r#"","rule":""#, Some(&by.file), out);
        number(":", by.line.into(), out);
        out.push_str("\"}");
    } else {
        out.push('"');
    }
    if let Some(status) = record.status {
        number(r#","status":"#, status.as_u16().into(), out);
    }
    if let Some(backend) = record.backend {
        number(r#","backend":"#, backend.into(), out);
    }
    number(r#","received_bytes":"#, record.received_bytes, out);
    number(r#","sent_bytes":"#, record.sent_bytes, out);
    out.push_str(r#","duration_ms":"#);
    push_milliseconds(record.duration, out);
    out.push_str(r#","stages_us":{"#);
    let (mut before, mut separator) = (0_u32, "\"");
    for (stage, end) in STAGES.iter().zip(record.stage_ends_us) {
        if end > 0 {
            out.push_str(separator);
            out.push_str(stage);
            number("\":", end.saturating_sub(before).into(), out);
            (before, separator) = (end, ",\"");
        }
    }
    out.push_str("}}\n");
}

/// None for an exchange that ended before anybody decided, because the client left for instance.
fn verdict(record: &Record) -> Option<&'static str> {
    match (record.refused, record.status) {
        (Some(_), _) => Some("refuse"),
        (None, Some(_)) => Some("allow"),
        (None, None) => None,
    }
}

fn decided_by(record: &Record) -> Option<&'static str> {
    match record.refused {
        Some(reason) => reason.split('.').next(),
        None => record.decider.as_ref().map(|_| "access"),
    }
}

/// A string that the gate made up, and so without anything to escape.
fn word(key: &str, value: Option<&str>, out: &mut String) {
    if let Some(value) = value {
        out.push_str(key);
        out.push_str(value);
    }
}

/// A string that somebody else chose.
fn text_of(key: &str, value: Option<&str>, out: &mut String) {
    if let Some(value) = value {
        out.push_str(key);
        push_escaped(value, out);
    }
}

fn number(key: &str, value: u64, out: &mut String) {
    out.push_str(key);
    out.push_str(itoa::Buffer::new().format(value));
}

fn address(key: &str, value: Option<IpAddr>, out: &mut String) {
    match value {
        None => {}
        Some(IpAddr::V4(v4)) => {
            let mut separator = key;
            for octet in v4.octets() {
                number(separator, octet.into(), out);
                separator = ".";
            }
        }
        Some(IpAddr::V6(v6)) => drop(write!(out, "{key}{v6}")),
    }
}

/// To the microsecond.
fn push_milliseconds(duration: Duration, out: &mut String) {
    let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number("", microseconds / 1000, out);
    let mut fraction = *b".000";
    put_digits(&mut fraction, 1..4, microseconds % 1000);
    out.push_str(std::str::from_utf8(&fraction).unwrap_or_default());
}

/// Writes a number into its places, with leading zeros.
fn put_digits(text: &mut [u8], places: Range<usize>, number: u64) {
    let mut rest = number;
    for place in text.get_mut(places).into_iter().flatten().rev() {
        *place = b'0' | u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
}

/// A word of a text line; `-` stands for what is not known.
fn printable(text: Option<&str>) -> String {
    let Some(text) = text else {
        return "-".to_owned();
    };
    let mut out = String::with_capacity(text.len());
    push_escaped(text, &mut out);
    // A line is read by its columns, so that a space would make a word of its own.
    if out.contains(' ') {
        out = out.replace(' ', "\\u0020");
    }
    out
}

/// Printable ASCII only, the rest in JSON's own escapes: neither a terminal nor a collector meets
/// control characters, bidirectional marks or what merely looks like something else.
fn push_escaped(text: &str, out: &mut String) {
    let is_plain = |c: char| is_printable(c) && c != '"' && c != '\\';
    // Every byte is looked at, so that many are at once.
    let plain = text.bytes().map(|byte| is_plain(char::from(byte)));
    if plain.fold(true, |all, plain| all & plain) {
        return out.push_str(text);
    }
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            push_escape(c, out);
        }
    }
}

pub(in crate::observe) const fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~')
}

pub(in crate::observe) fn push_escape(c: char, out: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// RFC 3339 in UTC, to the microsecond.
fn push_time(at: SystemTime, out: &mut String) {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (places, part) in [
        (0..4, year),
        (5..7, month),
        (8..10, day),
        (11..13, hour),
        (14..16, minute),
        (17..19, second),
        (20..26, since.subsec_micros().into()),
    ] {
        put_digits(&mut text, places, part);
    }
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
}

/// Days since 1970 as a date of the Gregorian calendar (Hinnant, `civil_from_days`).
#[expect(
    clippy::arithmetic_side_effects,
    reason = "the terms stay far below 2^64 for every time there is"
)]
fn date(days: u64) -> (u64, u64, u64) {
    let z = days.min(1 << 40) + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Instant;

    use crate::pure::identity::User;
    use crate::pure::table::Place;
    use http::StatusCode;
    use proptest::prelude::*;
    use serde_json::Value;

    fn record(path: &str) -> Record {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_709_210_096_789_012);
        let mut record = Record::new("0f".into(), Instant::now(), at);
        record.path = Some(path.into());
        record
    }

    /// Every field that a client, a token or an operator can choose is `text`.
    fn hostile(text: &str) -> Record {
        let mut record = record(text);
        record.host = Some(text.into());
        record.app = Some(text.into());
        record.user = Some(Arc::new(User {
            name: text.into(),
            provider: text.into(),
            email: None,
            groups: Vec::new(),
            claims: Arc::default(),
            signed_in_at: SystemTime::UNIX_EPOCH,
        }));
        record.decider = Some(Place {
            file: text.into(),
            line: 7,
        });
        record.client = Some("2001:db8::1".parse().unwrap());
        record.method = Some(Method::from_bytes(b"!#$%&'*+-.^_`|~").unwrap());
        record.refused = Some("network.denied");
        record
    }

    fn shown(format: Format, record: &Record) -> String {
        let mut out = String::new();
        line(format, record, &mut out);
        out
    }

    #[track_caller]
    fn is_one_printable_line(text: &str) {
        let inner = text.strip_suffix('\n').expect("a whole line");
        assert!(
            inner.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{inner:?}"
        );
    }

    fn parsed(text: &str) -> BTreeMap<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    const FORGERIES: [&str; 9] = [
        "/a\n2024-02-29T12:34:56.789012Z 192.0.2.1 GET wiki/ 200 wiki admin",
        "/a\r\n{\"verdict\":\"allow\"}",
        "\",\"verdict\":\"allow\",\"x\":\"",
        "\\\",\"verdict\":\"allow\",\"x\":\"",
        "\u{1b}[2J\u{1b}[31m\u{1b}]0;title\u{7}",
        "\u{9b}31m\u{85}\u{2028}\u{2029}\u{b}\u{c}",
        "\u{202e}nimda\u{2066}\u{200b}\u{feff}",
        "\0\u{7f}\u{8}\u{10ffff}\u{1f600}",
        "admin 200 wiki",
    ];

    #[test]
    fn nothing_a_client_sends_forges_a_line_or_speaks_to_a_terminal() {
        for text in FORGERIES {
            for format in [Format::Text, Format::Json] {
                is_one_printable_line(&shown(format, &hostile(text)));
            }
        }
    }

    #[test]
    fn json_gives_back_what_was_sent_and_keeps_its_own_members() {
        for text in FORGERIES {
            let line = parsed(&shown(Format::Json, &hostile(text)));
            for key in ["host", "path", "app", "user", "provider"] {
                assert_eq!(line[key], text, "{key}");
            }
            assert_eq!(line["verdict"], "refuse");
            assert_eq!(line["rule"], format!("{text}:7"));
        }
    }

    #[test]
    fn a_space_can_not_shift_the_columns_of_a_text_line() {
        let columns = |text: &str| {
            let line = shown(Format::Text, &hostile(text));
            line.split_whitespace().count()
        };
        assert_eq!(columns("admin 200 wiki"), columns("admin"));
    }

    proptest! {
        #[test]
        fn any_text_makes_one_line_that_parses(text in any::<String>()) {
            is_one_printable_line(&shown(Format::Text, &hostile(&text)));
            let json = shown(Format::Json, &hostile(&text));
            is_one_printable_line(&json);
            prop_assert_eq!(&parsed(&json)["path"], &text);
        }
    }

    #[test]
    fn json_has_every_field_of_an_exchange() {
        let mut record = hostile("a");
        record.status = Some(StatusCode::FORBIDDEN);
        record.backend = Some(1);
        record.ended_early = Some("wire.client_gone");
        record.duration = Duration::from_micros(1_500);
        record.received_bytes = 3;
        record.stage_ends_us[0] = 4;
        record.stage_ends_us[1] = 9;
        assert_eq!(
            shown(Format::Json, &record),
            concat!(
                r#"{"time":"2024-02-29T12:34:56.789012Z","request_id":"0f","#,
                r#""client":"2001:db8::1","method":"!#$%&'*+-.^_`|~","host":"a","path":"a","#,
                r#""app":"a","user":"a","provider":"a","verdict":"refuse","#,
                r#""stage":"network","reason":"network.denied","ended_early":"wire.client_gone","#,
                r#""rule":"a:7","status":403,"backend":1,"received_bytes":3,"sent_bytes":0,"duration_ms":1.500,"#,
                r#""stages_us":{"rate":4,"sign_in":5}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_a_rule_would_have_refused_stands_in_its_own_field() {
        for text in FORGERIES.into_iter().chain(["policies/wiki.toml"]) {
            let mut record = hostile("a");
            record.refused = None;
            record.status = Some(StatusCode::OK);
            record.would_refuse = Some(WouldRefuse {
                reason: "access.denied",
                by: Place {
                    file: text.into(),
                    line: 9,
                },
            });
            let json = shown(Format::Json, &record);
            is_one_printable_line(&json);
            let line = parsed(&json);
            assert_eq!(line["verdict"], "allow");
            assert_eq!(line["status"], 200);
            let rule = format!("{text}:9");
            let expected = serde_json::json!({"reason": "access.denied", "rule": rule});
            assert_eq!(line["would_refuse"], expected);
            let text = shown(Format::Text, &record);
            is_one_printable_line(&text);
            let last = text.split_whitespace().last().unwrap();
            assert!(last.starts_with("would_refuse=access.denied@"), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out_of_json() {
        let line = parsed(&shown(Format::Json, &record("/")));
        for key in ["client", "method", "host", "status", "verdict", "stage"] {
            assert!(!line.contains_key(key), "{key}");
        }
    }

    #[test]
    fn an_allowed_request_names_the_rule_that_let_it_pass() {
        let mut record = record("/");
        record.status = Some(StatusCode::OK);
        record.decider = Some(Place {
            file: "policies/wiki.toml".into(),
            line: 12,
        });
        let line = parsed(&shown(Format::Json, &record));
        assert_eq!(line["verdict"], "allow");
        assert_eq!(line["stage"], "access");
        assert_eq!(line["rule"], "policies/wiki.toml:12");
    }

    #[test]
    fn text_is_aligned() {
        let mut record = hostile("wiki");
        record.path = Some("/a".into());
        record.method = Some(Method::GET);
        record.status = Some(StatusCode::FORBIDDEN);
        record.duration = Duration::from_micros(1_234);
        assert_eq!(
            shown(Format::Text, &record),
            "2024-02-29T12:34:56.789012Z 2001:db8::1     GET     \
             wiki/a                                   403 wiki         wiki         \
             network.denied wiki:7                  1.2ms 0f\n"
        );
    }

    #[test]
    fn times_are_dates() {
        let shown = |since| {
            let mut out = String::new();
            push_time(SystemTime::UNIX_EPOCH + since, &mut out);
            out
        };
        assert_eq!(shown(Duration::ZERO), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            shown(Duration::from_secs(4_107_542_399)),
            "2100-02-28T23:59:59.000000Z"
        );
    }
}
