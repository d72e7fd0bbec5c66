//! Edits, reloads and stops under way.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Backend, Client, Gate, PATIENCE, Setup, get, policy, portcullis, raw_backend, read_request,
    replace, wait_until,
};

const FREE: &str = "access = \"public\"\n[rate]\nper_client = \"off\"\n";
const FILE: &str = "policies/app.toml";

fn status(gate: &Gate) -> u16 {
    get(gate.address(), "/", "").status
}

#[test]
fn a_good_edit_is_taken_up_and_a_broken_one_changes_nothing() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), FREE)).start();
    let edit = |text: &str| {
        let before = gate.log().len();
        replace(&gate.path(), FILE, &policy(&backend.url(), text));
        before
    };
    assert_eq!(status(&gate), 200);
    edit("access = \"signed-in\"\n");
    wait_until("the edit is in force", || status(&gate) == 401);
    let before = edit("access = \"public\"\n[acess]\n");
    let line = gate.wait_for_line("policies/app.toml:4", before);
    assert!(
        line.contains("acess") && line.contains("access"),
        "it says what is meant: {line}"
    );
    assert_eq!(status(&gate), 401, "what was in force stays");
    let before = edit("access = \"public\"\n[rate]\nper_client = 20\n");
    gate.wait_for_line("policies/app.toml:5", before);
    assert_eq!(status(&gate), 401);
    edit(FREE);
    wait_until("the mended edit is in force", || status(&gate) == 200);
}

#[test]
fn a_file_that_a_reload_names_first_is_watched_from_then_on() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), FREE))
        .file("lists/office.txt", "127.0.0.0/8\n")
        .start();
    let edit = |path: &str, text: &str| {
        let before = gate.log().len();
        replace(&gate.path(), path, text);
        gate.wait_for_line("\"reloaded\"", before);
    };
    let listed = format!("{FREE}[network]\nallow_files = [\"lists/office.txt\"]\n");
    edit(FILE, &policy(&backend.url(), &listed));
    assert_eq!(status(&gate), 200);
    edit("lists/office.txt", "192.0.2.0/24\n");
    assert_eq!(status(&gate), 403);
    edit("lists/office.txt", "127.0.0.0/8\n");
    assert_eq!(status(&gate), 200);
}

#[test]
fn an_edit_that_waits_for_a_restart_is_said_to() {
    let gate = Setup::plain(&policy(&Backend::ok().url(), FREE)).start();
    let file = gate.path().join("portcullis.toml");
    let first = std::fs::read_to_string(&file).expect("a text");
    let edit = |more: &str| {
        let before = gate.log().len();
        replace(&gate.path(), "portcullis.toml", &format!("{first}{more}"));
        gate.wait_for_line("\"reloaded\"", before);
        let lines = gate.log().split_off(before);
        lines
            .into_iter()
            .find(|line| line.contains("takes a restart"))
    };
    assert_eq!(
        edit("[trusted_proxies]\nnetworks = [\"10.0.0.0/8\"]\n"),
        None
    );
    let warned = edit("[session]\noffline = \"3m\"\n[limits]\ndrain = \"7s\"\n");
    let warned = warned.expect("a warning");
    assert!(
        warned.contains("\"[limits], [session] offline\""),
        "{warned}"
    );
    assert_eq!(edit(""), None);
}

#[test]
fn a_second_gate_on_the_same_sessions_says_so_and_ends() {
    let gate = Setup::plain(&policy(&Backend::ok().url(), FREE)).start();
    let second = portcullis(&gate.path())
        .arg("run")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(said.contains("another gate has it open"), "{said}");
    assert_eq!(status(&gate), 200);
}

#[test]
fn an_edit_that_breaks_an_expectation_changes_nothing() {
    let backend = Backend::ok();
    let gate = Setup::plain(&policy(&backend.url(), "access = \"signed-in\""))
        .file(
            "policies/tests/app.toml",
            "[[test]]\nname = \"strangers stay out\"\nurl = \"http://app.test/\"\nexpect = \"sign-in\"\n",
        )
        .start();
    let before = gate.log().len();
    replace(&gate.path(), FILE, &policy(&backend.url(), FREE));
    let line = gate.wait_for_line("policies/tests/app.toml:1", before);
    assert!(line.contains("allow"), "it says what came instead: {line}");
    assert_eq!(status(&gate), 401);
    assert_eq!(backend.received(), "");
}

