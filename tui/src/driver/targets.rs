//! What the candidates of a campaign are timed on, and who does it.

use anyhow::bail;
use search::campaign::Settings;
use search::config;
use search::device::Device;
use search::metric::Metric;
use search::wire::Hello;

use super::spec::{Program, WorkerSpec};

/// One of the targets of a campaign.
#[derive(Clone)]
pub(crate) struct Target {
    /// As the campaign file has it.
    pub(crate) of: config::Target,
    /// Who times there.
    pub(crate) profiler: WorkerSpec,
    /// Whether pull workers alone do.
    pub(crate) is_elsewhere: bool,
}

impl Target {
    /// As the campaign file names it; none: it is `[latency]` itself.
    pub(crate) fn name(&self) -> Option<&str> {
        self.of.name.as_deref()
    }

    pub(crate) fn device(&self) -> Device {
        self.of.latency.device
    }

    /// Where it is in the campaign file: `latency.device = "cpu"`.
    pub(crate) fn place(&self) -> String {
        format!("{} = \"{}\"", self.of.key("device"), self.device())
    }

    /// In messages, behind what is said of it where it is not the only one.
    pub(crate) fn suffix(&self) -> String {
        self.name().map_or_else(String::new, |name| format!(" (target `{name}`)"))
    }
}

/// The profilers that are started on this machine, one for several targets that the same program can time.
pub(crate) fn here(targets: &[Target]) -> Vec<&Target> {
    let mut all: Vec<&Target> = Vec::new();
    for target in targets.iter().filter(|target| !target.is_elsewhere) {
        if !all.iter().any(|other| other.profiler.program == target.profiler.program) {
            all.push(target);
        }
    }
    all
}

/// Those of [`here`] with what they said of themselves, where `hellos` are of who times each target.
pub(crate) fn started<'a>(
    targets: &'a [Target],
    hellos: &'a [Hello],
) -> Vec<(&'a Target, &'a Hello)> {
    let here = here(targets);
    let is_started = |target: &Target| here.iter().any(|of| std::ptr::eq(*of, target));
    targets.iter().zip(hellos).filter(|(target, _)| is_started(target)).collect()
}

/// Which of the profilers of this machine times a target; none: none of them does.
pub(super) fn timed_by(target: &Target, here: &[&Target]) -> Option<usize> {
    let same = |other: &&Target| other.profiler.program == target.profiler.program;
    if target.is_elsewhere { None } else { here.iter().position(same) }
}

/// What a campaign asks of those who time its targets.
pub(crate) fn settle(targets: &[Target], hellos: &[Hello], settings: &mut Settings) {
    let both = || targets.iter().zip(hellos);
    settings.latencies =
        both().flat_map(|(target, hello)| target.of.latencies(&hello.device)).collect();
    settings.throughput =
        both().find_map(|(target, hello)| target.of.latency.throughput(&hello.device));
    let is_own = |target: &Target| target.of.latency.command.is_some();
    let own = both().filter(|(target, _)| is_own(target));
    settings.whole_only = own
        .flat_map(|(target, hello)| {
            let latencies = target.of.latencies(&hello.device).into_iter().map(|(name, _)| name);
            let throughput = target.name().is_none().then(|| Metric::Throughput.name().to_owned());
            latencies.chain(throughput)
        })
        .collect();
}

/// Requests find whoever is to time them by the name of the device: refuses two that must not be confused.
pub(super) fn distinct(targets: &[Target], hellos: &[Hello]) -> anyhow::Result<()> {
    let all: Vec<(&Target, &Hello)> = targets.iter().zip(hellos).collect();
    let is_own = |target: &Target| matches!(target.profiler.program, Program::Shell { .. });
    for (place, (target, hello)) in all.iter().enumerate() {
        for (other, theirs) in &all[..place] {
            let is_other = target.profiler.program != other.profiler.program
                && (is_own(target) || is_own(other));
            if is_other && hello.device == theirs.device {
                bail!(
                    "{} and {} are timed by different programs that both call their device `{}`: a command of your own must \
                     give it another name",
                    other.of.key("command"),
                    target.of.key("command"),
                    hello.device
                );
            }
            if hello.device == theirs.device && hello.kernels != theirs.kernels {
                bail!(
                    "`{}` is timed by two versions of the kernels, `{}` and `{}`: build both from the same source",
                    hello.device,
                    theirs.kernels.as_deref().unwrap_or_default(),
                    hello.kernels.as_deref().unwrap_or_default()
                );
            }
        }
    }
    Ok(())
}
