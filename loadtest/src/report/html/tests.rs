//! Tests of `loadtest/src/report/html/mod.rs`.

use super::*;
use crate::report::testing;

#[test]
fn a_page_has_its_plots_and_loads_nothing_from_elsewhere() {
    let html = page(&testing::run());
    assert_eq!(html.matches("<svg class=\"plot\"").count(), 3);
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    assert_eq!(
        html.matches("<section").count(),
        html.matches("</section>").count()
    );
    for foreign in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    for part in ["HTTP status 503", "p99.9", "Example CPU", "Passed."] {
        assert!(html.contains(part), "{part}");
    }
    for broken in ["NaN", "inf"] {
        assert!(!html.contains(&format!("{broken},")) && !html.contains(&format!("\"{broken}")));
    }
}

#[test]
fn nothing_that_a_target_or_a_file_says_becomes_markup() {
    let mut result = testing::run();
    result.plan.targets[0].url = "http://x/<script>alert('1')</script>?\"&".into();
    result.plan.protocol = "<b>".into();
    result.plan.arrivals = Some("<i>".into());
    result.errors.insert("<u>".into(), 3);
    result.machine.cpu = "<em>".into();
    result.machine.weft = "<q>".into();
    result.thresholds[0].condition = "p99><s>".into();
    result.thresholds[0].measured = Some("<tt>".into());
    result.generator.reasons = vec!["<del>".into()];
    let html = page(&result);
    for tag in [
        "<script", "<b>h", "<b></", "<i>", "<u>", "<em>", "<q>", "<s>", "<tt>", "<del>",
    ] {
        assert!(!html.contains(tag), "{tag}");
    }
    assert!(html.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;?&quot;&amp;"));
}

#[test]
fn a_run_without_an_answer_has_a_page() {
    let mut result = testing::run();
    result.latency = Default::default();
    result.service = Default::default();
    result.timeline.steps.clear();
    assert!(page(&result).contains("no latency"));
    // A histogram that was edited by hand is left out; it must not cause a panic.
    let mut result = testing::run();
    result.latency.histogram = "????".into();
    assert!(page(&result).contains("</html>"));
}
