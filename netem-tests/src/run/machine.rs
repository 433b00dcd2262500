//! What the machine itself was doing: a run on a starved one says little.

use std::time::{SystemTime, UNIX_EPOCH};

/// CPU time of the whole machine since it booted, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    total: u64,
    idle: u64,
}

/// CPU time so far; nothing where there is no /proc/stat.
pub(super) fn cpu() -> Cpu {
    read(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// The share of the time in between that was used, 0 to 1.
pub(super) fn busy(before: Cpu, after: Cpu) -> f64 {
    let total = after.total.saturating_sub(before.total);
    let idle = after.idle.saturating_sub(before.idle);
    if total == 0 {
        return 0.0;
    }
    total.saturating_sub(idle) as f64 / total as f64
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The first line: user, nice, system, idle, iowait, ... (proc(5)).
fn read(stat: &str) -> Cpu {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    Cpu {
        // Guests are part of user and nice already.
        total: ticks.iter().take(8).sum(),
        idle: ticks.iter().skip(3).take(2).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_in_use_leaves_out_idle_and_waiting_for_disks() {
        let before = read("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n");
        let after = read("cpu  150 0 150 1050 150 0 0 0 0 0\n");
        assert_eq!(busy(before, after), 0.2);
        assert_eq!(busy(after, after), 0.0);
    }
}
