//! The one canonical request: what HTTP/1.1 and HTTP/2 both become, once, before any decision.
//!
//! The stages decide on this value and the backend is sent a request written from it; nothing of
//! the client's bytes goes on. What can be read in two ways is refused here.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    EXPECT, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TE, UPGRADE,
};
use http::{HeaderName, HeaderValue, Method, Version};

use super::field;
use super::fields::Fields;
use super::hop;
use super::http1::{self, Framing, Malformed};
use super::target::{Authority, BadTarget, Target};

/// A request, read once.
#[derive(Debug, Clone)]
pub struct Head {
    /// A known method; never CONNECT or TRACE.
    pub method: Method,
    /// The version the client speaks.
    pub version: Version,
    /// The host asked for, where every place that names it agrees.
    pub authority: Authority,
    /// The path and query.
    pub target: Target,
    /// Every field but those of the connection: no Host, framing, Expect or hop-by-hop field.
    pub headers: Fields,
    /// How much content follows.
    pub content: Content,
    /// The handshake, when this is one.
    pub upgrade: Option<WebSocket>,
    /// Whether the client takes trailers.
    pub takes_trailers: bool,
    /// Whether the client waits for 100 before it sends content.
    pub expects_continue: bool,
    /// Whether the client keeps the connection for another request.
    pub keeps_alive: bool,
}

/// How much content a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// None.
    None,
    /// As many bytes.
    Length(u64),
    /// As much as comes.
    Unknown,
}

/// A real WebSocket opening handshake (RFC 6455 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket;

/// Whether a 101 with the fields of `response` answers the handshake of `request` and no other
/// (RFC 6455 §4.2.2).
pub fn is_accepted(request: &Fields, response: &Fields) -> bool {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let (Ok(Some(key)), Ok(Some(accept))) = (
        field::one(request, &SEC_WEBSOCKET_KEY),
        field::one(response, &SEC_WEBSOCKET_ACCEPT),
    ) else {
        return false;
    };
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.as_bytes());
    digest.update(GUID);
    accept.as_bytes() == STANDARD.encode(digest.finish()).as_bytes()
}

/// Why a request has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its bytes are not HTTP.
    Malformed(Malformed),
    /// The target is not a path, or holds a byte that no target has.
    Target,
    /// The target names another host than the Host field, or is of a form we do not serve.
    TargetForm,
    /// No Host.
    HostMissing,
    /// Several Hosts.
    HostRepeated,
    /// A Host that is not a host.
    HostMalformed,
    /// Host and `:authority` or an absolute target differ.
    HostContradicts,
    /// A method that nobody may use here.
    Method,
    /// A field that may come once came twice.
    Repeated,
    /// A field of HTTP/1.1 connections in HTTP/2, or a `Connection` that can't be read.
    Connection,
    /// An expectation other than `100-continue`.
    Expectation,
    /// An upgrade other than a WebSocket handshake.
    Upgrade,
}

impl Refused {
    /// The reason code of the log.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.reason(),
            Self::Target => "wire.target",
            Self::TargetForm => "wire.target_form",
            Self::HostMissing => "wire.no_host",
            Self::HostRepeated => "wire.two_hosts",
            Self::HostMalformed => "wire.bad_host",
            Self::HostContradicts => "wire.host_contradicts",
            Self::Method => "wire.method",
            Self::Repeated => "wire.repeated_field",
            Self::Connection => "wire.connection",
            Self::Expectation => "wire.expectation",
            Self::Upgrade => "wire.upgrade",
        }
    }
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<BadTarget> for Refused {
    fn from(_: BadTarget) -> Self {
        Self::Target
    }
}

