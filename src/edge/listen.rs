//! Listening sockets, and what becomes of a connection before its first request.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::pure::certificate;
use crate::pure::cidr;
use crate::pure::connection::{ClientCertificate, Connection, Tls};
use crate::pure::hex;
use crate::pure::proxy_protocol::{self, NotParsed, Source};

use super::admission::{Admission, Ticket};
use super::exchange::Exchange;
use super::{Drain, http1, http2};

/// Connections the kernel holds before we accept them.
const BACKLOG: i32 = 4096;
/// How long to wait when the process is out of files; accepting at once would only spin.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// How a client that is silent is asked whether it is there still: a stream that it only listens to
/// would else be held for one that is gone. For HTTP/2 too, where a PING costs each request a lock.
const PROBES: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// How a listener treats its connections.
#[derive(Debug, Clone)]
pub struct Listener {
    /// TLS, or plain.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether it asks for client certificates.
    pub asks_for_certificates: bool,
    /// Peers that speak the PROXY protocol; nobody else may.
    pub proxy_protocol_from: Arc<cidr::Set>,
}

/// Binds one socket a core to `address`, all on the same port.
///
/// # Errors
/// What the system says, the address in use for instance.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<StdListener>> {
    let mut address = address;
    let mut listeners = Vec::with_capacity(cores);
    for _ in 0..cores.max(1) {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        // What is accepted has it too (tcp(7)), without a call for each.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&PROBES)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = StdListener::from(socket);
        // Port 0 is chosen once, for all cores.
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Accepts connections until the drain begins.
pub async fn accept(
    listener: TcpListener,
    settings: Listener,
    exchange: Exchange,
    admission: Arc<Admission>,
    drain: Drain,
) {
    let mut stop = drain.watch();
    loop {
        let accepted = tokio::select! {
            biased;
            () = std::future::poll_fn(|cx| stop.poll(cx)) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(ticket) = admission.admit() else {
                    exchange.metrics().connection_refused();
                    continue;
                };
                let (settings, exchange, drain) =
                    (settings.clone(), exchange.clone(), drain.clone());
                tokio::task::spawn_local(serve(stream, peer, ticket, settings, exchange, drain));
            }
            Err(error) => {
                if !matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                ) {
                    tracing::warn!(%error, "can't accept a connection; waiting");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
            }
        }
    }
}

/// Accepts the operator's connections on a Unix socket until the drain begins.
pub async fn accept_unix(listener: UnixListener, exchange: Exchange, drain: Drain) {
    let mut stop = drain.watch();
    let nowhere = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let conn = Rc::new(Connection {
        peer: nowhere,
        tls: None,
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = std::future::poll_fn(|cx| stop.poll(cx)) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving =
                    http1::serve(stream, Rc::clone(&conn), exchange.clone(), drain.clone());
                tokio::task::spawn_local(serving);
            }
            Err(_) => tokio::time::sleep(OUT_OF_FILES).await,
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    mut ticket: Ticket,
    settings: Listener,
    exchange: Exchange,
    drain: Drain,
) {
    let mut conn = Connection {
        peer: canonical(peer),
        tls: None,
    };
    let limits = *exchange.limits();
    if settings.proxy_protocol_from.contains(conn.peer.ip()) {
        let read = tokio::time::timeout(limits.header, read_proxy_header(&mut stream)).await;
        let Ok(Some(source)) = read else {
            tracing::debug!(peer = %conn.peer, "no PROXY protocol header from a peer that must send one");
            return;
        };
        if let Source::Proxied { client, .. } = source {
            conn.peer = canonical(client);
        }
    }
    if !ticket.count_for(conn.peer.ip()) {
        exchange.metrics().connection_refused();
        return;
    }
    let Some(config) = settings.tls else {
        return http1::serve(stream, Rc::new(conn), exchange, drain).await;
    };
    let accepting = TlsAcceptor::from(config).accept(stream);
    let Ok(Ok(stream)) = tokio::time::timeout(limits.tls_handshake, accepting).await else {
        exchange.metrics().handshake(false);
        return;
    };
    exchange.metrics().handshake(true);
    let session = stream.get_ref().1;
    conn.tls = Some(Tls {
        server_name: session.server_name().map(Arc::from),
        client_certificate: session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| {
                Arc::new(ClientCertificate {
                    fingerprint: fingerprint(leaf),
                    names: certificate::names(leaf),
                })
            }),
        bound_to_server_name: settings.asks_for_certificates,
    });
    let http2 = session.alpn_protocol() == Some(b"h2");
    let conn = Rc::new(conn);
    if http2 {
        http2::serve(stream, conn, exchange, drain).await;
    } else {
        http1::serve(stream, conn, exchange, drain).await;
    }
    drop(ticket);
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    let digits = digest.as_ref().iter().flat_map(|byte| hex::lower(*byte));
    digits.map(char::from).collect()
}

/// Reads exactly the header and not a byte more, since what follows belongs to TLS or HTTP.
async fn read_proxy_header(stream: &mut (impl AsyncRead + Unpin)) -> Option<Source> {
    // `PROXY UNKNOWN\r\n` is the shortest header there is.
    let mut header = vec![0_u8; 15];
    stream.read_exact(&mut header).await.ok()?;
    loop {
        match proxy_protocol::parse(&header) {
            Ok(parsed) => return (parsed.consumed == header.len()).then_some(parsed.source),
            Err(NotParsed::Incomplete) if header.len() < proxy_protocol::MAX_BINARY_BYTES => {
                header.push(stream.read_u8().await.ok()?);
            }
            Err(_) => return None,
        }
    }
}
