//! The gate that is attacked: the built program, in a directory of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use crate::backend::Backend;
use crate::case::{Case, Expected};

const PASSWORD: &str = "bob's right password";
/// Longer than anything takes, so that only what hangs is cut short.
const PATIENCE: Duration = Duration::from_secs(10);
/// For answers of which nothing is expected.
const SHORT_PATIENCE: Duration = Duration::from_millis(300);

pub(crate) struct Gate {
    process: Child,
    address: SocketAddr,
    lines: Receiver<String>,
    questions: AtomicUsize,
    session: String,
    _home: TempDir,
}

/// What the client got.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) statuses: Vec<u16>,
    pub(crate) closed: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Gate {
    pub(crate) fn start(backend: &Backend) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| {
            std::fs::write(home.path().join(name), text).expect("a file")
        };
        std::fs::create_dir(home.path().join("policies")).expect("a directory");
        write("portcullis.toml", GATEWAY.to_owned());
        write(
            "policies/app.toml",
            APP.replace("BACKEND", &backend.recording.to_string()),
        );
        write(
            "policies/question.toml",
            QUESTION.replace("BACKEND", &backend.silent.to_string()),
        );

        let portcullis = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
            command
                .arg("--config")
                .arg(home.path())
                .current_dir(home.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command
        };
        let mut adding = portcullis()
            .args(["users", "add", "bob", "--password-stdin"])
            .spawn()
            .expect("portcullis users add");
        let mut input = adding.stdin.take().expect("its input");
        writeln!(input, "{PASSWORD}").expect("it reads");
        drop(input);
        let added = adding.wait_with_output().expect("it ends");
        assert!(
            added.status.success(),
            "users add: {}",
            String::from_utf8_lossy(&added.stderr)
        );

        let mut process = portcullis().arg("run").spawn().expect("portcullis run");
        let (hear, lines) = channel();
        follow(process.stdout.take().expect("its output"), hear.clone());
        follow(process.stderr.take().expect("its errors"), hear);
        let mut said = String::new();
        let address = loop {
            let Ok(line) = lines.recv_timeout(PATIENCE) else {
                panic!("the gate does not listen:\n{said}")
            };
            if let Some(address) = listens(&line) {
                break address;
            }
            said.push_str(&line);
            said.push('\n');
        };
        let mut gate = Self {
            process,
            address,
            lines,
            questions: AtomicUsize::new(0),
            session: String::new(),
            _home: home,
        };
        gate.session = gate.sign_in();
        gate.reasons();
        gate
    }

    /// What a file of an attack calls by name.
    pub(crate) fn named(&self, name: &str) -> Option<String> {
        match name {
            "bob" => Some(format!(
                "Authorization: Basic {}",
                STANDARD.encode(format!("bob:{PASSWORD}"))
            )),
            "session" => Some(self.session.clone()),
            "session_value" => self
                .session
                .split_once('=')
                .map(|(_, value)| value.to_owned()),
            _ => None,
        }
    }

    /// Sends `bytes` on a connection of their own, and gathers what comes back.
    pub(crate) fn send(&self, bytes: &[u8], case: &Case) -> Answered {
        let expected = case.expect.len();
        let open_ended = case.expect.contains(&Expected::Any);
        let patience = if open_ended { SHORT_PATIENCE } else { PATIENCE };
        let mut stream = TcpStream::connect(self.address).expect("the gate listens");
        stream
            .set_read_timeout(Some(patience))
            .expect("a time limit");
        let mut writer = stream.try_clone().expect("a second handle");
        let sent = bytes.to_vec();
        // A gate that refuses early does not read the rest.
        let writing = thread::spawn(move || drop(writer.write_all(&sent)));
        let mut answered = Answered {
            statuses: Vec::new(),
            closed: false,
            bytes: Vec::new(),
        };
        let mut buffer = [0; 65536];
        loop {
            answered.statuses = statuses(&answered.bytes, case.is_head_request());
            let enough = answered.statuses.len() >= expected && !case.closed && !open_ended;
            if enough {
                break;
            }
            match stream.read(&mut buffer) {
                Ok(0) => {
                    answered.closed = true;
                    break;
                }
                Ok(count) => answered.bytes.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    answered.closed = error.kind() == std::io::ErrorKind::ConnectionReset;
                    break;
                }
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
        writing.join().expect("the writer ends");
        answered
    }

    /// The reasons that the log gave since the last time, one for each request; `none` for one that
    /// was not refused. The test's own request marks the end.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let number = self.questions.fetch_add(1, Ordering::Relaxed);
        let path = format!("/question-{number}");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: question.test\r\nConnection: close\r\n\r\n");
        let answer = self.ask(request.as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "the gate is well: {answer}"
        );
        let mut reasons = Vec::new();
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("no log line for {path}"));
            let Ok(Value::Object(record)) = serde_json::from_str(&line) else {
                continue;
            };
            if record.get("path").and_then(Value::as_str) == Some(&path) {
                return reasons;
            }
            if !record.contains_key("status") {
                continue;
            }
            let reason = record
                .get("reason")
                .or_else(|| record.get("ended_early"))
                .and_then(Value::as_str);
            reasons.push(reason.unwrap_or("none").to_owned());
        }
    }

    fn ask(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).expect("the gate listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit");
        stream.write_all(request).expect("the gate reads");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .expect("the gate answers and closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Signs Bob in by the form, as a browser would; his cookie as `name=value`.
    fn sign_in(&self) -> String {
        const PATH: &str = "/.portcullis/sign-in";
        let page = self.ask(
            format!("GET {PATH} HTTP/1.1\r\nHost: app.test\r\nAccept: text/html\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        let hidden = page
            .split("<input")
            .filter(|input| input.contains("type=\"hidden\""))
            .map(|input| (attribute(input, "name"), attribute(input, "value")));
        let fields = hidden
            .chain([
                ("name".to_owned(), "bob".to_owned()),
                ("password".to_owned(), PASSWORD.to_owned()),
            ])
            .map(|(name, value)| format!("{name}={}", percent(&value)))
            .collect::<Vec<_>>()
            .join("&");
        let answer = self.ask(
            format!(
                "POST {PATH} HTTP/1.1\r\nHost: app.test\r\nAccept: text/html\r\nSec-Fetch-Site: same-origin\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nCookie: {}\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{fields}",
                cookies(&page).join("; "),
                fields.len()
            )
            .as_bytes(),
        );
        cookies(&answer)
            .into_iter()
            .find(|cookie| cookie.contains("session="))
            .unwrap_or_else(|| panic!("no session for Bob: {answer}"))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn follow(output: impl Read + Send + 'static, hear: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { return };
            if hear.send(line).is_err() {
                return;
            }
        }
    });
}

/// The address in a line that says where the gate listens.
fn listens(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("http://")?;
    after
        .split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))
        .next()?
        .parse()
        .ok()
}

