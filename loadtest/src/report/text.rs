//! A result for people at a terminal. Pure. It shows first the outcome of the run, then the latencies, then
//! the failures and whether the generator can be trusted.

use std::fmt::Write as _;

use crate::result::{Distribution, Ended, Mode, Percentile, PlanSummary, RunResult, Step, Summary};
use crate::sample::ErrorKind;
use crate::text;

/// Columns of the plots over time.
const PLOT_COLUMNS: usize = 60;

/// Heights of a column in a plot.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The whole report, with a line break at its end.
pub fn report(result: &RunResult) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut out, result);
    out
}

/// A plan in one line: `open loop, 1000/s for 10 s, constant arrivals`.
pub fn plan(plan: &PlanSummary) -> String {
    let mut words = Vec::new();
    match plan.mode {
        Mode::Open => {
            words.push("open loop".to_owned());
            words.extend(stages(plan));
            words.extend(
                plan.arrivals
                    .as_ref()
                    .map(|kind| format!("{kind} arrivals")),
            );
        }
        Mode::Closed => words.push("closed loop".to_owned()),
    }
    if let (Some(connections), Mode::Closed) = (plan.connections, plan.mode) {
        words.push(format!("{connections} connections"));
    }
    if let Some(requests) = plan.requests {
        words.push(format!("{} requests", text::count(requests)));
    } else if let (Some(seconds), true) = (plan.duration_s, plan.stages.is_empty()) {
        words.push(format!("for {}", self::seconds(seconds)));
    }
    if plan.warm_up_s > 0.0 {
        words.push(format!("after {} of warm-up", seconds(plan.warm_up_s)));
    }
    words.join(", ")
}

fn stages(plan: &PlanSummary) -> Option<String> {
    let first = plan.stages.first()?;
    let steady = (first.from - first.to).abs() < f64::EPSILON;
    Some(match plan.stages.as_slice() {
        [stage] if steady => {
            format!(
                "{}/s for {}",
                text::rate(stage.from),
                seconds(stage.seconds)
            )
        }
        [stage] => format!(
            "{} to {}/s in {}",
            text::rate(stage.from),
            text::rate(stage.to),
            seconds(stage.seconds)
        ),
        stages => {
            let total = stages.iter().map(|stage| stage.seconds).sum();
            format!("{} stages in {}", stages.len(), seconds(total))
        }
    })
}

fn write_report(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let targets: Vec<&str> = result
        .plan
        .targets
        .iter()
        .map(|one| one.url.as_str())
        .collect();
    writeln!(out, "{}", printable(&targets.join(" ")))?;
    writeln!(out, "{}, {}", result.plan.protocol, plan(&result.plan))?;
    if result.summary.ended == Ended::Interrupted {
        writeln!(
            out,
            "interrupted: what follows is what was measured until then"
        )?;
    }
    writeln!(out)?;
    write_summary(out, result)?;
    writeln!(out)?;
    write_latency(out, result)?;
    write_phases(out, result)?;
    write_errors(out, result)?;
    write_timeline(out, result)?;
    writeln!(out)?;
    write_generator(out, result)?;
    write_thresholds(out, result)
}

fn write_summary(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let summary = &result.summary;
    let answered = if summary.requests == 0 {
        0.0
    } else {
        1.0 - summary.error_share
    };
    writeln!(
        out,
        "succeeded    {} of {} requests ({})",
        text::count(summary.succeeded),
        text::count(summary.requests),
        text::percent(answered)
    )?;
    write!(
        out,
        "rate         {}/s succeeded",
        text::rate(summary.succeeded_per_second)
    )?;
    if result.plan.mode == Mode::Open {
        write!(out, ", {}/s due", text::rate(summary.due_per_second))?;
    }
    writeln!(out)?;
    let per_second =
        |bytes: u64| text::bytes(bytes as f64 / summary.seconds.max(f64::MIN_POSITIVE));
    writeln!(
        out,
        "data         {} received ({}/s), {} sent ({}/s)",
        text::bytes(summary.bytes_in as f64),
        per_second(summary.bytes_in),
        text::bytes(summary.bytes_out as f64),
        per_second(summary.bytes_out),
    )?;
    writeln!(out, "connections  {}", connections(summary))?;
    match sent_again(summary) {
        Some(words) => writeln!(out, "sent again   {words}"),
        None => Ok(()),
    }
}

/// How often requests were sent again because the server had not processed them; nothing if that never
/// happened.
pub(crate) fn sent_again(summary: &Summary) -> Option<String> {
    let count = summary.resent;
    let times = if count == 1 { "time" } else { "times" };
    let count = (count > 0).then(|| text::count(count))?;
    Some(format!(
        "{count} {times}, because the server had not processed the request"
    ))
}

