//! An identity as a field value: UTF-8, percent-encoded where a field can't hold it plainly.
//!
//! | byte | is sent |
//! |---|---|
//! | visible ASCII but `%` | as it is |
//! | a space inside | as it is |
//! | a space at an end, `%`, anything outside ASCII | as `%XX` (RFC 3986 §2.1), as RFC 8187 does |
//! | `,` in one element of a list | as `%2C` |
//! | a control character | not at all: the whole value is refused |
//!
//! Decoding once gives the name back, so two names never share a value; an element that is empty
//! is refused, since a list can't show it.

use http::HeaderValue;

use crate::pure::hex;

/// The longest value sent: what servers commonly accept for all fields together is 8 KiB.
const MAX_BYTES: usize = 6 * 1024;

/// Why an identity can't be told to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unencodable {
    /// It is empty, or one element of it is.
    Empty,
    /// It holds a control character, which no honest name does.
    Control,
    /// It would make a field longer than servers accept.
    TooLong,
}

/// The field value for one name or address.
///
/// # Errors
/// When it is empty, holds a control character or is too long.
pub fn encode(text: &str) -> Result<HeaderValue, Unencodable> {
    let mut value = Vec::with_capacity(text.len());
    push(&mut value, text, false)?;
    finish(value)
}

/// The field value for a list: elements joined by `,`, in their order; `None` for no elements.
///
/// # Errors
/// When an element is empty or holds a control character, or the whole is too long.
pub fn encode_list<'t>(
    elements: impl IntoIterator<Item = &'t str>,
) -> Result<Option<HeaderValue>, Unencodable> {
    let mut value = Vec::new();
    for element in elements {
        if !value.is_empty() {
            value.push(b',');
        }
        push(&mut value, element, true)?;
    }
    if value.is_empty() {
        Ok(None)
    } else {
        finish(value).map(Some)
    }
}

