//! The file that lists the names that give a backend away.

use std::fmt;

use http::HeaderName;

use super::names::{Known, Names};
use super::spelling;

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
    known: Known<Listed>,
}

/// What the lists say of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// It leaves no response in mode `strip`.
    pub stripped: bool,
    /// It leaves a response in mode `allowlist`.
    pub allowed: bool,
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
    /// The first word that is no name or section; the lists are of no use then.
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
        self.known = Known::of(|name| self.look_up(name));
        Ok(())
    }

    /// What the lists say of a field.
    pub fn of(&self, name: &HeaderName) -> Listed {
        self.known.get(name).unwrap_or_else(|| self.look_up(name))
    }

    fn look_up(&self, name: &HeaderName) -> Listed {
        let kept = self.keep.contains(name);
        // `X_Powered_By` says what `X-Powered-By` does.
        let folded = || spelling::fold(name.as_str().as_bytes());
        Listed {
            stripped: !kept
                && (self.strip.contains(name)
                    || !spelling::is_plain(name.as_str().as_bytes())
                        && self.strip.contains_lower(&folded())),
            allowed: kept || self.allow.contains(name),
        }
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
