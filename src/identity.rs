//! placeholder
pub mod password;
pub mod verified;
pub mod regulation;
pub mod jwks;
