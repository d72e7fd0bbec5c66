//! A WebSocket after its 101: bytes both ways until either side, or the session, ends.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::backend::pool::Conn;
use crate::keys;
use crate::pipeline::standing::Standing;
use crate::pure::websocket::{self, Code, Frames};

const COPY_BYTES: usize = 16 * 1024;
/// For the end of a stream to be written and heard.
const GOODBYE: Duration = Duration::from_secs(2);

/// A backend that switched protocols, and what it did so by.
pub struct Tunnel {
    /// The backend's side.
    pub backend: Conn,
    /// What the tunnel rests on, and ends with.
    pub standing: Option<Rc<Standing>>,
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

/// Copies until one side closes, nothing moves for too long, or the session is over. Whom the gate
/// cuts off is told so in a Close frame, where one fits between the frames that passed.
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
        standing,
        idle,
    } = tunnel;
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let (mut backend_reads, mut backend_writes) = tokio::io::split(backend);
    let moved = Cell::new(0_u64);
    let (up, down) = (Way::new(&moved), Way::new(&moved));
    let upward = copy(ahead, &mut client_reads, &mut backend_writes, &up);
    let downward = copy(
        behind.freeze(),
        &mut backend_reads,
        &mut client_writes,
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
        match &standing {
            Some(standing) => standing.falls().await,
            None => std::future::pending().await,
        }
    };
    let cut = tokio::select! {
        () = upward => None,
        () = downward => None,
        () = quiet => Some(("wire.tunnel_idle", Code::GoingAway)),
        fallen = over => Some((fallen.reason(), Code::PolicyViolation)),
    };
    let (mut to_client, mut to_backend) = (Vec::new(), Vec::new());
    if let Some((_, code)) = cut {
        if down.frames.get().may_close() {
            to_client = websocket::close(code, None);
        }
        // Without random bytes for the mask, which has to be one nobody foresees, it is not told.
        if up.frames.get().may_close()
            && let Ok(mask) = keys::random()
        {
            to_backend = websocket::close(Code::GoingAway, Some(*mask));
        }
    }
    // Who takes nothing can't be told goodbye, and must not hold the connection for it.
    let _ = tokio::join!(
        timeout(
            GOODBYE,
            end(&to_client, &mut client_reads, &mut client_writes)
        ),
        timeout(
            GOODBYE,
            end(&to_backend, &mut backend_reads, &mut backend_writes)
        ),
    );
    Ended {
        received: up.bytes.get(),
        sent: down.bytes.get(),
        reason: cut.map(|(reason, _)| reason),
    }
}

/// What has passed in one direction.
struct Way<'m> {
    /// Counts what moves in either direction.
    moved: &'m Cell<u64>,
    bytes: Cell<u64>,
    frames: Cell<Frames>,
}

impl<'m> Way<'m> {
    fn new(moved: &'m Cell<u64>) -> Self {
        Self {
            moved,
            bytes: Cell::default(),
            frames: Cell::default(),
        }
    }

    fn pass(&self, bytes: &[u8]) {
        self.moved.set(self.moved.get().saturating_add(1));
        self.bytes
            .set(self.bytes.get().saturating_add(bytes.len() as u64));
        let mut frames = self.frames.get();
        frames.pass(bytes);
        self.frames.set(frames);
    }
}

async fn copy(
    first: Bytes,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    way: &Way<'_>,
) {
    let mut buffer = BytesMut::from(first);
    loop {
        while !buffer.is_empty() {
            match to.write(&buffer).await {
                Ok(written) if written > 0 => {
                    way.pass(buffer.get(..written).unwrap_or_default());
                    buffer.advance(written.min(buffer.len()));
                }
                Ok(_) | Err(_) => return,
            }
        }
        if to.flush().await.is_err() {
            return;
        }
        buffer.clear();
        buffer.reserve(COPY_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(read) if read > 0 => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Says goodbye, and waits for the other side to have heard it: closing on unread bytes would reset
/// the connection (RFC 9112 §9.6).
async fn end(
    goodbye: &[u8],
    reads: &mut (impl AsyncRead + Unpin),
    writes: &mut (impl AsyncWrite + Unpin),
) {
    if writes.write_all(goodbye).await.is_err() || writes.shutdown().await.is_err() {
        return;
    }
    let mut unheard = [0; 1024];
    while !goodbye.is_empty() && matches!(reads.read(&mut unheard).await, Ok(read) if read > 0) {}
}
