//! What a batch system is given to run: one long-lived worker a task.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::words::quoted;

/// Seconds before its time limit at which a worker is told to hand back what it is at.
const NOTICE_S: u32 = 120;
/// Seconds without a coordinator after which a worker gives up what it takes of the cluster.
pub(super) const PATIENCE_S: u32 = 900;

/// A worker as Slurm is to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script<'a> {
    /// Of the job.
    pub(super) name: &'a str,
    /// `--gres=gpu:1` and the like, as `sbatch` takes them.
    pub(super) options: &'a [String],
    /// The program `deltafront`.
    pub(super) program: &'a Path,
    /// `HOST:PORT` of the coordinator.
    pub(super) address: &'a str,
    pub(super) token: &'a str,
    /// Further words for `deltafront worker`.
    pub(super) worker: &'a [String],
    /// For logs and the workers' folders.
    pub(super) folder: &'a Path,
}

impl Script<'_> {
    /// The text for `sbatch`. The worker takes the place of the shell, so that the signal for the batch step reaches it.
    pub(super) fn text(&self) -> String {
        let Self { name, options, program, address, token, worker, folder } = self;
        let log = folder.join("task-%a.log");
        let mut text = format!(
            "#!/bin/sh\n\
             #SBATCH --job-name={name}\n\
             #SBATCH --requeue\n\
             #SBATCH --open-mode=append\n\
             #SBATCH --signal=B:USR1@{NOTICE_S}\n\
             #SBATCH --output={}\n",
            log.display()
        );
        for option in *options {
            // Writing to a string does not fail.
            let _ = writeln!(text, "#SBATCH {option}");
        }
        let path = |path: &Path| quoted(&path.to_string_lossy());
        let task = "-$SLURM_ARRAY_TASK_ID-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}";
        let _ = write!(
            text,
            "export DELTAFRONT_TOKEN={}\n\
             exec {} worker --connect {} --patience {PATIENCE_S} \\\n    --folder {}\"{task}\"",
            quoted(token),
            path(program),
            quoted(address),
            path(&folder.join("worker"))
        );
        for word in *worker {
            let _ = write!(text, " {}", quoted(word));
        }
        text.push('\n');
        text
    }

    /// Writes it where nobody else reads the token; gives the file.
    pub(super) fn write(&self, stem: &str) -> std::io::Result<PathBuf> {
        use std::io::Write as _;
        let path = self.folder.join(format!("{stem}.sh"));
        let partial = path.with_extension("partial");
        let _ = std::fs::remove_file(&partial);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&partial)?.write_all(self.text().as_bytes())?;
        std::fs::rename(&partial, &path)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_one_that_a_shell_reads() {
        let folder = std::env::temp_dir().join(format!("deltafront-script-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let script = Script {
            name: "deltafront-it",
            options: &["--gres=gpu:1".to_owned(), "--time=4:00:00".to_owned()],
            program: Path::new("/bin/echo"),
            address: "node-1:7070",
            token: "a.b",
            worker: &["--corpus".to_owned(), "it's here".to_owned()],
            folder: &folder,
        };
        let file = script.write("train").expect("it is writable");
        let text = std::fs::read_to_string(&file).expect("it is there");
        let head: Vec<&str> = text.lines().filter(|line| line.starts_with("#SBATCH")).collect();
        assert_eq!(
            head[1..4],
            ["#SBATCH --requeue", "#SBATCH --open-mode=append", "#SBATCH --signal=B:USR1@120"]
        );
        assert_eq!(head[5..], ["#SBATCH --gres=gpu:1", "#SBATCH --time=4:00:00"]);
        let said = std::process::Command::new("sh")
            .arg(&file)
            .env("SLURM_ARRAY_TASK_ID", "3")
            .env("SLURM_JOB_ID", "17")
            .env_remove("SLURM_RESTART_COUNT")
            .output()
            .expect("sh is there");
        let said = String::from_utf8(said.stdout).expect("it is UTF-8");
        let words = format!(
            "worker --connect node-1:7070 --patience {PATIENCE_S} --folder {}/worker-3-17-0 --corpus it's here\n",
            folder.display()
        );
        assert_eq!(said, words);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "the token is in it");
        }
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
