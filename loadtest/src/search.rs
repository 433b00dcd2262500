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
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    /// Runs a search against a simulated server, which is a function of the rate.
    fn search(mut server: impl FnMut(f64) -> Verdict) -> (Best, usize) {
        let mut search = Search::new(100.0, 1_000_000.0);
        let mut trials = 0;
        loop {
            match search.next() {
                Next::Try(rate) => {
                    trials += 1;
                    search.handle_trial(rate, server(rate));
                }
                Next::Done(best) => return (best, trials),
            }
        }
    }

    #[test]
    fn the_capacity_of_a_server_is_found_within_five_per_cent() {
        for capacity in [0.5, 3.0, 77.0, 100.0, 4321.0, 250_000.0] {
            let (best, trials) = search(|rate| {
                if rate <= capacity {
                    Verdict::Met
                } else {
                    Verdict::Unmet
                }
            });
            let found = best.per_second.unwrap();
            assert!(
                found <= capacity && found >= capacity * 0.94,
                "{capacity}: {found}"
            );
            assert!(best.confirmed && best.limited_by == Limit::Target);
            assert!(trials <= 35, "{capacity}: {trials} trials");
        }
    }

    #[test]
    fn one_bad_moment_in_ten_does_not_hide_the_capacity() {
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let (best, _) = search(|rate| {
                if rate <= 5000.0 && random.random::<f64>() >= 0.1 {
                    Verdict::Met
                } else {
                    Verdict::Unmet
                }
            });
            let found = best.per_second.unwrap();
            assert!((3000.0..=5000.0).contains(&found), "seed {seed}: {found}");
        }
    }

    #[test]
    fn one_lucky_trial_above_the_capacity_is_not_believed() {
        let mut lucky = true;
        let (best, _) = search(|rate| {
            let luck = rate > 1000.0 && rate < 2000.0 && std::mem::take(&mut lucky);
            if rate <= 1000.0 || luck {
                Verdict::Met
            } else {
                Verdict::Unmet
            }
        });
        assert!(best.per_second.unwrap() <= 1000.0, "{best:?}");
    }

    #[test]
    fn a_search_says_when_the_generator_or_the_bound_is_the_limit() {
        let (best, _) = search(|rate| {
            if rate <= 30_000.0 {
                Verdict::Met
            } else {
                Verdict::GeneratorLate
            }
        });
        assert_eq!(best.limited_by, Limit::Generator);
        let (best, _) = search(|_| Verdict::Met);
        assert_eq!(best.limited_by, Limit::RateMax);
        assert_eq!(best.per_second, Some(1_000_000.0));
    }

    #[test]
    fn a_search_that_finds_nothing_or_only_noise_ends() {
        let (best, _) = search(|_| Verdict::Unmet);
        assert_eq!(best.per_second, None);
        let mut flip = 0;
        let (_, trials) = search(|_| {
            flip += 1;
            if flip % 3 == 0 {
                Verdict::Met
            } else {
                Verdict::Unmet
            }
        });
        assert!(trials <= limits::SEARCH_TRIALS_MAX);
    }

    #[test]
    fn a_sweep_rises_by_the_same_factor() {
        let sweep: Sweep = "100:10000:5".parse().unwrap();
        assert_eq!(sweep.rates, [100.0, 316.0, 1000.0, 3160.0, 10_000.0]);
        for (text, part) in [
            ("100:1000", "no sweep"),
            ("0:1000:5", "rates are"),
            ("a:1000:5", "rates are"),
            ("100:1000:x", "no number"),
            ("100:1000:1", "2 to"),
            ("100:1000:100000", "2 to"),
            ("1000:100:5", "not above"),
        ] {
            let error = text.parse::<Sweep>().unwrap_err();
            assert!(
                error.contains(part) && error.contains("100:10000:10"),
                "{text}: {error}"
            );
        }
    }

    fn trial(rate: f64, succeeded: f64, p99_us: u64) -> Trial {
        Trial {
            rate,
            succeeded_per_second: succeeded,
            error_share: 0.0,
            p50_us: Some(p99_us / 2),
            p99_us: Some(p99_us),
            p99_9_us: None,
            kept_up: succeeded >= rate * 0.95,
            valid: true,
            unmet: Vec::new(),
        }
    }

    #[test]
    fn a_queue_that_grows_is_noticed_before_the_latency_says_so() {
        use crate::measurements::Measurements;
        use crate::result::{Ended, Machine, PlanSummary};
        use crate::sample::{Outcome, Sample};
        use std::time::Duration;
        // Due 1000/s, answered in turn at the given rate after 100 ms.
        let run = |answered: u64| {
            let mut measurements = Measurements::new(Duration::ZERO);
            for index in 0..2000u64 {
                let due = Duration::from_millis(index);
                let sent = due.max(Duration::from_micros(index * 1_000_000 / answered));
                measurements.record(&Sample {
                    finished: sent + Duration::from_millis(100),
                    outcome: Outcome::Success,
                    ..Sample::begin(due, sent)
                });
            }
            let two = Duration::from_secs(2);
            let (plan, machine) = (PlanSummary::default(), Machine::default());
            let result = RunResult::new(&measurements, two, Ended::Completed, 0, plan, machine);
            Trial::of(1000.0, &result, Vec::new())
        };
        assert!(run(2000).kept_up);
        assert!(!run(900).kept_up);
        assert!(run(900).unmet[0].contains("95 %"));
    }

    #[test]
    fn the_knee_of_a_queue_is_the_last_rate_before_its_latency_doubles() {
        // M/M/1: the time in the system is 1 / (capacity - rate).
        let trials: Vec<Trial> = [100.0, 200.0, 400.0, 550.0, 800.0, 950.0]
            .iter()
            .map(|rate| trial(*rate, *rate, (1e6 / (1000.0 - rate)) as u64))
            .collect();
        // At low rates: 1.25 ms at 200/s; at 550/s it is 2.2 ms, at 800/s 5 ms.
        assert_eq!(knee(&trials), Some(3));
    }

    #[test]
    fn a_rate_that_is_not_reached_or_fails_is_beyond_the_knee() {
        let mut trials = vec![
            trial(100.0, 100.0, 1000),
            trial(200.0, 200.0, 1000),
            trial(400.0, 300.0, 1000),
        ];
        assert_eq!(knee(&trials), Some(1));
        trials[1].error_share = 0.05;
        assert_eq!(knee(&trials), Some(0));
        trials[0].valid = false;
        assert_eq!(knee(&trials), None);
        assert_eq!(knee(&[]), None);
    }
}
