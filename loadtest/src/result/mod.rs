//! The result of a run as a document: `-o json` prints it and `weft load diff` reads it. Pure.
//! `docs/load-json.md` describes every field; a test compares it with this file. `build.rs` makes it from
//! measurements; `report/` shows it to people.

mod build;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use build::Ended;

/// The name and version of the format. The number grows when a field changes its meaning or goes;
/// new fields may come without it.
pub const SCHEMA: &str = "weft.load/1";

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// [`SCHEMA`].
    pub schema: String,
    /// The plan.
    pub plan: PlanSummary,
    /// Where it ran.
    pub machine: Machine,
    /// The figures that people look at first.
    pub summary: Summary,
    /// From the intended start to the end.
    pub latency: Distribution,
    /// From the real start to the end.
    pub service: Distribution,
    /// Parts of a request.
    pub phases: Phases,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    /// The latency of failures that did not run out of time.
    pub failed: Distribution,
    /// The run step by step.
    pub timeline: Timeline,
    /// Whether the generator itself kept up.
    pub generator: Generator,
    /// The conditions of `--fail-if`, and their results.
    pub thresholds: Vec<ThresholdResult>,
}

/// The plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// `http1`, `http2`, `http3`, `grpc`, `tcp`, `udp`.
    pub protocol: String,
    /// Where the requests went, with weights.
    pub targets: Vec<Target>,
    /// The method, where the protocol has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Whether requests wait for answers.
    pub mode: Mode,
    /// `constant`, `poisson` or `replay`; absent in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<String>,
    /// The course of the rate; empty in a closed loop.
    pub stages: Vec<Stage>,
    /// How long requests were due, warm-up included, unless `requests` ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// After how many requests it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// How long requests did not count.
    pub warm_up_s: f64,
    /// Connections of a closed loop, or kept at most by an open one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Requests open at the same time at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u64>,
    /// How long a request may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<f64>,
    /// Whether connections serve more than one request.
    pub keep_alive: bool,
    /// Threads of the generator.
    pub threads: u64,
    /// The seed of all chance.
    pub seed: u64,
}

/// Whether a request waits for the answer to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Requests are due by the clock, as those of many users are.
    #[default]
    Open,
    /// Each connection sends its next request after the answer to the last.
    Closed,
}

/// One of the places that requests went to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its URL.
    pub url: String,
    /// Its share, relative to the others.
    pub weight: f64,
}

/// A span of the plan in which the rate is constant or changes evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Requests per second at its beginning.
    pub from: f64,
    /// Requests per second at its end.
    pub to: f64,
    /// How long it lasts.
    pub seconds: f64,
}

/// Where a run ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Version of weft.
    pub weft: String,
    /// Kernel and its release.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// Cores that the generator could use.
    pub cores: u64,
    /// Memory of the machine.
    pub memory_bytes: u64,
}

/// The figures that people look at first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// When the run began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// `completed` or `interrupted`.
    pub ended: Ended,
    /// Measured seconds: how long requests were due, without the warm-up.
    pub seconds: f64,
    /// Requests that were due.
    pub requests: u64,
    /// Those with a whole answer as expected.
    pub succeeded: u64,
    /// All others.
    pub failed: u64,
    /// `failed / requests`, from 0 to 1.
    pub error_share: f64,
    /// Due and never sent.
    pub unsent: u64,
    /// Sent late because `max_in_flight` were open.
    pub held_back: u64,
    /// Requests of the warm-up.
    pub warm_up_requests: u64,
    /// Requests due per second.
    pub due_per_second: f64,
    /// Successes per second of the measured time.
    pub succeeded_per_second: f64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Share of the requests on a connection that had served before, from 0 to 1.
    pub reused_share: f64,
    /// New TLS or QUIC handshakes. Older results do not have the field.
    #[serde(default)]
    pub handshakes: u64,
    /// Those that resumed a session; absent over QUIC, whose library does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshakes_resumed: Option<u64>,
    /// How often requests were sent again, because the server had not processed them. Older results do not
    /// have the field.
    #[serde(default)]
    pub resent: u64,
    /// The longest time without a success while requests were due.
    pub longest_without_success: Gap,
    /// The step of the time line with the largest share of failures; without failures, that with the
    /// highest p99.
    pub worst_step: Option<WorstStep>,
}

/// A time without successes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// How long.
    pub us: u64,
    /// Where it began in the measured time.
    pub from_s: f64,
}

