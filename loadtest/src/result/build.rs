//! Turns measurements into the result: sums, shares, percentiles, and whether the generator can be trusted.
//! Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Distribution, Gap, Generator, Machine, Mode, Percentile, Percentiles, Phases, PlanSummary,
    RunResult, SCHEMA, Step, Summary, Timeline, WorstStep,
};
use crate::histogram::Durations;
use crate::limits;
use crate::measurements::Measurements;
use crate::plan::target::Protocol;
use crate::timeline;

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// As planned.
    Completed,
    /// By Ctrl-C or SIGTERM.
    Interrupted,
}

impl RunResult {
    /// The result of a run. `measured` is how long requests were due after the warm-up, or would have
    /// been without an interruption until then.
    pub fn new(
        measurements: &Measurements,
        measured: Duration,
        ended: Ended,
        started_unix_ms: u64,
        plan: PlanSummary,
        machine: Machine,
    ) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            summary: summary(measurements, measured, ended, started_unix_ms, &plan),
            latency: Distribution::of(&measurements.latency),
            service: Distribution::of(&measurements.service),
            phases: Phases {
                connect: Distribution::of(&measurements.connect),
                tls: Distribution::of(&measurements.tls),
                first_byte: Distribution::of(&measurements.first_byte),
            },
            errors: measurements
                .errors
                .iter()
                .map(|(kind, count)| (kind.token(), *count))
                .collect(),
            failed: Distribution::of(&measurements.failed),
            timeline: Timeline::of(&measurements.timeline),
            generator: judge_generator(measurements, plan.mode == Mode::Closed),
            thresholds: Vec::new(),
            plan,
            machine,
        }
    }
}

impl Distribution {
    /// A document of these durations.
    pub fn of(durations: &Durations) -> Self {
        let percentile = |percent| {
            let found = durations.percentile(percent)?;
            Some(Percentile {
                us: micros(found.value),
                beyond: found.beyond,
                coarse: found.is_coarse(),
            })
        };
        Self {
            samples: durations.len(),
            above_range: durations.above_range(),
            min_us: durations.min().map(micros),
            mean_us: durations.mean().map(micros),
            stdev_us: durations.deviation().map(micros),
            max_us: durations.max().map(micros),
            percentiles: Percentiles {
                p50: percentile(50.0),
                p75: percentile(75.0),
                p90: percentile(90.0),
                p95: percentile(95.0),
                p99: percentile(99.0),
                p99_9: percentile(99.9),
                p99_99: percentile(99.99),
            },
            histogram: durations.encode(),
        }
    }
}

impl Timeline {
    fn of(timeline: &timeline::Timeline) -> Self {
        let step_s = timeline.step().as_secs_f64();
        let steps = timeline.steps().iter().enumerate();
        let steps = steps.map(|(index, step)| Step {
            from_s: step_s * index as f64,
            due: step.due,
            succeeded: step.succeeded,
            failed: step.failed,
            bytes_in: step.bytes_in,
            bytes_out: step.bytes_out,
            mean_us: step.mean().map(micros),
            p50_us: step.percentile(50.0).map(micros),
            p99_us: step.percentile(99.0).map(micros),
            max_us: (step.latencies() > 0).then(|| micros(step.latency_max)),
        });
        Self {
            step_s,
            steps: steps.collect(),
        }
    }
}

fn summary(
    measurements: &Measurements,
    measured: Duration,
    ended: Ended,
    started_unix_ms: u64,
    plan: &PlanSummary,
) -> Summary {
    let counts = &measurements.counts;
    let seconds = measured.as_secs_f64();
    let (gap, gap_from) = measurements.longest_without_success();
    Summary {
        started_unix_ms,
        ended,
        seconds,
        requests: counts.requests(),
        succeeded: counts.succeeded,
        failed: counts.failed,
        error_share: share(counts.failed, counts.requests()),
        unsent: counts.unsent,
        held_back: counts.held_back,
        warm_up_requests: counts.warm_up,
        due_per_second: per_second(counts.requests(), seconds),
        succeeded_per_second: succeeded_per_second(measurements, measured),
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        reused_share: share(counts.reused, counts.requests() - counts.unsent),
        handshakes: counts.handshakes,
        handshakes_resumed: (plan.protocol != Protocol::Http3.token()).then_some(counts.resumed),
        resent: counts.resent,
        longest_without_success: Gap {
            us: micros(gap),
            from_s: gap_from.as_secs_f64(),
        },
        worst_step: worst_step(&measurements.timeline, measured),
    }
}

