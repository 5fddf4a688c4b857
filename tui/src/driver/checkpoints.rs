//! Checkpoints that nothing goes on from any more.

use std::path::Path;

/// Removes a checkpoint with what lies beside it under the same name, an optimiser's state say. Files outside the campaign's
/// folder belong to the user's own trainer, and stay.
pub(super) fn remove(path: &Path, folder: Option<&Path>) {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return };
    if folder.is_none() || path.parent() != folder {
        return;
    }
    let Some(Ok(files)) = path.parent().map(std::fs::read_dir) else { return };
    for file in files.flatten() {
        let name = file.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(stem));
        if rest.is_some_and(|rest| rest.starts_with('.')) {
            // What cannot be removed costs room, nothing else.
            let _ = std::fs::remove_file(file.path());
        }
    }
}
