//! Sign-in by an OpenID provider: the code flow, with PKCE, `state`, `nonce` and the issuer's name
//! always checked (OpenID Connect Core §3.1, RFC 7636, RFC 9207, RFC 9700).
//!
//! | when | then |
//! |---|---|
//! | somebody begins | a ticket in the store, bound to their browser, and the provider's URL |
//! | an answer comes without the browser's cookie, or with another's | refused, and the ticket stays: whoever began it may still finish |
//! | its ticket was used, has ended, or never was | refused before anything is asked of the provider |
//! | it names another issuer, or none where the provider always does, or came to another provider's address | refused |
//! | it brings a code | the code is redeemed, the ID token verified by the provider's keys, and userinfo asked for what is missing |
//! | the provider is away | 503; whoever is signed in already stays so |
//!
//! Nothing of a provider is believed but what its keys have signed, or it said itself over TLS.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType,
    CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse,
};
use openidconnect::{
    AccessToken, AuthType, AuthenticationContextClass, AuthorizationCode, ClientId, ClientSecret,
    CsrfToken, EmptyAdditionalClaims, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    IdToken, IssuerUrl, JsonWebKeySet, LoginHint, Nonce, OAuth2TokenResponse, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope, StandardErrorResponse,
    TokenResponse, url::Url,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::backend::fetch::{self, Client, Question};
use crate::keys::{self, ClientKey, NoRandom};
use crate::pure::attempt::{self, Attempt};
use crate::pure::callback::{BadCallback, Callback, Outcome, ProviderError};
use crate::pure::client_assertion;
use crate::pure::fields::Fields;
use crate::pure::form;
use crate::pure::id_token::{self, BadIdToken, Expected, Logout};
use crate::pure::identity::{Claims, User};
use crate::pure::jwt::{self, BadToken, Token};
use crate::pure::overage::BadGroups;
use crate::pure::return_to::ReturnTo;
use crate::pure::session::{Seconds, Tokens};
use crate::pure::ticket::Ticket;
use crate::pure::{json, overage, seal};

use super::github;
use super::jwks::Keys;
use super::kept::{Asker, FETCH_TIME, Kept, NoNewer};
use super::metadata::Metadata;
use super::parameter::Parameter;

/// How long a provider may take to redeem a code, or to say who somebody is.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer of a provider to either.
const MOST_BYTES: usize = 256 * 1024;
/// The longest ID token that is kept for sign-out.
const MOST_HINT_BYTES: usize = 6 * 1024;
/// Claims that are about the token, not about the user.
const OF_THE_TOKEN: [&str; 13] = [
    "nonce", "at_hash", "c_hash", "s_hash", "jti", "scope", "scp", "scopes", "exp", "iat", "nbf",
    "typ", "sid",
];

/// A provider as the configuration states it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What people call it.
    pub title: String,
    /// Our name there.
    pub client_id: String,
    /// How we prove that we are it.
    pub authentication: Authentication,
    /// What is asked for, besides `openid`.
    pub scopes: Vec<String>,
    /// What its tokens must be, and how they name users.
    pub rule: Arc<jwt::Rule>,
    /// Whose e-mail addresses are signed in there.
    pub email_domains: Vec<String>,
    /// `prompt` of each request.
    pub prompt: Vec<String>,
    /// What each request says besides.
    pub parameters: Vec<Parameter>,
    /// `acr_values` of each request; one of them must be met.
    pub acr: Vec<String>,
    /// The greatest age of a sign-in at the provider.
    pub max_age: Option<Duration>,
    /// Whether it answers by a form.
    pub by_form: bool,
    /// Whether it wants the ID token of whoever signs out.
    pub sign_out_by_form: bool,
    /// How often it is asked whether a user still may.
    pub refresh: Duration,
    /// Its endpoints, where it does not state them itself.
    pub metadata: Option<Box<Metadata>>,
    /// Where all groups of a user are asked for, when they do not fit a token.
    pub groups_url: Option<String>,
    /// Who is let in there, where it is GitHub, which speaks no OpenID.
    pub github: Option<Box<github::Rule>>,
}

