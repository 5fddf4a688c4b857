//! The gated short convolution: C ⊙ conv(B ⊙ x̃), depthwise and causal.

mod kernel;

use tch::Tensor;

use crate::gpu;
use crate::ops::{parts, wide};

/// y `[B, T, C]` of `rows` `[B, T, 3·C]`, in each B, C and x̃; weight `[C, k]`. `state` `[B, k − 1, C]` holds B ⊙ x̃ of the
/// positions before, oldest first, and is moved on; none stands for zeros. By the kernels of the CPU or
/// the GPU where they apply.
pub fn gated_conv(rows: &Tensor, weight: &Tensor, state: Option<&mut Tensor>) -> Tensor {
    if state.is_none() && gpu::suits_gated_conv(rows, weight) {
        return gpu::gated_conv(rows, weight);
    }
    if !kernel::suits(rows, weight) {
        return gated_conv_by_torch(rows, weight, state);
    }
    let y = kernel::gated_conv(rows, weight, state.as_deref());
    if let Some(state) = state {
        let t = rows.size()[1];
        let last = rows.narrow(1, (t - state.size()[1]).max(0), t.min(state.size()[1]));
        let last = products(&last.to_kind(wide(rows.kind())));
        let kept = state.narrow(1, last.size()[1], state.size()[1] - last.size()[1]);
        *state = Tensor::cat(&[&kept, &last], 1);
    }
    y
}

/// [`gated_conv`] in torch operators, in the kind of `rows`.
pub fn gated_conv_by_torch(rows: &Tensor, weight: &Tensor, state: Option<&mut Tensor>) -> Tensor {
    let (_, t, width) = rows.size3().expect("rows are [B, T, 3·C]");
    let (c, taps) = weight.size2().expect("the weight is [C, k]");
    let [b, gate, x] = parts(rows, [width / 3; 3]);
    let products = b * x; // [B, T, C]
    let padded = match &state {
        Some(state) => Tensor::cat(&[&state.to_kind(rows.kind()), &products], 1),
        None => products.constant_pad_nd([0, 0, taps - 1, 0]),
    };
    if let Some(state) = state {
        *state = padded.narrow(1, t, taps - 1).to_kind(wide(rows.kind())).contiguous();
    }
    // as an image of height 1 whose channels come last, which is how it lies in memory: no transposing copies
    let image = padded.transpose(1, 2).unsqueeze(2); // [B, C, 1, k − 1 + T]
    let weight = weight.to_kind(rows.kind()).reshape([c, 1, 1, taps]);
    let convolved = image.conv2d(&weight, None::<&Tensor>, 1, 0, 1, c);
    gate * convolved.squeeze_dim(2).transpose(1, 2)
}

/// The same for one position, `rows` `[B, 3·C]`.
pub fn gated_conv_step(rows: &Tensor, weight: &Tensor, state: &mut Tensor) -> Tensor {
    let kind = rows.kind();
    let [b, gate, x] = parts(rows, [rows.size()[1] / 3; 3]);
    let product = (b * x).to_kind(state.kind()).unsqueeze(1);
    let window = Tensor::cat(&[&*state, &product], 1); // [B, k, C]
    *state = window.narrow(1, 1, window.size()[1] - 1).contiguous();
    let convolved = (window * weight.transpose(0, 1)).sum_dim_intlist(1, false, state.kind());
    gate * convolved.to_kind(kind)
}

/// B ⊙ x̃ of rows `[…, 3·C]`.
fn products(rows: &Tensor) -> Tensor {
    let width = rows.size().last().expect("rows have columns") / 3;
    let [b, _, x] = parts(rows, [width; 3]);
    b * x
}
