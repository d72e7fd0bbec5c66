//! 6. request headers: what the backend learns, of the request and of who sent it.
//!
//! | when | then |
//! |---|---|
//! | a field name has anything but letters, digits and `-`, and `allow_names` does not list it | 400 `request_headers.odd_name` |
//! | a `Connection` line can't be read | 400 `request_headers.bad_connection` |
//! | a `Cookie` line can't be read | 400 `request_headers.bad_cookie` |
//! | a field belongs to the connection, or any `Connection` line names it | removed (RFC 9110 §7.6.1) |
//! | a field is reserved in any spelling: `reserved_fields.txt`, and what the gateway sends on any route | removed |
//! | a cookie is the gateway's | removed; the others go on in one line |
//! | `Authorization` is what signed the user in | removed |
//! | the user's name, address or groups can't be written | 500 `request_headers.identity_unencodable` |
//! | a field of the gateway's own can't be written | 500 `request_headers.unwritable` |
//! | an assertion is asked for, and the path is longer than one may hold | 414 `request_headers.asserted_path` |
//! | an assertion is asked for, and can't be signed | 500 `request_headers.unasserted` |
//! | otherwise | the gateway's own fields are set, each once |
//!
//! Deletes first, then sets: what the gateway has nothing to say about stays unsaid. `Outbound` is
//! made here only, and this is the only place that writes an identity. Never writes framing.

mod reserved;
mod policy;
mod assertion;

pub use assertion::Assertion;
pub use policy::{GATEWAY_KEYS, KEYS, read, read_names};
pub use reserved::{FieldNames, ReservedNames};

use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method};

use crate::body::Body;
use crate::pipeline::access::Grant;
use crate::pure::connection::Connection;
use crate::pure::encode_identity::{Unencodable, encode, encode_list};
use crate::pure::fields::Fields;
use crate::pure::head::{Content, Head};
use crate::pure::identity::User;
use crate::pure::{cookie, field, hop, spelling};
use crate::record::Record;
use crate::refusal::{Answer, Refusal};

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

/// What of a user's identity a backend learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub user: bool,
    /// The e-mail address, where the provider states one.
    pub email: bool,
    /// The groups.
    pub groups: bool,
    /// The same, signed.
    pub assertion: bool,
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
    /// The path is longer than an assertion may hold.
    AssertedPath,
    /// There is no assertion, and there is to be one.
    Unasserted,
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
            Refused::AssertedPath => (Answer::UriTooLong, "request_headers.asserted_path"),
            Refused::Unasserted => (Answer::Internal, "request_headers.unasserted"),
        };
        Self::new(answer, reason)
    }
}

/// A request as a backend gets it: made here only, of a granted one.
#[derive(Debug)]
pub struct Outbound(OutboundParts);

impl Outbound {
    /// The public host that was asked for, with a port where the client gave one.
    pub fn authority(&self) -> &str {
        &self.0.host
    }

    /// What is to be sent.
    pub fn into_parts(self) -> OutboundParts {
        self.0
    }
}

/// What an [`Outbound`] is made of.
#[derive(Debug)]
pub struct OutboundParts {
    /// The method that was decided on.
    pub method: Method,
    /// The path and query that were decided on.
    pub target: String,
    /// The host that the client asked for, with a port where it gave one.
    pub host: String,
    /// Every other field; none of framing or of the connection.
    pub headers: Fields,
    /// How much content `body` has.
    pub content: Content,
    /// Whether it is a WebSocket handshake.
    pub upgrade: bool,
    /// Whether the client takes trailers.
    pub takes_trailers: bool,
    /// The content, without trailers that no client may send.
    pub body: Body,
    /// That it may pass.
    pub grant: Grant,
}

/// Makes of a granted request what its backend gets.
///
/// # Errors
/// When a field can't be read in one way only, or the user can't be named.
#[expect(
    clippy::too_many_arguments,
    reason = "it is a whole request, as the pipeline has it"
)]
pub fn clean(
    rule: &Arc<Rule>,
    reserved: &Arc<ReservedNames>,
    assertion: &Assertion,
    conn: &Connection,
    grant: Grant,
    head: Head,
    body: Body,
    seen: &Record,
) -> Result<Outbound, Refused> {
    let Head {
        method,
        authority,
        target,
        mut headers,
        content,
        upgrade,
        takes_trailers,
        ..
    } = head;
    let subject = grant.subject();
    let host = authority.text();
    let facts = Facts {
        reserved,
        scheme: conn.scheme(),
        authority: &host,
        client: subject.permit().ip(),
        user: subject.user().map(|user| &**user),
        authorization_consumed: subject.consumed().authorization,
        request_id: &seen.request_id,
    };
    rewrite(rule, &facts, &mut headers)?;
    if rule.identity.assertion
        && let Some(user) = facts.user
    {
        let value = assertion.field(rule, user, &method, &host, &target, seen)?;
        headers.append(rule.names.assertion.clone(), value);
    }
    let (kept, names) = (Arc::clone(rule), Arc::clone(reserved));
    Ok(Outbound(OutboundParts {
        method,
        target: target.text(),
        host,
        headers,
        content,
        upgrade: upgrade.is_some(),
        takes_trailers,
        body: body.with_trailers(move |trailers| clean_trailers(&kept, &names, trailers)),
        grant,
    }))
}

