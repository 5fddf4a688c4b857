//! Which windows of the training tokens make the batches: a function of the seed and the number of the sequence alone,
//! so that a resumed training draws what an uninterrupted one would have drawn, whatever torch's generators did.
//!
//! An epoch goes once through windows that do not overlap, in a random order; each epoch cuts them at another offset.

/// A source of window starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    seed: u64,
    tokens: u64,
    sequence_length: u64,
    windows: u64,
}

impl Sampler {
    /// Over `tokens` training tokens, of which a window takes `sequence_length` and its last target.
    pub fn new(seed: u64, tokens: u64, sequence_length: u64) -> Self {
        assert!(tokens > sequence_length, "the corpus has been checked for one sequence");
        let windows = ((tokens - sequence_length) / sequence_length).max(1);
        Self { seed, tokens, sequence_length, windows }
    }

    /// Windows in an epoch.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// First token of the `index`-th sequence of the training.
    pub fn start(&self, index: u64) -> u64 {
        let (epoch, place) = (index / self.windows, index % self.windows);
        let key = mix(self.seed ^ mix(epoch));
        let last_offset =
            (self.tokens - 1 - self.windows * self.sequence_length).min(self.sequence_length - 1);
        let offset = mix(key) % (last_offset + 1);
        offset + permute(place, self.windows, key) * self.sequence_length
    }
}

/// SplitMix64's finaliser: every bit of the result depends on every bit of `x`.
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The place of `index` in a pseudo-random permutation of `0..n`: a Feistel network on the smallest even number of bits
/// that holds `n`, walked until it lands inside. Needs no memory, however large the corpus.
fn permute(index: u64, n: u64, key: u64) -> u64 {
    let half = (u64::BITS - (n - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1_u64 << half) - 1;
    let mut x = index;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..6 {
            (left, right) = (right, left ^ (mix(key ^ mix(right ^ (round << 56))) & mask));
        }
        x = (left << half) | right;
        if x < n {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_takes_every_place_once() {
        for n in [1, 2, 3, 7, 63, 64, 65, 100, 1000] {
            for key in [0, 1, 12345] {
                let mut places: Vec<u64> = (0..n).map(|index| permute(index, n, key)).collect();
                places.sort_unstable();
                assert!(places.into_iter().eq(0..n), "n {n}, key {key}");
            }
        }
    }

    #[test]
    fn an_epoch_covers_windows_that_do_not_overlap_and_lie_inside() {
        for (tokens, sequence_length) in [(65, 64), (100, 64), (129, 64), (1000, 7), (1003, 1)] {
            let sampler = Sampler::new(3, tokens, sequence_length);
            for epoch in 0..3 {
                let first = epoch * sampler.windows();
                let mut starts: Vec<u64> =
                    (first..first + sampler.windows()).map(|i| sampler.start(i)).collect();
                starts.sort_unstable();
                assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= sequence_length));
                assert!(
                    starts.iter().all(|start| start + sequence_length < tokens),
                    "{tokens} {sequence_length}"
                );
            }
        }
    }

    #[test]
    fn seeds_and_epochs_differ() {
        let order = |seed, epoch: u64| -> Vec<u64> {
            let sampler = Sampler::new(seed, 10_000, 10);
            (0..20).map(|i| sampler.start(epoch * sampler.windows() + i)).collect()
        };
        assert_ne!(order(1, 0), order(2, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_eq!(order(1, 0), order(1, 0));
    }
}
