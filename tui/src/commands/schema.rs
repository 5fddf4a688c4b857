//! `deltafront schema`

use std::io::Write;
use std::process::ExitCode;

/// Print the JSON Schema of what deltafront reads or writes: a file, or a line of the worker protocol.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Of what.
    #[arg(value_enum, default_value = "campaign")]
    of: Of,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Of {
    /// What `run` reads.
    Campaign,
    /// What `export --to json` writes and `import` reads.
    Stack,
    /// A line to a worker: docs/protocol.md.
    Request,
    /// A line of a worker.
    Reply,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let schema = match args.of {
        Of::Campaign => serde_json::to_value(search::config::json_schema())?,
        Of::Stack => crate::export::schema::json_schema(),
        Of::Request => serde_json::to_value(search::wire::request_schema())?,
        Of::Reply => serde_json::to_value(search::wire::reply_schema())?,
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&schema)?)?;
    Ok(ExitCode::SUCCESS)
}
