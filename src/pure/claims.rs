//! Claims as a session keeps them: in few bytes, since there may be a million of them.
//!
//! Names that providers use are numbers, and a value that the session knows already, such as the user's
//! e-mail address, is a reference to it. Lengths and whole numbers are LEB128.
//!
//! | tag | value |
//! |---|---|
//! | 0, 1, 2 | `null`, `false`, `true` |
//! | 3, 4 | a whole number; one below zero, less one and without its sign |
//! | 5 | any other number, as a double |
//! | 6 | a text: its length and bytes |
//! | 7, 8 | an array, an object: how many, and each |
//! | 9, 10, 11, 12 | the user's name, e-mail address, subject, groups |

use std::sync::Arc;

use serde_json::{Number, Value};

use super::compact::{self, put_length, put_text, put_whole};
use super::identity::Claims;

/// A name is one more than its place here, or 0 and a text. What is added goes to the end.
const NAMES: [&str; 40] = [
    "iss",
    "aud",
    "azp",
    "sub",
    "acr",
    "amr",
    "auth_time",
    "name",
    "given_name",
    "family_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "email",
    "email_verified",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "phone_number",
    "phone_number_verified",
    "address",
    "formatted",
    "updated_at",
    "groups",
    "roles",
    "realm_access",
    "resource_access",
    "upn",
    "unique_name",
    "oid",
    "tid",
    "ver",
    "hd",
    "login",
    "id",
    "orgs",
];
/// As deep as JSON is read.
const MAX_DEPTH: u32 = 128;

/// What a session knows of its user beside the claims.
#[derive(Debug, Clone, Copy)]
pub struct Known<'k> {
    /// The user's name.
    pub name: &'k str,
    /// The verified e-mail address.
    pub email: Option<&'k str>,
    /// The user as the provider knows them.
    pub subject: Option<&'k str>,
    /// The user's groups.
    pub groups: &'k [Arc<str>],
}

/// Bytes that are no claims as [`encode`] writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotClaims;

/// The bytes of claims.
pub fn encode(claims: &Claims, known: &Known<'_>, out: &mut Vec<u8>) {
    put_object(claims, known, out);
}

/// The claims of bytes, all of them.
///
/// # Errors
/// [`NotClaims`].
pub fn decode(bytes: &[u8], known: &Known<'_>) -> Result<Claims, NotClaims> {
    let mut reader = Reader {
        bytes: compact::Reader(bytes),
        known,
    };
    let claims = reader.object(MAX_DEPTH)?;
    if reader.bytes.0.is_empty() {
        Ok(claims)
    } else {
        Err(NotClaims)
    }
}

fn put_object(object: &Claims, known: &Known<'_>, out: &mut Vec<u8>) {
    put_length(object.len(), out);
    for (name, value) in object {
        match NAMES.iter().zip(1_u8..).find(|(one, _)| *one == name) {
            Some((_, number)) => out.push(number),
            None => {
                out.push(0);
                put_text(name, out);
            }
        }
        put_value(value, known, out);
    }
}

fn put_value(value: &Value, known: &Known<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(false) => out.push(1),
        Value::Bool(true) => out.push(2),
        Value::Number(number) => put_number(number, out),
        Value::String(text) => {
            let text = text.as_str();
            if text == known.name {
                out.push(9);
            } else if Some(text) == known.email {
                out.push(10);
            } else if Some(text) == known.subject {
                out.push(11);
            } else {
                out.push(6);
                put_text(text, out);
            }
        }
        Value::Array(values) => {
            let are_groups = !values.is_empty()
                && values.len() == known.groups.len()
                && values
                    .iter()
                    .zip(known.groups)
                    .all(|(value, group)| value.as_str() == Some(group));
            if are_groups {
                return out.push(12);
            }
            out.push(7);
            put_length(values.len(), out);
            for value in values {
                put_value(value, known, out);
            }
        }
        Value::Object(object) => {
            out.push(8);
            put_object(object, known, out);
        }
    }
}

fn put_number(number: &Number, out: &mut Vec<u8>) {
    if let Some(whole) = number.as_u64() {
        out.push(3);
        put_whole(whole, out);
    } else if let Some(negative) = number.as_i64() {
        out.push(4);
        put_whole((!negative).unsigned_abs(), out);
    } else {
        out.push(5);
        let double = number.as_f64().unwrap_or_default();
        out.extend_from_slice(&double.to_be_bytes());
    }
}

struct Reader<'r> {
    bytes: compact::Reader<'r>,
    known: &'r Known<'r>,
}

impl<'r> Reader<'r> {
    fn byte(&mut self) -> Result<u8, NotClaims> {
        self.bytes.array().map(|[byte]| byte).ok_or(NotClaims)
    }

    fn whole(&mut self) -> Result<u64, NotClaims> {
        self.bytes.whole().ok_or(NotClaims)
    }

    fn length(&mut self) -> Result<usize, NotClaims> {
        self.bytes.length().ok_or(NotClaims)
    }

