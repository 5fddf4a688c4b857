//! One stage of the staged template: its choices, and the genes that choose among them.

use rand::{Rng, RngExt};

use super::config::{Range, Ratio, StageChoices};
use super::error::{SpaceError, invalid};
use super::form::pick;
use super::tables::{Tables, check_list};
use crate::architecture::MAX_LAYERS;

/// More FFNs in a row than this are no use to anyone.
const MAX_FFNS: u32 = 4;

#[derive(Debug, Clone)]
pub(super) struct Stage {
    /// Indices into the mixers of the tables.
    pub(super) mixers: Vec<usize>,
    pub(super) ratios: Vec<Ratio>,
    pub(super) ffns: Vec<u32>,
    pub(super) repeat: Range,
}

/// Indices into the stage's choices; `repeat` is the number itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StageGenes {
    pub(super) first: usize,
    pub(super) second: usize,
    pub(super) ratio: usize,
    pub(super) ffns: usize,
    pub(super) repeat: u32,
}

/// A mixer (index into the tables) with the number of FFNs after it.
pub(super) type Group = (usize, u32);

impl Stage {
    pub(super) fn new(
        index: usize,
        choices: &StageChoices,
        tables: &Tables,
    ) -> Result<Self, SpaceError> {
        let key = |name: &str| format!("space.stages.{index}.{name}");
        let StageChoices { mixers, ratios, ffns_per_mixer, repeat } = choices;
        let mixers = if mixers.is_empty() {
            (0..tables.mixers.len()).collect()
        } else {
            check_list(&key("mixers"), mixers)?;
            let find = |&kind| {
                tables.table(kind).ok_or_else(|| SpaceError {
                    key: key("mixers"),
                    message: format!(
                        "{} has no table; add [space.mixers.{}]",
                        kind.name(),
                        kind.name()
                    ),
                })
            };
            mixers.iter().map(find).collect::<Result<_, _>>()?
        };
        check_list(&key("ratios"), ratios)?;
        check_list(&key("ffns_per_mixer"), ffns_per_mixer)?;
        if let Some(ffns) = ffns_per_mixer.iter().find(|&&ffns| ffns > MAX_FFNS) {
            return invalid(key("ffns_per_mixer"), format!("must be 0 to {MAX_FFNS}, got {ffns}"));
        }
        if repeat.min == 0 || repeat.min > repeat.max || repeat.max as usize > MAX_LAYERS {
            let Range { min, max } = repeat;
            return invalid(
                key("repeat"),
                format!("must be a range within 1 to {MAX_LAYERS}, got min = {min}, max = {max}"),
            );
        }
        Ok(Self { mixers, ratios: ratios.clone(), ffns: ffns_per_mixer.clone(), repeat: *repeat })
    }

    pub(super) fn most_layers(&self) -> u64 {
        let mixers = self.ratios.iter().map(|ratio| ratio.first + ratio.second).max().unwrap_or(0);
        let layers = self.ffns.iter().copied().max().unwrap_or(0).max(1);
        u64::from(mixers) * u64::from(layers) * u64::from(self.repeat.max)
    }

    /// The pairs that mean different blocks under `ratio`.
    fn pairs(&self, ratio: Ratio) -> Vec<(usize, usize)> {
        let n = self.mixers.len();
        if ratio.first == 0 || n == 1 {
            return (0..n)
                .map(|second| (if n == 1 { 0 } else { (second + 1) % n }, second))
                .collect();
        }
        (0..n)
            .flat_map(|first| (0..n).map(move |second| (first, second)))
            .filter(|(a, b)| a != b)
            .collect()
    }

    /// Every gene of the stage but the number of repeats, which is 0 here.
    pub(super) fn blocks(&self) -> impl Iterator<Item = StageGenes> + '_ {
        (0..self.ratios.len()).flat_map(move |ratio| {
            self.pairs(self.ratios[ratio]).into_iter().flat_map(move |(first, second)| {
                (0..self.ffns.len()).map(move |ffns| StageGenes {
                    first,
                    second,
                    ratio,
                    ffns,
                    repeat: 0,
                })
            })
        })
    }

    pub(super) fn block(&self, genes: &StageGenes) -> Vec<Group> {
        let ratio = self.ratios[genes.ratio];
        let ffns = self.ffns[genes.ffns];
        let mut block = vec![(self.mixers[genes.first], ffns); ratio.first as usize];
        block.extend(vec![(self.mixers[genes.second], ffns); ratio.second as usize]);
        block
    }

    pub(super) fn repeats(&self) -> u32 {
        self.repeat.max - self.repeat.min + 1
    }

    pub(super) fn random<R: Rng + ?Sized>(&self, rng: &mut R) -> StageGenes {
        let ratio = pick(rng, self.ratios.len());
        let pairs = self.pairs(self.ratios[ratio]);
        let (first, second) = pairs[pick(rng, pairs.len())];
        StageGenes {
            first,
            second,
            ratio,
            ffns: pick(rng, self.ffns.len()),
            repeat: rng.random_range(self.repeat.min..=self.repeat.max),
        }
    }

    /// Every change of one gene. A mixer that would meet itself changes places with the other.
    pub(super) fn changes(
        &self,
        tables: &Tables,
        index: usize,
        genes: StageGenes,
    ) -> Vec<(StageGenes, String)> {
        let name = |mixer: usize| tables.mixers[self.mixers[mixer]].kind.name();
        let mut all = Vec::new();
        for other in (0..self.mixers.len()).filter(|&other| other != genes.first) {
            let second = if other == genes.second { genes.first } else { genes.second };
            let what = format!("stage {index} first mixer {} → {}", name(genes.first), name(other));
            all.push((StageGenes { first: other, second, ..genes }, what));
        }
        for other in (0..self.mixers.len()).filter(|&other| other != genes.second) {
            let first = if other == genes.first { genes.second } else { genes.first };
            let what =
                format!("stage {index} second mixer {} → {}", name(genes.second), name(other));
            all.push((StageGenes { first, second: other, ..genes }, what));
        }
        for ratio in (0..self.ratios.len()).filter(|&ratio| ratio != genes.ratio) {
            let what = format!(
                "stage {index} ratio {} → {}",
                self.ratios[genes.ratio], self.ratios[ratio]
            );
            all.push((StageGenes { ratio, ..genes }, what));
        }
        for ffns in (0..self.ffns.len()).filter(|&ffns| ffns != genes.ffns) {
            let what = format!(
                "stage {index} FFNs per mixer {} → {}",
                self.ffns[genes.ffns], self.ffns[ffns]
            );
            all.push((StageGenes { ffns, ..genes }, what));
        }
        for repeat in (self.repeat.min..=self.repeat.max).filter(|&repeat| repeat != genes.repeat) {
            all.push((
                StageGenes { repeat, ..genes },
                format!("stage {index} repeat {} → {repeat}", genes.repeat),
            ));
        }
        all
    }
}
