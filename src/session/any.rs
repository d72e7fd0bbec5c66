//! The store that the configuration names: one file, or Redis.

use std::time::Duration;

use crate::pure::session::{Hash, Seconds};
use crate::pure::ticket::Purpose;

use super::embedded::Store as File;
use super::redis::Store as Servers;
use super::store::{Cursor, Index, IndexKey, New, Page, Row, StoreError};

/// A store of sessions and tickets.
pub enum Store {
    /// In one file, which this gate alone has open.
    Embedded(File),
    /// In Redis or Valkey, which several gates share.
    Redis(Servers),
}

impl Store {
    /// How sessions are found that have something in common.
    pub fn key(&self, index: Index<'_>) -> IndexKey {
        match self {
            Self::Embedded(store) => store.key(index),
            Self::Redis(store) => store.key(index),
        }
    }

    /// The session known by `hash`.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn load(&self, hash: Hash) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Embedded(store) => store.load(hash).await,
            Self::Redis(store) => store.load(hash).await,
        }
    }

    /// Which sessions there are of an index.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn of(&self, key: IndexKey) -> Result<Vec<Hash>, StoreError> {
        match self {
            Self::Embedded(store) => store.of(key).await,
            Self::Redis(store) => store.of(key).await,
        }
    }

    /// A page of all sessions there are.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn page(&self, from: Option<Cursor>) -> Result<Page, StoreError> {
        match self {
            Self::Embedded(store) => store.page(from).await,
            Self::Redis(store) => store.page(from).await,
        }
    }

    /// Keeps a new session, and answers with the sessions that ended for it.
    ///
    /// # Errors
    /// Why it is not kept.
    pub async fn create(&self, new: New) -> Result<Vec<Hash>, StoreError> {
        match self {
            Self::Embedded(store) => store.create(new).await,
            Self::Redis(store) => store.create(new).await,
        }
    }

    /// Ends a session; answers whether there was one.
    ///
    /// # Errors
    /// Why it may still be there.
    pub async fn remove(&self, hash: Hash) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => store.remove(hash).await,
            Self::Redis(store) => store.remove(hash).await,
        }
    }

    /// Ends every session of an index, and answers which.
    ///
    /// # Errors
    /// Why they may still be there.
    pub async fn remove_all(&self, key: IndexKey) -> Result<Vec<Hash>, StoreError> {
        match self {
            Self::Embedded(store) => store.remove_all(key).await,
            Self::Redis(store) => store.remove_all(key).await,
        }
    }

    /// Keeps another record of a session; answers whether there still is one.
    ///
    /// # Errors
    /// Why the record before may still be there.
    pub async fn replace(&self, hash: Hash, sealed: Vec<u8>) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => store.replace(hash, sealed).await,
            Self::Redis(store) => store.replace(hash, sealed).await,
        }
    }

    /// Keeps what a ticket stands for until it ends; answers whether the ticket is new. What it is known
    /// by says its purpose, too: a store may go without.
    ///
    /// # Errors
    /// Why it may not be kept.
    pub async fn keep(
        &self,
        purpose: Purpose,
        ticket: [u8; 32],
        value: Vec<u8>,
        now: Seconds,
        ends: Seconds,
    ) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => store.keep(purpose, ticket, value, now, ends).await,
            Self::Redis(store) => store.keep(ticket, value, now, ends).await,
        }
    }

    /// What a ticket stands for; it may be asked again.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn peek(
        &self,
        purpose: Purpose,
        ticket: [u8; 32],
        now: Seconds,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Embedded(store) => store.peek(purpose, ticket, now).await,
            Self::Redis(store) => store.peek(ticket).await,
        }
    }

    /// What a ticket stands for, which from now on is nothing.
    ///
    /// # Errors
    /// Why the store can't say.
    pub async fn take(
        &self,
        purpose: Purpose,
        ticket: [u8; 32],
        now: Seconds,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Embedded(store) => store.take(purpose, ticket, now).await,
            Self::Redis(store) => store.take(ticket).await,
        }
    }

    /// Removes some of what is over, where the store does not do so itself; answers how many sessions.
    ///
    /// # Errors
    /// Why they are still there.
    pub async fn prune(&self, now: Seconds) -> Result<usize, StoreError> {
        match self {
            Self::Embedded(store) => store.prune(now).await,
            Self::Redis(_) => Ok(0),
        }
    }

    /// Notes the last use of a session; answers whether it may be there some seconds from now.
    pub fn touch(&self, hash: Hash, seen: Seconds, idle: Duration) -> bool {
        match self {
            Self::Embedded(store) => store.touch(hash, seen, idle),
            Self::Redis(store) => store.touch(hash, seen, idle),
        }
    }
}
