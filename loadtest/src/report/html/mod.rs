//! A result as one self-contained HTML file: no scripts, fonts or pictures from elsewhere, so it can be
//! mailed, archived and opened without a network. Pure. The plots are in `plot.rs`, the style in `style.css`.

mod plot;

use std::fmt::Write as _;

use crate::histogram::Durations;
use crate::report::text::{connections, error_words, plan, sent_again};
use crate::result::{Ended, Mode, Percentile, RunResult, Step};
use crate::text;

use plot::{Axis, Plot, Series};

/// The style of every page of `weft load`.
pub(crate) const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(result: &RunResult) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_page(&mut out, result);
    out
}

/// Text as HTML, without any markup of its own.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn write_page(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let targets: Vec<&str> = result
        .plan
        .targets
        .iter()
        .map(|one| one.url.as_str())
        .collect();
    let target = escape(&targets.join(" "));
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>weft load {target}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>",
        STYLE
    )?;
    writeln!(
        out,
        "<header>\n<p class=\"kicker\">weft load</p>\n<h1>{target}</h1>\n<p>{}, {}</p>\n</header>",
        escape(&result.plan.protocol),
        escape(&plan(&result.plan))
    )?;
    write_notices(out, result)?;
    write_tiles(out, result)?;
    write_latency(out, result)?;
    write_over_time(out, result)?;
    write_failures(out, result)?;
    write_details(out, result)?;
    writeln!(out, "</main>\n</body>\n</html>")
}

/// Facts that must be read before any figure.
fn write_notices(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let mut notice = |class: &str, title: &str, text: &str| {
        writeln!(
            out,
            "<p class=\"notice {class}\"><strong>{}</strong> {}</p>",
            escape(title),
            escape(text)
        )
    };
    for reason in &result.generator.reasons {
        notice(
            "bad",
            "Invalid.",
            &format!("The figures measure the generator: {reason}."),
        )?;
    }
    if result.summary.ended == Ended::Interrupted {
        notice(
            "warn",
            "Interrupted.",
            "The figures are of what was measured until then.",
        )?;
    }
    if result.summary.unsent > 0 {
        let unsent = text::count(result.summary.unsent);
        notice(
            "warn",
            "Unsent.",
            &format!(
                "{unsent} requests were due while --max-in-flight others were open. They count as failures; \
                 the latencies leave out what they would have waited."
            ),
        )?;
    }
    if result.plan.mode == Mode::Closed {
        notice(
            "note",
            "Closed loop.",
            "A slow answer delays the requests after it, and their wait is in no figure here.",
        )?;
    }
    for threshold in &result.thresholds {
        let measured = threshold
            .measured
            .as_deref()
            .unwrap_or("nothing to measure");
        let (class, verdict) = if threshold.failed {
            ("bad", "Failed")
        } else {
            ("good", "Passed")
        };
        notice(
            class,
            &format!("{verdict}."),
            &format!("Fail if {}: {measured}.", threshold.condition),
        )?;
    }
    Ok(())
}

fn write_tiles(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let summary = &result.summary;
    let percentiles = &result.latency.percentiles;
    let value = |found: Option<Percentile>| {
        found.map_or_else(
            || "none".to_owned(),
            |one| {
                format!(
                    "{}{}",
                    text::micros(one.us),
                    if one.coarse { " *" } else { "" }
                )
            },
        )
    };
    let due = if result.plan.mode == Mode::Open {
        format!("{}/s due", text::rate(summary.due_per_second))
    } else {
        String::new()
    };
    let tiles = [
        (
            "Succeeded per second",
            text::rate(summary.succeeded_per_second),
            due,
        ),
        (
            "Failed",
            text::percent(summary.error_share),
            format!(
                "{} of {}",
                text::count(summary.failed),
                text::count(summary.requests)
            ),
        ),
        ("Median latency", value(percentiles.p50), String::new()),
        ("p99", value(percentiles.p99), String::new()),
        (
            "p99.9",
            value(percentiles.p99_9),
            result
                .latency
                .max_us
                .map_or_else(String::new, |us| format!("max {}", text::micros(us))),
        ),
        (
            "Longest without a success",
            text::micros(summary.longest_without_success.us),
            format!("from {:.1} s on", summary.longest_without_success.from_s),
        ),
    ];
    writeln!(out, "<section class=\"tiles\">")?;
    for (name, value, note) in tiles {
        writeln!(
            out,
            "<div><span>{name}</span><b>{}</b><small>{}</small></div>",
            escape(&value),
            escape(&note)
        )?;
    }
    writeln!(out, "</section>")
}

