//! Beside another proxy: it asks whether a request may pass, and sends it on by itself.
//!
//! | when | then |
//! |---|---|
//! | whoever asks does not prove to be a proxy that may, in the one way that is configured | 403 `verify.caller` |
//! | it asks at another path than `/verify` | 404 `verify.elsewhere` |
//! | its style's method can't be read | 400 `verify.no_method`, `verify.two_methods`, `verify.bad_method` |
//! | .. or its URL | 400 `verify.no_url`, `verify.two_urls`, `verify.bad_url` |
//! | .. or its scheme | 400 `verify.no_scheme`, `verify.two_schemes`, `verify.bad_scheme` |
//! | .. or its host | 400 `verify.no_host`, `verify.two_hosts`, `verify.bad_host` |
//! | .. or its path and query | 400 `verify.no_target`, `verify.two_targets`, `verify.bad_target` |
//! | .. or the client's address | 400 `verify.no_client`, `verify.two_clients`, `verify.bad_client` |
//! | the path is one that the gateway would send on in another shape, as the application lets it | 400 `verify.rewritten` |
//! | the path is one of the gateway's own pages | 403 `verify.own_page` |
//! | a stage refuses | what it refuses with |
//! | otherwise | 200, with each field that may name a user, empty where there is nothing to say |
//!
//! A request passes the stages that it would pass if it were sent here: same functions, same order. For
//! a proxy that takes 200, 401 and 403 only, the way to the sign-in page is a 401 with `Location`, and
//! what the client did wrong a 403. Never says a name that the stages did not find (SECURITY.md H4,
//! H8), and never sends a cookie.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::body::Body;
use crate::keys::SharedKey;
use crate::pure::cidr;
use crate::pure::connection::Connection;
use crate::pure::field;
use crate::pure::fields::Fields;
use crate::pure::head::Head;
use crate::pure::original::{Original, Part, Style, Untold};
use crate::pure::target::Oddities;
use crate::refusal::{Answer, Refusal};
use crate::response::Response;

use super::portal::Page;
use super::request_headers::{self, Outbound};

/// The field with the key of a proxy that asks. Not `Authorization`, which is the client's.
const X_PORTCULLIS_KEY: HeaderName = HeaderName::from_static("x-portcullis-key");

/// Shapes of a path that are lifted by writing another one, which only who forwards can do.
const REWRITTEN: [Oddities; 3] = [
    Oddities::DOT_SEGMENT,
    Oddities::EMPTY_SEGMENT,
    Oddities::INVALID_ENCODING,
];

/// Who may ask, and how they tell of a request.
pub struct Rule {
    /// Who.
    pub callers: Callers,
    /// How.
    pub style: Style,
}

/// The one way in which a proxy proves that it may ask.
pub enum Callers {
    /// It has the key.
    Key(SharedKey),
    /// It showed a certificate that its listener took.
    Certificates,
    /// It has one of these addresses.
    Networks(cidr::Set),
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule")
            .field("style", &self.style)
            .finish_non_exhaustive()
    }
}

/// Why nothing is said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Nobody knows who asks.
    Caller,
    /// Nobody knows what is asked.
    Untold(Untold),
    /// Rules would see another path than the backend.
    Rewritten,
    /// No backend has these pages.
    OwnPage,
}

impl From<Untold> for Refused {
    fn from(untold: Untold) -> Self {
        Self::Untold(untold)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let forbidden = Answer::Forbidden { as_whom: None };
        match refused {
            Refused::Caller => Self::new(forbidden, "verify.caller"),
            Refused::OwnPage => Self::new(forbidden, "verify.own_page"),
            Refused::Rewritten => Self::new(Answer::BadRequest, "verify.rewritten"),
            Refused::Untold(Untold::Elsewhere) => Self::new(Answer::NotFound, "verify.elsewhere"),
            Refused::Untold(
                untold @ (Untold::Missing(_) | Untold::Repeated(_) | Untold::Malformed(_)),
            ) => Self::new(Answer::BadRequest, reason(untold)),
        }
    }
}

const fn reason(untold: Untold) -> &'static str {
    match untold {
        Untold::Elsewhere => "verify.elsewhere",
        Untold::Missing(Part::Method) => "verify.no_method",
        Untold::Missing(Part::Url) => "verify.no_url",
        Untold::Missing(Part::Scheme) => "verify.no_scheme",
        Untold::Missing(Part::Host) => "verify.no_host",
        Untold::Missing(Part::Target) => "verify.no_target",
        Untold::Missing(Part::Client) => "verify.no_client",
        Untold::Repeated(Part::Method) => "verify.two_methods",
        Untold::Repeated(Part::Url) => "verify.two_urls",
        Untold::Repeated(Part::Scheme) => "verify.two_schemes",
        Untold::Repeated(Part::Host) => "verify.two_hosts",
        Untold::Repeated(Part::Target) => "verify.two_targets",
        Untold::Repeated(Part::Client) => "verify.two_clients",
        Untold::Malformed(Part::Method) => "verify.bad_method",
        Untold::Malformed(Part::Url) => "verify.bad_url",
        Untold::Malformed(Part::Scheme) => "verify.bad_scheme",
        Untold::Malformed(Part::Host) => "verify.bad_host",
        Untold::Malformed(Part::Target) => "verify.bad_target",
        Untold::Malformed(Part::Client) => "verify.bad_client",
    }
}

