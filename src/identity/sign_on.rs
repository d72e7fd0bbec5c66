//! Signing in at a provider, and the hand-over from the host where people sign in to the one that they came for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::keys;
use crate::pure::hand_over::{self, Admission, HandOver};
use crate::pure::return_to::ReturnTo;
use crate::pure::seal;
use crate::pure::session::{Id, Parent};
use crate::pure::ticket::{Purpose, Ticket};
use crate::pure::{attempt, callback};
use crate::session::SignIn;

use super::failure::Failure;
use super::{Identity, SignedIn, oidc};

/// The browser that brings a provider's answer.
#[derive(Debug, Clone, Copy)]
pub struct Browser<'b> {
    /// The cookie that the sign-in was begun for.
    pub cookie: Option<&'b str>,
    /// Where it brings it.
    pub host: &'b str,
    /// Where it is.
    pub client: IpAddr,
    /// As it names itself.
    pub user_agent: &'b str,
    /// The session cookie it has already: never adopted, always ended.
    pub presented: Option<&'b str>,
}

/// Where somebody goes who has signed in at a provider.
pub enum Onward {
    /// To a path of this host.
    Here(ReturnTo),
    /// To the host that waits for the sign-in.
    HandOver(Ticket),
}

impl Identity {
    /// Begins a sign-in at a provider: where the browser goes.
    ///
    /// # Errors
    /// Why it can't.
    pub async fn begin(
        &self,
        provider: &str,
        asked: oidc::Begin<'_>,
        now: SystemTime,
    ) -> Result<String, Failure> {
        let provider = self.provider(provider).ok_or(Failure::NoMethod)?;
        let begun = provider.begin(asked, now).await?;
        let plain = begun.attempt.encode().map_err(|_| oidc::Error::Internal)?;
        let plain = Zeroizing::new(plain);
        self.shared
            .sessions
            .keep_for(&begun.state, Purpose::Attempt, &plain, now, oidc::ATTEMPT)
            .await?;
        Ok(begun.url)
    }

    /// Keeps a provider's answer that came as a form, which the browser sends without its cookies: the
    /// ticket to ask for it with them. Nothing is kept for what answers no sign-in.
    ///
    /// # Errors
    /// Why it is not kept.
    pub async fn keep_answer(&self, form: &[u8], now: SystemTime) -> Result<Ticket, Failure> {
        let callback = callback::parse(form).map_err(oidc::Error::Callback)?;
        self.shared
            .sessions
            .look_at(&callback.state, Purpose::Attempt, now)
            .await?
            .ok_or(oidc::Error::Over)?;
        self.keep(Purpose::Posted, form, oidc::POSTED, now).await
    }

