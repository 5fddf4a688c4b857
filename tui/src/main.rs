//! The program `deltafront`: finds hybrid language-model stacks that are fast on this device.
//!
//! `main` reads the command line ([`command_line`]) and hands over to one command, each in a file of its own. The driver of a campaign is
//! in [`driver`]; screens, plots and drawings are in the library beside this program.

#![forbid(unsafe_code)]

mod command_line;
mod commands;
mod driver;
mod export;
mod journal;
mod report;
mod scale;
mod whole;
mod words;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use command_line::{Cli, Command};

fn main() -> ExitCode {
    let Cli { db, command } = Cli::parse();
    let result = match command {
        Command::Init(args) => commands::init::run(&args),
        Command::Plan(args) => commands::plan::run(&db, &args),
        Command::Run(args) => commands::run::run(&db, &args),
        Command::Worker(args) => commands::worker::run(args),
        Command::Scale(args) => commands::scale::run(&db, &args),
        Command::Optimize(args) => commands::optimize::run(&db, &args),
        Command::Browse(args) => commands::browse::run(&db, &args),
        Command::List(args) => commands::list::run(&db, &args),
        Command::Show(args) => commands::show::run(&db, &args),
        Command::Report(args) => commands::report::run(&db, &args),
        Command::Replay(args) => commands::replay::run(&db, &args),
        Command::Compare(args) => commands::compare::run(&db, &args),
        Command::Study(args) => commands::study::run(&db, &args),
        Command::Law(args) => commands::law::run(&db, &args),
        Command::Profile(args) => commands::profile::run(&db, &args),
        Command::Export(args) => commands::export::run(&db, &args),
        Command::Import(args) => commands::import::run(&db, &args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::CheckWorker(args) => commands::check_worker::run(&args),
        Command::Doctor(args) => commands::doctor::run(&db, &args),
        Command::Schema(args) => commands::schema::run(&args),
        Command::Completions(args) => commands::completions::run::<Cli>(&args),
    };
    match result {
        Ok(code) => code,
        // `deltafront show | head`: the reader has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
