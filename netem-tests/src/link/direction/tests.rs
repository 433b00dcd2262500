//! The effect of a direction on streams of packets, under a simulated clock.

use std::time::{Duration, Instant};

use super::*;
use crate::link::End;

/// A datagram of a test: its number, and a payload.
#[derive(Clone, Debug, PartialEq)]
struct Datagram {
    number: usize,
    port: u16,
    payload: Vec<u8>,
    fixed: bool,
}

impl Packet for Datagram {
    fn length(&self) -> usize {
        self.payload.len()
    }

    fn udp_ports(&self) -> Option<(u16, u16)> {
        Some((50_000, self.port))
    }

    fn payload(&mut self) -> &mut [u8] {
        &mut self.payload
    }

    fn fix_checksum(&mut self) {
        self.fixed = true;
    }
}

fn datagram(number: usize, length: usize) -> Datagram {
    Datagram {
        number,
        port: 443,
        payload: vec![0; length],
        fixed: false,
    }
}

fn impairment(settings: &[(&str, &str)]) -> Impairment {
    let mut impairment = Impairment::default();
    for (key, value) in settings {
        impairment.set(key, value).unwrap();
    }
    impairment
}

/// Sends `count` datagrams of 1000 bytes, one every `every`, and takes what leaves, when it leaves.
fn run(
    direction: &mut Direction<Datagram>,
    start: Instant,
    count: usize,
    every: Duration,
) -> Vec<(Duration, Datagram)> {
    let mut left = Vec::new();
    let mut take = |direction: &mut Direction<Datagram>, until: Option<Instant>| {
        while let Some(due) = direction.next_due() {
            if until.is_some_and(|until| due > until) {
                break;
            }
            while let Some(departure) = direction.poll(due) {
                assert!(departure.due <= due);
                left.push((departure.due - start, departure.packet));
            }
        }
    };
    for number in 0..count {
        let now = start + every * number as u32;
        take(direction, Some(now));
        direction.push(now, datagram(number, 1000));
    }
    take(direction, None);
    left
}

fn link(settings: &[(&str, &str)], start: Instant) -> Direction<Datagram> {
    Direction::new(Seed(1), impairment(settings), start)
}

/// Whether each of the datagrams was lost.
fn losses(settings: &[(&str, &str)], seed: Seed, count: usize) -> Vec<bool> {
    let start = Instant::now();
    let mut direction = Direction::new(seed, impairment(settings), start);
    let left = run(&mut direction, start, count, Duration::from_micros(10));
    let mut lost = vec![true; count];
    for (_, datagram) in left {
        lost[datagram.number] = false;
    }
    lost
}

fn count(flags: &[bool]) -> usize {
    flags.iter().filter(|flag| **flag).count()
}

/// Whether `found` of `trials` fits a probability, within five standard deviations: a correct model fails
/// this once in a million seeds.
#[track_caller]
fn assert_binomial(found: usize, trials: usize, probability: f64) {
    let mean = trials as f64 * probability;
    let deviation = (mean * (1.0 - probability)).sqrt();
    assert!(
        (found as f64 - mean).abs() < 5.0 * deviation,
        "{found} of {trials}, expected {mean:.0} within {:.0}",
        5.0 * deviation
    );
}

#[test]
fn a_perfect_link_hands_everything_over_at_once_and_in_order() {
    let start = Instant::now();
    let every = Duration::from_micros(10);
    let left = run(&mut link(&[], start), start, 1000, every);
    assert_eq!(left.len(), 1000);
    for (number, (at, datagram)) in left.iter().enumerate() {
        assert_eq!((*at, datagram.number), (every * number as u32, number));
    }
}

#[test]
fn a_delay_is_exact() {
    let start = Instant::now();
    let mut direction = link(&[("delay", "10ms")], start);
    direction.push(start, datagram(0, 1000));
    let due = start + Duration::from_millis(10);
    assert_eq!(direction.next_due(), Some(due));
    assert!(direction.poll(due - Duration::from_nanos(1)).is_none());
    assert!(direction.poll(due).is_some());
    assert_eq!(direction.next_due(), None);
}

