//! What the operator asks about sessions, and is told: in lines of JSON where a gate that runs is asked.

use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::observe::audit::{self, By};
use crate::pure::session::Hash;

use super::{Index, Listed, SessionError, Sessions};

/// A user, by who vouches for the name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    /// Who vouches.
    pub provider: String,
    /// The name.
    pub name: String,
}

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Asked {
    /// The sessions of everybody.
    ListAll,
    /// The sessions of these users.
    List(Vec<Whose>),
    /// That this session ends.
    End(String),
    /// That the sessions of these users end.
    EndAllOf(Vec<Whose>),
}

/// What is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Said {
    /// One session.
    Session(Shown),
    /// That this was all, and how many sessions it was.
    Done(usize),
    /// That it can't be done, and why.
    Failed(String),
}

/// A session as the operator is shown it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// What it is ended by.
    pub hash: String,
    /// The last use, in seconds since 1970.
    pub seen: u64,
    /// Whose it is, and where; none if that can't be read.
    pub of: Option<Of>,
}

/// Whose a session is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Of {
    /// Who vouched for the user.
    pub provider: String,
    /// The user's name.
    pub name: String,
    /// The host that it is for.
    pub host: String,
    /// When they signed in, in seconds since 1970.
    pub created: u64,
    /// The address that signed in.
    pub client: IpAddr,
    /// The browser that signed in, as people call it.
    pub browser: String,
}

impl From<Listed> for Said {
    fn from(listed: Listed) -> Self {
        Self::Session(Shown {
            hash: listed.hash.to_string(),
            seen: listed.seen.0,
            of: listed.summary.map(|summary| Of {
                provider: summary.provider,
                name: summary.name,
                host: summary.host,
                created: summary.created.0,
                client: summary.client,
                browser: summary.browser,
            }),
        })
    }
}

/// Answers what is asked, as the store says it.
///
/// # Errors
/// That of `say`.
pub async fn answer<E>(
    sessions: &Sessions,
    asked: Asked,
    now: SystemTime,
    mut say: impl AsyncFnMut(Said) -> Result<(), E>,
) -> Result<(), E> {
    let last = match work(sessions, asked, now, &mut say).await? {
        Ok(count) => Said::Done(count),
        Err(why) => Said::Failed(why.to_string()),
    };
    say(last).await
}

async fn work<E>(
    sessions: &Sessions,
    asked: Asked,
    now: SystemTime,
    say: &mut impl AsyncFnMut(Said) -> Result<(), E>,
) -> Result<Result<usize, SessionError>, E> {
    let mut count: usize = 0;
    match asked {
        Asked::ListAll => {
            let mut from = None;
            loop {
                let (listed, next) = match sessions.page(from, now).await {
                    Ok(page) => page,
                    Err(why) => return Ok(Err(why)),
                };
                for one in listed {
                    count = count.saturating_add(1);
                    say(one.into()).await?;
                }
                if next.is_none() {
                    return Ok(Ok(count));
                }
                from = next;
            }
        }
        Asked::List(users) => {
            for whose in users {
                match sessions.list(index(&whose), now).await {
                    Ok(listed) => {
                        for one in listed {
                            count = count.saturating_add(1);
                            say(one.into()).await?;
                        }
                    }
                    Err(why) => return Ok(Err(why)),
                }
            }
        }
        Asked::End(hash) => {
            if let Some(hash) = Hash::parse(hash.as_bytes()) {
                let ended = sessions.end_by_hash(hash, now).await;
                if let Ok(true) = ended {
                    audit::ended(By::Operator, None, hash);
                }
                return Ok(ended.map(usize::from));
            }
        }
        Asked::EndAllOf(users) => {
            for whose in users {
                match sessions.end_all_of(index(&whose), now).await {
                    Ok(ended) => {
                        audit::ended_all(By::Operator, &whose.provider, &whose.name, ended);
                        count = count.saturating_add(ended);
                    }
                    Err(why) => return Ok(Err(why)),
                }
            }
        }
    }
    Ok(Ok(count))
}

fn index(whose: &Whose) -> Index<'_> {
    Index::User {
        provider: &whose.provider,
        name: &whose.name,
    }
}
