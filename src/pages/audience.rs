//! Who asks: a person at a browser, who is shown a page, or a program, which is told a problem.
//!
//! | when | then |
//! |---|---|
//! | a WebSocket handshake | program |
//! | `Sec-Fetch-Mode: navigate`, or `Sec-Fetch-Dest: document` or a frame | person |
//! | any other `Sec-Fetch-Mode` or `Sec-Fetch-Dest` | program |
//! | `X-Requested-With`, or another method than GET, HEAD and POST | program |
//! | `Accept` names `text/html` | person |
//! | else | program |

use http::header::ACCEPT;
use http::{HeaderMap, Method};

use crate::pure::connection::Connection;
use crate::pure::head::Head;

/// What a page needs to know of the request it answers; taken before the request goes on.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whether a person asks.
    pub person: bool,
    /// Whether the answer has no content.
    pub is_head: bool,
    /// Whether it can be asked again by following a link.
    pub is_safe: bool,
    /// `https://host:port`, as the client used it.
    pub origin: String,
    /// Path and query.
    pub target: String,
}

impl Asked {
    /// Of a canonical request.
    pub fn of(head: &Head, conn: &Connection) -> Self {
        Self {
            person: head.upgrade.is_none() && is_person(&head.method, &head.headers),
            is_head: head.method == Method::HEAD,
            is_safe: matches!(head.method, Method::GET | Method::HEAD),
            origin: format!("{}://{}", conn.scheme(), head.authority),
            target: head.target.to_string(),
        }
    }

    /// Of bytes that are no request.
    pub const fn unreadable() -> Self {
        Self {
            person: false,
            is_head: false,
            is_safe: false,
            origin: String::new(),
            target: String::new(),
        }
    }
}

fn is_person(method: &Method, headers: &HeaderMap) -> bool {
    let values = |name: &str| {
        headers
            .get_all(name)
            .iter()
            .map(|value| value.as_bytes())
            .collect::<Vec<_>>()
    };
    let (modes, destinations) = (values("sec-fetch-mode"), values("sec-fetch-dest"));
    if !modes.is_empty() || !destinations.is_empty() {
        let frames: [&[u8]; 3] = [b"document", b"iframe", b"frame"];
        return modes == [b"navigate"] || destinations.iter().any(|value| frames.contains(value));
    }
    let plain = matches!(*method, Method::GET | Method::HEAD | Method::POST);
    plain
        && !headers.contains_key("x-requested-with")
        && headers.get_all(ACCEPT).iter().any(|value| {
            memchr::memmem::find(&value.as_bytes().to_ascii_lowercase(), b"text/html").is_some()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[track_caller]
    fn person(method: &Method, fields: &[(&'static str, &'static str)]) -> bool {
        let fields = fields.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        is_person(method, &fields.collect())
    }

    #[test]
    fn browsers_are_told_from_programs() {
        let get = Method::GET;
        assert!(person(
            &get,
            &[
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document")
            ]
        ));
        assert!(person(
            &get,
            &[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")]
        ));
        assert!(!person(
            &get,
            &[("sec-fetch-mode", "cors"), ("accept", "text/html")]
        ));
        assert!(!person(&get, &[("sec-fetch-mode", "websocket")]));
        assert!(!person(&get, &[("accept", "*/*")]));
        assert!(!person(&get, &[]));
        assert!(!person(
            &get,
            &[
                ("accept", "text/html"),
                ("x-requested-with", "XMLHttpRequest")
            ]
        ));
        assert!(!person(&Method::PUT, &[("accept", "text/html")]));
    }
}
