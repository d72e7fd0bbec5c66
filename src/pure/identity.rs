//! Who somebody is: the vocabulary of sign-in and access.

use std::sync::Arc;
use std::time::SystemTime;

/// Claims about a user, as a token or an account file states them.
pub type Claims = serde_json::Map<String, serde_json::Value>;

/// Somebody who has proved who they are.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// The name unique within `provider`: an account name, or a token's subject.
    pub name: Arc<str>,
    /// The sign-in method that vouches for it; groups and claims are its alone.
    pub provider: Arc<str>,
    /// The e-mail address, when the provider states a verified one.
    pub email: Option<Arc<str>>,
    /// Groups the provider states.
    pub groups: Vec<Arc<str>>,
    /// Every other claim.
    pub claims: Arc<Claims>,
    /// When the person last proved it, with a password for instance.
    pub signed_in_at: SystemTime,
}
