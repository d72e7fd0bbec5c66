//! One sign-on for many hosts: the pages at both ends (`pure::hand_over` has the way).

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::SET_COOKIE;

use crate::identity::{Browser, SignedIn};
use crate::pages::{self, ADMIT, SIGN_IN};
use crate::pure::attempt::Attempt;
use crate::pure::cookie;
use crate::pure::form;
use crate::pure::hand_over::HandOver;
use crate::pure::return_to::ReturnTo;
use crate::pure::session::Seconds;
use crate::pure::ticket::Ticket;
use crate::record::Record;

use super::provider::Wish;
use super::{Methods, Refused, Visit};

/// Bytes of a ticket in a query, and then some.
const MOST_TICKET: usize = 64;
/// How much older than asked for a sign-in may be, for the way from the provider to here takes time.
const ON_THE_WAY: Duration = Duration::from_secs(5);

/// Another host that waits for a sign-in here.
pub(super) struct Waiting {
    /// Its ticket, as a URL has it.
    pub(super) ticket: String,
    asked: HandOver,
}

impl Waiting {
    /// How fresh the sign-in must be.
    pub(super) fn within(&self) -> Option<Duration> {
        self.asked.within.map(Duration::from_secs)
    }

    /// The authentication contexts of which it must be in one.
    pub(super) fn acr(&self) -> &[String] {
        &self.asked.acr
    }
}

