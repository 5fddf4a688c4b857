//! A folder for what a command tries and does not keep.

use std::path::PathBuf;

use anyhow::Context;

/// A folder of this process's own, which goes with it.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    /// For a command of this name.
    pub(super) fn new(command: &str) -> anyhow::Result<Self> {
        let name = format!("deltafront-{command}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it lies where such things are swept.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
