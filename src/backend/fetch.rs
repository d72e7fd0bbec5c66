//! One document from an issuer: bounded in size and time, and never redirected (T10).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap};
use http::{HeaderValue, Method, StatusCode};

use crate::body::Body;
use crate::pure::head::Content;

use super::http1::{self, Request};
use super::pool::{Pools, Spec};

/// Why there is no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The server could not be asked.
    Backend(super::Error),
    /// It answered with another status than 200; redirects are not followed.
    Status(StatusCode),
    /// The document is too large, or ended early.
    Content,
    /// It took too long.
    Timeout,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Backend(error) => write!(f, "the server can't be asked ({error:?})"),
            Self::Status(status) => {
                write!(f, "the server answered with status {}", status.as_u16())
            }
            Self::Content => f.write_str("the document is too large or was cut short"),
            Self::Timeout => f.write_str("the server took too long"),
        }
    }
}

impl std::error::Error for Error {}

/// Fetches `target` from `spec`, whose Host is `host`.
///
/// # Errors
/// Anything but a whole document of at most `most_bytes` with status 200 within `within`.
pub async fn fetch(
    spec: &Arc<Spec>,
    host: &str,
    target: &str,
    most_bytes: usize,
    within: Duration,
) -> Result<Bytes, Error> {
    let asking = async {
        let endpoint = Pools::default().endpoint(spec);
        let conn = endpoint.connect().await.map_err(Error::Backend)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let request = Request {
            method: &Method::GET,
            target,
            host,
            headers: &headers,
            content: Content::None,
            upgrade: false,
        };
        let response = http1::send(&Rc::clone(&endpoint), conn, &request, Body::Empty)
            .await
            .map_err(|failure| Error::Backend(failure.error))?;
        if response.head.status != StatusCode::OK {
            return Err(Error::Status(response.head.status));
        }
        response
            .body
            .collect(most_bytes)
            .await
            .map_err(|_| Error::Content)
    };
    tokio::time::timeout(within, asking)
        .await
        .map_err(|_| Error::Timeout)?
}