/// Makes the canonical request of an HTTP/1.1 or HTTP/1.0 head.
///
/// # Errors
/// Whatever can be read in two ways.
pub fn from_http1(head: http1::RequestHead) -> Result<Head, Refused> {
    let http1::RequestHead {
        method,
        target,
        version,
        mut headers,
    } = head;
    let framing = http1::request_framing(version, &mut headers)?;
    let method = self::method(&method)?;
    let host = field::one(&headers, &HOST).map_err(|_| Refused::HostRepeated)?;
    let host = host.ok_or(Refused::HostMissing)?;
    let authority = Authority::parse(host.as_bytes()).map_err(|_| Refused::HostMalformed)?;
    let target = match absolute_form(&target) {
        None => Target::parse(&target)?,
        Some((named, rest)) => {
            let named = Authority::parse(named).map_err(|_| Refused::HostMalformed)?;
            if named != authority {
                return Err(Refused::HostContradicts);
            }
            Target::parse(if rest.is_empty() { b"/" } else { rest })?
        }
    };
    headers.remove(&HOST);
    let content = match framing {
        Framing::None => Content::None,
        Framing::Length(0) => Content::Length(0),
        Framing::Length(length) => Content::Length(length),
        Framing::Chunked | Framing::UntilClose => Content::Unknown,
    };
    let options = hop::connection_options(&headers).map_err(|_| Refused::Connection)?;
    let keeps_alive = version == Version::HTTP_11 && !options.contains("close");
    let upgrade = upgrade(&method, version, &headers, &options, content)?;
    let expects_continue =
        expectation(&mut headers)? && version == Version::HTTP_11 && content != Content::None;
    field::no_repeats(&headers).map_err(|_| Refused::Repeated)?;
    let takes_trailers = options.contains("te") && hop::takes_trailers(&headers);
    hop::strip(&mut headers, &options);
    Ok(Head {
        method,
        version,
        authority,
        target,
        headers,
        content,
        upgrade,
        takes_trailers,
        expects_continue,
        keeps_alive,
    })
}

/// Makes the canonical request of an HTTP/2 request; `authority` and `path` are its pseudo-fields.
///
/// # Errors
/// Whatever can be read in two ways.
pub fn from_http2(
    method: &Method,
    scheme: Option<&str>,
    authority: Option<&[u8]>,
    path: &[u8],
    mut headers: Fields,
    ends: bool,
) -> Result<Head, Refused> {
    if !matches!(scheme, Some("https" | "http")) {
        return Err(Refused::TargetForm);
    }
    let method = self::method(method.as_str().as_bytes())?;
    let host = field::one(&headers, &HOST).map_err(|_| Refused::HostRepeated)?;
    let parse = |text: &[u8]| Authority::parse(text).map_err(|_| Refused::HostMalformed);
    let authority = match (authority, host) {
        (None, None) => return Err(Refused::HostMissing),
        (Some(one), None) => parse(one)?,
        (None, Some(one)) => parse(one.as_bytes())?,
        (Some(a), Some(b)) => {
            let authority = parse(a)?;
            if authority != parse(b.as_bytes())? {
                return Err(Refused::HostContradicts);
            }
            authority
        }
    };
    headers.remove(&HOST);
    let target = Target::parse(path)?;
    // RFC 9113 §8.2.2: connection-specific fields make an HTTP/2 request malformed.
    const CONNECTION_SPECIFIC: [&str; 5] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ];
    if headers
        .names()
        .any(|name| CONNECTION_SPECIFIC.contains(&name.as_str()))
    {
        return Err(Refused::Connection);
    }
    let takes_trailers = hop::takes_trailers(&headers);
    // .. and so does any other word of TE.
    if headers.all(&TE).any(|line| line != "trailers") {
        return Err(Refused::Connection);
    }
    let framing = http1::request_framing(Version::HTTP_11, &mut headers)?;
    let content = match framing {
        _ if ends => Content::None,
        Framing::Length(length) => Content::Length(length),
        Framing::None | Framing::Chunked | Framing::UntilClose => Content::Unknown,
    };
    let expects_continue = expectation(&mut headers)?;
    field::no_repeats(&headers).map_err(|_| Refused::Repeated)?;
    let options = hop::connection_options(&headers).map_err(|_| Refused::Connection)?;
    hop::strip(&mut headers, &options);
    Ok(Head {
        method,
        version: Version::HTTP_2,
        authority,
        target,
        headers,
        content,
        upgrade: None,
        takes_trailers,
        expects_continue,
        keeps_alive: true,
    })
}

