//! Conditions on a result: `p99<20ms,errors<0.1%`. Pure. `--fail-if` says what must not hold,
//! `--find-max` what must; both write it the same way.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::histogram::Durations;
use crate::measurements::Measurements;
use crate::result::{RunResult, ThresholdResult};
use crate::text;

/// One or more conditions, in the order in which they were written.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions(Vec<Condition>);

/// The left side of a condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    written: String,
    metric: Metric,
    comparison: Comparison,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    /// A statistic of a distribution.
    Time(Phase, Statistic),
    /// Failures, in number or as a share.
    Errors,
    /// Due and never sent.
    Unsent,
    /// Successes per second.
    Rate,
    /// The longest time without a success.
    Gap,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Latency,
    Service,
    Connect,
    Tls,
    FirstByte,
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistic {
    Percentile(f64),
    Min,
    Mean,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// The right side, in the unit that the metric has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Time(Duration),
    /// From 0 to 1.
    Share(f64),
    Count(f64),
    PerSecond(f64),
}

/// Why conditions cannot be parsed: the place, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {}: {problem}; {instead}", .offset + 1)]
pub struct ConditionError {
    /// Characters before the place.
    pub offset: usize,
    problem: String,
    instead: String,
}

const METRICS: &str = "write p50, p99, p99.9, min, mean, max, errors, rate, gap or unsent (times of a part: service.p99, \
     connect.p99, tls.p99, first_byte.p99, late.p99)";

impl Conditions {
    /// These and, unless one of them is about failures already, that at most 1 % fail: a rate at which a
    /// server refuses quickly must not count as one that it can serve.
    #[must_use]
    pub fn with_errors_bounded(mut self) -> Self {
        if self.0.iter().all(|one| one.metric != Metric::Errors) {
            self.0.push(Condition {
                written: "errors<=1%".to_owned(),
                metric: Metric::Errors,
                comparison: Comparison::AtMost,
                bound: Bound::Share(0.01),
            });
        }
        self
    }

    /// The conditions in order.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    /// What `--fail-if` reports: a condition that holds, or that has nothing to measure, fails.
    pub fn fail_if(&self, run: &Evaluated<'_>) -> Vec<ThresholdResult> {
        let judged = self.0.iter().map(|condition| {
            let finding = condition.evaluate(run);
            ThresholdResult {
                condition: condition.written.clone(),
                measured: finding.measured,
                failed: finding.holds.unwrap_or(true),
                coarse: finding.coarse,
            }
        });
        judged.collect()
    }

    /// Whether all hold, as `--find-max` asks; else those that do not. A condition without a measured value
    /// does not hold.
    pub fn unmet(&self, run: &Evaluated<'_>) -> Vec<ThresholdResult> {
        let judged = self.0.iter().map(|condition| {
            let finding = condition.evaluate(run);
            ThresholdResult {
                condition: condition.written.clone(),
                measured: finding.measured,
                failed: !finding.holds.unwrap_or(false),
                coarse: finding.coarse,
            }
        });
        judged.filter(|judged| judged.failed).collect()
    }
}

/// A run that conditions are evaluated on.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated<'a> {
    /// The measurements: any percentile can be computed from them.
    pub measurements: &'a Measurements,
    /// The result computed from them.
    pub result: &'a RunResult,
}

struct Finding {
    holds: Option<bool>,
    measured: Option<String>,
    coarse: bool,
}

