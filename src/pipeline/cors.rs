//! cors: which pages of other origins may ask, and read the answers (Fetch §3.2).
//!
//! | when | then |
//! |---|---|
//! | the rules have no `[cors]`, or a page of the gate itself is asked for | nothing is said, and what a backend says passes |
//! | else, `Origin` comes once and is in `origins` | every answer, the refusal of a later stage too, says that pages of that origin may read it |
//! | else, it is missing, `null`, another, or can't be read | no answer says so, and the request goes on as it is |
//! | both of these | `Vary: Origin`; what a backend says of readers is removed (`response_headers`) |
//! | OPTIONS without content, with one `Origin` and one `Access-Control-Request-Method`: a preflight | it is answered here, and asks no backend: |
//! | .. from an origin that is not in `origins` | 403 `cors.origin` |
//! | .. for a method that is not in `methods` | 403 `cors.method` |
//! | .. for a field that is not in `headers`, or in a list that can't be read | 403 `cors.headers` |
//! | .. else | 204, with what may be asked |
//! | any other OPTIONS | the request goes on as it is, and needs what others need |
//!
//! A preflight carries no credentials, so it is answered before sign-in; it has passed `network` and
//! `rate`. Trusts `Origin` to say what a browser may show to which page, and never to say who asks:
//! a program can write any. Compares whole origins; knows no patterns.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::body::Body;
use crate::pipeline::rate::Permit;
use crate::pure::cors::{self, Readers, Sharing};
use crate::pure::fields::Fields;
use crate::pure::head::{self, Content, Head};
use crate::pure::origin::Origin;
use crate::pure::table::{Key, Table};
use crate::pure::{field, unit};
use crate::refusal::{Answer, Refusal};
use crate::response::Response;

/// Which pages may ask one path of an application, for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Each with what answers to its pages say.
    origins: Vec<(Origin, Readers)>,
    methods: Vec<Method>,
    headers: Vec<HeaderName>,
    /// How long browsers may remember what is allowed.
    max_age: Duration,
}

/// Why a preflight is told no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Pages of that origin may not ask.
    Origin,
    /// They may not ask with that method.
    Method,
    /// They may not send one of these fields.
    Headers,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let reason = match refused {
            Refused::Origin => "cors.origin",
            Refused::Method => "cors.method",
            Refused::Headers => "cors.headers",
        };
        Self::new(Answer::Forbidden { as_whom: None }, reason)
    }
}

/// Who may read the answers to a request; nothing where the policy does not say.
pub fn readers(rule: Option<&Rule>, head: &Head) -> Option<Readers> {
    let rule = rule?;
    let listed = rule.readers_of(head).cloned();
    Some(listed.unwrap_or(Readers::none()))
}

/// The answer to a preflight, or nothing where the request is none or the policy does not say.
///
/// # Errors
/// What it asks for is not allowed.
pub fn preflight(
    rule: Option<&Rule>,
    _permit: &Permit,
    head: &Head,
) -> Result<Option<Response>, Refused> {
    let Some((rule, method)) = rule.zip(asked_method(head)) else {
        return Ok(None);
    };
    rule.readers_of(head).ok_or(Refused::Origin)?;
    // Methods are compared as they are: `patch` is not `PATCH` (Fetch §2.2.1).
    if !rule.methods.iter().any(|known| method == known.as_str()) {
        return Err(Refused::Method);
    }
    let wanted = field::list(&head.headers, &ACCESS_CONTROL_REQUEST_HEADERS);
    for name in wanted.map_err(|_| Refused::Headers)? {
        let is_named = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str().as_bytes());
        if !rule.headers.iter().any(is_named) {
            return Err(Refused::Headers);
        }
    }
    Ok(Some(Response {
        status: StatusCode::NO_CONTENT,
        fields: rule.allowed(),
        body: Body::Empty,
    }))
}

/// The method that a preflight asks for; none of any other request.
fn asked_method(head: &Head) -> Option<&HeaderValue> {
    let is_bare = matches!(head.content, Content::None | Content::Length(0));
    if head.method != Method::OPTIONS || !is_bare {
        return None;
    }
    let origin = field::one(&head.headers, &ORIGIN).ok()?;
    let method = field::one(&head.headers, &ACCESS_CONTROL_REQUEST_METHOD).ok()?;
    origin.and(method)
}

impl Rule {
    /// The pages of the origin that a request says it is from, where that is listed.
    fn readers_of(&self, head: &Head) -> Option<&Readers> {
        let said = field::one(&head.headers, &ORIGIN).ok().flatten()?;
        let said = Origin::parse(said.as_bytes()).ok()?;
        let listed = self.origins.iter().find(|(origin, _)| *origin == said);
        listed.map(|(_, readers)| readers)
    }

