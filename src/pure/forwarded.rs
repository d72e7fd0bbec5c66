//! Who the client behind trusted proxies is: `X-Forwarded-For` and `Forwarded` (RFC 7239).
//!
//! 1. A peer that is not trusted is the client, whatever it says of others.
//! 2. A trusted peer's lines are read from the right: each hop was named by the one after it.
//! 3. The first hop that is not trusted is the client; nothing left of it is read, since the client
//!    wrote it (SECURITY.md F6).
//! 4. A hop that does not parse before that, an empty one too, refuses: who the client is then is
//!    unknown, and no guess is better than another (SECURITY.md F5).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use http::header::{self, HeaderName, HeaderValue};

use crate::pure::fields::Fields;
use crate::pure::{cidr, field};

/// All lines of the field together; forty hops in their longest form.
pub const MAX_BYTES: usize = 4096;
/// Trusted hops that are passed; a loop of proxies makes more.
pub const MAX_HOPS: usize = 64;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The field that trusted proxies write; the other one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Header {
    /// The field that `text` names, in any case.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        [Self::XForwardedFor, Self::Forwarded]
            .into_iter()
            .find(|header| header.name().as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| "`x-forwarded-for` or `forwarded`".to_owned())
    }

    /// The field's name.
    pub fn name(self) -> &'static HeaderName {
        match self {
            Self::XForwardedFor => &X_FORWARDED_FOR,
            Self::Forwarded => &header::FORWARDED,
        }
    }
}

/// Why the client behind a trusted peer is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHop {
    /// More than [`MAX_BYTES`].
    TooLong,
    /// More than [`MAX_HOPS`] on the way.
    TooMany,
    /// A hop that is no address: empty, `unknown`, a name, or obfuscated (RFC 7239 §6.3).
    NoAddress,
    /// A `Forwarded` element that is not `name=value` pairs with one `for`.
    Malformed,
}

impl fmt::Display for BadHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the forwarding field is too long",
            Self::TooMany => "the forwarding field names too many proxies",
            Self::NoAddress => "a hop in the forwarding field is not an address",
            Self::Malformed => "the forwarding field is malformed",
        })
    }
}

impl std::error::Error for BadHop {}

/// The client of a connection from `peer`, in its one form: IPv4-mapped as IPv4.
///
/// A trusted peer without the field is the client itself; of hops that are all trusted, the
/// leftmost is.
///
/// # Errors
/// The peer is trusted and what it says can't be read.
pub fn client(
    peer: IpAddr,
    headers: &Fields,
    which: Header,
    trusted: &cidr::Set,
) -> Result<IpAddr, BadHop> {
    let mut client = peer.to_canonical();
    if !trusted.contains(client) {
        return Ok(client);
    }
    let lines = headers.all(which.name());
    let bytes = lines.clone().map(HeaderValue::len);
    if bytes.fold(0, usize::saturating_add) > MAX_BYTES {
        return Err(BadHop::TooLong);
    }
    let mut hops = 0_usize;
    for line in lines.rev() {
        for hop in elements(line.as_bytes(), which)?.into_iter().rev() {
            hops = hops.saturating_add(1);
            if hops > MAX_HOPS {
                return Err(BadHop::TooMany);
            }
            client = match which {
                Header::XForwardedFor => self::hop(hop)?,
                Header::Forwarded => forwarded_hop(hop)?,
            };
            if !trusted.contains(client) {
                return Ok(client);
            }
        }
    }
    Ok(client)
}

/// The elements of a line, empty ones too: one that the last proxy left empty is not to be taken
/// for the one before it, which may be the client's.
fn elements(line: &[u8], which: Header) -> Result<Vec<&[u8]>, BadHop> {
    let quotes = which == Header::Forwarded;
    let (mut quoted, mut escaped) = (false, false);
    let separates = |byte: &u8| {
        if escaped {
            escaped = false;
        } else if quoted && *byte == b'\\' {
            escaped = true;
        } else if quotes && *byte == b'"' {
            quoted = !quoted;
        } else {
            return *byte == b',' && !quoted;
        }
        false
    };
    let elements = line.split(separates).map(field::trim).collect();
    // A quote that the client left open would swallow what a proxy added after it.
    if quoted {
        return Err(BadHop::Malformed);
    }
    Ok(elements)
}

