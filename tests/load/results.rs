//! The results of a run and their uses: report, page, log, comparison, search, sweep.

use serde_json::Value;

use crate::harness::{Server, load, run};

#[test]
fn a_run_leaves_a_report_a_page_and_a_log() {
    // Slow, so that the lateness of a busy machine does not make the run invalid.
    let server = Server::start(&["--latency", "200ms"]);
    let url = server.url("http", "/");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (html, log) = (path("run.html"), path("run.hlog"));
    let files = ["--quiet", "--html", &html, "--hdr-log", &log];
    let ran = run(&[&[url.as_str(), "--rate", "50", "-d", "2s"], &files[..]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("succeeded    100 of 100 requests"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("generator    started 99 %"), "{ran:?}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(
        page.starts_with("<!doctype html>") && page.contains(&url),
        "{page}"
    );
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("Tag=latency,0.000,1.000,"), "{log}");
}

#[test]
fn runs_of_one_server_do_not_differ_and_a_slower_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let measure = |name: &str, latency: &str| {
        let server = Server::start(&["--latency", latency]);
        let ran = load(&[&server.url("http", "/"), "--rate", "100", "-d", "6s"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let path = folder.path().join(name);
        std::fs::write(&path, &ran.stdout).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // So slow that the lateness of a busy machine neither makes a run invalid nor hides the difference, and
    // so spread that seconds differ only by chance: with equal answers, those of a late second would look
    // like another run.
    let usual = "uniform:450ms-550ms";
    let (first, second) = (measure("a", usual), measure("b", usual));
    let slower = measure("c", "uniform:700ms-800ms");
    let tolerance = ["--tolerance", "20%"];
    let diff = |one: &str, other: &str| run(&[&["diff", one, other], &tolerance[..]].concat());
    let same = diff(&first, &second);
    assert_eq!(same.code, 0, "{same:?}");
    assert!(same.stdout.contains("not distinguishable"), "{same:?}");
    let worse = diff(&first, &slower);
    assert_eq!(worse.code, 1, "{worse:?}");
    assert!(worse.stdout.contains("WORSE"), "{worse:?}");
    let json = run(&["diff", &first, &slower, "-o", "json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["rows"][0]["verdict"], "worse", "{json}");
}

#[test]
fn what_is_no_result_cannot_be_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.json");
    std::fs::write(&path, r#"{"schema":"weft.load/99"}"#).unwrap();
    let path = path.to_str().unwrap();
    let ran = run(&["diff", path, path]);
    assert_eq!(ran.code, 65, "{ran:?}");
    assert!(ran.one_line().contains("weft.load/99"), "{ran:?}");
    let ran = run(&["diff", "no-such-file", path]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.one_line().contains("no-such-file"), "{ran:?}");
}

#[test]
fn a_sweep_runs_at_each_rate_and_marks_the_knee() {
    let server = Server::start(&["--latency", "200ms"]);
    let url = server.url("http", "/");
    // With ten connections, 50/s is the maximum.
    let ran = load(&[&url, "--sweep", "10:160:3", "-d", "2s", "-c", "10"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = ran.json();
    let rates: Vec<f64> = json["trials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trial| trial["rate"].as_f64().unwrap())
        .collect();
    assert_eq!(rates, [10.0, 40.0, 160.0], "{json}");
    assert_eq!(json["knee"], 40.0, "{json}");
    assert_eq!(json["knee_is_above"], false, "{json}");
}

#[test]
fn a_search_finds_what_the_connections_can_carry() {
    let server = Server::start(&["--latency", "200ms"]);
    let url = server.url("http", "/");
    let conditions = ["--find-max", "p99<400ms"];
    let plan = [url.as_str(), "--rate", "40", "-d", "2s", "-c", "10"];
    let ran = load(&[&plan[..], &conditions[..]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = ran.json();
    let best = json["best"]["per_second"].as_f64().unwrap();
    // Ten connections of 200 ms are 50/s. Beyond it the queue grows by the second, and two seconds
    // are short.
    assert!((35.0..=62.0).contains(&best), "{json}");
    assert_eq!(json["conditions"], "p99<400ms,errors<=1%", "{json}");
}

#[test]
fn conditions_and_sweeps_that_do_not_parse_are_wrong_usage() {
    for (arguments, hint) in [
        (["--fail-if", "p99>50"], "50ms"),
        (["--fail-if", "erors>1%"], "there is no"),
        (["--find-max", "p99<"], "the value is missing"),
        (["--sweep", "100:10"], "100:10000:10"),
    ] {
        let ran = load(&[&["http://127.0.0.1:1/", "-d", "1s"], &arguments[..]].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(hint), "{arguments:?}: {ran:?}");
    }
}