/// Splits `http://host/rest`; a scheme other than ours is a form we do not serve and fails later,
/// because it does not begin with `/`.
fn absolute_form(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let (scheme, rest) = target.split_at_checked(memchr::memmem::find(target, b"://")?)?;
    if !(scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")) {
        return None;
    }
    let rest = rest.get(3..)?;
    let end = memchr::memchr3(b'/', b'?', b'#', rest).unwrap_or(rest.len());
    rest.split_at_checked(end)
}

/// Methods of RFC 9110, RFC 5789, RFC 4918 and kin that an application can be asked with. CONNECT
/// opens tunnels and TRACE echoes credentials, so neither is among them.
const METHODS: [&str; 24] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "MKCALENDAR",
    "ACL",
    "BIND",
    "REBIND",
    "UNBIND",
    "CHECKOUT",
    "QUERY",
    "MERGE",
];

/// A method that an application can be asked with.
///
/// # Errors
/// Any other word.
pub fn method(text: &[u8]) -> Result<Method, Refused> {
    if !METHODS.iter().any(|known| known.as_bytes() == text) {
        return Err(Refused::Method);
    }
    Method::from_bytes(text).map_err(|_| Refused::Method)
}

fn expectation(headers: &mut Fields) -> Result<bool, Refused> {
    let expectation = field::one(headers, &EXPECT).map_err(|_| Refused::Expectation)?;
    let expects = match expectation {
        None => return Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(Refused::Expectation),
    };
    headers.remove(&EXPECT);
    Ok(expects)
}

