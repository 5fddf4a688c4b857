//! What a stack is made of, as far as losses of such stacks move alike.

use std::collections::BTreeMap;

use crate::campaign::candidate::Candidate;

/// Of a stack; of what is none, nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Kin {
    /// Of the layers, by mixer.
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
        let log = |n: f64| n.max(1.0).log2();
        Self { shares, size: [log(f64::from(stack.d_model())), log(layers.len() as f64)] }
    }
}
