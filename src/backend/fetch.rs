//! One document from an issuer or provider: bounded in size and time, and never redirected (T10).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::body::Body;
use crate::pure::backend_url::BackendUrl;
use crate::pure::fields::Fields;
use crate::pure::head::Content;

use super::Timeouts;
use super::http1::{self, Request};
use super::pool::{Address, Pools, Spec, Tls};

/// Why there is no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The URL is none that can be asked.
    Url,
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
            Self::Url => f.write_str("the URL can't be asked"),
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

/// What a server is asked.
#[derive(Debug, Clone)]
pub struct Question<'q> {
    /// The method.
    pub method: &'q Method,
    /// An `https` or `http` URL, without a fragment.
    pub url: &'q str,
    /// Fields besides those that the framing needs.
    pub headers: Fields,
    /// The content.
    pub content: Bytes,
}

/// What it answered, whatever the status.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `Content-Type`, where there is exactly one.
    pub content_type: Option<HeaderValue>,
    /// The content.
    pub content: Bytes,
}

/// A client of issuers and providers: whom it trusts, and who it is.
#[derive(Debug, Clone)]
pub struct Client {
    tls: Option<Arc<ClientConfig>>,
}

impl Client {
    /// A client with this side of TLS.
    pub const fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls: Some(tls) }
    }

    /// A client that asks nobody over TLS: for servers of this machine.
    pub const fn without_tls() -> Self {
        Self { tls: None }
    }

    /// The document at `url`.
    ///
    /// # Errors
    /// Anything but a whole document of at most `most_bytes` with status 200 within `within`.
    pub async fn get(
        &self,
        url: &str,
        most_bytes: usize,
        within: Duration,
    ) -> Result<Bytes, Error> {
        let question = Question {
            method: &Method::GET,
            url,
            headers: Fields::new(),
            content: Bytes::new(),
        };
        document(self.ask(question, most_bytes, within)).await
    }

    /// The answer to a question, if it is whole, at most `most_bytes` long and there within `within`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(
        &self,
        question: Question<'_>,
        most_bytes: usize,
        within: Duration,
    ) -> Result<Answer, Error> {
        let (spec, host, target) = self.reach(question.url, within)?;
        let spec = Arc::new(spec);
        self::within(within, ask(&spec, &host, &target, question, most_bytes)).await
    }

    /// Where a URL is: the server, its `Host`, and the target.
    fn reach(&self, url: &str, within: Duration) -> Result<(Spec, String, String), Error> {
        let after_scheme = url.find("://").map_or(0, |at| at.saturating_add(3));
        let rest = url.get(after_scheme..).ok_or(Error::Url)?;
        if rest.contains('#') {
            return Err(Error::Url);
        }
        let end = rest.find('/').unwrap_or(rest.len());
        let (origin, target) = url
            .split_at_checked(after_scheme.saturating_add(end))
            .ok_or(Error::Url)?;
        let target = if target.is_empty() { "/" } else { target };
        let timeouts = Timeouts {
            connect: within,
            first_byte: within,
            idle: within,
        };
        let (host, spec) = match BackendUrl::parse(origin).map_err(|_| Error::Url)? {
            BackendUrl::Http(host, port) => {
                let address = Address::Tcp(host.as_str().trim_matches(['[', ']']).to_owned(), port);
                let name = match port {
                    80 => host.to_string(),
                    _ => format!("{host}:{port}"),
                };
                (name, Spec::new(address, None, timeouts))
            }
            BackendUrl::Https(host, port) => {
                let bare = host.as_str().trim_matches(['[', ']']).to_owned();
                let server_name = ServerName::try_from(bare.clone()).map_err(|_| Error::Url)?;
                let tls = Tls {
                    config: self.tls.clone().ok_or(Error::Url)?,
                    server_name,
                };
                let name = match port {
                    443 => host.to_string(),
                    _ => format!("{host}:{port}"),
                };
                (
                    name,
                    Spec::new(Address::Tcp(bare, port), Some(tls), timeouts),
                )
            }
            BackendUrl::Whoami | BackendUrl::Unix(_) => return Err(Error::Url),
        };
        Ok((spec, host, target.to_owned()))
    }
}

/// The content of an answer with status 200.
async fn document(asking: impl Future<Output = Result<Answer, Error>>) -> Result<Bytes, Error> {
    let answer = asking.await?;
    if answer.status != StatusCode::OK {
        return Err(Error::Status(answer.status));
    }
    Ok(answer.content)
}

async fn within<T>(
    time: Duration,
    asking: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(time, asking)
        .await
        .map_err(|_| Error::Timeout)?
}

async fn ask(
    spec: &Arc<Spec>,
    host: &str,
    target: &str,
    question: Question<'_>,
    most_bytes: usize,
) -> Result<Answer, Error> {
    let endpoint = Pools::default().endpoint(spec);
    let conn = endpoint.connect().await.map_err(Error::Backend)?;
    let mut headers = question.headers;
    if !headers.contains(&ACCEPT) {
        headers.set(ACCEPT, HeaderValue::from_static("application/json"));
    }
    let content = match question.content.len() {
        0 => Content::None,
        length => Content::Length(u64::try_from(length).unwrap_or(u64::MAX)),
    };
    let request = Request {
        method: question.method,
        target,
        host,
        headers: &headers,
        content,
        upgrade: false,
        takes_trailers: false,
        early: &|_, _| {},
    };
    let body = Body::full(question.content);
    let response = http1::send(&Rc::clone(&endpoint), conn, &request, body)
        .await
        .map_err(|failure| Error::Backend(failure.error))?;
    let content_type = crate::pure::field::one(&response.head.headers, &CONTENT_TYPE)
        .ok()
        .flatten()
        .cloned();
    let status = response.head.status;
    let content = response
        .body
        .collect(most_bytes)
        .await
        .map_err(|_| Error::Content)?;
    Ok(Answer {
        status,
        content_type,
        content,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

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
            let question = Question {
                method: &Method::GET,
                url: "",
                headers: Fields::new(),
                content: Bytes::new(),
            };
            let asking = document(ask(&spec, "idp.test", "/jwks", question, 100));
            let got = within(Duration::from_millis(500), asking).await;
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

    #[test]
    fn a_url_leads_to_its_server_and_target() {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = Client::new(Arc::new(tls));
        let reach = |url| client.reach(url, Duration::from_secs(1));
        for (url, host, target) in [
            ("https://idp.test", "idp.test", "/"),
            ("https://idp.test/", "idp.test", "/"),
            ("https://idp.test:8443/a/b?c=d", "idp.test:8443", "/a/b?c=d"),
            ("http://127.0.0.1:9/k", "127.0.0.1:9", "/k"),
            ("http://[::1]:9/k", "[::1]:9", "/k"),
        ] {
            let (_, named, asked) = reach(url).unwrap();
            assert_eq!((named.as_str(), asked.as_str()), (host, target), "{url}");
        }
        for url in [
            "",
            "idp.test/x",
            "ftp://idp.test/",
            "https://idp.test/#x",
            "unix:/x",
            "whoami",
        ] {
            assert_eq!(reach(url).err(), Some(Error::Url), "{url}");
        }
    }
}
