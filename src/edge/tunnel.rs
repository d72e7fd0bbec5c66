//! A WebSocket after its 101: bytes both ways until either side, or the session, ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::backend::pool::Conn;
use crate::session::Live;

const COPY_BYTES: usize = 16 * 1024;
/// For the end of a stream to be written.
const GOODBYE: Duration = Duration::from_secs(2);

/// A backend that switched protocols, and the session it did so for.
pub struct Tunnel {
    /// The backend's side.
    pub backend: Conn,
    /// The session whose end ends the tunnel; none for a public application.
    pub session: Option<Arc<Live>>,
    /// Nothing for this long in both directions ends it.
    pub idle: Duration,
}

/// What became of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Why the gate ended it, if it did.
    pub reason: Option<&'static str>,
}

/// Copies until one side closes, nothing moves for too long, or the session is over.
pub async fn run<IO>(client: IO, ahead: Bytes, tunnel: Tunnel) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let Tunnel {
        backend: Conn {
            io: backend,
            input: behind,
            ..
        },
        session,
        idle,
    } = tunnel;
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let (mut backend_reads, mut backend_writes) = tokio::io::split(backend);
    let moved = std::cell::Cell::new(0_u64);
    let (up, down) = (std::cell::Cell::new(0_u64), std::cell::Cell::new(0_u64));
    let upward = copy(ahead, &mut client_reads, &mut backend_writes, &moved, &up);
    let downward = copy(
        behind.freeze(),
        &mut backend_reads,
        &mut client_writes,
        &moved,
        &down,
    );
    let quiet = async {
        let mut before = u64::MAX;
        while before != moved.get() {
            before = moved.get();
            tokio::time::sleep(idle).await;
        }
    };
    let over = async {
        match &session {
            Some(session) => session.ended().await,
            None => std::future::pending().await,
        }
    };
    let reason = tokio::select! {
        () = upward => None,
        () = downward => None,
        () = quiet => Some("wire.tunnel_idle"),
        () = over => Some("sign_in.session_over"),
    };
    // Who takes nothing can't be told goodbye, and must not hold the connection for it.
    let _ = tokio::time::timeout(GOODBYE, client_writes.shutdown()).await;
    let _ = tokio::time::timeout(GOODBYE, backend_writes.shutdown()).await;
    Ended {
        received: up.get(),
        sent: down.get(),
        reason,
    }
}

async fn copy(
    first: Bytes,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &std::cell::Cell<u64>,
    count: &std::cell::Cell<u64>,
) {
    count.set(first.len() as u64);
    if to.write_all(&first).await.is_err() || to.flush().await.is_err() {
        return;
    }
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.clear();
        buffer.reserve(COPY_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(read) if read > 0 => {
                moved.set(moved.get().saturating_add(1));
                count.set(count.get().saturating_add(read as u64));
            }
            Ok(_) | Err(_) => return,
        }
        if to.write_all(&buffer).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
