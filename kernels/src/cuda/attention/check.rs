//! The kernels on a machine against the definition: random inputs, chosen rows of every head compared, all of them
//! looked at for what was not written. The same for the emulator and for a GPU.

use super::{Attention, Cache, Heads, Shape, rotations};
use crate::attention::definition_of_row;
use crate::cuda::chunked::Rows;
use crate::cuda::random::{Random, bf16s};
use crate::cuda::{Error, Launch, Machine, bf16_bits, bf16_value, download_vec, upload_new};
use crate::norm::{RMS_EPS, rms_norm_definition};
use crate::rope;

/// NaN: what lies where nothing was written.
const POISON: u16 = 0x7fc0;
const THETA: f64 = 1e4;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The extents; of one token, a step over the cache.
    pub shape: Shape,
    /// Whether queries and keys are normed.
    pub norm: bool,
    /// Of a step: positions before the new one of the last sequence; the others have fewer.
    pub past: usize,
    /// Rows of whole sequences that are compared, the first and the last among them.
    pub compared: usize,
}

/// Random inputs on a machine, and all the memory that the kernels want.
#[derive(Debug)]
pub struct Problem {
    case: Case,
    qkv: Vec<u16>,
    norms: [Vec<f32>; 2],
    /// Of a step, `[B, key heads, past, K]` of each sequence, by position.
    past: [Vec<u16>; 2],
    positions: Vec<u32>,
    rows: Rows,
    cache: Cache,
    norms_at: [u64; 2],
    rotations_at: u64,
    positions_at: u64,
    scratch: (usize, u64),
    out: u64,
    memory: Vec<u64>,
}

impl Problem {
    /// Draws the inputs and takes the memory.
    pub fn new(
        machine: &mut dyn Machine,
        case: Case,
        attention: &Attention,
        seed: u64,
    ) -> Result<Self, Error> {
        let Shape { batch, tokens, heads, kv_heads, width, window } = case.shape;
        let mut random = Random::new(seed);
        let columns = (heads + 2 * kv_heads) * width;
        let stride = columns + 8;
        let mut qkv = vec![POISON; batch * tokens * stride];
        for row in qkv.chunks_mut(stride) {
            row[..columns].copy_from_slice(&bf16s(&random.many(columns, -2.0, 2.0)));
        }
        let norms = [random.many(width, 0.5, 1.5), random.many(width, 0.5, 1.5)];
        let last = if tokens == 1 { case.past } else { 0 };
        let positions: Vec<u32> = (0..batch).map(|b| (last * (b + 1) / batch) as u32).collect();
        let seen = last + tokens;
        let capacity = window.map_or(seen, |window| window.min(seen)).next_multiple_of(16);
        let count = batch * kv_heads * last * width;
        // of long caches the past repeats: drawing so much takes long
        let past = [0, 1].map(|_| {
            let drawn = bf16s(&random.many(count.min((1 << 20) + 7), -2.0, 2.0));
            drawn.iter().copied().cycle().take(count).collect::<Vec<u16>>()
        });
        let mut memory = Vec::new();
        let mut keep =
            |address: Result<u64, Error>| address.inspect(|address| memory.push(*address));
        let rows = Rows { address: keep(upload_new(machine, &qkv))?, stride };
        let norms_at = if case.norm {
            [keep(upload_new(machine, &norms[0]))?, keep(upload_new(machine, &norms[1]))?]
        } else {
            [0, 0]
        };
        let rotations_at = keep(upload_new(machine, &rotations(seen, width, THETA)))?;
        let positions_at = keep(upload_new(machine, &positions))?;
        let [keys, values] = past.each_ref().map(|past| {
            let mut ring = vec![POISON; batch * kv_heads * capacity * width];
            for (piece, to) in ring.chunks_mut(capacity * width).enumerate() {
                for p in 0..positions[piece / kv_heads] as usize {
                    let from = &past[(piece * last + p) * width..][..width];
                    to[p % capacity * width..][..width].copy_from_slice(from);
                }
            }
            upload_new(machine, &ring)
        });
        let cache = Cache { keys: keep(keys)?, values: keep(values)?, capacity };
        let splits = attention.splits(seen);
        let scratch = (splits, keep(machine.allocate(attention.scratch_bytes(splits)))?);
        let out = keep(machine.allocate(batch * tokens * heads * width * 2))?;
        Ok(Self {
            case,
            qkv,
            norms,
            past,
            positions,
            rows,
            cache,
            norms_at,
            rotations_at,
            positions_at,
            scratch,
            out,
            memory,
        })
    }

    /// With all sequences as long as the last, for timings: what their caches hold is no longer compared.
    pub fn all_as_long(self, machine: &mut dyn Machine) -> Result<Self, Error> {
        let longest = vec![self.case.past as u32; self.case.shape.batch];
        machine.upload(self.positions_at, bytemuck::cast_slice(&longest))?;
        Ok(self)
    }

    /// Norms, rotations and the way into the cache; queries and keys change in place.
    pub fn rotate(&self, attention: &Attention) -> Launch {
        attention.rotate(
            self.rows,
            self.norms_at,
            self.rotations_at,
            self.positions_at,
            Some(self.cache),
        )
    }

