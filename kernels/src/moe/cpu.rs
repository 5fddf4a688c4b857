//! The choice of experts on the CPU.

use super::Chosen;

/// The experts of one token by its logits `[E]`, as many as `chosen` holds, the largest first:
/// [`super::route_definition`].
///
/// # Panics
/// When there are fewer logits than are to be chosen.
pub fn route(logits: &[f32], chosen: &mut [Chosen<f32>]) {
    assert!(chosen.len() <= logits.len(), "route: {} of {}", chosen.len(), logits.len());
    let mut count = 0;
    for (expert, &logit) in logits.iter().enumerate() {
        // behind all that are as large
        let at = chosen[..count].partition_point(|other| other.weight >= logit);
        if at == chosen.len() {
            continue;
        }
        count = (count + 1).min(chosen.len());
        chosen[at..count].rotate_right(1);
        chosen[at] = Chosen { expert, weight: logit };
    }
    let largest = chosen[0].weight;
    let sum: f32 = match chosen {
        [_] => logits.iter().map(|logit| (logit - largest).exp()).sum(),
        _ => chosen.iter().map(|of| (of.weight - largest).exp()).sum(),
    };
    for of in chosen {
        of.weight = (of.weight - largest).exp() / sum;
    }
}
