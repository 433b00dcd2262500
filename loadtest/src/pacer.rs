//! Waits for a moment: asleep, to about ten microseconds, or awake at the end, to a few.
//!
//! tokio's timers tick in milliseconds, which at 1000 requests per second is a whole gap. A timerfd runs on
//! the kernel's high-resolution timers and wakes the same `epoll_wait` as the sockets do, so no answer waits
//! for a sleeping thread. A thread that stays awake polls its sockets all the while.
//!
//! Not here: which moments these are ([`crate::schedule`]), how long before one to wake
//! ([`crate::early_wake`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::Clock;
use crate::early_wake::EarlyWake;

/// An alarm of one runtime.
pub(crate) struct Pacer {
    clock: Clock,
    timer: AsyncFd<Timer>,
}

impl Pacer {
    /// An alarm that follows `clock`. Call it inside the runtime that waits for it.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe, for descriptors that change or close; this one does neither"
        )]
        let timer = AsyncFd::with_interest(Timer(timer), Interest::READABLE)?;
        Ok(Self { clock, timer })
    }

    /// Done at `at`, or at once if that has passed. Cancel-safe.
    ///
    /// # Errors
    /// The error of the kernel.
    pub(crate) async fn until(&self, at: Duration) -> io::Result<()> {
        loop {
            let left = at.saturating_sub(self.clock.now());
            if left.is_zero() {
                return Ok(());
            }
            self.rest(left).await?;
        }
    }

    /// Done when the thread should be awake for `at`, or at once if that time has passed; the thread then
    /// stays awake by [`awake_until`]. Cancel-safe.
    ///
    /// # Errors
    /// The error of the kernel.
    pub(crate) async fn wake_early(&self, at: Duration, early: &mut EarlyWake) -> io::Result<()> {
        let now = self.clock.now();
        let alarm = at.saturating_sub(early.length(now));
        let mut awake = now;
        if now < alarm {
            self.until(alarm).await?;
            awake = self.clock.now();
            early.rang(awake.saturating_sub(alarm));
        }
        early.kept(at.saturating_sub(awake));
        Ok(())
    }

    /// Done when the run's origin has come, from which all times count.
    ///
    /// # Errors
    /// The error of the kernel.
    pub(crate) async fn origin(&self) -> io::Result<()> {
        loop {
            let lead = self.clock.lead();
            if lead.is_zero() {
                return Ok(());
            }
            self.rest(lead).await?;
        }
    }

    async fn rest(&self, length: Duration) -> io::Result<()> {
        // Setting it also clears expirations that were not read, so they need no reading.
        let alarm = Expiration::OneShot(TimeSpec::from_duration(length));
        let flags = TimerSetTimeFlags::empty();
        self.timer.get_ref().0.set(alarm, flags)?;
        self.timer.readable().await?.clear_ready();
        Ok(())
    }
}

/// Done at `at`, to a few microseconds, or at once if that has passed. The runtime polls its sockets all the
/// while.
pub(crate) async fn awake_until(clock: Clock, at: Duration) {
    while clock.now() < at {
        tokio::task::yield_now().await;
    }
}

/// The descriptor as [`AsyncFd`] wants it.
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[tokio::test]
    async fn an_alarm_is_never_early_and_the_past_does_not_wait() {
        let clock = Clock::beginning_in(Duration::ZERO);
        let pacer = Pacer::new(clock).unwrap();
        for number in 1..=20 {
            let due = Duration::from_micros(700 * number);
            pacer.until(due).await.unwrap();
            assert!(clock.now() >= due);
        }
        pacer.until(Duration::from_micros(1)).await.unwrap();
    }

    #[tokio::test]
    async fn an_early_wake_begins_within_its_length_and_ends_no_earlier_than_its_moment() {
        let clock = Clock::beginning_in(Duration::ZERO);
        let pacer = Pacer::new(clock).unwrap();
        let mut early = EarlyWake::new();
        for number in 1..=20 {
            let due = Duration::from_micros(700 * number);
            pacer.wake_early(due, &mut early).await.unwrap();
            assert!(clock.now() + limits::EARLY_WAKE_MAX >= due);
            awake_until(clock, due).await;
            assert!(clock.now() >= due);
        }
        pacer.wake_early(Duration::ZERO, &mut early).await.unwrap();
    }

    #[tokio::test]
    async fn a_thread_that_stays_awake_does_what_else_there_is() {
        let clock = Clock::beginning_in(Duration::ZERO);
        let others = std::cell::Cell::new(false);
        let waits = async {
            // Repeated if the machine stood still in the meantime.
            for _ in 0..1000 {
                awake_until(clock, clock.now() + limits::EARLY_WAKE_MAX).await;
                if others.get() {
                    return;
                }
            }
        };
        let other = async {
            others.set(true);
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = waits => {}
            () = other => {}
        }
        assert!(others.get());
    }
}
