//! A backend that answers everything and keeps every byte that it received.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// One thread that serves all connections in turn, so that what was taken is all there was.
pub(crate) struct Backend {
    /// Whose bytes are kept.
    pub(crate) recording: SocketAddr,
    /// Whose bytes are not: for questions of the test itself.
    pub(crate) silent: SocketAddr,
    ask: Sender<Sender<Vec<u8>>>,
}

struct Connection {
    stream: TcpStream,
    recorded: bool,
    unanswered: Vec<u8>,
}

impl Backend {
    pub(crate) fn start() -> Self {
        let listen = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.set_nonblocking(true).expect("non-blocking");
            listener
        };
        let listeners = [(listen(), true), (listen(), false)];
        let [recording, silent] =
            [0, 1].map(|at: usize| listeners[at].0.local_addr().expect("an address"));
        let (ask, asked) = channel();
        thread::spawn(move || serve(&listeners, &asked));
        Self {
            recording,
            silent,
            ask,
        }
    }

    /// What the backend received since the last time.
    pub(crate) fn take(&self) -> Vec<u8> {
        let (give, given) = channel();
        self.ask.send(give).expect("the backend runs");
        given.recv().expect("the backend answers")
    }
}

fn serve(listeners: &[(TcpListener, bool)], asked: &Receiver<Sender<Vec<u8>>>) {
    let mut connections: Vec<Connection> = Vec::new();
    let mut record = Vec::new();
    loop {
        // Asked first, then read: what is handed over holds all that had come before the question.
        let question = asked.try_recv().ok();
        for (listener, recorded) in listeners {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).expect("non-blocking");
                connections.push(Connection {
                    stream,
                    recorded: *recorded,
                    unanswered: Vec::new(),
                });
            }
        }
        let mut idle = true;
        connections.retain_mut(|connection| {
            let mut bytes = [0; 65536];
            loop {
                match connection.stream.read(&mut bytes) {
                    Ok(0) => return false,
                    Ok(count) => {
                        idle = false;
                        if connection.recorded {
                            record.extend_from_slice(&bytes[..count]);
                        }
                        connection.unanswered.extend_from_slice(&bytes[..count]);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return false,
                }
            }
            connection.answer()
        });
        if let Some(give) = question {
            let _ = give.send(std::mem::take(&mut record));
        } else if idle {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Connection {
    /// Answers each whole request; whether the connection goes on.
    fn answer(&mut self) -> bool {
        while let Some(end) = request_end(&self.unanswered) {
            let request: Vec<u8> = self.unanswered.drain(..end).collect();
            let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let answer: &[u8] = if head.contains("\r\nupgrade:") {
                b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"
            } else if head.starts_with("head ") {
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
            } else {
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
            };
            if self.stream.write_all(answer).is_err() {
                return false;
            }
        }
        true
    }
}

/// The heads of the requests in `bytes`, read as strictly as the gate must write them.
pub(crate) fn requests(mut bytes: &[u8]) -> Vec<String> {
    let mut heads = Vec::new();
    while !bytes.is_empty() {
        let end = request_end(bytes).unwrap_or(bytes.len());
        let text = String::from_utf8_lossy(&bytes[..end]);
        heads.push(text.split("\r\n\r\n").next().unwrap_or_default().to_owned());
        bytes = &bytes[end..];
    }
    heads
}

/// Where the first request ends, when it is all there.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let field = |name: &str| {
        text.split("\r\n")
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    if field("transfer-encoding:").is_some() {
        let mut at = head;
        loop {
            let line = find(&bytes[at..], b"\r\n")?;
            let size = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
            let size = usize::from_str_radix(&size, 16).expect("the gate writes plain chunk sizes");
            at += line + 2;
            if size == 0 {
                return Some(
                    at + if bytes[at..].starts_with(b"\r\n") {
                        2
                    } else {
                        find(&bytes[at..], b"\r\n\r\n")? + 4
                    },
                );
            }
            at += size + 2;
            bytes.get(at..)?;
        }
    }
    let length: usize = field("content-length:").map_or(0, |length| {
        length.parse().expect("the gate writes plain lengths")
    });
    (bytes.len() >= head + length).then_some(head + length)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
