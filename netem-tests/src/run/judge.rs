//! Claims against findings. Pure.

use std::collections::BTreeMap;

use super::metrics::Exposition;
use super::outcome::{LoadReport, State, Verdict};
use crate::scenario::Assertion;
use crate::scenario::assertion::{Bound, LoadMeasure, Measure, SidecarMeasure};
use crate::scenario::quantity::Quantity;

/// The counts of a process of the mesh during the loads, for each time that it ran, from the first scrape to
/// the last.
#[derive(Clone, Debug, Default)]
pub(super) struct Lives(pub(super) Vec<Life>);

/// A process from its start, or that of the loads, to its end, or theirs.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) first: Exposition,
    pub(super) last: Option<Exposition>,
}

/// Reasons to doubt a run, besides claims that do not hold.
#[derive(Debug, Default)]
pub(super) struct Doubts<'s> {
    /// The lab did not work as intended.
    pub(super) lab: Option<String>,
    /// Loads whose generators were late, and how much. The latencies that they report are too long.
    pub(super) late: BTreeMap<&'s str, String>,
    /// The CPU was needed elsewhere.
    pub(super) starved: Option<String>,
}

impl Doubts<'_> {
    /// The state of a run. A late generator and a busy machine make results worse, never better: a claim that
    /// holds nonetheless counts as held, unless its bound comes from a load whose generator was late.
    pub(super) fn state(self, claims: &[Assertion], verdicts: &[Verdict]) -> State {
        if let Some(why) = self.lab {
            return State::Invalid(why);
        }
        let late = |(load, why): (&&str, &String)| format!("{load}: {why}");
        let compared = claims.iter().find_map(|claim| match &claim.bound {
            Bound::OfLoad { load, .. } => self.late.get_key_value(load.as_str()),
            Bound::Number(_) => None,
        });
        if let Some(found) = compared {
            return State::Invalid(late(found));
        }
        if verdicts.iter().all(|verdict| verdict.holds) {
            return State::Passed;
        }
        match self.late.iter().next().map(late).or(self.starved) {
            Some(why) => State::Invalid(why),
            None => State::Failed,
        }
    }
}

/// The verdicts, in the order of the claims.
pub(super) fn judge(
    claims: &[Assertion],
    loads: &[LoadReport],
    counts: &BTreeMap<String, Lives>,
) -> Vec<Verdict> {
    let verdict = |claim: &Assertion| {
        let found = match &claim.measure {
            Measure::Load(measure) => loads
                .iter()
                .find(|load| load.load == claim.subject)
                .map(|load| seen(load, *measure))
                .ok_or_else(|| "the load reported nothing".to_owned()),
            Measure::Sidecar(measure) => counts
                .get(&claim.subject)
                .ok_or_else(|| "it was not asked".to_owned())
                .and_then(|lives| counted(lives, measure)),
        };
        let (found, value, holds) = match (found, bound(&claim.bound, loads)) {
            (Ok(found), Ok(bound)) => {
                let holds = claim.holds(found.value, bound.value);
                let text = match &claim.bound {
                    Bound::Number(_) => found.to_string(),
                    Bound::OfLoad { .. } => format!("{found} against {bound}"),
                };
                (text, Some(found.value), holds)
            }
            (Err(why), _) | (_, Err(why)) => (why, None, false),
        };
        Verdict {
            claim: claim.line.clone(),
            holds,
            found,
            value,
            dimension: claim.measure.dimension(),
        }
    };
    claims.iter().map(verdict).collect()
}

/// The bound of a claim in this run.
fn bound(bound: &Bound, loads: &[LoadReport]) -> Result<Quantity, String> {
    match bound {
        Bound::Number(quantity) => Ok(*quantity),
        Bound::OfLoad {
            share,
            load: name,
            measure,
        } => {
            let load = loads.iter().find(|load| load.load == *name);
            let load = load.ok_or_else(|| format!("{name} reported nothing"))?;
            let mut quantity = seen(load, *measure);
            quantity.value *= share;
            Ok(quantity)
        }
    }
}

fn seen(load: &LoadReport, measure: LoadMeasure) -> Quantity {
    let count = |count: u64| Quantity::count(count as f64);
    match measure {
        LoadMeasure::Sent => count(load.sent),
        LoadMeasure::Failed => count(load.failed),
        // Nothing sent is no success.
        LoadMeasure::Success => {
            Quantity::share(load.sent.saturating_sub(load.failed) as f64 / load.sent.max(1) as f64)
        }
        LoadMeasure::Corrupt => count(load.corrupt),
        LoadMeasure::P50 => Quantity::time(load.latency.p50),
        LoadMeasure::P90 => Quantity::time(load.latency.p90),
        LoadMeasure::P99 => Quantity::time(load.latency.p99),
        LoadMeasure::P999 => Quantity::time(load.latency.p999),
        LoadMeasure::Max => Quantity::time(load.latency.max),
        LoadMeasure::LongestGap => Quantity::time(load.longest_gap),
        LoadMeasure::Goodput => Quantity::rate(load.goodput),
    }
}

