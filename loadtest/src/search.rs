//! Which rate to try next: the highest that meets conditions, or a series of rates and their knee. Pure: the
//! caller runs the trials and reports their results.
//!
//! The search doubles until a rate fails, halves the distance (as a factor) until it is small, and then tries
//! the best rate again. A machine is slow at times. So a rate counts as failed only after two failures in a
//! row, it counts as holding only when it held twice, and in the end the lowest failed rate is tried again.
//! Otherwise one slow moment early in the search would exclude every rate above it.

use std::str::FromStr;

use serde::Serialize;

use crate::limits;
use crate::result::RunResult;

/// The result of one trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All conditions held.
    Met,
    /// A condition did not hold.
    Unmet,
    /// The generator was late, so the target's limit is unknown: it counts as if the conditions failed.
    GeneratorLate,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// Run at this rate and report the result.
    Try(f64),
    /// The search is over.
    Done(Best),
}

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Best {
    /// The highest rate that met the conditions every time; absent if none did.
    pub per_second: Option<f64>,
    /// Why the rate is not higher.
    pub limited_by: Limit,
    /// Whether the rate was confirmed; not if the trials ran out.
    pub confirmed: bool,
}

/// Why a search stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The conditions failed beyond it.
    Target,
    /// The generator could not keep up beyond it.
    Generator,
    /// It is the highest rate that was allowed.
    RateMax,
}

/// A search for the highest rate that meets conditions.
#[derive(Clone, Debug)]
pub struct Search {
    start: f64,
    rate_max: f64,
    /// Rates that held, ascending.
    met: Vec<f64>,
    /// The lowest rate that failed twice, and why.
    failed: Option<(f64, Limit)>,
    /// The rate that failed once.
    doubted: Option<f64>,
    confirmations: u32,
    /// Whether the failed rate failed again in the end.
    challenged: bool,
    trials: usize,
}

impl Search {
    /// A search that begins at `start` and never goes above `rate_max`.
    pub fn new(start: f64, rate_max: f64) -> Self {
        let rate_max = rate_max.clamp(limits::RATE_MIN, limits::RATE_MAX);
        Self {
            start: start.clamp(limits::RATE_MIN, rate_max),
            rate_max,
            met: Vec::new(),
            failed: None,
            doubted: None,
            confirmations: 0,
            challenged: false,
            trials: 0,
        }
    }

    /// The next step. The same until [`handle_trial`](Self::handle_trial).
    pub fn next(&self) -> Next {
        let best = self.met.last().copied();
        let done = |confirmed| {
            Next::Done(Best {
                per_second: best,
                limited_by: self.failed.map_or(Limit::RateMax, |(_, limit)| limit),
                confirmed,
            })
        };
        if self.trials >= limits::SEARCH_TRIALS_MAX {
            return done(false);
        }
        if let Some(rate) = self.doubted {
            return Next::Try(rate);
        }
        let higher = match (best, self.failed) {
            (None, None) => Some(self.start),
            (Some(best), None) => (best < self.rate_max).then(|| (best * 2.0).min(self.rate_max)),
            (None, Some((failed, _))) if failed <= limits::RATE_MIN => return done(true),
            (None, Some((failed, _))) => Some((failed / 2.0).max(limits::RATE_MIN)),
            (Some(best), Some((failed, _))) => between(best, failed),
        };
        match (higher, best) {
            (Some(rate), _) => Next::Try(rate),
            (None, Some(best)) if self.confirmations < limits::SEARCH_CONFIRMATIONS => {
                Next::Try(best)
            }
            (None, _) => match self.failed {
                Some((failed, _)) if !self.challenged => Next::Try(failed),
                Some(_) | None => done(true),
            },
        }
    }

    /// Takes the result of a trial at `rate`.
    pub fn handle_trial(&mut self, rate: f64, verdict: Verdict) {
        self.trials += 1;
        let limit = match verdict {
            Verdict::Met => {
                self.doubted = None;
                self.handle_met(rate);
                return;
            }
            Verdict::Unmet => Limit::Target,
            Verdict::GeneratorLate => Limit::Generator,
        };
        if self.doubted.take().is_none() {
            self.doubted = Some(rate);
            return;
        }
        if self.failed.is_some_and(|(failed, _)| rate == failed) {
            self.challenged = true;
            return;
        }
        self.met.retain(|met| *met < rate);
        self.confirmations = 0;
        self.challenged = false;
        if self.failed.is_none_or(|(failed, _)| rate <= failed) {
            self.failed = Some((rate, limit));
        }
    }

    fn handle_met(&mut self, rate: f64) {
        if self.met.last() == Some(&rate) {
            self.confirmations += 1;
            return;
        }
        self.confirmations = 0;
        if self.failed.is_some_and(|(failed, _)| rate >= failed) {
            self.failed = None;
        }
        self.met.retain(|met| *met < rate);
        self.met.push(rate);
    }
}

/// A readable rate between two, or `None` if they are close enough.
fn between(low: f64, high: f64) -> Option<f64> {
    if high / low <= 1.0 + limits::SEARCH_PRECISION {
        return None;
    }
    let middle = readable((low * high).sqrt());
    (middle > low && middle < high).then_some(middle)
}

