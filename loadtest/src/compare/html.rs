//! A comparison as one self-contained HTML file: no scripts, fonts or pictures from elsewhere. Pure. It uses
//! the style sheet of the other reports of `weft load`.

use std::fmt::Write as _;

use super::document::Comparison;
use super::summary::Verdict;
use super::view::{self, Block, Cell, Line};
use crate::report::html::{STYLE, escape};

/// The whole page.
pub fn page(comparison: &Comparison) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_page(&mut out, comparison);
    out
}

fn write_page(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let names = view::variants(comparison);
    let title = escape(&names.join(", "));
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>weft load compare: {title}</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<p class=\"kicker\">weft load compare</p>\n<h1>{title}</h1>\n<p>{}</p>\n</header>",
        include_str!("style.css"),
        escape(&comparison.facts.wire),
    )?;
    for line in view::in_short(comparison) {
        writeln!(out, "<p class=\"notice\">{}</p>", escape(&line))?;
    }
    for warning in comparison.warnings() {
        writeln!(
            out,
            "<p class=\"notice warn\"><strong>Mind.</strong> {}</p>",
            escape(&warning)
        )?;
    }
    for block in view::blocks(comparison) {
        write_block(out, &names, &block)?;
    }
    writeln!(out, "<section>\n<h2>How to read it</h2>")?;
    for sentence in view::legend() {
        writeln!(out, "<p>{}</p>", escape(&sentence))?;
    }
    writeln!(out, "</section>\n<section>\n<h2>Conditions</h2>\n<dl>")?;
    for (name, text) in view::conditions(comparison) {
        writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&text))?;
    }
    writeln!(out, "</dl>\n</section>\n</main>\n</body>\n</html>")
}

fn write_block(out: &mut String, names: &[&str], block: &Block) -> std::fmt::Result {
    writeln!(
        out,
        "<section>\n<h2>{}</h2>\n<div class=\"scroll\"><table class=\"compare\"><thead><tr><th></th>",
        escape(&block.title)
    )?;
    // Columns of the variants that have a value here: a page is narrower than a terminal can be.
    let has_value = |column: usize| {
        let mut lines = block.lines.iter();
        lines.any(|line| {
            line.cells
                .get(column)
                .is_some_and(|cell| !cell.value.is_empty())
        })
    };
    let columns: Vec<usize> = (0..names.len())
        .filter(|column| has_value(*column))
        .collect();
    for column in &columns {
        write!(out, "<th>{}</th>", escape(names[*column]))?;
    }
    writeln!(out, "<th>noise</th></tr></thead><tbody>")?;
    for line in &block.lines {
        let class = if line.label.starts_with(' ') {
            " class=\"part\""
        } else {
            ""
        };
        write!(
            out,
            "<tr{class}><th>{}</th>",
            escape(line.label.trim_start())
        )?;
        for column in &columns {
            write_cell(out, &line.cells[*column], line)?;
        }
        writeln!(out, "<td>{}</td></tr>", escape(&line.noise))?;
    }
    writeln!(out, "</tbody></table></div>\n</section>")
}

fn write_cell(out: &mut String, cell: &Cell, line: &Line) -> std::fmt::Result {
    let star = if cell.doubtful { " *" } else { "" };
    write!(out, "<td><b>{}{star}</b>", escape(&cell.value))?;
    if !cell.range.is_empty() {
        write!(out, "<small>{}</small>", escape(&cell.range))?;
    }
    let (class, words) = match cell.verdict.filter(|_| line.compares) {
        None => return write!(out, "</td>"),
        Some(Verdict::WeftBetter) => ("good", "better"),
        Some(Verdict::WeftWorse) => ("bad", "worse"),
        Some(Verdict::NotDistinguishable) => ("soft", "not distinguishable"),
    };
    write!(
        out,
        "<small class=\"{class}\">{} {}: {words}</small>",
        line.weft,
        escape(&cell.weft_has)
    )?;
    if !cell.weft_range.is_empty() {
        write!(out, "<small>{}</small>", escape(&cell.weft_range))?;
    }
    write!(out, "</td>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::comparison;

    #[test]
    fn a_page_needs_nothing_else_and_nothing_in_it_is_markup() {
        let html = page(&comparison());
        assert!(
            html.contains("&lt;twice&gt;") && !html.contains("<twice>"),
            "{html}"
        );
        for foreign in ["http://", "https://", "<script", "src=", "url("] {
            assert!(!html.contains(foreign), "{foreign}");
        }
        assert_eq!(html.matches("<td>").count(), html.matches("</td>").count());
        assert!(
            html.contains("weft has 2.00 times: better</small><small>2.00 times to 2.00 times"),
            "{html}"
        );
        assert!(html.contains("not distinguishable</small>"), "{html}");
    }
}
