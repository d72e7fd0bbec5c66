//! One timer for the life of a connection, moved without touching the timer wheel.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A moment that moves with every step of a peer. Moving it later costs a store: the timer is armed
/// again only when it fires early.
#[derive(Debug, Default)]
pub struct Deadline {
    due: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Due `after` from now.
    pub fn set(&mut self, after: Duration) {
        self.due = Instant::now().checked_add(after);
    }

    /// Due `after` from now, unless it is set already.
    pub fn start(&mut self, after: Duration) {
        if self.due.is_none() {
            self.set(after);
        }
    }

    /// Never due.
    pub fn clear(&mut self) {
        self.due = None;
    }

    /// Ready when due.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}
