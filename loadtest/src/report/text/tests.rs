//! Tests of `loadtest/src/report/text.rs`.

use super::*;
use crate::report::testing;

#[test]
fn a_report_says_what_came_of_the_run() {
    let text = report(&testing::run());
    for part in [
        "http://127.0.0.1:8080/",
        "open loop, 1000/s for 20 s, constant arrivals",
        "succeeded    19 800 of 20 000 requests (99 %)",
        "1000/s due",
        "on a reused one, 8 handshakes, 4 of them resumed",
        "p99.9",
        "HTTP status 503",
        "longest time without a success",
        "worst second: from 8 s on",
        "started 99 % within",
        "fail if      p99>50ms",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains("INVALID"), "{text}");
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest.unwrap() <= 160, "{text}");
}

#[test]
fn a_percentile_with_few_samples_beyond_it_has_a_star() {
    let mut result = testing::run();
    result.latency.percentiles.p99_99 = Some(Percentile {
        us: 5000,
        beyond: 2,
        coarse: true,
    });
    let text = report(&result);
    assert!(text.contains("5.00 ms*"), "{text}");
    assert!(text.contains("fewer than 10"), "{text}");
}

#[test]
fn an_invalid_run_says_so_and_what_to_do() {
    let mut result = testing::run();
    result.generator.valid = false;
    result.generator.reasons = vec!["it was late".into()];
    let text = report(&result);
    assert!(text.contains("INVALID: it was late"), "{text}");
    assert!(text.contains("--threads"), "{text}");
}

#[test]
fn a_closed_loop_says_what_its_latency_leaves_out() {
    let mut result = testing::run();
    result.plan.mode = Mode::Closed;
    result.plan.stages.clear();
    result.plan.connections = Some(64);
    let text = report(&result);
    assert!(
        text.contains("closed loop, 64 connections, for 20 s"),
        "{text}"
    );
    assert!(text.contains("their wait is in no figure"), "{text}");
}

#[test]
fn a_plot_has_a_bar_for_each_value_and_a_blank_for_nothing() {
    assert_eq!(plot(&[0.0, 1.0, 4.0, 8.0]), " ▁▄█");
    assert_eq!(plot(&[]), "");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let mut result = testing::run();
    result.plan.targets[0].url = "http://x/\u{1b}[31m".into();
    assert!(!report(&result).contains('\u{1b}'));
}
