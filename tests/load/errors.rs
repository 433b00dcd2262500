//! Failures are counted by kind, and an impossible run gives one line with the right exit code.

use std::net::TcpListener;

use crate::harness::{Server, load};

#[test]
fn arrivals_beyond_the_bound_are_unsent_and_are_failures() {
    let server = Server::start(&["--latency", "2s"]);
    let url = server.url("http", "/");
    let arguments = ["--rate", "100", "-d", "1s", "--max-in-flight", "10"];
    let ran = load(&[&[url.as_str(), "--grace", "5s"], &arguments[..]].concat());
    assert_eq!(ran.summary("requests"), 100, "{ran:?}");
    assert_eq!(ran.summary("unsent"), 90, "{ran:?}");
    assert_eq!(ran.failed("unsent"), 90, "{ran:?}");
    assert_eq!(ran.summary("succeeded"), 10, "{ran:?}");
}

#[test]
fn what_is_open_at_the_end_counts_with_its_age() {
    let server = Server::start(&["--latency", "1ms,50%:60s"]);
    let url = server.url("http", "/");
    let ran = load(&[&url, "--rate", "50", "-d", "1s", "--grace", "500ms"]);
    let open = ran.failed("open_at_end");
    assert!((10..40).contains(&open), "{ran:?}");
    assert_eq!(ran.summary("succeeded") + open, 50, "{ran:?}");
    let longest = ran.json()["latency"]["max_us"].as_u64().unwrap();
    assert!((1_300_000..2_500_000).contains(&longest), "{longest}");
}

#[test]
fn a_deadline_ends_a_request_and_counts_its_age() {
    let server = Server::start(&["--latency", "1ms,50%:60s"]);
    let url = server.url("http", "/");
    let ran = load(&[&url, "--rate", "50", "-d", "1s", "--deadline", "200ms"]);
    let late = ran.failed("deadline");
    assert!((10..40).contains(&late), "{ran:?}");
    assert!(ran.latency_ms("p99") >= 199.0, "{ran:?}");
    assert!(ran.latency_ms("p99") < 400.0, "{ran:?}");
}

#[test]
fn statuses_fail_unless_they_are_expected_and_thresholds_set_the_exit_code() {
    // Slow, so that the lateness of a busy machine does not make the run invalid.
    let server = Server::start(&["--errors", "30%", "--latency", "300ms"]);
    let url = server.url("http", "/");
    let run = |more: &[&str]| load(&[&[url.as_str(), "--rate", "100", "-d", "2s"], more].concat());
    let ran = run(&["--fail-if", "errors>10%"]);
    let failed = ran.failed("status_503");
    assert!((35..90).contains(&failed), "{ran:?}");
    assert_eq!(ran.code, 99, "{ran:?}");
    assert!(ran.stderr.contains("errors>10%"), "{ran:?}");
    let ran = run(&["--ok", "200,503", "--fail-if", "errors>0%"]);
    assert_eq!((ran.code, ran.summary("failed")), (0, 0), "{ran:?}");
}

#[test]
fn answers_that_are_not_the_expected_ones_fail() {
    let server = Server::start(&["--body", "3B"]);
    let url = server.url("http", "/");
    // SHA-256 of "xxx", which is what the server sends, and of nothing.
    let good = "cd2eb0837c9b4c962c22d2ff8b5441b7b45805887f051d39bf133b583baf6860";
    let bad = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let run = |more: &[&str]| load(&[&[url.as_str(), "--rate", "50", "-n", "20"], more].concat());
    assert_eq!(
        run(&["--expect-body-sha256", good]).summary("succeeded"),
        20
    );
    assert_eq!(
        run(&["--expect-body-sha256", bad]).failed("unexpected_body"),
        20
    );
    assert_eq!(run(&["--expect-header", "date"]).summary("succeeded"), 20);
    let missing = run(&["--expect-header", "x-version: 2"]);
    assert_eq!(missing.failed("unexpected_header"), 20);
    assert_eq!(missing.code, 1);
}

#[test]
fn an_unreachable_server_is_one_line_before_the_run() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let ran = load(&[&format!("http://{address}/"), "--rate", "10"]);
    assert_eq!(ran.code, 1);
    assert!(ran.one_line().contains("refused"), "{ran:?}");
    assert!(ran.one_line().contains(&address.to_string()), "{ran:?}");
    let ran = load(&["http://no-such-host.invalid/", "--rate", "10"]);
    assert_eq!(ran.code, 1);
    assert!(ran.one_line().contains("no-such-host.invalid"), "{ran:?}");
}

