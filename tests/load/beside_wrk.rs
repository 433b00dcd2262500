//! The same server under a well-known closed loop and under the open one: the figures of each.

use std::io::Write as _;
use std::process::Command;

use crate::harness::{Server, load};

/// A percentile that wrk reports, in milliseconds; `None` if it is not installed, which is printed and fails
/// in CI.
fn wrk(url: &str, percentile: &str) -> Option<f64> {
    let run = Command::new("wrk")
        .args(["-t1", "-c16", "-d6s", "--timeout", "10s", "--latency", url])
        .output();
    let Ok(output) = run else {
        let line = "SKIPPED a comparison with wrk: no program `wrk` on the PATH (scripts/test installs it, as root)";
        assert!(std::env::var_os("CI").is_none(), "{line}");
        // Written to the descriptor itself: the test runner captures the output of passing tests.
        let _ = writeln!(std::io::stderr(), "{line}");
        return None;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let row = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(percentile));
    let value = row
        .unwrap_or_else(|| panic!("no {percentile}: {text}"))
        .trim();
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let read = units.iter().find_map(|(unit, factor)| {
        let number: f64 = value.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    });
    Some(read.unwrap_or_else(|| panic!("{value}: {text}")))
}

#[test]
fn one_answer_in_a_hundred_that_stalls_is_one_in_a_hundred_for_the_open_loop_and_one_in_three_for_wrk()
 {
    let flags = ["--latency", "const:5ms,1%:500ms"];
    let server = Server::start(&flags);
    let Some(closed) = wrk(&server.url("http", "/"), "90%") else {
        return;
    };
    // wrk 4 knows that a closed loop omits requests, and adds some: as many as its connection would have sent
    // during the stall. Here one request stalls and no other waits for it, so those requests never existed.
    assert!(closed > 50.0, "wrk says that p90 is {closed} ms");
    let server = Server::start(&flags);
    let ran = load(&[&server.url("http", "/"), "--rate", "500", "-d", "8s"]);
    assert_eq!(ran.summary("succeeded"), 4000, "{ran:?}");
    for percentile in ["p50", "p90"] {
        let found = ran.latency_ms(percentile);
        assert!(
            found >= 5.0 && found * 2.0 < closed,
            "{percentile}: {found}, wrk's p90 {closed}"
        );
    }
    let found = ran.latency_ms("p99_9");
    assert!((500.0..600.0).contains(&found), "{found}");
}
