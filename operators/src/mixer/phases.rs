//! Selective RoPE (arXiv 2511.17388): q and k turn by angles that are learnt from the input and summed over the past.

use search::architecture::Phases as Shape;
use tch::{Kind, Tensor};

use crate::OperatorError;
use crate::ops::linear::linear;
use crate::ops::norm::L2_EPS;
use crate::ops::{rope, wide};
use crate::weights::Weights;

/// What the angles are made of.
#[derive(Debug)]
pub(super) struct Phases {
    heads: i64,
    half: i64,
    shape: Shape,
    /// `[rank, d]`
    down: Tensor,
    /// `[H·K/2, rank]`
    up: Tensor,
    /// `[H·K/2, 4]`
    taps: Tensor,
}

/// What the angles remember of the past, in f32 or f64.
#[derive(Debug)]
pub struct PhaseState {
    /// The last three inputs of the convolution, oldest first: `[B, 3, H·K/2]`
    pub conv: Tensor,
    /// Σ φ: `[B, H·K/2]`
    pub sum: Tensor,
}

impl Phases {
    /// None where there is no Selective RoPE.
    pub(super) fn new(
        shape: Option<Shape>,
        weights: &mut Weights,
    ) -> Result<Option<Self>, OperatorError> {
        let Some(shape) = shape else { return Ok(None) };
        Ok(Some(Self {
            heads: shape.heads.into(),
            half: shape.half.into(),
            shape,
            down: weights.take("phi_down.weight")?,
            up: weights.take("phi_up.weight")?,
            taps: weights.take("phi_conv.weight")?,
        }))
    }

    pub(super) fn state(&self, batch: i64) -> PhaseState {
        let options = (wide(self.down.kind()), self.down.device());
        let channels = self.heads * self.half;
        PhaseState {
            conv: Tensor::zeros([batch, 3, channels], options),
            sum: Tensor::zeros([batch, channels], options),
        }
    }

    /// The angles `[B, T, H, K/2]` at x `[B, T, d]`; the state is moved past x, none stands for the beginning.
    pub(super) fn angles(&self, x: &Tensor, state: Option<&mut PhaseState>) -> Tensor {
        let (b, t, d) = x.size3().expect("x is [B, T, d]");
        let kind = wide(x.kind());
        let share = self.shape.norm_width(d.cast_unsigned()).cast_signed();
        let x_shares = x.to_kind(kind).reshape([b, t, d / share, share]);
        let squares = x_shares.square().sum_dim_intlist(-1, true, None::<Kind>);
        let unit = (x_shares * (squares + L2_EPS).rsqrt()).reshape([b, t, d]).to_kind(x.kind());
        let phi = linear(&linear(&unit, &self.down), &self.up).to_kind(kind);
        let padded = match &state {
            Some(state) => Tensor::cat(&[&state.conv, &phi], 1),
            None => phi.constant_pad_nd([0, 0, 3, 0]),
        };
        let taps = self.taps.to_kind(kind);
        let mut convolved = padded.narrow(1, 0, t) * taps.select(1, 0);
        for tap in 1..4 {
            convolved += padded.narrow(1, tap, t) * taps.select(1, tap);
        }
        let mut sums = convolved.cumsum(1, kind); // [B, T, H·K/2]
        if let Some(state) = state {
            sums += state.sum.unsqueeze(1);
            state.conv = padded.narrow(1, t, 3).contiguous();
            state.sum = sums.select(1, t - 1);
        }
        sums.reshape([b, t, self.heads, self.half])
            * rope::frequencies(self.half, Shape::THETA, &padded)
    }
}
