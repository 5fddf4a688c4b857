//! `deltafront doctor`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use db::{Access, DbError, Store};
use search::config::Precision;
use serde_json::json;
use tui::quantity;

use super::block_on;
use crate::driver::{self, Program, Role};
use crate::words;

/// Exit code 0 when a campaign can run here, 1 when something stands in its way.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Works, but for something that may be missed.
    Note,
    /// No campaign can run.
    Bad,
}

/// One line of the report.
struct Finding {
    verdict: Verdict,
    subject: &'static str,
    what: String,
    /// What to do about it.
    remedy: Option<String>,
}

impl Finding {
    fn good(subject: &'static str, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, subject, what: what.into(), remedy: None }
    }

    fn note(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, subject, what: what.into(), remedy: Some(remedy.into()) }
    }

    fn bad(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, subject, what: what.into(), remedy: Some(remedy.into()) }
    }
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let findings = block_on(async {
        let mut findings = vec![cpu(), cores(), memory()];
        findings.push(worker(Role::Trainer, "trainer").await);
        findings.extend(products().await);
        findings.push(worker(Role::Profiler, "profiler").await);
        findings.extend(gpu().await);
        findings.push(disk(db));
        findings.push(database(db).await);
        Ok(findings)
    })?;
    let mut stdout = std::io::stdout();
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if args.json {
        let list: Vec<serde_json::Value> = findings
            .iter()
            .map(|finding| {
                json!({
                    "verdict": word(finding.verdict),
                    "subject": finding.subject,
                    "what": finding.what,
                    "remedy": finding.remedy,
                })
            })
            .collect();
        writeln!(stdout, "{}", serde_json::to_string_pretty(&list)?)?;
    } else {
        for Finding { verdict, subject, what, remedy } in &findings {
            let what = what.trim_end().replace('\n', "\n                  ");
            writeln!(stdout, "{:<5} {subject:<11} {what}", word(*verdict))?;
            if let Some(remedy) = remedy {
                writeln!(stdout, "{:17} → {remedy}", "")?;
            }
        }
        if bad == 0 {
            writeln!(stdout, "\na campaign can run here")?;
        } else {
            writeln!(stdout, "\n{} in the way of a campaign", words::count(bad, "thing"))?;
        }
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Note => "note",
        Verdict::Bad => "BAD",
    }
}

fn cpu() -> Finding {
    let name = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let features = cpu_features();
    let what = format!(
        "{name}: {}",
        if features.is_empty() { "no SIMD known to us".to_owned() } else { features.join(", ") }
    );
    let has = |feature| features.contains(&feature);
    if cfg!(target_arch = "x86_64") && !(has("avx2") && has("fma")) {
        let remedy =
            "the portable kernels run, slowly; time on the machine that will serve the model";
        return Finding::note("cpu", what, remedy);
    }
    Finding::good("cpu", what)
}

fn cpu_features() -> Vec<&'static str> {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! ask {
            ($($name:tt),*) => { $(if std::arch::is_x86_feature_detected!($name) { features.push($name); })* };
        }
        ask!("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        features.push("neon");
    }
    features
}

fn cores() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    let what = match load {
        Some(load) => format!("{cores}, load {load:.1}"),
        None => cores.to_string(),
    };
    match load {
        Some(load) if load > 0.5 * cores as f64 => Finding::note(
            "cores",
            what,
            "timings taken beside other work are disturbed: end that, or wait",
        ),
        _ => Finding::good("cores", what),
    }
}

fn memory() -> Finding {
    const LITTLE_BYTES: f64 = 1.5e9;
    let read = |key: &str| {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| 1024.0 * kib)
    };
    let (Some(total), Some(free)) = (read("MemTotal:"), read("MemAvailable:")) else {
        return Finding::good("memory", "unknown on this system");
    };
    let what = format!("{} free of {}", quantity::bytes(free), quantity::bytes(total));
    if free < LITTLE_BYTES {
        let remedy = "a trainer needs about 1 GB and what its batch takes: end other programs, or keep \
                      `search.concurrency` at 1";
        return Finding::note("memory", what, remedy);
    }
    Finding::good("memory", what)
}

