//! Where the values of an exported model come from: a checkpoint, or a seed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use safetensors::tensor::{Dtype, SafeTensors, View};
use search::Architecture;
use search::architecture::Role;
use search::initial;
use search::tensors::{TensorSpec, tensors};
use serde::Deserialize;

use super::theirs::Theirs;

/// The key under which a checkpoint says which training it is of.
pub(super) const ORIGIN: &str = "deltafront";
/// There if its logits are divided by the norms of the head's rows.
pub(super) const DIVIDED_LOGITS: &str = "logits_divided_by_head_norms";

/// The type of the numbers in an exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Element {
    /// 32 bits.
    Fp32,
    /// 16 bits, half the room.
    Bf16,
}

impl Element {
    /// As PyTorch names it.
    pub(crate) fn torch_name(self) -> &'static str {
        match self {
            Self::Fp32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Fp32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::Fp32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&x| bf16(x).to_le_bytes()).collect(),
        }
    }
}

/// To the nearest, of two equally near ones to the even.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return 0x7FC0;
    }
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

/// The values of all tensors of a stack.
pub(crate) struct Weights {
    stack: Architecture,
    source: Source,
    /// Whether logits are divided by the norms of the head's rows.
    pub(crate) divided_logits: bool,
    /// Whether the head is divided by them already.
    divided_head: bool,
    specs: HashMap<String, TensorSpec>,
}

enum Source {
    /// The bytes of a checkpoint.
    Checkpoint(Vec<u8>),
    /// What the training rule begins with.
    Random { seed: u64, normalised: bool },
}

/// What of a checkpoint's origin matters here.
#[derive(Deserialize)]
struct Origin {
    architecture: String,
}

impl Weights {
    /// The weights of a stack at the beginning of a training from `seed`; `normalised`: with unit rows and columns.
    pub(crate) fn random(stack: Architecture, seed: u64, normalised: bool) -> Self {
        Self::new(stack, Source::Random { seed, normalised }, normalised)
    }

    /// Those of a checkpoint, which says of which stack it is.
    pub(crate) fn trained(checkpoint: &Path) -> anyhow::Result<Self> {
        let shown = checkpoint.display();
        let bytes = std::fs::read(checkpoint)
            .with_context(|| format!("the checkpoint {shown} cannot be read"))?;
        let (_, header) = SafeTensors::read_metadata(&bytes)
            .with_context(|| format!("the checkpoint {shown} is damaged"))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let origin: Option<Origin> =
            metadata.get(ORIGIN).and_then(|text| serde_json::from_str(text).ok());
        let Some(Origin { architecture }) = origin else {
            bail!(
                "the checkpoint {shown} does not say of which stack it is: an own trainer wrote it; --random exports \
                   the stack with untrained weights"
            );
        };
        let stack: Architecture = architecture
            .parse()
            .with_context(|| format!("the checkpoint {shown} is of no stack"))?;
        for spec in tensors(&stack) {
            let Some(info) = header.info(&spec.name) else {
                bail!("the checkpoint {shown} has no tensor {}", spec.name);
            };
            let shape: Vec<u64> = info.shape.iter().map(|&n| n as u64).collect();
            if info.dtype != Dtype::F32 || shape != spec.shape {
                bail!(
                    "the checkpoint {shown}: {} is {:?} {shape:?}, expected F32 {:?}",
                    spec.name,
                    info.dtype,
                    spec.shape
                );
            }
        }
        let divided = metadata.contains_key(DIVIDED_LOGITS);
        Ok(Self::new(stack, Source::Checkpoint(bytes), divided))
    }

    fn new(stack: Architecture, source: Source, divided_logits: bool) -> Self {
        let specs = tensors(&stack).into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        Self { stack, source, divided_logits, divided_head: false, specs }
    }

    /// The stack, at the scale that these are of.
    pub(crate) fn stack(&self) -> &Architecture {
        &self.stack
    }

    /// Whether they are trained.
    pub(crate) fn are_trained(&self) -> bool {
        matches!(self.source, Source::Checkpoint(_))
    }

    /// Has the head divided once by the norms of its rows, so that logits need not be.
    ///
    /// # Errors
    /// When the head is the embedding, too.
    pub(crate) fn divide_head(&mut self) -> anyhow::Result<()> {
        if !self.divided_logits {
            return Ok(());
        }
        if self.stack.tied_embeddings() {
            bail!(
                "its weights are normalised, so its logits are divided by the norms of the head's rows, which this target's                  are not; an untied head could be divided: train it with tied_embeddings = false, or without                  weight_normalisation"
            );
        }
        (self.divided_logits, self.divided_head) = (false, true);
        Ok(())
    }

