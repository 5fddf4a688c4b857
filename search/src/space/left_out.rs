//! Choices of a space that are never proposed: what a device cannot compute, what the targets of `loads_in` do not hold.

use super::tables::MixerTable;

/// A choice that is never proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// As the campaign file says it: `lgdn`, `attn key_width 32`, `d_model 100`.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// The values of genes that no shape has any more; where each still has one, how many shapes went.
pub(super) fn genes_left_out(
    before: &MixerTable,
    after: &MixerTable,
    refused: &[(&[usize], &str)],
) -> Vec<LeftOut> {
    let name = before.kind.name();
    let has = |table: &MixerTable, gene: usize, value: usize| {
        table.shapes.iter().flatten().any(|shape| shape.genes[gene] == value)
    };
    let mut left_out = Vec::new();
    for (at, gene) in before.genes.iter().enumerate() {
        for value in 0..gene.choices() {
            let reason = refused.iter().find(|(genes, _)| genes[at] == value);
            if let Some((_, reason)) = reason
                && has(before, at, value)
                && !has(after, at, value)
            {
                let what = format!("{name} {} {}", gene.name(), gene.show(value));
                left_out.push(LeftOut { what, reason: (*reason).to_owned() });
            }
        }
    }
    if let (true, Some((_, reason))) = (left_out.is_empty(), refused.first()) {
        let all: usize = before.shapes.iter().map(Vec::len).sum();
        let what = format!("{} of {all} shapes of {name}", refused.len());
        left_out.push(LeftOut { what, reason: (*reason).to_owned() });
    }
    left_out
}
