//! Loads of a scenario, checked. Pure.

use std::time::Duration;

use super::check::Checker;
use super::raw::RawLoad;
use super::{Caller, Load, Pace, limits};

/// A load; `None` if its rate is not given. `duration` is the scenario's.
pub(super) fn load(
    checker: &mut Checker<'_>,
    name: String,
    raw: RawLoad,
    callers: &[Caller],
    duration: Duration,
) -> Option<Load> {
    let path = format!("loads.{name}");
    checker.label(&path, &name);
    let names: Vec<String> = callers.iter().map(|caller| caller.name.clone()).collect();
    if checker.known(format!("{path}.from"), "caller", &raw.from, &names) {
        let called = callers.iter().find(|caller| caller.name == raw.from);
        let called = called
            .map(|caller| caller.calls.as_slice())
            .unwrap_or_default();
        checker.known(
            format!("{path}.to"),
            &format!("service that {} calls", raw.from),
            &raw.to,
            called,
        );
    }
    let after = raw.after.map(|after| after.0).unwrap_or_default();
    let left = duration.saturating_sub(after);
    let lasts = raw.lasts.map_or(left, |lasts| lasts.0);
    if lasts.is_zero() || lasts > left {
        checker.problem(
            format!("{path}.{}", if left.is_zero() { "after" } else { "lasts" }),
            "it must begin and end within the scenario's `duration`",
        );
    }
    let deadline = raw
        .deadline
        .map_or(limits::DEADLINE_DEFAULT, |deadline| deadline.0);
    if deadline.is_zero() || deadline > limits::SCENARIO_DURATION_MAX {
        let most = limits::SCENARIO_DURATION_MAX.as_secs();
        let message = format!("write a duration of at most {most}s");
        checker.problem(format!("{path}.deadline"), message);
    }
    let pace = pace(checker, &path, raw.rate, raw.connections)?;
    Some(Load {
        name,
        from: raw.from,
        to: raw.to,
        over: raw.over,
        after,
        lasts,
        pace,
        path: raw.path.unwrap_or_else(|| "/".to_owned()),
        deadline,
        flags: raw.flags,
    })
}

fn pace(
    checker: &mut Checker<'_>,
    path: &str,
    rate: Option<f64>,
    connections: Option<u32>,
) -> Option<Pace> {
    match (rate, connections) {
        (Some(rate), None) if rate > 0.0 && rate <= limits::RATE_MAX => Some(Pace::Open(rate)),
        (None, Some(connections)) if (1..=limits::CONNECTIONS_MAX).contains(&connections) => {
            Some(Pace::Closed(connections))
        }
        (Some(_), None) => {
            let most = limits::RATE_MAX;
            let message = format!("write requests per second, more than 0 and at most {most}");
            checker.problem(format!("{path}.rate"), message);
            None
        }
        (None, Some(_)) => {
            let message = format!("write 1 to {}", limits::CONNECTIONS_MAX);
            checker.problem(format!("{path}.connections"), message);
            None
        }
        (Some(_), Some(_)) | (None, None) => {
            checker.problem(
                path,
                "write either `rate: 200` (requests per second) or `connections: 4`",
            );
            None
        }
    }
}