    /// What a preflight that is told yes learns; `Readers` says the rest.
    fn allowed(&self) -> Fields {
        let mut fields = Fields::new();
        let methods = cors::listed(self.methods.iter().map(Method::as_str));
        let headers = cors::listed(self.headers.iter().map(HeaderName::as_str));
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_METHODS, methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, headers),
            (ACCESS_CONTROL_MAX_AGE, Some(self.max_age.as_secs().into())),
        ] {
            if let Some(value) = value {
                fields.append(name, value);
            }
        }
        fields
    }
}

/// Keys of `[cors]`.
pub const KEYS: &[Key] = &[
    Key {
        name: "origins",
        kind: "list of origins",
        default: "none: required",
        doc: "Whose pages may ask and read the answers: scheme, host and, where it is not the usual one, port, such as `https://spa.example.com`. Each exactly: no `*`, no `null`, no patterns. `[]` closes a `[[path]]` to all of them.",
    },
    Key {
        name: "methods",
        kind: "list of methods",
        default: "[\"GET\", \"HEAD\", \"POST\"]",
        doc: "With which methods they may ask, as far as browsers ask beforehand.",
    },
    Key {
        name: "headers",
        kind: "list of names",
        default: "none",
        doc: "The fields that they may send besides those that browsers send unasked: `Content-Type` for JSON, `Authorization` for tokens.",
    },
    Key {
        name: "expose",
        kind: "list of names",
        default: "none",
        doc: "The fields of answers that they may read besides those that browsers show unasked. Of the gate's own refusals they may always read `WWW-Authenticate` and `Retry-After`, too.",
    },
    Key {
        name: "credentials",
        kind: "true or false",
        default: "false",
        doc: "Whether they may ask as the person who is signed in. The session's cookie is `SameSite=Lax`: browsers send it for pages of the same site only (`https://spa.example.com` for `https://api.example.com`), not for those of another one, which need bearer tokens, and for these no `credentials`. It trusts the pages of `origins` with all that the person may do here.",
    },
    Key {
        name: "max_age",
        kind: "duration",
        default: "10m",
        doc: "How long browsers may remember what is allowed, `0s` to `1d`; many stop at `2h`.",
    },
];

/// No browser remembers for longer.
const MAX_MAX_AGE: Duration = Duration::from_secs(86_400);
const USUAL_MAX_AGE: Duration = Duration::from_secs(600);

impl Rule {
    /// Reads `[cors]`. That of a path holds in place of the application's.
    pub fn read(table: &Table) -> Self {
        if !table.has("origins") {
            let expected =
                "the origins of the pages that may ask, such as `[\"https://spa.example.com\"]`";
            table.missing("origins", expected);
        }
        let credentials = table.boolean("credentials").unwrap_or(false);
        let exposed = table.list("expose", name).unwrap_or_default();
        let sharing = Arc::new(Sharing::new(credentials, &exposed));
        let origins = table.list("origins", origin).unwrap_or_default();
        let with_readers = |origin: Origin| {
            let readers = Readers::of(&origin, &sharing);
            (origin, readers)
        };
        Self {
            origins: origins.into_iter().map(with_readers).collect(),
            methods: table
                .list("methods", method)
                .unwrap_or_else(|| vec![Method::GET, Method::HEAD, Method::POST]),
            headers: table.list("headers", name).unwrap_or_default(),
            max_age: table.value("max_age", max_age).unwrap_or(USUAL_MAX_AGE),
        }
    }
}

fn origin(text: &str) -> Result<Origin, String> {
    Origin::parse(text.as_bytes()).map_err(|_| {
        "expected one origin such as `https://spa.example.com`, without path, `*` or final dot"
            .to_owned()
    })
}

fn method(text: &str) -> Result<Method, String> {
    head::method(text.as_bytes())
        .map_err(|_| "expected a method in capitals, such as `PUT`".to_owned())
}

fn name(text: &str) -> Result<HeaderName, String> {
    // A token to HTTP, and any name to browsers.
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    name.filter(|name| !name.as_str().contains('*'))
        .ok_or_else(|| "expected the whole name of a field, such as `X-Total-Count`".to_owned())
}

fn max_age(text: &str) -> Result<Duration, String> {
    let duration = unit::duration(text)?;
    if duration > MAX_MAX_AGE {
        return Err("a duration of at most `1d`".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests;
