//! What the gateway itself says: pages for people, problems for programs.
//!
//! | module | says |
//! |---|---|
//! | [`refusal`] | whatever a stage refuses: the one place where a [`Refusal`](crate::refusal::Refusal) becomes a response |
//! | [`sign_in`] | the providers to choose from, and the form |
//! | [`provider`] | why a sign-in by a provider came to nothing |
//! | [`sessions`] | on which devices somebody is signed in |
//! | [`signed_out`] | the way out, and good-bye |
//!
//! Every answer has a fixed set of fields, and names neither this program nor a backend. Pages hold
//! no script and ask for nothing: their one style stands in them, and the policy allows it by its
//! hash.

pub mod html;
pub mod negotiate;
pub mod problem;
pub mod refusal;
pub mod sign_in;
pub mod provider;
pub mod sessions;
pub mod signed_out;

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::record::Record;

pub use negotiate::Asked;

use html::Html;

/// Where people sign in.
pub const SIGN_IN: &str = "/.portcullis/sign-in";
/// Where they sign out.
pub const SIGN_OUT: &str = "/.portcullis/sign-out";
/// Where they see on which devices they are signed in.
pub const SESSIONS: &str = "/.portcullis/sessions";
/// Where they come back to when they have signed out at a provider, too.
pub const SIGNED_OUT: &str = "/.portcullis/signed-out";
/// Where a browser brings what the sign-in host has given it.
pub const ADMIT: &str = "/.portcullis/admit";
/// Below it each provider has the address to which it sends browsers back.
pub const CALLBACK: &str = "/.portcullis/callback/";

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

const STYLE: &str = include_str!("pages/style.css");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// The mark, as an image that needs no request. It has its own ground, and so looks right in the
/// light, in the dark and in forced colours.
const MARK: &str = "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'%20viewBox='0%200%2032%2032'%3E%3Crect%20width='32'%20height='32'%20rx='8'%20fill='%233b5fcb'/%3E%3Cg%20fill='none'%20stroke='%23fff'%20stroke-linecap='round'%20stroke-linejoin='round'%3E%3Cpath%20stroke-width='2.2'%20d='M6.5%2026.5V15a9.5%209.5%200%200%201%2019%200v11.5'/%3E%3Cpath%20stroke-width='1.8'%20d='M11.2%209.5v12.3M16%206v15.8M20.8%209.5v12.3M7%2013.2h18M7%2018.2h18'/%3E%3C/g%3E%3Cpath%20fill='%23fff'%20d='M9.7%2021.5h3l-1.5%203.6zM14.5%2021.5h3l-1.5%203.6zM19.3%2021.5h3l-1.5%203.6z'/%3E%3C/svg%3E";

/// The policy of a page with a form that is sent to a provider.
fn policy_with_form_to(origin: &str) -> Option<HeaderValue> {
    let usual = POLICY.to_str().ok()?;
    let wider = usual.replace(
        "form-action 'self'",
        &format!("form-action 'self' {origin}"),
    );
    HeaderValue::try_from(wider).ok()
}

/// `Content-Security-Policy` of every answer. Without a hash, should it not be a value, there is no
/// style, and nothing else either.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
    let hash = STANDARD.encode(hash);
    HeaderValue::try_from(format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'"
    ))
    .unwrap_or(HeaderValue::from_static(
        "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ))
});

/// What an answer is told of the exchange.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What was asked, and by whom.
    pub asked: &'a Asked,
    /// The request's id; empty where there is none.
    pub request_id: &'a str,
    /// The host asked for, canonical; empty where it could not be read.
    pub host: &'a str,
    /// The application's name.
    pub app: Option<&'a str>,
    /// Whom to ask: an e-mail address, an `https` address or a name.
    pub contact: Option<&'a str>,
    /// Whether people sign in, and so out, on a page of this host.
    pub has_sign_in_page: bool,
}

impl<'a> Context<'a> {
    /// What is told of the exchange in `seen`; a contact is the policy's to add.
    pub fn new(asked: &'a Asked, seen: &'a Record) -> Self {
        Self {
            asked,
            request_id: &seen.request_id,
            host: seen.host.as_deref().unwrap_or_default(),
            app: seen.app.as_deref(),
            contact: None,
            has_sign_in_page: seen.has_sign_in_page,
        }
    }

    /// What the page calls the place: the application, else the host, else nothing.
    fn site(&self) -> &str {
        self.app.unwrap_or(self.host)
    }

