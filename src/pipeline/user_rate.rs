//! 3. rate, once more: how often a user may ask, from wherever.
//!
//! | when | then |
//! |---|---|
//! | somebody is signed in, and asks more often than `per_user` | 429 `user_rate.per_user` |
//! | nobody is signed in | the request passes: its client has been counted |
//!
//! Part of `[rate]`, and a stage of its own because the user is known only now. Trusts the user
//! that `sign_in` found; users are told apart by provider and name.

use std::time::Duration;

use crate::pipeline::rate::{Cells, Rule};
use crate::pipeline::sign_in::Subject;
use crate::refusal::{Answer, Limited, Refusal};

/// Proof that a user, if there is one, has not asked too often.
#[derive(Debug)]
pub struct Paced(Subject);

impl Paced {
    /// Who asks.
    pub const fn subject(&self) -> &Subject {
        &self.0
    }

    /// Who asks, for what comes after.
    pub fn into_subject(self) -> Subject {
        self.0
    }
}

/// The limit of the user was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub Limited);

impl From<Refused> for Refusal {
    fn from(Refused(limited): Refused) -> Self {
        Self::new(Answer::TooManyRequests(limited), "user_rate.per_user")
    }
}

/// Counts a request of the user; `now` is the time since the process began.
///
/// # Errors
/// [`Refused`], with the time until a request can pass.
pub fn admit(
    rule: &Rule,
    cells: &Cells,
    subject: Subject,
    now: Duration,
) -> Result<Paced, Refused> {
    if let Some(user) = subject.user() {
        rule.count_user(cells, user, now).map_err(Refused)?;
    }
    Ok(Paced(subject))
}