/// How a client proves to a provider who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// By its secret, in whichever way the provider takes.
    Secret,
    /// By its secret as HTTP basic.
    Basic,
    /// By its secret in the form.
    Post,
    /// By what its key has signed, for this audience.
    Key(Audience),
    /// By its certificate.
    Tls,
    /// Not at all.
    None,
}

/// For whom a client states who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The issuer: one name for whichever endpoint it is sent to.
    Issuer,
    /// The token endpoint, for providers that know only that.
    TokenEndpoint,
}

/// What a client proves by who it is.
pub enum Proof {
    /// A secret that the provider knows.
    Secret(Zeroizing<String>),
    /// A key, of which the provider knows the public half.
    Key(ClientKey),
    /// Its certificate, or nothing.
    None,
}

/// A provider in use.
pub struct Oidc {
    /// What the configuration says of it.
    pub settings: Settings,
    client: Client,
    proof: Proof,
    fingerprint: [u8; 16],
    metadata: Arc<Kept<Metadata>>,
    keys: ArcSwapOption<KeysAt>,
    attended: AtomicBool,
    /// Whether it was said that it gives no refresh tokens.
    once_and_for_all: AtomicBool,
}

struct KeysAt {
    url: String,
    keys: Arc<Keys>,
}

/// Why somebody is not signed in by a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The provider can't be asked now.
    Away,
    /// The provider does not take our request: the configuration is wrong here or there.
    Misconfigured,
    /// The answer is none.
    Callback(BadCallback),
    /// The browser that brings the answer did not begin it, or keeps no cookies.
    OtherBrowser,
    /// The sign-in took too long, or was finished before.
    Over,
    /// Another issuer answers than the one that was asked (RFC 9207).
    OtherIssuer,
    /// The provider says no.
    Refused(ProviderError),
    /// The provider does not know the code or the refresh token any more.
    InvalidGrant,
    /// There is no ID token, or it is none.
    Token(BadToken),
    /// The ID token is for something else.
    IdToken(BadIdToken),
    /// Userinfo is about somebody else, or is none.
    UserInfo,
    /// The user is in none of the organisations that are let in.
    NotAMember,
    /// The provider does not list all groups of the user, or they are too many.
    GroupOverage,
    /// `groups_url` does not say what the groups are.
    GroupsUrl,
    /// The provider does not say the groups again that it said before.
    GroupsUnsaid,
    /// The logout token came before.
    Replayed,
    /// There are no random bytes, or a value makes no URL.
    Internal,
}

impl Error {
    /// The reason in log and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Away => "oidc.away",
            Self::Misconfigured => "oidc.misconfigured",
            Self::Callback(why) => why.reason(),
            Self::OtherBrowser => "oidc.other_browser",
            Self::Over => "oidc.attempt_over",
            Self::OtherIssuer => "oidc.other_issuer",
            Self::Refused(why) => why.reason(),
            Self::InvalidGrant => "oidc.invalid_grant",
            Self::Token(why) => why.reason(),
            Self::IdToken(why) => why.reason(),
            Self::UserInfo => "oidc.userinfo",
            Self::NotAMember => "oidc.not_a_member",
            Self::GroupOverage => "oidc.group_overage",
            Self::GroupsUrl => "oidc.groups_url",
            Self::GroupsUnsaid => "oidc.groups_unsaid",
            Self::Replayed => "oidc.logout_replayed",
            Self::Internal => "oidc.internal",
        }
    }
}

impl From<github::Error> for Error {
    fn from(why: github::Error) -> Self {
        match why {
            github::Error::Away => Self::Away,
            github::Error::Client => Self::Misconfigured,
            github::Error::Grant => Self::InvalidGrant,
            github::Error::Unusable => Self::UserInfo,
            github::Error::TooMany => Self::GroupOverage,
            github::Error::NotAMember => Self::NotAMember,
        }
    }
}

impl From<NoRandom> for Error {
    fn from(_: NoRandom) -> Self {
        Self::Internal
    }
}

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

/// How somebody signs out at a provider.
pub struct EndSession {
    /// What people call the provider.
    pub title: String,
    /// Where the link leads, or the form goes.
    pub url: String,
    /// Scheme, host and port of that.
    pub origin: String,
    hint: Option<Zeroizing<String>>,
    client_id: String,
    back: String,
}

