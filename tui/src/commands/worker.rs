//! `deltafront worker`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::INTERRUPTED;
use crate::driver::pull::home::Home;
use crate::driver::{Outcome, Post, Role, Token, pull, say};

/// Trains, or times, for a campaign that runs elsewhere: connects to its `deltafront run --listen`, which says the token, and
/// works until the campaign is finished. A coordinator that is gone is waited for; what was begun goes on meanwhile. Start one
/// for each GPU, say by `CUDA_VISIBLE_DEVICES`, and for each training that a machine is to run beside others. The signal USR1
/// has it keep where it stands, give that back and leave.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the campaign's coordinator listens.
    #[arg(long, value_name = "HOST:PORT")]
    connect: String,
    /// The token that `deltafront run --listen` says; it is a secret.
    #[arg(long, env = "DELTAFRONT_TOKEN", hide_env_values = true)]
    token: Token,
    /// Without encryption, as the coordinator.
    #[arg(long = "without-tls")]
    plain: bool,
    /// Time stacks instead of training them, one at a time; on the device that the campaign is timed on, which should be quiet.
    #[arg(long)]
    times: bool,
    /// Of several targets the one to time, as `[latency.targets]` of the campaign file names it; `[latency]` itself where this is
    /// left out.
    #[arg(long, value_name = "NAME", requires = "times")]
    target: Option<String>,
    /// The trainer, where the campaign's is a command of your own; it is run here, by the shell. With --times the latency
    /// command.
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// The campaign's text, where it lies elsewhere on this machine; what it holds must be the same.
    #[arg(long, value_name = "PATH")]
    corpus: Option<PathBuf>,
    /// The campaign's tokenizer, where it lies elsewhere on this machine.
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Send checkpoints through the connection though the campaign's folder is seen from here.
    #[arg(long)]
    apart: bool,
    /// CPU threads of a training; as the campaign has it where this is left out.
    #[arg(long)]
    threads: Option<u32>,
    /// For the trainer's log, and for checkpoints where the campaign's folder is not seen from here; by default the first of
    /// `deltafront-worker`, `deltafront-worker-2` and so on that no other worker has. One that is started again in its folder
    /// takes its own place.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
    /// Add what happens to this file, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Leave when there was no coordinator for so long, and nothing left to do.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0)]
    patience: f64,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::journal::open(args.log.as_deref())?;
    let home = Home::take(args.folder.as_deref())?;
    let post = Post {
        address: args.connect,
        token: args.token,
        plain: args.plain,
        role: if args.times { Role::Profiler } else { Role::Trainer },
        target: args.target,
        command: args.command,
        corpus: args.corpus,
        tokenizer: args.tokenizer,
        threads: args.threads,
        is_apart: args.apart,
        home,
        patience: Duration::try_from_secs_f64(args.patience)
            .context("--patience must be a number of seconds")?,
    };
    let outcome = super::block_on_threads(pull::worker::work(&post, &say))?;
    Ok(match outcome {
        Outcome::Finished => {
            say("the campaign is finished");
            ExitCode::SUCCESS
        }
        Outcome::HandedBack => {
            say("what was begun is given back");
            ExitCode::SUCCESS
        }
        Outcome::Stopped => ExitCode::from(INTERRUPTED),
    })
}
