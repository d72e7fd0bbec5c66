//! Who a session is by now: as its account, or its provider, has it today.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use tracing::{error, info};

use crate::observe::audit::{self, By};
use crate::pure::identity::User;
use crate::pure::session::{Id, Parent, Seconds};
use crate::session::{Live, SessionError};

use super::accounts::LOCAL;
use super::failure::Failure;
use super::machine_tokens::TOKENS;
use super::method::Method;
use super::{Identity, oidc};

/// A live session, and its user as of now.
#[derive(Debug)]
pub struct Known {
    /// The session.
    pub live: Arc<Live>,
    /// Its user, with the groups of today.
    pub user: Arc<User>,
}

impl Identity {
    /// The live session of a cookie; `None` if there is none, or if its account is gone or has
    /// another password by now (the session ends then).
    ///
    /// # Errors
    /// [`Failure::Store`] if it can't be said.
    pub async fn session(&self, cookie: &str, now: SystemTime) -> Result<Option<Known>, Failure> {
        let Ok(id) = Id::from_cookie(cookie) else {
            return Ok(None);
        };
        let Some(live) = self.shared.sessions.find(&id, now).await? else {
            return Ok(None);
        };
        // One that was made of another is what that is by now.
        let parent = live.record().parent.as_ref().map(Parent::id);
        let user = match parent {
            None => self.user_of(&live, now).await?,
            // In a box, as what is rare and long below.
            Some(parent) => match self.shared.sessions.find(&parent, now).await? {
                Some(parent) => Box::pin(self.user_of(&parent, now)).await?,
                None => None,
            },
        };
        match user {
            Some(user) => Ok(Some(Known { live, user })),
            None => {
                self.shared.sessions.end(&live, now).await?;
                Ok(None)
            }
        }
    }

    /// The user of a session as of now; the session ends where there is none.
    async fn user_of(
        &self,
        live: &Arc<Live>,
        now: SystemTime,
    ) -> Result<Option<Arc<User>>, Failure> {
        if self.is_stale(live, now) {
            Box::pin(self.ask_again(live, now)).await?;
            if live.is_over(now) {
                return Ok(None);
            }
        }
        let user = self.as_of_now(live);
        if user.is_none() {
            self.shared.sessions.end(live, now).await?;
        }
        Ok(user)
    }

    /// Whether the provider has to be asked before the session counts.
    fn is_stale(&self, live: &Live, now: SystemTime) -> bool {
        let record = live.record();
        record.tokens.as_ref().is_some_and(|tokens| {
            tokens.refresh.is_some()
                && self
                    .provider(&record.user.provider)
                    .is_some_and(|provider| {
                        tokens.checked.plus(provider.settings.refresh) <= Seconds::of(now)
                    })
        })
    }

    /// Asks the provider whether a session's user still may; ends the session if not. Of all who come
    /// at this moment one asks.
    async fn ask_again(&self, live: &Live, now: SystemTime) -> Result<(), Failure> {
        let _turn = live.turn().await;
        if live.is_over(now) || !self.is_stale(live, now) {
            return Ok(());
        }
        let Some(provider) = self.provider(&live.user().provider) else {
            return Ok(());
        };
        let later = || live.checked_at(provider.checked_until_retry(now));
        let sessions = &self.shared.sessions;
        // A refresh token that is used twice may end the session (RFC 9700 §4.14.2), so of all gates one
        // uses it.
        let _turn_of_all = match sessions.turn_of_all(live).await {
            Ok(Some(turn)) => turn,
            Ok(None) => return Ok(()),
            // The token that comes instead could not be kept. How long the session still counts is for
            // the sessions to say.
            Err(SessionError::Store(_)) => {
                later();
                return Ok(());
            }
            Err(why) => return Err(why.into()),
        };
        let record = live.record();
        let Some(tokens) = &record.tokens else {
            return Ok(());
        };
        match provider.renew(&record.user, tokens, now).await {
            Ok(None) => Ok(()),
            // The store finds a session by the name of the sign-in; who is called otherwise signs in anew.
            Ok(Some(vouched)) if vouched.user.name != record.user.name => {
                let provider = &**provider.name();
                info!(
                    provider,
                    "the provider has another name for a session's user"
                );
                audit::ended(By::Refusal, Some(&record.user), live.hash());
                Ok(sessions.end(live, now).await?)
            }
            Ok(Some(vouched)) => Ok(sessions.renew(live, vouched.user, vouched.tokens).await?),
            // What the provider does not say, being away, it can't take back either: who is signed in
            // stays so, and it is asked again soon.
            Err(oidc::Error::Away) => {
                later();
                Ok(())
            }
            Err(why) => {
                let provider = &**provider.name();
                let reason = why.reason();
                info!(provider, reason, "the provider does not renew a session");
                audit::ended(By::Refusal, Some(&record.user), live.hash());
                Ok(sessions.end(live, now).await?)
            }
        }
    }

