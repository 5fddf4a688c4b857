//! Text to tokens by a Hugging Face tokenizer, done once for a corpus and kept in a cache folder; and the bytes behind
//! tokens, where they can be told.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::token_format::Width;
use super::tokens::Tokens;
use crate::error::{Error, Result};
use crate::files;

/// Text is handed over in pieces of about this many bytes, cut at line ends, so that all cores share the work.
const PIECE_BYTES: usize = 1 << 16;

/// Tokens of a window that is decoded to count its bytes, and how many windows are, spread evenly.
const WINDOW_TOKENS: u64 = 4096;
const WINDOWS: u64 = 64;

/// Bytes of text that are looked at for what the tokenizer does not know.
const KNOWN_BYTES: usize = 1 << 20;

/// The part of a text that may be lost in its tokens: above it, bits per byte would count what was never predicted.
const MAY_BE_LOST: f64 = 1e-3;

/// The part of the tokens that may differ when decoded text is read again: windows are cut inside words.
const MAY_DIFFER: f64 = 1e-2;

/// Part of the name of cached tokens: another number for another way to read text.
const READING: &[u8] = b"2";

const NO_DECODER: &str = "the tokenizer does not give the text back: its file has no `decoder`";

/// Settings of a tokenizer.json that are meant for a model's training batches, and would cut, fill up or shake a corpus.
const OF_BATCHES: [&[&str]; 3] = [&["truncation"], &["padding"], &["model", "dropout"]];

pub(super) struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// Of the file, so that another tokenizer never finds this one's tokens.
    hash: blake3::Hash,
    /// One more than the largest id: ids need not be without gaps.
    vocab: u64,
    /// The id that stands for whatever the vocabulary lacks.
    unknown: Option<u32>,
    /// Whether a character of a token stands for a byte, as in GPT-2's.
    of_bytes: bool,
    /// Whether it can make text of tokens: whole words it can, pieces of words only by its `decoder`.
    decodes: bool,
}

/// Bytes of text per token, or why they cannot be told.
pub(super) type BytesPerToken = std::result::Result<f64, String>;

