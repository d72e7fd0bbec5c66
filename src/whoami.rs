//! The built-in backend: shows a request as any backend would have received it.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::{Map, Value};

use crate::pages::html::{self, Html, Page};

/// Answers with what was received: HTML for people, JSON for programs.
pub fn respond(method: &Method, target: &str, host: &str, headers: &HeaderMap) -> Response<Bytes> {
    let wants_html = headers
        .get_all(ACCEPT)
        .iter()
        .any(|value| memchr::memmem::find(value.as_bytes(), b"text/html").is_some());
    if wants_html {
        page(method, target, host, headers)
    } else {
        json(method, target, host, headers)
    }
}

fn json(method: &Method, target: &str, host: &str, headers: &HeaderMap) -> Response<Bytes> {
    let mut fields = Map::new();
    for name in headers.keys() {
        let values = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into());
        fields.insert(name.as_str().to_owned(), Value::Array(values.collect()));
    }
    let shown = serde_json::json!({
        "method": method.as_str(), "target": target, "host": host, "headers": fields,
    });
    let mut response = Response::new(Bytes::from(format!("{shown:#}\n")));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn page(method: &Method, target: &str, host: &str, headers: &HeaderMap) -> Response<Bytes> {
    let row = |content: Html, name: &str, value: &str, ours: bool| {
        content
            .raw(if ours {
                "<tr class=\"ours\"><th scope=\"row\">"
            } else {
                "<tr><th scope=\"row\">"
            })
            .text(name)
            .raw("</th><td><code>")
            .text(value)
            .raw("</code></td></tr>")
    };
    let mut content = Html::default().raw(
        "<p>This is the built-in backend. It shows the request as any backend behind the gate would receive it: with the fields that the gate writes, and without the gate's cookies.</p><div class=\"scroll\"><table><tbody>",
    );
    content = row(content, "request", &format!("{method} {target}"), false);
    content = row(content, "host", host, false);
    let is_ours = |name: &str| {
        name.starts_with("x-portcullis-")
            || name.starts_with("x-forwarded-")
            || matches!(name, "x-request-id" | "traceparent" | "forwarded")
    };
    for ours in [true, false] {
        for (name, value) in headers
            .iter()
            .filter(|(name, _)| is_ours(name.as_str()) == ours)
        {
            content = row(
                content,
                name.as_str(),
                &String::from_utf8_lossy(value.as_bytes()),
                ours,
            );
        }
    }
    let content = content.raw(
        "</tbody></table></div><form method=\"post\" action=\"/.portcullis/sign-out\"><button class=\"quiet\">Sign out</button></form>",
    );
    let request_id = headers
        .get_all("x-request-id")
        .iter()
        .next()
        .and_then(|id| id.to_str().ok());
    let request_id = request_id.unwrap_or("-");
    html::respond(
        StatusCode::OK,
        &Page {
            title: "What the backend sees",
            content,
            request_id,
            wide: true,
        },
    )
}
