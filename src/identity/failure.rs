//! Why somebody is not let in.

use std::time::Duration;

use tracing::error;

use crate::pure::jwt::BadToken;
use crate::refusal::{Answer, Limited, Refusal};
use crate::session::{SessionError, StoreError};

use super::machine_tokens::BadMachineToken;
use super::password::Busy;
use super::regulation::Slowed;
use super::{introspection, oidc, regulation};

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The name or the password is wrong; nobody is told which.
    WrongPassword,
    /// Too many failures; try again after this long.
    Slowed(Duration),
    /// Too many passwords are being verified.
    Busy,
    /// The token proves nothing.
    BadToken(BadToken),
    /// The token is of an issuer that no method here takes.
    OtherIssuer,
    /// The issuer's keys were never seen.
    NoKeys,
    /// The session store can't say, or can't keep a session.
    Store,
    /// The rule names a method that is not there.
    NoMethod,
    /// The provider does not vouch for them.
    Provider(oidc::Error),
    /// The token is of the gate's own, and nobody's.
    MachineToken(BadMachineToken),
    /// Its issuer does not stand by the token, or can't say.
    Introspection(introspection::Error),
}

impl Failure {
    /// The reason in log and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::WrongPassword => "sign_in.wrong_password",
            Self::Slowed(_) => "sign_in.slowed",
            Self::Busy => "sign_in.busy",
            Self::BadToken(why) => why.reason(),
            Self::OtherIssuer => "sign_in.jwt_other_issuer",
            Self::NoKeys => "sign_in.no_keys",
            Self::Store => "sign_in.session_store",
            Self::NoMethod => "sign_in.no_method",
            Self::Provider(why) => why.reason(),
            Self::MachineToken(why) => why.reason(),
            Self::Introspection(why) => why.reason(),
        }
    }

    /// The refusal for those failures that no other credential would help; `None` for the rest.
    pub fn refusal(&self) -> Option<Refusal> {
        let answer = match self {
            Self::WrongPassword
            | Self::BadToken(_)
            | Self::OtherIssuer
            | Self::MachineToken(_)
            | Self::Introspection(introspection::Error::Refused(_))
            | Self::Provider(_) => {
                return None;
            }
            Self::Slowed(wait) => Answer::TooManyRequests(Limited {
                retry_after: *wait,
                quota: 5,
                window: regulation::LONGEST_WAIT,
            }),
            Self::Busy
            | Self::NoKeys
            | Self::Store
            | Self::NoMethod
            | Self::Introspection(introspection::Error::Away | introspection::Error::Busy) => {
                Answer::Unavailable
            }
        };
        Some(Refusal::new(answer, self.reason()))
    }
}

impl From<Slowed> for Failure {
    fn from(Slowed(wait): Slowed) -> Self {
        Self::Slowed(wait)
    }
}

impl From<oidc::Error> for Failure {
    fn from(why: oidc::Error) -> Self {
        Self::Provider(why)
    }
}

impl From<Busy> for Failure {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl From<SessionError> for Failure {
    fn from(why: SessionError) -> Self {
        // A line for each request would make of an outage a flood.
        if !matches!(why, SessionError::Store(StoreError::Away)) {
            error!(error = %why, "sessions can't be used");
        }
        Self::Store
    }
}
