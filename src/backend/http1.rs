//! HTTP/1.1 to backends: a request written with our own framing, a response read strictly.
//!
//! One `Exchange` drives both directions from whoever polls it, so that a response may begin
//! before the request has ended and no task or channel stands between the two sockets.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::AsyncWrite;

use crate::body::{self, Body};
use crate::pure::field;
use crate::pure::fields::Fields;
use crate::pure::head::Content;
use crate::pure::hop;
use crate::pure::http1::{
    self, Chunked, Framing, HeadLimits, Malformed, Piece, ResponseHead, Scanner,
};
use crate::scratch;

use super::Error;
use super::Timeouts;
use super::pool::{Conn, Endpoint};

/// A backend's head may be larger than a client's: cookies and policies add up.
const HEAD_LIMITS: HeadLimits = HeadLimits {
    bytes: 128 * 1024,
    target_bytes: 0,
    fields: 256,
};
/// Interim responses before the final one.
const MOST_INTERIM: u32 = 16;
const CONTENT_READ_BYTES: usize = 64 * 1024;
/// Request content up to this size is copied behind what waits to be written.
const COPY_BYTES: usize = 8 * 1024;

/// A request, ready to be written.
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path and query, as decided on.
    pub target: &'a str,
    /// The value of Host.
    pub host: &'a str,
    /// Every other field; none of framing or of the connection.
    pub headers: &'a Fields,
    /// How much content `body` has.
    pub content: Content,
    /// Whether it is a WebSocket handshake.
    pub upgrade: bool,
    /// Whether trailers of the response are of use.
    pub takes_trailers: bool,
    /// Is told of interim responses, but for those that answer nothing but the connection.
    pub early: &'a dyn Fn(StatusCode, Fields),
}

/// A response whose content is still to be read.
pub struct Response {
    /// The head, without framing and hop-by-hop fields.
    pub head: ResponseHead,
    /// The content.
    pub body: Body,
    /// The length that a response without content states.
    pub declared_length: Option<u64>,
    /// The connection, when it switched to WebSocket.
    pub switched: Option<Conn>,
}

/// What came of sending a request.
pub struct Failure {
    /// Why there is no response.
    pub error: Error,
    /// The content, when none of it was taken yet and the backend can't have acted on any byte.
    pub untouched: Option<Body>,
}