impl EndSession {
    /// What the form holds, where it is one.
    pub fn form(&self) -> Option<Vec<(&'static str, &str)>> {
        let hint = self.hint.as_ref()?;
        Some(vec![
            ("id_token_hint", hint.as_str()),
            ("client_id", &*self.client_id),
            ("post_logout_redirect_uri", &*self.back),
        ])
    }
}

/// Somebody whom a provider vouches for.
#[derive(Debug)]
pub struct Vouched {
    /// Who it is.
    pub user: Arc<User>,
    /// What the provider gave.
    pub tokens: Tokens,
}

/// What a token endpoint answers (RFC 6749 §5.1). The ID token is kept as it came: the library would
/// refuse what it can't name, and `pure::jwt` reads it more strictly than the library does.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Answer {
    access_token: AccessToken,
    token_type: Kind,
    refresh_token: Option<RefreshToken>,
    id_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
struct Kind(String);

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

type Encryption = CoreJweContentEncryptionAlgorithm;

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

/// What sessions rest on that the provider of `issuer` vouched for to `client_id`, as far as `given`
/// allows ([`crate::pure::session::Record::proof`]).
pub fn fingerprint(issuer: &str, client_id: &str, given: &str) -> [u8; 16] {
    let whole = seal::hash(format!("{issuer}\0{client_id}{given}").as_bytes());
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(whole) {
        *to = from;
    }
    half
}

type Failed = RequestTokenError<fetch::Error, StandardErrorResponse<CoreErrorResponseType>>;

impl Oidc {
    /// A provider that `client` asks.
    pub fn new(settings: Settings, client: Client, proof: Proof) -> Self {
        let metadata = match settings.metadata.clone() {
            Some(stated) => Kept::fixed(*stated),
            None => Kept::at(super::metadata::url(&settings.rule.issuer)),
        };
        let given = settings.github.as_ref();
        let given = given.map_or_else(String::new, |github| format!("\0{}", github.lets_in()));
        Self {
            fingerprint: fingerprint(&settings.rule.issuer, &settings.client_id, &given),
            settings,
            client,
            proof,
            metadata: Arc::new(metadata),
            keys: ArcSwapOption::empty(),
            attended: AtomicBool::new(false),
            once_and_for_all: AtomicBool::new(false),
        }
    }

    /// Whether nobody keeps fresh yet what is known of it; the one who asks first has to.
    pub fn needs_attendance(&self) -> bool {
        !self.attended.swap(true, Ordering::Relaxed)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.settings.rule.provider
    }

    /// Whether it learns who we are by keys that we publish.
    pub const fn needs_published_keys(&self) -> bool {
        matches!(self.proof, Proof::Key(ClientKey::Published(_)))
    }

    /// What asks it.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Its metadata, for whoever keeps them fresh.
    pub const fn metadata(&self) -> &Arc<Kept<Metadata>> {
        &self.metadata
    }

    /// What sessions by this provider rest on: they end when it is another one.
    pub const fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    /// What the provider says of itself; fetched for whoever comes first after it was away.
    async fn stated(&self, now: SystemTime) -> Result<Arc<super::kept::Loaded<Metadata>>, Error> {
        let stated = match self.metadata.current() {
            Some(stated) => stated,
            None => {
                let newer = self.metadata.newer(None, Asker::Anybody, now).await;
                newer.map_err(|_| Error::Away)?
            }
        };
        // Metadata of another issuer would have us take its word for this one's (RFC 8414 §3.3).
        if stated.value.issuer != self.settings.rule.issuer {
            warn!(
                provider = &**self.name(),
                issuer = stated.value.issuer,
                expected = self.settings.rule.issuer,
                "the provider's metadata name another issuer; correct `issuer`"
            );
            return Err(Error::Misconfigured);
        }
        Ok(stated)
    }

    /// The keys at a URL, and whether somebody has to keep them fresh.
    fn keys_at(&self, url: &str) -> Arc<Keys> {
        if let Some(known) = self.keys.load_full().filter(|known| known.url == url) {
            return Arc::clone(&known.keys);
        }
        let keys = Arc::new(Keys::at(url.to_owned()));
        self.keys.store(Some(Arc::new(KeysAt {
            url: url.to_owned(),
            keys: Arc::clone(&keys),
        })));
        keys
    }

