//! Refusal to response: the one place, exhaustively matched.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::Asked;
use super::html::{self, Html, Page};
use crate::pure::form;
use crate::refusal::{Answer, Limited, Refusal};

/// The sign-in page.
pub const SIGN_IN: &str = "/.portcullis/sign-in";

/// What an answer says: status, the problem's name, a title, and one sentence that says what to do.
struct Words {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
    say: &'static str,
}

fn words(answer: &Answer) -> Words {
    let words = |status, name, title, say| Words {
        status,
        name,
        title,
        say,
    };
    match answer {
        Answer::BadRequest => words(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "This request can't be read",
            "Check the address, or go back and try again.",
        ),
        Answer::Challenge(_) => words(
            StatusCode::UNAUTHORIZED,
            "sign-in",
            "Sign in to go on",
            "This application needs to know who you are.",
        ),
        Answer::Forbidden { .. } => words(
            StatusCode::FORBIDDEN,
            "denied",
            "You have no access",
            "If you think you should, ask whoever looks after this application and quote the request below.",
        ),
        Answer::NotFound => words(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is nothing here",
            "Check the address.",
        ),
        Answer::MethodNotAllowed => words(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            "This can't be done here",
            "Go back and try another way.",
        ),
        Answer::RequestTimeout => words(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "The request took too long",
            "Check the connection, and try again.",
        ),
        Answer::ContentTooLarge => words(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "This is too large",
            "Send something smaller, or ask for a higher limit.",
        ),
        Answer::UriTooLong => words(
            StatusCode::URI_TOO_LONG,
            "uri-too-long",
            "This address is too long",
            "Shorten it, and try again.",
        ),
        Answer::ExpectationFailed => words(
            StatusCode::EXPECTATION_FAILED,
            "expectation",
            "This can't be expected",
            "Send the request without `Expect`.",
        ),
        Answer::Misdirected => words(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown-host",
            "No application has this name",
            "Check the host name in the address.",
        ),
        Answer::TooManyRequests(_) => words(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "Too many requests",
            "Wait a moment, and try again.",
        ),
        Answer::FieldsTooLarge => words(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "fields-too-large",
            "The request's fields are too large",
            "Clear the cookies of this site, and try again.",
        ),
        Answer::Internal => words(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong here",
            "Try again; if it stays, quote the request below to whoever runs this site.",
        ),
        Answer::NotImplemented => words(
            StatusCode::NOT_IMPLEMENTED,
            "not-implemented",
            "This method is not known",
            "Use one that the application takes.",
        ),
        Answer::BadGateway => words(
            StatusCode::BAD_GATEWAY,
            "bad-gateway",
            "The application can't be reached",
            "Try again in a moment; if it stays, quote the request below to whoever looks after it.",
        ),
        Answer::Unavailable => words(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Not now",
            "Try again in a moment.",
        ),
        Answer::GatewayTimeout => words(
            StatusCode::GATEWAY_TIMEOUT,
            "gateway-timeout",
            "The application does not answer",
            "Try again in a moment; if it stays, quote the request below to whoever looks after it.",
        ),
    }
}

/// The response to a refused request. The reason stays inside: only the log has it.
pub fn respond(
    refusal: &Refusal,
    asked: &Asked,
    request_id: &str,
    contact: Option<&str>,
) -> Response<Bytes> {
    if let Answer::Challenge(challenge) = &refusal.answer
        && challenge.sign_in_page
        && asked.person
        && asked.is_safe
    {
        return to_sign_in(asked, request_id);
    }
    let words = words(&refusal.answer);
    let mut response = if asked.person {
        page(&words, refusal, asked, request_id, contact)
    } else {
        problem(&words, refusal, asked, request_id)
    };
    let headers = response.headers_mut();
    match &refusal.answer {
        Answer::Challenge(challenge) => {
            for challenge in &challenge.challenges {
                if let Ok(value) = HeaderValue::from_str(challenge) {
                    headers.append(WWW_AUTHENTICATE, value);
                }
            }
        }
        Answer::TooManyRequests(limited) => limits(headers, limited),
        Answer::Unavailable => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("5"))),
        Answer::MethodNotAllowed => {
            drop(headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST")))
        }
        Answer::BadRequest
        | Answer::Forbidden { .. }
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
        | Answer::GatewayTimeout => {}
    }
    without_content_for_head(response, asked)
}

