//! A comparison for people: blocks of lines, one cell for each variant. Pure. `text.rs` and `html.rs` lay it
//! out.

use super::document::Comparison;
use super::observe::{Figure, Part};
use super::summary::{Ratio, Row, Spread, Verdict};
use super::{CONTROL, DIRECT, Direction, Measurement, Path, Role, WEFT};
use crate::text;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The measurement, in words.
    pub title: String,
    /// Its figures.
    pub lines: Vec<Line>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name, with its unit.
    pub label: String,
    /// One for each variant, in the order of [`variants`].
    pub cells: Vec<Cell>,
    /// How far weft and weft again differed, as `4 %`.
    pub noise: String,
    /// Whether weft is compared with the others here.
    pub compares: bool,
    /// The words before the multiple that weft has of a figure: for figures of which more is better, or less.
    pub weft: &'static str,
}

/// The cell of one variant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The median; empty if there is none.
    pub value: String,
    /// From least to most.
    pub range: String,
    /// Whether a run had failures, or a generator that was late.
    pub doubtful: bool,
    /// The multiple of this that weft has, as `0.46 times`; empty if there is nothing to compare.
    pub weft_has: String,
    /// From least to most.
    pub weft_range: String,
    /// Its meaning.
    pub verdict: Option<Verdict>,
}

/// The variants that have a column: all but the control.
pub fn variants(comparison: &Comparison) -> Vec<&str> {
    let all = comparison.facts.variants.iter();
    all.map(|variant| variant.name.as_str()).collect()
}

/// All measurements.
pub fn blocks(comparison: &Comparison) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut last = None;
    for row in &comparison.rows {
        if last != Some(row.measurement) {
            last = Some(row.measurement);
            blocks.push(Block {
                title: title(row.measurement, comparison),
                lines: Vec::new(),
            });
        }
        let Some(block) = blocks.last_mut() else {
            continue;
        };
        let line = line(row, comparison);
        match (row.figure, block.lines.last_mut()) {
            // Beside the user time of the same side, which comes before it.
            (Figure::Cpu(Part::CallerSystem | Part::ServerSystem), Some(user)) => add(user, &line),
            _ => block.lines.push(line),
        }
    }
    blocks
}

/// Shows a second part beside the first.
fn add(first: &mut Line, second: &Line) {
    for (first, second) in first.cells.iter_mut().zip(&second.cells) {
        if !second.value.is_empty() {
            first.value = format!("{} + {}", first.value, second.value);
        }
        // Of two figures, neither has a range by itself.
        first.range = String::new();
        first.doubtful |= second.doubtful;
    }
}

fn title(measurement: Measurement, comparison: &Comparison) -> String {
    let conditions = &comparison.facts.conditions;
    let path = match measurement.path() {
        Path::Http => "HTTP",
        Path::Tcp => "TCP",
    };
    match measurement {
        Measurement::Closed(_) => format!(
            "{path}, {} connections, as many requests as they can",
            conditions.connections
        ),
        Measurement::Serial(_) => format!("{path}, one request after another"),
        Measurement::Rate(_, rate) => {
            format!(
                "{path}, {} requests per second at random times",
                text::count(rate.into())
            )
        }
        Measurement::Connect(_) => format!("{path}, a new connection for each request"),
        Measurement::Bulk(_, way) => format!(
            "{path}, one stream of {} {}",
            text::bytes(conditions.bulk_bytes as f64),
            match way {
                Direction::Down => "down, from the server",
                Direction::Up => "up, to the server",
            }
        ),
        Measurement::Idle(_) => format!(
            "{path}, memory, fresh and with {} idle connections",
            text::count(conditions.idle_connections as u64)
        ),
    }
}

fn line(row: &Row, comparison: &Comparison) -> Line {
    let cells = variants(comparison).into_iter().map(|name| {
        let Some(spread) = row.values.get(name) else {
            return Cell::default();
        };
        let show = |value| show(row, value);
        let mut cell = Cell {
            value: show(spread.median),
            range: range(spread, show),
            doubtful: row.doubtful.iter().any(|doubtful| doubtful == name),
            ..Cell::default()
        };
        if let Some(Ratio { spread, verdict }) = row.weft_over.get(name) {
            cell.weft_has = times(spread.median);
            cell.weft_range = range(spread, times);
            cell.verdict = Some(*verdict);
        }
        cell
    });
    let cells: Vec<Cell> = cells.collect();
    // The sum is judged, or the pair's part of it.
    let is_part = matches!(
        row.figure,
        Figure::Cpu(
            Part::CallerUser
                | Part::CallerSystem
                | Part::ServerUser
                | Part::ServerSystem
                | Part::Machine
        )
    );
    let noise = row.noise.filter(|_| !is_part);
    Line {
        label: label(row),
        noise: noise.map_or_else(String::new, |noise| {
            format!("{:.0} %", (noise - 1.0) * 100.0)
        }),
        compares: !is_part && cells.iter().any(|cell| cell.verdict.is_some()),
        weft: if row.figure.more_is_better() {
            "weft has"
        } else {
            "weft needs"
        },
        cells,
    }
}