impl Tokenizer {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let error = |problem: String| Error::Tokenizer { path: path.to_owned(), problem };
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(error("it is not a file".to_owned()));
        }
        let bytes =
            std::fs::read(path).map_err(|source| error(format!("it cannot be read ({source})")))?;
        let mut json: Value = serde_json::from_slice(&bytes)
            .map_err(|problem| error(format!("it is not JSON ({problem})")))?;
        for key in OF_BATCHES {
            forget(&mut json, key);
        }
        let inner = serde_json::to_vec(&json)
            .map_err(|problem| error(problem.to_string()))
            .and_then(|json| {
                tokenizers::Tokenizer::from_bytes(&json)
                    .map_err(|problem| error(format!("it is not understood ({problem})")))
            })?;
        let of_bytes = ["normalizer", "pre_tokenizer", "decoder"]
            .iter()
            .any(|part| json.get(part).is_some_and(has_byte_level));
        let unknown = unknown_id(&json, &inner);
        let of_words = json.pointer("/model/type").is_some_and(|kind| kind == "WordLevel");
        let decodes = of_words || json.get("decoder").is_some_and(|decoder| !decoder.is_null());
        let hash = blake3::hash(&bytes);
        let largest = inner.get_vocab(true).into_values().max();
        let Some(vocab) = largest.map(|id| u64::from(id) + 1) else {
            return Err(error("its vocabulary is empty".to_owned()));
        };
        Ok(Self { path: path.to_owned(), inner, hash, vocab, unknown, of_bytes, decodes })
    }

    fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::Tokenizer { path: self.path.clone(), problem: problem.to_string() }
    }

    /// One more than the largest id: ids need not be without gaps.
    pub(super) fn vocab(&self) -> u64 {
        self.vocab
    }

    /// Whether u16 cannot hold its ids.
    pub(super) fn is_wide(&self) -> bool {
        self.vocab > 1 << 16
    }

    /// The tokens of these documents, from the cache if they are there.
    pub(super) fn tokens(&self, documents: &[String], cache: Option<&Path>) -> Result<Tokens> {
        // By the vocabulary, not by the ids that occur: no id can be too large for the file.
        let width = if self.is_wide() { Width::U32 } else { Width::U16 };
        let Some(cache) = cache else {
            return self.encode(documents).map(|ids| Tokens::from_ids(&ids));
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(READING);
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
                Width::U32 | Width::I64 => ids.iter().flat_map(|&id| id.to_le_bytes()).collect(),
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

    /// Bytes per token of a text that became `tokens` tokens: its own bytes, unless too many of them were lost.
    pub(super) fn bytes_of_text(&self, documents: &[String], tokens: u64) -> Result<BytesPerToken> {
        let (mut seen, mut lost) = (0, 0);
        for piece in documents.iter().flat_map(|document| pieces(document)) {
            if seen >= KNOWN_BYTES {
                break;
            }
            seen += piece.len();
            lost += self.lost(piece)?;
        }
        let part = lost as f64 / seen.max(1) as f64;
        if part > MAY_BE_LOST {
            return Ok(Err(format!(
                "the tokenizer does not know {:.1} % of the text, so its bytes are not in the tokens",
                100.0 * part
            )));
        }
        let bytes: usize = documents.iter().map(String::len).sum();
        Ok(Ok(bytes as f64 / tokens.max(1) as f64))
    }

    /// Bytes of a text, white space aside, that no token has or only the token of what is unknown.
    fn lost(&self, text: &str) -> Result<usize> {
        let encoding = self.inner.encode(text, false).map_err(|problem| self.error(problem))?;
        let mut known = vec![false; text.len()];
        for (&id, &(from, to)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            if Some(id) != self.unknown {
                known[from.min(text.len())..to.min(text.len())].fill(true);
            }
        }
        let lost = text.char_indices().filter(|&(at, c)| !known[at] && !c.is_whitespace());
        Ok(lost.map(|(_, c)| c.len_utf8()).sum())
    }

    /// Bytes of text per token of a token file; special tokens stand for no text.
    pub(super) fn bytes_of_tokens(&self, tokens: &Tokens) -> Result<BytesPerToken> {
        if !self.decodes && !self.of_bytes {
            return Ok(Err(NO_DECODER.to_owned()));
        }
        let windows = WINDOWS.min(tokens.len().div_ceil(WINDOW_TOKENS)).max(1);
        let stride = tokens.len() / windows;
        let window = |index: u64| {
            tokens.ids(index * stride, WINDOW_TOKENS.min(stride.max(1)).min(tokens.len()))
        };
        let (mut count, mut unknown, mut bytes, mut differing) = (0_usize, 0_usize, 0_usize, 0);
        for ids in (0..windows).map(window) {
            if let Some(id) = ids.iter().find(|&&id| u64::from(id) >= self.vocab) {
                return Err(self.error(format!(
                    "it has no token {id}, which the token files have: they are of another one"
                )));
            }
            count += ids.len();
            unknown += ids.iter().filter(|&&id| Some(id) == self.unknown).count();
            if self.of_bytes {
                bytes += ids.iter().map(|&id| self.bytes_of_token(id)).sum::<usize>();
                continue;
            }
            let decode =
                |skip| self.inner.decode(&ids, skip).map_err(|problem| self.error(problem));
            bytes += decode(true)?.len();
            let again = self
                .inner
                .encode_fast(decode(false)?, false)
                .map_err(|problem| self.error(problem))?;
            differing += difference(&ids, again.get_ids());
        }
        let part = |n: usize| n as f64 / count.max(1) as f64;
        Ok(if part(unknown) > MAY_BE_LOST {
            Err(format!(
                "{:.1} % of the tokens stand for text that the tokenizer did not know",
                100.0 * part(unknown)
            ))
        } else if part(differing) > MAY_DIFFER {
            Err("the tokenizer does not give the text back: what it decodes has other tokens"
                .to_owned())
        } else {
            Ok(bytes as f64 / count.max(1) as f64)
        })
    }

    /// Of a tokenizer whose characters stand for bytes.
    fn bytes_of_token(&self, id: u32) -> usize {
        match self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id) {
            Some(added) if added.special => 0,
            Some(added) => added.content.len(),
            None => self.inner.id_to_token(id).map_or(0, |token| token.chars().count()),
        }
    }
}

/// Sets what lies at this path of keys to null, where it is there.
fn forget(json: &mut Value, path: &[&str]) {
    let mut place = Some(json);
    for key in path {
        place = place.and_then(|value| value.get_mut(key));
    }
    if let Some(value) = place {
        *value = Value::Null;
    }
}

/// Whether a part of a tokenizer.json, or one of a sequence in it, is GPT-2's alphabet of bytes.
fn has_byte_level(part: &Value) -> bool {
    match part {
        Value::Object(fields) => {
            fields.get("type").is_some_and(|kind| kind == "ByteLevel")
                || fields.values().any(has_byte_level)
        }
        Value::Array(parts) => parts.iter().any(has_byte_level),
        _ => false,
    }
}

/// Of the kinds of model, Unigram names the unknown token by its number, the others by its text.
fn unknown_id(json: &Value, tokenizer: &tokenizers::Tokenizer) -> Option<u32> {
    let model = json.get("model")?;
    let by_number = model.get("unk_id").and_then(Value::as_u64).and_then(|id| id.try_into().ok());
    let by_text = || tokenizer.token_to_id(model.get("unk_token")?.as_str()?);
    by_number.or_else(by_text)
}

/// Tokens of `a` that lie between the common beginning and the common end of both.
fn difference(a: &[u32], b: &[u32]) -> usize {
    let common =
        |pairs: &mut dyn Iterator<Item = (&u32, &u32)>| pairs.take_while(|(x, y)| x == y).count();
    let begin = common(&mut a.iter().zip(b));
    let end = common(&mut a[begin..].iter().rev().zip(b[begin..].iter().rev()));
    a.len().max(b.len()) - begin - end
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

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn only_the_middle_differs() {
        assert_eq!(difference(&[1, 2, 3], &[1, 2, 3]), 0);
        assert_eq!(difference(&[1, 2, 3], &[1, 9, 9, 3]), 2);
        assert_eq!(difference(&[1, 2, 3], &[]), 3);
        assert_eq!(difference(&[7, 7], &[7, 7, 7]), 1);
    }
}
