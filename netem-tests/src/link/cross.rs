//! Packets of other flows before a bottleneck: they fill its queue and take its time, and do not leave the
//! link. Pure. They come at random and ignore losses, as the sum of many flows does.

use std::time::{Duration, Instant};

use super::fate::{Fate, Purpose};
use crate::limits::{CROSS_MISSED_MAX, CROSS_PACKET_BYTES};

/// The arrivals of these packets.
#[derive(Debug, Default)]
pub(super) struct Cross {
    /// Bits per second, and when the next one comes.
    coming: Option<(u64, Instant)>,
    /// How many came.
    count: u64,
}

impl Cross {
    /// This many bits per second from `now` on.
    pub(super) fn set(&mut self, now: Instant, rate: Option<u64>, fate: Fate) {
        let unchanged = self.coming.map(|(rate, _)| rate) == rate;
        if !unchanged {
            self.coming = rate.map(|rate| (rate, now + self.wait(rate, fate)));
        }
    }

    /// When the next one comes, if that is not after `now`; it counts as arrived.
    pub(super) fn arrival(&mut self, now: Instant, fate: Fate) -> Option<Instant> {
        let (rate, at) = self.coming.filter(|(_, at)| *at <= now)?;
        // After a long idle time only the last ones can still be in a queue.
        let remembered = mean(rate).saturating_mul(CROSS_MISSED_MAX);
        let at = now
            .checked_sub(remembered)
            .map_or(at, |since| at.max(since));
        self.count += 1;
        self.coming = Some((rate, at + self.wait(rate, fate)));
        Some(at)
    }

    /// The time between two: exponential, so that arrivals are a Poisson process.
    fn wait(&self, rate: u64, fate: Fate) -> Duration {
        let share = fate.share(self.count, Purpose::Cross);
        let times = -(1.0 - share).ln();
        Duration::try_from_secs_f64(mean(rate).as_secs_f64() * times).unwrap_or(Duration::MAX / 4)
    }
}

/// The mean time between two.
fn mean(rate: u64) -> Duration {
    Duration::from_secs_f64(CROSS_PACKET_BYTES as f64 * 8.0 / rate.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::super::Seed;
    use super::*;

    #[test]
    fn an_hour_without_a_look_costs_a_bounded_number_of_arrivals() {
        let (now, fate) = (Instant::now(), Fate::new(Seed(1)));
        let mut cross = Cross::default();
        cross.set(now, Some(10_000_000_000), fate);
        let later = now + Duration::from_secs(3600);
        let mut count = 0_u32;
        while cross.arrival(later, fate).is_some() {
            count += 1;
        }
        assert!(count < 2 * CROSS_MISSED_MAX, "{count}");
    }
}
