//! `portcullis.toml`: what belongs to the gateway and not to one application.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::pure::cidr::{self, IpNetwork};
use crate::pure::redis_url::RedisUrl;
use crate::pure::secret::{self, SecretSource};
use crate::pure::table::{Key, Problems, Table};
use crate::pure::target::Authority;
use crate::pure::{rotation, unit};

/// The file's name, below the configuration's directory.
pub const FILE: &str = "portcullis.toml";

/// Everything the file says.
#[derive(Debug)]
pub struct Gateway {
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// Certificates.
    pub tls: Tls,
    /// Local accounts.
    pub accounts: PathBuf,
    /// The gate's own tokens.
    pub tokens: PathBuf,
    /// Sessions of browsers.
    pub session: Session,
    /// Signed identity.
    pub assertion: Assertion,
    /// Bounds on clients.
    pub limits: Limits,
    /// What is written where.
    pub log: Log,
    /// The operator's listener.
    pub admin: Option<Admin>,
    /// Runtimes, each on a thread of its own; cores when not set.
    pub threads: Option<NonZeroUsize>,
}

/// One listening address or several of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub addresses: Vec<SocketAddr>,
    /// TLS, or plain HTTP.
    pub tls: bool,
    /// Only redirect, to https on this port.
    pub redirect_to_https: Option<u16>,
    /// Peers that begin with a PROXY protocol header.
    pub proxy_protocol_from: Vec<IpNetwork>,
    /// Client certificates.
    pub client_certificates: Option<ClientCertificates>,
}

/// Whose client certificates are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities, in PEM.
    pub ca: PathBuf,
    /// Whether a client without one is turned away.
    pub required: bool,
}

/// `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Chains and keys, in PEM; the first serves names that no other has.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Whether a certificate for localhost is made.
    pub development: bool,
    /// The lifetime of `Strict-Transport-Security`, when it is sent.
    pub hsts: Option<Duration>,
}

/// `[session]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Where they are kept.
    pub store: SessionStore,
    /// From sign-in to the end.
    pub absolute: Duration,
    /// From the last request to the end.
    pub idle: Duration,
    /// Where people sign in for every application.
    pub sign_in_host: Option<Authority>,
    /// While a shared store is away.
    pub offline: Duration,
}

/// Where sessions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionStore {
    /// In this file.
    File(PathBuf),
    /// At servers that several gates share.
    Redis(Redis),
}

/// `[session.redis]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// One server, the sentinels, or servers of a cluster.
    pub servers: Vec<RedisUrl>,
    /// The name that sentinels know the server by.
    pub sentinel_master: Option<String>,
    /// Who the gate is there.
    pub user: Option<String>,
    /// And by which password.
    pub password: Option<SecretSource>,
    /// The authorities that vouch for the servers, in PEM.
    pub ca: Option<PathBuf>,
    /// What names of keys begin with.
    pub prefix: String,
    /// The secret of the gates.
    pub key: SecretSource,
    /// Whether rates are counted for all gates together.
    pub shares_rates: bool,
}

/// `[assertion]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// `iss`; where it is not set, the origin that was asked for.
    pub issuer: Option<String>,
    /// How long each key signs.
    pub rotate: Duration,
    /// The keys.
    pub file: PathBuf,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// To complete a TLS handshake.
    pub tls_handshake: Duration,
    /// To send a head.
    pub header: Duration,
    /// Between two reads or writes of content.
    pub body_idle: Duration,
    /// Between two requests of a connection.
    pub keep_alive: Duration,
    /// For requests under way when the gate stops.
    pub drain: Duration,
    /// Of a head.
    pub header_bytes: usize,
    /// Field lines of a head.
    pub header_count: usize,
    /// Of a request target.
    pub uri_bytes: usize,
    /// Bytes a second of a client that is waited for.
    pub minimum_rate: u64,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once of one client network.
    pub connections_per_network: u32,
    /// Streams at once of an HTTP/2 connection.
    pub http2_streams: u32,
    /// Streams that a client may reset on one connection.
    pub http2_resets: u32,
    /// A WebSocket on which nothing moves.
    pub tunnel_idle: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// The least severe of the gate's own messages.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The least severe of the messages that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What broke.
    Error,
    /// What may break.
    Warn,
    /// What happened.
    Info,
    /// What was refused before it had a request.
    Debug,
    /// Everything.
    Trace,
}