#[test]
fn a_server_without_tls_is_reported_before_the_run() {
    let server = Server::start(&[]);
    let url = server.url("http", "/").replace("http:", "https:");
    let ran = load(&[&url, "--insecure", "--rate", "10"]);
    assert_eq!(ran.code, 1);
    assert!(ran.one_line().contains("TLS handshake failed"), "{ran:?}");
}

#[test]
fn a_server_of_another_protocol_is_reported_as_such() {
    let server = Server::start(&[]);
    // The echo of a request is no response.
    let url = server.url("tcp", "/").replace("tcp:", "http:");
    let ran = load(&[&url, "--rate", "20", "-n", "10"]);
    assert_eq!(ran.failed("protocol"), 10, "{ran:?}");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("not a message of the protocol"),
        "{ran:?}"
    );
}

#[test]
fn wrong_usage_is_one_line_and_2() {
    for (arguments, hint) in [
        (&["http://127.0.0.1:1/"][..], "--rate 1000"),
        (&["http://127.0.0.1:1/", "--rate", "0"], "out of range"),
        (&["http://127.0.0.1:1/", "--rate", "1e12"], "out of range"),
        (
            &["127.0.0.1:1", "--rate", "1"],
            "http://127.0.0.1:8080/path",
        ),
        (&["ftp://127.0.0.1:1/", "--rate", "1"], "unknown scheme"),
        (
            &["http://127.0.0.1:1/", "--rate", "1", "-n", "0"],
            "--requests 0",
        ),
        (
            &["http://127.0.0.1:1/", "--rate", "1", "--streams", "9"],
            "--streams",
        ),
        (
            &["http://127.0.0.1:1/", "--rate", "1", "-c", "0"],
            "--connections 0",
        ),
        (
            &["tcp://127.0.0.1:1", "--rate", "1", "--ok", "200"],
            "--ok goes with HTTP",
        ),
        (
            &[
                "udp://127.0.0.1:1",
                "--rate",
                "1",
                "--expect-header",
                "date",
            ],
            "--expect-header",
        ),
        (
            &["tcp://127.0.0.1:1", "--rate", "1", "-m", "PUT"],
            "--method",
        ),
        (
            &["http://127.0.0.1:1/", "--rate", "1", "--resume"],
            "https://",
        ),
    ] {
        let ran = load(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.one_line().contains(hint), "{arguments:?}: {ran:?}");
    }
    let ran = load(&["http://127.0.0.1:1/", "--ramp", "1:2"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("100:5000:60s"), "{ran:?}");
}

#[test]
fn a_run_whose_generator_was_late_is_invalid_and_says_by_how_much() {
    let server = Server::start(&[]);
    let url = server.url("http", "/");
    // More than any machine sends: each request is later than the one before.
    let plan = ["--rate", "3000000", "-d", "1s", "--max-in-flight", "20"];
    let ran = load(&[&[url.as_str()], &plan[..], &["--fail-if", "p50>0ms"]].concat());
    // An invalid run neither passes nor fails a threshold.
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("the run is invalid"), "{ran:?}");
    assert_eq!(ran.json()["generator"]["valid"], false, "{ran:?}");
}

#[test]
fn stages_of_a_file_follow_each_other() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stages");
    std::fs::write(&path, "# slowly, then faster\n50:1s\n50:150:1s\n").unwrap();
    let ran = load(&[&server.url("http", "/"), "--stages", path.to_str().unwrap()]);
    assert_eq!(ran.summary("succeeded"), 150, "{ran:?}");
    assert_eq!(ran.json()["plan"]["stages"][1]["to"], 150.0, "{ran:?}");
}

#[test]
fn a_file_of_stages_that_is_wrong_is_bad_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stages");
    std::fs::write(&path, "10:100:1s\nnonsense\n").unwrap();
    let path = path.to_str().unwrap();
    let ran = load(&["http://127.0.0.1:1/", "--stages", path]);
    assert_eq!(ran.code, 65);
    assert!(ran.one_line().contains("line 2"), "{ran:?}");
}
