//! The way of a request.
pub mod network;
pub mod rate;
pub mod sign_in;
pub mod user_rate;
pub mod access;
pub mod request_headers;
pub mod response_headers;
