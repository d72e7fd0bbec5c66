//! The gate's own pages: signing in and out, on every application's host.
//!
//! | when | then |
//! |---|---|
//! | GET `/.portcullis/sign-in` | the form, and a cookie that binds it to this browser |
//! | POST `/.portcullis/sign-in` with the right password | a new session, and on to where the person was going |
//! | the same with a wrong one | the form again, saying so; slower each time |
//! | POST `/.portcullis/sign-out` from this site | the session and our cookies end; the signed-out page |
//! | GET `/.portcullis/jwks.json` | the keys that verify assertions; where none are made, 404 `portal.no_page` |
//! | the application has no sign-in page, or the path is none of ours | 404 `portal.no_page` |
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
use crate::identity::{AtSignIn, Failure, Identity};
use crate::keys::Signer;
use crate::pages::sign_in::SignInError;
use crate::pages::{self, Asked, Context};
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

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where the pages are; no application is ever asked for a path below it.
pub const PREFIX: &str = "/.portcullis/";

/// One of our pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// `/.portcullis/sign-in`
    SignIn,
    /// `/.portcullis/sign-out`
    SignOut,
    /// `/.portcullis/jwks.json`
    KeySet,
    /// Anything else below the prefix.
    None,
}

/// Which of our pages a request is for, if any.
pub fn page(head: &Head) -> Option<Page> {
    // A backend that ignores case must not be asked for a path that looks like ours either.
    let path = head.target.path.as_str();
    let (start, rest) = path.split_at_checked(PREFIX.len())?;
    start.eq_ignore_ascii_case(PREFIX).then_some(match rest {
        "sign-in" => Page::SignIn,
        "sign-out" => Page::SignOut,
        "jwks.json" => Page::KeySet,
        _ => Page::None,
    })
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
    page: Page,
    has_sign_in_page: bool,
    identity: &Identity,
    signer: &Signer,
    permit: Permit,
    caller: Caller<'_>,
    head: Head,
    body: Body,
    now: SystemTime,
    seen: &mut Record,
) -> Result<Passed, Refusal> {
    let visit = Visit {
        identity,
        client: permit.ip(),
        conn: caller.conn,
        asked: caller.asked,
        head: &head,
        now,
        has_sign_in_page,
    };
    let response = match (page, &head.method) {
        (Page::None, _) => return Err(Refused::NoPage.into()),
        (Page::SignIn, _) if !has_sign_in_page => return Err(Refused::NoPage.into()),
        (Page::SignIn, &(Method::GET | Method::HEAD)) => visit.sign_in_form(seen)?,
        (Page::SignIn, &Method::POST) => visit.sign_in(body, seen).await?,
        (Page::SignOut, &(Method::GET | Method::HEAD)) => {
            pages::signed_out::confirm(&visit.context(seen))
        }
        (Page::SignOut, &Method::POST) => visit.sign_out(seen).await?,
        (Page::KeySet, &(Method::GET | Method::HEAD)) => visit.key_set(signer, seen)?,
        (Page::SignIn | Page::SignOut | Page::KeySet, _) => return Err(Refused::Method.into()),
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
    has_sign_in_page: bool,
}

/// What a sign-in form was made for.
const PURPOSE: &str = "sign-in";

impl Visit<'_> {
    fn context<'c>(&'c self, seen: &'c Record) -> Context<'c> {
        Context {
            has_sign_in_page: self.has_sign_in_page,
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

    fn sign_in_form(&self, seen: &Record) -> Result<Response<Bytes>, Refused> {
        let query = self.head.target.query.as_deref().unwrap_or_default();
        let to = form::to_in_query(query).map_or_else(ReturnTo::default, |to| ReturnTo::parse(&to));
        self.form(&to, "", None, seen)
    }

    fn form(
        &self,
        to: &ReturnTo,
        name: &str,
        error: Option<SignInError>,
        seen: &Record,
    ) -> Result<Response<Bytes>, Refused> {
        let known = self
            .cookie(cookie::SIGN_IN)?
            .filter(|value| csrf::is_cookie(value));
        let made = match known {
            Some(_) => None,
            None => Some(
                self.identity
                    .new_form_cookie()
                    .map_err(|_| Refused::Internal)?,
            ),
        };
        let browser = known.or(made.as_deref()).unwrap_or_default();
        let token = self.identity.form_token(PURPOSE, browser, self.now);
        let form = pages::sign_in::Form {
            to: to.as_str(),
            csrf: &token,
            name,
            error,
        };
        let mut response = pages::sign_in::page(&self.context(seen), &form);
        if let Some(made) = &made {
            let cookie = cookie::set(cookie::SIGN_IN, made).map_err(|_| Refused::Internal)?;
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(response)
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
        let kind = field::one(&self.head.headers, &CONTENT_TYPE).map_err(|_| Refused::FormType)?;
        if kind.is_none_or(|kind| {
            !kind
                .as_bytes()
                .starts_with(b"application/x-www-form-urlencoded")
        }) {
            return Err(Refused::FormType);
        }
        let text = body
            .collect(form::MAX_BYTES)
            .await
            .map_err(|error| match error {
                body::Error::ClientTooLarge => Refused::FormTooLarge,
                body::Error::ClientMalformed(_) => Refused::FormType,
                body::Error::ClientTimeout
                | body::Error::ClientGone
                | body::Error::BackendMalformed(_)
                | body::Error::BackendTimeout
                | body::Error::BackendGone
                | body::Error::SessionOver => Refused::FormTimeout,
            })?;
        let form = form::parse(&text).map_err(Refused::Form)?;
        let to = ReturnTo::parse(&form.to);
        let name = form.name.trim();
        let browser = self.cookie(cookie::SIGN_IN)?;
        let made_here = self
            .identity
            .check_form(PURPOSE, browser, &form.csrf, self.now);
        if let Err(forged) = made_here {
            seen.refused = Some(forged.reason());
            return self.form(&to, name, Some(SignInError::ExpiredForm), seen);
        }
        let user_agent = field::one(&self.head.headers, &USER_AGENT).ok().flatten();
        let attempt = AtSignIn {
            name,
            password: &form.password,
            client: self.client,
            user_agent: user_agent
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default(),
            presented: self.cookie(cookie::SESSION)?,
        };
        match self.identity.sign_in_with_password(attempt, self.now).await {
            Ok(signed_in) => {
                seen.user = Some(Arc::clone(signed_in.live.user()));
                let mut response = pages::sign_in::done(&self.context(seen), to.as_str());
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
                    | Failure::NoKeys
                    | Failure::NoMethod => SignInError::WrongPassword,
                };
                self.form(&to, name, Some(error), seen)
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

    async fn sign_out(&self, seen: &Record) -> Result<Response<Bytes>, Refused> {
        self.same_site()?;
        if let Some(session) = self.cookie(cookie::SESSION)? {
            self.identity
                .sign_out(session, self.now)
                .await
                .map_err(|_| Refused::Store)?;
        }
        let mut response = pages::signed_out::page(&self.context(seen));
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
