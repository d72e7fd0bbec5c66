//! Where to go after sign-in: a path of this host, or `/`.
//!
//! "Begins with `/` and not with `//`" is not "stays here": browsers drop tabs and line breaks from a
//! URL and read `\` as `/` (SECURITY.md R1). So what is kept is not the text, but a target that was
//! read from it and written anew, and the rest of the world's URLs can't be written that way.

use std::fmt;

use super::target::{Oddities, Target};

/// The longest target that is kept.
pub const MAX_BYTES: usize = 2048;
/// The gateway's own pages: going back to them would go round in circles.
pub const OWN_PAGES: &str = "/.portcullis/";
/// What no link of an application has; parameters and encoded slashes some have.
const REFUSED: [Oddities; 6] = [
    Oddities::BACKSLASH,
    Oddities::CONTROL,
    Oddities::DOT_SEGMENT,
    Oddities::INVALID_ENCODING,
    Oddities::NOT_UTF8,
    Oddities::EMPTY_SEGMENT,
];

/// A path on the host that it was asked on, with its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnTo(String);

impl ReturnTo {
    /// Where `text` leads, if that is a path of this host; else `/`.
    pub fn parse(text: &str) -> Self {
        Self::checked(text).unwrap_or_default()
    }

    /// The way back to what was asked for.
    pub fn to(target: &Target) -> Self {
        Self::parse(&target.to_string())
    }

    fn checked(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        let here = bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\'));
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
        if !here || text.len() > MAX_BYTES || !text.bytes().all(plain) {
            return None;
        }
        let target = Target::parse(text.as_bytes()).ok()?;
        let odd = REFUSED.iter().any(|one| target.oddities.contains(*one));
        // In any case of letters, as those pages are served.
        let start = target.path.as_bytes().get(..OWN_PAGES.len());
        let ours = start.is_some_and(|start| start.eq_ignore_ascii_case(OWN_PAGES.as_bytes()));
        if odd || ours {
            return None;
        }
        let written = target.to_string();
        (written.starts_with('/') && !written.starts_with("//") && written.len() <= MAX_BYTES)
            .then_some(Self(written))
    }

    /// The target, for `Location`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ReturnTo {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl fmt::Display for ReturnTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// Wherever it leads, it is here by the reading of browsers (WHATWG URL, "basic URL parser"),
    /// and reading it again leads to the same place.
    pub fn return_to(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let to = ReturnTo::parse(text);
        let read: String = to
            .as_str()
            .trim_matches(|c: char| c <= ' ')
            .chars()
            .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
            .map(|c| if c == '\\' { '/' } else { c })
            .collect();
        assert!(
            read.starts_with('/') && !read.starts_with("//"),
            "{text:?} leads to {read:?}"
        );
        assert_eq!(ReturnTo::parse(to.as_str()), to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn leads(text: &str, to: &str) {
        assert_eq!(ReturnTo::parse(text).as_str(), to, "{text:?}");
    }

    #[test]
    fn a_path_of_this_host_is_kept_in_its_one_spelling() {
        leads("/", "/");
        leads("/wiki/page?x=1&y=//2", "/wiki/page?x=1&y=//2");
        leads("/a%2Fb", "/a%2Fb");
        leads("/%41", "/A");
        leads("/?next=https://evil.test", "/?next=https://evil.test");
        leads("/a;b=c", "/a;b=c");
    }

    #[test]
    fn everything_that_leads_elsewhere_leads_to_the_front_page_r1() {
        for text in [
            r"/\evil.test",
            "/\t/evil.test",
            "/\n/evil",
            "/%09/evil.test",
            "/%0a/evil",
            "/%5cevil.test",
            "//evil",
            "///evil",
            "////evil",
            r"/./\evil",
            "/.//evil.test",
            "/..//evil.test",
            "/%2e/%2e/",
            "https:evil.test",
            r"https:/\evil",
            " //evil.test",
            "\u{a0}/evil.test",
            "/evil test",
            "/\u{2f}/evil.test",
            "/ü",
            "/%zz",
            "/%ff",
            "/a#b",
            "/a\0b",
            "",
            "?x",
            "evil.test",
            "javascript:alert(1)",
            "data:text/html,x",
        ] {
            leads(text, "/");
        }
    }

    #[test]
    fn urls_of_hosts_with_like_names_lead_to_the_front_page_r2() {
        for text in [
            "https://evilapp.test",
            "https://app.test.evil.test",
            "https://app.test@evil.test",
            "https://app.test:443@evil.test",
            "https://app.test/",
            "http://app.test/",
            "//app.test/",
            "@evil.test",
            "/@evil.test\\",
        ] {
            leads(text, "/");
        }
    }

    #[test]
    fn nothing_is_expanded_in_it_r4() {
        leads("/?t={id_token}", "/?t={id_token}");
    }

    #[test]
    fn our_own_pages_are_no_place_to_return_to_r3() {
        leads("/.portcullis/sign-in", "/");
        leads("/.portcullis/sign-out?x", "/");
        leads("/%2eportcullis/sign-in", "/");
        leads("/.Portcullis/sign-out", "/");
        leads("/%2EPORTCULLIS/sign-in", "/");
        leads("/.portcullis", "/.portcullis");
    }

    #[test]
    fn a_long_target_is_dropped() {
        leads(&format!("/{}", "a".repeat(MAX_BYTES)), "/");
    }

    proptest! {
        #[test]
        fn every_text_leads_here(text in r"[/\\.%a-f0-9:@?#\t\n ]{0,12}") {
            fuzzing::return_to(text.as_bytes());
        }

        #[test]
        fn every_string_leads_here(text: String) {
            fuzzing::return_to(text.as_bytes());
        }
    }
}