/// A bad moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorstStep {
    /// Where it begins in the measured time.
    pub from_s: f64,
    /// The length of the step.
    pub seconds: f64,
    /// Requests that ended in it.
    pub ended: u64,
    /// Failures among the ended requests.
    pub failed: u64,
    /// 99th percentile of the latency of what ended in it.
    pub p99_us: Option<u64>,
}

/// A distribution of durations. Every value is absent when there is no sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Samples.
    pub samples: u64,
    /// Samples above the range of an hour, which count as an hour.
    pub above_range: u64,
    /// The shortest.
    pub min_us: Option<u64>,
    /// The mean.
    pub mean_us: Option<u64>,
    /// The standard deviation.
    pub stdev_us: Option<u64>,
    /// The longest.
    pub max_us: Option<u64>,
    /// Percentiles.
    pub percentiles: Percentiles,
    /// All of it: HDR V2, deflate, base64.
    pub histogram: String,
}

/// The percentiles that every distribution has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: Option<Percentile>,
    /// Three quarters.
    pub p75: Option<Percentile>,
    /// Nine of ten.
    pub p90: Option<Percentile>,
    /// 19 of 20.
    pub p95: Option<Percentile>,
    /// 99 of 100.
    pub p99: Option<Percentile>,
    /// 999 of 1000.
    pub p99_9: Option<Percentile>,
    /// 9999 of 10 000.
    pub p99_99: Option<Percentile>,
}

impl Percentiles {
    /// All of them with their per cent, ascending.
    pub fn list(&self) -> [(f64, Option<Percentile>); 7] {
        [
            (50.0, self.p50),
            (75.0, self.p75),
            (90.0, self.p90),
            (95.0, self.p95),
            (99.0, self.p99),
            (99.9, self.p99_9),
            (99.99, self.p99_99),
        ]
    }
}

/// One percentile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// Its value.
    pub us: u64,
    /// The number of samples above this value.
    pub beyond: u64,
    /// Fewer than ten samples are beyond it: another run may give quite another value.
    pub coarse: bool,
}

/// Parts of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// New TCP connections.
    pub connect: Distribution,
    /// New TLS or QUIC handshakes.
    pub tls: Distribution,
    /// From being able to send to the first byte of the answer.
    pub first_byte: Distribution,
}

/// The run step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// How long a step is.
    pub step_s: f64,
    /// The steps, from the end of the warm-up.
    pub steps: Vec<Step>,
}

/// One step. What was due in it, and what ended in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Where it begins in the measured time.
    pub from_s: f64,
    /// Requests due.
    pub due: u64,
    /// Requests that ended well.
    pub succeeded: u64,
    /// Requests that ended badly.
    pub failed: u64,
    /// Bytes received by what ended.
    pub bytes_in: u64,
    /// Bytes sent by what ended.
    pub bytes_out: u64,
    /// Mean latency of what ended.
    pub mean_us: Option<u64>,
    /// Median latency, to 1 %.
    pub p50_us: Option<u64>,
    /// 99th percentile, to 1 %.
    pub p99_us: Option<u64>,
    /// Longest latency.
    pub max_us: Option<u64>,
}

/// Whether the generator itself kept up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Whether the figures can be trusted.
    pub valid: bool,
    /// Why not; empty if valid.
    pub reasons: Vec<String>,
    /// How late it started requests, by its own fault. Without samples in a closed loop.
    pub lateness: Distribution,
}

/// One condition of `--fail-if`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdResult {
    /// As it was written.
    pub condition: String,
    /// What was measured, as text with its unit; absent if there was nothing to measure.
    pub measured: Option<String>,
    /// Whether the run failed by it.
    pub failed: bool,
    /// Whether it rests on a percentile with fewer than ten samples beyond it.
    pub coarse: bool,
}

/// Why a file is not a result.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not JSON of this shape.
    #[error("not a result of `weft load -o json`: {0}")]
    Shape(#[from] serde_json::Error),
    /// Of another version.
    #[error("its schema is {found:?}, and this weft reads {SCHEMA:?}")]
    Schema {
        /// The version in the file.
        found: String,
    },
}

impl RunResult {
    /// Reads what `-o json` printed.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        // The version comes first: another one may lack fields that this one needs.
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        let head: Head = serde_json::from_str(text)?;
        if head.schema != SCHEMA {
            return Err(ParseError::Schema { found: head.schema });
        }
        Ok(serde_json::from_str(text)?)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
