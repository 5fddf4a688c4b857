//! What a worker may take, and what must be left: time, memory, room on the disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use search::failure::FailureKind;

/// Bytes of a GB.
const GB: f64 = 1e9;
/// Share of a machine's memory that a worker may use where nothing else is said: the system ends processes beyond it, and
/// not always the right one.
const SHARE: f64 = 0.9;

/// What a worker may take for one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    /// From the request to its answer; none: as long as it speaks.
    pub(crate) wall: Option<Duration>,
    /// Memory of its processes in GB; none: nine tenths of the machine's.
    pub(crate) memory_gb: Option<f64>,
}

impl Limits {
    /// Which limit a worker breaks that has been at a request for so long.
    pub(crate) fn broken(
        &self,
        at_work: Duration,
        process: Option<u32>,
    ) -> Option<(Option<FailureKind>, String)> {
        if let Some(wall) = self.wall.filter(|wall| at_work > *wall) {
            let hours = wall.as_secs_f64() / 3600.0;
            let reason = format!("took longer than {hours:.3} h (evaluator.hours)");
            return Some((Some(FailureKind::Timeout), reason));
        }
        let used_gb = memory_bytes(process?)? as f64 / GB;
        let allowed_gb = self.memory_gb.or_else(|| Some(SHARE * machine_bytes()? as f64 / GB))?;
        (used_gb > allowed_gb).then(|| {
            let reason = format!(
                "used {used_gb:.1} GB of memory, more than {allowed_gb:.1} (evaluator.memory_gb)"
            );
            (Some(FailureKind::OutOfMemory), reason)
        })
    }
}

/// Bytes of memory that a process and those that it started hold, as far as the system tells.
fn memory_bytes(process: u32) -> Option<u64> {
    let folder = PathBuf::from(format!("/proc/{process}"));
    let statm = std::fs::read_to_string(folder.join("statm")).ok()?;
    let resident_pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let children = std::fs::read_to_string(folder.join(format!("task/{process}/children")));
    let children = children.unwrap_or_default();
    let of_children = children.split_whitespace().filter_map(|id| memory_bytes(id.parse().ok()?));
    Some(resident_pages * rustix::param::page_size() as u64 + of_children.sum::<u64>())
}

/// Bytes of memory that this machine, or the part of it that is ours, has.
fn machine_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = 1024 * line.split_whitespace().next()?.parse::<u64>().ok()?;
    let ours = std::fs::read_to_string("/sys/fs/cgroup/memory.max");
    let ours = ours.ok().and_then(|text| text.trim().parse().ok());
    Some(ours.unwrap_or(u64::MAX).min(total))
}

/// Room that must be left where files are written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Room {
    /// The folder of the files.
    pub(crate) folder: PathBuf,
    /// GB that must be left free.
    pub(crate) free_gb: f64,
}

impl Room {
    /// What to do where there is less.
    pub(crate) fn lacks(&self) -> Option<String> {
        let Self { folder, free_gb } = self;
        let free = free_bytes(folder)? / GB;
        (free < *free_gb).then(|| {
            format!(
                "{free:.1} GB are free in {}, less than storage.free_gb = {free_gb}: free some, or lower it",
                folder.display()
            )
        })
    }
}

/// Bytes that are free on the disk of a folder.
fn free_bytes(folder: &Path) -> Option<f64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail as f64 * stat.f_frsize as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_processes_is_counted_with_those_they_started() {
        let this = memory_bytes(std::process::id()).expect("/proc tells");
        assert!(this > 1 << 20 && this < machine_bytes().expect("/proc tells"), "{this}");
        let mut child = std::process::Command::new("sleep").arg("5").spawn().expect("it starts");
        let alone = memory_bytes(child.id()).expect("/proc tells");
        let both = memory_bytes(std::process::id()).expect("/proc tells");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        assert!(alone > 0 && both > alone, "{both} and {alone}");
    }

    #[test]
    fn each_limit_says_its_key() {
        let limits = Limits { wall: Some(Duration::from_hours(1)), memory_gb: Some(1e-6) };
        let (kind, reason) = limits.broken(Duration::from_hours(2), None).expect("broken");
        assert_eq!(kind, Some(FailureKind::Timeout));
        assert!(reason.contains("longer than 1.000 h (evaluator.hours)"), "{reason}");
        let this = Some(std::process::id());
        let (kind, reason) = limits.broken(Duration::ZERO, this).expect("broken");
        assert_eq!(kind, Some(FailureKind::OutOfMemory));
        assert!(reason.contains("evaluator.memory_gb"), "{reason}");
        let limits = Limits { wall: None, memory_gb: None };
        assert_eq!(limits.broken(Duration::from_hours(200), this), None);
        let room = |free_gb| Room { folder: std::env::temp_dir(), free_gb }.lacks();
        assert_eq!(room(0.0), None);
        assert!(room(1e12).expect("nobody has so much").contains("storage.free_gb"));
    }
}
