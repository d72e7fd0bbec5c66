//! The way of a request. The order is this file; each stage is one file beside it.
//!
//! Every stage takes the proof of the one before and makes its own, with private fields, so that a
//! stage left out or swapped does not compile:
//!
//! ```compile_fail
//! // Only `request_headers::clean` makes an `Outbound`, and it wants a `Grant`.
//! let outbound = portcullis::pipeline::request_headers::Outbound {};
//! ```
//! ```compile_fail
//! // Only `access::decide` makes a `Grant`.
//! let grant = portcullis::pipeline::access::Grant {};
//! ```
//! ```compile_fail
//! // Only `verify::question` makes a `Question`, of a proxy that may ask.
//! let question = portcullis::pipeline::verify::Question {};
//! ```

pub mod route;
pub mod network;
pub mod rate;
pub mod cors;
pub mod sign_in;
pub mod user_rate;
pub mod standing;
pub mod access;
pub mod request_headers;
pub mod forward;
pub mod response_headers;
pub mod portal;
pub mod verify;
pub mod resource;

pub use response_headers::Passed;

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::backend::pool::Pools;
use crate::body::Body;
use crate::caller::Caller;
use crate::identity::Identity;
use crate::pure::head::Head;
use crate::pure::identity::User;
use crate::record::Record;
use crate::record::stage::{ACCESS, FORWARD, RATE, SIGN_IN};
use crate::refusal::Refusal;
use crate::response::Response;
use crate::session::Sessions;

/// The tables of a policy file in force for one host and path, in the order of the stages.
#[derive(Debug)]
pub struct Rules {
    /// Who may knock.
    pub network: network::Rule,
    /// How often.
    pub rate: rate::Rule,
    /// Which pages of other origins may ask.
    pub cors: Option<Arc<cors::Rule>>,
    /// How they prove who they are.
    pub sign_in: sign_in::Rule,
    /// Which of them may pass.
    pub access: access::Rule,
    /// What the backend may learn.
    pub request_headers: Arc<request_headers::Rule>,
    /// Where it goes.
    pub backends: Arc<forward::Rule>,
    /// What the client may learn.
    pub response_headers: Arc<response_headers::Rule>,
}

/// The configuration in force: a request keeps the one it began with, a reload swaps it whole.
#[derive(Debug)]
pub struct Gate {
    /// The applications.
    pub routes: route::Table<Rules>,
    /// Who can be known, and how.
    pub identity: Arc<Identity>,
    /// How often each has asked.
    pub rates: Arc<rate::Cells>,
    /// What only the gateway may say, on any route.
    pub reserved: Arc<request_headers::ReservedNames>,
    /// What backends are told, signed.
    pub assertion: request_headers::Assertion,
    /// Which proxies may ask about requests that they were sent.
    pub verify: Option<verify::Rule>,
    /// What tells open exchanges of the configurations after this one.
    pub in_force: Arc<InForce>,
    /// Which configuration of this process it is.
    pub number: u64,
}

/// The configuration that is in force by now, for what was let through by one before.
#[derive(Debug, Default)]
pub struct InForce(OnceLock<Weak<ArcSwap<Gate>>>);

impl InForce {
    /// Looks at `gate` from now on; once for a process.
    pub fn follow(&self, gate: &Arc<ArcSwap<Gate>>) {
        let _ = self.0.set(Arc::downgrade(gate));
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        Some(self.0.get()?.upgrade()?.load_full())
    }
}

impl standing::Law for InForce {
    fn epoch(&self) -> u64 {
        let Some(gate) = self.0.get().and_then(Weak::upgrade) else {
            return 0;
        };
        let gate = gate.load();
        gate.number
            .wrapping_add(gate.identity.shared().sessions().changes())
    }

    fn allows(&self, ground: &standing::Ground) -> bool {
        let Some(gate) = self.gate() else {
            return false;
        };
        let Some(app) = gate.app(&ground.app) else {
            return false;
        };
        let rules = app.rules_at(&ground.path);
        let session = ground.session.as_ref().filter(|live| live.is_in_store());
        let user = match (session, &ground.user) {
            (Some(live), _) => gate.identity.known_now(live),
            (None, Some(user)) => gate.identity.still_known(user),
            (None, None) => None,
        };
        if ground.user.is_some() && user.is_none() {
            return false;
        }
        let in_session = session.is_some();
        let takes = |user: &Arc<User>| rules.sign_in.takes(&user.provider, in_session);
        user.as_ref().is_none_or(takes)
            && rules.network.lets(ground.client)
            && rules.access.still_allows(ground, user.as_deref())
    }
}

impl Gate {
    /// The application with a name.
    pub fn app(&self, name: &str) -> Option<&Arc<route::App<Rules>>> {
        self.routes.apps().iter().find(|app| *app.name == *name)
    }

