//! Internal addresses in what a backend says, rewritten to the origin that the client used.
//!
//! | an authority with | is internal |
//! |---|---|
//! | the host of a backend | yes, on every port |
//! | the client's own host | only with a backend's port, or as `http` where the client used `https` |
//! | a host that the operator lists as `external` | no |
//! | an address of RFC 1918, 4193, 6598, 3927, loopback, link-local; or one spelled oddly | yes |
//! | `localhost`, `.local`, `.internal`, `.svc.cluster.local` and such | yes |
//! | a name without a dot | yes, in a URL |
//!
//! The last three rules rest where the client's own host is of that same kind: in an intranet, a
//! link to the next application is no leak. An origin is replaced, its path stays.

use std::collections::HashSet;
use std::sync::Arc;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use memchr::{memchr2, memmem};

/// Suffixes of names that no public resolver knows (RFC 6761, 6762, 8375, ICANN's `.internal`,
/// Kubernetes, and what people chose before there was a choice).
const PRIVATE_SUFFIXES: [&str; 14] = [
    "cluster.local",
    "corp",
    "docker",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "private",
    "svc",
];

/// What is internal to one application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Internal {
    backends: Vec<(Box<str>, Option<u16>)>,
    /// Shared by all applications that list no host of their own.
    external: Arc<HashSet<Box<str>>>,
}

/// The origin that the client used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Public<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host in canonical spelling, with a port where the client gave one.
    pub authority: &'a str,
}

/// What a field holds, which says what may be an address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// References: `//host/path` counts, too.
    References,
    /// Source expressions of a content security policy: `host:port` counts, too.
    Sources,
    /// Anything: only `scheme://host` counts.
    Text,
}