impl Request<'_> {
    fn head(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(1024);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        put(&mut out, HOST.as_str(), self.host.as_bytes());
        for (name, value) in self.headers.iter() {
            put(&mut out, name.as_str(), value.as_bytes());
        }
        match self.content {
            // RFC 9110 §8.6: a method that expects content says when there is none.
            Content::None if matches!(*self.method, Method::POST | Method::PUT | Method::PATCH) => {
                put(&mut out, CONTENT_LENGTH.as_str(), b"0");
            }
            Content::None => {}
            Content::Length(length) => {
                put(
                    &mut out,
                    CONTENT_LENGTH.as_str(),
                    itoa::Buffer::new().format(length).as_bytes(),
                );
            }
            Content::Unknown => put(&mut out, TRANSFER_ENCODING.as_str(), b"chunked"),
        }
        if self.upgrade {
            put(&mut out, CONNECTION.as_str(), b"upgrade");
            put(&mut out, UPGRADE.as_str(), b"websocket");
        } else if self.takes_trailers {
            put(&mut out, CONNECTION.as_str(), b"te");
            put(&mut out, TE.as_str(), b"trailers");
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

fn put(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Sends a request on a connection and waits for the response's head.
///
/// # Errors
/// Why there is none. A request is handed back whole only if no byte of a response came and its
/// content was not begun, so that the caller may send it again where that is safe.
pub async fn send(
    endpoint: &Rc<Endpoint>,
    conn: Conn,
    request: &Request<'_>,
    body: Body,
) -> Result<Response, Failure> {
    let mut exchange = Exchange {
        conn,
        out: request.head(),
        data: Bytes::new(),
        sending: if matches!(request.content, Content::None) {
            Sending::Done
        } else {
            Sending::Untouched
        },
        chunked: matches!(request.content, Content::Unknown),
        owed: match request.content {
            Content::Length(length) => Some(length),
            Content::None | Content::Unknown => None,
        },
        body,
    };
    let timeouts = endpoint.spec.timeouts;
    let mut interim = 0_u32;
    let head = loop {
        let mut scanner = Scanner::default();
        let read = poll_fn(|cx| exchange.poll_head(cx, &mut scanner, &timeouts)).await;
        let head = match read {
            Ok(head) => head,
            Err(error) => {
                let untouched = exchange.sending.is_untouched(request.content)
                    && interim == 0
                    && error == Error::Closed;
                return Err(Failure {
                    error,
                    untouched: untouched.then_some(exchange.body),
                });
            }
        };
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            break head;
        }
        interim = interim.saturating_add(1);
        if interim > MOST_INTERIM {
            return Err(Failure {
                error: Error::InterimFlood,
                untouched: None,
            });
        }
        // Whether to send content is between the client and the gate: nobody asked the backend.
        if head.status != StatusCode::CONTINUE {
            (request.early)(head.status, without_framing(head.headers));
        }
    };
    finish(endpoint, exchange, request, head).map_err(|error| Failure {
        error,
        untouched: None,
    })
}

/// An interim response has no content, whatever it says (RFC 9110 §15.2).
fn without_framing(mut fields: Fields) -> Fields {
    fields.retain(|name, _| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING);
    fields
}

fn finish(
    endpoint: &Rc<Endpoint>,
    mut exchange: Exchange,
    request: &Request<'_>,
    mut head: ResponseHead,
) -> Result<Response, Error> {
    exchange.conn.clock.clear();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        if !(request.upgrade && switches_to_websocket(&head.headers)) {
            return Err(Error::Switched);
        }
        let options = hop::connection_options(&head.headers).map_err(|_| Error::Switched)?;
        hop::strip(&mut head.headers, &options);
        return Ok(Response {
            head,
            body: Body::Empty,
            declared_length: None,
            switched: Some(exchange.conn),
        });
    }
    let (framing, declared_length) =
        http1::response_framing(*request.method == Method::HEAD, &mut head)
            .map_err(Error::Malformed)?;
    let options = hop::connection_options(&head.headers)
        .map_err(|_| Error::Malformed(Malformed::FieldValue))?;
    let keeps_alive = head.version == Version::HTTP_11
        && !options.contains("close")
        && framing != Framing::UntilClose
        && !connection_bound(request.headers, &head.headers);
    hop::strip(&mut head.headers, &options);
    let remaining = match framing {
        Framing::None | Framing::Length(0) => Remaining::Nothing,
        Framing::Length(length) => Remaining::Length(length),
        Framing::Chunked => Remaining::Chunks(Box::default()),
        Framing::UntilClose => Remaining::UntilClose,
    };
    let idle = endpoint.spec.timeouts.idle;
    let endpoint = keeps_alive.then(|| Rc::clone(endpoint));
    if matches!(remaining, Remaining::Nothing) && exchange.is_sent() {
        exchange.release(endpoint);
        return Ok(Response {
            head,
            body: Body::Empty,
            declared_length,
            switched: None,
        });
    }
    if let Remaining::Length(length) = remaining
        && exchange.is_sent()
        && exchange.conn.input.len() as u64 == length
    {
        // All of it came with the head, as short answers do: nothing is left to wait for.
        let body = Body::full(exchange.conn.input.split().freeze());
        exchange.release(endpoint);
        return Ok(Response {
            head,
            body,
            declared_length,
            switched: None,
        });
    }
    let exact = match remaining {
        Remaining::Length(length) => Some(length),
        Remaining::Nothing => Some(0),
        Remaining::Chunks(_) | Remaining::UntilClose => None,
    };
    let body = Body::stream(ResponseBody {
        exchange: Some(exchange),
        endpoint,
        remaining,
        exact,
        idle,
    });
    Ok(Response {
        head,
        body,
        declared_length,
        switched: None,
    })
}

/// Whether authentication is bound to the connection, so that nobody else may use it (RFC 4559 §6).
fn connection_bound(request: &Fields, response: &Fields) -> bool {
    let bound = |value: &HeaderValue| {
        let value = value.as_bytes();
        let scheme = value.split(|&b| b == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    };
    request.all(&AUTHORIZATION).any(bound) || response.all(&WWW_AUTHENTICATE).any(bound)
}

fn switches_to_websocket(headers: &Fields) -> bool {
    let websocket = field::one(headers, &UPGRADE).is_ok_and(|value| {
        value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
    });
    websocket && hop::connection_options(headers).is_ok_and(|options| options.contains("upgrade"))
}

/// Both directions of one request on one connection.
struct Exchange {
    conn: Conn,
    out: BytesMut,
    data: Bytes,
    sending: Sending,
    chunked: bool,
    /// What is left of the length that the head states.
    owed: Option<u64>,
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Content follows, and none of it was asked for.
    Untouched,
    /// Some content was taken.
    Begun,
    /// All content was taken, or there is none.
    Done,
    /// The backend takes no more; its response may still come.
    Stopped,
}

impl Sending {
    fn is_untouched(self, content: Content) -> bool {
        matches!(content, Content::None) || self == Self::Untouched
    }
}

impl Exchange {
    fn is_sent(&self) -> bool {
        self.sending == Sending::Done && self.out.is_empty() && self.data.is_empty()
    }

    fn release(self, endpoint: Option<Rc<Endpoint>>) {
        if let Some(endpoint) = endpoint {
            endpoint.keep(self.conn);
        }
    }

    /// Writes on. Ready when all is written, or when the backend takes no more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.sending == Sending::Stopped {
                return Poll::Ready(Ok(()));
            }
            while !(self.out.is_empty() && self.data.is_empty()) {
                let io = Pin::new(&mut self.conn.io);
                let wrote = if self.data.is_empty() {
                    io.poll_write(cx, &self.out)
                } else if self.out.is_empty() {
                    io.poll_write(cx, &self.data)
                } else {
                    io.poll_write_vectored(cx, &[IoSlice::new(&self.out), IoSlice::new(&self.data)])
                };
                match ready!(wrote) {
                    Ok(written) if written > 0 => {
                        self.conn.clock.clear();
                        let of_out = written.min(self.out.len());
                        self.out.advance(of_out);
                        self.data
                            .advance(written.saturating_sub(of_out).min(self.data.len()));
                    }
                    Ok(_) | Err(_) => {
                        self.out.clear();
                        self.data.clear();
                        self.sending = Sending::Stopped;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            if self.sending == Sending::Done {
                // What waits for its response holds no buffer.
                self.out = BytesMut::new();
                return match Pin::new(&mut self.conn.io).poll_flush(cx) {
                    Poll::Ready(_) => Poll::Ready(Ok(())),
                    Poll::Pending => Poll::Pending,
                };
            }
            self.sending = Sending::Begun;
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // What is written already must not wait in a TLS buffer for more content.
                let _ = Pin::new(&mut self.conn.io).poll_flush(cx);
                return Poll::Pending;
            };
            match frame {
                Some(Ok(frame)) => self.take(frame)?,
                Some(Err(error)) => return Poll::Ready(Err(Error::Request(error))),
                None => self.end(None)?,
            }
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Error> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                if let Some(owed) = &mut self.owed {
                    *owed = owed
                        .checked_sub(data.len() as u64)
                        .ok_or(Error::Request(body::Error::ClientTooLarge))?;
                }
                if self.chunked {
                    use std::fmt::Write as _;
                    let _ = write!(self.out, "{:x}\r\n", data.len());
                }
                if data.len() <= COPY_BYTES || self.chunked {
                    self.out.extend_from_slice(&data);
                } else {
                    self.data = data;
                }
                if self.chunked {
                    self.out.extend_from_slice(b"\r\n");
                }
            }
            Err(frame) => self.end(frame.into_trailers().ok().as_ref())?,
        }
        Ok(())
    }

    /// Content must be as long as the head says: a backend would take the next request, perhaps
    /// somebody else's, for the rest of it.
    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Error> {
        if self.sending == Sending::Done {
            return Ok(());
        }
        if self.owed.is_some_and(|owed| owed > 0) {
            return Err(Error::Request(body::Error::ClientGone));
        }
        self.sending = Sending::Done;
        if self.chunked {
            self.out.extend_from_slice(b"0\r\n");
            for (name, value) in trailers.into_iter().flatten() {
                put(&mut self.out, name.as_str(), value.as_bytes());
            }
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// Reads once; content is long, a head is not.
    fn poll_read(&mut self, cx: &mut Context<'_>, content: bool) -> Poll<std::io::Result<usize>> {
        let Conn { io, input, .. } = &mut self.conn;
        if content {
            scratch::poll_read_content(io, cx, input, CONTENT_READ_BYTES)
        } else {
            scratch::poll_read(io, cx, input)
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scanner: &mut Scanner,
        timeouts: &Timeouts,
    ) -> Poll<Result<ResponseHead, Error>> {
        let sent = match self.poll_send(cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => false,
        };
        loop {
            let end = scanner
                .end(&self.conn.input, HEAD_LIMITS.bytes)
                .map_err(Error::Malformed);
            if let Some(end) = end? {
                let head = self.conn.input.split_to(end).freeze();
                return Poll::Ready(
                    http1::response_head(&head, &HEAD_LIMITS).map_err(Error::Malformed),
                );
            }
            match self.poll_read(cx, false) {
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(_) if self.conn.input.is_empty() => {
                    return Poll::Ready(Err(Error::Closed));
                }
                Poll::Ready(_) => return Poll::Ready(Err(Error::Malformed(Malformed::StatusLine))),
                Poll::Pending => {
                    // While content is on its way up, the client's own limits bound the wait, unless
                    // it is the backend that does not take it.
                    let stalled = !(self.out.is_empty() && self.data.is_empty());
                    if sent {
                        self.conn.clock.start(timeouts.first_byte);
                    } else if stalled {
                        self.conn.clock.start(timeouts.idle);
                    } else {
                        self.conn.clock.clear();
                    }
                    ready!(self.conn.clock.poll(cx));
                    return Poll::Ready(Err(Error::FirstByteTimeout));
                }
            }
        }
    }
}

/// What is left of a response's content.
enum Remaining {
    Nothing,
    Length(u64),
    Chunks(Box<Chunked>),
    UntilClose,
}

/// A response's content, read as it is asked for; the connection goes back to the pool when both
/// directions ended cleanly.
struct ResponseBody {
    exchange: Option<Exchange>,
    endpoint: Option<Rc<Endpoint>>,
    remaining: Remaining,
    exact: Option<u64>,
    idle: std::time::Duration,
}

impl ResponseBody {
    /// The content is complete.
    fn complete(&mut self) {
        if let Some(exchange) = self.exchange.take()
            && exchange.is_sent()
        {
            exchange.release(self.endpoint.take());
        }
    }

    fn fail(&mut self, error: body::Error) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        self.exchange = None;
        self.remaining = Remaining::Nothing;
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let this = self.get_mut();
        loop {
            let Some(exchange) = &mut this.exchange else {
                return Poll::Ready(None);
            };
            if !exchange.is_sent()
                && let Poll::Ready(Err(_)) = exchange.poll_send(cx)
            {
                return this.fail(body::Error::ClientGone);
            }
            match &mut this.remaining {
                Remaining::Nothing => {
                    this.complete();
                    return Poll::Ready(None);
                }
                Remaining::Length(left) => {
                    if !exchange.conn.input.is_empty() {
                        let take = usize::try_from(*left)
                            .unwrap_or(usize::MAX)
                            .min(exchange.conn.input.len());
                        let data = exchange.conn.input.split_to(take).freeze();
                        *left = left.saturating_sub(take as u64);
                        if *left == 0 {
                            this.remaining = Remaining::Nothing;
                            this.complete();
                        } else {
                            exchange.conn.clock.clear();
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Remaining::Chunks(chunks) => match chunks.next(&mut exchange.conn.input) {
                    Ok(Piece::Data(data)) => {
                        exchange.conn.clock.clear();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(Piece::Trailers(trailers)) => {
                        this.remaining = Remaining::Nothing;
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers.into()))));
                    }
                    Ok(Piece::End) => {
                        this.remaining = Remaining::Nothing;
                        continue;
                    }
                    Ok(Piece::More) => {}
                    Err(malformed) => {
                        return this.fail(body::Error::BackendMalformed(malformed.reason()));
                    }
                },
                Remaining::UntilClose => {
                    if !exchange.conn.input.is_empty() {
                        let data = exchange.conn.input.split().freeze();
                        exchange.conn.clock.clear();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
            }
            match exchange.poll_read(cx, true) {
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(Ok(_)) if matches!(this.remaining, Remaining::UntilClose) => {
                    this.remaining = Remaining::Nothing;
                    this.endpoint = None;
                }
                Poll::Ready(_) => return this.fail(body::Error::BackendGone),
                Poll::Pending => {
                    exchange.conn.clock.start(this.idle);
                    ready!(exchange.conn.clock.poll(cx));
                    return this.fail(body::Error::BackendTimeout);
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.exact
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
