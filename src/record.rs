//! What is known of one exchange so far: plain values that only `observe` formats.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode};

use crate::pure::identity::User;
use crate::pure::table::Place;

/// The stages whose end is timed, in their order. What waits for nothing is not timed by itself: its
/// time is the next one's.
pub const STAGES: [&str; 4] = ["rate", "sign_in", "access", "forward"];

/// Places in [`STAGES`].
pub mod stage {
    /// Which application, who may knock, and how often.
    pub const RATE: usize = 0;
    /// Who it is.
    pub const SIGN_IN: usize = 1;
    /// How often that user, and who may pass.
    pub const ACCESS: usize = 2;
    /// Until the backend's head was read.
    pub const FORWARD: usize = 3;
}

/// What a rule that is tried only would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldRefuse {
    /// Why it would have refused, `stage.what`.
    pub reason: &'static str,
    /// The line of a policy that would have.
    pub by: Place,
}

/// One exchange, from its first byte to its last.
#[derive(Debug, Clone)]
pub struct Record {
    /// Our own id of the request: 32 lower-case hexadecimal digits.
    pub request_id: Arc<str>,
    /// When the head had been read.
    pub started: Instant,
    /// The same moment as a date.
    pub time: SystemTime,
    /// From the head to the last byte.
    pub duration: Duration,
    /// The resolved client.
    pub client: Option<IpAddr>,
    /// The method as sent.
    pub method: Option<Method>,
    /// The canonical host.
    pub host: Option<Arc<str>>,
    /// The canonical path, without the query.
    pub path: Option<Arc<str>>,
    /// The application.
    pub app: Option<Arc<str>>,
    /// Whether people sign in on a page here; false until sign-in is reached.
    pub has_sign_in_page: bool,
    /// Who asks.
    pub user: Option<Arc<User>>,
    /// The line of a policy that decided.
    pub decider: Option<Place>,
    /// What a rule that is tried only would have refused.
    pub would_refuse: Option<WouldRefuse>,
    /// Why it was refused, `stage.what`.
    pub refused: Option<&'static str>,
    /// Why content, either way, ended before its end.
    pub ended_early: Option<&'static str>,
    /// Which of the application's backends answered, from 0.
    pub backend: Option<u32>,
    /// The status sent.
    pub status: Option<StatusCode>,
    /// Bytes of body received from the client.
    pub received_bytes: u64,
    /// Bytes of body sent to the client.
    pub sent_bytes: u64,
    /// When each stage of [`STAGES`] ended, in microseconds from `started`.
    pub stage_ends_us: [u32; STAGES.len()],
}

impl Record {
    /// A record of a request whose head was read at `started`.
    pub const fn new(request_id: Arc<str>, started: Instant, time: SystemTime) -> Self {
        Self {
            request_id,
            started,
            time,
            duration: Duration::ZERO,
            client: None,
            method: None,
            host: None,
            path: None,
            app: None,
            has_sign_in_page: false,
            user: None,
            decider: None,
            would_refuse: None,
            refused: None,
            ended_early: None,
            backend: None,
            status: None,
            received_bytes: 0,
            sent_bytes: 0,
            stage_ends_us: [0; STAGES.len()],
        }
    }

    /// A stage of [`STAGES`] let the request pass.
    pub fn passed(&mut self, stage: usize, now: Instant) {
        let us = now.saturating_duration_since(self.started).as_micros();
        if let Some(end) = self.stage_ends_us.get_mut(stage) {
            // 0 means that the stage was not reached.
            *end = u32::try_from(us).unwrap_or(u32::MAX).max(1);
        }
    }
}
