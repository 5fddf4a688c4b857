//! The associative-memory view (arXiv 2505.19488): what a memory would read back if its keys were independent, to stand
//! beside what a trained one does. All hold for keys in random directions, of which each read asks for one of `pairs`:
//!
//! * a linear state of K rows: SNR = K / (N − 1);
//! * softmax attention, by the exponential kernel, keys of length √K: SNR = e^(2√K − 2) / (N − 1);
//! * an FFN of N channels read at inputs of length √d, relu²: SNR = 2 d² / (3 (N − 1)); SwiGLU, its gate taken for a
//!   ReLU: SNR = d² / (2 (N − 1)).

use crate::architecture::{FfnKind, Layer, Past};
use crate::wire::{LayerRetrieval, Memory};

/// What [`LayerRetrieval::snr`] would be for so many pairs in a stack of width `d`; none where no formula is known, or one
/// pair is alone.
pub fn of_independent_keys(layer: &Layer, memory: Memory, d: u32, pairs: u32) -> Option<f64> {
    let (mixer, ffn) = (layer.mixer.as_ref(), layer.ffn);
    let (signal, held) = match memory {
        Memory::Mixer => {
            let [_, key_width, _] = mixer?.sizes();
            let width = f64::from(key_width);
            let mut pasts = mixer?.pasts();
            let past = pasts.next()?;
            if pasts.next().is_some() {
                return None; // the widths of parallel heads are those of both
            }
            match past {
                Past::Positions { window, .. } => {
                    let held = window.map_or(pairs, |window| window.min(pairs));
                    ((2.0 * width.sqrt() - 2.0).exp(), held)
                }
                Past::States { elements, .. } if elements > 0 => (width, pairs),
                Past::States { .. } => return None,
            }
        }
        Memory::Ffn => {
            let square = f64::from(d).powi(2);
            match ffn?.kind {
                FfnKind::Relu2 => (2.0 / 3.0 * square, pairs),
                FfnKind::SwiGlu => (square / 2.0, pairs),
                FfnKind::Moe(_) => return None,
            }
        }
    };
    (held > 1).then(|| signal / f64::from(held - 1))
}

/// A ratio of powers in decibels; that of nothing is as low as a number that is printed can be.
pub fn decibels(ratio: f64) -> f64 {
    const LOWEST: f64 = 1e-9;
    10.0 * ratio.max(LOWEST).log10()
}

/// The layer whose mixer reads its longest sequence best, with that SNR.
pub fn best_mixer(layers: &[LayerRetrieval]) -> Option<(u32, f64)> {
    let mixers = layers.iter().filter(|of| of.memory == Memory::Mixer);
    let last = mixers.filter_map(|of| Some((of.layer, of.snr.last()?.1)));
    last.max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn independent_keys_read_as_the_formulas_say() {
        let of = |text: &str, memory, pairs| {
            let layer: Layer = text.parse().expect("a layer");
            of_independent_keys(&layer, memory, 64, pairs)
        };
        assert_eq!(of("gdn(h=2,k=16,v=32)", Memory::Mixer, 33), Some(0.5));
        assert_eq!(of("m2(h=2,p=16,n=16)", Memory::Mixer, 17), Some(1.0));
        let softmax = of("attn(h=2,kv=1,k=16)", Memory::Mixer, 2).expect("a formula");
        assert!((softmax - 6.0_f64.exp()).abs() < 1e-9);
        // a window holds no more than itself
        assert_eq!(
            of("swa(h=2,kv=1,k=16,w=9)", Memory::Mixer, 500),
            of("attn(h=2,kv=1,k=16)", Memory::Mixer, 9)
        );
        assert_eq!(of("relu2(129)", Memory::Ffn, 129), Some(64.0 / 3.0));
        assert_eq!(of("ffn(129)", Memory::Ffn, 129), Some(16.0));
        for (text, memory, pairs) in [
            ("gsc(c=16,k=3)", Memory::Mixer, 9),
            ("par(h=2,kv=2,k=16,bh=2,bk=16,bv=16)", Memory::Mixer, 9),
            ("moe(16,e=4,k=1)", Memory::Ffn, 16),
            ("ffn(16)", Memory::Mixer, 16),
            ("gdn(h=2,k=16,v=32)", Memory::Mixer, 1),
        ] {
            assert_eq!(of(text, memory, pairs), None, "{text}");
        }
    }

    #[test]
    fn the_best_mixer_is_told_by_its_longest_sequence() {
        let layer = |layer, memory, snr: &[f64]| LayerRetrieval {
            layer,
            memory,
            snr: (2..).zip(snr.iter().copied()).collect(),
            queries: Vec::new(),
        };
        let layers = [
            layer(0, Memory::Mixer, &[100.0, 1.0]),
            layer(1, Memory::Mixer, &[3.0, 2.0]),
            layer(1, Memory::Ffn, &[50.0]),
        ];
        assert_eq!(best_mixer(&layers), Some((1, 2.0)));
        assert_eq!(best_mixer(&layers[2..]), None);
        let whole = |ratio: f64| decibels(ratio).round() as i32;
        assert_eq!([1000.0, 1.0, 0.0].map(whole), [30, 0, -90]);
    }
}
