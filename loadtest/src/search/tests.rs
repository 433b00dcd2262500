//! Tests of `loadtest/src/search.rs`.

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Runs a search against a simulated server, which is a function of the rate.
fn search(mut server: impl FnMut(f64) -> Verdict) -> (Best, usize) {
    let mut search = Search::new(100.0, 1_000_000.0);
    let mut trials = 0;
    loop {
        match search.next() {
            Next::Try(rate) => {
                trials += 1;
                search.handle_trial(rate, server(rate));
            }
            Next::Done(best) => return (best, trials),
        }
    }
}

#[test]
fn the_capacity_of_a_server_is_found_within_five_per_cent() {
    for capacity in [0.5, 3.0, 77.0, 100.0, 4321.0, 250_000.0] {
        let (best, trials) = search(|rate| {
            if rate <= capacity {
                Verdict::Met
            } else {
                Verdict::Unmet
            }
        });
        let found = best.per_second.unwrap();
        assert!(
            found <= capacity && found >= capacity * 0.94,
            "{capacity}: {found}"
        );
        assert!(best.confirmed && best.limited_by == Limit::Target);
        assert!(trials <= 35, "{capacity}: {trials} trials");
    }
}

#[test]
fn one_bad_moment_in_ten_does_not_hide_the_capacity() {
    for seed in 0..50 {
        let mut random = StdRng::seed_from_u64(seed);
        let (best, _) = search(|rate| {
            if rate <= 5000.0 && random.random::<f64>() >= 0.1 {
                Verdict::Met
            } else {
                Verdict::Unmet
            }
        });
        let found = best.per_second.unwrap();
        assert!((3000.0..=5000.0).contains(&found), "seed {seed}: {found}");
    }
}

#[test]
fn one_lucky_trial_above_the_capacity_is_not_believed() {
    let mut lucky = true;
    let (best, _) = search(|rate| {
        let luck = rate > 1000.0 && rate < 2000.0 && std::mem::take(&mut lucky);
        if rate <= 1000.0 || luck {
            Verdict::Met
        } else {
            Verdict::Unmet
        }
    });
    assert!(best.per_second.unwrap() <= 1000.0, "{best:?}");
}

#[test]
fn a_search_says_when_the_generator_or_the_bound_is_the_limit() {
    let (best, _) = search(|rate| {
        if rate <= 30_000.0 {
            Verdict::Met
        } else {
            Verdict::GeneratorLate
        }
    });
    assert_eq!(best.limited_by, Limit::Generator);
    let (best, _) = search(|_| Verdict::Met);
    assert_eq!(best.limited_by, Limit::RateMax);
    assert_eq!(best.per_second, Some(1_000_000.0));
}

#[test]
fn a_search_that_finds_nothing_or_only_noise_ends() {
    let (best, _) = search(|_| Verdict::Unmet);
    assert_eq!(best.per_second, None);
    let mut flip = 0;
    let (_, trials) = search(|_| {
        flip += 1;
        if flip % 3 == 0 {
            Verdict::Met
        } else {
            Verdict::Unmet
        }
    });
    assert!(trials <= limits::SEARCH_TRIALS_MAX);
}

#[test]
fn a_sweep_rises_by_the_same_factor() {
    let sweep: Sweep = "100:10000:5".parse().unwrap();
    assert_eq!(sweep.rates, [100.0, 316.0, 1000.0, 3160.0, 10_000.0]);
    for (text, part) in [
        ("100:1000", "no sweep"),
        ("0:1000:5", "rates are"),
        ("a:1000:5", "rates are"),
        ("100:1000:x", "no number"),
        ("100:1000:1", "2 to"),
        ("100:1000:100000", "2 to"),
        ("1000:100:5", "not above"),
    ] {
        let error = text.parse::<Sweep>().unwrap_err();
        assert!(
            error.contains(part) && error.contains("100:10000:10"),
            "{text}: {error}"
        );
    }
}

fn trial(rate: f64, succeeded: f64, p99_us: u64) -> Trial {
    Trial {
        rate,
        succeeded_per_second: succeeded,
        error_share: 0.0,
        p50_us: Some(p99_us / 2),
        p99_us: Some(p99_us),
        p99_9_us: None,
        kept_up: succeeded >= rate * 0.95,
        valid: true,
        unmet: Vec::new(),
    }
}

#[test]
fn a_queue_that_grows_is_noticed_before_the_latency_says_so() {
    use crate::measurements::Measurements;
    use crate::result::{Ended, Machine, PlanSummary};
    use crate::sample::{Outcome, Sample};
    use std::time::Duration;
    // Due 1000/s, answered in turn at the given rate after 100 ms.
    let run = |answered: u64| {
        let mut measurements = Measurements::new(Duration::ZERO);
        for index in 0..2000u64 {
            let due = Duration::from_millis(index);
            let sent = due.max(Duration::from_micros(index * 1_000_000 / answered));
            measurements.record(&Sample {
                finished: sent + Duration::from_millis(100),
                outcome: Outcome::Success,
                ..Sample::begin(due, sent)
            });
        }
        let two = Duration::from_secs(2);
        let (plan, machine) = (PlanSummary::default(), Machine::default());
        let result = RunResult::new(&measurements, two, Ended::Completed, 0, plan, machine);
        Trial::of(1000.0, &result, Vec::new())
    };
    assert!(run(2000).kept_up);
    assert!(!run(900).kept_up);
    assert!(run(900).unmet[0].contains("95 %"));
}

#[test]
fn the_knee_of_a_queue_is_the_last_rate_before_its_latency_doubles() {
    // M/M/1: the time in the system is 1 / (capacity - rate).
    let trials: Vec<Trial> = [100.0, 200.0, 400.0, 550.0, 800.0, 950.0]
        .iter()
        .map(|rate| trial(*rate, *rate, (1e6 / (1000.0 - rate)) as u64))
        .collect();
    // At low rates: 1.25 ms at 200/s; at 550/s it is 2.2 ms, at 800/s 5 ms.
    assert_eq!(knee(&trials), Some(3));
}

#[test]
fn a_rate_that_is_not_reached_or_fails_is_beyond_the_knee() {
    let mut trials = vec![
        trial(100.0, 100.0, 1000),
        trial(200.0, 200.0, 1000),
        trial(400.0, 300.0, 1000),
    ];
    assert_eq!(knee(&trials), Some(1));
    trials[1].error_share = 0.05;
    assert_eq!(knee(&trials), Some(0));
    trials[0].valid = false;
    assert_eq!(knee(&trials), None);
    assert_eq!(knee(&[]), None);
}
