//! How many requests a worker begins in one cycle, so that it has handled them when the next cycle begins.
//! Pure.
//!
//! The time that a cycle takes on the thread tells how many requests a cycle can begin. It accounts for the
//! cost of requests, the speed of the machine and the time that applications take, because requests that wait
//! for an answer use no time of the thread. So it needs no tuning.

use std::time::Duration;

use crate::limits;

/// The requests of one cycle.
#[derive(Debug)]
pub(super) struct Portion {
    requests: u32,
    /// No cycle has been long yet: the portion doubles.
    searching: bool,
}

impl Default for Portion {
    fn default() -> Self {
        Self {
            requests: limits::INTAKE_LEAST,
            searching: true,
        }
    }
}

impl Portion {
    /// How many may begin in this cycle.
    pub(super) fn requests(&self) -> u32 {
        self.requests
    }

    /// A cycle is over: it `took` this long with this many `begun`; `waits` if others are left waiting.
    pub(super) fn over(&mut self, took: Duration, begun: u32, waits: bool) {
        if took >= limits::INTAKE_CYCLE_LONG {
            self.searching = false;
            let share = limits::INTAKE_CYCLE.div_duration_f64(took);
            let fits = (f64::from(begun) * share) as u32;
            self.requests = fits.max(limits::INTAKE_LEAST);
        } else if waits && took < limits::INTAKE_CYCLE {
            let more = if self.searching {
                self.requests
            } else {
                self.requests / limits::INTAKE_GROWTH
            };
            self.requests = (self.requests + more).min(limits::INTAKE_MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests a cycle begins in the end, and how long it takes, if each takes this long and any
    /// number wait.
    fn in_the_end(each: Duration) -> (u32, Duration) {
        let mut portion = Portion::default();
        for _ in 0..100 {
            let requests = portion.requests();
            portion.over(each * requests, requests, true);
        }
        (portion.requests(), each * portion.requests())
    }

    #[test]
    fn cycles_are_neither_short_nor_long_whatever_requests_cost() {
        for micros in [10, 45, 400] {
            let (_, took) = in_the_end(Duration::from_micros(micros));
            let fit = limits::INTAKE_CYCLE..limits::INTAKE_CYCLE_LONG;
            assert!(fit.contains(&took), "{took:?} with {micros} us each");
        }
        let (requests, _) = in_the_end(Duration::from_millis(50));
        assert_eq!(requests, limits::INTAKE_LEAST);
        let (requests, _) = in_the_end(Duration::from_nanos(100));
        assert_eq!(requests, limits::INTAKE_MOST);
    }

    #[test]
    fn a_long_cycle_cuts_the_portion_to_what_fits_and_only_waiting_requests_make_it_grow() {
        let mut portion = Portion::default();
        let short = limits::INTAKE_CYCLE / 2;
        portion.over(short, 16, false);
        assert_eq!(portion.requests(), 16);
        for doubled in [32, 64, 128] {
            portion.over(short, 16, true);
            assert_eq!(portion.requests(), doubled);
        }
        portion.over(limits::INTAKE_CYCLE * 4, 128, true);
        assert_eq!(portion.requests(), 32);
        portion.over(short, 32, true);
        assert_eq!(portion.requests(), 36);
        portion.over(limits::INTAKE_CYCLE, 36, true);
        assert_eq!(portion.requests(), 36);
    }
}
