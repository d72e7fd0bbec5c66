//! The request that another proxy asks about, as its fields tell of it.
//!
//! | style | method | scheme, host | path and query | client |
//! |---|---|---|---|---|
//! | `x-original` | `X-Original-Method` | `X-Original-URL`, absolute | the same | `X-Forwarded-For` |
//! | `x-forwarded` | `X-Forwarded-Method` | `X-Forwarded-Proto`, `X-Forwarded-Host` | `X-Forwarded-Uri` | `X-Forwarded-For` |
//! | `envoy` | the request's own | `X-Forwarded-Proto`, the request's own | the request's own, behind [`PATH`] | `X-Forwarded-For` |
//!
//! 1. Of one style only: fields of another one are the client's, and are not read (SECURITY.md F1).
//! 2. Each field is there once and is read as that part of any request is, or nothing is read (P12).
//! 3. The client is the last hop of `X-Forwarded-For`, which the asking proxy wrote. The hops before it
//!    stay a field, for whoever trusts that hop (F6).
//! 4. Every other field is the original's own.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue};

use super::connection::{Connection, Tls};
use super::field;
use super::fields::Fields;
use super::forwarded::{self, Header};
use super::head::{self, Content, Head, WebSocket};
use super::target::{Authority, Target};

/// Where the question is asked.
pub const PATH: &str = "/verify";

const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// How a proxy tells of the request that it asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `auth_request` of nginx.
    XOriginal,
    /// `forwardAuth` of Traefik, `forward_auth` of Caddy.
    XForwarded,
    /// `ext_authz` of Envoy, by HTTP.
    Envoy,
}

impl Style {
    /// The style that `text` names.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "x-original" => Ok(Self::XOriginal),
            "x-forwarded" => Ok(Self::XForwarded),
            "envoy" => Ok(Self::Envoy),
            _ => Err("expected `x-original`, `x-forwarded` or `envoy`".to_owned()),
        }
    }

    /// Whether such a proxy takes an answer of 200, 401 or 403 and no other.
    pub const fn takes_few_statuses(self) -> bool {
        matches!(self, Self::XOriginal)
    }
}

/// A request that somebody else was sent.
#[derive(Debug, Clone)]
pub struct Original {
    /// The connection that it came on, as far as it is told.
    pub conn: Connection,
    /// The request.
    pub head: Head,
}

/// A part of a request that a field tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The method.
    Method,
    /// Scheme, host, path and query in one.
    Url,
    /// The scheme.
    Scheme,
    /// The host.
    Host,
    /// Path and query.
    Target,
    /// The client's address.
    Client,
}

/// Why nothing is known of the original request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untold {
    /// It is asked for something else than [`PATH`].
    Elsewhere,
    /// A field that tells of this is not there.
    Missing(Part),
    /// There are two of it.
    Repeated(Part),
    /// It is not what it should be.
    Malformed(Part),
}

