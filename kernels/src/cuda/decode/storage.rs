//! How the step keeps the weights of its matrices, and how a matrix lies in memory in the order of streaming.
//!
//! A unit holds neighbouring rows, two of bf16 or four of 8 bits, × some chunks of 256 columns. Weights of 8 bits have one
//! factor for each row, which is its largest size over the largest of the type (127, 448), and are rounded to the nearest:
//! integers as [`crate::cpu::matrix::Storage::Int8`] has them, and the e4m3 of 8-bit floating point (Micikevicius et al.
//! 2022, arXiv 2209.05433). `eight_bit.cuh` reads what is joined here.

use std::ops::Range;

use crate::cuda::{bf16_bits, bf16_value};

/// Columns of a chunk: 8 of each lane of a warp.
pub const CHUNK_COLUMNS: usize = 256;
/// The largest 8-bit integer that is used, and the largest e4m3.
const LARGEST: (f32, f32) = (127.0, 448.0);

/// What weights of matrices are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Storage {
    /// bfloat16.
    #[default]
    Bf16,
    /// Integers from −127 to 127, with a factor for each row.
    Int8,
    /// e4m3, with a factor for each row.
    Fp8,
}

impl Storage {
    /// The constant that the kernel is compiled with.
    pub(super) fn define(self) -> u32 {
        match self {
            Self::Bf16 => 0,
            Self::Int8 => 1,
            Self::Fp8 => 2,
        }
    }

    /// Rows of a matrix in one unit.
    pub fn rows(self) -> usize {
        if self == Self::Bf16 { 2 } else { 4 }
    }

    /// Bytes of the factors in one unit.
    pub fn factor_bytes(self) -> usize {
        if self == Self::Bf16 { 0 } else { self.rows() * size_of::<f32>() }
    }

    fn weight_bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 1 }
    }

    /// Bytes of a unit of so many chunks.
    pub fn unit_bytes(self, chunks: usize) -> usize {
        self.rows() * chunks * CHUNK_COLUMNS * self.weight_bytes() + self.factor_bytes()
    }

    /// Bytes that must be read of a matrix: its weights, and the factors of its rows.
    pub fn matrix_bytes(self, rows: usize, columns: usize) -> u64 {
        let factors = rows * self.factor_bytes() / self.rows();
        (rows * columns * self.weight_bytes() + factors) as u64
    }

    /// What is left of a matrix, rows of `columns`, when it is kept like this.
    pub fn kept(self, mut values: Vec<f32>, columns: usize) -> Vec<f32> {
        for row in values.chunks_exact_mut(columns) {
            let scale = self.scale(row);
            for value in row {
                *value = match self {
                    Self::Bf16 => bf16_value(bf16_bits(*value)),
                    Self::Int8 | Self::Fp8 => scale.factor * self.value(self.code(*value, scale)),
                };
            }
        }
        values
    }

    /// The columns `taken` of rows of `columns`, row below row, in units of `chunks` chunks, `pieces` of them side by side.
    pub fn packed(
        self,
        rows: &[&[f32]],
        taken: Range<usize>,
        (pieces, chunks): (usize, usize),
    ) -> Vec<u8> {
        let unit_bytes = self.unit_bytes(chunks);
        let piece_columns = chunks * CHUNK_COLUMNS;
        let mut packed = vec![0; rows.len().div_ceil(self.rows()) * pieces * unit_bytes];
        for (number, row) in rows.iter().enumerate() {
            let (group, own) = (number / self.rows(), number % self.rows());
            let scale = self.scale(row);
            for (piece, values) in row[taken.clone()].chunks(piece_columns).enumerate() {
                let unit = &mut packed[(group * pieces + piece) * unit_bytes..][..unit_bytes];
                match self {
                    Self::Bf16 => {
                        for (column, value) in values.iter().enumerate() {
                            let bits = bf16_bits(*value).to_ne_bytes();
                            unit[(own * piece_columns + column) * 2..][..2].copy_from_slice(&bits);
                        }
                    }
                    Self::Int8 | Self::Fp8 => {
                        let (weights, factors) =
                            unit.split_at_mut(unit_bytes - self.factor_bytes());
                        factors[own * 4..][..4].copy_from_slice(&scale.factor.to_ne_bytes());
                        for (chunk, values) in values.chunks(CHUNK_COLUMNS).enumerate() {
                            let two = (own / 2 * chunks + chunk) * 2 * CHUNK_COLUMNS;
                            for (at, four) in values.chunks(4).enumerate() {
                                let mut codes = [0; 4];
                                for (code, value) in codes.iter_mut().zip(four) {
                                    *code = self.code(*value, scale);
                                }
                                let to = two + at / 2 * 16 + own % 2 * 8 + at % 2 * 4;
                                weights[to..][..4].copy_from_slice(&self.joined(codes));
                            }
                        }
                    }
                }
            }
        }
        packed
    }

    fn scale(self, row: &[f32]) -> Scale {
        let most = match self {
            Self::Bf16 => return Scale::default(),
            Self::Int8 => LARGEST.0,
            Self::Fp8 => LARGEST.1,
        };
        let largest = row.iter().fold(0.0_f32, |largest, w| largest.max(w.abs()));
        if largest > 0.0 {
            Scale { inverse: most / largest, factor: largest / most }
        } else {
            Scale::default()
        }
    }

    /// The code of a weight: a sign, then seven bits of size.
    fn code(self, weight: f32, scale: Scale) -> u8 {
        let scaled = weight * scale.inverse;
        let size = match self {
            Self::Int8 => scaled.abs().round() as u8,
            Self::Bf16 | Self::Fp8 => e4m3_size(scaled.abs()),
        };
        size | if scaled < 0.0 { 0x80 } else { 0 }
    }

    /// What a code stands for.
    fn value(self, code: u8) -> f32 {
        let size = match self {
            Self::Int8 => f32::from(code & 0x7f),
            Self::Bf16 | Self::Fp8 => e4m3_value(code & 0x7f),
        };
        if code & 0x80 == 0 { size } else { -size }
    }

    /// The word of four neighbouring codes.
    fn joined(self, [a, b, c, d]: [u8; 4]) -> [u8; 4] {
        let half = |first: u8, second: u8| -> u16 {
            let [sign, size] = [first & 0x80, first & 0x7f].map(u16::from);
            let [other_sign, other] = [second & 0x80, second & 0x7f].map(u16::from);
            match self {
                Self::Int8 => sign << 8 | other << 8 | other_sign | size,
                Self::Bf16 | Self::Fp8 => {
                    sign << 8 | (other & 0x70) << 8 | other_sign << 4 | size << 4 | (other & 0x0f)
                }
            }
        };
        let [low, high] = [half(a, c), half(b, d)].map(u16::to_le_bytes);
        [low[0], low[1], high[0], high[1]]
    }
}

