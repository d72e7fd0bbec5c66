//! A set of names and of beginnings of names.
//!
//! A look-up costs two looks at a table for most names, a hash for some, and for some first letters a
//! binary search: what a field costs does not grow with the list.

use std::collections::{HashMap, HashSet};

use http::HeaderName;

use super::quick::Quick;

/// Bytes at the start of a name that settle most look-ups.
pub const LOOKED_AT: usize = PLACES.len();
const PLACES: [u8; 4] = [1, 2, 4, 8];

/// Field or cookie names, in lower case: exact ones, and all that begin in some way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    exact: HashSet<Box<str>, Quick>,
    /// For each ASCII byte that is the third of an exact one, a bit for each length: one look settles
    /// most names, also of those that begin with `x-`. Empty until there is one.
    lengths: Vec<u64>,
    /// Sorted, and none is the beginning of another.
    prefixes: Vec<Box<str>>,
    /// For each ASCII byte, a bit for each of the first places where a prefix has it. Empty until there
    /// is one.
    places: Vec<u8>,
}

impl Names {
    /// The set of these entries; `X-Foo-*` stands for every name that begins so.
    ///
    /// # Errors
    /// What was expected instead of the first entry that is none.
    pub fn new<'e>(entries: impl IntoIterator<Item = &'e str>) -> Result<Self, String> {
        let mut names = Self::default();
        for entry in entries {
            names.insert(entry)?;
        }
        Ok(names)
    }

    /// Adds one entry.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn insert(&mut self, entry: &str) -> Result<(), String> {
        let lower = entry.to_ascii_lowercase();
        let (name, is_prefix) = match lower.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (&*lower, false),
        };
        if name.contains('*') || HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err("a name such as `X-Foo`, or a beginning such as `X-Foo-*`".to_owned());
        }
        if is_prefix {
            self.insert_prefix(name);
        } else {
            self.insert_exact(name);
        }
        Ok(())
    }

    /// Whether a field is in the set.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.contains_lower(name.as_str())
    }

    /// Whether a name in lower case is in the set.
    pub fn contains_lower(&self, name: &str) -> bool {
        self.is_exact(name) || self.has_prefix_of(name)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    /// Whether a name that starts so, in lower case, and is so long can be in the set at all.
    /// `start` has the first [`LOOKED_AT`] bytes, or all.
    pub fn may_contain(&self, start: &[u8], length: usize) -> bool {
        self.may_begin(start) || self.may_be_exact(start, length)
    }

    fn may_begin(&self, start: &[u8]) -> bool {
        // What is not ASCII may be anywhere.
        let is_at = |(place, byte): (u8, &u8)| {
            let places = self.places.get(usize::from(*byte));
            places.is_none_or(|places| places & place != 0)
        };
        !self.prefixes.is_empty() && PLACES.into_iter().zip(start).all(is_at)
    }

    fn may_be_exact(&self, start: &[u8], length: usize) -> bool {
        let lengths = self.lengths.get(third(start));
        lengths.is_some_and(|lengths| lengths & length_bit(length) != 0)
    }

    fn is_exact(&self, name: &str) -> bool {
        self.may_be_exact(name.as_bytes(), name.len()) && self.exact.contains(name)
    }

    fn insert_exact(&mut self, name: &str) {
        self.lengths.resize(128, 0);
        if let Some(lengths) = self.lengths.get_mut(third(name.as_bytes())) {
            *lengths |= length_bit(name.len());
        }
        self.exact.insert(name.into());
    }

    fn insert_prefix(&mut self, prefix: &str) {
        if self.has_prefix_of(prefix) {
            return;
        }
        self.prefixes.retain(|longer| !longer.starts_with(prefix));
        let at = self.prefixes.partition_point(|p| **p < *prefix);
        self.prefixes.insert(at, prefix.into());
        // Behind a short prefix may stand anything.
        self.places.resize(128, 0);
        let bytes = prefix.bytes().map(Some).chain(std::iter::repeat(None));
        for (place, byte) in PLACES.into_iter().zip(bytes) {
            for (other, places) in (0_u8..).zip(&mut self.places) {
                if byte.is_none_or(|byte| byte == other) {
                    *places |= place;
                }
            }
        }
    }

    fn has_prefix_of(&self, name: &str) -> bool {
        if !self.may_begin(name.as_bytes()) {
            return false;
        }
        // INVARIANT: no prefix begins another, so only the greatest one that is not above `name`
        // can begin it: whatever sorts between a prefix and a name that it begins, it begins, too.
        let above = self.prefixes.partition_point(|p| **p <= *name);
        let candidate = above.checked_sub(1).and_then(|i| self.prefixes.get(i));
        candidate.is_some_and(|prefix| name.starts_with(&**prefix))
    }
}

