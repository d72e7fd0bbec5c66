//! What somebody who looks into an incident asks for: who signed in, and by whom sessions ended.
//!
//! Messages like the others, each with `event`. A session is named by the beginning of its hash, as in
//! `portcullis sessions list`; that opens nothing.

use std::net::IpAddr;

use tracing::info;

use crate::pure::identity::User;
use crate::pure::session::Hash;

/// Who ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The person, at the page of their sessions or on the way out.
    User,
    /// The operator, by a command.
    Operator,
    /// The provider, by a logout token or a frame.
    Provider,
    /// The provider, which does not renew it.
    Refusal,
    /// Its account is gone, or has another password.
    Account,
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Provider => "provider",
            Self::Refusal => "provider_refusal",
            Self::Account => "account",
        }
    }
}

/// Somebody has signed in.
pub fn signed_in(of: &User, host: &str, client: IpAddr, session: Hash) {
    let (provider, user, session) = (&*of.provider, &*of.name, short(session));
    info!(event = "signed_in", provider, user, host, %client, session, "signed in");
}

/// A session was ended; whose it is, is not known of one that was named by its hash alone.
pub fn ended(by: By, of: Option<&User>, session: Hash) {
    let (by, session) = (by.name(), short(session));
    let provider = of.map(|user| &*user.provider);
    let user = of.map(|user| &*user.name);
    info!(
        event = "session_ended",
        by, provider, user, session, "a session was ended"
    );
}

/// All sessions were ended that have something in common: those of `whom`, in the words of who ends them.
/// No line where there was none.
pub fn ended_all(by: By, provider: &str, whom: &str, sessions: usize) {
    if sessions == 0 {
        return;
    }
    let by = by.name();
    info!(
        event = "sessions_ended",
        by, provider, whom, sessions, "sessions were ended"
    );
}

fn short(session: Hash) -> String {
    session.to_string().chars().take(16).collect()
}
