//! Runs a plan: finds the addresses, tries a first connection, tells how it goes, prints the result.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::MissedTickBehavior;
use weft_loadtest::engine::{Finished, Run, RunError, reach};
use weft_loadtest::machine;
use weft_loadtest::measurements::Snapshot;
use weft_loadtest::plan::Plan;
use weft_loadtest::report;
use weft_loadtest::result::{Ended, RunResult};
use weft_loadtest::threshold::Evaluated;

use super::flags::{Flags, Wishes};
use crate::failure::{Code, Failure};
use crate::output::{note, print_or};
use crate::process::{Signals, raise_file_limit};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);

/// How often the end of the run is looked for.
const TICK: Duration = Duration::from_millis(20);

/// Runs `weft load URL...`.
pub fn run(flags: Flags) -> Result<(), Failure> {
    let (plan, wishes) = flags.into_plan()?;
    raise_file_limit();
    // The generator has threads of its own: this one waits.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failed, format!("cannot start a runtime: {error}")))?;
    let plan = Arc::new(plan);
    let started = SystemTime::now();
    let (finished, interrupted) = runtime.block_on(drive(&plan, &wishes))?;
    let mut result = RunResult::new(
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
    if let Some(conditions) = &wishes.fail_if {
        result.thresholds = conditions.fail_if(&Evaluated {
            measurements: &finished.measurements,
            result: &result,
        });
    }
    print_or(wishes.output, &result, report::text::report)?;
    if let Some(path) = &wishes.html {
        write(path, report::html::page(&result).as_bytes())?;
    }
    if let Some(path) = &wishes.hdr_log {
        let log = &finished.measurements;
        let log = report::hdr_log::log(log, started, env!("CARGO_PKG_VERSION"));
        write(path, &log)?;
    }
    judge(&finished, &result, interrupted)
}

/// What the exit code says of a run whose result has been shown.
fn judge(finished: &Finished, result: &RunResult, interrupted: bool) -> Result<(), Failure> {
    if interrupted {
        return Err(Failure::silent(Code::Interrupted));
    }
    let counts = &finished.measurements.counts;
    let errors = finished.measurements.errors.iter();
    if counts.succeeded == 0
        && let Some((kind, _)) = errors.max_by_key(|(_, count)| **count)
    {
        let line = format!(
            "none of {} requests succeeded; most often: {kind}",
            counts.requests()
        );
        return Err(Failure::new(Code::Failed, line));
    }
    if !result.generator.valid {
        let line = format!(
            "the run is invalid: {}",
            result.generator.reasons.join("; ")
        );
        return Err(Failure::new(Code::Failed, line));
    }
    let failed = result.thresholds.iter().filter(|judged| judged.failed);
    let failed: Vec<&str> = failed.map(|judged| judged.condition.as_str()).collect();
    if !failed.is_empty() {
        let line = format!("--fail-if: {}", failed.join(", "));
        return Err(Failure::new(Code::Assertion, line));
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| Failure::io(path, &error))
}

fn unix_ms(moment: SystemTime) -> u64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

async fn drive(plan: &Arc<Plan>, wishes: &Wishes) -> Result<(Finished, bool), Failure> {
    let mut signals = Signals::take()?;
    let addresses = tokio::select! {
        reached = reach(plan, wishes.check) => reached,
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
        if !wishes.quiet && elapsed.saturating_sub(told) >= PROGRESS {
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
        "{second:>4} s  {requests} requests, {rate:.0}/s, {failed} failed, p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms",
        requests = counts.requests(),
        rate = counts.requests() as f64 / measured,
        failed = counts.failed,
        p50 = milliseconds(so_far.p50),
        p99 = milliseconds(so_far.p99),
        max = milliseconds(so_far.max),
    ));
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