#[test]
fn random_loss_is_within_binomial_bounds() {
    for (setting, share) in [("0.1%", 0.001), ("1%", 0.01), ("30%", 0.3)] {
        let lost = losses(&[("loss", setting)], Seed(7), 100_000);
        assert_binomial(count(&lost), 100_000, share);
    }
    assert_eq!(count(&losses(&[("loss", "100%")], Seed(7), 100)), 100);
}

#[test]
fn the_same_seed_loses_the_same_packets_and_another_seed_others() {
    let settings = [("loss", "5%")];
    let once = losses(&settings, Seed(7), 10_000);
    assert_eq!(once, losses(&settings, Seed(7), 10_000));
    assert_ne!(once, losses(&settings, Seed(8), 10_000));
    let names = [
        Seed(7).of("wire", End::First),
        Seed(7).of("wire", End::Second),
    ];
    assert_ne!(
        losses(&settings, names[0], 10_000),
        losses(&settings, names[1], 10_000)
    );
}

#[test]
fn other_impairments_do_not_change_which_packets_are_lost() {
    let alone = losses(&[("loss", "5%")], Seed(7), 10_000);
    let beside = [
        ("loss", "5%"),
        ("delay", "20ms"),
        ("jitter", "5ms normal"),
        ("duplicate", "10%"),
        ("corrupt", "10%"),
    ];
    assert_eq!(alone, losses(&beside, Seed(7), 10_000));
}

#[test]
fn a_timed_change_leaves_the_fate_of_later_packets_as_it_was() {
    let start = Instant::now();
    let lossy = impairment(&[("loss", "5%")]);
    let steady = losses(&[("loss", "5%")], Seed(7), 2000);
    let mut direction = Direction::new(Seed(7), Impairment::default(), start);
    let mut arrived = vec![false; 2000];
    for number in 0..2000 {
        if number == 1000 {
            direction.set(start, lossy.clone());
        }
        direction.push(start, datagram(number, 1000));
    }
    while let Some(departure) = direction.poll(start) {
        arrived[departure.packet.number] = true;
    }
    assert_eq!(count(&arrived[..1000]), 1000);
    let lost: Vec<bool> = arrived[1000..].iter().map(|arrived| !arrived).collect();
    assert_eq!(lost, steady[1000..]);
}

#[test]
fn bursts_have_the_mean_loss_and_length_that_were_asked_for() {
    let lost = losses(&[("loss", "5% bursts 8")], Seed(7), 400_000);
    let total = count(&lost);
    let bursts = lost.windows(2).filter(|two| !two[0] && two[1]).count();
    // Bursts of mean length 8 make the count vary more than single losses do.
    let share = total as f64 / lost.len() as f64;
    assert!((share - 0.05).abs() < 0.005, "{share}");
    let length = total as f64 / bursts as f64;
    assert!((length - 8.0).abs() < 0.8, "{length}");
}

#[test]
fn a_rate_is_kept_and_what_does_not_fit_is_dropped() {
    let start = Instant::now();
    let settings = [("rate", "10mbit"), ("queue", "50kB")];
    let mut direction = link(&settings, start);
    // 80 Mbit/s for one second.
    let left = run(&mut direction, start, 10_000, Duration::from_micros(100));
    let last = left.last().unwrap().0.as_secs_f64();
    let rate = left.len() as f64 * 8000.0 / last;
    assert!((rate / 10e6 - 1.0).abs() < 0.001, "{rate}");
    // A full queue is 40 ms of waiting, for every packet after the first few.
    let counters = direction.counters();
    assert_eq!(counters.queue_full as usize + left.len(), 10_000);
    let longest = left
        .iter()
        .map(|(at, datagram)| *at - Duration::from_micros(100) * datagram.number as u32)
        .max();
    let longest = longest.unwrap().as_secs_f64();
    assert!((longest - 0.040).abs() < 0.001, "{longest}");
}

