//! How many second attempts one destination gets: a share of its recent requests, and a small fixed number so
//! that destinations with little traffic get retries as well. All workers share it, for retries and hedges.
//! Pure: time is an argument.
//!
//! Counting a request takes two relaxed atomic operations. Workers may race at the turn of a second or for
//! the last attempt; the error is at most one attempt for each worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weft_config::table::RetryBudget;

/// Slices of the interval, which are dropped one by one.
const SLICES: u64 = 10;
/// One more for the current slice.
const SLOTS: usize = 11;
/// Bits of a slot that hold the count; the others say which slice it belongs to.
const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The counts of one destination.
#[derive(Debug)]
pub(crate) struct Budget {
    epoch: Instant,
    interval: Duration,
    requests: [AtomicU64; SLOTS],
    spent: [AtomicU64; SLOTS],
}

impl Budget {
    /// Nothing counted within the interval.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            epoch: now,
            interval,
            requests: Default::default(),
            spent: Default::default(),
        }
    }

    /// Counts a request.
    pub(crate) fn request(&self, now: Instant) {
        add(&self.requests, self.slice(now));
    }

    /// Whether one more attempt may be made; counted if so.
    pub(crate) fn spend(&self, now: Instant, allowance: &RetryBudget) -> bool {
        let slice = self.slice(now);
        if sum(&self.spent, slice) as f64 + 1.0 > self.allowed(slice, allowance) {
            return false;
        }
        add(&self.spent, slice);
        true
    }

    /// Attempts that may still be made.
    pub(crate) fn left(&self, now: Instant, allowance: &RetryBudget) -> f64 {
        let slice = self.slice(now);
        (self.allowed(slice, allowance) - sum(&self.spent, slice) as f64).max(0.0)
    }

    fn allowed(&self, slice: u64, allowance: &RetryBudget) -> f64 {
        let requests = sum(&self.requests, slice) as f64;
        let floor = f64::from(allowance.retries_per_second_min) * self.interval.as_secs_f64();
        requests * allowance.percent.fraction() + floor
    }

    /// The interval that it was made for.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// Slices since the epoch, counted from 1, so that an untouched slot belongs to none.
    fn slice(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.epoch).as_micros();
        let length = (self.interval.as_micros() / u128::from(SLICES)).max(1);
        u64::try_from(passed / length).unwrap_or(u64::MAX - 1) + 1
    }
}

fn slot(slice: u64) -> usize {
    usize::try_from(slice % SLOTS as u64).unwrap_or(0)
}

fn add(slots: &[AtomicU64; SLOTS], slice: u64) {
    let slot = &slots[slot(slice)];
    if slot.load(Ordering::Relaxed) >> COUNT_BITS == slice {
        slot.fetch_add(1, Ordering::Relaxed);
    } else {
        slot.store((slice << COUNT_BITS) | 1, Ordering::Relaxed);
    }
}

fn sum(slots: &[AtomicU64; SLOTS], slice: u64) -> u64 {
    slots
        .iter()
        .map(|slot| slot.load(Ordering::Relaxed))
        .filter(|slot| {
            let of = slot >> COUNT_BITS;
            of <= slice && of + SLICES >= slice
        })
        .map(|slot| slot & COUNT_MASK)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(now: Instant) -> Budget {
        Budget::new(RetryBudget::default().interval, now)
    }

    /// How many of the requested attempts are allowed.
    fn spend_all(budget: &Budget, now: Instant) -> usize {
        (0..10_000)
            .take_while(|_| budget.spend(now, &RetryBudget::default()))
            .count()
    }

    #[test]
    fn a_fifth_of_the_requests_and_the_floor_may_be_spent() {
        let now = Instant::now();
        let budget = budget(now);
        assert_eq!(spend_all(&budget, now), 10);
        (0..1000).for_each(|_| budget.request(now));
        assert_eq!(spend_all(&budget, now), 200);
        assert_eq!(budget.left(now, &RetryBudget::default()), 0.0);
    }

    #[test]
    fn what_was_spent_comes_back_after_the_window_with_requests_forgotten() {
        let now = Instant::now();
        let budget = budget(now);
        (0..1000).for_each(|_| budget.request(now));
        assert_eq!(spend_all(&budget, now), 210);
        assert_eq!(spend_all(&budget, now + Duration::from_secs(9)), 0);
        assert_eq!(spend_all(&budget, now + Duration::from_secs(12)), 10);
    }

    #[test]
    fn a_service_that_always_fails_gets_at_most_a_fifth_more_than_is_offered() {
        let start = Instant::now();
        let budget = budget(start);
        let mut retries = 0_u32;
        for request in 0..10_000_u64 {
            let now = start + Duration::from_millis(request * 2);
            budget.request(now);
            retries += u32::from(budget.spend(now, &RetryBudget::default()))
                + u32::from(budget.spend(now, &RetryBudget::default()));
        }
        // 20 s: a fifth of the requests, and one for each second and of the first window.
        assert!((2000..2000 + 32).contains(&retries), "{retries}");
    }

    #[test]
    fn workers_that_count_at_once_lose_nothing_within_a_second() {
        let now = Instant::now();
        let budget = budget(now);
        budget.request(now);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| budget.request(now)));
            }
        });
        // A fifth of 4001, and the floor.
        let left = budget.left(now, &RetryBudget::default());
        assert!((left - 810.2).abs() < 1e-6, "{left}");
    }
}