/// A WebSocket handshake in full, or no upgrade at all (T7).
fn upgrade(
    method: &Method,
    version: Version,
    headers: &Fields,
    options: &hop::Options,
    content: Content,
) -> Result<Option<WebSocket>, Refused> {
    const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
    if headers.contains(&HTTP2_SETTINGS) || options.contains("http2-settings") {
        return Err(Refused::Upgrade);
    }
    let asked = options.contains("upgrade");
    let protocol = field::one(headers, &UPGRADE).map_err(|_| Refused::Upgrade)?;
    let (true, Some(protocol)) = (asked, protocol) else {
        return if asked || protocol.is_some() {
            Err(Refused::Upgrade)
        } else {
            Ok(None)
        };
    };
    let key = field::one(headers, &SEC_WEBSOCKET_KEY).map_err(|_| Refused::Upgrade)?;
    let websocket_version =
        field::one(headers, &SEC_WEBSOCKET_VERSION).map_err(|_| Refused::Upgrade)?;
    let nonce = |key: &HeaderValue| {
        let key = key.as_bytes();
        key.len() == 24
            && key.ends_with(b"==")
            && key
                .iter()
                .take(22)
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
    };
    match (key, websocket_version) {
        (Some(key), Some(number))
            if protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
                && number == "13"
                && nonce(key)
                && *method == Method::GET
                && version == Version::HTTP_11
                && matches!(content, Content::None | Content::Length(0)) =>
        {
            Ok(Some(WebSocket))
        }
        _ => Err(Refused::Upgrade),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::http1::{HeadLimits, Scanner};
    use bytes::Bytes;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 4096,
        target_bytes: 1024,
        fields: 32,
    };

    fn read(text: &str) -> Result<Head, Refused> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        Scanner::default().end(&bytes, LIMITS.bytes)?;
        from_http1(http1::request_head(&bytes, &LIMITS)?)
    }

    fn with(fields: &str) -> Result<Head, Refused> {
        read(&format!("GET / HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n"))
    }

    #[test]
    fn whoever_takes_trailers_says_so_for_this_connection() {
        for (fields, takes) in [
            ("TE: trailers\r\nConnection: TE\r\n", true),
            (
                "TE: gzip;q=0.5, Trailers\r\nConnection: close, te\r\n",
                true,
            ),
            ("TE: trailers\r\n", false),
            ("TE: gzip\r\nConnection: te\r\n", false),
            ("Connection: te\r\n", false),
        ] {
            let head = with(fields).unwrap();
            assert_eq!(head.takes_trailers, takes, "{fields}");
            assert!(!head.headers.contains(&TE), "{fields}");
        }
    }

    #[test]
    fn te_in_http2_says_trailers_or_nothing() {
        let read = |line: Option<&'static str>| {
            let lines = line.map(|line| (TE, HeaderValue::from_static(line)));
            let headers = lines.into_iter().collect();
            let (scheme, host) = (Some("https"), Some(&b"app.test"[..]));
            from_http2(&Method::GET, scheme, host, b"/", headers, true)
        };
        assert!(!read(None).unwrap().takes_trailers);
        assert!(read(Some("trailers")).unwrap().takes_trailers);
        for line in ["gzip", "trailers, gzip", "trailers;q=0.5"] {
            assert_eq!(read(Some(line)).unwrap_err(), Refused::Connection, "{line}");
        }
    }

    #[test]
    fn h11_second_line_of_a_single_field_is_refused() {
        assert_eq!(
            with("Authorization: a\r\nAuthorization: b\r\n").unwrap_err(),
            Refused::Repeated
        );
    }

    #[test]
    fn f10_hosts_that_contradict_are_refused() {
        for (text, reason) in [
            ("GET / HTTP/1.1\r\n\r\n", Refused::HostMissing),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
                Refused::HostRepeated,
            ),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Refused::HostMalformed),
            (
                "GET / HTTP/1.1\r\nHost: app.test:443@evil\r\n\r\n",
                Refused::HostMalformed,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
                Refused::HostMalformed,
            ),
            (
                "GET http://other.test/ HTTP/1.1\r\nHost: app.test\r\n\r\n",
                Refused::HostContradicts,
            ),
            (
                "GET ftp://app.test/ HTTP/1.1\r\nHost: app.test\r\n\r\n",
                Refused::Target,
            ),
            ("GET * HTTP/1.1\r\nHost: app.test\r\n\r\n", Refused::Target),
        ] {
            assert_eq!(read(text).unwrap_err(), reason, "{text}");
        }
        assert!(read("GET http://app.test HTTP/1.1\r\nHost: APP.test\r\n\r\n").is_ok());
    }

    #[test]
    fn t5_connect_and_trace_are_refused_and_methods_are_exact() {
        for method in ["CONNECT", "TRACE", "get", "Get", "FOO", "PRI"] {
            let text = format!("{method} / HTTP/1.1\r\nHost: app.test\r\n\r\n");
            assert_eq!(read(&text).unwrap_err(), Refused::Method, "{method}");
        }
    }

    #[test]
    fn t7_only_a_whole_websocket_handshake_upgrades() {
        let good = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert!(with(good).unwrap().upgrade.is_some());
        for (from, to) in [
            ("websocket", "h2c"),
            ("websocket", "websocket, h2c"),
            ("13", "777"),
            ("dGhl", "x"),
            ("Upgrade: websocket\r\n", ""),
            ("keep-alive, Upgrade", "keep-alive"),
        ] {
            assert_eq!(
                with(&good.replacen(from, to, 1)).unwrap_err(),
                Refused::Upgrade,
                "{from} -> {to}"
            );
        }
        let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
        assert_eq!(with(h2c).unwrap_err(), Refused::Upgrade);
    }

    #[test]
    fn only_100_continue_can_be_expected() {
        assert_eq!(
            with("Expect: 200-ok\r\n").unwrap_err(),
            Refused::Expectation
        );
        let head = with("Content-Length: 3\r\nExpect: 100-Continue\r\n").unwrap();
        assert!(head.expects_continue && !head.headers.contains(&EXPECT));
    }

    #[test]
    fn http2_authority_and_host_agree_or_refuse() {
        let ask = |authority: Option<&str>, hosts: &[&str]| {
            let mut headers = Fields::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            let authority = authority.map(str::as_bytes);
            from_http2(&Method::GET, Some("https"), authority, b"/", headers, true)
                .map(|head| head.content)
        };
        assert_eq!(ask(Some("a.test"), &[]), Ok(Content::None));
        assert_eq!(ask(Some("a.test"), &["A.test"]), Ok(Content::None));
        assert_eq!(
            ask(Some("a.test"), &["b.test"]),
            Err(Refused::HostContradicts)
        );
        assert_eq!(
            ask(Some("a.test"), &["a.test", "a.test"]),
            Err(Refused::HostRepeated)
        );
        assert_eq!(ask(Some("u@a.test"), &[]), Err(Refused::HostMalformed));
        assert_eq!(ask(None, &[]), Err(Refused::HostMissing));
    }
}
