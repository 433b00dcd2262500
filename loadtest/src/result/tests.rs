//! The document against measurements with known answers, and against its description.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::measurements::Measurements;
use crate::sample::{ErrorKind, Outcome, Sample};

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
fn fields(result: &RunResult) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let value = serde_json::to_value(result).unwrap();
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

#[test]
fn every_field_is_described_and_every_described_field_exists() {
    let page = include_str!("../../../docs/load-json.md");
    let described: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect();
    let mut fields = fields(&result());
    // Absent where there is no sample, which is the case for some of the distributions.
    fields.remove("DISTRIBUTION.percentiles.P");
    assert_eq!(fields, described);
}

#[test]
fn the_percentiles_have_the_names_that_the_page_gives() {
    let page = include_str!("../../../docs/load-json.md");
    let value = serde_json::to_value(Percentiles::default()).unwrap();
    let names: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 7);
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
