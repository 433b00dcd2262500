//! The load of the machine itself: the figures of a run on an overloaded machine are of little use.

use std::time::{SystemTime, UNIX_EPOCH};

use super::limits::{CPU_OTHERS_MAX, CPU_STOLEN_MAX};

/// CPU time so far, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    total: u64,
    idle: u64,
    /// Of programs: not of interrupts, which belong to no process.
    programs: u64,
    /// Taken by the host of this virtual machine.
    stolen: u64,
    /// Of the lab's own processes, including those that ended.
    own: u64,
}

/// The use of the CPU's time, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Shares {
    /// In use.
    pub(super) busy: f64,
    /// In use by programs outside of the lab.
    pub(super) others: f64,
    /// Taken by the host of this virtual machine.
    pub(super) stolen: f64,
}

/// CPU time so far; zero without /proc.
pub(super) fn cpu() -> Cpu {
    let mut cpu = read(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
    // The lab's own /proc: only its processes are there.
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    cpu.own = stats.filter_map(|stat| process_ticks(&stat)).sum();
    cpu
}

impl Shares {
    /// Of the time in between.
    pub(super) fn between(before: Cpu, after: Cpu) -> Self {
        let total = after.total.saturating_sub(before.total);
        if total == 0 {
            return Self::default();
        }
        let share = |before: u64, after: u64| after.saturating_sub(before) as f64 / total as f64;
        let own = share(before.own, after.own);
        Self {
            busy: 1.0 - share(before.idle, after.idle),
            others: (share(before.programs, after.programs) - own).max(0.0),
            stolen: share(before.stolen, after.stolen),
        }
    }

    /// Why the measurements are not caused by weft, if so.
    pub(super) fn starved(&self) -> Option<String> {
        let of = |share: f64, who: &str| format!("{who} took {:.0} % of the CPU", 100.0 * share);
        if self.stolen > CPU_STOLEN_MAX {
            return Some(of(self.stolen, "the host of this virtual machine"));
        }
        (self.others > CPU_OTHERS_MAX).then(|| of(self.others, "programs outside of the lab"))
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)).
fn read(stat: &str) -> Cpu {
    let line = stat.lines().next().unwrap_or_default();
    let words = line.split_whitespace().skip(1);
    let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let sum = |from: usize, count: usize| ticks.iter().skip(from).take(count).sum();
    Cpu {
        // Guests are part of user and nice already.
        total: sum(0, 8),
        idle: sum(3, 2),
        programs: sum(0, 3),
        stolen: sum(7, 1),
        own: 0,
    }
}

/// CPU time of a process and of the children that it waited for: fields 14 to 17 of /proc/PID/stat. The name
/// before them may contain any characters.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields = rest.split_whitespace().skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_in_use_leaves_out_idle_and_waiting_for_disks() {
        let before = read("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n");
        let after = read("cpu  150 0 150 1050 150 0 0 0 0 0\n");
        let busy = |before, after| (Shares::between(before, after).busy * 1e9).round() / 1e9;
        assert_eq!(busy(before, after), 0.2);
        assert_eq!(busy(after, after), 0.0);
    }

    #[test]
    fn a_lab_is_starved_by_others_and_not_by_itself() {
        let after = |own| Cpu {
            own,
            ..read("cpu  900 0 0 100 0 0 0 0")
        };
        let shares = |own| Shares::between(Cpu::default(), after(own));
        assert_eq!(shares(800).starved(), None);
        let why = shares(100).starved().unwrap();
        assert_eq!(why, "programs outside of the lab took 80 % of the CPU");
        let stolen = read("cpu  0 0 0 800 0 0 0 200");
        let stolen = Shares::between(Cpu::default(), stolen);
        assert!(stolen.starved().unwrap().starts_with("the host of this"));
    }

    #[test]
    fn a_process_s_time_is_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 0 1 2 3 4 10 20 30 40 20 0 1 0 5";
        assert_eq!(process_ticks(stat), Some(100));
        assert_eq!(process_ticks("garbage"), None);
    }
}
