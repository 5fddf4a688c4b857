//! `[space]` of the campaign file, as it is written there; [`Space::new`](super::Space::new) checks it.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::choices::MixerChoices;
use crate::architecture::{Experts, Ffn, FfnKind, MixerKind};
use crate::targets::Target;

/// `[space]`: which architectures may be proposed.
///
/// Without `stages` the space is flat: every layer chooses its mixer, the mixer's shape and its FFN by itself. With
/// `stages` the space is a template: each stage repeats one block (arXiv 2511.18890).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpaceConfig {
    /// Number of tokens in the vocabulary; 256 for bytes, else at least that of the tokenizer.
    #[serde(default = "defaults::vocab")]
    pub vocab: u32,
    /// Whether the head shares the embedding's matrix.
    #[serde(default = "defaults::tied_embeddings")]
    pub tied_embeddings: bool,
    /// Choices for the number of learnt vectors before every sequence, as in Nemotron-Flash; 0: none. A single number
    /// is a list of one.
    #[serde(default = "defaults::meta_tokens", deserialize_with = "one_or_more")]
    #[schemars(schema_with = "one_or_more_schema")]
    pub meta_tokens: Vec<u32>,
    /// Choices for the width of the residual stream.
    pub d_model: Vec<u32>,
    /// Number of layers. Needed in a flat space; in a staged one it is an optional further limit.
    #[serde(default)]
    pub depth: Option<Range>,
    /// Choices for the FFN after a mixer: a width (`384`), a multiple of d_model (`"3x"`), of another kind than SwiGLU with
    /// its name (`"relu2 4x"`), a mixture of experts (`"moe e=8 k=2 s=1 1x"`: 8 of which a router chooses 2 for each token and
    /// 1 for all, each as wide as the model), or `"none"`.
    #[serde(default = "defaults::ffn")]
    pub ffn: Vec<FfnChoice>,
    /// One table for each mixer that may be used, by its short name.
    pub mixers: MixerChoices,
    /// The staged template, stage by stage; empty: a flat space.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageChoices>,
    /// Software that every proposed architecture loads in, by its word after `export --to`; empty: no limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads_in: Vec<Target>,
    /// Architectures with more parameters are not proposed; none: no limit.
    #[serde(default)]
    pub max_parameters: Option<u64>,
    /// Architectures with fewer parameters are not proposed; none: no limit.
    #[serde(default)]
    pub min_parameters: Option<u64>,
}

/// A range of whole numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The smallest.
    pub min: u32,
    /// The largest.
    pub max: u32,
}

/// One stage of the staged template: a block of at most two mixers in a ratio, each followed by FFNs, repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageChoices {
    /// The mixers that a block may be made of; empty: all of `[space.mixers]`.
    #[serde(default)]
    pub mixers: Vec<MixerKind>,
    /// How many of the first mixer to how many of the second; `"0:1"` is a block of one mixer.
    #[serde(default = "defaults::ratios")]
    pub ratios: Vec<Ratio>,
    /// FFNs after each mixer, 0 to 2.
    #[serde(default = "defaults::ffns_per_mixer")]
    pub ffns_per_mixer: Vec<u32>,
    /// How often the block is repeated.
    pub repeat: Range,
}

/// A choice for the FFN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FfnChoice {
    /// No FFN.
    None,
    /// One of a kind and a size.
    Some(FfnKind, FfnSize),
}

/// How wide an FFN is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FfnSize {
    /// Hidden width.
    Width(u32),
    /// Hidden width over d_model, in hundredths (`"2.5x"` is 250); the width is rounded to a multiple of 8.
    Multiple(u32),
}

impl FfnChoice {
    /// The FFN at `d_model`; none: there is none.
    pub fn at(self, d_model: u32) -> Option<Ffn> {
        let Self::Some(kind, size) = self else { return None };
        let width = match size {
            FfnSize::Width(width) => width,
            FfnSize::Multiple(hundredths) => {
                let eighths = (u64::from(hundredths) * u64::from(d_model) + 400) / 800;
                u32::try_from(eighths.max(1) * 8).unwrap_or(u32::MAX)
            }
        };
        Some(Ffn { width, kind })
    }
}

/// How many of a block's first mixer to how many of its second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Of the first mixer; may be 0.
    pub first: u32,
    /// Of the second mixer; at least 1.
    pub second: u32,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.first, self.second)
    }
}

/// A whole number or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    struct OneOrMore;
    impl<'de> Visitor<'de> for OneOrMore {
        type Value = Vec<u32>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number or a list of whole numbers")
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Vec<u32>, E> {
            u32::try_from(number)
                .map(|number| vec![number])
                .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Vec<u32>, E> {
            u32::try_from(number)
                .map(|number| vec![number])
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<u32>, A::Error> {
            Vec::deserialize(de::value::SeqAccessDeserializer::new(seq))
        }
    }
    deserializer.deserialize_any(OneOrMore)
}

fn one_or_more_schema(_: &mut SchemaGenerator) -> Schema {
    let number = json_schema!({ "type": "integer", "minimum": 0 });
    json_schema!({ "anyOf": [number, { "type": "array", "items": number, "minItems": 1 }] })
}

impl Serialize for FfnChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::None => serializer.serialize_str("none"),
            Self::Some(FfnKind::SwiGlu, FfnSize::Width(width)) => serializer.serialize_u32(width),
            Self::Some(FfnKind::SwiGlu, size) => serializer.collect_str(&size),
            Self::Some(kind, size) => {
                serializer.collect_str(&format_args!("{} {size}", kind.choice()))
            }
        }
    }
}

