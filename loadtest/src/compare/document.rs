//! A comparison as a document: what `-o json` prints. Pure. `docs/compare-json.md` describes every field, and
//! a test holds the two together.

use serde::Serialize;

use super::observe::{Observation, compare_with_direct};
use super::summary::{Row, rows};
use crate::result::Machine;

/// The name and version of the format. The number grows when a field changes its meaning or goes; new fields
/// may come without it.
pub const SCHEMA: &str = "weft.compare/1";

/// A whole comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The conditions under which it was made.
    #[serde(flatten)]
    pub facts: Facts,
    /// The results of all rounds together.
    pub rows: Vec<Row>,
    /// Everything that was measured.
    pub observations: Vec<Observation>,
}

/// The conditions of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The command line.
    pub command: String,
    /// When it began.
    pub started_unix_ms: u64,
    /// The network between the two sides.
    pub wire: String,
    /// Where it ran.
    pub machine: Machine,
    /// How it was measured.
    pub conditions: Conditions,
    /// The variants, in the order of the table.
    pub variants: Vec<Variant>,
    /// Of one minute, at the beginning and at the end.
    pub load_average: [f64; 2],
    /// Whether weft was built without optimisation; its figures then mean nothing.
    pub debug_build: bool,
}

/// How it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// Rounds.
    pub rounds: u32,
    /// How long each load counts.
    pub duration_s: f64,
    /// The length of the warm-up.
    pub warm_up_s: f64,
    /// Connections of the closed loops.
    pub connections: usize,
    /// Requests per second of the open loops.
    pub rates: Vec<u32>,
    /// Bytes of a bulk transfer.
    pub bulk_bytes: usize,
    /// Connections that are held idle.
    pub idle_connections: usize,
    /// Bytes of the small body.
    pub body_bytes: usize,
    /// Threads of each proxy.
    pub workers: usize,
    /// Threads of the generator.
    pub generator_threads: usize,
    /// Of the link between the two sides; absent on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// One variant.
#[derive(Clone, Debug, Serialize)]
pub struct Variant {
    /// Its name in the table.
    pub name: String,
    /// Its name, with its version.
    pub version: String,
    /// The plug-in that started it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Comparison {
    /// Computes the results of all rounds together.
    pub fn new(facts: Facts, mut observations: Vec<Observation>) -> Self {
        compare_with_direct(&mut observations);
        Self {
            schema: SCHEMA,
            rows: rows(&observations),
            facts,
            observations,
        }
    }

    /// Why the comparison is invalid, if all requests of one of its runs failed.
    pub fn all_failed(&self) -> Option<String> {
        let mut all = self.observations.iter();
        let one = all.find(|one| one.requests > 0 && one.failed == one.requests)?;
        let kind = one.failure.as_deref().unwrap_or("unknown");
        Some(format!(
            "{} of {}: none of {} requests succeeded; most often: {kind}",
            one.measurement, one.variant, one.requests
        ))
    }

    /// Facts that a reader must know before any figure, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.facts.debug_build {
            warnings.push(
                "weft was built without optimisation: build it with --release before you believe a figure"
                    .to_owned(),
            );
        }
        for one in &self.observations {
            if one.failed == 0 {
                continue;
            }
            let kind = one.failure.as_deref().unwrap_or("unknown");
            warnings.push(format!(
                "{}, {}, round {}: {} of {} requests failed ({kind})",
                one.measurement,
                one.variant,
                one.round + 1,
                one.failed,
                one.requests
            ));
        }
        let late = self.observations.iter().filter(|one| one.generator_late);
        let late = late.count();
        if late > 0 {
            warnings.push(format!(
                "the generator was late in {late} runs at a fixed rate: their latencies are partly its own"
            ));
        }
        if self.observations.iter().any(|one| !one.coarse.is_empty()) {
            warnings.push(
                "some percentiles have fewer than ten requests beyond them: a longer --duration says more"
                    .to_owned(),
            );
        }
        let stolen = self.observations.iter().map(|one| one.stolen);
        let stolen = stolen.fold(0.0, f64::max);
        if stolen > crate::limits::COMPARE_STOLEN_MAX {
            warnings.push(format!(
                "up to {} of the machine's time was taken by its host",
                crate::text::percent(stolen)
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::compare::observe::Figure;
    use crate::compare::testing::{comparison, facts, observation};
    use crate::compare::{Measurement, Path};

    /// Names of all fields, as `rows[].noise`. Names of variants and figures are `*`.
    fn fields(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                let free = ["values", "weft_over", "figures"];
                let is_free = free.iter().any(|name| path.ends_with(name));
                for (name, value) in map {
                    let name = if is_free { "*" } else { name };
                    let dot = if path.is_empty() { "" } else { "." };
                    fields(value, &format!("{path}{dot}{name}"), into);
                }
            }
            Value::Array(list) if list.iter().any(Value::is_object) => {
                list.iter()
                    .for_each(|one| fields(one, &format!("{path}[]"), into));
            }
            Value::Array(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_) => {
                into.insert(path.to_owned());
            }
        }
    }

    #[test]
    fn the_page_describes_every_field_and_every_figure() {
        let page = include_str!("../../../docs/compare-json.md");
        let mut all = comparison();
        all.facts.variants[2].command = Some("x".to_owned());
        all.observations[0].failure = Some("reset".to_owned());
        all.observations[0].coarse = vec![Figure::P99];
        let document = serde_json::to_value(&all).unwrap();
        let mut found = BTreeSet::new();
        fields(&document, "", &mut found);
        let missing: Vec<&String> = found
            .iter()
            .filter(|field| !page.contains(&format!("`{field}`")))
            .collect();
        assert!(missing.is_empty(), "{missing:#?}");
        for measurement in Measurement::list(&super::super::Group::ALL, &[1]) {
            for figure in measurement.figures() {
                let name = format!("`{}`", figure.token());
                assert!(page.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn a_reader_is_warned_of_what_spoils_figures() {
        assert_eq!(comparison().warnings(), Vec::<String>::new());
        let rate = Measurement::Rate(Path::Http, 1000);
        let mut bad = observation(1, "weft", rate, &[(Figure::P50, 1.0)]);
        bad.failed = 7;
        bad.failure = Some("status_503".to_owned());
        bad.generator_late = true;
        bad.coarse = vec![Figure::P50];
        bad.stolen = 0.25;
        let facts = Facts {
            debug_build: true,
            ..facts()
        };
        let warnings = Comparison::new(facts, vec![bad]).warnings();
        assert_eq!(warnings.len(), 5, "{warnings:#?}");
        assert!(warnings[1].contains("7 of 1000 requests failed (status_503)"));
        assert!(warnings[1].contains("rate.1000.http, weft, round 2"));
    }

    #[test]
    fn a_run_without_any_success_makes_the_comparison_fail() {
        let mut all = comparison();
        all.observations[3].failed = 999;
        assert_eq!(all.all_failed(), None);
        all.observations[3].failed = 1000;
        let line = all.all_failed().unwrap();
        assert!(line.contains("http of <twice>: none of 1000"), "{line}");
    }
}
