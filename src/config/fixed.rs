//! What a gate takes of its configuration at its start alone, so that a change of it waits for the next.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::gateway::{Admin, Limits, Listener, Log, SessionStore};
use super::verify::Callers;

/// That part of a configuration.
#[derive(Debug)]
pub struct Fixed {
    listeners: Vec<Listener>,
    limits: Limits,
    log: Log,
    admin: Option<Admin>,
    threads: Option<NonZeroUsize>,
    hsts: Option<Duration>,
    store: SessionStore,
    offline: Duration,
    assertion_keys: PathBuf,
    verify: Option<(Vec<SocketAddr>, bool, Option<PathBuf>)>,
}

impl Fixed {
    /// That of this one.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let gateway = &config.gateway;
        Self {
            listeners: gateway.listeners.clone(),
            limits: gateway.limits.clone(),
            log: gateway.log.clone(),
            admin: gateway.admin.clone(),
            threads: gateway.threads,
            hsts: gateway.tls.hsts,
            store: gateway.session.store.clone(),
            offline: gateway.session.offline,
            assertion_keys: gateway.assertion.file.clone(),
            verify: config.verify.as_ref().map(|verify| {
                let ca = match &verify.callers {
                    Callers::Certificates(file) => Some(file.clone()),
                    Callers::Key(_) | Callers::Networks(_) => None,
                };
                (verify.addresses.clone(), verify.tls, ca)
            }),
        }
    }

    /// What is said otherwise in `other`, as the file names it.
    #[must_use]
    pub fn differs_in(&self, other: &Self) -> Vec<&'static str> {
        let parts = [
            ("[[listen]]", self.listeners == other.listeners),
            ("[limits]", self.limits == other.limits),
            ("[log]", self.log == other.log),
            ("[admin]", self.admin == other.admin),
            ("threads", self.threads == other.threads),
            ("[tls] hsts", self.hsts == other.hsts),
            (
                "[session] store, [session.redis]",
                self.store == other.store,
            ),
            ("[session] offline", self.offline == other.offline),
            (
                "[assertion] file",
                self.assertion_keys == other.assertion_keys,
            ),
            ("[verify]", self.verify == other.verify),
        ];
        parts
            .into_iter()
            .filter_map(|(name, is_same)| (!is_same).then_some(name))
            .collect()
    }
}
