//! Bytes in, values out: no I/O, clock, randomness, async or logging. Every `parse` has a fuzz
//! target.

pub mod connection;
pub mod identity;
pub mod seal;
pub mod json;
pub mod session;
pub mod jwk;
pub mod jwt;
pub mod csrf;
