//! The gate's own messages, by `tracing`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::access_log::Format;

/// Writes messages of `level` and above to standard error. A library's messages are written from
/// `warn` on only: hyper's and rustls' say at `trace` what crosses the wire, secrets included.
pub fn init(format: Format, level: &str) {
    let filter = EnvFilter::new(format!("warn,portcullis={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call, as tests make, changes nothing.
    let _ = match format {
        Format::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .compact()
            .try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}
