//! A running worker process: lines in, lines out, the tail of its stderr, and its end.

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Pid;
use search::wire::Request;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use super::lines::{Line, Lines};
use super::spec::Program;

/// Lines of stderr that are kept with a failure.
const TAIL_LINES: usize = 30;
/// Bytes of each of them.
const TAIL_LINE_BYTES: usize = 4096;
/// Bytes that one process may add to the file of its log: a flood must not fill the disk.
const LOG_BYTES: usize = 64 << 20;
/// Bytes of a reply: far above any that a worker has reason to write, far below what hurts.
const REPLY_BYTES: usize = 16 << 20;
/// How long the output of a worker that has ended is read on: another process may hold it open for ever.
const LAST_WORDS: Duration = Duration::from_millis(300);
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
    /// The group of the worker and of whatever it starts, until it is killed.
    group: Option<Pid>,
    /// Whether the worker has ended by itself.
    ended: bool,
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
        // Asked now: a child that has been waited for has no id any more, but what it started may live on.
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let tail = Tail::default();
        // A log that cannot be written is no reason to stop: the tail is kept in memory all the same.
        let log = log
            .and_then(|file| std::fs::OpenOptions::new().create(true).append(true).open(file).ok());
        let stderr = tokio::spawn(listen(stderr, tail.clone(), log));
        let stdout = Lines::new(BufReader::new(stdout), REPLY_BYTES);
        Ok(Self { child, group, ended: false, stdin, stdout, stderr, tail })
    }

    /// The process; none once it has ended.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next line of stdout; none when the worker has ended or closed it. May be dropped while it waits.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let line = loop {
            if self.ended {
                let rest = tokio::time::timeout(LAST_WORDS, self.stdout.next()).await;
                break rest.unwrap_or(Ok(None));
            }
            tokio::select! {
                biased;
                line = self.stdout.next() => break line,
                _ = self.child.wait() => self.ended = true,
            }
        };
        match line.ok()?? {
            Line::Whole(bytes) => Some(String::from_utf8(bytes).unwrap_or("\u{fffd}".to_owned())),
            // No reply, whatever it is: the caller says so, with how it begins.
            Line::Beginning(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Sends a request; false when the worker does not listen any more.
    pub(crate) async fn send(&mut self, request: &Request) -> bool {
        let Ok(line) = request.to_line() else { return false };
        self.say(&line).await
    }

    /// Sends a line, without its end.
    pub(crate) async fn say(&mut self, line: &str) -> bool {
        let Some(stdin) = &mut self.stdin else { return false };
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
        let status = match tokio::time::timeout(LAST_WORDS, self.child.wait()).await {
            Ok(Ok(status)) => how_it_ended(status),
            _ => "was ended".to_owned(),
        };
        self.kill().await;
        // The log is read to its end, unless a grandchild holds it open.
        let _ = tokio::time::timeout(LAST_WORDS, &mut self.stderr).await;
        (status, self.tail.text())
    }

    /// Ends its input, upon which it leaves.
    pub(crate) fn hang_up(&mut self) {
        drop(self.stdin.take());
    }

    /// Lets the worker leave by itself, for a while.
    pub(crate) async fn dismiss(mut self) {
        self.hang_up();
        let _ = tokio::time::timeout(GOODBYE, self.child.wait()).await;
        self.kill().await;
    }

    async fn kill(&mut self) {
        self.kill_group();
        let _ = self.child.kill().await;
    }

    /// Kills the worker and whatever it started.
    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Keeps the end of stderr in memory, and its beginning in the file.
async fn listen(stderr: ChildStderr, tail: Tail, log: Option<std::fs::File>) {
    let mut log = log.map(tokio::fs::File::from_std);
    let mut written = 0;
    let mut lines = Lines::new(BufReader::new(stderr), TAIL_LINE_BYTES);
    while let Ok(Some(line)) = lines.next().await {
        let (bytes, end) = match line {
            Line::Whole(bytes) => (bytes, ""),
            Line::Beginning(bytes) => (bytes, "…"),
        };
        let line = format!("{}{end}", tui::printable(String::from_utf8_lossy(&bytes).trim_end()));
        if let Some(file) = &mut log {
            written += line.len() + 1;
            let full = written > LOG_BYTES;
            let line =
                if full { "… the log of this process goes on, but is not kept" } else { &line };
            if file.write_all(format!("{line}\n").as_bytes()).await.is_err() || full {
                let _ = file.flush().await;
                log = None;
            }
        }
        tail.push(line);
    }
    if let Some(file) = &mut log {
        let _ = file.flush().await;
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
