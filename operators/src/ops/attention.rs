//! Softmax attention, causal: over everything before, or over a window in blocks.

mod kernel;

use kernel::{by_kernel, suits_kernel};
use tch::{Device, Kind, Tensor};

/// Causal attention of T new positions over `past` cached and T new ones. q `[B, H, T, K]`, k and v
/// `[B, H_kv, past + T, ·]`; H_kv divides H. Returns `[B, H, T, V]`.
pub fn full(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    if suits_kernel(q, k, v) {
        return by_kernel(q, k, v, None);
    }
    full_by_torch(q, k, v)
}

/// [`full`] in torch operators.
pub fn full_by_torch(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let (t, keys) = (q.size()[2], k.size()[2]);
    if t == keys && t > 1 && q.device().is_cuda() {
        // libtorch's kernels there read a shared head where it is
        let grouped = k.size()[1] != q.size()[1];
        return Tensor::scaled_dot_product_attention(
            q,
            k,
            v,
            None::<Tensor>,
            0.0,
            true,
            None::<f64>,
            grouped,
        );
    }
    let (k, v) = (repeat_heads(k, q.size()[1]), repeat_heads(v, q.size()[1]));
    if t == keys || t == 1 {
        return attend(q, &k, &v, None, t == keys && t > 1);
    }
    let allowed = Tensor::ones([t, keys], (Kind::Bool, q.device())).tril(keys - t);
    attend(q, &k, &v, Some(allowed), false)
}

/// Attention over the last `window` positions, self included. k and v hold at most `window − 1` positions before the
/// first of q; shapes as in [`full`].
pub fn windowed(q: &Tensor, k: &Tensor, v: &Tensor, window: i64) -> Tensor {
    if suits_kernel(q, k, v) {
        return by_kernel(q, k, v, Some(window));
    }
    windowed_by_torch(q, k, v, window)
}

/// [`windowed`] in torch operators.
///
/// Queries stand in blocks of half a window, each with the blocks of keys that its window can reach, so that the work
/// grows with T · window and not with T².
pub fn windowed_by_torch(q: &Tensor, k: &Tensor, v: &Tensor, window: i64) -> Tensor {
    let (b, h, t, key_width) = q.size4().expect("q is [B, H, T, K]");
    let value_width = v.size()[3];
    let past = k.size()[2] - t;
    if past + t <= window {
        return full_by_torch(q, k, v);
    }
    let block = ((window - 1) / 2 + 1).max(16);
    let reach = (window - 1 + block - 1) / block; // blocks before a query's own
    let n = (t + block - 1) / block;
    let filler = reach * block - past; // zeros before the first key, masked below
    let after = n * block - t;
    // [B, H, (reach + N)·block, W] → [N, B·H, (reach + 1)·block, W]
    let neighbours = |x: &Tensor| {
        let x = repeat_heads(x, h);
        let w = x.size()[3];
        let x = x.constant_pad_nd([0, 0, filler, after]).reshape([b * h, reach + n, block, w]);
        let shifted: Vec<Tensor> = (0..=reach).map(|i| x.narrow(1, i, n)).collect();
        Tensor::cat(&shifted, 2).transpose(0, 1)
    };
    let q =
        q.constant_pad_nd([0, 0, 0, after]).reshape([b * h, n, block, key_width]).transpose(0, 1);
    let mask = mask(window, block, reach, past, n, q.device());
    let o = attend(&q, &neighbours(k), &neighbours(v), Some(mask), false); // [N, B·H, block, V]
    o.transpose(0, 1).reshape([b, h, n * block, value_width]).narrow(2, 0, t)
}

/// The weights that a query equal to each stored key gives to the stored values: k `[B, H_kv, N, K]` → `[B, H_kv, N, N]`,
/// zero for keys that have left the window.
pub(crate) fn read_back(k: &Tensor, window: Option<i64>) -> Tensor {
    let (n, width) = (k.size()[2], k.size()[3]);
    let mut scores = k.matmul(&k.transpose(-1, -2)) * (width as f64).powf(-0.5);
    if let Some(gone) = window.map(|window| n - window).filter(|gone| *gone > 0) {
        let _ = scores.narrow(-1, 0, gone).fill_(f64::NEG_INFINITY);
    }
    scores = scores.softmax(-1, scores.kind());
    scores
}

/// The weights that each query gives to the values up to it: q `[B, H, T, K]`, k `[B, H_kv, T, K]` → `[B, H, T, T]`, zero for
/// keys outside its window.
pub(crate) fn read(q: &Tensor, k: &Tensor, window: Option<i64>) -> Tensor {
    let (_, heads, t, width) = q.size4().expect("q is [B, H, T, K]");
    let scores = q.matmul(&repeat_heads(k, heads).transpose(-1, -2)) * (width as f64).powf(-0.5);
    let at = Tensor::arange(t, (Kind::Int64, q.device()));
    let distance = at.unsqueeze(1) - at.unsqueeze(0);
    let unseen = distance.lt(0).logical_or(&distance.ge(window.unwrap_or(t)));
    scores.masked_fill(&unseen, f64::NEG_INFINITY).softmax(-1, scores.kind())
}

/// What each block may see, `[N, 1, block, (reach + 1)·block]`.
fn mask(window: i64, block: i64, reach: i64, past: i64, n: i64, device: Device) -> Tensor {
    let int = (Kind::Int64, device);
    let start = (Tensor::arange(n, int) * block).reshape([n, 1, 1, 1]);
    let query = Tensor::arange(block, int).reshape([block, 1]); // position within its block
    let key = Tensor::arange((reach + 1) * block, int) - reach * block; // relative to the same block
    let distance = query - &key;
    let near = distance.ge(0).logical_and(&distance.lt(window));
    near.logical_and(&(start + key).ge(-past))
}

fn attend(q: &Tensor, k: &Tensor, v: &Tensor, allowed: Option<Tensor>, causal: bool) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, allowed, 0.0, causal, None::<f64>, false)
}

/// `[B, H_kv, T, K]` → `[B, H, T, K]`: each key head serves H / H_kv neighbouring query heads.
pub(crate) fn repeat_heads(x: &Tensor, heads: i64) -> Tensor {
    let (b, h, t, w) = x.size4().expect("[B, H, T, K]");
    if h == heads {
        return x.shallow_clone();
    }
    x.unsqueeze(2).expand([b, h, heads / h, t, w], false).reshape([b, heads, t, w])
}
