//! 5. access: which of them may pass.
//!
//! | when | then |
//! |---|---|
//! | no rule lets anybody pass | 403 `access.nobody` |
//! | nobody is signed in, and the rule is not `public` | 403 `access.signed_out` |
//! | a `deny` holds, or a condition on the user does not | 403 `access.denied` |
//! | the condition that does not hold is on the method | 403 `access.method` |
//! | the condition that does not hold is on the token's scope | 403 `access.scope`, naming the scope (RFC 6750 §3.1) |
//! | the sign-in is older than `signed_in_within` | 401 `access.stale_sign_in`: sign in again (RFC 9470) |
//! | the sign-in was in none of the contexts of `acr` | 401 `access.weak_sign_in`: likewise |
//! | otherwise | the request may pass; the record names the file and line that let it |
//! | .. and a rule that is `report_only` would have refused it | the record says why, and by which line |
//!
//! What is `report_only` is tried on what the rules in force let pass: the rule that would hold if the
//! word were struck out is asked as well, and its answer is recorded and not followed. It takes nothing
//! away: a path's rule is tried beside the application's, which stays in force; an application's asks
//! for a sign-in all the same, because only somebody known can be judged; and whoever is tried by a
//! rule that needs a sign-in has to sign in.
//!
//! Trusts the user that sign-in found, and the method and path of the canonical request. The
//! decision itself is `pure::access`. Sign-in asks for credentials before this stage is reached:
//! `access.signed_out` is its second lock. A rule by method is 403 and not 405, which would tell
//! somebody who may not pass what the application can do.

mod missing;
mod policy;

pub use policy::{Context, DENY_KEYS, KEYS, read, read_path};

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;

use crate::pipeline::sign_in::Subject;
use crate::pipeline::standing::Ground;
use crate::pipeline::user_rate::Paced;
use crate::pure::access::{
    Asked, Condition, Rule as Conditions, Test, Verdict, Why, decide as decide_purely, unmet,
};
use crate::pure::connection::{ClientCertificate, Connection};
use crate::pure::head::Head;
use crate::pure::identity::User;
use crate::pure::table::Place;
use crate::record::{Record, WouldRefuse};
use crate::refusal::{Answer, Challenge, Refusal};

/// Who may pass at one path of an application.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Whom the policy lets pass.
    pub conditions: Conditions,
    /// What would be in force but for `report_only`; none where that is the same.
    pub trial: Option<Box<Conditions>>,
    /// Whether people are told what they lack.
    pub tell_missing: bool,
    /// Whether somebody whose sign-in is too old can sign in again on a page.
    pub sign_in_page: bool,
}

/// Why somebody may not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// No rule lets anybody pass.
    Nobody {
        /// The user's name, when somebody is signed in.
        as_whom: Option<Arc<str>>,
    },
    /// Nobody is signed in.
    SignedOut,
    /// This user may not pass.
    Denied {
        /// The user's name, when somebody is signed in.
        as_whom: Option<Arc<str>>,
        /// What the user lacks, where the operator tells.
        missing: Vec<String>,
    },
    /// This method may not pass.
    Method {
        /// The user's name, when somebody is signed in.
        as_whom: Option<Arc<str>>,
        /// What the request lacks, where the operator tells.
        missing: Vec<String>,
    },
    /// The token was not given such a scope.
    Scope {
        /// The user's name.
        as_whom: Option<Arc<str>>,
        /// What the request lacks, where the operator tells.
        missing: Vec<String>,
        /// The scopes to ask for.
        scopes: Vec<Box<str>>,
    },
    /// The sign-in is too old.
    Stale(Again),
    /// The sign-in was in no context that will do.
    Weak(Again),
}

/// How to sign in again: all that the rule asks of a sign-in, so that once is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// The greatest age.
    pub within: Option<Duration>,
    /// The contexts of which any will do.
    pub acr: Vec<Box<str>>,
    /// Whether there is a page to sign in on.
    pub sign_in_page: bool,
}

