//! Whether two results differ, and by how much at least. Pure.
//!
//! - Percentiles: intervals by order statistics. The rank of the true percentile among `n` samples is
//!   binomial; the samples at the ends of its 99 % interval bound the percentile, whatever the
//!   distribution is.
//! - Requests of one second resemble each other more than those of another second. So `n` is divided by how
//!   much more the means of the seconds spread than those of independent requests would.
//! - Shares of failures: intervals by Wilson, corrected in the same way. Rates: the mean over seconds
//!   with Student's t.
//! - A ratio's interval joins those of its two sides (the method of variance estimates recovery, on
//!   logarithms).
//!
//! Two runs differ in a quantity if the interval of the ratio does not contain 1 and the ratio is beyond the
//! tolerance: causes that differ between any two runs (caches, placement in memory, neighbours) are not in an
//! interval made from one run each.

use serde::Serialize;

use crate::histogram::{DecodeError, Durations};
use crate::limits;
use crate::result::{RunResult, Step};

/// Name and version of the comparison as JSON.
pub const SCHEMA: &str = "weft.load.diff/1";

/// A comparison of two results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: String,
    /// Ratios nearer to 1 than this are no difference.
    pub tolerance: f64,
    /// Whether any quantity differs.
    pub differs: bool,
    /// One row for each quantity.
    pub rows: Vec<Row>,
    /// Conditions that differ between the runs, and other reasons for doubt.
    pub notes: Vec<String>,
}

/// One quantity of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `p50`, ..., `succeeded_per_second`, `error_share`.
    pub quantity: String,
    /// In the first run: microseconds, per second, or a share from 0 to 1.
    pub a: Estimate,
    /// In the second run.
    pub b: Estimate,
    /// Second by first, with its interval; absent where the first is zero.
    pub ratio: Option<Estimate>,
    /// The conclusion.
    pub verdict: Verdict,
}

/// A value, with its 99 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// The conclusion of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The second run is better.
    Better,
    /// The second run is worse.
    Worse,
    /// The difference may be chance, or is within the tolerance.
    NotDistinguishable,
    /// Too few samples for a conclusion.
    TooFew,
}

/// Why results cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The generator was late in one of them.
    #[error("the {which} run is invalid: {reason}; run it again")]
    Invalid {
        /// `first` or `second`.
        which: &'static str,
        /// The content of its result.
        reason: String,
    },
    /// A histogram cannot be read.
    #[error("the latency of the {which} run: {source}")]
    Histogram {
        /// `first` or `second`.
        which: &'static str,
        /// Why.
        source: DecodeError,
    },
}

/// Compares `b` with `a`. Ratios within `1 +- tolerance` are no difference.
pub fn compare(a: &RunResult, b: &RunResult, tolerance: f64) -> Result<Comparison, DiffError> {
    let (first, second) = (Run::read("first", a)?, Run::read("second", b)?);
    let mut rows = Vec::new();
    for (percent, _) in a.latency.percentiles.list() {
        rows.extend(percentile_row(&first, &second, percent, tolerance));
    }
    rows.extend(rate_row(&first, &second, tolerance));
    rows.push(error_row(&first, &second, tolerance));
    let differs = |row: &Row| matches!(row.verdict, Verdict::Better | Verdict::Worse);
    Ok(Comparison {
        schema: SCHEMA.to_owned(),
        tolerance,
        differs: rows.iter().any(differs),
        rows,
        notes: notes(&first, &second),
    })
}

/// One result, with the values that the intervals need.
struct Run<'a> {
    result: &'a RunResult,
    latency: Durations,
    /// Whole steps of the measured time.
    steps: &'a [Step],
    /// How many requests count as one, for latencies.
    clumping: f64,
}

impl<'a> Run<'a> {
    fn read(which: &'static str, result: &'a RunResult) -> Result<Self, DiffError> {
        if !result.generator.valid {
            let reason = result.generator.reasons.join(", ");
            return Err(DiffError::Invalid { which, reason });
        }
        let latency = Durations::decode(&result.latency.histogram)
            .map_err(|source| DiffError::Histogram { which, source })?;
        let whole = (result.summary.seconds / result.timeline.step_s).floor();
        let whole = (whole as usize).min(result.timeline.steps.len());
        let steps = &result.timeline.steps[..whole];
        let clumping = clumping_of_means(steps, &latency);
        Ok(Self {
            result,
            latency,
            steps,
            clumping,
        })
    }

