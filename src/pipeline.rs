//! The way of a request. The order is this file; each stage is one file beside it.

pub mod network;
pub mod rate;
pub mod sign_in;
pub mod user_rate;
