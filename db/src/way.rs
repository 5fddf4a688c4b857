//! In which way a store reads its file.

use std::path::Path;

use crate::error::DbError;
use crate::file::{FileId, Stamp, beside};

/// How a store reads its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It may write: a driver.
    Writing(FileId),
    /// No log lies beside it, so that nobody writes it: SQLite is told that it does not change, and neither locks it nor
    /// makes files.
    Still(Stamp),
    /// Beside a log and its index, which a driver has made: SQLite shares them and leaves them.
    Beside(FileId),
    /// A log without an index, or one that may not be read: a copy of both, for this process alone.
    Copied { database: Stamp, log: Stamp },
}

impl Way {
    /// How the file at `path` is to be read now.
    pub(crate) fn find(path: &Path) -> Result<Self, DbError> {
        let Some(database) = Stamp::of(path) else {
            return Err(DbError::Missing { path: path.to_owned() });
        };
        if beside(path, "-journal").exists() {
            return Ok(Self::Beside(database.id()));
        }
        let log = Stamp::of(&beside(path, "-wal"));
        let has_index = beside(path, "-shm").exists();
        Ok(match log {
            None => Self::Still(database),
            Some(log) if log.is_empty() && !has_index => Self::Still(database),
            Some(_) if has_index => Self::Beside(database.id()),
            Some(log) => Self::Copied { database, log },
        })
    }
}
