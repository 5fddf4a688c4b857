//! The canonical text form of an architecture: what people read in tables, and what is hashed.
//!
//! ```text
//! architecture = "d=" INT ",vocab=" INT [ ",tied" ] [ ",meta=" INT ] { " | " [ INT "*" ] layer }
//! layer        = mixer [ "+ffn(" INT ")" ] | "ffn(" INT ")"
//! mixer        = NAME "(" KEY "=" INT { "," KEY [ "=" INT ] } ")"
//! ```
//! Equal neighbours are always folded into a run (`3*…`), so one architecture has one text.

use std::fmt;
use std::str::FromStr;

use super::{
    Architecture, ArchitectureError, Attention, DeltaNet, DeltaOptions, DeltaProduct,
    GatedDeltaNet, Layer, Mamba2, Mixer, MixerKind,
};

impl fmt::Display for Mixer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.kind().name();
        match self {
            Self::Attention(a) => {
                write!(f, "{name}(h={},kv={},k={}", a.heads, a.kv_heads, a.head_width)?;
                if let Some(window) = a.window {
                    write!(f, ",w={window}")?;
                }
                f.write_str(if a.qk_norm { ",qknorm" } else { "" })?;
                f.write_str(if a.selective_rope { ",srope)" } else { ")" })
            }
            Self::DeltaNet(m) => {
                write!(f, "{name}(h={},k={},v={}", m.heads, m.key_width, m.value_width)?;
                f.write_str(if m.output_gate { ",gate" } else { "" })?;
                write!(f, "{})", m.options)
            }
            Self::GatedDeltaNet(m) => {
                write!(f, "{name}(h={},k={},v={}", m.heads, m.key_width, m.value_width)?;
                if let Some(levels) = m.levels {
                    write!(f, ",l={levels}")?;
                }
                f.write_str(if m.output_gate { "" } else { ",nogate" })?;
                write!(f, "{})", m.options)
            }
            Self::DeltaProduct(m) => {
                write!(
                    f,
                    "{name}(h={},k={},v={},n={}",
                    m.heads, m.key_width, m.value_width, m.steps
                )?;
                f.write_str(if m.output_gate { "" } else { ",nogate" })?;
                write!(f, "{})", m.options)
            }
            Self::Mamba2(m) => {
                write!(f, "{name}(h={},p={},n={}", m.heads, m.head_width, m.state_width)?;
                match m.levels {
                    Some(levels) => write!(f, ",l={levels})"),
                    None => f.write_str(")"),
                }
            }
        }
    }
}

/// What departs from the default, each with a comma before it.
impl fmt::Display for DeltaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value_groups != 1 {
            write!(f, ",vg={}", self.value_groups)?;
        }
        if self.negative_eigenvalues {
            f.write_str(",neg")?;
        }
        if !self.short_conv {
            f.write_str(",noconv")?;
        }
        if self.selective_rope {
            f.write_str(",srope")?;
        }
        Ok(())
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.mixer, self.ffn_width) {
            (Some(mixer), Some(width)) => write!(f, "{mixer}+ffn({width})"),
            (Some(mixer), None) => mixer.fmt(f),
            (None, Some(width)) => write!(f, "ffn({width})"),
            (None, None) => f.write_str("empty"),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d={},vocab={}", self.d_model, self.vocab)?;
        if self.tied_embeddings {
            f.write_str(",tied")?;
        }
        if self.meta_tokens > 0 {
            write!(f, ",meta={}", self.meta_tokens)?;
        }
        for run in self.layers.chunk_by(|a, b| a == b) {
            f.write_str(" | ")?;
            if run.len() > 1 {
                write!(f, "{}*", run.len())?;
            }
            run[0].fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for Architecture {
    type Err = ArchitectureError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut cursor = Cursor { text, at: 0 };
        cursor.expect("d=")?;
        let d_model = cursor.number()?;
        cursor.expect(",vocab=")?;
        let vocab = cursor.number()?;
        let tied = cursor.take(",tied");
        let meta_tokens =
            if cursor.rest().starts_with(",meta") { cursor.field(",meta")? } else { 0 };
        let mut layers = Vec::new();
        while !cursor.rest().is_empty() {
            cursor.expect(" | ")?;
            let count_at = cursor.at;
            let count = if cursor.rest().starts_with(|c: char| c.is_ascii_digit()) {
                let count = cursor.number()?;
                cursor.expect("*")?;
                count as usize
            } else {
                1
            };
            if count == 0 || count > super::MAX_LAYERS {
                return Err(ArchitectureError::Text {
                    at: count_at,
                    what: format!("a run has 1 to {} layers, got {count}", super::MAX_LAYERS),
                });
            }
            let layer = cursor.layer()?;
            layers.extend(std::iter::repeat_n(layer, count));
        }
        Self::new(d_model, vocab, tied, layers)?.with_meta_tokens(meta_tokens)
    }
}

impl FromStr for Layer {
    type Err = ArchitectureError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut cursor = Cursor { text, at: 0 };
        let layer = cursor.layer()?;
        cursor.end()?;
        layer.check().map_err(|(mixer, what)| ArchitectureError::Layer {
            layer: 0,
            mixer,
            what,
        })?;
        Ok(layer)
    }
}

