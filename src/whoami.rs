//! The built-in backend: shows a request as an application behind the gate receives it.
//!
//! | when | then |
//! |---|---|
//! | another site asks for it other than by a link (`Sec-Fetch-Site`) | 403: it says who somebody is |
//! | a person asks | a page: who the gate says they are, where it says they come from, what their browser sent |
//! | a program asks | the same as JSON |
//!
//! Nothing is left out but secrets: values of credentials, cookies and signed tokens are not shown, not
//! even those that an application is meant to get (SECURITY.md H12).

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use serde_json::{Map, Value, json};

use crate::pages::html::Html;
use crate::pages::negotiate::Audience;
use crate::pages::{self, Asked, Context, signed_out};
use crate::pure::field;
use crate::pure::fields::Fields;
use crate::refusal::{Answer, Refusal};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What the gate says of where a request comes from.
const FORWARDING: [&str; 7] = [
    "forwarded",
    "host",
    "traceparent",
    "tracestate",
    "x-forwarded-",
    "x-real-ip",
    "x-request-id",
];
/// How names of fields end that hold a secret.
const SECRET_ENDINGS: [&str; 5] = ["-assertion", "-authorization", "-key", "-secret", "-token"];

/// A request as a backend receives it.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub target: &'a str,
    /// The version that backends are spoken to in.
    pub version: Version,
    /// The value of `Host`.
    pub host: &'a str,
    /// Every other field.
    pub headers: &'a Fields,
}

/// Shows `received`; `identity` are the fields that name a user in this application.
pub fn respond(received: &Received<'_>, identity: &[HeaderName]) -> Response<Bytes> {
    let asked = Asked::by(received.method, received.headers, false);
    let is_page = asked.audience() == Some(Audience::Browser);
    let ctx = Context {
        asked: &asked,
        request_id: "",
        host: received.host,
        app: None,
        contact: None,
        has_sign_in_page: false,
    };
    if is_by_another_site(received.headers) {
        let answer = Answer::Forbidden { as_whom: None };
        return pages::refusal::respond(&Refusal::new(answer, "whoami.other_site"), &ctx);
    }
    if is_page {
        let html = people(received, identity);
        pages::wide_page(&ctx, "What the application sees", &html)
    } else {
        let mut content = programs(received, identity).to_string();
        content.push('\n');
        pages::answer(&ctx, StatusCode::OK, JSON, content)
    }
}

/// Whether a page of another site asks, in another way than by leading somebody here.
fn is_by_another_site(headers: &Fields) -> bool {
    let (Ok(site), Ok(mode)) = (
        field::one(headers, &SEC_FETCH_SITE),
        field::one(headers, &SEC_FETCH_MODE),
    ) else {
        return true;
    };
    let is_ours = site.is_none_or(|site| site == "same-origin" || site == "none");
    !is_ours && mode.is_none_or(|mode| mode != "navigate")
}

fn programs(received: &Received<'_>, identity: &[HeaderName]) -> Value {
    let fields = |wanted: Option<Origin>| {
        let mut fields: Map<String, Value> = Map::new();
        for name in received.headers.names() {
            if wanted.is_some_and(|wanted| wanted != origin(name, identity)) {
                continue;
            }
            let values = received.headers.all(name);
            let values = values.map(|value| Value::from(shown(name, value)));
            fields.insert(name.as_str().to_owned(), values.collect());
        }
        fields
    };
    json!({
        "method": received.method.as_str(),
        "target": received.target,
        "version": format!("{:?}", received.version),
        "host": received.host,
        "identity": fields(Some(Origin::Identity)),
        "headers": fields(None),
    })
}

