//! `policies/tests/*.toml`: what the policies are expected to say, held to before every reload.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Method;

use crate::explain::{self, Question};
use crate::identity::accounts::LOCAL;
use crate::identity::provider::{Methods, named};
use crate::pipeline::{Rules, access, network, route};
use crate::pure::certificate::Name;
use crate::pure::connection::ClientCertificate;
use crate::pure::identity::{Claims, User};
use crate::pure::table::{Key, Table, nearest};
use crate::pure::target::Oddities;
use crate::pure::unit;
use crate::refusal::Refusal;

const fn key(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        doc,
    }
}

/// The file's own keys.
pub const KEYS: &[Key] = &[key(
    "test",
    "tables",
    "",
    "One request and what is to become of it.",
)];

/// `[[test]]`.
pub const TEST: &[Key] = &[
    key("name", "text", "the URL", "What it shows."),
    key(
        "url",
        "URL",
        "none: required",
        "What is asked for, such as `https://wiki.example.com/admin`.",
    ),
    key("method", "method", "GET", "The method."),
    key("from", "address", "192.0.2.1", "The client."),
    key("user", "name", "nobody", "Who is signed in."),
    key(
        "provider",
        "name of a method",
        "local",
        "What vouches for the user.",
    ),
    key("groups", "list of groups", "none", "The user's groups."),
    key("email", "address", "none", "The user's e-mail address."),
    key(
        "claims",
        "table of lists",
        "none",
        "The user's claims: `claims = { department = [\"research\"] }`; a name with dots is taken as it stands.",
    ),
    key(
        "client_certificate",
        "list of names",
        "none",
        "The names of the certificate that the client shows, as `client_certificates` in `[access]` has them.",
    ),
    key(
        "signed_in_ago",
        "duration",
        "0s",
        "How long ago the user signed in.",
    ),
    key(
        "expect",
        "`allow`, `sign-in` or `refuse`, or a reason",
        "none: required",
        "What is to become of it; a reason such as `access.denied` holds it to one refusal.",
    ),
    key(
        "would_refuse",
        "reason, or `nothing`",
        "not asked",
        "What a `report_only` rule is to say of a request that passes, such as `access.denied`.",
    ),
];

/// One test.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// What it shows.
    pub name: String,
    /// The file and line.
    pub place: (Arc<str>, u32),
    question: Question,
    signed_in_ago: Duration,
    expect: String,
    would_refuse: Option<String>,
}

/// Reads a file of tests; `methods` are the sign-in methods that there are.
pub fn read(file: &Table, methods: &Methods) -> Vec<Expectation> {
    let tests = file.tables("test", TEST);
    tests
        .iter()
        .filter_map(|table| test(table, methods))
        .collect()
}

/// What an expectation can be held to: the words, and the reasons that rules alone can give. What
/// depends on a credential or on what came before, such as `rate.per_client`, is no reason of these.
fn outcomes() -> Vec<&'static str> {
    let refusals: [Refusal; 8] = [
        route::Refused::UnknownHost.into(),
        network::Refused::Denied.into(),
        network::Refused::NotAllowed.into(),
        access::Refused::Nobody { as_whom: None }.into(),
        access::Refused::SignedOut.into(),
        access::Refused::Denied {
            as_whom: None,
            missing: Vec::new(),
        }
        .into(),
        access::Refused::Method {
            as_whom: None,
            missing: Vec::new(),
        }
        .into(),
        access::Refused::Scope {
            as_whom: None,
            missing: Vec::new(),
            scopes: Vec::new(),
        }
        .into(),
    ];
    let odd = Oddities::keys()
        .map(|(_, one)| one)
        .chain([Oddities::HIDDEN_DOT_SEGMENT])
        .filter_map(|one| one.refused_by(Oddities::NONE));
    ["allow", "sign-in", "refuse"]
        .into_iter()
        .chain(refusals.map(|refusal| refusal.reason))
        .chain(odd)
        .collect()
}

fn outcome(text: &str) -> Result<String, String> {
    let known = outcomes();
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(match nearest(text, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected one of `{}`", known.join("`, `")),
    })
}

