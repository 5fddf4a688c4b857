//! Selective RoPE (arXiv 2511.17388): q and k turn by angles that are learnt from the input and summed over the past.

use search::architecture::{Phases as Shape, Temperature};
use tch::{Kind, Tensor};

use crate::OperatorError;
use crate::ops::linear::linear;
use crate::ops::norm::L2_EPS;
use crate::ops::wide;
use crate::weights::Weights;

/// What the angles are made of.
#[derive(Debug)]
pub(super) struct Phases {
    heads: i64,
    half: i64,
    shape: Shape,
    projection: Projection,
    /// `[H·K/2, 4]`
    taps: Tensor,
    /// b of e^b, `[H, K/2]`
    bias: Option<Tensor>,
    /// W_g `[H, d]` and b_g `[H]`
    gate: Option<(Tensor, Tensor)>,
    /// τ that is learnt, `[K/2]`
    temperature: Option<Tensor>,
}

#[derive(Debug)]
enum Projection {
    LowRank {
        /// `[rank, d]`
        down: Tensor,
        /// `[H·K/2, rank]`
        up: Tensor,
    },
    FullRank {
        /// `[H·K/2, share of a head]`
        rows: Tensor,
        /// `[H]`
        scale: Tensor,
    },
}

/// What the angles remember of the past; the inputs in f32 or f64.
#[derive(Debug)]
pub struct PhaseState {
    /// The last three inputs of the convolution, oldest first: `[B, 3, H·K/2]`
    pub conv: Tensor,
    /// Σ φ in f64: `[B, H·K/2]`
    pub sum: Tensor,
}

impl Projection {
    /// φ before the convolution, `[B, T, H·K/2]`, at u `[B, T, d]`, x in shares of unit length.
    fn apply(&self, u: &Tensor, heads: i64) -> Tensor {
        let (rows, scale) = match self {
            Self::LowRank { down, up } => return linear(&linear(u, down), up),
            Self::FullRank { rows, scale } => (rows, scale),
        };
        let (b, t, d) = u.size3().expect("u is [B, T, d]");
        let (angles, share) = rows.size2().expect("[H·K/2, share]");
        let kind = wide(u.kind());
        let wide_rows = rows.to_kind(kind);
        let lengths = wide_rows.square().sum_dim_intlist(-1, true, None::<Kind>).sqrt();
        let unit = (wide_rows / lengths).reshape([heads, angles / heads, share]);
        let weights = (unit * scale.to_kind(kind).reshape([heads, 1, 1])).to_kind(u.kind());
        if share == d {
            return linear(u, &weights.reshape([angles, d]));
        }
        let shares = u.reshape([b * t, heads, share]).transpose(0, 1); // [H, B·T, share]
        let phi = shares.bmm(&weights.transpose(1, 2)); // [H, B·T, K/2]
        phi.transpose(0, 1).reshape([b, t, angles])
    }
}

impl Phases {
    /// None where there is no Selective RoPE.
    pub(super) fn new(
        shape: Option<Shape>,
        weights: &mut Weights,
    ) -> Result<Option<Self>, OperatorError> {
        let Some(shape) = shape else { return Ok(None) };
        let forms = shape.forms;
        let projection = if forms.full_rank {
            Projection::FullRank {
                rows: weights.take("phi_full.weight")?,
                scale: weights.take("phi_scale")?,
            }
        } else {
            Projection::LowRank {
                down: weights.take("phi_down.weight")?,
                up: weights.take("phi_up.weight")?,
            }
        };
        Ok(Some(Self {
            heads: shape.heads.into(),
            half: shape.half.into(),
            shape,
            projection,
            taps: weights.take("phi_conv.weight")?,
            bias: weights.take_if(forms.bias, "phi_bias")?,
            gate: if forms.gate {
                Some((weights.take("phi_gate.weight")?, weights.take("phi_gate_bias")?))
            } else {
                None
            },
            temperature: weights
                .take_if(forms.temperature == Temperature::Learnt, "phi_temperature")?,
        }))
    }

    pub(super) fn state(&self, batch: i64) -> PhaseState {
        let options = (wide(self.taps.kind()), self.taps.device());
        let channels = self.heads * self.half;
        PhaseState {
            conv: Tensor::zeros([batch, 3, channels], options),
            sum: Tensor::zeros([batch, channels], (Kind::Double, options.1)),
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
        let phi = self.projection.apply(&unit, self.heads).to_kind(kind);
        let padded = match &state {
            Some(state) => Tensor::cat(&[&state.conv, &phi], 1),
            None => phi.constant_pad_nd([0, 0, 3, 0]),
        };
        let taps = self.taps.to_kind(kind);
        let mut convolved = padded.narrow(1, 0, t) * taps.select(1, 0);
        for tap in 1..4 {
            convolved += padded.narrow(1, tap, t) * taps.select(1, tap);
        }
        if let Some(bias) = &self.bias {
            convolved += bias.to_kind(kind).exp().reshape([-1]);
        }
        if let Some((gate, bias)) = &self.gate {
            let open = (linear(&unit, gate).to_kind(kind) + bias.to_kind(kind)).sigmoid(); // [B, T, H]
            convolved = convolved.reshape([b, t, self.heads, self.half]) * open.unsqueeze(-1);
        }
        // in f64: of many turns only what is left of the last one counts
        let mut sums = convolved.reshape([b, t, -1]).cumsum(1, Kind::Double); // [B, T, H·K/2]
        if let Some(state) = state {
            sums += state.sum.unsqueeze(1);
            state.conv = padded.narrow(1, t, 3).contiguous();
            state.sum = sums.select(1, t - 1);
        }
        sums.reshape([b, t, self.heads, self.half]) * self.temperatures(&sums)
    }

    /// τ `[K/2]`, of the kind and on the device of `like`.
    fn temperatures(&self, like: &Tensor) -> Tensor {
        match &self.temperature {
            Some(learnt) => learnt.to_kind(like.kind()),
            None => Tensor::from_slice(&self.shape.temperatures())
                .to_device(like.device())
                .to_kind(like.kind()),
        }
    }
}
