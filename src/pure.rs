//! Bytes in, values out: no I/O, clock, randomness, async or logging. Every `parse` has a fuzz
//! target.

pub mod table;
pub mod unit;
pub mod field;
pub mod spelling;
pub mod target;
pub mod hop;
pub mod cookie;
pub mod credential;
pub mod connection;
pub mod validity;
pub mod proxy_protocol;
pub mod http1;
pub mod head;
pub mod identity;