    /// Too few steps to estimate how steps differ.
    fn is_short(&self) -> bool {
        self.steps.len() < limits::DIFF_STEPS_MIN
    }
}

/// How much more the means of the steps spread than those of independent requests would; at least 1.
fn clumping_of_means(steps: &[Step], latency: &Durations) -> f64 {
    let means: Vec<(f64, f64)> = steps
        .iter()
        .filter_map(|step| Some((step.succeeded as f64, step.mean_us? as f64)))
        .collect();
    let (Some(deviation), true) = (latency.deviation(), means.len() >= limits::DIFF_STEPS_MIN)
    else {
        return 1.0;
    };
    let variance = (deviation.as_secs_f64() * 1e6).powi(2).max(1.0);
    let count: f64 = means.iter().map(|(count, _)| count).sum();
    let mean = means.iter().map(|(count, mean)| count * mean).sum::<f64>() / count.max(1.0);
    let spread: f64 = means
        .iter()
        .map(|(count, one)| count * (one - mean).powi(2) / variance)
        .sum();
    (spread / (means.len() - 1) as f64).max(1.0)
}

fn percentile_row(a: &Run<'_>, b: &Run<'_>, percent: f64, tolerance: f64) -> Option<Row> {
    if a.latency.is_empty() || b.latency.is_empty() {
        return None;
    }
    let [(left, enough_left), (right, enough_right)] =
        [a, b].map(|run| percentile_interval(&run.latency, percent / 100.0, run.clumping));
    let ratio = ratio_of(left, right);
    let verdict = if enough_left && enough_right {
        judge(ratio, tolerance, false)
    } else {
        Verdict::TooFew
    };
    Some(Row {
        quantity: crate::text::percentile(percent),
        a: left,
        b: right,
        ratio: Some(ratio),
        verdict,
    })
}

/// The percentile with the order statistics that bound it, and whether enough samples are beyond it.
fn percentile_interval(latency: &Durations, share: f64, clumping: f64) -> (Estimate, bool) {
    let samples = latency.len() as f64;
    let effective = samples / clumping;
    let half = limits::DIFF_Z * (share * (1.0 - share) / effective).sqrt() * samples;
    let micros = |rank: f64| latency.at_rank(rank.max(1.0) as u64).as_secs_f64() * 1e6;
    let estimate = Estimate {
        value: micros((samples * share).ceil()),
        low: micros((samples * share - half).floor()),
        high: micros((samples * share + half).ceil() + 1.0),
    };
    let beyond = effective * (1.0 - share);
    (
        estimate,
        beyond >= limits::SAMPLES_BEYOND_PERCENTILE_MIN as f64,
    )
}

fn rate_row(a: &Run<'_>, b: &Run<'_>, tolerance: f64) -> Option<Row> {
    if a.is_short() || b.is_short() {
        return None;
    }
    let [left, right] = [a, b].map(|run| {
        let step_s = run.result.timeline.step_s;
        let rates: Vec<f64> = run
            .steps
            .iter()
            .map(|step| step.succeeded as f64 / step_s)
            .collect();
        mean_interval(&rates)
    });
    let ratio = (left.low > 0.0 && right.low > 0.0).then(|| ratio_of(left, right));
    Some(Row {
        quantity: "succeeded_per_second".to_owned(),
        a: left,
        b: right,
        ratio,
        verdict: ratio.map_or(Verdict::TooFew, |ratio| judge(ratio, tolerance, true)),
    })
}

/// The mean with Student's t, approximated from the normal quantile (Cornish and Fisher's first term).
fn mean_interval(values: &[f64]) -> Estimate {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let free = (count - 1.0).max(1.0);
    let z = limits::DIFF_Z;
    let t = z + (z.powi(3) + z) / (4.0 * free);
    let half = t * (squares / free / count).sqrt();
    Estimate {
        value: mean,
        low: (mean - half).max(0.0),
        high: mean + half,
    }
}

fn error_row(a: &Run<'_>, b: &Run<'_>, tolerance: f64) -> Row {
    let [left, right] = [a, b].map(error_interval);
    let ratio = (left.value > 0.0).then(|| {
        let floor = 1e-12;
        let at_least = |one: Estimate| Estimate {
            value: one.value.max(floor),
            low: one.low.max(floor),
            high: one.high.max(floor),
        };
        ratio_of(at_least(left), at_least(right))
    });
    // Newcombe's interval of the difference: it needs no logarithm, so none may be zero.
    let difference = right.value - left.value;
    let low = difference - (right.value - right.low).hypot(left.high - left.value);
    let high = difference + (right.high - right.value).hypot(left.value - left.low);
    let beyond = ratio.is_none_or(|ratio| (ratio.value - 1.0).abs() > tolerance);
    let verdict = match (beyond, low > 0.0, high < 0.0) {
        (true, true, _) => Verdict::Worse,
        (true, _, true) => Verdict::Better,
        _ => Verdict::NotDistinguishable,
    };
    Row {
        quantity: "error_share".to_owned(),
        a: left,
        b: right,
        ratio,
        verdict,
    }
}

