//! `weft load --find-max` and `--sweep`: runs at several rates. `weft_loadtest::search` chooses the rates;
//! this runs them and reports the result of each.

use std::sync::Arc;

use weft_loadtest::limits;
use weft_loadtest::machine;
use weft_loadtest::plan::{Load, Plan};
use weft_loadtest::report::series::{self, SearchResult, SweepResult};
use weft_loadtest::schedule::Course;
use weft_loadtest::search::{Next, Search, Sweep, Trial, knee};
use weft_loadtest::threshold::{Conditions, Evaluated};

use super::run::Runner;
use crate::failure::{Code, Failure};
use crate::output::{Format, note, print_or};

/// Searches for the highest rate with which `conditions` hold.
pub fn find_max(
    runner: &Runner,
    plan: Plan,
    conditions: Conditions,
    output: Format,
) -> Result<(), Failure> {
    let conditions = conditions.with_errors_bounded();
    let mut search = Search::new(steady_rate(&plan), limits::RATE_MAX);
    let mut trials = Vec::new();
    note(series::TRIALS);
    let best = loop {
        let rate = match search.next() {
            Next::Try(rate) => rate,
            Next::Done(best) => break best,
        };
        let trial = try_rate(runner, &plan, rate, Some(&conditions))?;
        search.handle_trial(rate, trial.verdict());
        trials.push(trial);
    };
    let result = SearchResult {
        schema: "weft.load.search/1",
        conditions: conditions.to_string(),
        best,
        trials,
        plan: plan.summary(),
        machine: machine::this(env!("CARGO_PKG_VERSION")),
    };
    print_or(output, &result, series::search)?;
    if best.per_second.is_none() {
        let line = format!("no rate has {conditions}");
        return Err(Failure::new(Code::Failed, line));
    }
    Ok(())
}

/// Runs at each rate of `sweep`.
pub fn sweep(runner: &Runner, plan: Plan, sweep: &Sweep, output: Format) -> Result<(), Failure> {
    note(series::TRIALS);
    let mut trials = Vec::new();
    for rate in &sweep.rates {
        trials.push(try_rate(runner, &plan, *rate, None)?);
    }
    let knee = knee(&trials);
    let result = SweepResult {
        schema: "weft.load.sweep/1",
        knee: knee.map(|index| trials[index].rate),
        knee_is_above: knee.is_some_and(|index| index + 1 == trials.len()),
        trials,
        plan: plan.summary(),
        machine: machine::this(env!("CARGO_PKG_VERSION")),
    };
    print_or(output, &result, series::sweep)
}

/// One run at `rate`. Its line goes to stderr, because the result goes to stdout.
fn try_rate(
    runner: &Runner,
    plan: &Plan,
    rate: f64,
    conditions: Option<&Conditions>,
) -> Result<Trial, Failure> {
    let plan = Arc::new(at_rate(plan, rate)?);
    let ran = runner.run(&plan)?;
    if ran.interrupted {
        return Err(Failure::silent(Code::Interrupted));
    }
    let run = Evaluated {
        measurements: &ran.measurements,
        result: &ran.result,
    };
    let unmet = conditions.map_or_else(Vec::new, |conditions| conditions.unmet(&run));
    let unmet = unmet.iter().map(|one| {
        let measured = one.measured.as_deref().unwrap_or("nothing to measure");
        format!("{} is {measured}", one.condition)
    });
    let trial = Trial::of(rate, &ran.result, unmet.collect());
    note(series::trial(&trial));
    Ok(trial)
}

fn at_rate(plan: &Plan, rate: f64) -> Result<Plan, Failure> {
    let mut plan = plan.clone();
    if let Load::Open { course, .. } = &mut plan.load {
        *course = Course::steady(rate, course.length())
            .map_err(|error| Failure::new(Code::Usage, error))?;
    }
    Ok(plan)
}

/// The rate that the plan has throughout.
fn steady_rate(plan: &Plan) -> f64 {
    let Load::Open { course, .. } = &plan.load else {
        return limits::SEARCH_START;
    };
    course
        .stages()
        .first()
        .map_or(limits::SEARCH_START, |stage| stage.from)
}
