//! The pages of signing in and out.

use bytes::Bytes;
use http::{Response, StatusCode};

use std::time::Duration;

use super::html::{self, Html, Page};
use super::refusal::in_words;

/// What the form shows.
pub struct Form<'a> {
    /// The application's host.
    pub host: &'a str,
    /// Where to go after.
    pub to: &'a str,
    /// The token that binds it to the browser.
    pub token: &'a str,
    /// The name that was given before.
    pub name: &'a str,
    /// Why the last attempt failed.
    pub error: Option<Error>,
}

/// Why a sign-in failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Name or password are wrong; nobody is told which.
    WrongPassword,
    /// Too many failures.
    Slowed(Duration),
    /// Too many people at once.
    Busy,
    /// The form was open for too long, or is another browser's.
    Expired,
}

/// The sign-in form. A failed attempt is 403, since 401 would need a challenge and make some
/// browsers open a dialogue of their own.
pub fn form(form: &Form<'_>, request_id: &str) -> Response<Bytes> {
    let (status, error) = match form.error {
        None => (StatusCode::OK, None),
        Some(Error::WrongPassword) => (
            StatusCode::FORBIDDEN,
            Some("The name or the password is wrong.".to_owned()),
        ),
        Some(Error::Slowed(wait)) => (
            StatusCode::TOO_MANY_REQUESTS,
            Some(format!(
                "Too many attempts. Try again in {}.",
                in_words(wait)
            )),
        ),
        Some(Error::Busy) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Some("Too busy to check passwords. Try again in a moment.".to_owned()),
        ),
        Some(Error::Expired) => (
            StatusCode::FORBIDDEN,
            Some("This form was open for too long, or cookies are off. Try again.".to_owned()),
        ),
    };
    let mut content = Html::default()
        .raw("<p>to go on to <strong>")
        .text(form.host)
        .raw("</strong></p>");
    if let Some(error) = &error {
        content = content
            .raw("<p class=\"error\" role=\"alert\" id=\"error\">")
            .text(error)
            .raw("</p>");
    }
    let content = content
        .raw("<form method=\"post\" action=\"/.portcullis/sign-in\"><input type=\"hidden\" name=\"to\" value=\"")
        .text(form.to)
        .raw("\"><input type=\"hidden\" name=\"csrf\" value=\"")
        .text(form.token)
        .raw("\"><label for=\"name\">Name</label><input id=\"name\" name=\"name\" autocomplete=\"username\" autocapitalize=\"none\" spellcheck=\"false\" required maxlength=\"256\" value=\"")
        .text(form.name)
        .raw(if form.name.is_empty() { "\" autofocus>" } else { "\">" })
        .raw("<label for=\"password\">Password</label><input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required maxlength=\"1024\"")
        .raw(if error.is_some() { " aria-describedby=\"error\"" } else { "" })
        .raw(if form.name.is_empty() { ">" } else { " autofocus>" })
        .raw("<button>Sign in</button></form>");
    html::respond(
        status,
        &Page {
            title: "Sign in",
            content,
            request_id,
            wide: false,
        },
    )
}

/// The page after signing out.
pub fn signed_out(request_id: &str) -> Response<Bytes> {
    let content = Html::default()
        .raw("<p>Your session here is over. Close the browser if others use this computer.</p><a class=\"button\" href=\"/\">Sign in again</a>");
    html::respond(
        StatusCode::OK,
        &Page {
            title: "You are signed out",
            content,
            request_id,
            wide: false,
        },
    )
}

/// The question before signing out, for those who come by a link (T15).
pub fn sign_out_question(request_id: &str) -> Response<Bytes> {
    let content = Html::default()
        .raw("<p>Your session on this site will end.</p><form method=\"post\" action=\"/.portcullis/sign-out\"><button>Sign out</button></form><a class=\"button quiet\" href=\"/\">Stay signed in</a>");
    html::respond(
        StatusCode::OK,
        &Page {
            title: "Sign out?",
            content,
            request_id,
            wide: false,
        },
    )
}
