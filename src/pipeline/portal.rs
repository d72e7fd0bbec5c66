//! The gate's own pages: signing in and out, on every application's host.
//!
//! | when | then |
//! |---|---|
//! | GET `/.portcullis/sign-in` | the providers to choose from, or the form, and a cookie that binds both to this browser |
//! | .. where there is one provider, or one was chosen | 303 to it, and a sign-in in the store |
//! | GET `/.portcullis/callback/NAME` with its answer | a new session, and on to where the person was going; else a page that says why not |
//! | .. at a host whose sign-in host is another | 303 to that, and from there back to `/.portcullis/admit` with a one-time ticket, for the browser that asked |
//! | POST the same | the answer is kept for a moment, and the browser comes back for it with its cookies |
//! | POST `/.portcullis/back-channel-logout/NAME` | the sessions that the provider's token names end; 400 where it names none rightly |
//! | GET `/.portcullis/front-channel-logout/NAME` | the sessions of that session at the provider end |
//! | POST `/.portcullis/sign-in` with the right password | a new session, and on to where the person was going |
//! | the same with a wrong one | the form again, saying so; slower each time |
//! | POST `/.portcullis/sign-out` from this site | the session and our cookies end; the signed-out page |
//! | GET `/.portcullis/sessions` | the devices that this person is signed in on; 303 to the sign-in page for nobody |
//! | POST the same, from this site, with the token of the page | the session that it names ends, or all of this person's |
//! | GET `/.portcullis/jwks.json` | the keys that verify assertions; where none are made, 404 `portal.no_page` |
//! | GET `/.portcullis/client-keys.json` | the keys by which providers of the application know the gate; where none does, 404 `portal.no_page` |
//! | the path is none of ours, NAME is no provider of the application, or one signs in, is admitted or sees sessions where there is no sign-in page | 404 `portal.no_page` |
//! | the same without the cookie of the form, with another's token, or too late | a new form, saying so; which of them is in the log (`pure::csrf`) |
//! | another site's form | 403 `portal.cross_site` |
//! | any other method | 405 `portal.method` |
//! | our cookies come twice | 400 `portal.repeated_cookie` |
//! | the body is no form of ours, or can't be read as one | 400 `portal.form_type`, and the reasons of `pure::form` |
//! | the form is too large, or does not come in time | 413 `portal.form_too_large`, 408 `portal.form_timeout` |
//! | sessions can't be kept now | 503 `portal.session_store` |
//! | there are no random bytes, or a value makes no field | 500 `portal.internal` |
//!
//! The pages pass route, network and rate first, and get no `Subject`. Nothing is kept for a
//! browser before it has signed in; a sign-in never adopts an id that the browser brought (S2).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ORIGIN, SET_COOKIE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use crate::body::{self, Body};
use crate::caller::Caller;
use crate::identity::accounts::LOCAL;
use crate::identity::oidc::EndSession;
use crate::identity::{AtSignIn, Failure, Identity};
use crate::keys::Signer;
use crate::pages::sign_in::SignInError;
use crate::pages::signed_out::{self, AtProvider};
use crate::pages::{self, Asked, Context};
use crate::pure::callback;
use crate::pure::connection::Connection;
use crate::pure::cookie::{self, BadCookies};
use crate::pure::csrf;
use crate::pure::field;
use crate::pure::form::{self, BadForm};
use crate::pure::head::Head;
use crate::pure::return_to::ReturnTo;
use crate::record::Record;
use crate::refusal::{Answer, Refusal};

use super::rate::Permit;
use super::response_headers::Passed;
use super::sign_in;

mod provider;
mod hand_over;
mod sessions;

use provider::Wish;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where the pages are; no application is ever asked for a path below it.
pub const PREFIX: &str = "/.portcullis/";

