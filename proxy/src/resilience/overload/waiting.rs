//! How many requests wait for the head of their answer, by the second in which they began: a request that
//! waits for long is a long poll or a stream, and no part of a queue. Pure.

use std::time::{Duration, Instant};

/// A request that waits longer is taken for a long poll or a stream.
pub(super) const QUEUED_MAX: Duration = Duration::from_secs(8);
/// Seconds that are counted separately: those of [`QUEUED_MAX`], and the current one.
const SECONDS: u64 = QUEUED_MAX.as_secs() + 1;

/// The requests that wait, and have waited for at most [`QUEUED_MAX`].
#[derive(Debug)]
pub(super) struct Waiting {
    origin: Instant,
    second: u64,
    of: [u32; SECONDS as usize],
    sum: u32,
}

impl Waiting {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            second: 0,
            of: [0; SECONDS as usize],
            sum: 0,
        }
    }

    /// How many they are now.
    pub(super) fn count(&mut self, now: Instant) -> u32 {
        let second = self.second_of(now);
        if second >= self.second + SECONDS {
            self.of = [0; SECONDS as usize];
            self.sum = 0;
        } else {
            for old in self.second + 1..=second {
                self.sum -= std::mem::take(&mut self.of[(old % SECONDS) as usize]);
            }
        }
        self.second = self.second.max(second);
        self.sum
    }

    /// One more request waits.
    pub(super) fn begin(&mut self, now: Instant) {
        self.count(now);
        self.of[(self.second % SECONDS) as usize] += 1;
        self.sum += 1;
    }

    /// A request that began `then` waits no more.
    pub(super) fn end(&mut self, then: Instant, now: Instant) {
        self.count(now);
        let second = self.second_of(then);
        let place = &mut self.of[(second % SECONDS) as usize];
        if second + SECONDS > self.second && *place > 0 {
            *place -= 1;
            self.sum -= 1;
        }
    }

    fn second_of(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_long_is_no_part_of_a_queue_and_its_end_changes_nothing() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut waiting = Waiting::new(began);
        waiting.begin(at(0));
        waiting.begin(at(5));
        assert_eq!(waiting.count(at(8)), 2);
        assert_eq!(waiting.count(at(9)), 1);
        waiting.begin(at(9));
        waiting.end(at(0), at(9));
        assert_eq!(waiting.count(at(9)), 2);
        waiting.end(at(5), at(10));
        assert_eq!(waiting.count(at(10)), 1);
        assert_eq!(waiting.count(at(1000)), 0);
        waiting.end(at(9), at(1000));
        assert_eq!(waiting.count(at(1000)), 0);
    }
}
