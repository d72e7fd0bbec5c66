//! Signing out: the question, and good-bye.
//!
//! GET only asks, whoever led the browser there; the form's POST does it (SECURITY.md T15). Where a
//! provider vouched, good-bye offers to sign out there, too. A link brings the provider its own cookie,
//! by which it knows who it is; some want the ID token instead, and get it by a form, since no token
//! stands in a URL (SECURITY.md R3).

use bytes::Bytes;
use http::header::CONTENT_SECURITY_POLICY;
use http::{Response, StatusCode};

use super::html::Html;
use super::{Context, SESSIONS, SIGN_OUT};

/// Where, and with what, somebody signs out at their provider.
#[derive(Debug, Clone, Copy)]
pub struct AtProvider<'a> {
    /// What people call it.
    pub title: &'a str,
    /// The address of the link or the form.
    pub url: &'a str,
    /// The form, where it is one.
    pub form: Option<Form<'a>>,
}

/// A form that is sent to a provider.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// Scheme, host and port of its address.
    pub origin: &'a str,
    /// Its fields.
    pub fields: &'a [(&'static str, &'a str)],
}

/// Asks whether to sign out.
pub fn confirm(ctx: &Context<'_>) -> Response<Bytes> {
    let html = Html::of("<p>You will need to sign in to come back.</p>\n")
        .html(&form())
        .markup("<p class=\"quiet\"><a href=\"/\">Stay signed in</a> · <a href=\"")
        .markup(SESSIONS)
        .markup("\">All your sessions</a></p>\n");
    super::page(ctx, StatusCode::OK, "Sign out?", &html)
}

/// Says that nobody is signed in any more.
pub fn page(ctx: &Context<'_>, at_provider: Option<&AtProvider<'_>>) -> Response<Bytes> {
    let mut html = Html::of("<p>Close this window if others use this device.</p>\n");
    if let Some(provider) = at_provider {
        html = html
            .markup("<p>You may still be signed in to ")
            .name(provider.title)
            .markup(", which would let you in again without a question.</p>\n");
        html = match &provider.form {
            None => html
                .markup("<p><a class=\"button\" rel=\"noreferrer\" href=\"")
                .text(provider.url)
                .markup("\">Sign out of ")
                .name(provider.title)
                .markup(", too</a></p>\n"),
            Some(form) => by_form(html, provider, form),
        };
    }
    html = html.markup("<p class=\"quiet\"><a href=\"/\">Sign in again</a></p>\n");
    let mut response = super::page(ctx, StatusCode::OK, "You are signed out", &html);
    let form = at_provider.and_then(|at| at.form);
    if let Some(policy) = form.and_then(|form| super::policy_with_form_to(form.origin)) {
        response
            .headers_mut()
            .insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn by_form(html: Html, provider: &AtProvider<'_>, form: &Form<'_>) -> Html {
    let mut html = html
        .markup("<form method=\"post\" action=\"")
        .text(provider.url)
        .markup("\">\n");
    for (name, value) in form.fields {
        html = html
            .markup("<input type=\"hidden\" name=\"")
            .markup(name)
            .markup("\" value=\"")
            .text(value)
            .markup("\">\n");
    }
    html.markup("<button>Sign out of ")
        .name(provider.title)
        .markup(", too</button>\n</form>\n")
}

/// The form that signs out.
pub(crate) fn form() -> Html {
    Html::of("<form method=\"post\" action=\"")
        .markup(SIGN_OUT)
        .markup("\"><button>Sign out</button></form>\n")
}
