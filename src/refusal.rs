//! What any stage can say instead of yes.

use std::time::Duration;

/// A request that does not pass, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told.
    pub answer: Answer,
    /// What the log and the metrics are told: `stage.what`, from a fixed set.
    pub reason: &'static str,
}

/// The closed set of answers; `pages` turns each into a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 400, and the connection closes.
    BadRequest,
    /// 401; a browser is led to the sign-in page, a program gets these challenges.
    Challenge(Challenge),
    /// 403 to somebody known (`as_whom`) or to an address.
    Forbidden {
        /// The user's name, when somebody is signed in.
        as_whom: Option<std::sync::Arc<str>>,
    },
    /// 403 to somebody signed in who is told what they lack.
    Lacking {
        /// The user's name.
        as_whom: std::sync::Arc<str>,
        /// What is missing, a sentence each.
        missing: Vec<String>,
    },
    /// 403 to whoever shows a token that was not given the scope it takes.
    InsufficientScope {
        /// The user's name.
        as_whom: Option<std::sync::Arc<str>>,
        /// What is missing, a sentence each, where the operator tells.
        missing: Vec<String>,
        /// The value of `WWW-Authenticate`, which names the scope (RFC 6750 §3.1).
        challenge: String,
    },
    /// 404: no application at this path.
    NotFound,
    /// 405 with `Allow`.
    MethodNotAllowed,
    /// 408: the client took too long.
    RequestTimeout,
    /// 413: the body is larger than the application's limit.
    ContentTooLarge,
    /// 414: the request target is too long.
    UriTooLong,
    /// 417: an expectation other than `100-continue`.
    ExpectationFailed,
    /// 421: this connection is not for that host.
    Misdirected,
    /// 429 with `Retry-After` and the `RateLimit` fields.
    TooManyRequests(Limited),
    /// 431: the header section is too large.
    FieldsTooLarge,
    /// 500: the gateway is at fault.
    Internal,
    /// 501: a method that no application here may use.
    NotImplemented,
    /// 502: the backend can't be reached or does not speak HTTP.
    BadGateway,
    /// 503: nothing can take the request now.
    Unavailable,
    /// 504: the backend took too long.
    GatewayTimeout,
}

/// How to prove who one is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Challenge {
    /// The values of `WWW-Authenticate`, one a line.
    pub challenges: Vec<String>,
    /// Whether a sign-in page exists for this application.
    pub sign_in_page: bool,
    /// How fresh the sign-in must be, in seconds, where one that there is does not suffice.
    pub within: Option<u64>,
    /// The authentication contexts of which the sign-in must be in one, with spaces between, where one
    /// that there is does not suffice.
    pub acr: Option<String>,
}

/// The limit that was met (draft-ietf-httpapi-ratelimit-headers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// How long until a request can pass.
    pub retry_after: Duration,
    /// Requests allowed in a window.
    pub quota: u32,
    /// The window.
    pub window: Duration,
}

impl Refusal {
    /// A refusal with `answer`, for `reason`.
    pub const fn new(answer: Answer, reason: &'static str) -> Self {
        Self { answer, reason }
    }
}
