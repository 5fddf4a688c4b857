//! `[space.mixers]`: for each mixer that may be used a table with the choices for its genes.
//!
//! Which genes a mixer has, their defaults and their words are in its family's table,
//! [`crate::architecture::MixerKind::genes`]; here is how such tables are read, written, and described to editors.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::architecture::{Choice, Form, Gene, MixerKind, Turn};

/// `[space.mixers]`: a table for each mixer that may be used; `[space.mixers.gdn]` alone takes all its defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MixerChoices {
    kinds: Vec<KindChoices>,
    /// `[space.mixers.none]`: a layer may be an FFN alone.
    none: bool,
}

/// The key of an empty table: no mixer.
const NONE: &str = "none";

/// The table of one kind of mixer.
#[derive(Debug, Clone, PartialEq)]
pub struct KindChoices {
    kind: MixerKind,
    /// Of each of the kind's genes; none where the file leaves it to the reference layer, or cannot choose.
    listed: Vec<Option<Listed>>,
}

/// What a gene may be in a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// Derived from the rest of the shape.
    Auto,
    /// One of these.
    Numbers(Vec<u32>),
    /// One of these.
    Flags(Vec<bool>),
    /// One of these.
    Forms(Vec<Form>),
}

impl MixerChoices {
    /// The choices for a kind of mixer, if it may be used.
    pub fn of(&self, kind: MixerKind) -> Option<&KindChoices> {
        self.kinds.iter().find(|choices| choices.kind == kind)
    }

    /// Whether a layer may be without a mixer, an FFN alone.
    pub fn may_be_none(&self) -> bool {
        self.none
    }
}

impl KindChoices {
    /// What stands in a table that says nothing.
    fn usual(kind: MixerKind) -> Self {
        Self { kind, listed: kind.genes().iter().map(usual).collect() }
    }

    /// Each gene of the kind, in the order of the file, with what it may be.
    pub(super) fn genes(&self) -> impl Iterator<Item = (&'static Gene, Option<&Listed>)> {
        self.kind.genes().iter().zip(self.listed.iter().map(Option::as_ref))
    }

    /// Whether a gene is derived.
    pub(super) fn is_auto(&self, name: &str) -> bool {
        self.genes().any(|(gene, listed)| gene.name == name && listed == Some(&Listed::Auto))
    }
}

fn usual(gene: &Gene) -> Option<Listed> {
    match gene.choice {
        Choice::Numbers(numbers) | Choice::NumbersOrAuto(Some(numbers)) => {
            Some(Listed::Numbers(numbers.to_vec()))
        }
        Choice::NumbersOrAuto(None) => Some(Listed::Auto),
        Choice::Flag(flag) => Some(Listed::Flags(vec![flag])),
        Choice::Forms(forms) => Some(Listed::Forms(forms[..1].to_vec())),
        Choice::FlagOfKind | Choice::Fixed => None,
    }
}

/// Whether the file has a key for it.
fn has_key(gene: &Gene) -> bool {
    !matches!(gene.choice, Choice::Fixed)
}

impl Serialize for Listed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Numbers(numbers) => numbers.serialize(serializer),
            Self::Flags(flags) => flags.serialize(serializer),
            Self::Forms(forms) => forms.serialize(serializer),
        }
    }
}

impl Serialize for KindChoices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (gene, listed) in self.genes() {
            let is_unsaid = gene.turn == Turn::IfChosen && listed == usual(gene).as_ref();
            if let Some(listed) = listed
                && !is_unsaid
            {
                map.serialize_entry(gene.name, listed)?;
            }
        }
        map.end()
    }
}

impl Serialize for MixerChoices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tables = self.kinds.len() + usize::from(self.none);
        let mut map = serializer.serialize_map(Some(tables))?;
        for choices in &self.kinds {
            map.serialize_entry(choices.kind.name(), choices)?;
        }
        if self.none {
            map.serialize_entry(NONE, &Empty {})?;
        }
        map.end()
    }
}

/// A table without keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

/// A key, one of these; its index.
struct Key<'a>(&'a [&'static str]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = usize;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: de::Error>(self, key: &str) -> Result<usize, E> {
        self.0.iter().position(|known| *known == key).ok_or_else(|| {
            let known = self.0.join("`, `");
            E::custom(format!("unknown field `{key}`, expected one of `{known}`"))
        })
    }
}

