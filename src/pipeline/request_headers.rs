//! 6. request headers: what the backend learns, of the request and of who sent it.
//!
//! | when | then |
//! |---|---|
//! | a field name has anything but letters, digits and `-`, and `allow_names` does not list it | 400 `request_headers.odd_name` |
//! | a `Connection` line can't be read | 400 `request_headers.bad_connection` |
//! | a field belongs to the connection, or any `Connection` line names it | removed (RFC 9110 §7.6.1) |
//! | a field is reserved in any spelling: `reserved_fields.txt`, and what the gateway sends on any route | removed |
//! | a cookie is the gateway's | removed; the others go on in one line |
//! | `Authorization` is what signed the user in | removed |
//! | the user's name, address or groups can't be written | 500 `request_headers.identity_unencodable` |
//! | otherwise | the gateway's own fields are set, each once |
//!
//! Deletes first, then sets: what the gateway has nothing to say about stays unsaid. `Outbound` is
//! made here only, and this is the only place that writes an identity. Never writes framing.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::pure::banner::Names;
use crate::pure::encode_identity::{Unencodable, encode, encode_list};
use crate::pure::identity::User;
use crate::pure::spelling::{self, Reserved};
use crate::pure::{cookie, hop};
use crate::refusal::{Answer, Refusal};

/// The families of names that only a gateway may speak.
const FAMILIES: &str = include_str!("reserved_fields.txt");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// What an application's backend learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Under which names it learns it.
    pub names: FieldNames,
    /// What of a user's identity it learns.
    pub identity: Identity,
    /// Field names outside letters, digits and `-` that it needs.
    pub allow_names: HashSet<HeaderName>,
    /// Fields of reserved families that its clients may send after all; never the gateway's own.
    pub trust_client_fields: HashSet<HeaderName>,
    /// Whether `Forwarded` (RFC 7239) is sent, too.
    pub forwarded: bool,
    /// What becomes of trace context.
    pub trace: Trace,
}

/// The names of the gateway's own fields that an operator can choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldNames {
    /// The user's name.
    pub user: HeaderName,
    /// The user's e-mail address.
    pub email: HeaderName,
    /// The user's groups, joined by `,`.
    pub groups: HeaderName,
    /// The request's id.
    pub request_id: HeaderName,
}

impl Default for FieldNames {
    fn default() -> Self {
        Self {
            user: HeaderName::from_static("x-portcullis-user"),
            email: HeaderName::from_static("x-portcullis-email"),
            groups: HeaderName::from_static("x-portcullis-groups"),
            request_id: HeaderName::from_static("x-request-id"),
        }
    }
}

/// What of a user's identity a backend learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub user: bool,
    /// The e-mail address, where the provider states one.
    pub email: bool,
    /// The groups.
    pub groups: bool,
}

/// What becomes of a client's trace context (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trace {
    /// It is dropped: a new trace begins, with the request's id.
    #[default]
    New,
    /// It is kept where it is valid: for clients that are part of the same system.
    Keep,
    /// It is dropped, and none is sent.
    Off,
}

/// What is known of a request when its fields are rebuilt.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What only the gateway may say, on any route.
    pub reserved: &'a ReservedNames,
    /// `http` or `https`, as the client used it.
    pub scheme: &'a str,
    /// The canonical host, with a port where the client gave one.
    pub authority: &'a str,
    /// The resolved client.
    pub client: IpAddr,
    /// Who asks, when somebody is signed in.
    pub user: Option<&'a User>,
    /// Whether `Authorization` is what signed them in.
    pub authorization_consumed: bool,
    /// Our own id of the request: 32 lower-case hexadecimal digits.
    pub request_id: &'a str,
}

/// Why a request's fields can't be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A field name that backends read in different ways.
    OddName,
    /// `Connection` can't be read: what belongs to the connection is unknown.
    BadConnection,
    /// `Cookie` can't be read: whether it holds the gateway's is unknown.
    BadCookie,
    /// The user's name, address or groups can't be written into a field.
    IdentityUnencodable(Unencodable),
    /// The gateway's own words do not make a field.
    Unwritable,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let (answer, reason) = match refused {
            Refused::OddName => (Answer::BadRequest, "request_headers.odd_name"),
            Refused::BadConnection => (Answer::BadRequest, "request_headers.bad_connection"),
            Refused::BadCookie => (Answer::BadRequest, "request_headers.bad_cookie"),
            Refused::IdentityUnencodable(_) => {
                (Answer::Internal, "request_headers.identity_unencodable")
            }
            Refused::Unwritable => (Answer::Internal, "request_headers.unwritable"),
        };
        Self::new(answer, reason)
    }
}