/// A position in the text; every error names it.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl Cursor<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error<T>(&self, expected: &str) -> Result<T, ArchitectureError> {
        let got: String = self.rest().chars().take(16).collect();
        let got = if got.is_empty() { "the end".to_owned() } else { format!("`{got}`") };
        Err(ArchitectureError::Text {
            at: self.at,
            what: format!("expected {expected}, got {got}"),
        })
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), ArchitectureError> {
        if self.take(token) { Ok(()) } else { self.error(&format!("`{token}`")) }
    }

    fn end(&self) -> Result<(), ArchitectureError> {
        if self.rest().is_empty() { Ok(()) } else { self.error("the end") }
    }

    fn number(&mut self) -> Result<u32, ArchitectureError> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        match self.rest()[..digits].parse() {
            Ok(n) => {
                self.at += digits;
                Ok(n)
            }
            Err(_) => self.error("a number"),
        }
    }

    /// `key=NUMBER`, followed by `,` or `)` which is left alone.
    fn field(&mut self, key: &str) -> Result<u32, ArchitectureError> {
        self.expect(key)?;
        self.expect("=")?;
        self.number()
    }

    fn layer(&mut self) -> Result<Layer, ArchitectureError> {
        if self.take("ffn(") {
            let width = self.number()?;
            self.expect(")")?;
            return Ok(Layer { mixer: None, ffn_width: Some(width) });
        }
        let mixer = self.mixer()?;
        let ffn_width = if self.take("+ffn(") {
            let width = self.number()?;
            self.expect(")")?;
            Some(width)
        } else {
            None
        };
        Ok(Layer { mixer: Some(mixer), ffn_width })
    }

    fn delta_shape(&mut self) -> Result<[u32; 3], ArchitectureError> {
        Ok([self.field("h")?, self.field(",k")?, self.field(",v")?])
    }

    fn delta_options(&mut self) -> Result<DeltaOptions, ArchitectureError> {
        let value_groups = if self.rest().starts_with(",vg") { self.field(",vg")? } else { 1 };
        let negative_eigenvalues = self.take(",neg");
        let short_conv = !self.take(",noconv");
        let selective_rope = self.take(",srope");
        Ok(DeltaOptions { value_groups, negative_eigenvalues, short_conv, selective_rope })
    }

    fn mixer(&mut self) -> Result<Mixer, ArchitectureError> {
        let Some(kind) = MixerKind::ALL.into_iter().find(|kind| {
            self.rest().strip_prefix(kind.name()).is_some_and(|rest| rest.starts_with('('))
        }) else {
            let names: Vec<&str> = MixerKind::ALL.iter().map(|kind| kind.name()).collect();
            return self.error(&format!("a layer (one of {}, ffn)", names.join(", ")));
        };
        self.at += kind.name().len();
        self.expect("(")?;
        let mixer = match kind {
            MixerKind::FullAttention | MixerKind::SlidingWindow => {
                let heads = self.field("h")?;
                let kv_heads = self.field(",kv")?;
                let head_width = self.field(",k")?;
                let window =
                    if kind == MixerKind::SlidingWindow { Some(self.field(",w")?) } else { None };
                Mixer::Attention(Attention {
                    heads,
                    kv_heads,
                    head_width,
                    window,
                    qk_norm: self.take(",qknorm"),
                    selective_rope: self.take(",srope"),
                })
            }
            MixerKind::DeltaNet => {
                let [heads, key_width, value_width] = self.delta_shape()?;
                let output_gate = self.take(",gate");
                let options = self.delta_options()?;
                Mixer::DeltaNet(DeltaNet { heads, key_width, value_width, output_gate, options })
            }
            MixerKind::GatedDeltaNet | MixerKind::LogLinearGatedDeltaNet => {
                let [heads, key_width, value_width] = self.delta_shape()?;
                let levels = if kind == MixerKind::LogLinearGatedDeltaNet {
                    Some(self.field(",l")?)
                } else {
                    None
                };
                let output_gate = !self.take(",nogate");
                let options = self.delta_options()?;
                Mixer::GatedDeltaNet(GatedDeltaNet {
                    heads,
                    key_width,
                    value_width,
                    output_gate,
                    levels,
                    options,
                })
            }
            MixerKind::DeltaProduct | MixerKind::GatedDeltaProduct => {
                let [heads, key_width, value_width] = self.delta_shape()?;
                Mixer::DeltaProduct(DeltaProduct {
                    heads,
                    key_width,
                    value_width,
                    steps: self.field(",n")?,
                    decay: kind == MixerKind::GatedDeltaProduct,
                    output_gate: !self.take(",nogate"),
                    options: self.delta_options()?,
                })
            }
            MixerKind::Mamba2 | MixerKind::LogLinearMamba2 => Mixer::Mamba2(Mamba2 {
                heads: self.field("h")?,
                head_width: self.field(",p")?,
                state_width: self.field(",n")?,
                levels: if kind == MixerKind::LogLinearMamba2 {
                    Some(self.field(",l")?)
                } else {
                    None
                },
            }),
        };
        self.expect(")")?;
        Ok(mixer)
    }
}
