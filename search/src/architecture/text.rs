//! The canonical text form of an architecture: what people read in tables, and what is hashed.
//!
//! ```text
//! architecture = "d=" INT ",vocab=" INT [ ",tied" ] [ ",meta=" INT ] { " | " [ INT "*" ] layer }
//! layer        = mixer [ "+" ffn ] | ffn
//! ffn          = ( "ffn" | "relu2" ) "(" INT ")" | "moe(" INT ",e=" INT ",k=" INT [ ",s=" INT ] ")"
//! mixer        = NAME "(" KEY "=" INT { "," KEY [ "=" ( INT | WORD ) ] } ")"
//! ```
//! The keys of a mixer and their order are those of its genes.
//! Equal neighbours are always folded into a run (`3*…`), so one architecture has one text.

use std::fmt;
use std::str::FromStr;

use super::{
    Architecture, ArchitectureError, Experts, Ffn, FfnKind, Layer, Letter, MAX_LAYERS, Mixer,
    MixerKind, Settings,
};

impl fmt::Display for Mixer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        write!(f, "{}(", kind.name())?;
        for (index, gene) in kind.genes().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (gene.letter, self.gene(gene.name)) {
                (Letter::Unless(_, usual), n) if n == usual => {}
                (Letter::Number(letter) | Letter::Unless(letter, _), n) => {
                    write!(f, "{comma}{letter}={n}")?;
                }
                (Letter::On(word), 1) | (Letter::Off(word), 0) => write!(f, "{comma}{word}")?,
                (Letter::Forms(_), 0) | (Letter::On(_) | Letter::Off(_) | Letter::Silent, _) => {}
                (Letter::Forms(words), form) => write!(f, "{comma}{}", words[form as usize])?,
            }
        }
        f.write_str(")")
    }
}

impl fmt::Display for Ffn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}", self.kind.word(), self.width)?;
        if let Some(Experts { experts, per_token, shared }) = self.kind.experts() {
            write!(f, ",e={experts},k={per_token}")?;
            if shared > 0 {
                write!(f, ",s={shared}")?;
            }
        }
        f.write_str(")")
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.mixer, self.ffn) {
            (Some(mixer), Some(ffn)) => write!(f, "{mixer}+{ffn}"),
            (Some(mixer), None) => mixer.fmt(f),
            (None, Some(ffn)) => ffn.fmt(f),
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
            if count == 0 || count > MAX_LAYERS {
                return Err(ArchitectureError::Text {
                    at: count_at,
                    what: format!("a run has 1 to {MAX_LAYERS} layers, got {count}"),
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

    /// The one behind the other, or none of them.
    fn take_both(&mut self, first: &str, second: &str) -> bool {
        let found = self.rest().strip_prefix(first).is_some_and(|rest| rest.starts_with(second));
        if found {
            self.at += first.len() + second.len();
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
        self.value()
    }

    /// `=NUMBER`, likewise.
    fn value(&mut self) -> Result<u32, ArchitectureError> {
        self.expect("=")?;
        self.number()
    }

    fn layer(&mut self) -> Result<Layer, ArchitectureError> {
        if let Some(ffn) = self.ffn("")? {
            return Ok(Layer { mixer: None, ffn: Some(ffn) });
        }
        Ok(Layer { mixer: Some(self.mixer()?), ffn: self.ffn("+")? })
    }

    /// A feed-forward network behind `before`, if one stands here.
    fn ffn(&mut self, before: &str) -> Result<Option<Ffn>, ArchitectureError> {
        let begins = |kind: &FfnKind| {
            let rest = self.rest().strip_prefix(before)?.strip_prefix(kind.word())?;
            rest.starts_with('(').then_some(*kind)
        };
        let Some(mut kind) = FfnKind::ALL.iter().find_map(begins) else { return Ok(None) };
        self.at += before.len() + kind.word().len() + 1;
        let width = self.number()?;
        if let FfnKind::Moe(of) = &mut kind {
            of.experts = self.field(",e")?;
            of.per_token = self.field(",k")?;
            of.shared = if self.rest().starts_with(",s") { self.field(",s")? } else { 0 };
        }
        self.expect(")")?;
        Ok(Some(Ffn { width, kind }))
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
        let mut genes = Settings::default();
        for (index, gene) in kind.genes().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let value = match gene.letter {
                Letter::Number(letter) if self.take_both(comma, letter) => Some(self.value()?),
                Letter::Number(letter) => return self.error(&format!("`{comma}{letter}`")),
                Letter::Unless(letter, _) if self.take_both(comma, letter) => Some(self.value()?),
                Letter::Unless(_, usual) => Some(usual),
                Letter::On(word) => Some(self.take_both(comma, word).into()),
                Letter::Off(word) => Some((!self.take_both(comma, word)).into()),
                // a later word may begin as an earlier one
                Letter::Forms(words) => (1..words.len() as u32)
                    .rev()
                    .find(|&form| self.take_both(comma, words[form as usize]))
                    .or(Some(0)),
                Letter::Silent => None,
            };
            genes.set(gene.name, value);
        }
        self.expect(")")?;
        Ok(kind.build(&genes))
    }
}
