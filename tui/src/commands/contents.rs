//! What the files hold that a campaign file names: whether it is what they held when the campaign began.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use db::{Change, Circumstance};
use search::config::DataConfig;
use search::contents::{Contents, corpus_files};

/// Above so many bytes reading takes seconds: it is said what is being done.
const LONG_BYTES: u64 = 4 << 30;

/// What the files hold now, beside what they held when the campaign began.
#[derive(Debug)]
pub(super) struct Inputs {
    files: Vec<Input>,
}

#[derive(Debug)]
struct Input {
    key: &'static str,
    path: PathBuf,
    now: Contents,
    stamp: String,
    /// None: the campaign has no record of it yet.
    before: Option<Circumstance>,
}

impl Inputs {
    /// Reads the files of `data`, but those whose stamps are still as `began` has them.
    pub(super) fn read(data: Option<&DataConfig>, began: &[Circumstance]) -> anyhow::Result<Self> {
        let named = data.into_iter().flat_map(|data| {
            [("data.corpus", Some(&data.corpus)), ("data.tokenizer", data.tokenizer.as_ref())]
        });
        let mut inputs = Vec::new();
        for (key, path) in named {
            let Some(path) = path else { continue };
            let cannot = || format!("{key}: {} cannot be read", path.display());
            // What is neither a file nor a folder never ends, and is the trainer's to refuse.
            let files = regular_files(path).with_context(cannot)?;
            if files.is_empty() {
                continue;
            }
            let stamp = stamp(&files);
            let before = began.iter().find(|circumstance| circumstance.key == key).cloned();
            let now = match &before {
                Some(before) if before.stamp == stamp => Contents::from(before.value.clone()),
                _ => {
                    let bytes: u64 = files.iter().map(|(_, metadata)| metadata.len()).sum();
                    if bytes > LONG_BYTES {
                        let size = tui::quantity::bytes(bytes as f64);
                        let text = format!("reading {size} of {key}, to know it again");
                        let _ = writeln!(std::io::stderr(), "{text}");
                    }
                    Contents::of(files.iter().map(|(file, _)| File::open(file)))
                        .with_context(cannot)?
                }
            };
            inputs.push(Input { key, path: path.clone(), now, stamp, before });
        }
        Ok(Self { files: inputs })
    }

    /// What has changed since the campaign began: key, and how.
    pub(super) fn changes(&self) -> Vec<(String, String)> {
        let change = |input: &Input| {
            let before = Contents::from(input.before.as_ref()?.value.clone());
            let text = format!(
                "{} holds something else ({} → {})",
                input.path.display(),
                before.short(),
                input.now.short()
            );
            (before != input.now).then(|| (input.key.to_owned(), text))
        };
        self.files.iter().filter_map(change).collect()
    }

    /// What the campaign is to remember.
    pub(super) fn to_remember(&self) -> Vec<Change> {
        let circumstance = |input: &Input| {
            Change::Circumstance(Circumstance {
                key: input.key.to_owned(),
                value: input.now.as_str().to_owned(),
                stamp: input.stamp.clone(),
            })
        };
        self.files.iter().map(circumstance).collect()
    }

    /// What the workers must find.
    pub(super) fn expected(&self) -> BTreeMap<String, Contents> {
        self.files.iter().map(|input| (input.key.to_owned(), input.now.clone())).collect()
    }
}

/// The regular files at `path` that are read, in that order.
fn regular_files(path: &Path) -> std::io::Result<Vec<(PathBuf, Metadata)>> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let mut found = Vec::new();
        list(path, Path::new(""), &mut found)?;
        files = corpus_files(found).into_iter().map(|file| path.join(file)).collect();
    }
    let with_metadata = files.into_iter().map(|file| Ok((file.metadata()?, file)));
    let is_regular = |found: &std::io::Result<(Metadata, PathBuf)>| {
        found.as_ref().map_or(true, |(metadata, _)| metadata.is_file())
    };
    with_metadata
        .filter(is_regular)
        .map(|found| found.map(|(metadata, file)| (file, metadata)))
        .collect()
}

/// All files below a folder by their paths in it. Links to folders are not followed, as they are not when it is read.
fn list(root: &Path, inside: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(inside))? {
        let entry = entry?;
        let path = inside.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Sizes, times and places of files: what has the same is the same. The time of the last change cannot be set by hand.
fn stamp(files: &[(PathBuf, Metadata)]) -> String {
    let mut text = String::new();
    for (file, metadata) in files {
        let modified = metadata.modified().ok();
        let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let nanoseconds = since.map_or(0, |since| since.as_nanos());
        // Writing to a string does not fail.
        let _ = write!(text, "{} {} {nanoseconds}", file.display(), metadata.len());
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let (s, ns) = (metadata.ctime(), metadata.ctime_nsec());
            let _ = write!(text, " {s}.{ns} {}:{}", metadata.dev(), metadata.ino());
        }
        text.push('\n');
    }
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_only_if_it_was_written() {
        let path = std::env::temp_dir().join(format!("deltafront-inputs-{}", std::process::id()));
        std::fs::write(&path, "a text").expect("the temporary folder is writable");
        let data = DataConfig { corpus: path.clone(), tokenizer: None, validation_fraction: 0.1 };
        // A campaign of an older program: what is there is taken.
        let first = Inputs::read(Some(&data), &[]).expect("it is there");
        assert!(first.changes().is_empty());
        let [Change::Circumstance(began)] = &first.to_remember()[..] else { panic!("one file") };
        // The stamp is believed: what stands beside it is taken for what the file holds.
        let told = Circumstance { value: "told".to_owned(), ..began.clone() };
        let again = Inputs::read(Some(&data), &[told]).expect("it is there");
        assert_eq!(again.expected()["data.corpus"].as_str(), "told");
        assert!(again.changes().is_empty());
        std::fs::write(&path, "A text").expect("the temporary folder is writable");
        let changed = Inputs::read(Some(&data), std::slice::from_ref(began)).expect("it is there");
        assert_eq!(changed.changes().len(), 1);
        std::fs::remove_file(&path).expect("it is there");
    }

    #[cfg(unix)]
    #[test]
    fn what_never_ends_is_not_read() {
        let corpus = PathBuf::from("/dev/zero");
        let data = DataConfig { corpus, tokenizer: None, validation_fraction: 0.1 };
        let inputs = Inputs::read(Some(&data), &[]).expect("nothing is read");
        assert!(inputs.expected().is_empty());
    }
}
