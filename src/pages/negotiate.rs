//! Whether a person or a program reads the answer.
//!
//! | when | then |
//! |---|---|
//! | the request is a WebSocket handshake | a program |
//! | `Sec-Fetch-Mode` is `navigate`, and `Sec-Fetch-Dest` a document or a frame | a browser |
//! | either says otherwise, or comes twice | a program |
//! | neither is there, and `X-Requested-With` is | a program |
//! | neither is there, the method is GET or HEAD, and `Accept` prefers `text/html` to JSON | a browser |
//! | anything else | a program |
//!
//! A wrong guess is harmless: it decides on the form of an answer, and never on the answer.

use http::header::ACCEPT;
use http::{HeaderName, Method};

use crate::pure::field;
use crate::pure::fields::Fields;
use crate::pure::head::Head;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// What the answer to a request depends on, for caches that keep it against our word.
pub const VARY: &str = "Accept, Sec-Fetch-Dest, Sec-Fetch-Mode, X-Requested-With";

/// Who reads an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A person: pages, and redirects to the sign-in page.
    Browser,
    /// A program: statuses, challenges and `application/problem+json`.
    Program,
}

/// Who reads the answer to a request with these fields.
pub fn audience(method: &Method, headers: &Fields, is_upgrade: bool) -> Audience {
    if is_upgrade {
        return Audience::Program;
    }
    let (Ok(mode), Ok(dest)) = (
        field::one(headers, &SEC_FETCH_MODE),
        field::one(headers, &SEC_FETCH_DEST),
    ) else {
        return Audience::Program;
    };
    let to_a_person = if mode.is_some() || dest.is_some() {
        mode.is_none_or(|mode| mode == "navigate")
            && dest.is_none_or(|dest| is_place_of_a_page(dest.as_bytes()))
    } else {
        (method == Method::GET || method == Method::HEAD)
            && !headers.contains(&X_REQUESTED_WITH)
            && prefers_html(headers)
    };
    if to_a_person {
        Audience::Browser
    } else {
        Audience::Program
    }
}

/// Fetch §2.2.5: where a navigation's page is shown.
fn is_place_of_a_page(destination: &[u8]) -> bool {
    matches!(
        destination,
        b"document" | b"embed" | b"frame" | b"iframe" | b"object"
    )
}

/// Whether HTML is asked for by its name, and more than JSON is.
fn prefers_html(headers: &Fields) -> bool {
    let Ok(ranges) = field::list(headers, &ACCEPT) else {
        return false;
    };
    let (mut html, mut json) = (0, 0);
    for range in ranges {
        let mut parts = range.split(|&byte| byte == b';').map(field::trim);
        let Some(name) = parts.next() else { continue };
        let weight = weight(parts);
        if name.eq_ignore_ascii_case(b"text/html") {
            html = weight.max(html);
        } else if name.eq_ignore_ascii_case(b"application/json")
            || name.to_ascii_lowercase().ends_with(b"+json")
        {
            json = weight.max(json);
        }
    }
    html > json
}

/// The weight among the parameters, in thousandths (RFC 9110 §12.4.2); 0 when it does not parse.
fn weight<'v>(mut parameters: impl Iterator<Item = &'v [u8]>) -> u16 {
    let q = parameters.find_map(|parameter| {
        parameter
            .strip_prefix(b"q=")
            .or_else(|| parameter.strip_prefix(b"Q="))
    });
    match q {
        None | Some(b"1" | b"1.") => 1000,
        Some([b'1', b'.', zeros @ ..]) if zeros.len() <= 3 && zeros.iter().all(|z| *z == b'0') => {
            1000
        }
        Some([b'0', b'.', digits @ ..])
            if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) =>
        {
            digits
                .iter()
                .zip([100, 10, 1])
                .map(|(digit, worth)| u16::from(digit.wrapping_sub(b'0')).saturating_mul(worth))
                .sum()
        }
        Some(_) => 0,
    }
}

/// What an answer's form depends on, kept from a request that a stage takes.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `None` where the request could not be read.
    pub(super) audience: Option<Audience>,
    /// A browser asks, though perhaps not for a person to read.
    pub(super) in_browser: bool,
    /// The answer has no content.
    pub(super) is_head: bool,
    /// GET or HEAD: what a redirect can repeat.
    pub(super) is_repeatable: bool,
    /// Path and query, where a person may be led back to them.
    pub(super) target: Option<Box<str>>,
}

impl Asked {
    /// What `head` asks for.
    pub fn of(head: &Head) -> Self {
        let asked = Self::by(&head.method, &head.headers, head.upgrade.is_some());
        let leads_back = asked.is_repeatable && asked.audience == Some(Audience::Browser);
        Self {
            target: leads_back.then(|| head.target.to_string().into_boxed_str()),
            ..asked
        }
    }

    /// What a request with these fields asks for.
    pub fn by(method: &Method, headers: &Fields, is_upgrade: bool) -> Self {
        Self {
            audience: Some(audience(method, headers, is_upgrade)),
            in_browser: headers.contains(&SEC_FETCH_MODE) || headers.contains(&SEC_FETCH_DEST),
            is_head: method == Method::HEAD,
            is_repeatable: method == Method::GET || method == Method::HEAD,
            target: None,
        }
    }

