//! Backends that come, go, hang and lie.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{
    Backend, Client, Gate, Setup, ask, get, policy, raw_backend, read_request, replace, serve_raw,
    wait_until,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn open(backend: &str) -> Gate {
    Setup::plain(&policy(
        backend,
        "access = \"public\"\n[rate]\nper_client = \"off\"",
    ))
    .start()
}

/// How the requests of one client are answered, `method` each time.
fn statuses(gate: &Gate, method: &str, times: usize) -> Vec<u16> {
    let mut client = Client::connect(gate.address());
    (0..times)
        .map(|_| {
            client.send(format!(
                "{method} / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\nx"
            ));
            client.read().status
        })
        .collect()
}

#[test]
fn a_connection_to_the_backend_is_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let backend = raw_backend(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        while read_request(&mut stream).is_some() && stream.write_all(OK).is_ok() {}
    });
    let gate = open(&backend);
    for _ in 0..10 {
        assert_eq!(get(gate.address(), "/", "").status, 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_stale_connection_costs_no_client_an_error() {
    // Answers once on each connection, and closes it without a word.
    let backend = raw_backend(|mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(OK);
        }
    });
    let gate = open(&backend);
    let mut client = Client::connect(gate.address());
    for at in 0..200 {
        client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
        assert_eq!(client.read().status, 200, "request {at}");
    }
}

#[test]
fn a_request_that_may_have_had_an_effect_is_not_sent_twice() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let backend = raw_backend(move |mut stream| {
        // What is read may have had an effect; it is dropped without an answer.
        if read_request(&mut stream).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let gate = open(&backend);
    assert_eq!(statuses(&gate, "POST", 2), [502, 502]);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[test]
fn a_backend_that_is_away_is_502_until_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let gate = open(&format!("http://{address}"));
    let answer = get(gate.address(), "/", "");
    assert_eq!(answer.status, 502);
    assert!(
        !answer.body.contains(&address.port().to_string()),
        "{}",
        answer.body
    );
    let listener = TcpListener::bind(address).expect("the port again");
    serve_raw(listener, |mut stream| {
        while read_request(&mut stream).is_some() && stream.write_all(OK).is_ok() {}
    });
    assert_eq!(statuses(&gate, "POST", 5), [200; 5]);
}

#[test]
fn a_backend_that_serves_one_connection_at_a_time_is_never_kept_waiting() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            while read_request(&mut stream).is_some() && stream.write_all(OK).is_ok() {}
        }
    });
    // Less than idle connections are swept after, and more than anything here takes.
    let rest = "access = \"public\"\n[rate]\nper_client = \"off\"\n[backend]\nfirst_byte = \"3s\"";
    let gate = Setup::plain(&policy(&url, rest)).start();
    let mut client = Client::connect(gate.address());
    let mut status = |method: &str| {
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n"
        ));
        client.read().status
    };
    for method in ["POST", "POST", "GET", "GET", "POST", "DELETE", "POST"] {
        assert_eq!(status(method), 200, "{method}");
    }
    for number in 0..3 {
        let before = gate.log().len();
        let text = policy(&url, &format!("{rest}\n# {number}"));
        replace(&gate.path(), "policies/app.toml", &text);
        gate.wait_for_line("\"reloaded\"", before);
        assert_eq!(status("GET"), 200, "after reload {number}");
    }
}

#[test]
fn while_one_backend_is_away_the_other_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let away = listener.local_addr().expect("an address");
    drop(listener);
    let backend = Backend::ok();
    let both = format!("http://{away}\", \"{}", backend.url());
    let gate = open(&both);
    assert_eq!(statuses(&gate, "POST", 10), [200; 10]);
    assert_eq!(backend.requests(), 10);
}

#[test]
fn a_backend_that_says_nothing_is_504() {
    let backend = raw_backend(|mut stream| {
        // Reads until the gate leaves.
        while stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
    });
    let text = policy(
        &backend,
        "access = \"public\"\n[backend]\nfirst_byte = \"200ms\"",
    );
    let gate = Setup::plain(&text).start();
    let answer = ask(
        gate.address(),
        "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\nx",
    );
    assert_eq!(answer.status, 504);
    gate.wait_for_log("forward.first_byte_timeout");
}

#[test]
fn a_response_that_two_readers_read_differently_is_502() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let backend = raw_backend(move |mut stream| {
            if read_request(&mut stream).is_some() {
                let _ = stream.write_all(response.as_bytes());
            }
        });
        let gate = open(&backend);
        assert_eq!(get(gate.address(), "/", "").status, 502, "{response:?}");
    }
}

#[test]
fn bytes_behind_a_response_never_answer_the_next_request() {
    let backend = raw_backend(|mut stream| {
        while read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        }
    });
    let gate = open(&backend);
    for _ in 0..20 {
        assert_eq!(get(gate.address(), "/", "").body, "ok");
    }
}

