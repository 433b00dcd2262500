//! CPU time for a process, limited by a control group of its own.

use std::fs;
use std::path::{Path, PathBuf};

/// Microseconds after which a quota begins anew: short, so that a process seems slow and not stopped.
const PERIOD_US: u32 = 10_000;

/// A process's quota. Dropping it removes the limit.
pub(crate) struct Quota {
    group: PathBuf,
    process: u32,
}

/// Where groups are made, by the version of the interface.
enum Groups {
    /// cgroup v1's hierarchy of the cpu controller.
    V1(&'static Path),
    /// cgroup v2, with the cpu controller for groups below the root.
    V2(&'static Path),
}

impl Groups {
    fn find() -> Option<Self> {
        let v1 = Path::new("/sys/fs/cgroup/cpu");
        if v1.join("cpu.cfs_quota_us").exists() {
            return Some(Self::V1(v1));
        }
        let v2 = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(v2.join("cgroup.subtree_control")).ok()?;
        let has = controllers.split_whitespace().any(|one| one == "cpu");
        has.then_some(Self::V2(v2))
    }

    fn root(&self) -> &'static Path {
        match self {
            Self::V1(root) | Self::V2(root) => root,
        }
    }
}

impl Quota {
    /// Whether this machine has quotas.
    pub(crate) fn is_possible() -> bool {
        nix::unistd::geteuid().is_root() && Groups::find().is_some()
    }

    /// Leaves a process this many hundredths of one core.
    pub(crate) fn percent(process: u32, percent: u32) -> Self {
        let groups = Groups::find().expect("a cpu controller");
        let group = groups.root().join(format!("weft-test-{process}"));
        fs::create_dir(&group).unwrap();
        let quota = PERIOD_US * percent / 100;
        let set = |file: &str, value: String| fs::write(group.join(file), value).unwrap();
        match groups {
            Groups::V1(_) => {
                set("cpu.cfs_period_us", PERIOD_US.to_string());
                set("cpu.cfs_quota_us", quota.to_string());
            }
            Groups::V2(_) => set("cpu.max", format!("{quota} {PERIOD_US}")),
        }
        set("cgroup.procs", process.to_string());
        Self { group, process }
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // It fails for a process that has ended, which has thereby left its group.
        let parent = self.group.parent().unwrap_or(Path::new("/sys/fs/cgroup"));
        let _ = fs::write(parent.join("cgroup.procs"), self.process.to_string());
        let _ = fs::remove_dir(&self.group);
    }
}
