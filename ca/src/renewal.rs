//! Decides when to renew an SVID: a state machine. Pure.
//!
//! It plans on the monotonic clock from the life that is left, so a jump of the wall clock alone changes
//! nothing. [`Renewal::handle_wall_clock`] notices a machine that slept. The driver is `agent.rs`.
//!
//! ```text
//!             due                failed
//!   Resting ------> Attempting ----------> Backing off
//!      ^                |  ^------------------/  due
//!      '----- renewed --'
//! ```
//!
//! Order of calls: sleep until [`Renewal::poll_timeout`]; call [`Renewal::handle_timeout`]; if it returns
//! [`Action::Renew`], do so and report by `handle_renewed` or `handle_failure`.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use weft_transport::backoff::{Backoff, Spread};

use crate::limits::{
    ALARM_AT, BACKOFF_LIFE_DIVISOR, BACKOFF_MAX, BACKOFF_MIN, RENEWAL_AT, RENEWAL_JITTER,
    WALL_CHECK_SPREAD,
};

/// How long a certificate lives and how much of that is left, as its holder sees it at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From `notBefore` to `notAfter`.
    pub total: Duration,
    /// From now to `notAfter`; zero once expired.
    pub left: Duration,
}

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the CA for the next certificate.
    Renew,
}

/// What a failed attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// There is time.
    Calm,
    /// Less than a third of the life is left. Reported once per certificate.
    Alarm,
    /// The certificate has expired. Reported once per certificate.
    Expired,
}

/// The renewal of one certificate after another.
#[derive(Debug)]
pub struct Renewal {
    expires: Instant,
    life: Duration,
    state: State,
    backoff: Backoff,
    reported: Urgency,
    brought_forward: bool,
}

#[derive(Debug)]
enum State {
    Resting { due: Instant },
    Attempting,
    BackingOff { due: Instant },
}

impl Renewal {
    /// Starts with a certificate in hand.
    #[must_use]
    pub fn new(now: Instant, life: Life, rng: &mut impl Rng) -> Self {
        Self {
            expires: now + life.left,
            life: life.total,
            state: State::Resting {
                due: due(now, life, rng),
            },
            backoff: Backoff::new(BACKOFF_MIN, pause_max(life.total), Spread::Half),
            reported: Urgency::Calm,
            brought_forward: false,
        }
    }

    /// When to call [`Self::handle_timeout`]; `None` while an attempt runs.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Resting { due } | State::BackingOff { due } => Some(due),
            State::Attempting => None,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Action> {
        let due = self.poll_timeout()?;
        if now < due {
            return None;
        }
        self.state = State::Attempting;
        Some(Action::Renew)
    }

    /// The attempt brought a certificate with this life. If it is past its renewal age when it is new, this
    /// clock is ahead of the CA's. The next certificate would look the same, so the next renewal follows
    /// after the longest pause.
    pub fn handle_renewed(&mut self, now: Instant, life: Life, rng: &mut impl Rng) {
        *self = Self::new(now, life, rng);
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.state = State::Resting {
                due: now + pause_max(self.life),
            };
            // The wall clock would report the same again.
            self.brought_forward = true;
        }
    }

    /// The attempt failed; the next follows after a pause.
    pub fn handle_failure(&mut self, now: Instant, rng: &mut impl Rng) -> Urgency {
        self.state = State::BackingOff {
            due: now + self.backoff.next(rng),
        };
        let left = self.left(now);
        let urgency = if left.is_zero() {
            Urgency::Expired
        } else if left <= self.life.mul_f64(ALARM_AT) {
            Urgency::Alarm
        } else {
            Urgency::Calm
        };
        if urgency == self.reported {
            return Urgency::Calm;
        }
        self.reported = urgency;
        urgency
    }

    /// The life that is left by the wall clock. It changes the plan only if the certificate is past its
    /// renewal age by this clock and not by the plan (a machine that slept, or a jump): the renewal then
    /// comes forward, spread by a random pause, at most once per certificate. A clock set back changes
    /// nothing.
    pub fn handle_wall_clock(&mut self, now: Instant, left: Duration, rng: &mut impl Rng) {
        let State::Resting { due } = self.state else {
            return;
        };
        let latest = self.life.mul_f64(1.0 - RENEWAL_AT * (1.0 + RENEWAL_JITTER));
        if self.brought_forward || due <= now || left >= latest {
            return;
        }
        self.brought_forward = true;
        let spread = WALL_CHECK_SPREAD.min(self.life / BACKOFF_LIFE_DIVISOR);
        self.state = State::Resting {
            due: due.min(now + spread.mul_f64(rng.random_range(0.0..=1.0))),
        };
    }

    /// How much life is left by the monotonic clock.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.expires.saturating_duration_since(now)
    }
}

