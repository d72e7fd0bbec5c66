//! The socket by which the operator's commands ask a gate that runs about its sessions, since it alone
//! has the file that they are in open.
//!
//! One line of JSON is asked, and lines of JSON are told (`session::operator`). Only the user that the
//! gate runs as, and root, are answered: the system says who asks.

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::identity::Shared;
use crate::session::operator::{self, Asked, Said};

use super::now;

/// Bytes of what may be asked.
const MOST_ASKED: u64 = 64 * 1024;
/// How long whoever asks may take for it, and for each line that they are told.
const PATIENCE: Duration = Duration::from_secs(10);

/// The socket, and who may ask.
pub(super) struct Control {
    socket: StdListener,
    owner: u32,
}

/// Where a gate listens whose sessions are in `file`.
fn beside(file: &Path) -> PathBuf {
    file.with_extension("sock")
}

/// The socket of a gate whose sessions are in `file`, which it has open. A gate serves without one.
pub(super) fn bind(file: &Path) -> Option<Control> {
    let path = beside(file);
    let listen = || {
        // What a killed gate left behind: whoever has the file open is the only one.
        if std::fs::symlink_metadata(&path).is_ok_and(|file| file.file_type().is_socket()) {
            std::fs::remove_file(&path)?;
        }
        let socket = StdListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        let owner = std::fs::symlink_metadata(&path)?.uid();
        Ok::<_, Error>(Control { socket, owner })
    };
    let told = |error: &Error| {
        let path = path.display();
        tracing::warn!(%error, %path, "`portcullis sessions` can't ask this gate");
    };
    listen().inspect_err(told).ok()
}

impl Control {
    /// Answers whoever may ask, one after the other.
    pub(super) async fn serve(self, shared: Arc<Shared>) {
        let Ok(socket) = UnixListener::from_std(self.socket) else {
            return;
        };
        loop {
            match socket.accept().await {
                Ok((stream, _)) => {
                    let is_allowed = stream
                        .peer_cred()
                        .is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0);
                    if !is_allowed {
                        tracing::warn!("somebody else's process asked about sessions");
                        continue;
                    }
                    if let Err(error) = answer(stream, &shared).await {
                        tracing::debug!(%error, "whoever asked about sessions is gone");
                    }
                }
                // No descriptors, most likely.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}

async fn answer(mut stream: UnixStream, shared: &Shared) -> Result<(), Error> {
    let (reading, mut writing) = stream.split();
    let mut line = String::new();
    let mut reading = tokio::io::BufReader::new(reading.take(MOST_ASKED));
    tokio::time::timeout(PATIENCE, reading.read_line(&mut line)).await??;
    let asked: Asked = serde_json::from_str(&line)?;
    let say = async |said: Said| {
        let mut line = serde_json::to_vec(&said)?;
        line.push(b'\n');
        tokio::time::timeout(PATIENCE, writing.write_all(&line)).await?
    };
    operator::answer(shared.sessions(), asked, now(), say).await
}

/// Asks the gate that has `file` open, and hears each line; `None` if none runs.
///
/// # Errors
/// It does not answer as it should.
pub(crate) fn ask(
    file: &Path,
    asked: &Asked,
    mut hear: impl FnMut(Said),
) -> Result<Option<()>, Error> {
    let mut stream = match StdStream::connect(beside(file)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut line = serde_json::to_vec(asked)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    for line in BufReader::new(stream).lines() {
        let said: Said = serde_json::from_str(&line?)?;
        let is_last = !matches!(said, Said::Session(_));
        hear(said);
        if is_last {
            return Ok(Some(()));
        }
    }
    Err(Error::new(
        ErrorKind::UnexpectedEof,
        "the gate did not finish its answer",
    ))
}