/// Starts the worker: a trainer that says hello has loaded libtorch.
async fn worker(role: Role, subject: &'static str) -> Finding {
    let program = match Program::built_in(role) {
        Ok(program) => program,
        Err(error) => {
            let remedy = match role {
                Role::Trainer => {
                    "make setup && cargo build --release -p evaluator; or use `[evaluator] command`"
                }
                Role::Profiler => "cargo build --release -p profiles",
                Role::BlackBox => "name a command",
            };
            return Finding::bad(subject, format!("{error:#}"), remedy);
        }
    };
    match driver::ask(role, &program).await {
        Ok(hello) => {
            let kernels = hello.kernels.map_or(String::new(), |kernels| format!(" ({kernels})"));
            Finding::good(subject, format!("{}{kernels}, on {}", hello.worker, hello.device))
        }
        Err((reason, log)) => {
            let remedy = if log.contains("libtorch") || log.contains("shared libraries") {
                "libtorch is not where it was when this was built: make setup, then build again"
            } else {
                "build it again from the same source as this program: cargo build --release --workspace"
            };
            Finding::bad(subject, format!("{reason}\n{log}"), remedy)
        }
    }
}

/// What `training.precision = "auto"` is here, and why.
async fn products() -> Option<Finding> {
    let program = Program::built_in(Role::Trainer).ok()?;
    let auto = driver::ask_precision(&program, None).await?;
    let (is, other) = match auto.precision {
        Precision::Bf16 => ("bf16", "fp32"),
        Precision::Fp32 | Precision::Auto => ("fp32", "bf16"),
    };
    let why = match auto.speeds {
        Some(speeds) => {
            let speed = |per_second| quantity::scaled(per_second);
            let (fp32, bf16) = (speed(speeds.fp32), speed(speeds.bf16));
            format!("trains at {fp32} tokens/s in fp32 and {bf16} in bf16")
        }
        None => "has no instructions for products in bf16".to_owned(),
    };
    Some(Finding::good(
        "precision",
        format!(
            "this processor {why}: `auto` is {is}; `precision = \"{other}\"` in [training] settles it by hand"
        ),
    ))
}

/// What `deltafront-profile --facts` knows of GPUs.
async fn gpu() -> Vec<Finding> {
    let Ok(Program::File(file)) = Program::built_in(Role::Profiler) else { return Vec::new() };
    let mut command = tokio::process::Command::new(file);
    command.arg("--facts").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let patience = std::time::Duration::from_secs(30);
    let facts: Option<serde_json::Value> = match tokio::time::timeout(patience, command.output())
        .await
    {
        Ok(Ok(output)) if output.status.success() => serde_json::from_slice(&output.stdout).ok(),
        _ => None,
    };
    let without = "nothing to do: everything works on the CPU without one";
    let Some(facts) = facts else {
        return vec![Finding::note("gpu", "the profiler does not say", without)];
    };
    let findings = facts["gpu_findings"].as_array().cloned().unwrap_or_default();
    findings
        .iter()
        .map(|finding| {
            let what = finding["what"].as_str().unwrap_or("?");
            match finding["remedy"].as_str() {
                Some(remedy) => Finding::note("gpu", what, remedy),
                None => Finding::good("gpu", what),
            }
        })
        .collect()
}

fn disk(db: &Path) -> Finding {
    const LITTLE_BYTES: f64 = 1e9;
    let folder =
        db.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    #[cfg(unix)]
    let free =
        rustix::fs::statvfs(folder).ok().map(|stat| stat.f_bavail as f64 * stat.f_frsize as f64);
    #[cfg(not(unix))]
    let free: Option<f64> = None;
    let Some(free) = free else {
        return Finding::note(
            "disk",
            format!("free space at {} is unknown", folder.display()),
            "see that there is 1 GB",
        );
    };
    let what = format!("{} free at {}", quantity::bytes(free), folder.display());
    if free < LITTLE_BYTES {
        return Finding::note(
            "disk",
            what,
            "a campaign keeps a checkpoint of each candidate: make room, or use `--db` elsewhere",
        );
    }
    Finding::good("disk", what)
}

async fn database(db: &Path) -> Finding {
    let shown = db.display();
    match Store::open(db, Access::ReadOnly).await {
        Err(DbError::Missing { .. }) => {
            Finding::good("database", format!("{shown} is not there yet; `run` makes it"))
        }
        Err(error) => Finding::bad("database", error.to_string(), "name another file with --db"),
        Ok(store) => match (store.integrity_check().await, store.campaigns().await) {
            (Ok(()), Ok(campaigns)) => Finding::good(
                "database",
                format!("{shown}, {}, intact", words::count(campaigns.len(), "campaign")),
            ),
            (Err(error), _) | (_, Err(error)) => Finding::bad(
                "database",
                error.to_string(),
                "restore it from a copy, or name another file with --db",
            ),
        },
    }
}
