//! The whole gate: what a client sends, through the real HTTP stack and every stage, to a backend
//! that records it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use zeroize::Zeroizing;

use crate::backend::pool::Pools;
use crate::config::{self, Files};
use crate::edge::exchange::{Exchange, Setup, Site};
use crate::edge::{Drain, Limits, http1 as edge};
use crate::identity::accounts::Accounts;
use crate::identity::machine_tokens::MachineTokens;
use crate::identity::password::Stored;
use crate::identity::{AtSignIn, Identity, Shared};
use crate::observe::access_log::{Format, Lines};
use crate::observe::metrics::Metrics;
use crate::observe::writer::Writer;
use crate::pipeline::{Gate, rate};
use crate::pure::connection::Connection;
use crate::pure::fields::Fields;
use crate::pure::http1::{self, Chunked, Framing, HeadLimits, Piece, Scanner};
use crate::pure::session::Lifetimes;
use crate::pure::spelling;
use crate::pure::table::Problems;
use crate::pure::target::Target;
use crate::session::Sessions;

const GATEWAY: &str = "[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n";
const POLICY: &str = r#"
host = "app.test"
backends = ["unix:SOCKET"]
access = "signed-in"
[rate]
per_client = "1000000/s"
burst = 1000000
[sign_in]
with = ["local"]
[headers]
identity = ["user", "email", "groups"]
[[path]]
prefix = "/public"
access = "public"
[[path]]
prefix = "/admin"
access = { groups = ["admins"] }
"#;
const LIMITS: HeadLimits = HeadLimits {
    bytes: 64 * 1024,
    target_bytes: 8 * 1024,
    fields: 100,
};
/// Stands in an input where the value of Bob's session cookie is to be.
const SESSION: &[u8] = b"{session}";
/// Turns of the runtime in which nothing moves, before the client hangs up.
const QUIET_TURNS: u32 = 24;

/// How the backend treats a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It reads all of it, and then answers.
    Patient,
    /// It answers at the head, and reads on.
    Hasty,
    /// It answers at the head, and hangs up.
    Rude,
    /// It answers in chunks, after an interim response.
    Wordy,
}

/// A request as the backend received it.
struct Received {
    target: String,
    headers: Fields,
    trailers: Fields,
}

#[derive(Default)]
struct Recorder {
    received: RefCell<Vec<Received>>,
    broken: RefCell<Option<String>>,
    manner: Cell<Option<Manner>>,
    moved: Cell<u64>,
}

impl Recorder {
    fn broken(&self, what: impl Into<String>) {
        self.broken.borrow_mut().get_or_insert(what.into());
    }
}

