//! Telling somebody that a campaign is over, by a command of the user's.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use search::config::NotifyConfig;
use tokio::process::Command;

/// How long the command may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The command, as a run is given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notify {
    /// Run by the shell.
    line: String,
    /// The folder of the campaign file.
    folder: PathBuf,
    /// Where the command was given.
    place: &'static str,
}

/// What is told, as the command finds it in its environment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    /// `DELTAFRONT_CAMPAIGN`.
    pub(super) campaign: &'a str,
    /// `DELTAFRONT_STATE`: `finished`, or `halted`.
    pub(super) state: &'a str,
    /// `DELTAFRONT_REASON`: one sentence; empty when all evaluations are done.
    pub(super) reason: &'a str,
}

impl Notify {
    /// The command of the flag, else that of the campaign file in this folder.
    pub(super) fn of(flag: Option<&str>, file: &NotifyConfig, folder: PathBuf) -> Option<Self> {
        let (line, place) = match (flag, &file.command) {
            (Some(line), _) => (line, "--notify"),
            (None, Some(line)) => (line.as_str(), "notify.command"),
            (None, None) => return None,
        };
        Some(Self { line: line.to_owned(), folder, place })
    }

    /// Runs the command. What goes wrong with it comes back as a sentence, and harms nothing.
    pub(super) async fn tell(&self, told: Told<'_>) -> Option<String> {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(&self.line)
            .current_dir(&self.folder)
            .env("DELTAFRONT_CAMPAIGN", told.campaign)
            .env("DELTAFRONT_STATE", told.state)
            .env("DELTAFRONT_REASON", told.reason)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let trouble = match tokio::time::timeout(PATIENCE, command.status()).await {
            Ok(Ok(status)) if status.success() => return None,
            Ok(Ok(status)) => format!("ended with {status}"),
            Ok(Err(error)) => format!("cannot be run: {error}"),
            Err(_) => format!("took longer than {} s", PATIENCE.as_secs()),
        };
        Some(format!("the command of {} {trouble}", self.place))
    }
}
