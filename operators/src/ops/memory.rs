//! The memory of tensors on the CPU as slices, for the kernels.

use half::bf16;
use kernels::cpu::{Element, Rows};
use kernels::log_linear::Lambda;
use tch::{Device, Kind, Tensor};

use crate::autograd::Operation;

/// The kinds of numbers that kernels take.
pub(crate) trait Stored: Element {
    const KIND: Kind;
}

impl Stored for f32 {
    const KIND: Kind = Kind::Float;
}

impl Stored for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

/// Whether kernels take a tensor: f32 or bf16 on the CPU.
pub(crate) fn suits_kernels(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && matches!(tensor.kind(), Kind::Float | Kind::BFloat16)
}

/// Memory for what has the shapes and kinds of these tensors: their gradients.
pub(crate) fn empty_like(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|x| Tensor::empty(x.size(), (x.kind(), Device::Cpu))).collect()
}

fn check_kind<E: Stored>(tensor: &Tensor) {
    assert!(
        tensor.kind() == E::KIND && tensor.device() == Device::Cpu,
        "a kernel got {:?} on {:?}, it takes {:?} on the CPU",
        tensor.kind(),
        tensor.device(),
        E::KIND
    );
}

fn check<E: Stored>(tensor: &Tensor) -> usize {
    check_kind::<E>(tensor);
    assert!(tensor.is_contiguous(), "kernels take contiguous tensors");
    tensor.numel()
}

/// The elements, row-major, of f32.
pub(crate) fn read(tensor: &Tensor) -> &[f32] {
    elements(tensor)
}

/// The elements of a tensor of f32 that nobody else holds, row-major.
pub(crate) fn write(tensor: &mut Tensor) -> &mut [f32] {
    elements_mut(tensor)
}

/// The elements, row-major.
pub(crate) fn elements<E: Stored>(tensor: &Tensor) -> &[E] {
    let len = check::<E>(tensor);
    if len == 0 {
        return &[];
    }
    // SAFETY: a contiguous tensor of E in the host's memory has `len` elements at its data pointer, which live as long
    // as the tensor; kernels write only to tensors that they made themselves and nobody else holds.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), len) }
}

/// The elements of a tensor that nobody else holds, row-major.
pub(crate) fn elements_mut<E: Stored>(tensor: &mut Tensor) -> &mut [E] {
    let len = check::<E>(tensor);
    if len == 0 {
        return &mut [];
    }
    // SAFETY: as for `elements`; the operation that calls this has just made the tensor.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), len) }
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

/// The elements of an int64 tensor, row-major.
pub(crate) fn read_integers(tensor: &Tensor) -> &[i64] {
    assert!(
        tensor.kind() == Kind::Int64 && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "kernels take contiguous int64 on the CPU"
    );
    let len = tensor.numel();
    if len == 0 {
        return &[];
    }
    // SAFETY: as for `read`.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), len) }
}

/// Dimensions that number the rows: the first two of `[B, T, …]`, the first of `[B, …]`.
fn leading(tensor: &Tensor) -> usize {
    tensor.dim().saturating_sub(1).min(2)
}

/// The distance between the rows of a tensor `[B, T, …]` or `[B, …]` whose rows are whole and equally far apart.
fn row_stride(tensor: &Tensor) -> Option<usize> {
    let (size, stride) = (tensor.size(), tensor.stride());
    let leading = leading(tensor);
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
    if row_stride(tensor).is_some() { tensor.shallow_clone() } else { tensor.contiguous() }
}

/// The rows of `[B, T, …]` or `[B, …]`, made by [`in_rows`].
pub(crate) fn rows<E: Stored>(tensor: &Tensor) -> Rows<'_, E> {
    check_kind::<E>(tensor);
    let stride = row_stride(tensor).expect("`in_rows` made the rows");
    let count = tensor.size()[..leading(tensor)].iter().product::<i64>() as usize;
    let width = tensor.size()[leading(tensor)..].iter().product::<i64>() as usize;
    let len = if count == 0 || width == 0 { 0 } else { (count - 1) * stride + width };
    if len == 0 {
        return Rows::new(&[], 0, width, stride.max(width));
    }
    // SAFETY: the first element of the first row is at the data pointer and the last of the last row `len` − 1 further,
    // both inside the tensor's memory, which lives as long as the tensor.
    let data = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), len) };
    Rows::new(data, count, width, stride)
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
