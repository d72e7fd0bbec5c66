//! JSON read strictly: no name twice in one object, nothing after the value, bounded in depth.
//!
//! Two readers that differ on which of two equal names counts is how a token says one thing to the
//! check and another to the application (RFC 8259 §4, SECURITY.md J3).

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Not one strict JSON value in UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadJson {
    /// A name stands twice in one object.
    Repeated,
    /// Not JSON, not UTF-8, more than one value, or nested deeper than 128.
    Syntax,
}

impl std::fmt::Display for BadJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Repeated => "a name stands twice in one JSON object",
            Self::Syntax => "it is not JSON",
        })
    }
}

impl std::error::Error for BadJson {}

/// The one value that `bytes` are. The caller bounds their length.
///
/// # Errors
/// What is wrong with them.
pub fn parse(bytes: &[u8]) -> Result<Value, BadJson> {
    serde_json::from_slice(bytes)
        .map(|Strict(value)| value)
        .map_err(|error| {
            if error.is_data() {
                BadJson::Repeated
            } else {
                BadJson::Syntax
            }
        })
}

/// The one object that `bytes` are; `None` for any other value.
///
/// # Errors
/// What is wrong with them.
pub fn object(bytes: &[u8]) -> Result<Option<Map<String, Value>>, BadJson> {
    Ok(match parse(bytes)? {
        Value::Object(object) => Some(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            None
        }
    })
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = pairs.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read is what the library reads, and is read again as the same.
    #[expect(clippy::expect_used, reason = "a panic is the finding")]
    pub fn json(bytes: &[u8]) {
        let Ok(value) = parse(bytes) else { return };
        let lenient: Value = serde_json::from_slice(bytes).expect("the library reads it too");
        assert_eq!(lenient, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_repeated_name_is_refused_at_every_depth_and_in_every_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#"[[{"a":1,"\u0061":2}]]"#,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(BadJson::Repeated), "{text}");
        }
        assert!(parse(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn what_is_not_one_value_is_refused() {
        for bytes in [
            &b""[..],
            b"{",
            b"{}x",
            b"{} {}",
            b"{'a':1}",
            b"[1,]",
            b"NaN",
            b"\"\xff\"",
            b"\xef\xbb\xbf{}",
        ] {
            assert_eq!(parse(bytes), Err(BadJson::Syntax), "{bytes:?}");
        }
        assert_eq!(parse("[".repeat(1000).as_bytes()), Err(BadJson::Syntax));
    }

    #[test]
    fn only_an_object_is_an_object() {
        assert_eq!(object(b"[]"), Ok(None));
        assert_eq!(object(b"{}"), Ok(Some(Map::new())));
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_what_serde_json_reads(text in "[\\[\\]{}\":,a1 ]{0,24}") {
            fuzzing::json(text.as_bytes());
        }
    }
}
