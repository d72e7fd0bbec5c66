//! The one place where a refusal becomes a response.
//!
//! | when | then |
//! |---|---|
//! | 401, a person asked for a page, and there is a sign-in page | 303 to it, and from there back |
//! | 401 else | every challenge; a program also learns where the sign-in page is |
//! | 401 to something in a browser, and there is a sign-in page | no `Basic` among them: its dialog would cover the application |
//! | 401, but there is nothing to sign in with | 403 |
//! | 405 | `Allow` |
//! | 429 | `Retry-After`, and the `RateLimit` fields |
//! | 403 to a token without the scope that it takes | a challenge that names the scope |
//! | 403 to somebody who is told what they lack | the sentences, and for programs `missing` |
//! | a person asked | a page |
//! | a program asked | `application/problem+json` |
//! | the request could not be read | a page if the browser's cookies or address may be too long, else a problem |
//!
//! Says the status, a sentence, and the request's id. Never says the reason, which is for the log, nor
//! anything of a backend.

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::refusal::{Answer, Challenge, Limited, Refusal};

use super::html::Html;
use super::negotiate::Audience;
use super::problem::{self, Problem};
use super::{Context, SIGN_IN, SIGN_OUT};

/// The longest path that the sign-in page is asked to lead back to, before it is encoded.
const MAX_TO: usize = 2048;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The response to a request that is refused.
pub fn respond(refusal: &Refusal, ctx: &Context<'_>) -> Response<Bytes> {
    let said = Said::of(&refusal.answer, ctx);
    match &refusal.answer {
        Answer::Challenge(challenge) => challenged(challenge, said, ctx),
        Answer::TooManyRequests(limited) => {
            let wait = super::seconds(limited.retry_after).max(1);
            let mut response = said.respond(
                ctx,
                Extra {
                    retry_after: Some(wait),
                    ..Extra::default()
                },
            );
            limit_fields(response.headers_mut(), limited, wait);
            response
        }
        Answer::MethodNotAllowed => {
            let mut response = said.respond(ctx, Extra::default());
            // Only our own pages refuse a method this way, and they all take these (RFC 9110 §10.2.1).
            let methods = HeaderValue::from_static("GET, HEAD, POST");
            response.headers_mut().insert(ALLOW, methods);
            response
        }
        Answer::Forbidden { as_whom: Some(_) } => {
            let way_out = ctx.has_sign_in_page;
            said.respond(
                ctx,
                Extra {
                    way_out,
                    ..Extra::default()
                },
            )
        }
        Answer::Lacking { missing, .. } => said.respond(
            ctx,
            Extra {
                way_out: ctx.has_sign_in_page,
                missing,
                ..Extra::default()
            },
        ),
        Answer::InsufficientScope {
            missing, challenge, ..
        } => {
            let mut response = said.respond(
                ctx,
                Extra {
                    way_out: ctx.has_sign_in_page,
                    missing,
                    ..Extra::default()
                },
            );
            if let Ok(challenge) = HeaderValue::try_from(challenge) {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        }
        Answer::BadRequest
        | Answer::Forbidden { as_whom: None }
        | Answer::NotFound
        | Answer::RequestTimeout
        | Answer::ContentTooLarge
        | Answer::UriTooLong
        | Answer::ExpectationFailed
        | Answer::Misdirected
        | Answer::FieldsTooLarge
        | Answer::Internal
        | Answer::NotImplemented
        | Answer::BadGateway
        | Answer::Unavailable
        | Answer::GatewayTimeout => said.respond(ctx, Extra::default()),
    }
}

/// What stands in for the content of an application's own answer with a status of 5xx: its status is
/// kept, its words are not.
pub fn instead_of_backend_error(status: StatusCode, ctx: &Context<'_>) -> Response<Bytes> {
    let said = Said {
        status,
        ..Said::application_failed(ctx)
    };
    said.respond(ctx, Extra::default())
}

/// What some answers hold besides.
#[derive(Default)]
struct Extra<'a> {
    /// Where a person can sign in, for programs.
    sign_in: Option<&'static str>,
    /// Seconds to wait.
    retry_after: Option<u64>,
    /// What whoever asks lacks.
    missing: &'a [String],
    /// A link to sign out, for who is signed in as somebody else.
    way_out: bool,
}

/// What is said to the one who asked.
struct Said {
    status: StatusCode,
    kind: &'static str,
    /// For people.
    heading: &'static str,
    /// For people: what to do.
    advice: Html,
    /// For programs.
    title: &'static str,
    /// For programs: what to do.
    detail: &'static str,
}

