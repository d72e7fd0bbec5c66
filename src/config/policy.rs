//! `policies/NAME.toml`: one application, read top to bottom as its requests pass.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::backend::Timeouts;
use crate::backend::pool::{Address, Spec, Tls};
use crate::backend::tls;
use crate::identity::provider::Methods;
use crate::pipeline::forward::{self, Backend};
use crate::pipeline::route::App;
use crate::pipeline::{Rules, access, network, rate, request_headers, response_headers, sign_in};
use crate::pure::backend_url::BackendUrl;
use crate::pure::pattern::{Pattern, fold};
use crate::pure::secret;
use crate::pure::table::{Key, Table};
use crate::pure::target::{Host, Oddities};
use crate::pure::unit;

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
pub const KEYS: &[Key] = &[
    key(
        "host",
        "host or list",
        "none: required",
        "The hosts that clients know the application by.",
    ),
    key(
        "backends",
        "list of URLs",
        "none: required",
        "Where its requests go, in turn: `http://host:port`, `https://host:port`, `unix:/path`, or `whoami`, the built-in one that shows what it receives.",
    ),
    key(
        "contact",
        "text",
        "none",
        "Whom to ask for access; shown to those who are denied.",
    ),
    key(
        "tell_missing",
        "true or false",
        "false",
        "Those who are signed in and denied are told what they lack: that they need to be in one of some groups, say. `[access]` can say otherwise.",
    ),
    key("network", "table", "everybody", "1. Who may knock."),
    key(
        "rate",
        "table",
        "100 requests a second per client",
        "2. How often.",
    ),
    key(
        "sign_in",
        "table",
        "local accounts",
        "3. How they prove who they are.",
    ),
    key(
        "access",
        "`public`, `signed-in` or table",
        "nobody",
        "4. Which of them may pass.",
    ),
    key(
        "headers",
        "table",
        "",
        "5. What the backend and the client may learn.",
    ),
    key(
        "target",
        "table",
        "everything is refused",
        "What two readers may read differently in a path, and this application's backends are trusted to read as the gate does.",
    ),
    key("backend", "table", "", "How backends are reached."),
    key("limits", "table", "", "Bounds on requests."),
    key(
        "path",
        "tables",
        "none",
        "Narrower rules for parts of the application; the most specific one holds.",
    ),
];

/// `[[path]]`.
pub const PATH: &[Key] = &[
    key(
        "prefix",
        "path",
        "",
        "This path and everything below it, by whole segments: `/a` is `/a` and `/a/b`, not `/ab`. Give this or `exact`.",
    ),
    key("exact", "path", "", "This path alone."),
    key(
        "network",
        "table",
        "the application's",
        "As in the application; `deny` adds to it.",
    ),
    key(
        "rate",
        "table",
        "the application's",
        "As in the application; counted by itself.",
    ),
    key(
        "sign_in",
        "table",
        "the application's",
        "As in the application.",
    ),
    key(
        "access",
        "`public`, `signed-in` or table",
        "the application's",
        "In place of the application's; what the application denies stays denied.",
    ),
    key(
        "methods",
        "list of methods",
        "any",
        "Only requests with one of these methods pass.",
    ),
    key(
        "headers",
        "table",
        "the application's",
        "What it does not say is as in the application.",
    ),
    key(
        "limits",
        "table",
        "the application's",
        "As in the application.",
    ),
];

/// `[target]`.
pub const TARGET: &[Key] = &[
    key(
        "allow_encoded_slash",
        "true or false",
        "false",
        "`%2F` stays data in its segment. GitLab and Nextcloud need it; a backend that decodes it sees another path than the rules.",
    ),
    key(
        "allow_backslash",
        "true or false",
        "false",
        "`\\` and `%5C` stay data; Windows backends read them as `/`.",
    ),
    key(
        "allow_control_bytes",
        "true or false",
        "false",
        "`%00` to `%1F` and `%7F` stay data; to some backends `%00` ends the path.",
    ),
    key(
        "allow_encoded_hash",
        "true or false",
        "false",
        "`%23` stays data; a backend that decodes early cuts the path there.",
    ),
    key(
        "resolve_dot_segments",
        "true or false",
        "false",
        "`.` and `..` are resolved before the rules see the path.",
    ),
    key(
        "allow_invalid_encoding",
        "true or false",
        "false",
        "A `%` without two digits is sent as `%25`.",
    ),
    key(
        "allow_double_encoding",
        "true or false",
        "false",
        "`%25` before two digits stays data; a backend that decodes twice sees another path.",
    ),
    key(
        "allow_non_utf8",
        "true or false",
        "false",
        "Bytes that are no UTF-8 stay data.",
    ),
    key(
        "allow_parameters",
        "true or false",
        "false",
        "`;` stays data; Java backends cut the segment there, so that `/admin;x` is `/admin` to them and not to the rules.",
    ),
    key(
        "merge_slashes",
        "true or false",
        "false",
        "`//` becomes `/` before the rules see the path.",
    ),
    key(
        "ignore_case",
        "true or false",
        "false",
        "`[[path]]` rules match in any case of letters, for backends that do.",
    ),
];

