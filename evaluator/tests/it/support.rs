//! What the tests share: folders that vanish, small texts, small architectures.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use evaluator::Corpus;
use search::Architecture;
use search::config::{DataConfig, LearningRate, Precision, TrainingConfig};

/// A folder of one test, removed at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("evaluator-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("the target folder is writable");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("it lies in a folder"))
            .expect("the folder is writable");
        fs::write(&path, content).expect("the folder is writable");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn data(corpus: impl Into<PathBuf>) -> DataConfig {
    DataConfig { corpus: corpus.into(), tokenizer: None, validation_fraction: 0.1 }
}

pub(crate) fn open(corpus: impl Into<PathBuf>) -> evaluator::Result<Corpus> {
    Corpus::open(&data(corpus), None)
}

/// A text with a period of 13 bytes, which every mixer can learn.
pub(crate) fn periodic(bytes: usize) -> String {
    "the cat sat. ".chars().cycle().take(bytes).collect()
}

/// One layer of every kind, small and of odd shapes.
pub(crate) const MIXERS: [&str; 10] = [
    "attn(h=3,kv=1,k=6,qknorm)",
    "swa(h=2,kv=2,k=8,w=5)",
    "dn(h=3,k=5,v=7)",
    "gdn(h=2,k=7,v=9)",
    "gdp(h=2,k=5,v=6,n=2,vg=2,neg)",
    "m2(h=3,p=5,n=7)",
    "dp(h=2,k=6,v=5,n=2)",
    "gsc(c=21,k=3)",
    "kda(h=2,k=6,v=5)",
    "par(h=2,kv=1,k=6,bh=3,bk=7,bv=5)",
];

/// A model with these layers in front of a feed-forward network.
pub(crate) fn architecture(layers: &[&str]) -> Architecture {
    let layers: Vec<String> = layers.iter().map(|layer| format!(" | {layer}+ffn(40)")).collect();
    format!("d=24,vocab=256,tied{}", layers.concat()).parse().expect("the text is valid")
}

pub(crate) fn training_config() -> TrainingConfig {
    TrainingConfig {
        tokens: 12 * 3 * 33,
        batch: 3,
        sequence_length: 33,
        learning_rate: LearningRate::Base(1e-3),
        validation_tokens: 5 * 33,
        precision: Precision::Fp32,
        threads: 1,
        ..TrainingConfig::default()
    }
}
