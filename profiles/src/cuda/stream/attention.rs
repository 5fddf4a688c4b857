//! Attention in the program of a step.

use kernels::cuda::decode::{BLOCK_POSITIONS, Input, Kind, Phase, TILE_HEADS};
use kernels::cuda::{Error, upload_new};
use search::architecture::{Attention, Phases, QkNorm};

use super::program::{Builder, check};
use crate::cuda::shapes::{Load, paired, rotations_of};

impl Builder<'_> {
    pub(super) fn attention(
        &mut self,
        shape: &Attention,
        phases: Option<Phases>,
        norm: u64,
        load: Load,
    ) -> Result<(), Error> {
        let [heads, kv_heads, width] =
            [shape.heads, shape.kv_heads, shape.head_width].map(|n| n as usize);
        let window = shape.window.map(|n| n as usize);
        let (tile_heads, block_positions) = (TILE_HEADS as usize, BLOCK_POSITIONS as usize);
        let d = self.d_model();
        check(
            [64, 128].contains(&width),
            "the head width of attention on a GPU",
            "64 or 128",
            width,
        )?;
        check(
            heads.is_multiple_of(kv_heads),
            "the query heads of attention",
            "a multiple of its KV heads",
            heads,
        )?;
        let load = &mut paired(shape, load);
        let q = load("q.weight", heads * width * d);
        let k = load("k.weight", kv_heads * width * d);
        let v = load("v.weight", kv_heads * width * d);
        let g = if shape.output_gate { load("g.weight", heads * width * d) } else { Vec::new() };
        let angles = self.angle_rows(phases, load);
        let of_angles = angles.as_ref().map_or(&[][..], |angles| &angles.rows);
        let z = self.project(&[&q, &k, &v, &g, of_angles], norm, 0)?.now;
        let gate_at = z + 4 * ((heads + 2 * kv_heads) * width) as u64;
        let angles_at = gate_at + 4 * (g.len() / d) as u64;
        let turned = match &angles {
            Some(angles) => self.angles(angles, (angles_at, norm), load)?,
            None => 0,
        };
        let whole = shape.qk_norm == QkNorm::Whole;
        let (mut q_norm, mut k_norm) = (0, 0);
        if shape.qk_norm != QkNorm::None {
            let [of_q, of_k] = if whole { [heads, kv_heads] } else { [1, 1] };
            q_norm = self.vector(&load("q_norm.weight", of_q * width))?;
            k_norm = self.vector(&load("k_norm.weight", of_k * width))?;
        }
        let rope = upload_new(self.machine, &rotations_of(shape, self.positions))?;
        self.memory.push(rope);
        let tiles = (heads / kv_heads).div_ceil(tile_heads);
        let blocks = self.blocks();
        check(
            kv_heads * tiles <= blocks,
            "the KV heads of attention",
            &format!("at most {blocks}"),
            kv_heads,
        )?;
        let splits = blocks / (kv_heads * tiles);
        let cache_blocks = self.positions.div_ceil(block_positions);
        let unit_bytes = 2 * block_positions * width * 2;
        // not among the states: positions not written yet are never read, so they may hold anything
        let cache = self.allocate(kv_heads * cache_blocks * unit_bytes)?;
        if self.pretends {
            self.machine.pretend(cache, kv_heads * cache_blocks * unit_bytes)?;
        }
        self.caches.push((cache, kv_heads * cache_blocks * unit_bytes));
        self.cache_bytes_per_position.push(((2 * kv_heads * width * 2) as u64, window));
        let items = kv_heads * tiles * splits;
        let partial = self.allocate(items * tile_heads * width * 4)?;
        let sums = self.allocate(items * tile_heads * 2 * 4)?;
        let both = Phase {
            splits: splits as u32,
            key_heads: kv_heads as u32,
            tiles: tiles as u32,
            width: width as u32,
            heads: heads as u32,
            gate: sums,
            ..Phase::default()
        };
        self.push(Phase {
            stream: cache,
            kind: Kind::Attend,
            unit_bytes: unit_bytes as u32,
            window: window.unwrap_or(0) as u32,
            cache_blocks: cache_blocks as u32,
            gated: u32::from(whole),
            skip: turned,
            scale: (width as f32).powf(-0.5),
            norm: q_norm,
            k_norm,
            rope,
            z,
            out: partial,
            ..both
        });
        let out = self.allocate(heads * width * 4)?;
        self.push(Phase { kind: Kind::Combine, x: partial, out, ..both });
        let weight = load("o.weight", d * heads * width);
        let (input, gate) =
            if shape.output_gate { (Input::Gated, gate_at) } else { (Input::Plain, 0) };
        let of = Phase { x: out, gate, ..Phase::default() };
        self.project_back(&weight, heads * width, input, of)
    }
}
