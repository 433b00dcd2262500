//! Outcomes as one self-contained HTML page: the faults of the lab above latency, goodput and failures. Pure.

use std::fmt::Write as _;

use super::figures::figures;
use super::junit::escaped;
use crate::run::outcome::{Outcome, State};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;background:#fff;color:#222}\
table{border-collapse:collapse;margin:.6em 0}td,th{padding:.2em .8em .2em 0;text-align:left;border-bottom:1px solid #8884}\
svg{width:100%;height:auto;display:block}.grid{stroke:#8884}.event{stroke:#888;stroke-dasharray:3 3}\
.tick,.mark,.title{font:10px system-ui,sans-serif;fill:#777}.title{font-size:12px;fill:currentColor}\
.legend,ol{font-size:13px}.good{color:#007a4d}.bad{color:#c0392b;font-weight:600}h2{margin-top:2em}\
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}.good{color:#4cc38a}.bad{color:#ff8b7b}}";

/// The page.
pub fn html(outcomes: &[Outcome]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>weft lab</title><style>{STYLE}</style></head><body>\n<h1>weft lab</h1>\n"
    );
    out.push_str("<table><tr><th>scenario</th><th>result</th><th>seed</th><th>seconds</th></tr>\n");
    for (index, outcome) in outcomes.iter().enumerate() {
        let _ = writeln!(
            out,
            "<tr><td><a href=\"#run{index}\">{}</a></td><td class=\"{}\">{}</td><td>{}</td><td>{:.1}</td></tr>",
            escaped(&outcome.scenario),
            class(outcome.is_as_expected()),
            outcome.word(),
            outcome.seed,
            outcome.took.as_secs_f64()
        );
    }
    out.push_str("</table>\n");
    for (index, outcome) in outcomes.iter().enumerate() {
        section(&mut out, index, outcome);
    }
    out.push_str("</body></html>\n");
    out
}

fn section(out: &mut String, index: usize, outcome: &Outcome) {
    let _ = writeln!(
        out,
        "<h2 id=\"run{index}\">{}: <span class=\"{}\">{}</span></h2>\n<p>{}</p>",
        escaped(&outcome.scenario),
        class(outcome.is_as_expected()),
        outcome.word(),
        escaped(&outcome.description)
    );
    if let Some(why) = &outcome.expected_failure {
        let _ = writeln!(out, "<p>Known to fail: {}</p>", escaped(why));
    }
    match &outcome.state {
        State::Invalid(why) | State::Broken(why) => {
            let _ = writeln!(out, "<p class=\"bad\">{}</p>", escaped(why));
        }
        State::Passed | State::Failed => {}
    }
    if !outcome.verdicts.is_empty() {
        out.push_str("<table><tr><th>claim</th><th>found</th></tr>\n");
        for verdict in &outcome.verdicts {
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td class=\"{}\">{}</td></tr>",
                escaped(&verdict.claim),
                class(verdict.holds),
                escaped(&verdict.found)
            );
        }
        out.push_str("</table>\n");
    }
    if !outcome.events.is_empty() {
        out.push_str("<ol>");
        for event in &outcome.events {
            let _ = write!(
                out,
                "<li>{:.1}s {}</li>",
                event.at.as_secs_f64(),
                escaped(&event.what)
            );
        }
        out.push_str("</ol>\n");
    }
    if outcome.loads.iter().any(|load| !load.series.is_empty()) {
        for figure in figures(outcome) {
            out.push_str(&figure.inline());
        }
    }
}

fn class(is_good: bool) -> &'static str {
    if is_good { "good" } else { "bad" }
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::sample;
    use super::*;

    #[test]
    fn a_page_stands_alone_and_shows_events_above_three_pictures() {
        let page = html(&[sample(0.4)]);
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(page.contains("wan: loss=5%"), "{page}");
        assert!(page.contains("5 % &lt; 10 %"), "{page}");
        for outside in ["http://", "https://", "<script", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