    /// Who reads the answer; `None` where the request could not be read.
    pub const fn audience(&self) -> Option<Audience> {
        self.audience
    }

    /// Nobody knows what: the request could not be read.
    pub const fn unreadable() -> Self {
        Self {
            audience: None,
            in_browser: false,
            is_head: false,
            is_repeatable: false,
            target: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> Fields {
        let mut headers = Fields::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    #[track_caller]
    fn reads(method: Method, lines: &[(&'static str, &'static str)], expected: Audience) {
        let found = audience(&method, &headers(lines), false);
        assert_eq!(found, expected, "{method} {lines:?}");
    }

    const CHROMIUM: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8";

    #[test]
    fn a_navigation_is_a_persons() {
        use Audience::Browser;
        let navigate = ("sec-fetch-mode", "navigate");
        reads(
            Method::GET,
            &[navigate, ("sec-fetch-dest", "document")],
            Browser,
        );
        reads(
            Method::POST,
            &[navigate, ("sec-fetch-dest", "document")],
            Browser,
        );
        reads(
            Method::GET,
            &[navigate, ("sec-fetch-dest", "iframe")],
            Browser,
        );
        reads(Method::GET, &[navigate], Browser);
        reads(Method::GET, &[("sec-fetch-dest", "document")], Browser);
        reads(Method::GET, &[("accept", CHROMIUM)], Browser);
        reads(Method::HEAD, &[("accept", "text/html")], Browser);
        reads(
            Method::GET,
            &[
                ("accept", "application/json;q=0.5"),
                ("accept", "Text/HTML"),
            ],
            Browser,
        );
    }

    #[test]
    fn everything_else_is_a_programs() {
        use Audience::Program;
        for mode in [
            "cors",
            "no-cors",
            "same-origin",
            "websocket",
            "Navigate",
            "",
        ] {
            reads(
                Method::GET,
                &[("sec-fetch-mode", mode), ("accept", "text/html")],
                Program,
            );
        }
        let navigate = ("sec-fetch-mode", "navigate");
        for dest in ["empty", "image", "script", "style", "worker", "font", ""] {
            reads(
                Method::GET,
                &[("sec-fetch-dest", dest), ("accept", "text/html")],
                Program,
            );
            reads(Method::GET, &[navigate, ("sec-fetch-dest", dest)], Program);
        }
        reads(Method::GET, &[navigate, navigate], Program);
        reads(Method::GET, &[], Program);
        reads(Method::GET, &[("accept", "*/*")], Program);
        reads(Method::GET, &[("accept", "text/*")], Program);
        reads(
            Method::GET,
            &[("accept", "application/json, text/plain, */*")],
            Program,
        );
        reads(
            Method::GET,
            &[("accept", "text/html, application/json")],
            Program,
        );
        reads(
            Method::GET,
            &[("accept", "text/html;q=0.4, application/problem+json;q=0.5")],
            Program,
        );
        reads(Method::GET, &[("accept", "text/html;q=0")], Program);
        reads(Method::GET, &[("accept", "text/html;q=2")], Program);
        reads(Method::GET, &[("accept", "text/html, \"")], Program);
        reads(
            Method::GET,
            &[("accept", CHROMIUM), ("x-requested-with", "XMLHttpRequest")],
            Program,
        );
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            reads(method, &[("accept", CHROMIUM)], Program);
        }
        let navigation = headers(&[navigate, ("sec-fetch-dest", "document")]);
        assert_eq!(audience(&Method::GET, &navigation, true), Program);
    }

    #[test]
    fn weights_are_read_by_the_grammar() {
        for (q, thousandths) in [
            ("q=1", 1000),
            ("q=1.000", 1000),
            ("q=0.5", 500),
            ("Q=0.123", 123),
            ("q=0.05", 50),
            ("q=0.", 0),
            ("level=1", 1000),
            ("q=1.001", 0),
            ("q=0.1234", 0),
            ("q=.5", 0),
            ("q=-1", 0),
            ("q=", 0),
        ] {
            assert_eq!(weight([q.as_bytes()].into_iter()), thousandths, "{q}");
        }
    }

    fn head(request: &'static str) -> Head {
        let limits = crate::pure::http1::HeadLimits {
            bytes: 4096,
            target_bytes: 1024,
            fields: 32,
        };
        let head = crate::pure::http1::request_head(&request.into(), &limits).unwrap();
        crate::pure::head::from_http1(head).unwrap()
    }

    #[test]
    fn only_a_person_who_asked_for_a_page_is_led_back_to_it() {
        let back = |request| Asked::of(&head(request)).target;
        assert_eq!(
            back("GET /a?b HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n").as_deref(),
            Some("/a?b")
        );
        assert_eq!(back("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n"), None);
        assert_eq!(
            back(
                "POST /a HTTP/1.1\r\nHost: a\r\nSec-Fetch-Mode: navigate\r\nContent-Length: 0\r\n\r\n"
            ),
            None
        );
    }
}
