//! Counters in the Prometheus text format.
//!
//! Labels come from fixed sets and from the configuration alone, so that no client can make a new
//! time series. What a request touches takes no lock.

use std::array::from_fn;
use std::collections::HashMap;
use std::fmt::{self, Display, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::StatusCode;

use super::writer::Sink;
use crate::pure::quick::Quick;
use crate::record::Record;

/// Upper bounds of the latency histogram, in microseconds.
const BUCKETS_US: [u64; 12] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000,
    10_000_000,
];
/// Label values for statuses; the first is for exchanges that ended without an answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Room for distinct refusal reasons; more than the gate has.
const REFUSALS: usize = 512;
/// Room for distinct ways in which a backend fails.
const FAILURES: usize = 32;
/// Room for distinct reasons of rules that are tried.
const TRIED: usize = 32;
/// The stage whose reasons are a backend's failures.
const FORWARD: &str = "forward.";

/// What is counted since the process began.
#[derive(Debug)]
pub struct Metrics {
    sources: Option<Sources>,
    /// Requests that reached no application; the label is empty, as no application's name is.
    unrouted: App,
    apps: ArcSwap<HashMap<Arc<str>, Arc<App>, Quick>>,
    /// One more for what is slower than every bound.
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    duration_us: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    refusals: Reasons<REFUSALS>,
    handshakes: AtomicU64,
    failed_handshakes: AtomicU64,
    refused_connections: AtomicU64,
    tunnels: AtomicU64,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    in_force: AtomicBool,
    store_is_away: AtomicBool,
    rates_are_apart: AtomicBool,
    certificates: Mutex<Vec<(String, SystemTime)>>,
}

/// What others count and this module only shows.
struct Sources {
    log: Sink,
    open_connections: Box<dyn Fn() -> usize + Send + Sync>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct App {
    classes: [AtomicU64; CLASSES.len()],
    failures: Reasons<FAILURES>,
    would_refuse: Reasons<TRIED>,
}

impl App {
    fn new() -> Self {
        Self {
            classes: from_fn(|_| AtomicU64::default()),
            failures: Reasons::new(),
            would_refuse: Reasons::new(),
        }
    }
}

fn add(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sources: None,
            unrouted: App::new(),
            apps: ArcSwap::default(),
            buckets: from_fn(|_| AtomicU64::default()),
            duration_us: AtomicU64::default(),
            received_bytes: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            refusals: Reasons::new(),
            handshakes: AtomicU64::default(),
            failed_handshakes: AtomicU64::default(),
            refused_connections: AtomicU64::default(),
            tunnels: AtomicU64::default(),
            reloads: AtomicU64::default(),
            failed_reloads: AtomicU64::default(),
            in_force: AtomicBool::default(),
            store_is_away: AtomicBool::default(),
            rates_are_apart: AtomicBool::default(),
            certificates: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Counters that show, besides their own, the lines that `log` dropped and the connections that
    /// are open.
    pub fn new(log: Sink, open_connections: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        let open_connections = Box::new(open_connections);
        Self {
            sources: Some(Sources {
                log,
                open_connections,
            }),
            ..Self::default()
        }
    }

    /// The applications of the configuration that is now in force, by name. Those that were there
    /// keep their counts; a request for any other is counted as reaching none.
    pub fn set_apps(&self, names: impl IntoIterator<Item = Arc<str>>) {
        let before = self.apps.load();
        let keep = |name: &Arc<str>| before.get(name).cloned();
        let apps = names
            .into_iter()
            .map(|name| {
                let app = keep(&name).unwrap_or_else(|| Arc::new(App::new()));
                (name, app)
            })
            .collect();
        self.apps.store(Arc::new(apps));
    }

    /// An exchange is over.
    pub fn finished(&self, record: &Record) {
        let apps = self.apps.load();
        let app = record.app.as_ref().and_then(|name| apps.get(name));
        let app = app.map_or(&self.unrouted, |app| &**app);
        let status = record.status.map_or(0, |status| status.as_u16());
        let class = app.classes.get(usize::from(status / 100));
        if let Some(counter) = class.or_else(|| app.classes.first()) {
            add(counter, 1);
        }
        if let Some(kind) = backend_failure(record) {
            app.failures.count(kind);
        }
        if let Some(tried) = &record.would_refuse {
            app.would_refuse.count(tried.reason);
        }
        let us = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|most| *most < us);
        if let Some(counter) = self.buckets.get(bucket) {
            add(counter, 1);
        }
        add(&self.duration_us, us);
        add(&self.received_bytes, record.received_bytes);
        add(&self.sent_bytes, record.sent_bytes);
    }

