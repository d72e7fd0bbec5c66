//! The connection to Redis or Valkey, and what other gates say over it.
//!
//! One loop connects, subscribes and listens: to a server alone, by way of sentinels or to a cluster.
//! After any failure it does all of that anew. A gate hears its own beat over the connection on which it
//! hears the others, so that it knows when it does not hear them.
//!
//! | when | then |
//! |---|---|
//! | connected, and the beat comes back | an epoch: what was read in it is good until somebody says otherwise |
//! | the same in a cluster | what is in memory is asked about: each link of its bus may fail alone |
//! | no beat for 750 ms, a lost connection, too many messages | no epoch: what is in memory is asked about |
//! | no connection | whoever asks is told at once |

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use crate::pure::redis_url::RedisUrl;
use crate::pure::session::Hash;

use super::store::StoreError;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// And where several servers may have to be tried.
const CONNECT_ANY: Duration = Duration::from_secs(10);
/// How long a command may take.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long until it is tried to connect again.
const RETRY: Duration = Duration::from_millis(200);
/// How often a gate says that it is there, to itself.
const BEAT: Duration = Duration::from_millis(250);
/// After so long without a beat others are not believed to be heard: a session that ends there is over
/// here within a second, heard or not.
const SILENCE: Duration = Duration::from_millis(750);
/// Messages that wait to be read; with more it is as if none had been heard.
const MESSAGES: usize = 4096;

/// Where the servers are, and how they are spoken to.
pub struct Settings {
    /// One server, several sentinels, or several servers of a cluster.
    pub servers: Vec<RedisUrl>,
    /// The name that sentinels know the server by.
    pub sentinel_master: Option<String>,
    /// Who the gate is there.
    pub user: Option<String>,
    /// And by which password.
    pub password: Option<Zeroizing<String>>,
    /// The authorities to trust, in PEM; the system's without.
    pub ca: Option<Vec<u8>>,
    /// What the names of all keys and channels begin with.
    pub prefix: String,
}

impl Settings {
    fn is_cluster(&self) -> bool {
        self.sentinel_master.is_none() && self.servers.len() > 1
    }
}

/// What another gate did to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It ended.
    Ended(Hash),
    /// It has another record.
    Replaced(Hash),
}

/// What hears the news.
pub type Hear = Box<dyn Fn(News) + Send + Sync>;

impl News {
    const BYTES: usize = 41;

    /// The message of `gate`.
    pub fn message(self, gate: [u8; 8]) -> Vec<u8> {
        let (kind, hash) = match self {
            Self::Ended(hash) => (b'e', hash),
            Self::Replaced(hash) => (b'r', hash),
        };
        let mut message = Vec::with_capacity(Self::BYTES);
        message.push(kind);
        message.extend_from_slice(&gate);
        message.extend_from_slice(&hash.0);
        message
    }

    /// What a message says, and which gate says it; nothing if it is no message of a gate.
    fn read(message: &[u8]) -> Option<([u8; 8], Self)> {
        let (kind, rest) = message.split_first()?;
        let (gate, hash) = rest.split_first_chunk()?;
        let hash = Hash(hash.try_into().ok()?);
        match kind {
            b'e' => Some((*gate, Self::Ended(hash))),
            b'r' => Some((*gate, Self::Replaced(hash))),
            _ => None,
        }
    }
}

/// A connection that commands share.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    One(MultiplexedConnection),
    /// To every server of a cluster.
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// The connection, while there is one.
pub struct Link {
    connection: ArcSwapOption<Connection>,
    /// The epoch; zero while nothing is heard.
    epoch: AtomicU64,
    /// The last one that there was.
    last_epoch: AtomicU64,
    /// When the last beat was heard, by the clock.
    heard_ms: AtomicU64,
    is_away: AtomicBool,
    hears_everybody: bool,
    suspect: Notify,
    gate: [u8; 8],
    channel: String,
    beats: String,
    clock: fn() -> SystemTime,
}

/// Why it is connected anew.
enum Lost {
    /// The connection can't be used.
    Closed(Arc<str>),
    /// The others are not heard; commands may still be answered.
    Silent,
}

impl Link {
    /// The link of a gate that others know by `gate`, not connected yet.
    pub fn new(settings: &Settings, gate: [u8; 8], clock: fn() -> SystemTime) -> Self {
        let prefix = &settings.prefix;
        let name = u64::from_be_bytes(gate);
        Self {
            connection: ArcSwapOption::empty(),
            epoch: AtomicU64::new(0),
            last_epoch: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            hears_everybody: !settings.is_cluster(),
            suspect: Notify::new(),
            gate,
            channel: format!("{prefix}:news"),
            beats: format!("{prefix}:beat:{name:016x}"),
            clock,
        }
    }

