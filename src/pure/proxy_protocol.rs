//! The PROXY protocol header, versions 1 and 2 (HAProxy, `doc/proxy-protocol.txt`, 2020/03/05).
//!
//! The flow is:
//! 1. The caller reads from a listed peer until this says something other than "incomplete".
//! 2. What is said never changes with more bytes, so no guess is made on a short read.
//! 3. A header that names no TCP client is the peer's own (health check) only where the protocol
//!    says so, version 1 `UNKNOWN` and version 2 `LOCAL`; any other is refused, since the peer's
//!    address may be allowed where its client's is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest version 1 line with its CRLF (§2.1).
pub const MAX_LINE_BYTES: usize = 107;
/// The longest version 2 header taken: senders keep to 536 bytes (§2), TLVs with a certificate's
/// names need more, and the 64 KiB that the length could say are nobody's.
pub const MAX_BINARY_BYTES: usize = 4096;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length (§2.2).
const FIXED_BYTES: usize = 16;
const CRC32C: u8 = 0x03;

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// Bytes of the header; what follows is the connection's.
    pub consumed: usize,
    /// Whose connection it is.
    pub source: Source,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The peer's own.
    Local,
    /// That of a client of the peer. An IPv4-mapped address stands as IPv4.
    Proxied {
        /// The client.
        client: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
}

/// Why there is no header yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotParsed {
    /// More bytes are needed.
    Incomplete,
    /// No bytes can make it right.
    Bad(Bad),
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// The first bytes begin neither version.
    NoHeader,
    /// Longer than [`MAX_LINE_BYTES`] or [`MAX_BINARY_BYTES`].
    TooLong,
    /// A version 1 line of another form.
    Line,
    /// A version other than 2 in the binary form.
    Version,
    /// A command other than `LOCAL` and `PROXY`.
    Command,
    /// A client that is not a TCP client over IPv4 or IPv6.
    Family,
    /// Addresses that do not parse, or are cut short.
    Address,
    /// TLVs that do not fill the header exactly.
    Tlv,
    /// The checksum does not match (§2.2.3).
    Checksum,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "the connection does not begin with a PROXY protocol header",
            Self::TooLong => "the PROXY protocol header is too long",
            Self::Line => "the PROXY protocol line is malformed",
            Self::Version => "the PROXY protocol version is unknown",
            Self::Command => "the PROXY protocol command is unknown",
            Self::Family => "the PROXY protocol header names no TCP client",
            Self::Address => "an address in the PROXY protocol header is malformed",
            Self::Tlv => "the PROXY protocol header has malformed extensions",
            Self::Checksum => "the PROXY protocol header has a wrong checksum",
        })
    }
}

impl std::error::Error for Bad {}

/// The header that `bytes` begin with.
///
/// # Errors
/// [`NotParsed::Incomplete`] only while some more bytes could make it right, and never for more
/// than [`MAX_BINARY_BYTES`] bytes.
pub fn parse(bytes: &[u8]) -> Result<Parsed, NotParsed> {
    if starts_like(bytes, SIGNATURE) {
        binary(bytes)
    } else if starts_like(bytes, LINE_START) {
        line(bytes)
    } else {
        Err(NotParsed::Bad(Bad::NoHeader))
    }
}

fn starts_like(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, want)| byte == want)
}

/// Version 1 (§2.1): one line of text.
fn line(bytes: &[u8]) -> Result<Parsed, NotParsed> {
    let Some(newline) = bytes
        .iter()
        .take(MAX_LINE_BYTES)
        .position(|byte| *byte == b'\n')
    else {
        return Err(if bytes.len() < MAX_LINE_BYTES {
            NotParsed::Incomplete
        } else {
            NotParsed::Bad(Bad::TooLong)
        });
    };
    let source = bytes
        .get(LINE_START.len()..newline)
        .and_then(|line| line.strip_suffix(b"\r"))
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(Bad::Line)
        .and_then(line_source)
        .map_err(NotParsed::Bad)?;
    Ok(Parsed {
        consumed: newline.saturating_add(1),
        source,
    })
}

