//! An architecture as a point, for models that learn from evaluated ones.
//!
//! Genes position by position would make a stack and the same stack with one layer inserted look unlike in every place.
//! These coordinates describe the stack as a whole: how large, how much of what, and where in it. They are made for
//! kernels that look at differences only: numbers are scaled so that a space spans about one unit, without an offset.

use super::tables::Tables;
use crate::architecture::{Architecture, MixerKind};
use crate::cost;
use crate::latency::Dtype;

/// What a coordinate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinate {
    /// For people, e.g. `share of gdn`.
    pub name: String,
    /// How two values compare.
    pub scale: Scale,
}

/// How two values of a coordinate compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// By their difference.
    Number,
    /// Equal or not.
    Category,
}

/// The value of what a stack without the mixer does not have: in the middle, near to everything.
const ABSENT: f64 = 0.5;
/// Bytes and parameters of a space span some two decades.
const DECADES: f64 = 2.0;
/// A cache is compared at this many positions, where windows have ended.
const POSITIONS: u32 = 4096;

/// What the numbers of [`encode`] are; always the same for a space.
pub(super) fn of(tables: &Tables) -> Vec<Coordinate> {
    let number = |name: String| Coordinate { name, scale: Scale::Number };
    let category = |name: &str| Coordinate { name: name.to_owned(), scale: Scale::Category };
    let mut all: Vec<Coordinate> =
        ["d_model", "depth", "parameters", "state", "cache", "ffns", "ffn width"]
            .map(|name| number(name.to_owned()))
            .to_vec();
    if tables.meta_tokens.len() > 1 {
        all.push(number("meta tokens".to_owned()));
    }
    all.extend(tables.ffn_kinds().map(|kind| number(format!("share of {kind}"))));
    all.extend(tables.expert_counts().map(|(name, _)| number((*name).to_owned())));
    for table in &tables.mixers {
        let kind = table.kind.name();
        all.push(number(format!("share of {kind}")));
        all.push(number(format!("place of {kind}")));
        for gene in table.genes.iter().filter(|gene| gene.choices() > 1) {
            all.push(number(format!("{kind} {}", gene.name())));
        }
    }
    all.extend([category("first mixer"), category("last mixer")]);
    all
}

/// An architecture, member or not, as one number for each of the coordinates.
pub(super) fn encode(tables: &Tables, architecture: &Architecture) -> Vec<f64> {
    let d_model = f64::from(architecture.d_model());
    let mixers: Vec<_> = architecture.layers().iter().filter_map(|layer| layer.mixer).collect();
    let ffns: Vec<_> = architecture.layers().iter().filter_map(|layer| layer.ffn).collect();
    let count = mixers.len().max(1) as f64;
    let decades = |n: u64| (n as f64 + 1.0).log10() / DECADES;
    let ffn_width: f64 = ffns.iter().map(|ffn| f64::from(ffn.active_width()) / d_model).sum();
    let mut point = vec![
        d_model.log2() / 2.0,
        // Doubling matters more than one layer more.
        (mixers.len() as f64 + 1.0).log2() / 2.0,
        decades(crate::tensors::parameters(architecture)),
        decades(cost::state_bytes(architecture, POSITIONS)),
        decades(cost::cache_bytes(architecture, POSITIONS, Dtype::F32)),
        ffns.len() as f64 / count,
        ffn_width / count / 4.0,
    ];
    if tables.meta_tokens.len() > 1 {
        let doublings = |n: u32| (f64::from(n) + 1.0).log2();
        let most = tables.meta_tokens.iter().copied().map(doublings).fold(1.0, f64::max);
        point.push(doublings(architecture.meta_tokens()) / most);
    }
    for kind in tables.ffn_kinds() {
        let own = ffns.iter().filter(|ffn| ffn.kind.name() == kind).count();
        point.push(own as f64 / ffns.len().max(1) as f64);
    }
    let experts: Vec<_> = ffns.iter().filter_map(|ffn| ffn.kind.experts()).collect();
    for (_, count) in tables.expert_counts() {
        // a space spans some four doublings
        let doublings = experts.iter().map(|of| f64::from(count(*of) + 1).log2() / 4.0);
        let mean = doublings.sum::<f64>() / experts.len() as f64;
        point.push(if experts.is_empty() { ABSENT } else { mean });
    }
    let d = tables.nearest_d_model(architecture.d_model());
    for table in &tables.mixers {
        let own: Vec<_> =
            mixers.iter().enumerate().filter(|(_, mixer)| mixer.kind() == table.kind).collect();
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            if own.is_empty() { ABSENT } else { values.sum::<f64>() / own.len() as f64 }
        };
        point.push(own.len() as f64 / count);
        point.push(mean(&mut own.iter().map(|&(index, _)| (index as f64 + 0.5) / count)));
        let shapes = table.shapes(d);
        let shape =
            |mixer| table.index_of(d, mixer).unwrap_or_else(|| table.nearest_shape(d, mixer));
        let genes: Vec<_> = own.iter().map(|(_, mixer)| &shapes[shape(mixer)].genes).collect();
        for (index, gene) in table.genes.iter().enumerate().filter(|(_, gene)| gene.choices() > 1) {
            let last = (gene.choices() - 1) as f64;
            point.push(mean(&mut genes.iter().map(|genes| genes[index] as f64 / last)));
        }
    }
    let category = |mixer: Option<&crate::architecture::Mixer>| {
        let kind =
            mixer.and_then(|mixer| MixerKind::ALL.iter().position(|&kind| kind == mixer.kind()));
        kind.map_or(-1.0, |kind| kind as f64)
    };
    point.extend([category(mixers.first()), category(mixers.last())]);
    point
}
