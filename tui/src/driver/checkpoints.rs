//! Checkpoints that nothing goes on from any more, and what lies beside those that are kept.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use search::campaign::{Candidate, CandidateState};
use search::wire::Evaluate;

/// What our trainer calls the state of a training under way, behind its architecture, seed and tokens.
const UNFINISHED: &str = "-going.";

/// Removes a checkpoint with what lies beside it under the same name, an optimiser's state say. Files outside the campaign's
/// folder belong to the user's own trainer, and stay.
pub(super) fn remove(path: &Path, folder: Option<&Path>) {
    remove_but(path, folder, None);
}

/// Removes what lies beside a checkpoint under its name, but not the weights themselves.
pub(super) fn remove_beside(path: &Path, folder: Option<&Path>) {
    remove_but(path, folder, path.file_name());
}

/// Removes what trainings of a candidate left on their way that are not gone on with: it has come to its end otherwise, or they
/// have come to theirs in another folder than that in which they were begun.
pub(super) fn remove_unfinished(row: &Candidate, folder: Option<&Path>) {
    let Some(Ok(files)) = folder.map(std::fs::read_dir) else { return };
    let begin = format!("{}-seed", row.subject.id());
    let ended =
        row.trained.iter().map(|of| format!("{begin}{}-{}{UNFINISHED}", of.seed, of.tokens));
    let is_lost =
        matches!(row.state, CandidateState::Failed { .. } | CandidateState::Infeasible { .. });
    let over: Vec<String> = if is_lost { vec![begin.clone()] } else { ended.collect() };
    let is_over =
        |name: &str| name.contains(UNFINISHED) && over.iter().any(|begin| name.starts_with(begin));
    for file in files.flatten() {
        if file.file_name().to_str().is_some_and(is_over) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// The files by which a training under way is gone on with.
pub(super) fn unfinished(of: &Evaluate, folder: &Path) -> Vec<PathBuf> {
    let stem = format!("{}-seed{}-{}-going", of.architecture.id(), of.seed, of.tokens);
    files_of(&folder.join(stem).with_extension("safetensors"))
}

/// A checkpoint with what lies beside it under the same name, what a training would go on from first.
pub(super) fn files_of(path: &Path) -> Vec<PathBuf> {
    let stem = path.file_stem().and_then(OsStr::to_str);
    let (Some(stem), Some(Ok(files))) = (stem, path.parent().map(std::fs::read_dir)) else {
        return Vec::new();
    };
    let begin = format!("{stem}.");
    let is_of = |file: &PathBuf| {
        let name = file.file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| name.starts_with(&begin) && !name.ends_with(".partial"))
    };
    let mut files: Vec<PathBuf> = files.flatten().map(|file| file.path()).filter(is_of).collect();
    files.sort_by_key(|file| file == path);
    files
}

fn remove_but(path: &Path, folder: Option<&Path>, kept: Option<&OsStr>) {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return };
    if folder.is_none() || path.parent() != folder {
        return;
    }
    let Some(Ok(files)) = path.parent().map(std::fs::read_dir) else { return };
    for file in files.flatten() {
        let name = file.file_name();
        if kept == Some(name.as_os_str()) {
            continue;
        }
        let rest = name.to_str().and_then(|name| name.strip_prefix(stem));
        if rest.is_some_and(|rest| rest.starts_with('.')) {
            // What cannot be removed costs room, nothing else.
            let _ = std::fs::remove_file(file.path());
        }
    }
}
