//! The gate's own messages, by `tracing`.
//!
//! A message can hold what a peer sent, by way of an error's text. `tracing` escapes neither line
//! ends nor bidirectional marks in fields, so each message is made one printable line as it is
//! written; that leaves no room for colours.

use std::io::{self, Write};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;

use super::access_log::{Format, is_printable, push_escape};
use super::writer::{Batch, Sink, Writer};

/// Writes messages of `level` and above to standard error, by a thread of its own. A library's messages are written from
/// `warn` on only: hyper's and h2's say at `trace` what crosses the wire, secrets included.
///
/// # Errors
/// No thread from the system.
pub fn init(format: Format, level: LevelFilter) -> io::Result<Writer> {
    let writer = Writer::start("messages", io::stderr())?;
    let sink = writer.sink();
    let queue = move || Queue(sink.clone());
    // A second call, as tests make, changes nothing.
    let _ = tracing::subscriber::set_global_default(subscriber(format, level, queue));
    Ok(writer)
}

/// Hands each message to the thread that writes.
struct Queue(Sink);

impl Write for Queue {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.0.send(Batch {
            text: String::from_utf8_lossy(message).into_owned(),
            lines: 1,
        });
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn subscriber<W>(format: Format, level: LevelFilter, out: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let levels = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("portcullis", level);
    let lines = layer().with_ansi(false).with_writer(Printable(out));
    let lines = match format {
        Format::Text => lines.with_target(false).compact().boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(lines.with_filter(levels))
}

/// Makes a message, which is written in one piece, one line of printable ASCII.
struct Printable<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Printable<W> {
    type Writer = Printable<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Printable(self.0.make_writer())
    }
}

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(message);
        let mut line = String::with_capacity(text.len().saturating_add(1));
        for c in text.strip_suffix('\n').unwrap_or(&text).chars() {
            if is_printable(c) {
                line.push(c);
            } else {
                push_escape(c, &mut line);
            }
        }
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

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

    fn written(format: Format, level: LevelFilter, say: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = subscriber(format, level, move || writer.clone());
        tracing::subscriber::with_default(subscriber, say);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const FORGERY: &str =
        "x\n2024-02-29T12:34:56.789012Z  INFO all is well\r\u{1b}[31m\u{9b}\u{202e}\u{7f}\"\\";

    #[test]
    fn a_peer_can_not_forge_a_message_or_speak_to_a_terminal() {
        for format in [Format::Text, Format::Json] {
            let text = written(format, LevelFilter::INFO, || {
                tracing::warn!(shown = %FORGERY, debugged = ?FORGERY, plain = FORGERY, "{FORGERY}");
            });
            let line = text.strip_suffix('\n').unwrap();
            assert!(line.chars().all(is_printable), "{line:?}");
        }
    }

    #[test]
    fn a_json_message_gives_back_what_was_said() {
        let text = written(Format::Json, LevelFilter::INFO, || {
            tracing::warn!(shown = %FORGERY, "reload failed");
        });
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["shown"], FORGERY);
        assert_eq!(value["message"], "reload failed");
        assert_eq!(value["level"], "WARN");
    }

    #[test]
    fn a_library_says_nothing_below_warn_at_any_level() {
        let text = written(Format::Text, LevelFilter::TRACE, || {
            tracing::trace!(target: "hyper::proto", "the wire");
            tracing::info!(target: "h2::codec", "the wire");
            tracing::warn!(target: "h2::codec", "a warning");
            tracing::trace!("ours");
        });
        assert_eq!(text.matches("the wire").count(), 0, "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_level_above_warn_is_for_libraries_too() {
        let text = written(Format::Text, LevelFilter::ERROR, || {
            tracing::warn!(target: "h2::codec", "a warning");
            tracing::warn!("ours");
        });
        assert_eq!(text, "");
    }
}
