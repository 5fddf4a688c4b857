//! The worker's side of the wire: requests are read by a thread of their own, so that a stop is heard in the midst of a
//! training; the calling thread trains, because libtorch's number of threads belongs to the thread that set it.

use std::any::Any;
use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use search::config::{Precision, TrainingConfig};
use search::device::{Device, Platform};
use search::failure::FailureKind;
use search::wire::{CONFIGURE_ID, Configure, Evaluate, Hello, PROTOCOL, Refusal, Reply, Request};

use crate::check::check;
use crate::corpus::Corpus;
use crate::error::{Error, Result, of_libtorch};
use crate::evaluation::{KEPT_EVERY, Proxies, evaluate};
use crate::precision::{self, Settled};
use crate::tasks::Task;

/// The folder inside the checkpoints' that keeps a corpus as tokens.
const TOKEN_CACHE: &str = "tokens";

/// How long a step may take to notice that the driver is gone before the process ends without it.
const GRACE: Duration = Duration::from_secs(10);

/// What the reading thread tells the training one.
#[derive(Debug, Default)]
struct Control {
    stopped: Mutex<HashSet<u64>>,
    ended: AtomicBool,
}

impl Control {
    fn stop(&self, id: u64) {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    fn is_stopped(&self, id: u64) -> bool {
        self.has_ended()
            || self.stopped.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn answered(&self, id: u64) {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// What a `configure` left behind.
pub(crate) struct Setting {
    pub(crate) corpus: Option<Corpus>,
    tasks: Vec<Task>,
    checkpoints: Option<PathBuf>,
    pub(crate) training: TrainingConfig,
}

/// Serves requests from `input` until it ends, writing replies to `output`. The log goes to stderr.
///
/// # Errors
/// When a reply cannot be written: nobody listens any more.
pub fn serve(input: impl BufRead + Send + 'static, output: &mut impl Write) -> std::io::Result<()> {
    let control = Arc::new(Control::default());
    let (sender, requests) = mpsc::channel();
    let reader = Arc::clone(&control);
    std::thread::spawn(move || {
        read(input, &reader, &sender);
        reader.ended.store(true, Ordering::Relaxed);
        // The receiver of an ended channel leaves by itself, unless a step keeps it.
        drop(sender);
        std::thread::sleep(GRACE);
        std::process::exit(0);
    });
    say(output, &Reply::Hello(hello()))?;
    let mut setting: Option<Result<Setting>> = None;
    for request in requests {
        if control.has_ended() {
            break;
        }
        let request = match request {
            Ok(request) => request,
            Err(refusal) => {
                say(output, &Reply::Failed(refusal))?;
                continue;
            }
        };
        match request {
            Request::Configure(configure) => {
                let outcome = configured(configure);
                match &outcome {
                    Ok(Setting { corpus: Some(corpus), .. }) => {
                        eprintln!("deltafront-train: {}", corpus.describe());
                    }
                    Ok(_) => {}
                    Err(error) => {
                        say(output, &failed(error.kind(), CONFIGURE_ID, error.to_string()))?;
                    }
                }
                setting = Some(outcome);
            }
            Request::Evaluate(request) => {
                let id = request.id;
                let reply = match &setting {
                    None => unconfigured(id, "evaluate"),
                    Some(Err(error)) => refused(id, error),
                    Some(Ok(setting)) => answer(&request, setting, &control, output)?,
                };
                if control.has_ended() {
                    break;
                }
                control.answered(id);
                say(output, &reply)?;
            }
            Request::Check(request) => {
                let id = request.id;
                let reply = match &setting {
                    None => unconfigured(id, "check"),
                    Some(Err(error)) => failed(error.kind(), id, error.to_string()),
                    Some(Ok(Setting { corpus, training, .. })) => {
                        match check(&request, corpus.as_ref(), training) {
                            Ok(checked) => Reply::Checked(checked),
                            Err(error) => failed(error.kind(), id, error.to_string()),
                        }
                    }
                };
                say(output, &reply)?;
            }
            Request::Measure(request) => say(output, &not_mine(request.id))?,
            Request::MeasureWhole(request) => say(output, &not_mine(request.id))?,
            Request::MeasureLimit(request) => say(output, &not_mine(request.id))?,
            Request::Eval(request) => say(output, &not_mine(request.id))?,
            Request::Space { .. } | Request::Stop { .. } => {}
        }
    }
    Ok(())
}

/// Passes requests on, and what is to be said to lines that are none; stops are noted at once.
fn read(
    input: impl BufRead,
    control: &Control,
    requests: &mpsc::Sender<std::result::Result<Request, Refusal>>,
) {
    for line in input.lines() {
        let Ok(line) = line else { return };
        if line.trim().is_empty() {
            continue;
        }
        match Request::parse(&line) {
            Ok(Request::Stop { id }) => control.stop(id),
            Ok(request) => {
                if requests.send(Ok(request)).is_err() {
                    return;
                }
            }
            Err(error) => {
                eprintln!("deltafront-train: a request is not understood: {error}");
                if let Some(refusal) = Request::refusal(&line, &error)
                    && requests.send(Err(refusal)).is_err()
                {
                    return;
                }
            }
        }
    }
}

pub(crate) fn configured(configure: Configure) -> Result<Setting> {
    let Configure { data, training, tasks, contents, checkpoints, latency: _ } = configure;
    let mut training = training.unwrap_or_default();
    let threads = match training.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n as usize,
    };
    tch::set_num_threads(threads as i32);
    if (training.precision, training.device) == (Precision::Auto, Device::Cpu) {
        training.precision = settled(threads as u32)?.precision;
    }
    if data.is_none() && tasks.is_empty() {
        return Err(Error::NoData);
    }
    let cache = checkpoints.as_ref().map(|folder| folder.join(TOKEN_CACHE));
    let corpus = match data {
        None => None,
        Some(data) => {
            let corpus = Corpus::open(&data, cache.as_deref())?;
            Corpus::check_contents(&data, &contents)?;
            Some(corpus)
        }
    };
    if let Some(corpus) = &corpus {
        // Every candidate would be refused for this, whatever its vocabulary.
        corpus.check(training.sequence_length, u32::MAX)?;
    }
    Ok(Setting { corpus, tasks: tasks.into_iter().map(Task::new).collect(), checkpoints, training })
}

/// What `training.precision = "auto"` is for a trainer of so many threads on this machine; see [`precision::settle`].
///
/// # Errors
/// When nothing can be trained here.
pub fn settled(threads: u32) -> Result<Settled> {
    precision::settle(threads, &device_name(), precision::cache_folder().as_deref())
}

/// Evaluates; whatever happens inside becomes a reply. Fails only if progress cannot be written.
fn answer(
    request: &Evaluate,
    setting: &Setting,
    control: &Control,
    output: &mut impl Write,
) -> std::io::Result<Reply> {
    let id = request.id;
    let mut written = Ok(());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let proxies = Proxies {
            corpus: setting.corpus.as_ref(),
            tasks: &setting.tasks,
            training: &setting.training,
            checkpoints: setting.checkpoints.as_deref(),
            kept_every: KEPT_EVERY,
        };
        let stop = || control.is_stopped(id);
        evaluate(request, proxies, &stop, &mut |progress| {
            if written.is_ok() {
                written = say(output, &Reply::Progress(progress));
            }
        })
    }));
    written?;
    Ok(match outcome {
        Ok(Ok(evaluation)) => Reply::Result(evaluation),
        Ok(Err(error)) => refused(id, &error),
        Err(panic) => {
            let (kind, reason) = panicked(panic.as_ref());
            failed(kind, id, reason)
        }
    })
}

