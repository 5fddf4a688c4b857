//! The program `deltafront-profile`: the worker that the driver asks for timings.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kernels::timing::Plan;
use profiles::backend::Backend;
use profiles::composed::Options;
use profiles::facts::Facts;
use search::device::Device;

const HELP: &str = "\
deltafront-profile times parts of language models, and whole ones, on this machine.

It is a worker of `deltafront run`, which starts it: it reads requests from standard input and writes replies to
standard output, one JSON object a line, and logs to standard error. It exits when its input ends.

Usage: deltafront-profile [--device cpu|cuda:N [--composed N [--small] [--prefill TOKENS] [--batch N]]]
       deltafront-profile --facts | --help | --version

  --device    time on this processor (cpu, the default) or on GPU number N
  --composed  on a GPU: time N random stacks of target size whole and in parts, a JSON object a line, and say how well
              the sum of the parts tells the whole: of decode steps at 8192 positions, with --prefill of prompts of so
              many tokens; --batch sequences at once (1); with --small stacks of 2 to 6 layers and a vocabulary of 256
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
        [] => return serve(Device::Cpu, &mut output),
        ["--device", device] => {
            let Some(device) = parsed(device) else { return Ok(ExitCode::FAILURE) };
            return serve(device, &mut output);
        }
        ["--device", device, "--composed", ref options @ ..] => {
            let options = match Options::parse(options) {
                Ok(options) => options,
                Err(message) => {
                    eprintln!("deltafront-profile: {message}");
                    return Ok(ExitCode::from(2));
                }
            };
            let Some(device) = parsed(device) else { return Ok(ExitCode::FAILURE) };
            if device == Device::Cpu {
                eprintln!("deltafront-profile: --composed takes a GPU, got `{device}`");
                return Ok(ExitCode::FAILURE);
            }
            let Some(profiler) = profiler(device) else { return Ok(ExitCode::FAILURE) };
            if let Err(error) = profiles::composed::run(&*profiler, &options, &mut output) {
                eprintln!("deltafront-profile: {error}");
                return Ok(ExitCode::FAILURE);
            }
        }
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

/// The device of the command line, or none after a word why not.
fn parsed(device: &str) -> Option<Device> {
    let parsed = device.parse();
    parsed.inspect_err(|error| eprintln!("deltafront-profile: --device {error}")).ok()
}

/// What times on `device`, or none after a word why not.
fn profiler(device: Device) -> Option<Box<dyn Backend>> {
    profiles::device::open(device, &Plan::default())
        .inspect_err(|error| eprintln!("deltafront-profile: {device} cannot be timed: {error}"))
        .ok()
}

/// Answers on standard output what standard input asks for.
fn serve(device: Device, output: &mut impl Write) -> io::Result<ExitCode> {
    let Some(profiler) = profiler(device) else { return Ok(ExitCode::FAILURE) };
    // A batch system may tell all processes of a job that its time is nearly over; the driver decides what becomes of this one.
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::new(AtomicBool::new(false)))?;
    profiles::worker::serve(&*profiler, io::stdin().lock(), output)?;
    Ok(ExitCode::SUCCESS)
}
