//! Packets of others before a bottleneck: they fill its queue and take its time, and nobody sees them
//! leave. Pure. They come at random and heed no losses, as the sum of many flows does.

use std::time::{Duration, Instant};

use super::fate::{Fate, Purpose};
use crate::limits::CROSS_PACKET_BYTES;

/// When they come.
#[derive(Debug, Default)]
pub(super) struct Cross {
    /// Bits per second, and when the next one comes.
    coming: Option<(u64, Instant)>,
    /// How many came.
    count: u64,
}

impl Cross {
    /// So many bits per second from `now` on.
    pub(super) fn set(&mut self, now: Instant, rate: Option<u64>, fate: Fate) {
        let unchanged = self.coming.map(|(rate, _)| rate) == rate;
        if !unchanged {
            self.coming = rate.map(|rate| (rate, now + self.wait(rate, fate)));
        }
    }

    /// When the next one comes, if that is not after `now`; it counts as come.
    pub(super) fn arrival(&mut self, now: Instant, fate: Fate) -> Option<Instant> {
        let (rate, at) = self.coming.filter(|(_, at)| *at <= now)?;
        self.count += 1;
        self.coming = Some((rate, at + self.wait(rate, fate)));
        Some(at)
    }

    /// The time between two: exponential, so that arrivals are a Poisson process.
    fn wait(&self, rate: u64, fate: Fate) -> Duration {
        let mean = CROSS_PACKET_BYTES as f64 * 8.0 / rate.max(1) as f64;
        let share = fate.share(self.count, Purpose::Cross);
        Duration::try_from_secs_f64(-mean * (1.0 - share).ln()).unwrap_or(Duration::MAX / 4)
    }
}
