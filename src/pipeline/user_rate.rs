//! 3. rate, once more: how often a user may ask, from wherever.
//!
//! | when | then |
//! |---|---|
//! | somebody is signed in, and asks more often than `per_user` | 429 `user_rate.per_user` |
//! | nobody is signed in | the request passes: its client has been counted |
//!
//! Part of `[rate]`, and a stage of its own because the user is known only now; counted here and at
//! all gates as `rate` does. Trusts the user that `sign_in` found; users are told apart by provider and
//! name.

use std::sync::Arc;
use std::time::Duration;

use crate::pipeline::rate::{Cells, Rule};
use crate::pipeline::sign_in::Subject;
use crate::pure::identity::User;
use crate::refusal::{Answer, Limited, Refusal};
use crate::session::Sessions;

/// Proof that a user, if there is one, has not asked this gate too often.
#[derive(Debug)]
pub struct Counted(Subject);

/// Proof that a user, if there is one, has not asked too often, whichever gate.
#[derive(Debug)]
pub struct Paced(Subject);

impl Paced {
    /// Who asks.
    pub const fn subject(&self) -> &Subject {
        &self.0
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
) -> Result<Counted, Refused> {
    count(rule, cells, subject.user().map(Arc::as_ref), now)?;
    Ok(Counted(subject))
}

fn count(rule: &Rule, cells: &Cells, user: Option<&User>, now: Duration) -> Result<(), Refused> {
    user.and_then(|user| rule.of_user(user))
        .map_or(Ok(()), |count| count.here(cells, now))
        .map_err(Refused)
}

/// Counts the request of the user at all gates, where they share a store.
///
/// # Errors
/// [`Refused`], with the time until a request can pass.
pub async fn admit_everywhere(
    rule: &Rule,
    sessions: &Sessions,
    counted: Counted,
) -> Result<Paced, Refused> {
    let Counted(subject) = counted;
    if sessions.counts_rates()
        && let Some(user) = subject.user()
        && let Some(count) = rule.of_user(user)
    {
        // In a box, so that it takes no room in every other exchange.
        Box::pin(count.everywhere(sessions))
            .await
            .map_err(Refused)?;
    }
    Ok(Paced(subject))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::pipeline::rate::{self, KEYS};
    use crate::pure::table::{Problems, Table};

    fn user(name: &str) -> User {
        User {
            name: name.into(),
            provider: "local".into(),
            email: None,
            groups: Vec::new(),
            claims: Arc::default(),
            signed_in_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn two_a_minute() -> Rule {
        let problems = Problems::default();
        let table = Table::parse("rate.toml", "per_user = '2/m'", KEYS, &problems);
        rate::read(table.as_ref(), "wiki", &Rule::usual("wiki"))
    }

    #[test]
    fn a_user_who_asks_too_often_learns_when_to_come_back() {
        let (rule, cells) = (two_a_minute(), Cells::new());
        let ask = |name, now| count(&rule, &cells, Some(&user(name)), Duration::from_secs(now));
        assert_eq!((ask("bob", 0), ask("bob", 0)), (Ok(()), Ok(())));
        let limited = Limited {
            retry_after: Duration::from_secs(20),
            quota: 2,
            window: Duration::from_secs(60),
        };
        assert_eq!(ask("bob", 10), Err(Refused(limited)));
        assert_eq!(ask("alice", 10), Ok(()));
        assert_eq!(ask("bob", 30), Ok(()));
    }

    #[test]
    fn whoever_is_not_signed_in_is_not_counted_as_a_user() {
        let (rule, cells) = (two_a_minute(), Cells::new());
        for _ in 0..100 {
            assert_eq!(count(&rule, &cells, None, Duration::ZERO), Ok(()));
        }
    }

    #[test]
    fn the_refusal_has_its_answer_and_reason() {
        let limited = Limited {
            retry_after: Duration::from_secs(1),
            quota: 1,
            window: Duration::from_secs(1),
        };
        let expected = Refusal::new(
            Answer::TooManyRequests(limited.clone()),
            "user_rate.per_user",
        );
        assert_eq!(Refusal::from(Refused(limited)), expected);
    }
}
