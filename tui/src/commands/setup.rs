//! The setup of a campaign, looked at before anything is spent: are the devices there, does the corpus fit the vocabulary, which
//! choices of the space can be computed at all.

use std::path::Path;

use anyhow::Context;
use search::Architecture;
use search::config::CampaignFile;
use search::device::Device;
use search::references::ReferenceShape;
use search::space::{LeftOut, Space};
use search::wire::Hello;

use crate::driver::{Asked, Job, Look, Said, Target, conditions};

/// A setup that works.
pub(super) struct Setup {
    /// The space without what cannot be computed here.
    pub(super) space: Space,
    /// What is to be said of it, a sentence each.
    pub(super) notes: Vec<String>,
    /// Who times each target; nobody where that is elsewhere.
    pub(super) profilers: Vec<Hello>,
    /// What is asked of whoever times, where that is nobody here.
    pub(super) look: Option<Look<Space>>,
}

/// The stacks that are set beside a search, by name.
pub(super) fn references(
    file: &CampaignFile,
    space: &Space,
) -> anyhow::Result<Vec<(String, Architecture)>> {
    let shape = ReferenceShape::of(space);
    file.references()
        .into_iter()
        .map(|reference| {
            let stack = reference
                .build(&shape)
                .with_context(|| format!("reference stack `{}` in this space", reference.name()))?;
            Ok((reference.name().to_owned(), stack))
        })
        .chain(file.stacks().map(|(name, stack)| Ok((name.clone(), stack))))
        .collect()
}

impl Setup {
    /// Asks the workers of the campaign in `file`, which lies at `path`.
    ///
    /// # Errors
    /// When it cannot work: one message that says what to change.
    pub(super) async fn look(
        file: &CampaignFile,
        path: &Path,
        job: &Job<Space>,
    ) -> anyhow::Result<Self> {
        let probes = job.space.probes();
        let references = references(file, &job.space)?;
        let models: Vec<Architecture> =
            probes.iter().chain(references.iter().map(|(_, stack)| stack)).cloned().collect();
        let place = path.display();
        let mut profilers = Vec::new();
        let mut timed: Vec<(usize, Said)> = Vec::new();
        for (index, target) in job.targets.iter().enumerate() {
            if target.is_elsewhere {
                continue;
            }
            let (device, suffix) = (target.device(), target.suffix());
            let mut asked = Asked::start(&target.profiler).await.with_context(|| match device {
                _ if target.of.latency.command.is_some() => {
                    format!("{place}: {} cannot be used", target.of.key("command"))
                }
                Device::Cpu => format!("{place}: nothing can be timed{suffix}"),
                Device::Cuda(_) => format!(
                    "{place}: {} cannot be used here; name a device that `deltafront doctor` shows, or \"cpu\"{}",
                    target.place(),
                    target.name().map_or_else(String::new, |name| format!(
                        ", or have another machine time it: --listen HOST:PORT --workers-time={name}"
                    ))
                ),
            })?;
            let conditions = conditions(&target.of, &asked.hello.device);
            let said = asked.check(&models, &conditions).await.with_context(|| {
                format!("{place}: nothing of [space] can be timed on {device}{suffix}")
            })?;
            timed.push((index, said));
            profilers.push(asked.hello.clone());
            asked.dismiss().await;
        }
        let mut trained = Said::default();
        // A user's own trainer need not answer; to start it for nothing could take long. What a trainer elsewhere cannot
        // compute is dropped when it says so.
        if file.evaluator.command.is_none() && job.trainers > 0 {
            let mut asked = Asked::start(&job.trainer)
                .await
                .with_context(|| format!("{place}: nothing can be trained"))?;
            trained = asked
                .check(&models, &[])
                .await
                .with_context(|| format!("{place}: nothing can be trained"))?;
            asked.dismiss().await;
        }
        let asker = Narrowing {
            file: file.clone(),
            place: path.display().to_string(),
            space: job.space.clone(),
            targets: job.targets.clone(),
            references,
            trained,
        };
        if job.targets.iter().any(|target| target.is_elsewhere) {
            let narrow = move |elsewhere: Vec<(usize, Said)>| {
                timed.extend(elsewhere);
                asker.narrow(&timed)
            };
            let look = Look { models, narrow: Box::new(narrow) };
            // Nothing is known yet of what is refused there.
            let (space, notes) = (job.space.clone(), Vec::new());
            return Ok(Self { space, notes, profilers, look: Some(look) });
        }
        let (space, notes) = asker.narrow(&timed)?;
        Ok(Self { space, notes, profilers, look: None })
    }
}

/// What it takes to say what is left of a space once it is known what is refused.
struct Narrowing {
    file: CampaignFile,
    /// Where that lies.
    place: String,
    space: Space,
    targets: Vec<Target>,
    references: Vec<(String, Architecture)>,
    /// What the trainer says.
    trained: Said,
}

impl Narrowing {
    /// The space without what those who time refuse, by the places of their targets, and what is to be said of it.
    fn narrow(self, timed: &[(usize, Said)]) -> anyhow::Result<(Space, Vec<String>)> {
        let Self { file, place, space: all, targets: timed_on, references, trained } = self;
        let of_targets = timed.iter().flat_map(|(_, said)| &said.refused);
        let refused: Vec<(Architecture, String)> =
            of_targets.chain(&trained.refused).cloned().collect();
        let (space, left_out) = if refused.is_empty() {
            (all.clone(), Vec::new())
        } else {
            Space::without(&file.space, &refused).map_err(|error| {
                let asked: Vec<String> = timed_on.iter().map(Target::place).collect();
                let asked = asked.join(", of ");
                anyhow::anyhow!("{place}: {error}\n(asked of {asked} and of the trainer)")
            })?
        };
        let targets: Vec<&str> = file.space.loads_in.iter().map(|target| target.name()).collect();
        let in_them = format!("as it does not load in {}", targets.join(" and "));
        let mut notes = never_proposed(all.left_out(), |_| in_them.clone());
        notes.extend(never_proposed(&left_out, |reason| {
            let refuses =
                |(_, said): &&(usize, Said)| said.refused.iter().any(|(_, known)| known == reason);
            let by: Vec<String> = timed
                .iter()
                .filter(refuses)
                .map(|(index, _)| &timed_on[*index])
                .map(|target| format!("on {}{}", target.device(), target.suffix()))
                .collect();
            if by.is_empty() { "by this trainer".to_owned() } else { by.join(", ") }
        }));
        for (name, stack) in &references {
            if let Some((_, reason)) = refused.iter().find(|(model, _)| model == stack) {
                notes.push(format!("reference `{name}` cannot be evaluated: {reason}"));
            }
        }
        notes.extend(trained.slow);
        Ok((space, notes))
    }
}

/// A sentence for each reason; `place` says where that is one.
fn never_proposed(left_out: &[LeftOut], place: impl Fn(&str) -> String) -> Vec<String> {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for LeftOut { what, reason } in left_out {
        match by_reason.iter_mut().find(|(known, _)| known == reason) {
            Some((_, all)) => all.push(what),
            None => by_reason.push((reason, vec![what])),
        }
    }
    let sentence = |(reason, what): (&str, Vec<&str>)| {
        format!("never proposed {}: {} ({reason})", place(reason), what.join(", "))
    };
    by_reason.into_iter().map(sentence).collect()
}
