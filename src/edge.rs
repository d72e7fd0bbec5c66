//! Sockets in, plain requests out: one single-threaded runtime a core, each with its own listeners.

pub mod tunnel;
pub mod admission;
pub mod admin;
pub mod exchange;
pub mod http1;
pub mod http2;
pub mod listen;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::body;
use crate::pure::http1::{HeadLimits, Malformed};

/// Bounds on what a client may do, from `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of a head.
    pub head: HeadLimits,
    /// To complete a TLS handshake.
    pub tls_handshake: Duration,
    /// To send a head, from its first byte.
    pub header: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// Between two reads or writes of content.
    pub body_idle: Duration,
    /// Bytes a second below which a client that is waited for is given up.
    pub minimum_rate: u64,
    /// Streams at once on an HTTP/2 connection.
    pub http2_streams: u32,
    /// Streams a client may reset before its connection is closed.
    pub http2_resets: u32,
    /// A WebSocket on which nothing moves.
    pub tunnel_idle: Duration,
}

/// What ends a connection before a head is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// The bytes are not a head.
    Malformed(Malformed),
    /// The head did not come in time.
    Timeout,
}

/// How a response was written.
#[derive(Debug)]
pub struct Written {
    /// Bytes of content that the socket took.
    pub content_bytes: u64,
    /// Why it stopped early.
    pub result: Result<(), body::Error>,
}

/// Waiting for a slow client counts against the minimum rate only after this long.
const RATE_GRACE: Duration = Duration::from_secs(10);

impl Limits {
    /// Whether a client that was waited for so long has sent too little.
    fn is_too_slow(&self, waited: Duration, received: u64) -> bool {
        let owed = waited.as_secs().saturating_mul(self.minimum_rate);
        waited >= RATE_GRACE && received < owed
    }
}

/// Tells every connection of a core to end at its next pause.
#[derive(Debug, Clone, Default)]
pub struct Drain(Rc<DrainState>);

#[derive(Debug, Default)]
struct DrainState {
    draining: Cell<bool>,
    told: Arc<Notify>,
    open: Cell<usize>,
    closed: Notify,
}

impl Drain {
    /// Begins: idle connections close now, busy ones after their answer.
    pub fn begin(&self) {
        self.0.draining.set(true);
        self.0.told.notify_waiters();
    }

    /// What a connection looks at.
    pub fn watch(&self) -> Watch {
        self.0.open.set(self.0.open.get().saturating_add(1));
        Watch {
            state: Rc::clone(&self.0),
            told: Box::pin(Arc::clone(&self.0.told).notified_owned()),
        }
    }

    /// Whether it has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.get()
    }

    /// Waits until no connection is open.
    pub async fn finished(&self) {
        while self.0.open.get() > 0 {
            self.0.closed.notified().await;
        }
    }
}

/// A connection's view of the drain; the drain waits for it.
#[derive(Debug)]
pub struct Watch {
    state: Rc<DrainState>,
    told: Pin<Box<OwnedNotified>>,
}

impl Watch {
    /// Whether to end after this answer.
    pub fn is_draining(&self) -> bool {
        self.state.draining.get()
    }

    /// Ready when the drain begins.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_draining() {
            Poll::Ready(())
        } else {
            self.told.as_mut().poll(cx)
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.state.open.set(self.state.open.get().saturating_sub(1));
        self.state.closed.notify_one();
    }
}

/// The wall clock, for what has a date.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge is where requests get their time"
)]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The steady clock, for how long things take.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge is where requests get their time"
)]
pub fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests;
