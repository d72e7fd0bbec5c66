//! `portcullis run`: sockets, cores, signals and reloads.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::level_filters::LevelFilter;

use crate::backend::pool::{Pools, SWEEP};
use crate::cert::{self, Store};
use crate::config::fixed::Fixed;
use crate::config::gateway::{self, Gateway, LogFormat, LogLevel, SessionStore};
use crate::config::verify::{Callers, Verify};
use crate::edge::admin::Admin;
use crate::edge::admission::Admission;
use crate::edge::exchange::{Exchange, Setup, Site};
use crate::edge::listen::{self, Listener};
use crate::edge::{Drain, Limits};
use crate::identity::jwks::Keys;
use crate::identity::{Identity, Shared, kept, oidc, secrets};
use crate::keys::Common;
use crate::observe::access_log::{Format, Lines};
use crate::observe::messages;
use crate::observe::metrics::Metrics;
use crate::observe::writer::{Sink, Writer};
use crate::pipeline::rate::Cells;
use crate::pipeline::{Gate, InForce};
use crate::pure::cidr;
use crate::pure::http1::HeadLimits;
use crate::pure::jwk::KeySet;
use crate::pure::session::Lifetimes;
use crate::pure::table::{Problem, Problems};
use crate::session::link::Settings;
use crate::session::{self, Sessions};

use super::control::{self, Control};
use super::signing::{CLIENT_FILE, Keeper, Keepers};
use super::watch::Watch;
use super::{certificates, clock, first_run, gate, load, now};

/// How often old sessions are looked at.
const PRUNE: Duration = Duration::from_secs(60);
/// How often it is looked for open streams of sessions that their provider has to be asked about.
const RENEW: Duration = Duration::from_secs(1);
/// Bytes of the secret that gates have in common.
const LEAST_SECRET: usize = 32;
/// How long the last lines of the log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Why the gate does not run.
#[derive(Debug)]
pub enum Error {
    /// The configuration can't be used.
    Problems(Vec<Problem>),
    /// Anything else; the text says what to do.
    Start(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problems(problems) => problems
                .iter()
                .try_for_each(|problem| write!(f, "{problem}")),
            Self::Start(text) => writeln!(f, "{text}"),
        }
    }
}

impl std::error::Error for Error {}

fn start(text: impl Into<String>) -> Error {
    Error::Start(text.into())
}

/// What all cores share.
struct Running {
    directory: PathBuf,
    gate: Arc<ArcSwap<Gate>>,
    in_force: Arc<InForce>,
    shared: Arc<Shared>,
    rates: Arc<Cells>,
    signing: Keepers,
    certificates: Arc<Store>,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    fixed: Fixed,
}

/// Runs the gate in `directory` until it is told to stop.
///
/// # Errors
/// Why it can't start.
pub fn run(directory: &Path) -> Result<(), Error> {
    let begun = clock();
    let loaded = load(directory).map_err(Error::Problems)?;
    let gateway = &loaded.config.gateway;
    let format = match gateway.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
        LogFormat::Auto if std::io::stdout().is_terminal() => Format::Text,
        LogFormat::Auto => Format::Json,
    };
    let messages = messages::init(format, level(gateway.log.level))
        .map_err(|error| start(format!("the log's thread can't be started: {error}")))?;
    let result = run_logged(directory, loaded, format, begun);
    messages.finish(LAST_LINES);
    result
}

