//! One document from an issuer: bounded in size and time, and never redirected (T10).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, Method, StatusCode};

use crate::body::Body;
use crate::pure::fields::Fields;
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
        let mut headers = Fields::new();
        headers.set(ACCEPT, HeaderValue::from_static("application/json"));
        let request = Request {
            method: &Method::GET,
            target,
            host,
            headers: &headers,
            content: Content::None,
            upgrade: false,
            takes_trailers: false,
            early: &|_, _| {},
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::super::Timeouts;
    use super::super::pool::Address;
    use super::*;

    /// What is fetched, within half a second and 100 bytes, of an issuer that answers with `head`
    /// and then `more` again and again, or with nothing more; and how often it was asked.
    fn fetched(head: &'static str, more: &'static str) -> (Result<Bytes, Error>, usize) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("issuer.sock");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = UnixListener::bind(&path).unwrap();
            let asked = Rc::new(std::cell::Cell::new(0));
            let count = Rc::clone(&asked);
            tokio::task::spawn_local(async move {
                let mut kept = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    count.set(count.get() + 1);
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(head.as_bytes()).await;
                    while !more.is_empty() && stream.write_all(more.as_bytes()).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    kept.push(stream);
                }
            });
            let long = Duration::from_secs(20);
            let timeouts = Timeouts {
                connect: long,
                first_byte: long,
                idle: long,
            };
            let spec = Arc::new(Spec::new(Address::Unix(path.clone()), None, timeouts));
            let within = Duration::from_millis(500);
            let got = fetch(&spec, "idp.test", "/jwks", 100, within).await;
            (got, asked.get())
        })
    }

    // T10
    #[test]
    fn a_document_without_end_is_given_up_at_its_bound() {
        assert_eq!(
            fetched("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{ } ", ""),
            (Ok(Bytes::from_static(b"{ } ")), 1)
        );
        let ten_gigabytes = "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (head, more) in [
            (ten_gigabytes, "                "),
            (chunked, "10\r\n                \r\n"),
            ("HTTP/1.1 200 OK\r\n\r\n", "                "),
        ] {
            assert_eq!(fetched(head, more), (Err(Error::Content), 1), "{head}");
        }
    }

    // T10
    #[test]
    fn an_issuer_that_never_comes_to_an_end_is_given_up_in_time() {
        for head in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        ] {
            assert_eq!(fetched(head, ""), (Err(Error::Timeout), 1), "{head:?}");
        }
        let (flood, _) = fetched("", "HTTP/1.1 103 Early Hints\r\n\r\n");
        assert!(flood.is_err(), "interim responses without end");
    }

    // T10
    #[test]
    fn a_redirect_is_not_followed() {
        let head = "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            fetched(head, ""),
            (Err(Error::Status(StatusCode::FOUND)), 1)
        );
    }
}
