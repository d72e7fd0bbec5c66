//! Bytes in, values out: no I/O, clock, randomness, async or logging. Every `parse` has a fuzz
//! target.

pub mod connection;
pub mod identity;
pub mod access;
pub mod encode_identity;
pub mod internal_url;
pub mod banner;
