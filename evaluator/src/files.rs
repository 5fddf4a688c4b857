//! Files that are whole or not there.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes beside the place, then renames: a reader, or a later life after a crash, never sees half a file.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    // Processes that write the same file at the same time must not share the partial one.
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = Path::new(&partial);
    let written = File::create(partial)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(partial, path));
    written.map_err(|source| {
        // What was written only takes space that may be short; it may also never have been created.
        let _ = std::fs::remove_file(partial);
        Error::io("write", path)(source)
    })
}
