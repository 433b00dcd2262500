//! Searches, sweeps and comparisons: as documents, and for people at a terminal. Pure. The figures come
//! from `search.rs` and `diff.rs`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::diff::{Comparison, Estimate, Row, Verdict};
use crate::result::{Machine, PlanSummary};
use crate::search::{Best, Limit, Trial};
use crate::text;

/// What `--find-max -o json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct SearchResult {
    /// `weft.load.search/1`.
    pub schema: &'static str,
    /// The conditions.
    pub conditions: String,
    /// The result.
    pub best: Best,
    /// All trials in their order.
    pub trials: Vec<Trial>,
    /// The plan of a trial.
    pub plan: PlanSummary,
    /// Where it ran.
    pub machine: Machine,
}

/// What `--sweep -o json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct SweepResult {
    /// `weft.load.sweep/1`.
    pub schema: &'static str,
    /// The last rate before latency rises, requests fail or the rate is not reached; absent if the
    /// first is beyond it.
    pub knee: Option<f64>,
    /// Whether all rates are below the knee, so that it is somewhere above.
    pub knee_is_above: bool,
    /// All trials, with rising rates.
    pub trials: Vec<Trial>,
    /// The plan of a trial.
    pub plan: PlanSummary,
    /// Where it ran.
    pub machine: Machine,
}

/// One trial, in one line.
pub fn trial(trial: &Trial) -> String {
    let latency = |us: Option<u64>| us.map_or_else(|| "none".to_owned(), text::micros);
    let verdict = match (trial.valid, trial.unmet.is_empty()) {
        (false, _) => "  generator late".to_owned(),
        (true, true) => String::new(),
        (true, false) => format!("  {}", trial.unmet.join(", ")),
    };
    format!(
        "{:>9} {:>11} {:>9} {:>9} {:>9} {:>9}{verdict}",
        text::rate(trial.rate),
        text::rate(trial.succeeded_per_second),
        text::percent(trial.error_share),
        latency(trial.p50_us),
        latency(trial.p99_us),
        latency(trial.p99_9_us),
    )
}

/// The heading over lines of [`trial`].
pub const TRIALS: &str = "    due/s succeeded/s    failed       p50       p99     p99.9";

/// The outcome of a search in words.
pub fn search(result: &SearchResult) -> String {
    let conditions = &result.conditions;
    let limit = match result.best.limited_by {
        Limit::Target => "beyond it the conditions fail",
        Limit::Generator => {
            "beyond it the generator is late: the target may do more than this machine can ask for"
        }
        Limit::RateMax => "it is the highest rate that was tried",
    };
    match result.best.per_second {
        Some(rate) => format!(
            "{}/s is the highest rate with {conditions}; {limit}{}\n",
            text::rate(rate),
            if result.best.confirmed {
                ""
            } else {
                " (not confirmed: the trials ran out)"
            }
        ),
        None => format!("no rate has {conditions}\n"),
    }
}

/// A sweep as a table, with its knee.
pub fn sweep(result: &SweepResult) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{TRIALS}");
    for one in &result.trials {
        let mark = if Some(one.rate) == result.knee && !result.knee_is_above {
            "  <- knee"
        } else {
            ""
        };
        let _ = writeln!(out, "{}{mark}", trial(one));
    }
    let _ = match (result.knee, result.knee_is_above) {
        (None, _) => writeln!(out, "already the lowest rate is beyond the knee"),
        (Some(_), true) => writeln!(out, "the knee is above the highest rate"),
        (Some(rate), false) => writeln!(
            out,
            "the knee is at {}/s: beyond it the p99 is more than twice that of low rates, more than 1 % fail, \
             or less than 95 % of what is due succeeds in time",
            text::rate(rate)
        ),
    };
    out
}

/// A comparison as a table, with its basis.
pub fn comparison(result: &Comparison) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{:<12} {:>11} {:>11}   {:>8}  99 % interval",
        "", "first", "second", "change"
    );
    for row in &result.rows {
        let _ = writeln!(out, "{}", comparison_row(row));
    }
    let _ = writeln!(
        out,
        "\n{}",
        if result.differs {
            "The runs differ."
        } else {
            "The runs are not distinguishable."
        }
    );
    let _ = writeln!(
        out,
        "Percentiles by order statistics, failures by Wilson, rates by Student's t, all corrected for how much \
         seconds differ;\nless than {} is no difference.",
        text::percent(result.tolerance)
    );
    for note in &result.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn comparison_row(row: &Row) -> String {
    let (name, value): (&str, fn(f64) -> String) = match row.quantity.as_str() {
        "succeeded_per_second" => ("succeeded/s", text::rate),
        "error_share" => ("failed", text::percent),
        percentile => (percentile, |us| text::micros(us as u64)),
    };
    let change = |ratio: f64| {
        if ratio >= 100.0 {
            return ">99 x".to_owned();
        }
        format!("{:+.1} %", (ratio - 1.0) * 100.0)
    };
    let interval = row.ratio.map_or_else(String::new, |ratio: Estimate| {
        format!("{} to {}", change(ratio.low), change(ratio.high))
    });
    let verdict = match row.verdict {
        Verdict::Better => "better",
        Verdict::Worse => "WORSE",
        Verdict::NotDistinguishable => "not distinguishable",
        Verdict::TooFew => "too few samples",
    };
    format!(
        "{name:<12} {:>11} {:>11}   {:>8}  {interval:<22} {verdict}",
        value(row.a.value),
        value(row.b.value),
        row.ratio
            .map_or_else(String::new, |ratio| change(ratio.value)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::compare;
    use crate::report::testing;

    fn one(rate: f64, p99_us: u64) -> Trial {
        Trial {
            rate,
            succeeded_per_second: rate,
            error_share: 0.0,
            p50_us: Some(p99_us / 3),
            p99_us: Some(p99_us),
            p99_9_us: None,
            kept_up: true,
            valid: true,
            unmet: Vec::new(),
        }
    }

    #[test]
    fn a_sweep_marks_its_knee() {
        let result = SweepResult {
            schema: "weft.load.sweep/1",
            knee: Some(200.0),
            knee_is_above: false,
            trials: vec![one(100.0, 1000), one(200.0, 1100), one(400.0, 9000)],
            plan: PlanSummary::default(),
            machine: Machine::default(),
        };
        let text = sweep(&result);
        let marked = text.lines().find(|line| line.ends_with("<- knee")).unwrap();
        assert!(marked.contains("200"), "{text}");
        assert!(text.contains("the knee is at 200/s"), "{text}");
    }

    #[test]
    fn a_search_says_what_is_in_the_way() {
        let result = |limited_by, per_second| SearchResult {
            schema: "weft.load.search/1",
            conditions: "p99<20ms".into(),
            best: Best {
                per_second,
                limited_by,
                confirmed: true,
            },
            trials: Vec::new(),
            plan: PlanSummary::default(),
            machine: Machine::default(),
        };
        assert!(search(&result(Limit::Target, Some(4000.0))).contains("4000/s is the highest"));
        assert!(search(&result(Limit::Generator, Some(4000.0))).contains("generator is late"));
        assert!(search(&result(Limit::Target, None)).contains("no rate has p99<20ms"));
    }

    #[test]
    fn a_comparison_shows_each_quantity_with_its_interval() {
        let a = testing::run();
        let text = comparison(&compare(&a, &a, 0.05).unwrap());
        for part in [
            "p99.9",
            "succeeded/s",
            "failed",
            "not distinguishable",
            "order statistics",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("The runs are not distinguishable."), "{text}");
    }
}
