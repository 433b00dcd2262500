//! Whether an application is taken for healthy, by the results of its checks. Pure: time is an argument.
//! `check.rs` asks, `mod.rs` tells the config service.
//!
//! ```text
//!              healthy in a row                unhealthy in a row
//!  Starting ---------------------> In --------------------------------> Out
//!     |                            ^                                     |
//!     |                            +------------ healthy in a row -------+
//!     +---- unhealthy in a row, and the grace is over ------------------>+
//! ```

use std::time::{Duration, Instant};

use weft_config::settings::HealthCheck;

use crate::limits;

/// What an application is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has not been healthy since the sidecar's start, and may still be starting. It is not registered.
    Starting,
    /// It is registered.
    In,
    /// It failed its checks, and is not registered.
    Out,
}

impl Standing {
    /// As operators see it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// The state machine of one application: [`Self::handle`] takes the result of each check, and
/// [`Self::pause`] says when the next one is due.
#[derive(Debug)]
pub(super) struct Health {
    standing: Standing,
    /// Checks in a row with the last result, and that result.
    streak: u32,
    passed: bool,
    grace_until: Instant,
}

impl Health {
    /// Of a sidecar that starts now. An application that its predecessor had registered is in.
    pub(super) fn new(check: &HealthCheck, was_in: bool, now: Instant) -> Self {
        Self {
            standing: match was_in {
                true => Standing::In,
                false => Standing::Starting,
            },
            streak: 0,
            passed: was_in,
            grace_until: now + check.grace,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// A check passed or failed. Returns the new standing, if that is a change.
    pub(super) fn handle(
        &mut self,
        check: &HealthCheck,
        passed: bool,
        now: Instant,
    ) -> Option<Standing> {
        self.streak = match passed == self.passed {
            true => self.streak.saturating_add(1),
            false => 1,
        };
        self.passed = passed;
        let next = match (self.standing, passed) {
            (Standing::Starting | Standing::Out, true) if self.streak >= check.healthy.get() => {
                Standing::In
            }
            (Standing::In, false) if self.streak >= check.unhealthy.get() => Standing::Out,
            (Standing::Starting, false)
                if self.streak >= check.unhealthy.get() && now >= self.grace_until =>
            {
                Standing::Out
            }
            (same, _) => same,
        };
        let changed = next != self.standing;
        self.standing = next;
        changed.then_some(next)
    }

    /// From the end of a check to the next. Where the last one failed, or did not yet decide, it is short.
    pub(super) fn pause(&self, check: &HealthCheck) -> Duration {
        match (self.standing, self.passed) {
            (Standing::In, true) => check.interval,
            (_, _) => check.interval.min(limits::PROBE_INTERVAL_DOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use weft_config::settings::LocalAddress;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(healthy: u32, unhealthy: u32, grace: Duration) -> HealthCheck {
        let application = LocalAddress::Tcp(([127, 0, 0, 1], 80).into());
        HealthCheck {
            healthy: NonZeroU32::new(healthy).unwrap(),
            unhealthy: NonZeroU32::new(unhealthy).unwrap(),
            grace,
            ..HealthCheck::connects(application, SECOND)
        }
    }

    fn all(health: &mut Health, check: &HealthCheck, now: Instant, results: &str) -> String {
        let standing = |result| {
            health.handle(check, result == '+', now);
            match health.standing() {
                Standing::Starting => 's',
                Standing::In => 'i',
                Standing::Out => 'o',
            }
        };
        results.chars().map(standing).collect()
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let (check, now) = (rules(2, 3, Duration::ZERO), Instant::now());
        let mut health = Health::new(&check, false, now);
        let seen = all(&mut health, &check, now, "+-++--+---+-++");
        assert_eq!(seen, "sssiiiiiiooooi");
    }

    #[test]
    fn without_thresholds_each_check_decides() {
        let (check, now) = (rules(1, 1, Duration::ZERO), Instant::now());
        let mut health = Health::new(&check, false, now);
        assert_eq!(all(&mut health, &check, now, "--++-+"), "ooiioi");
    }

    #[test]
    fn an_application_may_fail_while_it_starts_and_not_once_it_was_in() {
        let (check, now) = (rules(1, 2, SECOND * 30), Instant::now());
        let mut health = Health::new(&check, false, now);
        assert_eq!(all(&mut health, &check, now, "-----"), "sssss");
        let later = now + SECOND * 30;
        assert_eq!(all(&mut health, &check, later, "-"), "o");
        let mut quick = Health::new(&check, false, now);
        assert_eq!(all(&mut quick, &check, now, "-+--"), "siio");
    }

    #[test]
    fn a_successor_keeps_what_its_predecessor_had_registered_until_checks_fail() {
        let (check, now) = (rules(3, 2, SECOND * 30), Instant::now());
        let mut health = Health::new(&check, true, now);
        assert_eq!(all(&mut health, &check, now, "+-+--"), "iiiio");
    }

    /// The longest time from an application's failure to its end in the mesh, in terms of its settings.
    fn bound(check: &HealthCheck) -> Duration {
        let unhealthy = check.unhealthy.get();
        let again = check.interval.min(limits::PROBE_INTERVAL_DOWN);
        check.interval + check.timeout * unhealthy + again * (unhealthy - 1)
    }

    #[test]
    fn an_application_that_fails_is_out_within_the_time_that_its_settings_say() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..2000 {
            let mut check = rules(
                random.random_range(1..5),
                random.random_range(1..5),
                SECOND * random.random_range(0..5),
            );
            check.interval = Duration::from_millis(random.random_range(100..20_000));
            let start = Instant::now();
            let (mut now, mut health) = (start, Health::new(&check, false, start));
            // Checks that pass take no time, those that fail as long as they may.
            let fails_at = start + SECOND * 100;
            let out = loop {
                let fails = now >= fails_at;
                if fails {
                    now += check.timeout;
                }
                if health.handle(&check, !fails, now) == Some(Standing::Out) {
                    break now;
                }
                now += health.pause(&check);
            };
            assert!(out - fails_at <= bound(&check), "{check:?}");
            assert_eq!(bound(&rules(1, 1, SECOND)), SECOND * 6);
        }
    }
}
