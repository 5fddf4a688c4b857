//! Which file a path leads to, and whether it has changed.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

/// A file by its place on the disk, which a rename does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

/// A file as it stood when it was looked at: which it is, how long, and when it was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    id: FileId,
    bytes: u64,
    modified: Option<std::time::SystemTime>,
}

impl FileId {
    /// The file that the path leads to now; none: there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::from_metadata)
    }

    #[cfg(unix)]
    fn from_metadata(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(metadata.dev(), metadata.ino())
    }

    /// Without inodes, the time at which it was made.
    #[cfg(not(unix))]
    fn from_metadata(metadata: &Metadata) -> Self {
        let made = metadata.created().ok();
        let since = made.and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
        Self(0, since.map_or(0, |since| since.as_nanos() as u64))
    }
}

impl Stamp {
    /// The file at the path; none: there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            id: FileId::from_metadata(&metadata),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// A file that SQLite keeps beside the database: `-wal`, `-shm`, `-journal`.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Of the database and its companions the first that this account may not write, in words, with whose it is.
pub(crate) fn shut(path: &Path) -> Option<String> {
    let is_shut = |file: &PathBuf| {
        file.exists() && std::fs::OpenOptions::new().write(true).open(file).is_err()
    };
    let files = ["", "-wal", "-shm"].map(|ending| beside(path, ending));
    let file = files.into_iter().find(is_shut)?;
    Some(format!("{} may not be written by this account{}", file.display(), owner(&file)))
}

#[cfg(unix)]
fn owner(file: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let user = std::fs::metadata(file).map(|found| found.uid());
    user.map_or(String::new(), |user| format!(": it belongs to user {user}"))
}

#[cfg(not(unix))]
fn owner(_: &Path) -> String {
    String::new()
}
