//! The document against measurements with known answers, and all documents against their description.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::diff::{self, Comparison, Estimate, Row, Verdict};
use crate::measurements::Measurements;
use crate::report::series::{SearchResult, SweepResult};
use crate::sample::{ErrorKind, Outcome, Sample};
use crate::search::{Best, Limit, Trial};

/// Ten seconds at 100/s: 10 ms each, every hundredth a 503 after 1 ms, and a little of everything
/// else.
fn result() -> RunResult {
    let mut measurements = Measurements::new(Duration::ZERO);
    for index in 0..1000u64 {
        let due = Duration::from_millis(index * 10);
        let fails = index % 100 == 99;
        let took = Duration::from_millis(if fails { 1 } else { 10 });
        measurements.record(&Sample {
            tls_done: (index == 0).then(|| due + Duration::from_millis(2)),
            connected: (index == 0).then(|| due + Duration::from_millis(1)),
            first_byte: Some(due + took / 2),
            finished: due + took,
            outcome: if fails {
                Outcome::Failure(ErrorKind::Status(503))
            } else {
                Outcome::Success
            },
            bytes_in: 100,
            bytes_out: 10,
            reused: index > 0,
            handshakes: u32::from(index == 0),
            resent: u32::from(index % 500 == 7),
            ..Sample::begin(due, due + Duration::from_micros(20))
        });
    }
    let plan = PlanSummary {
        protocol: "http1".into(),
        targets: vec![Target {
            url: "http://127.0.0.1:8080/".into(),
            weight: 1.0,
        }],
        method: Some("GET".into()),
        arrivals: Some("constant".into()),
        stages: vec![Stage {
            from: 100.0,
            to: 100.0,
            seconds: 10.0,
        }],
        duration_s: Some(10.0),
        requests: Some(1000),
        connections: Some(64),
        max_in_flight: Some(10_000),
        deadline_ms: Some(5000.0),
        keep_alive: true,
        threads: 1,
        ..PlanSummary::default()
    };
    let machine = Machine {
        weft: "0.1.0".into(),
        ..Machine::default()
    };
    let mut result = RunResult::new(
        &measurements,
        Duration::from_secs(10),
        Ended::Completed,
        1_700_000_000_000,
        plan,
        machine,
    );
    result.thresholds.push(ThresholdResult {
        condition: "p99>50ms".into(),
        measured: Some("10.0 ms".into()),
        failed: false,
        coarse: true,
    });
    result
}

#[test]
fn the_summary_says_what_was_recorded() {
    let result = result();
    let summary = &result.summary;
    assert_eq!(summary.requests, 1000);
    assert_eq!((summary.succeeded, summary.failed), (990, 10));
    assert!((summary.error_share - 0.01).abs() < 1e-9);
    assert!((summary.due_per_second - 100.0).abs() < 1e-9);
    // The last of each second ends in the next: 99 succeed of the 100 due, the last of all after the end.
    assert!((summary.succeeded_per_second - 99.0).abs() < 0.11);
    assert_eq!(summary.bytes_in, 100_000);
    assert!((summary.reused_share - 0.999).abs() < 1e-9);
    assert_eq!(
        (summary.handshakes, summary.handshakes_resumed),
        (1, Some(0))
    );
    assert_eq!(summary.resent, 2);
    // From the success at 10 n to the next but one.
    assert!(summary.longest_without_success.us.abs_diff(20_000) <= 1000);
    assert_eq!(result.errors["status_503"], 10);
    assert_eq!(result.latency.samples, 990);
    assert_eq!(result.failed.samples, 10);
    assert_eq!(result.latency.percentiles.p50.unwrap().us, 10_000);
    assert!(result.latency.percentiles.p99.unwrap().coarse);
    assert!(!result.latency.percentiles.p95.unwrap().coarse);
    assert!(result.generator.valid, "{:?}", result.generator.reasons);
    assert_eq!(summary.worst_step.unwrap().failed, 1);
}

#[test]
fn a_generator_that_was_late_makes_the_run_invalid_and_says_by_how_much() {
    let run = |late_ms: u64, mode: Mode| {
        let mut measurements = Measurements::new(Duration::ZERO);
        for index in 0..1000u64 {
            let due = Duration::from_millis(index);
            let start = due + Duration::from_millis(late_ms);
            measurements.record(&Sample {
                finished: start + Duration::from_millis(5),
                outcome: Outcome::Success,
                ..Sample::begin(due, start)
            });
        }
        let plan = PlanSummary {
            mode,
            ..PlanSummary::default()
        };
        let ended = Ended::Completed;
        let second = Duration::from_secs(1);
        RunResult::new(&measurements, second, ended, 0, plan, Machine::default()).generator
    };
    assert!(run(1, Mode::Open).valid);
    let late = run(30, Mode::Open);
    assert!(!late.valid);
    assert!(late.reasons[0].contains("30.0 ms"), "{:?}", late.reasons);
    assert!(run(30, Mode::Closed).valid);
}

