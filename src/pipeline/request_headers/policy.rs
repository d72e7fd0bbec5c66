//! `[headers]` as written, in a policy and in `portcullis.toml`.

use std::collections::HashSet;

use http::HeaderName;

use super::reserved::{FieldNames, ReservedNames};
use super::{Identity, Rule, Trace};
use crate::pure::spelling;
use crate::pure::table::{Key, Table};

/// The keys of `[headers]` in a policy, for requests and for responses.
pub const KEYS: &[Key] = &[
    Key {
        name: "identity",
        kind: "list of `\"user\"`, `\"email\"`, `\"groups\"`, `\"assertion\"`",
        default: "the first three",
        doc: "What the backend learns of a signed-in user, in fields of its own. Values are UTF-8 with anything but visible ASCII percent-encoded; groups are joined by `,`. `assertion` states the same, signed and for one request: see [`assertion.md`](assertion.md).",
    },
    Key {
        name: "user",
        kind: "field name",
        default: "that of `portcullis.toml`",
        doc: "The field with the user's name, for a backend that expects another: `X-WEBAUTH-USER`.",
    },
    Key {
        name: "email",
        kind: "field name",
        default: "that of `portcullis.toml`",
        doc: "The field with the user's e-mail address.",
    },
    Key {
        name: "groups",
        kind: "field name",
        default: "that of `portcullis.toml`",
        doc: "The field with the user's groups.",
    },
    Key {
        name: "assertion",
        kind: "field name",
        default: "that of `portcullis.toml`",
        doc: "The field with the signed assertion.",
    },
    Key {
        name: "forwarded",
        kind: "true or false",
        default: "false",
        doc: "Sends `Forwarded` (RFC 7239) beside `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.",
    },
    Key {
        name: "trace",
        kind: "`\"new\"`, `\"keep\"` or `\"off\"`",
        default: "`\"new\"`",
        doc: "`new` begins a trace with each request, by the request's id. `keep` believes a client's `traceparent`, `tracestate` and `baggage`: for clients that are part of the same system.",
    },
    Key {
        name: "allow_names",
        kind: "list of field names",
        default: "none",
        doc: "Names of request fields with other signs than letters, digits and `-` that the backend needs. Backends read `X_Name` and `X-Name` as one, so every other such name is refused.",
    },
    Key {
        name: "trust_client_fields",
        kind: "list of field names",
        default: "none",
        doc: "Names by which gateways and proxies speak to backends (`X-User-Id`, `X-HTTP-Method-Override`), and which this backend is sent as any client writes them.",
    },
    Key {
        name: "mode",
        kind: "`\"strip\"`, `\"allowlist\"` or `\"off\"`",
        default: "`\"strip\"`",
        doc: "Which fields of a response leave: all but those known to give the backend away, or only those known to say nothing of it, or all.",
    },
    Key {
        name: "keep",
        kind: "list of field names, `X-Foo-*` for all that begin so",
        default: "none",
        doc: "Response fields that leave, whatever the mode.",
    },
    Key {
        name: "remove",
        kind: "list of field names, `X-Foo-*` for all that begin so",
        default: "none",
        doc: "Response fields that never leave; it beats `keep`.",
    },
    Key {
        name: "addresses",
        kind: "`\"rewrite\"` or `\"pass\"`",
        default: "`\"rewrite\"`",
        doc: "Whether internal addresses in responses (backends, private networks, `.internal` and such) become the one that the client used.",
    },
    Key {
        name: "external",
        kind: "list of hosts",
        default: "none",
        doc: "Hosts that are to be left in responses though they look internal.",
    },
    Key {
        name: "balancer_cookies",
        kind: "`\"pass\"` or `\"strip\"`",
        default: "`\"pass\"`",
        doc: "Whether cookies of load balancers, which may hold a machine's address, reach the client. Without them such a balancer sends each request where it likes.",
    },
    Key {
        name: "errors",
        kind: "`\"replace\"` or `\"pass\"`",
        default: "`\"replace\"`",
        doc: "Whether the gateway's own page takes the place of what the backend says with a status of 5xx.",
    },
    Key {
        name: "security_fields",
        kind: "true or false",
        default: "true",
        doc: "Sets `X-Content-Type-Options`, `Referrer-Policy` and `X-Frame-Options` where the application does not.",
    },
];

/// The keys of `[headers]` in `portcullis.toml`.
pub const GATEWAY_KEYS: &[Key] = &[
    Key {
        name: "user",
        kind: "field name",
        default: "`X-Portcullis-User`",
        doc: "The field with the user's name.",
    },
    Key {
        name: "email",
        kind: "field name",
        default: "`X-Portcullis-Email`",
        doc: "The field with the user's e-mail address.",
    },
    Key {
        name: "groups",
        kind: "field name",
        default: "`X-Portcullis-Groups`",
        doc: "The field with the user's groups.",
    },
    Key {
        name: "assertion",
        kind: "field name",
        default: "`X-Portcullis-Assertion`",
        doc: "The field with the signed assertion, where a policy asks for it.",
    },
    Key {
        name: "request_id",
        kind: "field name",
        default: "`X-Request-Id`",
        doc: "The field with the request's id.",
    },
    Key {
        name: "backend_fields",
        kind: "path",
        default: "none",
        doc: "A file with more names that give backends away, in the form of the shipped `backend_fields.txt`.",
    },
];