fn third(name: &[u8]) -> usize {
    name.get(2).copied().map_or(0, usize::from)
}

/// All that are long share the last bit.
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// What is known of names that are met all the time, so that one look says what many would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<T>(HashMap<HeaderName, T, Quick>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T: Copy> Known<T> {
    /// What `look_up` says of every name that browsers and servers use.
    pub fn of(look_up: impl Fn(&HeaderName) -> T) -> Self {
        let names = USUAL.split_ascii_whitespace();
        let names = names.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        Self(names.map(|name| (name.clone(), look_up(&name))).collect())
    }

    /// What is known of a name.
    pub fn get(&self, name: &HeaderName) -> Option<T> {
        self.0.get(name).copied()
    }
}

/// Fields of most requests and responses.
const USUAL: &str = "
    accept accept-encoding accept-language accept-ranges access-control-allow-credentials
    access-control-allow-headers access-control-allow-methods access-control-allow-origin
    access-control-expose-headers access-control-max-age access-control-request-headers
    access-control-request-method age allow authorization cache-control connection
    content-disposition content-encoding content-language content-length content-location
    content-range content-security-policy content-type cookie cross-origin-embedder-policy
    cross-origin-opener-policy cross-origin-resource-policy date dnt etag expires forwarded host
    if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive last-modified
    link location origin permissions-policy pragma priority range referer referrer-policy
    retry-after sec-ch-ua sec-ch-ua-arch sec-ch-ua-mobile sec-ch-ua-model sec-ch-ua-platform
    sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-gpc sec-websocket-extensions
    sec-websocket-key sec-websocket-protocol sec-websocket-version server set-cookie
    strict-transport-security te traceparent tracestate trailer transfer-encoding upgrade
    upgrade-insecure-requests user-agent vary via www-authenticate x-aspnet-version
    x-content-type-options x-csrf-token x-forwarded-for x-forwarded-host x-forwarded-proto
    x-frame-options x-powered-by x-real-ip x-request-id x-requested-with x-runtime
    x-ua-compatible x-xss-protection x-xsrf-token";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(entries: &[&str]) -> Names {
        Names::new(entries.iter().copied()).unwrap()
    }

    #[test]
    fn names_match_in_any_case() {
        let names = names(&["X-Powered-By", "SERVER"]);
        for name in ["x-powered-by", "server"] {
            assert!(names.contains_lower(name));
            assert!(names.contains(&HeaderName::from_bytes(name.as_bytes()).unwrap()));
        }
        assert!(!names.contains_lower("x-powered-bye"));
        assert!(!names.contains_lower("x-powered"));
    }

    #[test]
    fn a_star_matches_every_name_that_begins_so() {
        let names = names(&["X-Amz-*", "X-Error*"]);
        for name in [
            "x-amz-",
            "x-amz-id-2",
            "x-error",
            "x-errors",
            "x-error-code",
        ] {
            assert!(names.contains_lower(name), "{name}");
        }
        for name in ["x-am", "x-amz", "x-amzn-id", "xx-amz-id", "y-error", ""] {
            assert!(!names.contains_lower(name), "{name}");
        }
    }

    #[test]
    fn a_star_matches_what_is_not_ascii_too() {
        assert!(names(&["S*"]).contains_lower("s\u{0659}erver"));
        assert!(!names(&["sa*", "sx"]).contains_lower("s\u{0659}erver"));
    }

    #[test]
    fn a_prefix_within_another_is_one_rule() {
        for entries in [["x-a*", "x-ab-*"], ["x-ab-*", "x-a*"]] {
            let names = names(&entries);
            for name in ["x-a", "x-ab-c", "x-b".trim_end_matches("b"), "x-az"] {
                assert_eq!(names.contains_lower(name), name.starts_with("x-a"));
            }
        }
    }

    #[test]
    fn what_is_known_is_what_a_look_up_says() {
        let known = Known::of(|name| name.as_str().len());
        for usual in USUAL.split_ascii_whitespace() {
            let name = HeaderName::from_bytes(usual.as_bytes()).unwrap();
            assert_eq!(known.get(&name), Some(usual.len()));
        }
        assert_eq!(known.get(&HeaderName::from_static("x-own")), None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "*", "X Foo", "X-*-Foo", "X-Foo:", "Ä"] {
            assert!(Names::new([bad]).is_err(), "{bad}");
        }
    }
}
