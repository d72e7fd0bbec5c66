//! People and programs, by a name and a password.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::pure::identity::{User, is_name};
use crate::pure::session::Seconds;
use crate::session::SignIn;

use super::failure::Failure;
use super::method::{Method, Passwords};
use super::password::{Busy, MAX_PASSWORD_BYTES};
use super::provider::BASIC;
use super::regulation::Attempt;
use super::verified::Turn;
use super::{Identity, SignedIn, verified};

/// How long a verified password need not be verified again.
const PASSWORD_SECONDS: u64 = 300;

/// Somebody at the sign-in page.
pub struct AtSignIn<'a> {
    /// The name they gave.
    pub name: &'a str,
    /// The password they gave.
    pub password: &'a Zeroizing<String>,
    /// Where they sign in.
    pub host: &'a str,
    /// Where they are.
    pub client: IpAddr,
    /// The browser they use, as it names itself.
    pub user_agent: &'a str,
    /// The session cookie they have already: never adopted, always ended.
    pub presented: Option<&'a str>,
}

impl Identity {
    /// Signs somebody in to a new session by a local account. A session they had ends.
    ///
    /// # Errors
    /// Why there is no session.
    pub async fn sign_in_with_password(
        &self,
        asked: AtSignIn<'_>,
        now: SystemTime,
    ) -> Result<SignedIn, Failure> {
        let AtSignIn {
            name,
            password,
            host,
            client,
            user_agent,
            presented,
        } = asked;
        self.check_password(&[&self.local], name, password, client, now, false)
            .await?;
        let user = self.local.user(name, now).ok_or(Failure::WrongPassword)?;
        let account = self
            .local
            .accounts
            .get(name)
            .ok_or(Failure::WrongPassword)?;
        let sign_in = SignIn {
            user,
            proof: *account.fingerprint(),
            host: host.to_owned(),
            client,
            user_agent: user_agent.to_owned(),
            tokens: None,
            parent: None,
        };
        self.sign_in(sign_in, presented, now).await
    }

    /// Who a name and password are to `methods`: the first of them that knows the name decides.
    ///
    /// # Errors
    /// Why they are nobody.
    pub async fn by_password(
        &self,
        methods: &[Arc<str>],
        name: &str,
        password: &Zeroizing<String>,
        client: IpAddr,
        now: SystemTime,
    ) -> Result<Arc<User>, Failure> {
        let mut stated = Vec::with_capacity(methods.len());
        for method in methods {
            stated.push(self.passwords(method)?);
        }
        self.check_password(&stated, name, password, client, now, true)
            .await
    }

    pub(super) fn passwords(&self, method: &str) -> Result<&Passwords, Failure> {
        if method == BASIC {
            return Ok(&self.local);
        }
        match self.methods.get(method) {
            Some(Method::Passwords(passwords)) => Ok(passwords),
            Some(Method::Tokens(_) | Method::People(_) | Method::Introspection(_)) | None => {
                Err(Failure::NoMethod)
            }
        }
    }

    /// Verifies a password once for all who send it at this moment; counts failures. The first of
    /// the methods `asked` that knows the name decides.
    async fn check_password(
        &self,
        asked: &[&Passwords],
        name: &str,
        password: &Zeroizing<String>,
        client: IpAddr,
        now: SystemTime,
        may_remember: bool,
    ) -> Result<Arc<User>, Failure> {
        if !is_name(name) || password.len() > MAX_PASSWORD_BYTES {
            return Err(Failure::WrongPassword);
        }
        let passwords = Passwords::that_decides(asked, name).ok_or(Failure::NoMethod)?;
        let mac = self.shared.keys.credentials();
        let failures = self.shared.keys.failures();
        let attempt = Attempt::new(failures, &passwords.provider, name, client);
        // Before the memory is asked: it would tell right guesses from wrong ones.
        self.shared.regulation.check(&attempt, now)?;
        let key = mac.tag(&[
            b"password",
            &passwords.generation.to_be_bytes(),
            name.as_bytes(),
            password.as_bytes(),
        ]);
        if may_remember && let Some(user) = self.shared.verified.get(&key, now) {
            return Ok(user);
        }
        let lead = loop {
            match self.shared.under_way.enter(key) {
                Turn::Lead(lead) => break lead,
                Turn::Follow(waiting) => match verified::told(waiting).await {
                    Some(true) => return passwords.user(name, now).ok_or(Failure::WrongPassword),
                    Some(false) => return Err(Failure::WrongPassword),
                    None => {}
                },
            }
        };
        let (regulation, sessions) = (&self.shared.regulation, &self.shared.sessions);
        regulation.begin_everywhere(&attempt, sessions, now).await?;
        let right = match self.verify(asked, name, password).await {
            Ok(right) => right,
            Err(busy) => {
                regulation.withdrawn_everywhere(&attempt, sessions);
                return Err(busy.into());
            }
        };
        let user = passwords.user(name, now).filter(|_| right);
        if let Some(user) = &user {
            regulation.succeeded_everywhere(&attempt, sessions);
            let until = Seconds::of(now).plus(Duration::from_secs(PASSWORD_SECONDS));
            self.shared.verified.put(key, Arc::clone(user), until, now);
        }
        lead.tell(user.is_some());
        user.ok_or(Failure::WrongPassword)
    }

    /// An unknown name takes as long as a known one, and is wrong (SECURITY.md T1).
    pub(super) async fn verify(
        &self,
        asked: &[&Passwords],
        name: &str,
        password: &Zeroizing<String>,
    ) -> Result<bool, Busy> {
        let (known, stored) = Passwords::hash_for(asked, name, &self.shared.keys);
        let Some(stored) = stored else {
            return Ok(false);
        };
        Ok(self.shared.pool.verify(stored, password.clone()).await? && known)
    }
}