fn write_latency(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let open = result.plan.mode == Mode::Open;
    writeln!(out, "<section>\n<h2>Latency by percentile</h2>")?;
    if result.latency.samples == 0 {
        return writeln!(
            out,
            "<p>Nothing was answered, so there is no latency.</p>\n</section>"
        );
    }
    let mut series = Vec::new();
    if open {
        let service = by_percentile(&result.service.histogram);
        series.push(Series::line("from when sent", "b", service));
    }
    let name = if open {
        "from when due"
    } else {
        "from when sent"
    };
    // Drawn last, so on top where the two meet.
    series.push(Series::line(
        name,
        "a",
        by_percentile(&result.latency.histogram),
    ));
    let plot = Plot {
        title: "Latency by percentile",
        x: Axis::nines(result.latency.samples),
        y: Axis::latency(&series),
        series: &series,
    };
    plot.write(out)?;
    writeln!(
        out,
        "<div class=\"scroll\"><table><thead><tr><th></th><th>{name}</th>{}<th>samples beyond</th></tr></thead><tbody>",
        if open { "<th>from when sent</th>" } else { "" }
    )?;
    let services = result.service.percentiles.list();
    let latencies = result.latency.percentiles.list();
    for ((percent, latency), (_, service)) in latencies.into_iter().zip(services) {
        let Some(latency) = latency else { continue };
        let service = service.map_or_else(String::new, |one| text::micros(one.us));
        writeln!(
            out,
            "<tr><th>{}</th><td>{}</td>{}<td>{}{}</td></tr>",
            text::percentile(percent),
            text::micros(latency.us),
            if open {
                format!("<td>{service}</td>")
            } else {
                String::new()
            },
            text::count(latency.beyond),
            if latency.coarse { " *" } else { "" },
        )?;
    }
    writeln!(out, "</tbody></table></div>")?;
    if latencies
        .iter()
        .any(|(_, one)| one.is_some_and(|one| one.coarse))
    {
        writeln!(
            out,
            "<p class=\"fine\">* Fewer than ten samples lie beyond it: another run may give quite another value.</p>"
        )?;
    }
    writeln!(out, "</section>")
}

/// Points of a curve over the number of nines: 1 is p90, 2 is p99.
fn by_percentile(histogram: &str) -> Vec<(f64, f64)> {
    let Ok(durations) = Durations::decode(histogram) else {
        return Vec::new();
    };
    let samples = durations.len() as f64;
    let mut points = Vec::new();
    let mut below = 0;
    for (value, count) in durations.counts() {
        // The last sample has no sample beyond it: it is drawn where half a sample would be beyond it.
        let beyond = (samples - below as f64 - count as f64).max(0.5) / samples;
        below += count;
        points.push((-beyond.log10(), value.as_secs_f64()));
    }
    thin(points)
}

/// Fewer points than the plot has pixels: the first of every hundredth part of a nine.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let last = points.len().saturating_sub(1);
    for (index, point) in points.into_iter().enumerate() {
        let far = kept.last().is_none_or(|before| point.0 - before.0 >= 0.01);
        if far || index == last {
            kept.push(point);
        }
    }
    kept
}

