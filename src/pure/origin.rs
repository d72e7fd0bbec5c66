//! Where a page comes from: scheme, host and port (RFC 6454 §4).

use std::fmt;

use super::target::{Authority, Host};

/// An origin of the web, in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    secure: bool,
    host: Host,
    port: u16,
}

/// Not one origin of the web: `null`, another scheme, a list, a pattern, or more than an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadOrigin;

impl Origin {
    /// Reads `https://host`, with a port where it is not the usual one; in any case of letters.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &[u8]) -> Result<Self, BadOrigin> {
        let at = memchr::memmem::find(text, b"://").ok_or(BadOrigin)?;
        let (scheme, rest) = text.split_at_checked(at).ok_or(BadOrigin)?;
        let rest = rest.get(3..).ok_or(BadOrigin)?;
        let (secure, usual) = if scheme.eq_ignore_ascii_case(b"https") {
            (true, 443)
        } else if scheme.eq_ignore_ascii_case(b"http") {
            (false, 80)
        } else {
            return Err(BadOrigin);
        };
        // To browsers a host with the dot of the root is another origin than the one without.
        if rest.ends_with(b".") || memchr::memmem::find(rest, b".:").is_some() {
            return Err(BadOrigin);
        }
        let Authority { host, port } = Authority::parse(rest).map_err(|_| BadOrigin)?;
        let port = port.unwrap_or(usual);
        Ok(Self { secure, host, port })
    }
}

/// As browsers write it (RFC 6454 §6.2).
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.secure {
            ("https", 443)
        } else {
            ("http", 80)
        };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the reader, for fuzz targets and tests.

    use super::*;

    /// An origin is the one that it is written as, and nothing that is longer is the same.
    pub fn origin(data: &[u8]) {
        let Ok(origin) = Origin::parse(data) else {
            return;
        };
        let text = origin.to_string();
        assert_eq!(Origin::parse(text.as_bytes()), Ok(origin.clone()));
        assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b','));
        assert!(!text.bytes().any(|b| b.is_ascii_uppercase()));
        for more in ["/", ".", ".evil.test", "@evil.test", ",", " ", "1", "*"] {
            let longer = Origin::parse([data, more.as_bytes()].concat().as_slice());
            assert_ne!(longer.as_ref(), Ok(&origin), "{more}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Origin, BadOrigin> {
        Origin::parse(text.as_bytes())
    }

    #[test]
    fn an_origin_has_one_spelling() {
        for (text, expected) in [
            ("https://spa.example.com", "https://spa.example.com"),
            ("HTTPS://SPA.Example.COM:443", "https://spa.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:443", "http://localhost:443"),
            ("https://[0:0::1]:8443", "https://[::1]:8443"),
            (
                "https://xn--bcher-kva.example",
                "https://xn--bcher-kva.example",
            ),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_differs_in_anything_is_another_origin() {
        let ours = parse("https://spa.example.com");
        for other in [
            "http://spa.example.com",
            "https://spa.example.com:8443",
            "https://spa.example.com:80",
            "https://example.com",
            "https://a.spa.example.com",
            "https://spa.example.com.evil.test",
            "https://evilspa.example.com",
        ] {
            assert_ne!(parse(other), ours, "{other}");
            assert!(parse(other).is_ok(), "{other}");
        }
    }

    #[test]
    fn what_is_no_single_origin_is_none() {
        for text in [
            "",
            "null",
            "*",
            "https://*",
            "https://*.example.com",
            "https://",
            "://spa.example.com",
            "//spa.example.com",
            "spa.example.com",
            "https:spa.example.com",
            "https:/spa.example.com",
            "https://spa.example.com/",
            "https://spa.example.com/a",
            "https://spa.example.com?",
            "https://spa.example.com#",
            "https://spa.example.com.",
            "https://spa.example.com.:443",
            "https://spa.example.com:",
            "https://spa.example.com:0443",
            "https://spa.example.com:0",
            "https://spa.example.com:65536",
            "https://u@spa.example.com",
            "https://spa.example.com@evil.test",
            "https://spa.example.com https://evil.test",
            "https://spa.example.com, https://evil.test",
            "https://spa.example.com\0",
            "https://sp\u{e4}.example.com",
            " https://spa.example.com",
            "ftp://spa.example.com",
            "file://",
            "chrome-extension://abcdef",
            "https://https://spa.example.com",
            "https://0x7f.1",
        ] {
            assert_eq!(parse(text), Err(BadOrigin), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_as_an_origin(data in prop::collection::vec(any::<u8>(), 0..32)) {
            fuzzing::origin(&data);
        }

        #[test]
        fn anything_like_an_origin(text in "(https?|HTTP)://[a-zA-Z.\\-0-9\\[\\]:]{1,12}(:[0-9]{1,5})?") {
            fuzzing::origin(text.as_bytes());
        }
    }
}
