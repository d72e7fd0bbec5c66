//! Problems: what programs are told (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::Context;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The members of a problem.
#[derive(Debug, Clone, Serialize)]
pub struct Problem<'a> {
    /// What tells the gateway's answers from an application's: a path on the host that was asked,
    /// never a name of a product.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind of problem in a few words.
    pub title: &'static str,
    /// The status, again.
    pub status: u16,
    /// What to do.
    pub detail: &'static str,
    /// Where a person can sign in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<&'a str>,
    /// What whoever asks lacks, a sentence each, where the operator tells.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub missing: &'a [String],
    /// Seconds until another try can succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The request's id, to quote.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub request_id: &'a str,
}

/// The response that tells a problem.
pub fn respond(ctx: &Context<'_>, status: StatusCode, problem: &Problem<'_>) -> Response<Bytes> {
    // INVARIANT: a struct of texts and numbers serialises; an empty answer says as much by its status.
    let content = serde_json::to_string(problem).unwrap_or_default();
    super::answer(ctx, status, PROBLEM_JSON, content)
}