/// One of our pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page<'h> {
    /// `/.portcullis/sign-in`
    SignIn,
    /// `/.portcullis/sign-out`
    SignOut,
    /// `/.portcullis/sessions`
    Sessions,
    /// `/.portcullis/signed-out`
    SignedOut,
    /// `/.portcullis/admit`
    Admit,
    /// `/.portcullis/callback/NAME`
    Callback(&'h str),
    /// `/.portcullis/back-channel-logout/NAME`
    BackChannelLogout(&'h str),
    /// `/.portcullis/front-channel-logout/NAME`
    FrontChannelLogout(&'h str),
    /// `/.portcullis/jwks.json`
    KeySet,
    /// `/.portcullis/client-keys.json`
    ClientKeys,
    /// Anything else below the prefix.
    None,
}

/// Which of our pages a request is for, if any.
pub fn page(head: &Head) -> Option<Page<'_>> {
    // A backend that ignores case must not be asked for a path that looks like ours either.
    let path = head.target.path.as_str();
    let (start, rest) = path.split_at_checked(PREFIX.len())?;
    start.eq_ignore_ascii_case(PREFIX).then(|| match rest {
        "sign-in" => Page::SignIn,
        "sign-out" => Page::SignOut,
        "jwks.json" => Page::KeySet,
        "client-keys.json" => Page::ClientKeys,
        "sessions" => Page::Sessions,
        "signed-out" => Page::SignedOut,
        "admit" => Page::Admit,
        _ => match rest.split_once('/') {
            Some(("callback", name)) => Page::Callback(name),
            Some(("back-channel-logout", name)) => Page::BackChannelLogout(name),
            Some(("front-channel-logout", name)) => Page::FrontChannelLogout(name),
            Some(_) | None => Page::None,
        },
    })
}

/// The methods that people choose from on the sign-in page of an application.
#[derive(Debug, Default)]
pub struct Methods(Vec<Arc<str>>);

impl Methods {
    /// Those of all rules of an application: the page does not know to which path one is going.
    pub fn of<'r>(rules: impl Iterator<Item = &'r sign_in::Rule>) -> Self {
        let mut all: Vec<Arc<str>> = Vec::new();
        for name in rules.flat_map(sign_in::Rule::on_page) {
            if !all.contains(name) {
                all.push(Arc::clone(name));
            }
        }
        Self(all)
    }

    fn names(&self) -> &[Arc<str>] {
        &self.0
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|one| **one == *name)
    }
}

/// Why a page is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such page, or this application has no sign-in page.
    NoPage,
    /// The form came from another site.
    CrossSite,
    /// The method is none that the page takes.
    Method,
    /// The form says of itself that it is none of ours.
    FormType,
    /// The form can't be read.
    Form(BadForm),
    /// The form is larger than any of ours.
    FormTooLarge,
    /// The client did not send the form in time, or is gone.
    FormTimeout,
    /// No random bytes, or a value that makes no field.
    Internal,
    /// Cookies of ours came twice.
    Cookies,
    /// Sessions can't be read or kept.
    Store,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoPage => Self::new(Answer::NotFound, "portal.no_page"),
            Refused::CrossSite => {
                Self::new(Answer::Forbidden { as_whom: None }, "portal.cross_site")
            }
            Refused::Method => Self::new(Answer::MethodNotAllowed, "portal.method"),
            Refused::FormType => Self::new(Answer::BadRequest, "portal.form_type"),
            Refused::Form(BadForm::TooLong) => {
                Self::new(Answer::ContentTooLarge, BadForm::TooLong.reason())
            }
            Refused::Form(bad) => Self::new(Answer::BadRequest, bad.reason()),
            Refused::FormTooLarge => Self::new(Answer::ContentTooLarge, "portal.form_too_large"),
            Refused::FormTimeout => Self::new(Answer::RequestTimeout, "portal.form_timeout"),
            Refused::Internal => Self::new(Answer::Internal, "portal.internal"),
            Refused::Cookies => Self::new(Answer::BadRequest, "portal.repeated_cookie"),
            Refused::Store => Self::new(Answer::Unavailable, "portal.session_store"),
        }
    }
}

