//! The retrieval SNR of every memory of a trained proxy, against the number of stored pairs (arXiv 2505.19488). It explains
//! why a stack recalls or does not.

use operators::Model;
use operators::retrieval::{LayerReads, Reads};
use search::retrieval::{best_mixer, decibels};
use search::statistics::mean_and_error;
use search::wire::{LayerRetrieval, Memory, Value};
use tch::Tensor;

/// Sequences that the mean is taken over.
pub(crate) const SEQUENCES: i64 = 4;

/// Positions after which the memories are asked, at most: A has the square of it.
const LONGEST: i64 = 512;

/// Asks the memories of `model` after 2, 4, 8, … positions of `tokens` `[B, T]`, and after all of them; with it the value
/// `retrieval_snr_db`, whose standard error is that over the sequences. A stack without a memory reads nothing back.
pub(crate) fn retrieval(model: &Model, tokens: &Tensor) -> (Vec<LayerRetrieval>, Value) {
    let tokens = tokens.narrow(0, 0, tokens.size()[0].min(SEQUENCES));
    let reads = model.reads(&tokens, &positions(tokens.size()[1]));
    let told: Vec<LayerRetrieval> = reads.iter().zip(0..).flat_map(of_layer).collect();
    let value = best_mixer(&told).and_then(|(layer, snr)| {
        let reads = reads[layer as usize].mixer.as_ref()?;
        let each: Vec<f64> = reads.by_sequence.iter().map(|snr| decibels(*snr)).collect();
        let (_, standard_error) = mean_and_error(&each);
        Some(Value { mean: decibels(snr), standard_error })
    });
    (told, value.unwrap_or(Value { mean: decibels(0.0), standard_error: None }))
}

/// The memories of a layer that answered.
fn of_layer((reads, layer): (&LayerReads, u32)) -> impl Iterator<Item = LayerRetrieval> {
    let told = move |memory, reads: &Reads| {
        let points = |all: &[(i64, f64)]| {
            all.iter().map(|(pairs, snr)| (*pairs as u32, *snr)).collect::<Vec<_>>()
        };
        LayerRetrieval { layer, memory, snr: points(&reads.keys), queries: points(&reads.queries) }
    };
    [(Memory::Mixer, &reads.mixer), (Memory::Ffn, &reads.ffn)]
        .into_iter()
        .filter_map(move |(memory, reads)| Some(told(memory, reads.as_ref()?)))
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