fn run_logged(
    directory: &Path,
    loaded: super::Loaded,
    format: Format,
    begun: Instant,
) -> Result<(), Error> {
    let accounts_file = directory.join(&loaded.config.gateway.accounts);
    let password = first_run::account(&accounts_file)
        .map_err(|error| start(format!("the first account can't be made: {error}")))?;
    let loaded = if password.is_some() {
        load(directory).map_err(Error::Problems)?
    } else {
        loaded
    };
    let gateway = &loaded.config.gateway;

    let cores = gateway
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, std::num::NonZero::get);
    let (sessions, common) = sessions(directory, gateway)?;
    let shared = Shared::new(sessions, cores).and_then(|shared| match &common {
        Some(common) => shared.in_common(common),
        None => Ok(shared),
    });
    let shared = Arc::new(shared.map_err(|_| start("no random bytes from the system"))?);
    let rates = Arc::new(Cells::new());
    let keeper = |file: &Path, signer| Arc::new(Keeper::new(directory.join(file), signer));
    let signing = Keepers {
        assertions: keeper(&gateway.assertion.file, Arc::default()),
        client: keeper(CLIENT_FILE.as_ref(), Arc::clone(shared.client_keys())),
    };
    let store = Arc::new(if loaded.config.speaks_tls() {
        let certificates = certificates(&gateway.tls, directory);
        Store::new(certificates.map_err(|error| start(error.to_string()))?)
    } else {
        Store::default()
    });
    let control = match &gateway.session.store {
        SessionStore::File(file) => control::bind(&directory.join(file)),
        SessionStore::Redis(_) => None,
    };
    let mut bound = bind(gateway, directory, &store, cores)?;
    if let Some(verify) = &loaded.config.verify {
        bound.extend(bind_verify(verify, directory, &store, cores)?);
    }
    let admin = bind_admin(gateway)?;
    let limits = edge_limits(&gateway.limits);
    let drain_time = gateway.limits.drain;
    let admission = Arc::new(Admission::new(
        gateway.limits.connections,
        gateway.limits.connections_per_network,
    ));
    let hsts = hsts(&gateway.tls);
    let fixed = Fixed::of(&loaded.config);
    let watched = loaded.files.clone();
    let problems = Problems::default();
    let in_force = Arc::new(InForce::default());
    let Some(first) = gate(
        loaded, &shared, &rates, &signing, &in_force, directory, &problems,
    ) else {
        return Err(Error::Problems(problems.into_sorted()));
    };
    let writer = Writer::start("access-log", std::io::stdout())
        .map_err(|error| start(format!("the log's thread can't be started: {error}")))?;
    let counted = Arc::clone(&admission);
    let metrics = Arc::new(Metrics::new(writer.sink(), move || counted.open()));
    metrics.set_apps(first.routes.apps().iter().map(|app| Arc::clone(&app.name)));
    metrics.set_certificates(store.expiries());
    metrics.reloaded(true);
    let first = Arc::new(ArcSwap::from_pointee(first));
    in_force.follow(&first);
    let site = Arc::new(Running {
        directory: directory.to_owned(),
        gate: first,
        in_force,
        shared,
        rates,
        signing,
        certificates: store,
        metrics: Arc::clone(&metrics),
        ready: Arc::default(),
        fixed,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| start(format!("no runtime: {error}")))?;
    // Before a word is said: whoever reads that it is ready may send one at once, and a signal that
    // nobody handles yet ends the process.
    let signals = {
        let _context = runtime.enter();
        Signals::new().map_err(|error| start(format!("signals can't be received: {error}")))?
    };
    greet(&bound, password.as_deref().map(String::as_str), directory);

    let (stop, stopped) = watch::channel(false);
    let mut threads = Vec::with_capacity(cores);
    let mut admin = admin;
    for core in 0..cores {
        let mine: Vec<(StdListener, Listener, Serves)> = bound
            .iter()
            .filter_map(|bound| bound.on_core(core))
            .collect::<Result<_, _>>()
            .map_err(|error| start(format!("a socket can't be used: {error}")))?;
        let work = Core {
            site: Arc::clone(&site),
            listeners: mine,
            admin: admin.take(),
            limits,
            admission: Arc::clone(&admission),
            hsts: hsts.clone(),
            format,
            sink: writer.sink(),
            begun,
            stopped: stopped.clone(),
            drain_time,
        };
        let thread = std::thread::Builder::new()
            .name(format!("core-{core}"))
            .spawn(move || work.run())
            .map_err(|error| start(format!("a thread can't be started: {error}")))?;
        threads.push(thread);
    }
    // The cores alone hold the sockets, so that a stop closes them: one that nobody accepts from
    // would take connections that another process on the same port could serve.
    drop(bound);
    // Before anybody is told that it is ready, so that no edit after that is missed.
    let files = super::watch::watch(&site.directory, &watched)
        .inspect_err(|error| tracing::warn!(%error, "files can't be watched; reload by SIGHUP"))
        .ok();
    site.ready.store(true, Ordering::Relaxed);
    tracing::info!(
        startup_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        cores,
        "ready"
    );
    tokio::task::LocalSet::new().block_on(&runtime, controlling(&site, signals, files, control));
    site.ready.store(false, Ordering::Relaxed);
    let _ = stop.send(true);
    for thread in threads {
        let _ = thread.join();
    }
    writer.finish(LAST_LINES);
    Ok(())
}

const fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// The sessions, and what this gate has in common with others.
pub(crate) fn sessions(
    directory: &Path,
    gateway: &Gateway,
) -> Result<(Sessions, Option<Common>), Error> {
    let session = &gateway.session;
    let lifetimes = Lifetimes {
        absolute: session.absolute,
        idle: session.idle,
    };
    match &session.store {
        SessionStore::File(file) => Ok((sessions_in_file(&directory.join(file), lifetimes)?, None)),
        SessionStore::Redis(redis) => {
            let secret = shared_secret(redis, directory)?;
            let sessions = Sessions::share(
                session::Redis {
                    servers: servers(redis, directory)?,
                    index: secret.index(),
                    summaries: secret
                        .summaries()
                        .map_err(|error| start(error.to_string()))?,
                    offline: session.offline,
                    rates: redis.shares_rates,
                },
                lifetimes,
                now,
            );
            let sessions = sessions.map_err(|error| start(error.to_string()))?;
            Ok((sessions, Some(secret)))
        }
    }
}

fn shared_secret(redis: &gateway::Redis, directory: &Path) -> Result<Common, Error> {
    let secret = secrets::load(&redis.key, directory)
        .map_err(|error| start(format!("`[session.redis] key` can't be used: {error}")))?;
    if secret.len() < LEAST_SECRET {
        return Err(start(format!(
            "`[session.redis] key` has less than {LEAST_SECRET} bytes; make one with `openssl rand -hex 32`"
        )));
    }
    Ok(Common::new(secret.as_bytes()))
}

fn servers(redis: &gateway::Redis, directory: &Path) -> Result<Settings, Error> {
    let failed = |key, error: &dyn fmt::Display| {
        start(format!("`[session.redis] {key}` can't be used: {error}"))
    };
    let password = redis.password.as_ref();
    let password = password.map(|source| secrets::load(source, directory));
    let ca = redis.ca.as_ref();
    let ca = ca.map(|file| std::fs::read(directory.join(file)));
    Ok(Settings {
        servers: redis.servers.clone(),
        sentinel_master: redis.sentinel_master.clone(),
        user: redis.user.clone(),
        password: password
            .transpose()
            .map_err(|why| failed("password", &why))?,
        ca: ca.transpose().map_err(|why| failed("ca", &why))?,
        prefix: redis.prefix.clone(),
    })
}

fn sessions_in_file(path: &Path, lifetimes: Lifetimes) -> Result<Sessions, Error> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| start(format!("`{}` can't be made: {error}", parent.display())))?;
    }
    Sessions::open(path, lifetimes, now).map_err(|error| {
        start(format!(
            "the session store `{}` can't be opened: {error}",
            path.display()
        ))
    })
}

fn edge_limits(limits: &gateway::Limits) -> Limits {
    Limits {
        head: HeadLimits {
            bytes: limits.header_bytes,
            target_bytes: limits.uri_bytes,
            fields: limits.header_count,
        },
        tls_handshake: limits.tls_handshake,
        header: limits.header,
        keep_alive: limits.keep_alive,
        body_idle: limits.body_idle,
        minimum_rate: limits.minimum_rate,
        http2_streams: limits.http2_streams,
        http2_resets: limits.http2_resets,
        tunnel_idle: limits.tunnel_idle,
    }
}

