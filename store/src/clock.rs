//! When leases end. Pure: time is an argument. The stores know which keys belong to a lease.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::LeaseId;

/// The ends of all leases.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    leases: BTreeMap<LeaseId, Running>,
}

#[derive(Debug)]
struct Running {
    ttl: Duration,
    ends: Instant,
}

impl Clock {
    pub(crate) fn start(&mut self, lease: LeaseId, ttl: Duration, now: Instant) {
        let ends = now + ttl;
        self.leases.insert(lease, Running { ttl, ends });
    }

    /// Renews a lease for its whole time; false if it has ended.
    pub(crate) fn keep_alive(&mut self, lease: LeaseId, now: Instant) -> bool {
        match self.leases.get_mut(&lease) {
            Some(running) if running.ends > now => {
                running.ends = running.ends.max(now + running.ttl);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Leases whose time is over.
    pub(crate) fn ended(&self, now: Instant) -> Vec<LeaseId> {
        let ended = self
            .leases
            .iter()
            .filter(|(_, running)| running.ends <= now);
        ended.map(|(lease, _)| *lease).collect()
    }

    pub(crate) fn forget(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
    }

    /// Whether it had not been ended yet, even if its time is over.
    pub(crate) fn has(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_at_its_time_and_an_ended_one_is_not_kept_alive() {
        let (mut clock, now, ttl) = (Clock::default(), Instant::now(), Duration::from_secs(3));
        clock.start(LeaseId(1), ttl, now);
        assert!(clock.keep_alive(LeaseId(1), now + ttl / 2));
        assert!(clock.ended(now + ttl).is_empty());
        assert_eq!(clock.ended(now + ttl + ttl / 2), [LeaseId(1)]);
        assert!(!clock.keep_alive(LeaseId(1), now + ttl * 2));
        clock.forget(LeaseId(1));
        assert_eq!(clock.len(), 0);
    }

    #[test]
    fn a_clock_that_steps_back_takes_no_time_from_a_lease() {
        let (mut clock, now, ttl) = (Clock::default(), Instant::now(), Duration::from_secs(3));
        clock.start(LeaseId(1), ttl, now + ttl);
        assert!(clock.keep_alive(LeaseId(1), now));
        assert!(clock.ended(now + ttl + ttl / 2).is_empty());
    }
}
