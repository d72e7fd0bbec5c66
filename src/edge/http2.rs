//! HTTP/2 from clients, by hyper; each stream becomes the same canonical request as in HTTP/1.1.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, EXPECT};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::body::{self, Body};
use crate::deadline::Deadline;
use crate::pure::connection::Connection;
use crate::pure::fields::Fields;
use crate::pure::head::{self, Head};
use crate::pure::http1::{self, HeadLimits, Malformed};

use super::exchange::{Exchange, Log};
use super::{Drain, Limits, Written};

/// Bytes a client may send ahead on one stream, and on all streams of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of response that wait for one slow stream.
const SEND_BUFFER: usize = 64 * 1024;
/// What is read of content that nobody wanted, before its refusal is sent. Many a client takes the
/// reset that ends such a stream for a failure when it is still sending (RFC 9113 §8.1).
const SKIP_BYTES: usize = 64 * 1024;
const SKIP: Duration = Duration::from_millis(500);
/// How often a connection is looked at for a stall.
const WATCH: Duration = Duration::from_secs(1);

/// Serves a connection until either side ends it.
pub async fn serve<IO>(io: IO, conn: Rc<Connection>, exchange: Exchange, drain: Drain)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = *exchange.limits();
    let state = Rc::new(State::default());
    let service = service_fn({
        let state = Rc::clone(&state);
        move |request| {
            let stream = Stream::open(&state);
            let asked = Asked::read(request, &limits.head);
            let (exchange, conn) = (exchange.clone(), Rc::clone(&conn));
            // In a box, because hyper moves it four times on its way to a task, and it is long.
            Box::pin(async move {
                Ok::<_, std::convert::Infallible>(answer(&exchange, &conn, asked, stream).await)
            })
        }
    });
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        // Twice what is taken: hyper refuses without a word what goes beyond, and whose cookies
        // are too many is to be told.
        .max_header_list_size(
            u32::try_from(limits.head.bytes.saturating_mul(2)).unwrap_or(u32::MAX),
        )
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(Some(256))
        .auto_date_header(true);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut watch = drain.watch();
    let mut told: Option<Instant> = None;
    let mut tick = Deadline::default();
    std::future::poll_fn(|cx| {
        // Resets are looked at with each read: a second is room for thousands (CVE-2023-44487).
        if serving.as_mut().poll(cx).is_ready() || state.resets.get() > limits.http2_resets {
            return Poll::Ready(());
        }
        if told.is_none() && watch.poll(cx).is_ready() {
            told = Some(Instant::now());
            serving.as_mut().graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        tick.start(WATCH);
        while tick.poll(cx).is_ready() {
            tick.set(WATCH);
            if state.is_stalled(&limits) {
                return Poll::Ready(());
            }
            // A client may ignore GOAWAY, or never have sent its preface, which is waited for first.
            if told.is_some_and(|at| at.elapsed() > limits.header)
                && state.is_quiet_for(limits.header)
            {
                return Poll::Ready(());
            }
            if told.is_none() && state.is_quiet_for(limits.keep_alive) {
                told = Some(Instant::now());
                serving.as_mut().graceful_shutdown();
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    })
    .await;
}

/// What is counted on one connection.
#[derive(Debug)]
struct State {
    resets: Cell<u32>,
    open: Cell<u32>,
    quiet_since: Cell<Instant>,
    /// Streams whose client takes nothing, and since when the first of them waits.
    waiting: Cell<u32>,
    waiting_since: Cell<Instant>,
}

impl Default for State {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            resets: Cell::new(0),
            open: Cell::new(0),
            quiet_since: Cell::new(now),
            waiting: Cell::new(0),
            waiting_since: Cell::new(now),
        }
    }
}

impl State {
    fn is_stalled(&self, limits: &Limits) -> bool {
        self.waiting.get() > 0 && self.waiting_since.get().elapsed() > limits.body_idle
    }

    fn is_quiet_for(&self, time: Duration) -> bool {
        self.open.get() == 0 && self.quiet_since.get().elapsed() > time
    }
}

/// One stream, from its head until its response is written or it is reset.
struct Stream {
    state: Rc<State>,
    finished: bool,
    waits: bool,
}

impl Stream {
    fn open(state: &Rc<State>) -> Self {
        state.open.set(state.open.get().saturating_add(1));
        Self {
            state: Rc::clone(state),
            finished: false,
            waits: false,
        }
    }

    /// A frame was handed over: until the next is asked for, the client is waited for.
    fn handed_over(&mut self) {
        if !self.waits {
            self.waits = true;
            self.state
                .waiting
                .set(self.state.waiting.get().saturating_add(1));
        }
        self.state.waiting_since.set(Instant::now());
    }

