//! A sign-in that was begun: what must be known when the provider answers.
//!
//! It is sealed under its ticket in the store. The browser that began it is in it as a hash of its
//! cookie, so that no other browser can finish it (login CSRF, RFC 9700 §4.7).

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::seal;

/// How long a sign-in may take, in seconds.
pub const SECONDS: u64 = 600;

/// A sign-in that was begun.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The provider that was asked: no other may answer (RFC 9207).
    pub provider: String,
    /// Where it was told to answer.
    pub redirect_uri: String,
    /// The path that the person was going to.
    pub to: String,
    /// What the ID token must repeat.
    pub nonce: String,
    /// What the code is worth nothing without (RFC 7636).
    pub verifier: String,
    /// The hash of the cookie of the browser that began it.
    pub browser: [u8; 32],
    /// The greatest age of the sign-in that was asked for, in seconds.
    pub max_age: Option<u64>,
    /// The authentication contexts that were asked for.
    pub acr: Vec<String>,
    /// The ticket of another host that waits for this sign-in.
    pub hand_over: Option<String>,
}

/// Bytes that are no attempt of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnAttempt;

impl Attempt {
    /// What an attempt knows a browser by.
    pub fn browser(cookie: &str) -> [u8; 32] {
        seal::hash(cookie.as_bytes())
    }

    /// Whether a browser with this cookie began it.
    pub fn is_of(&self, cookie: &str) -> bool {
        seal::same(&self.browser, &Self::browser(cookie))
    }

    /// Its bytes.
    ///
    /// # Errors
    /// None in practice.
    pub fn encode(&self) -> Result<Vec<u8>, NotAnAttempt> {
        serde_json::to_vec(self).map_err(|_| NotAnAttempt)
    }

    /// The attempt of these bytes.
    ///
    /// # Errors
    /// [`NotAnAttempt`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAnAttempt> {
        serde_json::from_slice(bytes).map_err(|_| NotAnAttempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_read_as_it_was_written_and_belongs_to_one_browser() {
        let attempt = Attempt {
            provider: "corp".to_owned(),
            redirect_uri: "https://wiki.test/.portcullis/callback/corp".to_owned(),
            to: "/a?b=c".to_owned(),
            nonce: "n".to_owned(),
            verifier: "v".to_owned(),
            browser: Attempt::browser("cookie"),
            max_age: Some(60),
            acr: vec!["mfa".to_owned()],
            hand_over: None,
        };
        let read = Attempt::decode(&attempt.encode().unwrap()).unwrap();
        assert_eq!((&*read.to, read.max_age), ("/a?b=c", Some(60)));
        assert!(read.is_of("cookie"));
        assert!(!read.is_of("other") && !read.is_of(""));
        assert!(Attempt::decode(b"{}").is_err());
    }
}