    /// Attention itself, of whole sequences or of a step.
    pub fn attend(&self, attention: &Attention) -> Vec<Launch> {
        let scale = (self.case.shape.width as f32).powf(-0.5);
        if self.case.shape.tokens == 1 {
            let at = self.positions_at;
            return attention.step(self.rows, self.cache, at, scale, self.scratch, self.out);
        }
        let [q, k, v]: [Heads; 3] = attention.fused(self.rows);
        vec![attention.prefill(q, k, v, scale, self.out)]
    }

    /// One head of a row as attention sees it: normed and rotated, rounded to bf16.
    fn head(&self, batch: usize, t: usize, head: usize) -> Vec<f64> {
        let Shape { tokens, heads, kv_heads, width, .. } = self.case.shape;
        let at = (batch * tokens + t) * self.rows.stride + head * width;
        let mut x: Vec<f64> =
            self.qkv[at..at + width].iter().map(|x| f64::from(bf16_value(*x))).collect();
        if head >= heads + kv_heads {
            return x;
        }
        if self.case.norm {
            let norm = &self.norms[usize::from(head >= heads)];
            let norm: Vec<f64> = norm.iter().map(|w| f64::from(*w)).collect();
            x = rms_norm_definition(&x, &norm, RMS_EPS);
        }
        rope::definition(&mut x, width, self.positions[batch] as usize + t, THETA);
        x.iter().map(|x| f64::from(bf16_value(bf16_bits(*x as f32)))).collect()
    }

    /// Keys (0) or values (1) of positions `from..to` of one key head, `[to - from, K]`.
    fn seen(&self, batch: usize, kv_head: usize, from: usize, to: usize, which: usize) -> Vec<f64> {
        let Shape { heads, kv_heads, width, .. } = self.case.shape;
        let first = self.positions[batch] as usize;
        let last = if self.case.shape.tokens == 1 { self.case.past } else { 0 };
        (from..to)
            .flat_map(|p| {
                if p >= first {
                    return self.head(batch, p - first, heads + which * kv_heads + kv_head);
                }
                let at = ((batch * kv_heads + kv_head) * last + p) * width;
                self.past[which][at..at + width].iter().map(|x| f64::from(bf16_value(*x))).collect()
            })
            .collect()
    }

    /// Runs everything and compares: errors relative to the size of what is compared, of the output and of the cache.
    pub fn errors(
        &self,
        machine: &mut dyn Machine,
        attention: &Attention,
    ) -> Result<[f64; 2], Error> {
        let Shape { batch, tokens, heads, kv_heads, width, window } = self.case.shape;
        machine.launch(&self.rotate(attention))?;
        for launch in self.attend(attention) {
            machine.launch(&launch)?;
        }
        let out: Vec<u16> = download_vec(machine, self.out, batch * tokens * heads * width)?;
        let written = out.iter().all(|x| bf16_value(*x).is_finite());
        let capacity = self.cache.capacity;
        let caches = [self.cache.keys, self.cache.values]
            .map(|at| download_vec::<u16>(machine, at, batch * kv_heads * capacity * width));
        let [keys, values] = caches;
        let caches = [keys?, values?];
        let step = tokens.div_ceil(self.case.compared.max(1)).max(1);
        let mut chosen: Vec<usize> = (0..tokens).step_by(step).collect();
        if chosen.last() != Some(&(tokens - 1)) {
            chosen.push(tokens - 1);
        }
        let mut sums = [[0.0; 2]; 2];
        let mut compare = |which: usize, got: &[u16], expected: &[f64]| {
            for (got, expected) in got.iter().zip(expected) {
                sums[which][0] += (f64::from(bf16_value(*got)) - expected).powi(2);
                sums[which][1] += expected.powi(2);
            }
        };
        let few = self.case.compared < usize::MAX;
        for b in 0..batch {
            let first = self.positions[b] as usize;
            for kv_head in 0..kv_heads {
                if few && b * kv_heads + kv_head > 0 && (b + 1) * (kv_head + 1) < batch * kv_heads {
                    continue; // of many, the first and the last
                }
                let all: [Vec<f64>; 2] =
                    [0, 1].map(|which| self.seen(b, kv_head, 0, first + tokens, which));
                for &t in &chosen {
                    let place = first + t;
                    let oldest = window.map_or(0, |window| (place + 1).saturating_sub(window));
                    let [k, v] =
                        all.each_ref().map(|all| &all[oldest * width..(place + 1) * width]);
                    for head in kv_head * heads / kv_heads..(kv_head + 1) * heads / kv_heads {
                        let q = self.head(b, t, head);
                        let expected = definition_of_row(&q, k, v, (width as f64).powf(-0.5));
                        compare(
                            0,
                            &out[((b * tokens + t) * heads + head) * width..][..width],
                            &expected,
                        );
                    }
                }
                for p in (first + tokens).saturating_sub(capacity)..first + tokens {
                    let at = ((b * kv_heads + kv_head) * capacity + p % capacity) * width;
                    for (which, all) in all.iter().enumerate() {
                        compare(1, &caches[which][at..][..width], &all[p * width..][..width]);
                    }
                }
            }
        }
        Ok(sums.map(|[error, size]| {
            let error = (error / f64::max(size, 1e-30)).sqrt();
            if written && !error.is_nan() { error } else { f64::INFINITY }
        }))
    }

    /// Gives the memory back.
    pub fn free(self, machine: &mut dyn Machine) -> Result<(), Error> {
        self.memory.into_iter().try_for_each(|address| machine.free(address))
    }
}
