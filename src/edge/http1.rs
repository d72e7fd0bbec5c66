//! HTTP/1.1 from clients: one connection, one request after the other.
//!
//! The connection task and the request's `Content` share the socket: only one of them reads at a
//! time, and both run on the core that owns the connection, so a `RefCell` is all the locking there
//! is, and no byte passes a channel.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::{self, Body};
use crate::deadline::Deadline;
use crate::pure::connection::Connection;
use crate::pure::fields::Fields;
use crate::pure::head::{self, Head};
use crate::pure::http1::{self, Chunked, Piece, Scanner};
use crate::response::Response;
use crate::scratch;

use super::exchange::{Exchange, Reply};
use super::{Drain, Limits, RATE_GRACE, Unreadable, Written, tunnel};

/// Bytes asked of the socket at once for content.
const CONTENT_READ_BYTES: usize = 64 * 1024;
/// Content up to this size is copied behind the head, so that both leave in one write.
const COPY_BYTES: usize = 8 * 1024;
/// Bytes that wait for a write at most, before content is asked for again.
const WRITE_BYTES: usize = 32 * 1024;
/// What a client may still send after a final answer, so that it reads the answer before a reset.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER: Duration = Duration::from_secs(2);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bytes of interim responses that wait for a slow client; what comes on top is dropped.
const EARLY_BYTES: usize = 16 * 1024;

/// Serves a connection until either side ends it.
pub async fn serve<IO>(io: IO, conn: Rc<Connection>, exchange: Exchange, drain: Drain)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = *exchange.limits();
    let wire = Rc::new(RefCell::new(Wire::new(io)));
    let mut drain = drain.watch();
    loop {
        let head = match read_head(&wire, &limits, &mut drain).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(unreadable) => {
                let reply = exchange.refuse_unreadable(&conn, unreadable);
                return refuse(&wire, reply, &limits).await;
            }
        };
        let read = http1::request_head(&head, &limits.head)
            .map_err(head::Refused::Malformed)
            .and_then(head::from_http1);
        drop(head);
        let request = match read {
            Ok(request) => request,
            Err(refused) => {
                let reply = exchange.refuse(&conn, refused);
                return refuse(&wire, reply, &limits).await;
            }
        };
        let (method, version) = (request.method.clone(), request.version);
        let keeps_alive = request.keeps_alive;
        let upgrades = request.upgrade.is_some();
        let body = content(&wire, &request, &limits);
        // Clients of HTTP/1.0 know no interim responses.
        let knows_early = version == Version::HTTP_11;
        let early = |response: Response| {
            if knows_early {
                wire.borrow_mut().push_early(&response);
            }
        };
        let reply = {
            let mut answer = pin!(exchange.answer(&conn, request, body, &early));
            poll_fn(|cx| {
                if let Poll::Ready(reply) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Some(reply));
                }
                let mut wire = wire.borrow_mut();
                if matches!(wire.poll_early(cx), Poll::Ready(Err(_))) {
                    return Poll::Ready(None);
                }
                wire.poll_gone(cx).map(|()| None)
            })
            .await
        };
        let Some(Reply {
            response,
            tunnel,
            close,
            mut log,
        }) = reply
        else {
            return;
        };
        if upgrades && let Some(tunnel) = tunnel {
            log.switched();
            let switching = tokio::time::timeout(limits.body_idle, write_switch(&wire, &response));
            if matches!(switching.await, Ok(Ok(())))
                && let Ok(wire) = Rc::try_unwrap(wire)
            {
                let Wire { io, input, .. } = wire.into_inner();
                log.tunnelled(Box::pin(tunnel::run(io, input.freeze(), tunnel)).await);
            }
            return;
        }
        // Whoever still sends the content up must not have it taken away.
        let uploads = Rc::strong_count(&wire) > 1 && !wire.borrow().is_content_over();
        let close = close
            || !keeps_alive
            || drain.is_draining()
            || uploads
            || !wire.borrow_mut().skip_content();
        let wrote = write(&wire, response, &method, version, close, &limits).await;
        log.finish(wire.borrow().received, &wrote);
        if wrote.result.is_err() {
            return;
        }
        // Who said that it sends no more, and did not, misses nothing by a reset.
        if !keeps_alive && wire.borrow().is_over() {
            return end(&wire).await;
        }
        if close || !wire.borrow_mut().skip_content() {
            return linger(&wire).await;
        }
    }
}

