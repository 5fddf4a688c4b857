//! Weights that were trained elsewhere, as a checkpoint of ours: the way of an export backwards.
//!
//! An export makes each of its tensors of ours by moving values and adding and multiplying by constants. Where a value of
//! theirs is from is found by asking the export itself: of zeros, of ones and of values that name their place. So there is one
//! mapping, and what is in no place of ours has to be what the export writes there.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use search::Architecture;
use search::architecture::{Attention, Layer, Mixer, Unchecked};
use search::tensors::{TensorSpec, tensors};
use serde_json::{Value, json};

use super::dialect::{Dialect, Logits};
use super::theirs::Theirs;
use super::weights::{DIVIDED_LOGITS, ORIGIN};
use super::{Form, target};

/// Weights under our names.
pub(crate) struct Returned {
    pub(crate) stack: Architecture,
    /// The target whose names they had.
    pub(crate) target: &'static str,
    values: HashMap<String, Vec<f32>>,
    /// Whether logits are divided by the norms of the head's rows.
    divided_logits: bool,
}

/// Reads a folder that was exported, and trained since.
pub(crate) fn read(folder: &Path) -> anyhow::Result<Returned> {
    let shown = folder.display();
    let text = std::fs::read_to_string(folder.join("config.json")).with_context(|| {
        format!("{shown} has no config.json that can be read: name a folder for transformers")
    })?;
    let config: Value = serde_json::from_str(&text)
        .with_context(|| format!("config.json of {shown} is no JSON"))?;
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let name = match model_type {
        "deltafront" => "hf",
        "gpt_base" => "lm-engine",
        "delta_net" | "gated_deltanet" | "gated_deltaproduct" => "fla",
        other => other,
    };
    let of_target = target(name).ok().and_then(|target| match target.form {
        Form::Folder(dialect) => Some((target.name, dialect)),
        _ => None,
    });
    let Some((name, dialect)) = of_target else {
        bail!("{shown} is of the type `{model_type}`, which no export of deltafront has");
    };
    let stack = stack(folder, &config)?;
    let theirs = Given::read(folder)?;
    let divided_logits = match dialect.logits() {
        Logits::Plain => false,
        Logits::AsTrained => config["logits_divided_by_head_norms"] == Value::Bool(true),
        Logits::Divided => true,
    };
    let mut first = None;
    for stack in as_it_may_have_become(&stack) {
        match values(dialect, &stack, &theirs) {
            Ok(values) => return Ok(Returned { stack, target: name, values, divided_logits }),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.expect("there is one stack at least"))
        .with_context(|| format!("the weights in {shown} are not those of {stack}"))
}

/// The stack that a config names; lm-engine's, which takes no keys of others, has it in the file beside.
fn stack(folder: &Path, config: &Value) -> anyhow::Result<Architecture> {
    if let Some(text) = config["deltafront"]["text"].as_str() {
        return text
            .parse()
            .with_context(|| format!("config.json of {} names no stack", folder.display()));
    }
    super::read(&folder.to_string_lossy()).with_context(|| {
        format!("config.json of {} does not say of which stack it is", folder.display())
    })
}

/// What training can have made of a stack where its type has more than it: Qwen3.5's attention a gate, Nemotron-H's head a matrix
/// of its own.
fn as_it_may_have_become(stack: &Architecture) -> Vec<Architecture> {
    let gated = |layer: &Layer| match layer.mixer {
        Some(Mixer::Attention(of)) => Layer {
            mixer: Some(Mixer::Attention(Attention { output_gate: true, ..of })),
            ..layer.clone()
        },
        _ => layer.clone(),
    };
    let changed = |tied_embeddings: bool, with_gates: bool| {
        let mut parts = Unchecked::from(stack.clone());
        parts.tied_embeddings = tied_embeddings;
        if with_gates {
            parts.layers = parts.layers.iter().map(gated).collect();
        }
        Architecture::try_from(parts).ok()
    };
    let tied = stack.tied_embeddings();
    let mut all = vec![stack.clone()];
    for other in
        [changed(tied, true), changed(false, false), changed(false, true)].into_iter().flatten()
    {
        if !all.contains(&other) {
            all.push(other);
        }
    }
    all
}

/// Every value of ours, from theirs.
fn values(
    dialect: &dyn Dialect,
    stack: &Architecture,
    theirs: &Given,
) -> anyhow::Result<HashMap<String, Vec<f32>>> {
    let specs: HashMap<String, TensorSpec> =
        tensors(stack).into_iter().map(|spec| (spec.name.clone(), spec)).collect();
    let mut ours: HashMap<String, Vec<Option<f32>>> = specs
        .values()
        .map(|spec| (spec.name.clone(), vec![None; spec.elements() as usize]))
        .collect();
    let mut named: Vec<String> = Vec::new();
    for tensor in dialect.tensors(stack) {
        let sizes: Vec<usize> =
            tensor.of.iter().map(|name| specs[name.as_str()].elements() as usize).collect();
        let found = theirs.values(&tensor.name, &tensor.shape)?;
        put(&tensor, &sizes, &found, &mut ours)?;
        named.push(tensor.name);
    }
    if let Some(other) = theirs.names().find(|name| !named.iter().any(|known| known == name)) {
        bail!("there is a tensor {other}, which the stack has not");
    }
    let whole = ours.into_iter().map(|(name, values)| {
        let values: Option<Vec<f32>> = values.into_iter().collect();
        let values = values.with_context(|| format!("no tensor has all of our {name}"))?;
        Ok((name, values))
    });
    whole.collect()
}

/// Puts the values of one of theirs where they are in ours.
fn put(
    tensor: &Theirs,
    sizes: &[usize],
    found: &[f32],
    ours: &mut HashMap<String, Vec<Option<f32>>>,
) -> anyhow::Result<()> {
    /// Places are named by two digits, each a whole number that f32 holds exactly, as a sum with 1 too.
    const DIGIT: usize = 1 << 16;
    let ask = |value: &dyn Fn(usize) -> f32| {
        let mut at = 0;
        let filled = sizes.iter().map(|&size| {
            let values = (at..at + size).map(value).collect();
            at += size;
            values
        });
        (tensor.make)(filled.collect())
    };
    let added = ask(&|_| 0.0);
    let ones = ask(&|_| 1.0);
    let (low, high) = (ask(&|at| (at % DIGIT) as f32), ask(&|at| (at / DIGIT) as f32));
    for (index, &value) in found.iter().enumerate() {
        let (added, factor) = (added[index], ones[index] - added[index]);
        if factor == 0.0 {
            if value.is_nan() || (value - added).abs() > 0.0 {
                bail!(
                    "{}: {value} stands where the stack has nothing and the export wrote {added}",
                    tensor.name
                );
            }
            continue;
        }
        let digit = |from: f32| ((from - added) / factor).round() as usize;
        let mut at = digit(high[index]) * DIGIT + digit(low[index]);
        let mut of = 0;
        while at >= sizes[of] {
            at -= sizes[of];
            of += 1;
        }
        let value = (value - added) / factor;
        let place =
            &mut ours.get_mut(&tensor.of[of]).expect("dialects name tensors of the stack")[at];
        match place {
            // one that two tensors have
            Some(known) if (*known - value).abs() > 0.0 => {
                bail!("{} and another tensor disagree about our {}", tensor.name, tensor.of[of])
            }
            _ => *place = Some(value),
        }
    }
    Ok(())
}

/// The tensors of a folder, in one file or several.
struct Given {
    files: Vec<Vec<u8>>,
}

impl Given {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut names: Vec<String> =
            match std::fs::read_to_string(folder.join("model.safetensors.index.json")) {
                Ok(index) => {
                    let index: Value = serde_json::from_str(&index)
                        .context("the index of its weights is no JSON")?;
                    let files = index["weight_map"]
                        .as_object()
                        .context("the index of its weights has no weight_map")?;
                    files.values().filter_map(Value::as_str).map(str::to_owned).collect()
                }
                Err(_) => vec!["model.safetensors".to_owned()],
            };
        names.sort_unstable();
        names.dedup();
        let read = |name: &String| {
            // a name in an index leads nowhere else
            if Path::new(name).file_name() != Some(name.as_ref()) {
                bail!("the index of its weights names {name}, which is no file of the folder");
            }
            let bytes = std::fs::read(folder.join(name))
                .with_context(|| format!("{} cannot be read", folder.join(name).display()))?;
            SafeTensors::deserialize(&bytes).with_context(|| format!("{name} is damaged"))?;
            Ok(bytes)
        };
        Ok(Self { files: names.iter().map(read).collect::<anyhow::Result<_>>()? })
    }

    fn tensors(&self) -> impl Iterator<Item = (String, TensorView<'_>)> {
        self.files.iter().flat_map(|bytes| {
            SafeTensors::deserialize(bytes).expect("it was read before").tensors()
        })
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.tensors().map(|(name, _)| name)
    }

    /// The values of a tensor, as fp32.
    fn values(&self, name: &str, shape: &[usize]) -> anyhow::Result<Vec<f32>> {
        let Some((_, view)) = self.tensors().find(|(known, _)| known == name) else {
            bail!("there is no tensor {name}");
        };
        if view.shape() != shape {
            bail!("{name} is {:?}, and the stack's is {shape:?}", view.shape());
        }
        let halves = || view.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        Ok(match view.dtype() {
            Dtype::F32 => view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Dtype::BF16 => halves().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
            Dtype::F16 => halves().map(half).collect(),
            other => bail!("{name} is {other:?}; fp32, bf16 and fp16 are read"),
        })
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1F), f32::from(bits & 0x3FF));
    let size = match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        0x1F if fraction == 0.0 => f32::INFINITY,
        0x1F => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2.0_f32.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

