//! Tokens that only their issuer can read: it is asked (RFC 7662), by a client of its own name.
//!
//! | when | then |
//! |---|---|
//! | it stands by the token, and the answer is what the rule asks for | that user; remembered for a minute, and never beyond `exp` |
//! | it does not, or the answer is about something else | 401; remembered for ten seconds |
//! | it is away, too slow, says too much, or does not say whether the token is active | 503, and nothing is remembered |
//! | sixteen questions are under way and sixty-four wait | 503, without a question |
//!
//! Of all who show one token at a moment one asks. What is remembered is so under a MAC over the token
//! and all that the answer depends on: who is asked, as whom, and what is demanded of the answer, so that
//! no method answers for another (SECURITY.md J5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;
use tracing::warn;
use zeroize::Zeroizing;

use crate::backend::fetch::{Client, Question};
use crate::pure::fields::Fields;
use crate::pure::form;
use crate::pure::introspection::{self, Active, BadAnswer, MAX_ANSWER_BYTES, Rule};
use crate::pure::session::Seconds;

use super::oidc;

/// How long an issuer may take to answer, and how long a question may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions to one issuer at once; more would be an attack on it.
const AT_ONCE: usize = 16;
/// Questions that wait for their turn.
const QUEUE: usize = 64;
/// How often the log is told that an issuer can't be asked.
const COMPLAINT_SECONDS: u64 = 10;
/// How long it is remembered at most that a token is active.
pub const KEPT: Duration = Duration::from_secs(60);
/// How long it is remembered that one is not.
pub const KEPT_REFUSED: Duration = Duration::from_secs(10);

/// An issuer's endpoint as the configuration states it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is asked.
    pub url: String,
    /// Our name there.
    pub client_id: String,
    /// Whether our secret goes into the form, and not by HTTP basic.
    pub by_form: bool,
    /// What an answer must say.
    pub rule: Arc<Rule>,
}

/// An issuer that is asked.
pub struct Introspector {
    /// What the configuration says of it.
    pub settings: Settings,
    /// What tells it from another, or from itself with other demands.
    pub fingerprint: [u8; 32],
    client: Client,
    secret: Zeroizing<String>,
    turns: Semaphore,
    waiting: AtomicUsize,
    complained: AtomicU64,
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The issuer's answer does not.
    Refused(BadAnswer),
    /// The issuer can't be asked now, or does not answer the question.
    Away,
    /// Too many questions wait already.
    Busy,
}

impl Error {
    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Refused(why) => why.reason(),
            Self::Away => "sign_in.introspection_away",
            Self::Busy => "sign_in.introspection_busy",
        }
    }
}

impl Introspector {
    /// An issuer that `client` asks with `secret`.
    pub fn new(
        settings: Settings,
        fingerprint: [u8; 32],
        client: Client,
        secret: Zeroizing<String>,
    ) -> Self {
        Self {
            settings,
            fingerprint,
            client,
            secret,
            turns: Semaphore::new(AT_ONCE),
            waiting: AtomicUsize::new(0),
            complained: AtomicU64::new(0),
        }
    }

    /// Asks about a token.
    ///
    /// # Errors
    /// Why it lets nobody in.
    pub async fn ask(&self, token: &str, now: SystemTime) -> Result<Active, Error> {
        let _turn = self.turn().await?;
        let mut content = form::Writer::default();
        content.add("token", token);
        content.add("token_type_hint", "access_token");
        let mut headers = Fields::new();
        headers.set(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let Settings {
            url,
            client_id,
            by_form,
            rule,
        } = &self.settings;
        if *by_form {
            content.add("client_id", client_id);
            content.add("client_secret", &self.secret);
        } else {
            let basic = oidc::basic(client_id, &self.secret).map_err(|_| Error::Away)?;
            headers.set(AUTHORIZATION, basic);
        }
        let question = Question {
            method: &Method::POST,
            url,
            headers,
            content: Bytes::from(content.into_string()),
        };
        let answer = self
            .client
            .ask(question, MAX_ANSWER_BYTES, PATIENCE)
            .await
            .map_err(|why| self.away(&why, now))?;
        if answer.status != StatusCode::OK {
            let status = answer.status.as_u16();
            return Err(self.away(&format_args!("it answered with status {status}"), now));
        }
        introspection::read(&answer.content, rule, now).map_err(|why| match why {
            BadAnswer::NoAnswer => self.away(&"it did not say whether a token is active", now),
            BadAnswer::Inactive
            | BadAnswer::Audience
            | BadAnswer::Client
            | BadAnswer::Issuer
            | BadAnswer::Type
            | BadAnswer::Expired
            | BadAnswer::NotYetValid
            | BadAnswer::Name
            | BadAnswer::Groups => Error::Refused(why),
        })
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        let waits = Waits(&self.waiting);
        if waits.0.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            return Err(Error::Busy);
        }
        match tokio::time::timeout(PATIENCE, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Error::Busy),
        }
    }

    fn away(&self, why: &dyn std::fmt::Display, now: SystemTime) -> Error {
        let now = Seconds::of(now).0;
        let before = self.complained.load(Ordering::Relaxed);
        if before.saturating_add(COMPLAINT_SECONDS) <= now {
            self.complained.store(now, Ordering::Relaxed);
            warn!(
                provider = &*self.settings.rule.provider,
                url = self.settings.url,
                error = %why,
                "tokens can't be introspected; nobody is let in by those that are not remembered"
            );
        }
        Error::Away
    }
}

/// One who waits, until dropped.
struct Waits<'w>(&'w AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
