//! The worker's side of the wire protocol: timings for the driver.

use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use search::config::LatencyConfig;
use search::device::{Device, Platform};
use search::failure::FailureKind;
use search::latency::Timing;
use search::wire::{
    CONFIGURE_ID, Check, Checked, Configure, Hello, MeasureLimit, Measured, PROTOCOL, Refusal,
    Remark, Reply, Request,
};

use crate::backend::Backend;
use crate::error::ProfileError;

/// Answers requests, one a line, until `input` ends. The log goes to stderr.
///
/// # Errors
/// When a reply cannot be written or a request cannot be read: nobody is there any more.
pub fn serve(
    profiler: &dyn Backend,
    input: impl BufRead,
    output: &mut impl Write,
) -> io::Result<()> {
    say(output, &Reply::Hello(hello(profiler)))?;
    for line in input.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        if let Some(reply) = answer(profiler, &line) {
            say(output, &reply)?;
        }
    }
    Ok(())
}

fn hello(profiler: &dyn Backend) -> Hello {
    Hello {
        protocol: PROTOCOL,
        worker: concat!("deltafront-profile ", env!("CARGO_PKG_VERSION")).to_owned(),
        can: ["measure", "measure_whole", "measure_limit", "check"].map(str::to_owned).to_vec(),
        device: profiler.hardware().to_owned(),
        kernels: Some(profiler.kernels()),
    }
}

fn say(output: &mut impl Write, reply: &Reply) -> io::Result<()> {
    serde_json::to_writer(&mut *output, reply)?;
    output.write_all(b"\n")?;
    output.flush()
}

fn answer(profiler: &dyn Backend, line: &str) -> Option<Reply> {
    match Request::parse(line) {
        Ok(Request::Configure(Configure { latency, .. })) => {
            let reason = latency.and_then(|latency| unusable(profiler, &latency))?;
            Some(failed(FailureKind::Setup, CONFIGURE_ID, reason))
        }
        Ok(Request::Check(check)) => Some(Reply::Checked(checked(profiler, &check))),
        Ok(Request::Measure(measure)) => {
            let (id, key) = (measure.id, measure.key());
            Some(timed(id, &key.to_string(), || profiler.part(&key)))
        }
        Ok(Request::MeasureWhole(request)) => {
            let what = request.architecture.to_string();
            Some(timed(request.id, &what, || {
                let timing = profiler.whole(&request.architecture, &request.conditions)?;
                log_telemetry(profiler, &timing);
                Ok(timing)
            }))
        }
        Ok(Request::MeasureLimit(MeasureLimit { id, limit, threads })) => {
            Some(timed(id, &limit.to_string(), || profiler.limit(limit, threads)))
        }
        Ok(Request::Evaluate(request)) => {
            let reason = "deltafront-profile times, it does not train".to_owned();
            Some(failed(FailureKind::Protocol, request.id, reason))
        }
        Ok(Request::Eval(request)) => {
            let reason = "deltafront-profile times, it does not evaluate".to_owned();
            Some(failed(FailureKind::Protocol, request.id, reason))
        }
        // A measurement takes seconds and is answered in order: there is nothing to give up.
        Ok(Request::Space { .. } | Request::Stop { .. }) => None,
        Err(error) => {
            eprintln!("deltafront-profile: a request is not understood: {error}");
            Request::refusal(line, &error).map(Reply::Failed)
        }
    }
}

/// Which models cannot be timed.
fn checked(profiler: &dyn Backend, check: &Check) -> Checked {
    let refusal = |architecture| {
        let all = check.conditions.iter();
        all.map(|conditions| profiler.check(architecture, conditions)).find_map(Result::err)
    };
    let refused = check.architectures.iter().enumerate();
    let refused = refused.filter_map(|(place, of)| Some((place, refusal(of)?.to_string())));
    Checked { id: check.id, refused: Remark::gathered(refused), slow: Vec::new() }
}

/// Why a `[latency]` section cannot be used by this profiler.
fn unusable(profiler: &dyn Backend, latency: &LatencyConfig) -> Option<String> {
    let serves = profiler.device();
    let is_meant = latency.device == serves
        || latency.device == Device::Cuda(None) && serves.platform() == Platform::Cuda;
    (!is_meant).then(|| {
        format!(
            "latency.device = \"{}\", but this profiler was started for \"{serves}\"",
            latency.device
        )
    })
}

/// What a whole model took of the device, and what that says of itself, if it says something.
pub(crate) fn log_telemetry(profiler: &dyn Backend, timing: &Timing) {
    let Some(telemetry) = profiler.telemetry() else { return };
    let energy = timing.millijoules.map_or(String::new(), |mj| format!("{mj:.2} mJ a token, "));
    eprintln!("deltafront-profile: {energy}{telemetry}");
}

fn failed(kind: FailureKind, id: u64, reason: String) -> Reply {
    Reply::Failed(Refusal::of(kind, id, reason))
}

/// Measures; whatever happens inside becomes a reply.
fn timed(id: u64, what: &str, measure: impl FnOnce() -> Result<Timing, ProfileError>) -> Reply {
    match catch_unwind(AssertUnwindSafe(measure)) {
        Ok(Ok(timing)) => {
            let disturbed =
                if timing.is_disturbed() { ", disturbed by other processes" } else { "" };
            eprintln!(
                "deltafront-profile: {what}: {:.1} ± {:.1} µs, {} samples{disturbed}",
                timing.median_us, timing.spread_us, timing.samples
            );
            Reply::Timing(Measured { id, timing })
        }
        Ok(Err(error)) => Reply::Infeasible(Refusal::new(id, error.to_string())),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "a panic without a message".to_owned());
            let is_memory =
                ["OUT_OF_MEMORY", "out of memory"].iter().any(|word| what.contains(word));
            let kind = if is_memory { FailureKind::OutOfMemory } else { FailureKind::Crashed };
            failed(kind, id, format!("the measurement broke: {what}"))
        }
    }
}
