//! One request and its answer: the pipeline in the middle, the page or problem for a refusal, and
//! the log line at the end.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, StatusCode};

use crate::backend::pool::Pools;
use crate::body::Body;
use crate::caller::Caller;
use crate::observe::access_log::Lines;
use crate::observe::metrics::Metrics;
use crate::pages::{self, Context};
use crate::pipeline::route::App;
use crate::pipeline::{self, Gate, Now, Passed, Rules, verify};
use crate::pure::connection::Connection;
use crate::pure::fields::Fields;
use crate::pure::head::{self, Head};
use crate::pure::hex;
use crate::pure::http1::Malformed;
use crate::record::Record;
use crate::refusal::{Answer, Refusal};
use crate::response::{Early, Response};

use super::Limits;
use super::tunnel::{Ended, Tunnel};
use super::{Unreadable, Written};

/// What the connections of one listener on one core share.
#[derive(Clone)]
pub struct Exchange(Rc<Shared>);

struct Shared {
    site: Site,
    limits: Limits,
    pools: Rc<Pools>,
    lines: Lines,
    metrics: Arc<Metrics>,
    begun: Instant,
    hsts: Option<HeaderValue>,
    ids: Ids,
}

/// What a listener serves.
pub enum Site {
    /// The applications.
    Gate(Arc<ArcSwap<Gate>>),
    /// Only the way to https, on this port.
    Redirect(u16),
    /// Metrics and health.
    Admin(super::admin::Admin),
    /// What another proxy may do with a request.
    Verify(Arc<ArcSwap<Gate>>),
}

/// An answer, and what becomes of the connection.
pub struct Reply {
    /// The answer.
    pub response: Response,
    /// The backend's side of a WebSocket, after a 101.
    pub tunnel: Option<Tunnel>,
    /// Whether the connection ends with it.
    pub close: bool,
    /// The log line to complete.
    pub log: Log,
}

/// A log line that is written when the exchange is over.
pub struct Log {
    record: Option<Box<Record>>,
    exchange: Exchange,
}

/// Everything an [`Exchange`] needs.
pub struct Setup {
    /// What the listener serves.
    pub site: Site,
    /// The bounds on clients.
    pub limits: Limits,
    /// This core's connections to backends.
    pub pools: Rc<Pools>,
    /// Where log lines go.
    pub lines: Lines,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// When the process began.
    pub begun: Instant,
    /// The value of `Strict-Transport-Security` on TLS.
    pub hsts: Option<HeaderValue>,
}

