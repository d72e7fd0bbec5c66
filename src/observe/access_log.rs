//! The access log: one line for each exchange, written by a thread of its own.
//!
//! A full queue drops lines and counts them; it never makes a request wait. No query, cookie,
//! credential or content is in a [`Record`], so none can be in a line; what a client can choose is
//! escaped, so that it can't forge a line or speak to a terminal.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::record::{Record, STAGES};

/// Lines that wait for the writer.
const QUEUE: usize = 8192;
/// Bytes gathered before a write.
const BATCH: usize = 64 * 1024;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the cores send their records.
#[derive(Debug, Clone)]
pub struct Sink {
    queue: SyncSender<Option<Record>>,
    dropped: Arc<AtomicU64>,
}

/// The writer; [`Writer::finish`] waits until every line is out.
#[derive(Debug)]
pub struct Writer {
    sink: Sink,
    thread: std::thread::JoinHandle<()>,
}

impl Sink {
    /// Hands a record to the writer, or drops it when the writer can't keep up.
    pub fn emit(&self, record: Record) {
        match self.queue.try_send(Some(record)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Starts the writer.
    ///
    /// # Errors
    /// No thread from the system.
    pub fn start(format: Format, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let sink = Sink {
            queue,
            dropped: Arc::default(),
        };
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(format, &lines, out))?;
        Ok(Self { sink, thread })
    }

    /// Where to send records.
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// Writes what is queued, and ends.
    pub fn finish(self) {
        let _ = self.sink.queue.send(None);
        let _ = self.thread.join();
    }
}

fn write_all(format: Format, lines: &Receiver<Option<Record>>, mut out: impl Write) {
    let mut batch = String::new();
    while let Ok(Some(record)) = lines.recv() {
        line(format, &record, &mut batch);
        let mut ended = false;
        while batch.len() < BATCH {
            match lines.try_recv() {
                Ok(Some(record)) => line(format, &record, &mut batch),
                Ok(None) => {
                    ended = true;
                    break;
                }
                Err(_) => break,
            }
        }
        // A log that can't be written must not stop the gate.
        let _ = out.write_all(batch.as_bytes()).and_then(|()| out.flush());
        batch.clear();
        if ended {
            return;
        }
    }
}

/// Appends one line.
pub fn line(format: Format, record: &Record, out: &mut String) {
    match format {
        Format::Text => text(record, out),
        Format::Json => json(record, out),
    }
}

fn text(record: &Record, out: &mut String) {
    let status = record.status.map_or(0, |status| status.as_u16());
    let client = record
        .client
        .map(|client| client.to_string())
        .unwrap_or_default();
    let method = record.method.as_ref().map_or("-", http::Method::as_str);
    let _ = write!(out, "{} {status} {client} {method} ", time(record.time));
    escaped(record.host.as_deref().unwrap_or("-"), out);
    escaped(record.path.as_deref().unwrap_or(""), out);
    if let Some(user) = &record.user {
        out.push_str(" user=");
        escaped(&user.name, out);
    }
    if let Some(reason) = record.refused.or(record.ended_early) {
        let _ = write!(out, " {reason}");
    }
    if let Some(decider) = &record.decider {
        let _ = write!(out, " ({decider})");
    }
    let _ = writeln!(
        out,
        " {:.1}ms {}",
        record.duration.as_secs_f64() * 1000.0,
        record.request_id
    );
}

fn json(record: &Record, out: &mut String) {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("time", time(record.time).into());
    put("request_id", (*record.request_id).into());
    put(
        "client",
        record.client.map(|client| client.to_string()).into(),
    );
    put(
        "method",
        record.method.as_ref().map(http::Method::as_str).into(),
    );
    put("host", record.host.as_deref().into());
    put("path", record.path.as_deref().into());
    put("app", record.app.as_deref().into());
    put("status", record.status.map(|status| status.as_u16()).into());
    put(
        "verdict",
        if record.refused.is_some() {
            "refuse"
        } else {
            "allow"
        }
        .into(),
    );
    if let Some(reason) = record.refused {
        put("stage", reason.split('.').next().unwrap_or(reason).into());
        put("reason", reason.into());
    }
    if let Some(reason) = record.ended_early {
        put("ended_early", reason.into());
    }
    if let Some(decider) = &record.decider {
        put("rule", decider.to_string().into());
    }
    if let Some(user) = &record.user {
        put("user", (*user.name).into());
        put("provider", (*user.provider).into());
    }
    if let Some(backend) = record.backend {
        put("backend", backend.into());
    }
    put("received_bytes", record.received_bytes.into());
    put("sent_bytes", record.sent_bytes.into());
    put(
        "duration_us",
        u64::try_from(record.duration.as_micros())
            .unwrap_or(u64::MAX)
            .into(),
    );
    let mut before = 0_u32;
    let stages: Map<String, Value> = STAGES
        .iter()
        .zip(record.stage_ends_us)
        .filter(|(_, end)| *end > 0)
        .map(|(stage, end)| {
            let took = end.saturating_sub(before);
            before = end;
            ((*stage).to_owned(), took.into())
        })
        .collect();
    put("stages_us", stages.into());
    // serde_json escapes control characters; the rest is escaped as well, so that no terminal or
    // collector meets bidirectional marks or half an encoding.
    for c in Value::Object(object).to_string().chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            let mut units = [0_u16; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out.push('\n');
}

fn escaped(text: &str, out: &mut String) {
    for c in text.chars() {
        if c.is_ascii_graphic() && c != '\\' {
            out.push(c);
        } else {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub fn time(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    )
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
    use std::time::Instant;

    fn record(path: &str) -> Record {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_210_096_789);
        let mut record = Record::new("0f".into(), Instant::now(), at);
        record.path = Some(path.into());
        record.refused = Some("network.denied");
        record
    }

    #[test]
    fn times_are_dates() {
        assert_eq!(time(record("/").time), "2024-02-29T12:34:56.789Z");
        assert_eq!(time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            time(SystemTime::UNIX_EPOCH + Duration::from_secs(4_107_542_399)),
            "2100-02-28T23:59:59.000Z"
        );
    }

    #[test]
    fn a_path_can_not_forge_a_line_or_speak_to_a_terminal() {
        for format in [Format::Text, Format::Json] {
            let mut out = String::new();
            line(format, &record("/a\n\u{1b}[31m\u{202e}\u{7f}\"x"), &mut out);
            assert_eq!(out.matches('\n').count(), 1, "{out}");
            assert!(
                out.bytes()
                    .all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)),
                "{out:?}"
            );
        }
    }

    #[test]
    fn json_names_stage_and_reason() {
        let mut out = String::new();
        line(Format::Json, &record("/a"), &mut out);
        let value: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&value["stage"], &value["reason"]),
            (&"network".into(), &"network.denied".into())
        );
    }

    #[test]
    fn a_slow_writer_costs_lines_and_no_time() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = std::sync::mpsc::channel();
        let writer = Writer::start(Format::Text, Stuck(stuck)).unwrap();
        for _ in 0..3 * QUEUE {
            writer.sink().emit(record("/"));
        }
        assert!(writer.sink().dropped() > 0);
        drop(release);
        writer.finish();
    }
}
