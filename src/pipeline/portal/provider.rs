//! The gate's own pages for sign-in by a provider.

use std::time::Duration;

use bytes::Bytes;
use http::header::SET_COOKIE;
use http::{HeaderValue, Response, StatusCode};

use crate::identity::oidc::{self, Begin};
use crate::identity::{Failure, Onward};
use crate::pages::provider::Trouble;
use crate::pages::sign_in::SignInError;
use crate::pages::{self, CALLBACK, SIGN_IN};
use crate::pure::callback;
use crate::pure::cookie;
use crate::pure::form;
use crate::pure::return_to::ReturnTo;
use crate::pure::session::Seconds;
use crate::pure::ticket::Ticket;
use crate::record::Record;

use super::{Refused, Visit};

/// Sign-ins that follow each other at once, after which the next one is not begun.
const MOST_ROUNDS: u32 = 3;
/// How long they are counted.
const ROUNDS_SECONDS: u32 = 60;
/// Bytes of a name or an e-mail address in a query.
const MOST_NAME: usize = 256;
/// Bytes of what is wished of a sign-in, of which authentication contexts may be long.
const MOST_WISH: usize = 2048;
/// The longest logout token, with its form around it.
const MOST_LOGOUT: usize = 32 * 1024;

/// What a request for the sign-in page says beside where the person is going.
pub(super) struct Wish {
    /// The provider they have chosen.
    with: Option<String>,
    /// Their e-mail address, by which we choose.
    email: Option<String>,
    /// How fresh the sign-in must be.
    pub(super) within: Option<Duration>,
    /// The ticket of the host that waits for the sign-in.
    pub(super) waiting: Option<String>,
    /// The contexts of which it must be in one. Whoever writes the query can only ask for more: a
    /// provider's own are asked for all the same.
    pub(super) acr: Vec<String>,
}

impl Wish {
    /// What a query wishes; what can't be read in it is not wished.
    pub(super) fn of(query: &str) -> Self {
        let names = ["with", "email", "within", "for", "acr"];
        let [with, email, within, waiting, acr] =
            form::some(query.as_bytes(), names, MOST_WISH).unwrap_or_default();
        let text = |wish: Option<zeroize::Zeroizing<String>>| wish.map(|text| text.to_string());
        let seconds = within.and_then(|within| within.parse().ok());
        Self {
            with: text(with),
            email: text(email),
            within: seconds.map(Duration::from_secs),
            waiting: text(waiting),
            acr: acr.map_or_else(Vec::new, |acr| {
                acr.split(' ')
                    .filter(|one| !one.is_empty())
                    .map(str::to_owned)
                    .collect()
            }),
        }
    }
}

