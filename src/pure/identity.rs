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

/// The longest name of a user or group.
pub const MAX_NAME_BYTES: usize = 256;
/// The longest e-mail address (RFC 5321 §4.5.3.1.3).
const MAX_EMAIL_BYTES: usize = 254;

/// Whether a text can name a user or a group: not empty, bounded, nothing invisible in or around it.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && text.trim() == text
        && !text.chars().any(char::is_control)
}

/// Whether a text is one plain e-mail address: whoever takes the part behind the first `@` and
/// whoever takes that behind the last see the same domain (SECURITY.md J1).
pub fn is_email(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.chars().any(|c| {
                c.is_control() || c.is_whitespace() || matches!(c, '@' | '"' | ',' | '<' | '>')
            })
    };
    text.len() <= MAX_EMAIL_BYTES
        && text
            .split_once('@')
            .is_some_and(|(local, domain)| plain(local) && plain(domain))
}
