//! The real program over its pipes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use search::config::{LearningRate, TrainingConfig};
use search::contents::Contents;
use search::wire::{CONFIGURE_ID, Check, Configure, Evaluate, PROTOCOL, Reply, Request};

use crate::support::{Folder, MIXERS, architecture, data, periodic, training_config};

const PATIENCE: Duration = Duration::from_mins(1);

struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    replies: Receiver<Reply>,
}

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_deltafront-train"))
}

impl Worker {
    /// Starts the program and hears its hello.
    fn start() -> Self {
        let mut child = command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program is built with its tests");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let line = line.expect("its output is text");
                let reply =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(reply).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        let worker = Self { child, input, replies };
        let Reply::Hello(hello) = worker.hear() else { panic!("hello comes first") };
        assert_eq!(hello.protocol, PROTOCOL);
        assert_eq!(hello.can, ["evaluate", "check"]);
        assert!(hello.device.starts_with("cpu: "), "{}", hello.device);
        worker
    }

    fn write(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open");
        writeln!(input, "{line}").expect("the worker reads");
    }

    fn ask(&mut self, request: &Request) {
        self.write(&serde_json::to_string(request).expect("requests serialise"));
    }

    fn hear(&self) -> Reply {
        self.replies.recv_timeout(PATIENCE).expect("the worker answers")
    }

    /// Past any progress.
    fn hear_final(&self) -> Reply {
        loop {
            let reply = self.hear();
            if !matches!(reply, Reply::Progress(_)) {
                return reply;
            }
        }
    }