fn range(spread: &Spread, show: impl Fn(f64) -> String) -> String {
    if spread.rounds < 2 {
        return String::new();
    }
    format!("{} to {}", show(spread.min), show(spread.max))
}

fn label(row: &Row) -> String {
    let per = match row.measurement {
        Measurement::Connect(_) => "us per connection",
        Measurement::Bulk(..) => "s per GiB",
        Measurement::Closed(_)
        | Measurement::Serial(_)
        | Measurement::Rate(..)
        | Measurement::Idle(_) => "us per request",
    };
    match row.figure {
        Figure::PerSecond if matches!(row.measurement, Measurement::Connect(_)) => {
            "connections per second".to_owned()
        }
        Figure::PerSecond => "requests per second".to_owned(),
        Figure::Throughput => "MB per second".to_owned(),
        Figure::P50 => "latency p50".to_owned(),
        Figure::P99 => "latency p99".to_owned(),
        Figure::P99_9 => "latency p99.9".to_owned(),
        Figure::Added => "p50 added to direct".to_owned(),
        Figure::Cpu(Part::Pair) => format!("CPU of the proxies, {per}"),
        Figure::Cpu(Part::CallerUser | Part::CallerSystem) => {
            "  caller's side, user + system".to_owned()
        }
        Figure::Cpu(Part::ServerUser | Part::ServerSystem) => {
            "  server's side, user + system".to_owned()
        }
        Figure::Cpu(Part::Machine) => format!("CPU of the machine, {per}"),
        Figure::Cpu(Part::MachineAdded) => format!("  added to direct, {per}"),
        Figure::Idle(Role::Caller) => "resident, caller's side, MiB".to_owned(),
        Figure::Idle(Role::Server) => "resident, server's side, MiB".to_owned(),
        Figure::PerConnection(Role::Caller) => "per connection, caller's side, KiB".to_owned(),
        Figure::PerConnection(Role::Server) => "per connection, server's side, KiB".to_owned(),
    }
}

fn show(row: &Row, value: f64) -> String {
    let is_bulk = matches!(row.measurement, Measurement::Bulk(..));
    match row.figure {
        Figure::PerSecond | Figure::Throughput => text::rate(value),
        Figure::P50 | Figure::P99 | Figure::P99_9 | Figure::Added => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", text::micros(value.abs().round() as u64))
        }
        Figure::Cpu(_) if is_bulk => format!("{value:.2}"),
        Figure::Cpu(_) | Figure::Idle(_) | Figure::PerConnection(_) => format!("{value:.1}"),
    }
}

/// A ratio with two significant digits.
fn times(ratio: f64) -> String {
    if ratio >= 10.0 {
        format!("{ratio:.0} times")
    } else if ratio >= 0.1 {
        format!("{ratio:.2} times")
    } else {
        format!("{ratio:.3} times")
    }
}

/// For each plug-in, in how many figures weft is better or worse.
pub fn in_short(comparison: &Comparison) -> Vec<String> {
    let blocks = blocks(comparison);
    let names = variants(comparison).into_iter().enumerate();
    let others = names.filter(|(_, name)| ![DIRECT, WEFT].contains(name));
    let tell = others.map(|(column, name)| {
        let lines = blocks.iter().flat_map(|block| &block.lines);
        let judged = lines.filter(|line| line.compares);
        let verdicts: Vec<Verdict> = judged
            .filter_map(|line| line.cells.get(column)?.verdict)
            .collect();
        let count = |verdict| verdicts.iter().filter(|one| **one == verdict).count();
        format!(
            "weft is better than {name} in {} figures, worse in {}, not distinguishable in {}",
            count(Verdict::WeftBetter),
            count(Verdict::WeftWorse),
            count(Verdict::NotDistinguishable)
        )
    });
    tell.collect()
}