impl Internal {
    /// What is internal where these are the backends (host and port) and these hosts are not,
    /// whatever they look like.
    pub fn new<'a>(
        backends: impl IntoIterator<Item = (&'a str, Option<u16>)>,
        external: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            backends: backends
                .into_iter()
                .map(|(host, port)| (canonical(host), port))
                .collect(),
            external: Arc::new(external.into_iter().map(canonical).collect()),
        }
    }

    /// The same with other backends.
    #[must_use]
    pub fn of_backends<'a>(
        &self,
        backends: impl IntoIterator<Item = (&'a str, Option<u16>)>,
    ) -> Self {
        let external = Arc::clone(&self.external);
        Self {
            external,
            ..Self::new(backends, [])
        }
    }

    /// Takes one more host out of what is internal by its look.
    pub fn leave(&mut self, host: &str) {
        Arc::make_mut(&mut self.external).insert(canonical(host));
    }

    /// `value` with every internal origin replaced by the client's, or `None` where it has none.
    pub fn rewrite(&self, value: &[u8], kind: Kind, public: &Public<'_>) -> Option<Vec<u8>> {
        let by_origin = self.rewrite_origins(value, kind, public);
        if kind != Kind::Sources {
            return by_origin;
        }
        let so_far = by_origin.as_deref().unwrap_or(value);
        self.rewrite_sources(so_far, public).or(by_origin)
    }

    /// Whether `host`, as a cookie's domain or as a bare name, is internal.
    pub fn has_host(&self, host: &str, public: &Public<'_>) -> bool {
        let host = canonical(host);
        let (public_host, _) = split_port(public.authority);
        *host != *canonical(public_host) && self.is_internal_elsewhere(&host, true, public_host)
    }

    fn rewrite_origins(&self, value: &[u8], kind: Kind, public: &Public<'_>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut copied = 0;
        let mut from = 0;
        while let Some(slashes) = Slashes::find(value, from) {
            from = slashes.end;
            let Some((before, rest)) = value.split_at_checked(slashes.start) else {
                break;
            };
            let Some(scheme) = Scheme::at_the_end_of(before, &slashes, kind) else {
                continue;
            };
            let Some(after) = value.get(slashes.end..) else {
                break;
            };
            let written = Authority::at_the_start_of(after);
            if !self.is_internal(&scheme, &written, public) {
                continue;
            }
            let scheme_start = before
                .len()
                .saturating_sub(scheme.length_with_colon(&slashes));
            out.extend(value.get(copied..scheme_start).unwrap_or_default());
            let new_scheme = scheme.as_public(public);
            let colon = before.get(scheme_start.saturating_add(scheme.length())..);
            out.extend(new_scheme.as_bytes());
            out.extend(colon.unwrap_or_default());
            out.extend(rest.get(..slashes.length()).unwrap_or_default());
            push_authority(&mut out, public.authority, slashes.encoded);
            copied = slashes.end.saturating_add(written.length);
            from = copied;
        }
        if copied == 0 {
            return None;
        }
        out.extend(value.get(copied..).unwrap_or_default());
        Some(out)
    }

    fn rewrite_sources(&self, value: &[u8], public: &Public<'_>) -> Option<Vec<u8>> {
        let ends = |b: &u8| b" \t;,".contains(b);
        let mut changed = false;
        let mut out = Vec::with_capacity(value.len());
        for piece in value.split_inclusive(ends) {
            let (token, end) = match piece.split_last() {
                Some((last, token)) if ends(last) => (token, piece.get(token.len()..)),
                _ => (piece, None),
            };
            let written = Authority::at_the_start_of(token);
            // A word without a dot is a keyword or a directive far sooner than a host.
            if memmem::find(token, b"//").is_none()
                && is_host_like(&written.host)
                && self.has_host(&written.host, public)
            {
                changed = true;
                out.extend(public.authority.as_bytes());
                out.extend(token.get(written.length..).unwrap_or_default());
            } else {
                out.extend(token);
            }
            out.extend(end.unwrap_or_default());
        }
        changed.then_some(out)
    }

    fn is_internal(&self, scheme: &Scheme, written: &Authority, public: &Public<'_>) -> bool {
        if written.host.is_empty() {
            return false;
        }
        let (public_host, public_port) = split_port(public.authority);
        if *written.host != *canonical(public_host) {
            let in_url = !matches!(scheme, Scheme::Other);
            return self.is_internal_elsewhere(&written.host, in_url, public_host);
        }
        let public_scheme = Scheme::of_public(public);
        let port = written.port.or_else(|| scheme.default_port(&public_scheme));
        if port == public_port.or_else(|| public_scheme.default_port(&public_scheme)) {
            // An application behind TLS that does not know it: the same port, the other scheme.
            return scheme.is_plain() && !public_scheme.is_plain();
        }
        let of_a_backend = port.is_some() && self.backends.iter().any(|(_, p)| *p == port);
        of_a_backend || written.port.is_none() && scheme.is_plain() && !public_scheme.is_plain()
    }

    /// Whether a host other than the client's is internal.
    fn is_internal_elsewhere(&self, host: &str, in_url: bool, public_host: &str) -> bool {
        if self.backends.iter().any(|(backend, _)| **backend == *host) {
            return true;
        }
        if self.external.contains(host) {
            return false;
        }
        match Privacy::of(host) {
            None => false,
            Some(Privacy::Label) if !in_url => false,
            kind => kind != Privacy::of(&canonical(public_host)),
        }
    }
}

/// Why a host is none of the public Internet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Privacy {
    Address,
    Suffix,
    Label,
}

impl Privacy {
    fn of(host: &str) -> Option<Self> {
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return is_private(address).then_some(Self::Address);
        }
        let mut labels = host.rsplit('.');
        let last = labels.next().unwrap_or(host);
        // A browser reads `0x7f.1` and `167772165` as IPv4 addresses (WHATWG URL, 3.5).
        let starts_as_number = last.starts_with(|c: char| c.is_ascii_digit());
        if starts_as_number && last.bytes().all(|b| b.is_ascii_hexdigit() || b == b'x') {
            return Some(Self::Address);
        }
        let below = |suffix: &str| {
            let rest = host.strip_suffix(suffix);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if PRIVATE_SUFFIXES.iter().any(|suffix| below(suffix)) {
            return Some(Self::Suffix);
        }
        let single = labels.next().is_none();
        (single && !host.is_empty() && host.bytes().all(is_name_byte)).then_some(Self::Label)
    }
}

const fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

const fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

const fn is_private_v4(v4: Ipv4Addr) -> bool {
    let [a, b, _, _] = v4.octets();
    v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || a == 0
        || (a == 100 && b & 0xC0 == 64)
}

const fn is_private_v6(v6: Ipv6Addr) -> bool {
    if let Some(v4) = v6.to_ipv4_mapped() {
        return is_private_v4(v4);
    }
    v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()
}

/// Where two slashes stand, plain or as `%2F%2F`.
#[derive(Debug, Clone, Copy)]
struct Slashes {
    start: usize,
    end: usize,
    encoded: bool,
}

impl Slashes {
    fn find(value: &[u8], from: usize) -> Option<Self> {
        let mut at = from;
        loop {
            let rest = value.get(at..)?;
            let start = at.saturating_add(memchr2(b'/', b'%', rest)?);
            let found = value.get(start..)?;
            if found.starts_with(b"//") {
                return Some(Self {
                    start,
                    end: start.saturating_add(2),
                    encoded: false,
                });
            }
            if found
                .get(..6)
                .is_some_and(|six| six.eq_ignore_ascii_case(b"%2f%2f"))
            {
                return Some(Self {
                    start,
                    end: start.saturating_add(6),
                    encoded: true,
                });
            }
            at = start.saturating_add(1);
        }
    }

    const fn length(&self) -> usize {
        self.end.saturating_sub(self.start)
    }
}

/// What stands before the two slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    Ws,
    Wss,
    /// Another one: kept.
    Other,
    /// None: the client's own (RFC 3986 §4.2).
    Inherited,
}

impl Scheme {
    fn at_the_end_of(before: &[u8], slashes: &Slashes, kind: Kind) -> Option<Self> {
        let colon: &[u8] = if slashes.encoded { b"%3a" } else { b":" };
        let Some(name) = strip_end(before, colon) else {
            let starts = before.last().is_none_or(|b| b" \t<=\"',;".contains(b));
            let counts = kind == Kind::References && starts && !slashes.encoded;
            return counts.then_some(Self::Inherited);
        };
        let known = [Self::Https, Self::Http, Self::Wss, Self::Ws];
        let ends_in = |scheme: &Self| strip_end(name, scheme.name().as_bytes()).is_some();
        match known.into_iter().find(ends_in) {
            Some(scheme) => Some(scheme),
            None => name
                .last()
                .is_some_and(u8::is_ascii_alphanumeric)
                .then_some(Self::Other),
        }
    }

    fn of_public(public: &Public<'_>) -> Self {
        if public.scheme == "https" {
            Self::Https
        } else {
            Self::Http
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Other | Self::Inherited => "",
        }
    }

    const fn length(&self) -> usize {
        self.name().len()
    }

    const fn length_with_colon(&self, slashes: &Slashes) -> usize {
        let colon = match self {
            Self::Inherited | Self::Other => 0,
            Self::Http | Self::Https | Self::Ws | Self::Wss if slashes.encoded => 3,
            Self::Http | Self::Https | Self::Ws | Self::Wss => 1,
        };
        self.length().saturating_add(colon)
    }

    /// The scheme that takes its place beside the client's origin.
    fn as_public(&self, public: &Public<'_>) -> &'static str {
        let secure = Self::of_public(public) == Self::Https;
        match self {
            Self::Http | Self::Https if secure => "https",
            Self::Http | Self::Https => "http",
            Self::Ws | Self::Wss if secure => "wss",
            Self::Ws | Self::Wss => "ws",
            Self::Other | Self::Inherited => "",
        }
    }

    const fn is_plain(&self) -> bool {
        matches!(self, Self::Http | Self::Ws)
    }

    fn default_port(&self, inherited: &Self) -> Option<u16> {
        match self {
            Self::Http | Self::Ws => Some(80),
            Self::Https | Self::Wss => Some(443),
            Self::Other => None,
            Self::Inherited => Some(if inherited.is_plain() { 80 } else { 443 }),
        }
    }
}

fn strip_end<'b>(bytes: &'b [u8], end: &[u8]) -> Option<&'b [u8]> {
    let (head, tail) = bytes.split_at_checked(bytes.len().checked_sub(end.len())?)?;
    tail.eq_ignore_ascii_case(end).then_some(head)
}