/// `[backend]`.
pub const BACKEND: &[Key] = &[
    key(
        "connect",
        "duration",
        "5s",
        "To be connected, the TLS handshake included. Then the next backend is tried.",
    ),
    key(
        "first_byte",
        "duration",
        "60s",
        "From the end of a request to the first byte of its response.",
    ),
    key(
        "idle",
        "duration",
        "5m",
        "Between two reads or writes of content.",
    ),
    key(
        "ca",
        "file",
        "the system's",
        "The authorities to trust for `https` backends, in PEM; nobody else is.",
    ),
    key(
        "server_name",
        "host",
        "the backend's host",
        "The name that a backend's certificate must have.",
    ),
    key(
        "certificate",
        "file",
        "none",
        "The gate's own certificate for backends that ask for one, in PEM.",
    ),
    key("key", "file", "none", "Its key, in PEM."),
];

/// `[limits]` of an application or a path.
pub const LIMITS: &[Key] = &[key(
    "body",
    "size",
    "1GiB",
    "Bytes of content that a request may have. More: 413.",
)];

/// Host and port of a backend.
pub type Origin = (Box<str>, Option<u16>);

/// What policies are read with.
pub struct Context<'a> {
    /// The rule for everybody, with the gateway's trusted proxies.
    pub network: network::Rule,
    /// The sign-in methods that there are.
    pub methods: Methods,
    /// What backends learn where a policy says nothing.
    pub request_headers: request_headers::Rule,
    /// What clients learn where a policy says nothing, of backends with these hosts and ports.
    pub response_headers: &'a dyn Fn(&[Origin]) -> response_headers::Rule,
    /// Reads a file that a policy names.
    pub load: &'a dyn Fn(&str) -> Result<String, String>,
    /// TLS that trusts the system's authorities, made once for all policies: reading a hundred
    /// authorities for each of a thousand files would take seconds.
    pub system_tls: OnceCell<Result<Arc<rustls::ClientConfig>, tls::Error>>,
}

/// The hosts of a policy.
pub fn hosts(table: &Table) -> Vec<Host> {
    if !table.has("host") {
        table.missing(
            "host",
            "the host that clients know the application by, such as `wiki.example.com`",
        );
    }
    let host = |text: &str| {
        Host::parse(text.as_bytes()).map_err(|_| {
            "expected a host without scheme, port or `*`, such as `wiki.example.com`".to_owned()
        })
    };
    let before = table.problems().count();
    let hosts = table.list("host", host).unwrap_or_default();
    if table.has("host") && hosts.is_empty() && table.problems().count() == before {
        table.problem(
            "host",
            "an application without a host can't be reached",
            None,
        );
    }
    hosts
}

/// Reads a policy; what can't be used is among the table's problems, and what stands in its place
/// is never served.
pub fn read(name: &str, table: &Table, context: &Context<'_>) -> App<Rules> {
    let urls = backends(table);
    let internal: Vec<Origin> = urls
        .iter()
        .filter_map(|url| match url {
            BackendUrl::Http(host, port) | BackendUrl::Https(host, port) => {
                Some((host.as_str().into(), Some(*port)))
            }
            BackendUrl::Whoami | BackendUrl::Unix(_) => None,
        })
        .collect();
    let sign_in_table = table.table("sign_in", sign_in::KEYS);
    let mut sign_in = sign_in::Rule::read(sign_in_table.as_ref(), &context.methods, name);
    let target = table.table("target", TARGET);
    let lifted = |key| {
        target
            .as_ref()
            .and_then(|table| table.boolean(key))
            .unwrap_or(false)
    };
    let lifts = Oddities::keys()
        .filter(|(key, _)| lifted(key))
        .fold(Oddities::NONE, |all, (_, one)| all.with(one));
    let ignores_case = lifted("ignore_case");
    let tell_missing = table.boolean("tell_missing").unwrap_or(false);
    let of_access = access::Context {
        methods: &context.methods,
        sign_in_page: sign_in.has_page(),
        lifted: lifts,
        ignore_case: ignores_case,
        tell_missing,
    };
    let access = access::read(table, &of_access);
    sign_in.anonymous = !access.needs_sign_in();
    let headers = table.table("headers", request_headers::KEYS);
    let rules = Rules {
        network: network::read(
            table.table("network", network::KEYS).as_ref(),
            &context.network,
            context.load,
        ),
        rate: rate::read(
            table.table("rate", rate::KEYS).as_ref(),
            name,
            &rate::Rule::usual(name),
        ),
        sign_in,
        access,
        request_headers: Arc::new(request_headers::read(
            headers.as_ref(),
            &context.request_headers,
        )),
        response_headers: Arc::new(response_headers::read(
            headers.as_ref(),
            &(context.response_headers)(&internal),
        )),
        backends: Arc::new(forward::Rule {
            backends: connections(table, &urls, context),
            most_content_bytes: 1 << 30,
            turn: Arc::new(AtomicUsize::new(0)),
        }),
    };
    let rules = Rules {
        backends: limited(table, &rules.backends),
        ..rules
    };
    let mut paths: Vec<(Pattern, Arc<Rules>)> = Vec::new();
    let mut lines = BTreeMap::new();
    for path in table.tables("path", PATH) {
        let Some(pattern) = pattern(&path, lifts) else {
            continue;
        };
        if let Some(line) = lines.insert(one_case(&pattern, ignores_case), path.line()) {
            let key = match pattern {
                Pattern::Prefix(_) => "prefix",
                Pattern::Exact(_) => "exact",
            };
            let message = format!("the `[[path]]` in line {line} has this path already");
            path.problem(key, message, None);
        }
        let rules = path_rules(name, &path, &pattern, &rules, context, &of_access);
        paths.push((pattern, Arc::new(rules)));
    }
    App {
        name: name.into(),
        lifted: lifts,
        ignores_case,
        contact: table.string("contact").map(Arc::from),
        rules: Arc::new(rules),
        paths,
    }
}