/// Three significant digits: more would claim a precision that no trial has.
fn readable(rate: f64) -> f64 {
    let scale = 10f64.powf(2.0 - rate.log10().floor());
    (rate * scale).round() / scale
}

/// The rates of `--sweep FROM:TO:COUNT`: each the same factor above the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// Requests per second, ascending.
    pub rates: Vec<f64>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write FROM:TO:COUNT, as in 100:10000:10";
        let parts: Vec<&str> = text.split(':').collect();
        let [from, to, count] = parts.as_slice() else {
            return Err(format!("{text:?} is no sweep; {example}"));
        };
        let rate = |text: &str| {
            let rate: f64 = text.trim().parse().ok()?;
            (limits::RATE_MIN..=limits::RATE_MAX)
                .contains(&rate)
                .then_some(rate)
        };
        let (Some(from), Some(to)) = (rate(from), rate(to)) else {
            return Err(format!(
                "rates are {} to {} per second; {example}",
                limits::RATE_MIN,
                limits::RATE_MAX
            ));
        };
        let Ok(count) = count.trim().parse::<u32>() else {
            return Err(format!("{count:?} is no number of steps; {example}"));
        };
        if !(2..=limits::SWEEP_STEPS_MAX).contains(&count) {
            return Err(format!(
                "a sweep has 2 to {} steps; {example}",
                limits::SWEEP_STEPS_MAX
            ));
        }
        if to <= from {
            return Err(format!("{to} is not above {from}; {example}"));
        }
        let factor = (to / from).powf(1.0 / f64::from(count - 1));
        let rates = (0..count).map(|step| match step {
            0 => from,
            step if step == count - 1 => to,
            step => readable(from * factor.powi(step as i32)),
        });
        let mut rates: Vec<f64> = rates.collect();
        rates.dedup();
        Ok(Self { rates })
    }
}

/// The measurements of one trial, as far as a search or sweep needs them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Requests due per second.
    pub rate: f64,
    /// Successes per second.
    pub succeeded_per_second: f64,
    /// Failures, from 0 to 1.
    pub error_share: f64,
    /// Median latency; absent without an answer, as the others.
    pub p50_us: Option<u64>,
    /// 99th percentile.
    pub p99_us: Option<u64>,
    /// 99.9th percentile.
    pub p99_9_us: Option<u64>,
    /// Whether as many requests succeeded as could be answered in the time: a trial may be too short for a
    /// growing queue to show in the latency.
    pub kept_up: bool,
    /// Whether the generator kept up.
    pub valid: bool,
    /// The conditions that did not hold, with the measured values.
    pub unmet: Vec<String>,
}

impl Trial {
    /// The measurements of a run at `rate`.
    pub fn of(rate: f64, result: &RunResult, mut unmet: Vec<String>) -> Self {
        let percentiles = &result.latency.percentiles;
        let kept_up = kept_up(result);
        if !kept_up {
            unmet.push("less than 95 % of what was due was answered in time".to_owned());
        }
        Self {
            rate,
            succeeded_per_second: result.summary.succeeded_per_second,
            error_share: result.summary.error_share,
            p50_us: percentiles.p50.map(|one| one.us),
            p99_us: percentiles.p99.map(|one| one.us),
            p99_9_us: percentiles.p99_9.map(|one| one.us),
            kept_up,
            valid: result.generator.valid,
            unmet,
        }
    }

    /// The meaning for a search.
    pub fn verdict(&self) -> Verdict {
        match (self.valid, self.unmet.is_empty()) {
            (false, _) => Verdict::GeneratorLate,
            (true, true) => Verdict::Met,
            (true, false) => Verdict::Unmet,
        }
    }

    fn keeps_up(&self, p99_calm: u64) -> bool {
        self.valid
            && self.error_share <= limits::KNEE_ERROR_SHARE_MAX
            && self.kept_up
            && self
                .p99_us
                .is_some_and(|p99| p99 as f64 <= p99_calm as f64 * limits::KNEE_LATENCY_FACTOR)
    }
}

/// Requests due at the very end cannot be answered within the measured time, so that many may be missing.
fn kept_up(result: &RunResult) -> bool {
    let summary = &result.summary;
    let typical = result.service.percentiles.p50.map_or(0, |one| one.us) as f64 / 1e6;
    let answerable = (1.0 - typical / summary.seconds).max(0.0);
    summary.succeeded_per_second
        >= summary.due_per_second * answerable * limits::KNEE_RATE_SHARE_MIN
}

/// Where latency begins to rise with the rate: the last trial before the first that fails requests, falls
/// behind its rate, or has a p99 above twice that at low rates (the median of the first three). `None` if the
/// first trial already does. The last one if none does: then the knee was not reached.
pub fn knee(trials: &[Trial]) -> Option<usize> {
    let mut calm: Vec<u64> = trials
        .iter()
        .take(3)
        .filter_map(|trial| trial.p99_us)
        .collect();
    calm.sort_unstable();
    let p99_calm = *calm.get(calm.len() / 2)?;
    let first_bad = trials.iter().position(|trial| !trial.keeps_up(p99_calm));
    first_bad.unwrap_or(trials.len()).checked_sub(1)
}

#[cfg(test)]
mod tests;
