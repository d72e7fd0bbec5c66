//! The sign-in form.
//!
//! | when | then |
//! |---|---|
//! | it is asked for | 200, and the form |
//! | the name or the password was wrong, or the form too old | 403: the credentials do not suffice (RFC 9110 §15.5.4) |
//! | there were too many failures | 429 with `Retry-After` |
//! | no password can be verified now | 503 with `Retry-After` |
//! | a person has signed in | 200, and a page that leads on |
//! | a program has | 303 |
//!
//! Never 401, which must carry a challenge (RFC 9110 §15.5.2): there is none that a form can meet.
//! The name is given back, the password never.
//!
//! A person is led on by a page, because Chromium holds every redirect that follows a form to
//! `form-action`: an application that sends whoever comes to another host, as many a front page does,
//! would leave them at the form, signed in and stuck. What a page leads to is no part of the form.

use std::time::Duration;

use bytes::Bytes;
use http::header::{REFRESH, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::html::Html;
use super::negotiate::Audience;
use super::{Context, SIGN_IN};

/// How soon to try again when all verifiers are at work: a hash takes a fraction of it.
const BUSY: Duration = Duration::from_secs(2);

/// What the form holds.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// Where the person is going: a path of this host that was checked.
    pub to: &'a str,
    /// The token that binds the form to this browser.
    pub csrf: &'a str,
    /// The name that was tried; empty at first.
    pub name: &'a str,
    /// Why the form is shown again.
    pub error: Option<SignInError>,
}

/// Why a sign-in did not succeed, as far as a person is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInError {
    /// The name or the password is wrong; nobody is told which.
    WrongPassword,
    /// Too many failures for this name from this network.
    TooMany {
        /// When to try again.
        retry_after: Duration,
    },
    /// Too many passwords are being verified, or the session can't be kept.
    Busy,
    /// The form is of another browser, or too old.
    ExpiredForm,
}

impl SignInError {
    const fn status(self) -> StatusCode {
        match self {
            Self::WrongPassword | Self::ExpiredForm => StatusCode::FORBIDDEN,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::WrongPassword | Self::ExpiredForm => None,
            Self::TooMany { retry_after } => Some(retry_after),
            Self::Busy => Some(BUSY),
        }
    }

    fn sentence(self) -> Html {
        match self {
            Self::WrongPassword => {
                Html::of("The user name or the password is wrong. Check both, and try again.")
            }
            Self::TooMany { retry_after } => Html::of("Too many attempts have failed. Wait ")
                .text(&super::wait(retry_after))
                .markup(", then try again."),
            Self::Busy => {
                Html::of("Nobody can sign in just now. Wait a few seconds, then try again.")
            }
            Self::ExpiredForm => Html::of(
                "This page was open for too long, or cookies are blocked. Allow cookies for this \
                 site, and try again.",
            ),
        }
    }
}

/// The page with the form.
pub fn page(ctx: &Context<'_>, form: &Form<'_>) -> Response<Bytes> {
    let mut html = match ctx.site() {
        "" => Html::of("<p>Enter your user name and password to continue.</p>\n"),
        site => Html::of("<p>Enter your user name and password to continue to <b>")
            .name(site)
            .markup("</b>.</p>\n"),
    };
    // Words that are there before the reader is: an alert that the page loads with is read out.
    if let Some(error) = form.error {
        html = html
            .markup("<p class=\"error\" id=\"error\" role=\"alert\" aria-live=\"assertive\">")
            .html(&error.sentence())
            .markup("</p>\n");
    }
    let wrong = if form.error == Some(SignInError::WrongPassword) {
        " aria-invalid=\"true\" aria-describedby=\"error\""
    } else {
        ""
    };
    // The first field that is still to be filled in.
    let (at_name, at_password) = if form.name.is_empty() {
        (" autofocus", "")
    } else {
        ("", " autofocus")
    };
    let html = html
        .markup("<form method=\"post\" action=\"")
        .markup(SIGN_IN)
        .markup("\">\n<input type=\"hidden\" name=\"to\" value=\"")
        .text(form.to)
        .markup("\">\n<input type=\"hidden\" name=\"csrf\" value=\"")
        .text(form.csrf)
        .markup(concat!(
            "\">\n<label for=\"name\">User name</label>\n",
            "<input id=\"name\" name=\"name\" autocomplete=\"username\" autocapitalize=\"none\" ",
            "autocorrect=\"off\" spellcheck=\"false\" maxlength=\"256\" required",
        ))
        .markup(at_name)
        .markup(wrong)
        .markup(" value=\"")
        .text(form.name)
        .markup(concat!(
            "\">\n<label for=\"password\">Password</label>\n",
            "<input id=\"password\" name=\"password\" type=\"password\" ",
            "autocomplete=\"current-password\" maxlength=\"1024\" required",
        ))
        .markup(at_password)
        .markup(wrong)
        .markup(">\n<button>Sign in</button>\n</form>\n");
    let status = form.error.map_or(StatusCode::OK, SignInError::status);
    let mut response = super::page(ctx, status, "Sign in", &html);
    if let Some(time) = form.error.and_then(SignInError::retry_after) {
        let seconds = super::seconds(time);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Leads who has signed in to `to`, a path of this host that was checked.
pub fn done(ctx: &Context<'_>, to: &str) -> Response<Bytes> {
    if ctx.asked.audience() != Some(Audience::Browser) {
        return super::redirect(ctx, to);
    }
    // Who has switched off that pages lead elsewhere by themselves goes by the link.
    let html = Html::of("<p>One moment: the page that you asked for is being opened.</p>\n")
        .markup("<p><a class=\"button\" href=\"")
        .text(to)
        .markup("\">Continue</a></p>\n");
    let mut response = super::page(ctx, StatusCode::OK, "You are signed in", &html);
    if let Ok(refresh) = HeaderValue::try_from(format!("0;url={to}")) {
        response.headers_mut().insert(REFRESH, refresh);
    }
    response
}
