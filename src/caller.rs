//! The other side of an exchange.

use crate::pages::Asked;
use crate::pure::connection::Connection;
use crate::response::Early;

/// Who asked, and how they are to be answered.
#[derive(Clone, Copy)]
pub struct Caller<'c> {
    /// Their connection.
    pub conn: &'c Connection,
    /// In which form they want to be answered.
    pub asked: &'c Asked,
    /// Takes what is to be sent before the answer.
    pub early: Early<'c>,
}
