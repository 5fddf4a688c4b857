//! Weights side by side as the products want them, and what a sequence leaves behind.

use kernels::cuda::weights::weight;
use kernels::cuda::{Error, Machine, bf16_bits, upload_new};
use search::architecture::Attention;

use crate::cuda::shapes::{Load, rotations_of};

/// A matrix on the machine, bf16 `[outputs, inputs]`, its parts each from a multiple of 8 rows on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub address: u64,
    pub outputs: usize,
    pub inputs: usize,
}

/// Puts weights and pasts on a machine.
pub(super) struct Builder<'a> {
    machine: &'a mut dyn Machine,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Positions that caches must hold.
    pub positions: usize,
    /// Sequences.
    pub batch: usize,
    /// Whether weights and pasts are filled on the machine, whatever `load` gives.
    pub pretends: bool,
    /// What was taken so far.
    pub memory: Vec<u64>,
    /// Of heads of each width and positions of each kind.
    rotations: Vec<([u32; 3], u64)>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        machine: &'a mut dyn Machine,
        [d_model, positions, batch]: [usize; 3],
        pretends: bool,
    ) -> Self {
        let (memory, rotations) = (Vec::new(), Vec::new());
        Self { machine, d_model, positions, batch, pretends, memory, rotations }
    }

    pub(super) fn keep(
        &mut self,
        make: impl FnOnce(&mut dyn Machine) -> Result<u64, Error>,
    ) -> Result<u64, Error> {
        let address = make(self.machine)?;
        self.memory.push(address);
        Ok(address)
    }

    /// What is made for each sequence: zeros, or when it pretends some past.
    pub(super) fn past(&mut self, bytes: usize) -> Result<u64, Error> {
        let pretends = self.pretends;
        self.keep(|machine| {
            let address = machine.allocate(bytes)?;
            if pretends {
                machine.pretend(address, bytes)?;
            } else {
                machine.upload(address, &vec![0; bytes])?;
            }
            Ok(address)
        })
    }

    pub(super) fn values(&mut self, values: &[f32]) -> Result<u64, Error> {
        self.keep(|machine| upload_new(machine, values))
    }

    /// An f32 tensor.
    pub(super) fn vector(&mut self, load: Load, name: &str, count: usize) -> Result<u64, Error> {
        let values = if self.pretends { weight(name, count) } else { load(name, count) };
        self.values(&values)
    }

    /// Matrices of so many rows below each other.
    pub(super) fn matrix(
        &mut self,
        load: Load,
        parts: &[(&str, usize)],
        inputs: usize,
    ) -> Result<Matrix, Error> {
        if inputs == 0 || !inputs.is_multiple_of(8) {
            return Err(Error::Shape {
                what: format!("the columns of {}", parts[0].0),
                expected: "a multiple of 8 on a GPU".to_owned(),
                got: inputs.to_string(),
            });
        }
        let outputs = parts.iter().map(|(_, rows)| rows.next_multiple_of(8)).sum::<usize>();
        let bytes = 2 * outputs * inputs;
        let address = if self.pretends {
            self.keep(|machine| {
                let address = machine.allocate(bytes)?;
                machine.pretend(address, bytes)?;
                Ok(address)
            })?
        } else {
            let mut bits: Vec<u16> = Vec::with_capacity(outputs * inputs);
            for (name, rows) in parts {
                bits.extend(load(name, rows * inputs).into_iter().map(bf16_bits));
                bits.resize(bits.len().next_multiple_of(8 * inputs), 0);
            }
            self.keep(|machine| upload_new(machine, &bits))?
        };
        Ok(Matrix { address, outputs, inputs })
    }

    /// Cosine and sine by position, for heads of `shape`.
    pub(super) fn rotations(&mut self, shape: &Attention) -> Result<u64, Error> {
        let kind = [shape.head_width, shape.rotary_width(), shape.rope_theta];
        if let Some((_, address)) = self.rotations.iter().find(|(of, _)| *of == kind) {
            return Ok(*address);
        }
        let address = self.values(&rotations_of(shape, self.positions))?;
        self.rotations.push((kind, address));
        Ok(address)
    }
}
