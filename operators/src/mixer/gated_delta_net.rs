//! Gated DeltaNet (arXiv 2412.06464): a decay before each delta step, and a gate on the normed output.

use search::architecture::GatedDeltaNet;

use super::delta::{Delta, Shape};
use crate::OperatorError;
use crate::weights::Weights;

pub(super) fn build(gene: &GatedDeltaNet, weights: &mut Weights) -> Result<Delta, OperatorError> {
    let shape = Shape {
        heads: gene.heads.into(),
        key_width: gene.key_width.into(),
        value_width: gene.value_width.into(),
        gated: true,
    };
    Delta::new(shape, weights)
}
