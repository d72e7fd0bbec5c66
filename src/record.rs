//! What is known of one exchange so far: plain values that only `observe` formats.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};

use crate::pure::identity::User;

/// The line of a policy file that decided something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decider {
    /// The file, as the operator named it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl std::fmt::Display for Decider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The stages whose time is taken, in their order.
pub const STAGES: [&str; 10] = [
    "route",
    "network",
    "rate",
    "portal",
    "sign_in",
    "user_rate",
    "access",
    "request_headers",
    "forward",
    "response_headers",
];

/// One exchange, from its first byte to its last.
#[derive(Debug, Clone)]
pub struct Record {
    /// Our own id of the request: 32 lower-case hexadecimal digits.
    pub request_id: Arc<str>,
    /// When the head had been read.
    pub started: Instant,
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
    /// Who asks.
    pub user: Option<Arc<User>>,
    /// The rule that decided on access.
    pub decider: Option<Decider>,
    /// Why it was refused, `stage.what`.
    pub refused: Option<&'static str>,
    /// The status sent.
    pub status: Option<StatusCode>,
    /// Bytes of body received from the client.
    pub received_bytes: u64,
    /// Bytes of body sent to the client.
    pub sent_bytes: u64,
    /// When each stage of [`STAGES`] ended, in microseconds from `started`.
    pub stage_ends_us: [u32; STAGES.len()],
}
