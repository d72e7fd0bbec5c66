//! Authority and path: the one normalisation there is (RFC 3986 §6.2.2, RFC 9112 §3.2).
//!
//! 1. What no target may hold is refused outright: bytes outside visible ASCII, a raw `#`.
//! 2. The path is decoded once, and written again from the decoded bytes in one spelling: whatever
//!    may stand literally does, everything else is `%XX`.
//! 3. Whatever another reader could read differently is noted as an [`Oddities`] flag; a route may
//!    lift each by name, and what is lifted stays data inside its segment.
//!
//! Rules see the result, and the backend is sent the result, byte for byte.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::pure::hex;

/// A host in its one spelling: lower case, no trailing dot, addresses in their canonical form and
/// IPv6 in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Box<str>);

/// Host and port of a request (RFC 3986 §3.2 without user information).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, when one is stated.
    pub port: Option<u16>,
}

/// Not an authority: empty, user information, a byte that no host has, or a port that is no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAuthority;

/// Not a path with an optional query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadTarget;

impl Host {
    /// Reads a host: a name of letters, digits, hyphens and underscores (internationalised names in
    /// their `xn--` form), an IPv4 address, or an IPv6 address in brackets.
    ///
    /// # Errors
    /// Anything else; also a name that ends in a number but is no IPv4 address, because resolvers
    /// read such names as addresses.
    pub fn parse(text: &[u8]) -> Result<Self, BadAuthority> {
        let text = std::str::from_utf8(text).map_err(|_| BadAuthority)?;
        if let Some(inner) = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
        {
            let address: Ipv6Addr = inner.parse().map_err(|_| BadAuthority)?;
            return Ok(Self(format!("[{address}]").into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > 253 {
            return Err(BadAuthority);
        }
        if name.split('.').any(|label| !is_label(label.as_bytes())) {
            return Err(BadAuthority);
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit())
            || last.starts_with("0x")
            || last.starts_with("0X")
        {
            let address: Ipv4Addr = name.parse().map_err(|_| BadAuthority)?;
            return Ok(Self(address.to_string().into()));
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// Its one spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_label(label: &[u8]) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    label.len() <= 63
        && edge(label.first())
        && edge(label.last())
        && label
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Authority {
    /// Reads `host` or `host:port`.
    ///
    /// # Errors
    /// Anything else, a port without digits, with a leading zero, or beyond 65535 included.
    pub fn parse(text: &[u8]) -> Result<Self, BadAuthority> {
        let colon = memchr::memrchr(b':', text).filter(|_| text.last() != Some(&b']'));
        let Some(colon) = colon else {
            return Ok(Self {
                host: Host::parse(text)?,
                port: None,
            });
        };
        let (host, port) = text.split_at_checked(colon).ok_or(BadAuthority)?;
        let port = port.get(1..).unwrap_or_default();
        let canonical = port.first().is_some_and(|b| matches!(b, b'1'..=b'9')) && port.len() <= 5;
        if !canonical || !port.iter().all(u8::is_ascii_digit) {
            return Err(BadAuthority);
        }
        let port = std::str::from_utf8(port)
            .ok()
            .and_then(|port| port.parse().ok())
            .ok_or(BadAuthority)?;
        Ok(Self {
            host: Host::parse(host)?,
            port: Some(port),
        })
    }
}

impl Authority {
    /// The same as `to_string`, and several times as fast.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.host.0.len().saturating_add(6));
        text.push_str(&self.host.0);
        if let Some(port) = self.port {
            text.push(':');
            text.push_str(itoa::Buffer::new().format(port));
        }
        text
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "{}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

/// What a target holds that two readers may read differently: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oddities(u16);

/// One oddity: its flag, the reason code of its refusal, and the key that lifts it.
struct Oddity {
    flag: Oddities,
    reason: &'static str,
    key: &'static str,
}

const ODDITIES: [Oddity; 11] = [
    Oddity {
        flag: Oddities::ENCODED_SLASH,
        reason: "route.encoded_slash",
        key: "allow_encoded_slash",
    },
    Oddity {
        flag: Oddities::BACKSLASH,
        reason: "route.backslash",
        key: "allow_backslash",
    },
    Oddity {
        flag: Oddities::CONTROL,
        reason: "route.control_byte",
        key: "allow_control_bytes",
    },
    Oddity {
        flag: Oddities::ENCODED_HASH,
        reason: "route.encoded_hash",
        key: "allow_encoded_hash",
    },
    Oddity {
        flag: Oddities::DOT_SEGMENT,
        reason: "route.dot_segment",
        key: "resolve_dot_segments",
    },
    Oddity {
        flag: Oddities::INVALID_ENCODING,
        reason: "route.invalid_encoding",
        key: "allow_invalid_encoding",
    },
    Oddity {
        flag: Oddities::DOUBLE_ENCODING,
        reason: "route.double_encoding",
        key: "allow_double_encoding",
    },
    Oddity {
        flag: Oddities::NOT_UTF8,
        reason: "route.not_utf8",
        key: "allow_non_utf8",
    },
    Oddity {
        flag: Oddities::PARAMETER,
        reason: "route.parameter",
        key: "allow_parameters",
    },
    Oddity {
        flag: Oddities::EMPTY_SEGMENT,
        reason: "route.empty_segment",
        key: "merge_slashes",
    },
    // No key lifts it: it is a way out of the segment to whoever decodes what the others let through.
    Oddity {
        flag: Oddities::HIDDEN_DOT_SEGMENT,
        reason: "route.hidden_dot_segment",
        key: "",
    },
];

impl Oddities {
    /// Nothing odd.
    pub const NONE: Self = Self(0);
    /// `%2F`: one segment to some, two to others.
    pub const ENCODED_SLASH: Self = Self(1);
    /// `\` or `%5C`: a slash to Windows.
    pub const BACKSLASH: Self = Self(1 << 1);
    /// `%00` to `%1F` and `%7F`: the end of the path to some.
    pub const CONTROL: Self = Self(1 << 2);
    /// `%23`: the end of the path to those who decode too early.
    pub const ENCODED_HASH: Self = Self(1 << 3);
    /// `.` or `..`, in any spelling.
    pub const DOT_SEGMENT: Self = Self(1 << 4);
    /// `%` that is not before two hexadecimal digits.
    pub const INVALID_ENCODING: Self = Self(1 << 5);
    /// An encoding that decodes to an encoding.
    pub const DOUBLE_ENCODING: Self = Self(1 << 6);
    /// Bytes that are no UTF-8, overlong forms included.
    pub const NOT_UTF8: Self = Self(1 << 7);
    /// `;`: the end of the segment to some.
    pub const PARAMETER: Self = Self(1 << 8);
    /// `//`: one slash to some.
    pub const EMPTY_SEGMENT: Self = Self(1 << 9);

    /// `..` beside an encoded separator: `..%2F`, `..%5C`, `..%00`.
    pub const HIDDEN_DOT_SEGMENT: Self = Self(1 << 10);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The reason of the first oddity that `lifted` does not name.
    pub fn refused_by(self, lifted: Self) -> Option<&'static str> {
        if self.0 & !lifted.0 == 0 {
            return None;
        }
        let left = Self(self.0 & !lifted.0);
        ODDITIES
            .iter()
            .find(|oddity| left.contains(oddity.flag))
            .map(|oddity| oddity.reason)
    }

    /// The keys that lift each, in order.
    pub fn keys() -> impl Iterator<Item = (&'static str, Self)> {
        ODDITIES
            .iter()
            .filter(|oddity| !oddity.key.is_empty())
            .map(|oddity| (oddity.key, oddity.flag))
    }
}

/// A path and query in their one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Begins with `/`; no dot segments, no empty segments but a last one.
    pub path: String,
    /// Everything after the first `?`, byte for byte.
    pub query: Option<String>,
    /// What was odd about it.
    pub oddities: Oddities,
}

impl Target {
    /// The same as `to_string`, and several times as fast.
    pub fn text(&self) -> String {
        let query = self.query.as_deref().map(|query| ["?", query]);
        let [mark, query] = query.unwrap_or_default();
        [&self.path, mark, query].concat()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.query {
            None => f.write_str(&self.path),
            Some(query) => write!(f, "{}?{query}", self.path),
        }
    }
}

/// How a decoded byte stands in a canonical path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// As itself, also when it was sent encoded.
    Literal,
    /// As itself, and the end of a segment.
    Slash,
    /// Nothing may be assumed of it.
    Other,
}

const CLASSES: [Class; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the index counts the array"
)]
const fn classes() -> [Class; 256] {
    let mut table = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'/' => Class::Slash,
            // Unreserved, sub-delims but `;`, `:` and `@` (RFC 3986 §3.3).
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => Class::Literal,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b',' | b'=' | b':' | b'@' => Class::Literal,
            _ => Class::Other,
        };
        byte += 1;
    }
    table
}

fn class(byte: u8) -> Class {
    CLASSES
        .get(usize::from(byte))
        .copied()
        .unwrap_or(Class::Other)
}

impl Target {
    /// Reads a request target in origin form.
    ///
    /// # Errors
    /// A target that does not begin with `/`, or holds a byte outside visible ASCII or a raw `#`.
    pub fn parse(text: &[u8]) -> Result<Self, BadTarget> {
        if text.first() != Some(&b'/')
            || text.iter().any(|b| !matches!(b, b'!'..=b'~') || *b == b'#')
        {
            return Err(BadTarget);
        }
        let (path, query) = match memchr::memchr(b'?', text) {
            None => (text, None),
            Some(at) => {
                let (path, query) = text.split_at_checked(at).ok_or(BadTarget)?;
                (path, Some(utf8(query.get(1..).unwrap_or_default())?))
            }
        };
        if is_plain(path) {
            return Ok(Self {
                path: utf8(path)?,
                query,
                oddities: Oddities::NONE,
            });
        }
        let (path, oddities) = canonical(path)?;
        Ok(Self {
            path,
            query,
            oddities,
        })
    }
}

fn utf8(text: &[u8]) -> Result<String, BadTarget> {
    std::str::from_utf8(text)
        .map(str::to_owned)
        .map_err(|_| BadTarget)
}

/// Whether a path is canonical as it stands: literal bytes only, and no segment that is empty or
/// begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match class(byte) {
            Class::Other => return false,
            Class::Slash if after_slash => return false,
            Class::Literal if after_slash && byte == b'.' => return false,
            Class::Slash => after_slash = true,
            Class::Literal => after_slash = false,
        }
    }
    true
}

