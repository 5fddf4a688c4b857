//! The corpus: what a proxy is trained on, and what it is validated on. The two never share a position.
//!
//! Text is split before it is turned into tokens, so that no token straddles the border. A corpus of many documents
//! (a folder, a .jsonl) holds out whole documents, spread evenly over it; exact copies of a document are dropped. One
//! long text holds out its tail. Token files hold out their tail, or come already split (`train.bin`, `val.bin`).

mod contents;
mod documents;
mod split;
mod token_files;
mod token_format;
mod tokenizer;
mod tokens;

use std::path::{Path, PathBuf};

use search::config::DataConfig;

use crate::error::{Error, Result};
pub use split::{Split, split};
use tokenizer::{BytesPerToken, Tokenizer};
pub use tokens::Tokens;

/// A corpus in memory or mapped from files, split.
#[derive(Debug)]
pub struct Corpus {
    path: PathBuf,
    /// What proxies are trained on.
    pub train: Tokens,
    /// What they are validated on.
    pub validation: Tokens,
    /// Bytes of text per token of the validation part, or why they cannot be told.
    bytes_per_token: BytesPerToken,
    /// Documents that were left out, as another one has the same text.
    copies: usize,
    /// Smallest vocabulary that holds all tokens, and where the number comes from.
    needed_vocab: (u64, &'static str),
}

impl Corpus {
    /// Opens the corpus of a campaign file. Text that a tokenizer must read is kept as tokens in the folder `cache`.
    ///
    /// # Errors
    /// When the corpus is missing, empty or not text, the tokenizer is not one, or the split leaves a side empty.
    pub fn open(config: &DataConfig, cache: Option<&Path>) -> Result<Self> {
        let fraction = config.validation_fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::ValidationFraction(fraction));
        }
        let path = config.corpus.as_path();
        let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::corpus(
                path,
                "there is no such file or folder",
                "correct data.corpus in the campaign file",
            ),
            _ => Error::io("read", path)(source),
        })?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(Error::corpus(
                path,
                "it is neither a file nor a folder",
                "copy what it gives into a file, and point data.corpus at that",
            ));
        }
        let tokenizer = config.tokenizer.as_deref().map(Tokenizer::open).transpose()?;
        if let Some(files) = token_files::find(path, &metadata)? {
            return Self::of_token_files(path, &files, fraction, tokenizer.as_ref());
        }
        let documents = documents::read(path, &metadata)?;
        let split = split(path, documents, fraction)?;
        let (train, validation, needed_vocab) = match &tokenizer {
            None => {
                let bytes =
                    |documents: &[String]| Tokens::from_bytes(documents.concat().as_bytes());
                (bytes(&split.train), bytes(&split.validation), (256, "one for each byte"))
            }
            Some(tokenizer) => {
                let train = tokenizer.tokens(&split.train, cache)?;
                let validation = tokenizer.tokens(&split.validation, cache)?;
                (train, validation, (tokenizer.vocab(), "the tokenizer has as many"))
            }
        };
        let bytes_per_token = match &tokenizer {
            None => Ok(1.0),
            Some(tokenizer) => tokenizer.bytes_of_text(&split.validation, validation.len())?,
        };
        let copies = split.copies;
        Ok(Self { path: path.to_owned(), train, validation, bytes_per_token, copies, needed_vocab })
    }

    fn of_token_files(
        path: &Path,
        files: &token_files::TokenFiles,
        fraction: f64,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self> {
        let (train, validation) = files.open(fraction)?;
        let mut largest = 0;
        for (least, most) in [&train, &validation].into_iter().filter_map(Tokens::range) {
            if least < 0 || most > i64::from(u32::MAX) {
                return Err(Error::corpus(
                    path,
                    format!("{} is no token id", if least < 0 { least } else { most }),
                    "write ids of 0 or more as u16, u32 or i64",
                ));
            }
            largest = largest.max(most as u64);
        }
        let bytes_per_token = match tokenizer {
            Some(tokenizer) if tokenizer.is_wide() && train.are_narrow() => {
                return Err(Error::corpus(
                    path,
                    format!("its ids are uint16, but the tokenizer has {} of them", tokenizer.vocab()),
                    "write the ids as uint32, or give the tokenizer that they are of",
                ));
            }
            Some(tokenizer) => tokenizer.bytes_of_tokens(&validation)?,
            None => Err("the text behind these token files is unknown (give data.tokenizer to have the bytes counted)"
                .to_owned()),
        };
        let needed_vocab = (largest + 1, "its largest token id and 0");
        Ok(Self {
            path: path.to_owned(),
            train,
            validation,
            bytes_per_token,
            copies: 0,
            needed_vocab,
        })
    }

    /// Bytes of text per token of the validation part; none where they cannot be told.
    pub fn bytes_per_token(&self) -> Option<f64> {
        self.bytes_per_token.as_ref().ok().copied()
    }

    /// Checks that sequences of this length can be drawn and that a model of this vocabulary knows every token.
    ///
    /// # Errors
    /// When a part has not one sequence, or a token id is not below `vocab`.
    pub fn check(&self, sequence_length: u32, vocab: u32) -> Result<()> {
        let sequence_length = u64::from(sequence_length);
        for (part, tokens) in [("training", &self.train), ("validation", &self.validation)] {
            if tokens.len() <= sequence_length {
                return Err(Error::TooShort {
                    path: self.path.clone(),
                    part,
                    tokens: tokens.len(),
                    sequence_length,
                });
            }
        }
        let (needed, why) = self.needed_vocab;
        if needed > u64::from(vocab) {
            return Err(Error::Vocabulary { path: self.path.clone(), needed, why, vocab });
        }
        Ok(())
    }

    /// One line for the log: how much there is, and which measure it allows.
    pub fn describe(&self) -> String {
        let measure = match &self.bytes_per_token {
            Ok(ratio) => format!("{ratio:.3} bytes per token, reported as bits_per_byte"),
            Err(why) => format!("{why}, so bits_per_token is reported instead of bits_per_byte"),
        };
        let copies = match self.copies {
            0 => String::new(),
            1 => "; 1 copy of a document left out".to_owned(),
            n => format!("; {n} copies of documents left out"),
        };
        format!(
            "corpus {}: {} training and {} validation tokens{copies}; {measure}",
            self.path.display(),
            self.train.len(),
            self.validation.len()
        )
    }
}