fn counted(lives: &Lives, measure: &SidecarMeasure) -> Result<Quantity, String> {
    let label = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let (name, labels) = match measure {
        SidecarMeasure::Reconnects => ("weft_quic_handshakes_total", label("result", "ok")),
        SidecarMeasure::Migrations => ("weft_quic_migrations_total", Vec::new()),
        SidecarMeasure::Retries => ("weft_retries_total", Vec::new()),
        SidecarMeasure::Metric { name, labels } => (name.as_str(), labels.clone()),
    };
    let mut grown = 0.0;
    for Life { first, last } in &lives.0 {
        let last = last
            .as_ref()
            .ok_or_else(|| "its metrics could not be read".to_owned())?;
        grown += last.sum(name, &labels) - first.sum(name, &labels);
    }
    Ok(Quantity::count(grown))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::outcome::Latencies;
    use super::*;

    fn verdict(line: &str, load: LoadReport, lives: Vec<Life>) -> Verdict {
        let claim = Assertion::read(line).unwrap();
        let sidecars = BTreeMap::from([("orders".to_owned(), Lives(lives))]);
        judge(&[claim], &[load], &sidecars).remove(0)
    }

    fn load() -> LoadReport {
        LoadReport {
            load: "requests".into(),
            sent: 1000,
            failed: 1,
            longest_gap: Duration::from_millis(1200),
            ..LoadReport::default()
        }
    }

    fn life(first: &str, last: Option<&str>) -> Life {
        Life {
            first: Exposition::read(first),
            last: last.map(Exposition::read),
        }
    }

    #[test]
    fn a_claim_holds_or_not_by_what_the_client_saw() {
        let found = verdict("requests longest_gap <= 1s", load(), Vec::new());
        assert_eq!((found.holds, found.found.as_str()), (false, "1.20s"));
        let found = verdict("requests success >= 99.9%", load(), Vec::new());
        assert_eq!((found.holds, found.found.as_str()), (true, "99.900%"));
    }

    #[test]
    fn a_claim_may_compare_two_loads_of_a_run() {
        let load = |name: &str, p99| LoadReport {
            load: name.into(),
            latency: Latencies {
                p99: Duration::from_millis(p99),
                ..Latencies::default()
            },
            ..LoadReport::default()
        };
        let loads = [load("small", 100), load("h2", 3000)];
        let verdict = |line: &str| {
            let claim = Assertion::read(line).unwrap();
            judge(&[claim], &loads, &BTreeMap::new()).remove(0)
        };
        let found = verdict("small p99 <= 5% of h2 p99");
        assert_eq!((found.holds, &*found.found), (true, "100ms against 150ms"));
        assert!(!verdict("small p99 <= 3% of h2 p99").holds);
        assert!(!verdict("small p99 <= absent p99").holds);
    }

    #[test]
    fn what_disturbs_a_run_excuses_only_claims_that_do_not_hold() {
        let claim = |line| Assertion::read(line).unwrap();
        let state = |line, load, doubts: Doubts<'_>| {
            let claims = [claim(line)];
            let verdicts = judge(&claims, &[load], &BTreeMap::new());
            doubts.state(&claims, &verdicts)
        };
        let late = || Doubts {
            late: BTreeMap::from([("requests", "late".to_owned())]),
            ..Doubts::default()
        };
        let starved = || Doubts {
            starved: Some("busy".to_owned()),
            ..Doubts::default()
        };
        let (good, bad) = ("requests failed <= 1", "requests failed == 0");
        assert_eq!(state(good, load(), late()), State::Passed);
        assert_eq!(state(good, load(), starved()), State::Passed);
        assert_eq!(state(bad, load(), Doubts::default()), State::Failed);
        assert_eq!(state(bad, load(), starved()), State::Invalid("busy".into()));
        let why = State::Invalid("requests: late".into());
        assert_eq!(state(bad, load(), late()), why);
        // Its bound is longer than it should be.
        let compared = "requests p50 <= requests p99";
        assert_eq!(state(compared, load(), late()), why);
        assert_eq!(state(compared, load(), Doubts::default()), State::Passed);
    }

    #[test]
    fn a_counter_is_summed_over_the_lives_of_a_process_that_was_killed() {
        let ok = |count| format!("weft_quic_handshakes_total{{result=\"ok\"}} {count}\n");
        let lives = vec![life(&ok(7), Some(&ok(8))), life("", Some(&ok(2)))];
        let found = verdict("orders reconnects == 3", load(), lives);
        assert!(found.holds, "{found:?}");
    }

    #[test]
    fn what_could_not_be_read_holds_no_claim() {
        let found = verdict("orders reconnects == 0", load(), vec![life("", None)]);
        assert_eq!(
            (found.holds, found.found.as_str()),
            (false, "its metrics could not be read")
        );
        let found = verdict("bulk failed == 0", load(), Vec::new());
        assert!(!found.holds);
    }
}
