//! What `/proc` says of processes and of the machine (proc(5)). Pure: the texts are arguments.

use crate::limits;

/// Time of a processor, in seconds.
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

/// Time of all processors of the machine, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// Busy: programs, the kernel, interrupts and softirq.
    pub busy: f64,
    /// Withheld by the host of a virtual machine.
    pub stolen: f64,
    /// Of all kinds, idle time too.
    pub all: f64,
}

impl Machine {
    /// Since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            busy: (self.busy - earlier.busy).max(0.0),
            stolen: (self.stolen - earlier.stolen).max(0.0),
            all: (self.all - earlier.all).max(0.0),
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

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. The guests' time
/// that follows is in user and nice already.
pub fn machine(stat: &str) -> Option<Machine> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [user, nice, system, idle, wait, irq, softirq, steal] = fields[..] else {
        return None;
    };
    let busy = user + nice + system + irq + softirq;
    Some(Machine {
        busy: seconds(busy),
        stolen: seconds(steal),
        all: seconds(busy + idle + wait + steal),
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
    fn softirq_counts_as_busy_and_stolen_time_does_not() {
        let stat = "cpu  100 1 200 5000 3 10 40 60 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let found = machine(stat).unwrap();
        assert_eq!((found.busy, found.stolen, found.all), (3.51, 0.6, 54.14));
        assert_eq!(machine("cpu  1 2 3"), None);
        assert_eq!(machine("intr 5"), None);
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