/// Serves one of our pages.
///
/// # Errors
/// [`Refused`], as a refusal.
#[expect(
    clippy::too_many_arguments,
    reason = "it is a whole request, as the pipeline has it"
)]
pub async fn serve(
    page: Page<'_>,
    methods: Methods,
    identity: &Identity,
    signer: &Signer,
    permit: Permit,
    caller: Caller<'_>,
    head: &Head,
    body: Body,
    now: SystemTime,
    seen: &mut Record,
) -> Result<Passed, Refusal> {
    let visit = Visit {
        identity,
        client: permit.ip(),
        conn: caller.conn,
        asked: caller.asked,
        head,
        now,
        methods,
    };
    let is_sign_in_host = visit.is_sign_in_host();
    let has_page = is_sign_in_host || !visit.methods.names().is_empty();
    let is_get = head.method == Method::GET || head.method == Method::HEAD;
    let is_post = head.method == Method::POST;
    let response = match page {
        Page::None => return Err(Refused::NoPage.into()),
        Page::SignIn | Page::Sessions if !has_page => return Err(Refused::NoPage.into()),
        Page::Callback(name) | Page::BackChannelLogout(name) | Page::FrontChannelLogout(name)
            if !(is_sign_in_host || visit.methods.has(name))
                || identity.provider(name).is_none() =>
        {
            return Err(Refused::NoPage.into());
        }
        Page::SignIn if is_get => visit.sign_in_page(seen).await?,
        Page::SignIn if is_post => visit.sign_in(body, seen).await?,
        Page::SignOut if is_get => signed_out::confirm(&visit.context(seen)),
        Page::SignOut if is_post => visit.sign_out(seen).await?,
        Page::Sessions if is_get => Box::pin(visit.sessions_page(seen)).await?,
        Page::Sessions if is_post => Box::pin(visit.end_sessions(body, seen)).await?,
        Page::SignedOut if is_get => signed_out::page(&visit.context(seen), None),
        Page::Admit if !has_page => return Err(Refused::NoPage.into()),
        // HEAD would use the answer up, and nobody would be signed in.
        Page::Callback(name) if head.method == Method::GET => visit.answer(name, seen).await?,
        Page::Admit if head.method == Method::GET => visit.admit(seen).await?,
        Page::Callback(name) if is_post => {
            let form = visit.form_of(body, callback::MAX_BYTES).await?;
            visit.posted_answer(name, &form, seen).await?
        }
        Page::BackChannelLogout(name) if is_post => {
            let form = visit.form_of(body, MOST_LOGOUT_FORM).await?;
            visit.signed_out_by(name, &form, seen).await?
        }
        Page::FrontChannelLogout(name) if head.method == Method::GET => {
            visit.signed_out_in_frame(name, seen).await?
        }
        Page::KeySet if is_get => visit.key_set(signer, seen)?,
        Page::ClientKeys if !visit.shows_client_keys() => return Err(Refused::NoPage.into()),
        Page::ClientKeys if is_get => visit.key_set(identity.shared().client_keys(), seen)?,
        Page::SignIn
        | Page::SignOut
        | Page::Sessions
        | Page::KeySet
        | Page::ClientKeys
        | Page::SignedOut
        | Page::Admit
        | Page::Callback(_)
        | Page::BackChannelLogout(_)
        | Page::FrontChannelLogout(_) => return Err(Refused::Method.into()),
    };
    Ok(Passed {
        response: response.into(),
        switched: None,
    })
}

/// A request for one of our pages.
struct Visit<'a> {
    identity: &'a Identity,
    client: IpAddr,
    conn: &'a Connection,
    asked: &'a Asked,
    head: &'a Head,
    now: SystemTime,
    methods: Methods,
}

/// What a sign-in form was made for.
const PURPOSE: &str = "sign-in";
/// Bytes of a form with a logout token.
const MOST_LOGOUT_FORM: usize = 64 * 1024;

