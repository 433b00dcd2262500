//! How a run ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Server, load, weft};

#[test]
fn an_interrupt_still_prints_the_result() {
    let server = Server::start(&[]);
    let mut child = weft()
        .args(["load", &server.url("http", "/"), "-o", "json"])
        .args(["--rate", "100", "-d", "10m"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first line of progress says that a second is over.
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = progress.next().unwrap().unwrap();
    assert!(line.contains("requests"), "{line}");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result["summary"]["ended"], "interrupted");
    let succeeded = result["summary"]["succeeded"].as_u64().unwrap();
    let seconds = result["summary"]["seconds"].as_f64().unwrap();
    assert!(
        succeeded >= 90 && seconds < 60.0,
        "{succeeded} in {seconds}"
    );
}

#[test]
fn a_closed_loop_ends_after_its_requests() {
    let server = Server::start(&[]);
    let url = server.url("http", "/");
    let ran = load(&[&url, "--closed", "-c", "7", "-n", "1000"]);
    assert_eq!(ran.summary("succeeded"), 1000, "{ran:?}");
}

#[test]
fn the_result_is_written_as_a_page_and_as_a_log() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let log = folder.path().join("log.hlog");
    let flags = [
        "--html",
        page.to_str().unwrap(),
        "--hdr-log",
        log.to_str().unwrap(),
    ];
    let url = server.url("http", "/");
    load(&[&[url.as_str(), "--rate", "100", "-d", "2s"], &flags[..]].concat());
    assert!(std::fs::read_to_string(page).unwrap().contains("<svg"));
    assert!(!std::fs::read(log).unwrap().is_empty());
}

#[test]
fn a_log_is_replayed_at_its_own_times() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.jsonl");
    let line = |second: u32, method: &str| {
        format!(
            "{{\"time\":\"2026-01-01T00:00:0{second}Z\",\"direction\":\"outbound\",\"method\":\"{method}\",\
             \"authority\":\"orders.shop\",\"path\":\"/a\",\"status\":200,\"duration_ms\":1.5,\"bytes_in\":0}}\n"
        )
    };
    std::fs::write(&path, line(1, "GET") + &line(2, "POST") + &line(5, "HEAD")).unwrap();
    let (url, path) = (server.url("http", "/"), path.to_str().unwrap());
    let ran = load(&[&url, "--replay", path, "--speed", "4"]);
    assert_eq!(ran.summary("succeeded"), 3, "{ran:?}");
    // Four seconds between the first and the last, four times as fast.
    let seconds = ran.json()["summary"]["seconds"].as_f64().unwrap();
    assert!((0.99..1.1).contains(&seconds), "{seconds}");
    assert_eq!(ran.json()["plan"]["arrivals"], "replay");
    std::fs::write(path, "nonsense\n").unwrap();
    let ran = load(&[&url, "--replay", path]);
    assert_eq!(ran.code, 65);
    assert!(ran.one_line().contains("line 1"), "{ran:?}");
}
