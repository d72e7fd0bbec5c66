//! What the rules say to a request, stage by stage, without sending it anywhere.
//!
//! It asks the same functions as the pipeline; only what needs a secret (the proof of who somebody
//! is) or a history (rates) is taken as said.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{Method, Version};

use crate::pipeline::{Rules, network, route};
use crate::pure::access::{Asked, Verdict};
use crate::pure::connection::{ClientCertificate, Connection, Tls};
use crate::pure::fields::Fields;
use crate::pure::head::{Content, Head};
use crate::pure::identity::User;
use crate::pure::table::Place;
use crate::pure::target::{Authority, Target};
use crate::record::Record;
use crate::refusal::Refusal;

/// A request to ask about.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whether it is `https`.
    pub tls: bool,
    /// The host.
    pub authority: Authority,
    /// The path and query.
    pub target: Target,
    /// The method.
    pub method: Method,
    /// The client.
    pub from: IpAddr,
    /// The certificate that the client shows under TLS.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// Who asks, when somebody is signed in.
    pub user: Option<Arc<User>>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It reaches the backend.
    Allow,
    /// Whoever asks is to sign in first.
    SignIn,
    /// It is refused, for this reason.
    Refuse(&'static str),
}

impl Outcome {
    /// The word that policies' tests use.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::SignIn => "sign-in",
            Self::Refuse(_) => "refuse",
        }
    }
}

/// What one stage says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The stage.
    pub stage: &'static str,
    /// Whether the request passes it.
    pub passes: bool,
    /// What it says.
    pub says: String,
    /// The line that decided.
    pub by: Option<Place>,
    /// Why a rule that is tried only would have refused, when it is such a rule that speaks.
    pub tried: Option<&'static str>,
}

/// Reads `https://host/path`.
///
/// # Errors
/// What was expected.
pub fn url(text: &str) -> Result<(bool, Authority, Target), String> {
    let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => {
            return Err("expected a URL such as `https://wiki.example.com/page`".to_owned());
        }
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end).ok_or("expected a URL")?;
    let authority = Authority::parse(authority.as_bytes())
        .map_err(|_| "expected a host in the URL".to_owned())?;
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    let target = Target::parse(target.as_bytes()).map_err(|_| {
        "expected a path of visible ASCII without `#`; encode anything else".to_owned()
    })?;
    Ok((tls, authority, target))
}

/// Asks stage by stage until one refuses.
pub fn explain(
    routes: &route::Table<Rules>,
    question: &Question,
    started: Instant,
    now: SystemTime,
) -> (Vec<Step>, Outcome) {
    let mut steps = Vec::new();
    let outcome = ask(routes, question, started, now, &mut steps);
    (steps, outcome)
}

fn ask(
    routes: &route::Table<Rules>,
    question: &Question,
    started: Instant,
    now: SystemTime,
    steps: &mut Vec<Step>,
) -> Outcome {
    let mut step = |stage, passes, says: String, by| {
        steps.push(Step {
            stage,
            passes,
            says,
            by,
            tried: None,
        })
    };
    let Question {
        tls,
        authority,
        target,
        method,
        from,
        client_certificate,
        user,
    } = question;
    let peer = SocketAddr::new(*from, 0);
    let name = Arc::from(authority.host.as_str());
    let tls = tls.then_some(Tls {
        server_name: Some(name),
        client_certificate: client_certificate.clone(),
        bound_to_server_name: false,
    });
    let conn = Connection { peer, tls };
    let head = Head {
        method: method.clone(),
        version: Version::HTTP_11,
        authority: authority.clone(),
        target: target.clone(),
        headers: Fields::new(),
        content: Content::None,
        upgrade: None,
        takes_trailers: false,
        expects_continue: false,
        keeps_alive: true,
    };
    let mut seen = Record::new("explain".into(), started, now);
    let at = match route::find(routes, &conn, &head, &mut seen) {
        Ok(at) => at,
        Err(refused) => {
            let reason = Refusal::from(refused).reason;
            step(
                "route",
                false,
                format!("{reason}: {authority}{}", target.path),
                None,
            );
            return Outcome::Refuse(reason);
        }
    };
    step(
        "route",
        true,
        format!("application `{}`, path `{}`", at.app().name, target.path),
        None,
    );
    let rules = at.rules();
    let client = match network::admit(&rules.network, &conn, &head.headers, &mut seen) {
        Ok(client) => client.ip(),
        Err(refused) => {
            let reason = Refusal::from(refused).reason;
            step(
                "network",
                false,
                format!("{reason}: {from}"),
                seen.decider.take(),
            );
            return Outcome::Refuse(reason);
        }
    };
    step("network", true, format!("{client} may knock"), None);
    step(
        "rate",
        true,
        "not asked: it depends on what came before".to_owned(),
        None,
    );
    match user {
        Some(user) => step(
            "sign_in",
            true,
            format!("taken as said: `{}` by `{}`", user.name, user.provider),
            None,
        ),
        None if rules.sign_in.anonymous => {
            step(
                "sign_in",
                true,
                "nobody, which is enough here".to_owned(),
                None,
            );
        }
        None => {
            step(
                "sign_in",
                false,
                "sign_in.no_credential: nobody is signed in".to_owned(),
                None,
            );
            return Outcome::SignIn;
        }
    }
    let asked = Asked {
        user: user.as_deref(),
        method,
        path: &target.path,
        client,
        certificate: conn
            .tls
            .as_ref()
            .and_then(|tls| tls.client_certificate.as_deref()),
        now,
    };
    let verdict = rules.access.verdict(&asked);
    let (by, reason) = rules.access.judge(&asked);
    let reason = reason.err().map(|refused| Refusal::from(refused).reason);
    let says = match (verdict, reason) {
        (Verdict::Denied { why, .. }, Some(reason)) => format!("{reason}: {why}"),
        (Verdict::Denied { .. } | Verdict::Granted { .. }, _) => "may pass".to_owned(),
    };
    step("access", reason.is_none(), says, Some(by));
    match reason {
        None => {
            let tried = rules.access.tried(&asked).map(|(by, why)| {
                let reason = rules.access.refused(why, &asked).reason();
                Step {
                    stage: "access",
                    passes: true,
                    says: format!("report only, would refuse: {reason}: {why}"),
                    by: Some(by.clone()),
                    tried: Some(reason),
                }
            });
            steps.extend(tried);
            Outcome::Allow
        }
        Some("access.stale_sign_in") => Outcome::SignIn,
        Some(reason) => Outcome::Refuse(reason),
    }
}