/// The gate's page in place of a backend's own error page.
pub fn instead_of_backends(status: StatusCode, asked: &Asked, request_id: &str) -> Response<Bytes> {
    let answer = match status {
        StatusCode::BAD_GATEWAY => Answer::BadGateway,
        StatusCode::SERVICE_UNAVAILABLE => Answer::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Answer::GatewayTimeout,
        _ => Answer::Internal,
    };
    let words = Words {
        status,
        ..words(&answer)
    };
    let refusal = Refusal::new(answer, "response_headers.error_page");
    let response = if asked.person {
        page(&words, &refusal, asked, request_id, None)
    } else {
        problem(&words, &refusal, asked, request_id)
    };
    without_content_for_head(response, asked)
}

fn without_content_for_head(mut response: Response<Bytes>, asked: &Asked) -> Response<Bytes> {
    let length = response.body().len();
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    if asked.is_head {
        response.map(|_| Bytes::new())
    } else {
        response
    }
}

fn to_sign_in(asked: &Asked, request_id: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let location = format!("{SIGN_IN}?to={}", form::encode(&asked.target));
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response.headers_mut().insert(
        VARY,
        HeaderValue::from_static("Cookie, Accept, Sec-Fetch-Mode"),
    );
    html::harden(&mut response, request_id);
    response
}

fn page(
    words: &Words,
    refusal: &Refusal,
    asked: &Asked,
    request_id: &str,
    contact: Option<&str>,
) -> Response<Bytes> {
    let mut content = Html::default().raw("<p>").text(words.say).raw("</p>");
    match &refusal.answer {
        Answer::Forbidden { as_whom } => {
            if let Some(name) = as_whom {
                content = content
                    .raw("<p>You are signed in as <strong>")
                    .text(name)
                    .raw("</strong>.</p>");
            }
            if let Some(contact) = contact {
                content = content
                    .raw("<p>Whom to ask: <strong>")
                    .text(contact)
                    .raw("</strong></p>");
            }
            if as_whom.is_some() {
                content = content.raw("<form method=\"post\" action=\"/.portcullis/sign-out\"><button class=\"quiet\">Sign out</button></form>");
            }
        }
        Answer::TooManyRequests(limited) => {
            let wait = format!("You can go on in {}.", in_words(limited.retry_after));
            content = content.raw("<p><strong>").text(&wait).raw("</strong></p>");
        }
        Answer::Challenge(challenge) if challenge.sign_in_page => {
            content = content.raw("<p>What you sent was not passed on.</p><a class=\"button\" href=\"/.portcullis/sign-in\">Sign in</a>");
        }
        Answer::BadGateway | Answer::GatewayTimeout | Answer::Unavailable if asked.is_safe => {
            content = content
                .raw("<a class=\"button\" href=\"")
                .text(&asked.target)
                .raw("\">Try again</a>");
        }
        Answer::Challenge(_)
        | Answer::BadRequest
        | Answer::NotFound
        | Answer::MethodNotAllowed
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
        | Answer::GatewayTimeout => {}
    }
    html::respond(
        words.status,
        &Page {
            title: words.title,
            content,
            request_id,
            wide: false,
        },
    )
}

