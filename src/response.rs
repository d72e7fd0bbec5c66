//! A response on its way to the client.

use bytes::Bytes;
use http::StatusCode;

use crate::body::Body;
use crate::pure::fields::Fields;

/// Takes interim responses, to be sent before the final one (RFC 9110 §15.2).
pub type Early<'a> = &'a dyn Fn(Response);

/// A response whose framing is up to the connection that it is written to.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// Every field but those of framing and of the connection.
    pub fields: Fields,
    /// The content.
    pub body: Body,
}

impl From<http::Response<Bytes>> for Response {
    fn from(ours: http::Response<Bytes>) -> Self {
        let (parts, content) = ours.into_parts();
        Self {
            status: parts.status,
            fields: parts.headers.into(),
            body: Body::full(content),
        }
    }
}
