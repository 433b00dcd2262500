//! When requests are due. Pure: the seed is an argument, time is an offset from the run's origin.
//!
//! Each arrival is computed from its number, not from the arrival before it, so a schedule never
//! drifts, however long it runs: stage `r0 -> r1` over `d` seconds has had `r0 t + (r1 - r0) t^2 / 2d`
//! arrivals after `t`, and the inverse of that sum says when arrival `n` is due. For a Poisson process
//! the numbers are partial sums of exponential variates (time change of a unit process), which is exact
//! for every course of the rate.
//!
//! Not here: waiting until an arrival is due (the pacer), and the request that is sent then.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use crate::limits;

/// A part of a schedule in which the rate changes evenly, or not at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Requests per second when the stage begins.
    pub from: f64,
    /// Requests per second when it ends.
    pub to: f64,
    /// How long it lasts.
    pub length: Duration,
}

/// How arrivals are spread around their rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly.
    #[default]
    Constant,
    /// Independently of each other, as the calls of many users are: exponential gaps.
    Poisson,
}

/// Stages that fit together and whose rates are in range.
#[derive(Clone, Debug, PartialEq)]
pub struct Course(Vec<Stage>);

/// Why stages make no schedule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CourseError {
    /// Nothing to do.
    #[error("no stage: give at least one, such as 100:1000:30s")]
    Empty,
    /// More than a person writes.
    #[error("{0} stages; at most {max}", max = limits::STAGES_MAX)]
    Long(usize),
    /// A rate outside of the range.
    #[error(
        "the rate {0}/s is out of range: write {min} to {max} requests per second",
        min = limits::RATE_MIN, max = limits::RATE_MAX
    )]
    Rate(f64),
    /// A stage that takes no time.
    #[error("a stage of no length: write for example 100:1000:30s")]
    Length,
}

impl Course {
    /// Checks stages.
    ///
    /// # Errors
    /// When there is none, or one that cannot be run. A stage may rise from 0 or fall to 0, but a stage at 0
    /// throughout would only be a wait, and is refused.
    pub fn new(stages: Vec<Stage>) -> Result<Self, CourseError> {
        if stages.is_empty() {
            return Err(CourseError::Empty);
        }
        if stages.len() > limits::STAGES_MAX {
            return Err(CourseError::Long(stages.len()));
        }
        for stage in &stages {
            let highest = stage.from.max(stage.to);
            let lowest = stage.from.min(stage.to);
            let range = limits::RATE_MIN..=limits::RATE_MAX;
            if !range.contains(&highest) || !lowest.is_finite() || lowest < 0.0 {
                let wrong = if range.contains(&highest) {
                    lowest
                } else {
                    highest
                };
                return Err(CourseError::Rate(wrong));
            }
            if stage.length.is_zero() {
                return Err(CourseError::Length);
            }
        }
        Ok(Self(stages))
    }

    /// The same rate throughout.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn steady(rate: f64, length: Duration) -> Result<Self, CourseError> {
        Self::new(vec![Stage {
            from: rate,
            to: rate,
            length,
        }])
    }

    /// This course after another stage.
    pub(crate) fn after(&self, first: Stage) -> Self {
        Self(
            std::iter::once(first)
                .chain(self.0.iter().copied())
                .collect(),
        )
    }

    /// The stages in order.
    pub fn stages(&self) -> &[Stage] {
        &self.0
    }

    /// How long all stages take.
    pub fn length(&self) -> Duration {
        self.0.iter().map(|stage| stage.length).sum()
    }

    /// How many arrivals all stages have on average.
    pub fn expected(&self) -> f64 {
        self.0.iter().map(|stage| stage.arrivals()).sum()
    }
}

impl Stage {
    /// Arrivals of the whole stage.
    fn arrivals(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length.as_secs_f64()
    }

    /// When its arrival `number` is due, in seconds after its begin; `number` is below
    /// [`Self::arrivals`].
    fn due(&self, number: f64) -> f64 {
        let acceleration = (self.to - self.from) / self.length.as_secs_f64();
        // The root of `from t + acceleration t^2 / 2 = number` in the form that neither cancels nor
        // divides by an acceleration of 0.
        let root = (self.from * self.from + 2.0 * acceleration * number).max(0.0);
        2.0 * number / (self.from + root.sqrt()).max(f64::MIN_POSITIVE)
    }
}

/// The moments of a [`Course`], in order. The same seed gives the same moments.
#[derive(Debug)]
pub struct Schedule {
    course: Course,
    arrivals: Arrivals,
    random: StdRng,
    /// The next arrival, counted from the run's begin; not whole for a Poisson process.
    number: f64,
    /// The stage that it falls into, the arrivals before that stage, and its begin.
    stage: usize,
    before: f64,
    begin: Duration,
}