/// One line about the source of the figures.
pub fn conditions(comparison: &Comparison) -> Vec<(&'static str, String)> {
    let facts = &comparison.facts;
    let conditions = &facts.conditions;
    let machine = &facts.machine;
    let mut lines = vec![
        (
            "machine",
            format!(
                "{}, {} cores, {}, {}; load average {:.1} at the start, {:.1} at the end",
                machine.cpu,
                machine.cores,
                text::bytes(machine.memory_bytes as f64),
                machine.kernel,
                facts.load_average[0],
                facts.load_average[1]
            ),
        ),
        ("wire", facts.wire.clone()),
        (
            "measured",
            format!(
                "{} rounds in rotating order, {} s each after {} s of warm-up; answers of {} bytes; \
                 {} worker threads in each proxy, {} in the generator",
                conditions.rounds,
                conditions.duration_s,
                conditions.warm_up_s,
                conditions.body_bytes,
                conditions.workers,
                conditions.generator_threads
            ),
        ),
    ];
    for variant in &facts.variants {
        let by = variant.command.as_ref();
        let by = by.map_or_else(String::new, |command| format!(" (by {command})"));
        lines.push((
            "variant",
            format!("{}: {}{by}", variant.name, variant.version),
        ));
    }
    lines.push(("command", facts.command.clone()));
    lines
}

/// How to read the table, in whole sentences.
pub fn legend() -> [String; 3] {
    [
        "Each figure is the median over the rounds. \"weft has\" (or \"needs\") compares weft's figure with the one \
         above it: 0.50 times is half as much, and \"better\" or \"worse\" is how weft does. It is the median of the \
         ratios within rounds."
            .to_owned(),
        format!(
            "\"noise\" is how far weft and the same pair measured again (\"{CONTROL}\") differed at most. What \
             differs by less, or not in the same direction in every round, is not distinguishable."
        ),
        "HTTP: the proxies understand the requests. TCP: they carry the same bytes without looking into them. \
         Time of the machine has the generator, the server and the kernel's own work in it; what it adds to \
         direct is what a pair costs in all."
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::{comparison, observation};

    #[test]
    fn a_line_has_a_cell_for_each_variant_and_what_weft_has_of_it() {
        let all = comparison();
        assert_eq!(variants(&all), ["direct", "weft", "<twice>", "same"]);
        let blocks = blocks(&all);
        assert_eq!(
            blocks[0].title,
            "HTTP, 64 connections, as many requests as they can"
        );
        let rate = &blocks[0].lines[0];
        assert_eq!(
            (rate.label.as_str(), rate.noise.as_str()),
            ("requests per second", "2 %")
        );
        assert_eq!(rate.cells[0].value, "36 364");
        assert_eq!(rate.cells[1].weft_has, "");
        assert_eq!(rate.cells[2].weft_has, "2.00 times");
        let cpu = &blocks[0].lines[1];
        assert_eq!(cpu.cells[0], Cell::default(), "direct has no proxies");
        assert_eq!(cpu.cells[3].verdict, Some(Verdict::NotDistinguishable));
    }

    #[test]
    fn figures_are_counted_by_what_they_say_of_weft() {
        assert_eq!(
            in_short(&comparison()),
            [
                "weft is better than <twice> in 2 figures, worse in 0, not distinguishable in 0",
                "weft is better than same in 0 figures, worse in 0, not distinguishable in 2"
            ]
        );
    }

    #[test]
    fn user_and_system_time_of_a_side_stand_beside_each_other() {
        let closed = Measurement::Closed(Path::Http);
        let parts = [
            (Figure::Cpu(Part::Pair), 75.0),
            (Figure::Cpu(Part::CallerUser), 50.0),
            (Figure::Cpu(Part::CallerSystem), 25.0),
        ];
        let found = vec![observation(0, "weft", closed, &parts)];
        let all = Comparison::new(crate::compare::testing::facts(), found);
        let lines = &blocks(&all)[0].lines;
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert_eq!(lines[1].cells[1].value, "50.0 + 25.0");
        assert!(!lines[1].compares);
    }

    #[test]
    fn one_round_has_no_range() {
        let serial = Measurement::Serial(Path::Http);
        let found = vec![observation(0, "weft", serial, &[(Figure::P50, 1234.0)])];
        let all = Comparison::new(crate::compare::testing::facts(), found);
        let cell = &blocks(&all)[0].lines[0].cells[1];
        assert_eq!((cell.value.as_str(), cell.range.as_str()), ("1.23 ms", ""));
    }

    #[test]
    fn ratios_keep_two_digits_that_mean_something() {
        assert_eq!(times(12.34), "12 times");
        assert_eq!(times(0.456), "0.46 times");
        assert_eq!(times(0.0123), "0.012 times");
    }
}
