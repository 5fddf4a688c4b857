//! `deltafront browse`

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;

/// The front as a scatter plot, the candidates as a table, a stack as a drawing.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The campaign to begin with; else the list of them.
    campaign: Option<String>,
}

pub(crate) fn run(_db: &Path, _args: &Args) -> anyhow::Result<ExitCode> {
    bail!("the screens are not in this build yet")
}
