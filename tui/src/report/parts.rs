//! The parts of a stack whose times add up to its latency: which layer each is of, and what it must at least move and
//! compute.

use search::Architecture;
use search::cost;
use search::latency::{Conditions, Part, Phase};

/// The number of the layer of each part; of the head a dash.
pub(crate) fn layers(architecture: &Architecture) -> Vec<String> {
    let layers = (1_usize..).zip(architecture.layers());
    let of_layers = layers.flat_map(|(number, layer)| {
        let parts = usize::from(layer.mixer.is_some()) + usize::from(layer.ffn.is_some());
        std::iter::repeat_n(number.to_string(), parts)
    });
    of_layers.chain(["–".to_owned()]).collect()
}

/// What a part is called beside its layer.
pub(crate) fn name(part: &Part) -> String {
    match *part {
        Part::Mixer { mixer, .. } => mixer.to_string(),
        Part::Ffn { ffn, .. } => ffn.to_string(),
        Part::Head { vocab, .. } => format!("embedding, norm, head({vocab})"),
    }
}

/// Bytes that a step of a part must move, and its floating-point operations.
pub(crate) fn work(part: &Part, conditions: &Conditions) -> (f64, f64) {
    let Conditions { dtype, batch, phase, .. } = *conditions;
    let tokens = match phase {
        Phase::Decode { .. } => batch,
        Phase::Prefill { tokens } => batch.saturating_mul(tokens),
    };
    let weights = cost::part_weight_bytes(part, dtype, tokens) as f64;
    let flops = f64::from(batch) * cost::part_flops(part, phase);
    let bytes = match phase {
        Phase::Decode { context } => {
            let of_one = cost::part_weight_bytes(part, dtype, 1);
            let of_sequence = cost::part_decode_bytes(part, context, dtype) - of_one;
            weights + f64::from(batch) * of_sequence as f64
        }
        Phase::Prefill { .. } => weights,
    };
    (bytes, flops)
}

#[cfg(test)]
mod tests {
    use search::latency::Dtype;

    use super::*;

    #[test]
    fn parts_are_named_by_their_layers() {
        let architecture: Architecture =
            "d=32,vocab=9 | ffn(8) | attn(h=1,kv=1,k=8)+ffn(8) | swa(h=1,kv=1,k=8,w=4)"
                .parse()
                .expect("valid");
        assert_eq!(layers(&architecture), ["1", "2", "2", "3", "–"]);
    }

    #[test]
    fn a_batch_shares_the_weights_and_has_states_of_its_own() {
        let stack: Architecture = "d=32,vocab=9 | gdn(h=1,k=8,v=8)".parse().expect("valid");
        let part = search::latency::parts(&stack).next().expect("a mixer");
        let at = |batch| {
            let phase = Phase::Decode { context: 7 };
            work(
                &part,
                &Conditions { device: String::new(), dtype: Dtype::F32, batch, threads: 1, phase },
            )
        };
        let (one, four) = (at(1), at(4));
        let state = 2.0 * cost::part_state_bytes(&part, 8) as f64;
        assert!((four.0 - one.0 - 3.0 * state).abs() < 0.5 && (four.1 / one.1 - 4.0).abs() < 1e-9);
    }
}