fn refused(id: u64, error: &Error) -> Reply {
    if error.is_infeasible() {
        Reply::Infeasible(Refusal::new(id, error.to_string()))
    } else {
        failed(error.kind(), id, error.to_string())
    }
}

fn failed(kind: FailureKind, id: u64, reason: String) -> Reply {
    Reply::Failed(Refusal::of(kind, id, reason))
}

fn unconfigured(id: u64, request: &str) -> Reply {
    let reason = format!("no configure came before the first {request}");
    failed(FailureKind::Protocol, id, reason)
}

fn not_mine(id: u64) -> Reply {
    let reason = "this worker trains; deltafront-profile measures".to_owned();
    Reply::Infeasible(Refusal::new(id, reason))
}

/// libtorch's exceptions arrive as panics, one line of reason and then a C++ backtrace.
fn panicked(panic: &(dyn Any + Send)) -> (FailureKind, String) {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    let reason = format!("the trainer panicked: {}", text.lines().next().unwrap_or(text));
    (of_libtorch(text), reason)
}

/// A result that the protocol refuses is a failed evaluation.
fn say(output: &mut impl Write, reply: &Reply) -> std::io::Result<()> {
    let line = reply.to_line().or_else(|error| match reply {
        Reply::Result(evaluation) => {
            failed(FailureKind::Invalid, evaluation.id, error.to_string()).to_line()
        }
        _ => Err(error),
    });
    writeln!(output, "{}", line.map_err(std::io::Error::other)?)?;
    output.flush()
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        worker: concat!("deltafront-train ", env!("CARGO_PKG_VERSION")).to_owned(),
        can: ["evaluate", "check"].map(str::to_owned).to_vec(),
        device: device_name(),
        kernels: None,
    }
}

/// The processor by name where the system tells it.
fn device_name() -> String {
    let name = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        line.split_once(':').map(|(_, name)| name.trim().to_owned())
    });
    let name = name.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    Platform::Cpu.hardware(&name)
}
