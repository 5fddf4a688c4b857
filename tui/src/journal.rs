//! What happens in a run, as a file of JSON lines for other programs.

use std::path::Path;
use std::sync::Mutex;

use anyhow::Context;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Whose words are kept: this program's, not those of the libraries in it.
const OURS: &str = "deltafront";

/// Adds what happens from now on to the file, an object a line; without a file nothing is kept.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let file = file.with_context(|| format!("cannot write the log {}", path.display()))?;
    let lines = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_writer(Mutex::new(file));
    let ours = Targets::new().with_target(OURS, LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(lines.with_filter(ours))
        .try_init()
        .context("the log cannot be begun")
}
