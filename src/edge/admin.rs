//! The operator's listener: metrics and health, never on a public address.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};

use crate::body::Body;
use crate::observe::metrics::Metrics;
use crate::pure::fields::Fields;
use crate::pure::head::Head;
use crate::response::Response;

/// What it shows.
#[derive(Debug, Clone)]
pub struct Admin {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether requests should be sent here: false before start and during a drain.
    pub ready: Arc<AtomicBool>,
}

impl Admin {
    /// Answers `/metrics`, `/healthz` and `/readyz`.
    pub fn answer(&self, head: &Head) -> Response {
        let (status, kind, text) = match (&head.method, head.target.path.as_str()) {
            (&(Method::GET | Method::HEAD), "/metrics") => (
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                self.metrics.render(),
            ),
            (&(Method::GET | Method::HEAD), "/healthz") => (
                StatusCode::OK,
                "text/plain; charset=utf-8",
                "ok\n".to_owned(),
            ),
            (&(Method::GET | Method::HEAD), "/readyz") if self.ready.load(Ordering::Relaxed) => (
                StatusCode::OK,
                "text/plain; charset=utf-8",
                "ready\n".to_owned(),
            ),
            (&(Method::GET | Method::HEAD), "/readyz") => (
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain; charset=utf-8",
                "not ready\n".to_owned(),
            ),
            _ => (
                StatusCode::NOT_FOUND,
                "text/plain; charset=utf-8",
                "no such page\n".to_owned(),
            ),
        };
        let mut fields = Fields::new();
        fields.append(CONTENT_TYPE, HeaderValue::from_static(kind));
        fields.append(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Response {
            status,
            fields,
            body: Body::full(text),
        }
    }
}
