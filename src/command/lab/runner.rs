//! Runs scenarios inside a sandbox, and handles what a run leaves: files, exit code, the command line that
//! reproduces it. Not here: which scenarios, and how results are printed (`run.rs`).

use std::path::{Path, PathBuf};

use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use weft_netem_tests::lab::sandbox::{self, Entered};
use weft_netem_tests::report;
use weft_netem_tests::run::outcome::{Outcome, State};
use weft_netem_tests::run::stop::Stop;
use weft_netem_tests::run::{self, RunError, Setup};
use weft_netem_tests::scenario::Scenario;

use super::backend::BackendFlag;
use super::scenarios::Changes;
use crate::failure::{Code, Failure};
use crate::output::note;

/// How runs are carried out.
#[derive(Debug, Args)]
pub(super) struct RunFlags {
    /// How often an invalid run is tried
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Write a report with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write small pictures of each run to this directory, SCENARIO.svg
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// What impairs packets
    #[arg(long, value_enum, default_value_t)]
    backend: BackendFlag,
    /// Do not write down what connections do, packet by packet, which costs CPU time
    #[arg(long)]
    no_qlog: bool,
    /// Where logs, captures and qlog of failed runs are kept
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir().join("weft-lab"))]
    keep: PathBuf,
}

/// Carries scenarios out, inside a sandbox.
pub(super) struct Runner<'a> {
    weft: PathBuf,
    how: &'a RunFlags,
    stop: Stop,
}

impl<'a> Runner<'a> {
    /// Enters the sandbox. `None`: the process inside did all the work, with success.
    pub(super) fn enter(how: &'a RunFlags) -> Result<Option<Self>, Failure> {
        match sandbox::enter()? {
            Entered::Ended(0) => return Ok(None),
            Entered::Ended(code) => return Err(Failure::of_command(code)),
            Entered::Inside => {}
        }
        let weft = std::env::current_exe().map_err(|error| {
            Failure::new(Code::Failed, format!("cannot find my own binary: {error}"))
        })?;
        let stop = Stop::default();
        raise_on_signals(stop.clone())?;
        Ok(Some(Self { weft, how, stop }))
    }

    /// One scenario; an invalid run is tried again.
    pub(super) fn run(
        &self,
        name: &str,
        scenario: &Scenario,
        changes: &Changes,
    ) -> Result<Outcome, Failure> {
        let mut attempt = 1;
        loop {
            let outcome = self.attempt(name, scenario, changes)?;
            if !matches!(outcome.state, State::Invalid(_)) || attempt >= self.how.attempts {
                return Ok(outcome);
            }
            attempt += 1;
            note(format_args!("{name}: not a valid run, tried again"));
        }
    }

    fn attempt(
        &self,
        name: &str,
        scenario: &Scenario,
        changes: &Changes,
    ) -> Result<Outcome, Failure> {
        let directory = tempfile::Builder::new()
            .prefix("weft-lab-")
            .tempdir()
            .map_err(|error| {
                Failure::new(
                    Code::Failed,
                    format!("cannot make a temporary directory: {error}"),
                )
            })?;
        let setup = Setup {
            weft: self.weft.clone(),
            directory: directory.path().to_owned(),
            backend: self.how.backend.choice(),
            qlog: !self.how.no_qlog,
        };
        let mut progress = |line: &str| note(format_args!("{name}: {line}"));
        let outcome = match run::run(scenario, &setup, &self.stop, &mut progress) {
            Ok(outcome) => outcome,
            Err(RunError::Stopped) => return Err(Failure::silent(Code::Interrupted)),
            // No process was started, so no files are left.
            Err(error @ RunError::Clock(_)) => {
                return Ok(Outcome::broken(scenario, error.to_string()));
            }
            Err(error) => Outcome::broken(scenario, crate::failure::chain(&error)),
        };
        if !outcome.is_as_expected() {
            self.say_what_is_left(name, &outcome, directory.path(), changes);
        }
        Ok(outcome)
    }

    /// Keeps the logs and prints how to reproduce the run.
    fn say_what_is_left(&self, name: &str, outcome: &Outcome, from: &Path, changes: &Changes) {
        match run::keep::keep(outcome, from, &self.how.keep) {
            Ok(folder) => note(format_args!(
                "{name}: logs, packets and qlog are in {}",
                folder.display()
            )),
            Err(error) => note(format_args!("{name}: logs could not be kept: {error}")),
        }
        let flags = changes.flags(outcome.seed);
        note(format_args!(
            "{name}: again with `weft lab run {name}{flags}`"
        ));
    }
}

/// SIGINT and SIGTERM end the run, which then ends its processes in order. Called before any other thread
/// starts, so that all threads block the signals for the one that waits.
fn raise_on_signals(stop: Stop) -> Result<(), Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    let refuse = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Failed, format!("cannot take signals: {error}"))
    };
    signals.thread_block().map_err(|error| refuse(&error))?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            // An error ends the waiting, not the run.
            if signals.wait().is_ok() {
                stop.raise();
            }
        })
        .map_err(|error| refuse(&error))?;
    Ok(())
}

/// Writes page and pictures, and decides the exit code.
pub(super) fn finish(how: &RunFlags, outcomes: &[Outcome]) -> Result<(), Failure> {
    if let Some(path) = &how.html {
        std::fs::write(path, report::html(outcomes)).map_err(|error| Failure::io(path, &error))?;
    }
    if let Some(directory) = &how.svg {
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(directory)?;
            outcomes.iter().try_for_each(|outcome| {
                let file = directory.join(format!("{}.svg", outcome.scenario));
                std::fs::write(file, report::svg(outcome))
            })
        };
        write().map_err(|error| Failure::io(directory, &error))?;
    }
    let failed = outcomes
        .iter()
        .any(|outcome| outcome.state == State::Failed && !outcome.is_as_expected());
    if failed {
        return Err(Failure::silent(Code::Assertion));
    }
    if outcomes.iter().all(Outcome::is_as_expected) {
        Ok(())
    } else {
        Err(Failure::silent(Code::Failed))
    }
}
