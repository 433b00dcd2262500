//! Lines and areas over two axes, as SVG that takes its colours from the page's style. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::escape;
use crate::text;

/// The drawing's size in its own units; the page scales it.
const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 30.0;

/// A plot of some series.
pub(super) struct Plot<'a> {
    /// Read out by screen readers.
    pub(super) title: &'a str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: &'a [Series],
}

/// Named points with a colour of the style sheet.
pub(super) struct Series {
    name: &'static str,
    class: &'static str,
    points: Vec<(f64, f64)>,
    filled: bool,
}

impl Series {
    pub(super) fn line(name: &'static str, class: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self {
            name,
            class,
            points,
            filled: false,
        }
    }

    pub(super) fn area(name: &'static str, class: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self {
            filled: true,
            ..Self::line(name, class, points)
        }
    }
}

/// The scale of an axis, and its marks.
pub(super) struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
    marks: Vec<(f64, String)>,
}

impl Axis {
    /// Percentiles by their number of nines, as far as there are samples.
    pub(super) fn nines(samples: u64) -> Self {
        let to = ((samples.max(1) as f64) * 2.0).log10().max(1.0);
        let marks = [
            (0.0, "p0"),
            (50.0, "p50"),
            (90.0, "p90"),
            (99.0, "p99"),
            (99.9, "p99.9"),
            (99.99, "p99.99"),
            (99.999, "p99.999"),
        ];
        let marks = marks.into_iter().map(|(percent, name)| {
            let beyond = 1.0 - percent / 100.0;
            (-f64::log10(beyond), name.to_owned())
        });
        Self {
            from: 0.0,
            to,
            logarithmic: false,
            marks: marks.filter(|(at, _)| *at <= to).collect(),
        }
    }

    /// Seconds from zero.
    pub(super) fn time(end: f64) -> Self {
        let end = end.max(f64::EPSILON);
        let step = nice_step(end / 8.0);
        let label = |at: f64| format!("{} s", (at * 10.0).round() / 10.0);
        Self {
            from: 0.0,
            to: end,
            logarithmic: false,
            marks: marks(end, step, label),
        }
    }

    /// Durations in seconds, by decades if they differ by more than a factor of fifty.
    pub(super) fn latency(series: &[Series]) -> Self {
        let (low, high) = span(series);
        let label = |seconds: f64| {
            if seconds <= 0.0 {
                return "0".to_owned();
            }
            text::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
                .replace(".00 ", " ")
                .replace(".0 ", " ")
        };
        if low > 0.0 && high / low > 50.0 {
            let (from, to) = (low.log10().floor(), high.log10().ceil());
            let decades = (from as i32..=to as i32).map(|decade| 10f64.powi(decade));
            return Self {
                from,
                to,
                logarithmic: true,
                marks: decades.map(|at| (at, label(at))).collect(),
            };
        }
        let step = nice_step(high / 5.0);
        let to = (high / step).ceil().max(1.0) * step;
        Self {
            from: 0.0,
            to,
            logarithmic: false,
            marks: marks(to, step, label),
        }
    }

    /// Requests per second from zero.
    pub(super) fn rate(series: &[Series]) -> Self {
        let (_, high) = span(series);
        let step = nice_step(high / 5.0);
        let to = (high * 1.02 / step).ceil().max(1.0) * step;
        Self {
            from: 0.0,
            to,
            logarithmic: false,
            marks: marks(to, step, |rate| {
                if rate == rate.round() {
                    text::count(rate as u64)
                } else {
                    format!("{rate:.2}")
                }
            }),
        }
    }

    /// The place of a value, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic {
            value.max(f64::MIN_POSITIVE).log10()
        } else {
            value
        };
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

