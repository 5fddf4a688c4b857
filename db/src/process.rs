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

/// Without `/proc`, or on another machine, a driver whose last heartbeat is within this of now is taken to live.
pub(crate) const SILENCE_S: i64 = 60;

/// Seconds in which a driver that lives gives a sign of it, with room: it does every five.
pub const WATCH_S: u64 = 15;

/// Whether a driver lives, as far as one look can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    Dead,
    /// Its heartbeat is of a time that says nothing: it is old, or the clocks of the two machines differ. Whether the
    /// heartbeat changes within [`WATCH_S`] tells, whatever the clocks show.
    Unclear,
}

impl Owner {
    /// This process.
    pub fn current() -> Self {
        let pid = i64::from(std::process::id());
        Self { host: host(), pid, process_start: process_start(pid) }
    }

    /// Whether the process still lives, as far as can be told from here.
    pub(crate) fn life(&self, heartbeat_unix_s: i64, now_unix_s: i64) -> Life {
        if self.host == host() && Path::new("/proc/self/stat").exists() {
            let start = process_start(self.pid);
            let is_it =
                start.is_some() && (self.process_start.is_none() || self.process_start == start);
            if is_it { Life::Alive } else { Life::Dead }
        } else if now_unix_s.abs_diff(heartbeat_unix_s) <= SILENCE_S.unsigned_abs() {
            Life::Alive
        } else {
            Life::Unclear
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
        assert_eq!(owner.life(0, 1_000_000), Life::Alive);
        assert_eq!(
            Owner { process_start: Some(1), ..owner.clone() }.life(0, 1_000_000),
            Life::Dead,
            "another process, same id"
        );
        child.kill().expect("it runs");
        // A zombie until it is waited for.
        for _ in 0..100 {
            if owner.life(0, 1_000_000) == Life::Dead {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(owner.life(0, 1_000_000) == Life::Dead);
        child.wait().expect("it was killed");
        assert!(owner.life(0, 1_000_000) == Life::Dead);
    }

    #[test]
    fn elsewhere_the_heartbeat_counts_in_both_directions() {
        let owner = Owner { host: "elsewhere".to_owned(), pid: 1, process_start: None };
        for (heartbeat, life) in [
            (1000, Life::Alive),
            (1000 - SILENCE_S, Life::Alive),
            (1000 + SILENCE_S, Life::Alive),
            (999 - SILENCE_S, Life::Unclear),
            (1001 + SILENCE_S, Life::Unclear),
            (i64::MAX, Life::Unclear),
            (i64::MIN, Life::Unclear),
        ] {
            assert_eq!(owner.life(heartbeat, 1000), life, "{heartbeat}");
        }
    }
}
