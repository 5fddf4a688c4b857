//! The gene of a layer: which token mixer, with which shape.
//!
//! Definitions, parameterisation and sources are in the `kernels` crate, one folder per family. All projections of a
//! mixer read d_model and write d_model, so a mixer's own widths are free of it.
//!
//! What is said of a mixer stands in the file of its family: genes, text, tensors, costs, how it scales. This file joins
//! the families; nothing else matches on all of them.

mod attention;
mod delta;
mod delta_json;
mod family;
mod gated_conv;
mod gene;
mod kda;
mod kind;
mod mamba2;
mod parallel;
mod phase_genes;
mod qk_norm;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

pub use attention::Attention;
pub use delta::Delta;
pub use family::{Colour, Kind, Past};
pub use gated_conv::GatedConv;
pub use gene::{Choice, Form, Gene, Letter, Turn};
pub use kda::Kda;
pub use kind::MixerKind;
pub use mamba2::Mamba2;
pub use parallel::{Beside, Parallel, Side};
pub use qk_norm::QkNorm;

use super::phases::Phases;
use super::tensor::{TensorSpec, Tensors};
use family::Family;
pub(crate) use family::Usual;
pub(crate) use gene::{Misfit, Settings};

/// A token mixer and its shape.
///
/// A new family is a new variant here; the compiler then names the places that build one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Json", into = "Json")]
pub enum Mixer {
    /// Softmax attention over the whole past, or over the last `window` positions.
    Attention(Attention),
    /// The delta rule, with a decay or without, one step per token or several, log-linear or not.
    Delta(Delta),
    /// Mamba-2's state-space duality layer.
    Mamba2(Mamba2),
    /// LFM2's gated short convolution.
    GatedConv(GatedConv),
    /// Kimi Delta Attention.
    Kda(Kda),
    /// Attention beside another mixer.
    Parallel(Parallel),
}

/// A mixer as JSON has it, told apart by its `kind`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename = "Mixer")]
enum Json {
    #[serde(rename = "attention")]
    Attention(Attention),
    #[serde(rename = "deltanet")]
    DeltaNet(delta_json::DeltaNet),
    #[serde(rename = "gated_deltanet")]
    GatedDeltaNet(delta_json::GatedDeltaNet),
    #[serde(rename = "deltaproduct")]
    DeltaProduct(delta_json::DeltaProduct),
    #[serde(rename = "mamba2")]
    Mamba2(Mamba2),
    #[serde(rename = "gated_short_conv")]
    GatedConv(GatedConv),
    #[serde(rename = "kda")]
    Kda(Kda),
    #[serde(rename = "parallel")]
    Parallel(Parallel),
}

impl From<Json> for Mixer {
    fn from(json: Json) -> Self {
        match json {
            Json::Attention(m) => Self::Attention(m),
            Json::DeltaNet(m) => Self::Delta(m.into()),
            Json::GatedDeltaNet(m) => Self::Delta(m.into()),
            Json::DeltaProduct(m) => Self::Delta(m.into()),
            Json::Mamba2(m) => Self::Mamba2(m),
            Json::GatedConv(m) => Self::GatedConv(m),
            Json::Kda(m) => Self::Kda(m),
            Json::Parallel(m) => Self::Parallel(m),
        }
    }
}

impl From<Mixer> for Json {
    fn from(mixer: Mixer) -> Self {
        match (mixer.kind(), mixer) {
            (_, Mixer::Attention(m)) => Self::Attention(m),
            (_, Mixer::Mamba2(m)) => Self::Mamba2(m),
            (_, Mixer::GatedConv(m)) => Self::GatedConv(m),
            (_, Mixer::Kda(m)) => Self::Kda(m),
            (_, Mixer::Parallel(m)) => Self::Parallel(m),
            (MixerKind::DeltaNet, Mixer::Delta(m)) => Self::DeltaNet(m.into()),
            (MixerKind::DeltaProduct | MixerKind::GatedDeltaProduct, Mixer::Delta(m)) => {
                Self::DeltaProduct(m.into())
            }
            (_, Mixer::Delta(m)) => Self::GatedDeltaNet(m.into()),
        }
    }
}