    /// A request was refused.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.count(reason);
    }

    /// A connection was closed because there were too many.
    pub fn connection_refused(&self) {
        add(&self.refused_connections, 1);
    }

    /// A TLS handshake ended.
    pub fn handshake(&self, completed: bool) {
        if completed {
            add(&self.handshakes, 1);
        } else {
            add(&self.failed_handshakes, 1);
        }
    }

    /// A WebSocket opened.
    pub fn tunnel_opened(&self) {
        add(&self.tunnels, 1);
    }

    /// A reload, or the first load, ended; the configuration on disk is in force only if it
    /// `succeeded`.
    pub fn reloaded(&self, succeeded: bool) {
        if succeeded {
            add(&self.reloads, 1);
        } else {
            add(&self.failed_reloads, 1);
        }
        self.in_force.store(succeeded, Ordering::Relaxed);
    }

    /// Whether the store that gates share is there by now.
    pub fn session_store(&self, is_there: bool) {
        self.store_is_away.store(!is_there, Ordering::Relaxed);
    }

    /// Whether rates are counted for all gates together by now, where they should be.
    pub fn shared_rates(&self, are_shared: bool) {
        self.rates_are_apart.store(!are_shared, Ordering::Relaxed);
    }

    /// The certificates that are now in use, by the file each came from, and when each ends.
    pub fn set_certificates(&self, certificates: Vec<(String, SystemTime)>) {
        let mut held = self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *held = certificates;
    }

    /// Everything, in the text format.
    pub fn render(&self) -> String {
        let mut page = Page(String::with_capacity(8192));
        self.render_requests(&mut page);
        self.render_connections(&mut page);
        self.render_state(&mut page);
        page.0
    }

    fn render_requests(&self, page: &mut Page) {
        let apps = self.apps.load();
        let mut apps: Vec<_> = apps.iter().map(|(name, app)| (&**name, &**app)).collect();
        apps.push(("", &self.unrouted));
        apps.sort_unstable_by_key(|(name, _)| *name);
        page.family("requests_total", "counter", "Exchanges, by status class.");
        for (name, app) in &apps {
            for (class, count) in CLASSES.iter().zip(&app.classes) {
                let labels = [("app", *name), ("class", *class)];
                page.sample("requests_total", &labels, read(count));
            }
        }
        page.family("refusals_total", "counter", "Requests refused, by reason.");
        for (reason, count) in self.refusals.sorted() {
            page.sample("refusals_total", &[("reason", reason)], count);
        }
        let would = "would_refuse_total";
        let help = "Requests that a rule which is report_only would have refused.";
        page.family(would, "counter", help);
        for (name, app) in &apps {
            for (reason, count) in app.would_refuse.sorted() {
                page.sample(would, &[("app", name), ("reason", reason)], count);
            }
        }
        let failures = "backend_failures_total";
        page.family(failures, "counter", "Exchanges that a backend failed.");
        for (name, app) in &apps {
            for (kind, count) in app.failures.sorted() {
                page.sample(failures, &[("app", name), ("kind", kind)], count);
            }
        }
        page.family("received_bytes_total", "counter", "Content from clients.");
        page.sample("received_bytes_total", &[], read(&self.received_bytes));
        page.family("sent_bytes_total", "counter", "Content to clients.");
        page.sample("sent_bytes_total", &[], read(&self.sent_bytes));
        self.render_durations(page);
    }

    fn render_durations(&self, page: &mut Page) {
        let name = "request_duration_seconds";
        page.family(name, "histogram", "From the head to the last byte.");
        let mut so_far = 0_u64;
        let bounds = BUCKETS_US.iter().map(|most| seconds(*most).to_string());
        let bounds = bounds.chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.buckets) {
            so_far = so_far.saturating_add(read(count));
            page.sample("request_duration_seconds_bucket", &[("le", &bound)], so_far);
        }
        let sum = seconds(read(&self.duration_us));
        page.sample("request_duration_seconds_sum", &[], sum);
        page.sample("request_duration_seconds_count", &[], so_far);
    }

    fn render_connections(&self, page: &mut Page) {
        let open = self.sources.as_ref().map(|from| (from.open_connections)());
        page.family("connections", "gauge", "Connections open.");
        page.sample("connections", &[], open.unwrap_or(0));
        let refused = "connections_refused_total";
        page.family(refused, "counter", "Connections over a limit.");
        page.sample(refused, &[], read(&self.refused_connections));
        let name = "tls_handshakes_total";
        page.family(name, "counter", "TLS handshakes, by result.");
        page.results(name, read(&self.handshakes), read(&self.failed_handshakes));
        page.family("websockets_total", "counter", "WebSockets opened.");
        page.sample("websockets_total", &[], read(&self.tunnels));
    }

    fn render_state(&self, page: &mut Page) {
        let name = "reloads_total";
        page.family(name, "counter", "Loads of the configuration, by result.");
        page.results(name, read(&self.reloads), read(&self.failed_reloads));
        page.family(
            "configuration_ok",
            "gauge",
            "1 while the configuration on disk is in force.",
        );
        let in_force = self.in_force.load(Ordering::Relaxed);
        page.sample("configuration_ok", &[], u8::from(in_force));
        page.family(
            "session_store_ok",
            "gauge",
            "0 while the store of sessions that gates share is away, or the other gates are not heard.",
        );
        let is_away = self.store_is_away.load(Ordering::Relaxed);
        page.sample("session_store_ok", &[], u8::from(!is_away));
        page.family(
            "shared_rates_ok",
            "gauge",
            "0 while rates that gates share are counted by each gate for itself.",
        );
        let are_apart = self.rates_are_apart.load(Ordering::Relaxed);
        page.sample("shared_rates_ok", &[], u8::from(!are_apart));
        let dropped = self.sources.as_ref().map_or(0, |from| from.log.dropped());
        page.family(
            "log_lines_dropped_total",
            "counter",
            "Lines of the access log that could not be written.",
        );
        page.sample("log_lines_dropped_total", &[], dropped);
        let ends = "certificate_expiry_timestamp_seconds";
        page.family(ends, "gauge", "When a certificate ends, in Unix time.");
        let certificates = self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (file, end) in certificates.iter() {
            let end = end
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            page.sample(ends, &[("file", file)], end);
        }
    }
}

