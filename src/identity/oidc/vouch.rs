//! What a provider says of somebody: at sign-in, and when it is asked again.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use openidconnect::{AuthorizationCode, PkceCodeVerifier, RedirectUrl, RefreshToken};
use tracing::warn;
use zeroize::Zeroizing;

use crate::backend::fetch::Question;
use crate::pure::attempt::Attempt;
use crate::pure::callback::{Callback, Outcome};
use crate::pure::fields::Fields;
use crate::pure::id_token::{self, BadIdToken, Expected};
use crate::pure::identity::{Claims, User};
use crate::pure::jwt::{self, BadToken, Token};
use crate::pure::overage::BadGroups;
use crate::pure::session::{Seconds, Tokens};
use crate::pure::{json, overage};

use super::super::github;
use super::super::kept::{Asker, NoNewer};
use super::super::metadata::Metadata;
use super::endpoint::{Answer, MOST_BYTES, PATIENCE, bearer, is_trouble};
use super::error::Error;
use super::{Oidc, Proof, RETRY};

/// Claims that are about the token, not about the user.
const OF_THE_TOKEN: [&str; 13] = [
    "nonce", "at_hash", "c_hash", "s_hash", "jti", "scope", "scp", "scopes", "exp", "iat", "nbf",
    "typ", "sid",
];

/// Claims that say when and how a person proved who they are.
const OF_THE_SIGN_IN: [&str; 3] = ["auth_time", "acr", "amr"];
/// The longest ID token that is kept for sign-out.
const MOST_HINT_BYTES: usize = 6 * 1024;

/// Somebody whom a provider vouches for.
#[derive(Debug)]
pub struct Vouched {
    /// Who it is.
    pub user: Arc<User>,
    /// What the provider gave.
    pub tokens: Tokens,
}

impl Oidc {
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
                for name in OF_THE_SIGN_IN {
                    match user.claims.get(name) {
                        Some(before) => drop(claims.insert(name.to_owned(), before.clone())),
                        None => drop(claims.remove(name)),
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
    pub(super) async fn with_keys_by<T>(
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
                // The store finds it by that of the sign-in.
                session: before.map_or(session, |before| before.session.clone()),
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
        let mut claims = json::object(&answer.content)
            .ok()
            .flatten()
            .ok_or(Error::UserInfo)?;
        // Or somebody else's claims would be taken for theirs (Core §5.3.2).
        if id_token::id(&claims, "sub").as_deref() != Some(subject) {
            return Err(Error::UserInfo);
        }
        // Of that sign-in only its ID token speaks; what is told here may be of a later one.
        for name in OF_THE_SIGN_IN {
            claims.remove(name);
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
}

/// Adds to `claims` what others have besides. An address and that it is verified are one statement:
/// of another source each would be about another address.
pub(super) fn add(claims: &mut Claims, others: Claims) {
    const ADDRESS: [&str; 2] = ["email", "email_verified"];
    let has_address = ADDRESS.iter().any(|name| claims.contains_key(*name));
    for (name, value) in others {
        if !(has_address && ADDRESS.contains(&&*name)) {
            claims.entry(name).or_insert(value);
        }
    }
}
