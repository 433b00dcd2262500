//! The processes of a run: their names, how they are started again, and the counts that they had before they
//! were killed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::RunError;
use super::admin;
use super::clocks::Clocks;
use super::judge::{Life, Lives};
use super::limits::{LOG_LINES_SHOWN, PROCESS_GRACE};
use super::metrics::Exposition;
use super::stop::Stop;
use crate::lab::clock::Clock;
use crate::lab::{Fault, Lab, NodeName, Process, Program};
use crate::scenario::{ClockStep, Signal};

/// How a process is started.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) host: NodeName,
    pub(super) command: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    /// The port of its admin endpoint on its host's loopback, if it has one.
    pub(super) admin: Option<u16>,
}

/// Processes by name.
pub(super) struct Fleet<'l> {
    lab: &'l Lab,
    directory: PathBuf,
    plans: BTreeMap<String, Plan>,
    running: BTreeMap<String, Process>,
    lives: BTreeMap<String, Lives>,
    clocks: Clocks,
    errands: usize,
}

impl<'l> Fleet<'l> {
    pub(super) fn new(lab: &'l Lab, directory: &Path, clocks: Clocks) -> Self {
        Self {
            lab,
            directory: directory.to_owned(),
            plans: BTreeMap::new(),
            running: BTreeMap::new(),
            lives: BTreeMap::new(),
            clocks,
            errands: 0,
        }
    }

    pub(super) fn lab(&self) -> &'l Lab {
        self.lab
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a process, and remembers how for the next time.
    pub(super) fn launch(&mut self, name: &str, mut plan: Plan) -> Result<(), RunError> {
        plan.environment.extend(self.clocks.environment(name));
        self.plans.insert(name.to_owned(), plan);
        self.start(name)
    }

    /// Starts a process that was launched before; it does nothing while that runs.
    pub(super) fn start(&mut self, name: &str) -> Result<(), RunError> {
        if let Some(process) = self.running.get_mut(name)
            && matches!(process.try_wait(), Ok(None))
        {
            return Ok(());
        }
        // Its name is free only when it is gone.
        self.running.remove(name);
        let Some(plan) = self.plans.get(name) else {
            return Ok(());
        };
        let program = Program {
            name: name.to_owned(),
            command: plan.command.clone(),
            environment: plan.environment.clone(),
            directory: Some(self.directory.clone()),
        };
        let process = self.lab.spawn(&plan.host, program)?;
        self.running.insert(name.to_owned(), process);
        Ok(())
    }

    /// Applies an action to a process. Its counts until then are kept.
    pub(super) fn signal(&mut self, name: &str, signal: Signal) -> Result<(), RunError> {
        if matches!(signal, Signal::Kill | Signal::Terminate) {
            self.read_last(name);
            if let Some(lives) = self.lives.get_mut(name) {
                lives.0.push(Life::default());
            }
        }
        let fault = match signal {
            Signal::Kill => Fault::Kill,
            Signal::Terminate => Fault::Terminate,
            Signal::Pause => Fault::Stop,
            Signal::Resume => Fault::Continue,
        };
        let Some(process) = self.running.get_mut(name) else {
            return Ok(());
        };
        process.inflict(fault).map_err(|source| RunError::System {
            what: format!("signal {name}"),
            source,
        })?;
        if signal == Signal::Kill {
            // It is gone at once, so that `start` may follow.
            let _ = process.wait();
        }
        Ok(())
    }

