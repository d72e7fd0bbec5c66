//! One spelling for all that a backend may read as the same field name.
//!
//! CGI, WSGI and PHP map every byte outside letters and digits to `_`, so `X_User`, `X.User` and
//! `x-user` are one variable to them. Folding maps them to one name here too, and what folds to a
//! reserved name never passes (H1, H2, H3, H5).

use std::collections::HashSet;

use http::HeaderName;

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
pub struct Reserved {
    names: HashSet<Box<str>>,
    /// Folded, sorted.
    prefixes: Vec<Box<str>>,
    /// Which first bytes any of them has, so that most names are settled by one look.
    first: [u64; 4],
}

impl Reserved {
    /// A set of whole names, and of prefixes such as `x-forwarded-`.
    pub fn new<'a>(
        names: impl IntoIterator<Item = &'a str>,
        prefixes: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut reserved = Self::default();
        for name in names {
            let folded = fold(name.as_bytes());
            reserved.note_first(&folded);
            reserved.names.insert(folded.into());
        }
        for prefix in prefixes {
            let folded = fold(prefix.as_bytes());
            reserved.note_first(&folded);
            reserved.prefixes.push(folded.into());
        }
        reserved.prefixes.sort();
        reserved
    }

    fn note_first(&mut self, folded: &str) {
        if let Some(byte) = folded.bytes().next()
            && let Some(word) = self.first.get_mut(usize::from(byte >> 6))
        {
            *word |= 1_u64 << (byte & 63);
        }
    }

    /// Whether a name, in whichever spelling, is one of them.
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        let Some(first) = name.bytes().next().map(fold_byte) else {
            return false;
        };
        let word = self
            .first
            .get(usize::from(first >> 6))
            .copied()
            .unwrap_or(u64::MAX);
        if word & (1_u64 << (first & 63)) == 0 {
            return false;
        }
        if is_plain(name.as_bytes()) {
            self.has(name)
        } else {
            self.has(&fold(name.as_bytes()))
        }
    }

    fn has(&self, folded: &str) -> bool {
        self.names.contains(folded)
            || self
                .prefixes
                .iter()
                .any(|prefix| folded.starts_with(&**prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reserved() -> Reserved {
        Reserved::new(["X-Authenticated-User", "remote-user"], ["x-forwarded-"])
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
