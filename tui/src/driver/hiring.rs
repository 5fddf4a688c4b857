//! A worker process from its start to its hello.

use std::path::Path;
use std::time::Duration;

use search::wire::{Hello, PROTOCOL, Reply, Request, SpaceReply};

use super::child::Process;
use super::spec::{Introduction, Program, Role, WorkerSpec};

/// How long a worker may take to say hello (Python's torch alone takes seconds, a cold disk more).
const HELLO: Duration = Duration::from_mins(2);
/// Characters of a line that is no hello that are shown.
const LINE: usize = 200;

/// Why a worker cannot be had: one sentence and a log.
pub(crate) type Broken = (String, String);

/// Starts a worker only to hear what it says of itself.
pub(crate) async fn ask(role: Role, program: &Program) -> Result<Hello, Broken> {
    let (process, hello) = meet(role, program, None).await?;
    process.dismiss().await;
    Ok(hello)
}

/// Starts a process, hears its hello and configures it.
pub(super) async fn hire(spec: &WorkerSpec) -> Result<(Process, Hello), Broken> {
    let configure = match &spec.introduction {
        Introduction::Configure(configure) => configure,
        Introduction::Space(space) => return hire_black_box(spec, space).await,
    };
    let (mut process, hello) = meet(spec.role, &spec.program, Some(&spec.log)).await?;
    if process.send(&Request::Configure((**configure).clone())).await {
        return Ok((process, hello));
    }
    let (ended, log) = process.end().await;
    Err((format!("the {} {} {ended} after its hello", spec.role.word(), spec.program), log))
}

/// Starts a black box and checks that it still optimises what the campaign does.
async fn hire_black_box(spec: &WorkerSpec, space: &SpaceReply) -> Result<(Process, Hello), Broken> {
    let (process, found) = ask_space(&spec.program, Some(&spec.log)).await?;
    if found != *space {
        let (_, log) = process.end().await;
        let reason = format!(
            "the space of {} is another one than when the campaign began: give the campaign another --name",
            spec.program
        );
        return Err((reason, log));
    }
    let hello = Hello {
        protocol: PROTOCOL,
        worker: spec.program.to_string(),
        can: vec![spec.role.duty(&spec.program).to_owned()],
        device: String::new(),
        kernels: None,
    };
    Ok((process, hello))
}

/// Starts a black box and asks what is to be optimised.
pub(crate) async fn ask_space(
    program: &Program,
    log: Option<&Path>,
) -> Result<(Process, SpaceReply), Broken> {
    let name = format!("the worker {program}");
    let mut process =
        Process::start(program, log).map_err(|error| (format!("{error:#}"), String::new()))?;
    // One that does not listen is about to end: its stdout says so next.
    process.send(&Request::Space { protocol: PROTOCOL }).await;
    let reason = match tokio::time::timeout(HELLO, process.line()).await {
        Err(_) => format!("{name} did not answer `space` within {} s", HELLO.as_secs()),
        Ok(None) => {
            let (ended, log) = process.end().await;
            return Err((format!("{name} {ended} before it answered `space`"), log));
        }
        Ok(Some(line)) => match Reply::parse(&line) {
            Ok(Reply::Space(space)) => return Ok((process, space)),
            Ok(Reply::Failed(refusal)) => format!("{name} has no space: {}", refusal.reason),
            Ok(_) => format!("{name} must answer `space` first, got `{}`", shortened(&line, LINE)),
            Err(error) => format!(
                "the first line of {name} must be its answer to `space` (its log belongs on stderr): {}",
                shortened(&error.to_string(), LINE)
            ),
        },
    };
    let (_, log) = process.end().await;
    Err((reason, log))
}

/// Starts a process and hears its hello.
pub(crate) async fn meet(
    role: Role,
    program: &Program,
    log: Option<&Path>,
) -> Result<(Process, Hello), Broken> {
    let name = format!("the {} {program}", role.word());
    let mut process =
        Process::start(program, log).map_err(|error| (format!("{error:#}"), String::new()))?;
    let reason = match tokio::time::timeout(HELLO, process.line()).await {
        Err(_) => format!("{name} did not say hello within {} s", HELLO.as_secs()),
        Ok(None) => {
            let (ended, log) = process.end().await;
            return Err((format!("{name} {ended} before it said hello"), log));
        }
        Ok(Some(line)) => match Reply::parse(&line) {
            Ok(Reply::Hello(hello)) if hello.protocol != PROTOCOL => format!(
                "{name} speaks protocol {}, this deltafront {PROTOCOL}: build both from the same source",
                hello.protocol
            ),
            Ok(Reply::Hello(hello)) if !hello.can.iter().any(|can| can == role.duty(program)) => {
                format!("{name} cannot `{}`, only {}", role.duty(program), hello.can.join(", "))
            }
            Ok(Reply::Hello(hello)) => return Ok((process, introduced(hello))),
            _ => format!(
                "the first line of {name} must be a hello (its log belongs on stderr), got `{}`",
                shortened(&line, LINE)
            ),
        },
    };
    let (_, log) = process.end().await;
    Err((reason, log))
}

/// Fit for a terminal, and no longer than that.
pub(super) fn shortened(text: &str, most: usize) -> String {
    let text = tui::printable(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most).chain(['…']).collect()
}

/// What a worker says of itself, fit for a terminal.
fn introduced(hello: Hello) -> Hello {
    let plain = |text: String| shortened(&text, LINE);
    Hello {
        protocol: hello.protocol,
        worker: plain(hello.worker),
        can: hello.can.into_iter().map(plain).collect(),
        device: plain(hello.device),
        kernels: hello.kernels.map(plain),
    }
}