    /// Whom to ask, in the middle of a sentence.
    fn contact(&self) -> Html {
        let Some(contact) = self.contact else {
            return Html::of("the people who run this site");
        };
        let is_address =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-' | '@');
        let link = if contact.starts_with("https://") {
            Html::of("<a href=\"")
        } else if contact.contains('@') && contact.chars().all(is_address) {
            Html::of("<a href=\"mailto:")
        } else {
            return Html::of("<b>").name(contact).markup("</b>");
        };
        link.text(contact)
            .markup("\">")
            .name(contact)
            .markup("</a>")
    }
}

/// A page: `title` is both its heading and the name of its tab.
pub(crate) fn page(
    ctx: &Context<'_>,
    status: StatusCode,
    title: &'static str,
    content: &Html,
) -> Response<Bytes> {
    let html = document(ctx, title, "page", content);
    answer(ctx, status, HTML, html.into_string())
}

/// A page that shows a lot.
pub(crate) fn wide_page(ctx: &Context<'_>, title: &'static str, content: &Html) -> Response<Bytes> {
    let html = document(ctx, title, "page wide", content);
    answer(ctx, StatusCode::OK, HTML, html.into_string())
}

fn document(ctx: &Context<'_>, title: &'static str, class: &'static str, content: &Html) -> Html {
    let site = ctx.site();
    let mut html = Html::of(concat!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
        "<meta name=\"color-scheme\" content=\"light dark\">\n",
        "<meta name=\"robots\" content=\"noindex\">\n<link rel=\"icon\" href=\"",
    ))
    .markup(MARK)
    .markup("\">\n<title>")
    .markup(title);
    if !site.is_empty() {
        html = html.markup(" · ").text(site);
    }
    html = html
        .markup("</title>\n<style>")
        .markup(STYLE)
        .markup("</style>\n</head>\n<body>\n<div class=\"")
        .markup(class)
        .markup("\">\n<header><img src=\"")
        .markup(MARK)
        .markup("\" alt=\"\" width=\"32\" height=\"32\">");
    if !site.is_empty() {
        html = html.markup("<span>").name(site).markup("</span>");
    }
    html = html
        .markup("</header>\n<main>\n<h1>")
        .markup(title)
        .markup("</h1>\n")
        .html(content)
        .markup("</main>\n");
    if !ctx.request_id.is_empty() {
        html = html
            .markup("<footer><span>Request id</span> <code>")
            .text(ctx.request_id)
            .markup("</code></footer>\n");
    }
    html.markup("</div>\n</body>\n</html>\n")
}

/// 303 to a path of this host, or to a provider, which a browser follows with GET whatever it asked with.
pub fn redirect(ctx: &Context<'_>, path: &str) -> Response<Bytes> {
    let mut response = answer(ctx, StatusCode::SEE_OTHER, HTML, String::new());
    let location = HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, location);
    response
}

/// An answer without content, for programs that look at the status alone.
pub fn nothing(ctx: &Context<'_>, status: StatusCode) -> Response<Bytes> {
    answer(ctx, status, HTML, String::new())
}

/// An answer with the fields that all have.
pub(crate) fn answer(
    ctx: &Context<'_>,
    status: StatusCode,
    content_type: HeaderValue,
    content: String,
) -> Response<Bytes> {
    let length = content.len();
    let has_content = !ctx.asked.is_head && !content.is_empty();
    let mut response = Response::new(if has_content {
        Bytes::from(content)
    } else {
        Bytes::new()
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if length > 0 {
        headers.insert(CONTENT_TYPE, content_type);
    }
    // Of HEAD, too: as long as the content of GET would be (RFC 9110 §8.6).
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static(negotiate::VARY));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not `no-referrer`: browsers would send our own forms with `Origin: null`.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(
        CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    if let Ok(id) = HeaderValue::try_from(ctx.request_id)
        && !id.is_empty()
    {
        headers.insert(X_REQUEST_ID, id);
    }
    response
}

/// Whole seconds, rounded up, for `Retry-After` and its kin: who comes back then is not too early.
fn seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// A time to wait, as people say it, and never less than it is.
fn wait(time: Duration) -> String {
    let (count, unit) = match seconds(time).max(1) {
        seconds @ 0..=90 => (seconds, "second"),
        seconds @ 91..=5400 => (seconds.div_ceil(60), "minute"),
        seconds => (seconds.div_ceil(3600), "hour"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count}\u{a0}{unit}{plural}")
}

#[cfg(test)]
mod tests;
