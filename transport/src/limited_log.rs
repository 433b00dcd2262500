//! Limits log lines that peers, callers or a lasting state cause again and again: a fixed number in a span of
//! time, and a count of the lines that were left out. The decision is pure; [`LimitedLog`] shares it.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits;
use crate::locks::lock;

/// One kind of line.
#[derive(Debug)]
pub struct LimitedLog {
    rate: Rate,
    window: Mutex<Window>,
}

/// How often a line may be written.
#[derive(Clone, Copy, Debug)]
struct Rate {
    lines: u32,
    span: Duration,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LimitedLog {
    /// A line that reports an action of a caller: many callers may do the same, and each of the first
    /// deserves a line.
    pub fn by_callers() -> Self {
        Self::new(limits::LOG_OF_CALLERS)
    }

    /// A line that reports a lasting state: the next one says the same.
    pub fn by_a_state() -> Self {
        Self::new(limits::LOG_OF_A_STATE)
    }

    fn new((lines, span): (u32, Duration)) -> Self {
        Self {
            rate: Rate { lines, span },
            window: Mutex::default(),
        }
    }

    /// Calls `write` with the number of lines left out before this one, unless this one is left out, too.
    pub fn log(&self, write: impl FnOnce(u64)) {
        let left_out = {
            let mut window = lock(&self.window);
            window.admit(self.rate, Instant::now())
        };
        if let Some(left_out) = left_out {
            write(left_out);
        }
    }
}

impl Window {
    fn admit(&mut self, rate: Rate, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now >= began + rate.span) {
            self.began = Some(now);
            self.lines = 0;
        }
        if self.lines >= rate.lines {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_rate_are_counted_and_the_next_one_says_how_many() {
        for (lines, span) in [limits::LOG_OF_CALLERS, limits::LOG_OF_A_STATE] {
            let (mut window, now) = (Window::default(), Instant::now());
            let rate = Rate { lines, span };
            for _ in 0..lines {
                assert_eq!(window.admit(rate, now), Some(0));
            }
            let before = now + span - Duration::from_millis(1);
            assert_eq!(window.admit(rate, now), None);
            assert_eq!(window.admit(rate, before), None);
            assert_eq!(window.admit(rate, now + span), Some(2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_that_lasts_a_minute_is_six_lines() {
        let rarely = LimitedLog::by_a_state();
        let mut written = Vec::new();
        for _ in 0..600 {
            rarely.log(|left_out| written.push(left_out));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(written, [0, 99, 99, 99, 99, 99]);
    }
}
