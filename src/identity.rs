//! placeholder
pub mod password;
pub mod verified;
pub mod regulation;
pub mod htpasswd;
pub mod accounts;
pub mod jwks;
