//! Selective RoPE (arXiv 2511.17388): the angles by which q and k turn are learnt from the input and summed over the
//! past, in place of positions times a constant.

use super::Mixer;

/// What the angles of a mixer with Selective RoPE are made of:
/// φ = conv4(up · down · l2norm(x)), angle_i = θ^(−2i/K) · Σ_{s≤t} φ_{s,i}.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// Heads that turn on their own: those of k. Query heads that share a key head turn with it.
    pub heads: u32,
    /// Channels of a head over two: one angle for each pair (i, i + K/2).
    pub half: u32,
}

impl Phases {
    /// Rank of the projection, as in the paper's models.
    pub const RANK: u64 = 16;
    /// θ of the paper's models.
    pub const THETA: f64 = 5e5;

    /// Angles of a position.
    pub fn channels(self) -> u64 {
        u64::from(self.heads) * u64::from(self.half)
    }

    /// Channels of x that are normed together: a head's share, as the paper's code has it, which refuses widths that the
    /// heads do not divide; there all of x.
    pub fn norm_width(self, d_model: u64) -> u64 {
        let heads = u64::from(self.heads);
        if d_model.is_multiple_of(heads) { d_model / heads } else { d_model }
    }

    /// Parameters at width `d`: the projection's two factors and four taps for each angle.
    pub fn parameters(self, d: u64) -> u64 {
        Self::RANK * d + (Self::RANK + crate::tensors::CONV_WIDTH) * self.channels()
    }
}

impl Mixer {
    /// What the mixer turns q and k by, if it has Selective RoPE.
    pub fn phases(&self) -> Option<Phases> {
        let (turns, heads, width) = if let Self::Attention(a) = self {
            (a.selective_rope, a.kv_heads, a.head_width)
        } else {
            let family = self.delta()?;
            (family.selective_rope, family.heads, family.key_width)
        };
        turns.then_some(Phases { heads, half: width / 2 })
    }
}
