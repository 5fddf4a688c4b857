//! Where the files of a campaign lie.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::driver::Role;

/// The files of a campaign that are not in the database: `NAME-files/CAMPAIGN` beside it.
pub(in crate::commands) struct Files {
    pub(in crate::commands) folder: PathBuf,
}

impl Files {
    pub(in crate::commands) fn beside(db: &Path, campaign: &str) -> Self {
        let stem =
            db.file_stem().map_or_else(|| "deltafront".into(), |stem| stem.to_string_lossy());
        let folder =
            db.with_file_name(format!("{stem}-files")).join(crate::commands::file_name(campaign));
        Self { folder: std::path::absolute(&folder).unwrap_or(folder) }
    }

    pub(super) fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }

    pub(in crate::commands) fn log(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{}.log", role.word()))
    }

    pub(super) fn make(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.checkpoints())
            .with_context(|| format!("cannot make the folder {}", self.checkpoints().display()))
    }
}
