//! What is written by a thread of its own, so that a slow reader makes nobody else wait.
//!
//! A full queue drops lines and counts them.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Batches that wait for the writer.
const QUEUE: usize = 32;

/// Lines on their way to the writer.
#[derive(Debug, Default)]
pub struct Batch {
    /// Whole lines.
    pub text: String,
    /// How many.
    pub lines: u64,
}

/// Where lines are sent.
#[derive(Debug, Clone)]
pub struct Sink {
    /// `None` only wakes the writer.
    queue: SyncSender<Option<Batch>>,
    dropped: Arc<AtomicU64>,
}

/// The writer; [`Writer::finish`] waits until every line is out.
#[derive(Debug)]
pub struct Writer {
    sink: Sink,
    ending: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl Sink {
    /// Lines dropped so far: the queue was full, or they could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Hands lines to the writer, or drops them when the writer can't keep up.
    pub fn send(&self, batch: Batch) {
        let lines = batch.lines;
        match self.queue.try_send(Some(batch)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(lines, Ordering::Relaxed);
            }
        }
    }
}

impl Writer {
    /// Starts the writer, in a thread of this name.
    ///
    /// # Errors
    /// No thread from the system.
    pub fn start(name: &str, out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, batches) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let sink = Sink {
            queue,
            dropped: Arc::default(),
        };
        let ending = Arc::<AtomicBool>::default();
        let (dropped, told) = (Arc::clone(&sink.dropped), Arc::clone(&ending));
        std::thread::Builder::new()
            .name(name.to_owned())
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

    fn line() -> Batch {
        Batch {
            text: "a line\n".to_owned(),
            lines: 1,
        }
    }

    #[test]
    fn every_line_is_out_when_the_writer_has_finished() {
        let page = Page::default();
        let writer = Writer::start("log", page.clone()).unwrap();
        let sinks = [writer.sink(), writer.sink()];
        std::thread::scope(|scope| {
            for sink in &sinks {
                scope.spawn(|| (0..QUEUE / 2).for_each(|_| sink.send(line())));
            }
        });
        assert!(writer.finish(10 * SECOND));
        let written = page.0.lock().unwrap();
        let lines = written.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!((lines, sinks[0].dropped()), (QUEUE, 0));
    }

    #[test]
    fn a_slow_reader_costs_lines_and_no_time() {
        let (release, stuck) = std::sync::mpsc::channel();
        let writer = Writer::start("log", Stuck(stuck)).unwrap();
        for _ in 0..3 * QUEUE {
            writer.sink().send(line());
        }
        assert!(writer.sink().dropped() > 0);
        drop(release);
        assert!(writer.finish(10 * SECOND));
    }

    #[test]
    fn a_stuck_reader_does_not_keep_the_gate_from_ending() {
        let (release, stuck) = std::sync::mpsc::channel();
        let writer = Writer::start("log", Stuck(stuck)).unwrap();
        writer.sink().send(line());
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
        let writer = Writer::start("log", Closed).unwrap();
        let sink = writer.sink();
        sink.send(line());
        sink.send(line());
        assert!(writer.finish(10 * SECOND));
        assert_eq!(sink.dropped(), 2);
        sink.send(line());
        assert_eq!(sink.dropped(), 3, "nobody writes any more");
    }
}