impl Returned {
    /// Writes a checkpoint.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(&self.stack)
            .into_iter()
            .map(|spec| {
                let bytes = self.values[&spec.name].iter().flat_map(|x| x.to_le_bytes()).collect();
                (spec.name, spec.shape.iter().map(|&n| n as usize).collect(), bytes)
            })
            .collect();
        let views: Vec<(&str, TensorView<'_>)> = data
            .iter()
            .map(|(name, shape, bytes)| {
                Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?))
            })
            .collect::<Result<_, safetensors::SafeTensorError>>()?;
        // no training of ours goes on from it
        let origin = json!({
            "architecture": self.stack.to_string(), "seed": 0, "settings": "trained elsewhere", "rule": 0,
            "corpus_tokens": 0, "step": 0,
        });
        let mut metadata = HashMap::from([(ORIGIN.to_owned(), origin.to_string())]);
        if self.divided_logits {
            metadata.insert(DIVIDED_LOGITS.to_owned(), "true".to_owned());
        }
        safetensors::serialize_to_file(views, Some(metadata), file)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::half;

    #[test]
    fn halves_are_read() {
        for (bits, value) in [
            (0x3C00, 1.0),
            (0xC100, -2.5),
            (0x7BFF, 65504.0),
            (0x0001, 2.0_f32.powi(-24)),
            (0x0400, 2.0_f32.powi(-14)),
            (0x7C00, f32::INFINITY),
        ] {
            assert_eq!(half(bits).to_bits(), value.to_bits(), "{bits:#x}");
        }
        assert!(half(0x7E00).is_nan());
    }
}
