//! Field syntax (RFC 9110 §5): one value or refuse, lists, tokens.
//!
//! [`one`] is the single way to read a field that may come once: who reads the first line only reads
//! another one than a backend that reads the last (H11).

use http::header;
use http::{HeaderName, HeaderValue};

use super::fields::Fields;

/// A field that may come once came twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated;

/// A list that does not parse: an unfinished quoted string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadList;

/// The only line of a field, or none.
///
/// # Errors
/// [`Repeated`] when there are several lines.
pub fn one<'h>(
    headers: &'h Fields,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, Repeated> {
    let mut lines = headers.all(name);
    match (lines.next(), lines.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Repeated),
    }
}

/// Request fields that may come once; a second line is read by some and not by others.
static SINGLETONS: [HeaderName; 20] = [
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::FROM,
    header::HOST,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::MAX_FORWARDS,
    header::ORIGIN,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::REFERER,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::USER_AGENT,
];

/// Refuses a second line of any request field that may come once.
///
/// # Errors
/// [`Repeated`].
pub fn no_repeats(headers: &Fields) -> Result<(), Repeated> {
    let mut names = headers.names();
    while let Some(name) = names.next() {
        if names.clone().any(|later| later == name) && SINGLETONS.contains(name) {
            return Err(Repeated);
        }
    }
    Ok(())
}

/// The elements of a comma-separated list, over all lines; empty ones are left out (RFC 9110
/// §5.6.1). A comma in a quoted string does not separate.
///
/// # Errors
/// [`BadList`] for an unfinished quoted string.
pub fn list<'h>(headers: &'h Fields, name: &HeaderName) -> Result<Vec<&'h [u8]>, BadList> {
    let mut elements = Vec::new();
    for line in headers.all(name) {
        split_list(line.as_bytes(), b',', &mut elements)?;
    }
    Ok(elements)
}

/// Splits at `separator` outside of quoted strings, and trims.
///
/// # Errors
/// [`BadList`] for an unfinished quoted string.
pub fn split_list<'v>(
    value: &'v [u8],
    separator: u8,
    elements: &mut Vec<&'v [u8]>,
) -> Result<(), BadList> {
    let (mut quoted, mut escaped, mut start) = (false, false, 0_usize);
    let mut push = |part: Option<&'v [u8]>| {
        let part = trim(part.unwrap_or_default());
        if !part.is_empty() {
            elements.push(part);
        }
    };
    for (at, &byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                push(value.get(start..at));
                start = at.saturating_add(1);
            }
            _ => {}
        }
    }
    push(value.get(start..));
    if quoted { Err(BadList) } else { Ok(()) }
}

/// Without optional white space at either end.
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether text is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_tchar(byte))
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// The text of a quoted string (RFC 9110 §5.6.4), or of a token; `None` for anything else.
pub fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let Some(inner) = value.strip_prefix(b"\"") else {
        return is_token(value).then(|| value.to_vec());
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut rest = inner;
    loop {
        match rest {
            [b'"'] => return Some(text),
            [b'\\', byte, after @ ..] => {
                text.push(*byte);
                rest = after;
            }
            [b'"' | b'\\', ..] | [] => return None,
            [byte, after @ ..] => {
                text.push(*byte);
                rest = after;
            }
        }
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the readers, for fuzz targets and tests.

    use super::*;

    /// Elements hold no white space at their ends, and no bare separator; unquoting a quoted text
    /// gives it back.
    pub fn field(data: &[u8]) {
        let mut elements = Vec::new();
        if split_list(data, b',', &mut elements).is_ok() {
            for element in elements {
                assert!(!element.is_empty() && trim(element) == element);
                let mut again = Vec::new();
                split_list(element, b',', &mut again).expect("an element is a list of itself");
                assert_eq!(again, [element]);
            }
        }
        let mut quoted = vec![b'"'];
        for &byte in data {
            if matches!(byte, b'"' | b'\\') {
                quoted.push(b'\\');
            }
            quoted.push(byte);
        }
        quoted.push(b'"');
        assert_eq!(unquote(&quoted).as_deref(), Some(data));
        let _ = unquote(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn h11_a_second_line_of_a_single_field_refuses() {
        for name in &SINGLETONS {
            let mut headers = Fields::new();
            headers.append(name.clone(), HeaderValue::from_static("a"));
            assert_eq!(no_repeats(&headers), Ok(()));
            headers.append(name.clone(), HeaderValue::from_static("a"));
            assert_eq!(
                (no_repeats(&headers), one(&headers, name)),
                (Err(Repeated), Err(Repeated)),
                "{name}"
            );
        }
    }

    #[test]
    fn commas_in_quotes_do_not_separate() {
        let name = HeaderName::from_static("a");
        let mut headers = Fields::new();
        headers.append(
            name.clone(),
            HeaderValue::from_static("x, \"a, \\\"b\" ,, y"),
        );
        headers.append(name.clone(), HeaderValue::from_static("z"));
        assert_eq!(
            list(&headers, &name),
            Ok(vec![&b"x"[..], b"\"a, \\\"b\"", b"y", b"z"])
        );
        headers.append(name.clone(), HeaderValue::from_static("\"open"));
        assert_eq!(list(&headers, &name), Err(BadList));
    }

    proptest! {
        #[test]
        fn any_bytes_as_a_value(data in prop::collection::vec(prop_oneof![Just(b'"'), Just(b','), Just(b'\\'), any::<u8>()], 0..64)) {
            fuzzing::field(&data);
        }
    }
}