impl Original {
    /// Reads what `asking` tells of another request.
    ///
    /// # Errors
    /// [`Untold`].
    pub fn read(style: Style, asking: Head) -> Result<Self, Untold> {
        let (path, method) = (asking.target.path.as_str(), asking.method.clone());
        let behind = path.strip_prefix(PATH).ok_or(Untold::Elsewhere)?;
        if style != Style::Envoy && !behind.is_empty() {
            return Err(Untold::Elsewhere);
        }
        let mut headers = asking.headers;
        let (method, scheme, authority, target) = match style {
            Style::XOriginal => {
                let method = take(&mut headers, &X_ORIGINAL_METHOD, Part::Method)?;
                let url = take(&mut headers, &X_ORIGINAL_URL, Part::Url)?;
                let (scheme, authority, target) =
                    url_parts(url.as_bytes()).ok_or(Untold::Malformed(Part::Url))?;
                (self::method(&method)?, scheme, authority, target)
            }
            Style::XForwarded => {
                let method = take(&mut headers, &X_FORWARDED_METHOD, Part::Method)?;
                let scheme = take(&mut headers, &X_FORWARDED_PROTO, Part::Scheme)?;
                let host = take(&mut headers, &X_FORWARDED_HOST, Part::Host)?;
                let uri = take(&mut headers, &X_FORWARDED_URI, Part::Target)?;
                let authority =
                    Authority::parse(host.as_bytes()).map_err(|_| Untold::Malformed(Part::Host))?;
                let target =
                    Target::parse(uri.as_bytes()).map_err(|_| Untold::Malformed(Part::Target))?;
                (
                    self::method(&method)?,
                    self::scheme(&scheme)?,
                    authority,
                    target,
                )
            }
            Style::Envoy => {
                let scheme = take(&mut headers, &X_FORWARDED_PROTO, Part::Scheme)?;
                // Read already, and in one spelling: what is behind a plain prefix is so, too.
                let target = Target {
                    path: behind.to_owned(),
                    query: asking.target.query,
                    oddities: asking.target.oddities,
                };
                if !behind.starts_with('/') {
                    return Err(Untold::Malformed(Part::Target));
                }
                (method, self::scheme(&scheme)?, asking.authority, target)
            }
        };
        let client = take_client(&mut headers)?;
        let tls = (scheme == Scheme::Https).then(|| Tls {
            server_name: Some(authority.host.as_str().into()),
            client_certificate: None,
            bound_to_server_name: false,
        });
        // Proxies keep `Upgrade` to themselves, and browsers send these with every handshake: a page of
        // another host could else open a WebSocket as if it were a program.
        let is_handshake = |name: &HeaderName| name.as_str().starts_with("sec-websocket-");
        let upgrade = asking
            .upgrade
            .or_else(|| headers.names().any(is_handshake).then_some(WebSocket));
        Ok(Self {
            conn: Connection { peer: client, tls },
            head: Head {
                method,
                version: asking.version,
                authority,
                target,
                headers,
                content: Content::None,
                upgrade,
                takes_trailers: false,
                expects_continue: false,
                keeps_alive: asking.keeps_alive,
            },
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// The only line of a field, which goes.
fn take(headers: &mut Fields, name: &HeaderName, part: Part) -> Result<HeaderValue, Untold> {
    let value = field::one(headers, name)
        .map_err(|_| Untold::Repeated(part))?
        .ok_or(Untold::Missing(part))?
        .clone();
    headers.remove(name);
    Ok(value)
}

fn method(value: &HeaderValue) -> Result<http::Method, Untold> {
    head::method(value.as_bytes()).map_err(|_| Untold::Malformed(Part::Method))
}

fn scheme(value: &HeaderValue) -> Result<Scheme, Untold> {
    match value.as_bytes() {
        b"https" => Ok(Scheme::Https),
        b"http" => Ok(Scheme::Http),
        _ => Err(Untold::Malformed(Part::Scheme)),
    }
}

/// The parts of `https://host/path?query`; it has a path.
fn url_parts(url: &[u8]) -> Option<(Scheme, Authority, Target)> {
    let (scheme, rest) = match (url.strip_prefix(b"https://"), url.strip_prefix(b"http://")) {
        (Some(rest), _) => (Scheme::Https, rest),
        (None, Some(rest)) => (Scheme::Http, rest),
        (None, None) => return None,
    };
    let (authority, target) = rest.split_at_checked(memchr::memchr(b'/', rest)?)?;
    Some((
        scheme,
        Authority::parse(authority).ok()?,
        Target::parse(target).ok()?,
    ))
}

/// The last hop of `X-Forwarded-For`, which goes; those before it stay.
fn take_client(headers: &mut Fields) -> Result<SocketAddr, Untold> {
    let name = Header::XForwardedFor.name();
    let hops = take(headers, name, Part::Client)?;
    let malformed = Untold::Malformed(Part::Client);
    let hops = hops.as_bytes();
    let (before, last) = match memchr::memrchr(b',', hops) {
        None => (None, hops),
        Some(comma) => {
            let (before, last) = hops.split_at_checked(comma).ok_or(malformed)?;
            (Some(before), last.get(1..).unwrap_or_default())
        }
    };
    let client = forwarded::hop(field::trim(last)).map_err(|_| malformed)?;
    if let Some(before) = before {
        let before = HeaderValue::from_bytes(before).map_err(|_| malformed)?;
        headers.append(name.clone(), before);
    }
    Ok(SocketAddr::new(client, 0))
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the reader, for fuzz targets and tests.

    use std::net::IpAddr;

    use http::{Method, Version};

    use super::*;

    const STYLES: [Style; 3] = [Style::XOriginal, Style::XForwarded, Style::Envoy];

    /// A question without fields, for a path.
    pub fn asking(target: Target, headers: Fields) -> Head {
        Head {
            method: Method::GET,
            version: Version::HTTP_11,
            authority: Authority::parse(b"asked.test").expect("a host"),
            target,
            headers,
            content: Content::None,
            upgrade: None,
            takes_trailers: false,
            expects_continue: false,
            keeps_alive: true,
        }
    }

    /// Whatever a client writes, in a field that the proxy hands on or in its target: what the proxy
    /// says of it is what is read, and nothing that tells of a request is left.
    pub fn original(data: &[u8]) {
        let Some((choice, text)) = data.split_first() else {
            return;
        };
        let style = STYLES[usize::from(*choice) % STYLES.len()];
        let mut lines = text.split(|byte| *byte == b'\n');
        let target = lines.next().unwrap_or_default();
        let mut clients = Fields::new();
        for line in lines {
            let mut sides = line.splitn(2, |byte| *byte == b':');
            let name = sides.next().map(HeaderName::from_bytes);
            let value = sides.next().map(HeaderValue::from_bytes);
            if let (Some(Ok(name)), Some(Ok(value))) = (name, value) {
                clients.append(name, value);
            }
        }
        let path = Target::parse(PATH.as_bytes()).expect("a path");
        // As the client wrote all of it.
        let _ = Original::read(style, asking(path.clone(), clients.clone()));
        // A proxy tells of a target that it has read.
        if target.first() != Some(&b'/') {
            return;
        }
        let hops = clients.all(Header::XForwardedFor.name()).next().cloned();
        let ours = [
            X_ORIGINAL_METHOD,
            X_ORIGINAL_URL,
            X_FORWARDED_METHOD,
            X_FORWARDED_PROTO,
            X_FORWARDED_HOST,
            X_FORWARDED_URI,
        ];
        let told: &[HeaderName] = match style {
            Style::XOriginal => &ours[..2],
            Style::XForwarded => &ours[2..],
            Style::Envoy => &ours[3..4],
        };
        for name in told.iter().chain([Header::XForwardedFor.name()]) {
            clients.remove(name);
        }
        let Ok(written) = HeaderValue::from_bytes(target) else {
            return;
        };
        let url = [b"https://app.test", target].concat();
        let (Ok(url), hop) = (HeaderValue::from_bytes(&url), "203.0.113.9") else {
            return;
        };
        let mut headers = clients;
        for name in told {
            let value = match name {
                name if *name == X_ORIGINAL_URL => url.clone(),
                name if *name == X_FORWARDED_URI => written.clone(),
                name if *name == X_FORWARDED_PROTO => HeaderValue::from_static("https"),
                name if *name == X_FORWARDED_HOST => HeaderValue::from_static("app.test"),
                _ => HeaderValue::from_static("PUT"),
            };
            headers.append(name.clone(), value);
        }
        let mut line = hops.map_or_else(Vec::new, |hops| [hops.as_bytes(), b", "].concat());
        line.extend(hop.bytes());
        let line = HeaderValue::from_bytes(&line).expect("a value");
        headers.append(Header::XForwardedFor.name().clone(), line);
        let path = match style {
            Style::Envoy => Target::parse(&[PATH.as_bytes(), target].concat()),
            Style::XOriginal | Style::XForwarded => Ok(path),
        };
        let Ok(path) = path else { return };
        let Ok(Original { conn, head }) = Original::read(style, asking(path, headers)) else {
            return;
        };
        let truth: IpAddr = hop.parse().expect("an address");
        assert_eq!((conn.peer.ip(), conn.scheme()), (truth, "https"));
        if head.target.oddities == Target::parse(b"/").expect("a path").oddities {
            let alone = Target::parse(target).expect("it was read before");
            assert_eq!(head.target, alone);
        }
        if style != Style::Envoy {
            let said = (head.authority.to_string(), head.method.as_str());
            assert_eq!(said, ("app.test".to_owned(), "PUT"));
        }
        for name in told {
            assert!(!head.headers.contains(name), "{name} is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NGINX: [(&str, &str); 3] = [
        ("x-original-method", "POST"),
        ("x-original-url", "https://app.test/a?b=c"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    const TRAEFIK: [(&str, &str); 5] = [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app.test"),
        ("x-forwarded-uri", "/a?b=c"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    const ENVOY: [(&str, &str); 2] = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "192.0.2.1"),
    ];

    fn told(style: Style) -> (&'static str, &'static [(&'static str, &'static str)]) {
        match style {
            Style::XOriginal => (PATH, &NGINX),
            Style::XForwarded => (PATH, &TRAEFIK),
            Style::Envoy => ("/verify/a?b=c", &ENVOY),
        }
    }

    fn read(style: Style, path: &str, lines: &[(&str, &str)]) -> Result<Original, Untold> {
        let headers = lines
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let target = Target::parse(path.as_bytes()).unwrap();
        Original::read(style, fuzzing::asking(target, headers))
    }

    const STYLES: [Style; 3] = [Style::XOriginal, Style::XForwarded, Style::Envoy];

    #[test]
    fn each_style_tells_of_the_same_request() {
        for style in STYLES {
            let (path, lines) = told(style);
            let Original { conn, head } = read(style, path, lines).unwrap();
            assert_eq!(head.target.to_string(), "/a?b=c");
            assert_eq!(
                (conn.peer.ip().to_string(), conn.scheme()),
                ("192.0.2.1".to_owned(), "https")
            );
            let (method, host) = match style {
                Style::Envoy => ("GET", "asked.test"),
                Style::XOriginal | Style::XForwarded => ("POST", "app.test"),
            };
            assert_eq!(
                (head.method.as_str(), head.authority.host.as_str()),
                (method, host)
            );
            assert!(head.headers.is_empty() && head.upgrade.is_none());
        }
    }

    #[test]
    fn p12_what_is_missing_or_doubled_tells_nothing() {
        for style in STYLES {
            let (path, lines) = told(style);
            for (at, line) in lines.iter().enumerate() {
                let mut fewer = lines.to_vec();
                fewer.remove(at);
                let missing = read(style, path, &fewer).unwrap_err();
                assert!(
                    matches!(missing, Untold::Missing(_)),
                    "{line:?}: {missing:?}"
                );
                let more = [lines, &[*line]].concat();
                let repeated = read(style, path, &more).unwrap_err();
                assert!(
                    matches!(repeated, Untold::Repeated(_)),
                    "{line:?}: {repeated:?}"
                );
            }
        }
    }

    #[test]
    fn p12_what_does_not_parse_tells_nothing() {
        for (style, name, values, part) in [
            (
                Style::XOriginal,
                "x-original-method",
                &["", "get", "TRACE", "CONNECT", "GET, POST", "GET "][..],
                Part::Method,
            ),
            (
                Style::XOriginal,
                "x-original-url",
                &[
                    "",
                    "/a",
                    "//app.test/a",
                    "https://app.test",
                    "https://app.test?a",
                    "https:///a",
                    "ftp://app.test/",
                    "HTTPS://app.test/",
                    "https://u@app.test/",
                    "https://app.test:0/",
                    "https://app.test/#a",
                    "https://app.test/a b",
                    "https://app.test/a, https://app.test/b",
                    "https://a.test\\@app.test/",
                ],
                Part::Url,
            ),
            (
                Style::XForwarded,
                "x-forwarded-method",
                &["", "get", "GET,GET"],
                Part::Method,
            ),
            (
                Style::XForwarded,
                "x-forwarded-proto",
                &["", "HTTPS", "https,http", "wss"],
                Part::Scheme,
            ),
            (
                Style::XForwarded,
                "x-forwarded-host",
                &["", "a b", "a@app.test", "app.test, b.test", "app.test:"],
                Part::Host,
            ),
            (
                Style::XForwarded,
                "x-forwarded-uri",
                &["", "a", "https://app.test/", "/#a", "/a, /b", "*"],
                Part::Target,
            ),
            (
                Style::XForwarded,
                "x-forwarded-for",
                &["", "a", "192.0.2.1,", "192.0.2.1, unknown", "999.0.2.1"],
                Part::Client,
            ),
            (Style::Envoy, "x-forwarded-proto", &["", "h2"], Part::Scheme),
        ] {
            let (path, lines) = told(style);
            for value in values {
                let changed = |line: &(&'static str, &'static str)| match line.0 == name {
                    true => (line.0, (*value).to_owned()),
                    false => (line.0, line.1.to_owned()),
                };
                let lines: Vec<_> = lines.iter().map(changed).collect();
                let lines: Vec<_> = lines
                    .iter()
                    .map(|(name, value)| (*name, &**value))
                    .collect();
                assert_eq!(
                    read(style, path, &lines).unwrap_err(),
                    Untold::Malformed(part),
                    "{name}: {value}"
                );
            }
        }
    }

    #[test]
    fn f1_fields_of_another_style_tell_nothing() {
        let spoofed = [
            &NGINX[..],
            &[
                ("x-forwarded-uri", "/public"),
                ("x-forwarded-method", "GET"),
                ("x-rewrite-url", "/public"),
            ],
        ]
        .concat();
        let head = read(Style::XOriginal, PATH, &spoofed).unwrap().head;
        assert_eq!(
            (head.method.as_str(), head.target.path.as_str()),
            ("POST", "/a")
        );
        let spoofed = [
            &TRAEFIK[..],
            &[
                ("x-original-url", "https://app.test/public"),
                ("x-original-method", "GET"),
            ],
        ]
        .concat();
        let head = read(Style::XForwarded, PATH, &spoofed).unwrap().head;
        assert_eq!(
            (head.method.as_str(), head.target.path.as_str()),
            ("POST", "/a")
        );
        let spoofed = [
            &ENVOY[..],
            &[
                ("x-original-url", "https://app.test/public"),
                ("x-forwarded-uri", "/public"),
            ],
        ]
        .concat();
        let head = read(Style::Envoy, "/verify/a", &spoofed).unwrap().head;
        assert_eq!(head.target.path, "/a");
    }

    #[test]
    fn the_question_is_asked_at_one_path() {
        for path in [
            "/",
            "/verify/",
            "/verify/a",
            "/verifya",
            "/VERIFY",
            "/a/verify",
        ] {
            assert_eq!(
                read(Style::XOriginal, path, &NGINX).unwrap_err(),
                Untold::Elsewhere,
                "{path}"
            );
        }
        for path in ["/verify", "/verify?a=b", "/verifya"] {
            let untold = read(Style::Envoy, path, &ENVOY).unwrap_err();
            assert_eq!(untold, Untold::Malformed(Part::Target), "{path}");
        }
        // Up and out of the prefix, and into it again.
        assert_eq!(
            read(Style::Envoy, "/verify/../a", &ENVOY).unwrap_err(),
            Untold::Elsewhere
        );
        let odd = read(Style::Envoy, "/verify/../verify/a", &ENVOY)
            .unwrap()
            .head
            .target
            .oddities;
        assert_ne!(odd, Target::parse(b"/a").unwrap().oddities);
    }

    #[test]
    fn f6_the_client_is_the_hop_that_the_proxy_added() {
        for (line, client, left) in [
            ("192.0.2.7", "192.0.2.7", None),
            ("10.0.0.1, 192.0.2.7", "192.0.2.7", Some("10.0.0.1")),
            (
                "a,,\", 10.0.0.1,::ffff:192.0.2.7",
                "192.0.2.7",
                Some("a,,\", 10.0.0.1"),
            ),
            ("x, [2001:db8::7]:80", "2001:db8::7", Some("x")),
        ] {
            let lines = [ENVOY[0], ("x-forwarded-for", line)];
            let Original { conn, head } = read(Style::Envoy, "/verify/", &lines).unwrap();
            assert_eq!(conn.peer.ip().to_string(), client, "{line}");
            let hops = head.headers.named("x-forwarded-for").next();
            assert_eq!(hops.map(|hops| hops.to_str().unwrap()), left);
        }
    }

    #[test]
    fn a_handshake_is_one_though_its_upgrade_stayed_with_the_proxy() {
        let lines = [&TRAEFIK[..], &[("sec-websocket-key", "x")]].concat();
        assert_eq!(
            read(Style::XForwarded, PATH, &lines).unwrap().head.upgrade,
            Some(WebSocket)
        );
    }

    proptest! {
        #[test]
        fn any_words_of_a_client(choice in any::<u8>(), target in "/?[a-z/.%;?#A-F0-9]{0,12}", lines in prop::collection::vec("(x-original-url|x-original-method|x-forwarded-(for|uri|host|proto|method)|cookie):[ -~]{0,20}", 0..6)) {
            let text = [vec![target], lines].concat().join("\n");
            fuzzing::original(&[&[choice], text.as_bytes()].concat());
        }
    }
}
