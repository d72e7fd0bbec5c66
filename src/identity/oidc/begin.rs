//! The way to the provider: what a sign-in asks for, and the URL or the pushed request that says it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use openidconnect::core::CoreAuthenticationFlow;
use openidconnect::{
    AuthenticationContextClass, CsrfToken, LoginHint, Nonce, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope, url::Url,
};
use serde_json::Value;
use tracing::warn;

use crate::backend::fetch::Question;
use crate::keys;
use crate::pure::attempt::Attempt;
use crate::pure::fields::Fields;
use crate::pure::return_to::ReturnTo;
use crate::pure::ticket::Ticket;
use crate::pure::{form, json};

use super::super::metadata::Metadata;
use super::endpoint::{MOST_BYTES, PATIENCE, basic};
use super::error::Error;
use super::{Oidc, Proof};

/// A sign-in to begin.
#[derive(Debug, Clone, Copy)]
pub struct Begin<'b> {
    /// The cookie of the browser.
    pub browser: &'b str,
    /// Where the provider answers.
    pub redirect_uri: &'b str,
    /// The path that the person is going to.
    pub to: &'b ReturnTo,
    /// How fresh the sign-in must be, where a rule asks for more than the configuration.
    pub max_age: Option<Duration>,
    /// The contexts of which a rule asks for one.
    pub acr: &'b [String],
    /// Who it probably is.
    pub login_hint: Option<&'b str>,
    /// The ticket of another host that waits for it.
    pub hand_over: Option<&'b str>,
}

/// A sign-in that was begun.
pub struct Begun {
    /// Its ticket.
    pub state: Ticket,
    /// What the ticket stands for.
    pub attempt: Attempt,
    /// Where the browser goes.
    pub url: String,
}

impl Oidc {
    /// Begins a sign-in; the caller keeps the attempt under its ticket.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn begin(&self, asked: Begin<'_>, now: SystemTime) -> Result<Begun, Error> {
        let stated = self.stated(now).await?;
        let settings = &self.settings;
        let state = Ticket::new(*keys::random()?);
        let nonce = URL_SAFE_NO_PAD.encode(*keys::random::<32>()?);
        let verifier = URL_SAFE_NO_PAD.encode(*keys::random::<32>()?);
        let redirect =
            RedirectUrl::new(asked.redirect_uri.to_owned()).map_err(|_| Error::Internal)?;
        let protocol = self.protocol(&stated.value)?;
        let (in_url, nonce_in_url) = (state.text().to_string(), nonce.clone());
        let proof = PkceCodeVerifier::new(verifier.clone());
        let mut request = protocol
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                || CsrfToken::new(in_url),
                || Nonce::new(nonce_in_url),
            )
            .add_scopes(settings.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&proof))
            .set_redirect_uri(Cow::Borrowed(&redirect));
        if settings.by_form {
            request = request.add_extra_param("response_mode", "form_post");
        }
        let acr = contexts(&settings.acr, asked.acr);
        for one in &acr {
            request = request.add_auth_context_value(AuthenticationContextClass::new(one.clone()));
        }
        if !settings.prompt.is_empty() {
            request = request.add_extra_param("prompt", settings.prompt.join(" "));
        }
        for one in &settings.parameters {
            request = request.add_extra_param(one.name(), one.value());
        }
        let max_age = [asked.max_age, settings.max_age]
            .into_iter()
            .flatten()
            .min();
        if let Some(max_age) = max_age {
            request = request.set_max_age(max_age);
        }
        if let Some(hint) = asked.login_hint {
            request = request.set_login_hint(LoginHint::new(hint.to_owned()));
        }
        let (url, _, _) = request.url();
        let url = match &stated.value.pushed_requests {
            Some(endpoint) => self.push(endpoint, &url, &stated.value, now).await?,
            None => url.to_string(),
        };
        let attempt = Attempt {
            provider: self.name().to_string(),
            redirect_uri: asked.redirect_uri.to_owned(),
            to: asked.to.as_str().to_owned(),
            nonce,
            verifier,
            browser: Attempt::browser(asked.browser),
            max_age: max_age.map(|age| age.as_secs()),
            acr,
            hand_over: asked.hand_over.map(str::to_owned),
        };
        Ok(Begun {
            state,
            attempt,
            url,
        })
    }

    /// Leaves a request with the provider, so that the browser can't alter it (RFC 9126).
    async fn push(
        &self,
        endpoint: &str,
        url: &Url,
        stated: &Metadata,
        now: SystemTime,
    ) -> Result<String, Error> {
        let mut content = form::Writer::default();
        for (name, value) in url.query_pairs() {
            content.add(&name, &value);
        }
        let mut headers = Fields::new();
        headers.set(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        for (name, value) in self.assertion(stated, now)? {
            content.add(name, &value);
        }
        if let Proof::Secret(secret) = &self.proof {
            if self.is_basic(stated) {
                headers.set(AUTHORIZATION, basic(&self.settings.client_id, secret)?);
            } else {
                content.add("client_secret", secret);
            }
        }
        let question = Question {
            method: &Method::POST,
            url: self.or_alias(endpoint, stated.aliases.pushed_requests.as_deref()),
            headers,
            content: Bytes::from(content.into_string()),
        };
        let answer = self
            .client
            .ask(question, MOST_BYTES, PATIENCE)
            .await
            .map_err(|why| self.away(&why))?;
        let said = json::object(&answer.content).ok().flatten();
        let left = said
            .as_ref()
            .and_then(|said| said.get("request_uri"))
            .and_then(Value::as_str)
            .filter(|_| answer.status == StatusCode::CREATED);
        let Some(left) = left else {
            let error = said.as_ref().and_then(|said| said.get("error"));
            let code: String = error
                .and_then(|code| code.as_str())
                .map_or_else(String::new, |code| code.chars().take(64).collect());
            warn!(
                provider = &**self.name(),
                status = answer.status.as_u16(),
                error = code,
                "the provider does not take a pushed request"
            );
            return Err(if answer.status.is_server_error() {
                Error::Away
            } else {
                Error::Misconfigured
            });
        };
        let mut url = stated.authorization.url().clone();
        url.query_pairs_mut()
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("request_uri", left);
        Ok(url.to_string())
    }
}

/// The contexts of which a sign-in must be in one: what is asked for only ever narrows what the provider's
/// sign-ins must be, because it comes by way of the browser.
fn contexts(always: &[String], asked: &[String]) -> Vec<String> {
    if always.is_empty() {
        return asked.to_vec();
    }
    let both: Vec<_> = asked
        .iter()
        .filter(|one| always.contains(one))
        .cloned()
        .collect();
    if both.is_empty() {
        always.to_vec()
    } else {
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_asks_for_never_widens_what_a_sign_in_must_be() {
        let list = |text: &str| {
            text.split_terminator(' ')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for (always, asked, expected) in [
            ("", "", ""),
            ("", "mfa", "mfa"),
            ("pwd mfa", "", "pwd mfa"),
            ("pwd mfa", "mfa hwk", "mfa"),
            ("hwk", "pwd", "hwk"),
        ] {
            assert_eq!(
                contexts(&list(always), &list(asked)),
                list(expected),
                "{always}; {asked}"
            );
        }
    }
}