impl Said {
    fn of(answer: &Answer, ctx: &Context<'_>) -> Self {
        match answer {
            Answer::BadRequest => Self {
                status: StatusCode::BAD_REQUEST,
                kind: "/.portcullis/problems/bad-request",
                heading: "This request can’t be understood",
                advice: Html::of(
                    "Check the address for odd characters, or go back and follow the link again.",
                ),
                title: "Bad request",
                detail: "The request is malformed or ambiguous; correct it before you send it again.",
            },
            Answer::Challenge(_) => Self {
                status: StatusCode::UNAUTHORIZED,
                kind: "/.portcullis/problems/sign-in-required",
                heading: "Sign in to continue",
                advice: Html::of("Reload this page, and enter your user name and password."),
                title: "Sign-in required",
                detail: "Send valid credentials of one of the schemes in WWW-Authenticate.",
            },
            Answer::Lacking { as_whom, missing } => {
                let mut advice = Html::of("You are signed in as <b>")
                    .name(as_whom)
                    .markup("</b>.");
                for one in missing {
                    advice = advice.markup("</p>\n<p>").text(one).markup(".");
                }
                Self {
                    advice: advice
                        .markup("</p>\n<p>Ask ")
                        .html(&ctx.contact())
                        .markup(" for access, and quote the request id below."),
                    detail: "Access is not granted for what is in `missing`; ask the operator for it, and quote the request id.",
                    ..Self::of(&Answer::Forbidden { as_whom: None }, ctx)
                }
            }
            Answer::InsufficientScope {
                as_whom, missing, ..
            } => {
                let answer = match as_whom {
                    Some(as_whom) if !missing.is_empty() => Answer::Lacking {
                        as_whom: as_whom.clone(),
                        missing: missing.clone(),
                    },
                    as_whom => Answer::Forbidden {
                        as_whom: as_whom.clone(),
                    },
                };
                Self {
                    kind: "/.portcullis/problems/insufficient-scope",
                    title: "Insufficient scope",
                    detail: "Send a token with the scope in WWW-Authenticate.",
                    ..Self::of(&answer, ctx)
                }
            }
            Answer::Forbidden { as_whom } => Self {
                status: StatusCode::FORBIDDEN,
                kind: "/.portcullis/problems/forbidden",
                heading: "You don’t have access",
                advice: match as_whom {
                    Some(name) => Html::of("You are signed in as <b>")
                        .name(name)
                        .markup("</b>; ask ")
                        .html(&ctx.contact())
                        .markup(" for access, and quote the request id below."),
                    None => Html::of("If you should be able to open this from here, ask ")
                        .html(&ctx.contact())
                        .markup(", and quote the request id below."),
                },
                title: "Forbidden",
                detail: "Access is not granted; ask the operator for it, and quote the request id.",
            },
            Answer::NotFound => Self {
                status: StatusCode::NOT_FOUND,
                kind: "/.portcullis/problems/not-found",
                heading: "There is nothing here",
                advice: Html::of(
                    "Check the address, or start again from the <a href=\"/\">front page</a>.",
                ),
                title: "Not found",
                detail: "Nothing is served at this address; check it.",
            },
            Answer::MethodNotAllowed => Self {
                status: StatusCode::METHOD_NOT_ALLOWED,
                kind: "/.portcullis/problems/method-not-allowed",
                heading: "That can’t be done here",
                advice: Html::of("Go back, and try it another way."),
                title: "Method not allowed",
                detail: "Use one of the methods in Allow.",
            },
            Answer::RequestTimeout => Self {
                status: StatusCode::REQUEST_TIMEOUT,
                kind: "/.portcullis/problems/request-timeout",
                heading: "That took too long",
                advice: Html::of("Check your connection, then try again."),
                title: "Request timeout",
                detail: "The request did not arrive in time; send it again.",
            },
            Answer::ContentTooLarge => Self {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                kind: "/.portcullis/problems/content-too-large",
                heading: "That is too large to send",
                advice: Html::of("Send less at once, or ask ")
                    .html(&ctx.contact())
                    .markup(" to raise the limit."),
                title: "Content too large",
                detail: "The content is larger than this application takes; send less at once.",
            },
            Answer::UriTooLong => Self {
                status: StatusCode::URI_TOO_LONG,
                kind: "/.portcullis/problems/uri-too-long",
                heading: "This address is too long",
                advice: Html::of("Shorten it, or go back and follow another link."),
                title: "URI too long",
                detail: "The request target is longer than is taken; shorten it.",
            },
            Answer::ExpectationFailed => Self {
                status: StatusCode::EXPECTATION_FAILED,
                kind: "/.portcullis/problems/expectation-failed",
                heading: "That can’t be done here",
                advice: Html::of("Go back, and try it another way."),
                title: "Expectation failed",
                detail: "Expect nothing but 100-continue.",
            },
            Answer::Misdirected => Self {
                status: StatusCode::MISDIRECTED_REQUEST,
                kind: "/.portcullis/problems/misdirected-request",
                heading: "This site is not served here",
                advice: Html::of(
                    "Check the address; if it is right, close the browser and open it again.",
                ),
                title: "Misdirected request",
                detail: "This connection is not for that host; check the host, or use a new connection.",
            },
            Answer::TooManyRequests(limited) => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                kind: "/.portcullis/problems/too-many-requests",
                heading: "Too many requests",
                advice: Html::of("Wait ")
                    .text(&super::wait(limited.retry_after))
                    .markup(", then reload this page."),
                title: "Too many requests",
                detail: "Wait as long as Retry-After says before you send another request.",
            },
            Answer::FieldsTooLarge => Self {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                kind: "/.portcullis/problems/fields-too-large",
                heading: "Your browser sent too much",
                advice: Html::of("Delete this site’s cookies, then reload this page."),
                title: "Request header fields too large",
                detail: "The header section is larger than is taken; send fewer fields and cookies.",
            },
            Answer::Internal => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                kind: "/.portcullis/problems/internal-error",
                heading: "Something went wrong",
                advice: later(ctx),
                title: "Internal error",
                detail: "The request was not served; try again later, and quote the request id.",
            },
            Answer::NotImplemented => Self {
                status: StatusCode::NOT_IMPLEMENTED,
                kind: "/.portcullis/problems/not-implemented",
                heading: "That can’t be done here",
                advice: Html::of("Go back, and try it another way."),
                title: "Not implemented",
                detail: "No application here takes this method; use another.",
            },
            Answer::BadGateway => Self {
                status: StatusCode::BAD_GATEWAY,
                kind: "/.portcullis/problems/bad-gateway",
                heading: "The application does not answer",
                advice: later(ctx),
                title: "Bad gateway",
                detail: "The application does not answer; try again later.",
            },
            Answer::Unavailable => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                kind: "/.portcullis/problems/unavailable",
                heading: "Nothing can be served just now",
                advice: later(ctx),
                title: "Unavailable",
                detail: "The request can’t be served just now; try again later.",
            },
            Answer::GatewayTimeout => Self {
                status: StatusCode::GATEWAY_TIMEOUT,
                kind: "/.portcullis/problems/gateway-timeout",
                heading: "The application takes too long",
                advice: later(ctx),
                title: "Gateway timeout",
                detail: "The application did not answer in time; try again later.",
            },
        }
    }

    fn application_failed(ctx: &Context<'_>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "/.portcullis/problems/application-failed",
            heading: "The application has failed",
            advice: later(ctx),
            title: "Application failed",
            detail: "The application could not serve the request; try again later.",
        }
    }

    fn respond(self, ctx: &Context<'_>, extra: Extra<'_>) -> Response<Bytes> {
        if !self.is_for_a_person(ctx) {
            let problem = Problem {
                kind: self.kind,
                title: self.title,
                status: self.status.as_u16(),
                detail: self.detail,
                sign_in: extra.sign_in,
                missing: extra.missing,
                retry_after: extra.retry_after,
                request_id: ctx.request_id,
            };
            return problem::respond(ctx, self.status, &problem);
        }
        let mut html = Html::of("<p>").html(&self.advice).markup("</p>\n");
        if extra.way_out {
            html = html
                .markup("<p><a href=\"")
                .markup(SIGN_OUT)
                .markup("\">Use another account</a></p>\n");
        }
        super::page(ctx, self.status, self.heading, &html)
    }

    fn is_for_a_person(&self, ctx: &Context<'_>) -> bool {
        match ctx.asked.audience {
            Some(Audience::Browser) => true,
            Some(Audience::Program) => false,
            // What no browser sends is no person's; too many cookies and endless links are.
            None => {
                self.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
                    || self.status == StatusCode::URI_TOO_LONG
            }
        }
    }
}

