//! Fills a session store: `fill_sessions STORE COOKIES SESSIONS ISSUER CLIENT_ID RECORD`.
//!
//! Makes sessions as sign-in by the provider `corp` does, four of each user, without a refresh token, and
//! writes the value of each cookie to a line of `COOKIES`. `RECORD` says what a session remembers: `bare`,
//! as of a local account; `claims`, those that providers state for the scopes `profile` and `email`;
//! `token`, these and an ID token of 1200 bytes.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use portcullis::identity::oidc;
use portcullis::pure::identity::User;
use portcullis::pure::session::{Lifetimes, Seconds, Tokens};
use portcullis::session::{SessionError, Sessions, SignIn};
use serde_json::json;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Under way at once: enough for several commits, and less than the store lets wait.
const UNDER_WAY: usize = 512;
/// Made before the store is opened anew: fewer than are kept in memory, where one that makes room would
/// have its last use written.
const AT_ONCE: usize = 50_000;
const SESSIONS_PER_USER: usize = 4;
const LIFETIMES: Lifetimes = Lifetimes {
    absolute: Duration::from_secs(24 * 3600),
    idle: Duration::from_secs(24 * 3600),
};
const USER_AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                          Chrome/140.0.0.0 Safari/537.36";

const ID_TOKEN_BYTES: usize = 1200;

struct Provider {
    issuer: String,
    client_id: String,
    proof: [u8; 16],
    is_bare: bool,
    id_token: Option<String>,
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, cookies, count, issuer, client_id, record] = arguments.as_slice() else {
        return Err("STORE COOKIES SESSIONS ISSUER CLIENT_ID RECORD".into());
    };
    let count: usize = count.parse()?;
    let (is_bare, id_token) = match record.as_str() {
        "bare" => (true, None),
        "claims" => (false, None),
        "token" => (false, Some("i".repeat(ID_TOKEN_BYTES))),
        _ => return Err("RECORD is `bare`, `claims` or `token`".into()),
    };
    let provider = Arc::new(Provider {
        proof: oidc::fingerprint(issuer, client_id, ""),
        issuer: issuer.clone(),
        client_id: client_id.clone(),
        is_bare,
        id_token,
    });
    let mut out = BufWriter::new(std::fs::File::create(cookies)?);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for first in (0..count).step_by(AT_ONCE) {
        let sessions = Arc::new(Sessions::open(Path::new(store), LIFETIMES, now)?);
        let last = count.min(first + AT_ONCE);
        for cookie in runtime.block_on(fill(&sessions, &provider, first, last))? {
            writeln!(out, "{}", *cookie)?;
        }
    }
    out.flush()?;
    Ok(())
}

async fn fill(
    sessions: &Arc<Sessions>,
    provider: &Arc<Provider>,
    first: usize,
    last: usize,
) -> Result<Vec<Zeroizing<String>>, Failed> {
    let next = Arc::new(AtomicUsize::new(first));
    let mut workers = JoinSet::new();
    for _ in 0..UNDER_WAY {
        let (sessions, provider) = (Arc::clone(sessions), Arc::clone(provider));
        let next = Arc::clone(&next);
        workers.spawn(async move {
            let mut made = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= last {
                    return Ok(made);
                }
                let (id, _) = sessions
                    .create(provider.vouches_for(number), None, now())
                    .await?;
                made.push(id.to_cookie());
            }
        });
    }
    let mut made = Vec::with_capacity(last - first);
    while let Some(done) = workers.join_next().await {
        let some: Result<_, SessionError> = done?;
        made.append(&mut some?);
    }
    Ok(made)
}

impl Provider {
    /// The sign-in of a session's user, with the claims that providers state.
    fn vouches_for(&self, number: usize) -> SignIn {
        let person = number / SESSIONS_PER_USER;
        let subject = format!("5f0c2a9e-7d41-4b6a-9c3e-{person:012x}");
        let session = format!("b1d2c3e4-5f60-4718-8293-{number:012x}");
        let name = format!("user{person:07}");
        let email = format!("{name}@corp.example");
        let groups = ["engineering", "wiki-editors", "vpn"];
        let at = Seconds::of(now()).0;
        let claims = json!({
            "iss": self.issuer, "aud": self.client_id, "azp": self.client_id, "sub": subject,
            "acr": "1", "auth_time": at,
            "name": format!("Given{person:07} Family"), "given_name": format!("Given{person:07}"),
            "family_name": "Family", "preferred_username": name, "email": email,
            "email_verified": true, "groups": groups,
        });
        let user = User {
            name: name.into(),
            provider: "corp".into(),
            email: Some(email.into()),
            groups: groups.into_iter().map(Arc::from).collect(),
            claims: Arc::new(
                claims
                    .as_object()
                    .filter(|_| !self.is_bare)
                    .cloned()
                    .unwrap_or_default(),
            ),
            signed_in_at: now(),
        };
        SignIn {
            user: Arc::new(user),
            proof: self.proof,
            host: "wiki.corp.example".to_owned(),
            client: [10, 1, 2, 3].into(),
            user_agent: USER_AGENT.to_owned(),
            tokens: (!self.is_bare).then(|| Tokens {
                subject,
                session: Some(session),
                refresh: None,
                id: self.id_token.clone().map(Zeroizing::new),
                checked: Seconds(at),
            }),
            parent: None,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program of its own, which begins with the time of the machine"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
