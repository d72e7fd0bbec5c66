//! What a program can read of an application before it has a token: who issues them, and for what
//! (RFC 9728).
//!
//! | when | then |
//! |---|---|
//! | GET or HEAD `/.well-known/oauth-protected-resource`, and some rule of the application takes bearer tokens of an issuer that is stated | 200: the host, these issuers, and the scopes that its rules ask for |
//! | the same elsewhere, or by another method | the path is the application's own |
//! | such an application refuses for want of a token, a better one or a scope | each challenge for a bearer token says where that is |
//!
//! Everybody who may knock can read it: it tells names of scopes, and no rule.

use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;

use crate::caller::Caller;
use crate::identity::Identity;
use crate::pages::{self, Context};
use crate::pure::connection::Connection;
use crate::pure::head::Head;
use crate::record::Record;
use crate::refusal::{Answer, Refusal};

use super::response_headers::Passed;
use super::{access, sign_in};

/// Where it is: at the host, because a host is one application.
const PATH: &str = "/.well-known/oauth-protected-resource";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a rule of the application says of tokens.
pub type Said<'r> = (&'r sign_in::Rule, &'r access::Rule);

/// The members of the metadata (RFC 9728 §2).
#[derive(Serialize)]
struct Metadata<'m> {
    resource: String,
    authorization_servers: Vec<&'m str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes_supported: Vec<&'m str>,
    bearer_methods_supported: [&'static str; 1],
}

/// The metadata, where a request asks for them and there are some.
pub fn page<'r>(
    caller: Caller<'_>,
    head: &Head,
    identity: &Identity,
    rules: impl Iterator<Item = Said<'r>>,
    seen: &Record,
) -> Option<Passed> {
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    if head.target.path != PATH || !reads {
        return None;
    }
    let rules: Vec<_> = rules.collect();
    let authorization_servers = issuers(identity, rules.iter().copied());
    if authorization_servers.is_empty() {
        return None;
    }
    let scopes = rules.iter().flat_map(|(_, access)| access.scopes());
    let metadata = Metadata {
        resource: origin(caller.conn, head),
        authorization_servers,
        scopes_supported: each_once(scopes),
        bearer_methods_supported: ["header"],
    };
    let content = serde_json::to_string(&metadata).ok()?;
    let context = Context::new(caller.asked, seen);
    let response = pages::answer(&context, StatusCode::OK, JSON, content);
    Some(Passed {
        response: response.into(),
        switched: None,
    })
}

/// The refusal, saying in its challenges for bearer tokens where the metadata are.
pub fn pointed<'r>(
    mut refusal: Refusal,
    conn: &Connection,
    head: &Head,
    identity: &Identity,
    rules: impl Iterator<Item = Said<'r>>,
) -> Refusal {
    let challenges = match &mut refusal.answer {
        Answer::Challenge(challenge) => challenge.challenges.iter_mut().collect(),
        Answer::InsufficientScope { challenge, .. } => vec![challenge],
        Answer::BadRequest
        | Answer::Forbidden { .. }
        | Answer::Lacking { .. }
        | Answer::NotFound
        | Answer::MethodNotAllowed
        | Answer::RequestTimeout
        | Answer::ContentTooLarge
        | Answer::UriTooLong
        | Answer::ExpectationFailed
        | Answer::Misdirected
        | Answer::TooManyRequests(_)
        | Answer::FieldsTooLarge
        | Answer::Internal
        | Answer::NotImplemented
        | Answer::BadGateway
        | Answer::Unavailable
        | Answer::GatewayTimeout => Vec::new(),
    };
    let bearer = challenges
        .into_iter()
        .filter(|one| one.starts_with("Bearer "));
    let mut bearer = bearer.peekable();
    if bearer.peek().is_some() && !issuers(identity, rules).is_empty() {
        let metadata = format!(", resource_metadata=\"{}{PATH}\"", origin(conn, head));
        bearer.for_each(|challenge| challenge.push_str(&metadata));
    }
    refusal
}

fn origin(conn: &Connection, head: &Head) -> String {
    format!("{}://{}", conn.scheme(), head.authority)
}

/// The issuers whose bearer tokens any rule of the application takes.
fn issuers<'i, 'r>(identity: &'i Identity, rules: impl Iterator<Item = Said<'r>>) -> Vec<&'i str> {
    let methods = rules.flat_map(|(sign_in, _)| sign_in.bearer());
    each_once(methods.filter_map(|method| identity.issuer(method)))
}

fn each_once<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<&'t str> {
    let mut all = Vec::new();
    for text in texts {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}