/// Makes of a client's fields those for the backend, but for framing and what the connection to the
/// backend needs.
///
/// # Errors
/// When a field can't be read in one way only, or the user can't be named.
pub fn rewrite(rule: &Rule, facts: &Facts<'_>, headers: &mut HeaderMap) -> Result<(), Refused> {
    let options = hop::connection_options(headers).map_err(|_| Refused::BadConnection)?;
    hop::strip(headers, &options);

    let trace = rule.trace_of(facts, headers)?;
    let mut gone = Vec::new();
    for name in headers.keys() {
        if !spelling::is_plain(name.as_str().as_bytes()) && !rule.allow_names.contains(name) {
            return Err(Refused::OddName);
        }
        if rule.is_dropped(name, facts, trace == Traced::Kept) {
            gone.push(name.clone());
        }
    }
    for name in &gone {
        headers.remove(name);
    }
    if headers.contains_key(COOKIE) {
        match cookie::without_ours(headers).map_err(|_| Refused::BadCookie)? {
            Some(others) => headers.insert(COOKIE, others),
            None => headers.remove(COOKIE),
        };
    }

    if let Traced::New(value) = trace {
        headers.insert(TRACEPARENT, value);
    }
    set_connection_fields(rule, facts, headers)?;
    set_identity(rule, facts, headers)
}

/// Removes from a request's trailers what must not come after the fact, and what no client may say.
pub fn clean_trailers(rule: &Rule, reserved: &ReservedNames, trailers: &mut HeaderMap) {
    let odd = |name: &HeaderName| {
        !spelling::is_plain(name.as_str().as_bytes()) && !rule.allow_names.contains(name)
    };
    let gone: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| odd(name) || is_early(name) || rule.is_reserved(name, reserved))
        .cloned()
        .collect();
    for name in &gone {
        trailers.remove(name);
    }
}

impl Rule {
    fn is_dropped(&self, name: &HeaderName, facts: &Facts<'_>, keep_trace: bool) -> bool {
        if name == AUTHORIZATION {
            return facts.authorization_consumed;
        }
        if name == TRACEPARENT || name == TRACESTATE || name == BAGGAGE {
            return !keep_trace;
        }
        is_framing(name) || name == EXPECT || self.is_reserved(name, facts.reserved)
    }

    fn is_reserved(&self, name: &HeaderName, reserved: &ReservedNames) -> bool {
        self.names.contain(name)
            || reserved.is_own(name)
            || reserved.in_families(name) && !self.trust_client_fields.contains(name)
    }

    fn trace_of(&self, facts: &Facts<'_>, headers: &HeaderMap) -> Result<Traced, Refused> {
        match self.trace {
            Trace::Off => return Ok(Traced::None),
            Trace::Keep if has_valid_trace(headers) => return Ok(Traced::Kept),
            Trace::Keep | Trace::New => {}
        }
        // The request's id is a trace id, too, so that the access log and a trace name each other.
        let span = facts.request_id.get(..16).unwrap_or_default();
        let text = format!("00-{}-{span}-01", facts.request_id);
        if is_traceparent(text.as_bytes()) {
            writable(&text).map(Traced::New)
        } else {
            Err(Refused::Unwritable)
        }
    }
}

/// What is sent as trace context.
#[derive(Debug, PartialEq, Eq)]
enum Traced {
    None,
    Kept,
    New(HeaderValue),
}

fn set_connection_fields(
    rule: &Rule,
    facts: &Facts<'_>,
    headers: &mut HeaderMap,
) -> Result<(), Refused> {
    let host = writable(facts.authority)?;
    headers.insert(X_FORWARDED_FOR, writable(&facts.client.to_string())?);
    headers.insert(X_FORWARDED_PROTO, writable(facts.scheme)?);
    headers.insert(X_FORWARDED_PORT, HeaderValue::from(facts.port()));
    headers.insert(X_FORWARDED_HOST, host);
    headers.insert(rule.names.request_id.clone(), writable(facts.request_id)?);
    if rule.forwarded {
        headers.insert(FORWARDED, writable(&facts.forwarded())?);
    }
    Ok(())
}