/// The longest pause between two attempts.
fn pause_max(life: Duration) -> Duration {
    (life / BACKOFF_LIFE_DIVISOR).clamp(BACKOFF_MIN, BACKOFF_MAX)
}

/// When a certificate with this life is due for renewal.
fn due(now: Instant, life: Life, rng: &mut impl Rng) -> Instant {
    let jitter = rng.random_range(-RENEWAL_JITTER..=RENEWAL_JITTER);
    let age_due = life.total.mul_f64(RENEWAL_AT * (1.0 + jitter));
    let age = life.total.saturating_sub(life.left);
    now + age_due.saturating_sub(age)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const FRESH: Life = Life {
        total: DAY,
        left: DAY,
    };

    #[test]
    fn renewal_is_due_at_two_thirds_of_the_life_within_ten_percent_for_every_seed() {
        let now = origin();
        let mut earliest = DAY;
        let mut latest = Duration::ZERO;
        for seed in 0..2000 {
            let wait = Renewal::new(now, FRESH, &mut rng(seed))
                .poll_timeout()
                .unwrap()
                - now;
            earliest = earliest.min(wait);
            latest = latest.max(wait);
        }
        assert!(
            earliest >= DAY.mul_f64(0.6) && earliest < DAY.mul_f64(0.602),
            "{earliest:?}"
        );
        assert!(
            latest <= DAY.mul_f64(0.7334) && latest > DAY.mul_f64(0.7313),
            "{latest:?}"
        );
    }

    #[test]
    fn sidecars_that_start_together_renew_spread_out() {
        let now = origin();
        let mut per_minute = std::collections::BTreeMap::<u64, u32>::new();
        for seed in 0..200 {
            let wait = Renewal::new(now, FRESH, &mut rng(seed))
                .poll_timeout()
                .unwrap()
                - now;
            *per_minute.entry(wait.as_secs() / 60).or_default() += 1;
        }
        assert!(
            per_minute.values().all(|count| *count <= 6),
            "{per_minute:?}"
        );
    }

    #[test]
    fn a_certificate_past_its_renewal_age_is_due_at_once() {
        let now = origin();
        let life = Life {
            total: DAY,
            left: DAY / 10,
        };
        let mut renewal = Renewal::new(now, life, &mut rng(1));
        assert_eq!(renewal.poll_timeout(), Some(now));
        assert_eq!(renewal.handle_timeout(now), Some(Action::Renew));
    }

    #[test]
    fn a_clock_that_finds_each_new_certificate_old_renews_once_a_minute() {
        let mut rng = rng(1);
        let start = origin();
        let old = Life {
            total: DAY,
            left: DAY / 24,
        };
        let mut renewal = Renewal::new(start, old, &mut rng);
        let mut renewed = 0;
        while let Some(due) = renewal.poll_timeout().filter(|due| *due < start + DAY / 24) {
            renewal.handle_wall_clock(due, old.left, &mut rng);
            if renewal.handle_timeout(due).is_some() {
                renewal.handle_renewed(due, old, &mut rng);
                renewal.handle_wall_clock(due, old.left, &mut rng);
                renewed += 1;
            }
        }
        assert_eq!(renewed, 60);
    }

    #[test]
    fn nothing_happens_before_the_time_or_while_an_attempt_runs() {
        let now = origin();
        let mut renewal = Renewal::new(now, FRESH, &mut rng(1));
        let due = renewal.poll_timeout().unwrap();
        assert_eq!(renewal.handle_timeout(due - Duration::from_nanos(1)), None);
        assert_eq!(renewal.handle_timeout(due), Some(Action::Renew));
        assert_eq!(renewal.poll_timeout(), None);
        assert_eq!(renewal.handle_timeout(due + DAY), None);
    }

    #[test]
    fn pauses_double_from_one_second_to_one_minute_with_jitter() {
        let now = origin();
        for seed in 0..200 {
            let mut rng = rng(seed);
            let mut renewal = Renewal::new(now, FRESH, &mut rng);
            for full in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
                let full = Duration::from_secs(full);
                let due = renewal.poll_timeout().unwrap();
                renewal.handle_timeout(due);
                renewal.handle_failure(due, &mut rng);
                let pause = renewal.poll_timeout().unwrap() - due;
                assert!(pause >= full / 2 && pause <= full, "{full:?} {pause:?}");
            }
        }
    }

    #[test]
    fn a_short_life_gets_several_attempts_before_it_ends() {
        let minute = Duration::from_secs(60);
        for seed in 0..200 {
            let mut rng = rng(seed);
            let start = origin();
            let mut renewal = Renewal::new(
                start,
                Life {
                    total: minute,
                    left: minute,
                },
                &mut rng,
            );
            let mut attempts = 0;
            while let Some(due) = renewal.poll_timeout().filter(|due| *due < start + minute) {
                assert_eq!(renewal.handle_timeout(due), Some(Action::Renew));
                renewal.handle_failure(due, &mut rng);
                attempts += 1;
            }
            assert!(attempts >= 5, "seed {seed}: {attempts}");
        }
    }

    #[test]
    fn an_absent_ca_raises_one_alarm_and_reports_the_expiry_once() {
        let mut rng = rng(7);
        let start = origin();
        let mut renewal = Renewal::new(start, FRESH, &mut rng);
        let mut seen = Vec::new();
        while let Some(due) = renewal
            .poll_timeout()
            .filter(|due| *due < start + DAY + DAY)
        {
            assert_eq!(renewal.handle_timeout(due), Some(Action::Renew));
            match renewal.handle_failure(due, &mut rng) {
                Urgency::Calm => {}
                urgency @ (Urgency::Alarm | Urgency::Expired) => {
                    seen.push((urgency, renewal.left(due)));
                }
            }
        }
        assert_eq!(
            seen.iter().map(|(urgency, _)| *urgency).collect::<Vec<_>>(),
            [Urgency::Alarm, Urgency::Expired]
        );
        assert!(seen[0].1 <= DAY / 3 && seen[0].1 > Duration::ZERO);
    }

    #[test]
    fn success_resets_pause_and_alarm() {
        let mut rng = rng(3);
        let now = origin();
        let mut renewal = Renewal::new(
            now,
            Life {
                total: DAY,
                left: DAY / 4,
            },
            &mut rng,
        );
        for _ in 0..10 {
            let due = renewal.poll_timeout().unwrap();
            renewal.handle_timeout(due);
            renewal.handle_failure(due, &mut rng);
        }
        renewal.handle_renewed(now, FRESH, &mut rng);
        let due = renewal.poll_timeout().unwrap();
        assert!(due - now >= DAY.mul_f64(0.6));
        renewal.handle_timeout(due);
        renewal.handle_failure(due, &mut rng);
        assert!(renewal.poll_timeout().unwrap() <= due + BACKOFF_MIN);
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_brings_one_renewal_forward_and_spreads_it() {
        let now = origin();
        let mut waits = Vec::new();
        for seed in 0..100 {
            let mut rng = rng(seed);
            let mut renewal = Renewal::new(now, FRESH, &mut rng);
            renewal.handle_wall_clock(now, Duration::ZERO, &mut rng);
            let due = renewal.poll_timeout().unwrap();
            assert!(due <= now + WALL_CHECK_SPREAD);
            renewal.handle_wall_clock(now, Duration::ZERO, &mut rng);
            assert_eq!(
                renewal.poll_timeout(),
                Some(due),
                "at most once per certificate"
            );
            waits.push(due - now);
        }
        waits.sort();
        assert!(
            waits[90] - waits[10] > WALL_CHECK_SPREAD / 2,
            "not spread: {waits:?}"
        );
    }

    #[test]
    fn a_wall_clock_set_back_or_a_little_off_changes_nothing() {
        let now = origin();
        let mut rng = rng(5);
        let mut renewal = Renewal::new(now, FRESH, &mut rng);
        let due = renewal.poll_timeout();
        renewal.handle_wall_clock(now, DAY + DAY, &mut rng);
        renewal.handle_wall_clock(now, DAY - Duration::from_secs(3600), &mut rng);
        assert_eq!(renewal.poll_timeout(), due);
    }

    fn rng(seed: u64) -> StdRng {
        StdRng::seed_from_u64(seed)
    }

    fn origin() -> Instant {
        Instant::now()
    }
}
