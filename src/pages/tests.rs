use std::collections::BTreeSet;
use std::sync::Arc;

use http::header::{ALLOW, LOCATION, RETRY_AFTER, SERVER, VIA, WWW_AUTHENTICATE};
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::pure::fields::Fields;

use super::provider::Trouble;
use super::sign_in::{Form, Offer, SignInError};
use super::signed_out::AtProvider;
use super::*;
use crate::pages::negotiate::Audience;
use crate::refusal::{Answer, Challenge, Limited, Refusal};

const ID: &str = "00112233445566778899aabbccddeeff";
const PAYLOADS: [&str; 5] = [
    "<svg/onload=alert(1)>",
    "\"><script>alert(1)</script>",
    "' onfocus='alert(1)' autofocus='",
    "</title><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
];

fn browser(method: &Method) -> Asked {
    let mut headers = HeaderMap::new();
    headers.insert("sec-fetch-mode", HeaderValue::from_static("navigate"));
    headers.insert("sec-fetch-dest", HeaderValue::from_static("document"));
    let target = (method == Method::GET || method == Method::HEAD).then(|| "/a b?c=(d)&e=ü".into());
    Asked {
        target,
        ..Asked::by(method, &headers.into(), false)
    }
}

fn script() -> Asked {
    let mut headers = HeaderMap::new();
    headers.insert("sec-fetch-mode", HeaderValue::from_static("cors"));
    Asked::by(&Method::GET, &headers.into(), false)
}

fn program() -> Asked {
    Asked::by(&Method::GET, &Fields::new(), false)
}

fn context(asked: &Asked) -> Context<'_> {
    Context {
        asked,
        request_id: ID,
        host: "wiki.example.com",
        app: Some("wiki"),
        contact: Some("it@example.com"),
        has_sign_in_page: true,
    }
}

/// Every answer, with its status and a field that it must have.
fn answers() -> Vec<(Answer, u16, Option<HeaderName>)> {
    let limited = Limited {
        retry_after: Duration::from_millis(1200),
        quota: 20,
        window: Duration::from_millis(500),
    };
    let challenge = Challenge {
        challenges: vec!["Bearer realm=\"wiki\"".to_owned()],
        sign_in_page: false,
        within: None,
        acr: None,
    };
    let ada = Some(Arc::from("ada"));
    vec![
        (Answer::BadRequest, 400, None),
        (Answer::Challenge(challenge), 401, Some(WWW_AUTHENTICATE)),
        (Answer::Forbidden { as_whom: None }, 403, None),
        (Answer::Forbidden { as_whom: ada }, 403, None),
        (
            Answer::Lacking {
                as_whom: "ada".into(),
                missing: vec!["You need to be in one of these groups: <ops>".to_owned()],
            },
            403,
            None,
        ),
        (
            Answer::InsufficientScope {
                as_whom: Some("ada".into()),
                missing: vec!["You need to show a token with one of these scopes: a".to_owned()],
                challenge: "Bearer error=\"insufficient_scope\", scope=\"a\"".to_owned(),
            },
            403,
            Some(WWW_AUTHENTICATE),
        ),
        (Answer::NotFound, 404, None),
        (Answer::MethodNotAllowed, 405, Some(ALLOW)),
        (Answer::RequestTimeout, 408, None),
        (Answer::ContentTooLarge, 413, None),
        (Answer::UriTooLong, 414, None),
        (Answer::ExpectationFailed, 417, None),
        (Answer::Misdirected, 421, None),
        (Answer::TooManyRequests(limited), 429, Some(RETRY_AFTER)),
        (Answer::FieldsTooLarge, 431, None),
        (Answer::Internal, 500, None),
        (Answer::NotImplemented, 501, None),
        (Answer::BadGateway, 502, None),
        (Answer::Unavailable, 503, None),
        (Answer::GatewayTimeout, 504, None),
    ]
}

fn refuse(answer: Answer, ctx: &Context<'_>) -> Response<Bytes> {
    refusal::respond(&Refusal::new(answer, "stage.secret_reason"), ctx)
}

