//! Outcomes for a terminal. Pure.

use std::fmt::Write as _;

use crate::run::outcome::{LoadReport, Outcome, State};
use crate::scenario::Override;
use crate::scenario::quantity::Quantity;

/// One run: its claims, then the results of its clients.
pub fn text(outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}: {} (seed {}, {:.1}s, CPU {:.0}% busy, {:.0}% by others, packets {} late at p99)",
        outcome.scenario,
        outcome.word(),
        outcome.seed,
        outcome.took.as_secs_f64(),
        100.0 * outcome.cpu_busy,
        100.0 * outcome.cpu_others,
        Quantity::time(outcome.lateness_p99),
    );
    match &outcome.state {
        State::Invalid(why) | State::Broken(why) => {
            let _ = writeln!(out, "  {why}");
        }
        State::Passed | State::Failed => {}
    }
    if let Some(why) = &outcome.expected_failure {
        let _ = writeln!(out, "  known: {why}");
    }
    for verdict in &outcome.verdicts {
        let mark = if verdict.holds { "ok " } else { "NOT" };
        let _ = writeln!(
            out,
            "  {mark} {:<44} found {}",
            verdict.claim, verdict.found
        );
    }
    for load in &outcome.loads {
        let _ = writeln!(out, "      {}", summary(load));
    }
    out
}

fn summary(load: &LoadReport) -> String {
    let latency = &load.latency;
    let mut line = format!(
        "{}: {} sent, {} failed, p50 {}, p99 {}, max {}, longest gap {}, {}",
        load.load,
        load.sent,
        load.failed,
        Quantity::time(latency.p50),
        Quantity::time(latency.p99),
        Quantity::time(latency.max),
        Quantity::time(load.longest_gap),
        Quantity::rate(load.goodput),
    );
    let errors = load.errors.iter().filter(|(_, count)| *count > 0);
    let errors: Vec<String> = errors
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if !errors.is_empty() {
        let _ = write!(line, " ({})", errors.join(", "));
    }
    line
}

/// Several runs of one scenario: how often each claim held, and how its values spread.
pub fn repeated(outcomes: &[Outcome]) -> String {
    let mut out = String::new();
    let Some(first) = outcomes.first() else {
        return out;
    };
    let judged: Vec<&Outcome> = outcomes
        .iter()
        .filter(|outcome| matches!(outcome.state, State::Passed | State::Failed))
        .collect();
    let passed = judged
        .iter()
        .filter(|outcome| outcome.state == State::Passed)
        .count();
    let _ = writeln!(
        out,
        "{}: {passed} of {} runs passed, {} were no valid runs",
        first.scenario,
        judged.len(),
        outcomes.len() - judged.len(),
    );
    for index in 0..first.verdicts.len() {
        let verdicts = judged
            .iter()
            .filter_map(|outcome| outcome.verdicts.get(index));
        let held = verdicts.clone().filter(|verdict| verdict.holds).count();
        let mut values: Vec<f64> = verdicts.filter_map(|verdict| verdict.value).collect();
        values.sort_by(f64::total_cmp);
        let claim = &first.verdicts[index];
        let show = |value: f64| {
            let dimension = claim.dimension;
            Quantity { dimension, value }.to_string()
        };
        let spread = match values.as_slice() {
            [] => "nothing".to_owned(),
            [least, .., most] => {
                format!(
                    "{} to {}, median {}",
                    show(*least),
                    show(*most),
                    show(values[values.len() / 2])
                )
            }
            [only] => show(*only),
        };
        let _ = writeln!(
            out,
            "  {held:>3}/{:<3} {:<44} found {spread}",
            judged.len(),
            claim.claim
        );
    }
    out
}

