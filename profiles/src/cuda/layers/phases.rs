//! The angles of Selective RoPE layer by layer.

use kernels::cuda::Error;
use kernels::cuda::chunked::Rows;
use kernels::cuda::norm::{Gate, Norm};
use kernels::cuda::phases::{self, Heads, Memory, Weights};
use kernels::norm::L2_EPS;
use search::architecture::{Phases, Temperature};

use super::pass::{Kind, NONE, Recorder, part};
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::{Load, full_rank_rows};

/// What the angles of a mixer are made of.
#[derive(Debug)]
pub(super) struct Angles {
    heads: usize,
    half: usize,
    /// Channels of the input that are brought to unit length together.
    share: usize,
    projection: Projection,
    gate: Option<Matrix>,
    weights: Weights,
    ring: u64,
    sums: u64,
}

#[derive(Debug)]
enum Projection {
    LowRank([Matrix; 2]),
    /// Of each head on its share, or one for all.
    Shares(Vec<Matrix>),
}

impl Angles {
    pub(super) fn new(on: &mut Builder<'_>, phases: Phases, load: Load) -> Result<Self, Error> {
        let (d, channels) = (on.d_model, phases.channels() as usize);
        let (heads, half) = (phases.heads as usize, phases.half as usize);
        let share = phases.norm_width(d as u64) as usize;
        let projection = if phases.forms.full_rank {
            let rows = if on.pretends { Vec::new() } else { full_rank_rows(phases, share, load) };
            let angles = if share == d { channels } else { half };
            let matrices = (0..channels / angles).map(|head| {
                let own = &mut |_: &str, count: usize| rows[head * count..][..count].to_vec();
                on.matrix(own, &[("phi_full.weight", angles)], share)
            });
            Projection::Shares(matrices.collect::<Result<_, _>>()?)
        } else {
            let rank = Phases::RANK as usize;
            Projection::LowRank([
                on.matrix(load, &[("phi_down.weight", rank)], d)?,
                on.matrix(load, &[("phi_up.weight", channels)], rank)?,
            ])
        };
        let forms = phases.forms;
        let gate = if forms.gate {
            Some(on.matrix(load, &[("phi_gate.weight", heads)], d)?)
        } else {
            None
        };
        let gate_bias = if forms.gate { on.vector(load, "phi_gate_bias", heads)? } else { 0 };
        let bias = if forms.bias && !on.pretends {
            let bias: Vec<f32> = load("phi_bias", channels).iter().map(|b| b.exp()).collect();
            on.values(&bias)?
        } else if forms.bias {
            on.vector(load, "phi_bias", channels)?
        } else {
            0
        };
        let temperatures = if forms.temperature == Temperature::Learnt {
            on.vector(load, "phi_temperature", half)?
        } else {
            let tau: Vec<f32> = phases.temperatures().into_iter().map(|x| x as f32).collect();
            on.values(&tau)?
        };
        let taps = on.vector(load, "phi_conv.weight", channels * 4)?;
        Ok(Self {
            heads,
            half,
            share,
            projection,
            gate,
            weights: Weights { taps, bias, gate_bias, temperatures },
            ring: on.past(4 * on.batch * 4 * channels)?,
            sums: on.past(4 * on.batch * channels)?,
        })
    }

    /// Turns the first `heads` of the heads in rows of x by the angles at the mixer's input u.
    pub(super) fn turn(
        &self,
        on: &mut Recorder<'_>,
        u: Rows,
        x: Rows,
        heads: Heads,
    ) -> Result<(), Error> {
        let channels = self.heads * self.half;
        let shape = phases::Phases {
            batch: on.batch,
            tokens: on.tokens,
            heads: self.heads,
            half: self.half,
        };
        shape.check()?;
        let d = on.d_model();
        let (gate, factor, epsilon) = (Gate::None, 1.0, L2_EPS as f32);
        let inner = d / self.share;
        let unit =
            Norm { outer: on.rows, inner, width: self.share, wide: false, gate, factor, epsilon };
        unit.check()?;
        let address = on.room("unit shares", 2 * on.rows * d)?;
        on.launch(unit.forward(u, NONE, 0, address));
        let unit = Rows { address, stride: d };
        let psi = Rows { address: on.room("psi", 4 * on.rows * channels)?, stride: channels };
        match &self.projection {
            Projection::LowRank([down, up]) => {
                let low = on.project("low", *down, unit)?;
                on.product(*up, (low, on.rows), psi, [false, true])?;
            }
            Projection::Shares(matrices) => {
                for (head, matrix) in matrices.iter().enumerate() {
                    let to = Rows { address: psi.address + (4 * head * self.half) as u64, ..psi };
                    let own = part(unit, head * self.share);
                    on.product(*matrix, (own, on.rows), to, [false, true])?;
                }
            }
        }
        let gate = match self.gate {
            None => NONE,
            Some(matrix) => {
                let address = on.room("phase gate", 4 * on.rows * matrix.outputs)?;
                let gate = Rows { address, stride: matrix.outputs };
                on.product(matrix, (unit, on.rows), gate, [false, true])?;
                gate
            }
        };
        let memory = Memory {
            ring: self.ring,
            angles: self.sums,
            turns: on.room("turns", 4 * shape.turns_len())?,
            spans: on.room("spans", 4 * shape.spans_len())?,
        };
        let steps = matches!(on.kind, Kind::Step { .. });
        if steps {
            let launch = shape.step([psi, gate], &self.weights, &memory, on.positions);
            on.launch(launch);
        } else {
            for launch in shape.sums([psi, gate], &self.weights, &memory) {
                on.launch(launch);
            }
        }
        on.launch(shape.turn(x, heads, &memory, steps));
        Ok(())
    }
}