    /// An answer that was kept; it is given out once.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn kept_answer(
        &self,
        ticket: &Ticket,
        now: SystemTime,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let sessions = &self.shared.sessions;
        let form = sessions.redeem(ticket, Purpose::Posted, now).await?;
        Ok(form.ok_or(oidc::Error::Over)?)
    }

    /// Finishes a sign-in: a new session, and where the person was going. A session they had ends.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn finish(
        &self,
        provider: &str,
        answer: &[u8],
        browser: Browser<'_>,
        now: SystemTime,
    ) -> Result<(SignedIn, Onward), Failure> {
        let provider = self.provider(provider).ok_or(Failure::NoMethod)?;
        let callback = callback::parse(answer).map_err(oidc::Error::Callback)?;
        let sessions = &self.shared.sessions;
        let waiting = sessions
            .look_at(&callback.state, Purpose::Attempt, now)
            .await?
            .and_then(|plain| attempt::Attempt::decode(&plain).ok())
            .ok_or(oidc::Error::Over)?;
        // Before it is used up: somebody else's browser must not end it.
        if !browser.cookie.is_some_and(|cookie| waiting.is_of(cookie)) {
            return Err(oidc::Error::OtherBrowser.into());
        }
        let attempt = sessions
            .redeem(&callback.state, Purpose::Attempt, now)
            .await?
            .and_then(|plain| attempt::Attempt::decode(&plain).ok())
            .ok_or(oidc::Error::Over)?;
        let code = provider.check(&attempt, callback, now).await?;
        let vouched = provider.redeem(&attempt, code, now).await?;
        let sign_in = SignIn {
            user: vouched.user,
            proof: provider.fingerprint(),
            host: browser.host.to_owned(),
            client: browser.client,
            user_agent: browser.user_agent.to_owned(),
            tokens: Some(vouched.tokens),
            parent: None,
        };
        let signed_in = self.sign_in(sign_in, browser.presented, now).await?;
        let waits = attempt.hand_over.as_deref().map(Ticket::parse);
        let onward = match waits {
            Some(Ok(ticket)) => Onward::HandOver(ticket),
            Some(Err(_)) | None => Onward::Here(ReturnTo::parse(&attempt.to)),
        };
        Ok((signed_in, onward))
    }

    /// Asks the sign-in host for a session: the ticket that the browser brings there.
    ///
    /// # Errors
    /// Why it can't be asked.
    pub async fn ask_sign_in_host(
        &self,
        asked: &HandOver,
        now: SystemTime,
    ) -> Result<Ticket, Failure> {
        let plain = hand_over::encode(asked).map_err(|_| oidc::Error::Internal)?;
        self.keep(Purpose::HandOver, &plain, oidc::ATTEMPT, now)
            .await
    }

    async fn keep(
        &self,
        purpose: Purpose,
        plain: &[u8],
        life: Duration,
        now: SystemTime,
    ) -> Result<Ticket, Failure> {
        let ticket = Ticket::new(*keys::random().map_err(|_| oidc::Error::Internal)?);
        self.shared
            .sessions
            .keep_for(&ticket, purpose, plain, now, life)
            .await?;
        Ok(ticket)
    }

    /// What another host asks, by its ticket.
    ///
    /// # Errors
    /// [`oidc::Error::Over`] if it asks no more, or why that can't be said.
    pub async fn asked_by(&self, ticket: &Ticket, now: SystemTime) -> Result<HandOver, Failure> {
        let sessions = &self.shared.sessions;
        let asked = sessions.look_at(ticket, Purpose::HandOver, now).await?;
        let asked = asked.and_then(|plain| hand_over::decode(&plain).ok());
        Ok(asked.ok_or(oidc::Error::Over)?)
    }

    /// Gives another host what it asks, out of the session of this cookie: the ticket to bring it.
    ///
    /// # Errors
    /// Why it gets nothing.
    pub async fn hand_over(
        &self,
        ticket: &Ticket,
        cookie: &str,
        now: SystemTime,
    ) -> Result<(Ticket, HandOver), Failure> {
        let id = Id::from_cookie(cookie).map_err(|_| oidc::Error::Over)?;
        let sessions = &self.shared.sessions;
        let live = sessions.find(&id, now).await?.ok_or(oidc::Error::Over)?;
        // Where people signed in elsewhere before a reload, it is that session that providers are asked about.
        let parent = live.record().parent.clone();
        let parent = parent.unwrap_or_else(|| id.as_parent());
        let asked = sessions.redeem(ticket, Purpose::HandOver, now).await?;
        let asked: HandOver = asked
            .and_then(|plain| hand_over::decode(&plain).ok())
            .ok_or(oidc::Error::Over)?;
        let admission = Admission {
            origin: asked.origin.clone(),
            to: asked.to.clone(),
            browser: asked.browser,
            parent: *parent.0,
        };
        let plain = hand_over::encode(&admission).map_err(|_| oidc::Error::Internal)?;
        let plain = Zeroizing::new(plain);
        let life = Duration::from_secs(hand_over::ADMISSION_SECONDS);
        let ticket = self.keep(Purpose::Admission, &plain, life, now).await?;
        Ok((ticket, asked))
    }

    /// Admits a browser by what the sign-in host has given: a session that ends with the one there.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub async fn admit(
        &self,
        ticket: &Ticket,
        origin: &str,
        browser: Browser<'_>,
        now: SystemTime,
    ) -> Result<(SignedIn, ReturnTo), Failure> {
        let sessions = &self.shared.sessions;
        let given = sessions.redeem(ticket, Purpose::Admission, now).await?;
        let given: Admission = given
            .and_then(|plain| hand_over::decode(&plain).ok())
            .ok_or(oidc::Error::Over)?;
        let known = browser.cookie.map(attempt::Attempt::browser);
        let is_theirs = known.is_some_and(|known| seal::same(&known, &given.browser));
        if !is_theirs || given.origin != origin {
            return Err(oidc::Error::OtherBrowser.into());
        }
        let parent = Parent(Zeroizing::new(given.parent));
        let of = sessions.find(&parent.id(), now).await?;
        let of = of.ok_or(oidc::Error::Over)?.record();
        let sign_in = SignIn {
            user: Arc::clone(&of.user),
            proof: of.proof,
            host: browser.host.to_owned(),
            client: browser.client,
            user_agent: browser.user_agent.to_owned(),
            tokens: None,
            parent: Some((parent, of)),
        };
        let signed_in = self.sign_in(sign_in, browser.presented, now).await?;
        Ok((signed_in, ReturnTo::parse(&given.to)))
    }
}
