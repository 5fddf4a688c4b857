//! Files that are whole or not there, and never in the place of something that is not to be lost.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Writes beside the place, then renames: a full disk leaves what was there before. Another file that is there is
/// overwritten only by `force`; the database `db` and what is no regular file never are.
pub(crate) fn write(file: &Path, text: &str, force: bool, db: &Path) -> anyhow::Result<()> {
    let shown = file.display();
    match std::fs::symlink_metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot write {shown}")),
        Ok(_) if is_of_database(file, db) => {
            bail!("{shown} is the database itself; name another file")
        }
        Ok(there) if !there.is_file() => {
            bail!(
                "{shown} is no regular file and was left alone; without -o it is written to stdout"
            )
        }
        Ok(_) if !force => {
            bail!("{shown} is there already and was left alone; --force overwrites it")
        }
        Ok(_) => {}
    }
    let part = beside(file);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&part)
        .and_then(|mut open| {
            open.write_all(text.as_bytes())?;
            open.sync_all()
        })
        .and_then(|()| put(&part, file, force));
    written
        .inspect_err(|error| {
            // Not ours, if it was there before.
            if error.kind() != std::io::ErrorKind::AlreadyExists {
                let _ = std::fs::remove_file(&part);
            }
        })
        .with_context(|| format!("cannot write {shown}"))
}

/// Renames; without `force` fails when something has come there meanwhile.
fn put(part: &Path, file: &Path, force: bool) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    if !force {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, part, CWD, file, RenameFlags::NOREPLACE) {
            // The file system does not know this.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            done => return Ok(done?),
        }
    }
    std::fs::rename(part, file)
}

/// A name in the same folder that nothing of the user's has.
fn beside(file: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    file.with_file_name(name)
}

/// Whether a path leads to the database or to what SQLite keeps beside it.
fn is_of_database(file: &Path, db: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let mut parts = vec![db.to_owned()];
    for end in ["-wal", "-shm", "-journal"] {
        let mut part = db.as_os_str().to_owned();
        part.push(end);
        parts.push(part.into());
    }
    real(file).is_some_and(|file| parts.iter().any(|part| real(part).as_ref() == Some(&file)))
}