    /// Who this gate is to the others.
    pub const fn gate(&self) -> [u8; 8] {
        self.gate
    }

    /// Where gates tell each other.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The epoch, in which whatever other gates do is heard; none while it is not.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether an epoch says that everybody is heard.
    pub const fn hears_everybody(&self) -> bool {
        self.hears_everybody
    }

    /// Until when, in milliseconds since 1970, it is known that all of an epoch was heard.
    pub fn heard_until(&self, epoch: u64) -> u64 {
        if epoch == self.last_epoch.load(Ordering::Acquire) {
            self.heard_ms.load(Ordering::Acquire)
        } else {
            0
        }
    }

    /// The connection.
    ///
    /// # Errors
    /// There is none now.
    pub fn connection(&self) -> Result<Connection, StoreError> {
        self.connection
            .load()
            .as_deref()
            .cloned()
            .ok_or(StoreError::Away)
    }

    /// What a failed command means for all others.
    pub fn failed(&self, why: &RedisError) {
        let of_the_server = why.is_unrecoverable_error()
            || why.is_timeout()
            || why.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
        if of_the_server {
            self.suspect.notify_one();
        }
    }

    /// Keeps connected, and tells `hear` what other gates do.
    pub async fn keep(self: Arc<Self>, settings: Settings, hear: Hear) {
        let patience = match settings.servers.len() {
            0 | 1 => CONNECT,
            _ => CONNECT_ANY,
        };
        loop {
            let (to, pushes) = mpsc::channel(MESSAGES);
            match timeout(patience, self.connect(&settings, to)).await {
                Ok(Ok(connection)) => {
                    self.connection.store(Some(Arc::new(connection.clone())));
                    let why = self.attend(&connection, pushes, &hear).await;
                    self.epoch.store(0, Ordering::Release);
                    match why {
                        Lost::Closed(why) => self.away(&why),
                        Lost::Silent => {
                            warn!("other gates are not heard; sessions are asked about instead");
                        }
                    }
                }
                Ok(Err(why)) => self.away(&why.to_string()),
                Err(_) => self.away("it does not answer"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn away(&self, why: &str) {
        self.connection.store(None);
        if !self.is_away.swap(true, Ordering::Relaxed) {
            error!(
                error = why,
                "the session store is away; until it is back nobody can sign in, and each gate counts rates for itself"
            );
        }
    }

    /// Returns when something is wrong.
    async fn attend(
        &self,
        connection: &Connection,
        mut pushes: mpsc::Receiver<PushInfo>,
        hear: &Hear,
    ) -> Lost {
        tokio::select! {
            why = self.beat(connection.clone()) => Lost::Closed(why.to_string().into()),
            why = self.listen(&mut pushes, hear) => why,
            () = self.suspect.notified() => Lost::Closed("a command failed".into()),
        }
    }

    async fn beat(&self, mut connection: Connection) -> RedisError {
        loop {
            let beat = redis::cmd("PUBLISH")
                .arg(&self.beats)
                .arg(&self.gate)
                .exec_async(&mut connection)
                .await;
            if let Err(why) = beat {
                return why;
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    async fn listen(&self, pushes: &mut mpsc::Receiver<PushInfo>, hear: &Hear) -> Lost {
        let mut heard = Instant::now();
        loop {
            let left = SILENCE.saturating_sub(heard.elapsed());
            let push = match timeout(left, pushes.recv()).await {
                Ok(Some(push)) => push,
                Ok(None) => return Lost::Closed("its connection is closed".into()),
                Err(_) => return Lost::Silent,
            };
            if push.kind == PushKind::Disconnection {
                return Lost::Closed("its connection broke".into());
            }
            let (PushKind::Message, [Value::BulkString(channel), Value::BulkString(message)]) =
                (&push.kind, push.data.as_slice())
            else {
                continue;
            };
            if channel == self.beats.as_bytes() {
                heard = Instant::now();
                self.heard();
            } else if let Some((gate, news)) = News::read(message)
                && gate != self.gate
            {
                hear(news);
            }
        }
    }

    fn heard(&self) {
        self.heard_ms
            .store(millis((self.clock)()), Ordering::Release);
        if self.epoch() == 0 {
            let epoch = self.last_epoch.load(Ordering::Acquire).saturating_add(1);
            self.last_epoch.store(epoch, Ordering::Release);
            self.epoch.store(epoch, Ordering::Release);
            if self.is_away.swap(false, Ordering::Relaxed) {
                info!("session store works again");
            }
        }
    }

    async fn connect(
        self: &Arc<Self>,
        settings: &Settings,
        to: mpsc::Sender<PushInfo>,
    ) -> RedisResult<Connection> {
        let link = Arc::clone(self);
        let push = move |push| {
            to.try_send(push).inspect_err(|why| {
                if matches!(why, mpsc::error::TrySendError::Full(_)) {
                    link.suspect.notify_one();
                }
            })
        };
        let channels = [self.channel.as_str(), self.beats.as_str()];
        if settings.is_cluster() {
            let mut connection = cluster(settings, push)?.get_async_connection().await?;
            connection.subscribe(&channels[..]).await?;
            return Ok(Connection::Cluster(connection));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(push);
        let client = match &settings.sentinel_master {
            Some(master) => sentinel(settings, master)?.async_get_client().await?,
            None => one(settings)?,
        };
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        connection.subscribe(&channels[..]).await?;
        Ok(Connection::One(connection))
    }
}

/// Milliseconds since 1970.
pub fn millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

fn one(settings: &Settings) -> RedisResult<Client> {
    let [server] = settings.servers.as_slice() else {
        return Err(nowhere());
    };
    let mut account = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    if let Some(user) = &settings.user {
        account = account.set_username(user);
    }
    if let Some(password) = &settings.password {
        account = account.set_password(password.as_str());
    }
    let server = address(server)
        .into_connection_info()?
        .set_redis_settings(account);
    match certificates(settings) {
        Some(certificates) => Client::build_with_tls(server, certificates),
        None => Client::open(server),
    }
}

fn sentinel(settings: &Settings, master: &str) -> RedisResult<redis::sentinel::SentinelClient> {
    let sentinels = settings.servers.iter().map(address);
    let mut builder = SentinelClientBuilder::new(sentinels, master, SentinelServerType::Master)?
        .set_client_to_redis_protocol(ProtocolVersion::RESP3);
    if let Some(user) = &settings.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &settings.password {
        builder = builder.set_client_to_redis_password(password.as_str());
    }
    if is_tls(settings) {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates(settings) {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    builder.build()
}

fn cluster(
    settings: &Settings,
    push: impl redis::aio::AsyncPushSender,
) -> RedisResult<redis::cluster::ClusterClient> {
    let mut builder = ClusterClientBuilder::new(settings.servers.iter().map(address))
        .use_protocol(ProtocolVersion::RESP3)
        .connection_timeout(CONNECT)
        .response_timeout(PATIENCE)
        .push_sender(push);
    if let Some(user) = &settings.user {
        builder = builder.username(user);
    }
    if let Some(password) = &settings.password {
        builder = builder.password(password.as_str());
    }
    if is_tls(settings) {
        builder = builder.tls(TlsMode::Secure);
    }
    if let Some(certificates) = certificates(settings) {
        builder = builder.certs(certificates);
    }
    builder.build()
}

fn nowhere() -> RedisError {
    (ErrorKind::InvalidClientConfig, "no server is stated").into()
}

fn is_tls(settings: &Settings) -> bool {
    let tls = |server: &RedisUrl| matches!(server, RedisUrl::Tcp { tls: true, .. });
    settings.servers.iter().any(tls)
}

fn address(server: &RedisUrl) -> ConnectionAddr {
    match server {
        RedisUrl::Unix(path) => ConnectionAddr::Unix(PathBuf::clone(path)),
        RedisUrl::Tcp {
            host,
            port,
            tls: false,
        } => ConnectionAddr::Tcp(host.clone(), *port),
        RedisUrl::Tcp {
            host,
            port,
            tls: true,
        } => ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        },
    }
}

fn certificates(settings: &Settings) -> Option<TlsCertificates> {
    let certificates = settings.ca.as_ref().map(|pem| TlsCertificates {
        client_tls: None,
        root_cert: Some(pem.clone()),
    });
    certificates.filter(|_| is_tls(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_read_as_they_were_written_and_nothing_else_is() {
        for news in [News::Ended(Hash([1; 32])), News::Replaced(Hash([2; 32]))] {
            let message = news.message([9; 8]);
            assert_eq!(News::read(&message), Some(([9; 8], news)));
            for cut in 0..message.len() {
                assert_eq!(News::read(&message[..cut]), None);
            }
            let long = [message.as_slice(), b"x"].concat();
            assert_eq!(News::read(&long), None);
            let other = [b"x", &message[1..]].concat();
            assert_eq!(News::read(&other), None);
        }
    }
}