fn hsts(tls: &gateway::Tls) -> Option<HeaderValue> {
    // A browser would hold localhost to https for a year after one try.
    let age = tls.hsts.filter(|_| !tls.development)?.as_secs();
    HeaderValue::try_from(format!("max-age={age}")).ok()
}

/// What is served at an address.
#[derive(Debug, Clone, Copy)]
enum Serves {
    Applications,
    Redirect(u16),
    Proxies,
}

/// A bound address: one socket for each core.
struct Bound {
    sockets: Vec<StdListener>,
    address: SocketAddr,
    listener: Listener,
    serves: Serves,
}

impl Bound {
    fn on_core(&self, core: usize) -> Option<std::io::Result<(StdListener, Listener, Serves)>> {
        let socket = self.sockets.get(core)?;
        Some(
            socket
                .try_clone()
                .map(|socket| (socket, self.listener.clone(), self.serves)),
        )
    }
}

fn bind(
    gateway: &Gateway,
    directory: &Path,
    store: &Arc<Store>,
    cores: usize,
) -> Result<Vec<Bound>, Error> {
    let mut bound = Vec::new();
    for listener in &gateway.listeners {
        let failed = |error: cert::Error| start(error.to_string());
        let tls = if listener.tls {
            let clients = match &listener.client_certificates {
                None => None,
                Some(clients) => {
                    let ca = directory.join(&clients.ca);
                    Some(cert::client_verifier(&ca, clients.required).map_err(failed)?)
                }
            };
            Some(cert::server_config(Arc::clone(store), clients).map_err(failed)?)
        } else {
            None
        };
        let settings = Listener {
            tls,
            asks_for_certificates: listener.client_certificates.is_some(),
            proxy_protocol_from: Arc::new(cidr::Set::new(listener.proxy_protocol_from.clone())),
        };
        for address in &listener.addresses {
            let sockets = match listen::bind(*address, cores) {
                Ok(sockets) => sockets,
                // Many a machine has no IPv6; `localhost` is served all the same.
                Err(error)
                    if address.is_ipv6()
                        && error.kind() == std::io::ErrorKind::AddrNotAvailable
                        && listener.addresses.len() > 1 =>
                {
                    tracing::warn!(%address, "this machine has no such address");
                    continue;
                }
                Err(error) => {
                    return Err(start(format!(
                        "can't listen on {address}: {error}; change `address` under `[[listen]]`, or stop what listens there"
                    )));
                }
            };
            let address = sockets
                .first()
                .and_then(|socket| socket.local_addr().ok())
                .unwrap_or(*address);
            bound.push(Bound {
                sockets,
                address,
                listener: settings.clone(),
                serves: listener
                    .redirect_to_https
                    .map_or(Serves::Applications, Serves::Redirect),
            });
        }
    }
    Ok(bound)
}

/// Where other proxies ask.
fn bind_verify(
    verify: &Verify,
    directory: &Path,
    store: &Arc<Store>,
    cores: usize,
) -> Result<Vec<Bound>, Error> {
    let failed = |error: cert::Error| start(error.to_string());
    let ca = match &verify.callers {
        Callers::Certificates(ca) => Some(directory.join(ca)),
        Callers::Key(_) | Callers::Networks(_) => None,
    };
    let clients = ca.as_ref().map(|ca| cert::client_verifier(ca, true));
    let clients = clients.transpose().map_err(failed)?;
    let tls = if verify.tls {
        Some(cert::server_config(Arc::clone(store), clients).map_err(failed)?)
    } else {
        None
    };
    let listener = Listener {
        tls,
        asks_for_certificates: ca.is_some(),
        proxy_protocol_from: Arc::new(cidr::Set::new(Vec::new())),
    };
    let bind = |address: &SocketAddr| {
        let sockets = listen::bind(*address, cores).map_err(|error| {
            start(format!(
                "can't listen on {address} for other proxies: {error}"
            ))
        })?;
        let first = sockets.first().and_then(|socket| socket.local_addr().ok());
        Ok(Bound {
            address: first.unwrap_or(*address),
            sockets,
            listener: listener.clone(),
            serves: Serves::Proxies,
        })
    };
    verify.addresses.iter().map(bind).collect()
}