fn canonical(path: &[u8]) -> Result<(String, Oddities), BadTarget> {
    let mut oddities = Oddities::NONE;
    let mut segments: Vec<String> = Vec::new();
    let mut raw = path
        .get(1..)
        .unwrap_or_default()
        .split(|&b| b == b'/')
        .peekable();
    while let Some(segment) = raw.next() {
        let last = raw.peek().is_none();
        let (text, odd) = self::segment(segment)?;
        oddities = oddities.with(odd);
        // A segment with parameters is a dot segment to whoever cuts them off (`..;x`).
        let stem = text.split(';').next().unwrap_or_default();
        match (stem, last) {
            ("." | "..", _) => {
                oddities = oddities.with(Oddities::DOT_SEGMENT);
                if stem == ".." {
                    segments.pop();
                }
                if last {
                    segments.push(String::new());
                }
            }
            ("", false) if text.is_empty() => oddities = oddities.with(Oddities::EMPTY_SEGMENT),
            _ => segments.push(text),
        }
    }
    let mut path = String::with_capacity(path.len());
    for segment in &segments {
        path.push('/');
        path.push_str(segment);
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok((path, oddities))
}

/// One segment in its one spelling, and what was odd about it.
fn segment(raw: &[u8]) -> Result<(String, Oddities), BadTarget> {
    let mut oddities = Oddities::NONE;
    let mut text = String::with_capacity(raw.len());
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        let (byte, encoded, after) = match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (hex::value_of(*high), hex::value_of(*low)) {
                (Some(high), Some(low)) => ((high << 4) | low, true, after),
                _ => (b'%', false, tail),
            },
            _ => (*first, false, tail),
        };
        rest = after;
        decoded.push(byte);
        match byte {
            b'%' if !encoded => oddities = oddities.with(Oddities::INVALID_ENCODING),
            b'/' => oddities = oddities.with(Oddities::ENCODED_SLASH),
            b'\\' => oddities = oddities.with(Oddities::BACKSLASH),
            b'#' => oddities = oddities.with(Oddities::ENCODED_HASH),
            b';' => oddities = oddities.with(Oddities::PARAMETER),
            0..=0x1f | 0x7f => oddities = oddities.with(Oddities::CONTROL),
            _ => {}
        }
        if byte == b';' || class(byte) == Class::Literal {
            text.push(char::from(byte));
        } else {
            push_encoded(&mut text, byte);
        }
    }
    let escape = |window: &[u8]| matches!(window, [b'%', high, low] if hex::value_of(*high).is_some() && hex::value_of(*low).is_some());
    if decoded.windows(3).any(escape) {
        oddities = oddities.with(Oddities::DOUBLE_ENCODING);
    }
    let separators = |byte: &u8| matches!(byte, b'/' | b'\\' | 0..=0x1f | 0x7f);
    let mut parts = decoded
        .split(separators)
        .map(|part| part.split(|byte| *byte == b';').next().unwrap_or_default());
    if decoded.iter().any(separators) && parts.any(|part| matches!(part, b"." | b"..")) {
        oddities = oddities.with(Oddities::HIDDEN_DOT_SEGMENT);
    }
    if std::str::from_utf8(&decoded).is_err() {
        oddities = oddities.with(Oddities::NOT_UTF8);
    }
    Ok((text, oddities))
}