/// Runs of one scenario with different settings: one line each.
pub fn matrix(runs: &[(Vec<Override>, Outcome)]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (settings, outcome) in runs {
        let mut row: Vec<String> = settings.iter().map(|one| one.value.clone()).collect();
        row.push(outcome.word().to_owned());
        for load in &outcome.loads {
            row.extend([
                load.failed.to_string(),
                Quantity::time(load.latency.p50).to_string(),
                Quantity::time(load.latency.p99).to_string(),
                Quantity::rate(load.goodput).to_string(),
            ]);
        }
        rows.push(row);
    }
    let mut head: Vec<String> = Vec::new();
    if let Some((settings, _)) = runs.first() {
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        head.extend(settings.iter().map(|one| last(&one.path)));
    }
    head.push("run".to_owned());
    // A run that could not be carried out has no loads: the names come from one that has.
    let loads = runs
        .iter()
        .map(|(_, outcome)| &outcome.loads)
        .max_by_key(|loads| loads.len());
    for load in loads.into_iter().flatten() {
        let name = &load.load;
        head.extend(["failed", "p50", "p99", "goodput"].map(|what| format!("{name} {what}")));
    }
    rows.insert(0, head);
    align(&rows)
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::outcome::{Done, Latencies, Point, Verdict};
    use crate::scenario::quantity::Dimension;

    /// A run of a scenario with a name that must be escaped.
    pub(in crate::report) fn sample(p99: f64) -> Outcome {
        Outcome {
            scenario: "loss".into(),
            description: "5 % < 10 %".into(),
            seed: 7,
            state: if p99 > 0.3 {
                State::Failed
            } else {
                State::Passed
            },
            expected_failure: None,
            verdicts: vec![Verdict {
                claim: "requests p99 <= 300ms".into(),
                found: Quantity::time(Duration::from_secs_f64(p99)).to_string(),
                value: Some(p99),
                dimension: Dimension::Time,
                holds: p99 <= 0.3,
            }],
            loads: vec![LoadReport {
                load: "requests".into(),
                sent: 100,
                failed: 2,
                errors: vec![("deadline".into(), 2)],
                latency: Latencies::default(),
                series: vec![
                    Point {
                        at: 0.0,
                        lasts: 1.0,
                        good: 50,
                        p50: 0.02,
                        p99,
                        ..Point::default()
                    },
                    Point {
                        at: 1.0,
                        lasts: 1.0,
                        good: 48,
                        failed: 2,
                        p50: 0.03,
                        p99,
                        bytes: 9000,
                    },
                ],
                ..LoadReport::default()
            }],
            events: vec![Done {
                planned: Duration::from_secs(1),
                at: Duration::from_secs(1),
                what: "wan: loss=5%".into(),
            }],
            links: Vec::new(),
            duration: Duration::from_secs(2),
            took: Duration::from_secs(4),
            cpu_busy: 0.5,
            cpu_others: 0.0,
            cpu_stolen: 0.0,
            lateness_p99: Duration::ZERO,
        }
    }

    #[test]
    fn a_run_shows_each_claim_with_what_was_found() {
        let text = text(&sample(0.4));
        assert!(text.starts_with("loss: FAILED (seed 7"), "{text}");
        assert!(text.contains("NOT requests p99 <= 300ms"), "{text}");
        assert!(text.contains("found 400ms"), "{text}");
        assert!(text.contains("(2 deadline)"), "{text}");
    }

    #[test]
    fn repeated_runs_show_how_often_a_claim_held_and_its_spread() {
        let text = repeated(&[sample(0.1), sample(0.4), sample(0.2)]);
        assert!(text.contains("2 of 3 runs passed"), "{text}");
        assert!(
            text.contains("found 100ms to 400ms, median 200ms"),
            "{text}"
        );
    }

    #[test]
    fn a_matrix_is_one_line_for_each_combination() {
        let with = |loss: &str| {
            vec![
                format!("topology.links.wan.set.loss={loss}")
                    .parse()
                    .unwrap(),
            ]
        };
        let text = matrix(&[(with("0%"), sample(0.1)), (with("1%"), sample(0.4))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("loss  run"), "{text}");
        assert!(lines[2].starts_with("1%    FAILED"), "{text}");
    }
}
