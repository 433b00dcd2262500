//! Outcomes as JUnit XML, which every CI reads: a test case for each run. Pure.

use std::fmt::Write as _;

use crate::run::outcome::{Outcome, State};

/// The document.
pub fn junit(outcomes: &[Outcome]) -> String {
    let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|one| wanted(one)).count();
    let failures = count(|one| one.state == State::Failed && one.expected_failure.is_none());
    let errors = count(|one| matches!(one.state, State::Invalid(_) | State::Broken(_)));
    let skipped = count(|one| one.state == State::Failed && one.expected_failure.is_some());
    let seconds: f64 = outcomes.iter().map(|one| one.took.as_secs_f64()).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<testsuite name=\"weft lab\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{seconds:.3}\">",
        outcomes.len()
    );
    for outcome in outcomes {
        let _ = writeln!(
            out,
            "  <testcase classname=\"lab\" name=\"{}\" time=\"{:.3}\">",
            escaped(&outcome.scenario),
            outcome.took.as_secs_f64()
        );
        let broken: Vec<String> = outcome
            .verdicts
            .iter()
            .filter(|verdict| !verdict.holds)
            .map(|verdict| format!("{}, found {}", verdict.claim, verdict.found))
            .collect();
        let broken = escaped(&broken.join("; "));
        let _ = match (&outcome.state, &outcome.expected_failure) {
            (State::Passed, _) => Ok(()),
            (State::Failed, None) => writeln!(out, "    <failure message=\"{broken}\"/>"),
            // A known failure must not make every run red, nor look green.
            (State::Failed, Some(why)) => {
                let why = escaped(why);
                writeln!(
                    out,
                    "    <skipped message=\"known to fail: {why} ({broken})\"/>"
                )
            }
            (State::Invalid(why), _) => {
                writeln!(
                    out,
                    "    <error message=\"invalid run: {}\"/>",
                    escaped(why)
                )
            }
            (State::Broken(why), _) => {
                writeln!(out, "    <error message=\"{}\"/>", escaped(why))
            }
        };
        out.push_str("  </testcase>\n");
    }
    out.push_str("</testsuite>\n");
    out
}

/// Text as XML and HTML need it in attributes and between tags; control characters, which XML 1.0 cannot
/// contain, become spaces.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other if other.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::sample;
    use super::*;

    #[test]
    fn a_failed_run_is_a_failure_with_its_broken_claims() {
        let xml = junit(&[sample(0.1), sample(0.4)]);
        assert!(
            xml.contains("tests=\"2\" failures=\"1\" errors=\"0\""),
            "{xml}"
        );
        let line = "<failure message=\"requests p99 &lt;= 300ms, found 400ms\"/>";
        assert!(xml.contains(line), "{xml}");
    }

    #[test]
    fn a_known_failure_is_skipped_and_an_invalid_run_is_an_error() {
        let mut known = sample(0.4);
        known.expected_failure = Some("no migration yet".into());
        let mut invalid = sample(0.1);
        invalid.state = State::Invalid("late\u{1}".into());
        let xml = junit(&[known, invalid]);
        assert!(
            xml.contains("failures=\"0\" errors=\"1\" skipped=\"1\""),
            "{xml}"
        );
        assert!(
            xml.contains("<error message=\"invalid run: late \"/>"),
            "{xml}"
        );
    }
}