/// Where the operator's listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin {
    /// An address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

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
        "listen",
        "tables",
        "none: required",
        "Where to listen; one `[[listen]]` for each kind of listener.",
    ),
    key("tls", "table", "", "Certificates and HSTS."),
    key(
        "trusted_proxies",
        "table",
        "nobody",
        "Proxies in front of the gate that may say who the client is.",
    ),
    key("accounts", "table", "", "Local accounts."),
    key("tokens", "table", "", "The gate's own tokens for programs."),
    key(
        "provider",
        "tables by name",
        "none",
        "Sign-in methods besides the built-in `local`, `basic` and `tokens`.",
    ),
    key("session", "table", "", "Sessions of signed-in browsers."),
    key(
        "assertion",
        "table",
        "",
        "Signed statements of who asks, for the policies that ask for them.",
    ),
    key("limits", "table", "", "Bounds on what clients may do."),
    key(
        "headers",
        "table",
        "",
        "The names of the fields that tell backends who asks.",
    ),
    key("log", "table", "", "What is written, and how."),
    key(
        "admin",
        "table",
        "off",
        "The operator's listener: metrics and health.",
    ),
    key(
        "verify",
        "table",
        "off",
        "A listener at which other proxies ask whether a request may pass.",
    ),
    key(
        "threads",
        "number",
        "one for each core",
        "Runtimes, each on a thread of its own.",
    ),
];

/// `[[listen]]`.
pub const LISTEN: &[Key] = &[
    key(
        "address",
        "address or list",
        "none: required",
        "Address and port, such as `0.0.0.0:443` or `[::]:443`; port 0 lets the system choose.",
    ),
    key(
        "tls",
        "true or false",
        "true",
        "Whether clients speak TLS. Without it, passwords and cookies cross the network in the clear.",
    ),
    key(
        "redirect_to_https",
        "port",
        "off",
        "Serve nothing but a redirect to https on this port; needs `tls = false`.",
    ),
    key(
        "proxy_protocol_from",
        "list of networks",
        "none",
        "Peers that begin each connection with a PROXY protocol header (v1 or v2). Everybody else is served without.",
    ),
    key(
        "client_certificates",
        "table",
        "off",
        "Ask clients for certificates. A request for another host than the one the TLS session was made for is then refused with 421.",
    ),
];

/// `[[listen]] client_certificates`.
pub const CLIENT_CERTIFICATES: &[Key] = &[
    key(
        "ca",
        "file",
        "none: required",
        "The authorities whose certificates are taken, in PEM.",
    ),
    key(
        "required",
        "true or false",
        "true",
        "Turn away clients that show none.",
    ),
];

/// `[tls]`.
pub const TLS: &[Key] = &[
    key(
        "certificates",
        "list of tables",
        "none",
        "Chains and keys in PEM: `[{ chain = \"..\", key = \"..\" }]`. Chosen by the name that the client asks for; the first serves all others. Taken up anew when the files change.",
    ),
    key(
        "development",
        "true or false",
        "false",
        "Make an authority and a certificate for localhost in `certs/`. For trying out only.",
    ),
    key(
        "hsts",
        "duration or `off`",
        "365d",
        "How long browsers remember to use https only (`Strict-Transport-Security`).",
    ),
];

/// `[tls] certificates`.
pub const CERTIFICATE: &[Key] = &[
    key(
        "chain",
        "file",
        "none: required",
        "The certificate and its intermediates, in PEM.",
    ),
    key("key", "file", "none: required", "The private key, in PEM."),
];

/// `[accounts]`.
pub const ACCOUNTS: &[Key] = &[key(
    "file",
    "file",
    "state/users.toml",
    "Where local accounts are kept; `portcullis users` writes it.",
)];

/// `[tokens]`.
pub const TOKENS: &[Key] = &[key(
    "file",
    "file",
    "state/tokens.toml",
    "Where the gate's own tokens are kept, as hashes; `portcullis tokens` writes it. Its directory is to be there when the gate starts.",
)];