/// The operator's listener.
enum BoundAdmin {
    Tcp(StdListener),
    Unix(std::os::unix::net::UnixListener),
}

fn bind_admin(gateway: &Gateway) -> Result<Option<BoundAdmin>, Error> {
    match &gateway.admin {
        None => Ok(None),
        Some(gateway::Admin::Tcp(address)) => {
            let mut sockets = listen::bind(*address, 1).map_err(|error| {
                start(format!(
                    "can't listen on {address} for the operator: {error}"
                ))
            })?;
            Ok(sockets.pop().map(BoundAdmin::Tcp))
        }
        Some(gateway::Admin::Unix(path)) => {
            // What a killed gate left behind; anything but a socket is not ours to remove.
            use std::os::unix::fs::FileTypeExt as _;
            if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
                let _ = std::fs::remove_file(path);
            }
            let failed = |error| {
                start(format!(
                    "can't listen on `{}` for the operator: {error}",
                    path.display()
                ))
            };
            let socket = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            Ok(Some(BoundAdmin::Unix(socket)))
        }
    }
}

/// Says where it listens, and at first run what to do next.
fn greet(bound: &[Bound], password: Option<&str>, directory: &Path) {
    let mut out = String::new();
    use fmt::Write as _;
    for Bound {
        address,
        listener,
        serves,
        ..
    } in bound
    {
        let scheme = if listener.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let note = match serves {
            Serves::Applications => "",
            Serves::Redirect(_) => " (redirects to https)",
            Serves::Proxies => " (for other proxies)",
        };
        let _ = writeln!(out, "listening on {scheme}://{address}{note}");
    }
    if let Some(password) = password {
        let port = bound
            .iter()
            .find(|bound| {
                bound.listener.tls.is_some() && matches!(bound.serves, Serves::Applications)
            })
            .map(|bound| bound.address.port());
        let _ = writeln!(
            out,
            "A first account was made. Its password is shown this once:"
        );
        let _ = writeln!(
            out,
            "  user:     {}\n  password: {password}",
            first_run::NAME
        );
        if let Some(port) = port {
            let authority = directory.join("certs").join(cert::development::AUTHORITY);
            let _ = writeln!(
                out,
                "Open https://localhost:{port} and sign in; browsers warn until you trust {}.",
                authority.display()
            );
        }
        let _ = writeln!(
            out,
            "Next: copy a file from policies/examples to policies/ and protect your first application."
        );
    }
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(out.as_bytes());
}

/// What one thread does.
struct Core {
    site: Arc<Running>,
    listeners: Vec<(StdListener, Listener, Serves)>,
    admin: Option<BoundAdmin>,
    limits: Limits,
    admission: Arc<Admission>,
    hsts: Option<HeaderValue>,
    format: Format,
    sink: Sink,
    begun: Instant,
    stopped: watch::Receiver<bool>,
    drain_time: Duration,
}

