//! A gate of its own for each test, a backend that records what it gets, and a client of raw bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Nothing here takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The password of every account.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A running gate, stopped when dropped.
pub(crate) struct Gate {
    child: Child,
    /// Its configuration.
    pub(crate) dir: tempfile::TempDir,
    /// Where it listens, in the order of the configuration.
    pub(crate) addresses: Vec<SocketAddr>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

/// What a gate is started with.
pub(crate) struct Setup {
    /// `portcullis.toml`.
    pub(crate) gateway: String,
    /// Policies: name and text.
    pub(crate) policies: Vec<(String, String)>,
    /// Other files: path and text.
    pub(crate) files: Vec<(String, String)>,
    /// Names of accounts.
    pub(crate) accounts: Vec<String>,
}

impl Setup {
    /// A plain listener and one policy for `app.test`.
    pub(crate) fn plain(policy: &str) -> Self {
        Self {
            gateway: "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n".to_owned(),
            policies: vec![("app".to_owned(), policy.to_owned())],
            files: Vec::new(),
            accounts: Vec::new(),
        }
    }

    /// An account with [`PASSWORD`].
    pub(crate) fn account(mut self, name: &str) -> Self {
        self.accounts.push(name.to_owned());
        self
    }

    /// Text after `portcullis.toml`.
    pub(crate) fn gateway(mut self, more: &str) -> Self {
        self.gateway.push_str(more);
        self
    }

    /// Another file below the configuration.
    pub(crate) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Writes the files without starting a gate.
    pub(crate) fn write(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "portcullis.toml", &self.gateway);
        for (name, text) in &self.policies {
            write(dir.path(), &format!("policies/{name}.toml"), text);
        }
        for (path, text) in &self.files {
            write(dir.path(), path, text);
        }
        for name in &self.accounts {
            let mut adding = portcullis(dir.path())
                .args(["users", "add", name, "--password-stdin"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("users add");
            let mut input = adding.stdin.take().expect("its input");
            writeln!(input, "{PASSWORD}").expect("it reads");
            drop(input);
            assert!(adding.wait().expect("it ends").success());
        }
        dir
    }

    /// Starts a gate and waits until it listens.
    pub(crate) fn start(self) -> Gate {
        Gate::start_in(self.write())
    }
}

/// A policy for `app.test`; `rest` is what follows host and backends.
pub(crate) fn policy(backend: &str, rest: &str) -> String {
    format!("host = \"app.test\"\nbackends = [\"{backend}\"]\n{rest}\n")
}

/// Writes a file below `dir` in one step, as careful editors do.
pub(crate) fn replace(dir: &Path, path: &str, text: &str) {
    write(dir, ".new", text);
    std::fs::rename(dir.join(".new"), dir.join(path)).expect("renamed");
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Serves each connection of a port of its own with `handle`, on a thread of its own.
pub(crate) fn raw_backend(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    serve_raw(listener, handle);
    format!("http://{address}")
}

/// Serves each connection with `handle`, on a thread of its own.
pub(crate) fn serve_raw(listener: TcpListener, handle: impl Fn(TcpStream) + Send + Sync + 'static) {
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handle = Arc::clone(&handle);
            std::thread::spawn(move || handle(stream));
        }
    });
}

