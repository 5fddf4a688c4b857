//! The angles of Selective RoPE in the program of a step.
//!
//! What is linear in the mixer's input is a part of its in-projection, apart for each share of the input that is brought to unit
//! length, so that a phase of its own needs but the lengths. Rows read zeros outside their share.

use kernels::cuda::Error;
use kernels::cuda::decode::{Kind, Phase};
use search::architecture::{Phases, Temperature};

use super::program::{Builder, check};
use crate::cuda::shapes::{Load, full_rank_rows};

/// Rows of an in-projection from which angles come.
pub(super) struct AngleRows {
    pub(super) rows: Vec<f32>,
    phases: Phases,
}

impl Builder<'_> {
    /// Those of a mixer, none if it does not turn.
    pub(super) fn angle_rows(&self, phases: Option<Phases>, load: Load) -> Option<AngleRows> {
        let phases = phases?;
        let d = self.d_model();
        let share = phases.norm_width(d as u64) as usize;
        let of_share = |row: &[f32], at: usize| -> Vec<f32> {
            let mut wide = vec![0.0; d];
            wide[at * share..][..share].copy_from_slice(row);
            wide
        };
        let all_shares = |matrix: &[f32]| -> Vec<f32> {
            matrix
                .chunks_exact(share)
                .enumerate()
                .flat_map(|(i, row)| of_share(row, i % (d / share)))
                .collect()
        };
        let mut rows = if phases.forms.full_rank {
            let full = full_rank_rows(phases, share, load);
            let head = |row: usize| if share == d { 0 } else { row / phases.half as usize };
            full.chunks_exact(share)
                .enumerate()
                .flat_map(|(i, row)| of_share(row, head(i)))
                .collect()
        } else {
            all_shares(&load("phi_down.weight", Phases::RANK as usize * d))
        };
        if phases.forms.gate {
            rows.extend(all_shares(&load("phi_gate.weight", phases.heads as usize * d)));
        }
        Some(AngleRows { rows, phases })
    }

    /// The phase that makes angles of those rows, which stand at `now`, of a mixer whose input is normed by `norm`; where
    /// their cosines stand, the sines behind them.
    pub(super) fn angles(
        &mut self,
        rows: &AngleRows,
        (now, norm): (u64, u64),
        load: Load,
    ) -> Result<u64, Error> {
        let phases = rows.phases;
        let (d, channels) = (self.d_model(), phases.channels() as usize);
        let (heads, half) = (phases.heads as usize, phases.half as usize);
        check(
            channels * (self.blocks() + 1) < 1 << 32,
            "the angles of Selective RoPE",
            "below 2³² over the blocks",
            channels,
        )?;
        let rank = if phases.forms.full_rank { 0 } else { Phases::RANK as usize };
        let z = if rank > 0 {
            let up = load("phi_up.weight", channels * rank);
            let up: Vec<f32> = up.into_iter().map(rounded).collect();
            self.vector(&up)?
        } else {
            0
        };
        let conv_weight = self.vector(&load("phi_conv.weight", channels * 4))?;
        let conv_bias = if phases.forms.bias {
            let bias: Vec<f32> = load("phi_bias", channels).iter().map(|b| b.exp()).collect();
            self.vector(&bias)?
        } else {
            0
        };
        let dt_bias =
            if phases.forms.gate { self.vector(&load("phi_gate_bias", heads))? } else { 0 };
        let temperatures: Vec<f32> = match phases.forms.temperature {
            Temperature::Learnt => load("phi_temperature", half),
            _ => phases.temperatures().into_iter().map(|tau| tau as f32).collect(),
        };
        let skip = self.vector(&temperatures)?;
        let (ring, a_log) = (self.state(4 * channels * 4)?, self.state(channels * 4)?);
        self.state_bytes += (5 * channels * 4) as u64;
        let out = self.allocate(2 * channels * 4)?;
        let (pieces, chunks) = self.pieces(d)?;
        let phase = Phase {
            kind: Kind::Turns,
            units_per_group: pieces as u32, // of no groups: how the embedding lies, if that is the input
            chunks: chunks as u32,
            columns: d as u32,
            rows: channels as u32,
            width: half as u32,
            heads: heads as u32,
            key_heads: (d as u64 / phases.norm_width(d as u64)) as u32,
            tiles: rank as u32,
            gated: u32::from(phases.forms.gate),
            out,
            ring,
            conv_weight,
            conv_bias,
            a_log,
            dt_bias,
            skip,
            now,
            z,
            ..Phase::default()
        };
        let phase = self.reading(phase, norm);
        self.push(phase);
        Ok(out)
    }
}

/// As matrices are.
fn rounded(x: f32) -> f32 {
    kernels::cuda::bf16_value(kernels::cuda::bf16_bits(x))
}