impl From<Again> for Challenge {
    fn from(again: Again) -> Self {
        let mut bearer = "Bearer error=\"insufficient_user_authentication\"".to_owned();
        let acr = (!again.acr.is_empty()).then(|| again.acr.join(" "));
        if let Some(acr) = &acr {
            bearer.push_str(&format!(", acr_values=\"{acr}\""));
        }
        let within = again.within.map(|within| within.as_secs());
        if let Some(age) = within {
            bearer.push_str(&format!(", max_age=\"{age}\""));
        }
        Self {
            challenges: vec![bearer],
            sign_in_page: again.sign_in_page,
            within,
            acr,
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let forbidden = |as_whom: Option<Arc<str>>, missing: Vec<String>| match as_whom {
            Some(as_whom) if !missing.is_empty() => Answer::Lacking { as_whom, missing },
            as_whom => Answer::Forbidden { as_whom },
        };
        let reason = refused.reason();
        let answer = match refused {
            Refused::Nobody { as_whom } => Answer::Forbidden { as_whom },
            Refused::SignedOut => Answer::Forbidden { as_whom: None },
            Refused::Denied { as_whom, missing } | Refused::Method { as_whom, missing } => {
                forbidden(as_whom, missing)
            }
            Refused::Scope {
                as_whom,
                missing,
                scopes,
            } => Answer::InsufficientScope {
                as_whom,
                missing,
                challenge: format!(
                    "Bearer error=\"insufficient_scope\", scope=\"{}\"",
                    scopes.join(" ")
                ),
            },
            Refused::Stale(again) | Refused::Weak(again) => Answer::Challenge(again.into()),
        };
        Self::new(answer, reason)
    }
}

impl Refused {
    /// For the log, the metrics and those who ask why.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Nobody { .. } => "access.nobody",
            Self::SignedOut => "access.signed_out",
            Self::Denied { .. } => "access.denied",
            Self::Method { .. } => "access.method",
            Self::Scope { .. } => "access.scope",
            Self::Stale(_) => "access.stale_sign_in",
            Self::Weak(_) => "access.weak_sign_in",
        }
    }
}

/// Proof that somebody may pass: made here only, and asked for by whatever goes to a backend.
#[derive(Debug)]
pub struct Grant {
    paced: Paced,
    certificate: Option<Arc<ClientCertificate>>,
}

impl Grant {
    /// Who may, and how that is known.
    pub const fn subject(&self) -> &Subject {
        self.paced.subject()
    }

    /// What the exchange rests on, from now until it ends.
    pub fn ground(&self, app: Arc<str>, method: Method, path: String) -> Ground {
        let subject = self.subject();
        Ground {
            app,
            method,
            path,
            client: subject.permit().ip(),
            certificate: self.certificate.clone(),
            user: subject.user().cloned(),
            session: subject.session().cloned(),
        }
    }
}

/// Decides whether a request may pass; the record keeps the line that decided, either way, and what
/// a rule that is tried would have said.
///
/// # Errors
/// Why it may not.
pub fn decide(
    rule: &Rule,
    conn: &Connection,
    head: &Head,
    paced: Paced,
    now: SystemTime,
    seen: &mut Record,
) -> Result<Grant, Refused> {
    let subject = paced.subject();
    let certificate = conn
        .tls
        .as_ref()
        .and_then(|tls| tls.client_certificate.as_ref());
    let asked = Asked {
        user: subject.user().map(|user| &**user),
        method: &head.method,
        path: &head.target.path,
        client: subject.permit().ip(),
        certificate: certificate.map(|certificate| &**certificate),
        now,
    };
    let (by, result) = rule.judge(&asked);
    seen.decider = Some(by);
    result?;
    seen.would_refuse = rule.tried(&asked).map(|(by, why)| WouldRefuse {
        reason: rule.refused(why, &asked).reason(),
        by: by.clone(),
    });
    Ok(Grant {
        certificate: certificate.cloned(),
        paced,
    })
}

impl Rule {
    /// Whether nobody can pass without having signed in.
    pub const fn needs_sign_in(&self) -> bool {
        self.conditions.needs_sign_in()
    }

    /// Whether what was let through may go on. A sign-in that has grown old since was fresh then.
    pub fn still_allows(&self, ground: &Ground, user: Option<&User>) -> bool {
        let asked = Asked {
            user,
            method: &ground.method,
            path: &ground.path,
            client: ground.client,
            certificate: ground.certificate.as_deref(),
            now: user.map_or(SystemTime::UNIX_EPOCH, |user| user.signed_in_at),
        };
        matches!(self.verdict(&asked), Verdict::Granted { .. })
    }