/// Reads one request, head and content, from a backend's side.
pub(crate) fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while request_end(&bytes).is_none() {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Signs in by the form, as a browser does; what the browser sends besides is in `fields`. The
/// answer to the form, and the session's cookie as `name=value`.
#[track_caller]
pub(crate) fn sign_in_with(
    address: SocketAddr,
    name: &str,
    password: &str,
    fields: &str,
) -> (Answer, Option<String>) {
    let page = get(address, SIGN_IN, "Accept: text/html\r\n");
    assert_eq!(page.status, 200, "{page:?}");
    let body = form(&page.body, name, password);
    let browser = cookies(&page).join("; ");
    let extra = fields
        .strip_prefix("Cookie: ")
        .map_or_else(String::new, |more| format!("; {}", more.trim_end()));
    let answer = ask(
        address,
        format!(
            "POST {SIGN_IN} HTTP/1.1\r\nHost: app.test\r\nCookie: {browser}{extra}\r\nSec-Fetch-Site: same-origin\r\n\
             Accept: text/html\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    let session = cookies(&answer)
        .into_iter()
        .find(|cookie| cookie.contains("session=") && !cookie.ends_with("session="));
    (answer, session)
}

/// What the form of a sign-in page is sent with.
pub(crate) fn form(page: &str, name: &str, password: &str) -> String {
    let value = |field: &str| {
        let start = format!("name=\"{field}\" value=\"");
        let after = page.split_once(&start).expect("a field").1;
        after
            .split_once('"')
            .expect("its end")
            .0
            .replace('/', "%2F")
    };
    format!(
        "csrf={}&to={}&name={name}&password={}",
        value("csrf"),
        value("to"),
        password.replace(' ', "+")
    )
}

/// Signs in; the session's cookie as `name=value`.
#[track_caller]
pub(crate) fn sign_in(address: SocketAddr, name: &str) -> String {
    let (answer, session) = sign_in_with(address, name, PASSWORD, "");
    session.unwrap_or_else(|| panic!("no session: {answer:?}"))
}

/// Signs out by the form; the status.
#[track_caller]
pub(crate) fn sign_out(address: SocketAddr, session: &str) -> u16 {
    let request = format!(
        "POST /.portcullis/sign-out HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n\r\n"
    );
    ask(address, request).status
}

/// The sign-in page.
pub(crate) const SIGN_IN: &str = "/.portcullis/sign-in";

/// The cookies that an answer sets, as `name=value`.
pub(crate) fn cookies(answer: &Answer) -> Vec<String> {
    let lines = answer.fields("set-cookie");
    let pairs = lines.iter().filter_map(|line| line.split(';').next());
    pairs.map(str::to_owned).collect()
}

/// A field for HTTP basic.
pub(crate) fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    format!("Authorization: Basic {pair}\r\n")
}

fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(path, text).expect("a file");
}

/// The command line, in a directory.
pub(crate) fn portcullis(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("--config").arg(dir);
    command
}

impl Gate {
    /// Starts a gate on files written before.
    pub(crate) fn start_in(dir: tempfile::TempDir) -> Self {
        let mut child = portcullis(dir.path())
            .arg("run")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the gate starts");
        let log = Arc::new(Log::default());
        collect(Arc::clone(&log), child.stdout.take().expect("its output"));
        collect(Arc::clone(&log), child.stderr.take().expect("its errors"));
        let mut gate = Self {
            child,
            dir,
            addresses: Vec::new(),
            log,
        };
        gate.wait_for_log("ready");
        gate.addresses = gate
            .log()
            .iter()
            .filter_map(|line| {
                let (_, after) = line.split_once("listening on ")?;
                let address = after.split("://").nth(1)?;
                let end = address
                    .find(|c: char| !matches!(c, '0'..='9' | '.' | ':' | '[' | ']' | 'a'..='f'));
                address[..end.unwrap_or(address.len())].parse().ok()
            })
            .collect();
        assert!(!gate.addresses.is_empty(), "no address in {:?}", gate.log());
        gate
    }

    /// The first address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Every line it has written.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines.lock().expect("the log").clone()
    }

    /// Waits for a line that holds `text`, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_line(text, 0)
    }

    /// Waits for a line after the first `skip` that holds `text`.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str, skip: usize) -> String {
        let begun = Instant::now();
        let mut lines = self.log.lines.lock().expect("the log");
        loop {
            if let Some(line) = lines.iter().skip(skip).find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = PATIENCE.checked_sub(begun.elapsed());
            let Some(left) = left else {
                panic!("no `{text}` in the log:\n{}", lines.join("\n"))
            };
            lines = self.log.grown.wait_timeout(lines, left).expect("the log").0;
        }
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("the gate did not end:\n{}", self.log().join("\n"));
    }

    /// Kills it and starts another on the same files.
    pub(crate) fn kill_and_restart(mut self) -> Self {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a directory"));
        Self::start_in(dir)
    }

    /// The configuration's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(log: Arc<Log>, from: impl Read + Send + 'static) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            log.lines.lock().expect("the log").push(line);
            log.grown.notify_all();
        }
    });
}

/// A backend that records every byte it gets and answers each request with what `respond` says.
pub(crate) struct Backend {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
    requests: Arc<AtomicUsize>,
}