fn line_source(line: &str) -> Result<Source, Bad> {
    // What follows UNKNOWN is to be ignored, but not a carriage return that splits the line.
    if line == "UNKNOWN" || (line.starts_with("UNKNOWN ") && !line.contains('\r')) {
        return Ok(Source::Local);
    }
    let mut words = line.split(' ');
    let (Some(family), Some(source), Some(target), Some(from), Some(to), None) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ) else {
        return Err(Bad::Line);
    };
    let address: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse().ok().map(IpAddr::V6),
        _ => return Err(Bad::Family),
    };
    let end = |ip: &str, port: &str| Some(socket(address(ip)?, decimal_port(port)?));
    Ok(Source::Proxied {
        client: end(source, from).ok_or(Bad::Address)?,
        destination: end(target, to).ok_or(Bad::Address)?,
    })
}

/// A port without sign or leading zeros.
fn decimal_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

/// Version 2 (§2.2): fixed head, addresses, TLVs.
fn binary(bytes: &[u8]) -> Result<Parsed, NotParsed> {
    let Some((head, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        return Err(NotParsed::Incomplete);
    };
    let [.., version_and_command, family, high, low] = *head;
    if version_and_command >> 4 != 2 {
        return Err(NotParsed::Bad(Bad::Version));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    let consumed = length.saturating_add(FIXED_BYTES);
    if consumed > MAX_BINARY_BYTES {
        return Err(NotParsed::Bad(Bad::TooLong));
    }
    let (Some(body), Some(header)) = (rest.get(..length), bytes.get(..consumed)) else {
        return Err(NotParsed::Incomplete);
    };
    let source = match version_and_command & 0x0f {
        // The block of a LOCAL command is to be skipped, whatever it holds.
        0 => Ok(Source::Local),
        1 => proxied(family, body, header),
        _ => Err(Bad::Command),
    };
    Ok(Parsed {
        consumed,
        source: source.map_err(NotParsed::Bad)?,
    })
}

fn proxied(family: u8, body: &[u8], header: &[u8]) -> Result<Source, Bad> {
    let (client, rest, target, ports, tlvs);
    match family {
        0x11 => {
            (client, rest) = v4(body)?;
            (target, ports) = v4(rest)?;
        }
        0x21 => {
            (client, rest) = v6(body)?;
            (target, ports) = v6(rest)?;
        }
        _ => return Err(Bad::Family),
    }
    let ([a, b, c, d], after) = ports.split_first_chunk().ok_or(Bad::Address)?;
    tlvs = after;
    check_tlvs(tlvs, header)?;
    Ok(Source::Proxied {
        client: socket(client, u16::from_be_bytes([*a, *b])),
        destination: socket(target, u16::from_be_bytes([*c, *d])),
    })
}

fn v4(bytes: &[u8]) -> Result<(IpAddr, &[u8]), Bad> {
    let (octets, rest) = bytes.split_first_chunk::<4>().ok_or(Bad::Address)?;
    Ok((Ipv4Addr::from(*octets).into(), rest))
}

fn v6(bytes: &[u8]) -> Result<(IpAddr, &[u8]), Bad> {
    let (octets, rest) = bytes.split_first_chunk::<16>().ok_or(Bad::Address)?;
    Ok((Ipv6Addr::from(*octets).into(), rest))
}

/// One form for an IPv4 client, also of a dual-stack peer, so that rules meet it (SECURITY.md F8).
fn socket(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// None of the TLVs is believed; the checksum is, since a receiver must (§2.2.3).
fn check_tlvs(tlvs: &[u8], header: &[u8]) -> Result<(), Bad> {
    let mut rest = tlvs;
    let mut checked = false;
    while !rest.is_empty() {
        let ([kind, high, low], after) = rest.split_first_chunk().ok_or(Bad::Tlv)?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = after.split_at_checked(length).ok_or(Bad::Tlv)?;
        if *kind == CRC32C {
            let sum = <[u8; 4]>::try_from(value).map_err(|_| Bad::Tlv)?;
            if std::mem::replace(&mut checked, true) {
                return Err(Bad::Tlv);
            }
            let at = header
                .len()
                .checked_sub(after.len())
                .and_then(|end| end.checked_sub(length))
                .ok_or(Bad::Tlv)?;
            if crc32c(header, at) != u32::from_be_bytes(sum) {
                return Err(Bad::Checksum);
            }
        }
        rest = after;
    }
    Ok(())
}

/// CRC-32C (RFC 4960 appendix B) of `header` with the four bytes from `zeroed` read as zero. Bit by
/// bit: once a connection, and over a few dozen bytes.
fn crc32c(header: &[u8], zeroed: usize) -> u32 {
    let hole = zeroed..zeroed.saturating_add(4);
    let mut crc = u32::MAX;
    for (at, byte) in header.iter().enumerate() {
        crc ^= if hole.contains(&at) {
            0
        } else {
            u32::from(*byte)
        };
        for _ in 0..8 {
            let carry = if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            crc = (crc >> 1) ^ carry;
        }
    }
    !crc
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// Read byte by byte, "incomplete" is followed by one answer that more bytes do not change.
    pub fn proxy_protocol(bytes: &[u8]) {
        let mut decided = None;
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end]);
            if let Some(before) = decided {
                assert_eq!(now, before);
                continue;
            }
            match now {
                Err(NotParsed::Incomplete) => assert!(end < MAX_BINARY_BYTES),
                Err(NotParsed::Bad(_)) => decided = Some(now),
                Ok(Parsed { consumed, source }) => {
                    assert_eq!(consumed, end);
                    if let Source::Proxied { client, .. } = source {
                        assert_eq!(client.ip(), client.ip().to_canonical());
                    }
                    decided = Some(now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary_header(version_and_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([version_and_command, family]);
        header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend(body);
        header
    }

    fn v2(client: SocketAddr, destination: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        let family = match (client.ip(), destination.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                body.extend(a.octets());
                body.extend(b.octets());
                0x11
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                body.extend(a.octets());
                body.extend(b.octets());
                0x21
            }
            _ => unreachable!(),
        };
        body.extend(client.port().to_be_bytes());
        body.extend(destination.port().to_be_bytes());
        body.extend(tlvs);
        binary_header(0x21, family, &body)
    }

    #[track_caller]
    fn reads(bytes: &[u8], client: &str, destination: &str) {
        fuzzing::proxy_protocol(bytes);
        let mut more = bytes.to_vec();
        more.extend(b"GET / HTTP/1.1\r\n");
        assert_eq!(
            parse(&more),
            Ok(Parsed {
                consumed: bytes.len(),
                source: Source::Proxied {
                    client: client.parse().unwrap(),
                    destination: destination.parse().unwrap(),
                }
            })
        );
    }

    #[track_caller]
    fn local(bytes: &[u8]) {
        fuzzing::proxy_protocol(bytes);
        let expected = Parsed {
            consumed: bytes.len(),
            source: Source::Local,
        };
        assert_eq!(parse(bytes), Ok(expected));
    }

    #[track_caller]
    fn bad(bytes: &[u8], why: Bad) {
        fuzzing::proxy_protocol(bytes);
        assert_eq!(parse(bytes), Err(NotParsed::Bad(why)), "{bytes:?}");
    }

    #[test]
    fn a_line_names_the_client() {
        reads(
            b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n",
            "203.0.113.9:56324",
            "192.0.2.1:443",
        );
        reads(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
            "[2001:db8::1]:1",
            "[2001:db8::2]:65535",
        );
    }

    #[test]
    fn an_unknown_line_and_a_local_command_are_the_peers_own() {
        local(b"PROXY UNKNOWN\r\n");
        local(b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n");
        local(&binary_header(0x20, 0x00, b""));
        local(&binary_header(0x20, 0x11, b"not an address"));
    }

    #[test]
    fn a_line_of_another_form_is_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.5 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.5 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.5 1 2 \r\n",
            "PROXY TCP4 1.2.3.4  1.2.3.5 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.5 1 2\n",
            "PROXY UNKNOWN\n",
        ] {
            bad(line.as_bytes(), Bad::Line);
        }
        bad(b"PROXY TCP4 1.2.3.4 1.2.3.5 1 \xff\r\n", Bad::Line);
    }

    #[test]
    fn a_line_with_a_bad_address_or_port_is_refused() {
        for line in [
            "PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\r\n",
            "PROXY TCP4 01.2.3.4 1.2.3.5 1 2\r\n",
            "PROXY TCP4 1.2.3 1.2.3.5 1 2\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
            "PROXY TCP6 [::1] ::2 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.5 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.5 01 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.5 65536 2\r\n",
            "PROXY TCP4 a b c d\r\n",
        ] {
            bad(line.as_bytes(), Bad::Address);
        }
    }

    #[test]
    fn a_client_that_is_not_tcp_over_ip_is_refused() {
        bad(b"PROXY UDP4 1.2.3.4 1.2.3.5 1 2\r\n", Bad::Family);
        bad(b"PROXY tcp4 1.2.3.4 1.2.3.5 1 2\r\n", Bad::Family);
        for family in [0x00, 0x01, 0x10, 0x12, 0x22, 0x31, 0x32, 0x41, 0xff] {
            bad(&binary_header(0x21, family, &[0; 216]), Bad::Family);
        }
    }

    #[test]
    fn a_line_beyond_its_bound_is_refused_before_its_end_is_seen() {
        let mut longest = b"PROXY UNKNOWN ".to_vec();
        longest.resize(MAX_LINE_BYTES - 2, b'x');
        let open = longest.clone();
        longest.extend(b"\r\n");
        local(&longest);
        let mut longer = open;
        longer.extend(b"xx");
        bad(&longer, Bad::TooLong);
    }

    #[test]
    fn other_protocols_are_refused_at_their_first_byte_that_differs() {
        for start in [
            "GET / HTTP/1.1\r\n",
            "\x16\x03\x01",
            "PROXx",
            "proxy ",
            "\r\n\r\nGET",
        ] {
            bad(start.as_bytes(), Bad::NoHeader);
        }
        assert_eq!(parse(b""), Err(NotParsed::Incomplete));
        assert_eq!(parse(b"PRO"), Err(NotParsed::Incomplete));
        assert_eq!(parse(b"\r\n\r\n"), Err(NotParsed::Incomplete));
    }

    #[test]
    fn the_binary_form_names_the_client() {
        let header = v2(
            "203.0.113.9:56324".parse().unwrap(),
            "192.0.2.1:443".parse().unwrap(),
            &[0x04, 0, 2, 9, 9, 0x01, 0, 0],
        );
        reads(&header, "203.0.113.9:56324", "192.0.2.1:443");
        let header = v2(
            "[2001:db8::9]:1".parse().unwrap(),
            "[2001:db8::1]:443".parse().unwrap(),
            &[],
        );
        reads(&header, "[2001:db8::9]:1", "[2001:db8::1]:443");
    }

    #[test]
    fn f8_an_ipv4_mapped_client_is_an_ipv4_client() {
        let header = v2(
            "[::ffff:192.0.2.1]:1".parse().unwrap(),
            "[::ffff:192.0.2.2]:443".parse().unwrap(),
            &[],
        );
        reads(&header, "192.0.2.1:1", "192.0.2.2:443");
        reads(
            b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 443\r\n",
            "192.0.2.1:1",
            "192.0.2.2:443",
        );
    }

    #[test]
    fn a_binary_header_of_another_version_or_command_is_refused() {
        bad(&binary_header(0x11, 0x11, &[0; 12]), Bad::Version);
        bad(&binary_header(0x31, 0x11, &[0; 12]), Bad::Version);
        bad(&binary_header(0x22, 0x11, &[0; 12]), Bad::Command);
        bad(&binary_header(0x2f, 0x11, &[0; 12]), Bad::Command);
    }

    #[test]
    fn a_binary_header_cut_short_or_too_long_is_refused() {
        bad(&binary_header(0x21, 0x11, &[0; 11]), Bad::Address);
        bad(&binary_header(0x21, 0x21, &[0; 35]), Bad::Address);
        bad(&binary_header(0x21, 0x11, &[]), Bad::Address);
        let head = binary_header(0x21, 0x11, &vec![0; MAX_BINARY_BYTES - FIXED_BYTES + 1]);
        bad(&head[..FIXED_BYTES], Bad::TooLong);
    }

    #[test]
    fn extensions_must_fill_the_header_exactly() {
        let ends = ("1.2.3.4:1".parse().unwrap(), "1.2.3.5:2".parse().unwrap());
        for tlvs in [&[0x04][..], &[0x04, 0], &[0x04, 0, 2, 9], &[0x04, 0, 0, 9]] {
            bad(&v2(ends.0, ends.1, tlvs), Bad::Tlv);
        }
        bad(&v2(ends.0, ends.1, &[CRC32C, 0, 1, 0]), Bad::Tlv);
    }

    #[test]
    fn a_checksum_is_verified_when_there_is_one() {
        // "123456789" is the check value of the catalogue of CRCs.
        assert_eq!(crc32c(b"123456789", usize::MAX), 0xe306_9283);
        let ends = ("1.2.3.4:1".parse().unwrap(), "1.2.3.5:2".parse().unwrap());
        let mut header = v2(ends.0, ends.1, &[CRC32C, 0, 4, 0, 0, 0, 0]);
        let at = header.len() - 4;
        let sum = crc32c(&header, at).to_be_bytes();
        header[at..].copy_from_slice(&sum);
        reads(&header, "1.2.3.4:1", "1.2.3.5:2");
        for bit in 0..8 * header.len() {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let answer = parse(&flipped);
            // Two bytes can make it a header that no checksum covers: the command, `LOCAL`, and the
            // type of the checksum itself.
            let uncovered = [SIGNATURE.len(), at - 3].contains(&(bit / 8));
            assert!(answer.is_err() || uncovered, "{bit}: {answer:?}");
        }
        let twice = [CRC32C, 0, 4, 0, 0, 0, 0, CRC32C, 0, 4, 0, 0, 0, 0];
        assert!(parse(&v2(ends.0, ends.1, &twice)).is_err());
    }

    fn socket_pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        prop_oneof![
            any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(a, p, b, q)| (
                (Ipv4Addr::from(a), p).into(),
                (Ipv4Addr::from(b), q).into()
            )),
            any::<([u16; 8], u16, [u16; 8], u16)>().prop_map(|(a, p, b, q)| (
                (Ipv6Addr::from(a), p).into(),
                (Ipv6Addr::from(b), q).into()
            )),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_get_one_answer(
            start in prop_oneof![Just(b"PROXY ".to_vec()), Just(SIGNATURE.to_vec()), Just(vec![])],
            rest: Vec<u8>,
        ) {
            fuzzing::proxy_protocol(&[start, rest].concat());
        }

        #[test]
        fn what_is_written_is_read(ends in socket_pair(), more: Vec<u8>) {
            let (client, destination) = ends;
            let expected = Source::Proxied { client: socket(client.ip(), client.port()),
                destination: socket(destination.ip(), destination.port()) };
            let word = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {word} {} {} {} {}\r\n",
                client.ip(), destination.ip(), client.port(), destination.port());
            for header in [line.into_bytes(), v2(client, destination, &[])] {
                fuzzing::proxy_protocol(&header);
                let consumed = header.len();
                let all = [header, more.clone()].concat();
                prop_assert_eq!(parse(&all), Ok(Parsed { consumed, source: expected }));
            }
        }
    }
}
