//! Programs, by the token that they show with each request.

use std::sync::Arc;
use std::time::SystemTime;

use crate::pure::jwt::{BadToken, Proved, Token};
use crate::pure::machine_token;
use crate::pure::session::Seconds;
use crate::session::Live;

use super::failure::Failure;
use super::introspection::Introspector;
use super::kept::Asker;
use super::machine_tokens::{Scope, TOKENS};
use super::method::{Method, Tokens};
use super::shared::Shared;
use super::verified::Turn;
use super::{Identity, introspection, verified};

/// A program that shows a token of the gate's own.
#[derive(Debug)]
pub struct Machine {
    /// What is open for it ends with this.
    pub live: Arc<Live>,
    /// What its token is for; whoever lets it pass has to look.
    pub scope: Arc<Scope>,
}

impl Identity {
    /// Which program shows a token of the gate's own to `methods`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn by_machine_token(
        &self,
        methods: &[Arc<str>],
        token: &str,
        now: SystemTime,
    ) -> Result<Machine, Failure> {
        if !methods.iter().any(|method| **method == *TOKENS) {
            return Err(Failure::OtherIssuer);
        }
        let found = self.machine_tokens.find(token, now);
        let (id, token) = found.map_err(Failure::MachineToken)?;
        // INVARIANT: each token has what stands for it.
        let standing = self.standing.get(id).ok_or(Failure::NoMethod)?;
        Ok(Machine {
            live: Arc::clone(&standing.live),
            scope: Arc::clone(&token.scope),
        })
    }

    /// Who a bearer token is to `methods`, and until when: those whose issuer it claims try it in turn. One that claims
    /// none of theirs is shown to the issuers that are asked about tokens.
    ///
    /// # Errors
    /// Why it is nobody.
    pub async fn by_token(
        &self,
        methods: &[Arc<str>],
        token: &str,
        now: SystemTime,
    ) -> Result<Arc<Live>, Failure> {
        // The gate's own is nobody else's to see.
        if machine_token::is_ours(token) {
            return Err(Failure::OtherIssuer);
        }
        let (mut stated, mut asked) = (Vec::with_capacity(methods.len()), Vec::new());
        for method in methods.iter().filter(|method| ***method != *TOKENS) {
            match self.methods.get(method) {
                Some(Method::Tokens(tokens)) => {
                    if let Some(program) = self.remembered(tokens, token, now) {
                        return Ok(program);
                    }
                    stated.push(tokens);
                }
                Some(Method::Introspection(introspector)) => asked.push(introspector),
                Some(Method::Passwords(_) | Method::People(_)) | None => {
                    return Err(Failure::NoMethod);
                }
            }
        }
        let read = Token::parse(token);
        let claimed = read.as_ref().ok().and_then(Token::claimed_issuer);
        stated.retain(|tokens| claimed == Some(&tokens.rule.issuer));
        asked.retain(|one| {
            // To whom it can't belong is not shown it.
            let issuer = one.settings.rule.issuer.as_deref();
            claimed.is_none() || issuer.is_none() || claimed == issuer
        });
        let read = match read {
            Ok(read) => Some(read),
            Err(why @ BadToken::TooLong) => return Err(Failure::BadToken(why)),
            Err(why) if asked.is_empty() => return Err(Failure::BadToken(why)),
            Err(_) => None,
        };
        let mut failure = Failure::OtherIssuer;
        if let Some(read) = read.filter(|_| !stated.is_empty()) {
            for tokens in stated {
                match self.check_token(tokens, token, &read, now).await {
                    Ok(program) => return Ok(program),
                    Err(why) => failure = why,
                }
            }
            return Err(failure);
        }
        for introspector in asked {
            match self.introspect(introspector, token, now).await {
                Ok(program) => return Ok(program),
                // That one does not know it says nothing where another can't be asked.
                Err(_) if failure.refusal().is_some() => {}
                Err(why) => failure = Failure::Introspection(why),
            }
        }
        Err(failure)
    }

    /// Who a token is to its issuer; asked by one of all who show it at this moment.
    async fn introspect(
        &self,
        introspector: &Introspector,
        token: &str,
        now: SystemTime,
    ) -> Result<Arc<Live>, introspection::Error> {
        let Shared {
            sessions,
            keys,
            programs,
            not_active,
            under_way,
            ..
        } = &*self.shared;
        let key = keys.credentials().tag(&[
            b"introspection",
            &introspector.fingerprint,
            token.as_bytes(),
        ]);
        let lead = loop {
            if let Some(program) = programs.get(&key, now) {
                return Ok(program);
            }
            if let Some(why) = not_active.get(&key, now) {
                return Err(introspection::Error::Refused(why));
            }
            match under_way.enter(key) {
                Turn::Lead(lead) => break lead,
                Turn::Follow(waiting) => {
                    if verified::told(waiting).await == Some(false) {
                        return Err(introspection::Error::Away);
                    }
                }
            }
        };
        let answer = introspector.ask(token, now).await.map(|active| {
            let until = Seconds::of(now).plus(introspection::KEPT);
            let ends = active.expires.unwrap_or(Seconds(u64::MAX));
            let program = Arc::new(sessions.standing(active.user, key, ends));
            programs.put(key, Arc::clone(&program), until.min(ends), now);
            program
        });
        let known = match &answer {
            Ok(_) => true,
            Err(introspection::Error::Refused(why)) => {
                let until = Seconds::of(now).plus(introspection::KEPT_REFUSED);
                not_active.put(key, *why, until, now);
                true
            }
            Err(introspection::Error::Away | introspection::Error::Busy) => false,
        };
        lead.tell(known);
        answer
    }

    fn remembered(&self, tokens: &Tokens, token: &str, now: SystemTime) -> Option<Arc<Live>> {
        let generation = tokens.keys.current()?.generation;
        self.shared
            .programs
            .get(&self.token_key(tokens, generation, token), now)
    }

    fn token_key(&self, tokens: &Tokens, keys: u64, token: &str) -> verified::Key {
        self.shared.keys.credentials().tag(&[
            b"token",
            &tokens.generation.to_be_bytes(),
            &keys.to_be_bytes(),
            token.as_bytes(),
        ])
    }

    async fn check_token(
        &self,
        tokens: &Tokens,
        token: &str,
        read: &Token<'_>,
        now: SystemTime,
    ) -> Result<Arc<Live>, Failure> {
        let mut keys = match tokens.keys.current() {
            Some(keys) => keys,
            None => {
                let newer = tokens.keys.newer(None, Asker::Anybody, now).await;
                newer.map_err(|_| Failure::NoKeys)?
            }
        };
        let mut proved = read.verify(&tokens.rule, &keys.value, now);
        if matches!(proved, Err(BadToken::UnknownKey))
            && let Ok(newer) = tokens
                .keys
                .newer(Some(keys.generation), Asker::Anybody, now)
                .await
        {
            proved = read.verify(&tokens.rule, &newer.value, now);
            keys = newer;
        }
        let Proved { user, expires } = proved.map_err(Failure::BadToken)?;
        let key = self.token_key(tokens, keys.generation, token);
        let Shared {
            sessions, programs, ..
        } = &*self.shared;
        let program = Arc::new(sessions.standing(user, key, expires));
        programs.put(key, Arc::clone(&program), expires, now);
        Ok(program)
    }
}
