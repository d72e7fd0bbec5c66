//! Asking a provider's endpoints: how the gate proves who it is, what may come back, and how much of it.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreRevocableToken,
    CoreRevocationErrorResponse, CoreTokenIntrospectionResponse,
};
use openidconnect::{
    AccessToken, AuthType, ClientId, ClientSecret, EmptyAdditionalClaims, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, IdToken, IssuerUrl, JsonWebKeySet, OAuth2TokenResponse,
    RefreshToken, RequestTokenError, Scope, StandardErrorResponse, TokenResponse,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::backend::fetch::{self, Question};
use crate::keys;
use crate::pure::fields::Fields;
use crate::pure::session::Seconds;
use crate::pure::{client_assertion, form};

use super::super::metadata::Metadata;
use super::error::Error;
use super::{Audience, Authentication, Oidc, Proof};

/// How long a provider may take to redeem a code, or to say who somebody is.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer of a provider to either.
pub(super) const MOST_BYTES: usize = 256 * 1024;

/// What a token endpoint answers (RFC 6749 §5.1). The ID token is kept as it came: the library would
/// refuse what it can't name, and `pure::jwt` reads it more strictly than the library does.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Answer {
    pub(super) access_token: AccessToken,
    token_type: Kind,
    pub(super) refresh_token: Option<RefreshToken>,
    pub(super) id_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Kind(String);

impl openidconnect::TokenType for Kind {}

impl OAuth2TokenResponse for Answer {
    type TokenType = Kind;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &Kind {
        &self.token_type
    }

    fn expires_in(&self) -> Option<Duration> {
        None
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

impl TokenResponse<EmptyAdditionalClaims, CoreGenderClaim, Encryption, CoreJwsSigningAlgorithm>
    for Answer
{
    fn id_token(
        &self,
    ) -> Option<&IdToken<EmptyAdditionalClaims, CoreGenderClaim, Encryption, CoreJwsSigningAlgorithm>>
    {
        None
    }
}

type Encryption = CoreJweContentEncryptionAlgorithm;

type Protocol = openidconnect::Client<
    EmptyAdditionalClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    Encryption,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Answer,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
    EndpointNotSet,
>;

type Failed = RequestTokenError<fetch::Error, StandardErrorResponse<CoreErrorResponseType>>;

impl Oidc {
    pub(super) fn protocol(&self, stated: &Metadata) -> Result<Protocol, Error> {
        let settings = &self.settings;
        let issuer =
            IssuerUrl::new(settings.rule.issuer.clone()).map_err(|_| Error::Misconfigured)?;
        let client_id = ClientId::new(settings.client_id.clone());
        let mut protocol = openidconnect::Client::new(client_id, issuer, JsonWebKeySet::default())
            .set_auth_uri(stated.authorization.clone())
            .set_token_uri(
                self.or_alias(&stated.token, stated.aliases.token.as_ref())
                    .clone(),
            )
            .set_auth_type(if self.is_basic(stated) {
                AuthType::BasicAuth
            } else {
                AuthType::RequestBody
            });
        if settings.github.is_some() {
            protocol = protocol.disable_openid_scope();
        }
        if let Proof::Secret(secret) = &self.proof {
            protocol = protocol.set_client_secret(ClientSecret::new(secret.to_string()));
        }
        Ok(protocol)
    }

    /// The endpoint that is ours: where we show a certificate, its alias.
    pub(super) fn or_alias<'m, T: ?Sized>(&self, endpoint: &'m T, alias: Option<&'m T>) -> &'m T {
        match self.settings.authentication {
            Authentication::Tls => alias.unwrap_or(endpoint),
            Authentication::Secret
            | Authentication::Basic
            | Authentication::Post
            | Authentication::Key(_)
            | Authentication::None => endpoint,
        }
    }

    /// What a form says besides, where a key proves who we are; nothing elsewhere.
    pub(super) fn assertion(
        &self,
        stated: &Metadata,
        now: SystemTime,
    ) -> Result<Vec<(&'static str, String)>, Error> {
        let Proof::Key(key) = &self.proof else {
            return Ok(Vec::new());
        };
        let statement = client_assertion::Statement {
            client_id: &self.settings.client_id,
            audience: match self.settings.authentication {
                Authentication::Key(Audience::TokenEndpoint) => stated.token.as_str(),
                Authentication::Key(Audience::Issuer)
                | Authentication::Secret
                | Authentication::Basic
                | Authentication::Post
                | Authentication::Tls
                | Authentication::None => &self.settings.rule.issuer,
            },
            now: Seconds::of(now),
            id: *keys::random()?,
        };
        let signed = key.sign(&statement, stated.takes_pss);
        Ok(vec![
            ("client_assertion_type", client_assertion::KIND.to_owned()),
            ("client_assertion", signed.map_err(|_| Error::Internal)?),
        ])
    }

    pub(super) async fn exchange(
        &self,
        request: HttpRequest,
    ) -> Result<HttpResponse, fetch::Error> {
        let (head, content) = request.into_parts();
        let mut headers = Fields::new();
        for name in [ACCEPT, CONTENT_TYPE, AUTHORIZATION] {
            for value in head.headers.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        let url = head.uri.to_string();
        let question = Question {
            method: &head.method,
            url: &url,
            headers,
            content: Bytes::from(content),
        };
        let answer = self.client.ask(question, MOST_BYTES, PATIENCE).await?;
        let mut response = HttpResponse::new(answer.content.to_vec());
        *response.status_mut() = answer.status;
        if let Some(content_type) = answer.content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        Ok(response)
    }

    /// What went wrong at the token endpoint; the log has what the provider says.
    pub(super) fn failed(&self, why: &Failed) -> Error {
        let provider = &**self.name();
        match why {
            RequestTokenError::ServerResponse(said) => {
                let error = match said.error() {
                    CoreErrorResponseType::InvalidGrant => Error::InvalidGrant,
                    CoreErrorResponseType::InvalidClient
                    | CoreErrorResponseType::InvalidRequest
                    | CoreErrorResponseType::InvalidScope
                    | CoreErrorResponseType::UnauthorizedClient
                    | CoreErrorResponseType::UnsupportedGrantType => Error::Misconfigured,
                    // Only these say that it is the provider's own trouble; with whatever else it refuses.
                    CoreErrorResponseType::Extension(code)
                        if matches!(&**code, "server_error" | "temporarily_unavailable") =>
                    {
                        Error::Away
                    }
                    CoreErrorResponseType::Extension(_) => Error::InvalidGrant,
                };
                let code: String = said.error().to_string().chars().take(64).collect();
                if *said.error() == CoreErrorResponseType::InvalidClient {
                    warn!(
                        provider,
                        error = code,
                        "the provider does not believe that the gate is its client; compare \
                         `client_auth`, and the secret, key or certificate, with what it has"
                    );
                } else {
                    info!(provider, error = code, "the provider gives no token");
                }
                error
            }
            RequestTokenError::Request(why) => self.away(why),
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                warn!(
                    provider,
                    "the provider's token endpoint does not speak OAuth"
                );
                Error::Away
            }
        }
    }

    pub(super) fn away(&self, why: &fetch::Error) -> Error {
        warn!(provider = &**self.name(), error = %why, "the provider can't be asked");
        Error::Away
    }
}

/// Whether a status says nothing of who is asked about: the server has trouble, or too many questions.
pub(super) fn is_trouble(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// An access token as a request brings it (RFC 6750 §2.1); none if it can't stand in a field.
pub(super) fn bearer(access_token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {access_token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Client credentials as RFC 6749 §2.3.1 writes them.
pub(in crate::identity) fn basic(client_id: &str, secret: &str) -> Result<HeaderValue, Error> {
    let pair = Zeroizing::new(format!(
        "{}:{}",
        form::encoded(client_id),
        form::encoded(secret)
    ));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
        .map_err(|_| Error::Internal)?;
    value.set_sensitive(true);
    Ok(value)
}
