//! Waiting times between attempts: doubled after each failure, bounded, and spread at random, so that callers
//! that failed together do not retry together. Pure. Every wait of weft before another attempt uses one of
//! these.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// The lower bound of a wait, which is drawn evenly up to the present step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// From half of the step: even after many failures no attempt follows at once.
    Half,
    /// From half of the first step: many callers that lost one server spread over the whole step.
    First,
    /// From zero: for callers that have only one failure in common.
    Zero,
}

/// The waits of one caller.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    spread: Spread,
    failures: u32,
}

impl Backoff {
    /// Steps double from `first` to `cap`.
    pub const fn new(first: Duration, cap: Duration, spread: Spread) -> Self {
        Self {
            first,
            cap,
            spread,
            failures: 0,
        }
    }

    /// An attempt failed: the wait before the next one.
    pub fn next(&mut self, random: &mut impl Rng) -> Duration {
        self.failures = self.failures.saturating_add(1);
        wait(self.first, self.cap, self.spread, self.failures, random)
    }

    /// An attempt succeeded: start over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The wait after this many failures in a row, for callers that count them.
pub fn wait(
    first: Duration,
    cap: Duration,
    spread: Spread,
    failures: u32,
    random: &mut impl Rng,
) -> Duration {
    let doubled = 1_u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let step = first.saturating_mul(doubled).min(cap);
    let least = match spread {
        Spread::Half => step / 2,
        Spread::First => (first / 2).min(step),
        Spread::Zero => Duration::ZERO,
    };
    least + (step - least).mul_f64(random.random::<f64>())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_millis(1000);

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_a_success() {
        for seed in 0..100 {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut backoff = Backoff::new(FIRST, CAP, Spread::Half);
            for step in [100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
                let wait = backoff.next(&mut random);
                assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
            }
            backoff.reset();
            assert!(backoff.next(&mut random) <= FIRST);
        }
    }

    #[test]
    fn waits_are_spread_from_where_the_caller_says_to_the_whole_step() {
        let mut random = SmallRng::seed_from_u64(1);
        for (spread, least) in [(Spread::Half, 400), (Spread::First, 50), (Spread::Zero, 0)] {
            let waits: Vec<_> = (0..2000)
                .map(|_| wait(FIRST, CAP, spread, 4, &mut random).as_millis())
                .collect();
            let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(
                (least..least + 10).contains(shortest),
                "{spread:?} {shortest}"
            );
            assert!((790..=800).contains(longest), "{spread:?} {longest}");
        }
    }

    #[test]
    fn however_many_attempts_failed_the_wait_is_bounded() {
        let mut random = SmallRng::seed_from_u64(1);
        for failures in [0, 1, 31, 32, 33, u32::MAX] {
            let longest = wait(FIRST, CAP, Spread::First, failures, &mut random);
            assert!(longest <= CAP, "{failures} {longest:?}");
        }
        let short = Duration::from_millis(10);
        assert!(wait(FIRST, short, Spread::First, 1, &mut random) <= short);
    }
}
