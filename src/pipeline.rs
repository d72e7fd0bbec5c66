//! The way of a request. The order is this file; each stage is one file beside it.

pub mod network;
pub mod rate;
// Waits for `sign_in`, whose proof it takes: pub mod user_rate;
