//! The pictures of a run: latency, goodput and failures over time, within a page or as a file of its own.
//! Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::junit::escaped;
use super::plot::{COLOURS, HEIGHT, Line, Scale, WIDTH, plot};
use crate::run::outcome::{LoadReport, Outcome, Point};
use crate::scenario::quantity::Quantity;

/// Styles of a picture that stands alone; a page has its own.
const STYLE: &str = "text{font:10px system-ui,sans-serif;fill:#555}.title{font-size:12px;fill:#222}\
.grid{stroke:#ddd}.event{stroke:#888;stroke-dasharray:3 3}";

/// Height of a line of text below the pictures.
const LINE: f64 = 14.0;

/// One picture.
pub(super) struct Figure {
    title: &'static str,
    names: Vec<String>,
    elements: String,
}

impl Figure {
    /// For a page of HTML, with its legend.
    pub(super) fn inline(&self) -> String {
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">{}</svg>\n<p class=\"legend\">",
            escaped(self.title),
            self.elements
        );
        for (name, colour) in self.names.iter().zip(COLOURS.iter().cycle()) {
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                "<span style=\"color:{colour}\">&#9632;</span> {} ",
                escaped(name)
            );
        }
        out.push_str("</p>\n");
        out
    }
}

/// Latency, goodput and failures of a run.
pub(super) fn figures(outcome: &Outcome) -> [Figure; 3] {
    let answered = |value: f64| (value > 0.0).then_some(value);
    let mut latency = lines(outcome, "p99", |point| answered(point.p99));
    latency.extend(lines(outcome, "p50", |point| answered(point.p50)));
    let goodput = lines(outcome, "", |point| {
        Some(point.bytes as f64 / point.lasts.max(f64::EPSILON))
    });
    let failed = lines(outcome, "", |point| Some(point.failed as f64));
    let time = |value: f64| {
        let time = Duration::try_from_secs_f64(value).unwrap_or_default();
        Quantity::time(time).to_string()
    };
    let rate = |value: f64| Quantity::rate(value).to_string();
    let count = |value: f64| format!("{value:.0}");
    [
        figure(outcome, "latency", latency, Scale::Logarithmic, time),
        figure(outcome, "goodput", goodput, Scale::Linear, rate),
        figure(outcome, "failed requests", failed, Scale::Linear, count),
    ]
}

/// Latency and goodput of a run as one file of SVG.
pub fn svg(outcome: &Outcome) -> String {
    let [latency, goodput, _] = figures(outcome);
    let legend = |figure: &Figure, y: f64| {
        let mut out = format!("<text x=\"70\" y=\"{y}\">");
        for (name, colour) in figure.names.iter().zip(COLOURS.iter().cycle()) {
            let name = escaped(name);
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                "<tspan style=\"fill:{colour}\">&#9632;</tspan> {name} &#160; "
            );
        }
        out + "</text>\n"
    };
    let events = outcome.events.iter().enumerate();
    let events: Vec<String> = events
        .map(|(index, event)| format!("{}: {}", index + 1, event.what))
        .collect();
    let second = HEIGHT + LINE;
    let height = 2.0 * second + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{}\"><style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         {}{}<g transform=\"translate(0 {second})\">\n{}</g>\n{}<text x=\"70\" y=\"{}\">{}</text>\n</svg>\n",
        escaped(&outcome.scenario),
        latency.elements,
        legend(&latency, HEIGHT + 6.0),
        goodput.elements,
        legend(&goodput, second + HEIGHT + 6.0),
        second + HEIGHT + 6.0 + LINE,
        escaped(&events.join("; ")),
    )
}

fn figure(
    outcome: &Outcome,
    title: &'static str,
    lines: Vec<Line>,
    scale: Scale,
    label: impl Fn(f64) -> String,
) -> Figure {
    let points = outcome.loads.iter().flat_map(|load| &load.series);
    let ends = points.map(|point| point.at + point.lasts);
    let seconds = ends.fold(outcome.duration.as_secs_f64(), f64::max);
    Figure {
        title,
        elements: plot(title, &lines, &outcome.events, seconds, scale, label),
        names: lines.into_iter().map(|line| line.name).collect(),
    }
}

/// A line for each load.
fn lines(outcome: &Outcome, what: &str, value: impl Fn(&Point) -> Option<f64>) -> Vec<Line> {
    let line = |load: &LoadReport| Line {
        name: format!("{} {what}", load.load).trim().to_owned(),
        points: load
            .series
            .iter()
            .map(|point| (point.at, value(point)))
            .collect(),
    };
    outcome.loads.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::sample;
    use super::*;

    #[test]
    fn a_file_stands_alone_and_names_its_lines_and_events() {
        let mut outcome = sample(0.4);
        outcome.loads[0].load = "a<b".into();
        let file = svg(&outcome);
        assert!(file.starts_with("<svg xmlns="), "{file}");
        assert_eq!(file.matches("<svg").count(), 1);
        assert!(file.contains("a&lt;b p99"), "{file}");
        assert!(file.contains("1: wan: loss=5%"), "{file}");
    }
}
