//! 8. response headers: what the client may learn of the backend.
//!
//! | when | then |
//! |---|---|
//! | a field belongs to the connection, or any `Connection` line names it | removed (RFC 9110 §7.6.1) |
//! | a field names people or connections as the gateway does | removed, whatever a policy keeps |
//! | a field is in the policy's `remove`, or of a family that gateways speak and not in `keep` | removed |
//! | the policy has `[cors]`, and a field says which pages may read the answer | removed: `cors` says it |
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

use std::rc::Rc;
use std::sync::Arc;

use http::header::{
    CONTENT_LOCATION, CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, ETAG, LINK,
    LOCATION, REFERRER_POLICY, REFRESH, RETRY_AFTER, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::backend::pool::Conn;
use crate::body::Body;
use crate::pages::{self, Asked, Context};
use crate::pipeline::forward::{Inbound, InboundParts};
use crate::pipeline::request_headers::ReservedNames;
use crate::pipeline::standing::Standing;
use crate::pure::banner::{BadLine, Lists};
use crate::pure::connection::Connection;
use crate::pure::fields::Fields;
use crate::pure::internal_url::{Internal, Kind, Public};
use crate::pure::names::Names;
use crate::pure::table::Table;
use crate::pure::target::Host;
use crate::pure::{cookie, hop};
use crate::record::Record;
use crate::response::{Early, Response};

/// The names that give backends away, as shipped.
const BACKEND_FIELDS: &str = include_str!("response_headers/backend_fields.txt");

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
const SOURCE_MAP: HeaderName = HeaderName::from_static("sourcemap");
const X_SOURCE_MAP: HeaderName = HeaderName::from_static("x-sourcemap");
static NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
static STRICT_ORIGIN: HeaderValue = HeaderValue::from_static("strict-origin-when-cross-origin");
static SAMEORIGIN: HeaderValue = HeaderValue::from_static("SAMEORIGIN");

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
    /// Whether the policy says which pages may read answers, so that a backend does not.
    pub has_cors: bool,
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

/// A response that passed every stage.
#[derive(Debug)]
pub struct Passed {
    /// The response.
    pub response: Response,
    /// The backend's side of a WebSocket, and what that rests on.
    pub switched: Option<(Conn, Option<Rc<Standing>>)>,
}

/// Makes of a backend's response what its client gets, or puts the gate's page in its place, which
/// says whom to ask.
pub fn clean(
    rule: &Arc<Rule>,
    reserved: &Arc<ReservedNames>,
    conn: &Connection,
    asked: &Asked,
    contact: Option<&str>,
    inbound: Inbound,
    seen: &Record,
) -> Passed {
    let InboundParts {
        response,
        authority,
        switched,
        standing,
    } = inbound.into_parts();
    let public = Public {
        scheme: conn.scheme(),
        authority: &authority,
    };
    let status = response.status;
    let (cleaned, content) = clean_message(rule, reserved, &public, response);
    let response = match content {
        Content::Backends => cleaned,
        Content::Ours => {
            let ctx = Context {
                contact,
                ..Context::new(asked, seen)
            };
            let mut page = Response::from(pages::refusal::instead_of_backend_error(status, &ctx));
            let ours = page.fields.clone();
            for (name, value) in cleaned.fields {
                if !ours.contains(&name) {
                    page.fields.append(name, value);
                }
            }
            page
        }
    };
    Passed {
        response,
        switched: switched.map(|conn| (conn, standing)),
    }
}

/// Passes interim responses on to a client, cleaned as the final one will be.
pub fn early<'a>(
    rule: &'a Rule,
    reserved: &'a ReservedNames,
    conn: &'a Connection,
    authority: String,
    client: Early<'a>,
) -> impl Fn(StatusCode, Fields) + 'a {
    move |status, mut fields| {
        let public = Public {
            scheme: conn.scheme(),
            authority: &authority,
        };
        let facts = Facts {
            reserved,
            public,
            status,
        };
        rewrite(rule, &facts, &mut fields);
        client(Response {
            status,
            fields,
            body: Body::Empty,
        });
    }
}