impl Schedule {
    /// The schedule of `course`.
    pub fn new(course: Course, arrivals: Arrivals, seed: u64) -> Self {
        let mut schedule = Self {
            course,
            arrivals,
            random: StdRng::seed_from_u64(seed),
            number: 0.0,
            stage: 0,
            before: 0.0,
            begin: Duration::ZERO,
        };
        if arrivals == Arrivals::Poisson {
            schedule.number = schedule.gap();
        }
        schedule
    }

    /// How far the next arrival is from the last, in arrivals.
    fn gap(&mut self) -> f64 {
        match self.arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => {
                // In (0, 1], so that its logarithm is finite.
                let uniform: f64 = 1.0 - self.random.random::<f64>();
                -uniform.ln()
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    /// When the next request is due, after the run's origin.
    fn next(&mut self) -> Option<Duration> {
        loop {
            let stage = self.course.0.get(self.stage)?;
            let arrivals = stage.arrivals();
            let number = self.number - self.before;
            if number < arrivals {
                let due = self.begin + Duration::from_secs_f64(stage.due(number));
                self.number += self.gap();
                return Some(due);
            }
            self.before += arrivals;
            self.begin += stage.length;
            self.stage += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn course(stages: &[(f64, f64, f64)]) -> Course {
        let stages = stages.iter().map(|&(from, to, length)| Stage {
            from,
            to,
            length: seconds(length),
        });
        Course::new(stages.collect()).unwrap()
    }

    fn constant(stages: &[(f64, f64, f64)]) -> Schedule {
        Schedule::new(course(stages), Arrivals::Constant, 0)
    }

    #[test]
    fn a_constant_rate_is_exact_after_a_day() {
        let mut schedule = constant(&[(3.0, 3.0, 86_400.0 * 2.0)]);
        let number = 3 * 86_400;
        let due = schedule.nth(number).unwrap();
        let error = due.abs_diff(Duration::from_secs(86_400));
        assert!(error < Duration::from_nanos(100), "{error:?}");
    }

    #[test]
    fn a_second_at_rate_n_has_n_arrivals() {
        for rate in [1.0, 7.0, 1000.0, 99_999.0] {
            assert_eq!(constant(&[(rate, rate, 1.0)]).count() as f64, rate);
        }
    }

    #[test]
    fn a_ramp_has_the_arrivals_under_its_line() {
        let moments: Vec<Duration> = constant(&[(0.0, 100.0, 10.0)]).collect();
        assert_eq!(moments.len(), 500);
        // After half of the time a quarter of them.
        let half = moments.iter().filter(|due| **due < seconds(5.0)).count();
        assert_eq!(half, 125);
        assert!(moments.is_sorted());
    }

    #[test]
    fn a_falling_ramp_mirrors_a_rising_one() {
        let rising = constant(&[(10.0, 1000.0, 4.0)]).count();
        let falling: Vec<Duration> = constant(&[(1000.0, 10.0, 4.0)]).collect();
        assert_eq!(falling.len(), rising);
        assert!(*falling.last().unwrap() < seconds(4.0));
    }

    #[test]
    fn stages_follow_each_other_without_a_gap_or_a_burst() {
        let moments: Vec<Duration> = constant(&[(10.0, 10.0, 1.05), (10.0, 10.0, 0.95)]).collect();
        assert_eq!(moments.len(), 20);
        for pair in moments.windows(2) {
            let gap = (pair[1] - pair[0]).as_secs_f64();
            assert!((gap - 0.1).abs() < 1e-9, "{gap}");
        }
    }

    #[test]
    fn a_poisson_process_has_the_mean_and_the_spread_of_one() {
        let schedule = Schedule::new(course(&[(1000.0, 1000.0, 100.0)]), Arrivals::Poisson, 7);
        let moments: Vec<f64> = schedule.map(|due| due.as_secs_f64()).collect();
        // 100 000 expected, standard deviation 316.
        assert!(
            (98_700..101_300).contains(&moments.len()),
            "{}",
            moments.len()
        );
        let gaps: Vec<f64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Exponential gaps: the standard deviation is the mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02);
    }

    #[test]
    fn a_seed_gives_one_schedule() {
        let of = |seed| -> Vec<Duration> {
            Schedule::new(course(&[(50.0, 500.0, 2.0)]), Arrivals::Poisson, seed).collect()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn courses_that_cannot_be_run_are_refused() {
        let stage = |from, to, length| Stage {
            from,
            to,
            length: seconds(length),
        };
        for (stages, error) in [
            (vec![], CourseError::Empty),
            (vec![stage(0.0, 0.0, 1.0)], CourseError::Rate(0.0)),
            (vec![stage(-1.0, 5.0, 1.0)], CourseError::Rate(-1.0)),
            (vec![stage(1.0, 1e9, 1.0)], CourseError::Rate(1e9)),
            (vec![stage(1.0, 1.0, 0.0)], CourseError::Length),
        ] {
            assert_eq!(Course::new(stages).unwrap_err(), error);
        }
        assert!(matches!(
            Course::steady(f64::NAN, seconds(1.0)),
            Err(CourseError::Rate(_))
        ));
    }
}
