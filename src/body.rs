//! The content of a message on its way: nothing, bytes at hand, or a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::pure::fields::Fields;

/// Content that one side reads as fast as the other side writes.
pub enum Body {
    /// No content.
    Empty,
    /// Content at hand.
    Full(Bytes),
    /// Content that comes from a connection; it stays on the core that owns the connection.
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = Error>>>),
}

/// Why content ended before its end, by whose fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The client's bytes are not the framing it stated; the reason code.
    ClientMalformed(&'static str),
    /// The client sends too slowly.
    ClientTimeout,
    /// The client sends more than the application takes.
    ClientTooLarge,
    /// The client is gone.
    ClientGone,
    /// The backend's bytes are not the framing it stated.
    BackendMalformed(&'static str),
    /// The backend sends nothing for too long.
    BackendTimeout,
    /// The backend closed in the middle.
    BackendGone,
    /// The session that this was for is over.
    SessionOver,
    /// It would not be let through any more.
    NoLongerAllowed,
}

impl Error {
    /// The reason code of the log.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ClientMalformed(reason) | Self::BackendMalformed(reason) => reason,
            Self::ClientTimeout => "wire.body_timeout",
            Self::ClientTooLarge => "wire.body_too_large",
            Self::ClientGone => "wire.client_gone",
            Self::BackendTimeout => "forward.idle_timeout",
            Self::BackendGone => "forward.backend_gone",
            Self::SessionOver => "sign_in.session_over",
            Self::NoLongerAllowed => "access.no_longer",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Error {}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Stream(_) => "Stream",
        })
    }
}

impl Body {
    /// Content at hand.
    pub fn full(content: impl Into<Bytes>) -> Self {
        let content = content.into();
        if content.is_empty() {
            Self::Empty
        } else {
            Self::Full(content)
        }
    }

    /// Content that comes from a connection.
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = Error> + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }

    /// The same content, with its trailers as `clean` leaves them.
    pub fn with_trailers(self, clean: impl Fn(&mut Fields) + Unpin + 'static) -> Self {
        match self {
            Self::Stream(body) => Self::stream(WithTrailers { body, clean }),
            none @ (Self::Empty | Self::Full(_)) => none,
        }
    }

    /// All of the content, if it is at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::ClientTooLarge`] beyond the limit, else why the content ended early.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await
        {
            if let Ok(data) = frame?.into_data() {
                if all.len().saturating_add(data.len()) > limit {
                    return Err(Error::ClientTooLarge);
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(all.freeze())
    }
}

/// A stream whose trailers pass through a function; there are none left where it leaves none.
struct WithTrailers<F> {
    body: Pin<Box<dyn HttpBody<Data = Bytes, Error = Error>>>,
    clean: F,
}

impl<F: Fn(&mut Fields) + Unpin> HttpBody for WithTrailers<F> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let frame = match this.body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other @ (Poll::Pending | Poll::Ready(None | Some(Err(_)))) => return other,
        };
        match frame.into_trailers() {
            Err(data) => Poll::Ready(Some(Ok(data))),
            Ok(trailers) => {
                let mut trailers = Fields::from(trailers);
                (this.clean)(&mut trailers);
                // Nothing follows trailers, so that without any the content is at its end.
                let rest = (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers.into())));
                Poll::Ready(rest)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl From<Bytes> for Body {
    fn from(content: Bytes) -> Self {
        Self::full(content)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(content) => {
                let content = std::mem::take(content);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(content))))
            }
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(content) => SizeHint::with_exact(content.len() as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    struct Frames(Vec<Frame<Bytes>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            Poll::Ready(next.map(Ok))
        }
    }

    /// The data and the trailers of a body with two trailers, of which `clean` sees all.
    fn read(clean: impl Fn(&mut Fields) + Unpin + 'static) -> (Vec<Bytes>, Vec<HeaderMap>) {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        trailers.insert("x-user", HeaderValue::from_static("admin"));
        let frames = vec![
            Frame::data(Bytes::from_static(b"a")),
            Frame::trailers(trailers),
        ];
        let mut body = Body::stream(Frames(frames)).with_trailers(clean);
        let (mut data, mut rest) = (Vec::new(), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            match frame.unwrap().into_data() {
                Ok(bytes) => data.push(bytes),
                Err(frame) => rest.extend(frame.into_trailers()),
            }
        }
        (data, rest)
    }

    #[test]
    fn trailers_are_as_the_function_leaves_them() {
        let (data, trailers) = read(|trailers| {
            trailers.remove(&HeaderName::from_static("x-user"));
        });
        assert_eq!(data, ["a"]);
        assert_eq!(trailers.len(), 1);
        assert!(trailers[0].contains_key("x-sum") && !trailers[0].contains_key("x-user"));
    }

    #[test]
    fn trailers_of_which_nothing_is_left_are_none() {
        let (data, trailers) = read(|trailers| *trailers = Fields::new());
        assert_eq!(data, ["a"]);
        assert!(trailers.is_empty());
    }
}
