//! How long before a moment a thread should be awake, so that it acts at that moment and not later. Pure.
//!
//! An alarm of the kernel rings on time, but the thread that it wakes runs later: by a few microseconds on
//! hardware, by 40 to 300 in a virtual machine whose processor was asleep. So the alarm is set earlier, by
//! the lateness that 499 of 500 alarms do not exceed, and the thread stays awake until the moment. Two bounds
//! limit the cost: the length of one such wait, and the share of the thread's time that all of them take.
//!
//! Not here: the alarm, and how the thread stays awake ([`crate::pacer`]).

use std::time::Duration;

use crate::limits;

/// A thread's experience with its alarms, and how long it may still stay awake.
#[derive(Debug)]
pub(crate) struct EarlyWake {
    /// The estimated lateness that 499 of 500 alarms do not exceed.
    lateness: Duration,
    credit: Duration,
    /// Until when credit was given.
    credited: Duration,
}

/// The step up after an alarm that was later than the estimate.
const LONGER: Duration = Duration::from_nanos(49_900);

/// The step down after any other alarm. The estimate settles where one alarm in 500 is later, because that
/// many steps down make a step up.
const SHORTER: Duration = Duration::from_nanos(100);

impl EarlyWake {
    /// Expects the worst at first, because the first requests count as all others do.
    pub(crate) fn new() -> Self {
        Self {
            lateness: limits::EARLY_WAKE_MAX,
            credit: limits::EARLY_WAKE_CREDIT_MAX,
            credited: Duration::ZERO,
        }
    }

    /// How long before its moment an alarm that is set at `now` should ring.
    pub(crate) fn length(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.credited);
        let earned = passed.mul_f64(limits::EARLY_WAKE_SHARE_MAX);
        self.credited = now;
        self.credit = (self.credit + earned).min(limits::EARLY_WAKE_CREDIT_MAX);
        self.lateness.min(self.credit)
    }

    /// An alarm rang, this late.
    pub(crate) fn rang(&mut self, late: Duration) {
        self.lateness = if late > self.lateness {
            (self.lateness + LONGER).min(limits::EARLY_WAKE_MAX)
        } else {
            self.lateness.saturating_sub(SHORTER)
        };
    }

    /// The thread stayed awake for this long.
    pub(crate) fn kept(&mut self, length: Duration) {
        self.credit = self.credit.saturating_sub(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// The estimate from alarms every two milliseconds, each as late as `late` says; and the share of the
    /// time for which the thread was awake.
    fn learn(count: u64, gap: Duration, late: impl Fn(u64) -> Duration) -> (Duration, f64) {
        let mut early = EarlyWake::new();
        let mut awake = Duration::ZERO;
        let mut now = Duration::ZERO;
        for number in 0..count {
            now += gap;
            let length = early.length(now);
            let late = late(number);
            early.rang(late);
            let kept = length.saturating_sub(late);
            early.kept(kept);
            awake += kept;
        }
        (early.length(now), awake.div_duration_f64(now))
    }

    #[test]
    fn a_thread_wakes_as_early_as_all_but_one_in_500_alarms_are_late() {
        // One in 500 comes 250 us late, as many 150 us, all others 40 us.
        let late = |number| match number % 500 {
            0 => us(250),
            250 => us(150),
            _ => us(40),
        };
        let (length, _) = learn(20_000, us(2000), late);
        assert!((us(150)..us(250)).contains(&length), "{length:?}");
    }

    #[test]
    fn alarms_that_ring_on_time_need_no_early_wake() {
        let (length, _) = learn(10_000, us(2000), |_| us(3));
        assert!(length <= us(53), "{length:?}");
    }

    #[test]
    fn no_thread_wakes_earlier_than_the_bound_however_late_alarms_are() {
        let (length, _) = learn(1000, us(10_000), |_| us(5000));
        assert_eq!(length, limits::EARLY_WAKE_MAX);
        assert_eq!(EarlyWake::new().length(us(0)), limits::EARLY_WAKE_MAX);
    }

    #[test]
    fn all_early_wakes_together_take_no_more_than_their_share_of_the_time() {
        // One alarm in fifty is late, so that waits are long and almost all of them are used.
        for gap in [20, 100, 500, 2000] {
            let late = |number| us(if number % 50 == 0 { 400 } else { 0 });
            let (_, share) = learn(100_000, us(gap), late);
            let credit = limits::EARLY_WAKE_CREDIT_MAX.div_duration_f64(us(gap * 100_000));
            let most = limits::EARLY_WAKE_SHARE_MAX + credit + 1e-6;
            assert!(share <= most, "every {gap} us: {share}");
        }
    }

    #[test]
    fn a_long_rest_earns_no_more_than_the_credit_of_some_early_wakes() {
        let mut early = EarlyWake::new();
        let hour = Duration::from_secs(3600);
        let kept = (0..1000).map(|_| {
            let length = early.length(hour);
            early.kept(length);
            length
        });
        assert_eq!(kept.sum::<Duration>(), limits::EARLY_WAKE_CREDIT_MAX);
    }
}
