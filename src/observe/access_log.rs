//! The access log: one line for each exchange, written by a thread of its own.
//!
//! Each core gathers its lines and hands them over many at a time: waking the writer for each would
//! cost more than the line itself. A full queue drops lines and counts them; it never makes a request
//! wait. No query, cookie, credential or content is in a [`Record`], so none can be in a line.

mod line;

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::Notify;

use crate::record::Record;

pub use line::line;
pub(super) use line::{is_printable, push_escape};

/// Batches that wait for the writer.
const QUEUE: usize = 128;
/// Bytes of a batch: what is gathered goes when it is as long.
const BATCH: usize = 32 * 1024;
/// How long lines gather.
const GATHER: Duration = Duration::from_millis(10);

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// Text for people on a terminal, JSON otherwise.
    pub const fn auto(is_terminal: bool) -> Self {
        if is_terminal { Self::Text } else { Self::Json }
    }
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, which is appended to and which only its owner and group read.
    File(PathBuf),
}

impl Output {
    /// Whether people read it as it is written.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
            Self::File(_) => false,
        }
    }

    /// Opens it, for [`Writer::start`].
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
            Self::File(path) => {
                let mut options = OpenOptions::new();
                Box::new(options.append(true).create(true).mode(0o640).open(path)?)
            }
        })
    }
}

/// Lines on their way to the writer.
#[derive(Debug, Default)]
struct Batch {
    text: String,
    lines: u64,
}

/// Where the cores send their lines.
#[derive(Debug, Clone)]
pub struct Sink {
    format: Format,
    /// `None` only wakes the writer.
    queue: SyncSender<Option<Batch>>,
    dropped: Arc<AtomicU64>,
}

/// The lines of one core, gathered.
#[derive(Debug, Clone)]
pub struct Lines(Rc<Gathered>);

#[derive(Debug)]
struct Gathered {
    sink: Sink,
    batch: RefCell<Batch>,
    begun: Notify,
}

/// The writer; [`Writer::finish`] waits until every line is out.
#[derive(Debug)]
pub struct Writer {
    sink: Sink,
    ending: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl Sink {
    /// For one core.
    pub fn lines(&self) -> Lines {
        Lines(Rc::new(Gathered {
            sink: self.clone(),
            batch: RefCell::default(),
            begun: Notify::new(),
        }))
    }

    /// Lines dropped so far: the queue was full, or they could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Hands lines to the writer, or drops them when the writer can't keep up.
    fn send(&self, batch: Batch) {
        let lines = batch.lines;
        match self.queue.try_send(Some(batch)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(lines, Ordering::Relaxed);
            }
        }
    }
}

impl Lines {
    /// Adds the line of an exchange that is over.
    pub fn emit(&self, record: &Record) {
        let mut batch = self.0.batch.borrow_mut();
        line(self.0.sink.format, record, &mut batch.text);
        batch.lines = batch.lines.saturating_add(1);
        if batch.text.len() >= BATCH {
            let full = std::mem::take(&mut *batch);
            self.0.sink.send(full);
        } else if batch.lines == 1 {
            self.0.begun.notify_one();
        }
    }

    /// Hands over what was gathered, for as long as the core runs.
    pub async fn run(self) {
        loop {
            self.0.begun.notified().await;
            tokio::time::sleep(GATHER).await;
            self.0.flush();
        }
    }
}

impl Gathered {
    fn flush(&self) {
        let batch = self.batch.take();
        if batch.lines > 0 {
            self.sink.send(batch);
        }
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Writer {
    /// Starts the writer.
    ///
    /// # Errors
    /// No thread from the system.
    pub fn start(format: Format, out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, batches) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let sink = Sink {
            format,
            queue,
            dropped: Arc::default(),
        };
        let ending = Arc::<AtomicBool>::default();
        let (dropped, told) = (Arc::clone(&sink.dropped), Arc::clone(&ending));
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                write_all(&batches, &told, &dropped, out);
                drop(batches);
                // The queue is gone by now: what comes later is counted as dropped.
                let _ = end.send(());
            })?;
        Ok(Self {
            sink,
            ending,
            ended,
        })
    }

    /// Where to send lines.
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// Writes what is queued, and ends; whether that was done `within` the time given. A reader
    /// that takes no more, such as a stopped pager, must not keep the gate from ending.
    pub fn finish(self, within: Duration) -> bool {
        self.ending.store(true, Ordering::Release);
        // A full queue wakes the writer as well.
        let _ = self.sink.queue.try_send(None);
        self.ended.recv_timeout(within).is_ok()
    }
}