/// How many requests reused a connection, and how the handshakes of the others went.
pub(crate) fn connections(summary: &Summary) -> String {
    let reused = text::percent(summary.reused_share);
    let mut words = format!("{reused} of the requests on a reused one");
    if summary.handshakes > 0 {
        let handshakes = text::count(summary.handshakes);
        words.push_str(&format!(", {handshakes} handshakes"));
        if let Some(resumed) = summary.handshakes_resumed {
            words.push_str(&format!(", {} of them resumed", text::count(resumed)));
        }
    }
    words
}

fn write_latency(out: &mut String, result: &RunResult) -> std::fmt::Result {
    if result.latency.samples == 0 {
        return writeln!(out, "latency      nothing was answered, so there is none");
    }
    let open = result.plan.mode == Mode::Open;
    if open {
        writeln!(out, "latency      from when due   from when sent")?;
    } else {
        writeln!(out, "latency      from when sent")?;
    }
    let service = result.service.percentiles.list();
    for ((percent, latency), (_, service)) in
        result.latency.percentiles.list().into_iter().zip(service)
    {
        let name = text::percentile(percent);
        write_row(out, &name, cell(latency), open.then(|| cell(service)))?;
    }
    let value = |value: Option<u64>| value.map_or_else(String::new, text::micros);
    let (latency, service) = (&result.latency, &result.service);
    write_row(
        out,
        "max",
        value(latency.max_us),
        open.then(|| value(service.max_us)),
    )?;
    write_row(
        out,
        "mean",
        value(latency.mean_us),
        open.then(|| value(service.mean_us)),
    )?;
    let percentiles = result.latency.percentiles.list();
    if percentiles
        .iter()
        .any(|(_, found)| found.is_some_and(|found| found.coarse))
    {
        writeln!(
            out,
            "             * fewer than 10 of the {} samples lie beyond it: it may well differ next time",
            text::count(result.latency.samples)
        )?;
    }
    if result.latency.above_range > 0 {
        writeln!(
            out,
            "             {} took more than an hour and count as one",
            text::count(result.latency.above_range)
        )?;
    }
    Ok(())
}

fn write_row(
    out: &mut String,
    name: &str,
    latency: String,
    service: Option<String>,
) -> std::fmt::Result {
    // Each cell ends with the mark of a coarse percentile or a blank, so that units line up.
    let pad = |mut text: String| {
        if !text.ends_with('*') {
            text.push(' ');
        }
        text
    };
    let line = match service {
        Some(service) => format!("  {name:<8} {:>15}  {:>15}", pad(latency), pad(service)),
        None => format!("  {name:<8} {:>17}", pad(latency)),
    };
    writeln!(out, "{}", line.trim_end())
}

fn cell(percentile: Option<Percentile>) -> String {
    let Some(found) = percentile else {
        return String::new();
    };
    let mark = if found.coarse { "*" } else { "" };
    format!("{}{mark}", text::micros(found.us))
}