/// An authority as a backend wrote it, however badly.
#[derive(Debug)]
struct Authority {
    /// In canonical spelling, without user or wildcard.
    host: Box<str>,
    port: Option<u16>,
    /// How many bytes it takes in the value.
    length: usize,
}

impl Authority {
    /// Reads up to the first byte that can't belong to an authority, undoing escapes as a browser
    /// does.
    fn at_the_start_of(after: &[u8]) -> Self {
        let mut text = Vec::new();
        let mut rest = after;
        while let Some((&first, tail)) = rest.split_first() {
            let (byte, tail) = match (first, tail) {
                (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => (high << 4 | low, tail),
                    _ => break,
                },
                _ => (first, tail),
            };
            let belongs = is_name_byte(byte) || !byte.is_ascii() || b".:[]@~!$*+".contains(&byte);
            if !belongs {
                break;
            }
            text.push(byte);
            rest = tail;
        }
        let text = String::from_utf8_lossy(&text);
        let without_user = text.rsplit_once('@').map_or(&*text, |(_, host)| host);
        let (host, port) = split_port(without_user);
        Self {
            host: canonical(host.strip_prefix("*.").unwrap_or(host)),
            port,
            length: after.len().saturating_sub(rest.len()),
        }
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

/// Host and port; a port that is none is dropped, since what it hides is the host.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    if authority.starts_with('[')
        && let Some((host, rest)) = authority.split_once(']')
    {
        let bracketed = authority
            .get(..host.len().saturating_add(1))
            .unwrap_or(authority);
        return (
            bracketed,
            rest.strip_prefix(':').and_then(|port| port.parse().ok()),
        );
    }
    match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (authority, None),
    }
}

/// One spelling of a host: lower case, no final dot, addresses as `std` prints them.
fn canonical(host: &str) -> Box<str> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if let Some(Ok(v6)) = bare.map(str::parse::<Ipv6Addr>) {
        return match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string().into(),
            None => format!("[{v6}]").into(),
        };
    }
    host.into()
}

fn is_host_like(host: &str) -> bool {
    host.contains('.') || host.starts_with('[')
}

fn push_authority(out: &mut Vec<u8>, authority: &str, encoded: bool) {
    for byte in authority.bytes() {
        match byte {
            b':' if encoded => out.extend(b"%3A"),
            b'[' if encoded => out.extend(b"%5B"),
            b']' if encoded => out.extend(b"%5D"),
            plain => out.push(plain),
        }
    }
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// Rewriting twice is rewriting once, and the backend's own address is gone after it.
    pub fn internal_url(value: &[u8]) {
        let internal = Internal::new([("10.0.0.5", Some(8080)), ("app", None)], ["sso.internal"]);
        let public = Public {
            scheme: "https",
            authority: "wiki.example.com",
        };
        for kind in [Kind::References, Kind::Sources, Kind::Text] {
            let once = internal
                .rewrite(value, kind, &public)
                .unwrap_or_else(|| value.to_vec());
            assert_eq!(
                internal.rewrite(&once, kind, &public),
                None,
                "{kind:?} {once:?}"
            );
            for leak in [
                &b"http://10.0.0.5:8080"[..],
                b"https://10.0.0.5",
                b"http%3A%2F%2Fapp",
            ] {
                for at in memmem::find_iter(&once, leak) {
                    let next = once.get(at + leak.len());
                    assert!(
                        next.is_some_and(|b| !b"/?# ".contains(b)),
                        "{kind:?} {once:?}"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
