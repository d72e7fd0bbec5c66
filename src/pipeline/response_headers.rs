//! 8. response headers: what the client may learn of the backend.
//!
//! | when | then |
//! |---|---|
//! | a field belongs to the connection, or any `Connection` line names it | removed (RFC 9110 §7.6.1) |
//! | a field names people or connections as the gateway does | removed, whatever a policy keeps |
//! | a field is in the policy's `remove`, or of a family that gateways speak and not in `keep` | removed |
//! | `strip`: a field is in `[strip]` of `backend_fields.txt`, not in its `[keep]`, not in `keep` | removed |
//! | `allowlist`: a field is in neither `[allow]` nor `[keep]`, nor in `keep` | removed |
//! | a cookie is the gateway's, in any case | that line is removed |
//! | a cookie's `Domain` is internal | the attribute is removed: the cookie is this host's alone |
//! | `Clear-Site-Data` asks for cookies | that directive is removed |
//! | a value holds an internal origin | the origin becomes the client's |
//! | status 5xx, and not `errors = "pass"` | the body and what describes it give way to the gateway's page |
//! | a field that protects the browser is missing | it is set |
//!
//! One pass over the fields present. Adds no name of its own: no `Server`, no `Via`.

use std::collections::HashSet;
use std::sync::Arc;

use http::header::{
    CONTENT_LOCATION, CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, ETAG, LINK,
    LOCATION, REFERRER_POLICY, REFRESH, RETRY_AFTER, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::pipeline::request_headers::ReservedNames;
use crate::pure::banner::{BadLine, Lists, Names};
use crate::pure::internal_url::{Internal, Kind, Public};
use crate::pure::{cookie, hop};

/// The names that give backends away, as shipped.
const BACKEND_FIELDS: &str = include_str!("backend_fields.txt");

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
const SOURCE_MAP: HeaderName = HeaderName::from_static("sourcemap");
const X_SOURCE_MAP: HeaderName = HeaderName::from_static("x-sourcemap");

/// What an application's clients may learn of its backends.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Which fields leave.
    pub mode: Mode,
    /// The lists of the gateway.
    pub lists: Arc<Lists>,
    /// Fields that leave, whatever a list says.
    pub keep: Names,
    /// Fields that do not leave, whatever a list says.
    pub remove: Names,
    /// What is internal.
    pub internal: Internal,
    /// Whether internal addresses become the client's.
    pub rewrite_addresses: bool,
    /// What becomes of a backend's own error pages.
    pub errors: Errors,
    /// Whether cookies that name a machine are dropped.
    pub strip_balancer_cookies: bool,
    /// Whether fields that protect the browser are set where the application has none.
    pub protect: bool,
    /// `Strict-Transport-Security` under TLS, where the application has none.
    pub hsts: Option<HeaderValue>,
}

/// Which fields leave a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// All but those known to give a backend away.
    #[default]
    Strip,
    /// Those known to say nothing of it, and no other.
    Allowlist,
    /// All but those of families that gateways speak.
    Off,
}

/// What becomes of a backend's answers with a status of 5xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Errors {
    /// The client gets the gateway's page: stack traces and banners stay inside.
    #[default]
    Replace,
    /// The client gets what the backend says.
    Pass,
}

/// What the client gets for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The backend's.
    Backends,
    /// The gateway's page for the status; the fields that described the backend's are gone.
    Ours,
}

/// What is known of an exchange when its response is cleaned.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What only the gateway may say, on any route.
    pub reserved: &'a ReservedNames,
    /// The origin that the client used.
    pub public: Public<'a>,
    /// The status that the backend gave.
    pub status: StatusCode,
}

/// The shipped lists of names that give backends away.
///
/// # Errors
/// A word of the shipped file that is none.
pub fn shipped_lists() -> Result<Lists, BadLine> {
    let mut lists = Lists::default();
    lists.add(BACKEND_FIELDS)?;
    Ok(lists)
}

