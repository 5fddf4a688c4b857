//! Selective RoPE (arXiv 2511.17388): the angles by which q and k turn are learnt from the input and summed over the
//! past, in place of positions times a constant.

use super::tensor::{CONV_WIDTH, Role, Tensors};

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

    /// Those of a mixer with `heads` keys of `width` channels, if it turns.
    pub(super) fn of(turns: bool, heads: u32, width: u32) -> Option<Self> {
        turns.then_some(Self { heads, half: width / 2 })
    }

    /// Adds its tensors, the last of their mixer.
    pub(super) fn tensors(self, d: u64, list: &mut Tensors) {
        let angles = self.channels();
        list.add("phi_down.weight", &[Self::RANK, d], Role::Reader);
        list.add("phi_up.weight", &[angles, Self::RANK], Role::Inner);
        list.add("phi_conv.weight", &[angles, CONV_WIDTH], Role::ConvWeight);
    }

    /// Parameters at width `d`: the projection's two factors and four taps for each angle.
    pub fn parameters(self, d: u64) -> u64 {
        Self::RANK * d + (Self::RANK + CONV_WIDTH) * self.channels()
    }

    /// Operations on one token at width `d`. The angles' sums and the turning are left out as rotary positions are.
    pub(super) fn token_flops(self, d: f64) -> f64 {
        let (rank, angles) = (Self::RANK as f64, self.channels() as f64);
        2.0 * rank * (d + angles) + 2.0 * CONV_WIDTH as f64 * angles
    }

    /// Elements that it keeps of a sequence: the last three inputs of its convolution, and the sums.
    pub(crate) fn state_elements(self) -> u64 {
        CONV_WIDTH * self.channels()
    }
}
