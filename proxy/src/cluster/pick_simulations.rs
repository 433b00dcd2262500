//! The pick of endpoints, their breakers and their latencies over a while, together: endpoints that answer
//! after a time of their own, fail, recover, or never finish; requests come at an even pace. Time and
//! randomness are simulated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use weft_config::table::{Algorithm, Traffic};

use super::pick::{Criteria, TriedEndpoints, pick};
use crate::cluster::{Cluster, Flight};
use crate::directory::tests::{cluster, weighted};
use crate::resilience::standing::Outcome;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Five endpoints and their callers.
struct Simulation {
    cluster: Arc<Cluster>,
    start: Instant,
    /// The pace of requests.
    each: Duration,
    random: StdRng,
    number: u32,
    under_way: Vec<(Instant, usize, Outcome, Flight)>,
}

/// The result of one request.
#[derive(Clone, Copy, Debug)]
struct Met {
    index: usize,
    outcome: Outcome,
    on_trial: bool,
}

impl Simulation {
    fn new(per_second: u32) -> Self {
        Self::of(cluster(5, Traffic::default()), per_second)
    }

    fn of(cluster: Arc<Cluster>, per_second: u32) -> Self {
        Self {
            cluster,
            start: Instant::now(),
            each: SECOND / per_second,
            random: StdRng::seed_from_u64(1),
            number: 0,
            under_way: Vec::new(),
        }
    }

    /// Sends one more request; `answer` says how and after which time the endpoint that it meets answers at
    /// that time.
    fn request(&mut self, answer: impl FnOnce(usize, Duration) -> (Outcome, Duration)) -> Met {
        let after = self.each * self.number;
        let now = self.start + after;
        self.number += 1;
        let (over, left) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|(end, ..)| *end <= now);
        self.under_way = left;
        for (end, _, outcome, mut flight) in over {
            flight.answered(Some(outcome), end);
        }
        let criteria = Criteria {
            preferred: None,
            tried: TriedEndpoints::default(),
            key: None,
            repeatable: true,
        };
        let index = pick(&self.cluster, &criteria, now, &mut self.random).unwrap();
        let flight = self.cluster.start(index, now).unwrap();
        let on_trial = flight.is_on_trial();
        let (outcome, time) = answer(index, after);
        self.under_way.push((now + time, index, outcome, flight));
        Met {
            index,
            outcome,
            on_trial,
        }
    }

    /// Sends requests until that time; returns how many met the first endpoint, and how many there were.
    fn until(
        &mut self,
        end: Duration,
        answer: impl Fn(usize, Duration) -> (Outcome, Duration),
    ) -> (f64, f64) {
        let (mut first, mut all) = (0.0, 0.0);
        while self.each * self.number < end {
            all += 1.0;
            if self.request(&answer).index == 0 {
                first += 1.0;
            }
        }
        (first, all)
    }
}

#[test]
fn one_that_was_two_seconds_slow_has_half_of_its_share_back_within_30_seconds_of_healing() {
    for (per_second, quick) in [(10, 10 * MS), (50, MS), (200, 10 * MS), (500, MS)] {
        // Right after it was picked while it was still slow, and at other times.
        for tenths in 0..30 {
            let healed = SECOND * 20 + 100 * MS * tenths;
            let answer = |index, at| {
                let slow = index == 0 && at < healed;
                (Outcome::Well, if slow { SECOND * 2 } else { quick })
            };
            let mut simulation = Simulation::new(per_second);
            simulation.until(healed + SECOND * 30, answer);
            let (first, all) = simulation.until(healed + SECOND * 35, answer);
            assert!(
                first >= 0.5 * all / 5.0,
                "{first} of {all} at {per_second}/s of {quick:?}, healed after {healed:?}"
            );
        }
    }
}

#[test]
fn one_that_stays_two_seconds_slow_is_met_by_less_than_one_request_in_a_hundred() {
    for (per_second, quick) in [(50, 5 * MS), (200, 10 * MS), (500, 5 * MS)] {
        let answer = |index, _| (Outcome::Well, if index == 0 { SECOND * 2 } else { quick });
        let mut simulation = Simulation::new(per_second);
        simulation.until(SECOND * 10, answer);
        let (first, all) = simulation.until(SECOND * 60, answer);
        assert!(first <= 0.01 * all, "{first} of {all} at {per_second}/s");
    }
}

#[test]
fn an_endpoint_that_fails_half_of_the_time_hardly_affects_repeatable_requests_after_five_seconds() {
    for per_second in [50, 400, 2000] {
        let mut simulation = Simulation::new(per_second);
        let (mut noticed, mut all) = (0, 0);
        for number in 0..per_second * 60 {
            let met = simulation.request(|index, _| {
                let outcome = match index == 0 && number % 2 == 0 {
                    true => Outcome::Badly,
                    false => Outcome::Well,
                };
                (outcome, MS)
            });
            if number >= per_second * 5 {
                all += 1;
                // A failed probe is sent again to another endpoint.
                noticed += u32::from(met.outcome == Outcome::Badly && !met.on_trial);
            }
        }
        assert!(
            noticed * 1000 <= all,
            "{noticed} of {all} at {per_second}/s"
        );
    }
}