fn later(ctx: &Context<'_>) -> Html {
    Html::of("Try again in a minute; if it stays like this, tell ")
        .html(&ctx.contact())
        .markup(" the request id below.")
}

/// 401, or the way round it.
fn challenged(challenge: &Challenge, said: Said, ctx: &Context<'_>) -> Response<Bytes> {
    let a_person = said.is_for_a_person(ctx);
    let lines = lines(challenge, ctx.asked.in_browser || a_person);
    if lines.is_empty() {
        let forbidden = Answer::Forbidden { as_whom: None };
        return Said::of(&forbidden, ctx).respond(ctx, Extra::default());
    }
    let mut response = if !challenge.sign_in_page {
        let by_dialog = challenge.challenges.iter().any(|line| is_basic(line));
        let said = if by_dialog {
            said
        } else {
            Said {
                heading: "This is for programs",
                advice: by_no_page(ctx),
                ..said
            }
        };
        said.respond(ctx, Extra::default())
    } else if !a_person {
        let detail = if ctx.asked.is_repeatable {
            "Send valid credentials of one of the schemes in WWW-Authenticate, or sign in with a browser."
        } else {
            "What you sent was not passed on. Sign in with a browser, or add valid credentials of one of the schemes in WWW-Authenticate, and send it again."
        };
        Said { detail, ..said }.respond(
            ctx,
            Extra {
                sign_in: Some(SIGN_IN),
                ..Extra::default()
            },
        )
    } else if ctx.asked.is_repeatable {
        return to_sign_in(ctx, challenge);
    } else {
        // A redirect would lose what was sent, and look as if it had been taken.
        // In another tab, because this page still holds it: a reload sends it again.
        let advice = Html::of("What you sent was not passed on. Use a new tab to <a href=\"")
            .markup(SIGN_IN)
            .markup(concat!(
                "\" target=\"_blank\" rel=\"noopener\">sign in</a>, then come back and reload this ",
                "page to send it again.",
            ));
        Said { advice, ..said }.respond(ctx, Extra::default())
    };
    for line in lines {
        response.headers_mut().append(WWW_AUTHENTICATE, line);
    }
    response
}

