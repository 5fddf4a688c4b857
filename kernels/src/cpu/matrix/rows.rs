//! Weights that are looked up by rows and never multiplied: an embedding that is not the head as well.

use super::panels::{Storage, from_bf16, int8_scale, to_bf16};

/// A table of rows in some storage.
#[derive(Debug, Clone)]
pub struct Rows {
    width: usize,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    Int8(Vec<i8>, Vec<f32>),
}

impl Rows {
    /// Keeps row-major weights of rows of `width`, as [`super::Matrix::pack`] would.
    pub fn pack(weights: &[f32], width: usize, storage: Storage) -> Self {
        let values = match storage {
            Storage::F32 => Values::F32(weights.to_vec()),
            Storage::Bf16 => Values::Bf16(weights.iter().map(|w| to_bf16(*w)).collect()),
            Storage::Int8 => {
                let rows = weights.chunks_exact(width.max(1));
                let (factors, scales): (Vec<f32>, Vec<f32>) = rows.clone().map(int8_scale).unzip();
                let values = rows
                    .zip(factors)
                    .flat_map(|(row, factor)| row.iter().map(move |w| (w * factor).round() as i8))
                    .collect();
                Values::Int8(values, scales)
            }
        };
        Self { width, values }
    }

    /// Copies a row into `out`, `[width]`.
    pub fn read(&self, row: usize, out: &mut [f32]) {
        let at = row * self.width..(row + 1) * self.width;
        match &self.values {
            Values::F32(values) => out.copy_from_slice(&values[at]),
            Values::Bf16(values) => {
                out.iter_mut().zip(&values[at]).for_each(|(x, w)| *x = from_bf16(*w));
            }
            Values::Int8(values, scales) => {
                let scale = scales[row];
                out.iter_mut().zip(&values[at]).for_each(|(x, w)| *x = f32::from(*w) * scale);
            }
        }
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::F32(values) => size_of_val(&values[..]),
            Values::Bf16(values) => size_of_val(&values[..]),
            Values::Int8(values, scales) => size_of_val(&values[..]) + size_of_val(&scales[..]),
        }
    }
}
