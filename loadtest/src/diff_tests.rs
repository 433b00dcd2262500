//! Comparisons of seeded runs with known differences.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::measurements::Measurements;
use crate::result::{Ended, Machine, PlanSummary};
use crate::sample::{ErrorKind, Outcome, Sample};

/// Thirty seconds at 500/s against a server with exponential latencies of the given mean, each second
/// slower or faster by up to `drift`.
fn run(seed: u64, mean_us: f64, drift: f64, error_share: f64) -> RunResult {
    let mut random = StdRng::seed_from_u64(seed);
    let mut measurements = Measurements::new(Duration::ZERO);
    let mut factor = 1.0;
    for index in 0..15_000u64 {
        if index % 500 == 0 {
            factor = 1.0 + drift * (random.random::<f64>() * 2.0 - 1.0);
        }
        let due = Duration::from_millis(index * 2);
        let below: f64 = random.random();
        let micros = 200.0 - mean_us * factor * (1.0 - below).ln();
        let fails = random.random::<f64>() < error_share;
        measurements.record(&Sample {
            finished: due + Duration::from_nanos((micros * 1e3) as u64),
            outcome: if fails {
                Outcome::Failure(ErrorKind::Status(500))
            } else {
                Outcome::Success
            },
            ..Sample::begin(due, due)
        });
    }
    RunResult::new(
        &measurements,
        Duration::from_secs(30),
        Ended::Completed,
        0,
        PlanSummary::default(),
        Machine::default(),
    )
}

fn verdict(comparison: &Comparison, quantity: &str) -> Verdict {
    let row = comparison.rows.iter().find(|row| row.quantity == quantity);
    row.unwrap().verdict
}

#[test]
fn a_change_of_a_fifth_is_found_and_has_a_direction() {
    for seed in 0..8 {
        let (slow, fast) = (
            run(seed, 1200.0, 0.1, 0.0),
            run(seed + 100, 1000.0, 0.1, 0.0),
        );
        let worse = compare(&fast, &slow, 0.05).unwrap();
        assert!(worse.differs);
        assert_eq!(verdict(&worse, "p50"), Verdict::Worse, "seed {seed}");
        let better = compare(&slow, &fast, 0.05).unwrap();
        assert_eq!(verdict(&better, "p90"), Verdict::Better, "seed {seed}");
        let row = worse.rows.iter().find(|row| row.quantity == "p90").unwrap();
        let ratio = row.ratio.unwrap();
        assert!(
            ratio.low < 1.19 && ratio.high > 1.19,
            "seed {seed}: {row:?}"
        );
    }
}

#[test]
fn noise_is_not_a_difference() {
    let mut found = 0;
    for seed in 0..25 {
        let a = run(seed, 1000.0, 0.15, 0.01);
        let b = run(seed + 1000, 1000.0, 0.15, 0.01);
        found += u32::from(compare(&a, &b, 0.05).unwrap().differs);
    }
    assert!(
        found <= 1,
        "{found} of 25 comparisons of equals found a difference"
    );
}

#[test]
fn intervals_cover_the_truth_as_often_as_they_say() {
    let truth = 200.0 + 1000.0 * 2f64.ln();
    let runs = 50;
    let covered = (0..runs)
        .filter(|seed| {
            let result = run(*seed, 1000.0, 0.0, 0.0);
            let read = Run::read("first", &result).unwrap();
            let (estimate, _) = percentile_interval(&read.latency, 0.5, read.clumping);
            (estimate.low..=estimate.high).contains(&truth)
        })
        .count();
    assert!(covered >= 47, "{covered} of {runs}");
}

#[test]
fn a_difference_within_the_tolerance_is_none() {
    let (a, b) = (run(1, 1000.0, 0.0, 0.0), run(2, 1200.0, 0.0, 0.0));
    assert!(compare(&a, &b, 0.05).unwrap().differs);
    assert!(!compare(&a, &b, 0.5).unwrap().differs);
}

#[test]
fn failures_that_appear_are_worse_and_those_that_go_are_better() {
    let (clean, failing) = (run(1, 1000.0, 0.0, 0.0), run(2, 1000.0, 0.0, 0.01));
    let comparison = compare(&clean, &failing, 0.05).unwrap();
    assert_eq!(verdict(&comparison, "error_share"), Verdict::Worse);
    let comparison = compare(&failing, &clean, 0.05).unwrap();
    assert_eq!(verdict(&comparison, "error_share"), Verdict::Better);
}

#[test]
fn a_percentile_with_few_samples_beyond_it_is_not_judged() {
    let comparison = compare(&run(1, 1000.0, 0.0, 0.0), &run(2, 5000.0, 0.0, 0.0), 0.05).unwrap();
    assert_eq!(verdict(&comparison, "p99.99"), Verdict::TooFew);
    assert_eq!(verdict(&comparison, "p99.9"), Verdict::Worse);
}

#[test]
fn what_the_runs_do_not_share_is_said() {
    let a = run(1, 1000.0, 0.0, 0.0);
    let mut b = a.clone();
    b.plan.protocol = "http3".into();
    b.machine.cores = 64;
    let notes = compare(&a, &b, 0.05).unwrap().notes.join("\n");
    assert!(
        notes.contains("protocol") && notes.contains("cores"),
        "{notes}"
    );
    assert!(compare(&a, &a, 0.05).unwrap().notes.is_empty());
}

#[test]
fn an_invalid_run_or_an_edited_histogram_is_refused() {
    let a = run(1, 1000.0, 0.0, 0.0);
    let mut b = a.clone();
    b.generator.valid = false;
    b.generator.reasons = vec!["late".into()];
    let error = compare(&a, &b, 0.05).unwrap_err().to_string();
    assert!(error.contains("second run is invalid: late"), "{error}");
    let mut b = a.clone();
    b.latency.histogram = "AAAA".into();
    assert!(matches!(
        compare(&b, &a, 0.05),
        Err(DiffError::Histogram { which: "first", .. })
    ));
}

#[test]
fn runs_without_an_answer_can_be_compared() {
    let empty = RunResult::new(
        &{
            let mut measurements = Measurements::new(Duration::ZERO);
            let due = Duration::from_millis(1);
            measurements.record(&Sample {
                outcome: Outcome::Failure(ErrorKind::ConnectRefused),
                ..Sample::begin(due, due)
            });
            measurements
        },
        Duration::from_secs(1),
        Ended::Completed,
        0,
        PlanSummary::default(),
        Machine::default(),
    );
    let comparison = compare(&empty, &empty, 0.05).unwrap();
    assert!(!comparison.differs);
}
