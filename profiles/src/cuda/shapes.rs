//! What the two ways through a model read alike in an architecture.

use kernels::cuda::attention::rotations;
use search::Architecture;
use search::architecture::{Attention, Delta, Ffn, FfnKind, Kda, Phases};

use crate::error::ProfileError;

/// Gives a tensor by its name and size: matrices row-major `[out, in]`, names as in a checkpoint.
pub type Load<'a> = &'a mut dyn FnMut(&str, usize) -> Vec<f32>;

/// Cosine and sine by position for the heads of `shape`, `[positions, K/2, 2]`: of the pairs of channels those that turn
/// come first, by their positions, and the others stay; without rotary positions nothing turns.
pub(super) fn rotations_of(shape: &Attention, positions: usize) -> Vec<f32> {
    let [width, turned] = [shape.head_width, shape.rotary_width()].map(|n| n as usize);
    if turned == 0 {
        return [1.0, 0.0].repeat(positions * width / 2);
    }
    let table = rotations(positions, turned, shape.rope_theta.into());
    let still = [1.0, 0.0].repeat((width - turned) / 2);
    table.chunks_exact(turned).flat_map(|row| row.iter().chain(&still)).copied().collect()
}

/// The tensors of `shape` with the channels of q and k in another order where only the first of a head turn, channel i with
/// channel i + half of *those*: kernels turn channel i with i + K/2. In what order channels are, scores do not say.
pub(super) fn paired<'a>(
    shape: &Attention,
    load: Load<'a>,
) -> impl FnMut(&str, usize) -> Vec<f32> + use<'a> {
    let [width, turned] = [shape.head_width, shape.rotary_width()].map(|n| n as usize);
    let rest = (width - turned) / 2;
    // pairs that turn, pairs that stay: the first of each, then the second
    let order = [0..turned / 2, turned..turned + rest, turned / 2..turned, turned + rest..width];
    let [heads, kv_heads] = [shape.heads, shape.kv_heads].map(|n| n as usize);
    let part = turned != 0 && turned != width;
    move |name, count| {
        let values = load(name, count);
        // q_norm of one head or of all
        let row = match name {
            "q.weight" => count / (heads * width),
            "k.weight" => count / (kv_heads * width),
            "q_norm.weight" | "k_norm.weight" => 1,
            _ => return values,
        };
        if !part {
            return values;
        }
        let head = |head: &[f32]| -> Vec<f32> {
            let channels = order.iter().cloned().flatten();
            channels.flat_map(|c| &head[c * row..][..row]).copied().collect()
        };
        values.chunks_exact(width * row).flat_map(head).collect()
    }
}

/// W of full-rank Selective RoPE, `[H·K/2, share]`: rows of unit length times the scale of their head.
pub(super) fn full_rank_rows(phases: Phases, share: usize, load: Load) -> Vec<f32> {
    let mut rows = load("phi_full.weight", phases.channels() as usize * share);
    let scales = load("phi_scale", phases.heads as usize);
    let half = phases.half as usize;
    for (angle, row) in rows.chunks_exact_mut(share).enumerate() {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        for x in row {
            *x *= scales[angle / half] / length;
        }
    }
    rows
}

/// Heads, the widths of keys and of values, and the rank of the projections behind decays and gate.
pub(super) fn kda_extents(shape: &Kda) -> [usize; 4] {
    let rank = shape.rank() as usize;
    [shape.heads as usize, shape.key_width as usize, shape.value_width as usize, rank]
}

/// Key heads, value heads, the widths of keys and of values, and the delta steps of a token.
pub(super) fn delta_extents(shape: &Delta) -> [usize; 5] {
    let (heads, value_heads) = (shape.heads, shape.value_heads());
    [heads, value_heads, shape.key_width, shape.value_width, shape.steps_per_token()]
        .map(|n| n as usize)
}

/// Whether there are kernels for all of its mixers and FFNs, as far as genes say it; which widths they take the builders check.
///
/// # Errors
/// When there are none for one of them, which the message names.
pub fn check_covered(architecture: &Architecture) -> Result<(), ProfileError> {
    architecture.layers().iter().try_for_each(|layer| match layer.ffn {
        Some(Ffn { kind: FfnKind::Moe(of), .. }) if of.per_token > MOST_CHOSEN => {
            Err(not_covered(&format!("tokens that go through more than {MOST_CHOSEN} experts")))
        }
        Some(_) | None => Ok(()),
    })
}

/// Experts of a token that a warp keeps, one a lane.
const MOST_CHOSEN: u32 = 32;

fn not_covered(missing: &str) -> ProfileError {
    ProfileError::Conditions(format!(
        "no kernel of the GPU covers {missing}; leave them out of [space], or time with latency.device = \"cpu\""
    ))
}