/// Makes of a client's fields those for the backend, but for framing and what the connection to the
/// backend needs.
///
/// # Errors
/// When a field can't be read in one way only, or the user can't be named.
pub fn rewrite(rule: &Rule, facts: &Facts<'_>, headers: &mut Fields) -> Result<(), Refused> {
    let options = hop::connection_options(headers).map_err(|_| Refused::BadConnection)?;
    let mut values = Values(BytesMut::with_capacity(VALUE_BYTES));
    let trace = rule.trace_of(facts, headers, &mut values)?;
    let keep_trace = trace == Traced::Kept;
    let mut odd = false;
    headers.retain(|name, _| {
        if hop::is_hop_by_hop(name, &options) {
            return false;
        }
        odd |= rule.is_odd(name);
        !rule.is_dropped(name, facts, keep_trace)
    });
    if odd {
        return Err(Refused::OddName);
    }
    cookie::drop_ours(headers).map_err(|_| Refused::BadCookie)?;
    // What is set from here on is reserved, and so none of it is there by now.
    if let Traced::New(value) = trace {
        headers.append(TRACEPARENT, value);
    }
    set_connection_fields(rule, facts, headers, &mut values)?;
    set_identity(rule, facts, headers)
}

/// Removes from a request's trailers what must not come after the fact, and what no client may say.
pub fn clean_trailers(rule: &Rule, reserved: &ReservedNames, trailers: &mut Fields) {
    trailers.retain(|name, _| {
        !(rule.is_odd(name) || is_early(name) || rule.is_reserved(name, reserved))
    });
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

    /// Whether backends may read a name in different ways.
    fn is_odd(&self, name: &HeaderName) -> bool {
        !spelling::is_plain(name.as_str().as_bytes()) && !self.allow_names.contains(name)
    }

    fn is_reserved(&self, name: &HeaderName, reserved: &ReservedNames) -> bool {
        let reservation = reserved.of(name);
        reservation.is_own()
            || self.names.contain(name)
            || reservation.family && !self.trust_client_fields.contains(name)
    }

    fn trace_of(
        &self,
        facts: &Facts<'_>,
        headers: &Fields,
        values: &mut Values,
    ) -> Result<Traced, Refused> {
        match self.trace {
            Trace::Off => return Ok(Traced::None),
            Trace::Keep if has_valid_trace(headers) => return Ok(Traced::Kept),
            Trace::Keep | Trace::New => {}
        }
        // The request's id is a trace id, too, so that the access log and a trace name each other.
        let id = facts.request_id.as_bytes();
        let span = id.get(..16).unwrap_or_default();
        if id.len() != 32 {
            return Err(Refused::Unwritable);
        }
        let trace = values.of(&[b"00-", id, b"-", span, b"-01"])?;
        Ok(Traced::New(trace))
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
    headers: &mut Fields,
    values: &mut Values,
) -> Result<(), Refused> {
    let host = values.of(&[facts.authority.as_bytes()])?;
    headers.append(X_FORWARDED_FOR, values.address(facts.client)?);
    let scheme = match facts.scheme {
        "https" => HeaderValue::from_static("https"),
        "http" => HeaderValue::from_static("http"),
        other => values.of(&[other.as_bytes()])?,
    };
    headers.append(X_FORWARDED_PROTO, scheme);
    headers.append(X_FORWARDED_PORT, facts.port());
    headers.append(X_FORWARDED_HOST, host);
    let id = values.of(&[facts.request_id.as_bytes()])?;
    headers.append(rule.names.request_id.clone(), id);
    if rule.forwarded {
        let forwarded = facts.forwarded();
        headers.append(FORWARDED, values.of(&[forwarded.as_bytes()])?);
    }
    Ok(())
}

fn set_identity(rule: &Rule, facts: &Facts<'_>, headers: &mut Fields) -> Result<(), Refused> {
    let Some(user) = facts.user else {
        return Ok(());
    };
    let Rule {
        names, identity, ..
    } = rule;
    if identity.user {
        let name = encode(&user.name).map_err(Refused::IdentityUnencodable)?;
        headers.append(names.user.clone(), name);
    }
    if identity.email
        && let Some(email) = &user.email
    {
        let email = encode(email).map_err(Refused::IdentityUnencodable)?;
        headers.append(names.email.clone(), email);
    }
    if identity.groups {
        let groups = encode_list(user.groups.iter().map(|group| &**group));
        if let Some(groups) = groups.map_err(Refused::IdentityUnencodable)? {
            headers.append(names.groups.clone(), groups);
        }
    }
    Ok(())
}

impl Facts<'_> {
    /// The port that the client used, said or not.
    fn port(&self) -> HeaderValue {
        // The last part of an IPv6 address in brackets is no number: it ends in `]`.
        let colon = memchr::memrchr(b':', self.authority.as_bytes());
        let said = colon.and_then(|at| self.authority.get(at.saturating_add(1)..));
        match said.and_then(|port| port.parse::<u16>().ok()) {
            Some(port) => HeaderValue::from(port),
            None if self.scheme == "https" => HeaderValue::from_static("443"),
            None => HeaderValue::from_static("80"),
        }
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

/// Values of the gate's own fields, one behind the other in one allocation.
#[derive(Debug)]
struct Values(BytesMut);

/// Enough for the fields of most requests.
const VALUE_BYTES: usize = 256;

impl Values {
    fn of(&mut self, parts: &[&[u8]]) -> Result<HeaderValue, Refused> {
        for part in parts {
            self.0.extend_from_slice(part);
        }
        let value = self.0.split().freeze();
        if value.is_empty() {
            return Err(Refused::Unwritable);
        }
        HeaderValue::from_maybe_shared(value).map_err(|_| Refused::Unwritable)
    }

    fn address(&mut self, address: IpAddr) -> Result<HeaderValue, Refused> {
        match address {
            // Most of all addresses, and a tenth of the work that formatting is.
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                let mut digits: [itoa::Buffer; 4] = Default::default();
                let [first, second, third, fourth] = &mut digits;
                self.of(&[
                    first.format(a).as_bytes(),
                    b".",
                    second.format(b).as_bytes(),
                    b".",
                    third.format(c).as_bytes(),
                    b".",
                    fourth.format(d).as_bytes(),
                ])
            }
            IpAddr::V6(v6) => self.of(&[v6.to_string().as_bytes()]),
        }
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

fn has_valid_trace(headers: &Fields) -> bool {
    let line = field::one(headers, &TRACEPARENT).ok().flatten();
    line.is_some_and(|line| is_traceparent(line.as_bytes()))
}

/// Whether this is version 00 of `traceparent` (W3C Trace Context §3.2).
fn is_traceparent(value: &[u8]) -> bool {
    let is_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
    let Some((version, rest)) = value.split_at_checked(3) else {
        return false;
    };
    let (Some((trace, rest)), true) = (rest.split_at_checked(32), version == b"00-") else {
        return false;
    };
    let Some(([b'-', span @ ..], [b'-', flags @ ..])) = rest.split_at_checked(17) else {
        return false;
    };
    flags.len() == 2
        && [trace, span, flags].into_iter().all(is_hex)
        && !is_zero(trace)
        && !is_zero(span)
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use std::sync::LazyLock;

    use http::header::COOKIE;

    use super::*;

    /// A rule with every field set.
    pub fn rule() -> Rule {
        let name = HeaderName::from_static;
        let own = FieldNames {
            email: name("x-mail"),
            groups: name("x-groups"),
            assertion: name("x-signed"),
            ..FieldNames::default()
        };
        Rule {
            names: own,
            identity: Identity {
                user: true,
                email: true,
                groups: true,
                assertion: true,
            },
            allow_names: HashSet::from([name("x_odd_name"), name("x_mail")]),
            trust_client_fields: HashSet::new(),
            forwarded: true,
            trace: Trace::New,
        }
    }

    /// The fields of `name:value` lines, without those that are none.
    pub fn fields(lines: &[u8]) -> Fields {
        let mut headers = Fields::new();
        for line in lines.split(|b| *b == b'\n') {
            let mut sides = line.splitn(2, |b| *b == b':');
            let name = sides.next().map(HeaderName::from_bytes);
            let value = sides
                .next()
                .map(<[u8]>::trim_ascii)
                .map(HeaderValue::from_bytes);
            if let (Some(Ok(name)), Some(Ok(value))) = (name, value) {
                headers.append(name, value);
            }
        }
        headers
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
    pub fn request_headers(lines: &[u8]) {
        let mut headers = fields(lines);
        let (rule, user) = (rule(), user());
        let facts = facts(Some(&user));
        let mut bare = Fields::new();
        assert_eq!(rewrite(&rule, &facts, &mut bare), Ok(()));
        if rewrite(&rule, &facts, &mut headers).is_err() {
            return;
        }
        for name in headers.names() {
            let reservation = reserved().of(name);
            let reserved = reservation.is_own() || reservation.family;
            assert!(!reserved || bare.contains(name), "{name} survives");
        }
        for name in bare.names() {
            assert!(headers.all(name).eq(bare.all(name)), "{name} differs");
        }
        assert!(!headers.contains(&AUTHORIZATION));
        for line in headers.all(&COOKIE) {
            // Of a name that only ends like ours, a backend makes nothing of ours.
            let folded = line.as_bytes().to_ascii_lowercase();
            let mut pairs = folded.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            assert!(pairs.all(|pair| !pair.starts_with(b"__host-portcullis")));
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
            claims: Arc::default(),
            signed_in_at: std::time::SystemTime::UNIX_EPOCH,
        }
    }
}

#[cfg(test)]
mod tests;
