//! Bytes in, values out: no I/O, clock, randomness, async or logging. Every `parse` has a fuzz
//! target.

pub mod table;
pub mod unit;
pub mod hex;
pub mod quick;
pub mod fields;
pub mod field;
pub mod names;
pub mod spelling;
pub mod target;
pub mod hop;
pub mod cookie;
pub mod credential;
pub mod connection;
pub mod validity;
pub mod proxy_protocol;
pub mod cidr;
pub mod forwarded;
pub mod http1;
pub mod head;
pub mod original;
pub mod websocket;
pub mod identity;
pub mod seal;
pub mod json;
pub mod session;
pub mod jwk;
pub mod jwt;
pub mod csrf;
pub mod return_to;
pub mod form;
pub mod backend_url;
pub mod access;
pub mod encode_identity;
pub mod internal_url;
pub mod banner;
