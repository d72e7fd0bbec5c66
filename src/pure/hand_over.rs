//! One sign-on for many hosts: what a host asks of the sign-in host, and what it gets.
//!
//! 1. A host that wants a session keeps a [`HandOver`] under a ticket, and sends the browser to the
//!    sign-in host with it.
//! 2. The sign-in host, where somebody is or gets signed in, uses the ticket up, keeps an
//!    [`Admission`] under another, and sends the browser back with that.
//! 3. The host uses it up, if the browser has the cookie that it had in 1, and makes a session of its
//!    own, which ends with the one of the sign-in host.
//!
//! No cookie is for more than one host, and a ticket alone signs nobody in.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// How long the browser may take from 2 to 3, in seconds.
pub const ADMISSION_SECONDS: u64 = 60;

/// What a host asks of the sign-in host.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    /// Scheme, host and port of the host that asks.
    pub origin: String,
    /// The path there that the person was going to.
    pub to: String,
    /// The hash of the cookie that the browser has there.
    pub browser: [u8; 32],
    /// The sign-in methods that it takes.
    pub methods: Vec<String>,
    /// How fresh the sign-in must be, in seconds.
    pub within: Option<u64>,
    /// The authentication contexts of which it must be in one; in any, where there are none.
    pub acr: Vec<String>,
}

/// What it gets.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// Scheme, host and port of the host that it is for.
    pub origin: String,
    /// The path there that the person was going to.
    pub to: String,
    /// The hash of the cookie that the browser has there.
    pub browser: [u8; 32],
    /// The secret of the session at the sign-in host.
    pub parent: [u8; 32],
}

/// Bytes that are none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOurs;

/// The bytes of either.
///
/// # Errors
/// None in practice.
pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, NotOurs> {
    serde_json::to_vec(value).map_err(|_| NotOurs)
}

/// What these bytes are.
///
/// # Errors
/// [`NotOurs`].
pub fn decode<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, NotOurs> {
    serde_json::from_slice(bytes).map_err(|_| NotOurs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_comes_back_as_it_was_and_as_nothing_else() {
        let asked = HandOver {
            origin: "https://wiki.test".to_owned(),
            to: "/a?b".to_owned(),
            browser: [1; 32],
            methods: vec!["corp".to_owned()],
            within: Some(900),
            acr: vec!["mfa".to_owned()],
        };
        let bytes = encode(&asked).unwrap();
        let read: HandOver = decode(&bytes).unwrap();
        assert_eq!((&*read.to, read.within), ("/a?b", Some(900)));
        assert!(decode::<Admission>(&bytes).is_err());
        assert!(decode::<HandOver>(b"{}").is_err());
    }
}
