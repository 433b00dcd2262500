//! Tests of `loadtest/src/threshold.rs`.

use super::*;
use crate::result::{Ended, Machine, PlanSummary};
use crate::sample::{ErrorKind, Outcome, Sample};

/// One second at 1000/s: latencies of 1 to 990 ms, and ten failures.
fn measured() -> Measurements {
    let mut measurements = Measurements::new(Duration::ZERO);
    for index in 1..=1000u64 {
        let due = Duration::from_millis(index - 1);
        let outcome = if index > 990 {
            Outcome::Failure(ErrorKind::Status(500))
        } else {
            Outcome::Success
        };
        measurements.record(&Sample {
            finished: due + Duration::from_millis(index),
            outcome,
            ..Sample::begin(due, due)
        });
    }
    measurements
}

fn result(measurements: &Measurements) -> RunResult {
    RunResult::new(
        measurements,
        Duration::from_secs(1),
        Ended::Completed,
        0,
        PlanSummary::default(),
        Machine::default(),
    )
}

#[test]
fn conditions_are_judged_by_what_was_measured() {
    let measurements = measured();
    let result = result(&measurements);
    let run = Evaluated {
        measurements: &measurements,
        result: &result,
    };
    for (text, holds) in [
        ("p50>490ms", true),
        ("p50>500ms", false),
        ("p50<0.5s", true),
        ("p99.9<1s", true),
        ("latency.p50<0.5s", true),
        ("service.max>=990ms", true),
        ("min<=1ms", true),
        ("mean<400ms", false),
        ("errors>0.9%", true),
        ("errors<1%", false),
        ("errors<=1%", true),
        ("errors<10", false),
        ("errors<=10", true),
        ("unsent>0", false),
        ("gap>=2ms", true),
        ("gap>5ms", false),
        ("late.p99<1us", true),
        ("rate<600/s", true),
    ] {
        let conditions: Conditions = text.parse().unwrap();
        let judged = conditions.fail_if(&run);
        assert_eq!(judged[0].failed, holds, "{text}: {judged:?}");
        assert_eq!(conditions.unmet(&run).is_empty(), holds, "{text}");
    }
}

#[test]
fn several_conditions_are_judged_each() {
    let measurements = measured();
    let result = result(&measurements);
    let run = Evaluated {
        measurements: &measurements,
        result: &result,
    };
    let conditions: Conditions = "p99>2s, errors>0.1%".parse().unwrap();
    let judged = conditions.fail_if(&run);
    assert_eq!(
        judged.iter().map(|one| one.failed).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(judged[1].measured.as_deref(), Some("1 %"));
    assert!(judged[0].coarse, "p99 of 990 samples has 9 beyond it");
    assert_eq!(conditions.to_string(), "p99>2s,errors>0.1%");
}

#[test]
fn what_cannot_be_measured_neither_passes_a_run_nor_meets_a_goal() {
    let measurements = Measurements::new(Duration::ZERO);
    let result = result(&measurements);
    let run = Evaluated {
        measurements: &measurements,
        result: &result,
    };
    for text in ["p99>50ms", "tls.p99<50ms", "errors>1%"] {
        let conditions: Conditions = text.parse().unwrap();
        assert!(conditions.fail_if(&run)[0].failed, "{text}");
        assert_eq!(conditions.unmet(&run).len(), 1, "{text}");
    }
}

#[test]
fn failures_are_bounded_unless_the_conditions_say_how() {
    let bounded = |text: &str| {
        let conditions: Conditions = text.parse().unwrap();
        conditions.with_errors_bounded().to_string()
    };
    assert_eq!(bounded("p99<5ms"), "p99<5ms,errors<=1%");
    assert_eq!(bounded("errors<5%,p99<5ms"), "errors<5%,p99<5ms");
}

#[test]
fn an_error_says_where_and_what_to_write() {
    for (text, offset, part) in [
        ("", 0, "missing"),
        ("p99>50ms,", 9, "missing"),
        ("p99", 3, "compares nothing"),
        ("p99=50ms", 3, "write <"),
        ("p99>50", 4, "no unit"),
        ("p99 > 50kg", 6, "unit of time"),
        ("p99>", 4, "the value is missing"),
        ("p99>ms", 4, "not a number"),
        ("p99>-5ms", 4, "not a number"),
        ("p101>5ms", 0, "between p0 and p100"),
        ("p99>50ms,erors>1%", 9, "there is no \"erors\""),
        ("p99>50ms, errors>1ms", 17, "0.1%"),
        ("errors>101%", 7, "more than 100 %"),
        ("errors>1.5", 7, "number of requests"),
        ("rate<950", 5, "950/s"),
        ("unsent>1%", 7, "number of requests"),
        ("p99>1e400s", 4, ""),
        ("p99>99999999999999999999999s", 4, "too long"),
        ("µ>1s", 0, "there is no"),
        ("p99>5µ,x>1", 4, "unit of time"),
    ] {
        let error = text.parse::<Conditions>().unwrap_err();
        assert_eq!(error.offset, offset, "{text:?}: {error}");
        assert!(error.to_string().contains(part), "{text:?}: {error}");
    }
}
