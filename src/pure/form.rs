//! Forms of our own pages (`application/x-www-form-urlencoded`), read strictly.

use zeroize::Zeroizing;

/// Fields of a form.
const MOST_FIELDS: usize = 16;

/// Why a form can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadForm {
    /// More fields than any of our forms has.
    TooMany,
    /// A field came twice.
    Repeated,
    /// `%` without two hexadecimal digits, or text that is not UTF-8.
    Encoding,
}

/// The fields of a form; wiped when dropped, since one may be a password.
pub struct Form(Vec<(String, Zeroizing<String>)>);

impl Form {
    /// Reads a form.
    ///
    /// # Errors
    /// [`BadForm`].
    pub fn parse(text: &[u8]) -> Result<Self, BadForm> {
        let mut fields: Vec<(String, Zeroizing<String>)> = Vec::new();
        for pair in text
            .split(|&byte| byte == b'&')
            .filter(|pair| !pair.is_empty())
        {
            if fields.len() >= MOST_FIELDS {
                return Err(BadForm::TooMany);
            }
            let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            let (name, value) = pair.split_at_checked(end).ok_or(BadForm::Encoding)?;
            let name = decode(name)?;
            if fields.iter().any(|(known, _)| *known == *name) {
                return Err(BadForm::Repeated);
            }
            fields.push((
                name.to_string(),
                decode(value.get(1..).unwrap_or_default())?,
            ));
        }
        Ok(Self(fields))
    }

    /// The value of a field; empty when it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value.as_str())
    }
}

fn decode(text: &[u8]) -> Result<Zeroizing<String>, BadForm> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let (byte, after) = match (first, tail) {
            (b'%', [high, low, after @ ..]) => (hex(*high, *low).ok_or(BadForm::Encoding)?, after),
            (b'%', _) => return Err(BadForm::Encoding),
            (b'+', _) => (b' ', tail),
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = after;
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| BadForm::Encoding)?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some((digit(high)? << 4) | digit(low)?)
}

/// Text as part of a query: everything but unreserved characters as `%XX`.
pub fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the reader, for fuzz targets and tests.

    use super::*;

    /// What is written is read as the same.
    pub fn form(data: &[u8]) {
        let Ok(form) = Form::parse(data) else { return };
        let pairs = form
            .0
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        let written = pairs.collect::<Vec<_>>().join("&");
        let again = Form::parse(written.as_bytes()).expect("what was written is read");
        assert!(form.0 == again.0 || form.0.iter().any(|(name, _)| name.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_decoded_once() {
        let form = Form::parse(b"name=a+b%20c&to=%2Fx%3Fy%3D%2525&empty=").unwrap();
        assert_eq!((form.get("name"), form.get("to")), ("a b c", "/x?y=%25"));
        assert_eq!((form.get("empty"), form.get("none")), ("", ""));
    }

    #[test]
    fn what_two_readers_read_differently_is_refused() {
        assert_eq!(Form::parse(b"a=1&a=2").err(), Some(BadForm::Repeated));
        assert_eq!(Form::parse(b"a=1&%61=2").err(), Some(BadForm::Repeated));
        assert_eq!(Form::parse(b"a=%zz").err(), Some(BadForm::Encoding));
        assert_eq!(Form::parse(b"a=%ff").err(), Some(BadForm::Encoding));
        assert_eq!(
            Form::parse("a&b&c&d&e&f&g&h&i&j&k&l&m&n&o&p&q".as_bytes()).err(),
            Some(BadForm::TooMany)
        );
    }

    proptest! {
        #[test]
        fn any_text_as_a_form(text in "[a-c=&+%0-9]{0,32}") {
            fuzzing::form(text.as_bytes());
        }
    }
}