/// What two patterns that match the same paths have in common.
fn one_case(pattern: &Pattern, ignores_case: bool) -> (bool, String) {
    let (exact, path) = match pattern {
        Pattern::Exact(path) => (true, path),
        Pattern::Prefix(path) => (false, path),
    };
    let path = if ignores_case {
        fold(path)
    } else {
        path.clone()
    };
    (exact, path)
}

fn path_rules(
    name: &str,
    path: &Table,
    pattern: &Pattern,
    app: &Rules,
    context: &Context<'_>,
    of_access: &access::Context<'_>,
) -> Rules {
    let scope = match pattern {
        Pattern::Exact(at) => format!("{name} = {at}"),
        Pattern::Prefix(at) => format!("{name} {at}"),
    };
    let mut sign_in = match path.table("sign_in", sign_in::KEYS) {
        Some(table) => sign_in::Rule::read(Some(&table), &context.methods, name),
        None => app.sign_in.clone(),
    };
    let of_access = access::Context {
        sign_in_page: sign_in.has_page(),
        ..*of_access
    };
    let access = access::read_path(path, &of_access, &app.access);
    sign_in.anonymous = !access.needs_sign_in();
    let headers = path.table("headers", request_headers::KEYS);
    Rules {
        network: network::read(
            path.table("network", network::KEYS).as_ref(),
            &app.network,
            context.load,
        ),
        rate: rate::read(path.table("rate", rate::KEYS).as_ref(), &scope, &app.rate),
        sign_in,
        access,
        request_headers: Arc::new(request_headers::read(
            headers.as_ref(),
            &app.request_headers,
        )),
        response_headers: Arc::new(response_headers::read(
            headers.as_ref(),
            &app.response_headers,
        )),
        backends: limited(path, &app.backends),
    }
}

fn limited(table: &Table, outer: &Arc<forward::Rule>) -> Arc<forward::Rule> {
    let body = table
        .table("limits", LIMITS)
        .and_then(|limits| limits.value("body", unit::bytes));
    match body {
        None => Arc::clone(outer),
        Some(bytes) => Arc::new(forward::Rule {
            backends: outer.backends.clone(),
            most_content_bytes: bytes,
            turn: Arc::clone(&outer.turn),
        }),
    }
}

/// The path of a `[[path]]`.
fn pattern(table: &Table, lifted: Oddities) -> Option<Pattern> {
    let canonical = |text: &str| Pattern::path(text, lifted);
    match (
        table.value("prefix", canonical),
        table.value("exact", canonical),
    ) {
        (Some(prefix), None) => Some(Pattern::Prefix(prefix)),
        (None, Some(exact)) => Some(Pattern::Exact(exact)),
        (Some(_), Some(_)) => {
            table.problem(
                "exact",
                "a `[[path]]` has `prefix` or `exact`, not both",
                None,
            );
            None
        }
        (None, None) => {
            if !table.has("prefix") && !table.has("exact") {
                table.missing(
                    "prefix",
                    "the path that the rules are about, such as `/admin`",
                );
            }
            None
        }
    }
}

