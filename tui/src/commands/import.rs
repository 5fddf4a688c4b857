//! `deltafront import`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, bail};
use search::Architecture;
use search::tensors::parameters;
use search::wire::{Configure, Value};
use serde_json::json;
use tui::quantity;

use super::campaign_file::absolute;
use super::{block_on, run};
use crate::driver::{Program, Role};
use crate::export::returned;
use crate::whole;

const EXAMPLES: &str = "\
Examples:
  deltafront import stack.json                 what `deltafront export` wrote, here or elsewhere
  deltafront import my-campaign-17-hf          the folder of an export
  deltafront import mine.toml                  written by hand: text = \"d=128,vocab=256 | 4*gdn(h=3,k=32,v=64)+ffn(384)\"
  deltafront import --weights trained -o trained.safetensors   weights that were trained elsewhere since they were exported
  deltafront import --weights trained --score campaign.toml    and their loss on the held-out text of a campaign

A campaign evaluates it beside its own candidates when its file names it: [search] stacks = { mine = \"stack.json\" }.
`deltafront profile stack.json` times it, `deltafront compare CAMPAIGN stack.json` sets it beside hand-designed stacks;
`deltafront profile trained.safetensors` and `deltafront export trained.safetensors --to TARGET` take weights that came back.";

/// Reads a stack from a file: says which it is, by its canonical text and its identity; with --weights, takes its weights back.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A file in JSON or TOML, or with the text of a stack; the folder of an export; or the text itself.
    stack: String,
    /// Take the weights in the folder back, of any target that is a folder, and write them as a checkpoint.
    #[arg(long)]
    weights: bool,
    /// The checkpoint. Default: the name of the folder with .safetensors.
    #[arg(short, long, value_name = "FILE", requires = "weights")]
    output: Option<PathBuf>,
    /// Overwrite a file that is there already.
    #[arg(long, requires = "weights")]
    force: bool,
    /// Say what the weights' loss is on the held-out text of this campaign file.
    #[arg(long, value_name = "CAMPAIGN.toml", requires = "weights")]
    score: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    if args.weights {
        return weights(db, args);
    }
    let stack = crate::export::read(&args.stack)?;
    say(args, &stack, json!({}), &[])
}

fn weights(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let folder = Path::new(&args.stack);
    if !folder.is_dir() {
        bail!(
            "{} is no folder; --weights takes the folder of an export, trained since",
            args.stack
        );
    }
    let returned = returned::read(folder)?;
    let file = if let Some(file) = &args.output {
        file.clone()
    } else {
        let whole = folder.canonicalize()?;
        let name = whole.file_name().context("-o names the checkpoint")?;
        PathBuf::from(name).with_added_extension("safetensors")
    };
    whole::write_by(&file, args.force, db, |part| returned.write(part))?;
    let mut lines =
        vec![format!("wrote {}, from the names of {}", file.display(), returned.target)];
    let mut more = json!({ "checkpoint": file, "target": returned.target });
    if let Some(campaign) = &args.score {
        let values = score(campaign, &file)?;
        lines.extend(values.iter().map(|(name, value)| {
            let error = value.standard_error.map_or(String::new(), |error| format!(" ±{error:.4}"));
            format!("{name} {:.4}{error}", value.mean)
        }));
        more["values"] = serde_json::to_value(values)?;
    }
    say(args, &returned.stack, more, &lines)
}

/// Says which stack it is, and more.
fn say(
    args: &Args,
    stack: &Architecture,
    more: serde_json::Value,
    lines: &[String],
) -> anyhow::Result<ExitCode> {
    let text = if args.json {
        let mut whole = json!({
            "text": stack.to_string(),
            "id": stack.id(),
            "parameters": parameters(stack),
            "architecture": stack,
        });
        if let (serde_json::Value::Object(whole), serde_json::Value::Object(more)) =
            (&mut whole, more)
        {
            whole.extend(more);
        }
        serde_json::to_string_pretty(&whole)? + "\n"
    } else {
        let size = quantity::scaled(parameters(stack) as f64);
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        format!("{stack}\n{}, {size} parameters\n{}", stack.id(), lines.concat())
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The loss of a checkpoint on a campaign's held-out text, by the built-in trainer.
fn score(campaign: &Path, checkpoint: &Path) -> anyhow::Result<BTreeMap<String, Value>> {
    let (text, file, folder) = run::read(campaign)?;
    let data = absolute(file.data.as_ref(), &folder, campaign, &text)?;
    if data.is_none() {
        bail!("{} has no [data]: there is no text to score on", campaign.display());
    }
    let configure = Configure {
        data,
        training: Some(run::settled(&file.training, &file.search.rungs, file.search.concurrency)),
        tasks: Vec::new(),
        latency: None,
        contents: BTreeMap::new(),
        checkpoints: None,
    };
    let program = Program::built_in(Role::Trainer)?;
    block_on(async {
        let mut command = program.command();
        command.arg("--loss").arg(checkpoint);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("the trainer does not start")?;
        let mut input = child.stdin.take().context("the trainer has no input")?;
        tokio::io::AsyncWriteExt::write_all(&mut input, &serde_json::to_vec(&configure)?).await?;
        drop(input);
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            bail!("the trainer could not score {}", checkpoint.display());
        }
        serde_json::from_slice(&output.stdout).context("the trainer's answer is no JSON")
    })
}