#[test]
fn loss_behind_the_bottleneck_uses_up_its_rate() {
    let start = Instant::now();
    let settings = [("rate", "10mbit"), ("queue", "1000p"), ("loss", "50%")];
    let left = run(&mut link(&settings, start), start, 1000, Duration::ZERO);
    // 1000 packets of 0.8 ms, although half of them never arrive.
    assert!(left.last().unwrap().0 > Duration::from_millis(790));
    assert!(left.len() < 600);
}

#[test]
fn a_healed_bottleneck_drains_its_queue_at_the_new_rate() {
    let start = Instant::now();
    let mut direction = link(&[("rate", "1mbit"), ("queue", "100p")], start);
    for number in 0..100 {
        direction.push(start, datagram(number, 1000));
    }
    // 100 packets would take 800 ms.
    let healed = start + Duration::from_millis(4);
    direction.set(healed, impairment(&[("rate", "1gbit")]));
    let mut last = healed;
    while let Some(due) = direction.next_due() {
        last = direction.poll(due).map_or(last, |departure| departure.due);
    }
    assert!(
        last - healed < Duration::from_millis(1),
        "{:?}",
        last - healed
    );
    assert_eq!(direction.counters().delivered, 100);
}

#[test]
fn without_a_rate_what_waited_leaves_at_once_and_in_order() {
    let start = Instant::now();
    let mut direction = link(&[("rate", "1mbit")], start);
    for number in 0..10 {
        direction.push(start, datagram(number, 1000));
    }
    direction.set(start, Impairment::default());
    direction.push(start, datagram(10, 1000));
    let soon = start + Duration::from_micros(1);
    let numbers: Vec<usize> = std::iter::from_fn(|| direction.poll(soon))
        .map(|departure| departure.packet.number)
        .collect();
    assert_eq!(numbers, (0..=10).collect::<Vec<_>>());
}

#[test]
fn jitter_keeps_the_order_unless_overtaking_is_asked_for() {
    let start = Instant::now();
    let every = Duration::from_micros(500);
    let overtaken = |jitter| {
        let mut direction = link(&[("delay", "20ms"), ("jitter", jitter)], start);
        let left = run(&mut direction, start, 5000, every);
        assert_eq!(left.len(), 5000);
        left.windows(2)
            .filter(|two| two[0].1.number > two[1].1.number)
            .count()
    };
    assert_eq!(overtaken("5ms normal"), 0);
    assert!(overtaken("5ms normal overtake") > 1000);
}

#[test]
fn held_back_packets_are_overtaken_by_those_of_that_time() {
    let start = Instant::now();
    let settings = [("delay", "5ms"), ("reorder", "2% 10ms")];
    let mut direction = link(&settings, start);
    let left = run(&mut direction, start, 10_000, Duration::from_millis(1));
    let mut seen = 0;
    for (at, datagram) in &left {
        let took = *at - Duration::from_millis(datagram.number as u64);
        match took.as_millis() {
            5 => {}
            15 => seen += 1,
            other => panic!("{other} ms"),
        }
    }
    assert_eq!(seen, direction.counters().held_back);
    assert_binomial(seen as usize, 10_000, 0.02);
}

#[test]
fn duplicates_follow_their_originals() {
    let start = Instant::now();
    let mut direction = link(&[("duplicate", "3%")], start);
    let left = run(&mut direction, start, 10_000, Duration::from_millis(1));
    let copies = left
        .windows(2)
        .filter(|two| two[0].1.number == two[1].1.number)
        .count();
    assert_eq!(left.len(), 10_000 + copies);
    assert_binomial(copies, 10_000, 0.03);
}

#[test]
fn corruption_changes_one_byte_and_mends_the_checksum_if_asked() {
    let start = Instant::now();
    for (setting, fixed) in [("5%", true), ("5% raw", false)] {
        let mut direction = link(&[("corrupt", setting)], start);
        let left = run(&mut direction, start, 10_000, Duration::from_millis(1));
        let damaged: Vec<&Datagram> = left
            .iter()
            .map(|(_, datagram)| datagram)
            .filter(|datagram| datagram.payload.iter().any(|byte| *byte != 0))
            .collect();
        assert_eq!(damaged.len() as u64, direction.counters().corrupted);
        assert_binomial(damaged.len(), 10_000, 0.05);
        for datagram in damaged {
            assert_eq!(datagram.fixed, fixed);
            let bytes = datagram.payload.iter().filter(|byte| **byte != 0);
            assert_eq!(bytes.count(), 1);
        }
    }
}