/// One gate for all inputs of a thread.
struct World {
    runtime: Runtime,
    tasks: LocalSet,
    exchange: Exchange,
    session: Zeroizing<String>,
    recorder: Rc<Recorder>,
    bad_line: Arc<Mutex<Option<String>>>,
    _writer: Writer,
    home: std::path::PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// Lines of the log, each of which gives a refusal's reason as `stage.what`.
struct LogCheck(Arc<Mutex<Option<String>>>);

impl Write for LogCheck {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        for line in String::from_utf8_lossy(lines).lines() {
            let Some((_, after)) = line.split_once("\"reason\":\"") else {
                continue;
            };
            let reason = after.split('"').next().unwrap_or_default();
            let word = |word: &str| {
                !word.is_empty()
                    && word
                        .bytes()
                        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
            };
            if !reason
                .split_once('.')
                .is_some_and(|(stage, what)| word(stage) && word(what))
            {
                *self.0.lock().expect("the log") = Some(line.to_owned());
            }
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl World {
    fn new() -> Self {
        static WORLDS: AtomicUsize = AtomicUsize::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!(
            "portcullis-exchange-{}-{number}",
            std::process::id()
        ));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let tasks = LocalSet::new();
        let recorder = Rc::new(Recorder::default());
        let socket = home.join("backend.sock");
        let policy = POLICY.replace("SOCKET", socket.to_str().expect("a UTF-8 path"));
        let problems = Problems::default();
        let files = Files {
            gateway: GATEWAY.to_owned(),
            policies: vec![("app".to_owned(), policy)],
            tests: Vec::new(),
            load: &|_| Err("there is no other file".to_owned()),
        };
        let config = config::read(&files, &problems);
        let config = config.unwrap_or_else(|| panic!("{:?}", problems.into_sorted()));
        let problems = Problems::default();
        let stored = Stored::new("bob's password", &[7; 16]).expect("a hash");
        let users = format!("[user.bob]\npassword = \"{}\"\n", stored.for_file());
        let accounts = Accounts::parse("users.toml", &users, &problems);
        let accounts = accounts.expect("an account");
        let sessions = Sessions::open(
            &home.join("sessions"),
            Lifetimes::default(),
            SystemTime::now,
        )
        .expect("a store");
        let shared = Arc::new(Shared::new(sessions, 1).expect("random bytes"));
        let identity = Identity::new(
            &shared,
            accounts,
            MachineTokens::default(),
            &[],
            &home,
            &problems,
        )
        .expect("an identity");
        let asked = AtSignIn {
            name: "bob",
            password: &Zeroizing::new("bob's password".to_owned()),
            client: Ipv4Addr::LOCALHOST.into(),
            host: "",
            user_agent: "",
            presented: None,
        };
        let signed_in = runtime.block_on(identity.sign_in_with_password(asked, SystemTime::now()));
        let session = signed_in
            .map_err(|failure| failure.reason())
            .expect("a session")
            .cookie;
        let gate = Gate {
            in_force: Arc::default(),
            number: 0,
            verify: None,
            routes: config.routes,
            identity: Arc::new(identity),
            rates: Arc::new(rate::Cells::new()),
            reserved: Arc::new(config.reserved),
            assertion: Default::default(),
        };
        let bad_line = Arc::<Mutex<Option<String>>>::default();
        let writer = Writer::start("log", LogCheck(Arc::clone(&bad_line))).expect("a thread");
        let exchange = Exchange::new(Setup {
            site: Site::Gate(Arc::new(ArcSwap::from_pointee(gate))),
            limits: Limits {
                head: LIMITS,
                tls_handshake: Duration::from_secs(5),
                header: Duration::from_secs(5),
                keep_alive: Duration::from_secs(5),
                body_idle: Duration::from_secs(5),
                minimum_rate: 1,
                http2_streams: 100,
                http2_resets: 100,
                tunnel_idle: Duration::from_secs(5),
            },
            pools: Rc::new(Pools::default()),
            lines: Lines::new(Format::Json, writer.sink()),
            metrics: Arc::new(Metrics::new(writer.sink(), || 0)),
            begun: Instant::now(),
            hsts: None,
        })
        .expect("random bytes");
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&socket).expect("a socket")
        };
        let recorded = Rc::clone(&recorder);
        tasks.spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(backend(stream, Rc::clone(&recorded)));
            }
        });
        Self {
            runtime,
            tasks,
            exchange,
            session,
            recorder,
            bad_line,
            _writer: writer,
            home,
        }
    }

    /// Sends `bytes` as one client's connection, in pieces of `piece` bytes; what the backend got.
    fn send(&self, bytes: &[u8], piece: usize, manner: Manner) -> Vec<Received> {
        let client = Client {
            left: bytes.to_vec().into(),
            piece: piece.max(1),
            answered: Rc::default(),
            hung_up: Rc::default(),
            recorder: Rc::clone(&self.recorder),
        };
        let (answered, hung_up) = (Rc::clone(&client.answered), Rc::clone(&client.hung_up));
        self.recorder.manner.set(Some(manner));
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let conn = Rc::new(Connection {
            peer: nowhere,
            tls: None,
        });
        let serving = edge::serve(client, conn, self.exchange.clone(), Drain::default());
        self.tasks.block_on(&self.runtime, async {
            let mut serving = std::pin::pin!(serving);
            let (mut done, mut quiet, mut before) = (false, 0, u64::MAX);
            // What the backend was sent last, it must still read.
            while !done || quiet <= QUIET_TURNS {
                if !done {
                    let turn =
                        |cx: &mut Context<'_>| Poll::Ready(serving.as_mut().poll(cx).is_ready());
                    done = std::future::poll_fn(turn).await;
                }
                let moved = self.recorder.moved.get();
                quiet = if moved == before { quiet + 1 } else { 0 };
                before = moved;
                if quiet > QUIET_TURNS {
                    hung_up.set(true);
                }
                tokio::task::yield_now().await;
            }
        });
        if let Some(broken) = self.recorder.broken.take() {
            panic!("the backend received {broken}");
        }
        let answered = answered.take();
        assert!(answered.is_empty() || answered.starts_with(b"HTTP/1.1 "));
        assert_eq!(*self.bad_line.lock().expect("the log"), None, "no reason");
        self.recorder.received.take()
    }
}

