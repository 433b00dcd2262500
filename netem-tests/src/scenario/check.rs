//! From what is written to a [`Scenario`] in which every name means something. Pure. Each problem
//! carries the path of its field; `parse.rs` finds the line.

use std::collections::BTreeSet;

use weft_config::nearest::nearest;
use weft_config::table::check_label;

use super::assertion::{Assertion, Measure};
use super::event::timeline;
use super::network::topology;
use super::parties::{caller, services};
use super::raw::{RawLoad, RawScenario, RawSettings};
use super::{Caller, Load, Pace, Scenario, limits};
use crate::lab::TopologyError;
use crate::link::Impairment;

/// A rule that a scenario breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Path of the field, as `loads.requests.from`.
    pub(super) field: String,
    /// What is wrong and what to write.
    pub(super) message: String,
}

/// Collects problems, so that all are reported at once.
#[derive(Default)]
pub(super) struct Checker {
    pub(super) problems: Vec<Problem>,
}

/// What may be named.
pub(super) struct Names {
    pub(super) hosts: Vec<String>,
    pub(super) links: Vec<String>,
    pub(super) nats: Vec<String>,
    pub(super) processes: Vec<String>,
    /// Processes with a state directory of their own.
    pub(super) stateful: Vec<String>,
}

impl Checker {
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

    /// What the lab says of a name or of the whole topology.
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
pub(super) fn check(name: &str, raw: RawScenario) -> Result<Scenario, Vec<Problem>> {
    let mut checker = Checker::default();
    let hosts = raw.topology.hosts.clone();
    let topology = topology(&mut checker, raw.topology);
    let services = services(&mut checker, raw.services, &hosts);
    let callers: Vec<Caller> = raw
        .callers
        .into_iter()
        .map(|(name, raw)| caller(&mut checker, name, raw, &hosts, &services))
        .collect();
    let loads: Vec<Load> = raw
        .loads
        .into_iter()
        .filter_map(|(name, raw)| load(&mut checker, name, raw, &callers))
        .collect();
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
        services,
        callers,
        workers: raw.workers.unwrap_or(1),
        transport: raw.transport,
        resources: raw.resources,
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

/// Changes `impairment` by `raw`, which stands at `path`.
pub(super) fn settings(
    checker: &mut Checker,
    path: &str,
    raw: &RawSettings,
    impairment: &mut Impairment,
) {
    for (key, value) in raw {
        if let Err(error) = impairment.set(key, &value.0) {
            checker.problem(format!("{path}.{key}"), error.to_string());
        }
    }
}

fn load(checker: &mut Checker, name: String, raw: RawLoad, callers: &[Caller]) -> Option<Load> {
    let path = format!("loads.{name}");
    checker.label(&path, &name);
    let names: Vec<String> = callers.iter().map(|caller| caller.name.clone()).collect();
    if checker.known(format!("{path}.from"), "caller", &raw.from, &names) {
        let called = callers.iter().find(|caller| caller.name == raw.from);
        let called = called
            .map(|caller| caller.calls.as_slice())
            .unwrap_or_default();
        checker.known(
            format!("{path}.to"),
            &format!("service that {} calls", raw.from),
            &raw.to,
            called,
        );
    }
    let pace = match (raw.rate, raw.connections) {
        (Some(rate), None) if rate > 0.0 && rate <= limits::RATE_MAX => Pace::Open(rate),
        (None, Some(connections)) if (1..=limits::CONNECTIONS_MAX).contains(&connections) => {
            Pace::Closed(connections)
        }
        (Some(_), None) => {
            checker.problem(
                format!("{path}.rate"),
                format!(
                    "write requests per second, more than 0 and at most {}",
                    limits::RATE_MAX
                ),
            );
            return None;
        }
        (None, Some(_)) => {
            checker.problem(
                format!("{path}.connections"),
                format!("write 1 to {}", limits::CONNECTIONS_MAX),
            );
            return None;
        }
        (Some(_), Some(_)) | (None, None) => {
            checker.problem(
                path,
                "write either `rate: 200` (requests per second) or `connections: 4`",
            );
            return None;
        }
    };
    Some(Load {
        name,
        from: raw.from,
        to: raw.to,
        pace,
        path: raw.path.unwrap_or_else(|| "/".to_owned()),
        deadline: raw
            .deadline
            .map_or(limits::DEADLINE_DEFAULT, |deadline| deadline.0),
        flags: raw.flags,
    })
}

/// Sidecars, loads and the control plane share one space of names, so that a claim or an event needs
/// no prefix.
fn unique(checker: &mut Checker, scenario: &Scenario) {
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
    for (field, name) in endpoints.chain(callers).chain(loads) {
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

fn assertions(checker: &mut Checker, lines: &[String], scenario: &Scenario) -> Vec<Assertion> {
    let loads: Vec<String> = scenario
        .loads
        .iter()
        .map(|load| load.name.clone())
        .collect();
    let sidecars: Vec<String> = scenario.sidecars().map(str::to_owned).collect();
    let mut claims = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let path = format!("assert[{index}]");
        match Assertion::read(line) {
            Ok(claim) => {
                let (kind, known) = match claim.measure {
                    Measure::Load(_) => ("load", &loads),
                    Measure::Sidecar(_) => ("sidecar", &sidecars),
                };
                checker.known(path, kind, &claim.subject, known);
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
