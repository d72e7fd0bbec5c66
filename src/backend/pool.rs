//! Idle connections to backends, one pool a core: no lock, no wake-up across threads.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::deadline::Deadline;
use crate::pure::quick::Quick;
use crate::scratch;

use super::io::BackendIo;
use super::{Error, Timeouts};

/// How often idle connections are looked at.
pub const SWEEP: Duration = Duration::from_secs(5);
/// A connection is not used again after so many sweeps, which is 10 to 15 seconds: below what servers
/// close idle ones at. Counting sweeps spares each request two readings of the clock.
const MOST_SWEEPS: u32 = 3;
/// Idle connections kept for one backend on one core: as many as were needed at once, since opening one
/// costs as much as five requests. [`MOST_SWEEPS`] takes them down when they are not.
const MOST_IDLE: usize = 2048;

/// Everything that makes a connection; two backends that differ in any of it share none.
#[derive(Debug, Clone)]
pub struct Spec {
    id: u64,
    /// Where it listens.
    pub address: Address,
    /// TLS to it, when it speaks TLS.
    pub tls: Option<Tls>,
    /// How long it may take.
    pub timeouts: Timeouts,
}

/// Where a backend listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A name or address, and a port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// TLS to a backend: trust, own certificate and verification are all in `config`.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The client's side.
    pub config: Arc<ClientConfig>,
    /// The name its certificate must have.
    pub server_name: ServerName<'static>,
}

impl Spec {
    /// A backend that shares no connection with any made before.
    pub fn new(address: Address, tls: Option<Tls>, timeouts: Timeouts) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            address,
            tls,
            timeouts,
        }
    }
}

/// A connection and what was read ahead on it.
#[derive(Debug)]
pub struct Conn {
    /// The socket.
    pub io: BackendIo,
    /// Bytes read but not used.
    pub input: BytesMut,
    /// The timer of whoever uses it.
    pub clock: Deadline,
    /// The sweep before which it was kept.
    kept_at: u32,
}

/// The idle connections of one backend on this core.
#[derive(Debug)]
pub struct Endpoint {
    /// What it connects to: a copy, so that no core keeps a backend known to the others.
    pub spec: Spec,
    named: Weak<Spec>,
    sweeps: Rc<Cell<u32>>,
    idle: RefCell<VecDeque<Conn>>,
}

/// All endpoints of this core.
#[derive(Debug, Default)]
pub struct Pools {
    endpoints: RefCell<HashMap<u64, Rc<Endpoint>, Quick>>,
    sweeps: Rc<Cell<u32>>,
}

impl Pools {
    /// The endpoint of a backend.
    pub fn endpoint(&self, spec: &Arc<Spec>) -> Rc<Endpoint> {
        let mut endpoints = self.endpoints.borrow_mut();
        if let Some(endpoint) = endpoints.get(&spec.id) {
            return Rc::clone(endpoint);
        }
        // A new one comes with a reload: the server is often the same, and what idles on the
        // connections made before would be in the way of the first new one.
        endpoints.retain(|_, endpoint| endpoint.is_named());
        let endpoint = Rc::new(Endpoint {
            spec: Spec::clone(spec),
            named: Arc::downgrade(spec),
            sweeps: Rc::clone(&self.sweeps),
            idle: RefCell::default(),
        });
        endpoints.insert(spec.id, Rc::clone(&endpoint));
        endpoint
    }

    /// Closes connections idle for too long, and forgets backends that no policy names any more; to
    /// be called every [`SWEEP`].
    pub fn sweep(&self) {
        let sweep = self.sweeps.get().wrapping_add(1);
        self.sweeps.set(sweep);
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            let mut idle = endpoint.idle.borrow_mut();
            idle.retain(|conn| sweep.wrapping_sub(conn.kept_at) < MOST_SWEEPS);
            endpoint.is_named()
        });
    }
}

impl Endpoint {
    /// Whether a policy, or a request under way, still names the backend.
    fn is_named(&self) -> bool {
        self.named.strong_count() > 0
    }

    /// An idle connection that is still open, for a request that may be sent again: its server may be
    /// closing it at this moment, and nothing here can tell. One that has something to say without
    /// being asked is out of step, and dropped.
    pub fn reuse(&self) -> Option<Conn> {
        loop {
            let mut conn = self.idle.borrow_mut().pop_back()?;
            let mut none = Context::from_waker(Waker::noop());
            let read = scratch::poll_read(&mut conn.io, &mut none, &mut conn.input);
            if matches!(read, Poll::Pending) {
                return Some(conn);
            }
        }
    }

    /// Keeps a connection whose exchange ended cleanly, unless nobody will ask for it.
    pub fn keep(&self, mut conn: Conn) {
        if !conn.input.is_empty() || !self.is_named() {
            return;
        }
        conn.kept_at = self.sweeps.get();
        conn.clock.clear();
        conn.input = BytesMut::new();
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= MOST_IDLE {
            idle.pop_front();
        }
        idle.push_back(conn);
    }

    /// A new connection.
    ///
    /// # Errors
    /// Why there is none; the whole attempt is bounded by the backend's connect time.
    pub async fn connect(&self) -> Result<Conn, Error> {
        let io = tokio::time::timeout(self.spec.timeouts.connect, self.open())
            .await
            .map_err(|_| Error::ConnectTimeout)??;
        Ok(Conn {
            io,
            input: BytesMut::new(),
            clock: Deadline::default(),
            kept_at: self.sweeps.get(),
        })
    }

    async fn open(&self) -> Result<BackendIo, Error> {
        match &self.spec.address {
            Address::Unix(path) => UnixStream::connect(path)
                .await
                .map(BackendIo::Unix)
                .map_err(|_| Error::Connect),
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(|_| Error::Connect)?;
                let _ = stream.set_nodelay(true);
                let Some(tls) = &self.spec.tls else {
                    return Ok(BackendIo::Tcp(stream));
                };
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let stream = connector
                    .connect(tls.server_name.clone(), stream)
                    .await
                    .map_err(|_| Error::Tls)?;
                Ok(BackendIo::Tls(Box::new(stream)))
            }
        }
    }
}
