//! What `training.precision = "auto"` is on this machine: products in bf16 where they are faster, found out by training.
//!
//! That a processor has instructions for products of bf16 does not say that they are faster: packing rounds each factor, and
//! without matrix units the product itself gains little. So a small model goes forward and backward in either precision, once
//! for a machine; what was found is kept in the user's cache folder, so that all trainers agree and none asks again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use operators::Model;

use operators::precision::{self, Precision as Products};
use search::Architecture;
use search::config::Precision;
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Kind, Reduction, Tensor};

use crate::error::Result;
use crate::files;
use crate::loss::cross_entropy;

/// How much faster bf16 must be: less than that is noise, and fp32 is the more exact.
const MARGIN: f64 = 1.05;

/// One recurrent mixer, one with attention and an FFN, at the width of a proxy.
const MODEL: &str = "d=512,vocab=256,tied | gdn(h=4,k=64,v=128) | attn(h=8,kv=8,k=64)+ffn(1408)";
const TOKENS: u32 = 256;

/// Both precisions are repeated for so long, and at least so often; the fastest of each counts.
const PATIENCE: Duration = Duration::from_millis(200);
const ROUNDS: u32 = 2;

/// Part of what a measurement is kept under: another number for another way to measure.
const MEASUREMENT: u32 = 1;

/// Tokens of the small model per second, forward and backward, by the precision of its products.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speeds {
    /// In fp32.
    pub fp32: f64,
    /// In bf16.
    pub bf16: f64,
}

impl Speeds {
    /// bf16 only where it is clearly faster.
    pub fn choice(&self) -> Precision {
        if self.bf16 >= MARGIN * self.fp32 { Precision::Bf16 } else { Precision::Fp32 }
    }
}

/// What `auto` is, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// What `auto` is.
    pub precision: Precision,
    /// What it was before it was measured: bf16 wherever the processor has instructions for it.
    pub by_instructions: Precision,
    /// Threads of the trainer.
    pub threads: u32,
    /// None: the processor has no instructions for bf16, so nothing was measured.
    pub speeds: Option<Speeds>,
}

/// What `auto` is for a trainer of so many threads on the processor of this name: as it is kept in the folder `cache`, or
/// measured and kept there. A folder that cannot be written costs a measurement each time.
///
/// # Errors
/// When the small model cannot be trained.
pub fn settle(threads: u32, processor: &str, cache: Option<&Path>) -> Result<Settled> {
    let has_instructions = precision::fastest() == Products::Bf16;
    if !has_instructions {
        let precision = Precision::Fp32;
        return Ok(Settled { precision, by_instructions: precision, threads, speeds: None });
    }
    let kernels = precision::kernels();
    // A build without optimisation has other speeds.
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let key = format!("{MEASUREMENT} {build} {processor} {kernels} {threads}");
    let name = blake3::hash(key.as_bytes()).to_hex();
    let file = cache.map(|folder| folder.join(format!("precision-{}.json", &name[..16])));
    let kept =
        file.as_ref().and_then(|file| serde_json::from_slice(&std::fs::read(file).ok()?).ok());
    let is_sound = |speeds: &Speeds| speeds.fp32 > 0.0 && speeds.bf16 > 0.0;
    let speeds = if let Some(speeds) = kept.filter(is_sound) {
        speeds
    } else {
        let speeds = measure(threads)?;
        if let Some(file) = &file {
            keep(file, &speeds);
        }
        speeds
    };
    let by_instructions = Precision::Bf16;
    Ok(Settled { precision: speeds.choice(), by_instructions, threads, speeds: Some(speeds) })
}

/// Where the user's programs keep such things: `$XDG_CACHE_HOME` or `~/.cache`, and in it `deltafront`.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
    let folder = set("XDG_CACHE_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache")));
    folder.map(|folder| folder.join("deltafront"))
}

/// It is measured again next time where it cannot be kept.
fn keep(file: &Path, speeds: &Speeds) {
    let folder = file.parent().unwrap_or(file);
    if std::fs::create_dir_all(folder).is_ok()
        && let Ok(bytes) = serde_json::to_vec(speeds)
    {
        let _ = files::write_atomically(file, &bytes);
    }
}

/// Runs the small model forward and backward in both precisions in turn, so that a load of the machine meets both.
fn measure(threads: u32) -> Result<Speeds> {
    tch::set_num_threads(threads.max(1) as i32);
    let architecture: Architecture = MODEL.parse().expect("it is a stack");
    let model = |precision| -> Result<Model> {
        let variables = VarStore::new(Device::Cpu);
        let mut model = Model::new(&variables.root(), &architecture, 0)?;
        model.set_precision(precision);
        Ok(model)
    };
    let models = [model(Products::F32)?, model(Products::Bf16)?];
    let text = Tensor::arange(i64::from(TOKENS) + 1, (Kind::Int64, Device::Cpu))
        .remainder(251)
        .unsqueeze(0);
    let length = i64::from(TOKENS);
    let (inputs, targets) = (text.narrow(1, 0, length), text.narrow(1, 1, length));
    let mut fastest = [f64::INFINITY; 2];
    let begin = Instant::now();
    // The first round warms up.
    for round in 0.. {
        if round > ROUNDS && begin.elapsed() > PATIENCE {
            break;
        }
        for (model, fastest) in models.iter().zip(&mut fastest) {
            let start = Instant::now();
            cross_entropy(&model.forward(&inputs), &targets, Reduction::Mean).backward();
            if round > 0 {
                *fastest = fastest.min(start.elapsed().as_secs_f64());
            }
        }
    }
    let [fp32, bf16] = fastest.map(|seconds| f64::from(TOKENS) / seconds);
    Ok(Speeds { fp32, bf16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_chosen_only_where_it_is_clearly_faster() {
        let choice = |fp32, bf16| Speeds { fp32, bf16 }.choice();
        // As they were measured on a Xeon without matrix units.
        assert_eq!(choice(15_400.0, 11_700.0), Precision::Fp32);
        assert_eq!(choice(100.0, 104.0), Precision::Fp32);
        assert_eq!(choice(100.0, 106.0), Precision::Bf16);
    }

    #[test]
    fn what_was_measured_is_kept_and_not_measured_again() {
        let folder = std::env::temp_dir().join(format!("deltafront-speeds-{}", std::process::id()));
        let settle = |threads, cache: &Path| settle(threads, "a processor", Some(cache));
        let first = settle(1, &folder).expect("it can be trained");
        let files = || std::fs::read_dir(&folder).map_or(0, std::iter::Iterator::count);
        if first.speeds.is_none() {
            assert_eq!(first.precision, Precision::Fp32, "nothing to measure here");
            return;
        }
        assert_eq!(files(), 1);
        assert_eq!(settle(1, &folder).expect("it is kept"), first, "two measurements differ");
        // Of another number of threads, and where nothing can be kept.
        settle(2, &folder).expect("it can be trained");
        assert_eq!(files(), 2);
        std::fs::remove_dir_all(&folder).expect("it was made");
        std::fs::write(&folder, "no folder").expect("the place is free");
        settle(1, &folder).expect("it can be trained");
        std::fs::remove_file(&folder).expect("it is ours");
    }
}