fn push_encoded(text: &mut String, byte: u8) {
    use fmt::Write as _;
    // Writing to a String does not fail.
    let _ = write!(text, "%{byte:02X}");
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the readers, for fuzz targets and tests.

    use super::*;

    /// What is written is read as the same; nothing that a backend could resolve is left.
    pub fn target(data: &[u8]) {
        let Ok(target) = Target::parse(data) else {
            return;
        };
        let again = Target::parse(target.to_string().as_bytes()).expect("what was written is read");
        assert_eq!((&again.path, &again.query), (&target.path, &target.query));
        assert!(
            target.oddities.contains(again.oddities),
            "{target:?} {again:?}"
        );
        assert!(!target.path.contains("//"), "{target:?}");
        assert!(target.path.starts_with('/'));
        for segment in target.path.split('/') {
            assert!(
                !matches!(segment.split(';').next(), Some("." | "..")),
                "{target:?}"
            );
        }
        if target.oddities == Oddities::NONE {
            let decoded = decode(&target.path);
            assert!(
                !decoded
                    .iter()
                    .any(|b| *b < 0x20 || matches!(b, b'\\' | b'#' | b';' | 0x7f))
            );
            assert_eq!(
                decoded.iter().filter(|b| **b == b'/').count(),
                target.path.matches('/').count()
            );
        }
    }

    fn decode(path: &str) -> Vec<u8> {
        let mut bytes = path.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            decoded.push(match byte {
                b'%' => {
                    let high = hex::value_of(bytes.next().expect("a digit")).expect("hexadecimal");
                    let low = hex::value_of(bytes.next().expect("a digit")).expect("hexadecimal");
                    high * 16 + low
                }
                byte => byte,
            });
        }
        decoded
    }

    /// What is written is read as the same, and holds no byte with a meaning elsewhere.
    pub fn authority(data: &[u8]) {
        let Ok(authority) = Authority::parse(data) else {
            return;
        };
        let written = authority.to_string();
        assert_eq!(Authority::parse(written.as_bytes()), Ok(authority));
        assert!(!written.contains(['@', '/', '?', '#', ',', ' ', '\\', '%']));
        assert_eq!(written, written.to_ascii_lowercase());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn path(text: &str) -> (String, Option<&'static str>) {
        let target = Target::parse(text.as_bytes()).unwrap();
        (target.path, target.oddities.refused_by(Oddities::NONE))
    }

    #[test]
    fn one_spelling_for_one_path() {
        for (sent, canonical) in [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/%61%2Db", "/a-b"),
            ("/a%2bb", "/a+b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a|b", "/a%7Cb"),
            ("/a%20b", "/a%20b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
        ] {
            assert_eq!(path(sent), (canonical.to_owned(), None), "{sent}");
        }
        assert_eq!(
            Target::parse(b"/a?b=%zz/../c").unwrap().query.as_deref(),
            Some("b=%zz/../c")
        );
    }

    #[test]
    fn p3_p4_what_two_readers_read_differently_is_odd() {
        for (sent, canonical, reason) in [
            ("/public/../admin", "/admin", "route.dot_segment"),
            (
                "/public/..%2fadmin",
                "/public/..%2Fadmin",
                "route.encoded_slash",
            ),
            ("/public/%2e%2e/admin", "/admin", "route.dot_segment"),
            (
                "/public/%252e%252e/admin",
                "/public/%252e%252e/admin",
                "route.double_encoding",
            ),
            ("/public/.%2e/admin", "/admin", "route.dot_segment"),
            ("/public/..;/admin", "/admin", "route.dot_segment"),
            (
                "/public\\..\\admin",
                "/public%5C..%5Cadmin",
                "route.backslash",
            ),
            ("//admin", "/admin", "route.empty_segment"),
            ("/./admin", "/admin", "route.dot_segment"),
            (
                "/public/..%5cadmin",
                "/public/..%5Cadmin",
                "route.backslash",
            ),
            ("/a/..", "/", "route.dot_segment"),
            ("/../../a", "/a", "route.dot_segment"),
        ] {
            assert_eq!(path(sent), (canonical.to_owned(), Some(reason)), "{sent}");
        }
    }

    #[test]
    fn p8_p2_parameters_nul_hash_and_overlong_forms_are_odd() {
        for (sent, reason) in [
            ("/admin;x=1", "route.parameter"),
            ("/admin%3bx", "route.parameter"),
            ("/admin%00", "route.control_byte"),
            ("/admin%7f", "route.control_byte"),
            ("/foo/secret%23/bar", "route.encoded_hash"),
            ("/%c0%af", "route.not_utf8"),
            ("/%ff", "route.not_utf8"),
            ("/%", "route.invalid_encoding"),
            ("/%2", "route.invalid_encoding"),
            ("/%zz", "route.invalid_encoding"),
            ("/%25%32%66", "route.double_encoding"),
        ] {
            assert_eq!(path(sent).1, Some(reason), "{sent}");
        }
    }

    #[test]
    fn p2_p12_bytes_that_no_target_has_are_refused() {
        for bad in [
            "",
            "*",
            "a",
            "/admin#/public/",
            "/a b",
            "/a\tb",
            "/\u{e9}",
            "/a\u{7f}",
            "/a?b#c",
            "/a?\u{0}",
        ] {
            assert_eq!(Target::parse(bad.as_bytes()), Err(BadTarget), "{bad:?}");
        }
    }

    #[test]
    fn no_lift_lets_dots_out_of_their_segment() {
        let all = Oddities::keys().fold(Oddities::NONE, |all, (_, one)| all.with(one));
        for sent in [
            "/a/..%2fadmin",
            "/a/..%5cadmin",
            "/a/x%2f..%2fadmin",
            "/a/..%00/x",
            "/a/..;%2fx",
        ] {
            let target = Target::parse(sent.as_bytes()).unwrap();
            assert_eq!(
                target.oddities.refused_by(all),
                Some("route.hidden_dot_segment"),
                "{sent}"
            );
        }
    }

    #[test]
    fn what_is_lifted_stays_data() {
        let target = Target::parse(b"/group%2Fproject/x").unwrap();
        assert_eq!(target.oddities.refused_by(Oddities::ENCODED_SLASH), None);
        assert_eq!(target.path, "/group%2Fproject/x");
    }

    #[test]
    fn p6_one_spelling_for_one_host() {
        let host = |text: &str| Authority::parse(text.as_bytes()).map(|a| a.to_string());
        for (sent, canonical) in [
            ("secure.ADMIN.app.test", "secure.admin.app.test"),
            ("app.test.", "app.test"),
            ("app.test:8443", "app.test:8443"),
            ("[::1]:443", "[::1]:443"),
            ("[0:0:0::1]", "[::1]"),
            ("192.0.2.1", "192.0.2.1"),
            ("_x.app_1.test", "_x.app_1.test"),
        ] {
            assert_eq!(host(sent).as_deref(), Ok(canonical), "{sent}");
        }
    }

    #[test]
    fn f10_what_is_no_host_is_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "a,b",
            "a b",
            "u@a",
            "a:443@evil",
            "a/b?c",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:+1",
            "[::1",
            "::1",
            "[::1]x",
            "[v1.x]",
            "[fe80::1%25eth0]",
            "a\u{e9}",
            "-a",
            "a-.b",
            "127.1",
            "0x7f.1",
            "1.2.3.256",
            "a:1:2",
            "%61",
            "a#b",
        ] {
            assert_eq!(
                Authority::parse(bad.as_bytes()),
                Err(BadAuthority),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_is_normalising_once(text in "/([a-c./%;\\\\?#|]|%2[eEfF5]|%5[cC]|%00|%[c-f][0-9a-f]){0,24}") {
            fuzzing::target(text.as_bytes());
        }

        #[test]
        fn hosts_are_read_as_written(text in "(\\[?[0-9a-fA-Fx:.]{0,12}\\]?|[a-cA-C.\\-_@]{0,12})(:[0-9]{0,6})?") {
            fuzzing::authority(text.as_bytes());
        }
    }
}
