//! Every arrival of a run, with the target that it goes to. Pure; the same plan gives the same ones.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::target::Targets;
use crate::schedule::{Arrivals, Course, Schedule, Stage};

/// One request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When, after the origin of the run (the begin of the warm-up).
    pub at: Duration,
    /// The index of its target.
    pub target: usize,
}

/// The arrivals of an open loop in order, those of the warm-up first. `requests` of the others at most.
///
/// Every thread computes all of them and takes its share, so that the requests do not depend on the number of
/// threads.
pub(crate) fn arrivals<'a>(
    targets: &'a Targets,
    course: &Course,
    spread: Arrivals,
    warm_up: Duration,
    requests: Option<u64>,
    seed: u64,
) -> impl Iterator<Item = Arrival> + use<'a> {
    let schedule = Schedule::new(with_warm_up(course, warm_up), spread, seed);
    let mut choice = Choice::new(targets, seed);
    let mut left = requests.unwrap_or(u64::MAX);
    schedule
        .take_while(move |at| {
            if *at < warm_up {
                return true;
            }
            let due = left > 0;
            left = left.saturating_sub(1);
            due
        })
        .map(move |at| Arrival {
            at,
            target: choice.next(),
        })
}

/// Chooses targets by weight, repeatably.
pub(crate) struct Choice<'a> {
    targets: &'a Targets,
    random: StdRng,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(targets: &'a Targets, seed: u64) -> Self {
        Self {
            targets,
            // Another sequence than that of the arrival times.
            random: StdRng::seed_from_u64(!seed),
        }
    }

    pub(crate) fn next(&mut self) -> usize {
        if self.targets.list().len() == 1 {
            return 0;
        }
        self.targets.choose(self.random.random())
    }
}

/// `course` after a steady stage at the rate with which it begins.
fn with_warm_up(course: &Course, warm_up: Duration) -> Course {
    let Some(first) = course.stages().first().filter(|_| !warm_up.is_zero()) else {
        return course.clone();
    };
    // A ramp from 0 has no rate to warm up with but the one that it leads to.
    let rate = if first.from > 0.0 {
        first.from
    } else {
        first.to
    };
    course.after(Stage {
        from: rate,
        to: rate,
        length: warm_up,
    })
}

#[cfg(test)]
mod tests {
    use super::super::target::{TcpPattern, Version};
    use super::*;

    fn targets(texts: &[&str]) -> Targets {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        Targets::parse(&texts, Version::Scheme, TcpPattern::Echo).unwrap()
    }

    #[test]
    fn the_warm_up_comes_before_the_course_and_its_requests_are_not_counted() {
        let targets = targets(&["http://a/"]);
        let warm_up = Duration::from_secs(1);
        let course = Course::steady(10.0, Duration::from_secs(2)).unwrap();
        let of = |requests| -> Vec<Duration> {
            arrivals(&targets, &course, Arrivals::Constant, warm_up, requests, 1)
                .map(|arrival| arrival.at)
                .collect()
        };
        assert_eq!(of(None).len(), 30);
        let limited = of(Some(5));
        assert_eq!(limited.len(), 15);
        assert_eq!(*limited.last().unwrap(), Duration::from_millis(1400));
    }

    #[test]
    fn targets_are_chosen_by_weight_and_repeatably() {
        let targets = targets(&["http://a/", "3@http://b/"]);
        let course = Course::steady(1000.0, Duration::from_secs(4)).unwrap();
        let of = |seed| -> Vec<usize> {
            let zero = Duration::ZERO;
            arrivals(&targets, &course, Arrivals::Poisson, zero, None, seed)
                .map(|arrival| arrival.target)
                .collect()
        };
        let chosen = of(3);
        assert_eq!(chosen, of(3));
        let second = chosen.iter().sum::<usize>() as f64 / chosen.len() as f64;
        assert!((second - 0.75).abs() < 0.05, "{second}");
    }
}
