//! How well the sum of timed parts tells the time of a whole model, on random stacks of target size.

use std::collections::HashMap;
use std::io::Write;

use rand::SeedableRng;
use search::Architecture;
use search::latency::{Conditions, Dtype, LatencyKey, Phase, Timing, keys};
use search::space::{Space, SpaceConfig};
use search::statistics::kendall;
use serde_json::json;

use crate::backend::Backend;
use crate::error::ProfileError;
use crate::worker::log_telemetry;

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

/// Stacks as proxies are: few layers and bytes for a vocabulary, where a launch itself counts.
const SMALL_SPACE: &str = r#"{
    "vocab": 256, "d_model": [1024, 1536, 2048], "depth": { "min": 2, "max": 6 },
    "ffn": ["none", "2x", "3x"],
    "mixers": {
        "attn": { "head_width": [128], "kv_heads": [4, 8] },
        "swa": { "head_width": [64, 128], "window": [512, 1024] },
        "dn": { "key_width": [128] },
        "gdn": { "key_width": [64, 128] },
        "m2": { "state_width": [128] }
    }
}"#;

/// Which stacks are composed, and under which conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many.
    pub count: usize,
    /// 2 to 6 layers with a vocabulary of 256 instead of target size.
    pub is_small: bool,
    /// Decode or prefill.
    pub phase: Phase,
    /// Sequences.
    pub batch: u32,
    /// Of the stacks.
    pub seed: u64,
}

impl Options {
    /// `COUNT [--small] [--prefill TOKENS] [--batch N]`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(arguments: &[&str]) -> Result<Self, String> {
        let number = |what: &str, text: Option<&&str>| {
            let number = text.and_then(|text| text.parse().ok()).filter(|number| *number > 0);
            number.ok_or_else(|| {
                let got = text.map_or("nothing".to_owned(), |text| format!("`{text}`"));
                format!("{what} takes a number of 1 or more, got {got}")
            })
        };
        let mut arguments = arguments.iter();
        let mut options = Self {
            count: number("--composed", arguments.next())? as usize,
            is_small: false,
            phase: Phase::Decode { context: 8192 },
            batch: 1,
            seed: 1,
        };
        while let Some(argument) = arguments.next() {
            match *argument {
                "--small" => options.is_small = true,
                "--prefill" => {
                    options.phase =
                        Phase::Prefill { tokens: number("--prefill", arguments.next())? };
                }
                "--batch" => options.batch = number("--batch", arguments.next())?,
                other => return Err(format!("--composed does not know `{other}`")),
            }
        }
        Ok(options)
    }
}

/// Times stacks whole and in parts; a line of JSON for each, and one for all.
///
/// # Errors
/// When the device fails; a part that it does not cover fails the stack alone.
pub fn run(
    device: &dyn Backend,
    options: &Options,
    output: &mut impl Write,
) -> Result<(), ProfileError> {
    let Options { count, is_small, phase, batch, seed } = *options;
    let config: SpaceConfig = serde_json::from_str(if is_small { SMALL_SPACE } else { SPACE })
        .expect("the space is well formed");
    let space = Space::new(&config).map_err(|e| ProfileError::Conditions(e.to_string()))?;
    let conditions = Conditions {
        device: device.hardware().to_owned(),
        dtype: Dtype::Bf16,
        batch,
        threads: 0,
        phase,
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
            Ok((composed, timing)) => {
                let whole = timing.median_us;
                pairs.push((composed, whole));
                say(&json!({
                    "stack": stack.to_string(), "whole_us": whole, "composed_us": composed,
                    "error": composed / whole - 1.0, "millijoules_per_token": timing.millijoules,
                }));
            }
            Err(error) => say(&json!({ "stack": stack.to_string(), "refused": error.to_string() })),
        }
    }
    let errors: Vec<f64> = pairs.iter().map(|(c, w)| (c / w - 1.0).abs()).collect();
    say(&json!({
        "stacks": pairs.len(), "parts": table.len(), "conditions": conditions.to_string(),
        "mean_signed_error": pairs.iter().map(|(c, w)| c / w - 1.0).sum::<f64>() / pairs.len().max(1) as f64,
        "mean_error": errors.iter().sum::<f64>() / errors.len().max(1) as f64,
        "largest_error": errors.iter().copied().fold(0.0, f64::max),
        "kendall_tau": kendall(&pairs).map(|correlation| correlation.value),
        "device": device.hardware(), "kernels": device.kernels(),
    }));
    Ok(())
}

fn both(
    device: &dyn Backend,
    stack: &Architecture,
    conditions: &Conditions,
    table: &mut HashMap<LatencyKey, Timing>,
) -> Result<(f64, Timing), ProfileError> {
    let mut composed = 0.0;
    for key in keys(stack, conditions) {
        if !table.contains_key(&key) {
            let timing = device.part(&key)?;
            table.insert(key.clone(), timing);
        }
        composed += table[&key].median_us;
    }
    let timing = device.whole(stack, conditions)?;
    log_telemetry(device, &timing);
    Ok((composed, timing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spaces_are_possible() {
        for (text, depth) in [(SPACE, 6..=24), (SMALL_SPACE, 2..=6)] {
            let config: SpaceConfig = serde_json::from_str(text).expect("well formed");
            let space = Space::new(&config).expect("possible");
            let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(1);
            let stack = space.sample(&mut rng);
            crate::cuda::check_covered(&stack).expect("covered");
            assert!(depth.contains(&stack.layers().len()));
        }
    }

    #[test]
    fn options_are_read_or_refused_by_name() {
        let options = Options::parse(&["30", "--small", "--prefill", "512", "--batch", "4"]);
        let options = options.expect("right");
        assert_eq!((options.count, options.is_small, options.batch), (30, true, 4));
        assert_eq!(options.phase, Phase::Prefill { tokens: 512 });
        for (wrong, word) in
            [(&["x"][..], "`x`"), (&["3", "--batch"], "--batch"), (&["3", "--big"], "--big")]
        {
            let message = Options::parse(wrong).expect_err("wrong");
            assert!(message.contains(word), "{message}");
        }
    }
}