    /// Asks providers about the sessions that something is open for, which no request would ask about.
    pub async fn ask_about_open_sessions(&self, now: SystemTime) {
        let sessions = &self.shared.sessions;
        let due = sessions.live(|live| {
            Arc::strong_count(live) > 1
                && !live.is_over(now)
                && (live.record().parent.is_some() || self.is_stale(live, now))
        });
        for live in due {
            let parent = live.record().parent.as_ref().map(Parent::id);
            let asked = match parent {
                None => self.ask_again(&live, now).await,
                // Whoever uses what was made of a session uses that session.
                Some(parent) => match sessions.find(&parent, now).await {
                    Ok(Some(parent)) => self.user_of(&parent, now).await.map(drop),
                    Ok(None) => sessions.end(&live, now).await.map_err(Failure::from),
                    Err(why) => Err(why.into()),
                },
            };
            if let Err(why) = asked {
                error!(reason = why.reason(), "a session can't be renewed");
            }
        }
    }

    /// Ends the sessions in memory whose account is gone or has another password by now, and tokens of
    /// the gate's own that are gone or changed, and with them what is open for them. To be called after a
    /// reload; others end at their next request.
    ///
    /// # Errors
    /// [`Failure::Store`] if the store may still have some; here they are over all the same.
    pub async fn end_orphans(&self, now: SystemTime) -> Result<usize, Failure> {
        self.end_orphaned_tokens();
        let orphans = self
            .shared
            .sessions
            .live(|live| self.as_of_now(live).is_none());
        for live in &orphans {
            let user = live.user();
            audit::ended(By::Account, Some(&user), live.hash());
            self.shared.sessions.end(live, now).await?;
        }
        Ok(orphans.len())
    }

    /// The user of a session in memory, as of now.
    pub fn known_now(&self, live: &Live) -> Option<Arc<User>> {
        let parent = live
            .record()
            .parent
            .as_ref()
            .map(|parent| parent.id().hash());
        match parent.and_then(|parent| self.shared.sessions.in_memory(parent)) {
            Some(parent) => self.as_of_now(&parent),
            None => self.as_of_now(live),
        }
    }

    /// A user who has proved who they are with each request, as of now: none where their account or
    /// method is gone.
    pub fn still_known(&self, user: &Arc<User>) -> Option<Arc<User>> {
        let passwords = match self.methods.get(&user.provider) {
            Some(Method::Passwords(passwords)) => passwords,
            Some(Method::Tokens(_) | Method::Introspection(_) | Method::People(_)) => {
                return Some(Arc::clone(user));
            }
            // What stands for one of these ends with it.
            None if *user.provider == *TOKENS => return Some(Arc::clone(user)),
            None if *user.provider == *LOCAL => &self.local,
            None => return None,
        };
        passwords.user(&user.name, user.signed_in_at)
    }

    fn end_orphaned_tokens(&self) {
        let mut standing = self
            .shared
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known: HashSet<_> = self.standing.values().map(|one| one.fingerprint).collect();
        standing.retain(|fingerprint, live| {
            let stays = known.contains(fingerprint);
            if !stays {
                live.finish();
            }
            stays
        });
    }

    /// Groups and address are read anew at each request, so that taking one away takes effect
    /// (SECURITY.md J8).
    fn as_of_now(&self, live: &Live) -> Option<Arc<User>> {
        let record = live.record();
        let user = &record.user;
        if *user.provider != *LOCAL {
            // What its provider says by now is in the session already.
            let provider = self.provider(&user.provider)?;
            return (provider.fingerprint() == record.proof).then(|| Arc::clone(user));
        }
        let account = self.local.accounts.get(&user.name)?;
        if *account.fingerprint() != record.proof {
            return None;
        }
        if account.groups == user.groups && account.email == user.email {
            return Some(Arc::clone(user));
        }
        let (groups, email) = (account.groups.clone(), account.email.clone());
        Some(Arc::new(User {
            groups,
            email,
            ..User::clone(user)
        }))
    }
}
