//! What a study is, the campaign that it becomes, and what is made of its differences.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::architecture::Architecture;
use crate::config::{CampaignFile, DataConfig, SearchConfig, TaskConfig, TrustConfig};
use crate::latency::WholeModels;
use crate::metric::Metric;
use crate::proposals::Algorithm;
use crate::references::{EqualLatency, Reference, ReferenceShape};
use crate::statistics::{mean_and_error, student_95};

/// A published finding, as a small campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// One word, to choose it by.
    pub name: &'static str,
    /// A heading.
    pub title: &'static str,
    /// What is published, with its sources.
    pub published: &'static str,
    /// What is set beside each other; the first is the one that others are set beside.
    pub arms: Vec<Arm>,
    /// What is claimed of them.
    pub findings: Vec<Finding>,
    /// What every arm is trained on beside the text, each from the start.
    pub tasks: Vec<TaskConfig>,
    /// Tokens of the text that every arm is trained for; 0: no text is asked for.
    pub tokens: u64,
    /// Seeds that every arm is trained from unless the user says otherwise.
    pub seeds: u32,
    /// Values of the table beside those that are judged.
    pub beside: &'static [Metric],
}

/// One stack of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// For the table.
    pub name: &'static str,
    /// Which stack.
    pub made: Made,
}

/// How an arm gets its stack.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    /// It is given.
    Given(Architecture),
    /// The stack of that name with so many layers, as wide as decodes a token in the time that the first arm takes on the
    /// machine at hand.
    AsFast {
        /// Which stack.
        reference: Reference,
        /// Its mixers.
        layers: u32,
    },
}

/// A claim that two arms decide.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// One sentence.
    pub claim: &'static str,
    /// The value that decides, by its name.
    pub value: &'static str,
    /// The arm that something is claimed of.
    pub of: &'static str,
    /// The arm that it is set beside.
    pub than: &'static str,
    /// What the difference of the two is to be.
    pub expected: Expected,
}

/// What a difference is claimed to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expected {
    /// Below 0.
    Less,
    /// Above 0.
    More,
    /// No larger than this.
    Alike(f64),
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is as claimed.
    ComesOut,
    /// None of the interval is as claimed.
    DoesNot,
    /// Part of it is.
    CannotTell,
}

impl Verdict {
    /// The words in the table.
    pub fn words(self) -> &'static str {
        match self {
            Self::ComesOut => "comes out",
            Self::DoesNot => "does not come out",
            Self::CannotTell => "cannot tell",
        }
    }
}

/// The difference of two arms over the seeds that both have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Judgement {
    /// Seeds.
    pub seeds: usize,
    /// Mean difference; none without a seed.
    pub mean: Option<f64>,
    /// Half the width of its 95 % interval by Student's t; none below two seeds.
    pub reach: Option<f64>,
    /// What that says of the claim.
    pub verdict: Verdict,
}

impl Finding {
    /// What the differences, one for each seed, say.
    pub fn judge(&self, differences: &[f64]) -> Judgement {
        let seeds = differences.len();
        let (mean, error) = mean_and_error(differences);
        let reach = error.map(|error| error * student_95(seeds - 1));
        let verdict = reach.map_or(Verdict::CannotTell, |reach| {
            let (low, high) = (mean - reach, mean + reach);
            let (is_so, is_not) = match self.expected {
                Expected::Less => (high < 0.0, low >= 0.0 && mean > 0.0),
                Expected::More => (low > 0.0, high <= 0.0 && mean < 0.0),
                Expected::Alike(most) => (low >= -most && high <= most, low > most || high < -most),
            };
            match (is_so, is_not) {
                (true, _) => Verdict::ComesOut,
                (_, true) => Verdict::DoesNot,
                _ => Verdict::CannotTell,
            }
        });
        Judgement { seeds, mean: (seeds > 0).then_some(mean), reach, verdict }
    }
}

/// What the user chooses of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// The text, for a study that asks for one.
    pub corpus: Option<PathBuf>,
    /// Tokens of it; none: the study's.
    pub tokens: Option<u64>,
    /// Seeds; none: the study's.
    pub seeds: Option<u32>,
    /// Trainings at once.
    pub concurrency: u32,
}

impl Study {
    /// The values that its claims are about, each once.
    pub fn values(&self) -> Vec<&'static str> {
        let mut values = Vec::new();
        for finding in &self.findings {
            if !values.contains(&finding.value) {
                values.push(finding.value);
            }
        }
        values
    }

    /// Whether stacks are to be found by timing.
    pub fn is_timed(&self) -> bool {
        self.arms.iter().any(|arm| matches!(arm.made, Made::AsFast { .. }))
    }

    /// Whether it asks for a text.
    pub fn reads_text(&self) -> bool {
        self.tokens > 0
    }

    /// The search for the width at which `reference` is as fast as the first arm, which takes `wanted_us`.
    pub fn search(&self, reference: Reference, layers: u32, wanted_us: f64) -> EqualLatency {
        let first = self.first();
        let (width, vocab) = (first.d_model(), first.vocab());
        let shape = ReferenceShape::usual(width, layers, vocab, first.tied_embeddings());
        EqualLatency::new(reference, shape, wanted_us)
    }

    /// The stack of the first arm.
    pub fn first(&self) -> &Architecture {
        let Some(Arm { made: Made::Given(stack), .. }) = self.arms.first() else {
            unreachable!("the first arm of a study is a given stack: a test holds that")
        };
        stack
    }

    /// The campaign that trains `stacks`, those of all arms by their names, and nothing else.
    pub fn campaign(&self, stacks: BTreeMap<String, String>, terms: &Terms) -> CampaignFile {
        let mut file = CampaignFile::parse(CAMPAIGN).expect("a test parses it");
        file.name = format!("study-{}", self.name);
        file.data = terms.corpus.clone().filter(|_| self.reads_text()).map(|corpus| DataConfig {
            corpus,
            tokenizer: None,
            validation_fraction: 0.1,
        });
        file.tasks.clone_from(&self.tasks);
        if self.reads_text() {
            file.training.tokens = terms.tokens.unwrap_or(self.tokens);
        }
        let count = stacks.len() as u32;
        // Losses at longer contexts are reported, and are no objectives.
        let tasks: Vec<String> = self.tasks.iter().flat_map(TaskConfig::value_names).collect();
        let is_objective = |value: &&str| {
            Metric::named(value).is_some() || tasks.iter().any(|known| known == value)
        };
        let timed = self.is_timed().then_some(Metric::DecodeUs.name());
        let objectives = self.values().into_iter().filter(is_objective).chain(timed);
        file.search = SearchConfig {
            algorithm: Algorithm::Random,
            evaluations: count,
            start: count,
            objectives: objectives.map(str::to_owned).collect(),
            stacks,
            concurrency: terms.concurrency,
            ..SearchConfig::default()
        };
        file.latency.prefill_tokens = 0;
        let whole = if timed.is_some() { WholeModels::All } else { WholeModels::Never };
        file.latency.time_whole_models = whole;
        file.trust =
            TrustConfig { seeds: terms.seeds.unwrap_or(self.seeds), ..TrustConfig::default() };
        file
    }
}

/// Nothing of its space is ever proposed.
const CAMPAIGN: &str = "\
name = \"study\"
[space]
d_model = [64]
depth = { min = 1, max = 1 }
[space.mixers.attn]
[data]
corpus = \"corpus\"
[storage]
checkpoints = \"none\"
";