    fn text(&mut self) -> Result<&'r str, NotClaims> {
        self.bytes.text().ok_or(NotClaims)
    }

    fn name(&mut self) -> Result<&'r str, NotClaims> {
        match self.byte()? {
            0 => self.text(),
            number => NAMES
                .get(usize::from(number).saturating_sub(1))
                .copied()
                .ok_or(NotClaims),
        }
    }

    fn object(&mut self, depth: u32) -> Result<Claims, NotClaims> {
        let mut object = Claims::new();
        for _ in 0..self.length()? {
            let name = self.name()?.to_owned();
            if object.insert(name, self.value(depth)?).is_some() {
                return Err(NotClaims);
            }
        }
        Ok(object)
    }

    fn value(&mut self, depth: u32) -> Result<Value, NotClaims> {
        let depth = depth.checked_sub(1).ok_or(NotClaims)?;
        Ok(match self.byte()? {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => self.whole()?.into(),
            4 => {
                let less_one = i64::try_from(self.whole()?).map_err(|_| NotClaims)?;
                (!less_one).into()
            }
            5 => {
                let double = self.bytes.array().ok_or(NotClaims)?;
                Number::from_f64(f64::from_be_bytes(double))
                    .ok_or(NotClaims)?
                    .into()
            }
            6 => self.text()?.into(),
            7 => {
                let values = (0..self.length()?).map(|_| self.value(depth));
                Value::Array(values.collect::<Result<_, _>>()?)
            }
            8 => Value::Object(self.object(depth)?),
            9 => self.known.name.into(),
            10 => self.known.email.ok_or(NotClaims)?.into(),
            11 => self.known.subject.ok_or(NotClaims)?.into(),
            12 => Value::Array(
                self.known
                    .groups
                    .iter()
                    .map(|group| (**group).into())
                    .collect(),
            ),
            _ => return Err(NotClaims),
        })
    }
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read is written and read again as the same.
    pub fn session_claims(bytes: &[u8]) {
        let groups = [Arc::from("staff"), Arc::from("wiki")];
        let known = Known {
            name: "ada",
            email: Some("ada@corp.test"),
            subject: None,
            groups: &groups,
        };
        if let Ok(claims) = decode(bytes, &known) {
            let mut again = Vec::new();
            encode(&claims, &known, &mut again);
            assert_eq!(decode(&again, &known), Ok(claims));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    fn there_and_back(claims: &Claims, known: &Known<'_>) -> usize {
        let mut bytes = Vec::new();
        encode(claims, known, &mut bytes);
        assert_eq!(decode(&bytes, known).as_ref(), Ok(claims));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end], known), Err(NotClaims));
        }
        bytes.push(0);
        assert_eq!(decode(&bytes, known), Err(NotClaims));
        bytes.len() - 1
    }

    #[test]
    fn claims_come_back_as_they_were_in_a_third_of_the_room() {
        let groups = ["engineering", "wiki-editors"].map(Arc::from);
        let known = Known {
            name: "ada",
            email: Some("ada@corp.test"),
            subject: Some("5f0c2a9e-7d41-4b6a-9c3e-000000000001"),
            groups: &groups,
        };
        let all = claims(&json!({
            "iss": "https://idp.corp.test", "aud": "portcullis", "sub": known.subject,
            "acr": "1", "auth_time": 1_700_000_000, "name": "Ada Lovelace", "given_name": "Ada",
            "preferred_username": "ada", "email": "ada@corp.test", "email_verified": true,
            "groups": ["engineering", "wiki-editors"], "own": {"roles": ["x", null, false]},
        }));
        let bytes = there_and_back(&all, &known);
        assert!(
            bytes * 3 < serde_json::to_vec(&all).unwrap().len(),
            "{bytes}"
        );
    }

    #[test]
    fn numbers_keep_their_last_bit() {
        let known = Known {
            name: "",
            email: None,
            subject: None,
            groups: &[],
        };
        let all = json!({
            "a": u64::MAX, "b": i64::MIN, "c": -1, "d": 0, "e": 0.1, "f": -1.5e300, "g": [[], {}, ""],
        });
        there_and_back(&claims(&all), &known);
    }

    #[test]
    fn what_is_no_claims_is_refused_and_takes_no_room() {
        let known = Known {
            name: "ada",
            email: None,
            subject: None,
            groups: &[],
        };
        for bytes in [
            &b""[..],
            // More than follow; a length of more bytes than it needs; one that overflows.
            b"\xff\xff\xff\xff\x0f",
            b"\x80\x00",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            // A name twice, an unknown name, an unknown tag, an address that there is not.
            b"\x02\x01\x00\x01\x00",
            b"\x01\xfe\x00",
            b"\x01\x01\x0d",
            b"\x01\x01\x0a",
            b"\x01\x01\x06\x01\xff",
        ] {
            assert_eq!(decode(bytes, &known), Err(NotClaims), "{bytes:?}");
        }
        let deep = [&b"\x01\x01"[..], &[7, 1].repeat(5000), b"\x00"].concat();
        assert_eq!(decode(&deep, &known), Err(NotClaims));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            fuzzing::session_claims(&bytes);
        }
    }
}
