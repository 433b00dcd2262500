//! The emulator's impairments match its settings, as ping and iperf3 measure them.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Lab, PAIR, can_run};

/// `count` pings, one every `interval` seconds: round-trip times in milliseconds, by number.
fn ping(lab: &Lab, count: u32, interval: &str) -> Vec<(u32, f64)> {
    let count = count.to_string();
    let text = lab.exec(
        "client",
        &[
            "ping", "-n", "-c", &count, "-i", interval, "-W", "1", "server",
        ],
    );
    let answers = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("icmp_seq=")?;
        let number = rest.split_whitespace().next()?.parse().ok()?;
        let (_, time) = line.split_once("time=")?;
        Some((number, time.split_whitespace().next()?.parse().ok()?))
    });
    let answers: Vec<(u32, f64)> = answers.collect();
    assert!(!answers.is_empty(), "{text}");
    answers
}

fn sorted_times(answers: &[(u32, f64)]) -> Vec<f64> {
    let mut times: Vec<f64> = answers.iter().map(|(_, time)| *time).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Whether `found` of `trials` fits a probability, within five standard deviations.
#[track_caller]
fn assert_binomial(found: usize, trials: usize, probability: f64) {
    let mean = trials as f64 * probability;
    let bound = 5.0 * (mean * (1.0 - probability)).sqrt();
    assert!(
        (found as f64 - mean).abs() < bound,
        "{found} of {trials}, expected {mean} within {bound}"
    );
}

#[test]
fn a_delay_of_10_ms_is_kept_within_a_third_of_a_millisecond() {
    if !can_run(&["ping", "ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    let without = sorted_times(&ping(&lab, 200, "0.005"));
    lab.weft("set", &["wire", "--from", "client", "delay=10ms"]);
    let with = sorted_times(&ping(&lab, 200, "0.005"));
    // Both include the time that ping and the kernel need.
    let added = with[0] - without[0];
    assert!((9.9..10.3).contains(&added), "{added} ms");
    let status = lab.status();
    let late = status["lateness_us"][0].as_u64().unwrap();
    assert!(late < 300, "{late} us late in the middle");
}

#[test]
fn jitter_has_its_width() {
    if !can_run(&["ping", "ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    lab.weft(
        "set",
        &[
            "wire",
            "--from",
            "client",
            "delay=20ms",
            "jitter=10ms,overtake",
        ],
    );
    let times = sorted_times(&ping(&lab, 400, "0.005"));
    // Of 400 even draws from 10 to 30 ms; a busy machine only adds to the later ones.
    let (early, median, late) = (times[4], times[200], times[360]);
    assert!((10.0..12.0).contains(&early), "{early} ms");
    assert!((18.0..24.0).contains(&median), "{median} ms");
    assert!(late > 26.5, "{late} ms");
}

#[test]
fn loss_is_as_asked_and_the_same_seed_loses_the_same_packets() {
    if !can_run(&["ping", "ip"]) {
        return;
    }
    let arrived = |seed: &str| {
        let lab = Lab::up(PAIR, &["--seed", seed]);
        lab.weft("set", &["wire", "--from", "client", "loss=10%"]);
        let answers = ping(&lab, 1000, "0.002");
        assert_eq!(lab.counter("client", "lost"), 1000 - answers.len() as u64);
        answers.into_iter().map(|(number, _)| number).collect()
    };
    let once: BTreeSet<u32> = arrived("7");
    assert_binomial(1000 - once.len(), 1000, 0.1);
    assert_eq!(once, arrived("7"));
    assert_ne!(once, arrived("8"));
}

#[test]
fn a_rate_is_kept_within_2_percent() {
    if !can_run(&["iperf3", "ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    lab.weft(
        "set",
        &["wire", "--from", "client", "rate=20mbit", "queue=100p"],
    );
    // Of a packet of 1500 bytes TCP with timestamps carries 1448.
    let expected = 20e6 * 1448.0 / 1500.0;
    let measure = || {
        let report = iperf3(&lab, &["-t", "4", "-O", "1", "-C", "reno"]);
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
        rate.unwrap() / expected
    };
    // A sender that got no CPU time leaves the link idle; no sender gets more through.
    let mut best: f64 = 0.0;
    for _ in 0..3 {
        best = best.max(measure());
        if best >= 0.98 {
            break;
        }
    }
    assert!((0.98..1.02).contains(&best), "{best} of the rate");
}

#[test]
fn a_full_queue_delays_as_computed() {
    if !can_run(&["iperf3", "ping", "ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    // 50 full packets at 20 Mbit/s are 30 ms.
    lab.weft(
        "set",
        &["wire", "--from", "client", "rate=20mbit", "queue=75000B"],
    );
    let mut server = lab
        .command("server", &["iperf3", "-s", "-1"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    lab.exec("server", &["sh", "-c", LISTENING]);
    let flood = [
        "iperf3", "-c", "server", "-u", "-b", "30M", "-l", "1472", "-t", "4",
    ];
    let mut client = lab
        .command("client", &flood)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The counter says when the queue is full.
    while lab.counter("client", "queue_full") == 0 {
        assert!(
            client.try_wait().unwrap().is_none(),
            "iperf3 ended too early"
        );
    }
    let times = sorted_times(&ping(&lab, 200, "0.01"));
    let median = times[times.len() / 2];
    client.kill().unwrap();
    server.kill().unwrap();
    client.wait().unwrap();
    server.wait().unwrap();
    // The packet in transmission may be anywhere; iperf3 sends in small bursts.
    assert!((27.0..32.0).contains(&median), "{median} ms");
}

/// Ends when iperf3's server listens.
const LISTENING: &str =
    "for i in $(seq 500); do ss -ltn | grep -q 5201 && exit 0; sleep 0.01; done";

fn iperf3(lab: &Lab, arguments: &[&str]) -> Value {
    let mut server = lab
        .command("server", &["iperf3", "-s", "-1"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    lab.exec("server", &["sh", "-c", LISTENING]);
    let client = [&["iperf3", "-c", "server", "-J"][..], arguments].concat();
    let report = lab.exec("client", &client);
    server.kill().unwrap();
    server.wait().unwrap();
    serde_json::from_str(&report).unwrap()
}
