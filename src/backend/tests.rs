use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::http1::{Request, send};
use super::pool::{Address, Pools, Spec};
use super::*;
use crate::body::Body;
use crate::pure::fields::Fields;
use crate::pure::head::Content;

/// Sends a POST that states `length` and has `content`, to a backend that answers at once; the
/// error, and whether the connection may be used again.
fn sent(length: u64, content: &'static [u8]) -> (Option<Error>, bool) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("backend.sock");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = UnixListener::bind(&path).unwrap();
        let accepted = Rc::new(Cell::new(0));
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            accepted.set(accepted.get() + 1);
            let mut byte = [0; 1];
            let _ = stream.read_exact(&mut byte).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            std::future::pending::<()>().await;
        });
        let timeouts = Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(5),
            idle: Duration::from_secs(5),
        };
        let spec = Arc::new(Spec::new(Address::Unix(path.clone()), None, timeouts));
        let endpoint = Pools::default().endpoint(&spec);
        let conn = endpoint.connect().await.unwrap();
        let request = Request {
            method: &Method::POST,
            target: "/",
            host: "app.test",
            headers: &Fields::new(),
            content: Content::Length(length),
            upgrade: false,
            takes_trailers: false,
            early: &|_, _| {},
        };
        let error = match send(&endpoint, conn, &request, Body::full(Bytes::from(content))).await {
            Err(failure) => Some(failure.error),
            Ok(response) => response.body.collect(100).await.err().map(Error::Request),
        };
        (error, endpoint.reuse().is_some())
    })
}

#[test]
fn a_connection_that_was_sent_all_that_the_head_states_is_used_again() {
    assert_eq!(sent(4, b"four"), (None, true));
}

#[test]
fn a_connection_that_is_owed_content_is_never_used_again() {
    let gone = Error::Request(body::Error::ClientGone);
    assert_eq!(sent(9, b"four"), (Some(gone), false));
}

#[test]
fn content_beyond_what_the_head_states_is_never_sent() {
    let large = Error::Request(body::Error::ClientTooLarge);
    assert_eq!(sent(2, b"four"), (Some(large), false));
}

#[test]
fn a_backend_that_no_policy_names_any_more_is_forgotten_on_every_core() {
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        first_byte: Duration::from_secs(5),
        idle: Duration::from_secs(5),
    };
    let address = Address::Unix("/nowhere".into());
    let spec = Arc::new(Spec::new(address, None, timeouts));
    let cores = [Pools::default(), Pools::default()];
    let known = cores
        .each_ref()
        .map(|core| Rc::downgrade(&core.endpoint(&spec)));
    let are_known = || known.each_ref().map(|endpoint| endpoint.strong_count() > 0);
    cores.iter().for_each(Pools::sweep);
    assert_eq!(are_known(), [true, true]);
    drop(spec);
    cores.iter().for_each(Pools::sweep);
    assert_eq!(are_known(), [false, false]);
}

#[tokio::test]
async fn a_connection_that_nobody_asks_for_is_closed_after_a_few_sweeps() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("backend.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        first_byte: Duration::from_secs(5),
        idle: Duration::from_secs(5),
    };
    let spec = Arc::new(Spec::new(Address::Unix(path), None, timeouts));
    let pools = Pools::default();
    let endpoint = pools.endpoint(&spec);
    let conn = endpoint.connect().await.unwrap();
    endpoint.keep(conn);
    (0..2).for_each(|_| pools.sweep());
    let conn = endpoint.reuse().expect("kept for two sweeps");
    endpoint.keep(conn);
    (0..3).for_each(|_| pools.sweep());
    assert!(endpoint.reuse().is_none());
}