/// Makes of a backend's fields those for the client, and says whose body goes with them.
pub fn rewrite(rule: &Rule, facts: &Facts<'_>, headers: &mut HeaderMap) -> Content {
    strip_hops(headers);
    clean(rule, facts, headers);
    let content = rule.content_for(facts.status);
    if content == Content::Ours {
        keep_beside_our_page(headers);
    }
    if !facts.status.is_informational() {
        protect(rule, facts, headers);
    }
    content
}

/// Removes from a response's trailers what must not come after the fact, and what gives a backend
/// away.
pub fn clean_trailers(rule: &Rule, facts: &Facts<'_>, trailers: &mut HeaderMap) {
    strip_hops(trailers);
    let early: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| is_early(name))
        .cloned()
        .collect();
    for name in &early {
        trailers.remove(name);
    }
    clean(rule, facts, trailers);
}

fn strip_hops(headers: &mut HeaderMap) {
    // Unlike a client, a backend gains nothing by a line that can't be read: the names that are
    // always the connection's still go.
    let options = hop::connection_options(headers).unwrap_or_default();
    hop::strip(headers, &options);
}

fn clean(rule: &Rule, facts: &Facts<'_>, headers: &mut HeaderMap) {
    let mut gone = Vec::new();
    let mut has_cookies = false;
    for (name, value) in headers.iter_mut() {
        if rule.is_dropped(name, facts.reserved)
            || name == STRICT_TRANSPORT_SECURITY && !facts.is_tls()
        {
            gone.push(name.clone());
        } else if name == SET_COOKIE {
            has_cookies = true;
        } else if name == CLEAR_SITE_DATA {
            match without_cookies(value) {
                Some(rest) => *value = rest,
                None => gone.push(name.clone()),
            }
        } else if let Some(kind) = kind_of(name)
            && rule.rewrite_addresses
            && let Some(rewritten) = rule.internal.rewrite(value.as_bytes(), kind, &facts.public)
        {
            match HeaderValue::from_bytes(&rewritten) {
                Ok(rewritten) => *value = rewritten,
                Err(_) => gone.push(name.clone()),
            }
        }
    }
    for name in &gone {
        headers.remove(name);
    }
    if has_cookies {
        clean_cookies(rule, facts, headers);
    }
}

impl Rule {
    /// Whose body goes with a status.
    pub fn content_for(&self, status: StatusCode) -> Content {
        match self.errors {
            Errors::Replace if status.is_server_error() => Content::Ours,
            Errors::Replace | Errors::Pass => Content::Backends,
        }
    }

    fn is_dropped(&self, name: &HeaderName, reserved: &ReservedNames) -> bool {
        if reserved.is_identity(name) || self.remove.contains(name) {
            return true;
        }
        if self.keep.contains(name) {
            return false;
        }
        let listed = match self.mode {
            Mode::Off => false,
            Mode::Strip => self.lists.strip.contains(name) && !self.lists.keep.contains(name),
            Mode::Allowlist => !self.lists.allow.contains(name) && !self.lists.keep.contains(name),
        };
        listed || reserved.in_families(name)
    }
}

impl Facts<'_> {
    fn is_tls(&self) -> bool {
        self.public.scheme == "https"
    }
}

/// What may be an address in a field, or `None` where nothing is.
fn kind_of(name: &HeaderName) -> Option<Kind> {
    if name == LOCATION
        || name == CONTENT_LOCATION
        || name == LINK
        || name == REFRESH
        || name == SOURCE_MAP
        || name == X_SOURCE_MAP
    {
        Some(Kind::References)
    } else if name == CONTENT_SECURITY_POLICY || name == CONTENT_SECURITY_POLICY_REPORT_ONLY {
        Some(Kind::Sources)
    } else if name == ETAG {
        None
    } else {
        Some(Kind::Text)
    }
}

