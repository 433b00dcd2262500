//! What every process tells of itself in `/metrics`: which build it is, and what it uses, by the names that
//! Prometheus's own libraries have for it.

use std::fmt::Write as _;
use std::fs;

/// Ticks of a second in /proc (USER_HZ, which is 100 on every Linux that Rust runs on; proc_pid_stat(5)).
const USER_HZ: f64 = 100.0;

/// As text for Prometheus. What /proc does not say is left out.
pub fn exposition() -> String {
    let mut text =
        String::from("# HELP weft_build_info Which build this is.\n# TYPE weft_build_info gauge\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "weft_build_info{{version=\"{}\",commit=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION"),
        env!("WEFT_COMMIT")
    );
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    let status = read("/proc/self/status");
    let files = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    let all = [
        (
            "process_cpu_seconds_total",
            "counter",
            "User and system CPU time.",
            cpu_seconds(&stat),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start of the process, Unix time.",
            start(&stat, &read("/proc/stat")),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
            kibibytes(&status, "VmRSS:"),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory.",
            kibibytes(&status, "VmSize:"),
        ),
        (
            "process_open_fds",
            "gauge",
            "Open file descriptors.",
            // The one with which they are counted is closed by now.
            files.map(|count| count.saturating_sub(1) as f64),
        ),
        (
            "process_max_fds",
            "gauge",
            "Most file descriptors that may be open.",
            files_max(&read("/proc/self/limits")),
        ),
    ];
    for (name, kind, help, value) in all {
        if let Some(value) = value {
            let _ = write!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            );
        }
    }
    text + &deaths(&weft_transport::alone::died())
}

/// Tasks that panicked, by name; nothing as long as none has.
fn deaths(died: &[(&'static str, u64)]) -> String {
    if died.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "# HELP weft_tasks_died_total Tasks of one connection, request or call that ended by a fault of weft.\n\
         # TYPE weft_tasks_died_total counter\n",
    );
    for (task, count) in died {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "weft_tasks_died_total{{task=\"{task}\"}} {count}");
    }
    text
}

/// Field `number` of /proc/PID/stat, counted from 1 as proc_pid_stat(5) does. The second is a name in brackets, which
/// may have blanks and brackets in it.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, after) = stat.rsplit_once(')')?;
    let index = number.checked_sub(3)?;
    after.split_whitespace().nth(index)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / USER_HZ)
}

fn start(stat: &str, of_host: &str) -> Option<f64> {
    let boot = of_host
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let boot: f64 = boot.trim().parse().ok()?;
    Some(boot + field(stat, 22)? / USER_HZ)
}

fn kibibytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024.0)
}

fn files_max(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_panicked_is_counted_by_its_name_and_none_leaves_no_line() {
        assert_eq!(deaths(&[]), "");
        let text = deaths(&[("a request", 2), ("a tunnel", 1)]);
        assert!(text.contains("# TYPE weft_tasks_died_total counter\n"));
        assert!(text.ends_with(
            "weft_tasks_died_total{task=\"a request\"} 2\nweft_tasks_died_total{task=\"a tunnel\"} 1\n"
        ));
    }

    const STAT: &str = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 5 0 12345 99 9";

    #[test]
    fn the_fields_of_proc_are_found_behind_a_name_with_brackets() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(start(STAT, "cpu 1\nbtime 1000\n"), Some(1123.45));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn sizes_and_limits_are_in_base_units() {
        let status = "VmSize:\t   2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1024.0 * 1024.0));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n";
        assert_eq!(files_max(limits), Some(1024.0));
        assert_eq!(files_max("Max open files unlimited unlimited files"), None);
    }

    #[test]
    fn this_process_tells_all_of_them() {
        let page = exposition();
        for name in [
            "weft_build_info{",
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
            "process_resident_memory_bytes ",
            "process_virtual_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
        ] {
            assert!(page.lines().any(|line| line.starts_with(name)), "{page}");
        }
    }
}
