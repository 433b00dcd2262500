//! Waiting times between attempts: exponential with full jitter, bounded. Pure.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// Doubles from `first` to `cap`; each wait is drawn evenly from half of the step to all of it, so
/// that many who failed together do not return together, and nobody returns at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and never waits longer than `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            next: first,
        }
    }

    /// The wait before the next attempt.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.cap);
        let half = step / 2;
        half + half.mul_f64(rng.random::<f64>())
    }

    /// An attempt succeeded: start over.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_a_success() {
        let mut rng = SmallRng::seed_from_u64(1);
        let first = Duration::from_millis(100);
        let cap = Duration::from_millis(1000);
        let mut backoff = Backoff::new(first, cap);
        for step in [100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            let wait = backoff.next(&mut rng);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= first);
    }
}