impl Exchange {
    /// For the connections of one listener on this core.
    ///
    /// # Errors
    /// No random bytes from the system.
    pub fn new(setup: Setup) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let Setup {
            site,
            limits,
            pools,
            lines,
            metrics,
            begun,
            hsts,
        } = setup;
        let ids = Ids::new()?;
        Ok(Self(Rc::new(Shared {
            site,
            limits,
            pools,
            lines,
            metrics,
            begun,
            hsts,
            ids,
        })))
    }

    /// The bounds on clients.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Answers a request; `early` takes what is to be sent before the answer.
    pub async fn answer(
        &self,
        conn: &Connection,
        head: Head,
        body: Body,
        early: Early<'_>,
    ) -> Reply {
        let mut record = self.record(conn);
        record.asks(&head);
        let gate = match &self.0.site {
            Site::Gate(gate) => gate.load_full(),
            Site::Redirect(port) => return self.redirect(*port, &head, record),
            Site::Admin(admin) => {
                let response = admin.answer(&head);
                return self.reply(response, None, false, record);
            }
            // In a box, so that it takes no room in every other exchange.
            Site::Verify(gate) => {
                return Box::pin(self.verify(&gate.load_full(), conn, head, record)).await;
            }
        };
        let asked = pages::Asked::of(&head);
        let caller = Caller {
            conn,
            asked: &asked,
            early,
        };
        let now = self.now(&record);
        let passed =
            pipeline::handle(&gate, &self.0.pools, caller, head, body, now, &mut record).await;
        match passed {
            Ok(Passed { response, switched }) => {
                let tunnel = switched.map(|(backend, standing)| Tunnel {
                    backend,
                    standing,
                    idle: self.0.limits.tunnel_idle,
                });
                self.reply(response, tunnel, false, record)
            }
            Err(refusal) => {
                let app = record.app.as_deref().and_then(|name| gate.app(name));
                self.refused(&refusal, &asked, app, record)
            }
        }
    }

    /// Answers a head that has no canonical form; the connection closes.
    pub fn refuse(&self, conn: &Connection, refused: head::Refused) -> Reply {
        let answer = match refused {
            head::Refused::Malformed(Malformed::HeadTooLarge) => Answer::FieldsTooLarge,
            head::Refused::Malformed(Malformed::TargetTooLong) => Answer::UriTooLong,
            head::Refused::Expectation => Answer::ExpectationFailed,
            head::Refused::Method => Answer::NotImplemented,
            head::Refused::Malformed(_)
            | head::Refused::Target
            | head::Refused::TargetForm
            | head::Refused::HostMissing
            | head::Refused::HostRepeated
            | head::Refused::HostMalformed
            | head::Refused::HostContradicts
            | head::Refused::Repeated
            | head::Refused::Connection
            | head::Refused::Upgrade => Answer::BadRequest,
        };
        let record = self.record(conn);
        self.refused(
            &Refusal::new(answer, refused.reason()),
            &pages::Asked::unreadable(),
            None,
            record,
        )
    }

    /// Answers bytes that are no head at all; the connection closes.
    pub fn refuse_unreadable(&self, conn: &Connection, unreadable: Unreadable) -> Reply {
        match unreadable {
            Unreadable::Malformed(malformed) => {
                self.refuse(conn, head::Refused::Malformed(malformed))
            }
            Unreadable::Timeout => {
                let refusal = Refusal::new(Answer::RequestTimeout, "wire.header_timeout");
                self.refused(
                    &refusal,
                    &pages::Asked::unreadable(),
                    None,
                    self.record(conn),
                )
            }
        }
    }
}

impl Exchange {
    fn record(&self, conn: &Connection) -> Box<Record> {
        let mut record = Record::new(self.0.ids.next(), super::clock(), super::wall_clock());
        record.client = Some(conn.peer.ip());
        Box::new(record)
    }

    /// Answers a proxy that asks about a request; the log has that one.
    async fn verify(
        &self,
        gate: &Gate,
        conn: &Connection,
        asking: Head,
        mut record: Box<Record>,
    ) -> Reply {
        let question = match verify::question(gate.verify.as_ref(), conn, asking) {
            Ok(question) => question,
            Err(refused) => {
                return self.refused(&refused.into(), &pages::Asked::unreadable(), None, record);
            }
        };
        let (asked, manner) = (pages::Asked::of(question.head()), question.manner());
        record.asks(question.head());
        let now = self.now(&record);
        match pipeline::ask(gate, question, now, &mut record).await {
            Ok(yes) => self.reply(yes, None, false, record),
            Err(refusal) => {
                let app = record.app.as_deref().and_then(|name| gate.app(name));
                self.refused_with(&refusal, &asked, app, record, |page| manner.no(page))
            }
        }
    }

    fn now(&self, record: &Record) -> Now {
        Now {
            wall: record.time,
            uptime: record.started.saturating_duration_since(self.0.begun),
        }
    }

    fn refused(
        &self,
        refusal: &Refusal,
        asked: &pages::Asked,
        app: Option<&Arc<App<Rules>>>,
        record: Box<Record>,
    ) -> Reply {
        self.refused_with(refusal, asked, app, record, |page| page)
    }