fn people(received: &Received<'_>, identity: &[HeaderName]) -> Html {
    let list = |wanted: Origin, html: Html| {
        let mut html = html;
        for (name, value) in received.headers.iter() {
            if origin(name, identity) == wanted {
                html = entry(html, name.as_str(), &shown(name, value));
            }
        }
        html.markup("</dl>\n")
    };
    let known = received
        .headers
        .names()
        .any(|name| origin(name, identity) == Origin::Identity);
    let mut html = Html::of(concat!(
        "<p>This is your request as an application behind the gate receives it.</p>\n",
        "<p class=\"line\"><code>",
    ))
    .text(received.method.as_str())
    .markup(" ")
    .text(received.target)
    .markup(" ")
    .text(&format!("{:?}", received.version))
    .markup("</code></p>\n<h2>Who you are, says the gate</h2>\n");
    html = if known {
        list(Origin::Identity, html.markup("<dl class=\"ours\">\n")).html(&signed_out::form())
    } else {
        html.markup("<p class=\"soft\">Nothing: nobody is signed in, or this application is not told.</p>\n")
    };
    html = html.markup("<h2>Where you come from, says the gate</h2>\n<dl>\n");
    html = entry(html, "host", received.host);
    html = list(Origin::Gate, html);
    html = html.markup("<h2>What your browser sent</h2>\n<dl>\n");
    list(Origin::Client, html).markup(concat!(
        "<h2>What is not here</h2>\n<p>The gate has removed its own cookies, the credentials you ",
        "signed in with, fields of the connection, and every field by which a client could have ",
        "claimed to be somebody, or to come from somewhere.</p>\n",
    ))
}

fn entry(html: Html, name: &str, value: &str) -> Html {
    let mut html = html
        .markup("<div><dt><code>")
        .text(name)
        .markup("</code></dt><dd><code>");
    // A long value breaks where it has parts, and not in a word.
    for (at, part) in value.split_inclusive([',', ';', '/']).enumerate() {
        if at > 0 && !part.starts_with(' ') {
            html = html.markup("<wbr>");
        }
        html = html.text(part);
    }
    html.markup("</code></dd></div>\n")
}

/// Whose word a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Identity,
    Gate,
    Client,
}

fn origin(name: &HeaderName, identity: &[HeaderName]) -> Origin {
    let text = name.as_str();
    let is_in =
        |family: &&str| text == *family || family.ends_with('-') && text.starts_with(*family);
    if FORWARDING.iter().any(is_in) {
        Origin::Gate
    } else if identity.contains(name) || text.starts_with("x-portcullis-") {
        Origin::Identity
    } else {
        Origin::Client
    }
}

/// A value as text, without what is secret in it.
fn shown(name: &HeaderName, value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    if *name == COOKIE {
        return cookie_names(bytes);
    }
    let scheme = match bytes.split(|&byte| byte == b' ').next() {
        Some(scheme) if field::is_token(scheme) && scheme.len() < bytes.len() => scheme,
        Some(_) | None => b"",
    };
    if *name == AUTHORIZATION || *name == PROXY_AUTHORIZATION {
        return format!("{} {}", scheme.escape_ascii(), hidden(bytes))
            .trim_start()
            .to_owned();
    }
    let has_secret_name = SECRET_ENDINGS
        .iter()
        .any(|ending| name.as_str().ends_with(ending));
    if has_secret_name || holds_token(bytes) {
        return hidden(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

fn hidden(value: &[u8]) -> String {
    format!("({} bytes, not shown)", value.len())
}

/// The names of an application's own cookies.
fn cookie_names(value: &[u8]) -> String {
    let pairs = value.split(|&byte| byte == b';').map(field::trim);
    let names = pairs.map(|pair| match memchr::memchr(b'=', pair) {
        Some(at) => match pair.split_at_checked(at) {
            Some((name, _)) => format!("{}=(not shown)", name.escape_ascii()),
            None => "(not shown)".to_owned(),
        },
        None => "(not shown)".to_owned(),
    });
    names.collect::<Vec<_>>().join("; ")
}

/// Whether some word looks like a JSON Web Token: base64url of `{"`, and dots.
fn holds_token(value: &[u8]) -> bool {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    value
        .split(|&byte| !is_of_token(byte))
        .any(|word| word.starts_with(b"eyJ") && memchr::memchr(b'.', word).is_some())
}

#[cfg(test)]
mod tests;
