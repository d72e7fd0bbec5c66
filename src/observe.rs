//! What the operator sees: the access log, metrics and the gate's own messages, all off the request
//! path.

pub mod writer;
pub mod access_log;
pub mod metrics;
pub mod messages;
pub mod audit;
