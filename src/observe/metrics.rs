//! Counters in the Prometheus text format.
//!
//! Labels come from fixed sets and from the configuration alone, so that no client can make a new
//! time series.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::record::Record;

/// Upper bounds of the latency histogram, in microseconds.
const BUCKETS_US: [u64; 10] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000,
];

/// What is counted since the process began.
#[derive(Debug, Default)]
pub struct Metrics {
    classes: [AtomicU64; 6],
    buckets: [AtomicU64; BUCKETS_US.len()],
    duration_us: AtomicU64,
    finished: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    handshakes: AtomicU64,
    failed_handshakes: AtomicU64,
    refused_connections: AtomicU64,
    tunnels: AtomicU64,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    configuration_ok: AtomicI64,
    /// Refusals are rare beside requests, and their reasons a fixed set.
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    apps: Mutex<BTreeMap<Arc<str>, u64>>,
    certificates: Mutex<BTreeMap<String, u64>>,
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    /// An exchange is over.
    pub fn finished(&self, record: &Record) {
        let class = usize::from(record.status.map_or(0, |status| status.as_u16()) / 100);
        if let Some(counter) = self.classes.get(class) {
            add(counter, 1);
        }
        let us = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US
            .iter()
            .zip(&self.buckets)
            .find(|(most, _)| us <= **most);
        if let Some((_, counter)) = bucket {
            add(counter, 1);
        }
        add(&self.duration_us, us);
        add(&self.finished, 1);
        add(&self.received_bytes, record.received_bytes);
        add(&self.sent_bytes, record.sent_bytes);
    }

    /// A request was refused.
    pub fn refused(&self, reason: &'static str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refusals.entry(reason).or_default();
        *count = count.saturating_add(1);
    }

    /// A connection was closed because there were too many.
    pub fn connection_refused(&self) {
        add(&self.refused_connections, 1);
    }

    /// A TLS handshake ended.
    pub fn handshake(&self, completed: bool) {
        add(
            if completed {
                &self.handshakes
            } else {
                &self.failed_handshakes
            },
            1,
        );
    }

    /// A WebSocket opened.
    pub fn tunnel_opened(&self) {
        add(&self.tunnels, 1);
    }

    /// A reload ended; the configuration on disk is in force only if it `succeeded`.
    pub fn reloaded(&self, succeeded: bool) {
        add(
            if succeeded {
                &self.reloads
            } else {
                &self.failed_reloads
            },
            1,
        );
        self.configuration_ok
            .store(i64::from(succeeded), Ordering::Relaxed);
    }

    /// Requests that a backend could not answer are counted by application.
    pub fn backend_failed(&self, app: &Arc<str>) {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let count = apps.entry(Arc::clone(app)).or_default();
        *count = count.saturating_add(1);
    }

    /// A certificate's end, by the file it came from.
    pub fn certificate(&self, file: &str, ends: SystemTime) {
        let ends = ends
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut certificates = self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        certificates.insert(file.to_owned(), ends);
    }

    /// Everything, in the text format.
    pub fn render(&self, open_connections: usize, dropped_lines: u64) -> String {
        let mut out = String::with_capacity(4096);
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            let _ = writeln!(
                out,
                "# HELP portcullis_{name} {help}\n# TYPE portcullis_{name} {kind}"
            );
            for (labels, value) in samples {
                let _ = writeln!(out, "portcullis_{name}{labels} {value}");
            }
        };
        let plain = |value: u64| vec![(String::new(), value)];
        let classes = self.classes.iter().enumerate().skip(1);
        let classes: Vec<_> = classes
            .map(|(class, count)| (format!("{{class=\"{class}xx\"}}"), read(count)))
            .collect();
        family("requests_total", "counter", "Requests answered.", &classes);
        let refusals = self
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let refusals: Vec<_> = refusals
            .iter()
            .map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), *count))
            .collect();
        family(
            "refusals_total",
            "counter",
            "Requests refused, by reason.",
            &refusals,
        );
        let apps = self
            .apps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let apps: Vec<_> = apps
            .iter()
            .map(|(app, count)| (format!("{{app=\"{}\"}}", label(app)), *count))
            .collect();
        family(
            "backend_failures_total",
            "counter",
            "Requests that no backend answered.",
            &apps,
        );
        family(
            "received_bytes_total",
            "counter",
            "Bytes of content from clients.",
            &plain(read(&self.received_bytes)),
        );
        family(
            "sent_bytes_total",
            "counter",
            "Bytes of content to clients.",
            &plain(read(&self.sent_bytes)),
        );
        family(
            "connections",
            "gauge",
            "Connections open.",
            &plain(open_connections as u64),
        );
        family(
            "connections_refused_total",
            "counter",
            "Connections over a limit.",
            &plain(read(&self.refused_connections)),
        );
        family(
            "tls_handshakes_total",
            "counter",
            "TLS handshakes.",
            &[
                ("{result=\"ok\"}".to_owned(), read(&self.handshakes)),
                (
                    "{result=\"failed\"}".to_owned(),
                    read(&self.failed_handshakes),
                ),
            ],
        );
        family(
            "websockets_total",
            "counter",
            "WebSockets opened.",
            &plain(read(&self.tunnels)),
        );
        family(
            "reloads_total",
            "counter",
            "Reloads of the configuration.",
            &[
                ("{result=\"ok\"}".to_owned(), read(&self.reloads)),
                ("{result=\"failed\"}".to_owned(), read(&self.failed_reloads)),
            ],
        );
        let ok = self.configuration_ok.load(Ordering::Relaxed);
        family(
            "configuration_ok",
            "gauge",
            "Whether the configuration on disk is in force.",
            &plain(u64::from(ok == 1)),
        );
        family(
            "log_lines_dropped_total",
            "counter",
            "Lines of the access log that the writer could not take.",
            &plain(dropped_lines),
        );
        let certificates = self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let certificates: Vec<_> = certificates
            .iter()
            .map(|(file, ends)| (format!("{{file=\"{}\"}}", label(file)), *ends))
            .collect();
        family(
            "certificate_expiry_seconds",
            "gauge",
            "When a certificate ends, in Unix time.",
            &certificates,
        );
        self.histogram(&mut out);
        out
    }

    fn histogram(&self, out: &mut String) {
        let name = "portcullis_request_duration_seconds";
        let _ = writeln!(
            out,
            "# HELP {name} From the head to the last byte.\n# TYPE {name} histogram"
        );
        let mut below = 0_u64;
        for (most, count) in BUCKETS_US.iter().zip(&self.buckets) {
            below = below.saturating_add(read(count));
            let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {below}", seconds(*most));
        }
        let all = read(&self.finished);
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {all}");
        let _ = writeln!(
            out,
            "{name}_sum {}\n{name}_count {all}",
            seconds(read(&self.duration_us))
        );
    }
}

fn seconds(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64()
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_rendered_with_their_labels() {
        let metrics = Metrics::default();
        metrics.refused("network.denied");
        metrics.reloaded(true);
        let text = metrics.render(3, 0);
        for line in [
            "portcullis_refusals_total{reason=\"network.denied\"} 1",
            "portcullis_connections 3",
            "portcullis_configuration_ok 1",
            "portcullis_request_duration_seconds_count 0",
        ] {
            assert!(text.lines().any(|got| got == line), "{line}\n{text}");
        }
    }
}
