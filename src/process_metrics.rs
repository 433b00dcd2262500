//! The metrics that every process has about itself: its build, and its use of resources, by the names of
//! Prometheus's own libraries.

use std::fs;

use weft_transport::metrics::{
    BUILD_INFO, Metric, PROCESS_CPU, PROCESS_OPEN_FILES, PROCESS_OPEN_FILES_MAX, PROCESS_RESIDENT,
    PROCESS_START, PROCESS_VIRTUAL, Sample, TASKS_DIED,
};

/// Ticks of a second in /proc (USER_HZ, which is 100 on every Linux that Rust runs on; proc_pid_stat(5)).
const USER_HZ: f64 = 100.0;

/// The values at this moment. A value that /proc does not give is omitted.
pub fn samples() -> Vec<Sample> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    let status = read("/proc/self/status");
    let files = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    // The descriptor used for counting is closed by then.
    let files = files.map(|count| count.saturating_sub(1) as f64);
    let files_max = files_max(&read("/proc/self/limits"));
    let all: [(&'static Metric, Option<f64>); 6] = [
        (&PROCESS_CPU, cpu_seconds(&stat)),
        (&PROCESS_START, start(&stat, &read("/proc/stat"))),
        (&PROCESS_RESIDENT, kibibytes(&status, "VmRSS:")),
        (&PROCESS_VIRTUAL, kibibytes(&status, "VmSize:")),
        (&PROCESS_OPEN_FILES, files),
        (&PROCESS_OPEN_FILES_MAX, files_max),
    ];
    let build = [env!("CARGO_PKG_VERSION"), env!("WEFT_COMMIT")];
    let mut samples = vec![BUILD_INFO.sample(&build, 1.0)];
    samples.extend(
        all.into_iter()
            .filter_map(|(metric, value)| Some(metric.sample(&[], value?))),
    );
    let died = weft_transport::alone::died();
    let died = died
        .iter()
        .map(|(task, count)| TASKS_DIED.sample(&[task], *count as f64));
    samples.extend(died);
    samples
}

/// Field `number` of /proc/PID/stat, counted from 1 as proc_pid_stat(5) does. The second is a name in
/// brackets, which may have blanks and brackets in it.
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
        let samples = samples();
        let told: Vec<_> = samples.iter().map(|sample| sample.metric.name()).collect();
        for metric in weft_transport::metrics::all() {
            let name = metric.name();
            if name == BUILD_INFO.name() || name.starts_with("process_") {
                assert!(told.contains(&name), "{name}");
            }
        }
    }
}