/// The challenges to send: where there is a page, never none (RFC 9110 §15.5.2).
fn lines(challenge: &Challenge, in_browser: bool) -> Vec<HeaderValue> {
    let by_page = challenge.sign_in_page;
    let mut lines: Vec<_> = challenge
        .challenges
        .iter()
        .filter(|line| !(in_browser && by_page && is_basic(line)))
        .filter_map(|line| HeaderValue::try_from(line.as_str()).ok())
        .collect();
    if lines.is_empty() && by_page {
        // Names the way that there is, in no browser opens a dialog, and says nothing of who we are.
        lines.push(HeaderValue::from_static(
            "Cookie form-action=\"/.portcullis/sign-in\"",
        ));
    }
    lines
}

fn is_basic(challenge: &str) -> bool {
    let scheme = challenge.split(' ').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case("basic")
}

fn by_no_page(ctx: &Context<'_>) -> Html {
    Html::of("Send a token with your request, or ask ")
        .html(&ctx.contact())
        .markup(" if you need it in a browser.")
}

fn to_sign_in(ctx: &Context<'_>, challenge: &Challenge) -> Response<Bytes> {
    let mut path = SIGN_IN.to_owned();
    let target = ctx.asked.target.as_deref();
    let to = target.filter(|to| to.len() <= MAX_TO && *to != "/");
    let within = challenge.within.map(|within| within.to_string());
    let all = [
        ("to", to),
        ("within", within.as_deref()),
        ("acr", challenge.acr.as_deref()),
    ];
    let mut separator = '?';
    for (name, value) in all {
        if let Some(value) = value {
            path.push(separator);
            path.push_str(name);
            path.push('=');
            percent_encode(value, &mut path);
            separator = '&';
        }
    }
    super::redirect(ctx, &path)
}

/// Everything but the unreserved characters is encoded (RFC 3986 §2.3).
fn percent_encode(text: &str, out: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or('0');
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// `Retry-After`, the fields that clients read today, and those that the draft has now
/// (draft-ietf-httpapi-ratelimit-headers).
fn limit_fields(headers: &mut HeaderMap, limited: &Limited, wait: u64) {
    headers.insert(RETRY_AFTER, wait.into());
    if limited.quota == 0 {
        return;
    }
    headers.insert(RATE_LIMIT_LIMIT, limited.quota.into());
    headers.insert(RATE_LIMIT_REMAINING, HeaderValue::from_static("0"));
    headers.insert(RATE_LIMIT_RESET, wait.into());
    let window = super::seconds(limited.window).max(1);
    for (name, value) in [
        (RATE_LIMIT, format!("\"default\";r=0;t={wait}")),
        (
            RATE_LIMIT_POLICY,
            format!("\"default\";q={};w={window}", limited.quota),
        ),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}
