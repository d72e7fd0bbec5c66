//! What an open exchange rests on: its session, and the rules that let it pass.
//!
//! | when | then |
//! |---|---|
//! | the session is over | the exchange ends: `sign_in.session_over` |
//! | the policies, or what is known of the user, have changed, and the request would not pass any more | it ends within a second: `access.no_longer` |
//! | its account or its application is gone | the same |
//! | the sign-in has grown too old since | it goes on: it was fresh when it was asked for |
//!
//! It is not judged anew at each byte, but when something has changed since it was.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::pure::connection::ClientCertificate;
use crate::pure::identity::User;
use crate::session::Live;

/// How soon a change reaches what is open.
const LOOK: Duration = Duration::from_secs(1);

/// What was asked, as far as rules are about it.
#[derive(Debug)]
pub struct Ground {
    /// The application.
    pub app: Arc<str>,
    /// The method.
    pub method: Method,
    /// The canonical path.
    pub path: String,
    /// The client.
    pub client: IpAddr,
    /// The certificate that the client showed.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Who asked.
    pub user: Option<Arc<User>>,
    /// The session that said so.
    pub session: Option<Arc<Live>>,
}

/// The rules in force, whichever they are by now.
pub trait Law: Send + Sync {
    /// Another number whenever a verdict may be another one.
    fn epoch(&self) -> u64;

    /// Whether what was asked may still go on.
    fn allows(&self, ground: &Ground) -> bool;
}

/// Why an open exchange ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallen {
    /// The session is over.
    Session,
    /// It would not be let through any more.
    Law,
}

impl Fallen {
    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Session => "sign_in.session_over",
            Self::Law => "access.no_longer",
        }
    }
}

/// The standing of an open exchange.
pub struct Standing {
    ground: Ground,
    law: Arc<dyn Law>,
    judged: std::cell::Cell<u64>,
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ground.fmt(f)
    }
}

impl Standing {
    /// That of a request that was let through just now.
    pub fn new(ground: Ground, law: Arc<dyn Law>) -> Self {
        let judged = std::cell::Cell::new(law.epoch());
        Self {
            ground,
            law,
            judged,
        }
    }

    /// Why the exchange may not go on, if it may not.
    pub fn fallen(&self) -> Option<Fallen> {
        if self
            .ground
            .session
            .as_ref()
            .is_some_and(|session| session.is_over_now())
        {
            return Some(Fallen::Session);
        }
        let epoch = self.law.epoch();
        if epoch == self.judged.get() {
            return None;
        }
        if !self.law.allows(&self.ground) {
            return Some(Fallen::Law);
        }
        self.judged.set(epoch);
        None
    }

    /// Waits until the exchange may not go on.
    pub async fn falls(&self) -> Fallen {
        let over = async {
            match &self.ground.session {
                Some(session) => session.ended().await,
                None => std::future::pending().await,
            }
        };
        let judged = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Some(fallen) = self.fallen() {
                    return fallen;
                }
            }
        };
        tokio::select! {
            () = over => Fallen::Session,
            fallen = judged => fallen,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Rules {
        epoch: AtomicU64,
        refuses: AtomicBool,
        asked: AtomicU64,
    }

    impl Law for Rules {
        fn epoch(&self) -> u64 {
            self.epoch.load(Ordering::Relaxed)
        }

        fn allows(&self, _: &Ground) -> bool {
            self.asked.fetch_add(1, Ordering::Relaxed);
            !self.refuses.load(Ordering::Relaxed)
        }
    }

    fn standing(rules: &Arc<Rules>) -> Standing {
        let ground = Ground {
            app: "wiki".into(),
            method: Method::GET,
            path: "/".to_owned(),
            client: [127, 0, 0, 1].into(),
            certificate: None,
            user: None,
            session: None,
        };
        let law: Arc<dyn Law> = Arc::<Rules>::clone(rules);
        Standing::new(ground, law)
    }

    #[test]
    fn it_is_judged_anew_when_something_has_changed_and_not_before() {
        let rules = Arc::new(Rules::default());
        let standing = standing(&rules);
        rules.refuses.store(true, Ordering::Relaxed);
        assert_eq!(standing.fallen(), None);
        rules.refuses.store(false, Ordering::Relaxed);
        rules.epoch.store(1, Ordering::Relaxed);
        assert_eq!((standing.fallen(), standing.fallen()), (None, None));
        assert_eq!(rules.asked.load(Ordering::Relaxed), 1);
        rules.refuses.store(true, Ordering::Relaxed);
        rules.epoch.store(2, Ordering::Relaxed);
        assert_eq!(standing.fallen(), Some(Fallen::Law));
        assert_eq!(standing.fallen(), Some(Fallen::Law), "and it stays so");
    }

    #[tokio::test]
    async fn a_change_reaches_who_waits() {
        let rules = Arc::new(Rules::default());
        let standing = standing(&rules);
        rules.epoch.store(1, Ordering::Relaxed);
        rules.refuses.store(true, Ordering::Relaxed);
        let patience = Duration::from_secs(20);
        let fallen = tokio::time::timeout(patience, standing.falls()).await;
        assert_eq!(fallen, Ok(Fallen::Law));
    }
}
