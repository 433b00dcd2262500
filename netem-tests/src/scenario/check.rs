//! Turns the written form into a [`Scenario`] in which every name is defined. Pure. Each problem carries the
//! path of its field; `parse.rs` finds the line.

use std::collections::BTreeSet;

use weft_config::nearest::nearest;
use weft_config::table::check_label;

use super::assertion::{Assertion, Bound, Measure, SidecarMeasure};
use super::event::timeline;
use super::loads::load;
use super::network::topology;
use super::pairs::pairs;
use super::parties::{caller, services};
use super::raw::{RawScenario, RawSettings};
use super::traces::{ReadFile, Traces};
use super::{Caller, Load, Scenario, limits};
use crate::lab::TopologyError;
use crate::link::Impairment;

/// A rule that a scenario breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Path of the field, as `loads.requests.from`.
    pub(super) field: String,
    /// The fault, and what to write.
    pub(super) message: String,
}

/// Collects problems, so that all are reported at once.
pub(super) struct Checker<'f> {
    pub(super) problems: Vec<Problem>,
    traces: Traces<'f>,
}

/// The names that may be used.
pub(super) struct Names {
    pub(super) hosts: Vec<String>,
    pub(super) links: Vec<String>,
    pub(super) nats: Vec<String>,
    pub(super) processes: Vec<String>,
    /// Processes with a state directory of their own.
    pub(super) stateful: Vec<String>,
}

impl<'f> Checker<'f> {
    pub(super) fn new(files: ReadFile<'f>) -> Self {
        Self {
            problems: Vec::new(),
            traces: Traces::new(files),
        }
    }

    pub(super) fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem {
            field: field.into(),
            message: message.into(),
        });
    }

    /// Whether `name` is one of `known`; a problem if not.
    pub(super) fn known(
        &mut self,
        field: impl Into<String>,
        kind: &str,
        name: &str,
        known: &[String],
    ) -> bool {
        if known.iter().any(|one| one == name) {
            return true;
        }
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = match nearest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "there is none".to_owned(),
            None => format!("write one of {}", known.join(", ")),
        };
        self.problem(field, format!("no {kind} `{name}`: {hint}"));
        false
    }

    /// A fault that the lab reports for a name or for the whole topology.
    pub(super) fn name<T>(
        &mut self,
        field: impl Into<String>,
        result: Result<T, TopologyError>,
    ) -> Option<T> {
        result
            .map_err(|error| self.problem(field, error.to_string()))
            .ok()
    }

    /// A name that may be part of host names and paths.
    pub(super) fn label(&mut self, field: impl Into<String>, name: &str) {
        if let Err(error) = check_label(name) {
            self.problem(field, format!("`{name}` is no name: {error}"));
        }
    }
}

/// Checks the whole.
///
/// # Errors
/// All problems, in no order.
pub(super) fn check(
    name: &str,
    raw: RawScenario,
    files: ReadFile<'_>,
) -> Result<Scenario, Vec<Problem>> {
    let mut checker = Checker::new(files);
    let hosts = raw.topology.hosts.clone();
    let topology = topology(&mut checker, raw.topology);
    let services = services(&mut checker, raw.services, &hosts);
    let callers: Vec<Caller> = raw
        .callers
        .into_iter()
        .map(|(name, raw)| caller(&mut checker, name, raw, &hosts, &services))
        .collect();
    let raw_duration = raw.duration.0;
    let loads: Vec<Load> = raw
        .loads
        .into_iter()
        .filter_map(|(name, raw)| load(&mut checker, name, raw, &callers, raw_duration))
        .collect();
    let pairs = pairs(&mut checker, raw.pairs, &loads, &callers, &services);
    checker.known("control", "host", &raw.control, &hosts);
    if raw.duration.0.is_zero() || raw.duration.0 > limits::SCENARIO_DURATION_MAX {
        checker.problem(
            "duration",
            format!(
                "write a duration of at most {}s",
                limits::SCENARIO_DURATION_MAX.as_secs()
            ),
        );
    }
    if raw.description.trim().is_empty() {
        checker.problem("description", "say in a sentence what the scenario shows");
    }
    if let Err(error) = raw.transport.clone().validate() {
        checker.problem(format!("transport.{}", error.field), error.to_string());
    }
    if let Some(name) = &raw.tcp_congestion
        && !name.bytes().all(|b| b.is_ascii_lowercase())
    {
        checker.problem("tcp_congestion", "write a name, as cubic, reno or bbr");
    }
    let Some(topology) = topology else {
        return Err(checker.problems);
    };
    let mut scenario = Scenario {
        name: name.to_owned(),
        description: raw
            .description
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        expected_failure: raw.expect.map(|expect| expect.failing.trim().to_owned()),
        seed: raw.seed.unwrap_or(1),
        duration: raw.duration.0,
        topology,
        control: raw.control,
        tcp_congestion: raw.tcp_congestion,
        services,
        callers,
        workers: raw.workers.unwrap_or(1),
        transport: raw.transport,
        resources: raw.resources,
        pairs,
        loads,
        timeline: Vec::new(),
        assertions: Vec::new(),
    };
    unique(&mut checker, &scenario);
    let names = names(&scenario, hosts);
    scenario.timeline = timeline(&mut checker, raw.timeline, &names, &scenario.topology);
    scenario.assertions = assertions(&mut checker, &raw.assert, &scenario);
    if checker.problems.is_empty() {
        Ok(scenario)
    } else {
        Err(checker.problems)
    }
}

