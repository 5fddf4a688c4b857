//! What a stack is made of, as far as losses of such stacks move alike.

use std::collections::BTreeMap;

use crate::architecture::Mixer;
use crate::campaign::candidate::Candidate;

/// Of a stack; of what is none, nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Kin {
    /// Of the layers, by mixer; and whether any is not attention.
    pub(super) shares: BTreeMap<&'static str, f64>,
    /// log₂ of width and depth.
    pub(super) size: [f64; 2],
}

impl Kin {
    pub(super) fn of(row: &Candidate) -> Self {
        let Some(stack) = row.subject.stack() else { return Self::default() };
        let layers = stack.layers();
        let mut shares = BTreeMap::new();
        for layer in layers {
            let name = layer.mixer.map_or("none", |mixer| mixer.kind().name());
            *shares.entry(name).or_insert(0.0) += 1.0 / layers.len().max(1) as f64;
        }
        // One such layer is enough to know what was said last, which attention is late to learn.
        let mut mixers = layers.iter().filter_map(|layer| layer.mixer);
        let is_any = mixers.any(|mixer| !matches!(mixer, Mixer::Attention(_)));
        shares.insert("any but attention", f64::from(u8::from(is_any)));
        let log = |n: f64| n.max(1.0).log2();
        Self { shares, size: [log(f64::from(stack.d_model())), log(layers.len() as f64)] }
    }
}