fn offer(name: &str, error: Option<SignInError>) -> Offer<'_> {
    Offer {
        to: "/",
        form: Some(Form {
            csrf: "token",
            name,
        }),
        error,
        ..Offer::default()
    }
}

const TROUBLES: [Trouble; 10] = [
    Trouble::NoAnswer,
    Trouble::Cookie,
    Trouble::Over,
    Trouble::Denied,
    Trouble::Unproven,
    Trouble::Away,
    Trouble::Misconfigured,
    Trouble::LoopWithoutCookie,
    Trouble::LoopOfEndedSessions,
    Trouble::LoopOfStaleSignIns,
];

/// Every page there is.
fn pages(ctx: &Context<'_>) -> Vec<(String, Response<Bytes>)> {
    let mut pages: Vec<_> = answers()
        .into_iter()
        .enumerate()
        .map(|(at, (answer, status, _))| (format!("{status}-{at}"), refuse(answer, ctx)))
        .collect();
    let failed = refusal::instead_of_backend_error(StatusCode::INTERNAL_SERVER_ERROR, ctx);
    pages.push(("failed".to_owned(), failed));
    for (name, error) in [
        ("sign-in", None),
        ("sign-in-wrong", Some(SignInError::WrongPassword)),
        (
            "sign-in-slowed",
            Some(SignInError::TooMany {
                retry_after: Duration::from_secs(100),
            }),
        ),
        ("sign-in-busy", Some(SignInError::Busy)),
        ("sign-in-expired", Some(SignInError::ExpiredForm)),
    ] {
        let name_tried = if error.is_some() { "ada" } else { "" };
        let page = sign_in::page(ctx, &offer(name_tried, error));
        pages.push((name.to_owned(), page));
    }
    let choice = Offer {
        providers: vec![("corp", "Corp"), ("partners", "Partners & <friends>")],
        by_email: true,
        within: Some(900),
        acr: Some("mfa hwk".to_owned()),
        ..offer("", Some(SignInError::UnknownDomain))
    };
    pages.push(("choice".to_owned(), sign_in::page(ctx, &choice)));
    for trouble in TROUBLES {
        let page = provider::page(ctx, trouble, "/a?b=c&d");
        pages.push((format!("{trouble:?}"), page));
    }
    let at_provider = AtProvider {
        title: "Corp <b>",
        url: "https://idp.test/end?a=b&c",
        form: None,
    };
    let by_form = signed_out::Form {
        origin: "https://idp.test",
        fields: &[("id_token_hint", "a.b.c"), ("client_id", "gate")],
    };
    for form in [None, Some(by_form)] {
        let page = signed_out::page(
            ctx,
            Some(&AtProvider {
                form,
                ..at_provider
            }),
        );
        pages.push((format!("signed-out-there-{}", form.is_some()), page));
    }
    pages.push(("signed-in".to_owned(), sign_in::done(ctx, "/a?b")));
    pages.push(("sign-out".to_owned(), signed_out::confirm(ctx)));
    pages.push(("signed-out".to_owned(), signed_out::page(ctx, None)));
    pages
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

#[track_caller]
fn header(response: &Response<Bytes>, name: impl http::header::AsHeaderName) -> String {
    let mut lines = response.headers().get_all(name).iter();
    let line = lines.next().expect("the field is there");
    assert!(lines.next().is_none(), "once");
    line.to_str().unwrap().to_owned()
}

fn problem(response: &Response<Bytes>) -> Value {
    assert_eq!(header(response, CONTENT_TYPE), "application/problem+json");
    serde_json::from_slice(response.body()).unwrap()
}

#[test]
fn the_policy_allows_exactly_the_style_that_stands_in_the_page() {
    let asked = browser(&Method::GET);
    for (name, response) in pages(&context(&asked)) {
        let policy = header(&response, CONTENT_SECURITY_POLICY);
        let html = text(&response);
        let (_, rest) = html.split_once("<style>").unwrap();
        let (style, rest) = rest.split_once("</style>").unwrap();
        assert!(
            !rest.contains("<style") && !html.contains("style="),
            "{name}"
        );
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
        // The form that signs out at a provider goes there, and nowhere else.
        let there = if name == "signed-out-there-true" {
            " https://idp.test"
        } else {
            ""
        };
        assert_eq!(
            policy,
            format!(
                "default-src 'none'; style-src 'sha256-{}'; img-src data:; form-action 'self'{there}; \
                 frame-ancestors 'none'; base-uri 'none'",
                STANDARD.encode(hash)
            )
        );
    }
}

#[test]
fn every_answer_has_its_status_and_the_fields_of_all() {
    for asked in [browser(&Method::GET), program(), Asked::unreadable()] {
        for (answer, status, field) in answers() {
            let what = format!("{answer:?}");
            let response = refuse(answer, &context(&asked));
            assert_eq!(response.status().as_u16(), status, "{what}");
            for (name, value) in [
                (CACHE_CONTROL, "no-store"),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (REFERRER_POLICY, "same-origin"),
                (X_FRAME_OPTIONS, "DENY"),
                (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
                (X_REQUEST_ID, ID),
            ] {
                assert_eq!(header(&response, name), value, "{what}");
            }
            assert_eq!(
                header(&response, CONTENT_LENGTH),
                response.body().len().to_string()
            );
            assert!(
                field.is_none_or(|field| response.headers().contains_key(field)),
                "{what}"
            );
            assert!(
                !response.headers().contains_key(SERVER) && !response.headers().contains_key(VIA)
            );
            assert!(text(&response).contains(ID), "{what}");
            assert!(!text(&response).contains("secret_reason"), "{what}");
            assert!(
                !text(&response).to_lowercase().contains("backend"),
                "{what}"
            );
        }
    }
}

#[test]
fn people_get_pages_and_programs_problems() {
    let (person, program) = (browser(&Method::GET), program());
    let mut kinds = BTreeSet::new();
    for (answer, status, _) in answers() {
        let page = refuse(answer.clone(), &context(&person));
        assert_eq!(header(&page, CONTENT_TYPE), "text/html; charset=utf-8");
        let problem = problem(&refuse(answer, &context(&program)));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], ID);
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.starts_with("/.portcullis/problems/"));
        kinds.insert(kind.to_owned());
        for member in ["title", "detail"] {
            assert!(!problem[member].as_str().unwrap().is_empty());
        }
    }
    assert_eq!(
        kinds.len(),
        answers().len() - 2,
        "one kind for each answer, whatever a 403 tells"
    );
}