/// `Clear-Site-Data` without what would sign the user out of the gateway, or `None` where nothing
/// is left of it.
fn without_cookies(value: &HeaderValue) -> Option<HeaderValue> {
    let mut kept = Vec::new();
    for directive in value.as_bytes().split(|b| *b == b',') {
        let directive = directive.trim_ascii();
        if directive == b"\"*\"" {
            kept.extend([&b"\"cache\""[..], b"\"storage\""]);
            continue;
        }
        let word = directive
            .strip_prefix(b"\"")
            .and_then(|d| d.strip_suffix(b"\""));
        let plain = |word: &&[u8]| word.iter().all(u8::is_ascii_alphanumeric);
        if word
            .filter(plain)
            .is_some_and(|word| !word.eq_ignore_ascii_case(b"cookies"))
        {
            kept.push(directive);
        }
    }
    if kept.is_empty() {
        None
    } else {
        HeaderValue::from_bytes(&kept.join(&b", "[..])).ok()
    }
}

fn clean_cookies(rule: &Rule, facts: &Facts<'_>, headers: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = headers
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|line| cleaned_cookie(rule, facts, line))
        .collect();
    headers.remove(SET_COOKIE);
    for line in lines {
        headers.append(SET_COOKIE, line);
    }
}

/// A `Set-Cookie` line as the client gets it, or `None` where it gets none.
fn cleaned_cookie(rule: &Rule, facts: &Facts<'_>, line: &HeaderValue) -> Option<HeaderValue> {
    let bytes = line.as_bytes();
    let mut parts = bytes.split(|b| *b == b';');
    let pair = parts.next().unwrap_or_default();
    if is_ours(pair) {
        return None;
    }
    let name = pair
        .split(|b| *b == b'=')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if rule.strip_balancer_cookies {
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        if rule.lists.cookies.contains_lower(&lower) {
            return None;
        }
    }
    if !rule.rewrite_addresses {
        return Some(line.clone());
    }
    let is_internal_domain = |part: &&[u8]| {
        let mut sides = part.splitn(2, |b| *b == b'=');
        let is_domain = sides
            .next()
            .is_some_and(|n| n.trim_ascii().eq_ignore_ascii_case(b"domain"));
        let host = String::from_utf8_lossy(sides.next().unwrap_or_default().trim_ascii());
        is_domain
            && rule
                .internal
                .has_host(host.trim_start_matches('.'), &facts.public)
    };
    if !parts.clone().any(|part| is_internal_domain(&part)) {
        return Some(line.clone());
    }
    let mut kept = vec![pair];
    kept.extend(parts.filter(|part| !is_internal_domain(part)));
    HeaderValue::from_bytes(&kept.join(&b';')).ok()
}

/// Whether a browser would send this pair back under a name of ours. A pair without a name, or
/// without `=`, comes back as its value alone (RFC 6265bis §5.6, "nameless cookies").
fn is_ours(pair: &[u8]) -> bool {
    let nothing = pair.iter().take_while(|b| b"= \t".contains(b)).count();
    let said = pair.get(nothing..).unwrap_or_default();
    cookie::is_reserved(said.split(|b| *b == b'=').next().unwrap_or_default())
}

/// Leaves what is true of the answer whatever its body: the page of the gateway describes itself.
fn keep_beside_our_page(headers: &mut HeaderMap) {
    let gone: HashSet<HeaderName> = headers
        .keys()
        .filter(|name| {
            let cross_origin = name.as_str().starts_with("access-control-");
            !(cross_origin || *name == RETRY_AFTER || *name == SET_COOKIE)
        })
        .cloned()
        .collect();
    for name in &gone {
        headers.remove(name);
    }
}

fn protect(rule: &Rule, facts: &Facts<'_>, headers: &mut HeaderMap) {
    if let Some(hsts) = &rule.hsts
        && facts.is_tls()
    {
        headers
            .entry(STRICT_TRANSPORT_SECURITY)
            .or_insert_with(|| hsts.clone());
    }
    if !rule.protect {
        return;
    }
    let mut set = |name, value| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "strict-origin-when-cross-origin");
    let frames = |policy: &HeaderValue| {
        let wanted = b"frame-ancestors";
        policy
            .as_bytes()
            .windows(wanted.len())
            .any(|w| w.eq_ignore_ascii_case(wanted))
    };
    if !headers.get_all(CONTENT_SECURITY_POLICY).iter().any(frames) {
        headers
            .entry(X_FRAME_OPTIONS)
            .or_insert(HeaderValue::from_static("SAMEORIGIN"));
    }
}

