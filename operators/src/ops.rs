//! The mathematics of the mixers on tensors, without weights of their own.
//!
//! Heads stand beside channels at these interfaces, `[B, T, H, K]`. Recurrences and norms compute in f32 when their
//! inputs are narrower ([`wide`]) and return the inputs' kind.

pub mod attention;
pub mod cross_entropy;
pub mod delta_rule;
pub mod gated_conv;
pub mod kda;
pub mod linear;
pub mod linear_attention;
pub mod log_linear;
mod memory;
pub mod norm;
pub mod optimizer;
pub mod relu2;
pub mod rope;
pub mod short_conv;
pub mod swiglu;

use tch::{Device, Kind, Tensor};

/// Positions in a chunk of the chunked forms.
pub const CHUNK: i64 = 64;

/// The kind in which a recurrence or a norm of `kind` is computed.
pub fn wide(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}

/// Cuts the last dimension into parts of these sizes. The gradient is one concatenation, where that of `narrow` would
/// fill a tensor of the whole size for each part.
pub fn parts<const N: usize>(x: &Tensor, sizes: [i64; N]) -> [Tensor; N] {
    x.split_with_sizes(sizes, -1).try_into().expect("as many parts as sizes")
}

/// Lengthens dimension `dim` by `after` zeros.
fn pad_end(x: &Tensor, dim: usize, after: i64) -> Tensor {
    if after == 0 {
        return x.shallow_clone();
    }
    let mut pad = vec![0; 2 * (x.dim() - dim)];
    *pad.last_mut().expect("dim is below x.dim()") = after;
    x.constant_pad_nd(pad)
}

/// `[B, T, H, W]` → `[N, B·H, C, W]`: time in chunks of `c`, the last one filled with zeros.
fn into_chunks(x: &Tensor, c: i64) -> Tensor {
    let (b, t, h, w) = x.size4().expect("[B, T, H, W]");
    let n = (t + c - 1) / c;
    pad_end(x, 1, n * c - t).reshape([b, n, c, h, w]).permute([1, 0, 3, 2, 4]).reshape([
        n,
        b * h,
        c,
        w,
    ])
}

/// `[N, B·H, C, W]` → `[B, T, H, W]`, the inverse of [`into_chunks`].
fn from_chunks(x: &Tensor, b: i64, t: i64) -> Tensor {
    let (n, bh, c, w) = x.size4().expect("[N, B·H, C, W]");
    x.reshape([n, b, bh / b, c, w])
        .permute([1, 0, 3, 2, 4])
        .reshape([b, n * c, bh / b, w])
        .narrow(1, 0, t)
}

/// True above the diagonal: what position i must not see, `[C, C]`.
fn future(c: i64, device: Device) -> Tensor {
    Tensor::ones([c, c], (Kind::Bool, device)).triu(1)
}
