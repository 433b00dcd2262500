//! How fast messages of one sidecar are read: a burst, then a fixed number per second. A sidecar that sends
//! more is read later, not refused. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{MESSAGE_BURST, MESSAGE_INTERVAL};

/// The messages of one sidecar.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all messages so far would have come at the steady rate.
    earned: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { earned: now }
    }

    /// A message was taken.
    pub(super) fn count(&mut self, now: Instant) {
        self.earned = self.earned.max(now) + MESSAGE_INTERVAL;
    }

    /// Until when the next message has to wait, if it has to.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        const AHEAD: Duration = MESSAGE_INTERVAL.saturating_mul(MESSAGE_BURST);
        let ahead = self.earned.saturating_duration_since(now);
        (ahead >= AHEAD).then(|| now + (ahead - AHEAD) + MESSAGE_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_at_once_and_then_a_steady_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut burst = 0;
        while pace.paused(start).is_none() {
            pace.count(start);
            burst += 1;
        }
        assert_eq!(burst, MESSAGE_BURST);
        let mut now = start;
        for _ in 0..10 {
            now = pace.paused(now).unwrap();
            assert!(pace.paused(now).is_none());
            pace.count(now);
        }
        assert_eq!(now - start, MESSAGE_INTERVAL * 10);
    }
}