impl Visit<'_> {
    /// Whether this is the host where people sign in for all others.
    pub(super) fn is_sign_in_host(&self) -> bool {
        let host = self.identity.sign_in_host.as_ref();
        host.is_some_and(|there| there.host == self.head.authority.host)
    }

    /// Scheme, host and port of the host where people sign in for this one, if that is another.
    pub(super) fn other_sign_in_host(&self) -> Option<String> {
        let there = self.identity.sign_in_host.as_ref()?;
        if there.host == self.head.authority.host {
            return None;
        }
        let port = there.port.or(self.head.authority.port);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        Some(format!("{}://{}{port}", self.conn.scheme(), there.host))
    }

    pub(super) fn origin(&self) -> String {
        format!("{}://{}", self.conn.scheme(), self.head.authority)
    }

    /// Sends the browser to the sign-in host, where there is another one.
    pub(super) async fn elsewhere(
        &self,
        to: &ReturnTo,
        wish: &Wish,
        seen: &mut Record,
    ) -> Result<Option<Response<Bytes>>, Refused> {
        let Some(there) = self.other_sign_in_host() else {
            return Ok(None);
        };
        if let Some(page) = self.loop_page(wish, to, seen).await? {
            return Ok(Some(page));
        }
        let (browser, made) = self.browser()?;
        let asked = HandOver {
            origin: self.origin(),
            to: to.as_str().to_owned(),
            browser: Attempt::browser(&browser),
            methods: self
                .methods
                .names()
                .iter()
                .map(ToString::to_string)
                .collect(),
            within: wish.within.map(|within| within.as_secs()),
            acr: wish.acr.clone(),
        };
        let ticket = match self.identity.ask_sign_in_host(&asked, self.now).await {
            Ok(ticket) => ticket,
            Err(failure) => return self.trouble(&failure, to.as_str(), seen).map(Some),
        };
        let url = format!("{there}{SIGN_IN}?for={}", *ticket.text());
        let mut response = pages::redirect(&self.context(seen), &url);
        if made {
            let cookie = cookie::set(cookie::SIGN_IN, &browser).map_err(|_| Refused::Internal)?;
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(Some(response))
    }

    /// The host that waits, if the ticket is one's; the page that says so if it is no more.
    pub(super) async fn waiting(
        &self,
        ticket: &str,
        seen: &mut Record,
    ) -> Result<Result<Waiting, Response<Bytes>>, Refused> {
        let over = crate::identity::Failure::from(crate::identity::oidc::Error::Over);
        let (true, Ok(known)) = (self.is_sign_in_host(), Ticket::parse(ticket)) else {
            return self.trouble(&over, "/", seen).map(Err);
        };
        match self.identity.asked_by(&known, self.now).await {
            // Whoever asked in the clear is not told what is for a browser that speaks TLS.
            Ok(asked)
                if !asked
                    .origin
                    .starts_with(&format!("{}://", self.conn.scheme())) =>
            {
                self.trouble(&over, "/", seen).map(Err)
            }
            Ok(asked) => Ok(Ok(Waiting {
                ticket: ticket.to_owned(),
                asked,
            })),
            Err(failure) => self.trouble(&failure, "/", seen).map(Err),
        }
    }

    /// This visit, with the choice that the host has which waits.
    pub(super) fn on_behalf(&self, waiting: &Waiting) -> Visit<'_> {
        let names = waiting
            .asked
            .methods
            .iter()
            .map(|name| name.as_str().into());
        Visit {
            methods: Methods(names.collect()),
            ..*self
        }
    }

    /// Gives the host that waits a session of its own, if somebody is signed in here as it wants.
    pub(super) async fn give(
        &self,
        waiting: &Waiting,
        seen: &mut Record,
    ) -> Result<Option<Response<Bytes>>, Refused> {
        let Some(cookie) = self.cookie(cookie::SESSION)? else {
            return Ok(None);
        };
        let known = match self.identity.session(cookie, self.now).await {
            Ok(Some(known)) => known,
            Ok(None) => return Ok(None),
            Err(failure) => return self.trouble(&failure, "/", seen).map(Some),
        };
        let methods = &waiting.asked.methods;
        let is_taken = methods.iter().any(|name| **name == *known.user.provider);
        let is_fresh = waiting.within().is_none_or(|within| {
            let signed_in = Seconds::of(known.user.signed_in_at);
            signed_in.plus(within.saturating_add(ON_THE_WAY)) > Seconds::of(self.now)
        });
        let acr = known.user.claims.get("acr").and_then(|acr| acr.as_str());
        let is_strong = waiting.acr().is_empty()
            || acr.is_some_and(|acr| waiting.acr().iter().any(|one| one == acr));
        if !is_taken || !is_fresh || !is_strong {
            return Ok(None);
        }
        let Ok(ticket) = Ticket::parse(&waiting.ticket) else {
            return Ok(None);
        };
        seen.user = Some(known.user);
        match self.identity.hand_over(&ticket, cookie, self.now).await {
            Ok((ticket, asked)) => {
                let url = format!("{}{ADMIT}?ticket={}", asked.origin, *ticket.text());
                Ok(Some(pages::redirect(&self.context(seen), &url)))
            }
            Err(failure) => self.trouble(&failure, "/", seen).map(Some),
        }
    }

    /// Takes what the sign-in host has given.
    pub(super) async fn admit(&self, seen: &mut Record) -> Result<Response<Bytes>, Refused> {
        let query = self.head.target.query.as_deref().unwrap_or_default();
        let ticket = form::some(query.as_bytes(), ["ticket"], MOST_TICKET);
        let ticket = match ticket {
            Ok([Some(ticket)]) => Ticket::parse(&ticket).ok(),
            Ok([None]) | Err(_) => None,
        };
        let Some(ticket) = ticket else {
            let over = crate::identity::Failure::from(crate::identity::oidc::Error::Over);
            return self.trouble(&over, "/", seen);
        };
        let browser = self.as_browser()?;
        let origin = self.origin();
        let admitting = self.identity.admit(&ticket, &origin, browser, self.now);
        match admitting.await {
            Ok((signed_in, to)) => self.signed_in(&signed_in, to.as_str(), seen),
            Err(failure) => self.trouble(&failure, "/", seen),
        }
    }

    /// The browser that brings an answer.
    pub(super) fn as_browser(&self) -> Result<Browser<'_>, Refused> {
        Ok(Browser {
            cookie: self.cookie(cookie::SIGN_IN)?,
            host: self.head.authority.host.as_str(),
            client: self.client,
            user_agent: self.user_agent(),
            presented: self.cookie(cookie::SESSION)?,
        })
    }

    /// Leads on who has a new session, and counts it.
    pub(super) fn signed_in(
        &self,
        signed_in: &SignedIn,
        to: &str,
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        seen.user = Some(signed_in.live.user());
        let mut response = pages::redirect(&self.context(seen), to);
        let mut session =
            cookie::set(cookie::SESSION, &signed_in.cookie).map_err(|_| Refused::Internal)?;
        session.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, session);
        response
            .headers_mut()
            .append(SET_COOKIE, self.one_more_round()?);
        Ok(response)
    }
}
