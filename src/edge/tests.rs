use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::exchange::{Exchange, Setup, Site};
use super::*;
use crate::backend::io::BackendIo;
use crate::backend::pool::{Address, Pools, Spec};
use crate::observe::access_log::{Format, Lines};
use crate::observe::metrics::Metrics;
use crate::observe::writer::Writer;
use crate::pure::connection::Connection;

const SHORT: Duration = Duration::from_millis(50);
/// Only what would never end takes as long.
const PATIENCE: Duration = Duration::from_secs(15);

fn exchange() -> Exchange {
    let writer = Writer::start("log", io::sink()).unwrap();
    Exchange::new(Setup {
        site: Site::Redirect(443),
        limits: Limits {
            head: HeadLimits {
                bytes: 64 * 1024,
                target_bytes: 8 * 1024,
                fields: 100,
            },
            tls_handshake: SHORT,
            header: SHORT,
            keep_alive: SHORT,
            body_idle: SHORT,
            minimum_rate: 1,
            http2_streams: 100,
            http2_resets: 100,
            tunnel_idle: SHORT,
        },
        pools: Rc::default(),
        lines: Lines::new(Format::Json, writer.sink()),
        metrics: Arc::new(Metrics::new(writer.sink(), || 0)),
        begun: clock(),
        hsts: None,
    })
    .unwrap()
}

fn nobody() -> Rc<Connection> {
    let nowhere = (Ipv4Addr::LOCALHOST, 1).into();
    Rc::new(Connection {
        peer: nowhere,
        tls: None,
    })
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// A client that says `says`, and whose TLS connection takes what is written but never lets it out.
struct Stuck {
    says: RefCell<BytesMut>,
}

impl Stuck {
    fn saying(says: &str) -> Self {
        Self {
            says: RefCell::new(says.into()),
        }
    }
}

impl AsyncRead for Stuck {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut says = self.says.borrow_mut();
        if says.is_empty() {
            return Poll::Pending;
        }
        let most = buf.remaining().min(says.len());
        buf.put_slice(&says.split_to(most));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[test]
fn a_client_that_lets_an_answer_wait_in_the_tls_buffer_is_given_up() {
    run(async {
        let client = Stuck::saying("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
        let serving = http1::serve(client, nobody(), exchange(), Drain::default());
        timeout(PATIENCE, serving).await.unwrap();
    });
}

#[test]
fn an_http2_client_that_never_sends_its_preface_is_given_up() {
    run(async {
        let client = Stuck::saying("");
        let serving = http2::serve(client, nobody(), exchange(), Drain::default());
        timeout(PATIENCE, serving).await.unwrap();
    });
}

#[test]
fn a_tunnel_ends_though_its_client_takes_nothing() {
    run(async {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("backend.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let timeouts = crate::backend::Timeouts {
            connect: PATIENCE,
            first_byte: PATIENCE,
            idle: PATIENCE,
        };
        let spec = Arc::new(Spec::new(Address::Unix(path), None, timeouts));
        let mut backend = Pools::default().endpoint(&spec).connect().await.unwrap();
        assert!(matches!(backend.io, BackendIo::Unix(_)));
        backend.input.extend_from_slice(b"sent with the 101");
        let _other_side: (UnixStream, _) = listener.accept().await.unwrap();
        let tunnel = tunnel::Tunnel {
            backend,
            standing: None,
            idle: SHORT,
        };
        let running = tunnel::run(Stuck::saying(""), bytes::Bytes::new(), tunnel);
        let ended = timeout(PATIENCE, running).await.unwrap();
        assert_eq!(ended.reason, Some("wire.tunnel_idle"));
    });
}

#[test]
fn a_client_that_is_silent_is_asked_whether_it_is_there_still() {
    let bound = listen::bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
    let listener = bound.first().unwrap();
    listener.set_nonblocking(false).unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let accepted = socket2::SockRef::from(&accepted);
    assert!(accepted.keepalive().unwrap() && accepted.tcp_nodelay().unwrap());
}
