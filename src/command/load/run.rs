//! Runs a plan: resolves the addresses, tries a first connection, reports progress, prints the result.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::MissedTickBehavior;
use weft_loadtest::engine::{Finished, Run, RunError, reach};
use weft_loadtest::machine;
use weft_loadtest::measurements::{Measurements, Snapshot};
use weft_loadtest::plan::Plan;
use weft_loadtest::report::{self, hdr_log};
use weft_loadtest::result::{Ended, RunResult};
use weft_loadtest::text;
use weft_loadtest::threshold::Evaluated;

use super::asked::Asked;
use super::flags::Flags;
use super::series;
use crate::failure::{Code, Failure};
use crate::output::{note, print_or};
use crate::process::{Signals, raise_file_limit};

/// How often progress is reported.
const PROGRESS: Duration = Duration::from_secs(1);

/// How often the end of the run is checked.
const TICK: Duration = Duration::from_millis(20);

/// Runs `weft load URL...`.
pub fn run(flags: Flags, asked: Asked) -> Result<(), Failure> {
    let (plan, check) = flags.into_plan(&asked)?;
    let quiet = asked.quiet || asked.is_series();
    let runner = Runner::new(check, quiet)?;
    if let Some(conditions) = asked.find_max {
        return series::find_max(&runner, plan, conditions, asked.output);
    }
    if let Some(sweep) = &asked.sweep {
        return series::sweep(&runner, plan, sweep, asked.output);
    }
    let mut ran = runner.run(&Arc::new(plan))?;
    if let Some(conditions) = &asked.fail_if {
        ran.result.thresholds = conditions.fail_if(&Evaluated {
            measurements: &ran.measurements,
            result: &ran.result,
        });
    }
    print_or(asked.output, &ran.result, report::text::report)?;
    write_files(&asked, &ran)?;
    judge(&ran)
}

/// Runs plans, one after the other.
pub struct Runner {
    runtime: tokio::runtime::Runtime,
    check: bool,
    quiet: bool,
}

/// A run that is over.
pub struct Ran {
    /// Everything that was measured.
    pub measurements: Measurements,
    /// The output for people and programs.
    pub result: RunResult,
    /// Whether a signal ended it.
    pub interrupted: bool,
    started: SystemTime,
}

impl Runner {
    /// With `check`, a first connection must work; without `quiet`, each second has a line.
    fn new(check: bool, quiet: bool) -> Result<Self, Failure> {
        raise_file_limit();
        // The generator has threads of its own: this one waits.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Failure::new(Code::Failed, format!("cannot start a runtime: {error}"))
            })?;
        Ok(Self {
            runtime,
            check,
            quiet,
        })
    }

    /// Runs a plan to its end, or until a signal.
    pub fn run(&self, plan: &Arc<Plan>) -> Result<Ran, Failure> {
        let started = SystemTime::now();
        let driven = drive(plan, self.check, self.quiet);
        let (finished, interrupted) = self.runtime.block_on(driven)?;
        let result = RunResult::new(
            &finished.measurements,
            finished.measured,
            if interrupted {
                Ended::Interrupted
            } else {
                Ended::Completed
            },
            unix_ms(started),
            plan.summary(),
            machine::this(env!("CARGO_PKG_VERSION")),
        );
        Ok(Ran {
            measurements: finished.measurements,
            result,
            interrupted,
            started,
        })
    }
}

fn write_files(asked: &Asked, ran: &Ran) -> Result<(), Failure> {
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).map_err(|error| Failure::io(path, &error))
    };
    if let Some(path) = &asked.html {
        write(path, report::html::page(&ran.result).as_bytes())?;
    }
    if let Some(path) = &asked.hdr_log {
        let version = env!("CARGO_PKG_VERSION");
        write(path, &hdr_log::log(&ran.measurements, ran.started, version))?;
    }
    Ok(())
}

/// The exit code for a run whose result has been printed.
fn judge(ran: &Ran) -> Result<(), Failure> {
    if ran.interrupted {
        return Err(Failure::silent(Code::Interrupted));
    }
    let failed = |line: String| Err(Failure::new(Code::Failed, line));
    let counts = &ran.measurements.counts;
    let errors = ran.measurements.errors.iter();
    if counts.succeeded == 0
        && let Some((kind, _)) = errors.max_by_key(|(_, count)| **count)
    {
        return failed(format!(
            "none of {} requests succeeded; most often: {kind}",
            counts.requests()
        ));
    }
    // Before the thresholds: an invalid run neither passes nor fails one.
    if !ran.result.generator.valid {
        let reasons = ran.result.generator.reasons.join("; ");
        return failed(format!("the run is invalid: {reasons}"));
    }
    let thresholds = ran.result.thresholds.iter();
    let broken: Vec<String> = thresholds
        .filter(|one| one.failed)
        .map(|one| {
            let measured = one.measured.as_deref().unwrap_or("nothing to measure");
            format!("{} ({measured})", one.condition)
        })
        .collect();
    if !broken.is_empty() {
        let line = format!("--fail-if {}", broken.join(", "));
        return Err(Failure::new(Code::Assertion, line));
    }
    Ok(())
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

async fn drive(plan: &Arc<Plan>, check: bool, quiet: bool) -> Result<(Finished, bool), Failure> {
    let mut signals = Signals::take()?;
    let addresses = tokio::select! {
        reached = reach(plan, check) => reached,
        _ = signals.next() => return Err(Failure::silent(Code::Interrupted)),
    };
    let addresses = addresses.map_err(|error| Failure::new(Code::Failed, error))?;
    let failed = |error: RunError| Failure::new(Code::Failed, error);
    let mut run = Run::start(plan, addresses).map_err(failed)?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Duration::ZERO;
    let mut interrupted = false;
    while !run.is_finished() {
        tokio::select! {
            _ = tick.tick() => {}
            _ = signals.next() => {
                if interrupted {
                    return Err(Failure::silent(Code::Interrupted));
                }
                interrupted = true;
                note("weft: interrupted: waiting for open requests; once more ends at once");
                run.stop();
            }
        }
        let elapsed = run.elapsed();
        if !quiet && elapsed.saturating_sub(told) >= PROGRESS {
            told = elapsed;
            tell(elapsed, plan, &run.progress());
        }
    }
    Ok((run.finish().map_err(failed)?, interrupted))
}

/// One line of progress.
fn tell(elapsed: Duration, plan: &Plan, so_far: &Snapshot) {
    let second = elapsed.as_secs();
    if elapsed < plan.warm_up {
        note(format_args!("{second:>4} s  warming up"));
        return;
    }
    let measured = (elapsed - plan.warm_up).as_secs_f64().max(0.001);
    let counts = &so_far.counts;
    note(format_args!(
        "{second:>4} s  {requests} requests, {rate}/s, {failed} failed, p50 {p50}, p99 {p99}, max {max}",
        requests = text::count(counts.requests()),
        rate = text::rate(counts.requests() as f64 / measured),
        failed = text::count(counts.failed),
        p50 = text::duration(so_far.p50),
        p99 = text::duration(so_far.p99),
        max = text::duration(so_far.max),
    ));
}