/// The statuses of the whole answers in `bytes`.
fn statuses(mut bytes: &[u8], to_head: bool) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let Some(status) = text
            .get(9..12)
            .and_then(|status| status.parse::<u16>().ok())
        else {
            break;
        };
        let field = |name: &str| {
            text.split("\r\n")
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let mut end = head + 4;
        let without = to_head || status < 200 || status == 204 || status == 304;
        if !without && field("transfer-encoding:").is_some() {
            let Some(last) = bytes[end..]
                .windows(5)
                .position(|window| window == b"0\r\n\r\n")
            else {
                break;
            };
            end += last + 5;
        } else if !without {
            end += field("content-length:").map_or(0, |length| length.parse().expect("a length"));
        }
        if bytes.len() < end {
            break;
        }
        if status >= 200 {
            statuses.push(status);
        }
        bytes = &bytes[end..];
    }
    statuses
}

fn cookies(answer: &str) -> Vec<String> {
    answer
        .split("\r\n")
        .filter(|line| line.to_ascii_lowercase().starts_with("set-cookie:"))
        .filter_map(|line| line.split_once(':')?.1.split(';').next())
        .map(|cookie| cookie.trim().to_owned())
        .collect()
}

fn attribute(tag: &str, name: &str) -> String {
    let start = format!(" {name}=\"");
    let value = tag
        .split_once(&start)
        .and_then(|(_, after)| after.split_once('"'))
        .map_or("", |(value, _)| value);
    value.to_owned()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

const GATEWAY: &str = r#"
threads = 1

[[listen]]
address = "127.0.0.1:0"
tls = false

[log]
format = "json"
"#;

const APP: &str = r#"
host = "app.test"
backends = ["http://BACKEND"]
access = "signed-in"

[rate]
per_client = "1000000/s"
burst = 100000

[sign_in]
with = ["local", "basic"]

[headers]
identity = ["user", "email", "groups"]

[[path]]
prefix = "/public"
access = "public"

[[path]]
prefix = "/readonly"
access = { who = "public", methods = ["GET", "HEAD"] }

[[path]]
prefix = "/admin"
access = { groups = ["admins"] }
"#;

/// The application that the test asks itself, to know that everything before is done.
const QUESTION: &str = r#"
host = "question.test"
backends = ["http://BACKEND"]
access = "public"

[rate]
per_client = "1000000/s"
burst = 100000
"#;