impl JsonSchema for Mixer {
    fn schema_name() -> Cow<'static, str> {
        Json::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Json::json_schema(generator)
    }
}

impl From<Attention> for Mixer {
    fn from(attention: Attention) -> Self {
        Self::Attention(attention)
    }
}

impl From<Delta> for Mixer {
    fn from(delta: Delta) -> Self {
        Self::Delta(delta)
    }
}

impl From<Mamba2> for Mixer {
    fn from(mamba2: Mamba2) -> Self {
        Self::Mamba2(mamba2)
    }
}

impl From<GatedConv> for Mixer {
    fn from(gated_conv: GatedConv) -> Self {
        Self::GatedConv(gated_conv)
    }
}

impl From<Kda> for Mixer {
    fn from(kda: Kda) -> Self {
        Self::Kda(kda)
    }
}

impl From<Parallel> for Mixer {
    fn from(parallel: Parallel) -> Self {
        Self::Parallel(parallel)
    }
}

impl From<Side> for Mixer {
    fn from(side: Side) -> Self {
        match side {
            Side::Mamba2(m) => Self::Mamba2(m),
            Side::Delta(m) => Self::Delta(m),
        }
    }
}

/// Runs `$body` with `$member` bound to the shape of a mixer, in its family's own type.
macro_rules! of_mixer {
    ($mixer:expr, $member:ident => $body:expr) => {
        match $mixer {
            Mixer::Attention($member) => $body,
            Mixer::Delta($member) => $body,
            Mixer::Mamba2($member) => $body,
            Mixer::GatedConv($member) => $body,
            Mixer::Kda($member) => $body,
            Mixer::Parallel($member) => $body,
        }
    };
}

/// Runs `$body` with `$Family` for the type of a kind's family.
macro_rules! of_kind {
    ($kind:expr, $Family:ident => $body:expr) => {
        match $kind {
            MixerKind::FullAttention | MixerKind::SlidingWindow => {
                type $Family = Attention;
                $body
            }
            MixerKind::DeltaNet
            | MixerKind::GatedDeltaNet
            | MixerKind::DeltaProduct
            | MixerKind::GatedDeltaProduct
            | MixerKind::LogLinearGatedDeltaNet => {
                type $Family = Delta;
                $body
            }
            MixerKind::Mamba2 | MixerKind::LogLinearMamba2 => {
                type $Family = Mamba2;
                $body
            }
            MixerKind::GatedConv => {
                type $Family = GatedConv;
                $body
            }
            MixerKind::Kda => {
                type $Family = Kda;
                $body
            }
            MixerKind::Parallel => {
                type $Family = Parallel;
                $body
            }
        }
    };
}

impl MixerKind {
    /// The row of this kind in its family's table: names, sign, genes.
    pub fn row(self) -> &'static Kind {
        of_kind!(self, Of => Of::KINDS)
            .iter()
            .find(|row| row.kind == self)
            .expect("a family's table has a row for each of its kinds, as a test holds")
    }

    /// The short name that stands in the text form and in campaign files.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The name that people read.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// Its genes, in the order of the campaign file and of the text form.
    pub fn genes(self) -> &'static [Gene] {
        self.row().genes
    }

    /// The mixer that complete settings make, unchecked.
    pub(crate) fn build(self, genes: &Settings) -> Mixer {
        of_kind!(self, Of => Of::build(self, genes).into())
    }

    /// Derives at `d_model` what is not given.
    pub(crate) fn derive(self, d_model: u32, genes: &mut Settings) -> Result<(), Misfit> {
        of_kind!(self, Of => Of::derive(self, d_model, genes))
    }

    /// Its shape in a reference stack.
    pub(crate) fn usual(self, usual: Usual) -> Mixer {
        of_kind!(self, Of => Of::usual(self, usual).into())
    }
}

