//! How well the sum of timed parts tells the time of a whole model, on random stacks of target size.

use std::collections::HashMap;
use std::io::Write;

use rand::SeedableRng;
use search::Architecture;
use search::latency::{Conditions, Dtype, LatencyKey, Phase, Timing, keys};
use search::space::{Space, SpaceConfig};
use search::statistics::kendall;
use serde_json::json;

use crate::error::ProfileError;
use crate::measure::Times;

/// The stacks: up to 24 layers of every mixer that a GPU decodes, d 1024 to 2560.
const SPACE: &str = r#"{
    "vocab": 32000, "d_model": [1024, 1536, 2048, 2560], "depth": { "min": 6, "max": 24 },
    "ffn": ["none", "2x", "3x"],
    "mixers": {
        "attn": { "head_width": [128], "kv_heads": [4, 8] },
        "swa": { "head_width": [64, 128], "window": [512, 1024] },
        "dn": { "key_width": [128] },
        "gdn": { "key_width": [64, 128] },
        "m2": { "state_width": [128] }
    }
}"#;

/// Times `count` stacks whole and in parts at `context` positions; a line of JSON for each, and one for all.
///
/// # Errors
/// When the device fails; a part that it does not cover fails the stack alone.
pub fn run(
    device: &dyn Times,
    count: usize,
    context: u32,
    seed: u64,
    output: &mut impl Write,
) -> Result<(), ProfileError> {
    let config: SpaceConfig = serde_json::from_str(SPACE).expect("the space is well formed");
    let space = Space::new(&config).map_err(|e| ProfileError::Conditions(e.to_string()))?;
    let conditions = Conditions {
        device: device.device().to_owned(),
        dtype: Dtype::Bf16,
        batch: 1,
        threads: 0,
        phase: Phase::Decode { context },
    };
    let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(seed);
    let mut table: HashMap<LatencyKey, Timing> = HashMap::new();
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    let mut say = |line: &serde_json::Value| {
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    };
    for _ in 0..count {
        let stack = space.sample(&mut rng);
        match both(device, &stack, &conditions, &mut table) {
            Ok((composed, whole)) => {
                pairs.push((composed, whole));
                say(&json!({
                    "stack": stack.to_string(), "whole_us": whole, "composed_us": composed,
                    "error": composed / whole - 1.0,
                }));
            }
            Err(error) => say(&json!({ "stack": stack.to_string(), "refused": error.to_string() })),
        }
    }
    let errors: Vec<f64> = pairs.iter().map(|(c, w)| (c / w - 1.0).abs()).collect();
    say(&json!({
        "stacks": pairs.len(), "parts": table.len(), "context": context,
        "mean_error": errors.iter().sum::<f64>() / errors.len().max(1) as f64,
        "largest_error": errors.iter().copied().fold(0.0, f64::max),
        "kendall_tau": kendall(&pairs).map(|correlation| correlation.value),
        "device": device.device(), "kernels": kernels::version(),
    }));
    Ok(())
}

fn both(
    device: &dyn Times,
    stack: &Architecture,
    conditions: &Conditions,
    table: &mut HashMap<LatencyKey, Timing>,
) -> Result<(f64, f64), ProfileError> {
    let mut composed = 0.0;
    for key in keys(stack, conditions) {
        if !table.contains_key(&key) {
            let timing = device.part(&key)?;
            table.insert(key.clone(), timing);
        }
        composed += table[&key].median_us;
    }
    Ok((composed, device.whole(stack, conditions)?.median_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_of_target_stacks_is_possible() {
        let config: SpaceConfig = serde_json::from_str(SPACE).expect("well formed");
        let space = Space::new(&config).expect("possible");
        let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(1);
        let stack = crate::gpu::stack(&space.sample(&mut rng), 100).expect("covered");
        assert!((6..=24).contains(&stack.layers.len()));
    }
}
