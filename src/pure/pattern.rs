//! Which paths a rule is about: one, or one and all below it by whole segments.
//!
//! Both sides are canonical paths, so that what matches here is byte for byte what a backend gets.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use crate::pure::hex;
use crate::pure::target::{Oddities, Target};

/// Which paths a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// One path.
    Exact(String),
    /// A path and everything below it, by whole segments: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
}

/// How much a pattern says; the most specific match decides, an exact one before any prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    exact: bool,
    length: usize,
}

impl Pattern {
    /// Reads a path as a policy states it, in the one spelling that requests have, so that it can
    /// match; what an application lifts can be named.
    ///
    /// # Errors
    /// What was expected.
    pub fn path(text: &str, lifted: Oddities) -> Result<String, String> {
        let target = Target::parse(text.as_bytes())
            .map_err(|_| "expected a path that begins with `/`, of visible ASCII".to_owned())?;
        if target.query.is_some() {
            return Err("expected a path without `?`: rules see no query".to_owned());
        }
        match target.oddities.refused_by(lifted) {
            None => Ok(target.path),
            Some(reason) => Err(format!("no request has such a path (`{reason}`)")),
        }
    }

    /// How much it says about a canonical path, when it matches; `ignores_case` where backends do.
    pub fn matches(&self, path: &str, ignores_case: bool) -> Option<Specificity> {
        let (own, path) = match (self, ignores_case) {
            (Self::Exact(own) | Self::Prefix(own), false) => (Cow::from(own), Cow::from(path)),
            (Self::Exact(own) | Self::Prefix(own), true) => (fold(own).into(), fold(path).into()),
        };
        match self {
            Self::Exact(exact) => (path == own).then_some(Specificity {
                exact: true,
                length: exact.len(),
            }),
            Self::Prefix(prefix) => {
                let stem = own.strip_suffix('/').unwrap_or(&own);
                let (head, rest) = path.split_at_checked(stem.len())?;
                let whole = rest.is_empty() || rest.starts_with('/');
                // `/a/` is about what is below `/a`, not about `/a` itself.
                let below = stem.len() == own.len() || !rest.is_empty() || stem.is_empty();
                (head == stem && whole && below).then_some(Specificity {
                    exact: false,
                    length: prefix.len(),
                })
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "= {path}"),
            Self::Prefix(path) => f.write_str(path),
        }
    }
}

/// A canonical path without the case of its letters, by the alphabets of all who ignore it: beside
/// `A`, some take the dotless i for `i`, the long s for `s` and the sign of Kelvin for `k`.
pub fn fold(path: &str) -> String {
    if !path.contains('%') {
        return path.to_ascii_lowercase();
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        // What is ASCII and still encoded means something else than its character.
        let byte = match tail {
            [high @ (b'8' | b'9' | b'A'..=b'F'), low, ..] if *first == b'%' => hex::value_of(*high)
                .zip(hex::value_of(*low))
                .map(|(high, low)| (high << 4) | low),
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => tail.get(2..).unwrap_or_default(),
            None => tail,
        };
    }
    let simple =
        |c: char, mapped: &mut dyn Iterator<Item = char>| match (mapped.next(), mapped.next()) {
            (Some(one), None) => one,
            _ => c,
        };
    let folded = |c: char| match c {
        // Its small letter is `i` with a dot above, in two characters.
        '\u{130}' => 'i',
        c => {
            let upper = simple(c, &mut c.to_uppercase());
            simple(upper, &mut upper.to_lowercase())
        }
    };
    let mut text = String::with_capacity(path.len());
    for chunk in decoded.utf8_chunks() {
        text.extend(chunk.valid().chars().map(folded));
        for byte in chunk.invalid() {
            // Writing to a string can't fail.
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen<'a>(patterns: &'a [Pattern], path: &str) -> Option<&'a Pattern> {
        patterns
            .iter()
            .filter_map(|p| Some((p.matches(path, false)?, p)))
            .max_by_key(|(specificity, _)| *specificity)
            .map(|(_, p)| p)
    }

    #[test]
    fn p11_a_prefix_matches_whole_segments_only() {
        let public = [Pattern::Prefix("/public".to_owned())];
        for path in ["/public", "/public/", "/public/a"] {
            assert!(chosen(&public, path).is_some(), "{path}");
        }
        for path in ["/publicity", "/publi", "/", "/Public", "/a/public"] {
            assert!(chosen(&public, path).is_none(), "{path}");
        }
        let below = [Pattern::Prefix("/public/".to_owned())];
        assert!(chosen(&below, "/public").is_none());
        assert!(chosen(&below, "/public/a").is_some());
        assert!(chosen(&[Pattern::Prefix("/".to_owned())], "/").is_some());
    }

    #[test]
    fn the_most_specific_pattern_decides() {
        let (short, long) = (
            Pattern::Prefix("/a".to_owned()),
            Pattern::Prefix("/a/b".to_owned()),
        );
        let exact = Pattern::Exact("/a/b".to_owned());
        for patterns in [
            [short.clone(), long.clone(), exact.clone()],
            [exact.clone(), long.clone(), short.clone()],
        ] {
            assert_eq!(chosen(&patterns, "/a/b"), Some(&exact));
            assert_eq!(chosen(&patterns, "/a/b/c"), Some(&long));
            assert_eq!(chosen(&patterns, "/a/c"), Some(&short));
        }
    }

    #[test]
    fn p8_case_is_ignored_where_the_backend_ignores_it() {
        let admin = Pattern::Prefix("/admin".to_owned());
        assert!(admin.matches("/ADMIN/x", true).is_some());
        assert!(admin.matches("/ADMIN/x", false).is_none());
        // The long s, the dotless and the dotted i, the sign of Kelvin, and letters of others.
        for (pattern, path) in [
            ("/press", "/pre%C5%BF%C5%BF/x"),
            ("/admin", "/adm%C4%B1n/x"),
            ("/admin", "/adm%C4%B0n/x"),
            ("/backup", "/bac%E2%84%AAup/x"),
            ("/caf%C3%A9", "/CAF%C3%89/x"),
            ("/%CF%83%CF%82", "/%CE%A3%CE%A3/x"),
        ] {
            for pattern in [
                Pattern::Prefix(pattern.to_owned()),
                Pattern::Exact(format!("{pattern}/X")),
            ] {
                assert!(pattern.matches(path, true).is_some(), "{pattern:?} {path}");
                assert!(pattern.matches(path, false).is_none(), "{pattern:?} {path}");
            }
        }
        // An encoded slash is none, and what is no text stays apart from everything else.
        assert!(admin.matches("/admin%2Fx", true).is_none());
        assert!(admin.matches("/%C4%B1/%FF", true).is_none());
        assert!(admin.matches("/ADM%C4%B1N/%FF", true).is_some());
        let bytes = Pattern::Exact("/%FF".to_owned());
        assert!(bytes.matches("/%FF", true).is_some());
        assert!(bytes.matches("/%FE", true).is_none());
    }
}