fn backends(table: &Table) -> Vec<BackendUrl> {
    if !table.has("backends") {
        table.missing("backends", "a list such as `[\"http://10.0.0.5:8080\"]`");
        return Vec::new();
    }
    let before = table.problems().count();
    let urls = table
        .list("backends", BackendUrl::parse)
        .unwrap_or_default();
    if urls.is_empty() && table.problems().count() == before {
        table.problem("backends", "there is nowhere to send requests to", None);
    }
    urls
}

fn connections(table: &Table, urls: &[BackendUrl], context: &Context<'_>) -> Vec<Backend> {
    let backend = table.table("backend", BACKEND);
    let time = |key, default: u64| {
        let positive = |text: &str| match unit::duration(text) {
            Ok(Duration::ZERO) => Err("expected more than nothing".to_owned()),
            parsed => parsed,
        };
        backend
            .as_ref()
            .and_then(|table| table.value(key, positive))
            .unwrap_or_else(|| Duration::from_secs(default))
    };
    let timeouts = Timeouts {
        connect: time("connect", 5),
        first_byte: time("first_byte", 60),
        idle: time("idle", 300),
    };
    let server_name = |text: &str| {
        ServerName::try_from(text.to_owned()).map_err(|_| "expected a host name".to_owned())
    };
    let named = backend
        .as_ref()
        .and_then(|table| table.value("server_name", server_name));
    let secure = urls.iter().any(|url| matches!(url, BackendUrl::Https(..)));
    let config = if secure {
        client_config(table, backend.as_ref(), context)
    } else {
        for key in ["ca", "server_name", "certificate", "key"] {
            if let Some(backend) = backend.as_ref().filter(|backend| backend.has(key)) {
                let message = format!("`{key}` is for `https://` backends, and there is none");
                backend.problem(key, message, None);
            }
        }
        None
    };
    let connection = |url: &BackendUrl| {
        Some(match url {
            BackendUrl::Whoami => Backend::Whoami(
                context
                    .request_headers
                    .names
                    .of_the_user()
                    .cloned()
                    .collect(),
            ),
            BackendUrl::Unix(path) => Backend::Http(Arc::new(Spec::new(
                Address::Unix(path.clone()),
                None,
                timeouts,
            ))),
            BackendUrl::Http(host, port) => Backend::Http(Arc::new(Spec::new(
                Address::Tcp(bare(host), *port),
                None,
                timeouts,
            ))),
            BackendUrl::Https(host, port) => {
                let own = ServerName::try_from(bare(host)).ok();
                let Some(server_name) = named.clone().or(own) else {
                    let hint = "say in `[backend]` which `server_name` its certificate has";
                    let message = format!("no certificate can be for `{host}`");
                    table.problem("backends", message, Some(hint.to_owned()));
                    return None;
                };
                let tls = Tls {
                    // Without it there is a problem already, and nothing of this is served.
                    config: Arc::clone(config.as_ref()?),
                    server_name,
                };
                Backend::Http(Arc::new(Spec::new(
                    Address::Tcp(bare(host), *port),
                    Some(tls),
                    timeouts,
                )))
            }
        })
    };
    urls.iter().filter_map(connection).collect()
}

/// A host as resolvers know it: IPv6 without brackets.
fn bare(host: &Host) -> String {
    host.as_str().trim_matches(['[', ']']).to_owned()
}

fn client_config(
    table: &Table,
    backend: Option<&Table>,
    context: &Context<'_>,
) -> Option<Arc<rustls::ClientConfig>> {
    let load = |key: &'static str| {
        let backend = backend?;
        let file = secret::key_file(backend, key)?;
        match (context.load)(&file) {
            Ok(text) => Some(text),
            Err(error) => {
                backend.problem(key, error, None);
                None
            }
        }
    };
    let before = table.problems().count();
    let (ca, certificate, own_key) = (
        load("ca"),
        load("certificate"),
        load("key").map(zeroize::Zeroizing::new),
    );
    if table.problems().count() > before {
        return None;
    }
    let pair = match (&certificate, &own_key) {
        (Some(certificate), Some(key)) => Some((certificate.as_bytes(), key.as_bytes())),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            if let Some(backend) = backend {
                backend.problem("certificate", "`certificate` and `key` go together", None);
            }
            return None;
        }
    };
    let made = if ca.is_none() && pair.is_none() {
        let system = || tls::client_config(None, None);
        context.system_tls.get_or_init(system).clone()
    } else {
        tls::client_config(ca.as_ref().map(String::as_bytes), pair)
    };
    match made {
        Ok(config) => Some(config),
        Err(error) => {
            backend.unwrap_or(table).problem(
                if backend.is_some() { "ca" } else { "backends" },
                format!("TLS to backends can't be set up: {error}"),
                None,
            );
            None
        }
    }
}
