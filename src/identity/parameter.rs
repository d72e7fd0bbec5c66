//! What a request to sign in says besides, for providers with ways of their own.
//!
//! A [`Parameter`] is none that decides who is asked, for whom, and where the answer goes: those are the
//! gate's, in every spelling that a provider's framework may read as the same name.

use crate::pure::spelling::fold;

/// The longest value.
const MAX_VALUE: usize = 1024;

/// Names that the gate writes itself, that have settings of their own, or that would carry a request
/// of their own (RFC 9101); folded.
const OWN: [&str; 25] = [
    "acr-values",
    "client-assertion",
    "client-assertion-type",
    "client-id",
    "client-secret",
    "code",
    "code-challenge",
    "code-challenge-method",
    "code-verifier",
    "grant-type",
    "id-token-hint",
    "iss",
    "login-hint",
    "max-age",
    "nonce",
    "password",
    "prompt",
    "redirect-uri",
    "request",
    "request-uri",
    "response-mode",
    "response-type",
    "scope",
    "state",
    "username",
];

/// A parameter of a request, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    name: String,
    value: String,
}

impl Parameter {
    /// The parameter that a configuration states.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn new(name: &str, value: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err("names of letters, digits, `_`, `-` and `.`".to_owned());
        }
        if OWN.contains(&&*fold(name.as_bytes())) {
            return Err(format!("no `{name}`, which the gate says itself"));
        }
        let is_text = |letter: char| !letter.is_control();
        if value.is_empty() || value.len() > MAX_VALUE || !value.chars().all(is_text) {
            return Err(format!(
                "a value for `{name}` of at most {MAX_VALUE} bytes, without control characters"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gate_says_itself_is_no_parameter_in_any_spelling() {
        for name in [
            "state",
            "nonce",
            "redirect_uri",
            "code_challenge",
            "code_challenge_method",
            "response_type",
            "response_mode",
            "client_id",
            "scope",
            "prompt",
            "request",
            "request_uri",
            "State",
            "REDIRECT_URI",
            "redirect-uri",
            "redirect.uri",
            "Client.Id",
        ] {
            let refused = Parameter::new(name, "x").unwrap_err();
            assert_eq!(refused, format!("no `{name}`, which the gate says itself"));
        }
    }

    #[test]
    fn a_parameter_is_one_name_and_one_text() {
        for (name, value) in [
            ("access_type", "offline"),
            ("hd", "example.com"),
            ("domain_hint", "example.com"),
            ("kc_idp_hint", "ü &="),
            ("request_locale", "de"),
        ] {
            let parameter = Parameter::new(name, value).unwrap();
            assert_eq!((parameter.name(), parameter.value()), (name, value));
        }
        let long = "a".repeat(MAX_VALUE + 1);
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a&state", "x"),
            ("scope[]", "x"),
            ("a=b", "x"),
            ("ä", "x"),
            (&*"a".repeat(65), "x"),
            ("a", ""),
            ("a", "x\r\ny"),
            ("a", "\0"),
            ("a", &*long),
        ] {
            assert!(Parameter::new(name, value).is_err(), "{name}={value}");
        }
    }
}