impl Core {
    fn run(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(64)
            .build();
        match runtime {
            Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, self.serve()),
            Err(error) => tracing::error!(%error, "a core has no runtime"),
        }
    }

    async fn serve(mut self) {
        let pools = Rc::new(Pools::default());
        let lines = Lines::new(self.format, self.sink.clone());
        tokio::task::spawn_local(lines.clone().run());
        let drain = Drain::default();
        for (socket, listener, serves) in std::mem::take(&mut self.listeners) {
            let site = match serves {
                Serves::Redirect(port) => Site::Redirect(port),
                Serves::Applications => Site::Gate(Arc::clone(&self.site.gate)),
                Serves::Proxies => Site::Verify(Arc::clone(&self.site.gate)),
            };
            let hsts = if listener.tls.is_some() {
                self.hsts.clone()
            } else {
                None
            };
            let (Ok(exchange), Ok(socket)) = (
                self.exchange(site, &pools, &lines, hsts),
                TcpListener::from_std(socket),
            ) else {
                tracing::error!("a listener can't be used");
                continue;
            };
            let admission = Arc::clone(&self.admission);
            tokio::task::spawn_local(listen::accept(
                socket,
                listener,
                exchange,
                admission,
                drain.clone(),
            ));
        }
        if let Some(admin) = self.admin.take() {
            self.serve_admin(admin, &pools, &lines, &drain);
        }
        let sweeping = Rc::clone(&pools);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                sweeping.sweep();
            }
        });
        let _ = self.stopped.wait_for(|stopped| *stopped).await;
        drain.begin();
        if tokio::time::timeout(self.drain_time, drain.finished())
            .await
            .is_err()
        {
            tracing::warn!("some requests did not end in time");
        }
    }

    fn exchange(
        &self,
        site: Site,
        pools: &Rc<Pools>,
        lines: &Lines,
        hsts: Option<HeaderValue>,
    ) -> Result<Exchange, aws_lc_rs::error::Unspecified> {
        Exchange::new(Setup {
            site,
            limits: self.limits,
            pools: Rc::clone(pools),
            lines: lines.clone(),
            metrics: Arc::clone(&self.site.metrics),
            begun: self.begun,
            hsts,
        })
    }

    fn serve_admin(&self, admin: BoundAdmin, pools: &Rc<Pools>, lines: &Lines, drain: &Drain) {
        let site = Site::Admin(Admin {
            metrics: Arc::clone(&self.site.metrics),
            ready: Arc::clone(&self.site.ready),
        });
        let Ok(exchange) = self.exchange(site, pools, lines, None) else {
            return;
        };
        let drain = drain.clone();
        match admin {
            BoundAdmin::Tcp(socket) => {
                let Ok(socket) = TcpListener::from_std(socket) else {
                    return;
                };
                let settings = Listener {
                    tls: None,
                    asks_for_certificates: false,
                    proxy_protocol_from: Arc::new(cidr::Set::new(Vec::new())),
                };
                let admission = Arc::new(Admission::new(64, 64));
                tokio::task::spawn_local(listen::accept(
                    socket, settings, exchange, admission, drain,
                ));
            }
            BoundAdmin::Unix(socket) => {
                let Ok(socket) = UnixListener::from_std(socket) else {
                    return;
                };
                tokio::task::spawn_local(listen::accept_unix(socket, exchange, drain));
            }
        }
    }
}