#[test]
fn what_could_not_be_read_gets_a_page_only_where_a_browser_may_have_sent_it() {
    for (answer, status, _) in answers() {
        let is_page = matches!(status, 414 | 431);
        let response = refuse(answer, &context(&Asked::unreadable()));
        assert_eq!(
            header(&response, CONTENT_TYPE).starts_with("text/html"),
            is_page,
            "{status}"
        );
    }
}

#[test]
fn head_gets_the_fields_of_get_and_no_content() {
    let (get, head) = (browser(&Method::GET), browser(&Method::HEAD));
    let (get, head) = (context(&get), context(&head));
    for ((name, with), (_, without)) in pages(&get).into_iter().zip(pages(&head)) {
        assert_eq!(with.headers(), without.headers(), "{name}");
        assert_eq!(with.status(), without.status());
        assert!(
            !with.body().is_empty() && without.body().is_empty(),
            "{name}"
        );
    }
}

#[test]
fn t14_nothing_of_a_request_is_markup() {
    for payload in PAYLOADS {
        let asked = browser(&Method::GET);
        let ctx = Context {
            asked: &asked,
            request_id: payload,
            host: payload,
            app: Some(payload),
            contact: Some(payload),
            has_sign_in_page: true,
        };
        let form = Offer {
            to: payload,
            within: None,
            waiting: payload,
            acr: Some(payload.to_owned()),
            providers: vec![(payload, payload)],
            by_email: true,
            form: Some(Form {
                csrf: payload,
                name: payload,
            }),
            error: Some(SignInError::WrongPassword),
        };
        let at_provider = AtProvider {
            title: payload,
            url: payload,
            form: Some(signed_out::Form {
                origin: "https://idp.test",
                fields: &[("id_token_hint", payload)],
            }),
        };
        let mut all = pages(&ctx);
        all.push(("form".to_owned(), sign_in::page(&ctx, &form)));
        let signed_out = signed_out::page(&ctx, Some(&at_provider));
        all.push(("signed-out".to_owned(), signed_out));
        let trouble = provider::page(&ctx, Trouble::Over, payload);
        all.push(("trouble".to_owned(), trouble));
        let whom = Answer::Forbidden {
            as_whom: Some(payload.into()),
        };
        all.push(("whom".to_owned(), refuse(whom, &ctx)));
        let lacking = Answer::Lacking {
            as_whom: payload.into(),
            missing: vec![payload.to_owned()],
        };
        all.push(("lacking".to_owned(), refuse(lacking, &ctx)));
        let no_app = Context { app: None, ..ctx };
        all.push(("host".to_owned(), sign_in::page(&no_app, &form)));
        for (name, response) in all {
            let html = text(&response);
            assert!(!html.contains(payload), "{name}: {payload}");
            assert_eq!(
                html.matches('<').count(),
                html.matches('>').count(),
                "{name}"
            );
            for tag in ["<script", "<svg", "<img src=x", " onfocus='"] {
                assert!(!html.contains(tag), "{name}: {tag}");
            }
        }
    }
}

