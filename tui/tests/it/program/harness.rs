//! A folder with a small campaign, and the program run in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const EVALUATIONS: usize = 8;

const CAMPAIGN: &str = r#"name = "small"
seed = 3

[space]
d_model = [16, 32]
depth = { min = 1, max = 3 }
ffn = ["none", "2x"]

[space.mixers.attn]
head_width = [8]

[space.mixers.swa]
head_width = [8]
window = [16]

[space.mixers.gdn]
key_width = [8]

[data]
corpus = "corpus.txt"

[training]
tokens = 65_536

[search]
evaluations = 8
start = 4
references = ["full-attention", "gated-deltanet"]

[evaluator]
timeout_seconds = 60.0
"#;

/// A folder of its own for one test.
pub(crate) struct World {
    pub(crate) folder: PathBuf,
    variables: Vec<(&'static str, String)>,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("program").join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the scratch folder can be made");
        let world = Self { folder, variables: Vec::new() };
        world.write("corpus.txt", &"some text to train on, ".repeat(1000));
        world.write("campaign.toml", CAMPAIGN);
        world
    }

    pub(crate) fn set(&mut self, variable: &'static str, value: &str) {
        self.variables.retain(|(name, _)| *name != variable);
        self.variables.push((variable, value.to_owned()));
    }

    pub(crate) fn unset(&mut self, variable: &str) {
        self.variables.retain(|(name, _)| *name != variable);
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.join(file), text).expect("the scratch folder is writable");
    }

    pub(crate) fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    /// Changes the campaign file; the text must be there.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = self.read("campaign.toml");
        assert!(text.contains(from), "`{from}` is not in the campaign file");
        self.write("campaign.toml", &text.replace(from, to));
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltafront"));
        command.args(arguments);
        self.surround(&mut command);
        command
    }

    /// Has a command run in the folder, among the workers that only pretend.
    pub(crate) fn surround(&self, command: &mut Command) {
        let workers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/program/workers");
        command
            .current_dir(&self.folder)
            .env_remove("DELTAFRONT_DB")
            .env("DELTAFRONT_TRAIN", workers.join("trainer.sh"))
            .env("DELTAFRONT_PROFILE", workers.join("profiler.sh"))
            .env("FAKE_FOLDER", &self.folder)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
    }

    /// Runs the program to its end.
    pub(crate) fn say(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().expect("the program starts");
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("what the program says is UTF-8");
            let text = text.replace(env!("CARGO_BIN_EXE_deltafront"), "deltafront");
            text.replace(self.folder.to_str().expect("the scratch folder is UTF-8"), "[folder]")
        };
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Starts `run` and goes on.
    pub(crate) fn start(&self) -> Running {
        let mut command = self.command(&["run"]);
        command.stdout(Stdio::null());
        let log = std::fs::File::create(self.folder.join("stderr.txt")).expect("a file");
        Running(command.stderr(log).spawn().expect("the program starts"))
    }

    /// How many requests of a kind the workers have had: `evaluations`, `measurements`.
    pub(crate) fn count(&self, requests: &str) -> usize {
        self.read(requests).lines().count()
    }

    /// Waits until something is so.
    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < Duration::from_mins(1), "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The campaign as JSON.
    pub(crate) fn campaign(&self) -> Value {
        let said = self.say(&["show", "--json"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        serde_json::from_str(&said.stdout).expect("JSON")
    }

    /// (text, state) of the candidates in order.
    pub(crate) fn candidates(&self) -> Vec<(String, String)> {
        let campaign = self.campaign();
        let list = campaign["candidates"].as_array().expect("a list");
        list.iter()
            .map(|row| {
                let text = |key: &str| row[key].as_str().expect("a text").to_owned();
                (text("text"), text("state"))
            })
            .collect()
    }
}

/// A `run` under way; killed when it is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it was killed");
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.0.id()).expect("a process id");
        let id = rustix::process::Pid::from_raw(id).expect("not 0");
        rustix::process::kill_process(id, signal).expect("it runs");
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("it was started").is_none()
    }

    /// The most memory that it has had so far.
    pub(crate) fn peak_memory_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    pub(crate) fn code(mut self) -> i32 {
        self.0.wait().expect("it was started").code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