    fn asked_again(&mut self) {
        if self.waits {
            self.waits = false;
            self.state
                .waiting
                .set(self.state.waiting.get().saturating_sub(1));
            self.state.waiting_since.set(Instant::now());
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.asked_again();
        self.state.open.set(self.state.open.get().saturating_sub(1));
        if self.state.open.get() == 0 {
            self.state.quiet_since.set(Instant::now());
        }
        if !self.finished {
            self.state
                .resets
                .set(self.state.resets.get().saturating_add(1));
        }
    }
}

/// A request whose head was read, while it takes its way.
struct Asked {
    head: Result<Head, head::Refused>,
    /// Its content, if there can be any.
    incoming: Option<Incoming>,
    /// The client waits for a word before it sends content.
    expects: bool,
}

impl Asked {
    fn read(request: Request<Incoming>, limits: &HeadLimits) -> Self {
        let (parts, incoming) = request.into_parts();
        let incoming = Some(incoming).filter(|incoming| !incoming.is_end_stream());
        Self {
            expects: parts.headers.contains_key(EXPECT),
            head: read_head(parts, incoming.is_none(), limits),
            incoming,
        }
    }
}

/// What became of a request's content so far.
#[derive(Default)]
struct Progress {
    received: Cell<u64>,
    /// Content of which there may be more, when nobody reads on.
    unread: RefCell<Option<Incoming>>,
}

async fn answer(
    exchange: &Exchange,
    conn: &Connection,
    asked: Asked,
    stream: Stream,
) -> Response<Sent> {
    let Asked {
        head,
        incoming,
        expects,
    } = asked;
    let progress = incoming.as_ref().map(|_| Rc::<Progress>::default());
    let reply = match head {
        Err(refused) => exchange.refuse(conn, refused),
        Ok(head) => {
            let body = match (incoming, &progress) {
                (Some(incoming), Some(progress)) => {
                    Body::stream(Content::new(incoming, *exchange.limits(), progress))
                }
                (Some(_) | None, _) => Body::Empty,
            };
            // hyper has no way to send interim responses.
            exchange.answer(conn, head, body, &|_| {}).await
        }
    };
    let unread = progress
        .as_ref()
        .and_then(|progress| progress.unread.take());
    // Who waits for an answer before sending content is not waited for.
    if let Some(incoming) = unread.filter(|_| !expects) {
        Box::pin(skip(incoming)).await;
    }
    let (fields, body) = (reply.response.fields, reply.response.body);
    let mut response = Response::new(Sent {
        body,
        log: Some(reply.log),
        progress,
        sent: 0,
        stream,
    });
    *response.status_mut() = reply.response.status;
    *response.headers_mut() = HeaderMap::from(fields);
    response
}

/// The canonical request, held to the limits of HTTP/1.1.
fn read_head(parts: Parts, ends: bool, limits: &HeadLimits) -> Result<Head, head::Refused> {
    let uri = &parts.uri;
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let headers = join_crumbs(parts.headers.into());
    let is_too_large = is_too_large(path, &headers, limits);
    let authority = uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let head = head::from_http2(
        &parts.method,
        uri.scheme_str(),
        authority,
        path.as_bytes(),
        headers,
        ends,
    )?;
    if path.len() > limits.target_bytes {
        return Err(head::Refused::Malformed(Malformed::TargetTooLong));
    }
    if is_too_large {
        return Err(head::Refused::Malformed(Malformed::HeadTooLarge));
    }
    Ok(head)
}

/// Reads content that nobody wanted, within bounds.
async fn skip(mut incoming: Incoming) {
    let reading = async {
        let mut read = 0_usize;
        while read < SKIP_BYTES {
            match std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
                }
                Some(Err(_)) | None => return,
            }
        }
    };
    let _ = tokio::time::timeout(SKIP, reading).await;
}

/// Whether a head is larger than is taken, or has more fields; its size is that in HTTP/1.1.
fn is_too_large(path: &str, headers: &Fields, limits: &HeadLimits) -> bool {
    let sizes = headers
        .iter()
        .map(|(name, value)| [name.as_str().len(), ": \r\n".len(), value.len()]);
    let bytes = sizes.flatten().fold(path.len(), usize::saturating_add);
    bytes > limits.bytes || headers.len() > limits.fields
}

/// HTTP/2 may split Cookie into crumbs; they are one field (RFC 9113 §8.2.3).
fn join_crumbs(mut headers: Fields) -> Fields {
    if headers.all(&COOKIE).nth(1).is_none() {
        return headers;
    }
    let crumbs: Vec<&[u8]> = headers.all(&COOKIE).map(HeaderValue::as_bytes).collect();
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..]))) {
        headers.set(COOKIE, value);
    }
    headers
}