    /// The keys that nobody keeps fresh yet, as soon as it is known where they are.
    pub fn unattended_keys(&self) -> Option<Arc<Keys>> {
        if self.settings.github.is_some() {
            return None;
        }
        let stated = self.metadata.current()?;
        let keys = self.keys_at(&stated.value.jwks);
        keys.needs_attendance().then_some(keys)
    }

    fn protocol(&self, stated: &Metadata) -> Result<Protocol, Error> {
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

    const fn is_basic(&self, stated: &Metadata) -> bool {
        match self.settings.authentication {
            Authentication::Basic => true,
            Authentication::Secret => stated.takes_basic,
            Authentication::Post
            | Authentication::Key(_)
            | Authentication::Tls
            | Authentication::None => false,
        }
    }

    /// The endpoint that is ours: where we show a certificate, its alias.
    fn or_alias<'m, T: ?Sized>(&self, endpoint: &'m T, alias: Option<&'m T>) -> &'m T {
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
    fn assertion(
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

    /// Checks that an answer is to this attempt, at the address that the attempt was told.
    ///
    /// # Errors
    /// [`Error::OtherIssuer`], what the provider says, or [`Error::Away`] where it can't be said whether
    /// the provider always names itself.
    pub async fn check(
        &self,
        attempt: &Attempt,
        callback: Callback,
        now: SystemTime,
    ) -> Result<Zeroizing<String>, Error> {
        let issuer = callback.issuer.as_deref().map(String::as_str);
        // Of a gate that has just started nothing may be known of the provider yet.
        let always = match issuer {
            Some(_) => true,
            None => self.stated(now).await?.value.names_itself,
        };
        let is_ours = issuer.map_or(!always, |issuer| issuer == self.settings.rule.issuer);
        if !is_ours || attempt.provider != **self.name() {
            return Err(Error::OtherIssuer);
        }
        match callback.outcome {
            Outcome::Code(code) => Ok(code),
            Outcome::Error(why) => Err(Error::Refused(why)),
        }
    }

    /// Redeems a code: who it is, by the provider's signed word.
    ///
    /// # Errors
    /// Why it is nobody.
    pub async fn redeem(
        &self,
        attempt: &Attempt,
        code: Zeroizing<String>,
        now: SystemTime,
    ) -> Result<Vouched, Error> {
        let stated = self.stated(now).await?;
        if let Some(github) = &self.settings.github {
            let Proof::Secret(secret) = &self.proof else {
                return Err(Error::Misconfigured);
            };
            let code = github::Code {
                endpoint: stated.value.token.as_str(),
                client_id: &self.settings.client_id,
                secret,
                code: &code,
                redirect_uri: &attempt.redirect_uri,
                verifier: &attempt.verifier,
            };
            let token = github::redeem(&self.client, &code).await?;
            return self.vouched_by(github, token, now).await;
        }
        let protocol = self.protocol(&stated.value)?;
        let redirect =
            RedirectUrl::new(attempt.redirect_uri.clone()).map_err(|_| Error::Internal)?;
        let mut request = protocol
            .exchange_code(AuthorizationCode::new(code.to_string()))
            .set_pkce_verifier(PkceCodeVerifier::new(attempt.verifier.clone()))
            .set_redirect_uri(Cow::Borrowed(&redirect));
        for (name, value) in self.assertion(&stated.value, now)? {
            request = request.add_extra_param(name, value);
        }
        let answer = request
            .request_async(&|request| self.exchange(request))
            .await
            .map_err(|why| self.failed(&why))?;
        let id_token = answer
            .id_token
            .as_deref()
            .ok_or(Error::Token(BadToken::Malformed))?;
        let expected = Expected {
            client_id: &self.settings.client_id,
            nonce: Some(&attempt.nonce),
            access_token: Some(answer.access_token.secret()),
            max_age: attempt.max_age.map(Duration::from_secs),
            acr: &attempt.acr,
        };
        let claims = self
            .verified(id_token, &stated.value, &expected, now)
            .await?;
        if answer.refresh_token.is_none() && !self.once_and_for_all.swap(true, Ordering::Relaxed) {
            warn!(
                provider = &**self.name(),
                "the provider gives no refresh token, so that nobody can ask it again: whoever signs in \
                 keeps their groups until the session ends, though they are disabled there; \
                 does it want `offline_access` in `scopes`?"
            );
        }
        let access_token = answer.access_token.secret();
        self.vouched(claims, access_token, &answer, None, &stated.value, now)
            .await
    }

    /// Asks whether what the provider said before still holds; `None` where it gave nothing to ask
    /// with. Where it gives new tokens and does not say more, being away, those are all that is new.
    ///
    /// # Errors
    /// [`Error::InvalidGrant`] if it does not; others if that can't be said.
    pub async fn renew(
        &self,
        user: &Arc<User>,
        tokens: &Tokens,
        now: SystemTime,
    ) -> Result<Option<Vouched>, Error> {
        let Some(refresh) = &tokens.refresh else {
            return Ok(None);
        };
        if let Some(github) = &self.settings.github {
            let vouched = self.vouched_by(github, refresh.clone(), now).await?;
            let same = vouched.tokens.subject == tokens.subject;
            return same.then_some(Some(vouched)).ok_or(Error::InvalidGrant);
        }
        let stated = self.stated(now).await?;
        let protocol = self.protocol(&stated.value)?;
        let refresh = RefreshToken::new(refresh.to_string());
        let mut request = protocol.exchange_refresh_token(&refresh);
        for (name, value) in self.assertion(&stated.value, now)? {
            request = request.add_extra_param(name, value);
        }
        let answer = request
            .request_async(&|request| self.exchange(request))
            .await
            .map_err(|why| self.failed(&why))?;
        match self
            .said_anew(user, tokens, &answer, &stated.value, now)
            .await
        {
            Ok(vouched) => Ok(Some(vouched)),
            // The refresh token of before may count no more by now: who it is waits, this does not.
            Err(Error::Away) if answer.refresh_token.is_some() => Ok(Some(Vouched {
                user: Arc::clone(user),
                tokens: Tokens {
                    refresh: answer
                        .refresh_token
                        .map(|token| Zeroizing::new(token.into_secret())),
                    checked: self.checked_until_retry(now),
                    ..tokens.clone()
                },
            })),
            Err(why) => Err(why),
        }
    }

    /// A time of the last answer by which the provider is asked again soon.
    pub fn checked_until_retry(&self, now: SystemTime) -> Seconds {
        let refresh = self.settings.refresh;
        let again = Seconds::of(now).plus(refresh.min(RETRY));
        Seconds(again.0.saturating_sub(refresh.as_secs()))
    }

    /// Whom the answer to a refresh token is about.
    async fn said_anew(
        &self,
        user: &User,
        tokens: &Tokens,
        answer: &Answer,
        stated: &Metadata,
        now: SystemTime,
    ) -> Result<Vouched, Error> {
        let access_token = answer.access_token.secret();
        let claims = match &answer.id_token {
            // A refresh has no nonce to repeat (Core §12.2).
            Some(id_token) => {
                let expected = Expected {
                    client_id: &self.settings.client_id,
                    nonce: None,
                    access_token: Some(access_token),
                    max_age: None,
                    acr: &[],
                };
                let mut claims = self.verified(id_token, stated, &expected, now).await?;
                if id_token::id(&claims, "sub").as_ref() != Some(&tokens.subject) {
                    return Err(Error::InvalidGrant);
                }
                // When and how the person proved it does not change by asking the provider.
                for name in ["auth_time", "acr", "amr"] {
                    if let Some(before) = user.claims.get(name) {
                        claims.insert(name.to_owned(), before.clone());
                    }
                }
                claims
            }
            None => self
                .user_info(stated, access_token, &tokens.subject)
                .await?
                .map_or_else(
                    || Ok(Claims::clone(&user.claims)),
                    |mut said| {
                        // Some leave out a list that has become empty; the next sign-in tells. One that
                        // did not fit a token is asked for elsewhere.
                        if self.lists_groups(&user.claims)
                            && !self.lists_groups(&said)
                            && !overage::is_met(&user.claims)
                        {
                            return Err(Error::GroupsUnsaid);
                        }
                        // What the provider says now counts before what it said then.
                        add(&mut said, Claims::clone(&user.claims));
                        Ok(said)
                    },
                )?,
        };
        self.vouched(claims, access_token, answer, Some(tokens), stated, now)
            .await
    }

    /// Whom GitHub says an access token is for; the token is kept, to ask again.
    async fn vouched_by(
        &self,
        github: &github::Rule,
        token: Zeroizing<String>,
        now: SystemTime,
    ) -> Result<Vouched, Error> {
        let claims = github.claims(&self.client, &token).await?;
        let user = jwt::user(&claims, &self.settings.rule).map_err(Error::Token)?;
        Ok(Vouched {
            user: Arc::new(user),
            tokens: Tokens {
                subject: id_token::id(&claims, "sub").ok_or(Error::UserInfo)?,
                session: None,
                refresh: Some(token),
                id: None,
                checked: Seconds::of(now),
            },
        })
    }

    /// The claims of an ID token that is what it must be.
    async fn verified(
        &self,
        id_token: &str,
        stated: &Metadata,
        expected: &Expected<'_>,
        now: SystemTime,
    ) -> Result<Claims, Error> {
        let token = Token::parse_issued(id_token).map_err(Error::Token)?;
        self.with_keys(&token, stated, now, |issued| {
            id_token::check(&issued, expected, now).map_err(Error::IdToken)?;
            Ok(issued.claims.clone())
        })
        .await
    }

    /// Reads a logout token that the provider sent.
    ///
    /// # Errors
    /// Why it is none.
    pub async fn logout(&self, text: &str, now: SystemTime) -> Result<Logout, Error> {
        if self.settings.github.is_some() {
            return Err(Error::Token(BadToken::UnknownKey));
        }
        let stated = self.stated(now).await?;
        let token = Token::parse_issued(text).map_err(Error::Token)?;
        let rule = jwt::Rule {
            types: ["logout+jwt", "JWT"]
                .into_iter()
                .filter_map(jwt::Type::named)
                .collect(),
            ..jwt::Rule::clone(&self.settings.rule)
        };
        let asker = Asker::Anybody;
        self.with_keys_by(&rule, &token, asker, &stated.value, now, |issued| {
            id_token::logout(&issued, now).map_err(Error::IdToken)
        })
        .await
    }

    async fn with_keys<T>(
        &self,
        token: &Token<'_>,
        stated: &Metadata,
        now: SystemTime,
        check: impl Fn(jwt::Issued<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let rule = &self.settings.rule;
        self.with_keys_by(rule, token, Asker::Issuer, stated, now, check)
            .await
    }

    /// Checks a token by the provider's keys; by newer ones where it names one that is not known.
    async fn with_keys_by<T>(
        &self,
        rule: &jwt::Rule,
        token: &Token<'_>,
        asker: Asker,
        stated: &Metadata,
        now: SystemTime,
        check: impl Fn(jwt::Issued<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let keys = self.keys_at(&stated.jwks);
        let known = match keys.current() {
            Some(known) => known,
            None => {
                let newer = keys.newer(None, asker, now).await;
                newer.map_err(|_| Error::Away)?
            }
        };
        match token.issued(rule, &known.value, now) {
            Ok(issued) => check(issued),
            Err(BadToken::UnknownKey) => {
                let newer = keys.newer(Some(known.generation), asker, now).await;
                // What can't be looked up is no proof against anybody.
                let newer = newer.map_err(|why| match why {
                    NoNewer::Same => Error::Token(BadToken::UnknownKey),
                    NoNewer::Unfetched => Error::Away,
                })?;
                let issued = token
                    .issued(rule, &newer.value, now)
                    .map_err(Error::Token)?;
                check(issued)
            }
            Err(why) => Err(Error::Token(why)),
        }
    }

    /// The user of verified claims, with what userinfo adds, and the tokens to keep.
    async fn vouched(
        &self,
        mut claims: Claims,
        access_token: &str,
        answer: &Answer,
        before: Option<&Tokens>,
        stated: &Metadata,
        now: SystemTime,
    ) -> Result<Vouched, Error> {
        let subject = id_token::id(&claims, "sub").ok_or(Error::IdToken(BadIdToken::Subject))?;
        if self.lacks(&claims)
            && let Some(said) = self.user_info(stated, access_token, &subject).await?
        {
            add(&mut claims, said);
        }
        // To know only some of the groups would let a rule that denies one miss it.
        let rule = &self.settings.rule;
        if let Some(claim) = &rule.groups_claim
            && overage::is_met(&claims)
        {
            let groups = self.all_groups(&claims, claim, access_token).await?;
            claims.insert(claim.clone(), groups.into());
        }
        let session = id_token::id(&claims, "sid");
        for name in OF_THE_TOKEN {
            claims.remove(name);
        }
        let user = jwt::user(&claims, rule).map_err(Error::Token)?;
        let secret = |text: &str| Zeroizing::new(text.to_owned());
        let refresh = answer
            .refresh_token
            .as_ref()
            .map(|token| secret(token.secret()))
            .or_else(|| before?.refresh.clone());
        let id = answer
            .id_token
            .as_deref()
            .filter(|token| token.len() <= MOST_HINT_BYTES)
            .map(secret)
            .or_else(|| before?.id.clone())
            // Of no use else, and longer than all the rest of a session.
            .filter(|_| self.settings.sign_out_by_form);
        Ok(Vouched {
            user: Arc::new(user),
            tokens: Tokens {
                subject,
                session: session.or_else(|| before?.session.clone()),
                refresh,
                id,
                checked: Seconds::of(now),
            },
        })
    }

    fn lists_groups(&self, claims: &Claims) -> bool {
        let groups_claim = self.settings.rule.groups_claim.as_ref();
        groups_claim.is_some_and(|claim| jwt::at(claims, claim).is_some())
    }

    /// Whether the claims say less than the configuration asks for.
    fn lacks(&self, claims: &Claims) -> bool {
        let rule = &self.settings.rule;
        let asks_for_email = self.settings.scopes.iter().any(|scope| scope == "email");
        jwt::at(claims, &rule.name_claim).is_none()
            || rule.groups_claim.is_some() && !self.lists_groups(claims) && !overage::is_met(claims)
            || asks_for_email && !claims.contains_key("email")
    }

    /// What the provider says of the user of an access token, if it says anything (Core §5.3).
    async fn user_info(
        &self,
        stated: &Metadata,
        access_token: &str,
        subject: &str,
    ) -> Result<Option<Claims>, Error> {
        let Some(url) = stated.userinfo.as_deref() else {
            return Ok(None);
        };
        let mut headers = Fields::new();
        headers.set(AUTHORIZATION, bearer(access_token).ok_or(Error::UserInfo)?);
        let question = Question {
            method: &Method::GET,
            url: self.or_alias(url, stated.aliases.userinfo.as_deref()),
            headers,
            content: Bytes::new(),
        };
        let answer = self
            .client
            .ask(question, MOST_BYTES, PATIENCE)
            .await
            .map_err(|why| self.away(&why))?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Error::InvalidGrant),
            status if is_trouble(status) => return Err(Error::Away),
            _ => return Err(Error::UserInfo),
        }
        let claims = json::object(&answer.content)
            .ok()
            .flatten()
            .ok_or(Error::UserInfo)?;
        // Or somebody else's claims would be taken for theirs (Core §5.3.2).
        if id_token::id(&claims, "sub").as_deref() != Some(subject) {
            return Err(Error::UserInfo);
        }
        Ok(Some(claims))
    }

    /// The groups of the user of an access token that did not fit the ID token: all, from `groups_url`,
    /// and never from where the token itself says that they are (see [`overage`]).
    async fn all_groups(
        &self,
        claims: &Claims,
        groups_claim: &str,
        access_token: &str,
    ) -> Result<Vec<String>, Error> {
        let url = self
            .settings
            .groups_url
            .as_deref()
            .filter(|_| overage::is_of(claims, groups_claim))
            .ok_or(Error::GroupOverage)?;
        let mut headers = Fields::new();
        headers.set(AUTHORIZATION, bearer(access_token).ok_or(Error::GroupsUrl)?);
        headers.set(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let question = Question {
            method: &Method::POST,
            url,
            headers,
            content: Bytes::from_static(overage::QUESTION.as_bytes()),
        };
        let answer = self
            .client
            .ask(question, overage::MAX_ANSWER_BYTES, PATIENCE)
            .await
            .map_err(|why| self.away(&why))?;
        let provider = &**self.name();
        if answer.status != StatusCode::OK {
            warn!(
                provider,
                url,
                status = answer.status.as_u16(),
                "`groups_url` does not say what the groups are; where it refuses, see whether \
                 `scopes` ask for what it needs, and the provider has consented"
            );
            return Err(if is_trouble(answer.status) {
                Error::Away
            } else {
                Error::GroupsUrl
            });
        }
        overage::groups(&answer.content).map_err(|why| {
            warn!(provider, url, error = %why, "`groups_url` does not say what the groups are");
            match why {
                BadGroups::TooMany => Error::GroupOverage,
                BadGroups::NoList | BadGroups::Part => Error::GroupsUrl,
            }
        })
    }

    /// How a browser signs out at the provider, and comes back to `back`; `None` where it offers no
    /// such place (OpenID Connect RP-Initiated Logout §2).
    pub fn end_session(&self, tokens: &Tokens, back: &str) -> Option<EndSession> {
        let stated = self.metadata.current()?;
        let mut url = Url::parse(stated.value.end_session.as_deref()?).ok()?;
        let hint = tokens.id.clone().filter(|_| self.settings.sign_out_by_form);
        if hint.is_none() {
            url.query_pairs_mut()
                .append_pair("client_id", &self.settings.client_id)
                .append_pair("post_logout_redirect_uri", back);
        }
        Some(EndSession {
            title: self.settings.title.clone(),
            origin: url.origin().ascii_serialization(),
            url: url.to_string(),
            hint,
            client_id: self.settings.client_id.clone(),
            back: back.to_owned(),
        })
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, fetch::Error> {
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
    fn failed(&self, why: &Failed) -> Error {
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

    fn away(&self, why: &fetch::Error) -> Error {
        warn!(provider = &**self.name(), error = %why, "the provider can't be asked");
        Error::Away
    }
}

/// Adds to `claims` what others have besides. An address and that it is verified are one statement:
/// of another source each would be about another address.
fn add(claims: &mut Claims, others: Claims) {
    const ADDRESS: [&str; 2] = ["email", "email_verified"];
    let has_address = ADDRESS.iter().any(|name| claims.contains_key(*name));
    for (name, value) in others {
        if !(has_address && ADDRESS.contains(&&*name)) {
            claims.entry(name).or_insert(value);
        }
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

/// Whether a status says nothing of who is asked about: the server has trouble, or too many questions.
fn is_trouble(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// An access token as a request brings it (RFC 6750 §2.1); none if it can't stand in a field.
fn bearer(access_token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {access_token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Client credentials as RFC 6749 §2.3.1 writes them.
pub(super) fn basic(client_id: &str, secret: &str) -> Result<HeaderValue, Error> {
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

/// How long a sign-in may take.
pub const ATTEMPT: Duration = Duration::from_secs(attempt::SECONDS);
/// How long a browser may take to come back for the answer that it has just posted.
pub const POSTED: Duration = Duration::from_secs(60);
/// How soon a provider that was away is asked again about the same session.
pub const RETRY: Duration = Duration::from_secs(15);

/// Keeps everything that is known of a provider fresh, until nobody holds it.
pub async fn keep_fresh(oidc: std::sync::Weak<Oidc>, now: fn() -> SystemTime) {
    let Some(held) = oidc.upgrade() else { return };
    let client = held.client.clone();
    if held.metadata.needs_attendance() {
        let fetch = client.clone();
        let weak = Arc::downgrade(&held.metadata);
        tokio::task::spawn_local(Kept::keep_fresh(
            weak,
            move |url: &str| super::kept::fetched::<Metadata>(fetch.clone(), url.to_owned()),
            now,
        ));
    }
    let mut learned = held.metadata.learned();
    drop(held);
    loop {
        let Some(held) = oidc.upgrade() else { return };
        if let Some(keys) = held.unattended_keys() {
            let fetch = client.clone();
            tokio::task::spawn_local(Keys::keep_fresh(
                Arc::downgrade(&keys),
                move |url: &str| {
                    super::kept::fetched::<crate::pure::jwk::KeySet>(fetch.clone(), url.to_owned())
                },
                now,
            ));
        }
        drop(held);
        // A minute at most, to notice that nobody holds it any more.
        let minute = FETCH_TIME.saturating_mul(12);
        drop(tokio::time::timeout(minute, learned.changed()).await);
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