fn write_phases(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let phases = [
        ("connect", &result.phases.connect),
        ("tls", &result.phases.tls),
        ("first byte", &result.phases.first_byte),
        ("failures", &result.failed),
    ];
    let mut present = phases.iter().filter(|(_, one)| one.samples > 0).peekable();
    if present.peek().is_none() {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(
        out,
        "of which            samples        p50        p99        max"
    )?;
    for (name, one) in present {
        writeln!(
            out,
            "  {name:<12} {:>12} {:>10} {:>10} {:>10}",
            text::count(one.samples),
            percentile_of(one, 50.0),
            percentile_of(one, 99.0),
            one.max_us.map_or_else(String::new, text::micros),
        )?;
    }
    Ok(())
}

fn percentile_of(distribution: &Distribution, percent: f64) -> String {
    let list = distribution.percentiles.list();
    let found = list.into_iter().find(|(one, _)| *one >= percent);
    let value = found.and_then(|(_, percentile)| percentile);
    value.map_or_else(String::new, |percentile| text::micros(percentile.us))
}

fn write_errors(out: &mut String, result: &RunResult) -> std::fmt::Result {
    if result.errors.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(
        out,
        "failed       {} requests ({})",
        text::count(result.summary.failed),
        text::percent(result.summary.error_share)
    )?;
    let mut errors: Vec<(&String, &u64)> = result.errors.iter().collect();
    errors.sort_by(|one, other| other.1.cmp(one.1));
    for (token, count) in errors {
        writeln!(out, "  {:>9}  {}", text::count(*count), error_words(token))?;
    }
    Ok(())
}

/// The meaning of a token of the JSON.
pub(crate) fn error_words(token: &str) -> String {
    ErrorKind::from_token(token).map_or_else(|| printable(token), |kind| kind.to_string())
}

fn write_timeline(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let summary = &result.summary;
    writeln!(out)?;
    let gap = summary.longest_without_success;
    writeln!(
        out,
        "longest time without a success: {}, from {} on",
        text::micros(gap.us),
        seconds(gap.from_s)
    )?;
    if let Some(worst) = summary.worst_step {
        let name = if worst.seconds > 1.0 {
            format!("worst {}", seconds(worst.seconds))
        } else {
            "worst second".to_owned()
        };
        let p99 = worst
            .p99_us
            .map_or_else(String::new, |us| format!(", p99 {}", text::micros(us)));
        writeln!(
            out,
            "{name}: from {} on, {} of {} failed{p99}",
            seconds(worst.from_s),
            text::count(worst.failed),
            text::count(worst.ended),
        )?;
    }
    // After the measured time only late answers come.
    let whole = (summary.seconds / result.timeline.step_s).floor() as usize;
    let steps = &result.timeline.steps[..whole.min(result.timeline.steps.len())];
    if steps.len() < 5 {
        return Ok(());
    }
    let step_s = result.timeline.step_s;
    let rates = columns(steps, |step| step.succeeded as f64 / step_s);
    let p99s = columns(steps, |step| step.p99_us.unwrap_or(0) as f64);
    let highest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    writeln!(
        out,
        "  rate  {}  up to {}/s",
        plot(&rates),
        text::rate(highest(&rates))
    )?;
    writeln!(
        out,
        "  p99   {}  up to {}",
        plot(&p99s),
        text::micros(highest(&p99s) as u64)
    )
}

/// At most [`PLOT_COLUMNS`] values, each the highest of the steps that it stands for.
fn columns(steps: &[Step], value: impl Fn(&Step) -> f64) -> Vec<f64> {
    let width = steps.len().div_ceil(PLOT_COLUMNS).max(1);
    let columns = steps.chunks(width);
    columns
        .map(|chunk| chunk.iter().map(&value).fold(0.0, f64::max))
        .collect()
}

/// One bar for each value; a blank for none.
fn plot(values: &[f64]) -> String {
    let highest = values.iter().copied().fold(0.0, f64::max);
    let bars = values.iter().map(|value| {
        if *value <= 0.0 {
            return ' ';
        }
        let level = (value / highest * BARS.len() as f64).ceil() as usize;
        BARS[level.clamp(1, BARS.len()) - 1]
    });
    bars.collect()
}

fn write_generator(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let summary = &result.summary;
    if summary.unsent > 0 {
        writeln!(
            out,
            "UNSENT: {} requests were due while --max-in-flight others were open; they count as failures, \
             and the latencies leave out what they would have waited",
            text::count(summary.unsent)
        )?;
    } else if summary.held_back > 0 {
        writeln!(
            out,
            "held back: {} requests waited for others to end (--max-in-flight); the wait is in their latency",
            text::count(summary.held_back)
        )?;
    }
    let lateness = &result.generator.lateness;
    if result.plan.mode == Mode::Closed {
        writeln!(
            out,
            "closed loop: a slow answer delays the requests after it, and their wait is in no figure here; \
             --rate measures it"
        )?;
    } else if let Some(max) = lateness.max_us {
        writeln!(
            out,
            "generator    started 99 % within {} of their time, all within {}",
            percentile_of(lateness, 99.0),
            text::micros(max)
        )?;
    }
    if !result.generator.valid {
        for reason in &result.generator.reasons {
            writeln!(out, "INVALID: {reason}")?;
        }
        if result.summary.requests > 0 {
            writeln!(
                out,
                "         the figures measure the generator: use a lower rate, more --threads or an idle machine"
            )?;
        }
    }
    Ok(())
}

fn write_thresholds(out: &mut String, result: &RunResult) -> std::fmt::Result {
    for threshold in &result.thresholds {
        let verdict = if threshold.failed { "FAILED" } else { "ok" };
        let measured = threshold
            .measured
            .as_deref()
            .unwrap_or("nothing to measure");
        let coarse = if threshold.coarse {
            " (few samples beyond it)"
        } else {
            ""
        };
        writeln!(
            out,
            "fail if      {}: {measured}{coarse}, {verdict}",
            threshold.condition
        )?;
    }
    Ok(())
}

/// Seconds of a plan, as short as they were written.
fn seconds(seconds: f64) -> String {
    if (seconds - seconds.round()).abs() < 1e-9 {
        format!("{seconds:.0} s")
    } else {
        format!("{seconds:.1} s")
    }
}

/// URLs and tokens may come from a file: no control character reaches the terminal.
fn printable(text: &str) -> String {
    let replace = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests;
