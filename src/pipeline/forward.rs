//! 7. forward: to a backend, once.
//!
//! | when | then |
//! |---|---|
//! | the content is longer than the application takes | 413 `forward.body_too_large` |
//! | a backend can't be reached | the next one; when none can, 502 `forward.connect`, or `forward.tls` |
//! | .. in time | the same, with 504 `forward.connect_timeout` |
//! | a kept connection turns out closed before any byte of a response | once more, if nothing can have had an effect |
//! | another connection is | 502 `forward.closed` |
//! | no first byte of a response in time | 504 `forward.first_byte_timeout` |
//! | anything but a well-formed response | 502 `forward.malformed` |
//! | .. or too many interim ones before it | 502 `forward.interim_flood`; fewer go on to the client as they come |
//! | .. or a switch of protocols that nobody asked for | 502 `forward.switched` |
//! | the client's content ends early | 400 or 408, with the reason of the wire |
//!
//! Takes only an [`Outbound`], which only a granted request becomes. Nothing that may have had an
//! effect is sent twice: only requests without content and of a safe or idempotent method are, and
//! only when the connection was a kept one.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::backend;
use crate::backend::http1::Failure;
use crate::backend::pool::{Conn, Endpoint, Pools, Spec};
use crate::body::{self, Body};
use crate::pure::fields::Fields;
use crate::pure::head::{Content, is_accepted};
use crate::record::Record;
use crate::refusal::{Answer, Refusal};
use crate::response::Response;
use crate::whoami;

use super::request_headers::{Outbound, OutboundParts};
use super::sign_in::Subject;
use super::standing::{Fallen, Law, Standing};

/// Where an application's requests go.
#[derive(Debug)]
pub struct Rule {
    /// The backends, in turn.
    pub backends: Vec<Backend>,
    /// Bytes of content that a request may have.
    pub most_content_bytes: u64,
    /// Shared by all cores, so that turns are even over all.
    pub turn: Arc<AtomicUsize>,
}

/// One backend.
#[derive(Debug, Clone)]
pub enum Backend {
    /// The built-in one, which shows what it receives; these fields say who the user is.
    Whoami(Arc<[HeaderName]>),
    /// An HTTP/1.1 server.
    Http(Arc<Spec>),
}

/// A backend's response: made here only. The client gets only what `response_headers` makes of it.
#[derive(Debug)]
pub struct Inbound(InboundParts);

impl Inbound {
    /// What was received.
    pub fn into_parts(self) -> InboundParts {
        self.0
    }
}

/// What an [`Inbound`] is made of.
#[derive(Debug)]
pub struct InboundParts {
    /// What the backend says.
    pub response: Response,
    /// The public host that was asked for, with a port where the client gave one.
    pub authority: String,
    /// The connection, when it switched to WebSocket.
    pub switched: Option<Conn>,
    /// What the exchange rests on, while it is open.
    pub standing: Option<Rc<Standing>>,
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The content is longer than the application takes.
    BodyTooLarge,
    /// The backend is at fault.
    Backend(backend::Error),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        use backend::Error;
        let (answer, reason) = match refused {
            Refused::BodyTooLarge => (Answer::ContentTooLarge, "forward.body_too_large"),
            Refused::Backend(error) => match error {
                Error::Connect => (Answer::BadGateway, "forward.connect"),
                Error::ConnectTimeout => (Answer::GatewayTimeout, "forward.connect_timeout"),
                Error::Tls => (Answer::BadGateway, "forward.tls"),
                Error::Closed => (Answer::BadGateway, "forward.closed"),
                Error::Malformed(_) => (Answer::BadGateway, "forward.malformed"),
                Error::InterimFlood => (Answer::BadGateway, "forward.interim_flood"),
                Error::Switched => (Answer::BadGateway, "forward.switched"),
                Error::FirstByteTimeout => (Answer::GatewayTimeout, "forward.first_byte_timeout"),
                Error::Request(error) => match error {
                    body::Error::ClientMalformed(reason) => (Answer::BadRequest, reason),
                    body::Error::ClientTimeout => (Answer::RequestTimeout, error.reason()),
                    body::Error::ClientTooLarge => {
                        (Answer::ContentTooLarge, "forward.body_too_large")
                    }
                    body::Error::ClientGone => (Answer::BadRequest, error.reason()),
                    body::Error::BackendMalformed(_)
                    | body::Error::BackendTimeout
                    | body::Error::BackendGone
                    | body::Error::SessionOver
                    | body::Error::NoLongerAllowed => (Answer::BadGateway, error.reason()),
                },
            },
        };
        Self::new(answer, reason)
    }
}

