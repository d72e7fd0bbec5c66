//! When a sign-in by a provider comes to nothing: what happened, and what to do.
//!
//! | when | then |
//! |---|---|
//! | the answer can't be read, or answers nothing that was asked | 400 |
//! | the provider, or the person there, said no | 403 |
//! | what the provider says proves nothing | 403 |
//! | the provider can't be asked now | 503 with `Retry-After` |
//! | the provider does not take our requests | 502 |
//! | the person has signed in three times within a minute, and is asked to again | 403, naming the cause |
//!
//! Nothing that came in the address is shown (SECURITY.md T14); the log has the reason.

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Response, StatusCode};

use super::html::Html;
use super::negotiate::Audience;
use super::problem::{self, Problem};
use super::{Context, SIGN_IN};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The address holds no answer of a provider.
    NoAnswer,
    /// The browser did not send the cookie that the sign-in was begun with.
    Cookie,
    /// The sign-in took too long, or was finished before.
    Over,
    /// The provider said no.
    Denied,
    /// What the provider says proves nothing.
    Unproven,
    /// The provider can't be asked now.
    Away,
    /// The provider does not take our requests.
    Misconfigured,
    /// It goes round in circles, because the browser does not keep the session's cookie.
    LoopWithoutCookie,
    /// .. because the session ends as soon as it has begun.
    LoopOfEndedSessions,
    /// .. because the sign-in is never fresh, or never by the means, that the page asks for.
    LoopOfStaleSignIns,
}

impl Trouble {
    const fn status(self) -> StatusCode {
        match self {
            Self::NoAnswer | Self::Cookie | Self::Over => StatusCode::BAD_REQUEST,
            Self::Denied
            | Self::Unproven
            | Self::LoopWithoutCookie
            | Self::LoopOfEndedSessions
            | Self::LoopOfStaleSignIns => StatusCode::FORBIDDEN,
            Self::Away => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misconfigured => StatusCode::BAD_GATEWAY,
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::NoAnswer | Self::Cookie | Self::Over | Self::Unproven => {
                "You are not signed in yet"
            }
            Self::Denied => "You were not let in",
            Self::Away | Self::Misconfigured => "Nobody can sign in just now",
            Self::LoopWithoutCookie | Self::LoopOfEndedSessions | Self::LoopOfStaleSignIns => {
                "Signing in goes round in circles"
            }
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::NoAnswer => "This address is part of a sign-in, and holds nothing by itself.",
            Self::Cookie => {
                "Your browser did not send the cookie that the sign-in was begun with. Allow cookies \
                 for this site, use one browser for the whole sign-in, and check that the address \
                 begins with https."
            }
            Self::Over => {
                "This sign-in took too long, or was finished before. That happens when you come back \
                 to an old page."
            }
            Self::Denied => "The sign-in service did not let you in, or you have cancelled it.",
            Self::Unproven => {
                "What the sign-in service says of you can’t be verified, so it does not count."
            }
            Self::Away => "The sign-in service does not answer. Try again in a minute.",
            Self::Misconfigured => {
                "The sign-in service does not take this site’s requests: what the two know of each \
                 other does not match."
            }
            Self::LoopWithoutCookie => {
                "You have signed in three times, and each time your browser did not keep the cookie \
                 that says so. Allow cookies for this site, and check that the address begins with \
                 https."
            }
            Self::LoopOfEndedSessions => {
                "You have signed in three times, and each time the session ended at once. The clocks \
                 of this site and of the sign-in service may differ, or the service takes each \
                 sign-in back."
            }
            Self::LoopOfStaleSignIns => {
                "This page wants a fresher or stronger sign-in, and the sign-in service does not ask \
                 you for one."
            }
        }
    }
}

/// Says what happened; `to` is where the person was going.
pub fn page(ctx: &Context<'_>, trouble: Trouble, to: &str) -> Response<Bytes> {
    let status = trouble.status();
    let retry_after = (trouble == Trouble::Away).then_some(30);
    let mut response = if ctx.asked.audience() == Some(Audience::Browser) {
        let mut query = crate::pure::form::Writer::default();
        query.add("to", to);
        let html = Html::of("<p>")
            .markup(trouble.sentence())
            .markup("</p>\n<p><a class=\"button\" href=\"")
            .markup(SIGN_IN)
            .markup("?")
            .text(&query.into_string())
            .markup("\">Try again</a></p>\n<p class=\"quiet\">If it stays like this, tell ")
            .html(&ctx.contact())
            .markup(" the request id below.</p>\n");
        super::page(ctx, status, trouble.heading(), &html)
    } else {
        let problem = Problem {
            kind: "/.portcullis/problems/sign-in-failed",
            title: "Sign-in failed",
            status: status.as_u16(),
            detail: trouble.sentence(),
            sign_in: Some(SIGN_IN),
            missing: &[],
            retry_after,
            request_id: ctx.request_id,
        };
        problem::respond(ctx, status, &problem)
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}