/// How the backend failed, when it was the backend: before an answer, or in the middle of one.
fn backend_failure(record: &Record) -> Option<&'static str> {
    let is_gateway_error = matches!(
        record.status,
        Some(
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        )
    );
    let refused = record.refused.filter(|_| is_gateway_error);
    refused.or(record.ended_early)?.strip_prefix(FORWARD)
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

/// Counts by reason, for a set of reasons that is fixed in the code but not written down in one
/// place: a hash table that only grows, without a lock.
#[derive(Debug)]
struct Reasons<const N: usize> {
    slots: [Slot; N],
    /// Reasons that found no slot.
    others: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    reason: OnceLock<&'static str>,
    count: AtomicU64,
}

impl<const N: usize> Reasons<N> {
    fn new() -> Self {
        Self {
            slots: from_fn(|_| Slot::default()),
            others: AtomicU64::default(),
        }
    }

    fn count(&self, reason: &'static str) {
        // FNV-1a; the reasons are ours, so that nobody can choose them to collide.
        let hash = reason
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let start = hash.checked_rem(N as u64).unwrap_or(0);
        let start = usize::try_from(start).unwrap_or(0);
        let (before, after) = self.slots.split_at_checked(start).unwrap_or((&[], &[]));
        let slot = after
            .iter()
            .chain(before)
            .find(|slot| *slot.reason.get_or_init(|| reason) == reason);
        add(slot.map_or(&self.others, |slot| &slot.count), 1);
    }