/// Sends a request to one of the application's backends; `early` is told of interim responses.
///
/// # Errors
/// Why no backend gave a response.
pub async fn send(
    rule: &Rule,
    pools: &Pools,
    outbound: Outbound,
    early: &dyn Fn(StatusCode, Fields),
    law: &Arc<impl Law + 'static>,
    seen: &mut Record,
) -> Result<Inbound, Refused> {
    let OutboundParts {
        method,
        target,
        host,
        headers,
        content,
        upgrade,
        takes_trailers,
        body,
        grant,
    } = outbound.into_parts();
    if matches!(content, Content::Length(length) if length > rule.most_content_bytes) {
        return Err(Refused::BodyTooLarge);
    }
    let mut body = match content {
        Content::Unknown => Body::stream(AtMost {
            body,
            left: rule.most_content_bytes,
        }),
        Content::None | Content::Length(_) => body,
    };
    let request = backend::http1::Request {
        method: &method,
        target: &target,
        host: &host,
        headers: &headers,
        content,
        upgrade,
        takes_trailers,
        early,
    };
    let resendable = matches!(content, Content::None) && !upgrade && is_idempotent(&method);
    let first = rule.turn.fetch_add(1, Ordering::Relaxed);
    let mut last = backend::Error::Connect;
    'backends: for offset in 0..rule.backends.len() {
        let at = first
            .wrapping_add(offset)
            .checked_rem(rule.backends.len())
            .unwrap_or(0);
        let spec = match rule.backends.get(at) {
            None => break,
            Some(Backend::Whoami(identity)) => {
                let received = whoami::Received {
                    method: &method,
                    target: &target,
                    version: http::Version::HTTP_11,
                    host: &host,
                    headers: &headers,
                };
                let response = whoami::respond(&received, identity).into();
                return Ok(Inbound(InboundParts {
                    response,
                    authority: host,
                    switched: None,
                    standing: None,
                }));
            }
            Some(Backend::Http(spec)) => spec,
        };
        seen.backend = Some(u32::try_from(at).unwrap_or(u32::MAX));
        let endpoint = pools.endpoint(spec);
        let conn = match open(&endpoint, resendable).await {
            Ok(conn) => conn,
            Err(error) => {
                last = error;
                continue;
            }
        };
        let (mut conn, mut kept) = conn;
        loop {
            match backend::http1::send(&endpoint, conn, &request, body).await {
                Ok(response) => {
                    let stands = || {
                        let path = target.split('?').next().unwrap_or_default().to_owned();
                        let app = seen.app.clone().unwrap_or_else(|| "".into());
                        let law: Arc<dyn Law> = Arc::clone(law) as _;
                        Standing::new(grant.ground(app, method.clone(), path), law)
                    };
                    return inbound(response, host, &headers, grant.subject(), stands);
                }
                Err(Failure {
                    untouched: Some(untouched),
                    ..
                }) if kept && resendable => {
                    body = untouched;
                    match Box::pin(endpoint.connect()).await {
                        Ok(fresh) => (conn, kept) = (fresh, false),
                        Err(error) => {
                            last = error;
                            continue 'backends;
                        }
                    }
                }
                Err(failure) => return Err(Refused::Backend(failure.error)),
            }
        }
    }
    Err(Refused::Backend(last))
}

/// A kept connection, or a new one, and which.
async fn open(endpoint: &Rc<Endpoint>, resendable: bool) -> Result<(Conn, bool), backend::Error> {
    match endpoint.reuse() {
        Some(conn) if resendable => Ok((conn, true)),
        kept => {
            // The new one takes its place: a backend that serves few connections at once would
            // else wait for us on one that idles, while we wait for it on the other.
            drop(kept);
            // In a box, since most requests need none, and it is long.
            Ok((Box::pin(endpoint.connect()).await?, false))
        }
    }
}

fn inbound(
    response: backend::http1::Response,
    authority: String,
    asked: &Fields,
    subject: &Subject,
    stands: impl Fn() -> Standing,
) -> Result<Inbound, Refused> {
    let backend::http1::Response {
        head,
        body,
        declared_length,
        switched,
    } = response;
    if switched.is_some() && !is_accepted(asked, &head.headers) {
        return Err(Refused::Backend(backend::Error::Switched));
    }
    let mut fields = head.headers;
    // Content that there is has a length of its own.
    if let Some(length) = declared_length
        && matches!(body, Body::Empty)
    {
        fields.append(CONTENT_LENGTH, length.into());
    }
    // Content of a known length that is for everybody ends by itself; what is left may stay open.
    let stays = declared_length.is_none() || subject.user().is_some();
    let standing =
        (switched.is_some() || stays && matches!(body, Body::Stream(_))).then(|| Rc::new(stands()));
    let body = match (&standing, body) {
        (Some(standing), body @ Body::Stream(_)) => Body::stream(WhileItStands {
            body,
            standing: Rc::clone(standing),
            falls: None,
        }),
        (_, body) => body,
    };
    let response = Response {
        status: head.status,
        fields,
        body,
    };
    Ok(Inbound(InboundParts {
        response,
        authority,
        switched,
        standing,
    }))
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    ) || matches!(method.as_str(), "PROPFIND" | "REPORT" | "SEARCH" | "QUERY")
}

/// Content of unknown length, cut off where the application's limit is.
struct AtMost {
    body: Body,
    left: u64,
}

impl HttpBody for AtMost {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let this = self.get_mut();
        Pin::new(&mut this.body).poll_frame(cx).map(|frame| {
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                match this.left.checked_sub(bytes) {
                    Some(left) => this.left = left,
                    None => return Some(Err(body::Error::ClientTooLarge)),
                }
            }
            frame
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response that ends when it may not go on: an event stream must not outlive a sign-out.
struct WhileItStands {
    body: Body,
    standing: Rc<Standing>,
    falls: Option<Pin<Box<dyn Future<Output = Fallen>>>>,
}

const fn cut(fallen: Fallen) -> body::Error {
    match fallen {
        Fallen::Session => body::Error::SessionOver,
        Fallen::Law => body::Error::NoLongerAllowed,
    }
}

impl HttpBody for WhileItStands {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            // A backend that is quicker than the client never lets it come to a wait.
            if matches!(frame, Some(Ok(_)))
                && let Some(fallen) = this.standing.fallen()
            {
                return Poll::Ready(Some(Err(cut(fallen))));
            }
            return Poll::Ready(frame);
        }
        let standing = Rc::clone(&this.standing);
        let falls = this
            .falls
            .get_or_insert_with(|| Box::pin(async move { standing.falls().await }));
        falls.as_mut().poll(cx).map(|fallen| Some(Err(cut(fallen))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