/// `[session]`.
pub const SESSION: &[Key] = &[
    key(
        "store",
        "file",
        "state/sessions.redb",
        "The database of sessions: hashes and sealed records, nothing that signs anybody in.",
    ),
    key(
        "absolute",
        "duration",
        "12h",
        "A session ends this long after sign-in.",
    ),
    key(
        "idle",
        "duration",
        "1h",
        "A session ends this long after its last request; never later than by `absolute`.",
    ),
    key(
        "sign_in_host",
        "host, with a port where it is not the listener's",
        "none",
        "People sign in on this host for every application, and so once for all; a provider need know this host alone. It is the host of one of the policies. Each host keeps a cookie of its own. Without it each application has its own sign-in.",
    ),
    key(
        "redis",
        "table",
        "none",
        "Keep sessions in Redis or Valkey, in place of `store`, for several gates that serve one site.",
    ),
    key(
        "offline",
        "duration",
        "5m",
        "While Redis can't be reached, sessions that this gate has in memory go on for this long, then they are refused with 503, as everybody else is at once. What ends a session elsewhere is not noticed meanwhile.",
    ),
];

/// `[session.redis]`.
pub const REDIS: &[Key] = &[
    key(
        "url",
        "URL or list",
        "none: required",
        "`redis://host:port`, `rediss://host:port` over TLS, or `unix:/path`. Several are servers of one cluster, or with `sentinel_master` the sentinels. Redis 6.2 or Valkey 7.2 is the oldest that will do.",
    ),
    key(
        "sentinel_master",
        "name",
        "none",
        "The name of the server to ask the sentinels for. They are asked without a password.",
    ),
    key(
        "user",
        "name",
        "none",
        "The user that the gate is there (`ACL SETUSER`).",
    ),
    key("password", "secret", "none", "The password there."),
    key(
        "ca",
        "file",
        "the system's authorities",
        "The authorities that vouch for the servers, in PEM.",
    ),
    key(
        "prefix",
        "text",
        "portcullis",
        "What the names of keys and channels begin with; gates that serve one site have the same.",
    ),
    key(
        "key",
        "secret",
        "none: required",
        "At least 32 bytes that nobody can guess, the same at every gate: hides in the store whose a session is, and lets a form that one gate made be sent to another.",
    ),
    key(
        "rates",
        "`shared` or `local`",
        "shared",
        "Whether `[rate]` counts for all gates together, which asks Redis once per request and limit, or at each gate alone. While Redis does not answer within 100 ms each gate counts alone.",
    ),
];

/// `[assertion]`.
pub const ASSERTION: &[Key] = &[
    key(
        "issuer",
        "text",
        "`https://` and the host asked for",
        "The claim `iss`. What it means to verify stands in [`assertion.md`](assertion.md).",
    ),
    key(
        "rotate",
        "duration",
        "30d",
        "How long a key signs, from two days. The next one is published a day before it signs, the last one for a day after.",
    ),
    key(
        "file",
        "file",
        "state/assertion.keys",
        "The keys, made when a policy first asks for assertions. Another name counts from the next start.",
    ),
];

/// `[limits]`.
pub const LIMITS: &[Key] = &[
    key(
        "tls_handshake",
        "duration",
        "10s",
        "To complete a TLS handshake.",
    ),
    key(
        "header",
        "duration",
        "15s",
        "To send a request's head, from its first byte.",
    ),
    key(
        "body_idle",
        "duration",
        "30s",
        "Between two reads or writes of content. There is no limit on a whole upload: see `minimum_rate`.",
    ),
    key(
        "minimum_rate",
        "size",
        "256",
        "Bytes a second, on average over the time spent waiting for the client, below which it is given up after 10 s.",
    ),
    key(
        "keep_alive",
        "duration",
        "75s",
        "Between two requests of a connection.",
    ),
    key(
        "tunnel_idle",
        "duration",
        "1h",
        "A WebSocket on which nothing moves for this long is closed.",
    ),
    key(
        "drain",
        "duration",
        "30s",
        "For requests under way when the gate is told to stop.",
    ),
    key(
        "header_bytes",
        "size",
        "32KiB",
        "Of a request's head. More: 431.",
    ),
    key(
        "header_count",
        "number",
        "100",
        "Field lines of a request's head. More: 431.",
    ),
    key(
        "uri_bytes",
        "size",
        "8KiB",
        "Of a request's target. More: 414.",
    ),
    key(
        "connections",
        "number",
        "20000",
        "Connections at once, in all.",
    ),
    key(
        "connections_per_network",
        "number",
        "1000",
        "Connections at once of one client: an IPv4 address, or an IPv6 /64.",
    ),
    key(
        "http2_streams",
        "number",
        "128",
        "Requests at once on one HTTP/2 connection.",
    ),
    key(
        "http2_resets",
        "number",
        "200",
        "Requests that a client may take back on one HTTP/2 connection before it is closed.",
    ),
];

