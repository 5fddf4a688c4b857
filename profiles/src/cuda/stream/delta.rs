//! The delta family in the program of a step.

use kernels::cuda::Error;
use kernels::cuda::decode::{Input, Kind, Phase};
use search::architecture::{Delta, Phases};

use super::program::{Builder, Projected, check};
use crate::cuda::shapes::{Load, delta_extents};

impl Builder<'_> {
    pub(super) fn delta(
        &mut self,
        shape: &Delta,
        phases: Option<Phases>,
        norm: u64,
        load: Load,
    ) -> Result<(), Error> {
        let [key_heads, heads, key_width, value_width, steps] = delta_extents(shape);
        let d = self.d_model();
        check(
            [32, 64, 128].contains(&key_width),
            "the key width of the delta rule on a GPU",
            "32, 64 or 128",
            key_width,
        )?;
        check(
            value_width.is_power_of_two() && (16..=256).contains(&value_width),
            "the value width of the delta rule on a GPU",
            "a power of two from 16 to 256",
            value_width,
        )?;
        check(
            heads.is_multiple_of(key_heads),
            "the value heads of the delta rule",
            "a multiple of its key heads",
            heads,
        )?;
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let q = load("q.weight", keys * d);
        let k = load("k.weight", steps * keys * d);
        let v = load("v.weight", steps * values * d);
        let g = if shape.output_gate { load("g.weight", values * d) } else { Vec::new() };
        let b = load("b.weight", steps * heads * d);
        let a = if shape.decay { load("a.weight", heads * d) } else { Vec::new() };
        let levels = shape.levels.map_or(0, |levels| levels as usize);
        let l = if levels > 0 { load("l.weight", heads * levels * d) } else { Vec::new() };
        let channels = keys + steps * (keys + values);
        let ring_rows = if shape.short_conv { channels } else { 0 };
        let angles = self.angle_rows(phases, load);
        let of_angles = angles.as_ref().map_or(&[][..], |angles| &angles.rows);
        let parts = [&q, &k, &v, &g, &b, &a, &l].map(Vec::as_slice);
        let angles_at = parts.iter().map(|part| part.len() / d).sum::<usize>();
        let parts = [&parts[..], &[of_angles]].concat();
        let Projected { now, ring } = self.project(&parts, norm, ring_rows)?;
        let turned = match &angles {
            Some(angles) => self.angles(angles, (now + 4 * angles_at as u64, norm), load)?,
            None => 0,
        };
        let gate = now + channels as u64 * 4;
        let z = if shape.output_gate { gate + values as u64 * 4 } else { gate };
        let taps: Vec<f32> = [
            ("q_conv.weight", keys),
            ("k_conv.weight", steps * keys),
            ("v_conv.weight", steps * values),
        ]
        .into_iter()
        .filter(|_| shape.short_conv)
        .flat_map(|(name, channels)| load(name, channels * 4))
        .collect();
        let conv_weight = if shape.short_conv { self.vector(&taps)? } else { 0 };
        let (mut a_log, mut dt_bias) = (0, 0);
        if shape.decay {
            a_log = self.vector(&load("A_log", heads))?;
            dt_bias = self.vector(&load("dt_bias", heads))?;
        }
        let out = self.allocate(values * 4)?;
        let state = if levels > 0 {
            let scales = load("L", heads * levels);
            self.level_states(Kind::LogDelta, (values, key_width), levels, &scales)?
        } else {
            self.streamed_state(Kind::Delta, (values, key_width))?
        };
        self.push(Phase {
            key_heads: key_heads as u32,
            heads: heads as u32,
            width: key_width as u32,
            value_width: value_width as u32,
            gated: u32::from(shape.decay),
            steps: steps as u32,
            convolved: u32::from(shape.short_conv),
            scale: (key_width as f32).powf(-0.5),
            largest_beta: if shape.negative_eigenvalues { 2.0 } else { 1.0 },
            ring,
            ring_rows: ring_rows as u32,
            conv_weight,
            a_log,
            dt_bias,
            skip: turned,
            out,
            now,
            z,
            ..state
        });
        let norm = self.vector(&load("norm.weight", value_width))?;
        let weight = load("o.weight", d * values);
        let gate = if shape.output_gate { gate } else { 0 };
        let value_width = value_width as u32;
        let of = Phase { x: out, norm, gate, value_width, ..Phase::default() };
        self.project_back(&weight, values, Input::HeadNorm, of)
    }
}
