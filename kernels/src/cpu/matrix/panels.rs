//! How packed weights lie in memory, by storage.

use crate::cpu::Aligned;
use crate::cpu::simd::{PANEL, Simd};

/// How weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// As they are.
    F32,
    /// bfloat16, rounded to nearest even: relative error at most 2⁻⁸.
    Bf16,
    /// Integers from −127 to 127 times one factor for each output (row): error at most 1/254 of the row's largest
    /// weight.
    Int8,
}

/// All panels of a matrix, `P = ⌈out / PANEL⌉`. The inputs are made even, with zeros as weights of the last.
#[derive(Debug, Clone)]
pub(super) enum Panels {
    /// `[P, in, PANEL]`
    F32(Aligned<f32>),
    /// `[P, in / 2, PANEL, 2]`: the pairs that bfloat16 instructions take.
    Bf16(Aligned<u16>),
    Int8 {
        /// `[P, in, PANEL]`
        values: Aligned<i8>,
        /// `[P, PANEL]`
        scales: Aligned<f32>,
    },
}

/// Inputs with the one of zeros that makes them even.
pub(super) fn even(inputs: usize) -> usize {
    inputs.next_multiple_of(2)
}

impl Panels {
    pub(super) fn pack(weights: &[f32], outputs: usize, inputs: usize, storage: Storage) -> Self {
        let rows = || weights.chunks_exact(inputs.max(1)).enumerate();
        let len = outputs.div_ceil(PANEL) * PANEL * even(inputs);
        match storage {
            Storage::F32 => {
                let mut panels = Aligned::<f32>::zeros(len);
                let out: &mut [f32] = &mut panels;
                for (output, row) in rows() {
                    for (input, w) in row.iter().enumerate() {
                        out[single(inputs, output, input)] = *w;
                    }
                }
                Self::F32(panels)
            }
            Storage::Bf16 => {
                let mut panels = Aligned::<u16>::zeros(len);
                let out: &mut [u16] = &mut panels;
                for (output, row) in rows() {
                    for (input, w) in row.iter().enumerate() {
                        out[paired(inputs, output, input)] = to_bf16(*w);
                    }
                }
                Self::Bf16(panels)
            }
            Storage::Int8 => {
                let mut values = Aligned::<i8>::zeros(len);
                let mut scales = Aligned::<f32>::zeros(outputs.next_multiple_of(PANEL));
                let out: &mut [i8] = &mut values;
                for (output, row) in rows() {
                    let (factor, scale) = int8_scale(row);
                    scales[output] = scale;
                    for (input, w) in row.iter().enumerate() {
                        out[single(inputs, output, input)] = (w * factor).round() as i8;
                    }
                }
                Self::Int8 { values, scales }
            }
        }
    }

    pub(super) fn storage(&self) -> Storage {
        match self {
            Self::F32(_) => Storage::F32,
            Self::Bf16(_) => Storage::Bf16,
            Self::Int8 { .. } => Storage::Int8,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(panels) => size_of_val(&panels[..]),
            Self::Bf16(panels) => size_of_val(&panels[..]),
            Self::Int8 { values, scales } => size_of_val(&values[..]) + size_of_val(&scales[..]),
        }
    }

    /// The weights of one output.
    pub(super) fn read_row(&self, inputs: usize, output: usize, row: &mut [f32]) {
        let (first, in_pairs) = (single(inputs, output, 0), paired(inputs, output, 0));
        match self {
            Self::F32(panels) => {
                let weights = panels[first..].iter().step_by(PANEL);
                row.iter_mut().zip(weights).for_each(|(x, weight)| *x = *weight);
            }
            Self::Bf16(panels) => {
                for (x, pair) in row.chunks_mut(2).zip(panels[in_pairs..].chunks(2 * PANEL)) {
                    x.iter_mut().zip(pair).for_each(|(x, weight)| *x = from_bf16(*weight));
                }
            }
            Self::Int8 { values, scales } => {
                let weights = values[first..].iter().step_by(PANEL);
                let scale = scales[output];
                row.iter_mut().zip(weights).for_each(|(x, weight)| *x = f32::from(*weight) * scale);
            }
        }
    }
}

/// Where a weight lies in `[P, in, PANEL]`.
fn single(inputs: usize, output: usize, input: usize) -> usize {
    output / PANEL * PANEL * even(inputs) + input * PANEL + output % PANEL
}

/// Where a weight lies in `[P, in / 2, PANEL, 2]`.
fn paired(inputs: usize, output: usize, input: usize) -> usize {
    output / PANEL * PANEL * even(inputs) + (input / 2 * PANEL + output % PANEL) * 2 + input % 2
}

/// Rounds to the nearest, ties to even; a NaN stays one.
pub(super) fn to_bf16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

pub(super) fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// What a row is multiplied by to become integers, and what these are multiplied by to become the row again.
pub(super) fn int8_scale(row: &[f32]) -> (f32, f32) {
    let largest = row.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
    if largest > 0.0 { (127.0 / largest, largest / 127.0) } else { (0.0, 0.0) }
}

/// One panel of some storage, read as vectors of f32.
pub(super) trait Panel: Copy {
    /// The weights of inputs 2·pair and 2·pair + 1 for the outputs `output..output + LANES` of the panel, not scaled.
    ///
    /// # Safety
    /// The panel holds that pair and those outputs.
    unsafe fn pair<S: Simd>(self, s: S, pair: usize, output: usize) -> (S::V, S::V);

    /// The factors of the outputs `output..output + LANES`, where the storage has them.
    ///
    /// # Safety
    /// The panel holds those outputs.
    unsafe fn scales<S: Simd>(self, s: S, output: usize) -> Option<S::V>;
}

/// `[in, PANEL]`
#[derive(Clone, Copy)]
pub(super) struct F32Panel(pub(super) *const f32);

/// `[in / 2, PANEL, 2]`
#[derive(Clone, Copy)]
pub(super) struct Bf16Panel(pub(super) *const u16);

/// `[in, PANEL]` and `[PANEL]`
#[derive(Clone, Copy)]
pub(super) struct Int8Panel(pub(super) *const i8, pub(super) *const f32);

impl Panel for F32Panel {
    #[inline(always)]
    unsafe fn pair<S: Simd>(self, s: S, pair: usize, output: usize) -> (S::V, S::V) {
        // SAFETY: the caller's promise.
        unsafe {
            let row = self.0.add(2 * pair * PANEL + output);
            (s.load(row), s.load(row.add(PANEL)))
        }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(self, _: S, _: usize) -> Option<S::V> {
        None
    }
}

impl Panel for Bf16Panel {
    #[inline(always)]
    unsafe fn pair<S: Simd>(self, s: S, pair: usize, output: usize) -> (S::V, S::V) {
        // SAFETY: the caller's promise.
        unsafe { s.load_bf16_pairs(self.0.add(2 * (pair * PANEL + output))) }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(self, _: S, _: usize) -> Option<S::V> {
        None
    }
}

impl Panel for Int8Panel {
    #[inline(always)]
    unsafe fn pair<S: Simd>(self, s: S, pair: usize, output: usize) -> (S::V, S::V) {
        // SAFETY: the caller's promise.
        unsafe {
            let row = self.0.add(2 * pair * PANEL + output);
            (s.load_i8(row), s.load_i8(row.add(PANEL)))
        }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(self, s: S, output: usize) -> Option<S::V> {
        // SAFETY: the caller's promise.
        Some(unsafe { s.load(self.1.add(output)) })
    }
}