impl Condition {
    fn evaluate(&self, run: &Evaluated<'_>) -> Finding {
        let summary = &run.result.summary;
        let plain = |value: f64, measured: String| Finding {
            holds: Some(self.comparison.holds(value, self.bound.value())),
            measured: Some(measured),
            coarse: false,
        };
        match (self.metric, self.bound) {
            (Metric::Time(phase, statistic), _) => {
                let (value, coarse) = statistic.of(phase.of(run.measurements));
                Finding {
                    holds: value.map(|value| {
                        self.comparison
                            .holds(value.as_secs_f64(), self.bound.value())
                    }),
                    measured: value.map(text::duration),
                    coarse,
                }
            }
            (Metric::Errors, Bound::Count(_)) => {
                plain(summary.failed as f64, text::count(summary.failed))
            }
            (Metric::Errors, _) if summary.requests == 0 => Finding {
                holds: None,
                measured: None,
                coarse: false,
            },
            (Metric::Errors, _) => plain(summary.error_share, text::percent(summary.error_share)),
            (Metric::Unsent, _) => plain(summary.unsent as f64, text::count(summary.unsent)),
            (Metric::Rate, _) => {
                let rate = summary.succeeded_per_second;
                plain(rate, format!("{}/s", text::rate(rate)))
            }
            (Metric::Gap, _) => {
                let gap = Duration::from_micros(summary.longest_without_success.us);
                plain(gap.as_secs_f64(), text::duration(gap))
            }
        }
    }
}

impl Phase {
    fn of(self, measurements: &Measurements) -> &Durations {
        match self {
            Self::Latency => &measurements.latency,
            Self::Service => &measurements.service,
            Self::Connect => &measurements.connect,
            Self::Tls => &measurements.tls,
            Self::FirstByte => &measurements.first_byte,
            Self::Late => &measurements.lateness,
        }
    }
}

impl Statistic {
    /// The value, and whether it rests on few samples.
    fn of(self, durations: &Durations) -> (Option<Duration>, bool) {
        match self {
            Self::Percentile(percent) => {
                let found = durations.percentile(percent);
                (
                    found.map(|percentile| percentile.value),
                    found.is_some_and(|percentile| percentile.is_coarse()),
                )
            }
            Self::Min => (durations.min(), false),
            Self::Mean => (durations.mean(), false),
            Self::Max => (durations.max(), false),
        }
    }
}

impl Comparison {
    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Above => value > bound,
            Self::AtLeast => value >= bound,
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
        }
    }
}

impl Bound {
    fn value(self) -> f64 {
        match self {
            Self::Time(duration) => duration.as_secs_f64(),
            Self::Share(value) | Self::Count(value) | Self::PerSecond(value) => value,
        }
    }
}

/// As it was written.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// As they were written.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written: Vec<&str> = self.0.iter().map(|one| one.written.as_str()).collect();
        f.write_str(&written.join(","))
    }
}

impl FromStr for Conditions {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let mut conditions = Vec::new();
        let mut offset = 0;
        for part in text.split(',') {
            conditions.push(condition(part, offset)?);
            offset += part.chars().count() + 1;
        }
        Ok(Self(conditions))
    }
}

/// One condition, which begins after `offset` characters of the text.
fn condition(part: &str, offset: usize) -> Result<Condition, ConditionError> {
    let fail = |at: usize, problem: String, instead: &str| ConditionError {
        offset: offset + part[..at].chars().count(),
        problem,
        instead: instead.to_owned(),
    };
    if part.trim().is_empty() {
        return Err(fail(0, "a condition is missing".into(), "write p99>50ms"));
    }
    let Some(sign) = part.find(['<', '>', '=']) else {
        return Err(fail(
            part.trim_end().len(),
            format!("{:?} compares nothing", part.trim()),
            "write <, <=, > or >= and a value after it, as in p99>50ms",
        ));
    };
    let (comparison, length) = match &part[sign..] {
        rest if rest.starts_with(">=") => (Comparison::AtLeast, 2),
        rest if rest.starts_with("<=") => (Comparison::AtMost, 2),
        rest if rest.starts_with('>') => (Comparison::Above, 1),
        rest if rest.starts_with('<') => (Comparison::Below, 1),
        _ => {
            let instead = "write <, <=, > or >=: a measured value is never exactly another";
            return Err(fail(sign, "= is no comparison here".into(), instead));
        }
    };
    let name = part[..sign].trim();
    let name_at = part.len() - part.trim_start().len();
    let metric = metric(name).map_err(|problem| fail(name_at, problem, METRICS))?;
    let value = &part[sign + length..];
    let value_at = sign + length + (value.len() - value.trim_start().len());
    let bound = metric
        .bound(value.trim())
        .map_err(|problem| fail(value_at, problem, metric.units()))?;
    Ok(Condition {
        written: part.trim().to_owned(),
        metric,
        comparison,
        bound,
    })
}