/// Wilson's interval of the share of failures.
fn error_interval(run: &Run<'_>) -> Estimate {
    let summary = &run.result.summary;
    let (requests, share) = (summary.requests as f64, summary.error_share);
    if requests == 0.0 {
        return Estimate {
            value: 0.0,
            low: 0.0,
            high: 1.0,
        };
    }
    let effective = requests / clumping_of_failures(run.steps, share);
    let square = limits::DIFF_Z.powi(2);
    let center = (share + square / (2.0 * effective)) / (1.0 + square / effective);
    let half = limits::DIFF_Z / (1.0 + square / effective)
        * (share * (1.0 - share) / effective + square / (4.0 * effective.powi(2))).sqrt();
    Estimate {
        value: share,
        low: (center - half).clamp(0.0, share),
        high: (center + half).clamp(share, 1.0),
    }
}

/// How much more the failures of the steps spread than independent ones would; at least 1.
fn clumping_of_failures(steps: &[Step], share: f64) -> f64 {
    if steps.len() < limits::DIFF_STEPS_MIN || share <= 0.0 || share >= 1.0 {
        return 1.0;
    }
    let spread: f64 = steps
        .iter()
        .map(|step| {
            let ended = (step.succeeded + step.failed) as f64;
            let expected = ended * share;
            (step.failed as f64 - expected).powi(2) / (expected * (1.0 - share)).max(1e-9)
        })
        .sum();
    (spread / (steps.len() - 1) as f64).max(1.0)
}

/// Second by first.
fn ratio_of(a: Estimate, b: Estimate) -> Estimate {
    let ln = |value: f64| value.max(f64::MIN_POSITIVE).ln();
    let difference = ln(b.value) - ln(a.value);
    let below = (ln(b.value) - ln(b.low)).hypot(ln(a.high) - ln(a.value));
    let above = (ln(b.high) - ln(b.value)).hypot(ln(a.value) - ln(a.low));
    Estimate {
        value: difference.exp(),
        low: (difference - below).exp(),
        high: (difference + above).exp(),
    }
}

fn judge(ratio: Estimate, tolerance: f64, more_is_better: bool) -> Verdict {
    let excluded = ratio.low > 1.0 || ratio.high < 1.0;
    if !excluded || (ratio.value - 1.0).abs() <= tolerance {
        return Verdict::NotDistinguishable;
    }
    if (ratio.value > 1.0) == more_is_better {
        Verdict::Better
    } else {
        Verdict::Worse
    }
}

fn notes(a: &Run<'_>, b: &Run<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let mut differ = |what: &str, a: String, b: String| {
        if a != b {
            notes.push(format!("not the same {what}: {a} and {b}"));
        }
    };
    let (plan_a, plan_b) = (&a.result.plan, &b.result.plan);
    differ("protocol", plan_a.protocol.clone(), plan_b.protocol.clone());
    let plan = |plan| crate::report::text::plan(plan);
    differ("plan", plan(plan_a), plan(plan_b));
    let (on_a, on_b) = (&a.result.machine, &b.result.machine);
    differ("processor", on_a.cpu.clone(), on_b.cpu.clone());
    differ(
        "number of cores",
        on_a.cores.to_string(),
        on_b.cores.to_string(),
    );
    differ("kernel", on_a.kernel.clone(), on_b.kernel.clone());
    differ("version of weft", on_a.weft.clone(), on_b.weft.clone());
    if a.is_short() || b.is_short() {
        notes.push(format!(
            "a run is shorter than {} steps: how much its seconds differ is not known, and requests are \
             taken as independent, which makes intervals too narrow",
            limits::DIFF_STEPS_MIN
        ));
    }
    for (name, run) in [("first", a), ("second", b)] {
        if run.result.summary.unsent > 0 {
            notes.push(format!(
                "the {name} run has unsent requests: its latencies leave out what they would have waited"
            ));
        }
    }
    notes
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