/// A backend on a Unix socket, whose address nobody else takes while it is away.
struct Mortal {
    path: PathBuf,
    alive: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<UnixStream>>>,
    /// How often each request was read, by its first line.
    seen: Arc<Mutex<HashMap<String, usize>>>,
}

impl Mortal {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            alive: Arc::default(),
            open: Arc::default(),
            seen: Arc::default(),
        }
    }

    fn start(&mut self) {
        let listener = UnixListener::bind(&self.path).expect("the socket");
        self.alive = Arc::new(AtomicBool::new(true));
        self.open = Arc::default();
        let (alive, open) = (Arc::clone(&self.alive), Arc::clone(&self.open));
        let seen = Arc::clone(&self.seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut open = open.lock().expect("the list");
                if !alive.load(Ordering::SeqCst) {
                    return;
                }
                open.push(stream.try_clone().expect("a handle"));
                drop(open);
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || answer_all(stream, &seen));
            }
        });
    }

    /// Goes as a killed process does: at once, whatever is under way.
    fn kill(&self) {
        let open = self.open.lock().expect("the list");
        self.alive.store(false, Ordering::SeqCst);
        for stream in open.iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(open);
        let _ = UnixStream::connect(&self.path);
        std::fs::remove_file(&self.path).expect("the socket");
    }
}

fn answer_all(mut stream: UnixStream, seen: &Mutex<HashMap<String, usize>>) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        while !(request.ends_with(b"\r\n\r\n") && request.starts_with(b"GET")
            || request.ends_with(b"\r\n\r\nx"))
        {
            match stream.read(&mut chunk) {
                Ok(read) if read > 0 => request.extend_from_slice(&chunk[..read]),
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let line = text.lines().next().unwrap_or_default().to_owned();
        *seen.lock().expect("the count").entry(line).or_default() += 1;
        request.clear();
        if stream.write_all(OK).is_err() {
            return;
        }
    }
}

#[test]
fn under_load_a_killed_backend_is_502_while_it_is_away_and_no_longer() {
    const BEFORE: u8 = 0;
    const AWAY: u8 = 1;
    const OVER: u8 = 2;
    let dir = tempfile::tempdir().expect("a directory");
    let mut backend = Mortal::new(dir.path().join("app.sock"));
    backend.start();
    let gate = open(&format!("unix:{}", backend.path.display()));
    let address = gate.address();
    let (phase, answered) = (
        Arc::new(AtomicU8::new(BEFORE)),
        Arc::new(AtomicUsize::new(0)),
    );
    let failed = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (phase, answered) = (Arc::clone(&phase), Arc::clone(&answered));
            let failed = Arc::clone(&failed);
            std::thread::spawn(move || {
                let mut connection = Client::connect(address);
                let mut done = Vec::new();
                for number in 0.. {
                    let before = phase.load(Ordering::SeqCst);
                    if before == OVER {
                        break;
                    }
                    let (method, rest) = match number % 2 {
                        0 => ("GET", "\r\n"),
                        _ => ("POST", "Content-Length: 1\r\n\r\nx"),
                    };
                    let line = format!("{method} /{client}/{number} HTTP/1.1");
                    connection.send(format!("{line}\r\nHost: app.test\r\n{rest}"));
                    let answer = connection.read();
                    let touched = before == AWAY || phase.load(Ordering::SeqCst) == AWAY;
                    assert!(
                        answer.status == 200 || answer.status == 502 && touched,
                        "{line}: {}",
                        answer.status
                    );
                    if answer.field("connection") == Some("close") {
                        connection = Client::connect(address);
                    }
                    if answer.status == 200 {
                        done.push(line);
                        answered.fetch_add(1, Ordering::SeqCst);
                    } else {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
                done
            })
        })
        .collect();
    let more = |counter: &AtomicUsize, many: usize| {
        let begun = counter.load(Ordering::SeqCst);
        wait_until("clients go on", || {
            counter.load(Ordering::SeqCst) >= begun + many
                || clients.iter().any(std::thread::JoinHandle::is_finished)
        });
    };
    for _ in 0..3 {
        more(&answered, 100);
        phase.store(AWAY, Ordering::SeqCst);
        backend.kill();
        more(&failed, 20);
        backend.start();
        // Each client has an answer to a request that was sent before the backend was back.
        more(&answered, 20);
        phase.store(BEFORE, Ordering::SeqCst);
    }
    more(&answered, 100);
    phase.store(OVER, Ordering::SeqCst);
    let done: Vec<String> = clients
        .into_iter()
        .flat_map(|client| client.join().expect("no request failed"))
        .collect();
    let seen = backend.seen.lock().expect("the count");
    for line in &done {
        assert!(seen.contains_key(line), "{line} was answered by nobody");
    }
    for (line, times) in seen.iter().filter(|(line, _)| line.starts_with("POST")) {
        assert_eq!(*times, 1, "{line} reached the backend more than once");
    }
}