    fn sessions(&self) -> &Sessions {
        self.identity.shared().sessions()
    }
}

/// When a request began, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For what has a date.
    pub wall: SystemTime,
    /// For rates: since the process began.
    pub uptime: Duration,
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a stage took is what the log wants to know"
)]
fn clock() -> Instant {
    Instant::now()
}

/// Takes a request through the stages.
///
/// # Errors
/// The refusal of the first stage that did not let it pass.
#[rustfmt::skip]
pub async fn handle(
    gate: &Gate, pools: &Pools, caller: Caller<'_>, head: Head, body: Body, now: Now, seen: &mut Record,
) -> Result<Passed, Refusal> {
    let Caller { conn, asked, early } = caller;
    let at       = route::find(&gate.routes, conn, &head, seen)?;
    let rules    = at.rules();
    let page     = portal::page(&head);
    let cors     = rules.cors.as_deref().filter(|_| page.is_none());
    seen.readers = cors::readers(cors, &head);
    let client   = network::admit(&rules.network, conn, &head.headers, seen)?;
    let counted  = rate::admit(&rules.rate, &gate.rates, client, now.uptime)?;
    let permit   = rate::admit_everywhere(&rules.rate, gate.sessions(), counted).await?;                     seen.passed(RATE, clock());
    if let Some(page) = page {
        let methods = portal::Methods::of(at.all_rules().map(|rules| &rules.sign_in));
        return Box::pin(portal::serve(page, methods, &gate.identity, &gate.assertion.signer, permit, caller, &head, body, now.wall, seen)).await;
    }
    if let Some(response) = cors::preflight(cors, &permit, &head)? {
        return Ok(Passed { response, switched: None });
    }
    let of_tokens = || at.all_rules().map(|rules| (&rules.sign_in, &rules.access));
    if let Some(passed) = resource::page(caller, &head, &gate.identity, of_tokens(), seen) {
        return Ok(passed);
    }
    let pointed  = |refusal| resource::pointed(refusal, conn, &head, &gate.identity, of_tokens());
    let subject  = sign_in::identify(&rules.sign_in, &gate.identity, permit, &head, now.wall, seen).await
        .map_err(|why| pointed(why.into()))?;                                                                seen.passed(SIGN_IN, clock());
    let counted  = user_rate::admit(&rules.rate, &gate.rates, subject, now.uptime)?;
    let paced    = user_rate::admit_everywhere(&rules.rate, gate.sessions(), counted).await?;
    let grant    = access::decide(&rules.access, conn, &head, paced, now.wall, seen)
        .map_err(|why| pointed(why.into()))?;                                                                seen.passed(ACCESS, clock());
    let outbound = request_headers::clean(&rules.request_headers, &gate.reserved, &gate.assertion, conn, grant, head, body, seen)?;
    let early    = response_headers::early(&rules.response_headers, &gate.reserved, conn, outbound.authority().to_owned(), early);
    let inbound  = forward::send(&rules.backends, pools, outbound, &early, &gate.in_force, seen).await?;     seen.passed(FORWARD, clock());
    Ok(response_headers::clean(&rules.response_headers, &gate.reserved, conn, asked, at.contact(), inbound, seen))
}

/// Takes a request that another proxy was sent through the same stages, up to where it would be sent
/// on.
///
/// # Errors
/// The refusal of the first stage that did not let it pass.
#[rustfmt::skip]
pub async fn ask(gate: &Gate, question: verify::Question, now: Now, seen: &mut Record) -> Result<Response, Refusal> {
    let (conn, head) = (question.conn().clone(), question.into_head());
    let at       = route::find(&gate.routes, &conn, &head, seen)?;
    let rules    = at.rules();
    let client   = network::admit(&rules.network, &conn, &head.headers, seen)?;
    let counted  = rate::admit(&rules.rate, &gate.rates, client, now.uptime)?;
    let permit   = rate::admit_everywhere(&rules.rate, gate.sessions(), counted).await?;                     seen.passed(RATE, clock());
    verify::as_it_stands(&head, portal::page(&head))?;
    let subject  = sign_in::identify(&rules.sign_in, &gate.identity, permit, &head, now.wall, seen).await?;  seen.passed(SIGN_IN, clock());
    let counted  = user_rate::admit(&rules.rate, &gate.rates, subject, now.uptime)?;
    let paced    = user_rate::admit_everywhere(&rules.rate, gate.sessions(), counted).await?;
    let grant    = access::decide(&rules.access, &conn, &head, paced, now.wall, seen)?;                      seen.passed(ACCESS, clock());
    let outbound = request_headers::clean(&rules.request_headers, &gate.reserved, &gate.assertion, &conn, grant, head, Body::Empty, seen)?;
    Ok(verify::yes(&rules.request_headers, outbound))
}