#[test]
fn a_black_hole_swallows_long_packets_and_a_blackout_all() {
    let start = Instant::now();
    let mut direction = link(&[("black_hole", "999")], start);
    direction.push(start, datagram(0, 1000));
    direction.push(start, datagram(1, 999));
    assert_eq!(direction.poll(start).unwrap().packet.number, 1);
    direction.set(start, impairment(&[("blackout", "on")]));
    direction.push(start, datagram(2, 10));
    assert!(direction.poll(start).is_none());
    let counters = direction.counters();
    assert_eq!((counters.too_long, counters.blacked_out), (1, 1));
}

#[test]
fn faults_meet_only_the_packets_that_they_are_for() {
    let start = Instant::now();
    let only = [("loss", "100%"), ("only", "udp:443 length:500- first:2")];
    let mut direction = link(&only, start);
    let other_port = Datagram {
        port: 53,
        ..datagram(1, 1000)
    };
    direction.push(start, datagram(0, 100));
    direction.push(start, other_port);
    for number in 2..5 {
        direction.push(start, datagram(number, 1000));
    }
    let numbers: Vec<usize> = std::iter::from_fn(|| direction.poll(start))
        .map(|departure| departure.packet.number)
        .collect();
    assert_eq!(numbers, [0, 1, 4]);
}

#[test]
fn what_is_on_its_way_is_bounded() {
    let start = Instant::now();
    let mut direction = link(&[("delay", "60s")], start);
    for number in 0..limits::PACKETS_ON_THEIR_WAY_MAX + 10 {
        direction.push(start, datagram(number, 1));
    }
    assert_eq!(direction.counters().overflowed, 10);
}

/// How many of 5000 datagrams of 1000 bytes, 4 Mbit/s, get through a bottleneck of 10 Mbit/s, and how
/// long the last ones wait there.
fn through(cross: &str, seed: Seed) -> (usize, Duration) {
    let start = Instant::now();
    let settings = [("rate", "10mbit"), ("queue", "33p"), ("cross", cross)];
    let mut direction: Direction<Datagram> = Direction::new(seed, impairment(&settings), start);
    let (mut left, mut waited) = (0, Duration::ZERO);
    let every = Duration::from_millis(2);
    for number in 0..5000 {
        let now = start + every * number;
        while let Some(departure) = direction.poll(now) {
            left += 1;
            let sent = start + every * departure.packet.number as u32;
            waited = waited.max(departure.due - sent);
        }
        direction.push(now, datagram(number as usize, 1000));
    }
    (left, waited)
}

#[test]
fn cross_traffic_takes_its_share_of_a_bottleneck_and_of_its_queue() {
    // Alone, a datagram waits only for its own transmission.
    let (left, waited) = through("none", Seed(1));
    assert_eq!((left, waited), (4999, Duration::from_micros(800)));
    // With 4 of 10 Mbit/s there is room for all, but they wait for each other.
    let (left, waited) = through("4mbit", Seed(1));
    assert!(left >= 4990, "{left}");
    assert!(waited > Duration::from_micros(2000), "{waited:?}");
    // With 16 Mbit/s, twice as much comes as passes: much is lost, and the queue is full (40 ms).
    let (left, waited) = through("16mbit", Seed(1));
    assert!((2000..4500).contains(&left), "{left}");
    assert!(waited > Duration::from_millis(33), "{waited:?}");
    assert!(waited <= Duration::from_millis(40), "{waited:?}");
    assert_eq!(through("16mbit", Seed(1)), (left, waited));
    assert_ne!(through("16mbit", Seed(2)), (left, waited));
}