/// Makes of a backend's response what its client gets, and says whose content it is to have;
/// `public` is the origin that the client used.
pub fn clean_message(
    rule: &Arc<Rule>,
    reserved: &Arc<ReservedNames>,
    public: &Public<'_>,
    mut response: Response,
) -> (Response, Content) {
    let status = response.status;
    let facts = Facts {
        reserved,
        public: *public,
        status,
    };
    let content = rewrite(rule, &facts, &mut response.fields);
    match (content, &response.body) {
        (Content::Ours, _) => response.body = Body::Empty,
        // Most content is at hand whole, and without trailers.
        (Content::Backends, Body::Empty | Body::Full(_)) => {}
        (Content::Backends, Body::Stream(_)) => {
            let (rule, reserved) = (Arc::clone(rule), Arc::clone(reserved));
            let (scheme, authority) = (public.scheme.to_owned(), public.authority.to_owned());
            response.body = response.body.with_trailers(move |trailers| {
                let public = Public {
                    scheme: &scheme,
                    authority: &authority,
                };
                let facts = Facts {
                    reserved: &reserved,
                    public,
                    status,
                };
                clean_trailers(&rule, &facts, trailers);
            });
        }
    }
    (response, content)
}

/// Makes of a backend's fields those for the client, and says whose body goes with them.
pub fn rewrite(rule: &Rule, facts: &Facts<'_>, headers: &mut Fields) -> Content {
    clean_fields(rule, facts, headers);
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
pub fn clean_trailers(rule: &Rule, facts: &Facts<'_>, trailers: &mut Fields) {
    trailers.retain(|name, _| !is_early(name));
    clean_fields(rule, facts, trailers);
}

fn clean_fields(rule: &Rule, facts: &Facts<'_>, headers: &mut Fields) {
    // Unlike a client, a backend gains nothing by a line that can't be read: the names that are
    // always the connection's still go.
    let options = hop::connection_options(headers).unwrap_or_default();
    headers.retain(|name, value| {
        !hop::is_hop_by_hop(name, &options) && rule.leaves(facts, name, value)
    });
}

impl Rule {
    /// Whose body goes with a status.
    pub fn content_for(&self, status: StatusCode) -> Content {
        match self.errors {
            Errors::Replace if status.is_server_error() => Content::Ours,
            Errors::Replace | Errors::Pass => Content::Backends,
        }
    }

    /// Whether a line leaves, with its value as the client gets it.
    fn leaves(&self, facts: &Facts<'_>, name: &HeaderName, value: &mut HeaderValue) -> bool {
        if self.is_dropped(name, facts.reserved)
            || name == STRICT_TRANSPORT_SECURITY && !facts.is_tls()
        {
            return false;
        }
        let rewritten = if name == SET_COOKIE {
            match cleaned_cookie(self, facts, value) {
                Some(line) => line,
                None => return false,
            }
        } else if name == CLEAR_SITE_DATA {
            match without_cookies(value) {
                Some(rest) => rest,
                None => return false,
            }
        } else if self.rewrite_addresses
            && let Some(kind) = kind_of(name)
            && let Some(rewritten) = self.internal.rewrite(value.as_bytes(), kind, &facts.public)
        {
            match HeaderValue::from_bytes(&rewritten) {
                Ok(rewritten) => rewritten,
                Err(_) => return false,
            }
        } else {
            return true;
        };
        *value = rewritten;
        true
    }

    fn is_dropped(&self, name: &HeaderName, reserved: &ReservedNames) -> bool {
        let reservation = reserved.of(name);
        let of_readers = self.has_cors && says_who_reads(name);
        if reservation.identity || of_readers || self.remove.contains(name) {
            return true;
        }
        if self.keep.contains(name) {
            return false;
        }
        let listed = match self.mode {
            Mode::Off => false,
            Mode::Strip => self.lists.of(name).stripped,
            Mode::Allowlist => !self.lists.of(name).allowed,
        };
        listed || reservation.family
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
fn keep_beside_our_page(headers: &mut Fields) {
    headers.retain(|name, _| says_who_reads(name) || name == RETRY_AFTER || name == SET_COOKIE);
}

/// Fields of the CORS protocol (Fetch §3.2.3).
fn says_who_reads(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-")
}

fn protect(rule: &Rule, facts: &Facts<'_>, headers: &mut Fields) {
    if let Some(hsts) = &rule.hsts
        && facts.is_tls()
    {
        headers.set_if_missing(STRICT_TRANSPORT_SECURITY, hsts);
    }
    if !rule.protect {
        return;
    }
    headers.set_if_missing(X_CONTENT_TYPE_OPTIONS, &NOSNIFF);
    headers.set_if_missing(REFERRER_POLICY, &STRICT_ORIGIN);
    let frames = |policy: &HeaderValue| {
        let wanted = b"frame-ancestors";
        policy
            .as_bytes()
            .windows(wanted.len())
            .any(|w| w.eq_ignore_ascii_case(wanted))
    };
    if !headers.all(&CONTENT_SECURITY_POLICY).any(frames) {
        headers.set_if_missing(X_FRAME_OPTIONS, &SAMEORIGIN);
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
    EARLY.contains(&name.as_str()) || name.as_str().starts_with("content-") || says_who_reads(name)
}

/// Reads what `[headers]` of an application or a path says of responses; what it does not say is as
/// in `base`. Its keys stand in `request_headers::KEYS`.
pub fn read(headers: Option<&Table>, base: &Rule) -> Rule {
    let mut rule = base.clone();
    let Some(table) = headers else { return rule };
    if let Some(mode) = table.value("mode", mode) {
        rule.mode = mode;
    }
    let expected = |expected| format!("expected {expected}");
    table.list("keep", |text| rule.keep.insert(text).map_err(expected));
    table.list("remove", |text| rule.remove.insert(text).map_err(expected));
    if let Some(rewrite) = table.value("addresses", |text| either(text, "rewrite", "pass")) {
        rule.rewrite_addresses = rewrite;
    }
    for host in table.list("external", host).unwrap_or_default() {
        rule.internal.leave(host.as_str());
    }
    if let Some(strip) = table.value("balancer_cookies", |text| either(text, "strip", "pass")) {
        rule.strip_balancer_cookies = strip;
    }
    if let Some(replace) = table.value("errors", |text| either(text, "replace", "pass")) {
        rule.errors = if replace {
            Errors::Replace
        } else {
            Errors::Pass
        };
    }
    if let Some(protect) = table.boolean("security_fields") {
        rule.protect = protect;
    }
    rule
}

impl Rule {
    /// What holds where a policy says nothing, before these backends.
    pub fn new(lists: Arc<Lists>, hsts: Option<HeaderValue>, internal: Internal) -> Self {
        Self {
            mode: Mode::Strip,
            lists,
            keep: Names::default(),
            remove: Names::default(),
            internal,
            rewrite_addresses: true,
            errors: Errors::Replace,
            strip_balancer_cookies: false,
            protect: true,
            has_cors: false,
            hsts,
        }
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "strip" => Ok(Mode::Strip),
        "allowlist" => Ok(Mode::Allowlist),
        "off" => Ok(Mode::Off),
        _ => Err("expected `strip`, `allowlist` or `off`".to_owned()),
    }
}

fn either(text: &str, yes: &str, no: &str) -> Result<bool, String> {
    if text == yes {
        Ok(true)
    } else if text == no {
        Ok(false)
    } else {
        Err(format!("expected `{yes}` or `{no}`"))
    }
}

fn host(text: &str) -> Result<Host, String> {
    Host::parse(text.as_bytes())
        .map_err(|_| "expected a host without scheme or port, such as `sso.internal`".to_owned())
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use std::sync::LazyLock;

    use super::*;
    use crate::pipeline::request_headers;

    static LISTS: LazyLock<Arc<Lists>> =
        LazyLock::new(|| Arc::new(shipped_lists().expect("the shipped file is read")));

    /// A rule that cleans all that it can, before a backend at `10.0.0.5:8080`.
    pub fn rule() -> Rule {
        Rule {
            mode: Mode::Strip,
            lists: LISTS.clone(),
            keep: Names::default(),
            remove: Names::default(),
            internal: Internal::new([("10.0.0.5", Some(8080))], []),
            rewrite_addresses: true,
            errors: Errors::Replace,
            strip_balancer_cookies: false,
            protect: true,
            has_cors: false,
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

    /// What stands before the attributes of a `Set-Cookie`.
    fn pair(line: &HeaderValue) -> &[u8] {
        line.as_bytes()
            .split(|b| *b == b';')
            .next()
            .unwrap_or_default()
    }

    /// Whatever a backend sends: cleaning twice is cleaning once, and no name, cookie or address
    /// is left that must not be.
    pub fn response_headers(lines: &[u8]) {
        let headers = request_headers::fuzzing::fields(lines);
        for mode in [Mode::Strip, Mode::Allowlist, Mode::Off] {
            let rule = Rule { mode, ..rule() };
            let mut once = headers.clone();
            rewrite(&rule, &facts(StatusCode::OK), &mut once);
            for (name, value) in once.iter() {
                let reservation = request_headers::fuzzing::reserved().of(name);
                assert!(!reservation.identity, "{name} survives");
                let stripped = rule.lists.strip.contains(name) && !rule.lists.keep.contains(name);
                assert!(mode == Mode::Off || !stripped, "{name} survives");
                assert!(
                    name != SET_COOKIE || !is_ours(pair(value)),
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
mod tests;
