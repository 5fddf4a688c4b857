//! `deltafront schema`

use std::io::Write;
use std::process::ExitCode;

/// Print the JSON Schema of a file that deltafront reads or writes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Of which file.
    #[arg(value_enum, default_value = "campaign")]
    of: Of,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Of {
    /// What `run` reads.
    Campaign,
    /// What `export --to json` writes and `import` reads.
    Stack,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let schema = match args.of {
        Of::Campaign => serde_json::to_value(search::config::json_schema())?,
        Of::Stack => crate::export::schema::json_schema(),
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&schema)?)?;
    Ok(ExitCode::SUCCESS)
}
