//! Measures the accuracy and speed of the link emulator on this machine: one-way delay at several rates, and
//! the packets per second that pass without impairment. `cargo run --release -p weft-netem-tests --example
//! emulator`; docs/lab.md has the numbers of one machine.
//!
//! The sender and the receiver are this program again, on two hosts of a lab. They share a clock, so each
//! packet carries its send time.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::error::Error;
use std::net::UdpSocket;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use weft_netem_tests::backend::Choice;
use weft_netem_tests::lab::sandbox::{self, Entered};
use weft_netem_tests::lab::{
    Lab, LinkName, LinkSpec, Node, NodeKind, NodeName, Options, Process, Program, Topology,
};
use weft_netem_tests::link::{End, Impairment, Seed};

const PORT: u16 = 5000;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["send", to, rate, seconds, length] => {
            send(to, rate.parse()?, seconds.parse()?, length.parse()?)?;
        }
        ["receive", quiet] => receive(Duration::from_millis(quiet.parse()?))?,
        _ => match sandbox::enter()? {
            Entered::Ended(code) => return Ok(ExitCode::from(code)),
            Entered::Inside => measure()?,
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// One row for each rate and impairment.
fn measure() -> Result<(), Box<dyn Error>> {
    println!(
        "impairment      packets/s  bytes     sent    passed  received   one-way p50    p99      max   \
         lateness p99  drops"
    );
    for (impairment, rates) in [
        (&[("delay", "10ms")][..], &[100, 1000, 10_000, 50_000][..]),
        (
            &[],
            &[
                1000, 25_000, 50_000, 100_000, 150_000, 200_000, 250_000, 300_000,
            ],
        ),
    ] {
        for rate in rates {
            row(impairment, *rate)?;
        }
    }
    Ok(())
}

fn row(settings: &[(&str, &str)], rate: u64) -> Result<(), Box<dyn Error>> {
    const LENGTH: usize = 200;
    const SECONDS: u64 = 3;
    let (first, second) = (NodeName::new("first")?, NodeName::new("second")?);
    let mut link = LinkSpec::new(LinkName::new("wire")?, [first.clone(), second.clone()]);
    let mut impairment = Impairment::default();
    for (key, value) in settings {
        impairment.set(key, value)?;
    }
    link.impairments[End::First.index()] = impairment;
    let nodes = [&first, &second].map(|name| Node {
        name: name.clone(),
        kind: NodeKind::Host,
    });
    let directory = tempfile::tempdir()?;
    let lab = Lab::up(
        Topology::new(nodes.into(), vec![link])?,
        Options {
            seed: Seed(1),
            directory: directory.path().to_owned(),
            backend: Choice::Emulator,
            later: Vec::new(),
            capture: false,
            tcp_congestion: None,
        },
    )?;
    let to = lab.address(&second).ok_or("no address")?;
    let mut receiver = start(&lab, &second, ["receive", "1000"].map(str::to_owned).into())?;
    let rate_text = rate.to_string();
    let arguments = [
        "send".to_owned(),
        format!("{to}:{PORT}"),
        rate_text.clone(),
        SECONDS.to_string(),
        LENGTH.to_string(),
    ];
    let mut sender = start(&lab, &first, arguments.into())?;
    sender.wait()?;
    receiver.wait()?;
    let health = lab.health();
    let passed = lab
        .links()
        .first()
        .map_or(0, |link| link.counters.delivered);
    let name = match settings {
        [] => "none".to_owned(),
        [(key, value), ..] => format!("{key} {value}"),
    };
    println!(
        "{name:<14} {rate_text:>10} {LENGTH:>6} {:>8} {passed:>9} {}   {:>10.1?}  {}",
        std::fs::read_to_string(sender.stdout())?.trim(),
        std::fs::read_to_string(receiver.stdout())?.trim(),
        health.lateness[1],
        health.ring_drops,
    );
    Ok(())
}

fn start(lab: &Lab, host: &NodeName, arguments: Vec<String>) -> Result<Process, Box<dyn Error>> {
    let name = arguments[0].clone();
    let own = std::env::current_exe()?.into_os_string();
    let command = [own]
        .into_iter()
        .chain(arguments.into_iter().map(Into::into));
    Ok(lab.spawn(
        host,
        Program {
            name,
            command: command.collect(),
            ..Program::default()
        },
    )?)
}

/// Sends at an even pace, without sleeping: after a sleep it would be late and send in bursts.
fn send(to: &str, rate: u64, seconds: u64, length: usize) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    // The IP and UDP headers are 28 bytes.
    let mut packet = vec![0; length - 28];
    // The receiver starts at the same time.
    let start = Instant::now() + Duration::from_millis(300);
    let count = rate * seconds;
    for number in 0..count {
        let due = start + Duration::from_nanos(number * 1_000_000_000 / rate);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if left > Duration::from_millis(2) {
                std::thread::park_timeout(left - Duration::from_millis(1));
            }
        }
        packet[..8].copy_from_slice(&clock()?.to_be_bytes());
        socket.send(&packet)?;
    }
    println!("{count}");
    Ok(())
}

/// Receives until nothing came for `quiet`.
fn receive(quiet: Duration) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    let mut took = Vec::new();
    let mut packet = [0; 2048];
    while let Ok(length) = socket.recv(&mut packet) {
        let now = clock()?;
        if length >= 8 {
            let sent = u64::from_be_bytes(packet[..8].try_into()?);
            took.push(now.saturating_sub(sent));
        }
        socket.set_read_timeout(Some(quiet))?;
    }
    took.sort_unstable();
    let quantile = |share: f64| {
        let index = (took.len() as f64 * share) as usize;
        let nanoseconds = took.get(index.min(took.len().saturating_sub(1)));
        Duration::from_nanos(nanoseconds.copied().unwrap_or_default())
    };
    println!(
        "{:>9}  {:>12.3?} {:>8.3?} {:>8.3?}",
        took.len(),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0)
    );
    Ok(())
}

/// Nanoseconds since 1970, the same in every namespace.
fn clock() -> Result<u64, Box<dyn Error>> {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::try_from(time.as_nanos())?)
}