/// Answers what is no request, and ends the connection.
async fn refuse<IO: AsyncRead + AsyncWrite + Unpin>(
    wire: &RefCell<Wire<IO>>,
    reply: Reply,
    limits: &Limits,
) {
    let (method, version) = (Method::GET, Version::HTTP_11);
    let wrote = write(wire, reply.response, &method, version, true, limits).await;
    reply.log.finish(0, &wrote);
    linger(wire).await;
}

/// The socket, what was read ahead of it, and what is left of the request's content.
struct Wire<IO> {
    io: IO,
    input: BytesMut,
    content: Remaining,
    /// The client waits for a word before it sends content.
    continue_due: bool,
    /// Interim responses that are still to be written.
    early: BytesMut,
    received: u64,
    clock: Deadline,
    /// What was written may wait in a TLS buffer.
    unflushed: bool,
}

enum Remaining {
    Nothing,
    Length(u64),
    Chunks(Box<Chunked>),
    Broken(body::Error),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    fn new(io: IO) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            content: Remaining::Nothing,
            continue_due: false,
            early: BytesMut::new(),
            received: 0,
            clock: Deadline::default(),
            unflushed: false,
        }
    }

    /// Reads once; `Ok(0)` is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        scratch::poll_read(&mut self.io, cx, &mut self.input)
    }

    /// Ready when the client has hung up while it waits for an answer. What it sends ahead is kept
    /// for the next request, up to one read.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.content, Remaining::Nothing) || !self.input.is_empty() {
            return Poll::Pending;
        }
        match self.poll_read(cx) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    fn push_early(&mut self, response: &Response) {
        let mut out = BytesMut::new();
        write_head(&mut out, response.status, &response.fields);
        out.extend_from_slice(b"\r\n");
        if self.early.len().saturating_add(out.len()) <= EARLY_BYTES {
            self.early.unsplit(out);
        }
    }

    /// Ready when no interim response is left to be written.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.early.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.early))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.early.advance(written);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing was sent that is not read.
    fn is_over(&self) -> bool {
        self.is_content_over() && self.input.is_empty()
    }

    fn is_content_over(&self) -> bool {
        matches!(self.content, Remaining::Nothing)
    }

    /// Throws away content that is at hand already; whether none is left to come.
    fn skip_content(&mut self) -> bool {
        match &mut self.content {
            Remaining::Nothing => true,
            Remaining::Length(left) => {
                let Ok(bytes) = usize::try_from(*left) else {
                    return false;
                };
                if bytes > self.input.len() {
                    return false;
                }
                self.input.advance(bytes);
                self.continue_due = false;
                self.content = Remaining::Nothing;
                true
            }
            Remaining::Chunks(_) | Remaining::Broken(_) => false,
        }
    }

    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        if std::mem::take(&mut self.continue_due) {
            self.early.extend_from_slice(CONTINUE);
        }
        if ready!(self.poll_early(cx)).is_err() {
            return Poll::Ready(Some(Err(self.broken(body::Error::ClientGone))));
        }
        loop {
            match &mut self.content {
                Remaining::Nothing => return Poll::Ready(None),
                Remaining::Broken(error) => return Poll::Ready(Some(Err(*error))),
                Remaining::Length(left) => {
                    if !self.input.is_empty() {
                        let take = usize::try_from(*left)
                            .unwrap_or(usize::MAX)
                            .min(self.input.len());
                        *left = left.saturating_sub(take as u64);
                        if *left == 0 {
                            self.content = Remaining::Nothing;
                        }
                        self.received = self.received.saturating_add(take as u64);
                        return Poll::Ready(Some(Ok(Frame::data(
                            self.input.split_to(take).freeze(),
                        ))));
                    }
                }
                Remaining::Chunks(chunks) => match chunks.next(&mut self.input) {
                    Ok(Piece::Data(data)) => {
                        self.received = self.received.saturating_add(data.len() as u64);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(Piece::Trailers(trailers)) => {
                        self.content = Remaining::Nothing;
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers.into()))));
                    }
                    Ok(Piece::End) => {
                        self.content = Remaining::Nothing;
                        return Poll::Ready(None);
                    }
                    Ok(Piece::More) => {}
                    Err(malformed) => {
                        let error = body::Error::ClientMalformed(malformed.reason());
                        return Poll::Ready(Some(Err(self.broken(error))));
                    }
                },
            }
            match ready!(scratch::poll_read_content(
                &mut self.io,
                cx,
                &mut self.input,
                CONTENT_READ_BYTES
            )) {
                Ok(read) if read > 0 => {}
                Ok(_) | Err(_) => {
                    return Poll::Ready(Some(Err(self.broken(body::Error::ClientGone))));
                }
            }
        }
    }

    fn broken(&mut self, error: body::Error) -> body::Error {
        self.content = Remaining::Broken(error);
        error
    }
}

