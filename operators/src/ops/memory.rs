//! Tensors on the CPU as the kernels take them: slices, and rows that are equally far apart.

use half::bf16;
use kernels::cpu::{Element, Rows};
use kernels::log_linear::Lambda;
use tch::{Device, Kind, Tensor};

use crate::libtorch::{Number, Operation, spanned};

pub(crate) use crate::libtorch::{elements, elements_mut};

/// The numbers that kernels take.
pub(crate) trait Stored: Element + Number {}

impl Stored for f32 {}

impl Stored for bf16 {}

/// Whether kernels take a tensor: f32 or bf16 on the CPU.
pub(crate) fn suits_kernels(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && matches!(tensor.kind(), Kind::Float | Kind::BFloat16)
}

/// Memory for what has the shapes and kinds of these tensors: their gradients.
pub(crate) fn empty_like(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|x| Tensor::empty(x.size(), (x.kind(), Device::Cpu))).collect()
}

/// The elements, row-major, of f32.
pub(crate) fn read(tensor: &Tensor) -> &[f32] {
    elements(tensor)
}

/// The elements of a tensor of f32 that nobody else holds, row-major.
pub(crate) fn write(tensor: &mut Tensor) -> &mut [f32] {
    elements_mut(tensor)
}

/// Whether kernels take a tensor as one that they read in f32 only.
pub(crate) fn single_on_cpu(tensor: &Tensor) -> bool {
    tensor.kind() == Kind::Float && tensor.device() == Device::Cpu
}

/// λ `[B, T, H, L]`, row-major.
pub(crate) fn scales(lambda: &Tensor) -> Lambda<'_> {
    let levels = *lambda.size().last().expect("λ is [B, T, H, L]");
    Lambda { values: read(lambda), levels: levels as usize }
}

/// Dimensions that number the rows: the first two of `[B, T, …]`, the first of `[B, …]`.
fn leading(size: &[i64]) -> usize {
    size.len().saturating_sub(1).min(2)
}

/// The distance between the rows of a tensor `[B, T, …]` or `[B, …]` whose rows are whole and equally far apart.
fn row_stride(size: &[i64], stride: &[i64]) -> Option<usize> {
    let leading = leading(size);
    let mut width = 1;
    for i in (leading..size.len()).rev() {
        if size[i] != 1 && stride[i] != width {
            return None;
        }
        width *= size[i];
    }
    let row = match leading {
        0 => width,
        1 if size[0] == 1 => width,
        1 => stride[0],
        _ if size[1] == 1 && size[0] == 1 => width,
        _ if size[1] == 1 => stride[0],
        _ if size[0] == 1 || stride[0] == size[1] * stride[1] => stride[1],
        _ => return None,
    };
    (row >= width).then_some(row as usize)
}

/// The same numbers in rows that [`rows`] takes: the tensor itself, also where it is some columns of a wider one.
pub(crate) fn in_rows(tensor: &Tensor) -> Tensor {
    match row_stride(&tensor.size(), &tensor.stride()) {
        Some(_) => tensor.shallow_clone(),
        None => tensor.contiguous(),
    }
}

/// The rows of `[B, T, …]` or `[B, …]`, made by [`in_rows`].
pub(crate) fn rows<E: Stored>(tensor: &Tensor) -> Rows<'_, E> {
    let size = tensor.size();
    let stride = row_stride(&size, &tensor.stride()).expect("`in_rows` made the rows");
    let count = size[..leading(&size)].iter().product::<i64>() as usize;
    let width = size[leading(&size)..].iter().product::<i64>() as usize;
    match spanned(tensor, &size) {
        [] => Rows::new(&[], 0, width, stride.max(width)),
        values => Rows::new(values, count, width, stride),
    }
}

/// An operation of which the kernel is written once for tensors in f32 and in bf16.
pub(crate) trait StoredOperation: Send + Sync {
    /// As [`Operation::forward`], the first input in E.
    fn run<E: Stored>(&self, inputs: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>);

    /// As [`Operation::backward`], the first input in E.
    fn gradients<E: Stored>(
        &self,
        inputs: &[Tensor],
        kept: &[Tensor],
        d_outputs: &[Tensor],
    ) -> Vec<Tensor>;
}

impl<T: StoredOperation> Operation for T {
    fn forward(&self, inputs: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        match inputs[0].kind() {
            Kind::BFloat16 => self.run::<bf16>(inputs),
            _ => self.run::<f32>(inputs),
        }
    }

    fn backward(&self, inputs: &[Tensor], kept: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        match inputs[0].kind() {
            Kind::BFloat16 => self.gradients::<bf16>(inputs, kept, d_outputs),
            _ => self.gradients::<f32>(inputs, kept, d_outputs),
        }
    }
}
