//! The sign-in page: the providers to choose from, and the form.
//!
//! | when | then |
//! |---|---|
//! | it is asked for | 200, a link for each provider, and the form where there are local accounts |
//! | an e-mail address is of no provider's domains | 403, saying so |
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

use crate::pure::form::Writer;

use super::html::Html;
use super::negotiate::Audience;
use super::{Context, SIGN_IN};

/// How soon to try again when all verifiers are at work: a hash takes a fraction of it.
const BUSY: Duration = Duration::from_secs(2);

/// What a person can choose from.
#[derive(Debug, Clone, Default)]
pub struct Offer<'a> {
    /// Where the person is going: a path of this host that was checked.
    pub to: &'a str,
    /// How fresh the sign-in must be, in seconds.
    pub within: Option<u64>,
    /// The ticket of the host that waits for the sign-in; empty without one.
    pub waiting: &'a str,
    /// The authentication contexts of which it must be in one, with spaces between.
    pub acr: Option<String>,
    /// Providers: their names in the configuration, and what people call them.
    pub providers: Vec<(&'a str, &'a str)>,
    /// Whether an e-mail address names a provider.
    pub by_email: bool,
    /// The form, where there are local accounts.
    pub form: Option<Form<'a>>,
    /// Why it is shown again.
    pub error: Option<SignInError>,
}

/// What the form holds.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// The token that binds the form to this browser.
    pub csrf: &'a str,
    /// The name that was tried; empty at first.
    pub name: &'a str,
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
    /// No provider is for this e-mail address.
    UnknownDomain,
}

impl SignInError {
    const fn status(self) -> StatusCode {
        match self {
            Self::WrongPassword | Self::ExpiredForm | Self::UnknownDomain => StatusCode::FORBIDDEN,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::WrongPassword | Self::ExpiredForm | Self::UnknownDomain => None,
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
            Self::UnknownDomain => {
                Html::of("Nobody signs in here with such an address. Check it, and try again.")
            }
        }
    }
}

/// The page.
pub fn page(ctx: &Context<'_>, offer: &Offer<'_>) -> Response<Bytes> {
    let begin = if offer.form.is_some() && offer.providers.is_empty() {
        "<p>Enter your user name and password to continue"
    } else {
        "<p>Sign in to continue"
    };
    let mut html = Html::of(begin);
    html = match ctx.site() {
        "" => html.markup(".</p>\n"),
        site => html.markup(" to <b>").name(site).markup("</b>.</p>\n"),
    };
    // Words that are there before the reader is: an alert that the page loads with is read out.
    if let Some(error) = offer.error {
        html = html
            .markup("<p class=\"error\" id=\"error\" role=\"alert\" aria-live=\"assertive\">")
            .html(&error.sentence())
            .markup("</p>\n");
    }
    for (name, title) in &offer.providers {
        html = html
            .markup("<p><a class=\"button\" rel=\"nofollow\" href=\"")
            .text(&link(name, offer))
            .markup("\">Continue with ")
            .name(title)
            .markup("</a></p>\n");
    }
    if offer.by_email {
        html = by_email(html, offer);
    }
    if let Some(form) = &offer.form {
        if !offer.providers.is_empty() {
            html = html.markup("<h2>With a password</h2>\n");
        }
        html = by_password(html, offer, form);
    }
    let status = offer.error.map_or(StatusCode::OK, SignInError::status);
    let mut response = super::page(ctx, status, "Sign in", &html);
    if let Some(time) = offer.error.and_then(SignInError::retry_after) {
        let seconds = super::seconds(time);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Where a sign-in at a provider begins.
fn link(provider: &str, offer: &Offer<'_>) -> String {
    let mut query = Writer::default();
    query.add("with", provider);
    if offer.to != "/" {
        query.add("to", offer.to);
    }
    if let Some(within) = offer.within {
        query.add("within", &within.to_string());
    }
    if !offer.waiting.is_empty() {
        query.add("for", offer.waiting);
    }
    if let Some(acr) = &offer.acr {
        query.add("acr", acr);
    }
    format!("{SIGN_IN}?{}", query.into_string())
}

fn by_email(html: Html, offer: &Offer<'_>) -> Html {
    let wrong = if offer.error == Some(SignInError::UnknownDomain) {
        " aria-invalid=\"true\" aria-describedby=\"error\""
    } else {
        ""
    };
    let mut html = html
        .markup("<form method=\"get\" action=\"")
        .markup(SIGN_IN)
        .markup("\">\n<input type=\"hidden\" name=\"for\" value=\"")
        .text(offer.waiting)
        .markup("\">\n<input type=\"hidden\" name=\"to\" value=\"")
        .text(offer.to);
    // What is asked of the sign-in is asked of it by whichever way it is chosen.
    if let Some(within) = offer.within {
        html = html
            .markup("\">\n<input type=\"hidden\" name=\"within\" value=\"")
            .text(&within.to_string());
    }
    if let Some(acr) = &offer.acr {
        html = html
            .markup("\">\n<input type=\"hidden\" name=\"acr\" value=\"")
            .text(acr);
    }
    html.markup(concat!(
        "\">\n<label for=\"email\">E-mail address</label>\n",
        "<input id=\"email\" name=\"email\" type=\"email\" autocomplete=\"email\" ",
        "maxlength=\"254\" required",
    ))
    .markup(wrong)
    .markup(">\n<button>Continue</button>\n</form>\n")
}

fn by_password(html: Html, offer: &Offer<'_>, form: &Form<'_>) -> Html {
    let wrong = if offer.error == Some(SignInError::WrongPassword) {
        " aria-invalid=\"true\" aria-describedby=\"error\""
    } else {
        ""
    };
    // The first field that is still to be filled in.
    let (at_name, at_password) = match (offer.providers.is_empty(), form.name.is_empty()) {
        (_, false) => ("", " autofocus"),
        (true, true) => (" autofocus", ""),
        (false, true) => ("", ""),
    };
    html.markup("<form method=\"post\" action=\"")
        .markup(SIGN_IN)
        .markup("\">\n<input type=\"hidden\" name=\"for\" value=\"")
        .text(offer.waiting)
        .markup("\">\n<input type=\"hidden\" name=\"to\" value=\"")
        .text(offer.to)
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
        .markup(">\n<button>Sign in</button>\n</form>\n")
}

/// Leads who has signed in to `to`, a path of this host that was checked.
pub fn done(ctx: &Context<'_>, to: &str) -> Response<Bytes> {
    let words = "<p>One moment: the page that you asked for is being opened.</p>\n";
    lead_on(ctx, "You are signed in", words, to)
}

/// Leads who has given an e-mail address to the provider's `url`: by a page, for the same reason.
pub fn to_provider(ctx: &Context<'_>, url: &str) -> Response<Bytes> {
    let words = "<p>One moment: your organisation’s sign-in page is being opened.</p>\n";
    lead_on(ctx, "Sign in", words, url)
}

fn lead_on(
    ctx: &Context<'_>,
    title: &'static str,
    words: &'static str,
    to: &str,
) -> Response<Bytes> {
    if ctx.asked.audience() != Some(Audience::Browser) {
        return super::redirect(ctx, to);
    }
    // Who has switched off that pages lead elsewhere by themselves goes by the link.
    let html = Html::of(words)
        .markup("<p><a class=\"button\" href=\"")
        .text(to)
        .markup("\">Continue</a></p>\n");
    let mut response = super::page(ctx, StatusCode::OK, title, &html);
    if let Ok(refresh) = HeaderValue::try_from(format!("0;url={to}")) {
        response.headers_mut().insert(REFRESH, refresh);
    }
    response
}
