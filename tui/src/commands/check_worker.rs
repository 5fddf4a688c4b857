//! `deltafront check-worker`: plays a campaign's side of the worker protocol (docs/protocol.md) with tiny real jobs, shows both
//! sides line by line, and says what is wrong.

mod black_box;
mod latency;
mod talk;
mod trainer;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::driver::Program;
use talk::Talk;

/// Play a campaign's side of the worker protocol with tiny real jobs, and say what is wrong, line by line.
///
/// What is said is shown: `>` to the worker, `<` by it, `!` what is wrong, `-` what is worth knowing. Exit code 1: something is
/// wrong. docs/protocol.md is the guide to the protocol.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  deltafront check-worker --command 'python3 my_trainer.py'\n  deltafront check-worker --as latency \
                  --command 'python3 my_latency.py'\n  deltafront check-worker --as black-box --command 'python3 worker.py'"
)]
pub(crate) struct Args {
    /// The worker, run by the shell in this folder.
    #[arg(long, value_name = "COMMAND")]
    command: String,
    /// What it is to a campaign: `evaluator.command`, `latency.command`, or the command of `optimize`.
    #[arg(long = "as", value_enum, default_value = "trainer")]
    role: Role,
    /// Seconds that it may say nothing.
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0)]
    timeout: f64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Role {
    /// Trains stacks.
    Trainer,
    /// Times whole models.
    Latency,
    /// Gives values at points of a space of its own.
    BlackBox,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !(args.timeout.is_finite() && args.timeout > 0.0) {
        bail!("--timeout must be a positive number of seconds, got {}", args.timeout);
    }
    if args.command.trim().is_empty() {
        bail!("--command names no program");
    }
    super::block_on(check(args))
}

async fn check(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = std::env::current_dir().context("the current folder cannot be found out")?;
    let program = Program::Shell { line: args.command.clone(), folder };
    let silence = Duration::from_secs_f64(args.timeout);
    let mut talk = Talk::start(program, silence)?;
    let what = match args.role {
        Role::Trainer => {
            trainer::check(&mut talk).await?;
            "trainer"
        }
        Role::Latency => {
            latency::check(&mut talk).await;
            "latency command"
        }
        Role::BlackBox => {
            black_box::check(&mut talk).await;
            "black box"
        }
    };
    let (lines, wrong) = talk.end().await;
    let mut stdout = std::io::stdout();
    if wrong == 0 {
        writeln!(stdout, "nothing is wrong with this {what}: {lines} lines of it were heard")?;
        return Ok(ExitCode::SUCCESS);
    }
    let things = if wrong == 1 { "1 thing is".to_owned() } else { format!("{wrong} things are") };
    writeln!(stdout, "{things} wrong with this {what}; docs/protocol.md says how it should be")?;
    Ok(ExitCode::FAILURE)
}
