//! DeltaNet (arXiv 2406.06484): the delta rule without decay, its output normed and not gated.

use search::architecture::DeltaNet;

use super::delta::{Delta, Shape};
use crate::OperatorError;
use crate::weights::Weights;

pub(super) fn build(gene: &DeltaNet, weights: &mut Weights) -> Result<Delta, OperatorError> {
    let shape = Shape {
        heads: gene.heads.into(),
        key_width: gene.key_width.into(),
        value_width: gene.value_width.into(),
        gated: false,
    };
    Delta::new(shape, weights)
}