/// What the operator and the system say to the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Must be made within a runtime.
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Signals, reloads, and what is done now and then, until the gate is to stop.
async fn controlling(
    site: &Arc<Running>,
    mut signals: Signals,
    mut files: Option<Watch>,
    control: Option<Control>,
) {
    attend(&site.gate.load().identity);
    if let Some(control) = control {
        tokio::task::spawn_local(control.serve(Arc::clone(&site.shared)));
    }
    let mut prune = tokio::time::interval(PRUNE);
    // On its own: a provider or store that takes long keeps no signal waiting.
    tokio::task::spawn_local(watch_over_open(Arc::clone(site)));
    loop {
        let changed = async {
            match &mut files {
                Some(files) => files.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hang_up.recv() => reload(site, &mut files).await,
            () = changed => reload(site, &mut files).await,
            _ = prune.tick() => {
                if let Err(error) = site.shared.sessions().prune(now()).await {
                    tracing::warn!(%error, "old sessions can't be removed");
                }
                rotate(&site.signing.assertions).await;
                rotate(&site.signing.client).await;
            }
        }
    }
    tracing::info!("stopping: requests under way may end");
}

/// Gives keys that sign their turns.
async fn rotate(signing: &Arc<Keeper>) {
    let keeper = Arc::clone(signing);
    let file = signing.file();
    match tokio::task::spawn_blocking(move || keeper.rotate(now())).await {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => tracing::info!(%file, "keys that sign were rotated"),
        Ok(Err(error)) => tracing::warn!(%error, %file, "keys that sign can't be rotated"),
        Err(_) => tracing::warn!(%file, "the rotation of keys that sign broke off"),
    }
}

/// Asks stores and providers about sessions that something is open for, without an end; a provider that
/// hangs does not keep a store from being asked.
async fn watch_over_open(site: Arc<Running>) {
    let store = async {
        let mut tick = renewals();
        loop {
            tick.tick().await;
            let sessions = site.shared.sessions();
            site.metrics.session_store(sessions.are_heard());
            site.metrics.shared_rates(sessions.are_rates_shared());
            sessions.ask_about_open(now()).await;
        }
    };
    let providers = async {
        let mut tick = renewals();
        loop {
            tick.tick().await;
            let gate = site.gate.load_full();
            gate.identity.ask_about_open_sessions(now()).await;
        }
    };
    tokio::join!(store, providers);
}

fn renewals() -> tokio::time::Interval {
    let mut renewals = tokio::time::interval(RENEW);
    renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    renewals
}

/// Reads everything anew. What is in force stays unless all of it can be used.
async fn reload(site: &Arc<Running>, files: &mut Option<Watch>) {
    let reloading = Arc::clone(site);
    // Reading files and hashing nothing: still not for a thread that answers signals.
    let made = tokio::task::spawn_blocking(move || {
        let loaded = load(&reloading.directory).map_err(Error::Problems)?;
        let gateway = &loaded.config.gateway;
        let tls = loaded.config.speaks_tls();
        let certificates = tls
            .then(|| certificates(&gateway.tls, &reloading.directory))
            .transpose()
            .map_err(|error| start(error.to_string()))?;
        let lifetimes = Lifetimes {
            absolute: gateway.session.absolute,
            idle: gateway.session.idle,
        };
        let named = loaded.files.clone();
        let waiting = reloading.fixed.differs_in(&Fixed::of(&loaded.config));
        let problems = Problems::default();
        match gate(
            loaded,
            &reloading.shared,
            &reloading.rates,
            &reloading.signing,
            &reloading.in_force,
            &reloading.directory,
            &problems,
        ) {
            Some(gate) => Ok((gate, certificates, lifetimes, named, waiting)),
            None => Err(Error::Problems(problems.into_sorted())),
        }
    })
    .await;
    match made {
        Ok(Ok((gate, certificates, lifetimes, named, waiting))) => {
            if let Some(certificates) = certificates {
                site.certificates.replace(certificates);
            }
            site.shared.sessions().set_lifetimes(lifetimes);
            site.metrics
                .set_apps(gate.routes.apps().iter().map(|app| Arc::clone(&app.name)));
            site.metrics.set_certificates(site.certificates.expiries());
            site.gate.store(Arc::new(gate));
            site.metrics.reloaded(true);
            let gate = site.gate.load_full();
            attend(&gate.identity);
            if let Err(failure) = gate.identity.end_orphans(now()).await {
                tracing::warn!(
                    reason = failure.reason(),
                    "sessions of accounts that are gone can't be ended"
                );
            }
            // Before anybody is told, so that no edit after that is missed.
            if let Some(Err(error)) = files.as_mut().map(|files| files.follow(&named)) {
                tracing::warn!(%error, "some files can't be watched; reload by SIGHUP");
            }
            if !waiting.is_empty() {
                let changed = waiting.join(", ");
                tracing::warn!(changed, "what was changed there takes a restart");
            }
            tracing::info!("reloaded");
        }
        Ok(Err(error)) => {
            site.metrics.reloaded(false);
            tracing::error!(
                "the configuration can't be used; the one before stays in force\n{error}"
            );
        }
        Err(_) => {
            site.metrics.reloaded(false);
            tracing::error!("the reload broke off; the configuration before stays in force");
        }
    }
}

/// Keeps fresh the documents of issuers that nobody keeps fresh yet.
fn attend(identity: &Identity) {
    for (keys, client) in identity.unattended_keys() {
        let fetch = move |url: &str| kept::fetched::<KeySet>(client.clone(), url.to_owned());
        tokio::task::spawn_local(Keys::keep_fresh(Arc::downgrade(&keys), fetch, now));
    }
    for provider in identity.unattended_providers() {
        tokio::task::spawn_local(oidc::keep_fresh(Arc::downgrade(&provider), now));
    }
}
