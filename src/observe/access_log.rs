//! The access log: one line for each exchange.
//!
//! Each core gathers its lines and hands them over many at a time: waking the writer for each would
//! cost more than the line itself. No query, cookie, credential or content is in a [`Record`], so none can be in a line.

mod line;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::record::Record;

use super::writer::{Batch, Sink};

pub use line::line;
pub(super) use line::{is_printable, push_escape};

/// Bytes of a batch: what is gathered goes when it is as long.
const BATCH: usize = 512 * 1024;
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

/// The lines of one core, gathered.
#[derive(Debug, Clone)]
pub struct Lines(Rc<Gathered>);

#[derive(Debug)]
struct Gathered {
    format: Format,
    sink: Sink,
    batch: RefCell<Batch>,
    begun: Notify,
    /// How many full batches were handed over.
    sent: Cell<u64>,
}

impl Lines {
    /// For one core.
    pub fn new(format: Format, sink: Sink) -> Self {
        Self(Rc::new(Gathered {
            format,
            sink,
            batch: RefCell::default(),
            begun: Notify::new(),
            sent: Cell::new(0),
        }))
    }

    /// Adds the line of an exchange that is over.
    pub fn emit(&self, record: &Record) {
        let mut batch = self.0.batch.borrow_mut();
        line(self.0.format, record, &mut batch.text);
        batch.lines = batch.lines.saturating_add(1);
        if batch.text.len() >= BATCH {
            let full = std::mem::take(&mut *batch);
            self.0.sent.set(self.0.sent.get().wrapping_add(1));
            self.0.sink.send(full);
        } else if batch.lines == 1 {
            self.0.begun.notify_one();
        }
    }

    /// Hands over what was gathered, for as long as the core runs.
    pub async fn run(self) {
        loop {
            self.0.begun.notified().await;
            // Under load batches are full long before: only one that is not is cut short.
            loop {
                let begun = self.0.sent.get();
                tokio::time::sleep(GATHER).await;
                if self.0.sent.get() == begun {
                    break self.0.flush();
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::time::{Instant, SystemTime};

    use crate::observe::writer::Writer;

    fn record() -> Record {
        Record::new("0f".into(), Instant::now(), SystemTime::UNIX_EPOCH)
    }

    /// Tells how many bytes each write has.
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

    #[test]
    fn lines_do_not_wait_for_more_of_them() {
        let (seen, written) = std::sync::mpsc::channel();
        let writer = Writer::start("log", Tell(seen)).unwrap();
        let lines = Lines::new(Format::Json, writer.sink());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            tokio::task::spawn_local(lines.clone().run());
            lines.emit(&record());
            // The task that hands them over needs this thread, too.
            let told = async {
                loop {
                    tokio::time::sleep(GATHER).await;
                    if let Ok(bytes) = written.try_recv() {
                        return bytes;
                    }
                }
            };
            let told = tokio::time::timeout(Duration::from_secs(20), told).await;
            assert!(told.unwrap() > 0);
        });
    }

    #[test]
    fn lines_are_handed_over_many_at_a_time_and_the_last_at_the_end() {
        let (seen, written) = std::sync::mpsc::channel();
        let writer = Writer::start("log", Tell(seen)).unwrap();
        let lines = Lines::new(Format::Json, writer.sink());
        (0..20_000).for_each(|_| lines.emit(&record()));
        drop(lines);
        assert!(writer.finish(Duration::from_secs(10)));
        let sizes: Vec<usize> = written.iter().collect();
        assert!(sizes.len() > 1 && sizes.len() < 100, "{sizes:?}");
        assert!(sizes.iter().rev().skip(1).all(|size| *size >= BATCH));
    }
}
