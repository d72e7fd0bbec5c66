//! What every store of sessions is asked and answers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::pure::seal::Mac;
use crate::pure::session::{Hash, Seconds};

/// Sessions of one user; the one used longest ago ends when there is one more.
pub const MAX_SESSIONS_PER_USER: usize = 64;

/// A session as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The sealed record.
    pub sealed: Vec<u8>,
    /// The last use.
    pub seen: Seconds,
}

/// A session to be kept.
pub struct New {
    /// What it is known by.
    pub hash: Hash,
    /// The sealed record.
    pub sealed: Vec<u8>,
    /// When it ends, whatever happens.
    pub expires: Seconds,
    /// When it was made.
    pub seen: Seconds,
    /// How long it lives unused.
    pub idle: Duration,
    /// Whose it is; of each user there are so many and no more.
    pub user: IndexKey,
    /// What else it is found by.
    pub others: Vec<IndexKey>,
    /// The session that this one takes the place of.
    pub replaces: Option<Hash>,
}

/// What sessions can have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index<'i> {
    /// The user.
    User {
        /// Who vouches for the name.
        provider: &'i str,
        /// The name.
        name: &'i str,
    },
    /// The user as their provider knows them.
    Subject {
        /// The provider.
        provider: &'i str,
        /// `sub`.
        subject: &'i str,
    },
    /// The session at the provider.
    ProviderSession {
        /// The provider.
        provider: &'i str,
        /// `sid`.
        session: &'i str,
    },
    /// The session that they were made of.
    Parent(Hash),
}

impl Index<'_> {
    /// How the store knows it: a keyed hash, so that it lists no names.
    pub fn key(self, mac: &Mac) -> IndexKey {
        IndexKey(match self {
            Self::User { provider, name } => mac.tag(&[provider.as_bytes(), name.as_bytes()]),
            Self::Subject { provider, subject } => {
                mac.tag(&[provider.as_bytes(), b"sub", subject.as_bytes()])
            }
            Self::ProviderSession { provider, session } => {
                mac.tag(&[provider.as_bytes(), b"sid", session.as_bytes()])
            }
            Self::Parent(hash) => mac.tag(&[b"parent", &hash.0, b"", b""]),
        })
    }
}

/// What sessions are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexKey(pub [u8; 32]);

/// How many failures are free, how fast they are forgotten, and how long the next one waits at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leniency {
    /// The number that costs nothing.
    pub free: u32,
    /// The time in which one is forgotten.
    pub leak: Duration,
    /// The longest wait.
    pub longest: Duration,
}

/// Sessions on one page of all there are, and where the next one begins; none is left out that is there
/// all the while, and one may come twice.
pub type Page = (Vec<(Hash, Row)>, Option<Cursor>);

/// Where a page of all sessions begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// Behind this one.
    After(Hash),
    /// Where the servers say.
    At(u64),
}

/// How often something may be done: a bucket that holds so many, and is given one back each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// After how long one more is given, in whole microseconds.
    pub interval: Duration,
    /// How many there are after a rest.
    pub burst: NonZeroU32,
}

impl Pace {
    /// The time after which a bucket is full again, however empty it was.
    pub const fn rest(self) -> Duration {
        self.interval.saturating_mul(self.burst.get())
    }
}

/// Why the store can't say.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// Too much waits already.
    Busy,
    /// The thread that does the work did not answer.
    Gone,
    /// It can't be read or written, for this reason; it is being tried again.
    Broken(Arc<str>),
    /// It can't be reached, which was said when it began.
    Away,
    /// It does not know all that it has.
    NotListed,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => f.write_str("too many requests wait for the session store"),
            Self::Gone => f.write_str("the session store did not answer"),
            Self::Broken(why) => write!(f, "the session store can't be used: {why}"),
            Self::NotListed => {
                f.write_str("a cluster does not list the sessions of everybody; name a user")
            }
            Self::Away => f.write_str("the session store is away"),
        }
    }
}

impl std::error::Error for StoreError {}