    fn refused_with(
        &self,
        refusal: &Refusal,
        asked: &pages::Asked,
        app: Option<&Arc<App<Rules>>>,
        mut record: Box<Record>,
        said: impl FnOnce(http::Response<Bytes>) -> http::Response<Bytes>,
    ) -> Reply {
        record.refused = Some(refusal.reason);
        self.0.metrics.refused(refusal.reason);
        let ctx = Context {
            contact: app.and_then(|app| app.contact.as_deref()),
            ..Context::new(asked, &record)
        };
        let response = said(pages::refusal::respond(refusal, &ctx));
        // What is ambiguous may have desynchronised the connection already.
        let close = matches!(
            refusal.answer,
            Answer::BadRequest
                | Answer::RequestTimeout
                | Answer::UriTooLong
                | Answer::FieldsTooLarge
                | Answer::ExpectationFailed
                | Answer::NotImplemented
                | Answer::ContentTooLarge
        );
        self.reply(response.into(), None, close, record)
    }

    fn redirect(&self, port: u16, head: &Head, record: Box<Record>) -> Reply {
        let host = head.authority.host.as_str();
        let target = head.target.to_string();
        let location = match port {
            443 => format!("https://{host}{target}"),
            port => format!("https://{host}:{port}{target}"),
        };
        let mut fields = Fields::new();
        if let Ok(location) = HeaderValue::try_from(location) {
            fields.append(LOCATION, location);
        }
        let response = Response {
            status: StatusCode::PERMANENT_REDIRECT,
            fields,
            body: Body::Empty,
        };
        self.reply(response, None, false, record)
    }

    fn reply(
        &self,
        mut response: Response,
        tunnel: Option<Tunnel>,
        close: bool,
        mut record: Box<Record>,
    ) -> Reply {
        record.status = Some(response.status);
        // Here, so that no answer lacks it: a page can act on a 401 or a 429 that it can read.
        if let Some(readers) = &record.readers {
            readers.say(&mut response.fields, record.refused.is_some());
        }
        if let Some(hsts) = &self.0.hsts {
            response
                .fields
                .set_if_missing(STRICT_TRANSPORT_SECURITY, hsts);
        }
        let log = Log {
            record: Some(record),
            exchange: self.clone(),
        };
        Reply {
            response,
            tunnel,
            close,
            log,
        }
    }
}

impl Log {
    /// The exchange is over.
    pub fn finish(mut self, received: u64, written: &Written) {
        if let Some(record) = &mut self.record {
            record.received_bytes = received;
            record.sent_bytes = written.content_bytes;
            record.ended_early = written.result.err().map(crate::body::Error::reason);
        }
    }

    /// The connection became a tunnel.
    pub fn switched(&mut self) {
        self.exchange.metrics().tunnel_opened();
    }

    /// The tunnel is over.
    pub fn tunnelled(&mut self, ended: Ended) {
        if let Some(record) = &mut self.record {
            record.received_bytes = ended.received;
            record.sent_bytes = ended.sent;
            record.ended_early = ended.reason;
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.duration = record.started.elapsed();
            self.exchange.0.metrics.finished(&record);
            self.exchange.0.lines.emit(&record);
        }
    }
}

/// Request ids: a random prefix for each core, then a counter; unique, and nothing to guess from,
/// because nothing trusts them.
struct Ids {
    /// The first half, in digits.
    prefix: [u8; 16],
    next: Cell<u64>,
}

impl Ids {
    fn new() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut bytes)?;
        let seed = u128::from_ne_bytes(bytes);
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
        Ok(Self {
            prefix: digits(half(seed)),
            next: Cell::new(half(seed >> 64)),
        })
    }

    fn next(&self) -> Arc<str> {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let mut id = [0; 32];
        let (first, second) = id.split_at_mut(16);
        first.copy_from_slice(&self.prefix);
        second.copy_from_slice(&digits(number));
        std::str::from_utf8(&id).unwrap_or_default().into()
    }
}

fn digits(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    let (pairs, _) = digits.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(number.to_be_bytes()) {
        *pair = hex::lower(byte);
    }
    digits
}
