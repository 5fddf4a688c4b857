//! Files and folders that are whole or not there, and never in the place of something that is not to be lost.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// By which a folder is known as one that was written here: a stack, the index of several, or that of a report's pictures.
pub(crate) const MARKS: [&str; 3] = ["stack.json", "front.jsonl", "figures.json"];

/// Writes beside the place, then renames: a full disk leaves what was there before. Another file that is there is
/// overwritten only by `force`; the database `db` and what is no regular file never are.
pub(crate) fn write(file: &Path, text: &str, force: bool, db: &Path) -> anyhow::Result<()> {
    write_by(file, force, db, |part| {
        let mut open = OpenOptions::new().write(true).create_new(true).open(part)?;
        open.write_all(text.as_bytes())?;
        Ok(open.sync_all()?)
    })
}

/// The same of a file that something else fills, at a path where nothing is.
pub(crate) fn write_by(
    file: &Path,
    force: bool,
    db: &Path,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
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
    if std::fs::symlink_metadata(&part).is_ok() {
        bail!("cannot write {shown}: {} is in the way", part.display());
    }
    fill(&part)
        .and_then(|()| Ok(put(&part, file, force)?))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&part);
        })
        .with_context(|| format!("cannot write {shown}"))
}

/// Makes a folder beside the place, has it filled, then renames: it is there whole or not at all. Another folder that is
/// there is replaced only by `force`, and only if an export wrote all that it holds.
pub(crate) fn write_folder(
    folder: &Path,
    force: bool,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let shown = folder.display();
    if folder.file_name().is_none() {
        bail!("{shown} is no name for a new folder; name one with -o");
    }
    let is_there = match std::fs::symlink_metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("cannot write {shown}")),
        Ok(there) if !there.is_dir() => {
            bail!("{shown} is there already, is no folder, and was left alone")
        }
        Ok(_) if !force => {
            bail!("{shown} is there already and was left alone; --force replaces it")
        }
        Ok(_) => true,
    };
    let part = beside(folder);
    std::fs::create_dir(&part).with_context(|| format!("cannot write {shown}"))?;
    let done = fill(&part).and_then(|()| {
        if is_there {
            let old = part.with_extension("old");
            all_of_an_export(folder, &part)?;
            std::fs::rename(folder, &old)?;
            if let Err(error) = put(&part, folder, false) {
                std::fs::rename(&old, folder)?;
                return Err(error.into());
            }
            std::fs::remove_dir_all(&old)?;
            return Ok(());
        }
        Ok(put(&part, folder, false)?)
    });
    done.inspect_err(|_| {
        let _ = std::fs::remove_dir_all(&part);
    })
    .with_context(|| format!("cannot write {shown}"))
}

/// Refuses to replace a folder with something in it that no export wrote.
fn all_of_an_export(folder: &Path, new: &Path) -> anyhow::Result<()> {
    /// What Python leaves beside a file that it ran.
    const LEFT_BY_PYTHON: &str = "__pycache__";
    let list = |folder: &Path| -> anyhow::Result<Vec<std::fs::DirEntry>> {
        Ok(std::fs::read_dir(folder)?.collect::<Result<_, _>>()?)
    };
    let there = list(folder)?;
    let names: Vec<_> = list(new)?.iter().map(std::fs::DirEntry::file_name).collect();
    let is_marked = there.is_empty()
        || there.iter().any(|entry| MARKS.iter().any(|mark| entry.file_name() == *mark));
    let stranger = there
        .iter()
        .find(|entry| !names.contains(&entry.file_name()) && entry.file_name() != LEFT_BY_PYTHON);
    match stranger {
        Some(entry) => bail!(
            "it holds {}, which this export would not write again: move it away, or name another folder",
            entry.file_name().display()
        ),
        None if !is_marked => {
            bail!(
                "no export wrote it (it has no {}): move it away, or name another folder",
                MARKS[0]
            )
        }
        None => Ok(()),
    }
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
