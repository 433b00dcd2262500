//! Loads: the arguments of `weft load` for one, and how its result is read. Pure.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::limits::GENERATOR_LATENESS_P99_MAX;
use super::outcome::{Latencies, LoadReport, Point};
use crate::scenario::{Load, Pace};

/// `weft load` for one load, which calls `port` on its own host.
pub(super) fn command(load: &Load, weft: &Path, port: u16, seed: u64) -> Vec<OsString> {
    let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
    let mut command: Vec<OsString> = vec![weft.into(), "load".into()];
    command.push(format!("http://127.0.0.1:{port}{}", load.path).into());
    match load.pace {
        Pace::Open(rate) => command.extend(["--rate".into(), rate.to_string().into()]),
        Pace::Closed(connections) => {
            let connections = connections.to_string().into();
            command.extend(["--closed".into(), "--connections".into(), connections]);
        }
    }
    let deadline = milliseconds(load.deadline);
    let flags = [
        "--duration",
        &milliseconds(load.lasts),
        "--deadline",
        &deadline,
        // A request that is open at the end is answered or has failed by its deadline.
        "--grace",
        &deadline,
        "--seed",
        &seed.to_string(),
        "--output",
        "json",
        "--quiet",
    ];
    command.extend(flags.map(OsString::from));
    command.extend(load.flags.iter().map(OsString::from));
    command
}

/// A load's result, and why the generator itself was not good enough, if so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Read {
    pub(super) report: LoadReport,
    pub(super) invalid: Option<String>,
}

/// Reads the result of `weft load -o json`. `began_unix_ms` is when the loads of the run began.
///
/// # Errors
/// The field that is missing in the document.
pub(super) fn read(name: &str, text: &str, began_unix_ms: u64) -> Result<Read, String> {
    let document: Value =
        serde_json::from_str(text).map_err(|error| format!("its result is no JSON: {error}"))?;
    let field = |pointer: &str| {
        document
            .pointer(pointer)
            .ok_or_else(|| format!("its result has no {pointer}"))
    };
    let count = |pointer: &str| {
        let value = field(pointer)?.as_u64();
        value.ok_or_else(|| format!("{pointer} of its result is no count"))
    };
    let number = |pointer: &str| {
        let value = field(pointer)?.as_f64();
        value.ok_or_else(|| format!("{pointer} of its result is no number"))
    };
    // Absent where nothing was answered.
    let micros = |pointer: &str| {
        let value = document.pointer(pointer).and_then(Value::as_u64);
        Duration::from_micros(value.unwrap_or(0))
    };
    let mut errors: Vec<(String, u64)> = field("/errors")?
        .as_object()
        .into_iter()
        .flatten()
        .map(|(kind, count)| (kind.clone(), count.as_u64().unwrap_or(0)))
        .collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let corrupt = errors.iter().find(|(kind, _)| kind == "unexpected_body");
    let started = count("/summary/started_unix_ms")?.saturating_sub(began_unix_ms);
    let seconds = number("/summary/seconds")?;
    let report = LoadReport {
        load: name.to_owned(),
        sent: count("/summary/requests")?,
        failed: count("/summary/failed")?,
        corrupt: corrupt.map_or(0, |(_, count)| *count),
        errors,
        latency: Latencies {
            p50: micros("/latency/percentiles/p50/us"),
            p90: micros("/latency/percentiles/p90/us"),
            p99: micros("/latency/percentiles/p99/us"),
            p999: micros("/latency/percentiles/p99_9/us"),
            max: micros("/latency/max_us"),
        },
        longest_gap: Duration::from_micros(count("/summary/longest_without_success/us")?),
        goodput: count("/summary/bytes_in")? as f64 / seconds.max(f64::EPSILON),
        series: series(&document, started as f64 / 1e3),
    };
    // The generator judges itself by the latency that it measured; here, claims are about tens of
    // milliseconds and more.
    let late = micros("/generator/lateness/percentiles/p99/us");
    let invalid = (late > GENERATOR_LATENESS_P99_MAX).then(|| {
        format!("one request in a hundred was sent {late:.1?} late or more (allowed: {GENERATOR_LATENESS_P99_MAX:?}): the machine is too busy")
    });
    Ok(Read { report, invalid })
}

fn series(document: &Value, from: f64) -> Vec<Point> {
    let lasts = document.pointer("/timeline/step_s").and_then(Value::as_f64);
    let steps = document
        .pointer("/timeline/steps")
        .and_then(Value::as_array);
    let number = |step: &Value, name: &str| step.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let count = |step: &Value, name: &str| step.get(name).and_then(Value::as_u64).unwrap_or(0);
    steps
        .into_iter()
        .flatten()
        .map(|step| Point {
            at: from + number(step, "from_s"),
            lasts: lasts.unwrap_or(1.0),
            good: count(step, "succeeded"),
            failed: count(step, "failed"),
            p50: number(step, "p50_us") / 1e6,
            p99: number(step, "p99_us") / 1e6,
            bytes: count(step, "bytes_in"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = r#"{
        "summary": { "started_unix_ms": 5250, "seconds": 2.0, "requests": 200, "failed": 3,
            "bytes_in": 4000, "longest_without_success": { "us": 1500000, "from_s": 0.5 } },
        "errors": { "deadline": 1, "unexpected_body": 2 },
        "latency": { "percentiles": { "p50": { "us": 900 }, "p90": { "us": 1000 },
            "p99": { "us": 5000 }, "p99_9": null }, "max_us": 7000 },
        "timeline": { "step_s": 1.0, "steps": [
            { "from_s": 0.0, "succeeded": 99, "failed": 1, "p50_us": 900, "p99_us": null, "bytes_in": 10 } ] },
        "generator": { "lateness": { "percentiles": { "p99": { "us": 12000 } } } }
    }"#;

    #[test]
    fn a_result_is_read_on_the_time_line_of_the_run() {
        let read = read("requests", RESULT, 5000).unwrap();
        let why = "one request in a hundred was sent 12.0ms late or more";
        assert!(read.invalid.is_some_and(|found| found.starts_with(why)));
        let report = read.report;
        assert_eq!((report.sent, report.failed, report.corrupt), (200, 3, 2));
        assert_eq!(report.longest_gap, Duration::from_millis(1500));
        assert_eq!(report.latency.p99, Duration::from_millis(5));
        assert_eq!(report.goodput, 2000.0);
        assert_eq!(report.series[0].at, 0.25);
    }

    #[test]
    fn a_document_that_is_no_result_says_what_it_lacks() {
        let error = read("requests", "{}", 0).unwrap_err();
        assert_eq!(error, "its result has no /errors");
        assert!(read("requests", "panic", 0).is_err());
    }
}
