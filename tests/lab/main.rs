//! `weft lab` from outside: the contents of its files, its exit codes, and the short selection of the
//! scenarios that ship. The whole suite is `weft lab run --all`.

#![allow(
    clippy::unwrap_used,
    reason = "the whole crate is tests: what cannot be read must stop them"
)]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const WEFT: &str = env!("CARGO_BIN_EXE_weft");

/// The exit codes that matter here (README).
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const BAD_DATA: i32 = 65;
const ASSERTION: i32 = 99;

#[test]
fn on_a_clean_network_nothing_fails() {
    holds("clean-baseline");
}

#[test]
fn a_loss_of_five_percent_delays_requests_and_fails_none() {
    holds("loss-5");
}

#[test]
fn no_damaged_byte_reaches_an_application() {
    holds("corruption");
}

#[test]
fn a_path_whose_mtu_shrinks_silently_is_used_again_within_seconds() {
    holds("mtu-black-hole");
}

#[test]
fn a_blackout_of_a_second_fails_no_request() {
    holds("blackout-1s");
}

#[test]
fn a_nat_that_rebinds_is_not_noticed() {
    holds("nat-rebinding");
}

#[test]
fn a_sidecar_that_is_killed_is_replaced_by_the_other() {
    holds("kill-service-sidecar");
}

#[test]
fn clocks_that_jump_an_hour_ahead_and_back_fail_no_request() {
    if !can_make_labs() {
        return;
    }
    let checks: Value =
        serde_json::from_slice(&weft(&["lab", "check", "-o", "json"]).stdout).unwrap();
    let mut checks = checks.as_array().unwrap().iter();
    let clocks = checks
        .find(|check| check["what"] == "clocks of programs")
        .unwrap();
    match clocks["found"].as_bool() {
        Some(true) => holds("clock-step"),
        Some(false) | None => skip(clocks["said"].as_str().unwrap()),
    }
}

