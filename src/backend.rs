//! Connections to backends: one pool a core, keyed by everything that makes a connection.

pub mod io;
pub mod tls;
pub mod pool;
pub mod http1;
pub mod fetch;

use std::time::Duration;

use crate::body;
use crate::pure::http1::Malformed;

/// Why a backend gave no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// No connection: refused, unreachable, or no such name.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// The TLS handshake failed, or the certificate is not the expected one.
    Tls,
    /// The connection ended before a response began.
    Closed,
    /// The response is not HTTP/1.1.
    Malformed(Malformed),
    /// More interim responses than anybody needs.
    InterimFlood,
    /// It switched protocols without being asked to, or to another one.
    Switched,
    /// Nothing came in time.
    FirstByteTimeout,
    /// The request's own content ended early; not the backend's fault.
    Request(body::Error),
}

/// How long a backend may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To be connected, the TLS handshake included.
    pub connect: Duration,
    /// From the end of the request to the first byte of the response.
    pub first_byte: Duration,
    /// Between two reads or writes.
    pub idle: Duration,
}

#[cfg(test)]
mod tests;