impl Backend {
    /// One that answers 200 with `ok`.
    pub(crate) fn ok() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }

    /// One that answers every request with the same bytes.
    pub(crate) fn answering(response: &str) -> Self {
        let response = response.as_bytes().to_vec();
        Self::new(move |_| response.clone())
    }

    /// One that answers each request, head and content, with what `respond` makes of it; an empty
    /// answer closes the connection.
    pub(crate) fn new(respond: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::new(AtomicUsize::new(0));
        let (all, count, respond) = (
            Arc::clone(&received),
            Arc::clone(&requests),
            Arc::new(respond),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (all, count, respond) =
                    (Arc::clone(&all), Arc::clone(&count), Arc::clone(&respond));
                std::thread::spawn(move || serve(stream, &all, &count, &*respond));
            }
        });
        Self {
            address,
            received,
            requests,
        }
    }

    /// Everything received on all connections.
    pub(crate) fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().expect("the record")).into_owned()
    }

    /// How many requests it answered.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(
    mut stream: TcpStream,
    all: &Mutex<Vec<u8>>,
    count: &AtomicUsize,
    respond: &(dyn Fn(&[u8]) -> Vec<u8> + Send + Sync),
) {
    let mut buffer = Vec::new();
    let mut chunk = [0_u8; 16 * 1024];
    loop {
        if let Some(end) = request_end(&buffer) {
            let request: Vec<u8> = buffer.drain(..end).collect();
            count.fetch_add(1, Ordering::SeqCst);
            let response = respond(&request);
            if response.is_empty() || stream.write_all(&response).is_err() {
                return;
            }
            continue;
        }
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => {
                all.lock()
                    .expect("the record")
                    .extend_from_slice(&chunk[..read]);
                buffer.extend_from_slice(&chunk[..read]);
            }
            _ => return,
        }
    }
}

/// Where the first request in `bytes` ends, by the plainest reading.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        let body = &bytes[head..];
        if body.starts_with(b"0\r\n\r\n") {
            return Some(head + 5);
        }
        return find(body, b"\r\n0\r\n")
            .and_then(|at| Some(head + at + find(&body[at..], b"\r\n\r\n")? + 4));
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.trim().parse().expect("a length"));
    (bytes.len() >= head + length).then_some(head + length)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// A client of raw bytes.
pub(crate) struct Client(pub(crate) TcpStream);

/// A response as raw text.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// Status line and fields.
    pub(crate) head: String,
    /// The content, chunks decoded.
    pub(crate) body: String,
}

impl Answer {
    /// The value of the first field with this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Every value of a field.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}

impl Client {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        // A gate that has refused already may have closed.
        let _ = self.0.write_all(bytes.as_ref());
        self
    }

    /// Reads one response.
    #[track_caller]
    pub(crate) fn read(&mut self) -> Answer {
        self.try_read(false).expect("a response")
    }

    /// Reads interim responses and the final one.
    #[track_caller]
    pub(crate) fn read_all(&mut self) -> (Vec<Answer>, Answer) {
        let mut early = Vec::new();
        loop {
            let answer = self.read();
            if answer.status >= 200 {
                return (early, answer);
            }
            early.push(answer);
        }
    }

    /// Reads the response to a HEAD request.
    #[track_caller]
    pub(crate) fn read_head(&mut self) -> Answer {
        self.try_read(true).expect("a response")
    }

    /// Reads one response, or `None` when the connection ends before it does.
    pub(crate) fn try_read(&mut self, bodiless: bool) -> Option<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte()?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.get(9..12)?.parse().ok()?;
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        let mut body = Vec::new();
        if bodiless || status == 204 || status == 304 || status < 200 {
            return Some(answer);
        }
        if let Some(length) = answer.field("content-length") {
            body = vec![0; length.parse().ok()?];
            self.0.read_exact(&mut body).ok()?;
        } else if answer.field("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(self.line()?.trim(), 16).ok()?;
                let mut chunk = vec![0; size];
                self.0.read_exact(&mut chunk).ok()?;
                body.extend_from_slice(&chunk);
                if size == 0 {
                    while self.line()? != "\r\n" {}
                    break;
                }
                self.line()?;
            }
        } else {
            self.0.read_to_end(&mut body).ok()?;
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Some(answer)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(self.byte()?);
        }
        String::from_utf8(line).ok()
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    /// Whether the gate has closed the connection; waits for it.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    Client::connect(address).send(request).read()
}

/// A GET of `path` at `app.test` with more field lines, each ending in CRLF.
#[track_caller]
pub(crate) fn get(address: SocketAddr, path: &str, fields: &str) -> Answer {
    ask(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n"),
    )
}