fn push(value: &mut Vec<u8>, text: &str, in_list: bool) -> Result<(), Unencodable> {
    if text.is_empty() {
        return Err(Unencodable::Empty);
    }
    // Most names and addresses have nothing to encode; every byte is looked at, so that many are at once.
    let plain = text
        .bytes()
        .map(|byte| byte.is_ascii_graphic() & (byte != b'%') & (byte != b','));
    let is_short = value.len().saturating_add(text.len()) <= MAX_BYTES;
    if is_short && plain.fold(true, |all, plain| all & plain) {
        value.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    if text.chars().any(char::is_control) {
        return Err(Unencodable::Control);
    }
    let inner = text.trim_matches(' ');
    let lead = text
        .len()
        .saturating_sub(text.trim_start_matches(' ').len());
    let inner_end = lead.saturating_add(inner.len());
    for (i, byte) in text.bytes().enumerate() {
        let plain = match byte {
            b'%' => false,
            b',' => !in_list,
            b' ' => (lead..inner_end).contains(&i),
            other => other.is_ascii_graphic(),
        };
        if plain {
            value.push(byte);
        } else {
            let [high, low] = hex::upper(byte);
            value.extend([b'%', high, low]);
        }
        if value.len() > MAX_BYTES {
            return Err(Unencodable::TooLong);
        }
    }
    Ok(())
}

fn finish(value: Vec<u8>) -> Result<HeaderValue, Unencodable> {
    // INVARIANT: only visible ASCII and inner spaces were pushed, which every field value may hold.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(value)).map_err(|_| Unencodable::Control)
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// Whatever is encoded is plain ASCII without spaces at its ends, and decodes to what it was.
    pub fn encode_identity(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(value) = encode(text) {
            assert!(
                value
                    .as_bytes()
                    .iter()
                    .all(|b| *b == b' ' || b.is_ascii_graphic())
            );
            assert_eq!(value.as_bytes().trim_ascii(), value.as_bytes());
            assert_eq!(decode(value.as_bytes()), text.as_bytes());
        }
        let elements: Vec<&str> = text.split('\n').collect();
        if let Ok(Some(value)) = encode_list(elements.iter().copied()) {
            let back: Vec<Vec<u8>> = value.as_bytes().split(|b| *b == b',').map(decode).collect();
            assert_eq!(
                back,
                elements
                    .iter()
                    .map(|e| e.as_bytes().to_vec())
                    .collect::<Vec<_>>()
            );
        }
    }

    fn decode(value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = value.iter();
        while let Some(&byte) = rest.next() {
            let mut digit = || rest.next().and_then(|b| char::from(*b).to_digit(16));
            match byte {
                b'%' => {
                    let (Some(high), Some(low)) = (digit(), digit()) else {
                        return out;
                    };
                    out.extend(u8::try_from(high << 4 | low));
                }
                plain => out.push(plain),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn sent(text: &str, value: &str) {
        assert_eq!(encode(text).unwrap(), value);
    }

    #[test]
    fn plain_names_are_sent_as_they_are() {
        sent("alice", "alice");
        sent("alice@corp.test", "alice@corp.test");
        sent("Alice B. Smith", "Alice B. Smith");
        sent("CORP\\alice", "CORP\\alice");
        sent("a,b", "a,b");
    }

    #[test]
    fn what_a_field_cannot_hold_is_percent_encoded() {
        sent("jürgen", "j%C3%BCrgen");
        sent("李雷", "%E6%9D%8E%E9%9B%B7");
        sent("100%", "100%25");
        sent(" alice ", "%20alice%20");
        sent("  ", "%20%20");
    }

    #[test]
    fn a_name_that_looks_encoded_stays_another_name() {
        assert_ne!(encode("j%C3%BCrgen").unwrap(), encode("jürgen").unwrap());
        assert_ne!(encode("%20").unwrap(), encode(" ").unwrap());
    }

    #[test]
    fn control_characters_refuse_the_whole_value() {
        for text in [
            "a\nb",
            "a\r\nX-Admin: yes",
            "a\0",
            "\t",
            "a\u{7f}",
            "a\u{85}b",
        ] {
            assert_eq!(encode(text), Err(Unencodable::Control));
            assert_eq!(encode_list(["ok", text]), Err(Unencodable::Control));
        }
    }

    #[test]
    fn an_empty_name_is_refused() {
        assert_eq!(encode(""), Err(Unencodable::Empty));
        assert_eq!(encode_list(["a", "", "b"]), Err(Unencodable::Empty));
    }

    #[test]
    fn no_groups_are_no_field() {
        assert_eq!(encode_list([]), Ok(None));
    }

    #[test]
    fn a_comma_in_a_group_makes_no_second_group() {
        let value = encode_list(["staff", "ops,admin"]).unwrap().unwrap();
        assert_eq!(value, "staff,ops%2Cadmin");
    }

    #[test]
    fn a_value_that_servers_would_refuse_is_refused_here() {
        assert!(encode(&"a".repeat(MAX_BYTES)).is_ok());
        assert_eq!(
            encode(&"a".repeat(MAX_BYTES + 1)),
            Err(Unencodable::TooLong)
        );
        let groups = vec!["group"; MAX_BYTES];
        assert_eq!(encode_list(groups), Err(Unencodable::TooLong));
    }

    proptest! {
        #[test]
        fn decoding_gives_the_name_back(text in "\\PC{0,24}") {
            fuzzing::encode_identity(text.as_bytes());
        }

        #[test]
        fn decoding_gives_the_list_back(text in "([a, %é]{1,4}\n){0,3}[a,%]") {
            fuzzing::encode_identity(text.as_bytes());
        }

        #[test]
        fn two_names_never_share_a_value(a in "[%2C, é]{1,4}", b in "[%2C, é]{1,4}") {
            prop_assert_eq!(encode(&a) == encode(&b), a == b);
        }
    }
}