/// The next head, or `None` when there is none to come.
async fn read_head<IO: AsyncRead + AsyncWrite + Unpin>(
    wire: &RefCell<Wire<IO>>,
    limits: &Limits,
    drain: &mut super::Watch,
) -> Result<Option<Bytes>, Unreadable> {
    let mut scanner = Scanner::default();
    let mut waiting = true;
    let mut first = true;
    poll_fn(|cx| {
        let mut wire = wire.borrow_mut();
        let wire = &mut *wire;
        if first {
            first = false;
            wire.received = 0;
            wire.clock.clear();
        }
        loop {
            if !wire.input.is_empty() {
                if waiting {
                    waiting = false;
                    wire.clock.clear();
                }
                match scanner.end(&wire.input, limits.head.bytes) {
                    Ok(None) => {}
                    Ok(Some(end)) => {
                        wire.clock.clear();
                        return Poll::Ready(Ok(Some(wire.input.split_to(end).freeze())));
                    }
                    Err(malformed) => return Poll::Ready(Err(Unreadable::Malformed(malformed))),
                }
            }
            match wire.poll_read(cx) {
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    wire.clock.start(if waiting {
                        limits.keep_alive
                    } else {
                        limits.header
                    });
                    if wire.clock.poll(cx).is_ready() {
                        return Poll::Ready(if waiting {
                            Ok(None)
                        } else {
                            Err(Unreadable::Timeout)
                        });
                    }
                    if waiting {
                        // An idle connection holds no buffer.
                        wire.input = BytesMut::new();
                        if drain.poll(cx).is_ready() {
                            return Poll::Ready(Ok(None));
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// A request's content, read from the connection as it is asked for.
struct Content<IO> {
    wire: Rc<RefCell<Wire<IO>>>,
    idle: Deadline,
    limits: Limits,
    exact: Option<u64>,
    waiting_since: Option<tokio::time::Instant>,
    waited: Duration,
}

fn content<IO>(wire: &Rc<RefCell<Wire<IO>>>, head: &Head, limits: &Limits) -> Body
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (content, exact) = match head.content {
        head::Content::None | head::Content::Length(0) => return Body::Empty,
        head::Content::Length(length) => (Remaining::Length(length), Some(length)),
        head::Content::Unknown => (Remaining::Chunks(Box::default()), None),
    };
    {
        let mut wire = wire.borrow_mut();
        wire.content = content;
        if head.expects_continue {
            wire.continue_due = true;
        }
    }
    Body::stream(Content {
        wire: Rc::clone(wire),
        idle: Deadline::default(),
        limits: *limits,
        exact,
        waiting_since: None,
        waited: Duration::ZERO,
    })
}

impl<IO: AsyncRead + AsyncWrite + Unpin> http_body::Body for Content<IO> {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let this = self.get_mut();
        let mut wire = this.wire.borrow_mut();
        if let Poll::Ready(frame) = wire.poll_content(cx) {
            if let Some(since) = this.waiting_since.take() {
                this.waited = this.waited.saturating_add(since.elapsed());
                // A byte now and then must not put the question off.
                if matches!(frame, Some(Ok(_)))
                    && !wire.is_content_over()
                    && this.limits.is_too_slow(this.waited, wire.received)
                {
                    return Poll::Ready(Some(Err(wire.broken(body::Error::ClientTimeout))));
                }
            }
            this.idle.clear();
            return Poll::Ready(frame);
        }
        let since = *this
            .waiting_since
            .get_or_insert_with(tokio::time::Instant::now);
        this.idle.start(this.limits.body_idle.min(RATE_GRACE));
        while this.idle.poll(cx).is_ready() {
            let waited = this.waited.saturating_add(since.elapsed());
            if since.elapsed() >= this.limits.body_idle
                || this.limits.is_too_slow(waited, wire.received)
            {
                return Poll::Ready(Some(Err(wire.broken(body::Error::ClientTimeout))));
            }
            this.idle.set(Duration::from_secs(1));
        }
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        self.exact
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Writes a response and its content with the gateway's own framing (RFC 9112 §6).
async fn write<IO: AsyncRead + AsyncWrite + Unpin>(
    wire: &RefCell<Wire<IO>>,
    response: Response,
    method: &Method,
    version: Version,
    close: bool,
    limits: &Limits,
) -> Written {
    let Response {
        status,
        fields,
        mut body,
    } = response;
    let bodiless = *method == Method::HEAD
        || status == StatusCode::NOT_MODIFIED
        || status == StatusCode::NO_CONTENT
        || status.is_informational();
    let exact = body.size_hint().exact();
    let chunked = !bodiless && exact.is_none() && version == Version::HTTP_11;
    let close = close || (!bodiless && exact.is_none() && !chunked);
    let mut out = BytesMut::with_capacity(1024);
    {
        let mut wire = wire.borrow_mut();
        // Once the answer has begun, it is too late to ask for content.
        wire.continue_due = false;
        // What did not go before goes along.
        out.extend_from_slice(&std::mem::take(&mut wire.early));
    }
    write_head(&mut out, status, &fields);
    if !bodiless {
        if let Some(length) = exact {
            number_field(&mut out, CONTENT_LENGTH.as_str(), length);
        }
    } else if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        for declared in fields.all(&CONTENT_LENGTH) {
            field(&mut out, CONTENT_LENGTH.as_str(), declared.as_bytes());
        }
    }
    if chunked {
        field(&mut out, TRANSFER_ENCODING.as_str(), b"chunked");
    }
    if close {
        field(&mut out, CONNECTION.as_str(), b"close");
    }
    out.extend_from_slice(b"\r\n");
    let mut content_bytes = 0_u64;
    if bodiless {
        drop(body);
        let result = flush(wire, &mut out, None, limits).await;
        return Written {
            content_bytes,
            result,
        };
    }
    let mut trailers = None;
    loop {
        let frame = poll_fn(|cx| {
            let frame = Pin::new(&mut body).poll_frame(cx);
            if frame.is_ready() {
                return frame.map(Some);
            }
            let mut wire = wire.borrow_mut();
            if wire.poll_gone(cx).is_ready() {
                return Poll::Ready(None);
            }
            // Nothing more at hand: what there is must not wait for it (event streams).
            if out.is_empty() && !wire.unflushed {
                wire.clock.clear();
                return Poll::Pending;
            }
            match wire.poll_write_out(cx, &mut out, None, limits) {
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_)) => Poll::Ready(None),
            }
        })
        .await;
        let frame = match frame {
            None => {
                return Written {
                    content_bytes,
                    result: Err(body::Error::ClientGone),
                };
            }
            Some(None) => break,
            Some(Some(Err(error))) => {
                // A response cut short must not look complete: no last chunk, and the connection ends.
                let _ = flush(wire, &mut out, None, limits).await;
                return Written {
                    content_bytes,
                    result: Err(error),
                };
            }
            Some(Some(Ok(frame))) => frame,
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                trailers = frame.into_trailers().ok();
                continue;
            }
        };
        if data.is_empty() {
            continue;
        }
        content_bytes = content_bytes.saturating_add(data.len() as u64);
        if chunked {
            chunk_size(&mut out, data.len());
        }
        let written = if data.len() <= COPY_BYTES {
            out.extend_from_slice(&data);
            if out.len() < WRITE_BYTES {
                Ok(())
            } else {
                flush(wire, &mut out, None, limits).await
            }
        } else {
            flush(wire, &mut out, Some(data), limits).await
        };
        if let Err(error) = written {
            return Written {
                content_bytes,
                result: Err(error),
            };
        }
        if chunked {
            out.extend_from_slice(b"\r\n");
        }
    }
    if exact.is_some_and(|exact| exact != content_bytes) {
        let _ = flush(wire, &mut out, None, limits).await;
        return Written {
            content_bytes,
            result: Err(body::Error::BackendGone),
        };
    }
    if chunked {
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().flatten() {
            field(&mut out, name.as_str(), value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    let result = flush(wire, &mut out, None, limits).await;
    Written {
        content_bytes,
        result,
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    /// Writes `out`, then `data`, until both are gone; a client that takes nothing for too long
    /// fails it.
    fn poll_write_out(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        mut data: Option<&mut Bytes>,
        limits: &Limits,
    ) -> Poll<Result<(), body::Error>> {
        loop {
            let more: &[u8] = data.as_deref().map_or(&[], |data| data.as_ref());
            if out.is_empty() && more.is_empty() {
                return match Pin::new(&mut self.io).poll_flush(cx) {
                    Poll::Ready(Ok(())) => {
                        self.unflushed = false;
                        self.clock.clear();
                        Poll::Ready(Ok(()))
                    }
                    Poll::Ready(Err(_)) => Poll::Ready(Err(body::Error::ClientGone)),
                    Poll::Pending => {
                        self.clock.start(limits.body_idle);
                        ready!(self.clock.poll(cx));
                        Poll::Ready(Err(body::Error::ClientTimeout))
                    }
                };
            }
            let io = Pin::new(&mut self.io);
            let wrote = if more.is_empty() {
                io.poll_write(cx, out)
            } else if out.is_empty() {
                io.poll_write(cx, more)
            } else {
                io.poll_write_vectored(cx, &[IoSlice::new(out), IoSlice::new(more)])
            };
            match wrote {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.unflushed = true;
                    self.clock.clear();
                    let of_out = written.min(out.len());
                    out.advance(of_out);
                    if let Some(data) = data.as_deref_mut() {
                        data.advance(written.saturating_sub(of_out).min(data.len()));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Err(body::Error::ClientGone)),
                Poll::Pending => {
                    self.clock.start(limits.body_idle);
                    ready!(self.clock.poll(cx));
                    return Poll::Ready(Err(body::Error::ClientTimeout));
                }
            }
        }
    }
}

async fn flush<IO: AsyncRead + AsyncWrite + Unpin>(
    wire: &RefCell<Wire<IO>>,
    out: &mut BytesMut,
    mut data: Option<Bytes>,
    limits: &Limits,
) -> Result<(), body::Error> {
    poll_fn(|cx| {
        wire.borrow_mut()
            .poll_write_out(cx, out, data.as_mut(), limits)
    })
    .await
}

/// Writes the 101 that a backend agreed to.
async fn write_switch<IO: AsyncRead + AsyncWrite + Unpin>(
    wire: &RefCell<Wire<IO>>,
    response: &Response,
) -> io::Result<()> {
    let mut out = BytesMut::with_capacity(512);
    out.extend_from_slice(&std::mem::take(&mut wire.borrow_mut().early));
    write_head(&mut out, StatusCode::SWITCHING_PROTOCOLS, &response.fields);
    field(&mut out, CONNECTION.as_str(), b"upgrade");
    field(&mut out, UPGRADE.as_str(), b"websocket");
    out.extend_from_slice(b"\r\n");
    poll_fn(|cx| {
        let mut wire = wire.borrow_mut();
        while !out.is_empty() {
            let written = ready!(Pin::new(&mut wire.io).poll_write(cx, &out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(written);
        }
        Pin::new(&mut wire.io).poll_flush(cx)
    })
    .await
}

/// All of a head but its framing and its end.
fn write_head(out: &mut BytesMut, status: StatusCode, fields: &Fields) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut dated = false;
    for (name, value) in fields.iter().filter(|(name, _)| *name != CONTENT_LENGTH) {
        dated |= name == DATE;
        field(out, name.as_str(), value.as_bytes());
    }
    if !dated && !status.is_informational() {
        field(out, DATE.as_str(), date().as_bytes());
    }
}

fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn number_field(out: &mut BytesMut, name: &str, number: u64) {
    field(out, name, itoa::Buffer::new().format(number).as_bytes());
}

fn chunk_size(out: &mut BytesMut, size: usize) {
    use std::fmt::Write as _;
    let _ = write!(out, "{size:x}\r\n");
}

/// The current time as a `Date` value, made anew once a second on each core.
fn date() -> HeaderValue {
    thread_local! {
        static MADE: RefCell<Option<(tokio::time::Instant, HeaderValue)>> = const { RefCell::new(None) };
    }
    MADE.with_borrow_mut(|made| {
        let now = tokio::time::Instant::now();
        match made {
            Some((at, value)) if now.saturating_duration_since(*at) < Duration::from_secs(1) => {
                value.clone()
            }
            _ => {
                let text = httpdate::fmt_http_date(super::wall_clock());
                let value = HeaderValue::from_maybe_shared(Bytes::from(text))
                    .unwrap_or(HeaderValue::from_static(""));
                *made = Some((now, value.clone()));
                value
            }
        }
    })
}

/// Ends our side.
async fn end<IO: AsyncRead + AsyncWrite + Unpin>(wire: &RefCell<Wire<IO>>) {
    let ending = poll_fn(|cx| Pin::new(&mut wire.borrow_mut().io).poll_shutdown(cx));
    let _ = tokio::time::timeout(LINGER, ending).await;
}

/// Ends our side and reads on for a moment: closing on unread bytes would reset the connection, and
/// the client might never see the answer (RFC 9112 §9.6).
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(wire: &RefCell<Wire<IO>>) {
    let ending = async {
        if poll_fn(|cx| Pin::new(&mut wire.borrow_mut().io).poll_shutdown(cx))
            .await
            .is_err()
        {
            return;
        }
        let mut read = 0_usize;
        while read < LINGER_BYTES {
            let got = poll_fn(|cx| {
                let mut wire = wire.borrow_mut();
                wire.input.clear();
                wire.poll_read(cx)
            })
            .await;
            match got {
                Ok(bytes) if bytes > 0 => read = read.saturating_add(bytes),
                Ok(_) | Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, ending).await;
}

#[cfg(test)]
mod tests {
    use http::header::LINK;

    use super::*;

    #[test]
    fn interim_responses_that_wait_for_a_slow_client_are_bounded_and_whole() {
        let hints = |bytes: usize| Response {
            status: StatusCode::EARLY_HINTS,
            fields: [(LINK, HeaderValue::try_from("a".repeat(bytes)).unwrap())]
                .into_iter()
                .collect(),
            body: Body::Empty,
        };
        let mut wire = Wire::new(tokio::io::empty());
        for bytes in [EARLY_BYTES / 2, EARLY_BYTES / 2, 100, EARLY_BYTES] {
            wire.push_early(&hints(bytes));
        }
        assert!(wire.early.len() <= EARLY_BYTES);
        let text = String::from_utf8(wire.early.to_vec()).unwrap();
        assert_eq!(text.matches("HTTP/1.1 103 Early Hints\r\n").count(), 2);
        assert!(text.ends_with(&format!("link: {}\r\n\r\n", "a".repeat(100))));
    }
}