/// A request that a proxy asks about which may: made here only.
#[derive(Debug)]
pub struct Question {
    original: Original,
    style: Style,
}

impl Question {
    /// The connection that the request came on.
    pub const fn conn(&self) -> &Connection {
        &self.original.conn
    }

    /// The request.
    pub const fn head(&self) -> &Head {
        &self.original.head
    }

    /// The request, when it has passed.
    pub fn into_head(self) -> Head {
        self.original.head
    }

    /// How a refusal is said to the proxy that asked.
    pub fn manner(&self) -> Manner {
        let (conn, head) = (self.conn(), self.head());
        Manner {
            origin: format!("{}://{}", conn.scheme(), head.authority.text()),
            style: self.style,
        }
    }
}

/// Reads the question that `asking` is; without a rule nobody may ask.
///
/// # Errors
/// Who asks may not, or what is asked can't be read.
pub fn question(rule: Option<&Rule>, conn: &Connection, asking: Head) -> Result<Question, Refused> {
    let rule = rule
        .filter(|rule| rule.callers.hold(conn, &asking.headers))
        .ok_or(Refused::Caller)?;
    Ok(Question {
        original: Original::read(rule.style, asking)?,
        style: rule.style,
    })
}

impl Callers {
    fn hold(&self, conn: &Connection, headers: &Fields) -> bool {
        match self {
            Self::Key(key) => matches!(
                field::one(headers, &X_PORTCULLIS_KEY),
                Ok(Some(said)) if key.is(said.as_bytes())
            ),
            Self::Certificates => conn
                .tls
                .as_ref()
                .is_some_and(|tls| tls.client_certificate.is_some()),
            Self::Networks(networks) => networks.contains(conn.peer.ip()),
        }
    }
}

/// Keeps apart what no proxy can send to a backend as it was decided on: the gateway's own pages, and
/// a path that the gateway would write anew.
///
/// # Errors
/// It is one of these.
pub fn as_it_stands(head: &Head, page: Option<Page>) -> Result<(), Refused> {
    if page.is_some() {
        return Err(Refused::OwnPage);
    }
    let odd = head.target.oddities;
    if REWRITTEN.iter().any(|shape| odd.contains(*shape)) {
        return Err(Refused::Rewritten);
    }
    Ok(())
}

/// Says yes, and who asks: every name that may say so once, for the proxy to set or to remove.
pub fn yes(rule: &Arc<request_headers::Rule>, outbound: Outbound) -> Response {
    let parts = outbound.into_parts();
    let mut fields = Fields::new();
    for name in rule.names.of_the_user() {
        // Set by the stage before, at most once; what it did not set, nobody may say.
        let said = field::one(&parts.headers, name).ok().flatten().cloned();
        let said = said.unwrap_or(HeaderValue::from_static(""));
        fields.append(name.clone(), said);
    }
    fields.append(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Response {
        status: StatusCode::OK,
        fields,
        body: Body::Empty,
    }
}

/// How a refusal is said to a proxy.
#[derive(Debug)]
pub struct Manner {
    /// Of the application, as the client knows it.
    origin: String,
    style: Style,
}

impl Manner {
    /// A refusal as the proxy can use it.
    pub fn no(&self, mut refusal: http::Response<Bytes>) -> http::Response<Bytes> {
        let status = refusal.status();
        let headers = refusal.headers_mut();
        // Some proxies take a path for one of the gateway. The host is one of an application: nobody is
        // led to the sign-in page of another.
        if let Some(path) = headers.remove(LOCATION) {
            let whole = [self.origin.as_bytes(), path.as_bytes()].concat();
            if let Ok(whole) = HeaderValue::from_maybe_shared(Bytes::from(whole)) {
                headers.insert(LOCATION, whole);
            }
        }
        if self.style.takes_few_statuses() {
            if status.is_redirection() {
                // RFC 9110 §15.5.2; no browser knows it, nor should.
                let challenge =
                    HeaderValue::from_static("Cookie form-action=\"/.portcullis/sign-in\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
                *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            } else if status.is_client_error() && status != StatusCode::UNAUTHORIZED {
                *refusal.status_mut() = StatusCode::FORBIDDEN;
            }
        }
        refusal
    }
}