/// Reads the names in `[headers]` of `portcullis.toml`.
pub fn read_names(gateway: Option<&Table>) -> FieldNames {
    let mut names = FieldNames::default();
    let Some(table) = gateway else { return names };
    names.read(table);
    if let Some(name) = table.value("request_id", field_name) {
        names.request_id = name;
    }
    names.report_twins(table);
    names
}

/// Reads what `[headers]` of an application or a path says of requests; what it does not say is as
/// in `base`.
pub fn read(headers: Option<&Table>, base: &Rule) -> Rule {
    let mut rule = base.clone();
    let Some(table) = headers else { return rule };
    rule.names.read(table);
    rule.names.report_twins(table);
    if let Some(parts) = table.list("identity", part) {
        rule.identity = Identity {
            user: parts.contains(&Part::User),
            email: parts.contains(&Part::Email),
            groups: parts.contains(&Part::Groups),
            assertion: parts.contains(&Part::Assertion),
        };
    }
    if let Some(forwarded) = table.boolean("forwarded") {
        rule.forwarded = forwarded;
    }
    if let Some(trace) = table.value("trace", trace) {
        rule.trace = trace;
    }
    if let Some(names) = table.list("allow_names", odd_name) {
        rule.allow_names.extend(names);
    }
    if table.has("trust_client_fields") {
        let reserved = ReservedNames::new([&rule.names]);
        let name = |text: &str| trusted_name(text, reserved.as_ref().map_err(Clone::clone)?);
        rule.trust_client_fields
            .extend(table.list("trust_client_fields", name).unwrap_or_default());
    }
    rule
}

impl Rule {
    /// What holds where a policy says nothing.
    pub fn new(names: FieldNames) -> Self {
        Self {
            names,
            identity: Identity {
                user: true,
                email: true,
                groups: true,
                assertion: false,
            },
            allow_names: HashSet::new(),
            trust_client_fields: HashSet::new(),
            forwarded: false,
            trace: Trace::New,
        }
    }
}

impl FieldNames {
    fn read(&mut self, table: &Table) {
        for (key, name) in [
            ("user", &mut self.user),
            ("email", &mut self.email),
            ("groups", &mut self.groups),
            ("assertion", &mut self.assertion),
        ] {
            if let Some(read) = table.value(key, field_name) {
                *name = read;
            }
        }
    }

    fn report_twins(&self, table: &Table) {
        let named = || self.of_the_user().chain([&self.request_id]);
        let keys = ["user", "email", "groups", "assertion"];
        for (key, name) in keys.into_iter().zip(named()) {
            if table.has(key) && named().filter(|other| *other == name).count() > 1 {
                table.problem(key, "another field of the gateway has this name", None);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    User,
    Email,
    Groups,
    Assertion,
}

fn part(text: &str) -> Result<Part, String> {
    match text {
        "user" => Ok(Part::User),
        "email" => Ok(Part::Email),
        "groups" => Ok(Part::Groups),
        "assertion" => Ok(Part::Assertion),
        _ => Err("expected `user`, `email`, `groups` or `assertion`".to_owned()),
    }
}

fn trace(text: &str) -> Result<Trace, String> {
    match text {
        "new" => Ok(Trace::New),
        "keep" => Ok(Trace::Keep),
        "off" => Ok(Trace::Off),
        _ => Err("expected `new`, `keep` or `off`".to_owned()),
    }
}

/// A name that the gateway may give a field of its own: backends read it in one way, and it means
/// nothing else.
fn field_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    let name = name.filter(|name| spelling::is_plain(name.as_str().as_bytes()));
    let name = name.ok_or("expected a field name of letters, digits and `-`")?;
    if is_taken(name.as_str()) {
        return Err(format!("`{name}` means something else already"));
    }
    Ok(name)
}

/// Whether a folded name has a meaning of its own in a request.
fn is_taken(folded: &str) -> bool {
    const TAKEN: [&str; 26] = [
        "authorization",
        "baggage",
        "connection",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "from",
        "host",
        "http2-settings",
        "keep-alive",
        "origin",
        "proxy",
        "range",
        "referer",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
    ];
    const FAMILIES: [&str; 6] = ["accept", "content-", "if-", "proxy-", "sec-", "cache-"];
    TAKEN.contains(&folded) || FAMILIES.iter().any(|family| folded.starts_with(family))
}

fn odd_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes());
    let name = name.map_err(|_| "expected a field name such as `X_Name`".to_owned())?;
    let folded = spelling::fold(text.as_bytes());
    if spelling::is_plain(text.as_bytes()) {
        return Err("it has only letters, digits and `-`, and needs no leave".to_owned());
    }
    if is_taken(&folded) {
        return Err(format!("backends may read it as `{folded}`"));
    }
    Ok(name)
}

fn trusted_name(text: &str, reserved: &ReservedNames) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes());
    let name = name.map_err(|_| "expected a field name such as `X-User-Id`".to_owned())?;
    let reservation = reserved.of(&name);
    if reservation.is_own() {
        return Err("it is the gateway's own, which no client may send".to_owned());
    }
    if !reservation.family {
        return Err("it is not reserved, and passes anyway".to_owned());
    }
    Ok(name)
}