/// Successes within the measured time, divided by that time. Only whole steps count: a late answer after the
/// last request was due belongs neither to the number nor to the time.
fn succeeded_per_second(measurements: &Measurements, measured: Duration) -> f64 {
    let timeline = &measurements.timeline;
    let whole = whole_steps(timeline, measured);
    if whole == 0 {
        let seconds = measured.max(measurements.counts.last_end).as_secs_f64();
        return per_second(measurements.counts.succeeded, seconds);
    }
    let steps = timeline.steps().iter().take(whole);
    let succeeded = steps.map(|step| step.succeeded).sum();
    per_second(succeeded, timeline.step().as_secs_f64() * whole as f64)
}

/// How many steps lie wholly within the measured time.
fn whole_steps(timeline: &timeline::Timeline, measured: Duration) -> usize {
    let whole = measured.as_nanos() / timeline.step().as_nanos();
    usize::try_from(whole).unwrap_or(usize::MAX)
}

fn worst_step(timeline: &timeline::Timeline, measured: Duration) -> Option<WorstStep> {
    let step_s = timeline.step().as_secs_f64();
    // The rest after the last whole step would judge a handful of requests.
    let whole = whole_steps(timeline, measured).max(1);
    let steps = timeline.steps().iter().enumerate().take(whole);
    let ended = steps.filter(|(_, step)| step.ended() > 0);
    let badness = |step: &timeline::Step| {
        let p99 = step.percentile(99.0).unwrap_or_default();
        (share(step.failed, step.ended()), p99.as_secs_f64())
    };
    let (index, step) = ended.max_by(|(_, one), (_, other)| {
        let (one, other) = (badness(one), badness(other));
        one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1))
    })?;
    Some(WorstStep {
        from_s: step_s * index as f64,
        seconds: step_s,
        ended: step.ended(),
        failed: step.failed,
        p99_us: step.percentile(99.0).map(micros),
    })
}

/// Latency is measured from the intended start, so it includes the generator's lateness. That is harmless
/// while the lateness is small, in itself or beside the latency; otherwise the run measured the generator.
fn judge_generator(measurements: &Measurements, closed: bool) -> Generator {
    let mut reasons = Vec::new();
    let late = measurements.lateness.percentile(99.0);
    let latency = measurements.latency.percentile(99.0);
    if let (false, Some(late)) = (closed, late) {
        let latency = latency.map_or(Duration::ZERO, |percentile| percentile.value);
        let tolerated = latency
            .mul_f64(limits::LATENESS_SHARE_MAX)
            .max(limits::LATENESS_P99_MAX);
        if late.value > tolerated {
            reasons.push(format!(
                "it started 1 % of the requests {} late or later, and {} is tolerated at this latency",
                crate::text::duration(late.value),
                crate::text::duration(tolerated),
            ));
        }
    }
    if measurements.counts.requests() == 0 {
        reasons.push("no request was due in the measured time".to_owned());
    }
    Generator {
        valid: reasons.is_empty(),
        reasons,
        lateness: if closed {
            Distribution::of(&Durations::new())
        } else {
            Distribution::of(&measurements.lateness)
        },
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 {
        return 0.0;
    }
    count as f64 / seconds
}

fn micros(duration: Duration) -> u64 {
    u64::try_from((duration.as_nanos() + 500) / 1000).unwrap_or(u64::MAX)
}