/// The client's end: all that it sends, then silence until it hangs up.
struct Client {
    left: VecDeque<u8>,
    piece: usize,
    answered: Rc<RefCell<Vec<u8>>>,
    hung_up: Rc<Cell<bool>>,
    recorder: Rc<Recorder>,
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left.is_empty() {
            // Whoever drives the connection polls it each turn.
            return if this.hung_up.get() {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        let most = this.piece.min(buf.remaining()).min(this.left.len());
        buf.put_slice(&this.left.drain(..most).collect::<Vec<u8>>());
        this.recorder.moved.set(this.recorder.moved.get() + 1);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.answered.borrow_mut().extend_from_slice(bytes);
        self.recorder.moved.set(self.recorder.moved.get() + 1);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It reads no more after the last answer, so there is nothing to wait for.
        self.hung_up.set(true);
        Poll::Ready(Ok(()))
    }
}

async fn backend(mut stream: UnixStream, recorder: Rc<Recorder>) {
    let mut buffer = BytesMut::new();
    loop {
        match request(&mut stream, &mut buffer, &recorder).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(broken) => return recorder.broken(broken),
        }
    }
}

async fn more(stream: &mut UnixStream, buffer: &mut BytesMut, recorder: &Recorder) -> bool {
    let read = stream.read_buf(buffer).await;
    recorder.moved.set(recorder.moved.get() + 1);
    matches!(read, Ok(read) if read > 0)
}

/// Reads one request, strictly, and answers it; whether another may follow.
async fn request(
    stream: &mut UnixStream,
    buffer: &mut BytesMut,
    recorder: &Recorder,
) -> Result<bool, String> {
    let mut scanner = Scanner::default();
    let end = loop {
        if let Some(end) = scanner
            .end(buffer, LIMITS.bytes * 2)
            .map_err(|bad| format!("{bad:?}"))?
        {
            break end;
        }
        if !more(stream, buffer, recorder).await {
            return if buffer.is_empty() {
                Ok(false)
            } else {
                Err("half a head".to_owned())
            };
        }
    };
    let bytes: Bytes = buffer.split_to(end).freeze();
    let shown = || String::from_utf8_lossy(&bytes).into_owned();
    let mut head =
        http1::request_head(&bytes, &LIMITS).map_err(|bad| format!("{bad:?} in {}", shown()))?;
    for name in ["content-length", "transfer-encoding", "host"] {
        let lines = head.headers.named(name).count();
        if lines > 1 || (name == "host" && lines == 0) {
            return Err(format!("{name} {lines} times in {}", shown()));
        }
    }
    let framing = http1::request_framing(head.version, &mut head.headers)
        .map_err(|bad| format!("{bad:?} in {}", shown()))?;
    let at = recorder.received.borrow().len();
    let method = head.method.clone();
    recorder.received.borrow_mut().push(Received {
        target: String::from_utf8_lossy(&head.target).into_owned(),
        headers: head.headers,
        trailers: Fields::new(),
    });
    let manner = recorder.manner.get().unwrap_or(Manner::Patient);
    if matches!(manner, Manner::Hasty | Manner::Rude) && !answer(stream, &method, manner).await {
        return Ok(false);
    }
    if manner == Manner::Rude {
        return Ok(false);
    }
    match framing {
        Framing::Length(mut left) => {
            while left > 0 {
                if buffer.is_empty() && !more(stream, buffer, recorder).await {
                    return Ok(false);
                }
                let took = buffer
                    .len()
                    .min(usize::try_from(left).unwrap_or(usize::MAX));
                let _ = buffer.split_to(took);
                left -= took as u64;
            }
        }
        Framing::Chunked => {
            let mut chunked = Chunked::default();
            loop {
                match chunked
                    .next(buffer)
                    .map_err(|bad| format!("{bad:?} in chunks"))?
                {
                    Piece::Data(_) => {}
                    Piece::Trailers(trailers) => {
                        if let Some(received) = recorder.received.borrow_mut().get_mut(at) {
                            received.trailers = trailers;
                        }
                        break;
                    }
                    Piece::End => break,
                    Piece::More => {
                        if !more(stream, buffer, recorder).await {
                            return Ok(false);
                        }
                    }
                }
            }
        }
        Framing::None | Framing::UntilClose => {}
    }
    Ok(manner == Manner::Hasty || answer(stream, &method, manner).await)
}

