//! `Authorization`: what a program says to prove who it is (RFC 7617, RFC 6750).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::field;
use super::fields::Fields;

/// Bytes of a user's name or password.
const MOST_BYTES: usize = 1024;

/// One credential. It has no `Debug`, so that no log can hold it.
pub enum Credential {
    /// Name and password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A token.
    Bearer(Zeroizing<String>),
    /// Of a scheme that the gate does not know; the application's own.
    Other,
}

/// Why a credential can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadCredential {
    /// Two `Authorization` lines.
    Repeated,
    /// No scheme.
    Scheme,
    /// Not base64 of `name:password` in UTF-8 without control characters.
    Basic,
    /// Not one token of the allowed characters.
    Bearer,
}

impl Credential {
    /// Reads the request's credential, if it has one.
    ///
    /// # Errors
    /// [`BadCredential`].
    pub fn of(headers: &Fields) -> Result<Option<Self>, BadCredential> {
        let value = field::one(headers, &AUTHORIZATION).map_err(|_| BadCredential::Repeated)?;
        value.map(Self::parse).transpose()
    }

    /// Reads the value of `Authorization`.
    ///
    /// # Errors
    /// [`BadCredential`].
    pub fn parse(value: &HeaderValue) -> Result<Self, BadCredential> {
        let value = value.as_bytes();
        let end = memchr::memchr(b' ', value).unwrap_or(value.len());
        let (scheme, rest) = value.split_at_checked(end).ok_or(BadCredential::Scheme)?;
        if !field::is_token(scheme) {
            return Err(BadCredential::Scheme);
        }
        let rest = rest.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"basic") {
            return basic(rest).ok_or(BadCredential::Basic);
        }
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return bearer(rest).ok_or(BadCredential::Bearer);
        }
        Ok(Self::Other)
    }
}

fn basic(encoded: &[u8]) -> Option<Credential> {
    let decoded = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let text = std::str::from_utf8(&decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    let usable = |text: &str| text.len() <= MOST_BYTES && !text.chars().any(char::is_control);
    (usable(user) && usable(password) && !user.is_empty()).then(|| Credential::Basic {
        user: user.to_owned(),
        password: Zeroizing::new(password.to_owned()),
    })
}

/// `b64token` of RFC 6750 §2.1.
fn bearer(token: &[u8]) -> Option<Credential> {
    let unpadded = token
        .iter()
        .rposition(|byte| *byte != b'=')
        .and_then(|at| token.get(..=at))?;
    let text = std::str::from_utf8(token).ok()?;
    // Every byte is looked at, so that many are at once: a token has hundreds.
    let sign = |byte: u8| {
        (byte == b'-')
            | (byte == b'.')
            | (byte == b'_')
            | (byte == b'~')
            | (byte == b'+')
            | (byte == b'/')
    };
    unpadded
        .iter()
        .map(|byte| byte.is_ascii_alphanumeric() | sign(*byte))
        .fold(true, |all, allowed| all & allowed)
        .then(|| Credential::Bearer(Zeroizing::new(text.to_owned())))
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the reader, for fuzz targets and tests.

    use super::*;

    /// What is read as name and password is written as the same again.
    pub fn authorization(data: &[u8]) {
        let Ok(value) = HeaderValue::from_bytes(data) else {
            return;
        };
        if let Ok(Credential::Basic { user, password }) = Credential::parse(&value) {
            assert!(!user.contains(':'));
            let again = format!(
                "Basic {}",
                STANDARD.encode(format!("{user}:{}", &*password))
            );
            let again = Credential::parse(&HeaderValue::try_from(again).expect("a value"));
            assert!(
                matches!(again, Ok(Credential::Basic { user: u, password: p }) if u == user && p == password)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Credential, BadCredential> {
        Credential::parse(&HeaderValue::from_bytes(text.as_bytes()).unwrap())
    }

    #[test]
    fn h9_schemes_are_read_in_any_case() {
        for scheme in ["Basic", "basic", "BASIC"] {
            let got = read(&format!("{scheme} YWxpY2U6YTpi"));
            assert!(
                matches!(got, Ok(Credential::Basic { user, password }) if user == "alice" && *password == "a:b")
            );
        }
        assert!(
            matches!(read("bEARER abc.d-e_f=="), Ok(Credential::Bearer(token)) if *token == "abc.d-e_f==")
        );
        assert!(matches!(read("Negotiate abc"), Ok(Credential::Other)));
    }

    #[test]
    fn credentials_that_can_be_read_in_two_ways_are_refused() {
        for bad in [
            "Basic",
            "Basic YWxpY2U",
            "Basic YWxpY2U=",
            "Basic YWxpY2U6\u{e9}",
            "Basic OnB3",
            "Basic YTpiAA==",
        ] {
            assert_eq!(read(bad).err(), Some(BadCredential::Basic), "{bad}");
        }
        for bad in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a,b",
            "Bearer ==",
            "Bearer a=b",
        ] {
            assert_eq!(read(bad).err(), Some(BadCredential::Bearer), "{bad}");
        }
        assert_eq!(read("").err(), Some(BadCredential::Scheme));
        let mut twice = Fields::new();
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert_eq!(Credential::of(&twice).err(), Some(BadCredential::Repeated));
    }

    proptest! {
        #[test]
        fn any_text_as_a_credential(text in "(Basic|Bearer|x) [a-zA-Z0-9+/=]{0,16}") {
            fuzzing::authorization(text.as_bytes());
        }
    }
}