fn set_identity(rule: &Rule, facts: &Facts<'_>, headers: &mut HeaderMap) -> Result<(), Refused> {
    let Some(user) = facts.user else {
        return Ok(());
    };
    let Rule {
        names, identity, ..
    } = rule;
    if identity.user {
        let name = encode(&user.name).map_err(Refused::IdentityUnencodable)?;
        headers.insert(names.user.clone(), name);
    }
    if identity.email
        && let Some(email) = &user.email
    {
        let email = encode(email).map_err(Refused::IdentityUnencodable)?;
        headers.insert(names.email.clone(), email);
    }
    if identity.groups {
        let groups = encode_list(user.groups.iter().map(|group| &**group));
        if let Some(groups) = groups.map_err(Refused::IdentityUnencodable)? {
            headers.insert(names.groups.clone(), groups);
        }
    }
    Ok(())
}

impl Facts<'_> {
    /// The port that the client used, said or not.
    fn port(&self) -> u16 {
        let after_host = self
            .authority
            .rsplit_once(']')
            .map_or(self.authority, |(_, port)| port);
        let said = after_host
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        said.unwrap_or(if self.scheme == "https" { 443 } else { 80 })
    }

    /// The one element of `Forwarded` (RFC 7239 §4): quoted where it is no token.
    fn forwarded(&self) -> String {
        let mut text = String::with_capacity(96);
        let written = match self.client {
            IpAddr::V4(v4) => write!(text, "for={v4}"),
            IpAddr::V6(v6) => write!(text, "for=\"[{v6}]\""),
        };
        let quote = if self.authority.contains([':', '[']) {
            "\""
        } else {
            ""
        };
        let (host, proto) = (self.authority, self.scheme);
        let written =
            written.and_then(|()| write!(text, ";host={quote}{host}{quote};proto={proto}"));
        // INVARIANT: writing to a string does not fail; an empty value is refused if it does.
        if written.is_ok() { text } else { String::new() }
    }
}

fn writable(text: &str) -> Result<HeaderValue, Refused> {
    match HeaderValue::from_str(text) {
        Ok(value) if !text.is_empty() => Ok(value),
        Ok(_) | Err(_) => Err(Refused::Unwritable),
    }
}

fn is_framing(name: &HeaderName) -> bool {
    name == HOST || name == CONTENT_LENGTH || name == TRANSFER_ENCODING
}

/// Fields that say how to read what came before trailers do (RFC 9110 §6.5.1).
fn is_early(name: &HeaderName) -> bool {
    const EARLY: [&str; 16] = [
        "accept",
        "authorization",
        "cache-control",
        "connection",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "max-forwards",
        "pragma",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    ];
    let name = name.as_str();
    EARLY.contains(&name) || name.starts_with("content-") || name.starts_with("if-")
}

fn has_valid_trace(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return false;
    };
    is_traceparent(line.as_bytes())
}

/// Whether this is version 00 of `traceparent` (W3C Trace Context §3.2).
fn is_traceparent(value: &[u8]) -> bool {
    let mut parts = value.split(|b| *b == b'-');
    let mut is_hex = |length: usize, may_be_zero: bool| {
        parts.next().is_some_and(|part| {
            part.len() == length
                && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                && (may_be_zero || part.iter().any(|b| *b != b'0'))
        })
    };
    value.starts_with(b"00-")
        && is_hex(2, true)
        && is_hex(32, false)
        && is_hex(16, false)
        && is_hex(2, true)
        && parts.next().is_none()
}

impl FieldNames {
    fn contain(&self, name: &HeaderName) -> bool {
        [&self.user, &self.email, &self.groups, &self.request_id].contains(&name)
    }
}

/// The names that only the gateway may speak, on any route.
#[derive(Debug)]
pub struct ReservedNames {
    /// By which the gateway names people and connections.
    own: Reserved,
    /// By which it names requests.
    request_ids: Reserved,
    families: Reserved,
    /// Names of those families that clients may send all the same.
    spared: Names,
}