fn metric(name: &str) -> Result<Metric, String> {
    let unknown = || format!("there is no {name:?}");
    match name {
        "" => return Err("what to compare is missing".to_owned()),
        "errors" => return Ok(Metric::Errors),
        "unsent" => return Ok(Metric::Unsent),
        "rate" => return Ok(Metric::Rate),
        "gap" => return Ok(Metric::Gap),
        _ => {}
    }
    let phases = [
        ("latency.", Phase::Latency),
        ("service.", Phase::Service),
        ("connect.", Phase::Connect),
        ("tls.", Phase::Tls),
        ("first_byte.", Phase::FirstByte),
        ("late.", Phase::Late),
    ];
    let of_phase = phases
        .iter()
        .find_map(|(prefix, phase)| Some((*phase, name.strip_prefix(prefix)?)));
    let (phase, statistic) = of_phase.unwrap_or((Phase::Latency, name));
    let statistic = match statistic {
        "min" => Statistic::Min,
        "mean" => Statistic::Mean,
        "max" => Statistic::Max,
        _ => {
            let digits = statistic.strip_prefix('p').ok_or_else(unknown)?;
            let percent: f64 = digits.parse().map_err(|_| unknown())?;
            if !(percent > 0.0 && percent < 100.0) {
                return Err(format!("{name:?} is not between p0 and p100"));
            }
            Statistic::Percentile(percent)
        }
    };
    Ok(Metric::Time(phase, statistic))
}

impl Metric {
    fn units(self) -> &'static str {
        match self {
            Self::Time(..) | Self::Gap => "write a time such as 500us, 50ms, 1.5s or 1m",
            Self::Errors => "write a share such as 0.1%, or a number of requests such as 10",
            Self::Unsent => "write a number of requests such as 10",
            Self::Rate => "write successes per second such as 950/s",
        }
    }

    fn bound(self, value: &str) -> Result<Bound, String> {
        let unit_at = value
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(value.len());
        let (digits, unit) = (&value[..unit_at], value[unit_at..].trim());
        if value.is_empty() {
            return Err("the value is missing".to_owned());
        }
        let number: f64 = digits
            .parse()
            .map_err(|_| format!("{value:?} is not a number with a unit"))?;
        match (self, unit) {
            (Self::Time(..) | Self::Gap, "") => Err(format!("{value:?} has no unit")),
            (Self::Time(..) | Self::Gap, unit) => {
                let seconds = match unit {
                    "us" | "µs" => number * 1e-6,
                    "ms" => number * 1e-3,
                    "s" => number,
                    "m" | "min" => number * 60.0,
                    _ => return Err(format!("{unit:?} is not a unit of time")),
                };
                Duration::try_from_secs_f64(seconds)
                    .map(Bound::Time)
                    .map_err(|_| format!("{value:?} is too long"))
            }
            (Self::Errors, "%") if number <= 100.0 => Ok(Bound::Share(number / 100.0)),
            (Self::Errors, "%") => Err(format!("{value:?} is more than 100 %")),
            (Self::Errors | Self::Unsent, "") if number.fract() == 0.0 => Ok(Bound::Count(number)),
            (Self::Rate, "/s") => Ok(Bound::PerSecond(number)),
            (Self::Errors | Self::Unsent | Self::Rate, _) => {
                Err(format!("{value:?} has not the unit of this"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
