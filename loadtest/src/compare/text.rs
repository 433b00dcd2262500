//! A comparison as one table for a terminal. Pure.

use std::fmt::Write as _;

use super::document::Comparison;
use super::summary::Verdict;
use super::view::{self, Cell, Line};

/// The width that sentences are broken to.
const WIDTH: usize = 100;

/// The whole report.
pub fn report(comparison: &Comparison) -> String {
    let mut rows = Vec::new();
    let mut heading = vec![String::new()];
    heading.extend(view::variants(comparison).into_iter().map(str::to_owned));
    heading.push("noise".to_owned());
    rows.push(heading);
    for block in view::blocks(comparison) {
        rows.push(Vec::new());
        rows.push(vec![block.title]);
        for line in &block.lines {
            add(&mut rows, line);
        }
    }
    let mut out = table(&rows);
    out.push('\n');
    let in_short = view::in_short(comparison);
    for line in &in_short {
        wrap(&mut out, "", line);
    }
    if !in_short.is_empty() {
        out.push('\n');
    }
    for sentence in view::legend() {
        wrap(&mut out, "", &sentence);
    }
    let mut warnings = comparison.warnings();
    let has_doubtful = comparison.rows.iter().any(|row| !row.doubtful.is_empty());
    if has_doubtful {
        warnings.insert(
            0,
            "figures with * are doubtful in at least one round, for a reason below".to_owned(),
        );
    }
    if !warnings.is_empty() {
        out.push('\n');
    }
    for warning in warnings {
        wrap(&mut out, "! ", &warning);
    }
    out.push('\n');
    for (name, text) in view::conditions(comparison) {
        wrap(&mut out, &format!("{name:<9} "), &text);
    }
    out
}

fn add(rows: &mut Vec<Vec<String>>, line: &Line) {
    let mut row = vec![format!("  {}", line.label)];
    row.extend(line.cells.iter().map(value));
    row.push(line.noise.clone());
    rows.push(row);
    if line.compares {
        let mut row = vec![format!("    {}", line.weft)];
        row.extend(line.cells.iter().map(verdict));
        rows.push(row);
    }
}

fn value(cell: &Cell) -> String {
    let star = if cell.doubtful { "*" } else { "" };
    if cell.value.is_empty() {
        "-".to_owned()
    } else {
        format!("{}{star}", cell.value)
    }
}

fn verdict(cell: &Cell) -> String {
    match cell.verdict {
        Some(Verdict::WeftBetter) => format!("{}: better", cell.weft_has),
        Some(Verdict::WeftWorse) => format!("{}: worse", cell.weft_has),
        Some(Verdict::NotDistinguishable) => "not distinguishable".to_owned(),
        None => String::new(),
    }
}

/// Rows of cells in columns: the first to the left, the others to the right. A row of one cell is a title.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| row.len() > 1);
        let widths = cells.filter_map(|row| Some(row.get(column)?.chars().count()));
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Writing to a String cannot fail.
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
    out
}

/// Words after `prefix`, in lines of [`WIDTH`] at most; later lines are indented as far.
fn wrap(out: &mut String, prefix: &str, text: &str) {
    let indent = " ".repeat(prefix.chars().count());
    let mut line = prefix.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            line.clone_from(&indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::comparison;

    #[test]
    fn a_report_says_what_weft_has_of_each_and_what_is_noise() {
        let report = report(&comparison());
        let line = |start: &str| {
            let mut lines = report.lines();
            lines
                .find(|line| line.trim_start().starts_with(start))
                .unwrap_or_default()
                .to_owned()
        };
        assert!(
            report.starts_with("                                     "),
            "{report}"
        );
        assert!(line("requests per second").ends_with("2 %"), "{report}");
        assert!(line("weft has").contains("0.25 times: worse"), "{report}");
        assert!(line("weft has").contains("2.00 times: better"), "{report}");
        assert!(
            line("weft has").ends_with("not distinguishable"),
            "{report}"
        );
        assert!(line("weft needs").contains("times: better"), "{report}");
        assert!(line("CPU of the proxies").contains("  -  "), "{report}");
        assert!(line("command").contains("weft load compare"), "{report}");
        assert!(
            report.contains("How") || report.contains("Each figure is the median"),
            "{report}"
        );
    }

    #[test]
    fn a_figure_of_a_run_that_failed_is_marked_and_explained() {
        let mut all = comparison();
        all.observations[1].failed = 5;
        let report = report(&Comparison::new(all.facts, all.observations));
        assert!(report.contains("9091*"), "{report}");
        assert!(report.contains("! figures with *"), "{report}");
        assert!(report.contains("5 of 1000 requests failed"), "{report}");
    }

    #[test]
    fn long_sentences_are_broken_and_indented() {
        let mut out = String::new();
        wrap(&mut out, "command   ", &"word ".repeat(40));
        assert_eq!(out.lines().count(), 3);
        assert!(out.lines().all(|line| line.len() <= WIDTH));
        assert!(out.lines().nth(1).unwrap().starts_with("          word"));
    }
}
