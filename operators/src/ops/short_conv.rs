//! The short convolution: depthwise, causal, four taps, then SiLU.

mod kernel;

use tch::Tensor;

use crate::gpu;

/// Taps; the last one multiplies the current position.
pub const WIDTH: i64 = 4;

/// `silu(conv(x) + bias)`. x `[B, T, C]`, weight `[C, 4]`, bias `[C]`; `state` `[B, 3, C]` holds the inputs before x,
/// oldest first, and is moved on; none stands for zeros. By the kernels of the CPU or the GPU where they apply.
pub fn conv_silu(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    state: Option<&mut Tensor>,
) -> Tensor {
    if state.is_none() && gpu::suits_conv(x) {
        return gpu::conv_silu(x, weight, bias);
    }
    if !kernel::suits(x, weight, bias) {
        return conv_silu_by_torch(x, weight, bias, state);
    }
    let y = kernel::conv_silu(x, weight, bias, state.as_deref());
    if let Some(state) = state {
        let last = x.narrow(1, (x.size()[1] - (WIDTH - 1)).max(0), x.size()[1].min(WIDTH - 1));
        let kept = state.narrow(1, last.size()[1], WIDTH - 1 - last.size()[1]);
        *state = Tensor::cat(&[&kept.to_kind(x.kind()), &last], 1);
    }
    y
}

/// [`conv_silu`] in torch operators.
pub fn conv_silu_by_torch(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    state: Option<&mut Tensor>,
) -> Tensor {
    let (_, t, c) = x.size3().expect("[B, T, C]");
    let padded = match &state {
        Some(state) => Tensor::cat(&[&state.to_kind(x.kind()), x], 1),
        None => x.constant_pad_nd([0, 0, WIDTH - 1, 0]),
    };
    if let Some(state) = state {
        *state = padded.narrow(1, t, WIDTH - 1).contiguous();
    }
    let bias = bias.map(|bias| bias.to_kind(x.kind()));
    // as an image of height 1 whose channels come last, which is how it lies in memory: no transposing copies
    let image = padded.transpose(1, 2).unsqueeze(2); // [B, C, 1, 3 + T]
    let y = image.conv2d(
        &weight.to_kind(x.kind()).reshape([c, 1, 1, WIDTH]),
        bias.as_ref(),
        1,
        0,
        1,
        c,
    );
    y.silu().squeeze_dim(2).transpose(1, 2)
}

/// The same for one position, x `[B, C]`.
pub fn conv_silu_step(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    state: &mut Tensor,
) -> Tensor {
    // [B, 4, C]
    let window = Tensor::cat(&[&state.to_kind(x.kind()), &x.unsqueeze(1)], 1);
    *state = window.narrow(1, 1, WIDTH - 1).contiguous();
    let y = (window * weight.transpose(0, 1)).sum_dim_intlist(1, false, x.kind());
    match bias {
        Some(bias) => (y + bias).silu(),
        None => y.silu(),
    }
}