#[test]
fn one_that_was_out_gets_its_share_again_though_its_probe_is_a_stream_without_end() {
    let now = Instant::now();
    let five = cluster(5, Traffic::default());
    for _ in 0..5 {
        five.start(0, now).unwrap().tell(Outcome::Badly, now);
    }
    assert!(five.endpoints[0].standing.is_out());
    let due = now + SECOND * 3;
    let mut stream = five.start(0, due).unwrap();
    // The head of a gRPC response, whose result comes with the trailers, if ever.
    stream.answered(None, due + MS);
    assert!(!five.may_have_out());
    // An endpoint that sends no head.
    for _ in 0..5 {
        five.start(0, due).unwrap().tell(Outcome::Badly, due);
    }
    let due = due + SECOND * 6;
    let _mute = five.start(0, due).unwrap();
    let later = due + crate::limits::PROBE_DECIDES;
    let mut next = five.start(0, later).unwrap();
    next.answered(Some(Outcome::Well), later);
    assert!(!five.may_have_out());
}

#[test]
fn one_idle_stream_takes_no_requests_from_its_endpoint() {
    let mut simulation = Simulation::new(50);
    let answer = |_, _| (Outcome::Well, 5 * MS);
    simulation.until(SECOND, answer);
    let mut stream = simulation
        .cluster
        .start(0, simulation.start + SECOND)
        .unwrap();
    stream.answered(None, simulation.start + SECOND);
    simulation.until(SECOND * 10, answer);
    let (first, all) = simulation.until(SECOND * 110, answer);
    assert!(first >= 0.8 * all / 5.0, "{first} of {all}");
}

#[test]
fn short_deadlines_of_one_caller_say_nothing_of_an_endpoint_and_those_of_all_do() {
    let now = Instant::now();
    let five = cluster(5, Traffic::default());
    let flight = || five.start(0, now).unwrap();
    flight().answered(Some(Outcome::Well), now + 20 * MS);
    for _ in 0..100 {
        flight().late(false, now + 5 * MS);
        // Nor does a policy whose time is too short for any endpoint.
        flight().late(true, now + 40 * MS);
    }
    assert!(!five.may_have_out());
    (0..5).for_each(|_| flight().late(true, now + 60 * MS));
    assert!(five.may_have_out());
    // An endpoint that never answered is compared with the others.
    for _ in 0..5 {
        five.start(1, now).unwrap().late(false, now + 200 * MS);
    }
    assert!(five.endpoints[1].standing.is_out());
}

/// The algorithms that look at how endpoints do.
fn algorithms() -> [Algorithm; 3] {
    [
        Algorithm::PeakEwma,
        Algorithm::LeastRequest,
        Algorithm::RoundRobin,
    ]
}

fn traffic(algorithm: Algorithm) -> Traffic {
    let mut traffic = Traffic::default();
    traffic.balance.algorithm = algorithm;
    traffic
}

#[test]
fn endpoints_that_are_alike_get_the_shares_of_their_weights_at_any_load() {
    for algorithm in algorithms() {
        for (weights, per_second) in [
            (&[200, 100][..], 10),
            (&[200, 100], 1000),
            (&[300, 100, 100, 50], 200),
            (&[300, 100, 100, 50], 3000),
            (&[1000, 100, 100, 100, 100], 1000),
            (&[10, 100, 100, 100], 200),
        ] {
            let cluster = weighted(weights, traffic(algorithm.clone()));
            let mut simulation = Simulation::of(cluster, per_second);
            let mut times = StdRng::seed_from_u64(2);
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..20_000 {
                // 7 to 13 ms.
                let took = MS / 10 * times.random_range(70..130);
                counts[simulation.request(|_, _| (Outcome::Well, took)).index] += 1;
            }
            let sum: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                let share = f64::from(*count) / 20_000.0 * f64::from(sum) / f64::from(*weight);
                assert!(
                    (0.7..1.4).contains(&share),
                    "{algorithm:?} {weights:?} at {per_second}/s: {counts:?}"
                );
            }
        }
    }
}

#[test]
fn an_endpoint_of_great_weight_that_is_slow_is_met_by_less_than_one_request_in_a_hundred() {
    let cluster = weighted(&[300, 100, 100, 50, 100], Traffic::default());
    let mut simulation = Simulation::of(cluster, 200);
    let answer = |index, _| (Outcome::Well, if index == 0 { SECOND * 2 } else { 10 * MS });
    simulation.until(SECOND * 10, answer);
    let (first, all) = simulation.until(SECOND * 60, answer);
    assert!(first <= 0.01 * all, "{first} of {all}");
}