/// The choices for a gene.
struct OfGene(&'static Gene);

impl<'de> DeserializeSeed<'de> for OfGene {
    type Value = Option<Listed>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Option<Listed>, D::Error> {
        Ok(match self.0.choice {
            Choice::Numbers(_) => Some(Listed::Numbers(Vec::deserialize(d)?)),
            Choice::NumbersOrAuto(_) => Some(Counts::deserialize(d)?.0),
            Choice::Flag(_) => Some(Listed::Flags(Vec::deserialize(d)?)),
            Choice::FlagOfKind => Option::deserialize(d)?.map(Listed::Flags),
            Choice::Forms(forms) => {
                let words: Vec<Value> = Vec::deserialize(d)?;
                let form = |word: &Value| {
                    let known = forms.iter().copied().find(|form| json!(form) == *word);
                    known.ok_or_else(|| {
                        let all: Vec<String> =
                            forms.iter().map(|form| json!(form).to_string()).collect();
                        de::Error::custom(format!("expected one of {}, got {word}", all.join(", ")))
                    })
                };
                Some(Listed::Forms(words.iter().map(form).collect::<Result<_, _>>()?))
            }
            Choice::Fixed => None,
        })
    }
}

/// The table of a kind.
struct OfKind(MixerKind);

impl<'de> DeserializeSeed<'de> for OfKind {
    type Value = KindChoices;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<KindChoices, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OfKind {
    type Value = KindChoices;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KindChoices, A::Error> {
        let mut choices = KindChoices::usual(self.0);
        let genes: Vec<&'static Gene> =
            self.0.genes().iter().filter(|gene| has_key(gene)).collect();
        let keys: Vec<&'static str> = genes.iter().map(|gene| gene.name).collect();
        while let Some(index) = map.next_key_seed(Key(&keys))? {
            let listed = map.next_value_seed(OfGene(genes[index]))?;
            let own = self.0.genes().iter().position(|gene| gene.name == keys[index]);
            choices.listed[own.expect("the key is of one of its genes")] = listed;
        }
        Ok(choices)
    }
}

impl<'de> Deserialize<'de> for MixerChoices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMixers;
        impl<'de> Visitor<'de> for OfMixers {
            type Value = MixerChoices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MixerChoices, A::Error> {
                let mut names = MixerKind::ALL.map(MixerKind::name).to_vec();
                names.push(NONE);
                let mut all = MixerChoices::default();
                while let Some(index) = map.next_key_seed(Key(&names))? {
                    if let Some(&kind) = MixerKind::ALL.get(index) {
                        all.kinds.push(map.next_value_seed(OfKind(kind))?);
                    } else {
                        map.next_value::<Empty>()?;
                        all.none = true;
                    }
                }
                let place = |kind| MixerKind::ALL.iter().position(|&known| known == kind);
                all.kinds.sort_by_key(|choices| place(choices.kind));
                Ok(all)
            }
        }
        deserializer.deserialize_map(OfMixers)
    }
}

/// Whole numbers to choose from, or `"auto"`.
struct Counts(Listed);

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountsVisitor;
        impl<'de> Visitor<'de> for CountsVisitor {
            type Value = Counts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of whole numbers, or \"auto\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Counts, E> {
                if text == "auto" {
                    Ok(Counts(Listed::Auto))
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Counts, A::Error> {
                let numbers = Vec::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
                Ok(Counts(Listed::Numbers(numbers)))
            }
        }
        deserializer.deserialize_any(CountsVisitor)
    }
}

impl JsonSchema for Counts {
    fn schema_name() -> Cow<'static, str> {
        "Counts".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Whole numbers to choose from, or \"auto\": derived from the rest of the shape.",
            "anyOf": [
                { "const": "auto" },
                { "type": "array", "items": { "type": "integer", "minimum": 1 }, "minItems": 1 }
            ]
        })
    }
}

impl JsonSchema for MixerChoices {
    fn schema_name() -> Cow<'static, str> {
        "MixerChoices".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = Map::new();
        for kind in MixerKind::ALL {
            let row = kind.row();
            let (name, about) = row.table;
            let genes = kind.genes().iter().filter(|gene| has_key(gene));
            let genes: Map<String, Value> =
                genes.map(|gene| (gene.name.to_owned(), gene_schema(gene, generator))).collect();
            let table = json!({
                "description": about,
                "type": "object",
                "properties": genes,
                "additionalProperties": false,
            });
            generator.definitions_mut().insert(name.to_owned(), table);
            let reference = json!({ "$ref": format!("#/$defs/{name}") });
            let property = json!({
                "description": row.about,
                "anyOf": [reference, { "type": "null" }],
            });
            properties.insert(row.name.to_owned(), property);
        }
        let none = json!({
            "description": "No mixer: a layer may be an FFN alone. Not beside stages.",
            "type": "object",
            "additionalProperties": false,
        });
        properties.insert(NONE.to_owned(), none);
        json_schema!({
            "description": "`[space.mixers]`: a table for each mixer that may be used; `[space.mixers.gdn]` alone takes all its defaults.",
            "type": "object",
            "properties": properties,
            "additionalProperties": false
        })
    }
}

fn gene_schema(gene: &Gene, generator: &mut SchemaGenerator) -> Value {
    let mut schema = match gene.choice {
        Choice::Numbers(_) => generator.subschema_for::<Vec<u32>>(),
        Choice::NumbersOrAuto(_) => generator.subschema_for::<Counts>(),
        Choice::Flag(_) | Choice::Fixed => generator.subschema_for::<Vec<bool>>(),
        Choice::FlagOfKind => generator.subschema_for::<Option<Vec<bool>>>(),
        Choice::Forms(forms) => json_schema!({ "type": "array", "items": { "enum": forms } }),
    };
    schema.insert("description".to_owned(), gene.about.into());
    if let Some(usual) = usual(gene) {
        schema.insert("default".to_owned(), json!(usual));
    }
    schema.to_value()
}