/// Changes `impairment` by `raw`, which is at `path`.
pub(super) fn settings(
    checker: &mut Checker<'_>,
    path: &str,
    raw: &RawSettings,
    impairment: &mut Impairment,
) {
    for (key, value) in raw {
        let done = match Impairment::file(key, &value.0) {
            Some(name) => {
                let rate = checker.traces.get(name);
                rate.map(|rate| impairment.rate = Some(rate))
            }
            None => impairment
                .set(key, &value.0)
                .map_err(|error| error.to_string()),
        };
        if let Err(message) = done {
            checker.problem(format!("{path}.{key}"), message);
        }
    }
}

/// Sidecars, loads and the control plane share one space of names, so that a claim or an event needs no
/// prefix.
fn unique(checker: &mut Checker<'_>, scenario: &Scenario) {
    let mut taken = BTreeSet::from(["ca", "config"]);
    let endpoints = scenario
        .services
        .iter()
        .flat_map(|service| &service.endpoints);
    let endpoints = endpoints.map(|endpoint| ("services", endpoint.name.as_str()));
    let callers = scenario
        .callers
        .iter()
        .map(|caller| ("callers", caller.name.as_str()));
    let loads = scenario
        .loads
        .iter()
        .map(|load| ("loads", load.name.as_str()));
    let pairs = scenario
        .pairs
        .iter()
        .map(|pair| ("pairs", pair.name.as_str()));
    for (field, name) in endpoints.chain(callers).chain(loads).chain(pairs) {
        if !taken.insert(name) {
            checker.problem(
                format!("{field}.{name}"),
                format!("`{name}` names something else already"),
            );
        }
    }
}

fn names(scenario: &Scenario, hosts: Vec<String>) -> Names {
    let links = scenario.topology.links().iter();
    let processes: Vec<String> = scenario.processes().into_keys().collect();
    Names {
        hosts,
        links: links.clone().map(|link| link.name.to_string()).collect(),
        nats: links
            .filter(|link| link.nat.is_some())
            .map(|link| link.name.to_string())
            .collect(),
        stateful: processes
            .iter()
            .filter(|name| !name.ends_with(".app"))
            .cloned()
            .collect(),
        processes,
    }
}

fn assertions(checker: &mut Checker<'_>, lines: &[String], scenario: &Scenario) -> Vec<Assertion> {
    let loads: Vec<String> = scenario
        .loads
        .iter()
        .map(|load| load.name.clone())
        .collect();
    let sidecars: Vec<String> = scenario.sidecars().map(str::to_owned).collect();
    let control = ["ca", "config"].map(str::to_owned);
    let with_metrics = [sidecars.as_slice(), &control].concat();
    let mut claims = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let path = format!("assert[{index}]");
        match Assertion::read(line) {
            Ok(claim) => {
                let (kind, known) = match &claim.measure {
                    Measure::Load(_) => ("load", &loads),
                    Measure::Sidecar(SidecarMeasure::Metric { .. }) => {
                        ("process with metrics", &with_metrics)
                    }
                    Measure::Sidecar(
                        SidecarMeasure::Reconnects
                        | SidecarMeasure::Migrations
                        | SidecarMeasure::Retries,
                    ) => ("sidecar", &sidecars),
                };
                checker.known(&path, kind, &claim.subject, known);
                if let Bound::OfLoad { load, .. } = &claim.bound {
                    checker.known(path, "load", load, &loads);
                }
                claims.push(claim);
            }
            Err(message) => checker.problem(path, message),
        }
    }
    if claims.is_empty() && lines.is_empty() {
        checker.problem("assert", "say what must hold, as `- requests failed == 0`");
    }
    claims
}