impl Plot<'_> {
    /// Writes the drawing.
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "<div class=\"scroll\"><svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        )?;
        let bottom = HEIGHT - BOTTOM;
        for (at, label) in &self.y.marks {
            let y = self.y_of(*at);
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"mark\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                escape(label)
            )?;
        }
        for (at, label) in &self.x.marks {
            let x = self.x_of(*at);
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text class=\"mark\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - 10.0,
                escape(label)
            )?;
        }
        for series in self
            .series
            .iter()
            .filter(|series| !series.points.is_empty())
        {
            self.write_series(out, series)?;
        }
        self.write_legend(out)?;
        writeln!(out, "</svg></div>")
    }

    fn write_series(&self, out: &mut String, series: &Series) -> std::fmt::Result {
        let mut path = String::new();
        for (index, (x, y)) in series.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            write!(path, "{command}{:.1} {:.1}", self.x_of(*x), self.y_of(*y))?;
        }
        if series.filled {
            let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else {
                return Ok(());
            };
            let bottom = HEIGHT - BOTTOM;
            writeln!(
                out,
                "<path class=\"area {}\" d=\"{path}L{:.1} {bottom}L{:.1} {bottom}Z\"/>",
                series.class,
                self.x_of(last.0),
                self.x_of(first.0)
            )?;
        }
        writeln!(out, "<path class=\"line {}\" d=\"{path}\"/>", series.class)
    }

    fn write_legend(&self, out: &mut String) -> std::fmt::Result {
        let mut x = LEFT;
        for series in self.series {
            writeln!(
                out,
                "<rect class=\"fill {}\" x=\"{x:.0}\" y=\"8\" width=\"14\" height=\"4\" rx=\"2\"/>\
                 <text class=\"legend\" x=\"{:.0}\" y=\"14\">{}</text>",
                series.class,
                x + 20.0,
                escape(series.name)
            )?;
            x += 48.0 + series.name.len() as f64 * 7.0;
        }
        Ok(())
    }

    fn x_of(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_of(&self, value: f64) -> f64 {
        let height = HEIGHT - TOP - BOTTOM;
        TOP + (1.0 - self.y.place(value)) * height
    }
}

/// The lowest and highest value of all series.
fn span(series: &[Series]) -> (f64, f64) {
    let values = series
        .iter()
        .flat_map(|one| &one.points)
        .map(|point| point.1);
    let (low, high) = values.fold((f64::INFINITY, 0.0f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    (if low.is_finite() { low } else { 0.0 }, high)
}

/// The next of 1, 2, 5, 10, 20, ... that is not below `step`.
fn nice_step(step: f64) -> f64 {
    if !(step.is_finite() && step > 0.0) {
        return 1.0;
    }
    let decade = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * decade >= step * 0.999_999);
    factor.unwrap_or(10.0) * decade
}

fn marks(to: f64, step: f64, label: impl Fn(f64) -> String) -> Vec<(f64, String)> {
    let count = (to / step).round().min(20.0) as u32;
    let places = (0..=count).map(|index| f64::from(index) * step);
    places
        .filter(|at| *at <= to * 1.000_001)
        .map(|at| (at, label(at)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_between_marks_are_round_numbers() {
        for (step, nice) in [
            (0.013, 0.02),
            (1.0, 1.0),
            (2.1, 5.0),
            (730.0, 1000.0),
            (0.0, 1.0),
        ] {
            assert!((nice_step(step) - nice).abs() < nice * 1e-9, "{step}");
        }
    }

    #[test]
    fn latencies_that_differ_much_are_drawn_by_decades() {
        let narrow = [Series::line("x", "a", vec![(0.0, 0.010), (1.0, 0.030)])];
        assert!(!Axis::latency(&narrow).logarithmic);
        let wide = [Series::line("x", "a", vec![(0.0, 0.001), (1.0, 0.2)])];
        let axis = Axis::latency(&wide);
        assert!(axis.logarithmic);
        let labels: Vec<&str> = axis.marks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["1 ms", "10 ms", "100 ms", "1 s"]);
    }

    #[test]
    fn an_axis_without_a_value_is_still_one() {
        let axis = Axis::latency(&[]);
        assert!(axis.place(0.0).is_finite());
        assert!(Axis::rate(&[]).place(5.0).is_finite());
        assert!(Axis::nines(0).place(1.0).is_finite());
    }
}