    /// How long it takes to end, and whether it ended well.
    fn end(mut self) -> (Duration, bool) {
        drop(self.input.take());
        let began = Instant::now();
        let status = self.child.wait().expect("it is our child");
        (began.elapsed(), status.success())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configure(corpus: &Path, checkpoints: &Path, training: TrainingConfig) -> Request {
    Request::Configure(Configure {
        data: Some(data(corpus)),
        training: Some(training),
        checkpoints: Some(checkpoints.to_owned()),
        ..Configure::default()
    })
}

fn evaluate(id: u64, tokens: u64) -> Request {
    let architecture = architecture(&MIXERS[2..3]);
    Request::Evaluate(Evaluate { id, attempt: 1, architecture, tokens, seed: 1, resume_from: None })
}

#[test]
fn evaluates_stops_and_goes_on() {
    let folder = Folder::new();
    let mut worker = Worker::start();
    worker.ask(&evaluate(1, 99));
    let Reply::Failed(early) = worker.hear_final() else { panic!("nothing is configured") };
    assert!(early.id == 1 && early.reason.contains("configure"), "{}", early.reason);

    worker.ask(&configure(&folder.file("a.txt", periodic(5000)), folder.path(), training_config()));
    worker.write("this is not a request");
    worker.write("");
    worker.ask(&evaluate(2, 5 * 99));
    let Reply::Result(evaluation) = worker.hear_final() else { panic!("it can be trained") };
    assert_eq!((evaluation.id, evaluation.tokens), (2, 5 * 99));
    assert!(evaluation.values["bits_per_byte"].mean.is_finite());
    let checkpoint = evaluation.checkpoint.expect("there is a folder for it");
    assert!(checkpoint.starts_with(folder.path()) && checkpoint.is_file());

    // One that would take hours, and one behind it in the queue.
    worker.ask(&evaluate(3, 1 << 40));
    worker.ask(&evaluate(4, 1 << 40));
    let Reply::Progress(progress) = worker.hear() else { panic!("it is training") };
    assert!(progress.id == 3 && progress.tokens > 0 && progress.tokens_per_second > 0.0);
    worker.ask(&Request::Stop { id: 4 });
    worker.ask(&Request::Stop { id: 3 });
    for id in [3, 4] {
        let Reply::Infeasible(stopped) = worker.hear_final() else { panic!("it was stopped") };
        assert_eq!((stopped.id, stopped.reason.as_str()), (id, "stopped"));
    }
    worker.ask(&evaluate(5, 99));
    assert!(matches!(worker.hear_final(), Reply::Result(_)));
    assert!(worker.end().1);
}

#[test]
fn progress_comes_a_few_times_a_second_and_the_end_of_input_ends_it() {
    let folder = Folder::new();
    let mut worker = Worker::start();
    worker.ask(&configure(&folder.file("a.txt", periodic(5000)), folder.path(), training_config()));
    worker.ask(&evaluate(1, 1 << 40));
    assert!(matches!(worker.hear(), Reply::Progress(_)));
    let began = Instant::now();
    for _ in 0..3 {
        assert!(matches!(worker.hear(), Reply::Progress(_)));
    }
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    let (after, well) = worker.end();
    assert!(well && after < Duration::from_secs(8), "{after:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_and_a_time_limit_are_left_to_the_driver() {
    let folder = Folder::new();
    let mut worker = Worker::start();
    let id = worker.child.id().to_string();
    let signal = |signal: &str| {
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success());
    };
    signal("-INT");
    worker.ask(&configure(&folder.file("a.txt", periodic(5000)), folder.path(), training_config()));
    worker.ask(&evaluate(1, 99));
    assert!(matches!(worker.hear_final(), Reply::Result(_)));
    // As a batch system sends it to all of a job, in the middle of a training: it is kept when the driver says so.
    worker.ask(&evaluate(2, 1 << 40));
    assert!(matches!(worker.hear(), Reply::Progress(_)));
    signal("-USR1");
    assert!(matches!(worker.hear(), Reply::Progress(_)), "it trains on");
    worker.ask(&Request::Stop { id: 2 });
    let Reply::Infeasible(stopped) = worker.hear_final() else { panic!("it was stopped") };
    assert_eq!(stopped.reason, "stopped");
    assert!(worker.end().1);
}

#[test]
fn a_configuration_that_cannot_be_used_is_said_so_at_once() {
    let folder = Folder::new();
    let mut worker = Worker::start();
    worker.ask(&configure(&folder.path().join("missing.txt"), folder.path(), training_config()));
    let Reply::Failed(refusal) = worker.hear() else { panic!("the corpus is missing") };
    assert!(
        refusal.id == CONFIGURE_ID && refusal.reason.contains("missing.txt"),
        "{}",
        refusal.reason
    );
    worker.ask(&evaluate(1, 99));
    let Reply::Infeasible(refusal) = worker.hear_final() else { panic!("the corpus is missing") };
    assert!(refusal.id == 1 && refusal.reason.contains("missing.txt"), "{}", refusal.reason);
}

#[test]
fn a_corpus_shorter_than_a_sequence_is_refused_before_any_candidate() {
    let folder = Folder::new();
    let mut worker = Worker::start();
    worker.ask(&configure(&folder.file("a.txt", periodic(9)), folder.path(), training_config()));
    let Reply::Failed(refusal) = worker.hear() else { panic!("the corpus is too short") };
    assert_eq!(refusal.id, CONFIGURE_ID);
    assert!(refusal.reason.contains("use a longer corpus"), "{}", refusal.reason);
}

#[test]
fn a_diverging_candidate_fails_and_the_worker_lives() {
    let folder = Folder::new();
    let mut worker = Worker::start();
    let hot = TrainingConfig {
        learning_rate: LearningRate::Base(1e30),
        tokens: 400 * 99,
        ..training_config()
    };
    worker.ask(&configure(&folder.file("a.txt", periodic(5000)), folder.path(), hot));
    for id in [1, 2] {
        worker.ask(&evaluate(id, 400 * 99));
        let Reply::Failed(refusal) = worker.hear_final() else { panic!("it diverges") };
        assert!(refusal.id == id && refusal.reason.contains("diverged"), "{}", refusal.reason);
    }
    let (_, well) = worker.end();
    assert!(well);
}

#[test]
fn arguments_are_explained() {
    let help = command().arg("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.status.success() && text.contains("configure") && text.contains("stdin"),
        "{text}"
    );
    let unknown = command().arg("--frobnicate").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("--help"));
}

#[test]
fn a_request_that_is_not_understood_is_answered() {
    let mut worker = Worker::start();
    let cases = [
        (r#"{"type":"evaluate","id":7}"#, 7, "missing field"),
        (
            r#"{"type":"evaluate","id":8,"attempt":1,"architecture":{"d_model":64,"vocab":256,"tied_embeddings":true,"layers":[]},"tokens":1,"seed":1}"#,
            8,
            "1 to 4096 layers",
        ),
        (r#"{"type":"train","id":9}"#, 9, "unknown variant"),
        (r#"{"type":"configure","training":{"tokens":-1}}"#, CONFIGURE_ID, "invalid value"),
    ];
    for (line, id, reason) in cases {
        worker.write(line);
        let Reply::Failed(refusal) = worker.hear() else { panic!("{line}") };
        assert_eq!(refusal.id, id, "{line}");
        assert!(
            refusal.reason.contains("not understood") && refusal.reason.contains(reason),
            "{}",
            refusal.reason
        );
    }
}

#[test]
fn another_text_than_the_campaign_began_with_is_refused() {
    let folder = Folder::new();
    let texts = folder.path().join("texts");
    std::fs::create_dir_all(texts.join("deep")).expect("the folder is writable");
    for (name, text) in [("b.txt", periodic(5000)), ("deep/a.txt", periodic(3000))] {
        std::fs::write(texts.join(name), text).expect("the folder is writable");
    }
    std::fs::write(texts.join("notes.md"), "not read").expect("the folder is writable");
    // As the driver reads it: the texts in the order of their paths.
    let files = [periodic(5000), periodic(3000)];
    let expected = Contents::of(files.iter().map(|text| Ok(text.as_bytes()))).expect("bytes");
    let mut worker = Worker::start();
    let mut ask = |expected: Contents, id| {
        worker.ask(&Request::Configure(Configure {
            data: Some(data(&texts)),
            training: Some(training_config()),
            contents: [("data.corpus".to_owned(), expected)].into(),
            ..Configure::default()
        }));
        worker.ask(&evaluate(id, 5 * 99));
        worker.hear_final()
    };
    assert!(matches!(ask(expected.clone(), 1), Reply::Result(_)));
    std::fs::write(texts.join("deep/a.txt"), periodic(3001)).expect("the folder is writable");
    let Reply::Failed(refusal) = ask(expected, 2) else { panic!("it is another text") };
    assert_eq!(refusal.id, CONFIGURE_ID);
    assert!(
        refusal.reason.contains("data.corpus: ")
            && refusal.reason.contains("texts holds something else")
    );
}

#[test]
fn what_auto_is_can_be_asked_and_settled_by_the_cache() {
    let folder = Folder::new();
    let ask = |threads: &str| {
        let mut command = command();
        command.args(["--precision", threads]).env("XDG_CACHE_HOME", folder.path());
        let output = command.output().expect("the program is built with its tests");
        let text = String::from_utf8(output.stdout).expect("its output is text");
        (output.status.success(), text)
    };
    let (is_well, first) = ask("1");
    assert!(is_well, "{first}");
    let said: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    assert!(["fp32", "bf16"].contains(&said["precision"].as_str().unwrap_or_default()), "{first}");
    assert_eq!(ask("1"), (true, first), "two trainers of one machine agree");
    assert!(!ask("many").0);
}

/// What a check of these stacks is answered by, after this configuration.
fn checked(training: TrainingConfig, folder: &Folder, stacks: &[&str]) -> Reply {
    let mut worker = Worker::start();
    worker.ask(&configure(&folder.file("text.txt", periodic(4096)), folder.path(), training));
    let architectures = stacks.iter().map(|text| text.parse().expect("a stack")).collect();
    worker.ask(&Request::Check(Check { id: 1, architectures, conditions: Vec::new() }));
    worker.hear()
}

#[test]
fn what_cannot_be_trained_is_said_beforehand() {
    let folder = Folder::new();
    let stacks = ["d=32,vocab=256 | gdn(h=1,k=32,v=32)", "d=48,vocab=256 | kda(h=3,k=16,v=16)"];
    let Reply::Checked(checked_) = checked(training_config(), &folder, &stacks) else {
        panic!("both can be trained")
    };
    assert!(checked_.refused.is_empty(), "{checked_:?}");
    assert!(checked_.slow.is_empty(), "on a CPU all mixers train by kernels: {checked_:?}");

    let third = TrainingConfig { width_scale: 1.0 / 3.0, ..training_config() };
    let Reply::Checked(checked_) = checked(third, &folder, &stacks) else {
        panic!("one of them can be trained")
    };
    assert_eq!(checked_.refused.iter().map(|remark| remark.of.clone()).collect::<Vec<_>>(), [[0]]);

    let few = ["d=32,vocab=20 | gdn(h=1,k=32,v=32)"];
    let Reply::Failed(refusal) = checked(training_config(), &folder, &few) else {
        panic!("bytes are above a vocabulary of 20")
    };
    assert_eq!(refusal.id, 1);
    assert!(refusal.reason.contains("vocab"), "{}", refusal.reason);

    let nowhere =
        TrainingConfig { device: search::device::Device::Cuda(Some(99)), ..training_config() };
    let Reply::Failed(refusal) = checked(nowhere, &folder, &stacks) else {
        panic!("there are not a hundred GPUs here")
    };
    assert!(refusal.reason.contains("cuda:99"), "{}", refusal.reason);
}
