//! The one template: text that can't be inserted unescaped, and fields that let nothing run.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};

/// The style of every page; inline, so that a page is one request, and allowed by its hash alone.
pub const STYLE: &str = include_str!("style.css");

/// A portcullis.
const MARK: &str = "<svg viewBox=\"0 0 24 24\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\" stroke-linecap=\"round\" aria-hidden=\"true\"><path d=\"M4 21V10a8 8 0 0 1 16 0v11M8 4v17M12 2.5V21M16 4v17M4 11h16M4 16h16\"/></svg>";

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        STANDARD.encode(hash)
    );
    // Base64 is visible ASCII; without a policy nothing may be loaded at all.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// HTML under construction.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Appends markup of our own.
    #[must_use]
    pub fn raw(mut self, markup: &'static str) -> Self {
        self.0.push_str(markup);
        self
    }

    /// Appends text, in an element or in a quoted attribute.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\t' | '\n' => self.0.push(c),
                // Control characters and marks that reorder text could make a page lie.
                c if c.is_control()
                    || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    let _ = write!(self.0, "\\u{{{:x}}}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self
    }

    /// Appends other HTML.
    #[must_use]
    pub fn html(mut self, other: &Self) -> Self {
        self.0.push_str(&other.0);
        self
    }
}

/// Text as HTML.
pub fn text(text: &str) -> Html {
    Html::default().text(text)
}

/// A page.
pub struct Page<'a> {
    /// Its title and heading.
    pub title: &'a str,
    /// What stands below the heading.
    pub content: Html,
    /// The id of the request, to quote.
    pub request_id: &'a str,
    /// Whether it has a table to show.
    pub wide: bool,
}

/// A page as a response.
pub fn respond(status: StatusCode, page: &Page<'_>) -> Response<Bytes> {
    let html = Html::default()
        .raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"robots\" content=\"noindex\"><title>")
        .text(page.title)
        .raw("</title><link rel=\"icon\" href=\"data:,\"><style>")
        .raw(STYLE)
        .raw("</style></head><body>")
        .raw(if page.wide { "<main class=\"wide\">" } else { "<main>" })
        .raw(MARK)
        .raw("<h1>")
        .text(page.title)
        .raw("</h1>")
        .html(&page.content)
        .raw("</main><footer>Request <code>")
        .text(page.request_id)
        .raw("</code></footer></body></html>");
    let mut response = Response::new(Bytes::from(html.0));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    harden(&mut response, page.request_id);
    response
}

/// The fields that every answer of ours has, page or not.
pub fn harden(response: &mut Response<Bytes>, request_id: &str) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t14_nothing_a_client_says_becomes_markup() {
        for payload in [
            "<svg/onload=alert(1)>",
            "\"><script>",
            "' onfocus='x",
            "</title><b>",
            "a\u{202e}b\u{0}",
        ] {
            let page = Page {
                title: payload,
                content: text(payload),
                request_id: "0f",
                wide: false,
            };
            let response = respond(StatusCode::OK, &page);
            let html = std::str::from_utf8(response.body()).unwrap();
            assert_eq!(html.matches("<svg").count(), 1);
            assert!(
                !html.contains("<script") && !html.contains("<b>") && !html.contains("' on"),
                "{html}"
            );
            assert!(!html.contains(['\u{202e}', '\u{0}']));
        }
    }

    #[test]
    fn the_policy_allows_our_style_and_nothing_else() {
        let page = Page {
            title: "x",
            content: Html::default(),
            request_id: "0f",
            wide: false,
        };
        let response = respond(StatusCode::OK, &page);
        let policy = response.headers()[CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"));
        let html = std::str::from_utf8(response.body()).unwrap();
        assert!(
            html.contains(&format!("<style>{STYLE}</style>")),
            "the hash is of all of it"
        );
        assert!(!html.contains(" style=") && !html.contains("<script"));
        for banner in ["server", "via", "x-powered-by"] {
            assert!(!response.headers().contains_key(banner));
        }
    }
}