/// An address, with or without brackets and port: proxies write all of these.
///
/// # Errors
/// [`BadHop::NoAddress`] for anything else.
pub fn hop(hop: &[u8]) -> Result<IpAddr, BadHop> {
    let text = std::str::from_utf8(hop).map_err(|_| BadHop::NoAddress)?;
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_canonical()),
        Err(_) => node(text),
    }
}

/// The `for` of a `Forwarded` element (RFC 7239 §4).
fn forwarded_hop(element: &[u8]) -> Result<IpAddr, BadHop> {
    let mut found = None;
    let mut pairs = Vec::new();
    field::split_list(element, b';', &mut pairs).map_err(|_| BadHop::Malformed)?;
    for pair in pairs {
        let (name, value) = name_and_value(pair).ok_or(BadHop::Malformed)?;
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return Err(BadHop::Malformed);
        }
    }
    let value = found.ok_or(BadHop::Malformed)?;
    let text = std::str::from_utf8(&value).map_err(|_| BadHop::NoAddress)?;
    node(text)
}

fn name_and_value(pair: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let mut parts = pair.splitn(2, |byte| *byte == b'=');
    let name = parts.next().filter(|name| field::is_token(name))?;
    Some((name, field::unquote(parts.next()?)?))
}

/// A node (RFC 7239 §6): IPv4, or IPv6 in brackets, each with or without port.
fn node(text: &str) -> Result<IpAddr, BadHop> {
    let (ip, port) = if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']').ok_or(BadHop::NoAddress)?;
        (ip.parse::<Ipv6Addr>().map(IpAddr::V6).ok(), port)
    } else {
        let (ip, port) = text
            .split_at_checked(text.find(':').unwrap_or(text.len()))
            .unwrap_or((text, ""));
        (ip.parse().map(IpAddr::V4).ok(), port)
    };
    let port_is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    ip.filter(|_| port_is_fine)
        .map(|ip| ip.to_canonical())
        .ok_or(BadHop::NoAddress)
}

