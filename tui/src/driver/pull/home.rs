//! The folder of a pull worker, which is its own for as long as it lives: the coordinator knows it by what is written there,
//! so that a worker that was killed and started again need not be waited for under its old name.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use db::Owner;

/// What the folders of workers are called that are given none.
const NAME: &str = "deltafront-worker";

/// How long one is waited for that may be leaving a folder: whoever starts workers may start the next before the last is gone.
const LEAVING: Duration = Duration::from_secs(5);

/// A worker's folder. Dropping it leaves it to others.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) folder: PathBuf,
    /// Tells this worker from all others, after a kill too.
    pub(crate) worker: String,
    /// Locked.
    _file: File,
}

impl Home {
    /// Takes a folder, or the first that nobody has of `deltafront-worker`, `deltafront-worker-2` and so on here.
    ///
    /// # Errors
    /// When another worker has it, or it cannot be written to.
    pub(crate) fn take(folder: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(folder) = folder {
            let begin = Instant::now();
            loop {
                if let Some(home) = Self::open(folder)? {
                    return Ok(home);
                }
                if begin.elapsed() > LEAVING {
                    bail!(
                        "another worker is at work in {}: give this one a --folder of its own",
                        folder.display()
                    );
                }
                std::thread::sleep(LEAVING / 50);
            }
        }
        let mut name = NAME.to_owned();
        let mut number = 1u32;
        loop {
            if let Some(home) = Self::open(Path::new(&name))? {
                return Ok(home);
            }
            number += 1;
            name = format!("{NAME}-{number}");
        }
    }

    /// None where another worker has it.
    fn open(folder: &Path) -> anyhow::Result<Option<Self>> {
        let folder = std::path::absolute(folder)
            .with_context(|| format!("cannot make {} absolute", folder.display()))?;
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join("worker");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file =
            options.open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let mut worker = String::new();
        file.read_to_string(&mut worker)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if worker.is_empty() {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let Owner { host, pid, .. } = Owner::current();
            worker = format!("{host} {pid} {}", since.unwrap_or_default().as_nanos());
            file.write_all(worker.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Some(Self { folder, worker, _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::Home;

    #[test]
    fn a_folder_is_one_worker_s_at_a_time_and_remembers_it() {
        let scratch = std::env::temp_dir().join(format!("deltafront-home-{}", std::process::id()));
        let (here, there) = (scratch.join("one"), scratch.join("two"));
        let one = Home::take(Some(&here)).unwrap();
        let error = Home::take(Some(&here)).unwrap_err().to_string();
        assert!(error.contains("give this one a --folder"), "{error}");
        let worker = one.worker.clone();
        drop(one);
        assert_eq!(Home::take(Some(&here)).unwrap().worker, worker);
        assert_ne!(Home::take(Some(&there)).unwrap().worker, worker);
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
