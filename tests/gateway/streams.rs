//! A client of HTTP/2 as browsers are.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::{Gate, PATIENCE};
use crate::tls::server;

/// Runs a test's client.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let timed = async { tokio::time::timeout(PATIENCE, test).await };
    runtime.block_on(timed).expect("in time")
}

/// One connection, whose task says how it ended.
pub(crate) struct Connection {
    /// Opens streams.
    pub(crate) streams: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) task: JoinHandle<Result<(), h2::Error>>,
}

/// A response as a whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    content: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    /// The cookies that it sets, as `name=value`.
    pub(crate) fn cookies(&self) -> Vec<&str> {
        let lines = self.headers.get_all("set-cookie").iter();
        lines
            .filter_map(|line| line.to_str().ok()?.split(';').next())
            .collect()
    }

    /// The content.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// Connects to `app.test`.
pub(crate) async fn connect(gate: &Gate, config: Arc<ClientConfig>) -> Connection {
    let stream = TcpStream::connect(gate.address()).await.expect("connects");
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(server("app.test"), stream)
        .await
        .expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    // One stream that is not read can't use up what the connection may send.
    let (streams, connection) = h2::client::Builder::new()
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .handshake(stream)
        .await
        .expect("HTTP/2");
    Connection {
        streams,
        task: tokio::spawn(connection),
    }
}

/// A request for a path at `app.test`, or for a whole URL.
pub(crate) fn request(method: &str, target: &str) -> http::request::Builder {
    let uri = match target.strip_prefix("https://") {
        Some(_) => target.to_owned(),
        None => format!("https://app.test{target}"),
    };
    Request::builder().method(method).uri(uri)
}

impl Connection {
    /// Sends a request without content.
    pub(crate) async fn ask(&self, request: http::request::Builder) -> Result<Answer, h2::Error> {
        self.exchange(request, None).await
    }

    /// The answer to a GET.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        let asked = self.ask(request("GET", target)).await;
        asked.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    /// Sends content in these pieces, then trailers.
    pub(crate) async fn exchange(
        &self,
        request: http::request::Builder,
        content: Option<(&[Bytes], Option<HeaderMap>)>,
    ) -> Result<Answer, h2::Error> {
        let mut streams = self.streams.clone().ready().await?;
        let request = request.body(()).expect("a request");
        let (response, mut sending) = streams.send_request(request, content.is_none())?;
        if let Some((pieces, trailers)) = content {
            for (at, piece) in pieces.iter().enumerate() {
                let last = at + 1 == pieces.len() && trailers.is_none();
                sending.send_data(piece.clone(), last)?;
            }
            if let Some(trailers) = trailers {
                sending.send_trailers(trailers)?;
            }
        }
        let (head, mut receiving) = response.await?.into_parts();
        let mut content = Vec::new();
        while let Some(data) = receiving.data().await {
            let data = data?;
            receiving.flow_control().release_capacity(data.len())?;
            content.extend_from_slice(&data);
        }
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            content,
            trailers: receiving.trailers().await?,
        })
    }
}

/// Waits for the gate to end the connection, which it does without blame.
pub(crate) async fn ends_in_peace(connection: Connection) {
    let ended = connection.task.await.expect("a task");
    // The client may still have something to say when the gate has closed.
    let blame = ended.err().and_then(|error| error.reason());
    assert!(
        matches!(blame, None | Some(h2::Reason::NO_ERROR)),
        "{blame:?}"
    );
}