impl fmt::Display for FfnSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Width(width) => width.fmt(f),
            Self::Multiple(hundredths) => write!(f, "{}x", f64::from(*hundredths) / 100.0),
        }
    }
}

/// A kind and a width or a multiple, as `relu2 4x` or `moe e=8 k=2 1x`; a multiple alone is of SwiGLU.
fn kind_and_size(text: &str) -> Option<(FfnKind, FfnSize)> {
    let multiple = |text: &str| {
        let multiple = text.strip_suffix('x')?.parse::<f64>().ok()?;
        let is_possible = (0.01..=1000.0).contains(&multiple);
        is_possible.then(|| FfnSize::Multiple((multiple * 100.0).round() as u32))
    };
    let Some((kind, size)) = text.rsplit_once(' ') else {
        return Some((FfnKind::SwiGlu, multiple(text)?));
    };
    let mut words = kind.split(' ');
    let name = words.next()?;
    let mut kind = FfnKind::ALL.into_iter().find(|kind| kind.name() == name)?;
    if let FfnKind::Moe(of) = &mut kind {
        let mut letter =
            |letter: &str| words.next().map(|word| word.strip_prefix(letter)?.parse().ok());
        *of = Experts {
            experts: letter("e=")??,
            per_token: letter("k=")??,
            shared: letter("s=").unwrap_or(Some(0))?,
        };
    }
    if words.next().is_some() {
        return None;
    }
    let width = || size.parse().ok().filter(|&width| width > 0).map(FfnSize::Width);
    Some((kind, multiple(size).or_else(width)?))
}

impl<'de> Deserialize<'de> for FfnChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FfnVisitor;
        impl Visitor<'_> for FfnVisitor {
            type Value = FfnChoice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a width like 384, a multiple of d_model like \"3x\", one of another kind like \"relu2 4x\" or \"moe e=8 k=2 1x\", or \"none\"")
            }
            fn visit_u64<E: de::Error>(self, width: u64) -> Result<FfnChoice, E> {
                match u32::try_from(width) {
                    Ok(width) if width > 0 => {
                        Ok(FfnChoice::Some(FfnKind::SwiGlu, FfnSize::Width(width)))
                    }
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(width), &self)),
                }
            }
            fn visit_i64<E: de::Error>(self, width: i64) -> Result<FfnChoice, E> {
                match u64::try_from(width) {
                    Ok(width) => self.visit_u64(width),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(width), &self)),
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<FfnChoice, E> {
                if text == "none" {
                    return Ok(FfnChoice::None);
                }
                kind_and_size(text)
                    .map(|(kind, size)| FfnChoice::Some(kind, size))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(FfnVisitor)
    }
}

impl JsonSchema for FfnChoice {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FfnChoice".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A width like 384, a multiple of d_model like \"3x\", one of another kind like \"relu2 4x\" or \"moe e=8 k=2 s=1 1x\" (8 experts, 2 for each token, 1 shared), or \"none\".",
            "anyOf": [
                { "const": "none" },
                { "type": "integer", "minimum": 1 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?x$" },
                { "type": "string", "pattern": "^(swiglu|relu2) [0-9]+((\\.[0-9]+)?x)?$" },
                { "type": "string", "pattern": "^moe e=[0-9]+ k=[0-9]+( s=[0-9]+)? [0-9]+((\\.[0-9]+)?x)?$" }
            ]
        })
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.split_once(':').and_then(|(first, second)| {
            let ratio = Self { first: first.parse().ok()?, second: second.parse().ok()? };
            (ratio.first <= 64 && (1..=64).contains(&ratio.second)).then_some(ratio)
        });
        parsed.ok_or_else(|| {
            de::Error::custom(format!("expected a ratio like \"1:2\" or \"0:1\", got {text:?}"))
        })
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ratio".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How many of a block's first mixer to how many of its second, like \"1:2\".",
            "type": "string",
            "pattern": "^[0-9]+:[1-9][0-9]*$"
        })
    }
}

mod defaults {
    use super::{FfnChoice, FfnKind, FfnSize, Ratio};

    pub(super) fn vocab() -> u32 {
        256
    }
    pub(super) fn meta_tokens() -> Vec<u32> {
        vec![0]
    }
    pub(super) fn tied_embeddings() -> bool {
        true
    }
    pub(super) fn ffn() -> Vec<FfnChoice> {
        vec![FfnChoice::Some(FfnKind::SwiGlu, FfnSize::Multiple(300))]
    }
    pub(super) fn ratios() -> Vec<Ratio> {
        [(0, 1), (1, 1), (1, 2), (1, 3)].map(|(first, second)| Ratio { first, second }).to_vec()
    }
    pub(super) fn ffns_per_mixer() -> Vec<u32> {
        vec![0, 1, 2]
    }
}
