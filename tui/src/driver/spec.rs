//! Which program a worker is, and how it is started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use search::contents::Contents;
use search::device::{Device, Platform};
use search::wire::{Configure, Hello, SpaceReply};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::limits::Limits;

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Trains proxies.
    Trainer,
    /// Times parts and whole models.
    Profiler,
    /// Gives the values of a user's own function.
    BlackBox,
}

impl Role {
    /// The word in the store and in messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Trainer => "trainer",
            Self::Profiler => "profiler",
            Self::BlackBox => "worker",
        }
    }

    /// The program of ours that does it, the crate that builds it, and the variable that names another one: for
    /// tests, and for workers that lie elsewhere. A black box is always the user's.
    fn built_in(self) -> Option<[&'static str; 3]> {
        match self {
            Self::Trainer => Some(["deltafront-train", "evaluator", "DELTAFRONT_TRAIN"]),
            Self::Profiler => Some(["deltafront-profile", "profiles", "DELTAFRONT_PROFILE"]),
            Self::BlackBox => None,
        }
    }

    /// The request it must be able to answer. A user's own profiler knows no parts.
    pub(crate) fn duty(self, program: &Program) -> &'static str {
        match (self, program) {
            (Self::Trainer, _) => "evaluate",
            (Self::Profiler, Program::Shell { .. }) => "measure_whole",
            (Self::Profiler, _) => "measure",
            (Self::BlackBox, _) => "eval",
        }
    }
}

/// How to start a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// A program of ours.
    File(PathBuf),
    /// A program of ours, told on which device: `--device cuda:0`, and which GPUs it sees at all.
    On {
        /// The program.
        file: PathBuf,
        /// Its argument.
        device: Option<Device>,
        /// `CUDA_VISIBLE_DEVICES`.
        visible: Option<String>,
    },
    /// The user's own command line, run by the shell in the folder of the campaign file.
    Shell {
        /// The command line.
        line: String,
        /// The folder.
        folder: PathBuf,
    },
}

/// What workers find in their environment, if the user has not set it.
const SETTINGS: [(&str, &str); 2] = [
    // libtorch's threads spin while they wait for each other; beside any other load that costs ten times the work.
    ("OMP_WAIT_POLICY", "passive"),
    // Memory in huge pages: where small ones lie decides which lines of a cache they take from each other, so that the same
    // decode step takes longer in one process than in the next.
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
];

impl Program {
    /// The built-in worker, which must be there.
    pub(crate) fn built_in(role: Role) -> anyhow::Result<Self> {
        let program = Self::named(role)?;
        program.must_be_there(role)?;
        Ok(program)
    }

    /// The built-in worker, there or not: the one its variable names, else the one beside this program.
    pub(crate) fn named(role: Role) -> anyhow::Result<Self> {
        let Some([name, _, variable]) = role.built_in() else {
            bail!("a {} is the user's own command", role.word())
        };
        let file = if let Some(file) = std::env::var_os(variable) {
            PathBuf::from(file)
        } else {
            let this =
                std::env::current_exe().context("cannot find out where this program lies")?;
            let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
            this.parent().unwrap_or(Path::new(".")).join(name)
        };
        Ok(Self::File(file))
    }

    /// Refuses a program of ours that is not there.
    pub(crate) fn must_be_there(&self, role: Role) -> anyhow::Result<()> {
        let (Self::File(file) | Self::On { file, .. }) = self else { return Ok(()) };
        if let Some([_, package, variable]) = role.built_in()
            && !file.is_file()
        {
            bail!(
                "the {} {} is not there; build it with `cargo build --release -p {package}` (`make setup` first), \
                 or name it by the variable {variable}",
                role.word(),
                file.display()
            );
        }
        Ok(())
    }

    /// The same program, told to compute on `device`.
    pub(crate) fn on(self, device: Device) -> Self {
        match self {
            Self::File(file) => Self::On { file, device: Some(device), visible: None },
            other => other,
        }
    }

    /// The same program, which sees `gpu` alone.
    pub(crate) fn seeing(self, gpu: Option<&str>) -> Self {
        match (self, gpu) {
            (Self::File(file), Some(gpu)) => {
                Self::On { file, device: None, visible: Some(gpu.to_owned()) }
            }
            (other, _) => other,
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = match self {
            Self::File(file) => Command::new(file),
            Self::On { file, device, visible } => {
                let mut command = Command::new(file);
                command.args(device.iter().flat_map(|d| ["--device".to_owned(), d.to_string()]));
                command.envs(visible.iter().map(|gpu| ("CUDA_VISIBLE_DEVICES", gpu)));
                command
            }
            Self::Shell { line, folder } => {
                let mut command = Command::new("sh");
                // A batch system may send its signal to all processes of a job: what becomes of this one is decided above it.
                command.arg("-c").arg(format!("trap '' USR1\n{line}")).current_dir(folder);
                command
            }
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (variable, value) in SETTINGS {
            if std::env::var_os(variable).is_none() {
                command.env(variable, value);
            }
        }
        // A group of its own: Ctrl-C in the terminal reaches the driver alone, which then stops its workers in order;
        // and a worker is ended together with the processes it started.
        #[cfg(unix)]
        command.process_group(0);
        command
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) | Self::On { file, .. } => {
                write!(f, "{}", file.file_name().unwrap_or(file.as_os_str()).to_string_lossy())
            }
            Self::Shell { line, .. } => write!(f, "`{line}`"),
        }
    }
}

/// What is said to a worker before its first request.
#[derive(Debug, Clone)]
pub(crate) enum Introduction {
    /// Sent after each hello.
    Configure(Box<Configure>),
    /// A black box is asked for its space, which must be this one.
    Space(SpaceReply),
}

impl Introduction {
    /// Says what the files of the data must hold.
    pub(crate) fn expect(&mut self, contents: BTreeMap<String, Contents>) {
        if let Self::Configure(configure) = self {
            configure.contents = contents;
        }
    }

    /// Sends checkpoints elsewhere.
    pub(crate) fn keep_checkpoints_in(&mut self, folder: &Path) {
        if let Self::Configure(configure) = self {
            configure.checkpoints = Some(folder.to_owned());
        }
    }

    /// On what of a machine a trainer computes.
    pub(crate) fn device(&self) -> Option<Device> {
        match self {
            Self::Configure(configure) => Some(configure.training.as_ref()?.device),
            Self::Space(_) => None,
        }
    }

    /// Where a trainer computes: it says on which machine it is, the campaign file on what of it. `gpu`: the one that it alone
    /// sees.
    pub(crate) fn trains_on(&self, trainer: &Hello, gpu: Option<&str>) -> String {
        match (self.device(), gpu) {
            (None | Some(Device::Cpu), _) => trainer.device.clone(),
            (Some(Device::Cuda(_)), Some(gpu)) => format!("{}:{gpu}", Platform::Cuda.word()),
            (Some(device), None) => device.to_string(),
        }
    }
}

/// Everything about a worker that stays the same when it is started again.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSpec {
    pub(crate) role: Role,
    pub(crate) program: Program,
    pub(crate) introduction: Introduction,
    /// The file that its stderr is added to.
    pub(crate) log: PathBuf,
    /// A busy worker that says nothing for this long has failed.
    pub(crate) silence: std::time::Duration,
    /// What it may take for one request.
    pub(crate) limits: Limits,
}
