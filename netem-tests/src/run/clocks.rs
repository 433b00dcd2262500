//! The clocks of the processes whose clocks a timeline steps; all other processes use the system's clock.
//! `lab/clock.rs` is one such clock.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::RunError;
use crate::lab::clock::{Clock, library};
use crate::scenario::{Action, ClockStep, Scenario};

/// Where libfaketime keeps its shared memory with children, by the ids of processes.
const SHARED_MEMORY: &str = "/dev/shm";

/// Clocks by the names of their processes.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    clocks: BTreeMap<String, Clock>,
    /// Whether there is shared memory for this run alone.
    mounted: bool,
}

impl Clocks {
    /// Makes the clocks that the scenario needs; none if it steps no clock.
    ///
    /// # Errors
    /// When libfaketime is missing, or the system refuses.
    pub(super) fn new(scenario: &Scenario, directory: &Path) -> Result<Self, RunError> {
        let mut made = Self::default();
        for event in &scenario.timeline {
            let Action::StepClock(process, _) = &event.action else {
                continue;
            };
            if made.clocks.contains_key(process) {
                continue;
            }
            made.mount_once()?;
            let file = directory.join(format!("{process}.clock"));
            let clock = Clock::new(library()?, file).map_err(failed(process))?;
            made.clocks.insert(process.clone(), clock);
        }
        Ok(made)
    }

    /// The environment that a process needs.
    pub(super) fn environment(&self, process: &str) -> Vec<(OsString, OsString)> {
        let clock = self.clocks.get(process);
        clock.map(Clock::environment).unwrap_or_default()
    }

    /// The processes with a clock of their own.
    pub(super) fn processes(&self) -> impl Iterator<Item = &str> {
        self.clocks.keys().map(String::as_str)
    }

    /// Steps the clock of a process, which may be stopped.
    pub(super) fn step(&mut self, process: &str, step: ClockStep) -> Result<(), RunError> {
        match self.clocks.get_mut(process) {
            Some(clock) => clock.step(step.milliseconds()).map_err(failed(process)),
            None => Ok(()),
        }
    }

    /// A /dev/shm of the run's own. A process that is killed leaves its part there; ids begin anew in another
    /// lab, where libfaketime would then find it.
    fn mount_once(&mut self) -> Result<(), RunError> {
        if self.mounted {
            return Ok(());
        }
        mount(
            Some("tmpfs"),
            SHARED_MEMORY,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=1777"),
        )
        .map_err(|errno| RunError::System {
            what: format!("mount a tmpfs on {SHARED_MEMORY}"),
            source: errno.into(),
        })?;
        self.mounted = true;
        Ok(())
    }
}

impl Drop for Clocks {
    fn drop(&mut self) {
        if self.mounted {
            // The mount namespace would remove it in the end.
            let _ = umount2(SHARED_MEMORY, MntFlags::MNT_DETACH);
        }
    }
}

fn failed(process: &str) -> impl FnOnce(std::io::Error) -> RunError {
    let what = format!("step the clock of {process}");
    move |source| RunError::System { what, source }
}
