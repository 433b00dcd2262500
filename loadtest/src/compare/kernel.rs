//! The data of `/proc` about processes and the machine (proc(5)). Pure: the texts are arguments.

use crate::limits;

/// CPU time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// In the program.
    pub user: f64,
    /// In the kernel on its behalf.
    pub system: f64,
}

impl Cpu {
    /// Both.
    pub fn total(self) -> f64 {
        self.user + self.system
    }

    /// With that of another process.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            user: self.user + other.user,
            system: self.system + other.system,
        }
    }

    /// Since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: (self.user - earlier.user).max(0.0),
            system: (self.system - earlier.system).max(0.0),
        }
    }
}

/// CPU time of all processors of the machine over a span, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// Busy: programs, the kernel, interrupts and softirq.
    pub busy: f64,
    /// Withheld by the host of a virtual machine.
    pub stolen: f64,
    /// Of all kinds, including idle time.
    pub all: f64,
}

/// Idle times of the processors since the machine was started, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unused {
    processors: usize,
    idle: f64,
    stolen: f64,
}

impl Unused {
    /// The difference to an earlier reading, `elapsed` seconds ago. Time that was not idle counts as busy:
    /// the kernel measures idle time exactly, but samples busy time at its ticks, and work that a timer
    /// starts just after a tick is done before the next.
    pub fn since(self, earlier: Self, elapsed: f64) -> Machine {
        let all = elapsed * self.processors as f64;
        let idle = (self.idle - earlier.idle).max(0.0);
        let stolen = (self.stolen - earlier.stolen).max(0.0);
        Machine {
            busy: (all - idle - stolen).max(0.0),
            stolen,
            all,
        }
    }
}

/// `/proc/PID/stat`: fields 14 and 15. The name of the program may have spaces and parentheses in it.
pub fn process(stat: &str) -> Option<Cpu> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || Some(seconds(fields.next()?.parse().ok()?));
    Some(Cpu {
        user: next()?,
        system: next()?,
    })
}

/// `/proc/stat`: fields 4, 5 and 8 of the line of all processors (idle, iowait, steal), and how many there
/// are.
pub fn unused(stat: &str) -> Option<Unused> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [_user, _nice, _system, idle, wait, _irq, _softirq, stolen] = fields[..] else {
        return None;
    };
    let processors = stat.lines().filter(|line| line.starts_with("cpu"));
    Some(Unused {
        processors: processors.count() - 1,
        idle: seconds(idle + wait),
        stolen: seconds(stolen),
    })
}

/// `VmRSS` of `/proc/PID/status`, in bytes.
pub fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / limits::TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_any_name_has_its_times() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 10 0 0 0 150 250 9 9 20 0 1 0 5 1 2";
        let cpu = process(stat).unwrap();
        assert_eq!((cpu.user, cpu.system, cpu.total()), (1.5, 2.5, 4.0));
        assert_eq!(process("7 (x) S 1 7"), None);
        assert_eq!(process(""), None);
    }

    #[test]
    fn a_machine_was_busy_whenever_it_was_neither_idle_nor_stolen() {
        let early = "cpu  9 9 9 1000 100 9 9 50 0 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n";
        let late = "cpu  9 9 9 1100 120 9 9 80 0 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n";
        let found = unused(late).unwrap().since(unused(early).unwrap(), 2.0);
        assert_eq!(found.all, 4.0);
        assert!((found.stolen - 0.3).abs() < 1e-9, "{found:?}");
        // Two processors for two seconds, less 1.2 s idle.
        assert!((found.busy - 2.5).abs() < 1e-9, "{found:?}");
        assert_eq!(unused("cpu  1 2 3"), None);
        assert_eq!(unused("intr 5"), None);
        assert_eq!(unused(""), None);
    }

    #[test]
    fn an_idle_time_beyond_the_clock_is_no_negative_work() {
        let early = "cpu  0 0 0 0 0 0 0 0\ncpu0 0\n";
        let late = "cpu  0 0 0 101 0 0 0 0\ncpu0 0\n";
        let found = unused(late).unwrap().since(unused(early).unwrap(), 1.0);
        assert_eq!(found.busy, 0.0);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        let status = "Name:\tweft\nVmPeak:\t  90 kB\nVmRSS:\t   20480 kB\n";
        assert_eq!(resident(status), Some(20 << 20));
        assert_eq!(resident("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn a_counter_that_goes_back_is_no_time() {
        let (less, more) = (
            Cpu {
                user: 1.0,
                system: 1.0,
            },
            Cpu {
                user: 2.0,
                system: 0.5,
            },
        );
        assert_eq!(
            more.since(less),
            Cpu {
                user: 1.0,
                system: 0.0
            }
        );
    }
}