    /// The values of one of our tensors, row by row.
    fn values(&self, name: &str) -> Vec<f32> {
        let mut values = self.undivided(name);
        if self.divided_head && name == "head.weight" {
            values.chunks_exact_mut(self.stack.d_model() as usize).for_each(unit);
        }
        values
    }

    /// The bytes of a tensor under other names.
    pub(crate) fn encoded(&self, theirs: &Theirs, element: Element) -> Vec<u8> {
        let values = (theirs.make)(theirs.of.iter().map(|name| self.values(name)).collect());
        assert_eq!(values.len(), theirs.shape.iter().product::<usize>(), "{}", theirs.name);
        element.encode(&values)
    }

    fn undivided(&self, name: &str) -> Vec<f32> {
        let spec = self.specs.get(name).expect("dialects name tensors of the stack");
        match &self.source {
            Source::Checkpoint(bytes) => {
                let file = SafeTensors::deserialize(bytes).expect("it was read before");
                let view = file.tensor(name).expect("it was there before");
                let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                view.data().chunks_exact(4).map(float).collect()
            }
            Source::Random { seed, normalised } => self.initial(spec, *seed, *normalised),
        }
    }

    fn initial(&self, spec: &TensorSpec, seed: u64, normalised: bool) -> Vec<f32> {
        let layer = spec
            .name
            .strip_prefix("layers.")
            .and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let mixer = layer.and_then(|layer| self.stack.layers()[layer].mixer.as_ref());
        let factor = initial::factor(spec, &self.stack) as f32;
        let mut values = initial::values(spec, mixer, seed);
        for x in &mut values {
            *x *= factor;
        }
        let columns = spec.shape[spec.shape.len() - 1] as usize;
        match spec.role {
            Role::Reader if normalised => values.chunks_exact_mut(columns).for_each(unit),
            Role::Writer if normalised => {
                for column in 0..columns {
                    let mut of: Vec<f32> =
                        values.iter().skip(column).step_by(columns).copied().collect();
                    unit(&mut of);
                    values
                        .iter_mut()
                        .skip(column)
                        .step_by(columns)
                        .zip(of)
                        .for_each(|(x, y)| *x = y);
                }
            }
            _ => {}
        }
        values
    }

    /// Writes them under other names; one tensor at a time is in memory.
    pub(crate) fn write(
        &self,
        tensors: Vec<Theirs>,
        element: Element,
        file: &Path,
    ) -> anyhow::Result<()> {
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let views = tensors.into_iter().map(|theirs| {
            let name = theirs.name.clone();
            (name, Lazy { weights: self, theirs, element })
        });
        let written = || -> anyhow::Result<()> {
            // Made first, so that it has the rights that new files have here.
            let rights = std::fs::File::create(file)?.metadata()?.permissions();
            safetensors::serialize_to_file(views, Some(metadata), file)?;
            Ok(std::fs::set_permissions(file, rights)?)
        };
        written().with_context(|| format!("cannot write {}", file.display()))
    }
}

/// To unit L2 norm.
fn unit(x: &mut [f32]) {
    let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-30);
    for x in x {
        *x /= norm;
    }
}

/// A tensor that is made when it is written.
struct Lazy<'a> {
    weights: &'a Weights,
    theirs: Theirs,
    element: Element,
}

impl View for Lazy<'_> {
    fn dtype(&self) -> Dtype {
        match self.element {
            Element::Fp32 => Dtype::F32,
            Element::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.theirs.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.weights.encoded(&self.theirs, self.element))
    }

    fn data_len(&self) -> usize {
        self.theirs.shape.iter().product::<usize>() * self.element.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_the_nearest() {
        for (x, bits) in [
            (1.0, 0x3F80),
            (-2.5, 0xC020),
            (1.0 + 0.5 / 128.0, 0x3F80), // half a step above 1: to the even one
            (1.0 + 1.5 / 128.0, 0x3F82), // one and a half
            (f32::INFINITY, 0x7F80),
        ] {
            assert_eq!(bf16(x), bits, "{x}");
        }
        assert_eq!(bf16(f32::NAN), 0x7FC0);
    }
}
