//! Which process drives a campaign, and whether it still lives.

use std::path::Path;

/// A process on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Name of the machine.
    pub host: String,
    /// Process id.
    pub pid: i64,
    /// When it started, in the kernel's ticks since boot: tells it from a later process of the same id. Linux only.
    pub process_start: Option<i64>,
}

/// Without `/proc`, or on another machine, a driver whose last heartbeat is older than this is taken for dead.
pub(crate) const SILENCE_S: i64 = 60;

impl Owner {
    /// This process.
    pub fn current() -> Self {
        let pid = i64::from(std::process::id());
        Self { host: host(), pid, process_start: process_start(pid) }
    }

    /// Whether the process still lives, as far as can be told from here.
    pub(crate) fn is_alive(&self, heartbeat_unix_s: i64, now_unix_s: i64) -> bool {
        if self.host == host() && Path::new("/proc/self/stat").exists() {
            let start = process_start(self.pid);
            start.is_some() && (self.process_start.is_none() || self.process_start == start)
        } else {
            now_unix_s - heartbeat_unix_s <= SILENCE_S
        }
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        std::env::var("HOSTNAME").unwrap_or_else(|_| "this machine".to_owned())
    } else {
        name.to_owned()
    }
}

/// Field 22 of `/proc/PID/stat`; none when the process is gone or a zombie.
fn process_start(pid: i64) -> Option<i64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

pub(crate) fn now_unix_s() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_is_waited_for_or_killed() {
        let mut child =
            std::process::Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let pid = i64::from(child.id());
        let owner = Owner { host: host(), pid, process_start: process_start(pid) };
        assert!(owner.is_alive(0, 1_000_000));
        assert!(
            !Owner { process_start: Some(1), ..owner.clone() }.is_alive(0, 1_000_000),
            "another process, same id"
        );
        child.kill().expect("it runs");
        // A zombie until it is waited for.
        for _ in 0..100 {
            if !owner.is_alive(0, 1_000_000) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!owner.is_alive(0, 1_000_000));
        child.wait().expect("it was killed");
        assert!(!owner.is_alive(0, 1_000_000));
    }

    #[test]
    fn elsewhere_the_heartbeat_counts() {
        let owner = Owner { host: "elsewhere".to_owned(), pid: 1, process_start: None };
        assert!(owner.is_alive(1000, 1000 + SILENCE_S));
        assert!(!owner.is_alive(1000, 1001 + SILENCE_S));
    }
}