/// `[log]`.
pub const LOG: &[Key] = &[
    key(
        "format",
        "`auto`, `text` or `json`",
        "auto",
        "Text on a terminal, JSON otherwise.",
    ),
    key(
        "level",
        "`error`, `warn`, `info`, `debug` or `trace`",
        "info",
        "The least severe of the gate's own messages. Secrets are in none of them.",
    ),
];

/// `[admin]`.
pub const ADMIN: &[Key] = &[key(
    "address",
    "address or `unix:` path",
    "none: required",
    "Where `/metrics`, `/healthz` and `/readyz` are served: best a loopback address or a Unix socket, for there is no sign-in, and metrics name every application.",
)];

impl Gateway {
    /// Reads the file; `table` is its root.
    pub fn read(table: &Table) -> Self {
        let admin = table.table("admin", ADMIN).and_then(|table| admin(&table));
        let listeners = listeners(table, admin.as_ref());
        let tls = tls(table.table("tls", TLS).as_ref());
        if tls.certificates.is_empty() && !tls.development && listeners.iter().any(|one| one.tls) {
            let hint = "add `certificates`, or `development = true` to try it out on localhost";
            let message = "a `[[listen]]` speaks TLS, and there is no certificate";
            table.problem("tls", message, Some(hint.to_owned()));
        }
        Self {
            listeners,
            tls,
            accounts: table
                .table("accounts", ACCOUNTS)
                .and_then(|table| table.value("file", path))
                .unwrap_or_else(|| "state/users.toml".into()),
            tokens: table
                .table("tokens", TOKENS)
                .and_then(|table| table.value("file", path))
                .unwrap_or_else(|| "state/tokens.toml".into()),
            session: session(table.table("session", SESSION).as_ref()),
            assertion: assertion(table.table("assertion", ASSERTION).as_ref()),
            limits: limits(table.table("limits", LIMITS).as_ref()),
            log: log(table.table("log", LOG).as_ref()),
            admin,
            threads: table
                .integer("threads", 1..=1024)
                .and_then(|threads| usize::try_from(threads).ok())
                .and_then(NonZeroUsize::new),
        }
    }

