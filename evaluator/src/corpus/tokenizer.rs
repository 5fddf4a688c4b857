//! Text to tokens by a Hugging Face tokenizer, done once for a corpus and kept in a cache folder.

use std::path::{Path, PathBuf};

use super::tokens::{Tokens, Width};
use crate::error::{Error, Result};
use crate::files;

/// Text is handed over in pieces of about this many bytes, cut at line ends, so that all cores share the work.
const PIECE_BYTES: usize = 1 << 16;

/// Tokens decoded to count their bytes.
const DECODED_TOKENS: u64 = 1 << 20;

pub(super) struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// Of the file, so that another tokenizer never finds this one's tokens.
    hash: blake3::Hash,
}

impl Tokenizer {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let error = |problem: String| Error::Tokenizer { path: path.to_owned(), problem };
        let bytes =
            std::fs::read(path).map_err(|source| error(format!("it cannot be read ({source})")))?;
        let inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|problem| error(format!("it is not understood ({problem})")))?;
        let tokenizer = Self { path: path.to_owned(), inner, hash: blake3::hash(&bytes) };
        if tokenizer.vocab() == 0 {
            return Err(error("its vocabulary is empty".to_owned()));
        }
        Ok(tokenizer)
    }

    fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::Tokenizer { path: self.path.clone(), problem: problem.to_string() }
    }

    /// One more than the largest id: ids need not be without gaps.
    pub(super) fn vocab(&self) -> u64 {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| u64::from(id) + 1)
    }

    /// The tokens of these documents, from the cache if they are there.
    pub(super) fn tokens(&self, documents: &[String], cache: Option<&Path>) -> Result<Tokens> {
        // By the vocabulary, not by the ids that occur: no id can be too large for the file.
        let width = if self.vocab() <= 1 << 16 { Width::U16 } else { Width::U32 };
        let Some(cache) = cache else {
            return self.encode(documents).map(|ids| Tokens::from_ids(&ids));
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.hash.as_bytes());
        for document in documents {
            hasher.update(&(document.len() as u64).to_le_bytes());
            hasher.update(document.as_bytes());
        }
        let file =
            cache.join(format!("{}.u{}", &hasher.finalize().to_hex()[..32], width.bytes() * 8));
        if !file.is_file() {
            std::fs::create_dir_all(cache).map_err(Error::io("create", cache))?;
            let ids = self.encode(documents)?;
            let bytes: Vec<u8> = match width {
                Width::U16 => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
                Width::U32 => ids.iter().flat_map(|&id| id.to_le_bytes()).collect(),
            };
            files::write_atomically(&file, &bytes)?;
        }
        let bytes = std::fs::metadata(&file).map_err(Error::io("read", &file))?.len();
        Tokens::map(&file, width, 0, bytes / width.bytes())
    }

    fn encode(&self, documents: &[String]) -> Result<Vec<u32>> {
        let pieces: Vec<&str> = documents.iter().flat_map(|document| pieces(document)).collect();
        let mut ids = Vec::new();
        // In rounds, because an encoding takes many times the memory of its ids.
        for round in pieces.chunks(256) {
            let encodings = self
                .inner
                .encode_batch_fast(round.to_vec(), false)
                .map_err(|problem| self.error(problem))?;
            ids.extend(encodings.iter().flat_map(tokenizers::Encoding::get_ids));
        }
        Ok(ids)
    }

    /// Bytes of text per token, counted by decoding the beginning of `tokens`.
    pub(super) fn bytes_per_token(&self, tokens: &Tokens) -> Result<f64> {
        let n = tokens.len().min(DECODED_TOKENS);
        let ids = tokens.ids(0, n);
        if let Some(id) = ids.iter().find(|&&id| u64::from(id) >= self.vocab()) {
            return Err(self.error(format!(
                "it has no token {id}, which the token files have: they are of another one"
            )));
        }
        let text = self.inner.decode(&ids, false).map_err(|problem| self.error(problem))?;
        Ok(text.len() as f64 / n.max(1) as f64)
    }
}

/// Cuts at line ends; a line longer than a piece stays whole.
fn pieces(document: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = document;
    while rest.len() > PIECE_BYTES {
        let Some(end) = rest.as_bytes()[PIECE_BYTES..].iter().position(|&byte| byte == b'\n')
        else {
            break;
        };
        let (piece, after) = rest.split_at(PIECE_BYTES + end + 1);
        pieces.push(piece);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}