/// A run of a minute at 1000/s in which a request that is due at a time takes what `latency` says.
fn minute(latency: impl Fn(u64) -> Duration) -> Distribution {
    let mut measurements = Measurements::new(Duration::ZERO);
    for millisecond in 0..60_000 {
        let due = Duration::from_millis(millisecond);
        measurements.record(&Sample {
            finished: due + latency(millisecond),
            outcome: Outcome::Success,
            ..Sample::begin(due, due)
        });
    }
    Distribution::of(&measurements.latency)
}

/// Whether a percentile is what arithmetic says, to the precision of the histogram and the distance of two
/// requests.
#[track_caller]
fn is_about(found: Option<Percentile>, analytic: Duration) {
    let found = Duration::from_micros(found.unwrap().us);
    let precision = analytic.mul_f64(0.001) + Duration::from_millis(1);
    assert!(
        found.abs_diff(analytic) <= precision,
        "{found:?}, not {analytic:?}"
    );
}

#[test]
fn the_percentiles_of_a_freeze_are_those_of_arithmetic() {
    // From the 30th second on the server stands still for six: a tenth of the requests.
    let (begin, end) = (30_000, 36_000);
    let found = minute(|due| {
        let frozen = (begin..end).contains(&due);
        Duration::from_millis(if frozen { end - due } else { 1 })
    });
    // Of those, a share of 1 - x/6 waits for longer than x seconds.
    for (percentile, share) in [
        (found.percentiles.p95, 0.95),
        (found.percentiles.p99, 0.99),
        (found.percentiles.p99_9, 0.999),
        (found.percentiles.p99_99, 0.9999),
    ] {
        is_about(
            percentile,
            Duration::from_secs_f64(6.0 - (1.0 - share) * 60.0),
        );
    }
    is_about(found.percentiles.p75, Duration::from_millis(1));
    assert_eq!(found.max_us, Some(6_000_000));
}

#[test]
fn the_percentiles_of_one_stall_in_a_hundred_are_those_of_arithmetic() {
    let found = minute(|due| Duration::from_millis(if due % 100 == 7 { 200 } else { 5 }));
    for percentile in [
        found.percentiles.p50,
        found.percentiles.p95,
        found.percentiles.p99,
    ] {
        is_about(percentile, Duration::from_millis(5));
    }
    is_about(found.percentiles.p99_9, Duration::from_millis(200));
    assert!(found.mean_us.unwrap().abs_diff(6950) <= 7, "{found:?}");
}

#[test]
fn a_run_in_which_nothing_was_due_is_no_measurement() {
    let result = RunResult::new(
        &Measurements::new(Duration::ZERO),
        Duration::ZERO,
        Ended::Interrupted,
        0,
        PlanSummary::default(),
        Machine::default(),
    );
    assert!(!result.generator.valid);
    assert_eq!(result.latency.percentiles.p50, None);
    assert_eq!(result.summary.worst_step, None);
}

#[test]
fn a_result_reads_back_as_it_was_written() {
    let result = result();
    let text = serde_json::to_string_pretty(&result).unwrap();
    assert_eq!(RunResult::parse(&text).unwrap(), result);
}

