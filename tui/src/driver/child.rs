//! A running worker process: lines in, lines out, the tail of its stderr, and its end.

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use search::wire::Request;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use super::spec::Program;

/// Lines of stderr that are kept with a failure.
const TAIL_LINES: usize = 30;
/// How long a worker may take to leave after its input has ended.
const GOODBYE: Duration = Duration::from_secs(2);

/// The last lines that a worker wrote to stderr.
#[derive(Debug, Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// A worker process.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<()>,
    tail: Tail,
}

impl Process {
    /// Starts the program; its stderr is added to the file `log`, if there is one.
    pub(crate) fn start(program: &Program, log: Option<&Path>) -> anyhow::Result<Self> {
        let mut child =
            program.command().spawn().with_context(|| format!("{program} cannot be started"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let tail = Tail::default();
        let kept = tail.clone();
        // A log that cannot be written is no reason to stop: the tail is kept in memory all the same.
        let log = log
            .and_then(|file| std::fs::OpenOptions::new().create(true).append(true).open(file).ok());
        let stderr = tokio::spawn(async move {
            let mut log = log.map(tokio::fs::File::from_std);
            let mut lines = BufReader::new(stderr).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if let Some(file) = &mut log
                    && file.write_all(format!("{line}\n").as_bytes()).await.is_err()
                {
                    log = None;
                }
                kept.push(line);
            }
            if let Some(file) = &mut log {
                let _ = file.flush().await;
            }
        });
        Ok(Self { child, stdin, stdout: BufReader::new(stdout).lines(), stderr, tail })
    }

    /// The next line of stdout; none at its end. May be dropped while it waits.
    pub(crate) async fn line(&mut self) -> Option<String> {
        match self.stdout.next_line().await {
            Ok(line) => line,
            // A line that is not UTF-8.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Some("\u{fffd}".to_owned())
            }
            Err(_) => None,
        }
    }

    /// Sends a request; false when the worker does not listen any more.
    pub(crate) async fn send(&mut self, request: &Request) -> bool {
        let Some(stdin) = &mut self.stdin else { return false };
        let Ok(line) = request.to_line() else { return false };
        stdin.write_all(format!("{line}\n").as_bytes()).await.is_ok() && stdin.flush().await.is_ok()
    }

    /// Forgets the tail of stderr: what follows belongs to a new request.
    pub(crate) fn clear_tail(&self) {
        self.tail.clear();
    }

    /// The last lines of stderr as they are now.
    pub(crate) fn tail(&self) -> String {
        self.tail.text()
    }

    /// Ends the worker at once, with whatever it started; says how it ended if it had ended by itself.
    pub(crate) async fn end(mut self) -> (String, String) {
        // A process that has closed its stdout is about to exit: its own status says more than our signal.
        let status = match tokio::time::timeout(Duration::from_millis(300), self.child.wait()).await
        {
            Ok(Ok(status)) => how_it_ended(status),
            _ => "was ended".to_owned(),
        };
        self.kill().await;
        // The log is read to its end, unless a grandchild holds it open.
        let _ = tokio::time::timeout(Duration::from_millis(300), &mut self.stderr).await;
        (status, self.tail.text())
    }

    /// Lets the worker leave by itself, for a while.
    pub(crate) async fn dismiss(mut self) {
        drop(self.stdin.take());
        let _ = tokio::time::timeout(GOODBYE, self.child.wait()).await;
        self.kill().await;
    }

    async fn kill(&mut self) {
        self.kill_group();
        let _ = self.child.kill().await;
    }

    /// Kills the worker and whatever it started, if it has not been waited for.
    fn kill_group(&self) {
        #[cfg(unix)]
        if let Some(group) = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Process {
    /// A driver that leaves in a hurry leaves no worker behind.
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// E.g. `exited with status 1`, `was killed by signal 9 (out of memory?)`.
fn how_it_ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let hint = match signal {
            6 => " (abort)",
            9 => " (out of memory?)",
            4 => " (illegal instruction: built for another processor?)",
            11 => " (segmentation fault)",
            _ => "",
        };
        return format!("was killed by signal {signal}{hint}");
    }
    match status.code() {
        Some(code) => format!("exited with status {code}"),
        None => "exited".to_owned(),
    }
}

/// A worker that cannot be used, as the program's own error.
pub(crate) fn broken(reason: &str, log: &str) -> anyhow::Error {
    let reason = reason.trim_end();
    if log.trim().is_empty() {
        anyhow::anyhow!("{reason}")
    } else {
        anyhow::anyhow!("{reason}\nthe last lines of its log:\n{}", indented(log))
    }
}

fn indented(log: &str) -> String {
    log.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
