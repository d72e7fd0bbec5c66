//! The built program, from socket to socket: what a client sends, what a backend receives, what the
//! client gets. One file for each concern; each test has a gate and a backend of its own.

#![expect(clippy::disallowed_methods, reason = "tests look at the clock")]

mod support;
mod tls;
mod frames;
mod streams;

mod access;
mod advisories;
mod assertion;
mod backends;
mod cors;
mod credentials;
mod github;
mod http2;
mod limits;
mod log;
mod network;
mod operation;
mod pass_through;
mod probe;
mod response;
mod sessions;
mod tokens;
mod tunnels;
mod verify;