#[test]
fn a_contact_is_a_link_only_where_it_is_plainly_one() {
    let asked = browser(&Method::GET);
    let shown = |contact| {
        let ctx = Context {
            contact,
            ..context(&asked)
        };
        ctx.contact().into_string()
    };
    assert_eq!(
        shown(Some("it@example.com")),
        "<a href=\"mailto:it@example.com\">it@example.com</a>"
    );
    assert_eq!(
        shown(Some("https://help.example.com/?a=1&b=2")).replace("<wbr>", ""),
        "<a href=\"https://help.example.com/?a=1&amp;b=2\">https://help.example.com/?a=1&amp;b=2</a>"
    );
    for plain in [
        "javascript:alert(1)",
        "it@example.com?subject=x",
        "the IT desk",
        "http://x",
    ] {
        assert_eq!(
            shown(Some(plain)).replace("<wbr>", ""),
            format!("<b>{plain}</b>")
        );
    }
    assert_eq!(shown(None), "the people who run this site");
}

const BASIC: &str = "Basic realm=\"wiki\", charset=\"UTF-8\"";
const BEARER: &str = "Bearer realm=\"wiki\"";

fn challenged(challenges: &[&str], sign_in_page: bool, asked: &Asked) -> Response<Bytes> {
    let challenge = Challenge {
        challenges: challenges.iter().map(|&line| line.to_owned()).collect(),
        sign_in_page,
        within: None,
        acr: None,
    };
    refuse(Answer::Challenge(challenge), &context(asked))
}

fn schemes(response: &Response<Bytes>) -> Vec<&str> {
    let lines = response.headers().get_all(WWW_AUTHENTICATE).iter();
    lines.map(|line| line.to_str().unwrap()).collect()
}

#[test]
fn a_person_without_a_session_is_led_to_the_sign_in_page_and_back() {
    for method in [Method::GET, Method::HEAD] {
        let response = challenged(&[BASIC, BEARER], true, &browser(&method));
        assert_eq!(response.status(), 303);
        assert_eq!(
            header(&response, LOCATION),
            "/.portcullis/sign-in?to=%2Fa%20b%3Fc%3D%28d%29%26e%3D%C3%BC"
        );
        assert_eq!(header(&response, CACHE_CONTROL), "no-store");
        assert!(response.body().is_empty() && schemes(&response).is_empty());
    }
    let front = Asked {
        target: Some("/".into()),
        ..browser(&Method::GET)
    };
    let long = Asked {
        target: Some(format!("/{}", "a".repeat(2048)).into()),
        ..browser(&Method::GET)
    };
    for asked in [front, long] {
        let response = challenged(&[], true, &asked);
        assert_eq!(header(&response, LOCATION), "/.portcullis/sign-in");
    }
}