/// Fields that say how to take what came before trailers do (RFC 9110 §6.5.1).
fn is_early(name: &HeaderName) -> bool {
    const EARLY: [&str; 15] = [
        "age",
        "cache-control",
        "clear-site-data",
        "connection",
        "date",
        "expires",
        "location",
        "refresh",
        "retry-after",
        "set-cookie",
        "strict-transport-security",
        "trailer",
        "transfer-encoding",
        "vary",
        "www-authenticate",
    ];
    let name = name.as_str();
    EARLY.contains(&name) || name.starts_with("content-") || name.starts_with("access-control-")
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;
    use crate::pipeline::request_headers;

    /// A rule that cleans all that it can, before a backend at `10.0.0.5:8080`.
    pub fn rule() -> Rule {
        Rule {
            mode: Mode::Strip,
            lists: Arc::new(shipped_lists().expect("the shipped file is read")),
            keep: Names::default(),
            remove: Names::default(),
            internal: Internal::new([("10.0.0.5", Some(8080))], []),
            rewrite_addresses: true,
            errors: Errors::Replace,
            strip_balancer_cookies: false,
            protect: true,
            hsts: Some(HeaderValue::from_static("max-age=31536000")),
        }
    }

    /// What is known of a response to a request for the wiki.
    pub fn facts(status: StatusCode) -> Facts<'static> {
        let public = Public {
            scheme: "https",
            authority: "wiki.example.com",
        };
        Facts {
            reserved: request_headers::fuzzing::reserved(),
            public,
            status,
        }
    }

    /// Whatever a backend sends: cleaning twice is cleaning once, and no name, cookie or address
    /// is left that must not be.
    pub fn response_headers(lines: &[(&[u8], &[u8])]) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let pair = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
            if let (Ok(name), Ok(value)) = pair {
                headers.append(name, value);
            }
        }
        for mode in [Mode::Strip, Mode::Allowlist, Mode::Off] {
            let rule = Rule { mode, ..rule() };
            let mut once = headers.clone();
            rewrite(&rule, &facts(StatusCode::OK), &mut once);
            for (name, value) in &once {
                assert!(
                    !request_headers::fuzzing::reserved().is_identity(name),
                    "{name} survives"
                );
                let stripped = rule.lists.strip.contains(name) && !rule.lists.keep.contains(name);
                assert!(mode == Mode::Off || !stripped, "{name} survives");
                assert!(
                    name != SET_COOKIE || !is_ours(value.as_bytes()),
                    "{value:?} survives"
                );
                let leak = memchr::memmem::find(value.as_bytes(), b"http://10.0.0.5:8080/");
                assert!(
                    name == SET_COOKIE || name == ETAG || leak.is_none(),
                    "{value:?} survives"
                );
            }
            let mut twice = once.clone();
            rewrite(&rule, &facts(StatusCode::OK), &mut twice);
            assert_eq!(twice, once);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fuzzing::{facts, rule};
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn cleaned_by(rule: &Rule, lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = fields(lines);
        rewrite(rule, &facts(StatusCode::OK), &mut headers);
        headers
    }

    fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
        let lines = headers.get_all(name).iter();
        lines
            .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
            .collect()
    }

    /// What a client gets for `name` when a backend sends `value`.
    fn sent(name: &str, value: &str) -> Vec<String> {
        values(&cleaned_by(&rule(), &[(name, value)]), name)
    }

    #[track_caller]
    fn gone(name: &str, value: &str) {
        assert_eq!(sent(name, value), [""; 0], "{name}: {value}");
    }

    #[track_caller]
    fn becomes(name: &str, value: &str, expected: &str) {
        assert_eq!(sent(name, value), [expected], "{name}: {value}");
    }

    #[test]
    fn every_shipped_name_is_read() {
        let lists = shipped_lists().unwrap();
        for list in [&lists.strip, &lists.keep, &lists.allow, &lists.cookies] {
            assert!(!list.is_empty());
        }
    }

    #[test]
    fn banners_of_every_kind_are_gone() {
        for name in [
            "Server",
            "Via",
            "X-Powered-By",
            "X-AspNet-Version",
            "X-Generator",
            "X-Drupal-Cache",
            "X-Jenkins",
            "X-Amz-Cf-Pop",
            "X-Envoy-Upstream-Service-Time",
            "X-Varnish",
            "X-Runtime",
            "Server-Timing",
            "X-Debug-Token-Link",
            "X-Backend-Server",
            "Alt-Svc",
            "$wsep",
            "l5d-proxy-error",
            "Kbn-Name",
            "X-Kong-Upstream-Latency",
            "CF-Ray",
            "traceparent",
        ] {
            gone(name, "x");
        }
    }

    #[test]
    fn what_clients_need_is_kept() {
        for name in [
            "Docker-Distribution-Api-Version",
            "X-Elastic-Product",
            "X-WP-Total",
            "X-WP-TotalPages",
            "X-Total-Count",
            "X-Inertia",
            "HX-Redirect",
            "OData-Version",
            "Grpc-Status",
            "Sec-WebSocket-Accept",
            "X-Request-Id",
            "X-RateLimit-Limit",
            "X-DNS-Prefetch-Control",
            "X-Csrf-Token",
        ] {
            becomes(name, "x", "x");
        }
    }

    #[test]
    fn a_policy_keeps_and_removes_by_name_and_prefix() {
        let lists = |keep, remove| Rule {
            keep: Names::new([keep]).unwrap(),
            remove: Names::new([remove]).unwrap(),
            ..rule()
        };
        let lines = [
            ("X-Jenkins", "1"),
            ("X-Jenkins-Session", "2"),
            ("X-Own-Id", "3"),
        ];
        let headers = cleaned_by(&lists("X-Jenkins*", "X-Own-*"), &lines);
        assert_eq!(values(&headers, "x-jenkins"), ["1"]);
        assert_eq!(values(&headers, "x-jenkins-session"), ["2"]);
        assert!(!headers.contains_key("x-own-id"));
        let both = cleaned_by(&lists("X-Own-Id", "X-Own-Id"), &lines);
        assert!(!both.contains_key("x-own-id"));
    }

    #[test]
    fn an_allowlist_lets_out_what_is_registered_or_listed_and_nothing_else() {
        let keep = Names::new(["X-Own"]).unwrap();
        let rule = Rule {
            mode: Mode::Allowlist,
            keep,
            ..rule()
        };
        let lines = [
            ("Content-Type", "text/html"),
            ("Access-Control-Allow-Origin", "*"),
            ("ETag", "\"1\""),
            ("X-Elastic-Product", "Elasticsearch"),
            ("X-Own", "1"),
            ("X-Other", "1"),
            ("Server", "nginx"),
        ];
        let headers = cleaned_by(&rule, &lines);
        for (name, _) in &lines[..5] {
            assert!(headers.contains_key(*name), "{name}");
        }
        assert!(!headers.contains_key("x-other") && !headers.contains_key("server"));
    }

    #[test]
    fn off_still_keeps_back_what_is_the_gateways() {
        let rule = Rule {
            mode: Mode::Off,
            ..rule()
        };
        let lines = [
            ("Server", "nginx"),
            ("X-Portcullis-User", "admin"),
            ("X-Forwarded-For", "10.0.0.5"),
            ("Connection", "x-hop"),
            ("X-Hop", "1"),
            ("Set-Cookie", "__Host-portcullis_session=x"),
            ("Location", "http://10.0.0.5:8080/"),
        ];
        let headers = cleaned_by(&rule, &lines);
        assert_eq!(values(&headers, "server"), ["nginx"]);
        assert_eq!(values(&headers, "location"), ["https://wiki.example.com/"]);
        for (name, _) in &lines[1..6] {
            assert!(!headers.contains_key(*name), "{name}");
        }
    }

    #[test]
    fn identity_is_never_sent_back_whatever_a_policy_keeps() {
        let keep = Names::new(["X-*", "Forwarded"]).unwrap();
        let rule = Rule { keep, ..rule() };
        for name in [
            "X-Portcullis-User",
            "X_Portcullis.User",
            "X-Groups",
            "X_Mail",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "Forwarded",
            "X-Real-Ip",
        ] {
            assert!(
                !cleaned_by(&rule, &[(name, "x")]).contains_key(name),
                "{name}"
            );
        }
        assert!(!cleaned_by(&rule, &[("Remote-User", "x")]).contains_key("remote-user"));
    }

    #[test]
    fn a_backend_cannot_set_or_clear_the_gateways_cookies() {
        for line in [
            "__Host-portcullis_session=evil; Secure; Path=/",
            "__Host-portcullis_session=; Max-Age=0",
            "__host-PORTCULLIS_session=evil",
            " __Host-portcullis_session =evil",
            "=__Host-portcullis_session=evil",
            " = __Host-portcullis_session=evil",
            "__Host-portcullis_session",
            "__Host-portcullis_anything=x",
        ] {
            gone("Set-Cookie", line);
        }
        let lines = [
            ("Set-Cookie", "a=1; HttpOnly"),
            ("Set-Cookie", "__Host-portcullis_session=evil"),
            ("Set-Cookie", "b=__Host-portcullis_session; Path=/x"),
        ];
        let kept = values(&cleaned_by(&rule(), &lines), "set-cookie");
        assert_eq!(
            kept,
            ["a=1; HttpOnly", "b=__Host-portcullis_session; Path=/x"]
        );
    }

    #[test]
    fn clear_site_data_loses_what_would_sign_out() {
        gone("Clear-Site-Data", "\"cookies\"");
        gone("Clear-Site-Data", "cookies");
        gone("Clear-Site-Data", "\"Cookies\"");
        becomes(
            "Clear-Site-Data",
            "\"cache\", \"cookies\", \"storage\"",
            "\"cache\", \"storage\"",
        );
        becomes("Clear-Site-Data", "\"*\"", "\"cache\", \"storage\"");
        becomes("Clear-Site-Data", "\"cache\"", "\"cache\"");
    }

    #[test]
    fn addresses_in_known_fields_become_the_clients() {
        becomes(
            "Location",
            "http://10.0.0.5:8080/a?b",
            "https://wiki.example.com/a?b",
        );
        becomes("Location", "//10.0.0.5:8080/a", "//wiki.example.com/a");
        becomes(
            "Location",
            "http://localhost:3000/",
            "https://wiki.example.com/",
        );
        becomes("Location", "/a", "/a");
        becomes("Location", "https://example.org/", "https://example.org/");
        becomes(
            "Content-Location",
            "http://10.0.0.5:8080/x",
            "https://wiki.example.com/x",
        );
        becomes(
            "Refresh",
            "3; url=http://10.0.0.5:8080/",
            "3; url=https://wiki.example.com/",
        );
        becomes(
            "Link",
            "<http://10.0.0.5:8080/p?2>; rel=next",
            "<https://wiki.example.com/p?2>; rel=next",
        );
        becomes(
            "Content-Security-Policy",
            "connect-src 10.0.0.5:8080; report-uri http://10.0.0.5:8080/r",
            "connect-src wiki.example.com; report-uri https://wiki.example.com/r",
        );
        becomes(
            "Access-Control-Allow-Origin",
            "http://10.0.0.5:8080",
            "https://wiki.example.com",
        );
        becomes(
            "WWW-Authenticate",
            "Bearer realm=\"http://10.0.0.5:8080/token\"",
            "Bearer realm=\"https://wiki.example.com/token\"",
        );
        becomes(
            "X-Next",
            "http://10.0.0.5:8080/n",
            "https://wiki.example.com/n",
        );
    }

    #[test]
    fn addresses_stay_where_a_policy_wants_them() {
        let rule = Rule {
            rewrite_addresses: false,
            ..rule()
        };
        let lines = [
            ("Location", "http://10.0.0.5:8080/"),
            ("Set-Cookie", "a=1; Domain=localhost"),
        ];
        let headers = cleaned_by(&rule, &lines);
        assert_eq!(values(&headers, "location"), ["http://10.0.0.5:8080/"]);
        assert_eq!(values(&headers, "set-cookie"), ["a=1; Domain=localhost"]);
    }

    #[test]
    fn a_cookie_for_an_internal_domain_is_for_this_host() {
        becomes(
            "Set-Cookie",
            "a=1; Domain=app.internal; Path=/x; Secure",
            "a=1; Path=/x; Secure",
        );
        becomes("Set-Cookie", "a=1;DOMAIN = .10.0.0.5", "a=1");
        becomes(
            "Set-Cookie",
            "a=1; Domain=example.com",
            "a=1; Domain=example.com",
        );
        becomes(
            "Set-Cookie",
            "a=1; Domain=wiki.example.com",
            "a=1; Domain=wiki.example.com",
        );
        becomes(
            "Set-Cookie",
            "domain=localhost; Path=/",
            "domain=localhost; Path=/",
        );
        becomes(
            "Set-Cookie",
            "u=http://10.0.0.5:8080/; Path=/",
            "u=http://10.0.0.5:8080/; Path=/",
        );
    }

    #[test]
    fn cookies_that_name_a_machine_go_where_a_policy_says_so() {
        let line = (
            "Set-Cookie",
            "BIGipServerpool_wiki=1677787402.36895.0000; path=/",
        );
        assert_eq!(
            values(&cleaned_by(&rule(), &[line]), "set-cookie"),
            [line.1]
        );
        let strict = Rule {
            strip_balancer_cookies: true,
            ..rule()
        };
        let headers = cleaned_by(&strict, &[line, ("Set-Cookie", "PHPSESSID=1")]);
        assert_eq!(values(&headers, "set-cookie"), ["PHPSESSID=1"]);
    }

    #[test]
    fn every_connection_line_names_what_goes() {
        let lines = [
            ("Connection", "close, x-one"),
            ("Connection", "X-Two"),
            ("X-One", "1"),
            ("X-Two", "2"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authenticate", "Basic"),
            ("Upgrade", "h2c"),
        ];
        let headers = cleaned_by(&rule(), &lines);
        assert!(
            lines.iter().all(|(name, _)| !headers.contains_key(*name)),
            "{headers:?}"
        );
        let unreadable = cleaned_by(&rule(), &[("Connection", "a b"), ("Keep-Alive", "1")]);
        assert!(!unreadable.contains_key("keep-alive") && !unreadable.contains_key("connection"));
    }

    #[test]
    fn a_backends_error_page_gives_way_to_ours() {
        let lines = [
            ("Content-Type", "text/html"),
            ("Content-Length", "123"),
            ("Content-Encoding", "gzip"),
            ("ETag", "\"1\""),
            ("X-Own", "1"),
            ("Retry-After", "5"),
            ("Set-Cookie", "a=1"),
            ("Access-Control-Allow-Origin", "*"),
        ];
        let mut headers = fields(&lines);
        let status = StatusCode::BAD_GATEWAY;
        assert_eq!(
            rewrite(&rule(), &facts(status), &mut headers),
            Content::Ours
        );
        for (name, _) in &lines[..5] {
            assert!(!headers.contains_key(*name), "{name}");
        }
        for (name, _) in &lines[5..] {
            assert!(headers.contains_key(*name), "{name}");
        }

        let pass = Rule {
            errors: Errors::Pass,
            ..rule()
        };
        assert_eq!(
            rewrite(&pass, &facts(status), &mut fields(&lines)),
            Content::Backends
        );
        let missing = facts(StatusCode::NOT_FOUND);
        assert_eq!(
            rewrite(&rule(), &missing, &mut fields(&lines)),
            Content::Backends
        );
    }

    #[test]
    fn fields_that_protect_the_browser_are_set_where_there_are_none() {
        let headers = cleaned_by(&rule(), &[]);
        assert_eq!(values(&headers, "x-content-type-options"), ["nosniff"]);
        assert_eq!(
            values(&headers, "referrer-policy"),
            ["strict-origin-when-cross-origin"]
        );
        assert_eq!(values(&headers, "x-frame-options"), ["SAMEORIGIN"]);
        assert_eq!(
            values(&headers, "strict-transport-security"),
            ["max-age=31536000"]
        );
        assert_eq!(headers.len(), 4);

        let own = [
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Strict-Transport-Security", "max-age=1"),
        ];
        let headers = cleaned_by(&rule(), &own);
        for (name, value) in own {
            assert_eq!(values(&headers, name), [value]);
        }
        let framed = [(
            "Content-Security-Policy",
            "default-src 'self'; Frame-Ancestors *",
        )];
        assert!(!cleaned_by(&rule(), &framed).contains_key("x-frame-options"));
        let off = Rule {
            protect: false,
            hsts: None,
            ..rule()
        };
        assert!(cleaned_by(&off, &[]).is_empty());
    }

    #[test]
    fn nothing_is_said_of_tls_over_plain_http() {
        let mut headers = fields(&[("Strict-Transport-Security", "max-age=1")]);
        let public = Public {
            scheme: "http",
            authority: "wiki.example.com",
        };
        let plain = Facts {
            public,
            ..facts(StatusCode::OK)
        };
        rewrite(&rule(), &plain, &mut headers);
        assert!(!headers.contains_key("strict-transport-security"));
    }

    #[test]
    fn an_interim_response_is_cleaned_and_nothing_is_added() {
        let mut headers = fields(&[("Link", "<//10.0.0.5/a.css>; rel=preload"), ("Server", "x")]);
        rewrite(&rule(), &facts(StatusCode::EARLY_HINTS), &mut headers);
        assert_eq!(
            headers,
            fields(&[("Link", "<//wiki.example.com/a.css>; rel=preload")])
        );
    }

    #[test]
    fn trailers_pass_the_same_filter() {
        let mut trailers = fields(&[
            ("Server", "nginx"),
            ("X-Portcullis-User", "admin"),
            ("Set-Cookie", "a=1"),
            ("Content-Type", "text/html"),
            ("Grpc-Status", "0"),
            ("Grpc-Message", "see http://10.0.0.5:8080/x"),
        ]);
        clean_trailers(&rule(), &facts(StatusCode::OK), &mut trailers);
        let expected = fields(&[
            ("Grpc-Status", "0"),
            ("Grpc-Message", "see https://wiki.example.com/x"),
        ]);
        assert_eq!(trailers, expected);
    }

    fn a_name() -> impl Strategy<Value = String> {
        prop_oneof![
            "Server|Via|Location|Link|Refresh|Set-Cookie|Clear-Site-Data|Connection|ETag|X-Own",
            "Content-Security-Policy|X[-_]Groups|X-Forwarded-[a-c]|X-Amz-[a-c]|X-WP-Total",
        ]
    }

    fn a_value() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c]{0,3}",
            "(http|ws|//)?(://)?10\\.0\\.0\\.5(:8080)?/?",
            "\"(cookies|cache|\\*)\"(, ?\"(cookies|storage|\\*)\")?",
            "[= ]{0,2}__[Hh]ost-portcullis_session=x(; ?Domain=(app\\.local|example\\.com))?",
            "a=b; ?[Dd]omain= ?(localhost|example\\.com)(; Path=/)?(; ?domain=10\\.0\\.0\\.5)?",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn whatever_a_backend_sends_is_clean_after_once(
            lines in proptest::collection::vec((a_name(), a_value()), 0..8),
        ) {
            let lines: Vec<_> =
                lines.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            fuzzing::response_headers(&lines);
        }
    }
}