    /// The verdict with what was missing, for those who ask why.
    pub fn verdict(&self, asked: &Asked<'_>) -> Verdict<'_> {
        decide_purely(&self.conditions, asked)
    }

    /// Whether a request may pass, and the line that decided either way.
    pub fn judge(&self, asked: &Asked<'_>) -> (Place, Result<(), Refused>) {
        match self.verdict(asked) {
            Verdict::Granted { by } => (by.clone(), Ok(())),
            Verdict::Denied { by, why } => (by.clone(), Err(self.refused(why, asked))),
        }
    }

    /// The line that would refuse what may pass, and why, if nothing were `report_only`.
    pub fn tried(&self, asked: &Asked<'_>) -> Option<(&Place, Why<'_>)> {
        match decide_purely(self.trial.as_deref()?, asked) {
            Verdict::Granted { .. } => None,
            Verdict::Denied { by, why } => Some((by, why)),
        }
    }

    /// What `why` comes to; for the log its reason, and for the user what may be told.
    pub fn refused(&self, why: Why<'_>, asked: &Asked<'_>) -> Refused {
        let as_whom = asked.user.map(|user| Arc::clone(&user.name));
        let missing = || {
            // A stranger learns nothing of the rules.
            if !self.tell_missing || as_whom.is_none() {
                return Vec::new();
            }
            let unmet = unmet(&self.conditions, asked);
            unmet.iter().map(|one| missing::told(&one.test)).collect()
        };
        match why {
            Why::NoRule => Refused::Nobody { as_whom },
            Why::SignedOut => Refused::SignedOut,
            Why::Missing(Condition {
                test: Test::Method(_),
                ..
            }) => Refused::Method {
                missing: missing(),
                as_whom,
            },
            Why::Missing(Condition {
                test: Test::Scope(_),
                ..
            }) => Refused::Scope {
                missing: missing(),
                scopes: needed_scopes(&unmet(&self.conditions, asked)),
                as_whom,
            },
            Why::Missing(_) => Refused::Denied {
                missing: missing(),
                as_whom,
            },
            // Whom a `deny` is about lacks nothing, and is not told that there is one.
            Why::Deny(_) => Refused::Denied {
                as_whom,
                missing: Vec::new(),
            },
            Why::Stale(_) => Refused::Stale(self.again()),
            Why::Weak(_) => Refused::Weak(self.again()),
        }
    }

    fn again(&self) -> Again {
        let rule = &self.conditions;
        Again {
            within: rule.signed_in_within.as_ref().map(|fresh| fresh.within),
            acr: rule
                .acr
                .as_ref()
                .map(|contexts| contexts.accepted.clone())
                .unwrap_or_default(),
            sign_in_page: self.sign_in_page,
        }
    }

    /// The scopes that the rule asks for, anywhere in it: what a program may want to ask its issuer for.
    pub fn scopes(&self) -> Vec<&str> {
        fn scopes<'r>(conditions: &'r [Condition], found: &mut Vec<&'r str>) {
            for condition in conditions {
                match &condition.test {
                    Test::Scope(names) => found.extend(names.iter().map(|name| &**name)),
                    Test::Any(lists) | Test::All(lists) => {
                        lists.iter().for_each(|list| scopes(list, found));
                    }
                    // What must not be is nothing to ask for.
                    Test::Not(_)
                    | Test::User(_)
                    | Test::Provider(_)
                    | Test::Group(_)
                    | Test::Email(_)
                    | Test::EmailDomain(_)
                    | Test::Claim(..)
                    | Test::Method(_)
                    | Test::Network(_)
                    | Test::Path(_)
                    | Test::Certificate(_) => {}
                }
            }
        }
        let mut found = Vec::new();
        scopes(&self.conditions.conditions, &mut found);
        found
    }
}

/// The scopes that would do: the first of each list, which the operator puts there as the least.
fn needed_scopes(unmet: &[&Condition]) -> Vec<Box<str>> {
    let first = |condition: &&Condition| match &condition.test {
        Test::Scope(names) => names.first().cloned(),
        Test::User(_)
        | Test::Provider(_)
        | Test::Group(_)
        | Test::Email(_)
        | Test::EmailDomain(_)
        | Test::Claim(..)
        | Test::Method(_)
        | Test::Network(_)
        | Test::Path(_)
        | Test::Certificate(_)
        | Test::Any(_)
        | Test::All(_)
        | Test::Not(_) => None,
    };
    unmet.iter().filter_map(first).collect()
}

#[cfg(test)]
mod tests;
