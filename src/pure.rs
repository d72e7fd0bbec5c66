//! Bytes in, values out: no I/O, clock, randomness, async or logging. Every `parse` has a fuzz
//! target.

pub mod unit;
pub mod connection;
pub mod proxy_protocol;
pub mod cidr;
pub mod identity;
