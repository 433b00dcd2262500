//! The figures match the known values.

use crate::harness::{Server, load};

#[test]
fn one_response_in_a_hundred_that_stalls_is_in_the_percentiles_where_it_belongs() {
    let server = Server::start(&["--latency", "const:5ms,1%:200ms"]);
    let url = server.url("http", "/");
    let ran = load(&[&url, "--rate", "500", "-d", "8s", "--seed", "7"]);
    assert_eq!(ran.summary("succeeded"), 4000, "{ran:?}");
    let p50 = ran.latency_ms("p50");
    assert!((5.0..20.0).contains(&p50), "{p50}");
    // 40 of 4000 are expected to stall: the 0.1 % beyond this percentile are all of these.
    let highest = ran.latency_ms("p99_9");
    assert!((200.0..300.0).contains(&highest), "{highest}");
    let p95 = ran.latency_ms("p95");
    assert!(p95 < 150.0, "{p95}");
}

#[test]
fn a_freeze_is_seen_by_every_request_that_was_due_in_it() {
    let server = Server::start(&["--freeze", "1s@2s"]);
    let ran = load(&[&server.url("http", "/"), "--rate", "400", "-d", "5s"]);
    assert_eq!(ran.summary("succeeded"), 2000, "{ran:?}");
    // A fifth of the requests wait for what is left of the second: a share of 0.2 (1 - x) waits for
    // longer than x seconds.
    for (percentile, analytic) in [("p90", 500.0), ("p95", 750.0), ("p99", 950.0)] {
        let found = ran.latency_ms(percentile);
        let range = analytic * 0.96..analytic * 1.1 + 20.0;
        assert!(
            range.contains(&found),
            "{percentile}: {found}, expected {analytic}"
        );
    }
    let gap = ran.json()["summary"]["longest_without_success"]["us"].as_u64();
    assert!((950_000..1_200_000).contains(&gap.unwrap()), "{gap:?}");
}

#[test]
fn a_closed_loop_hides_the_freeze_that_an_open_one_shows() {
    let server = Server::start(&["--freeze", "1s@1s", "--latency", "2ms"]);
    let url = server.url("http", "/");
    let ran = load(&[&url, "--closed", "-c", "2", "-d", "4s"]);
    // Two of some thousands of requests met it.
    assert!(ran.latency_ms("p99") < 200.0, "{ran:?}");
    let longest = ran.json()["latency"]["max_us"].as_u64().unwrap();
    assert!(longest > 950_000, "{longest}");
}

#[test]
fn latency_counts_from_when_a_request_was_due_and_service_time_from_when_it_was_sent() {
    // One connection serves 10/s, and 20/s are due for a second: the last waits for a second.
    let server = Server::start(&["--latency", "100ms"]);
    let url = server.url("http", "/");
    let arguments = [
        &url, "--rate", "20", "-d", "1s", "-c", "1", "--grace", "10s",
    ];
    let ran = load(&arguments);
    assert_eq!(ran.summary("succeeded"), 20, "{ran:?}");
    assert!(ran.summary("held_back") >= 10, "{ran:?}");
    let longest = ran.json()["latency"]["max_us"].as_u64().unwrap();
    assert!((1_000_000..1_500_000).contains(&longest), "{longest}");
    let service = ran.json()["service"]["percentiles"]["p50"]["us"].as_u64();
    assert!(
        (100_000..150_000).contains(&service.unwrap()),
        "{service:?}"
    );
}

#[test]
fn the_rate_is_the_one_that_was_asked_for() {
    let server = Server::start(&[]);
    let url = server.url("http", "/");
    for rate in [10, 100, 1000, 5000] {
        let ran = load(&[&url, "--rate", &rate.to_string(), "-d", "4s"]);
        assert_eq!(ran.summary("requests"), 4 * rate, "{ran:?}");
        assert_eq!(ran.summary("succeeded"), 4 * rate, "{ran:?}");
        // A schedule that drifted would start requests later and later: if they start within 1 % of the run's
        // length of their time, the rate is right within 1 %.
        let late = &ran.json()["generator"]["lateness"]["percentiles"]["p99"]["us"];
        assert!(late.as_u64().unwrap() < 40_000, "{rate}/s: {late} us");
        // As many in each second; a request that ends in a second may have been due in the one before.
        let json = ran.json();
        let steps = json["timeline"]["steps"].as_array().unwrap();
        let due: Vec<u64> = steps
            .iter()
            .filter_map(|step| step["due"].as_u64())
            .collect();
        assert_eq!(due.get(..4), Some(&[rate; 4][..]), "{due:?}");
    }
    let ran = load(&[&url, "--ramp", "0:200:2s"]);
    assert_eq!(ran.summary("requests"), 200, "{ran:?}");
}

#[test]
fn what_the_warm_up_sends_does_not_count() {
    let server = Server::start(&[]);
    let arguments = ["--rate", "100", "-d", "1s", "--warm-up", "1s"];
    let ran = load(&[&[server.url("http", "/").as_str()], &arguments[..]].concat());
    assert_eq!(ran.summary("requests"), 100, "{ran:?}");
    assert_eq!(ran.summary("warm_up_requests"), 100, "{ran:?}");
}