#[test]
fn reloading_a_hundred_times_under_load_fails_no_request() {
    let backend = Backend::ok();
    let mut setup = Setup::plain(&policy(&backend.url(), FREE));
    setup.gateway = setup.gateway.replace("threads = 1", "threads = 2");
    let gate = Arc::new(setup.start());
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (gate, stop, asked) = (Arc::clone(&gate), Arc::clone(&stop), Arc::clone(&asked));
            std::thread::spawn(move || {
                let mut client = Client::connect(gate.address());
                while !stop.load(Ordering::SeqCst) {
                    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
                    assert_eq!(client.read().status, 200);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for number in 0..100 {
        let (before, done) = (gate.log().len(), asked.load(Ordering::SeqCst));
        replace(
            &gate.path(),
            FILE,
            &policy(&backend.url(), &format!("{FREE}# {number}\n")),
        );
        gate.signal("HUP");
        gate.wait_for_line("\"reloaded\"", before);
        wait_until("clients go on", || asked.load(Ordering::SeqCst) > done + 4);
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("no request failed");
    }
}

#[test]
fn signals_are_handled_before_a_word_is_said() {
    let dir = Setup::plain(&policy("whoami", FREE)).write();
    // Nobody reads what it says, so that it stops at its first word.
    let (_unread, said) = UnixStream::pair().expect("a pair");
    said.set_nonblocking(true).expect("a socket");
    while (&said).write(&[b'\n'; 1024]).is_ok() {}
    said.set_nonblocking(false).expect("a socket");
    let mut child = portcullis(dir.path())
        .arg("run")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(OwnedFd::from(said))
        .spawn()
        .expect("the gate starts");
    let status = format!("/proc/{}/status", child.id());
    let handled = || {
        let status = std::fs::read_to_string(&status).expect("its status");
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .expect("its signals");
        let mask = u64::from_str_radix(mask.trim(), 16).expect("a mask");
        // SIGHUP, SIGINT and SIGTERM.
        [1, 2, 15]
            .iter()
            .all(|signal| mask >> (signal - 1) & 1 == 1)
    };
    let begun = Instant::now();
    while !handled() && begun.elapsed() < PATIENCE {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let in_time = handled();
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(in_time, "a signal would end it");
}

#[test]
fn a_stop_lets_a_request_end_and_closes_what_is_idle() {
    let go = Arc::new(AtomicBool::new(false));
    let waiting = Arc::clone(&go);
    let backend = raw_backend(move |mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
            wait_until("the test says so", || waiting.load(Ordering::SeqCst));
            let _ = stream.write_all(b"-last");
        }
    });
    let mut gate = Setup::plain(&policy(&backend, FREE)).start();
    let mut idle = Client::connect(gate.address());
    idle.send("GET /.portcullis/none HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(idle.read().status, 404);
    let mut busy = Client::connect(gate.address());
    busy.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let mut seen = Vec::new();
    while !seen.ends_with(b"first") {
        let mut byte = [0];
        busy.0.read_exact(&mut byte).expect("the response begins");
        seen.push(byte[0]);
    }
    gate.signal("TERM");
    assert!(idle.is_closed(), "an idle connection closes at once");
    go.store(true, Ordering::SeqCst);
    let mut rest = String::new();
    busy.0.read_to_string(&mut rest).expect("the rest");
    assert_eq!(rest, "-last");
    assert_eq!(gate.wait().code(), Some(0));
}

#[test]
fn a_gate_with_a_broken_configuration_does_not_start() {
    let dir = Setup::plain(&policy("whoami", "acces = \"public\"")).write();
    let ended = portcullis(dir.path()).arg("run").output().expect("it runs");
    assert_eq!(ended.status.code(), Some(78));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains("policies/app.toml:3") && said.contains("access"),
        "{said}"
    );
}

#[test]
fn a_stop_takes_no_longer_than_it_may() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let backend = raw_backend(move |mut stream| {
        let Some(request) = read_request(&mut stream) else {
            return;
        };
        count.fetch_add(1, Ordering::SeqCst);
        if request.contains("/endless") {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
            let _ = stream.write_all(head);
        }
        while stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
    });
    let mut gate = Setup::plain(&policy(&backend, FREE))
        .gateway("[limits]\ndrain = \"500ms\"\n")
        .start();
    // One that waits for an answer, one whose answer never ends, one that never asks to the end.
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(gate.address())).collect();
    for (client, path) in clients.iter_mut().zip(["/silent", "/endless"]) {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
    }
    clients[2].send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\n");
    wait_until("the backend has them", || asked.load(Ordering::SeqCst) == 2);
    let begun = Instant::now();
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0));
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(400) && took < Duration::from_secs(5),
        "{took:?}"
    );
    gate.wait_for_log("did not end in time");
    assert!(clients.iter_mut().all(Client::is_closed));
}

#[test]
fn a_stop_takes_no_new_connection_and_no_new_request() {
    let go = Arc::new(AtomicBool::new(false));
    let (waiting, asked) = (Arc::clone(&go), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let backend = raw_backend(move |mut stream| {
        while read_request(&mut stream).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            wait_until("the test says so", || waiting.load(Ordering::SeqCst));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let mut gate = Setup::plain(&policy(&backend, FREE)).start();
    let mut busy = Client::connect(gate.address());
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
    busy.send(request);
    wait_until("the backend has it", || asked.load(Ordering::SeqCst) == 1);
    gate.signal("TERM");
    wait_until("nobody else comes in", || {
        std::net::TcpStream::connect(gate.address()).is_err()
    });
    // Sent while the stop is under way, behind a request that was taken before.
    busy.send(request);
    go.store(true, Ordering::SeqCst);
    let answer = busy.read();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("connection"), Some("close"), "{}", answer.head);
    assert!(busy.try_read(false).is_none());
    assert_eq!(gate.wait().code(), Some(0));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_stop_is_heard_as_soon_as_the_gate_says_where_it_listens() {
    let dir = Setup::plain(&policy("whoami", FREE)).account("ada").write();
    let mut child = portcullis(dir.path())
        .arg("run")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the gate starts");
    let said = BufReader::new(child.stderr.take().expect("its errors"));
    let mut lines = said.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("listening on")));
    let killed = Command::new("kill").arg(child.id().to_string()).status();
    assert!(killed.expect("kill runs").success());
    // What it says goes on being read, so that it can say it.
    let rest: Vec<String> = lines.collect();
    let ended = child.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0), "{rest:?}");
}
