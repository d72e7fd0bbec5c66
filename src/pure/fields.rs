//! The fields of a message's head, in the order of their lines (RFC 9110 §5).
//!
//! A list, not a map: a head has few fields, and looking at each name costs less than hashing one.
//! There is no way to read "the" value of a name here, because there may be several lines;
//! [`field::one`](super::field::one) is that way, and refuses a second one (H11).

use http::{HeaderMap, HeaderName, HeaderValue};

/// Field lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(HeaderName, HeaderValue)>);

impl Fields {
    /// No field.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// No field yet, with room for so many.
    pub fn with_capacity(fields: usize) -> Self {
        Self(Vec::with_capacity(fields))
    }

    /// How many lines there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a line.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Makes this the only line of its name.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.remove(&name);
        self.append(name, value);
    }

    /// Adds a line, unless its name has one.
    pub fn set_if_missing(&mut self, name: HeaderName, value: &HeaderValue) {
        if !self.contains(&name) {
            self.append(name, value.clone());
        }
    }

    /// Removes every line of a name.
    pub fn remove(&mut self, name: &HeaderName) {
        self.0.retain(|(of, _)| of != name);
    }

    /// Keeps the lines of which `keeps` says so; it may change their values.
    pub fn retain(&mut self, mut keeps: impl FnMut(&HeaderName, &mut HeaderValue) -> bool) {
        self.0.retain_mut(|(name, value)| keeps(name, value));
    }

    /// Whether a name has a line.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|(of, _)| of == name)
    }

    /// The value of every line of a name.
    pub fn all(&self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &HeaderValue> + Clone {
        let lines = self.0.iter().filter(move |(of, _)| of == name);
        lines.map(|(_, value)| value)
    }

    /// Every line.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> + Clone {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The name of every line.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> + Clone {
        self.0.iter().map(|(name, _)| name)
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(lines: I) -> Self {
        Self(lines.into_iter().collect())
    }
}

impl IntoIterator for Fields {
    type Item = (HeaderName, HeaderValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        let mut fields = Self::with_capacity(map.len());
        let mut last = None;
        for (name, value) in map {
            // A map names only the first of several lines of one name.
            let name = name.or_else(|| last.take());
            if let Some(name) = name {
                last = Some(name.clone());
                fields.append(name, value);
            }
        }
        fields
    }
}

impl From<Fields> for HeaderMap {
    fn from(fields: Fields) -> Self {
        let mut map = Self::with_capacity(fields.len());
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    }
}

#[cfg(any(test, fuzzing))]
impl Fields {
    /// The value of every line of a name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &HeaderValue> + Clone {
        let lines = self
            .iter()
            .filter(move |(of, _)| of.as_str().eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value)
    }

    /// Whether a name has a line.
    pub fn has(&self, name: &str) -> bool {
        self.named(name).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: HeaderName = HeaderName::from_static("a");

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    #[test]
    fn every_line_of_a_name_is_found_and_goes_with_it() {
        let mut fields = Fields::new();
        for (name, text) in [("a", "1"), ("b", "2"), ("a", "3")] {
            fields.append(HeaderName::from_static(name), value(text));
        }
        assert!(fields.all(&A).eq(["1", "3"]));
        fields.set_if_missing(A, &value("4"));
        assert_eq!(fields.len(), 3);
        fields.set(A, value("5"));
        assert!(
            fields
                .iter()
                .map(|(n, v)| (n.as_str(), v))
                .eq([("b", &value("2")), ("a", &value("5"))])
        );
        fields.remove(&A);
        assert!(!fields.contains(&A));
    }

    proptest! {
        #[test]
        fn a_map_of_them_holds_the_same_lines(lines in prop::collection::vec(("[a-c]", "[0-9]"), 0..8)) {
            let fields: Fields = lines
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect();
            let map = HeaderMap::from(fields.clone());
            let back = Fields::from(map.clone());
            prop_assert_eq!(back.len(), fields.len());
            for name in fields.names() {
                prop_assert!(fields.all(name).eq(map.get_all(name)));
                prop_assert!(fields.all(name).eq(back.all(name)));
            }
        }
    }
}