impl Visit<'_> {
    /// The provider that a wish leads to at once; none where there is something to choose.
    pub(super) fn chosen(&self, wish: &Wish) -> Result<Option<&str>, SignInError> {
        if let Some(with) = &wish.with {
            let offered = self.providers().find(|(name, _)| name == with);
            // A link of another configuration leads to the choice that there is now.
            return Ok(offered.map(|(name, _)| name));
        }
        if let Some(email) = &wish.email {
            let domain = email.rsplit_once('@').map(|(_, domain)| domain.trim());
            let domain = domain.unwrap_or_default().to_ascii_lowercase();
            let mut all = self.methods.names().iter();
            let of_domain = all.find(|name| {
                let provider = self.identity.provider(name);
                provider.is_some_and(|one| one.settings.email_domains.contains(&domain))
            });
            return match of_domain {
                Some(name) => Ok(Some(name)),
                None => Err(SignInError::UnknownDomain),
            };
        }
        match self.methods.names() {
            [only] if self.identity.provider(only).is_some() => Ok(Some(only)),
            _ => Ok(None),
        }
    }

    /// The providers to choose from: names and titles.
    pub(super) fn providers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.methods.names().iter().filter_map(|name| {
            let provider = self.identity.provider(name)?;
            Some((&**name, &*provider.settings.title))
        })
    }

    /// Whether an e-mail address can name a provider.
    pub(super) fn chooses_by_email(&self) -> bool {
        self.methods.names().iter().any(|name| {
            let provider = self.identity.provider(name);
            provider.is_some_and(|provider| !provider.settings.email_domains.is_empty())
        })
    }

    /// The page that stops going round in circles, when that is so.
    pub(super) async fn loop_page(
        &self,
        wish: &Wish,
        to: &ReturnTo,
        seen: &mut Record,
    ) -> Result<Option<Response<Bytes>>, Refused> {
        let Some(trouble) = self.goes_round(wish).await? else {
            return Ok(None);
        };
        seen.refused = Some("oidc.loop");
        let mut response = pages::provider::page(&self.context(seen), trouble, to.as_str());
        let over = cookie::expire(cookie::ROUNDS).map_err(|_| Refused::Internal)?;
        response.headers_mut().append(SET_COOKIE, over);
        Ok(Some(response))
    }

    /// Sends the browser to a provider.
    pub(super) async fn begin(
        &self,
        provider: &str,
        to: &ReturnTo,
        wish: &Wish,
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        if let Some(page) = self.loop_page(wish, to, seen).await? {
            return Ok(page);
        }
        let (browser, made) = self.browser()?;
        let redirect_uri = self.redirect_uri(provider);
        let asked = Begin {
            browser: &browser,
            redirect_uri: &redirect_uri,
            to,
            max_age: wish.within,
            acr: &wish.acr,
            login_hint: wish.email.as_deref(),
            hand_over: wish.waiting.as_deref(),
        };
        let mut response = match self.identity.begin(provider, asked, self.now).await {
            Ok(url) if wish.email.is_some() => {
                pages::sign_in::to_provider(&self.context(seen), &url)
            }
            Ok(url) => pages::redirect(&self.context(seen), &url),
            Err(failure) => return self.trouble(&failure, to.as_str(), seen),
        };
        if made {
            let cookie = cookie::set(cookie::SIGN_IN, &browser).map_err(|_| Refused::Internal)?;
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(response)
    }

    fn redirect_uri(&self, provider: &str) -> String {
        let (scheme, authority) = (self.conn.scheme(), &self.head.authority);
        format!("{scheme}://{authority}{CALLBACK}{provider}")
    }

    /// Why another sign-in would only be one more round, if it would.
    async fn goes_round(&self, wish: &Wish) -> Result<Option<Trouble>, Refused> {
        let rounds = self.rounds()?;
        if rounds < MOST_ROUNDS {
            return Ok(None);
        }
        let Some(session) = self.cookie(cookie::SESSION)? else {
            return Ok(Some(Trouble::LoopWithoutCookie));
        };
        let live = self.identity.session(session, self.now).await;
        Ok(Some(match live {
            Ok(Some(_)) if wish.within.is_some() || !wish.acr.is_empty() => {
                Trouble::LoopOfStaleSignIns
            }
            // Who is signed in and comes here by hand may sign in as somebody else.
            Ok(Some(_)) => return Ok(None),
            Ok(None) | Err(_) => Trouble::LoopOfEndedSessions,
        }))
    }

    /// Sign-ins of this browser within the last minute.
    fn rounds(&self) -> Result<u32, Refused> {
        let value = self.cookie(cookie::ROUNDS)?.unwrap_or_default();
        let counted = value.split_once('.').and_then(|(count, since)| {
            let since = Seconds(since.parse().ok()?);
            let runs_out = since.plus(Duration::from_secs(ROUNDS_SECONDS.into()));
            (runs_out > Seconds::of(self.now)).then_some(count)
        });
        Ok(counted.and_then(|count| count.parse().ok()).unwrap_or(0))
    }

    /// What a provider answers, by a redirect.
    pub(super) async fn answer(
        &self,
        provider: &str,
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        let query = self.head.target.query.as_deref().unwrap_or_default();
        let posted = form::some(query.as_bytes(), ["posted"], MOST_NAME);
        let answer = match posted {
            Ok([Some(ticket)]) => match Ticket::parse(&ticket) {
                Ok(ticket) => self.identity.kept_answer(&ticket, self.now).await,
                Err(_) => Err(Failure::from(oidc::Error::Over)),
            },
            Ok([None]) | Err(_) => Ok(zeroize::Zeroizing::new(query.as_bytes().to_vec())),
        };
        let browser = self.as_browser()?;
        let finished = match answer {
            Ok(answer) => {
                let finishing = self.identity.finish(provider, &answer, browser, self.now);
                finishing.await
            }
            Err(why) => Err(why),
        };
        match finished {
            Ok((signed_in, Onward::Here(to))) => self.signed_in(&signed_in, to.as_str(), seen),
            Ok((signed_in, Onward::HandOver(ticket))) => {
                let path = format!("{SIGN_IN}?for={}", *ticket.text());
                self.signed_in(&signed_in, &path, seen)
            }
            Err(failure) => self.trouble(&failure, "/", seen),
        }
    }

    /// The cookie that counts one more sign-in.
    pub(super) fn one_more_round(&self) -> Result<HeaderValue, Refused> {
        let rounds = self.rounds()?.saturating_add(1);
        let value = format!("{rounds}.{}", Seconds::of(self.now).0);
        cookie::set_for(cookie::ROUNDS, &value, ROUNDS_SECONDS).map_err(|_| Refused::Internal)
    }

    /// What a provider answers by a form: another site's page sends it, and so without our cookies. It
    /// is kept for a moment, and the browser comes back for it with them.
    pub(super) async fn posted_answer(
        &self,
        provider: &str,
        form: &[u8],
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        match self.identity.keep_answer(form, self.now).await {
            Ok(ticket) => {
                let path = format!("{CALLBACK}{provider}?posted={}", *ticket.text());
                Ok(pages::redirect(&self.context(seen), &path))
            }
            Err(failure) => self.trouble(&failure, "/", seen),
        }
    }

    /// A provider's word that a session is over (OpenID Connect Back-Channel Logout §2.7).
    pub(super) async fn signed_out_by(
        &self,
        provider: &str,
        form: &[u8],
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        let Ok([Some(token)]) = form::some(form, ["logout_token"], MOST_LOGOUT) else {
            return Err(Refused::FormType);
        };
        let ended = self
            .identity
            .signed_out_by(provider, &token, self.now)
            .await;
        let status = match ended {
            Ok(_) => StatusCode::OK,
            Err(failure) => {
                seen.refused = Some(failure.reason());
                match failure {
                    Failure::Store | Failure::Provider(oidc::Error::Away) => {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                    Failure::Provider(_)
                    | Failure::WrongPassword
                    | Failure::Slowed(_)
                    | Failure::Busy
                    | Failure::BadToken(_)
                    | Failure::OtherIssuer
                    | Failure::MachineToken(_)
                    | Failure::Introspection(_)
                    | Failure::NoKeys
                    | Failure::NoMethod => StatusCode::BAD_REQUEST,
                }
            }
        };
        Ok(pages::nothing(&self.context(seen), status))
    }

    /// The same by way of the browser (OpenID Connect Front-Channel Logout §2): whoever knows the
    /// session's name at the provider is the provider, or whom it told.
    pub(super) async fn signed_out_in_frame(
        &self,
        provider: &str,
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        let query = self.head.target.query.as_deref().unwrap_or_default();
        let named = form::some(query.as_bytes(), ["iss", "sid"], MOST_NAME);
        let Ok([Some(issuer), Some(session)]) = named else {
            return Err(Refused::FormType);
        };
        self.identity
            .signed_out_in_frame(provider, &issuer, &session, self.now)
            .await
            .map_err(|_| Refused::Store)?;
        Ok(pages::nothing(&self.context(seen), StatusCode::OK))
    }

    /// The page for a sign-in that came to nothing.
    pub(super) fn trouble(
        &self,
        failure: &Failure,
        to: &str,
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        seen.refused = Some(failure.reason());
        let trouble = match failure {
            Failure::Provider(why) => match why {
                oidc::Error::Away => Trouble::Away,
                oidc::Error::Misconfigured => Trouble::Misconfigured,
                oidc::Error::Callback(_) => Trouble::NoAnswer,
                oidc::Error::OtherBrowser => Trouble::Cookie,
                oidc::Error::Over | oidc::Error::InvalidGrant => Trouble::Over,
                oidc::Error::Refused(callback::ProviderError::Unavailable) => Trouble::Away,
                oidc::Error::Refused(callback::ProviderError::Other) => Trouble::Misconfigured,
                oidc::Error::NotAMember
                | oidc::Error::Refused(
                    callback::ProviderError::AccessDenied
                    | callback::ProviderError::InteractionRequired,
                ) => Trouble::Denied,
                oidc::Error::OtherIssuer
                | oidc::Error::Token(_)
                | oidc::Error::IdToken(_)
                | oidc::Error::UserInfo
                | oidc::Error::GroupOverage
                | oidc::Error::GroupsUrl
                | oidc::Error::GroupsUnsaid
                | oidc::Error::Replayed => Trouble::Unproven,
                oidc::Error::Internal => return Err(Refused::Internal),
            },
            Failure::Store => return Err(Refused::Store),
            Failure::NoMethod => return Err(Refused::NoPage),
            Failure::WrongPassword
            | Failure::Slowed(_)
            | Failure::Busy
            | Failure::BadToken(_)
            | Failure::OtherIssuer
            | Failure::MachineToken(_)
            | Failure::Introspection(_)
            | Failure::NoKeys => Trouble::Unproven,
        };
        Ok(pages::provider::page(&self.context(seen), trouble, to))
    }
}