#[test]
fn a_program_gets_every_challenge_and_never_a_redirect() {
    let response = challenged(&[BASIC, BEARER], true, &program());
    assert_eq!(response.status(), 401);
    assert_eq!(schemes(&response), [BASIC, BEARER]);
    assert_eq!(problem(&response)["sign_in"], "/.portcullis/sign-in");

    let response = challenged(&[BEARER], false, &program());
    assert_eq!(schemes(&response), [BEARER]);
    assert_eq!(problem(&response).get("sign_in"), None);
}

#[test]
fn where_there_is_a_page_no_dialog_opens_over_the_application() {
    let response = challenged(&[BASIC, BEARER], true, &script());
    assert_eq!(
        (response.status().as_u16(), schemes(&response)),
        (401, vec![BEARER])
    );
    let response = challenged(&["bAsIc realm=x"], true, &script());
    assert_eq!(
        schemes(&response),
        ["Cookie form-action=\"/.portcullis/sign-in\""]
    );
    let response = challenged(&[BASIC], false, &script());
    assert_eq!(schemes(&response), [BASIC]);
}

#[test]
fn what_a_person_sent_is_not_lost_in_a_redirect() {
    let response = challenged(&[BASIC], true, &browser(&Method::POST));
    assert_eq!(response.status(), 401);
    assert_eq!(
        schemes(&response),
        ["Cookie form-action=\"/.portcullis/sign-in\""]
    );
    assert!(text(&response).contains("href=\"/.portcullis/sign-in\" target=\"_blank\""));
    assert!(text(&response).contains("was not passed on"));
}

#[test]
fn who_has_signed_in_is_led_on_by_no_redirect_of_a_form() {
    let response = sign_in::done(&context(&browser(&Method::POST)), "/a?b=1&c='\"");
    assert_eq!(response.status(), 200);
    assert_eq!(
        header(&response, http::header::REFRESH),
        "0;url=/a?b=1&c='\""
    );
    assert!(!response.headers().contains_key(LOCATION));
    assert!(text(&response).contains("href=\"/a?b=1&amp;c=&#39;&quot;\""));
    let response = sign_in::done(&context(&program()), "/a?b");
    assert_eq!(response.status(), 303);
    assert_eq!(header(&response, LOCATION), "/a?b");
}

#[test]
fn a_person_is_asked_by_the_browser_where_there_is_no_page() {
    let response = challenged(&[BASIC], false, &browser(&Method::GET));
    assert_eq!(
        (response.status().as_u16(), schemes(&response)),
        (401, vec![BASIC])
    );
    assert!(text(&response).contains("Reload this page"));
    let response = challenged(&[BEARER], false, &browser(&Method::GET));
    assert!(text(&response).contains("token"));
}

#[test]
fn there_is_no_401_without_a_challenge() {
    let response = challenged(&[], true, &program());
    assert_eq!(
        schemes(&response),
        ["Cookie form-action=\"/.portcullis/sign-in\""]
    );
    for asked in [program(), browser(&Method::GET)] {
        let response = challenged(&[], false, &asked);
        assert_eq!(
            (response.status().as_u16(), schemes(&response).len()),
            (403, 0)
        );
        let response = challenged(&["Bearer realm=\"\n\""], false, &asked);
        assert_eq!(response.status().as_u16(), 403);
    }
}

#[test]
fn a_limit_says_when_to_come_back_and_never_too_early() {
    let limited = Limited {
        retry_after: Duration::from_millis(1200),
        quota: 20,
        window: Duration::from_millis(500),
    };
    let program = program();
    let response = refuse(Answer::TooManyRequests(limited.clone()), &context(&program));
    for (name, value) in [
        ("retry-after", "2"),
        ("ratelimit-limit", "20"),
        ("ratelimit-remaining", "0"),
        ("ratelimit-reset", "2"),
        ("ratelimit", "\"default\";r=0;t=2"),
        ("ratelimit-policy", "\"default\";q=20;w=1"),
    ] {
        assert_eq!(header(&response, name), value, "{name}");
    }
    assert_eq!(problem(&response)["retry_after"], 2);
    let now = Limited {
        retry_after: Duration::ZERO,
        quota: 0,
        ..limited
    };
    let response = refuse(Answer::TooManyRequests(now), &context(&program));
    assert_eq!(header(&response, RETRY_AFTER), "1");
    assert!(!response.headers().contains_key("ratelimit-limit"));
}