/// A request's content, with the limits on slow clients.
struct Content {
    incoming: Option<Incoming>,
    progress: Rc<Progress>,
    idle: Deadline,
    limits: Limits,
    waiting_since: Option<Instant>,
    waited: Duration,
}

impl Content {
    fn new(incoming: Incoming, limits: Limits, progress: &Rc<Progress>) -> Self {
        Self {
            incoming: Some(incoming),
            progress: Rc::clone(progress),
            idle: Deadline::default(),
            limits,
            waiting_since: None,
            waited: Duration::ZERO,
        }
    }
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) {
            if let Some(since) = this.waiting_since.take() {
                this.waited = this.waited.saturating_add(since.elapsed());
            }
            this.idle.clear();
            return Poll::Ready(match frame {
                None => None,
                Some(Err(_)) => Some(Err(body::Error::ClientGone)),
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                    let received = this.progress.received.get().saturating_add(bytes);
                    this.progress.received.set(received);
                    // A byte now and then must not put the question off.
                    if !frame.is_trailers() && this.limits.is_too_slow(this.waited, received) {
                        return Poll::Ready(Some(Err(body::Error::ClientTimeout)));
                    }
                    let forbidden = frame
                        .trailers_ref()
                        .is_some_and(|trailers| trailers.keys().any(http1::forbidden_in_trailers));
                    Some(if forbidden {
                        Err(body::Error::ClientMalformed("wire.forbidden_trailer"))
                    } else {
                        Ok(frame)
                    })
                }
            });
        }
        let since = *this.waiting_since.get_or_insert_with(Instant::now);
        this.idle.start(Duration::from_secs(1));
        while this.idle.poll(cx).is_ready() {
            let waited = this.waited.saturating_add(since.elapsed());
            let slow = this
                .limits
                .is_too_slow(waited, this.progress.received.get());
            if slow || since.elapsed() >= this.limits.body_idle {
                return Poll::Ready(Some(Err(body::Error::ClientTimeout)));
            }
            this.idle.set(Duration::from_secs(1));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let incoming = self.incoming.take();
        *self.progress.unread.borrow_mut() = incoming.filter(|incoming| !incoming.is_end_stream());
    }
}

/// A response's content on its way to the client, with the log line that its end completes.
struct Sent {
    body: Body,
    log: Option<Log>,
    progress: Option<Rc<Progress>>,
    sent: u64,
    stream: Stream,
}

impl Sent {
    fn finish(&mut self, result: Result<(), body::Error>) {
        self.stream.finished = true;
        self.stream.asked_again();
        if let Some(log) = self.log.take() {
            log.finish(
                self.progress
                    .as_ref()
                    .map_or(0, |progress| progress.received.get()),
                &Written {
                    content_bytes: self.sent,
                    result,
                },
            );
        }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let this = self.get_mut();
        this.stream.asked_again();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.sent = this
                    .sent
                    .saturating_add(frame.data_ref().map_or(0, Bytes::len) as u64);
                if this.body.is_end_stream() || frame.is_trailers() {
                    this.finish(Ok(()));
                } else {
                    this.stream.handed_over();
                }
            }
            Some(Err(error)) => this.finish(Err(*error)),
            None => this.finish(Ok(())),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // hyper never asks for the content of a response that has none.
        let result = if self.body.is_end_stream()
            || self.sent == 0 && self.body.size_hint().exact() == Some(0)
        {
            Ok(())
        } else {
            Err(body::Error::ClientGone)
        };
        if self.log.is_some() {
            let finished = result.is_ok();
            self.finish(result);
            self.stream.finished = finished;
        }
    }
}

/// Runs hyper's tasks on the core that owns the connection.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F> Executor<F> for Local
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_http2_is_held_to_the_limits_of_http1() {
        let limits = HeadLimits {
            bytes: 100,
            target_bytes: 50,
            fields: 2,
        };
        let is_too_large = |fields: &[(&'static str, &str)]| {
            let fields = fields.iter().map(|(name, value)| {
                let value = HeaderValue::from_str(value).expect("a value");
                (http::HeaderName::from_static(name), value)
            });
            is_too_large("/", &fields.collect(), &limits)
        };
        assert!(!is_too_large(&[("a", "1"), ("b", "2")]));
        assert!(is_too_large(&[("a", "1"), ("b", "2"), ("c", "3")]));
        assert!(!is_too_large(&[("a", &"x".repeat(94))]));
        assert!(is_too_large(&[("a", &"x".repeat(95))]));
    }
}