fn write_over_time(out: &mut String, result: &RunResult) -> std::fmt::Result {
    let step_s = result.timeline.step_s;
    let whole = (result.summary.seconds / step_s).floor() as usize;
    let steps = &result.timeline.steps[..whole.min(result.timeline.steps.len())];
    if steps.len() < 2 {
        return Ok(());
    }
    let end = steps.len() as f64 * step_s;
    let over_time = |value: &dyn Fn(&Step) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = steps
            .iter()
            .filter_map(|step| Some((step.from_s + step_s / 2.0, value(step)?)));
        points.collect()
    };
    let seconds = |us: Option<u64>| us.map(|us| us as f64 / 1e6);
    let latencies = [
        Series::line("max", "c", over_time(&|step| seconds(step.max_us))),
        Series::line("p99", "a", over_time(&|step| seconds(step.p99_us))),
        Series::line("p50", "b", over_time(&|step| seconds(step.p50_us))),
    ];
    writeln!(out, "<section>\n<h2>Latency over time</h2>")?;
    let plot = Plot {
        title: "Latency over time",
        x: Axis::time(end),
        y: Axis::latency(&latencies),
        series: &latencies,
    };
    plot.write(out)?;
    writeln!(out, "</section>\n<section>\n<h2>Rate over time</h2>")?;
    let rates = [
        Series::line(
            "due",
            "b",
            over_time(&|step| Some(step.due as f64 / step_s)),
        ),
        Series::area(
            "succeeded",
            "a",
            over_time(&|step| Some(step.succeeded as f64 / step_s)),
        ),
        Series::line(
            "failed",
            "bad",
            over_time(&|step| Some(step.failed as f64 / step_s)),
        ),
    ];
    let plot = Plot {
        title: "Rate over time",
        x: Axis::time(end),
        y: Axis::rate(&rates),
        series: &rates,
    };
    plot.write(out)?;
    if let Some(worst) = result.summary.worst_step {
        writeln!(
            out,
            "<p class=\"fine\">Worst {} of the run: from {:.0} s on, {} of {} failed{}.</p>",
            if worst.seconds > 1.0 {
                "step"
            } else {
                "second"
            },
            worst.from_s,
            text::count(worst.failed),
            text::count(worst.ended),
            worst
                .p99_us
                .map_or_else(String::new, |us| format!(", p99 {}", text::micros(us))),
        )?;
    }
    writeln!(out, "</section>")
}

fn write_failures(out: &mut String, result: &RunResult) -> std::fmt::Result {
    writeln!(out, "<section>\n<h2>Failures</h2>")?;
    if result.errors.is_empty() {
        return writeln!(out, "<p>None.</p>\n</section>");
    }
    let mut errors: Vec<(&String, &u64)> = result.errors.iter().collect();
    errors.sort_by(|one, other| other.1.cmp(one.1));
    let most = errors.first().map_or(1, |(_, count)| (**count).max(1));
    writeln!(out, "<div class=\"scroll\"><table class=\"bars\"><tbody>")?;
    for (token, count) in errors {
        writeln!(
            out,
            "<tr><th>{}</th><td>{}</td><td><svg viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" \
             aria-hidden=\"true\"><rect class=\"fill bad\" width=\"{:.1}\" height=\"6\"/></svg></td></tr>",
            escape(&error_words(token)),
            text::count(*count),
            *count as f64 / most as f64 * 100.0
        )?;
    }
    writeln!(out, "</tbody></table></div>\n</section>")
}

fn write_details(out: &mut String, result: &RunResult) -> std::fmt::Result {
    writeln!(
        out,
        "<section>\n<h2>Parts of a request</h2>\n<div class=\"scroll\"><table><thead><tr><th></th><th>samples</th>\
         <th>p50</th><th>p99</th><th>max</th></tr></thead><tbody>"
    )?;
    let value = |one: Option<Percentile>| one.map_or_else(String::new, |one| text::micros(one.us));
    for (name, one) in [
        ("connect", &result.phases.connect),
        ("TLS or QUIC handshake", &result.phases.tls),
        ("first byte", &result.phases.first_byte),
        ("failures, but those out of time", &result.failed),
        ("lateness of the generator", &result.generator.lateness),
    ] {
        writeln!(
            out,
            "<tr><th>{name}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            text::count(one.samples),
            value(one.percentiles.p50),
            value(one.percentiles.p99),
            one.max_us.map_or_else(String::new, text::micros),
        )?;
    }
    writeln!(
        out,
        "</tbody></table></div>\n</section>\n<section>\n<h2>Conditions</h2>\n<dl>"
    )?;
    let (summary, machine) = (&result.summary, &result.machine);
    let facts = [
        (
            "Data",
            format!(
                "{} received, {} sent",
                text::bytes(summary.bytes_in as f64),
                text::bytes(summary.bytes_out as f64)
            ),
        ),
        ("Connections", connections(summary)),
        (
            "Sent again",
            sent_again(summary).unwrap_or_else(|| "never".to_owned()),
        ),
        (
            "Warm-up",
            format!(
                "{} requests, not counted",
                text::count(summary.warm_up_requests)
            ),
        ),
        ("Seed", result.plan.seed.to_string()),
        (
            "Machine",
            format!(
                "{}, {} cores, {}, {}",
                machine.cpu,
                machine.cores,
                text::bytes(machine.memory_bytes as f64),
                machine.kernel
            ),
        ),
        ("weft", machine.weft.clone()),
    ];
    for (name, value) in facts {
        writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value))?;
    }
    writeln!(out, "</dl>\n</section>")
}

#[cfg(test)]
mod tests;
