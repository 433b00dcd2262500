//! The machine of a run: without it a figure is worth little. Reads `/proc`; values that cannot be read are
//! left empty, because no run should fail for them.

use std::fs;

use crate::result::Machine;

/// This machine, as version `weft` of the program sees it.
pub fn this(weft: &str) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Machine {
        weft: weft.to_owned(),
        kernel: format!(
            "{} {}",
            read("/proc/sys/kernel/ostype").trim(),
            read("/proc/sys/kernel/osrelease").trim()
        )
        .trim()
        .to_owned(),
        cpu: field(&read("/proc/cpuinfo"), "model name").to_owned(),
        cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64),
        memory_bytes: memory(&read("/proc/meminfo")),
    }
}

/// The first `key : value` of a text with one per line; empty if there is none.
fn field<'a>(text: &'a str, key: &str) -> &'a str {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let mut found = pairs.filter(|(name, _)| name.trim() == key);
    found.next().map_or("", |(_, value)| value.trim())
}

fn memory(meminfo: &str) -> u64 {
    let kibibytes = field(meminfo, "MemTotal").trim_end_matches("kB").trim();
    kibibytes
        .parse()
        .map_or(0, |kibibytes: u64| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_found_and_missing_ones_are_empty() {
        let text = "processor\t: 0\nmodel name\t: Example CPU @ 2.0GHz\n";
        assert_eq!(field(text, "model name"), "Example CPU @ 2.0GHz");
        assert_eq!(field(text, "absent"), "");
        assert_eq!(memory("MemTotal:       24576 kB\n"), 24576 * 1024);
        assert_eq!(memory("nothing"), 0);
    }
}