/// RFC 9457. The type is a path of this host that nothing else has, so that a client can tell the
/// gate's answers from the application's.
fn problem(words: &Words, refusal: &Refusal, asked: &Asked, request_id: &str) -> Response<Bytes> {
    let mut problem = json!({
        "type": format!("/.portcullis/problems/{}", words.name),
        "title": words.title,
        "status": words.status.as_u16(),
        "detail": words.say,
        "request_id": request_id,
    });
    if let Answer::Challenge(challenge) = &refusal.answer
        && challenge.sign_in_page
        && let Some(object) = problem.as_object_mut()
    {
        object.insert(
            "sign_in".to_owned(),
            format!("{}{SIGN_IN}", asked.origin).into(),
        );
    }
    let mut response = Response::new(Bytes::from(problem.to_string()));
    *response.status_mut() = words.status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    html::harden(&mut response, request_id);
    response
}

fn limits(headers: &mut http::HeaderMap, limited: &Limited) {
    let up = |duration: Duration| {
        duration
            .as_secs()
            .saturating_add(u64::from(duration.subsec_nanos() > 0))
    };
    let wait = up(limited.retry_after).max(1);
    headers.insert(RETRY_AFTER, wait.into());
    let (quota, window) = (limited.quota, up(limited.window).max(1));
    for (name, value) in [
        (
            "ratelimit-policy",
            format!("\"default\";q={quota};w={window}"),
        ),
        ("ratelimit", format!("\"default\";r=0;t={wait}")),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// A wait as people say it, rounded up.
pub fn in_words(wait: Duration) -> String {
    let seconds = wait
        .as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
        .max(1);
    let mut text = String::new();
    let (count, unit) = if seconds < 120 {
        (seconds, "second")
    } else {
        (seconds.div_ceil(60), "minute")
    };
    let _ = write!(text, "{count} {unit}{}", if count == 1 { "" } else { "s" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Challenge;

    fn asked(person: bool) -> Asked {
        Asked {
            person,
            is_head: false,
            is_safe: true,
            origin: "https://app.test".to_owned(),
            target: "/a?b=<c>&d".to_owned(),
        }
    }

    fn answer(answer: Answer, asked: &Asked) -> Response<Bytes> {
        respond(&Refusal::new(answer, "x.y"), asked, "0f", None)
    }

    fn challenge() -> Answer {
        Answer::Challenge(Challenge {
            challenges: vec![
                "Basic realm=\"x\"".to_owned(),
                "Bearer realm=\"x\"".to_owned(),
            ],
            sign_in_page: true,
        })
    }

    #[test]
    fn a_browser_is_led_to_the_sign_in_page_and_back() {
        let response = answer(challenge(), &asked(true));
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(
            response.headers()[LOCATION],
            "/.portcullis/sign-in?to=/a%3Fb%3D%3Cc%3E%26d"
        );
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
    }

    #[test]
    fn a_program_gets_every_challenge_and_no_redirect() {
        let response = answer(challenge(), &asked(false));
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            response.headers().get_all(WWW_AUTHENTICATE).iter().count(),
            2
        );
        let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(problem["type"], "/.portcullis/problems/sign-in");
        assert_eq!(problem["sign_in"], "https://app.test/.portcullis/sign-in");
        assert_eq!(problem["request_id"], "0f");
    }

    #[test]
    fn the_reason_stays_inside() {
        for person in [true, false] {
            let response = answer(Answer::BadGateway, &asked(person));
            assert!(
                !std::str::from_utf8(response.body())
                    .unwrap()
                    .contains("x.y")
            );
        }
    }

    #[test]
    fn a_limit_says_when_to_come_back() {
        let limited = Limited {
            retry_after: Duration::from_millis(1500),
            quota: 20,
            window: Duration::from_secs(1),
        };
        let response = answer(Answer::TooManyRequests(limited), &asked(true));
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()["ratelimit"], "\"default\";r=0;t=2");
        assert!(
            std::str::from_utf8(response.body())
                .unwrap()
                .contains("in 2 seconds")
        );
    }

    #[test]
    fn head_has_the_fields_of_get_and_no_content() {
        let head = Asked {
            is_head: true,
            ..asked(false)
        };
        let (get, head) = (
            answer(Answer::NotFound, &asked(false)),
            answer(Answer::NotFound, &head),
        );
        assert_eq!(get.headers(), head.headers());
        assert!(head.body().is_empty());
    }
}
