//! The command line: every command with its arguments. The guide's page of them is made from it.

#[cfg(test)]
mod guide;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands;

const EXAMPLES: &str = "\
Examples:
  deltafront init                      write a commented campaign.toml here
  deltafront plan                      what that campaign will take here, before it takes it
  deltafront run                       search; Ctrl-C pauses, the same command goes on
  deltafront run --listen HOST:PORT    the same, and `deltafront worker` elsewhere trains, too
  deltafront scale slurm --workers 8   have Slurm place those workers
  deltafront browse                    watch it from another terminal, or look at it later
  deltafront show my-campaign          the front as a table and a plot
  deltafront report my-campaign        how far that front is to be trusted
  deltafront replay my-campaign 17     train it again: does the same come out?
  deltafront compare my-campaign 17    that stack beside hand-designed ones that are as fast
  deltafront study                     does what is published of hybrids come out here?
  deltafront law my-campaign           how its loss falls with depth and width
  deltafront profile my-campaign 17    its layers' times beside what this machine could do
  deltafront export my-campaign 17     the stack of candidate 17 as a config for other software
  deltafront optimize --command CMD    search for anything else that your command evaluates

Exit codes: 0 done, 1 failure, 2 wrong command line, 130 interrupted (the campaign can go on).";

/// Finds hybrid language-model stacks (DeltaNet, Gated DeltaNet, Mamba2, sliding-window and full attention) that are
/// fast on this device: proposes, times, trains and keeps every result.
#[derive(Parser)]
#[command(name = "deltafront", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// The database, which holds any number of campaigns.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "DELTAFRONT_DB",
        default_value = "deltafront.db"
    )]
    pub(crate) db: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One of the commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a commented campaign file to begin with.
    Init(commands::init::Args),
    /// Say what a campaign will take on this machine: hours, disk, and what this device refuses.
    Plan(commands::plan::Args),
    /// Search: propose, time, train; or go on with a campaign that was stopped.
    Run(commands::run::Args),
    /// Train for a campaign that runs elsewhere.
    Worker(commands::worker::Args),
    /// Have Slurm place the workers of a campaign.
    Scale(commands::scale::Args),
    /// Optimise any discrete problem that a command of yours evaluates.
    Optimize(commands::optimize::Args),
    /// Look at campaigns on a screen, live while they run.
    Browse(commands::browse::Args),
    /// List the campaigns in the database.
    List(commands::list::Args),
    /// Print a campaign, or one of its candidates.
    Show(commands::show::Args),
    /// Say how far a front is to be trusted, and how fast it was found.
    Report(commands::report::Args),
    /// Train a candidate again and say whether the same comes out.
    Replay(commands::replay::Args),
    /// Set a stack beside the hand-designed ones, each as wide as takes the same time.
    Compare(commands::compare::Args),
    /// Repeat a published finding with small trainings: does it come out?
    Study(commands::study::Args),
    /// Fit how the loss falls with depth and width, and say which to take for a latency.
    Law(commands::law::Args),
    /// Time a stack part by part, beside what this machine could do.
    Profile(commands::profile::Args),
    /// Write a stack in a form that other software reads.
    Export(commands::export::Args),
    /// Read a stack from a file: say which it is.
    Import(commands::import::Args),
    /// Show what mixers can learn and cannot.
    Bench(commands::bench::Args),
    /// Play a campaign's side of the worker protocol, and say what is wrong with a worker.
    CheckWorker(commands::check_worker::Args),
    /// Say what this machine can do, and what to do about what it cannot.
    Doctor(commands::doctor::Args),
    /// Print the JSON Schema of the campaign file, for editors; of a stack's file, or of the worker protocol.
    Schema(commands::schema::Args),
    /// Print completions for a shell.
    Completions(commands::completions::Args),
}
