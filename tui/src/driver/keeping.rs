//! Keeps a process running in a slot, hands it one request at a time, and turns everything that can go wrong with it into a
//! failed attempt.

use std::time::Duration;

use search::failure::FailureKind;
use search::wire::{CONFIGURE_ID, Refusal, Reply, Request};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::child::Process;
use super::hiring::{Broken, hire, shortened};
use super::news::{News, id_of_reply};
use super::spec::{Role, WorkerSpec};

/// How long a worker that was told to stop may take to do so.
const STOP: Duration = Duration::from_secs(10);
/// Times in a row that a worker may leave or not start without having answered anything.
const STARTS: u32 = 3;
/// Characters of a reason that are kept.
const REASON: usize = 2000;
/// The least time between two reports of progress that are passed on.
const PROGRESS: Duration = Duration::from_millis(200);
/// How often a busy worker is held against its limits.
const WATCH: Duration = Duration::from_secs(1);
/// A clock that is this late was not late by load: driver and workers were stopped (Ctrl-Z, a sleeping laptop).
const ASLEEP: Duration = Duration::from_secs(1);

/// Keeps a worker running until no more orders come.
pub(super) async fn keep(
    spec: &WorkerSpec,
    mut orders: mpsc::UnboundedReceiver<Request>,
    tell: &(impl Fn(News) + Sync),
) -> Result<(), Broken> {
    let mut was_ready = false;
    let mut troubles = 0;
    loop {
        let trouble = match hire(spec).await {
            // What cannot be started the first time cannot be started the next time either.
            Err(broken) if !was_ready => return Err(broken),
            Err(broken) => Some(broken),
            Ok((process, hello)) => {
                was_ready = true;
                tell(News::Ready(hello));
                match attend(spec, process, &mut orders, tell).await? {
                    Leave::Dismissed => return Ok(()),
                    Leave::LostAtWork => None,
                    Leave::LostIdle { broken, has_worked } => {
                        if has_worked {
                            troubles = 0;
                        }
                        Some(broken)
                    }
                }
            }
        };
        match trouble {
            // A failed attempt is the campaign's to count.
            None => troubles = 0,
            Some(broken) => {
                troubles += 1;
                if troubles >= STARTS {
                    return Err(broken);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// How the time with one process ended.
enum Leave {
    /// No more orders: the worker was let go.
    Dismissed,
    /// The process is gone, and the request with it; another process is needed.
    LostAtWork,
    /// The process is gone though nothing was asked of it; whether it had answered something before.
    LostIdle { broken: Broken, has_worked: bool },
}

/// Why a process cannot be kept; of which kind where that is clear.
type Loss = (Option<FailureKind>, String);

/// The request that a worker is at.
struct Job {
    id: u64,
    /// What answers it.
    duty: &'static str,
    began: Instant,
    stopping: bool,
    /// When its silence is too long.
    deadline: Instant,
    /// When progress was passed on last.
    told: Option<Instant>,
}

/// The time with one process.
async fn attend(
    spec: &WorkerSpec,
    mut process: Process,
    orders: &mut mpsc::UnboundedReceiver<Request>,
    tell: &(impl Fn(News) + Sync),
) -> Result<Leave, Broken> {
    let mut job: Option<Job> = None;
    let mut has_worked = false;
    let mut watch = tokio::time::interval(WATCH);
    watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let deadline = job.as_ref().map_or_else(Instant::now, |job| job.deadline);
        // Why this process cannot be kept, of a kind where it is clear; none while all is well.
        let lost: Option<Loss> = tokio::select! {
            biased;
            order = orders.recv() => match order {
                None => {
                    process.dismiss().await;
                    return Ok(Leave::Dismissed);
                }
                Some(request @ Request::Stop { id }) => {
                    if let Some(job) = job.as_mut().filter(|job| job.id == id) {
                        job.stopping = true;
                        job.deadline = Instant::now() + STOP;
                        process.send(&request).await;
                    }
                    None
                }
                Some(request) => {
                    job = duty_of(&request).map(|(id, duty)| Job {
                        id,
                        duty,
                        began: Instant::now(),
                        stopping: false,
                        deadline: Instant::now() + spec.silence,
                        told: None,
                    });
                    process.clear_tail();
                    // A worker that does not listen is about to end: its stdout says so next.
                    process.send(&request).await;
                    None
                }
            },
            // Before the clock: an answer that lies ready was given in time.
            line = process.line() => match line {
                None => Some((None, String::new())),
                Some(line) => match Reply::parse(&line) {
                    Ok(Reply::Failed(Refusal { id: CONFIGURE_ID, reason, .. })) => {
                        let (_, log) = process.end().await;
                        return Err((shortened(&reason, REASON), log));
                    }
                    Ok(reply) => match hear(spec, &mut job, reply) {
                        Ok(None) => None,
                        Ok(Some(Reply::Failed(refusal))) => {
                            tell(News::Failed { refusal, log: process.tail() });
                            None
                        }
                        Ok(Some(reply)) => {
                            has_worked |= job.is_none();
                            tell(News::Reply(reply));
                            None
                        }
                        Err(reason) => Some((Some(FailureKind::Protocol), reason)),
                    },
                    Err(error) => {
                        let reason = shortened(&format!("wrote a bad line: {error}"), REASON);
                        Some((Some(FailureKind::Protocol), reason))
                    }
                },
            },
            () = tokio::time::sleep_until(deadline), if job.is_some() => {
                match job.as_mut() {
                    Some(job) if deadline.elapsed() > ASLEEP => {
                        job.deadline = Instant::now() + if job.stopping { STOP } else { spec.silence };
                        None
                    }
                    Some(Job { stopping: true, .. }) => {
                        let reason = format!("did not stop within {} s", STOP.as_secs());
                        Some((Some(FailureKind::Timeout), reason))
                    }
                    _ => Some((Some(FailureKind::Timeout), format!("said nothing for {} s ({})", spec.silence.as_secs_f64(), match spec.role {
                        Role::Trainer | Role::Profiler => "evaluator.timeout_seconds",
                        Role::BlackBox => "--timeout",
                    }))),
                }
            }
            _ = watch.tick(), if job.is_some() => {
                let began = job.as_ref().map_or_else(Instant::now, |job| job.began);
                spec.limits.broken(began.elapsed(), process.id())
            }
        };
        if let Some((kind, mut reason)) = lost {
            let (ended, log) = process.end().await;
            if reason.is_empty() {
                reason = ended;
            }
            let reason = format!("the {} {} {reason}", spec.role.word(), spec.program);
            return Ok(match job {
                Some(Job { id, .. }) => {
                    let kind = kind.unwrap_or_else(|| FailureKind::guessed(&reason, &log));
                    tell(News::Failed { refusal: Refusal::of(kind, id, reason), log });
                    Leave::LostAtWork
                }
                None => Leave::LostIdle { broken: (reason, log), has_worked },
            });
        }
    }
}

/// What is passed on of a reply; why its worker cannot be kept when nobody asked for it.
fn hear(spec: &WorkerSpec, job: &mut Option<Job>, reply: Reply) -> Result<Option<Reply>, String> {
    let word = word_of(&reply);
    let Some(id) = id_of_reply(&reply) else {
        return Err(format!("said `{word}` again"));
    };
    let Some(now) = job.as_mut() else {
        return Err(format!("sent `{word}` for request {id} though nothing was asked"));
    };
    if id != now.id {
        return Err(format!("sent `{word}` for request {id} when asked {}", now.id));
    }
    match reply {
        Reply::Progress(progress) => {
            if !now.stopping {
                now.deadline = Instant::now() + spec.silence;
            }
            let is_due = now.told.is_none_or(|told| told.elapsed() >= PROGRESS);
            if !is_due && progress.tokens < progress.tokens_total {
                return Ok(None);
            }
            now.told = Some(Instant::now());
            Ok(Some(Reply::Progress(progress)))
        }
        Reply::Infeasible(refusal) => {
            *job = None;
            let reason = shortened(&refusal.reason, REASON);
            Ok(Some(Reply::Infeasible(Refusal { reason, ..refusal })))
        }
        Reply::Failed(refusal) => {
            *job = None;
            let reason = shortened(&refusal.reason, REASON);
            Ok(Some(Reply::Failed(Refusal { reason, ..refusal })))
        }
        reply if word == now.duty => {
            *job = None;
            Ok(Some(reply))
        }
        _ => Err(format!("answered by `{word}`, but `{}` was to come", now.duty)),
    }
}

/// The id of a request and the reply that answers it; none where none does.
fn duty_of(request: &Request) -> Option<(u64, &'static str)> {
    match request {
        Request::Configure(_) | Request::Space { .. } | Request::Stop { .. } => None,
        Request::Check(request) => Some((request.id, "checked")),
        Request::Eval(request) => Some((request.id, "values")),
        Request::Evaluate(request) => Some((request.id, "result")),
        Request::Measure(request) => Some((request.id, "timing")),
        Request::MeasureWhole(request) => Some((request.id, "timing")),
        Request::MeasureLimit(request) => Some((request.id, "timing")),
    }
}

/// As it stands in the field `type`.
fn word_of(reply: &Reply) -> &'static str {
    match reply {
        Reply::Hello(_) => "hello",
        Reply::Checked(_) => "checked",
        Reply::Space(_) => "space",
        Reply::Values(_) => "values",
        Reply::Progress(_) => "progress",
        Reply::Result(_) => "result",
        Reply::Timing(_) => "timing",
        Reply::Infeasible(_) => "infeasible",
        Reply::Failed(_) => "failed",
    }
}