/// By what the weights of a row are multiplied to become codes, and codes to become weights.
#[derive(Debug, Clone, Copy, Default)]
struct Scale {
    inverse: f32,
    factor: f32,
}

/// The e4m3 nearest to a size, of two as near the even one; the largest for what is larger.
fn e4m3_size(size: f32) -> u8 {
    let size = size.min(LARGEST.1);
    // normal from 2^-6 on, with three bits behind the first
    let exponent = ((size.to_bits() >> 23) as i32 - 127).max(-6);
    let steps = (size * 2.0_f32.powi(3 - exponent)).round_ties_even() as i32;
    ((exponent + 6) * 8 + steps) as u8
}

fn e4m3_value(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3), f32::from(code & 7));
    if exponent == 0 {
        fraction * 2.0_f32.powi(-9)
    } else {
        (8.0 + fraction) * 2.0_f32.powi(exponent - 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_e4m3_is_itself_and_what_lies_between_goes_to_the_nearest() {
        let values: Vec<f32> = (0..0x7f).map(e4m3_value).collect();
        assert_eq!(
            (values[1], values[8], values[0x7e]),
            (2.0_f32.powi(-9), 2.0_f32.powi(-6), 448.0)
        );
        for (code, two) in values.windows(2).enumerate() {
            let (code, middle) = (code as u8, f32::midpoint(two[0], two[1]));
            assert!(two[0] < two[1]);
            assert_eq!(e4m3_size(two[0]), code);
            assert_eq!(e4m3_size(middle), code + code % 2, "the even one of two");
            assert_eq!(e4m3_size(middle * 0.999), code);
            assert_eq!(e4m3_size(middle * 1.001), code + 1);
        }
        assert_eq!(e4m3_size(1e9), 0x7e);
    }

    #[test]
    fn what_is_kept_is_near_and_stays_as_it_is() {
        let row: Vec<f32> = crate::cuda::weights::weight("kept", 3 * 257);
        for (storage, of_itself, of_largest) in [
            (Storage::Int8, 0.0, 0.5 / 127.0),
            (Storage::Fp8, 1.0 / 16.0, 2.0_f32.powi(-10) / 448.0),
        ] {
            let kept = storage.kept(row.clone(), 257);
            for (row, kept) in row.chunks(257).zip(kept.chunks(257)) {
                let largest = row.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
                for (w, k) in row.iter().zip(kept) {
                    let most = (w.abs() * of_itself).max(largest * of_largest) * 1.0001;
                    assert!((w - k).abs() <= most, "{storage:?}: {w} became {k}");
                }
            }
            let again = storage.kept(kept.clone(), 257);
            assert!(kept.iter().zip(&again).all(|(a, b)| (a - b).abs() <= a.abs() * 1e-6));
        }
        assert_eq!(Storage::Int8.kept(vec![0.0; 5], 5), [0.0; 5]);
    }

    #[test]
    fn a_unit_has_its_rows_by_lanes_and_their_factors_behind() {
        let row: Vec<f32> =
            (0..260).map(|c| if c == 3 { -127.0 } else { (c % 5) as f32 }).collect();
        let packed = Storage::Int8.packed(&[row.as_slice(); 5], 0..260, (1, 2));
        assert_eq!(packed.len(), 2 * Storage::Int8.unit_bytes(2));
        let unit = &packed[..Storage::Int8.unit_bytes(2)];
        // columns 0 and 2 share a half, 1 and 3 the next
        assert_eq!(unit[..4], [0, 2, 1 | 0x80, 127]);
        assert_eq!(unit[8..12], unit[..4], "the second row of a lane");
        assert_eq!(unit[512..516], [1, 3, 2, 4], "the columns from 256 on");
        assert_eq!(unit[unit.len() - 16..], [1.0_f32; 4].map(f32::to_ne_bytes).concat());
        assert_eq!(packed[packed.len() - 12..], [0; 12], "rows that are not there");
    }
}