async fn answer(stream: &mut UnixStream, method: &[u8], manner: Manner) -> bool {
    let head: &[u8] = match manner {
        Manner::Wordy => {
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        }
        Manner::Patient | Manner::Hasty | Manner::Rude => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        }
    };
    let content: &[u8] = match manner {
        _ if method == b"HEAD" => b"",
        Manner::Wordy => b"2\r\nok\r\n0\r\n\r\n",
        Manner::Patient | Manner::Hasty | Manner::Rude => b"ok",
    };
    stream.write_all(&[head, content].concat()).await.is_ok()
}

/// What any server might take a path for: decoded until nothing changes, dot segments resolved.
fn as_anybody_reads(target: &str) -> String {
    let mut path = target
        .split('?')
        .next()
        .unwrap_or_default()
        .as_bytes()
        .to_vec();
    loop {
        let mut decoded = Vec::new();
        let mut rest = path.as_slice();
        while let Some((&byte, after)) = rest.split_first() {
            let escape = after
                .get(..2)
                .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
            match escape {
                Some(escaped) if byte == b'%' => {
                    decoded.push(escaped);
                    rest = after.get(2..).unwrap_or_default();
                }
                _ => {
                    decoded.push(byte);
                    rest = after;
                }
            }
        }
        if decoded == path {
            break;
        }
        path = decoded;
    }
    let text = String::from_utf8_lossy(&path).replace('\\', "/");
    let mut segments = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment.to_owned()),
        }
    }
    segments.first().cloned().unwrap_or_default()
}

/// What holds of everything that the backend received, whatever was sent.
fn check(received: &[Received], most: usize, has_session: bool) {
    assert!(
        received.len() <= most,
        "{} requests became {}",
        most,
        received.len()
    );
    for Received {
        target,
        headers,
        trailers,
    } in received
    {
        let canonical =
            Target::parse(target.as_bytes()).unwrap_or_else(|_| panic!("sent {target}"));
        assert_eq!(
            canonical.to_string(),
            *target,
            "another path than was decided on"
        );
        let identity = |name: &&http::HeaderName| {
            spelling::fold(name.as_str().as_bytes())
                .as_bytes()
                .starts_with(b"x-portcullis-")
        };
        assert_eq!(trailers.names().find(identity), None, "in trailers");
        let users: Vec<_> = headers.named("x-portcullis-user").collect();
        assert!(
            users.is_empty() || (users.len() == 1 && users[0] == "bob" && has_session),
            "{users:?}"
        );
        assert_eq!(
            headers.names().filter(identity).count(),
            users.len(),
            "{headers:?}"
        );
        let ours = |value: &http::HeaderValue| value.as_bytes().starts_with(b"__Host-portcullis");
        assert!(!headers.named("cookie").any(ours), "{headers:?}");
        let first = as_anybody_reads(target);
        assert_ne!(first, "admin", "Bob is no admin: {target}");
        assert!(
            first == "public" || users.len() == 1,
            "{target} without a grant"
        );
    }
}