/// What a rule that is tried only can say.
fn tried(text: &str) -> Result<String, String> {
    let again = access::Again {
        within: None,
        acr: Vec::new(),
        sign_in_page: false,
    };
    let stale = access::Refused::Stale(again.clone()).reason();
    let weak = access::Refused::Weak(again).reason();
    match text {
        "nothing" => Ok(text.to_owned()),
        text if text == stale || text == weak => Ok(text.to_owned()),
        text if text.starts_with("access.") => outcome(text),
        _ => Err("expected a reason such as `access.denied`, or `nothing`".to_owned()),
    }
}

fn test(table: &Table, methods: &Methods) -> Option<Expectation> {
    for (key, expected) in [
        ("url", "what is asked for"),
        ("expect", "`allow`, `sign-in`, `refuse` or a reason"),
    ] {
        if !table.has(key) {
            table.missing(key, expected);
        }
    }
    for key in ["provider", "groups", "email", "claims", "signed_in_ago"] {
        if table.has(key) && !table.has("user") {
            table.problem(
                key,
                format!("`{key}` is of a `user`, and there is none"),
                None,
            );
        }
    }
    let address = |text: &str| {
        text.parse()
            .map_err(|_| "expected an IP address".to_owned())
    };
    let method = |text: &str| {
        Method::from_bytes(text.as_bytes()).map_err(|_| "expected a method".to_owned())
    };
    let text = |text: &str| Ok(Arc::<str>::from(text));
    let provider = |text: &str| Ok(named(text, methods)?.0);
    let expect = table.value("expect", outcome);
    let would_refuse = table.value("would_refuse", tried);
    let (tls, authority, target) = table.value("url", explain::url)?;
    let certificate = table.list("client_certificate", Name::parse);
    if certificate.is_some() && !tls {
        let message = "a certificate is shown under TLS, and the URL is `http`";
        table.problem("client_certificate", message, None);
    }
    let user = table.value("user", text).map(|name| {
        Arc::new(User {
            name,
            provider: table
                .value("provider", provider)
                .unwrap_or_else(|| LOCAL.into()),
            email: table.value("email", text),
            groups: table.list("groups", text).unwrap_or_default(),
            claims: Arc::new(claims(table)),
            signed_in_at: SystemTime::UNIX_EPOCH,
        })
    });
    let url = table.string("url").unwrap_or_default();
    Some(Expectation {
        name: table.string("name").unwrap_or(url),
        place: (table.file(), table.line()),
        question: Question {
            tls,
            authority,
            target,
            method: table.value("method", method).unwrap_or(Method::GET),
            from: table
                .value("from", address)
                .unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
            client_certificate: certificate
                .map(|names| ClientCertificate::with_names(names).into()),
            user,
        },
        signed_in_ago: table
            .value("signed_in_ago", unit::duration)
            .unwrap_or_default(),
        expect: expect?,
        would_refuse,
    })
}

fn claims(table: &Table) -> Claims {
    if !table.has("claims") {
        return Claims::new();
    }
    let claims = table.free_lists("claims").into_iter();
    claims.map(|(name, values)| (name, values.into())).collect()
}

impl Expectation {
    /// What the rules say instead, when it is not what was expected.
    pub fn broken_by(
        &self,
        routes: &route::Table<Rules>,
        started: Instant,
        now: SystemTime,
    ) -> Option<String> {
        let mut question = self.question.clone();
        question.user = question.user.map(|user| {
            let signed_in_at = now.checked_sub(self.signed_in_ago).unwrap_or(now);
            Arc::new(User {
                signed_in_at,
                ..User::clone(&user)
            })
        });
        let (steps, outcome) = explain::explain(routes, &question, started, now);
        let reason = match outcome {
            explain::Outcome::Refuse(reason) => reason,
            explain::Outcome::Allow | explain::Outcome::SignIn => outcome.word(),
        };
        if self.expect == outcome.word() || self.expect == reason {
            let tried = steps
                .iter()
                .find_map(|step| step.tried)
                .unwrap_or("nothing");
            let expected = self.would_refuse.as_deref().filter(|one| *one != tried)?;
            return Some(format!(
                "expected `{expected}` of what is `report_only`, got `{tried}`"
            ));
        }
        let last = steps
            .last()
            .map(|step| step.says.clone())
            .unwrap_or_default();
        Some(format!(
            "expected `{}`, got `{reason}` ({last})",
            self.expect
        ))
    }
}
