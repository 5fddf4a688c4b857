//! The format: keys, the list of tensors, their values (github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3).

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;

use crate::export::theirs::Theirs;
use crate::export::weights::{Element, Weights};

/// Values of tensors begin at multiples of so many bytes.
pub(super) const ALIGNMENT: usize = 32;

/// The value of a key.
pub(crate) enum Entry {
    U32(u32),
    F32(f32),
    Flag(bool),
    Text(String),
    U32s(Vec<u32>),
    I32s(Vec<i32>),
    Flags(Vec<bool>),
    Texts(Vec<String>),
}

impl Entry {
    /// The number of its type, the type of its members where it is a list, and its bytes.
    fn encode(&self, out: &mut Vec<u8>) {
        let list = |out: &mut Vec<u8>, kind: u32, count: usize| {
            out.extend(9_u32.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend((count as u64).to_le_bytes());
        };
        match self {
            Self::U32(x) => out.extend([4_u32.to_le_bytes(), x.to_le_bytes()].concat()),
            Self::F32(x) => out.extend([6_u32.to_le_bytes(), x.to_le_bytes()].concat()),
            Self::Flag(x) => {
                out.extend(7_u32.to_le_bytes());
                out.push((*x).into());
            }
            Self::Text(x) => {
                out.extend(8_u32.to_le_bytes());
                text(x, out);
            }
            Self::U32s(all) => {
                list(out, 4, all.len());
                out.extend(all.iter().flat_map(|x| x.to_le_bytes()));
            }
            Self::I32s(all) => {
                list(out, 5, all.len());
                out.extend(all.iter().flat_map(|x| x.to_le_bytes()));
            }
            Self::Flags(all) => {
                list(out, 7, all.len());
                out.extend(all.iter().map(|&x| u8::from(x)));
            }
            Self::Texts(all) => {
                list(out, 8, all.len());
                for x in all {
                    text(x, out);
                }
            }
        }
    }
}

fn text(x: &str, out: &mut Vec<u8>) {
    out.extend((x.len() as u64).to_le_bytes());
    out.extend(x.as_bytes());
}

/// A file to be written.
pub(super) struct File {
    element: Element,
    keys: Vec<u8>,
    count: u64,
    tensors: Vec<Theirs>,
}

impl File {
    /// Whose matrices are of this type; everything else is fp32.
    pub(super) fn new(element: Element) -> Self {
        Self { element, keys: Vec::new(), count: 0, tensors: Vec::new() }
    }

    pub(super) fn set(&mut self, key: &str, entry: &Entry) {
        text(key, &mut self.keys);
        entry.encode(&mut self.keys);
        self.count += 1;
    }

    pub(super) fn add(&mut self, theirs: Theirs) {
        self.tensors.push(theirs);
    }

    /// The type of a tensor: llama.cpp wants what is no matrix of a product in fp32.
    fn element_of(&self, theirs: &Theirs) -> Element {
        let is_product = theirs.shape.len() == 2
            && theirs.shape.iter().all(|&n| n > 1)
            && !theirs.name.contains("conv");
        if is_product { self.element } else { Element::Fp32 }
    }

    /// One tensor at a time is in memory.
    pub(super) fn write(&self, weights: &Weights, path: &Path) -> anyhow::Result<()> {
        let aligned = |bytes: usize| bytes.div_ceil(ALIGNMENT) * ALIGNMENT;
        let mut head = b"GGUF".to_vec();
        head.extend(3_u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend(self.count.to_le_bytes());
        head.extend(&self.keys);
        let mut offset = 0;
        for theirs in &self.tensors {
            let element = self.element_of(theirs);
            text(&theirs.name, &mut head);
            head.extend((theirs.shape.len() as u32).to_le_bytes());
            // the fastest one first
            head.extend(theirs.shape.iter().rev().flat_map(|&n| (n as u64).to_le_bytes()));
            let kind: u32 = match element {
                Element::Fp32 => 0,
                Element::Bf16 => 30,
            };
            head.extend(kind.to_le_bytes());
            head.extend((offset as u64).to_le_bytes());
            offset += aligned(theirs.shape.iter().product::<usize>() * element.bytes());
        }
        head.resize(aligned(head.len()), 0);
        let written = || -> std::io::Result<()> {
            let mut out = BufWriter::new(std::fs::File::create(path)?);
            out.write_all(&head)?;
            for theirs in &self.tensors {
                let mut bytes = weights.encoded(theirs, self.element_of(theirs));
                bytes.resize(aligned(bytes.len()), 0);
                out.write_all(&bytes)?;
            }
            out.into_inner()?.sync_all()
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }
}