const MANNERS: [Manner; 4] = [Manner::Patient, Manner::Hasty, Manner::Rude, Manner::Wordy];
const METHODS: [&str; 8] = [
    "GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "CONNECT", "get",
];
const TARGETS: [&str; 16] = [
    "/public/a",
    "/private",
    "/admin",
    "/public/../admin",
    "/public/%2e%2e/admin",
    "/public/..%2fadmin",
    "/%61dmin",
    "//admin",
    "/public;/../admin",
    "/public\\..\\admin",
    "/ADMIN",
    "/public?x=/admin",
    "http://app.test/admin",
    "http://other.test/public",
    "/public%00/",
    "/.portcullis/sign-in",
];
const FIELDS: [&str; 24] = [
    "Cookie: __Host-portcullis_session={session}",
    "X-Portcullis-User: root",
    "X_Portcullis_User: root",
    "x-portcullis-groups: admins",
    "Connection: x-portcullis-user",
    "Connection: close",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    "Expect: 100-continue",
    "Transfer-Encoding: chunked",
    "Content-Length: 5",
    "Content-Length: 0",
    "TE: trailers",
    "Trailer: x-portcullis-user",
    "Authorization: Bearer a.b.c",
    "X-Original-URL: /admin",
    "X-Forwarded-For: 10.0.0.1",
    "Host: other.test",
    "Transfer-Encoding : chunked",
    "Cookie: a=b",
    " folded",
    "X-HTTP-Method-Override: PUT",
];
const CONTENTS: [&str; 4] = [
    "",
    "hello",
    "GET /admin HTTP/1.1\r\nHost: app.test\r\n\r\n",
    "0\r\n\r\nGET /private HTTP/1.1\r\nHost: app.test\r\n\r\n",
];
const TRAILERS: [&str; 4] = [
    "",
    "X-Portcullis-User: root\r\n",
    "X-Sum: 1\r\n",
    "Content-Length: 5\r\n",
];

