//! One spelling for all that a backend may read as the same field name.
//!
//! CGI, WSGI and PHP map every byte outside letters and digits to `_`, so `X_User`, `X.User` and
//! `x-user` are one variable to them. Folding maps them to one name here too, and what folds to a
//! reserved name never passes (H1, H2, H3, H5).

use http::HeaderName;

use super::names::{self, Names};

/// Folds a name: lower case, and every byte outside `[a-z0-9]` as `-`.
pub fn fold(name: &[u8]) -> String {
    name.iter()
        .map(|byte| char::from(fold_byte(*byte)))
        .collect()
}

const fn fold_byte(byte: u8) -> u8 {
    match byte.to_ascii_lowercase() {
        folded @ (b'a'..=b'z' | b'0'..=b'9') => folded,
        _ => b'-',
    }
}

/// Whether a name has only letters, digits and hyphens, so that it folds to itself.
pub fn is_plain(name: &[u8]) -> bool {
    name.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// Names and families of names that only the gate may write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved(Names);

impl Reserved {
    /// A set of whole names, and of prefixes such as `x-forwarded-`.
    ///
    /// # Errors
    /// What was expected instead of the first that is no name.
    pub fn new<'a>(
        names: impl IntoIterator<Item = &'a str>,
        prefixes: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let mut reserved = Names::default();
        for name in names {
            reserved.insert(&fold(name.as_bytes()))?;
        }
        for prefix in prefixes {
            let mut entry = fold(prefix.as_bytes());
            entry.push('*');
            reserved.insert(&entry)?;
        }
        Ok(Self(reserved))
    }

    /// Whether a name, in whichever spelling, is one of them.
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        // Folding keeps the length, so that most names are settled before it.
        let mut start = [0; names::LOOKED_AT];
        let folded = start.iter_mut().zip(name.bytes());
        let looked_at = folded.map(|(at, byte)| *at = fold_byte(byte)).count();
        let start = start.get(..looked_at).unwrap_or_default();
        if !self.0.may_contain(start, name.len()) {
            false
        } else if is_plain(name.as_bytes()) {
            self.0.contains_lower(name)
        } else {
            self.0.contains_lower(&fold(name.as_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reserved() -> Reserved {
        Reserved::new(["X-Authenticated-User", "remote-user"], ["x-forwarded-"]).unwrap()
    }

    #[test]
    fn h1_h2_h3_every_alias_of_a_reserved_name_is_reserved() {
        for separator in [
            "-", "_", ".", "~", "!", "+", "'", "*", "^", "`", "|", "#", "$", "%", "&",
        ] {
            for name in [
                format!("x{separator}authenticated{separator}user"),
                format!("X-Authenticated{separator}User"),
                format!("X{separator}Forwarded{separator}For"),
                format!("remote{separator}USER"),
            ] {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                assert!(reserved().contains(&name), "{name}");
            }
        }
        for name in [
            "x-authenticated",
            "remote-users",
            "accept",
            "x-forwarded",
            "user",
        ] {
            assert!(
                !reserved().contains(&HeaderName::from_static(name)),
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn contains_is_the_folded_name_in_the_list(name in "[xXr][a-zA-Z_.-]{0,12}") {
            let folded = fold(name.as_bytes());
            let naive = ["x-authenticated-user", "remote-user"].contains(&&*folded) || folded.starts_with("x-forwarded-");
            prop_assert_eq!(reserved().contains(&HeaderName::from_bytes(name.as_bytes()).unwrap()), naive);
        }
    }
}