#[test]
fn a_file_of_another_version_or_kind_is_refused_with_its_reason() {
    let error = RunResult::parse(r#"{"schema":"weft.load/9"}"#).unwrap_err();
    assert!(error.to_string().contains("weft.load/9"), "{error}");
    assert!(matches!(RunResult::parse("{}"), Err(ParseError::Shape(_))));
    assert!(matches!(
        RunResult::parse(r#"{"schema":"weft.load/1"}"#),
        Err(ParseError::Shape(_))
    ));
}

/// Every field, with what stands in several places named once: `DISTRIBUTION`, `P`, `KIND`.
fn fields(document: &impl serde::Serialize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let value = serde_json::to_value(document).unwrap();
    walk(&value, String::new(), &mut found);
    found
}

fn walk(value: &Value, path: String, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if fields.contains_key("histogram") => {
            found.insert(path);
            for (name, value) in fields {
                walk(value, format!("DISTRIBUTION.{name}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = match path.as_str() {
                    "errors" => "KIND",
                    "DISTRIBUTION.percentiles" => "P",
                    _ => name,
                };
                let path = if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}.{name}")
                };
                walk(value, path, found);
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            for item in items {
                walk(item, format!("{path}[]"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            found.insert(path);
        }
    }
}

const PAGE: &str = include_str!("../../../docs/load-json.md");

/// The fields that tables of the page describe, from one heading to another or to the end.
fn described(from: &str, to: &str) -> BTreeSet<String> {
    let (_, part) = PAGE.split_once(from).unwrap();
    let part = part.split_once(to).map_or(part, |(part, _)| part);
    part.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_field_is_described_and_every_described_field_exists() {
    let mut fields = fields(&result());
    // Absent where there is no sample, which is the case for some of the distributions.
    fields.remove("DISTRIBUTION.percentiles.P");
    assert_eq!(fields, described("## The run", "## A search"));
}

fn trial() -> Trial {
    Trial {
        rate: 100.0,
        succeeded_per_second: 98.5,
        error_share: 0.015,
        p50_us: Some(1000),
        p99_us: Some(21_000),
        p99_9_us: None,
        kept_up: true,
        valid: true,
        unmet: vec!["p99<20ms is 21.0 ms".into()],
    }
}

/// What a trial of [`trial`] must look like for as long as the schema has this number.
fn trial_as_json() -> Value {
    json!({
        "rate": 100.0, "succeeded_per_second": 98.5, "error_share": 0.015,
        "p50_us": 1000, "p99_us": 21_000, "p99_9_us": null,
        "kept_up": true, "valid": true, "unmet": ["p99<20ms is 21.0 ms"],
    })
}

/// A document without what every document has, which is compared elsewhere.
fn own_part(document: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(document).unwrap();
    let fields = value.as_object_mut().unwrap();
    assert!(fields.remove("plan").unwrap().is_object());
    assert!(fields.remove("machine").unwrap().is_object());
    value
}

#[test]
fn a_search_is_the_document_that_the_page_describes() {
    let search = SearchResult {
        schema: "weft.load.search/1",
        conditions: "p99<20ms,errors<=1%".into(),
        best: Best {
            per_second: None,
            limited_by: Limit::RateMax,
            confirmed: false,
        },
        trials: vec![trial()],
        plan: PlanSummary::default(),
        machine: Machine::default(),
    };
    let own = own_part(&search);
    assert_eq!(
        own,
        json!({
            "schema": "weft.load.search/1",
            "conditions": "p99<20ms,errors<=1%",
            "best": { "per_second": null, "limited_by": "rate_max", "confirmed": false },
            "trials": [trial_as_json()],
        })
    );
    assert_eq!(fields(&own), described("## A search", "## A sweep"));
}

#[test]
fn a_sweep_is_the_document_that_the_page_describes() {
    let sweep = SweepResult {
        schema: "weft.load.sweep/1",
        knee: Some(100.0),
        knee_is_above: true,
        trials: vec![trial()],
        plan: PlanSummary::default(),
        machine: Machine::default(),
    };
    let own = own_part(&sweep);
    assert_eq!(
        own,
        json!({
            "schema": "weft.load.sweep/1",
            "knee": 100.0, "knee_is_above": true,
            "trials": [trial_as_json()],
        })
    );
    let mut described = described("## A sweep", "## A comparison");
    assert!(described.remove("trials[]"));
    let of_trials = fields(&own).into_iter();
    let own: BTreeSet<String> = of_trials
        .filter(|field| !field.starts_with("trials[]."))
        .collect();
    assert_eq!(own, described);
}

#[test]
fn a_comparison_is_the_document_that_the_page_describes() {
    let estimate = |value: f64| Estimate {
        value,
        low: value - 1.0,
        high: value + 1.0,
    };
    let comparison = Comparison {
        schema: diff::SCHEMA.into(),
        tolerance: 0.05,
        differs: true,
        rows: vec![Row {
            quantity: "p99".into(),
            a: estimate(100.0),
            b: estimate(200.0),
            ratio: Some(estimate(2.0)),
            verdict: Verdict::NotDistinguishable,
        }],
        notes: vec!["the plans differ".into()],
    };
    let value = serde_json::to_value(&comparison).unwrap();
    assert_eq!(
        value,
        json!({
            "schema": "weft.load.diff/1",
            "tolerance": 0.05,
            "differs": true,
            "rows": [{
                "quantity": "p99",
                "a": { "value": 100.0, "low": 99.0, "high": 101.0 },
                "b": { "value": 200.0, "low": 199.0, "high": 201.0 },
                "ratio": { "value": 2.0, "low": 1.0, "high": 3.0 },
                "verdict": "not_distinguishable",
            }],
            "notes": ["the plans differ"],
        })
    );
    assert_eq!(fields(&comparison), described("## A comparison", "\n# "));
}

#[test]
fn values_that_programs_compare_are_those_of_the_page() {
    let words = [
        serde_json::to_value([Limit::Target, Limit::Generator, Limit::RateMax]),
        serde_json::to_value([Verdict::Better, Verdict::Worse, Verdict::TooFew]),
        serde_json::to_value([Ended::Completed, Ended::Interrupted]),
    ];
    for word in words
        .iter()
        .flat_map(|list| list.as_ref().unwrap().as_array().unwrap())
    {
        let word = word.as_str().unwrap();
        assert!(PAGE.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn the_percentiles_have_the_names_that_the_page_gives() {
    let value = serde_json::to_value(Percentiles::default()).unwrap();
    let names: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 7);
    for name in names {
        assert!(PAGE.contains(&format!("`{name}`")), "{name}");
    }
}