impl ReservedNames {
    /// The names that stay reserved where these are what the routes send: what one backend
    /// believes, no client may say to any.
    ///
    /// # Errors
    /// A word of the shipped file that is no name.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n FieldNames>) -> Result<Self, String> {
        let words = || {
            FAMILIES
                .lines()
                .map(|line| line.split_once('#').map_or(line, |(said, _)| said))
                .flat_map(str::split_ascii_whitespace)
        };
        let families = || words().filter(|word| !word.starts_with('!'));
        let (mut own, mut request_ids) = (vec!["forwarded", "x-real-ip"], Vec::new());
        for FieldNames {
            user,
            email,
            groups,
            request_id,
        } in names
        {
            own.extend([user.as_str(), email.as_str(), groups.as_str()]);
            request_ids.push(request_id.as_str());
        }
        Ok(Self {
            own: Reserved::new(own, ["x-forwarded-", "x-portcullis-"]),
            request_ids: Reserved::new(request_ids, []),
            families: Reserved::new(
                families().filter(|word| !word.ends_with('*')),
                families().filter_map(|word| word.strip_suffix('*')),
            ),
            spared: Names::new(words().filter_map(|word| word.strip_prefix('!')))?,
        })
    }

    /// Whether a request's field is the gateway's to send, in any spelling.
    pub fn in_request(&self, name: &HeaderName) -> bool {
        self.is_own(name) || self.in_families(name)
    }

    /// Whether a field names people or connections as the gateway does: a backend has no business
    /// sending it back, and no policy can let it.
    pub fn is_identity(&self, name: &HeaderName) -> bool {
        self.own.contains(name)
    }

    /// Whether a field is of a family that some gateway speaks.
    pub fn in_families(&self, name: &HeaderName) -> bool {
        self.families.contains(name) && !self.spared.contains(name)
    }

    /// Whether no policy can let a client send this field.
    pub fn is_own(&self, name: &HeaderName) -> bool {
        self.own.contains(name) || self.request_ids.contains(name)
    }
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use std::sync::LazyLock;

    use super::*;

    /// A rule with every field set.
    pub fn rule() -> Rule {
        let name = HeaderName::from_static;
        let own = FieldNames {
            email: name("x-mail"),
            groups: name("x-groups"),
            ..FieldNames::default()
        };
        Rule {
            names: own,
            identity: Identity {
                user: true,
                email: true,
                groups: true,
            },
            allow_names: HashSet::from([name("x_odd_name"), name("x_mail")]),
            trust_client_fields: HashSet::new(),
            forwarded: true,
            trace: Trace::New,
        }
    }

    /// What is reserved beside that rule, and one of another application.
    pub fn reserved() -> &'static ReservedNames {
        static RESERVED: LazyLock<ReservedNames> = LazyLock::new(|| {
            let user = HeaderName::from_static("x-elsewhere");
            let elsewhere = FieldNames {
                user,
                ..FieldNames::default()
            };
            let names = [rule().names, elsewhere];
            ReservedNames::new(&names).expect("the shipped file is read")
        });
        &RESERVED
    }

    /// What is known of a request by bob.
    pub fn facts(user: Option<&User>) -> Facts<'_> {
        Facts {
            reserved: reserved(),
            scheme: "https",
            authority: "wiki.example.com",
            client: IpAddr::from([192, 0, 2, 1]),
            user,
            authorization_consumed: true,
            request_id: "0123456789abcdef0123456789abcdef",
        }
    }

    /// Whatever a client sends: rebuilding twice is rebuilding once, and what the gateway says is
    /// what it says to a request without any field.
    pub fn request_headers(lines: &[(&[u8], &[u8])]) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let pair = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
            if let (Ok(name), Ok(value)) = pair {
                headers.append(name, value);
            }
        }
        let (rule, user) = (rule(), user());
        let facts = facts(Some(&user));
        let mut bare = HeaderMap::new();
        assert_eq!(rewrite(&rule, &facts, &mut bare), Ok(()));
        if rewrite(&rule, &facts, &mut headers).is_err() {
            return;
        }
        for name in headers.keys() {
            let reserved = reserved().in_request(name);
            assert!(!reserved || bare.contains_key(name), "{name} survives");
        }
        for name in bare.keys() {
            assert!(
                headers.get_all(name).iter().eq(bare.get_all(name).iter()),
                "{name} differs"
            );
        }
        assert!(!headers.contains_key(AUTHORIZATION));
        for line in headers.get_all(COOKIE) {
            let folded = line.as_bytes().to_ascii_lowercase();
            assert!(memchr::memmem::find(&folded, b"__host-portcullis_session=").is_none());
        }
        let once = headers.clone();
        assert_eq!(rewrite(&rule, &facts, &mut headers), Ok(()));
        assert_eq!(headers, once);
    }

    /// Somebody to speak of.
    pub fn user() -> User {
        User {
            name: "bob".into(),
            provider: "local".into(),
            email: Some("bob@corp.test".into()),
            groups: vec!["staff".into(), "a,b".into()],
            claims: std::sync::Arc::default(),
            signed_in_at: std::time::SystemTime::UNIX_EPOCH,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fuzzing::{facts, reserved, rule, user};
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[track_caller]
    fn rebuilt(rule: &Rule, facts: &Facts<'_>, lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = fields(lines);
        assert_eq!(rewrite(rule, facts, &mut headers), Ok(()));
        headers
    }

    /// What a backend gets for `name`, all lines of it, when bob sends `lines`.
    #[track_caller]
    fn received(lines: &[(&str, &str)], name: &str) -> Vec<String> {
        values(&rebuilt(&rule(), &facts(Some(&user())), lines), name)
    }

    fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
        let lines = headers.get_all(name).iter();
        lines
            .map(|line| line.to_str().unwrap().to_owned())
            .collect()
    }

    #[track_caller]
    fn refused(lines: &[(&str, &str)], expected: Refused) {
        let mut headers = fields(lines);
        assert_eq!(
            rewrite(&rule(), &facts(Some(&user())), &mut headers),
            Err(expected)
        );
    }

    /// The value a CGI program sees for `HTTP_<name>`: one per spelling that it folds together.
    fn cgi(headers: &HeaderMap, name: &str) -> Vec<String> {
        let fold = |name: &str| -> String {
            let sign = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            name.to_ascii_uppercase().chars().map(sign).collect()
        };
        let folded = fold(name);
        let same = headers.iter().filter(|(n, _)| fold(n.as_str()) == folded);
        same.map(|(_, value)| value.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_gateway_names_the_user_and_the_connection() {
        let headers = rebuilt(&rule(), &facts(Some(&user())), &[("Accept", "text/html")]);
        for (name, value) in [
            ("accept", "text/html"),
            ("x-portcullis-user", "bob"),
            ("x-mail", "bob@corp.test"),
            ("x-groups", "staff,a%2Cb"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "wiki.example.com"),
            ("x-forwarded-port", "443"),
            (
                "forwarded",
                "for=192.0.2.1;host=wiki.example.com;proto=https",
            ),
            ("x-request-id", "0123456789abcdef0123456789abcdef"),
            (
                "traceparent",
                "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
            ),
        ] {
            assert_eq!(values(&headers, name), [value], "{name}");
        }
        assert_eq!(headers.len(), 11);
    }

    #[test]
    fn h1_h5_an_underscore_alias_is_refused() {
        for alias in [
            "X_Portcullis_User",
            "X-Portcullis_User",
            "Remote_Groups",
            "X_Groups",
        ] {
            refused(&[(alias, "admin")], Refused::OddName);
        }
    }

    #[test]
    fn h2_an_alias_that_a_policy_allows_is_removed() {
        let headers = rebuilt(
            &rule(),
            &facts(Some(&user())),
            &[("X_Mail", "admin@corp.test")],
        );
        assert_eq!(cgi(&headers, "X-Mail"), ["bob@corp.test"]);
    }

    #[test]
    fn h3_every_alias_by_another_sign_is_refused() {
        for sign in [
            ".", "~", "!", "+", "'", "*", "_", "|", "`", "^", "#", "$", "%", "&",
        ] {
            refused(&[(&format!("X{sign}Groups"), "admins")], Refused::OddName);
        }
    }

    #[test]
    fn h4_a_claim_that_is_missing_does_not_let_the_clients_pass() {
        let nameless = User {
            email: None,
            groups: Vec::new(),
            ..user()
        };
        let spoofed = [("X-Mail", "admin@corp.test"), ("X-Groups", "admins")];
        let headers = rebuilt(&rule(), &facts(Some(&nameless)), &spoofed);
        assert!(cgi(&headers, "X-Mail").is_empty());
        assert!(cgi(&headers, "X-Groups").is_empty());
    }

    #[test]
    fn h6_case_makes_no_other_name() {
        for name in ["x-groups", "X-GROUPS", "x-GrOuPs"] {
            assert_eq!(received(&[(name, "admins")], "x-groups"), ["staff,a%2Cb"]);
        }
    }

    #[test]
    fn h8_nobody_signed_in_means_no_identity() {
        let spoofed = [
            ("X-Portcullis-User", "admin"),
            ("X-User", "admin"),
            ("Remote-User", "admin"),
            ("X-Mail", "admin@corp.test"),
        ];
        let headers = rebuilt(&rule(), &facts(None), &spoofed);
        for (name, _) in spoofed {
            assert!(cgi(&headers, name).is_empty(), "{name}");
        }
    }

    #[test]
    fn h9_authorization_goes_in_every_spelling_of_case() {
        for name in ["authorization", "Authorization", "AUTHORIZATION"] {
            assert!(received(&[(name, "Basic Ym9iOng=")], "authorization").is_empty());
        }
    }

    #[test]
    fn an_authorization_that_signed_nobody_in_is_the_applications() {
        let user = user();
        let facts = Facts {
            authorization_consumed: false,
            ..facts(Some(&user))
        };
        let headers = rebuilt(&rule(), &facts, &[("Authorization", "Bearer abc")]);
        assert_eq!(values(&headers, "authorization"), ["Bearer abc"]);
    }

    #[test]
    fn h10_connection_cannot_name_away_what_the_gateway_sets() {
        let lines = [
            ("Connection", "close, x-portcullis-user, X-Forwarded-For"),
            ("Connection", "X-GROUPS, x-request-id, x-app"),
            ("X-App", "1"),
            ("X-Portcullis-User", "admin"),
        ];
        assert_eq!(received(&lines, "x-portcullis-user"), ["bob"]);
        assert_eq!(received(&lines, "x-groups"), ["staff,a%2Cb"]);
        assert_eq!(received(&lines, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(
            received(&lines, "x-request-id"),
            ["0123456789abcdef0123456789abcdef"]
        );
        assert!(received(&lines, "x-app").is_empty());
        assert!(received(&lines, "connection").is_empty());
    }

    #[test]
    fn a_connection_line_that_cannot_be_read_is_refused() {
        refused(&[("Connection", "close, x app")], Refused::BadConnection);
    }

    #[test]
    fn h11_two_lines_of_an_identity_field_are_the_gateways_one() {
        let lines = [("X-Portcullis-User", "a"), ("X-Portcullis-User", "b")];
        assert_eq!(received(&lines, "x-portcullis-user"), ["bob"]);
    }

    #[test]
    fn f2_f3_forwarding_fields_are_rebuilt_or_gone() {
        let lines = [
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-Proto", "evil"),
            ("X-Forwarded-Host", "evil.test"),
            ("X-Forwarded-Port", "1"),
            ("X-Forwarded-Prefix", "/public"),
            ("X-Forwarded-Server", "evil"),
            ("X-Forwarded-Client-Cert", "By=evil"),
            ("X-Forwarded-User", "admin"),
            ("X-Real-Ip", "10.0.0.1"),
            ("Forwarded", "for=10.0.0.1"),
        ];
        let headers = rebuilt(&rule(), &facts(None), &lines);
        let all: Vec<_> = headers
            .values()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert!(
            !all.iter()
                .any(|v| v.contains("evil") || v.contains("10.0.0.1")),
            "{all:?}"
        );
        assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.1"]);
        assert!(!headers.contains_key("x-forwarded-prefix"));
        assert!(!headers.contains_key("x-real-ip"));
        refused(&[("X_Forwarded_Proto", "https")], Refused::OddName);
        refused(&[("X.Forwarded.Host", "trusted")], Refused::OddName);
    }

    #[test]
    fn f7_the_host_is_the_one_that_was_routed() {
        let lines = [("X-Forwarded-Host", "evil.test"), ("Host", "evil.test")];
        assert_eq!(received(&lines, "x-forwarded-host"), ["wiki.example.com"]);
        assert!(received(&lines, "host").is_empty());
    }

    #[test]
    fn f1_p10_a_client_cannot_give_another_path_or_method() {
        for name in [
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "X-Original-URL",
            "X-Original-Uri",
            "X-Rewrite-Url",
            "X-Forwarded-Uri",
            "X-Middleware-Subrequest",
        ] {
            assert!(received(&[(name, "DELETE")], name).is_empty(), "{name}");
        }
    }

    #[test]
    fn t11_no_credential_of_the_gateway_reaches_a_backend() {
        let lines = [
            ("Cookie", "a=1; __Host-portcullis_session=secret"),
            ("Cookie", "__host-PORTCULLIS_signin=secret; b=2"),
            ("Authorization", "Basic c2VjcmV0"),
        ];
        let headers = rebuilt(&rule(), &facts(Some(&user())), &lines);
        assert_eq!(values(&headers, "cookie"), ["a=1; b=2"]);
        assert!(!headers.contains_key("authorization"));
    }

    #[test]
    fn a_cookie_line_with_nothing_but_ours_goes() {
        let lines = [("Cookie", "__Host-portcullis_session=secret")];
        assert!(received(&lines, "cookie").is_empty());
    }

    #[test]
    fn every_family_is_reserved_in_every_spelling() {
        let is =
            |name: &str| reserved().in_request(&HeaderName::from_bytes(name.as_bytes()).unwrap());
        for name in [
            "X-WEBAUTH-USER",
            "x_webauth.user",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X-Authentik-Username",
            "X-Authenticated-User",
            "X-Auth-Request-Email",
            "X_Auth_Token",
            "Remote-User",
            "Proxy",
            "X-Envoy-Original-Path",
            "X-Accel-Redirect",
            "X-Sendfile",
            "X-SSL-Client-Verify",
            "Tailscale-User-Login",
            "X-Request-Id",
            "X-Elsewhere",
            "X_Elsewhere",
        ] {
            assert!(is(name), "{name}");
        }
        for name in [
            "X-Auth-Token",
            "X-Requested-With",
            "X-CSRF-Token",
            "User-Agent",
            "Accept",
        ] {
            assert!(!is(name), "{name}");
        }
    }

    #[test]
    fn a_policy_can_trust_clients_with_a_family_but_not_with_our_own_names() {
        let name = HeaderName::from_static;
        let trusted = ["x-user-id", "x-groups", "x-forwarded-for", "x-request-id"];
        let rule = Rule {
            trust_client_fields: trusted.map(name).into(),
            ..rule()
        };
        let lines = trusted.map(|name| (name, "client"));
        let headers = rebuilt(&rule, &facts(None), &lines);
        assert_eq!(values(&headers, "x-user-id"), ["client"]);
        assert!(!headers.contains_key("x-groups"));
        assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(
            values(&headers, "x-request-id"),
            ["0123456789abcdef0123456789abcdef"]
        );
    }

    #[test]
    fn an_odd_name_passes_only_if_it_is_listed_exactly() {
        assert_eq!(received(&[("X_Odd_Name", "1")], "x_odd_name"), ["1"]);
        refused(&[("X_Odd-Name", "1")], Refused::OddName);
        refused(&[("X.Odd.Name", "1")], Refused::OddName);
    }

    #[test]
    fn an_identity_that_cannot_be_written_is_an_error_and_not_a_skip() {
        use Unencodable::{Control, Empty};
        let refused = |user: User, why| {
            let refused = rewrite(&rule(), &facts(Some(&user)), &mut HeaderMap::new());
            assert_eq!(refused, Err(Refused::IdentityUnencodable(why)));
        };
        refused(
            User {
                name: "a\r\nX-Admin: 1".into(),
                ..user()
            },
            Control,
        );
        refused(
            User {
                name: "".into(),
                ..user()
            },
            Empty,
        );
        refused(
            User {
                email: Some("".into()),
                ..user()
            },
            Empty,
        );
        refused(
            User {
                groups: vec!["a".into(), "".into()],
                ..user()
            },
            Empty,
        );
        let refusal = Refusal::from(Refused::IdentityUnencodable(Control));
        assert_eq!(refusal.reason, "request_headers.identity_unencodable");
        assert_eq!(refusal.answer, Answer::Internal);
    }

    #[test]
    fn what_is_of_the_connection_or_of_the_framing_is_not_sent_on() {
        let lines = [
            ("Connection", "keep-alive"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic x"),
            ("TE", "gzip"),
            ("Trailer", "X-User"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "5"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "x"),
            ("Host", "evil.test"),
            ("Expect", "100-continue"),
        ];
        let headers = rebuilt(&rule(), &facts(None), &lines);
        for (name, _) in lines {
            assert!(!headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_clients_trace_is_kept_only_where_a_policy_says_so_and_it_is_valid() {
        let theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let ours = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
        let lines = [
            ("traceparent", theirs),
            ("tracestate", "a=1"),
            ("baggage", "user=admin"),
        ];
        let keep = Rule {
            trace: Trace::Keep,
            ..rule()
        };
        let off = Rule {
            trace: Trace::Off,
            ..rule()
        };

        let kept = rebuilt(&keep, &facts(None), &lines);
        assert_eq!(values(&kept, "traceparent"), [theirs]);
        assert_eq!(values(&kept, "tracestate"), ["a=1"]);
        let new = rebuilt(&rule(), &facts(None), &lines);
        assert_eq!(values(&new, "traceparent"), [ours]);
        assert!(!new.contains_key("tracestate") && !new.contains_key("baggage"));
        let none = rebuilt(&off, &facts(None), &lines);
        assert!(lines.iter().all(|(name, _)| !none.contains_key(*name)));

        for bad in [
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "",
        ] {
            let headers = rebuilt(
                &keep,
                &facts(None),
                &[("traceparent", bad), ("tracestate", "a=1")],
            );
            assert_eq!(values(&headers, "traceparent"), [ours], "{bad}");
            assert!(!headers.contains_key("tracestate"), "{bad}");
        }
        let twice = [("traceparent", theirs), ("traceparent", theirs)];
        assert_eq!(
            values(&rebuilt(&keep, &facts(None), &twice), "traceparent"),
            [ours]
        );
    }

    #[test]
    fn ipv6_and_ports_are_written_as_rfc_7239_has_it() {
        let facts = Facts {
            client: "2001:db8::1".parse().unwrap(),
            authority: "[2001:db8::2]:8443",
            ..facts(None)
        };
        let headers = rebuilt(&rule(), &facts, &[]);
        let expected = "for=\"[2001:db8::1]\";host=\"[2001:db8::2]:8443\";proto=https";
        assert_eq!(values(&headers, "forwarded"), [expected]);
        assert_eq!(values(&headers, "x-forwarded-for"), ["2001:db8::1"]);
        assert_eq!(values(&headers, "x-forwarded-port"), ["8443"]);
        let portless = Facts {
            authority: "[2001:db8::2]",
            scheme: "http",
            ..facts
        };
        assert_eq!(
            values(&rebuilt(&rule(), &portless, &[]), "x-forwarded-port"),
            ["80"]
        );
    }

    #[test]
    fn trailers_carry_no_identity_and_no_framing() {
        let mut trailers = fields(&[
            ("X-Portcullis-User", "admin"),
            ("X_Groups", "admins"),
            ("X_Mail", "admin@corp.test"),
            ("Authorization", "Basic x"),
            ("Cookie", "a=1"),
            ("Content-Length", "5"),
            ("Host", "evil.test"),
            ("X-Checksum", "abc"),
        ]);
        clean_trailers(&rule(), reserved(), &mut trailers);
        assert_eq!(trailers, fields(&[("X-Checksum", "abc")]));
    }

    #[test]
    fn refusals_have_their_reasons() {
        for (refused, answer, reason) in [
            (
                Refused::OddName,
                Answer::BadRequest,
                "request_headers.odd_name",
            ),
            (
                Refused::BadConnection,
                Answer::BadRequest,
                "request_headers.bad_connection",
            ),
            (
                Refused::BadCookie,
                Answer::BadRequest,
                "request_headers.bad_cookie",
            ),
            (
                Refused::Unwritable,
                Answer::Internal,
                "request_headers.unwritable",
            ),
        ] {
            assert_eq!(Refusal::from(refused), Refusal::new(answer, reason));
        }
    }

    fn a_name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[Xx][-_.]?(Groups|Mail|Portcullis[-_]User|Forwarded[-_.]For|Request-Id|Odd_Name)",
            "Cookie|Connection|Authorization|TE|Expect|traceparent|Host|Forwarded|Accept",
            "[Xx]-[a-c]{1,2}|Proxy|Remote[-_]User",
        ]
    }

    fn a_value() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c]{0,3}",
            "(__[Hh]ost-portcullis_session=[a-c]; ?)?a=b",
            "close, (x-groups|x-a|X-Forwarded-For|cookie)",
            "trailers",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn whatever_a_client_sends_changes_nothing_of_what_the_gateway_says(
            lines in proptest::collection::vec((a_name(), a_value()), 0..8),
        ) {
            let lines: Vec<_> =
                lines.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            fuzzing::request_headers(&lines);
        }
    }
}