    /// Whether each clock that will be stepped is really that of its process. Call it when all run.
    pub(super) fn require_clocks(&self) -> Result<(), RunError> {
        for name in self.clocks.processes() {
            let process = self.running.get(name);
            if !process.is_some_and(|process| Clock::holds_for(process.id())) {
                return Err(RunError::Step {
                    what: format!("give {name} a clock of its own"),
                    said: "it does not load libfaketime, as programs that are linked statically do not"
                        .to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The wall clock of a process jumps; after a restart it still has that offset.
    pub(super) fn step_clock(&mut self, name: &str, step: ClockStep) -> Result<(), RunError> {
        self.clocks.step(name, step)
    }

    /// Runs a command to its end and returns its output on stdout; an error has its last lines.
    pub(super) fn errand(
        &mut self,
        host: &NodeName,
        command: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
        stop: &Stop,
    ) -> Result<Result<String, String>, RunError> {
        self.errands += 1;
        let program = Program {
            name: format!("errand-{}", self.errands),
            command,
            environment,
            directory: Some(self.directory.clone()),
        };
        let mut process = self.lab.spawn(host, program)?;
        let status = loop {
            match process.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => stop.sleep(Duration::from_millis(10))?,
                Err(source) => {
                    let what = "wait for a command".to_owned();
                    return Err(RunError::System { what, source });
                }
            }
        };
        if status.success() {
            let said = std::fs::read_to_string(process.stdout());
            return Ok(Ok(said.unwrap_or_default()));
        }
        Ok(Err(tail(process.stderr())))
    }

    /// Processes that ended without being told to: each with its last lines.
    pub(super) fn ended(&mut self) -> Vec<(String, String)> {
        let ended = self.running.iter_mut().filter_map(|(name, process)| {
            let status = process.try_wait().ok()??;
            let said = tail(process.stderr());
            Some((name.clone(), format!("ended ({status}): {said}")))
        });
        ended.collect()
    }

    /// The last lines of a process's log.
    pub(super) fn said(&self, name: &str) -> String {
        self.running
            .get(name)
            .map(|process| tail(process.stderr()))
            .unwrap_or_default()
    }

    /// `GET path` at an admin endpoint.
    pub(super) fn ask(&self, name: &str, path: &str) -> Option<admin::Answer> {
        let port = self.plans.get(name)?.admin?;
        let process = self.running.get(name)?;
        admin::get(process.id(), port, path).ok()
    }

    /// The processes with an admin endpoint: sidecars, the CA and the config service.
    pub(super) fn with_admin(&self) -> Vec<String> {
        let plans = self.plans.iter().filter(|(_, plan)| plan.admin.is_some());
        plans.map(|(name, _)| name.clone()).collect()
    }

    /// From here on it counts.
    pub(super) fn read_first(&mut self) {
        for name in self.with_admin() {
            let first = self.scrape(&name).unwrap_or_default();
            let life = Life { first, last: None };
            self.lives.insert(name, Lives(vec![life]));
        }
    }

    /// Until here.
    pub(super) fn read_all_last(&mut self) -> BTreeMap<String, Lives> {
        for name in self.with_admin() {
            self.read_last(&name);
        }
        std::mem::take(&mut self.lives)
    }

    fn read_last(&mut self, name: &str) {
        let last = self.scrape(name);
        if let Some(life) = self
            .lives
            .get_mut(name)
            .and_then(|lives| lives.0.last_mut())
        {
            life.last = last;
        }
    }

    fn scrape(&self, name: &str) -> Option<Exposition> {
        let answer = self.ask(name, "/metrics")?;
        (answer.status == 200).then(|| Exposition::read(&answer.body))
    }

    /// Asks all to end, and kills those that do not.
    pub(super) fn end(mut self) {
        let deadline = std::time::Instant::now() + PROCESS_GRACE;
        for process in self.running.values() {
            // A paused process receives no other signal.
            let _ = process.inflict(Fault::Continue);
            let _ = process.inflict(Fault::Terminate);
        }
        let stop = Stop::default();
        while std::time::Instant::now() < deadline
            && self
                .running
                .values_mut()
                .any(|process| matches!(process.try_wait(), Ok(None)))
        {
            let _ = stop.sleep(Duration::from_millis(20));
        }
        // Dropping a process kills it.
    }
}

/// The last lines of a file, as one.
pub(super) fn tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().rev().take(LOG_LINES_SHOWN).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