    fn sorted(&self) -> Vec<(&'static str, u64)> {
        let mut counts: Vec<_> = self
            .slots
            .iter()
            .filter_map(|slot| Some((*slot.reason.get()?, read(&slot.count))))
            .collect();
        counts.sort_unstable();
        match read(&self.others) {
            0 => {}
            others => counts.push(("other", others)),
        }
        counts
    }
}

/// The text format, version 0.0.4.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# HELP portcullis_{name} {help}\n# TYPE portcullis_{name} {kind}"
        );
    }

    fn results(&mut self, name: &str, ok: u64, failed: u64) {
        self.sample(name, &[("result", "ok")], ok);
        self.sample(name, &[("result", "failed")], failed);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "portcullis_{name}");
        let mut before = '{';
        for (label, value) in labels {
            let _ = write!(self.0, "{before}{label}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::writer::{Batch, Writer};
    use std::collections::HashSet;
    use std::time::Instant;

    fn record(app: Option<&str>, status: u16, ms: u64) -> Record {
        let mut record = Record::new("0f".into(), Instant::now(), SystemTime::UNIX_EPOCH);
        record.app = app.map(Into::into);
        record.status = StatusCode::from_u16(status).ok();
        record.duration = Duration::from_millis(ms);
        record
    }

    #[track_caller]
    fn shows(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.render();
        for line in lines {
            assert!(
                text.lines().any(|got| got == format!("portcullis_{line}")),
                "{line}\n{text}"
            );
        }
    }

    #[test]
    fn requests_are_counted_by_application_and_class() {
        let metrics = Metrics::default();
        metrics.set_apps(["wiki".into(), "shop".into()]);
        metrics.finished(&record(Some("wiki"), 200, 1));
        metrics.finished(&record(Some("wiki"), 204, 1));
        metrics.finished(&record(Some("shop"), 503, 1));
        metrics.finished(&record(None, 404, 1));
        metrics.finished(&record(None, 0, 1));
        shows(
            &metrics,
            &[
                r#"requests_total{app="wiki",class="2xx"} 2"#,
                r#"requests_total{app="shop",class="5xx"} 1"#,
                r#"requests_total{app="shop",class="2xx"} 0"#,
                r#"requests_total{app="",class="4xx"} 1"#,
                r#"requests_total{app="",class="none"} 1"#,
            ],
        );
    }

    #[test]
    fn only_the_configuration_makes_a_time_series_of_an_application() {
        let metrics = Metrics::default();
        metrics.set_apps(["wiki".into()]);
        let before = metrics.render().lines().count();
        for n in 0..100 {
            metrics.finished(&record(Some(&format!("app-{n}")), 700, 1));
        }
        assert_eq!(metrics.render().lines().count(), before);
        shows(&metrics, &[r#"requests_total{app="",class="none"} 100"#]);
    }

    #[test]
    fn a_reload_keeps_the_counts_of_applications_that_stay() {
        let metrics = Metrics::default();
        metrics.set_apps(["wiki".into(), "old".into()]);
        metrics.finished(&record(Some("wiki"), 200, 1));
        metrics.set_apps(["wiki".into()]);
        shows(&metrics, &[r#"requests_total{app="wiki",class="2xx"} 1"#]);
        assert!(!metrics.render().contains("old"));
    }

    #[test]
    fn backend_failures_are_counted_by_kind_and_client_faults_are_not() {
        let metrics = Metrics::default();
        metrics.set_apps(["wiki".into()]);
        let mut failed = record(Some("wiki"), 502, 1);
        failed.refused = Some("forward.connect");
        metrics.finished(&failed);
        let mut cut = record(Some("wiki"), 200, 1);
        cut.ended_early = Some("forward.backend_gone");
        metrics.finished(&cut);
        let mut too_large = record(Some("wiki"), 413, 1);
        too_large.refused = Some("forward.body_too_large");
        metrics.finished(&too_large);
        let mut gone = record(Some("wiki"), 200, 1);
        gone.ended_early = Some("wire.client_gone");
        metrics.finished(&gone);
        shows(
            &metrics,
            &[
                r#"backend_failures_total{app="wiki",kind="backend_gone"} 1"#,
                r#"backend_failures_total{app="wiki",kind="connect"} 1"#,
            ],
        );
        let samples = metrics.render();
        assert_eq!(samples.matches("backend_failures_total{").count(), 2);
    }

    #[test]
    fn what_a_rule_would_have_refused_is_counted_by_application_and_reason() {
        let metrics = Metrics::default();
        metrics.set_apps(["wiki".into()]);
        let mut seen = record(Some("wiki"), 200, 1);
        seen.would_refuse = Some(crate::record::WouldRefuse {
            reason: "access.denied",
            by: crate::pure::table::Place {
                file: "policies/wiki.toml".into(),
                line: 9,
            },
        });
        metrics.finished(&seen);
        metrics.finished(&record(Some("wiki"), 200, 1));
        shows(
            &metrics,
            &[
                r#"would_refuse_total{app="wiki",reason="access.denied"} 1"#,
                r#"requests_total{app="wiki",class="2xx"} 2"#,
            ],
        );
    }

    #[test]
    fn the_histogram_is_cumulative_and_its_count_is_its_last_bucket() {
        let metrics = Metrics::default();
        for ms in [0, 1, 2, 30, 20_000] {
            metrics.finished(&record(None, 200, ms));
        }
        shows(
            &metrics,
            &[
                r#"request_duration_seconds_bucket{le="0.0005"} 1"#,
                r#"request_duration_seconds_bucket{le="0.001"} 2"#,
                r#"request_duration_seconds_bucket{le="0.0025"} 3"#,
                r#"request_duration_seconds_bucket{le="0.05"} 4"#,
                r#"request_duration_seconds_bucket{le="10"} 4"#,
                r#"request_duration_seconds_bucket{le="+Inf"} 5"#,
                "request_duration_seconds_count 5",
                "request_duration_seconds_sum 20.033",
            ],
        );
    }

    #[test]
    fn everything_else_is_shown() {
        let writer = Writer::start("log", std::io::sink()).unwrap();
        let sink = writer.sink();
        assert!(writer.finish(Duration::from_secs(10)));
        sink.send(Batch {
            text: String::new(),
            lines: 1,
        });
        let metrics = Metrics::new(sink, || 3);
        metrics.refused("network.denied");
        metrics.connection_refused();
        metrics.handshake(true);
        metrics.handshake(false);
        metrics.tunnel_opened();
        metrics.reloaded(true);
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        metrics.set_certificates(vec![("a\"b\\c\nd.pem".to_owned(), ends)]);
        shows(
            &metrics,
            &[
                "connections 3",
                "log_lines_dropped_total 1",
                r#"refusals_total{reason="network.denied"} 1"#,
                "connections_refused_total 1",
                r#"tls_handshakes_total{result="ok"} 1"#,
                r#"tls_handshakes_total{result="failed"} 1"#,
                "websockets_total 1",
                r#"reloads_total{result="ok"} 1"#,
                r#"reloads_total{result="failed"} 0"#,
                "configuration_ok 1",
                "session_store_ok 1",
                "shared_rates_ok 1",
                r#"certificate_expiry_timestamp_seconds{file="a\"b\\c\nd.pem"} 1800000000"#,
            ],
        );
        metrics.reloaded(false);
        metrics.session_store(false);
        metrics.shared_rates(false);
        metrics.set_certificates(Vec::new());
        shows(
            &metrics,
            &[
                "configuration_ok 0",
                "session_store_ok 0",
                "shared_rates_ok 0",
            ],
        );
        assert!(!metrics.render().contains("d.pem"), "it is out of use");
    }

    #[test]
    fn a_reason_from_two_cores_has_one_count() {
        let reasons = Reasons::<8>::new();
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for name in NAMES.iter().cycle().take(8000) {
                        reasons.count(name);
                    }
                });
            }
        });
        assert_eq!(reasons.sorted(), NAMES.map(|name| (name, 4000)));
        reasons.count("one too many");
        assert_eq!(reasons.sorted().last(), Some(&("other", 1)));
    }

    #[test]
    fn each_family_is_described_once_and_before_its_samples() {
        let mut described = HashSet::new();
        for line in Metrics::default().render().lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(described.insert(name.to_owned()), "{line}");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix))
                    .unwrap_or(name);
                assert!(described.contains(family), "{line}");
            }
        }
    }
}