/// Requests that are nearly right, from a few bytes each; and how many, where no field of framing was
/// added that leaves it open.
fn requests(mut data: &[u8]) -> (Vec<u8>, Option<usize>) {
    let (mut out, mut count, mut clear) = (Vec::new(), 0, true);
    while let [method, target, frame, fields, rest @ ..] = data {
        let pick = |from: &[&'static str], by: u8| from[usize::from(by) % from.len()];
        count += 1;
        out.extend(
            format!(
                "{} {} HTTP/1.1\r\nHost: app.test\r\n",
                pick(&METHODS, *method),
                pick(&TARGETS, *target)
            )
            .bytes(),
        );
        let fields = rest.len().min(usize::from(fields % 5));
        for by in &rest[..fields] {
            let field = pick(&FIELDS, *by);
            clear &=
                !field.starts_with("Content-Length") && !field.starts_with("Transfer-Encoding");
            out.extend(format!("{field}\r\n").bytes());
        }
        data = &rest[fields..];
        let content = pick(&CONTENTS, frame >> 2);
        match frame % 4 {
            0 => out.extend(b"\r\n"),
            1 => out.extend(format!("Content-Length: {}\r\n\r\n{content}", content.len()).bytes()),
            2 if content.is_empty() => out.extend(b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            2 => {
                let trailer = pick(&TRAILERS, frame >> 4);
                out.extend(
                    format!(
                        "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{content}\r\n0\r\n{trailer}\r\n",
                        content.len()
                    )
                    .bytes(),
                );
            }
            // Less than was promised.
            _ => {
                out.extend(format!("Content-Length: 9999\r\n\r\n{content}").bytes());
                break;
            }
        }
    }
    (out, clear.then_some(count))
}

/// Whatever a client sends, the backend gets no more requests than were sent, each with one framing,
/// no identity that the gate did not write, and no protected path without a grant.
///
/// The first byte says how it is sent; what follows is bytes, or choices of nearly right requests.
pub fn exchange(data: &[u8]) {
    thread_local! {
        static WORLD: World = World::new();
    }
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    WORLD.with(|world| {
        // Letters begin the files that people write; those are bytes as they stand.
        let (text, promised) = if how & 0x80 != 0 {
            requests(rest)
        } else {
            (data.to_vec(), None)
        };
        let mut bytes = Vec::new();
        let mut left = text.as_slice();
        while let Some(at) = left.windows(SESSION.len()).position(|part| part == SESSION) {
            bytes.extend_from_slice(&left[..at]);
            bytes.extend_from_slice(world.session.as_bytes());
            left = &left[at + SESSION.len()..];
        }
        bytes.extend_from_slice(left);
        let has_session = bytes
            .windows(world.session.len())
            .any(|part| part == world.session.as_bytes());
        let heads = bytes.windows(4).filter(|part| part == b"\r\n\r\n").count();
        let most = promised.unwrap_or(heads);
        let manner = MANNERS[usize::from(how >> 2) % MANNERS.len()];
        let piece = [1, 7, 4096, usize::MAX][usize::from(how % 4)];
        check(&world.send(&bytes, piece, manner), most, has_session);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_seeds_and_every_attack_keep_the_gate_whole() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut seen = 0;
        for directory in ["fuzz/corpus/exchange", "tests/attacks"] {
            for entry in std::fs::read_dir(root.join(directory)).expect("a directory") {
                let path = entry.expect("an entry").path();
                let seed = std::fs::read(&path).expect("a file");
                if path
                    .extension()
                    .is_some_and(|extension| extension == "http")
                {
                    let text = String::from_utf8(seed).expect("UTF-8");
                    let (_, sent) = text.split_once("\n\n").expect("an empty line");
                    exchange(&unescape(sent));
                } else if path.extension().is_none() {
                    exchange(&seed);
                    let text = String::from_utf8_lossy(&seed)
                        .replace("\r\n", "\n")
                        .replace('\n', "\r\n");
                    exchange(text.as_bytes());
                }
                seen += 1;
            }
        }
        assert!(seen > 100);
    }

    /// The escapes of `tests/attacks/README.md`, but for long repetitions.
    fn unescape(sent: &str) -> Vec<u8> {
        let sent = sent
            .replace('\n', "")
            .replace("\\{session}", "__Host-portcullis_session={session}");
        let sent = sent
            .replace("\\{session_value}", "{session}")
            .replace("\\r", "\r")
            .replace("\\n", "\n")
            .replace("\\t", "\t");
        let mut out = Vec::new();
        let mut parts = sent.split("\\x");
        out.extend(parts.next().unwrap_or_default().bytes());
        for part in parts {
            match part
                .get(..2)
                .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            {
                Some(byte) => {
                    out.push(byte);
                    out.extend(part[2..].bytes());
                }
                None => out.extend(part.bytes()),
            }
        }
        out
    }

    #[test]
    fn the_harness_lets_what_is_right_pass() {
        let world = World::new();
        let session = world.session.as_str();
        let sent = format!(
            "POST /public HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhiGET /private HTTP/1.1\r\nHost: app.test\r\nCookie: __Host-portcullis_session={session}\r\n\r\nGET /private HTTP/1.1\r\nHost: app.test\r\n\r\n"
        );
        for manner in [Manner::Patient, Manner::Wordy] {
            let received = world.send(sent.as_bytes(), 7, manner);
            check(&received, 3, true);
            assert_eq!(received.len(), 2, "{manner:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn requests_that_are_nearly_right_keep_the_gate_whole(
            how in 0x80_u8..=0xff, choices in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            exchange(&[&[how], choices.as_slice()].concat());
        }
    }
}
