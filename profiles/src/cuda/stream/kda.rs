//! Kimi Delta Attention in the program of a step.

use kernels::cuda::Error;
use kernels::cuda::decode::{Input, Kind, Output, Phase};
use search::architecture::Kda;

use super::program::{Builder, Projected, check};
use crate::cuda::shapes::{Load, kda_extents};

impl Builder<'_> {
    pub(super) fn kda(&mut self, shape: &Kda, norm: u64, load: Load) -> Result<(), Error> {
        let [heads, key_width, value_width, rank] = kda_extents(shape);
        let d = self.d_model();
        check(
            [32, 64, 128].contains(&key_width),
            "the key width of Kimi Delta Attention on a GPU",
            "32, 64 or 128",
            key_width,
        )?;
        check(
            value_width.is_power_of_two() && (16..=256).contains(&value_width),
            "the value width of Kimi Delta Attention on a GPU",
            "a power of two from 16 to 256",
            value_width,
        )?;
        let (keys, values) = (heads * key_width, heads * value_width);
        let channels = 2 * keys + values;
        let [q, k, v, f, g, b] = [
            ("q.weight", keys),
            ("k.weight", keys),
            ("v.weight", values),
            ("f_a.weight", rank),
            ("g_a.weight", rank),
            ("b.weight", heads),
        ]
        .map(|(name, rows)| load(name, rows * d));
        let Projected { now, ring } = self.project(&[&q, &k, &v, &f, &g, &b], norm, channels)?;
        let low = now + 4 * channels as u64;
        // Decays and gate from their halves of what is left of rank 2·V, in one product: zeros cost less than one phase more,
        // and of ranks up to 128 nothing, as a row is read in pieces of 256 columns.
        let f = load("f_b.weight", keys * rank);
        let g = load("g_b.weight", values * rank);
        let none = vec![0.0; rank];
        let of_decays = f.chunks_exact(rank).map(|row| [row, none.as_slice()].concat());
        let of_gate = g.chunks_exact(rank).map(|row| [none.as_slice(), row].concat());
        let both: Vec<f32> = of_decays.chain(of_gate).flatten().collect();
        let matrix = self.pack(&[&both], 2 * rank)?;
        self.streamed_bytes -= both.len() as u64; // half of the numbers are zeros
        let raw = self.allocate((keys + values) * 4)?;
        let phase = self.gemv(&matrix, 2 * rank, Input::Plain, Output::Store, keys + values)?;
        self.push(Phase { x: low, out: raw, ..phase });

        let taps: Vec<f32> =
            [("q_conv.weight", keys), ("k_conv.weight", keys), ("v_conv.weight", values)]
                .into_iter()
                .flat_map(|(name, channels)| load(name, channels * 4))
                .collect();
        let conv_weight = self.vector(&taps)?;
        let a_log = self.vector(&load("A_log", heads))?;
        let dt_bias = self.vector(&load("dt_bias", keys))?;
        let state = self.streamed_state(Kind::Kda, (values, key_width))?;
        let out = self.allocate(values * 4)?;
        self.push(Phase {
            heads: heads as u32,
            width: key_width as u32,
            value_width: value_width as u32,
            convolved: 1,
            scale: (key_width as f32).powf(-0.5),
            x: raw,
            ring,
            ring_rows: channels as u32,
            conv_weight,
            a_log,
            dt_bias,
            out,
            now,
            z: low + 8 * rank as u64,
            ..state
        });
        let norm = self.vector(&load("norm.weight", value_width))?;
        let weight = load("o.weight", d * values);
        let gate = raw + 4 * keys as u64;
        let value_width = value_width as u32;
        let of = Phase { x: out, norm, gate, value_width, ..Phase::default() };
        self.project_back(&weight, values, Input::HeadNormSigmoid, of)
    }
}