fn is_port(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// Whatever a client wrote to the left, the answer is the hop that the trusted peer added, or
    /// a refusal; and an answer is always an address in its one form.
    pub fn forwarded(bytes: &[u8]) {
        let Some((choice, text)) = bytes.split_first() else {
            return;
        };
        let which = [Header::XForwardedFor, Header::Forwarded][usize::from(choice & 1)];
        let added = [
            ["203.0.113.9", "2001:db8::9"],
            ["for=203.0.113.9", "by=_x;for=\"[2001:db8::9]:80\""],
        ][usize::from(choice & 1)][usize::from(choice >> 1 & 1)];
        let truth: [IpAddr; 2] = ["203.0.113.9", "2001:db8::9"].map(|ip| ip.parse().unwrap());
        let truth = truth[usize::from(choice >> 1 & 1)];
        let trusted: cidr::Set = ["10.0.0.0/8", "fd00::/8"]
            .into_iter()
            .map(|net| cidr::parse_network(net).unwrap())
            .collect();
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let outside: IpAddr = "192.0.2.1".parse().unwrap();

        let mut written = Fields::new();
        for line in text.split(|byte| *byte == b'\n') {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                written.append(which.name().clone(), value);
            }
        }
        assert_eq!(client(outside, &written, which, &trusted), Ok(outside));
        if let Ok(ip) = client(peer, &written, which, &trusted) {
            assert_eq!(ip, ip.to_canonical());
        }

        let mut in_a_line = written.clone();
        in_a_line.append(which.name().clone(), HeaderValue::from_static(added));
        let answer = client(peer, &in_a_line, which, &trusted);
        assert!(
            [Ok(truth), Err(BadHop::TooLong)].contains(&answer),
            "{answer:?}"
        );

        let joined = [text, b", ", added.as_bytes()].concat();
        if let Ok(value) = HeaderValue::from_bytes(&joined) {
            let headers = Fields::from_iter([(which.name().clone(), value)]);
            let answer = client(peer, &headers, which, &trusted);
            let refused = match which {
                Header::XForwardedFor => answer == Err(BadHop::TooLong),
                Header::Forwarded => answer.is_err(),
            };
            assert!(answer == Ok(truth) || refused, "{answer:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Header::{Forwarded, XForwardedFor};
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn ask(peer: &str, which: Header, lines: &[&str]) -> Result<String, BadHop> {
        let trusted = ["10.0.0.0/8", "2001:db8:aa::/48"]
            .iter()
            .map(|net| cidr::parse_network(net).unwrap())
            .collect();
        let headers = lines
            .iter()
            .map(|line| (which.name().clone(), HeaderValue::from_str(line).unwrap()))
            .collect();
        client(peer.parse().unwrap(), &headers, which, &trusted).map(|ip| ip.to_string())
    }

    #[track_caller]
    fn is(which: Header, lines: &[&str], expected: &str) {
        assert_eq!(
            ask(PROXY, which, lines).as_deref(),
            Ok(expected),
            "{lines:?}"
        );
    }

    #[track_caller]
    fn refused(which: Header, lines: &[&str], why: BadHop) {
        assert_eq!(ask(PROXY, which, lines), Err(why), "{lines:?}");
    }

    #[test]
    fn f6_an_untrusted_peer_is_the_client_whatever_it_says() {
        for line in ["10.0.0.1", "127.0.0.1", "a", "", "10.0.0.1, 10.0.0.2"] {
            let answer = ask("203.0.113.7", XForwardedFor, &[line]);
            assert_eq!(answer.as_deref(), Ok("203.0.113.7"), "{line}");
            let answer = ask("203.0.113.7", Forwarded, &[&format!("for={line}")]);
            assert_eq!(answer.as_deref(), Ok("203.0.113.7"), "{line}");
        }
    }

    #[test]
    fn f6_the_client_is_the_first_untrusted_hop_from_the_right() {
        is(XForwardedFor, &["10.0.0.1, 203.0.113.9"], "203.0.113.9");
        is(
            XForwardedFor,
            &["1.1.1.1, 203.0.113.9, 10.2.3.4, 10.9.9.9"],
            "203.0.113.9",
        );
        is(
            XForwardedFor,
            &["1.1.1.1", "203.0.113.9", "10.2.3.4"],
            "203.0.113.9",
        );
        is(
            Forwarded,
            &["for=10.0.0.1, for=203.0.113.9;proto=https"],
            "203.0.113.9",
        );
        is(
            Forwarded,
            &["for=1.1.1.1", "for=203.0.113.9, for=10.2.3.4"],
            "203.0.113.9",
        );
    }

    #[test]
    fn f6_what_stands_left_of_the_client_is_not_read() {
        is(XForwardedFor, &["a,,\" \\ ;, 203.0.113.9"], "203.0.113.9");
        is(XForwardedFor, &["\"", "203.0.113.9"], "203.0.113.9");
        is(
            Forwarded,
            &["for=unknown;;;=, for=203.0.113.9"],
            "203.0.113.9",
        );
        is(Forwarded, &["for=\"", "for=203.0.113.9"], "203.0.113.9");
    }

    #[test]
    fn f5_a_hop_that_does_not_parse_is_refused() {
        for hop in [
            "a",
            "::ffff:999.0.0.1",
            "",
            " ",
            "unknown",
            "_hidden",
            "10.0.0.300",
            "010.0.0.1",
            "10.0.0",
            "10.0.0.1 10.0.0.2",
            "10.0.0.1:",
            "10.0.0.1:65536",
            "10.0.0.1:+1",
            "10.0.0.1:x",
            "[10.0.0.1]",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:",
            "[]",
            "fe80::1%eth0",
            "\"10.0.0.1\"",
            "for=10.0.0.1",
            "10.0.0.0/8",
            "10.0.0.1;",
            "0x0a000001",
        ] {
            refused(XForwardedFor, &[hop], BadHop::NoAddress);
            refused(XForwardedFor, &["203.0.113.9", hop], BadHop::NoAddress);
            refused(
                XForwardedFor,
                &[&format!("203.0.113.9, {hop}, 10.0.0.2")],
                BadHop::NoAddress,
            );
        }
    }

    #[test]
    fn f5_an_odd_address_is_an_address_of_nobody_trusted() {
        // Unlike what it imitates, this is an IPv6 address and not an IPv4-mapped one.
        is(XForwardedFor, &["10.0.0.5, ::ffff:999"], "::ffff:999");
    }

    #[test]
    fn f5_a_hop_that_a_proxy_left_empty_is_not_taken_for_the_one_before() {
        refused(XForwardedFor, &["203.0.113.9,"], BadHop::NoAddress);
        refused(XForwardedFor, &["203.0.113.9", ""], BadHop::NoAddress);
        refused(
            XForwardedFor,
            &["203.0.113.9, , 10.0.0.2"],
            BadHop::NoAddress,
        );
        refused(Forwarded, &["for=203.0.113.9,"], BadHop::Malformed);
        refused(Forwarded, &["for=203.0.113.9", ""], BadHop::Malformed);
        refused(
            Forwarded,
            &["for=203.0.113.9, proto=https"],
            BadHop::Malformed,
        );
    }

    #[test]
    fn f5_ten_kilobytes_of_commas_are_refused() {
        let commas = ",".repeat(10_000);
        refused(XForwardedFor, &[&commas], BadHop::TooLong);
        refused(Forwarded, &[&commas], BadHop::TooLong);
        let lines = vec!["10.0.0.1"; 600];
        refused(XForwardedFor, &lines, BadHop::TooLong);
        assert_eq!(
            ask("203.0.113.7", XForwardedFor, &[&commas]).as_deref(),
            Ok("203.0.113.7")
        );
    }

    #[test]
    fn more_trusted_hops_than_any_site_has_are_refused() {
        is(XForwardedFor, &vec!["10.0.0.7"; MAX_HOPS], "10.0.0.7");
        refused(
            XForwardedFor,
            &vec!["10.0.0.7"; MAX_HOPS + 1],
            BadHop::TooMany,
        );
        let mut lines = vec!["1.1.1.1"; 300];
        lines.push("203.0.113.9");
        is(XForwardedFor, &lines, "203.0.113.9");
    }

    #[test]
    fn a_trusted_peer_that_says_nothing_is_the_client() {
        is(XForwardedFor, &[], PROXY);
        is(Forwarded, &[], PROXY);
    }

    #[test]
    fn of_hops_that_are_all_trusted_the_leftmost_is_the_client() {
        is(XForwardedFor, &["10.0.0.5, 10.0.0.6"], "10.0.0.5");
        is(
            Forwarded,
            &["for=10.0.0.5, for=\"10.0.0.6:80\""],
            "10.0.0.5",
        );
    }

    #[test]
    fn only_the_configured_field_is_read() {
        let trusted: cidr::Set = [cidr::parse_network("10.0.0.0/8").unwrap()]
            .into_iter()
            .collect();
        let headers = Fields::from_iter([(
            XForwardedFor.name().clone(),
            HeaderValue::from_static("203.0.113.9"),
        )]);
        let peer = PROXY.parse().unwrap();
        assert_eq!(client(peer, &headers, Forwarded, &trusted), Ok(peer));
    }

    #[test]
    fn ports_and_brackets_are_understood() {
        is(XForwardedFor, &["203.0.113.9:4711"], "203.0.113.9");
        is(XForwardedFor, &["2001:db8::9"], "2001:db8::9");
        is(XForwardedFor, &["[2001:db8::9]"], "2001:db8::9");
        is(XForwardedFor, &["[2001:db8::9]:4711"], "2001:db8::9");
        is(Forwarded, &["For=\"203.0.113.9:4711\""], "203.0.113.9");
        is(Forwarded, &["for=\"203.0.113.9\""], "203.0.113.9");
        is(Forwarded, &["for=\"\\203.0.113.9\""], "203.0.113.9");
        is(Forwarded, &["for=\"[2001:db8::9]\""], "2001:db8::9");
        is(
            Forwarded,
            &["host=\"a,b\"; FOR=\"[2001:db8::9]:4711\" ;by=_x"],
            "2001:db8::9",
        );
    }

    #[test]
    fn f8_an_ipv4_mapped_hop_or_peer_is_an_ipv4_one() {
        is(XForwardedFor, &["::ffff:203.0.113.9"], "203.0.113.9");
        is(
            XForwardedFor,
            &["203.0.113.9, ::ffff:10.0.0.2"],
            "203.0.113.9",
        );
        is(
            Forwarded,
            &["for=203.0.113.9, for=\"[::ffff:a00:2]\""],
            "203.0.113.9",
        );
        let answer = ask("::ffff:10.0.0.1", XForwardedFor, &["203.0.113.9"]);
        assert_eq!(answer.as_deref(), Ok("203.0.113.9"));
        let answer = ask("::ffff:192.0.2.1", XForwardedFor, &["203.0.113.9"]);
        assert_eq!(answer.as_deref(), Ok("192.0.2.1"));
    }

    #[test]
    fn a_forwarded_hop_that_names_no_address_is_refused() {
        for value in [
            "unknown",
            "_hidden",
            "\"_hidden:80\"",
            "\"2001:db8::9\"",
            "\"10.0.0.1:_p\"",
            "\"\"",
        ] {
            refused(Forwarded, &[&format!("for={value}")], BadHop::NoAddress);
        }
    }

    #[test]
    fn a_forwarded_element_of_another_form_is_refused() {
        for element in [
            "",
            ";",
            "for",
            "for=",
            "for =10.0.0.1",
            "for= 10.0.0.1",
            "for=10.0.0.1:80",
            "for=[::1]",
            "for=2001:db8::9",
            "by=10.0.0.1",
            "for=10.0.0.1;for=10.0.0.2",
            "for=10.0.0.1;FOR=10.0.0.1",
            "for=\"10.0.0.1",
            "for=10.0.0.1\"",
            "for=\"10.0.0.1\"x",
            "for=10.0.0.1;secret",
            "203.0.113.9",
            "for=\"10.0.0.1\\",
        ] {
            refused(Forwarded, &[element], BadHop::Malformed);
            refused(Forwarded, &[element, "for=10.0.0.2"], BadHop::Malformed);
        }
    }

    #[test]
    fn a_quote_left_open_by_the_client_hides_no_proxy() {
        for start in ["for=\"x", "for=\"x\\", "for=1.1.1.1;by=\"", "\"\\\""] {
            let line = format!("{start}, for=203.0.113.9;by=\"[::1]\", for=10.0.0.2");
            refused(Forwarded, &[&line], BadHop::Malformed);
        }
    }

    #[test]
    fn the_field_is_named_in_any_case() {
        assert_eq!(Header::parse("X-Forwarded-For"), Ok(XForwardedFor));
        assert_eq!(Header::parse("forwarded"), Ok(Forwarded));
        assert_eq!(
            Header::parse("x-real-ip").unwrap_err(),
            "`x-forwarded-for` or `forwarded`"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_another_client(choice in 0..4_u8, text in "([0-9a-f.:,\"\\\\;=\\[\\] for\n]|10\\.0\\.0\\.[0-9]){0,60}|(?s).*") {
            fuzzing::forwarded(&[&[choice], text.as_bytes()].concat());
        }
    }
}
