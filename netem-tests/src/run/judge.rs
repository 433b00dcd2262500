//! Claims against findings. Pure.

use std::collections::BTreeMap;

use super::metrics::Exposition;
use super::outcome::{LoadReport, Verdict};
use crate::scenario::Assertion;
use crate::scenario::assertion::{LoadMeasure, Measure, SidecarMeasure};
use crate::scenario::quantity::Quantity;

/// What a sidecar counted during the loads: each of its lives from the first scrape to the last.
#[derive(Clone, Debug, Default)]
pub(super) struct Lives(pub(super) Vec<Life>);

/// A sidecar from one start, or the loads' beginning, to its end, or theirs.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) first: Exposition,
    pub(super) last: Option<Exposition>,
}

/// The verdicts, in the order of the claims.
pub(super) fn judge(
    claims: &[Assertion],
    loads: &[LoadReport],
    sidecars: &BTreeMap<String, Lives>,
) -> Vec<Verdict> {
    let verdict = |claim: &Assertion| {
        let found = match &claim.measure {
            Measure::Load(measure) => loads
                .iter()
                .find(|load| load.load == claim.subject)
                .map(|load| seen(load, *measure))
                .ok_or_else(|| "the load reported nothing".to_owned()),
            Measure::Sidecar(measure) => sidecars
                .get(&claim.subject)
                .ok_or_else(|| "the sidecar was not asked".to_owned())
                .and_then(|lives| counted(lives, measure)),
        };
        match found {
            Ok(quantity) => Verdict {
                claim: claim.line.clone(),
                holds: claim.holds(quantity.value),
                found: quantity.to_string(),
                value: Some(quantity.value),
                dimension: quantity.dimension,
            },
            Err(why) => Verdict {
                claim: claim.line.clone(),
                holds: false,
                found: why,
                value: None,
                dimension: claim.bound.dimension,
            },
        }
    };
    claims.iter().map(verdict).collect()
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
