//! The program `deltafront-train`: the built-in worker that trains and validates proxies.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;

const HELP: &str = "\
deltafront-train: trains and validates proxies of architectures for `deltafront run`, which starts it by itself.

Usage: deltafront-train [--help | --version | --precision [THREADS] | --logits WEIGHTS | --loss WEIGHTS]

--precision prints, as JSON, what training.precision = \"auto\" is on this machine for so many threads (all cores), and
how fast a small model trains in either; the first time that is measured for half a second, and kept in the user's cache
folder.

--logits answers, as JSON, what the model whose weights are in a safetensors file says, one line for each question on
stdin: {\"tokens\":[[104,105]], \"greedy\":64}, with \"stack\":{…} where the file does not name its stack. An export is
checked against it.

--loss prints, as JSON, the values on held-out text of the model whose weights are in a checkpoint; stdin has what a `configure` has:
{\"data\":{…}, \"training\":{…}}. `deltafront import --weights FOLDER --score CAMPAIGN.toml` asks it.

It speaks JSON lines. Requests come on stdin:
  {\"type\":\"configure\", \"data\":{…}, \"training\":{…}, \"checkpoints\":\"FOLDER\"}
  {\"type\":\"evaluate\", \"id\":1, \"attempt\":1, \"architecture\":{…}, \"tokens\":262144, \"seed\":0}
  {\"type\":\"stop\", \"id\":1}
`data` and `training` are as in the campaign file. Replies go to stdout: one `hello`, then for each evaluation any
number of `progress` and one `result`, `infeasible` or `failed`; the log goes to stderr. A configuration that cannot be
used is answered by `failed` with id 0. At the end of stdin it leaves what it is doing and exits; Ctrl-C it leaves to
`deltafront`, and so it does with USR1, which says that the time of a batch job is nearly over.

Environment: LIBTORCH is needed to build this program, not to run it.
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("deltafront-train: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let mut stdout = std::io::stdout();
    match arguments.next().as_deref() {
        None => {}
        Some("-h" | "--help") => {
            write!(stdout, "{HELP}")?;
            return Ok(ExitCode::SUCCESS);
        }
        Some("-V" | "--version") => {
            writeln!(stdout, concat!("deltafront-train ", env!("CARGO_PKG_VERSION")))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some("--precision") => {
            let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let threads = match arguments.next() {
                Some(threads) => {
                    threads.parse().context("--precision takes a number of threads")?
                }
                None => all as u32,
            };
            let settled = evaluator::worker::settled(threads).context("cannot measure")?;
            writeln!(stdout, "{}", serde_json::to_string(&settled)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some("--logits") => {
            let weights = arguments.next().context("--logits takes a safetensors file")?;
            for line in std::io::stdin().lines() {
                let question = serde_json::from_str(&line?).context("no question")?;
                let answer = evaluator::logits::answer(std::path::Path::new(&weights), &question)?;
                writeln!(stdout, "{}", serde_json::to_string(&answer)?)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Some("--loss") => {
            let weights = arguments.next().context("--loss takes a checkpoint")?;
            let configure =
                serde_json::from_reader(std::io::stdin()).context("no configuration")?;
            let values = evaluator::score::score(std::path::Path::new(&weights), configure)?;
            writeln!(stdout, "{}", serde_json::to_string(&values)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(other) => {
            eprintln!("deltafront-train: unknown argument `{other}`; see deltafront-train --help");
            return Ok(ExitCode::from(2));
        }
    }
    // Ctrl-C in the driver's terminal reaches this process too, and so may the signal by which a batch system says that the
    // time is nearly over; the driver decides what becomes of it.
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGUSR1] {
        signal_hook::flag::register(signal, Arc::clone(&ignored))
            .context("cannot take over SIGINT and SIGUSR1")?;
    }
    evaluator::worker::serve(std::io::BufReader::new(std::io::stdin()), &mut stdout)
        .context("cannot write to stdout")?;
    Ok(ExitCode::SUCCESS)
}