fn write_all(
    batches: &Receiver<Option<Batch>>,
    ending: &AtomicBool,
    dropped: &AtomicU64,
    mut out: impl Write,
) {
    loop {
        let received = if ending.load(Ordering::Acquire) {
            batches.try_recv().ok()
        } else {
            batches.recv().ok()
        };
        let Some(received) = received else { return };
        let Some(batch) = received else { continue };
        // A log that can't be written must not stop the gate.
        let written = out
            .write_all(batch.text.as_bytes())
            .and_then(|()| out.flush());
        if written.is_err() {
            dropped.fetch_add(batch.lines, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::{Instant, SystemTime};

    /// What a thread wrote.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A reader that takes nothing until it is told to.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn record(path: &str) -> Record {
        let mut record = Record::new("0f".into(), Instant::now(), SystemTime::UNIX_EPOCH);
        record.path = Some(path.into());
        record
    }

    #[test]
    fn every_line_is_out_when_the_writer_has_finished() {
        let page = Page::default();
        let writer = Writer::start(Format::Json, page.clone()).unwrap();
        let sinks = [writer.sink(), writer.sink()];
        std::thread::scope(|scope| {
            for sink in &sinks {
                scope.spawn(|| {
                    let lines = sink.lines();
                    (0..3000).for_each(|_| lines.emit(&record("/")));
                });
            }
        });
        assert!(writer.finish(10 * SECOND));
        let written = page.0.lock().unwrap();
        let lines = written.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!((lines, sinks[0].dropped()), (6000, 0));
    }

    #[test]
    fn lines_do_not_wait_for_more_of_them() {
        let (seen, written) = std::sync::mpsc::channel();
        struct Tell(std::sync::mpsc::Sender<usize>);
        impl Write for Tell {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(bytes.len());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let writer = Writer::start(Format::Json, Tell(seen)).unwrap();
        let lines = writer.sink().lines();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            tokio::task::spawn_local(lines.clone().run());
            lines.emit(&record("/"));
            tokio::time::sleep(2 * GATHER).await;
            assert!(written.recv_timeout(10 * SECOND).unwrap() > 0);
        });
    }

    #[test]
    fn a_slow_reader_costs_lines_and_no_time() {
        let (release, stuck) = std::sync::mpsc::channel();
        let writer = Writer::start(Format::Text, Stuck(stuck)).unwrap();
        for _ in 0..3 * QUEUE {
            writer.sink().lines().emit(&record("/"));
        }
        assert!(writer.sink().dropped() > 0);
        drop(release);
        assert!(writer.finish(10 * SECOND));
    }

    #[test]
    fn a_stuck_reader_does_not_keep_the_gate_from_ending() {
        let (release, stuck) = std::sync::mpsc::channel();
        let writer = Writer::start(Format::Text, Stuck(stuck)).unwrap();
        writer.sink().lines().emit(&record("/"));
        assert!(!writer.finish(Duration::from_millis(50)));
        drop(release);
    }

    #[test]
    fn lines_that_can_not_be_written_are_counted() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let writer = Writer::start(Format::Text, Closed).unwrap();
        let sink = writer.sink();
        let lines = sink.lines();
        lines.emit(&record("/"));
        lines.emit(&record("/"));
        drop(lines);
        assert!(writer.finish(10 * SECOND));
        assert_eq!(sink.dropped(), 2);
        sink.lines().emit(&record("/"));
        assert_eq!(sink.dropped(), 3, "nobody writes any more");
    }

    #[test]
    fn a_file_is_appended_to_and_not_for_everybody() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        for _ in 0..2 {
            let out = Output::File(path.clone()).open().unwrap();
            let writer = Writer::start(Format::Json, out).unwrap();
            writer.sink().lines().emit(&record("/"));
            assert!(writer.finish(10 * SECOND));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0);
    }
}
