//! GGUF, the file of llama.cpp: a stack that one of its architectures holds exactly, written directly.
//!
//! Its tensors are those of the type of transformers that llama.cpp's own converter reads, under llama.cpp's names and with
//! what that converter does to them.

mod architectures;
mod file;

use std::path::Path;

use search::targets::llama_cpp_architecture;

use self::architectures::ALL;
use self::file::{Entry, File};
use super::folder::{Folder, Tokens};

/// Writes the file of a stack without obstacles.
pub(crate) fn write(folder: &Folder, path: &Path) -> anyhow::Result<()> {
    let stack = folder.weights.stack();
    let name = llama_cpp_architecture(stack).expect("a stack with obstacles is refused before");
    let one = ALL.iter().find(|one| one.name == name).expect("every architecture has its keys");
    let mut file = File::new(folder.element);
    file.set("general.architecture", &Entry::Text(one.name.to_owned()));
    file.set("general.name", &Entry::Text(format!("deltafront {}", stack.id())));
    file.set("general.alignment", &Entry::U32(file::ALIGNMENT as u32));
    let mut key = |name: &str, entry: Entry| file.set(&format!("{}.{name}", one.name), &entry);
    key("context_length", Entry::U32(1 << 20));
    key("embedding_length", Entry::U32(stack.d_model()));
    key("block_count", Entry::U32(stack.layers().len() as u32));
    key("vocab_size", Entry::U32(stack.vocab()));
    key("attention.layer_norm_rms_epsilon", Entry::F32(1e-5));
    (one.keys)(stack, &mut key);
    vocabulary(&mut file, folder);
    for theirs in one.tensors(stack) {
        file.add(theirs);
    }
    file.write(&folder.weights, path)
}

/// Bytes as the vocabulary of GPT-2 writes them, without merges; of other tokens only how many there are.
fn vocabulary(file: &mut File, folder: &Folder) {
    let vocab = folder.weights.stack().vocab();
    if folder.tokens != Tokens::Bytes {
        file.set("tokenizer.ggml.model", &Entry::Text("none".to_owned()));
        return;
    }
    let mut beyond = 256_u32;
    let mut tokens: Vec<String> = (0..=255_u8)
        .map(|byte| {
            let is_plain = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let letter = if is_plain { u32::from(byte) } else { beyond };
            beyond += u32::from(!is_plain);
            char::from_u32(letter).unwrap_or_default().to_string()
        })
        .collect();
    tokens.extend((256..vocab).map(|n| format!("[unused {n}]")));
    let kinds = (0..vocab).map(|n| if n < 256 { 1 } else { 5 }).collect();
    file.set("tokenizer.ggml.model", &Entry::Text("gpt2".to_owned()));
    file.set("tokenizer.ggml.pre", &Entry::Text("gpt-2".to_owned()));
    file.set("tokenizer.ggml.tokens", &Entry::Texts(tokens));
    file.set("tokenizer.ggml.token_type", &Entry::I32s(kinds));
    file.set("tokenizer.ggml.merges", &Entry::Texts(Vec::new()));
    file.set("tokenizer.ggml.add_bos_token", &Entry::Flag(false));
    file.set("tokenizer.ggml.add_eos_token", &Entry::Flag(false));
}
