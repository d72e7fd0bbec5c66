//! Why somebody is not signed in by a provider.

use crate::keys::NoRandom;
use crate::pure::callback::{BadCallback, ProviderError};
use crate::pure::id_token::BadIdToken;
use crate::pure::jwt::BadToken;

use super::super::github;

/// Why somebody is not signed in by a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The provider can't be asked now.
    Away,
    /// The provider does not take our request: the configuration is wrong here or there.
    Misconfigured,
    /// The answer is none.
    Callback(BadCallback),
    /// The browser that brings the answer did not begin it, or keeps no cookies.
    OtherBrowser,
    /// The sign-in took too long, or was finished before.
    Over,
    /// Another issuer answers than the one that was asked (RFC 9207).
    OtherIssuer,
    /// The provider says no.
    Refused(ProviderError),
    /// The provider does not know the code or the refresh token any more.
    InvalidGrant,
    /// There is no ID token, or it is none.
    Token(BadToken),
    /// The ID token is for something else.
    IdToken(BadIdToken),
    /// Userinfo is about somebody else, or is none.
    UserInfo,
    /// The user is in none of the organisations that are let in.
    NotAMember,
    /// The provider does not list all groups of the user, or they are too many.
    GroupOverage,
    /// `groups_url` does not say what the groups are.
    GroupsUrl,
    /// The provider does not say the groups again that it said before.
    GroupsUnsaid,
    /// The logout token came before.
    Replayed,
    /// There are no random bytes, or a value makes no URL.
    Internal,
}

impl Error {
    /// The reason in log and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Away => "oidc.away",
            Self::Misconfigured => "oidc.misconfigured",
            Self::Callback(why) => why.reason(),
            Self::OtherBrowser => "oidc.other_browser",
            Self::Over => "oidc.attempt_over",
            Self::OtherIssuer => "oidc.other_issuer",
            Self::Refused(why) => why.reason(),
            Self::InvalidGrant => "oidc.invalid_grant",
            Self::Token(why) => why.reason(),
            Self::IdToken(why) => why.reason(),
            Self::UserInfo => "oidc.userinfo",
            Self::NotAMember => "oidc.not_a_member",
            Self::GroupOverage => "oidc.group_overage",
            Self::GroupsUrl => "oidc.groups_url",
            Self::GroupsUnsaid => "oidc.groups_unsaid",
            Self::Replayed => "oidc.logout_replayed",
            Self::Internal => "oidc.internal",
        }
    }
}

impl From<github::Error> for Error {
    fn from(why: github::Error) -> Self {
        match why {
            github::Error::Away => Self::Away,
            github::Error::Client => Self::Misconfigured,
            github::Error::Grant => Self::InvalidGrant,
            github::Error::Unusable => Self::UserInfo,
            github::Error::TooMany => Self::GroupOverage,
            github::Error::NotAMember => Self::NotAMember,
        }
    }
}

impl From<NoRandom> for Error {
    fn from(_: NoRandom) -> Self {
        Self::Internal
    }
}
