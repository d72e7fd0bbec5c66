//! Names that give a backend away: a set of exact names and prefixes, and the file that lists them.
//!
//! A look-up costs one hash of the name, and for some first letters a binary search: what a field
//! costs does not grow with the list.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use http::HeaderName;

/// Field or cookie names, in lower case: exact ones, and all that begin in some way.
#[derive(Debug, Clone, Default)]
pub struct Names {
    exact: HashSet<Box<str>, BuildHasherDefault<Fnv>>,
    /// Sorted, and none is the beginning of another.
    prefixes: Vec<Box<str>>,
    /// One bit for each ASCII byte that a prefix begins with.
    starts: u128,
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
            self.exact.insert(name.into());
        }
        Ok(())
    }

    /// Whether a field is in the set.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.contains_lower(name.as_str())
    }

    /// Whether a name in lower case is in the set.
    pub fn contains_lower(&self, name: &str) -> bool {
        self.exact.contains(name) || self.has_prefix_of(name)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    fn insert_prefix(&mut self, prefix: &str) {
        if self.has_prefix_of(prefix) {
            return;
        }
        self.prefixes.retain(|longer| !longer.starts_with(prefix));
        let at = self.prefixes.partition_point(|p| **p < *prefix);
        self.prefixes.insert(at, prefix.into());
        self.starts |= bit(prefix);
    }

    fn has_prefix_of(&self, name: &str) -> bool {
        if self.starts & bit(name) == 0 {
            return false;
        }
        // INVARIANT: no prefix begins another, so only the greatest one that is not above `name`
        // can begin it: whatever sorts between a prefix and a name that it begins, it begins, too.
        let above = self.prefixes.partition_point(|p| **p <= *name);
        let candidate = above.checked_sub(1).and_then(|i| self.prefixes.get(i));
        candidate.is_some_and(|prefix| name.starts_with(&**prefix))
    }
}

fn bit(name: &str) -> u128 {
    name.bytes()
        .next()
        .and_then(|b| 1_u128.checked_shl(b.into()))
        .unwrap_or(0)
}

/// FNV-1a: quick on short names. The sets hold what an operator lists, so that nobody else can
/// choose what collides in them.
#[derive(Debug, Clone, Copy)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a file of names says.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// Fields that leave no response in mode `strip`.
    pub strip: Names,
    /// Fields that leave it nevertheless, since clients need them.
    pub keep: Names,
    /// Fields that leave a response in mode `allowlist`, besides those to keep.
    pub allow: Names,
    /// Cookies that name a machine.
    pub cookies: Names,
}

/// A line of such a file that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// The line, from 1.
    pub line: u32,
    /// The word that is wrong.
    pub word: String,
    /// What was expected.
    pub expected: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}: `{}` is not {}",
            self.line, self.word, self.expected
        )
    }
}

impl Lists {
    /// Adds what a file says: sections in brackets, names parted by white space, `#` comments.
    ///
    /// # Errors
    /// The first word that is no name or section; what stands before it has been added.
    pub fn add(&mut self, text: &str) -> Result<(), BadLine> {
        let mut section = None;
        for (line, text) in (1_u32..).zip(text.lines()) {
            let said = text.split_once('#').map_or(text, |(said, _)| said);
            for word in said.split_ascii_whitespace() {
                let bad = |expected| BadLine {
                    line,
                    word: word.to_owned(),
                    expected,
                };
                if word.starts_with('[') {
                    section = Some(Section::parse(word).map_err(bad)?);
                    continue;
                }
                let Some(section) = section else {
                    return Err(bad("preceded by a section such as `[strip]`".to_owned()));
                };
                self.list(section).insert(word).map_err(bad)?;
            }
        }
        Ok(())
    }

    const fn list(&mut self, section: Section) -> &mut Names {
        match section {
            Section::Strip => &mut self.strip,
            Section::Keep => &mut self.keep,
            Section::Allow => &mut self.allow,
            Section::Cookies => &mut self.cookies,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Section {
    Strip,
    Keep,
    Allow,
    Cookies,
}

impl Section {
    fn parse(word: &str) -> Result<Self, String> {
        match word {
            "[strip]" => Ok(Self::Strip),
            "[keep]" => Ok(Self::Keep),
            "[allow]" => Ok(Self::Allow),
            "[cookies]" => Ok(Self::Cookies),
            _ => Err("one of `[strip]`, `[keep]`, `[allow]`, `[cookies]`".to_owned()),
        }
    }
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// A set answers as a plain walk over its entries does.
    pub fn banner(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let _ = Lists::default().add(text);
        let mut words = text.split_ascii_whitespace().map(str::to_ascii_lowercase);
        let Some(asked) = words.next() else { return };
        let entries: Vec<String> = words.filter(|w| Names::new([&**w]).is_ok()).collect();
        let names = Names::new(entries.iter().map(|e| &**e)).unwrap_or_default();
        let naive = entries.iter().any(|entry| match entry.strip_suffix('*') {
            Some(prefix) => asked.starts_with(prefix),
            None => asked == *entry,
        });
        assert_eq!(
            names.contains_lower(&asked),
            naive,
            "{asked} in {entries:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn a_prefix_within_another_is_one_rule() {
        for entries in [["x-a*", "x-ab-*"], ["x-ab-*", "x-a*"]] {
            let names = names(&entries);
            for name in ["x-a", "x-ab-c", "x-b".trim_end_matches("b"), "x-az"] {
                assert_eq!(names.contains_lower(name), name.starts_with("x-a"));
            }
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "*", "X Foo", "X-*-Foo", "X-Foo:", "Ä"] {
            assert!(Names::new([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_says_where_it_is_wrong() {
        let bad = |text: &str| Lists::default().add(text).unwrap_err().to_string();
        assert_eq!(
            bad("# names\n[strip]\nX-Foo X:Bar"),
            "line 3: `X:Bar` is not a name such as `X-Foo`, or a beginning such as `X-Foo-*`"
        );
        assert_eq!(
            bad("X-Foo"),
            "line 1: `X-Foo` is not preceded by a section such as `[strip]`"
        );
        assert_eq!(
            bad("[strips]"),
            "line 1: `[strips]` is not one of `[strip]`, `[keep]`, `[allow]`, `[cookies]`"
        );
    }

    #[test]
    fn a_file_adds_to_what_is_there() {
        let mut lists = Lists::default();
        lists.add("[strip]\nX-A # X-B\n[cookies] SRV*").unwrap();
        lists.add("[strip] X-C\n[keep] X-A").unwrap();
        assert!(lists.strip.contains_lower("x-a") && lists.strip.contains_lower("x-c"));
        assert!(!lists.strip.contains_lower("x-b"));
        assert!(lists.keep.contains_lower("x-a"));
        assert!(lists.cookies.contains_lower("srv1"));
        assert!(lists.allow.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn equal_to_a_plain_walk(text in "[ab-]{1,4}( [ab-]{1,3}\\*?){0,6}") {
            fuzzing::banner(text.as_bytes());
        }
    }
}