#[test]
fn only_who_is_signed_in_may_sign_out_to_be_somebody_else() {
    let asked = browser(&Method::GET);
    let denied = |as_whom, has_sign_in_page| {
        let ctx = Context {
            has_sign_in_page,
            ..context(&asked)
        };
        text(&refuse(Answer::Forbidden { as_whom }, &ctx)).contains(SIGN_OUT)
    };
    let ada: Option<Arc<str>> = Some("ada".into());
    assert!(denied(ada.clone(), true));
    assert!(!denied(ada, false));
    assert!(!denied(None, true));
}

#[test]
fn who_is_told_what_is_missing_reads_it_whoever_asks() {
    let lacking = || Answer::Lacking {
        as_whom: "ada".into(),
        missing: vec!["You need to be in one of these groups: R&D".to_owned()],
    };
    let (asked, program) = (browser(&Method::GET), program());
    let response = refuse(lacking(), &context(&asked));
    let page = text(&response);
    for part in [
        "You are signed in as <b>ada</b>.",
        "You need to be in one of these groups: R&amp;D.",
        "it@example.com",
        SIGN_OUT,
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let told = problem(&refuse(lacking(), &context(&program)));
    assert_eq!(
        told["missing"],
        serde_json::json!(["You need to be in one of these groups: R&D"])
    );
    let untold = refuse(Answer::Forbidden { as_whom: None }, &context(&program));
    assert_eq!(problem(&untold).get("missing"), None);
}

#[test]
fn whichever_way_is_chosen_what_is_asked_of_the_sign_in_goes_along() {
    let asked = browser(&Method::GET);
    let choice = Offer {
        to: "/pay",
        providers: vec![("corp", "Corp")],
        by_email: true,
        within: Some(900),
        acr: Some("mfa hwk".to_owned()),
        ..offer("", None)
    };
    let page = sign_in::page(&context(&asked), &choice);
    let html = text(&page);
    assert!(
        html.contains("with=corp&amp;to=%2Fpay&amp;within=900&amp;acr=mfa+hwk\""),
        "{html}"
    );
    let by_email = html.split("<form method=\"get\"").nth(1).unwrap();
    for hidden in [
        "to\" value=\"/pay",
        "within\" value=\"900",
        "acr\" value=\"mfa hwk",
    ] {
        assert!(
            by_email.contains(&format!("name=\"{hidden}\">")),
            "{by_email}"
        );
    }
}

#[test]
fn a_failed_sign_in_has_its_status_keeps_the_name_and_forgets_the_password() {
    let asked = browser(&Method::POST);
    let wait = SignInError::TooMany {
        retry_after: Duration::from_millis(29_500),
    };
    for (error, status, retry_after) in [
        (None, 200, None),
        (Some(SignInError::WrongPassword), 403, None),
        (Some(wait), 429, Some("30")),
        (Some(SignInError::Busy), 503, Some("2")),
        (Some(SignInError::ExpiredForm), 403, None),
    ] {
        let response = sign_in::page(&context(&asked), &offer("ada", error));
        assert_eq!(response.status().as_u16(), status);
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        let retry = response.headers().contains_key(RETRY_AFTER);
        assert_eq!(
            retry.then(|| header(&response, RETRY_AFTER)).as_deref(),
            retry_after
        );
        let html = text(&response);
        assert_eq!(html.contains("role=\"alert\""), error.is_some());
        assert!(html.contains("value=\"ada\""));
        let (_, password) = html.split_once("type=\"password\"").unwrap();
        let (password, _) = password.split_once('>').unwrap();
        assert!(password.contains(" autofocus") && !password.contains("value="));
    }
}

#[test]
fn the_form_is_read_as_it_is_written() {
    let asked = browser(&Method::GET);
    let html = sign_in::page(&context(&asked), &offer("", None));
    let names: Vec<_> = text(&html)
        .match_indices(" name=\"")
        .filter_map(|(at, found)| text(&html)[at + found.len()..].split('"').next())
        .filter(|name| !matches!(*name, "viewport" | "color-scheme" | "robots"))
        .collect();
    assert_eq!(names, ["for", "to", "csrf", "name", "password"]);
    let body: Vec<_> = names.iter().map(|name| format!("{name}=x")).collect();
    assert!(crate::pure::form::parse(body.join("&").as_bytes()).is_ok());
}

#[test]
fn times_are_said_as_people_say_them() {
    for (ms, said) in [
        (0, "1\u{a0}second"),
        (1, "1\u{a0}second"),
        (1001, "2\u{a0}seconds"),
        (90_000, "90\u{a0}seconds"),
        (90_001, "2\u{a0}minutes"),
        (5_400_000, "90\u{a0}minutes"),
        (5_400_001, "2\u{a0}hours"),
    ] {
        assert_eq!(wait(Duration::from_millis(ms)), said);
    }
    assert_eq!(seconds(Duration::MAX), u64::MAX);
}

#[test]
fn a_backend_error_keeps_its_status_and_gets_our_words() {
    let asked = program();
    for status in [
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::INSUFFICIENT_STORAGE,
    ] {
        let response = refusal::instead_of_backend_error(status, &context(&asked));
        assert_eq!(response.status(), status);
        assert_eq!(problem(&response)["status"], status.as_u16());
    }
}

#[test]
fn what_is_told_of_an_exchange_comes_from_its_record() {
    let mut seen = Record::new(
        ID.into(),
        std::time::Instant::now(),
        std::time::SystemTime::UNIX_EPOCH,
    );
    let asked = browser(&Method::GET);
    assert_eq!(Context::new(&asked, &seen).site(), "");
    seen.host = Some("wiki.example.com".into());
    assert_eq!(Context::new(&asked, &seen).site(), "wiki.example.com");
    seen.app = Some("wiki".into());
    assert_eq!(Context::new(&asked, &seen).site(), "wiki");
    assert_eq!(Context::new(&asked, &seen).request_id, ID);
}

#[test]
fn who_reads_is_told_by_the_request() {
    assert_eq!(browser(&Method::POST).audience(), Some(Audience::Browser));
    assert_eq!(script().audience(), Some(Audience::Program));
    assert_eq!(Asked::unreadable().audience(), None);
}

/// For the eyes: `cargo test pages_for_the_eyes -- --ignored`, then open the files.
#[test]
#[ignore = "writes every page to a directory"]
fn pages_for_the_eyes() {
    let directory = std::env::temp_dir().join("portcullis-pages");
    std::fs::create_dir_all(&directory).unwrap();
    let asked = browser(&Method::GET);
    for (name, response) in pages(&context(&asked)) {
        std::fs::write(directory.join(format!("{name}.html")), response.body()).unwrap();
    }
    let long = Context {
        app: None,
        host: "an-application-with-quite-a-long-name.department.internal.example.com",
        contact: Some("https://helpdesk.example.com/requests/new?topic=access-to-applications"),
        ..context(&asked)
    };
    let whom = Answer::Forbidden {
        as_whom: Some("a.person.with.an.unusually.long.name@department.example.com".into()),
    };
    let post = browser(&Method::POST);
    for (name, response) in [
        ("long-denied", refuse(whom, &long)),
        ("long-sign-in", sign_in::page(&long, &offer("", None))),
        ("post-sign-in", challenged(&[BASIC], true, &post)),
        (
            "no-host",
            refuse(
                Answer::FieldsTooLarge,
                &Context {
                    app: None,
                    host: "",
                    contact: None,
                    asked: &Asked::unreadable(),
                    ..long
                },
            ),
        ),
    ] {
        std::fs::write(directory.join(format!("{name}.html")), response.body()).unwrap();
    }
}
