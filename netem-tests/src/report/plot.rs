//! Pictures of a run as inline SVG: one time axis, with the faults of the lab as lines across it. Pure.

use std::fmt::Write as _;

use super::junit::escaped;
use crate::run::outcome::Done;

/// Units of the picture; the browser scales it.
pub(super) const WIDTH: f64 = 900.0;
pub(super) const HEIGHT: f64 = 180.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 22.0;
/// Colours of the lines, which colour-blind people can tell apart, too.
pub(super) const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// A line of a picture.
pub(super) struct Line {
    /// The quantity.
    pub(super) name: String,
    /// Seconds, and the value; a gap where there is none.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// How the vertical axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten, for values over many of them.
    Logarithmic,
}

/// The picture of some lines over `seconds`, with numbered events across: the elements within an `svg`.
pub(super) fn plot(
    title: &str,
    lines: &[Line],
    events: &[Done],
    seconds: f64,
    scale: Scale,
    label: impl Fn(f64) -> String,
) -> String {
    let values = lines
        .iter()
        .flat_map(|line| &line.points)
        .filter_map(|(_, value)| *value);
    let positive = values.filter(|value| *value > 0.0 && value.is_finite());
    let (mut least, mut most) = (f64::INFINITY, 0.0f64);
    for value in positive {
        (least, most) = (least.min(value), most.max(value));
    }
    if most == 0.0 {
        (least, most) = (0.1, 1.0);
    }
    let (bottom, top) = match scale {
        Scale::Linear => (0.0, most * 1.1),
        Scale::Logarithmic => (
            least.log10().floor(),
            most.log10().ceil().max(least.log10().floor() + 1.0),
        ),
    };
    let span = seconds.max(0.001);
    let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT) * (at / span).clamp(0.0, 1.0);
    let y = |value: f64| {
        let value = match scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(10f64.powf(bottom)).log10(),
        };
        let share = ((value - bottom) / (top - bottom)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share
    };
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<text class=\"title\" x=\"4\" y=\"12\">{}</text>",
        escaped(title)
    );
    for tick in ticks(bottom, top, scale) {
        let at = y(tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            escaped(&label(tick))
        );
    }
    let step = (span / 10.0).ceil().max(1.0);
    let mut second = 0.0;
    while second <= span {
        let _ = writeln!(
            out,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{}\">{second:.0}s</text>",
            x(second),
            HEIGHT - 6.0
        );
        second += step;
    }
    for (index, event) in events.iter().enumerate() {
        let at = x(event.at.as_secs_f64());
        let _ = writeln!(
            out,
            "<line class=\"event\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/><text class=\"mark\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{}</text>",
            HEIGHT - BOTTOM,
            TOP - 3.0,
            index + 1
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        for piece in line.points.split(|(_, value)| value.is_none()) {
            let points = piece
                .iter()
                .filter_map(|(at, value)| Some(format!("{:.1},{:.1}", x(*at), y((*value)?))));
            let points: Vec<String> = points.collect();
            match points.as_slice() {
                [] => {}
                [only] => {
                    if let Some((cx, cy)) = only.split_once(',') {
                        let _ = writeln!(
                            out,
                            "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"2\" fill=\"{colour}\"/>"
                        );
                    }
                }
                several => {
                    let _ = writeln!(
                        out,
                        "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/>",
                        several.join(" ")
                    );
                }
            }
        }
    }
    out
}

fn ticks(bottom: f64, top: f64, scale: Scale) -> Vec<f64> {
    match scale {
        Scale::Linear => (0..=4).map(|n| top * f64::from(n) / 4.4).collect(),
        Scale::Logarithmic => {
            let mut ticks = Vec::new();
            let mut power = bottom;
            while power <= top {
                ticks.push(10f64.powf(power));
                power += 1.0;
            }
            ticks
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(points: Vec<(f64, Option<f64>)>, scale: Scale) -> String {
        let line = Line {
            name: "a".into(),
            points,
        };
        plot("t", &[line], &[], 10.0, scale, |value| value.to_string())
    }

    #[test]
    fn a_gap_divides_a_line() {
        let points = vec![
            (0.0, Some(1.0)),
            (1.0, Some(2.0)),
            (2.0, None),
            (3.0, Some(1.0)),
            (4.0, Some(1.0)),
        ];
        let svg = draw(points, Scale::Linear);
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
    }

    #[test]
    fn no_value_at_all_and_zero_draw_an_empty_picture_rather_than_none() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let svg = draw(
                vec![(0.0, Some(0.0)), (1.0, Some(f64::NAN)), (2.0, None)],
                scale,
            );
            assert!(svg.contains("class=\"tick\""), "{svg}");
            assert!(!svg.contains("inf"), "{svg}");
        }
    }
}