#[test]
fn a_claim_that_does_not_hold_ends_with_99_and_with_the_line_that_shows_it_again() {
    if !can_make_labs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = weft(&["lab", "list", "clean-baseline"]);
    let text = String::from_utf8(text.stdout).unwrap();
    let path = folder.path().join("impossible.yaml");
    let text = text
        .replace("requests p50 <= 25ms", "requests p50 <= 1ms")
        .replace("duration: 8s", "duration: 2s");
    std::fs::write(&path, text).unwrap();
    let _alone = alone();
    let keep = folder.path().join("kept");
    let path = path.display().to_string();
    let output = weft(&[
        "lab",
        "run",
        &path,
        "--seed",
        "9",
        "--attempts",
        &ATTEMPTS.to_string(),
        "--keep",
        &keep.display().to_string(),
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(FAILED) {
        return not_judged("a claim that does not hold", "no run was valid");
    }
    assert_eq!(output.status.code(), Some(ASSERTION), "{output:?}");
    assert!(
        said.contains(&format!("again with `weft lab run {path} --seed 9`")),
        "{said}"
    );
    assert!(keep.join("impossible-seed9/shop.stderr").exists());
    assert!(keep.join("impossible-seed9/outcome.json").exists());
    // The last packets of the link, and the qlog of the sidecars' connections.
    let capture = std::fs::read(keep.join("impossible-seed9/wan.pcapng")).unwrap();
    assert!(capture.len() > 10_000, "{}", capture.len());
    let qlog = std::fs::read_to_string(keep.join("impossible-seed9/shop-dialling-1.sqlog"));
    assert!(qlog.unwrap().contains("packet_sent"));
    assert!(!keep.join("impossible-seed9/shop.token").exists());
}

#[test]
fn a_mistake_in_a_scenario_is_one_line_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    let text = String::from_utf8(weft(&["lab", "list", "loss-5"]).stdout).unwrap();
    std::fs::write(&path, text.replace("from: shop", "from: shpo")).unwrap();
    let output = weft(&["lab", "validate", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(BAD_DATA));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("no caller `shpo`: did you mean `shop`?"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_rate_in_a_file_is_found_beside_the_scenario_and_judged_by_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    let text = String::from_utf8(weft(&["lab", "list", "clean-baseline"]).stdout).unwrap();
    let text = text.replace("delay: 10ms", "rate: trace file drives/a.csv");
    assert!(text.contains("drives/a.csv"));
    std::fs::write(&path, text).unwrap();
    std::fs::create_dir(folder.path().join("drives")).unwrap();
    let drive = folder.path().join("drives/a.csv");
    let validate = |rates: &str| {
        std::fs::write(&drive, rates).unwrap();
        weft(&["lab", "validate", &path.display().to_string()])
    };
    assert!(validate("0,8mbit\n5,2mbit\n7.5,end\n").status.success());
    for (rates, expected) in [
        ("0,8mbit\n5,fast\n", "drives/a.csv:2: `fast`: write a rate"),
        (
            &"0,8mbit\n".repeat(200_000),
            "a.csv: longer than 1048576 bytes",
        ),
    ] {
        let output = validate(rates);
        assert_eq!(output.status.code(), Some(BAD_DATA));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("links.wan.set.rate: "), "{said}");
    }
}

#[test]
fn a_scenario_that_does_not_exist_is_answered_with_the_nearest() {
    let output = weft(&["lab", "run", "los-5"]);
    assert_eq!(output.status.code(), Some(USAGE));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("did you mean loss-5?"), "{said}");
}

#[test]
fn every_scenario_that_ships_is_listed_and_valid() {
    let output = weft(&["lab", "list", "-o", "json"]);
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert!(names.len() > 30, "{names:?}");
    let output = weft(&[&["lab", "validate"], names.as_slice()].concat());
    assert!(output.status.success(), "{output:?}");
}

/// How often a scenario is run while the machine is too busy for its figures to be valid. In CI a test that
/// could judge nothing fails, so it tries for some minutes.
const ATTEMPTS: usize = 6;

/// Runs a scenario that ships; every claim of it must hold.
///
/// A run that the machine disturbed is harsher than planned, so claims that hold in it count. Claims that do
/// not hold prove nothing; if only those are left, the test has judged nothing, which fails in CI.
#[track_caller]
fn holds(name: &str) {
    if !can_make_labs() {
        return;
    }
    let _alone = alone();
    let mut why = Value::Null;
    for _ in 0..ATTEMPTS {
        let output = weft(&["lab", "run", name, "-o", "json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        let outcomes: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let outcome = &outcomes[0];
        let verdicts = outcome["verdicts"].as_array().unwrap();
        if outcome["state"]["is"] == "invalid" {
            why = outcome["state"]["why"].clone();
            if !verdicts.is_empty() && verdicts.iter().all(|verdict| verdict["holds"] == true) {
                return;
            }
            continue;
        }
        assert!(
            output.status.success(),
            "{:?} {verdicts:#?}\n{said}",
            output.status
        );
        return;
    }
    not_judged(name, &why.to_string());
}

fn weft(arguments: &[&str]) -> Output {
    let mut command = Command::new(WEFT);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEFT_") {
            command.env_remove(&name);
        }
    }
    command.args(arguments).output().unwrap()
}

/// Labs measure time, so one runs at a time; the lock is that of the other heavy tests.
fn alone() -> File {
    let file = File::create(std::env::temp_dir().join("weft-tests-heavy.lock")).unwrap();
    file.lock().unwrap();
    file
}

/// Whether this machine can emulate networks. If not, prints that the test is skipped.
fn can_make_labs() -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "labs need root here"
    } else if !Path::new("/dev/net/tun").exists() {
        "there is no /dev/net/tun"
    } else {
        return true;
    };
    skip(missing);
    false
}

/// Prints that the machine was too busy for the test to judge anything.
#[track_caller]
fn not_judged(what: &str, why: &str) {
    let line = format!("NOT JUDGED {what}: the machine is too busy: {why}");
    assert!(std::env::var_os("CI").is_none(), "{line}");
    say(&line);
}

fn skip(why: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}", thread.name().unwrap_or("a test"));
    assert!(std::env::var_os("CI").is_none(), "{line}");
    say(&line);
}

/// Written to the descriptor itself: the test runner captures the output of passing tests.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