impl Mixer {
    /// The kind, without its shape.
    pub fn kind(&self) -> MixerKind {
        of_mixer!(self, m => m.kind())
    }

    /// The value of a gene that its kind has; 0 or 1 of a flag.
    pub(crate) fn gene(&self, name: &str) -> u32 {
        of_mixer!(self, m => m.gene(name))
    }

    /// Expected and got, when the shape is impossible.
    pub(crate) fn check(&self) -> Result<(), String> {
        of_mixer!(self, m => m.check())
    }

    /// Its tensors at width `d`, with the names they have after `layers.{i}.mixer.`.
    pub(crate) fn tensors(&self, d: u64) -> Vec<TensorSpec> {
        let mut list = Tensors::default();
        self.list_tensors(d, &mut list);
        list.all
    }

    /// Adds its tensors, in the order of computation.
    pub(crate) fn list_tensors(&self, d: u64, list: &mut Tensors) {
        of_mixer!(self, m => m.tensors(d, list));
        if let Some(phases) = self.phases() {
            phases.tensors(d, list);
        }
    }

    /// Parameters at width `d`, its pre-norm not included.
    pub(crate) fn parameters(&self, d: u64) -> u64 {
        let phases = self.phases().map_or(0, |phases| phases.parameters(d));
        phases + of_mixer!(self, m => m.parameters(d))
    }

    /// Operations on one token at width `d`, but those that grow with the number of positions before it.
    pub(crate) fn token_flops(&self, d: f64) -> f64 {
        let phases = self.phases().map_or(0.0, |phases| phases.token_flops(d));
        phases + of_mixer!(self, m => m.token_flops(d))
    }

    /// What it keeps of the positions that it has seen; of parallel heads what each of the two keeps.
    pub fn pasts(&self) -> impl Iterator<Item = Past> {
        let [past, beside] = of_mixer!(self, m => [Some(m.past()), m.past_beside()]);
        past.into_iter().chain(beside)
    }

    /// The number of pieces into which a log-linear mixer cuts the past.
    pub fn levels(&self) -> Option<u32> {
        of_mixer!(self, m => m.levels())
    }

    /// What the mixer turns q and k by, if it has Selective RoPE.
    pub fn phases(&self) -> Option<Phases> {
        of_mixer!(self, m => m.phases())
    }

    /// Whether the norms of its layer stand behind the mixer and the FFN: `x += norm(mixer(x))`.
    pub fn norms_after(&self) -> bool {
        of_mixer!(self, m => m.norms_after())
    }

    /// Heads, width of what is stored by, width of what is stored: comparable between families.
    pub(crate) fn sizes(&self) -> [u32; 3] {
        of_mixer!(self, m => m.sizes())
    }

    /// Its numbers in the letters of the text form, shortened for drawings: `h4/2 k64 w128`.
    pub fn brief(&self) -> String {
        of_mixer!(self, m => m.brief())
    }

    /// The same `scale` times as wide: by its number of heads if that comes out whole, otherwise by the width of its
    /// heads. Windows and state widths of Mamba2 stay.
    ///
    /// # Errors
    /// The name and value of the number that does not come out whole.
    pub fn scaled(self, scale: f64) -> Result<Self, (&'static str, u32)> {
        of_mixer!(self, m => m.scaled(scale).map(Self::from))
    }

    /// The nearest that is possible to `scale` times as many heads, which keep their width; a lone one gets narrower.
    pub(crate) fn nearly_scaled(self, scale: f64) -> Self {
        of_mixer!(self, m => m.nearly_scaled(scale).into())
    }

    /// The member of `kind`, of the same family, that is shaped like this one, as reference stacks have it.
    pub(crate) fn shaped(self, kind: MixerKind) -> Self {
        of_mixer!(self, m => m.shaped(kind).into())
    }
}