impl Visit<'_> {
    fn context<'c>(&'c self, seen: &'c Record) -> Context<'c> {
        Context {
            has_sign_in_page: !self.methods.names().is_empty(),
            ..Context::new(self.asked, seen)
        }
    }

    fn cookie(&self, name: &str) -> Result<Option<&str>, Refused> {
        match cookie::ours(&self.head.headers, name) {
            Ok(value) => Ok(value),
            Err(BadCookies::Malformed) => Ok(None),
            Err(BadCookies::Repeated | BadCookies::TooMany) => Err(Refused::Cookies),
        }
    }

    async fn sign_in_page(&self, seen: &mut Record) -> Result<Response<Bytes>, Refused> {
        let query = self.head.target.query.as_deref().unwrap_or_default();
        let to = form::to_in_query(query).map_or_else(ReturnTo::default, |to| ReturnTo::parse(&to));
        let mut wish = Wish::of(query);
        let waiting = wish.waiting.take().filter(|ticket| !ticket.is_empty());
        let Some(ticket) = waiting else {
            if let Some(there) = Box::pin(self.elsewhere(&to, &wish, seen)).await? {
                return Ok(there);
            }
            return self.choose(&to, &wish, seen).await;
        };
        let waiting = match self.waiting(&ticket, seen).await? {
            Ok(waiting) => waiting,
            Err(over) => return Ok(over),
        };
        if let Some(given) = Box::pin(self.give(&waiting, seen)).await? {
            return Ok(given);
        }
        wish.within = waiting.within();
        wish.acr = waiting.acr().to_vec();
        wish.waiting = Some(ticket);
        self.on_behalf(&waiting)
            .choose(&ReturnTo::default(), &wish, seen)
            .await
    }

    async fn choose(
        &self,
        to: &ReturnTo,
        wish: &Wish,
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        match self.chosen(wish) {
            Ok(Some(provider)) => Box::pin(self.begin(provider, to, wish, seen)).await,
            Ok(None) => self.form(to, "", wish, None, seen),
            Err(error) => self.form(to, "", wish, Some(error), seen),
        }
    }

    /// The cookie that a sign-in is bound to, and whether it is made just now.
    fn browser(&self) -> Result<(String, bool), Refused> {
        let known = self
            .cookie(cookie::SIGN_IN)?
            .filter(|value| csrf::is_cookie(value));
        match known {
            Some(known) => Ok((known.to_owned(), false)),
            None => match self.identity.new_form_cookie() {
                Ok(made) => Ok((made, true)),
                Err(_) => Err(Refused::Internal),
            },
        }
    }

    fn form(
        &self,
        to: &ReturnTo,
        name: &str,
        wish: &Wish,
        error: Option<SignInError>,
        seen: &Record,
    ) -> Result<Response<Bytes>, Refused> {
        let (browser, made) = self.browser()?;
        let token = self.identity.form_token(PURPOSE, &browser, self.now);
        let form = pages::sign_in::Form { csrf: &token, name };
        let offer = pages::sign_in::Offer {
            to: to.as_str(),
            within: wish.within.map(|within| within.as_secs()),
            waiting: wish.waiting.as_deref().unwrap_or_default(),
            acr: (!wish.acr.is_empty()).then(|| wish.acr.join(" ")),
            providers: self.providers().collect(),
            by_email: self.chooses_by_email(),
            form: self.methods.has(LOCAL).then_some(form),
            error,
        };
        let mut response = pages::sign_in::page(&self.context(seen), &offer);
        if made {
            let cookie = cookie::set(cookie::SIGN_IN, &browser).map_err(|_| Refused::Internal)?;
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(response)
    }

    fn user_agent(&self) -> &str {
        field::one(&self.head.headers, &USER_AGENT)
            .ok()
            .flatten()
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The content of a form.
    async fn form_of(&self, body: Body, most_bytes: usize) -> Result<Bytes, Refused> {
        let kind = field::one(&self.head.headers, &CONTENT_TYPE).map_err(|_| Refused::FormType)?;
        if kind.is_none_or(|kind| {
            !kind
                .as_bytes()
                .starts_with(b"application/x-www-form-urlencoded")
        }) {
            return Err(Refused::FormType);
        }
        body.collect(most_bytes).await.map_err(|error| match error {
            body::Error::ClientTooLarge => Refused::FormTooLarge,
            body::Error::ClientMalformed(_) => Refused::FormType,
            body::Error::ClientTimeout
            | body::Error::ClientGone
            | body::Error::BackendMalformed(_)
            | body::Error::BackendTimeout
            | body::Error::BackendGone
            | body::Error::SessionOver
            | body::Error::NoLongerAllowed => Refused::FormTimeout,
        })
    }

    /// Refuses a form that another site sent (T15).
    fn same_site(&self) -> Result<(), Refused> {
        let field = |name: &HeaderName| {
            field::one(&self.head.headers, name).map(|value| value.map(HeaderValue::as_bytes))
        };
        let site = field(&SEC_FETCH_SITE).map_err(|_| Refused::CrossSite)?;
        let origin = field(&ORIGIN).map_err(|_| Refused::CrossSite)?;
        let ours = format!("{}://{}", self.conn.scheme(), self.head.authority);
        csrf::same_origin(site, origin, &ours).map_err(|_| Refused::CrossSite)
    }

    async fn sign_in(&self, body: Body, seen: &mut Record) -> Result<Response<Bytes>, Refused> {
        self.same_site()?;
        let text = self.form_of(body, form::MAX_BYTES).await?;
        let form = form::parse(&text).map_err(Refused::Form)?;
        let mut wish = Wish::of("");
        if form.waiting.is_empty() {
            let to = ReturnTo::parse(&form.to);
            return self.by_password(&form, &to, &wish, seen).await;
        }
        let waiting = match self.waiting(&form.waiting, seen).await? {
            Ok(waiting) => waiting,
            Err(over) => return Ok(over),
        };
        wish.within = waiting.within();
        wish.acr = waiting.acr().to_vec();
        wish.waiting = Some(waiting.ticket.clone());
        self.on_behalf(&waiting)
            .by_password(&form, &ReturnTo::default(), &wish, seen)
            .await
    }

    async fn by_password(
        &self,
        form: &form::SignIn,
        to: &ReturnTo,
        wish: &Wish,
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        if !self.methods.has(LOCAL) {
            return Err(Refused::NoPage);
        }
        let name = form.name.trim();
        let browser = self.cookie(cookie::SIGN_IN)?;
        let made_here = self
            .identity
            .check_form(PURPOSE, browser, &form.csrf, self.now);
        if let Err(forged) = made_here {
            seen.refused = Some(forged.reason());
            return self.form(to, name, wish, Some(SignInError::ExpiredForm), seen);
        }
        let attempt = AtSignIn {
            name,
            password: &form.password,
            host: self.head.authority.host.as_str(),
            client: self.client,
            user_agent: self.user_agent(),
            presented: self.cookie(cookie::SESSION)?,
        };
        match self.identity.sign_in_with_password(attempt, self.now).await {
            Ok(signed_in) => {
                seen.user = Some(signed_in.live.user());
                let onward = match &wish.waiting {
                    Some(ticket) => format!("{}?for={ticket}", pages::SIGN_IN),
                    None => to.as_str().to_owned(),
                };
                let mut response = pages::sign_in::done(&self.context(seen), &onward);
                let mut session = cookie::set(cookie::SESSION, &signed_in.cookie)
                    .map_err(|_| Refused::Internal)?;
                session.set_sensitive(true);
                // The form's cookie stays: other tabs may show the form, too, and ask for it yet.
                response.headers_mut().append(SET_COOKIE, session);
                Ok(response)
            }
            Err(failure) => {
                seen.refused = Some(failure.reason());
                let error = match failure {
                    Failure::Slowed(retry_after) => SignInError::TooMany { retry_after },
                    Failure::Busy | Failure::Store => SignInError::Busy,
                    Failure::WrongPassword
                    | Failure::BadToken(_)
                    | Failure::OtherIssuer
                    | Failure::MachineToken(_)
                    | Failure::Introspection(_)
                    | Failure::NoKeys
                    | Failure::Provider(_)
                    | Failure::NoMethod => SignInError::WrongPassword,
                };
                self.form(to, name, wish, Some(error), seen)
            }
        }
    }

    /// Public keys, for anybody who may knock: what they verify is no secret of theirs.
    fn key_set(&self, signer: &Signer, seen: &Record) -> Result<Response<Bytes>, Refused> {
        let keys = signer.keys().ok_or(Refused::NoPage)?;
        let kind = HeaderValue::from_static("application/jwk-set+json");
        let set = keys.key_set();
        let mut response = pages::answer(&self.context(seen), StatusCode::OK, kind, set);
        // Far shorter than a key is published before it signs.
        let hour = HeaderValue::from_static("public, max-age=3600");
        response.headers_mut().insert(CACHE_CONTROL, hour);
        Ok(response)
    }

    fn shows_client_keys(&self) -> bool {
        let mut providers = self.methods.names().iter();
        providers.any(|name| {
            let provider = self.identity.provider(name);
            provider.is_some_and(|provider| provider.needs_published_keys())
        })
    }

    async fn sign_out(&self, seen: &Record) -> Result<Response<Bytes>, Refused> {
        self.same_site()?;
        let ended = match self.cookie(cookie::SESSION)? {
            None => None,
            Some(session) => self
                .identity
                .sign_out(session, self.now)
                .await
                .map_err(|_| Refused::Store)?,
        };
        // Where there is a sign-in host, it alone need be known to the provider.
        let origin = self.other_sign_in_host().unwrap_or_else(|| self.origin());
        let back = format!("{origin}{}", pages::SIGNED_OUT);
        let end = ended.and_then(|live| self.identity.end_at_provider(&live, &back));
        let fields = end.as_ref().and_then(EndSession::form);
        let at_provider = end.as_ref().map(|end| AtProvider {
            title: &end.title,
            url: &end.url,
            form: fields.as_ref().map(|fields| signed_out::Form {
                origin: &end.origin,
                fields,
            }),
        });
        let mut response = signed_out::page(&self.context(seen), at_provider.as_ref());
        for name in [cookie::SESSION, cookie::SIGN_IN] {
            let expired = cookie::expire(name).map_err(|_| Refused::Internal)?;
            response.headers_mut().append(SET_COOKIE, expired);
        }
        // What the application left in the browser was this person's too.
        response.headers_mut().insert(
            "clear-site-data",
            HeaderValue::from_static("\"cache\", \"storage\""),
        );
        Ok(response)
    }
}
