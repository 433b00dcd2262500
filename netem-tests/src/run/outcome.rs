//! The results of a run: the data of every report, and what `-o json` prints. Pure.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::scenario::quantity::Dimension;

/// A run of one scenario, from first to last.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// Its purpose.
    pub description: String,
    /// Fixes the fate of packet n on each link and direction; not how processes are scheduled.
    pub seed: u64,
    /// Its state.
    pub state: State,
    /// Why weft is known to fail it, if so.
    pub expected_failure: Option<String>,
    /// The claims and their results.
    pub verdicts: Vec<Verdict>,
    /// The results of each load's client.
    pub loads: Vec<LoadReport>,
    /// The events, with their times.
    pub events: Vec<Done>,
    /// The counts of the links.
    pub links: Vec<LinkCounts>,
    /// Seconds that the loads were planned to run.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// Seconds from the start of the bring-up to the end.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
    /// The share of this machine's CPU time that was used while the loads ran.
    pub cpu_busy: f64,
    /// The share of it that programs outside of the lab used.
    pub cpu_others: f64,
    /// The share that the host of this virtual machine took.
    pub cpu_stolen: f64,
    /// How late the emulator delivered packets: 99th percentile, in seconds.
    #[serde(serialize_with = "seconds")]
    pub lateness_p99: Duration,
}

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
pub enum State {
    /// Every claim holds.
    Passed,
    /// A claim does not hold.
    Failed,
    /// The lab itself did not keep up, so that the run says nothing: why.
    Invalid(String),
    /// It could not be run: why.
    Broken(String),
}

/// A claim and its result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// As it stands in the scenario.
    pub claim: String,
    /// The result, with its unit; or why there is none.
    pub found: String,
    /// The number alone: seconds, bytes per second, a share from 0 to 1, or a count.
    pub value: Option<f64>,
    /// The dimension of the number.
    #[serde(skip)]
    pub dimension: Dimension,
    /// Whether the claim holds.
    pub holds: bool,
}

/// An event of the lab.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Done {
    /// Seconds after the loads began, as planned.
    #[serde(serialize_with = "seconds")]
    pub planned: Duration,
    /// Seconds after the loads began, in fact.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// In words.
    pub what: String,
}

/// The counts of a link for packets from one of its ends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkCounts {
    /// The link.
    pub link: String,
    /// The end from which the packets came.
    pub from: String,
    /// The counts.
    pub counters: crate::link::Counters,
}

/// The results of a load's client.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadReport {
    /// The load.
    pub load: String,
    /// Requests that were due.
    pub sent: u64,
    /// Without a good answer.
    pub failed: u64,
    /// Answers whose bytes differ from those expected.
    pub corrupt: u64,
    /// Failures by kind, most frequent first.
    pub errors: Vec<(String, u64)>,
    /// Latencies in seconds.
    pub latency: Latencies,
    /// Seconds of the longest time without a good answer.
    #[serde(serialize_with = "seconds")]
    pub longest_gap: Duration,
    /// Bytes of good answers per second.
    pub goodput: f64,
    /// Over time.
    pub series: Vec<Point>,
}

/// Percentiles, from when a request was due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latencies {
    /// Median.
    #[serde(serialize_with = "seconds")]
    pub p50: Duration,
    /// 90 % are faster.
    #[serde(serialize_with = "seconds")]
    pub p90: Duration,
    /// 99 % are faster.
    #[serde(serialize_with = "seconds")]
    pub p99: Duration,
    /// 99.9 % are faster.
    #[serde(serialize_with = "seconds")]
    pub p999: Duration,
    /// The slowest.
    #[serde(serialize_with = "seconds")]
    pub max: Duration,
}

/// A stretch of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// Its beginning, in seconds after the loads began.
    pub at: f64,
    /// Its length in seconds.
    pub lasts: f64,
    /// Good answers.
    pub good: u64,
    /// Failures.
    pub failed: u64,
    /// Median latency in seconds.
    pub p50: f64,
    /// 99th percentile in seconds.
    pub p99: f64,
    /// Bytes of answers.
    pub bytes: u64,
}

impl Outcome {
    /// A run that could not be carried out.
    pub fn broken(scenario: &crate::scenario::Scenario, why: String) -> Self {
        Self {
            scenario: scenario.name.clone(),
            description: scenario.description.clone(),
            seed: scenario.seed,
            state: State::Broken(why),
            expected_failure: scenario.expected_failure.clone(),
            verdicts: Vec::new(),
            loads: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            duration: scenario.duration,
            took: Duration::ZERO,
            cpu_busy: 0.0,
            cpu_others: 0.0,
            cpu_stolen: 0.0,
            lateness_p99: Duration::ZERO,
        }
    }

    /// Whether the run is as expected: it passed, or it failed as it is known to.
    pub fn is_as_expected(&self) -> bool {
        match &self.state {
            State::Passed => true,
            State::Failed => self.expected_failure.is_some(),
            State::Invalid(_) | State::Broken(_) => false,
        }
    }

    /// One word for tables.
    pub fn word(&self) -> &'static str {
        match (&self.state, &self.expected_failure) {
            (State::Passed, None) => "passed",
            (State::Passed, Some(_)) => "passed, though failing was expected",
            (State::Failed, None) => "FAILED",
            (State::Failed, Some(_)) => "failing, as is known",
            (State::Invalid(_), _) => "INVALID",
            (State::Broken(_), _) => "BROKEN",
        }
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