    /// The defaults, for commands that need no file.
    pub fn defaults() -> Option<Self> {
        Table::parse(FILE, "", KEYS, &Problems::default()).map(|table| Self::read(&table))
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        Err("expected the path of a file".to_owned())
    } else {
        Ok(text.into())
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an address and port such as `0.0.0.0:443` or `[::]:443`".to_owned())
}

fn listeners(root: &Table, admin: Option<&Admin>) -> Vec<Listener> {
    let mut taken = Vec::new();
    if let Some(Admin::Tcp(address)) = admin {
        taken.push(*address);
    }
    let tables = root.tables("listen", LISTEN);
    if tables.is_empty() && !root.has("listen") {
        root.missing("listen", "at least one `[[listen]]` with an `address`");
    }
    tables
        .iter()
        .map(|table| {
            if !table.has("address") {
                table.missing("address", "an address and port such as `0.0.0.0:443`");
            }
            let tls = table.boolean("tls").unwrap_or(true);
            let redirect = table.integer("redirect_to_https", 1..=65535);
            let certificates = table.table("client_certificates", CLIENT_CERTIFICATES);
            if tls && redirect.is_some() {
                let hint = Some(
                    "add `tls = false`: this listener speaks plain HTTP and redirects".to_owned(),
                );
                table.problem(
                    "redirect_to_https",
                    "a TLS listener has nothing to redirect",
                    hint,
                );
            }
            if !tls && certificates.is_some() {
                table.problem(
                    "client_certificates",
                    "client certificates need `tls = true`",
                    None,
                );
            }
            let before = table.problems().count();
            let addresses = table.list("address", address).unwrap_or_default();
            if table.has("address") && addresses.is_empty() && table.problems().count() == before {
                table.problem("address", "there is nothing to listen on", None);
            }
            for address in &addresses {
                if address.port() != 0 && taken.contains(address) {
                    let message = format!("something else listens on `{address}` already");
                    table.problem("address", message, None);
                }
                taken.push(*address);
            }
            Listener {
                addresses,
                tls,
                redirect_to_https: redirect.and_then(|port| u16::try_from(port).ok()),
                proxy_protocol_from: table
                    .list("proxy_protocol_from", cidr::parse_network)
                    .unwrap_or_default(),
                client_certificates: certificates.and_then(|table| {
                    if !table.has("ca") {
                        table.missing("ca", "the path of a PEM file");
                    }
                    Some(ClientCertificates {
                        ca: table.value("ca", path)?,
                        required: table.boolean("required").unwrap_or(true),
                    })
                }),
            }
        })
        .collect()
}

fn tls(table: Option<&Table>) -> Tls {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let certificates = table
        .map(|table| table.tables("certificates", CERTIFICATE))
        .unwrap_or_default();
    let pair = |table: &Table| {
        for key in ["chain", "key"] {
            if !table.has(key) {
                table.missing(key, "the path of a PEM file");
            }
        }
        let (chain, key) = (table.value("chain", path), secret::key_file(table, "key"));
        Some((chain?, key?.into()))
    };
    let hsts = |text: &str| {
        if text == "off" {
            Ok(None)
        } else {
            unit::duration(text).map(Some)
        }
    };
    Tls {
        certificates: certificates.iter().filter_map(pair).collect(),
        development: table
            .and_then(|table| table.boolean("development"))
            .unwrap_or(false),
        hsts: table
            .and_then(|table| table.value("hsts", hsts))
            .unwrap_or(Some(YEAR)),
    }
}

fn session(table: Option<&Table>) -> Session {
    const HOUR: u64 = 60 * 60;
    let absolute = time(table, "absolute", 12 * HOUR);
    let idle = if table.is_some_and(|table| table.has("idle")) {
        time(table, "idle", HOUR)
    } else {
        absolute.min(Duration::from_secs(HOUR))
    };
    let redis = table.and_then(|table| table.table("redis", REDIS));
    if let Some(table) = table
        && table.has("store")
        && redis.is_some()
    {
        let hint = "leave out `store`, or `[session.redis]`".to_owned();
        table.problem("store", "sessions are kept in one place", Some(hint));
    }
    if let Some(table) = table
        && idle > absolute
    {
        table.problem(
            "idle",
            "longer than `absolute`, so it never ends a session",
            None,
        );
    }
    Session {
        store: redis.and_then(|table| read_redis(&table)).map_or_else(
            || {
                let file = table.and_then(|table| table.value("store", path));
                SessionStore::File(file.unwrap_or_else(|| "state/sessions.redb".into()))
            },
            SessionStore::Redis,
        ),
        absolute,
        idle,
        sign_in_host: table.and_then(|table| {
            table.value("sign_in_host", |text| {
                Authority::parse(text.as_bytes())
                    .map_err(|_| "expected a host such as `login.example.com`".to_owned())
            })
        }),
        offline: time(table, "offline", 5 * 60),
    }
}

/// Nothing after adding what can't be used.
fn read_redis(table: &Table) -> Option<Redis> {
    for (key, expected) in [
        ("url", "a URL such as `rediss://redis.example:6379`"),
        ("key", "where the secret is kept: `{ file = \"..\" }`"),
    ] {
        if !table.has(key) {
            table.missing(key, expected);
        }
    }
    let before = table.problems().count();
    let servers = table.list("url", RedisUrl::parse).unwrap_or_default();
    let is_alike = servers.windows(2).all(|two| match two {
        [
            RedisUrl::Tcp { tls: one, .. },
            RedisUrl::Tcp { tls: other, .. },
        ] => one == other,
        _ => false,
    });
    let sentinel_master = table.value("sentinel_master", name);
    if table.has("url") && table.problems().count() == before {
        if servers.is_empty() {
            table.problem("url", "there is no server in it", None);
        } else if !is_alike {
            let message = "several servers are all `redis://` or all `rediss://`";
            table.problem("url", message, None);
        } else if sentinel_master.is_some() && matches!(servers.first(), Some(RedisUrl::Unix(_))) {
            table.problem("url", "a sentinel is not at a Unix socket", None);
        }
    }
    Some(Redis {
        servers,
        sentinel_master,
        user: table.value("user", name),
        password: SecretSource::read(table, "password"),
        ca: table.value("ca", path),
        prefix: table
            .value("prefix", prefix)
            .unwrap_or_else(|| "portcullis".to_owned()),
        key: SecretSource::read(table, "key")?,
        shares_rates: table.value("rates", shares_rates).unwrap_or(true),
    })
}

fn shares_rates(text: &str) -> Result<bool, String> {
    match text {
        "shared" => Ok(true),
        "local" => Ok(false),
        _ => Err("expected `shared` or `local`".to_owned()),
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        Err("expected a name".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn prefix(text: &str) -> Result<String, String> {
    // A brace would say to a cluster which part of the name decides where the key is kept.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("expected up to 64 letters, digits, `.`, `-`, `_` or `:`".to_owned())
    }
}

fn assertion(table: Option<&Table>) -> Assertion {
    let issuer = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let expected = "expected a name such as `https://gate.example.com`, of visible ASCII";
        plain
            .then(|| text.to_owned())
            .ok_or_else(|| expected.to_owned())
    };
    let rotate = |text: &str| match unit::duration(text) {
        Ok(every) if every < rotation::SHORTEST => Err("expected two days or more".to_owned()),
        parsed => parsed,
    };
    Assertion {
        issuer: table.and_then(|table| table.value("issuer", issuer)),
        rotate: table
            .and_then(|table| table.value("rotate", rotate))
            .unwrap_or(Duration::from_secs(30 * 24 * 60 * 60)),
        file: table
            .and_then(|table| table.value("file", path))
            .unwrap_or_else(|| "state/assertion.keys".into()),
    }
}

fn time(table: Option<&Table>, key: &'static str, default_seconds: u64) -> Duration {
    let positive = |text: &str| match unit::duration(text) {
        Ok(Duration::ZERO) => Err("expected more than nothing".to_owned()),
        parsed => parsed,
    };
    table
        .and_then(|table| table.value(key, positive))
        .unwrap_or_else(|| Duration::from_secs(default_seconds))
}

fn size(table: Option<&Table>, key: &'static str, default: u64, least: u64) -> u64 {
    let enough = |text: &str| match unit::bytes(text) {
        Ok(bytes) if bytes < least => Err(format!("expected at least {least} bytes")),
        parsed => parsed,
    };
    table
        .and_then(|table| table.value(key, enough))
        .unwrap_or(default)
}

fn limits(table: Option<&Table>) -> Limits {
    let number = |key, default, least: u64| {
        table
            .and_then(|table| table.integer(key, least..=100_000_000))
            .unwrap_or(default)
    };
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Limits {
        tls_handshake: time(table, "tls_handshake", 10),
        header: time(table, "header", 15),
        body_idle: time(table, "body_idle", 30),
        keep_alive: time(table, "keep_alive", 75),
        drain: time(table, "drain", 30),
        header_bytes: whole(size(table, "header_bytes", 32 * 1024, 1024)),
        header_count: whole(number("header_count", 100, 8)),
        uri_bytes: whole(size(table, "uri_bytes", 8 * 1024, 256)),
        minimum_rate: size(table, "minimum_rate", 256, 1),
        connections: whole(number("connections", 20_000, 1)),
        connections_per_network: short(number("connections_per_network", 1000, 1)),
        http2_streams: short(number("http2_streams", 128, 1)),
        http2_resets: short(number("http2_resets", 200, 1)),
        tunnel_idle: time(table, "tunnel_idle", 60 * 60),
    }
}

fn log(table: Option<&Table>) -> Log {
    let format = |text: &str| match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected `auto`, `text` or `json`".to_owned()),
    };
    let level = |text: &str| match text {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err("expected `error`, `warn`, `info`, `debug` or `trace`".to_owned()),
    };
    Log {
        format: table
            .and_then(|table| table.value("format", format))
            .unwrap_or(LogFormat::Auto),
        level: table
            .and_then(|table| table.value("level", level))
            .unwrap_or(LogLevel::Info),
    }
}

fn admin(table: &Table) -> Option<Admin> {
    if !table.has("address") {
        table.missing(
            "address",
            "an address such as `127.0.0.1:9080`, or `unix:` and a path",
        );
    }
    table.value("address", |text| match text.strip_prefix("unix:") {
        Some(socket) => path(socket).map(Admin::Unix),
        None => address(text).map(Admin::Tcp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Gateway, Vec<String>) {
        let problems = Problems::default();
        let table = Table::parse(FILE, text, KEYS, &problems).unwrap();
        let gateway = Gateway::read(&table);
        let shown = problems.into_sorted();
        let heads = shown.iter().map(|problem| {
            let (line, message) = (problem.line, &problem.message);
            format!("{line}: {message}")
        });
        (gateway, heads.collect())
    }

    const LISTENER: &str = "[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n";

    #[test]
    fn what_is_documented_as_default_is_the_default() {
        let (defaults, problems) = read(LISTENER);
        assert_eq!(problems, Vec::<String>::new());
        let defaults = format!("{defaults:?}");
        let mut tried = 0;
        for (section, keys) in [
            ("tls", TLS),
            ("accounts", ACCOUNTS),
            ("session", SESSION),
            ("limits", LIMITS),
            ("log", LOG),
        ] {
            for key in keys.iter().filter(|key| key.default != "none") {
                let value = match key.kind {
                    "number" | "true or false" => key.default.to_owned(),
                    _ => format!("\"{}\"", key.default),
                };
                let text = format!("{LISTENER}[{section}]\n{} = {value}\n", key.name);
                let (gateway, problems) = read(&text);
                assert_eq!(problems, Vec::<String>::new(), "{text}");
                assert_eq!(format!("{gateway:?}"), defaults, "{text}");
                tried += 1;
            }
        }
        assert!(tried >= 20, "{tried}");
    }

    #[test]
    fn every_key_of_limits_sets_a_limit_of_its_own() {
        let mut seen = vec![format!("{:?}", limits(None))];
        for key in LIMITS {
            let value = match key.kind {
                "number" => "77",
                "size" => "\"1234KiB\"",
                _ => "\"77s\"",
            };
            let (gateway, _) = read(&format!("{LISTENER}[limits]\n{} = {value}\n", key.name));
            let limits = format!("{:?}", gateway.limits);
            assert!(!seen.contains(&limits), "{}", key.name);
            seen.push(limits);
        }
    }

    #[track_caller]
    fn one_problem(text: &str, expected: &str) {
        assert_eq!(read(text).1, [expected], "{text}");
    }

    #[test]
    fn limits_that_would_switch_the_gate_off_are_refused() {
        for (line, expected) in [
            (
                "header = \"0s\"",
                "`0s` can't be used: expected more than nothing",
            ),
            (
                "header_bytes = \"10\"",
                "`10` can't be used: expected at least 1024 bytes",
            ),
            (
                "connections = 0",
                "`connections` is 0, expected a whole number from 1 to 100000000",
            ),
        ] {
            one_problem(
                &format!("{LISTENER}[limits]\n{line}\n"),
                &format!("5: {expected}"),
            );
        }
    }

    #[test]
    fn a_listener_that_can_not_serve_is_refused() {
        one_problem(
            "",
            "1: `listen` is missing: expected at least one `[[listen]]` with an `address`",
        );
        one_problem(
            "[[listen]]\naddress = \"127.0.0.1:0\"\n",
            "1: a `[[listen]]` speaks TLS, and there is no certificate",
        );
        one_problem(
            "[[listen]]\naddress = []\ntls = false\n",
            "2: there is nothing to listen on",
        );
        one_problem(
            "[[listen]]\naddress = \"localhost:80\"\ntls = false\n",
            "2: `localhost:80` can't be used: expected an address and port such as `0.0.0.0:443` or `[::]:443`",
        );
        one_problem(
            "[tls]\ndevelopment = true\n[[listen]]\naddress = \"127.0.0.1:0\"\nredirect_to_https = 443\n",
            "5: a TLS listener has nothing to redirect",
        );
        one_problem(
            "[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\nclient_certificates = { ca = \"a\" }\n",
            "4: client certificates need `tls = true`",
        );
    }

    #[test]
    fn an_address_is_listened_on_once() {
        one_problem(
            "[[listen]]\naddress = [\"127.0.0.1:80\", \"[::1]:80\"]\ntls = false\n\
             [[listen]]\naddress = \"[::1]:80\"\ntls = false\n",
            "5: something else listens on `[::1]:80` already",
        );
        one_problem(
            "[[listen]]\naddress = \"127.0.0.1:80\"\ntls = false\n[admin]\naddress = \"127.0.0.1:80\"\n",
            "2: something else listens on `127.0.0.1:80` already",
        );
        let (_, problems) = read(&format!("{LISTENER}{LISTENER}"));
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn a_session_is_never_idle_longer_than_it_lasts() {
        let (gateway, problems) = read(&format!("{LISTENER}[session]\nabsolute = \"30m\"\n"));
        assert_eq!(
            (gateway.session.idle, problems.len()),
            (gateway.session.absolute, 0)
        );
        one_problem(
            &format!("{LISTENER}[session]\nabsolute = \"30m\"\nidle = \"31m\"\n"),
            "6: longer than `absolute`, so it never ends a session",
        );
    }

    #[test]
    fn sessions_are_shared_at_servers_of_one_kind_and_with_a_secret() {
        const KEY: &str = "key.file = \"k\"";
        let redis = |lines: &str| read(&format!("{LISTENER}[session.redis]\n{lines}\n"));
        let (gateway, problems) = redis(&format!("url = \"redis://a\"\n{KEY}"));
        assert_eq!(problems, Vec::<String>::new());
        let SessionStore::Redis(read) = gateway.session.store else {
            panic!("no Redis");
        };
        assert_eq!(
            (read.prefix.as_str(), read.key, read.ca),
            ("portcullis", SecretSource::File("k".into()), None)
        );
        assert!(read.shares_rates);
        let (gateway, _) = redis(&format!("url = \"redis://a\"\n{KEY}\nrates = \"local\""));
        assert!(matches!(gateway.session.store, SessionStore::Redis(read) if !read.shares_rates));
        for (lines, expected) in [
            (
                KEY,
                "4: `url` is missing: expected a URL such as `rediss://redis.example:6379`",
            ),
            (
                "url = \"redis://a\"",
                "4: `key` is missing: expected where the secret is kept: `{ file = \"..\" }`",
            ),
            ("key.file = \"k\"\nurl = []", "6: there is no server in it"),
            (
                "key.file = \"k\"\nurl = [\"redis://a\", \"rediss://b\"]",
                "6: several servers are all `redis://` or all `rediss://`",
            ),
            (
                "key.file = \"k\"\nurl = [\"unix:/a\", \"redis://b\"]",
                "6: several servers are all `redis://` or all `rediss://`",
            ),
            (
                "key.file = \"k\"\nurl = \"unix:/a\"\nsentinel_master = \"m\"",
                "6: a sentinel is not at a Unix socket",
            ),
            (
                "key.file = \"k\"\nurl = \"redis://a\"\nprefix = \"a{b}\"",
                "7: `a{b}` can't be used: expected up to 64 letters, digits, `.`, `-`, `_` or `:`",
            ),
            (
                "key.file = \"k\"\nurl = \"redis://a\"\nrates = \"both\"",
                "7: `both` can't be used: expected `shared` or `local`",
            ),
        ] {
            assert_eq!(redis(lines).1, [expected], "{lines}");
        }
        one_problem(
            &format!(
                "{LISTENER}[session]\nstore = \"a\"\nredis = {{ url = \"redis://a\", {KEY} }}\n"
            ),
            "5: sessions are kept in one place",
        );
    }

    #[test]
    fn the_operators_listener_is_an_address_or_a_socket() {
        for (text, admin) in [
            (
                "127.0.0.1:9080",
                Some(Admin::Tcp(([127, 0, 0, 1], 9080).into())),
            ),
            ("unix:/run/a.sock", Some(Admin::Unix("/run/a.sock".into()))),
            ("unix:", None),
            ("9080", None),
        ] {
            let (gateway, problems) = read(&format!("{LISTENER}[admin]\naddress = \"{text}\"\n"));
            assert_eq!(problems.is_empty(), admin.is_some(), "{text}");
            assert_eq!(gateway.admin, admin);
        }
    }

    #[test]
    fn a_certificate_has_a_chain_and_a_key() {
        one_problem(
            "[[listen]]\naddress = \"127.0.0.1:0\"\n[tls]\ndevelopment = true\ncertificates = [{ chain = \"a\" }]\n",
            "5: `key` is missing: expected the path of a PEM file",
        );
    }
}
