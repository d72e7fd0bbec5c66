//! Signing out: the question, and good-bye.
//!
//! GET only asks, whoever led the browser there; the form's POST does it (SECURITY.md T15).

use bytes::Bytes;
use http::{Response, StatusCode};

use super::html::Html;
use super::{Context, SIGN_OUT};

/// Asks whether to sign out.
pub fn confirm(ctx: &Context<'_>) -> Response<Bytes> {
    let html = Html::of("<p>You will need your password to come back.</p>\n")
        .html(&form())
        .markup("<p class=\"quiet\"><a href=\"/\">Stay signed in</a></p>\n");
    super::page(ctx, StatusCode::OK, "Sign out?", &html)
}

/// Says that nobody is signed in any more.
pub fn page(ctx: &Context<'_>) -> Response<Bytes> {
    let html = Html::of(concat!(
        "<p>Close this window if others use this device.</p>\n",
        "<p><a class=\"button\" href=\"/\">Sign in again</a></p>\n",
    ));
    super::page(ctx, StatusCode::OK, "You are signed out", &html)
}

/// The form that signs out.
pub(crate) fn form() -> Html {
    Html::of("<form method=\"post\" action=\"")
        .markup(SIGN_OUT)
        .markup("\"><button>Sign out</button></form>\n")
}
