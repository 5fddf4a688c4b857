//! `deltafront import`

use std::io::Write;
use std::process::ExitCode;

use search::tensors::parameters;
use serde_json::json;
use tui::quantity;

const EXAMPLES: &str = "\
Examples:
  deltafront import stack.json                 what `deltafront export` wrote, here or elsewhere
  deltafront import my-campaign-17-hf          the folder of an export
  deltafront import mine.toml                  written by hand: text = \"d=128,vocab=256 | 4*gdn(h=3,k=32,v=64)+ffn(384)\"

A campaign evaluates it beside its own candidates when its file names it: [search] stacks = { mine = \"stack.json\" }.
`deltafront profile stack.json` times it, `deltafront compare CAMPAIGN stack.json` sets it beside hand-designed stacks.";

/// Reads a stack from a file: says which it is, by its canonical text and its identity.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A file in JSON or TOML, or with the text of a stack; the folder of an export; or the text itself.
    stack: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let stack = crate::export::read(&args.stack)?;
    let text = if args.json {
        let whole = json!({
            "text": stack.to_string(),
            "id": stack.id(),
            "parameters": parameters(&stack),
            "architecture": stack,
        });
        serde_json::to_string_pretty(&whole)? + "\n"
    } else {
        let size = quantity::scaled(parameters(&stack) as f64);
        format!("{stack}\n{}, {size} parameters\n", stack.id())
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
