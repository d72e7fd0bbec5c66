//! How sessions end: by the person, by their provider, and all that somebody has.

use std::sync::Arc;
use std::time::SystemTime;

use crate::observe::audit::{self, By};
use crate::pure::identity::User;
use crate::pure::session::{Hash, Id, Parent, Record};
use crate::session::{Index, Listed, Live};

use super::failure::Failure;
use super::live::Known;
use super::{Identity, oidc};

impl Identity {
    /// Ends the session of a cookie; answers with it, if there was one.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have it.
    pub async fn sign_out(
        &self,
        cookie: &str,
        now: SystemTime,
    ) -> Result<Option<Arc<Live>>, Failure> {
        let Ok(id) = Id::from_cookie(cookie) else {
            return Ok(None);
        };
        let sessions = &self.shared.sessions;
        let Some(live) = sessions.find(&id, now).await? else {
            return Ok(None);
        };
        let user = live.user();
        audit::ended(By::User, Some(&user), live.hash());
        // Who signs out at one host signs out at all that share the sign-on: that first, because whoever is
        // still signed in there would be let in here again.
        let parent = live.record().parent.as_ref().map(Parent::id);
        let parent = match parent {
            Some(parent) => sessions.find(&parent, now).await?,
            None => None,
        };
        if let Some(parent) = &parent {
            sessions.end(parent, now).await?;
        }
        sessions.end(&live, now).await?;
        Ok(Some(parent.unwrap_or(live)))
    }

    /// The sessions of whomever [`Self::vouched_for`] told of, wherever they signed in.
    ///
    /// # Errors
    /// [`Failure::Store`] if it can't be said.
    pub async fn sessions_of(
        &self,
        record: &Record,
        now: SystemTime,
    ) -> Result<Vec<Listed>, Failure> {
        Ok(self.shared.sessions.list(index(record), now).await?)
    }

    /// The record with what the provider calls whoever has this session: its own, or that of the one that it
    /// was made of.
    pub fn vouched_for(&self, known: &Known) -> Arc<Record> {
        let own = known.live.record();
        let parent = own.parent.as_ref().map(|parent| parent.id().hash());
        let parent = parent.and_then(|hash| self.shared.sessions.in_memory(hash));
        parent.map_or(own, |parent| parent.record())
    }

    /// Ends some of a user's sessions.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have some.
    pub async fn end_sessions(
        &self,
        user: &User,
        which: &[Hash],
        now: SystemTime,
    ) -> Result<(), Failure> {
        for hash in which {
            audit::ended(By::User, Some(user), *hash);
            self.shared.sessions.end_by_hash(*hash, now).await?;
        }
        Ok(())
    }

    /// Ends all sessions of whomever [`Self::vouched_for`] told of, and answers how many.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have some.
    pub async fn sign_out_everywhere(
        &self,
        record: &Record,
        now: SystemTime,
    ) -> Result<usize, Failure> {
        let user = &record.user;
        let ended = self.shared.sessions.end_all_of(index(record), now).await?;
        audit::ended_all(By::User, &user.provider, &user.name, ended);
        Ok(ended)
    }

    /// How somebody whose session has ended signs out at their provider, too, and comes back to `back`.
    pub fn end_at_provider(&self, live: &Live, back: &str) -> Option<oidc::EndSession> {
        let record = live.record();
        let provider = self.provider(&record.user.provider)?;
        provider.end_session(record.tokens.as_ref()?, back)
    }

    /// Ends the sessions that a provider's logout token names, and answers how many (Back-Channel
    /// Logout §2.7).
    ///
    /// # Errors
    /// Why the token counts for nothing, or the store may still have some.
    pub async fn signed_out_by(
        &self,
        provider: &str,
        token: &str,
        now: SystemTime,
    ) -> Result<usize, Failure> {
        let oidc = self.provider(provider).ok_or(Failure::NoMethod)?;
        let logout = oidc.logout(token, now).await?;
        let sessions = &self.shared.sessions;
        // As long as the token could come again, and the clocks differ.
        let life = crate::pure::id_token::LOGOUT_TOKEN_LIFE.saturating_mul(2);
        let name = [b"logout", provider.as_bytes(), logout.id.as_bytes()];
        if sessions.was_seen(&name, now).await? {
            return Err(oidc::Error::Replayed.into());
        }
        let index = match (&logout.session, &logout.subject) {
            (Some(session), _) => Index::ProviderSession { provider, session },
            (None, Some(subject)) => Index::Subject { provider, subject },
            (None, None) => return Ok(0),
        };
        let ended = sessions.end_all_of(index, now).await?;
        // Last: a provider that is told that it did not work tries the same token again.
        sessions.see(&name, now, life).await?;
        let whom = logout.subject.as_deref().or(logout.session.as_deref());
        audit::ended_all(By::Provider, provider, whom.unwrap_or_default(), ended);
        Ok(ended)
    }

    /// Ends the sessions of a session at a provider, which the provider names by way of a browser
    /// (OpenID Connect Front-Channel Logout §2); the provider alone, and whom it told, knows the name.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have some.
    pub async fn signed_out_in_frame(
        &self,
        provider: &str,
        issuer: &str,
        session: &str,
        now: SystemTime,
    ) -> Result<usize, Failure> {
        let oidc = self.provider(provider).ok_or(Failure::NoMethod)?;
        if issuer != oidc.settings.rule.issuer {
            return Ok(0);
        }
        let index = Index::ProviderSession { provider, session };
        let ended = self.shared.sessions.end_all_of(index, now).await?;
        audit::ended_all(By::Provider, provider, session, ended);
        Ok(ended)
    }
}

/// What all sessions of a person have in common: a provider may give their name to somebody else.
fn index(record: &Record) -> Index<'_> {
    let provider = &record.user.provider;
    match &record.tokens {
        Some(tokens) => Index::Subject {
            provider,
            subject: &tokens.subject,
        },
        None => Index::User {
            provider,
            name: &record.user.name,
        },
    }
}
