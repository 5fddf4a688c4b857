//! The retrieval SNR of every layer of a trained proxy, against the number of stored pairs (arXiv 2505.19488). It explains
//! why a stack recalls or does not.

use operators::Model;
use search::wire::LayerRetrieval;
use tch::Tensor;

/// Sequences that the mean is taken over.
pub(crate) const SEQUENCES: i64 = 4;

/// Positions after which the memories are asked, at most: A has the square of it.
const LONGEST: i64 = 512;

/// Asks the memories of `model` after 2, 4, 8, … positions of `tokens` `[B, T]`, and after all of them.
pub(crate) fn retrieval(model: &Model, tokens: &Tensor) -> Vec<LayerRetrieval> {
    let tokens = tokens.narrow(0, 0, tokens.size()[0].min(SEQUENCES));
    let layers = model.retrieval(&tokens, &positions(tokens.size()[1]));
    let layers = layers.into_iter().zip(0..).filter_map(|(reads, layer)| Some((layer, reads?)));
    layers
        .map(|(layer, reads)| {
            let snr = reads.iter().map(|read| (read.pairs() as u32, read.snr())).collect();
            LayerRetrieval { layer, snr }
        })
        .collect()
}

/// The powers of two from 2 below `length`, then `length` itself.
fn positions(length: i64) -> Vec<i64> {
    let length = length.min(LONGEST);
    let powers = std::iter::successors(Some(2), |n| Some(2 * n)).take_while(|n| *n < length);
    powers.chain((length >= 2).then_some(length)).collect()
}

#[cfg(test)]
mod tests {
    use super::positions;

    #[test]
    fn positions_rise_to_the_whole_sequence() {
        assert_eq!(positions(1), [0; 0]);
        assert_eq!(positions(2), [2]);
        assert_eq!(positions(24), [2, 4, 8, 16, 24]);
        assert_eq!(positions(64), [2, 4, 8, 16, 32, 64]);
        assert_eq!(positions(10_000).last(), Some(&512));
    }
}
