//! The corpus: what a proxy is trained on, and what it is validated on. The two never share a position.
//!
//! Text is split before it is turned into tokens, so that no token straddles the border. A corpus of many documents
//! (a folder, a .jsonl) holds out whole documents, spread evenly over it; exact copies of a document are dropped. One
//! long text holds out its tail. Token files hold out their tail, or come already split (`train.bin`, `val.bin`).

mod documents;
mod split;
mod token_files;
mod tokenizer;
mod tokens;

use std::path::{Path, PathBuf};

use search::config::DataConfig;

use crate::error::{Error, Result};
pub use split::{Split, split};
pub use tokens::Tokens;

/// A corpus in memory or mapped from files, split.
#[derive(Debug)]
pub struct Corpus {
    path: PathBuf,
    /// What proxies are trained on.
    pub train: Tokens,
    /// What they are validated on.
    pub validation: Tokens,
    /// Bytes of text per token of the validation part; none if the corpus is token files without their tokenizer.
    pub bytes_per_token: Option<f64>,
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
        let tokenizer = config.tokenizer.as_deref().map(tokenizer::Tokenizer::open).transpose()?;
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
        let validation_bytes: usize = split.validation.iter().map(String::len).sum();
        let bytes_per_token = Some(validation_bytes as f64 / validation.len().max(1) as f64);
        Ok(Self { path: path.to_owned(), train, validation, bytes_per_token, needed_vocab })
    }

    fn of_token_files(
        path: &Path,
        files: &token_files::TokenFiles,
        fraction: f64,
        tokenizer: Option<&tokenizer::Tokenizer>,
    ) -> Result<Self> {
        let (train, validation) = files.open(fraction)?;
        let largest = u64::from(train.largest().max(validation.largest()));
        let bytes_per_token =
            tokenizer.map(|tokenizer| tokenizer.bytes_per_token(&validation)).transpose()?;
        let needed_vocab = (largest + 1, "its largest token id and 0");
        Ok(Self { path: path.to_owned(), train, validation, bytes_per_token, needed_vocab })
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
        let measure = match self.bytes_per_token {
            Some(ratio) => format!("{ratio:.3} bytes per token, reported as bits_per_byte"),
            None => "the text behind these token files is unknown, so bits_per_token is reported instead of \
                     bits_per_byte; give data.tokenizer to have the bytes counted"
                .to_owned(),
        };
        format!(
            "corpus {}: {} training and {} validation tokens; {measure}",
            self.path.display(),
            self.train.len(),
            self.validation.len()
        )
    }
}
