//! The program `deltafront-profile`: the worker that the driver asks for timings.

use std::io::{self, Write};
use std::process::ExitCode;

use kernels::timing::Plan;
use profiles::facts::Facts;
use profiles::measure::Profiler;

const HELP: &str = "\
deltafront-profile times parts of language models, and whole ones, on this machine.

It is a worker of `deltafront run`, which starts it: it reads requests from standard input and writes replies to
standard output, one JSON object a line, and logs to standard error. It exits when its input ends.

Usage: deltafront-profile [--facts | --help | --version]

  --facts     print what this device is as a JSON object: processor, caches, memory, GPUs; and exit
  --help      print this and exit
  --version   print the versions of the program and of its kernels, and exit
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        // The driver went away: there is nobody to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("deltafront-profile: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<ExitCode> {
    let mut output = io::stdout().lock();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => profiles::worker::serve(
            &Profiler::new(Plan::default()),
            io::stdin().lock(),
            &mut output,
        )?,
        ["--facts"] => {
            serde_json::to_writer_pretty(&mut output, &Facts::read())?;
            writeln!(output)?;
        }
        ["--help" | "-h"] => output.write_all(HELP.as_bytes())?,
        ["--version" | "-V"] => {
            let version = env!("CARGO_PKG_VERSION");
            writeln!(output, "deltafront-profile {version} ({})", kernels::version())?;
        }
        _ => {
            eprint!("deltafront-profile: unknown arguments {arguments:?}\n\n{HELP}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}
