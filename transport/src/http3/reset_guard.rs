//! Judges streams that a peer cuts short: their cost for this side, and how many are too many. Pure.
//!
//! There are two kinds, because their costs differ and because honest peers cause one of them:
//!
//! - *Work taken back*: the peer cancels a request that was accepted and is being served, soon after opening
//!   it. Callers with little patience do that, and so do hedges whose other copy has answered. It costs this
//!   side a request, and frees the peer's stream at once (CVE-2023-44487). Beyond a rate, the connection
//!   takes no new request for a moment; running ones go on.
//! - *Nothing asked*: the stream ended before it had a request that could be accepted. It costs little, and
//!   an honest peer has little reason for it. A peer whose path was cut may reset all streams that it had
//!   open; a peer that resets more floods, and the connection is closed.

use std::time::{Duration, Instant};

use super::limits;

/// How the peer cut a stream short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Before there was a request to accept: reset, stopped, or malformed.
    NothingAsked,
    /// While its request was being served, this long after the opening of the stream.
    WorkTakenBack(Duration),
}

/// The verdict on a peer that has cut one more stream short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on as before.
    Continue,
    /// Its next requests wait for a moment.
    Pace,
    /// The connection is to be closed.
    Flood,
}

/// The history of one peer on one connection.
#[derive(Debug)]
pub(super) struct ResetGuard {
    work: Allowance,
    nothing: Allowance,
}

impl ResetGuard {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            work: Allowance::new(
                limits::WORK_TAKEN_BACK_A_SECOND,
                limits::WORK_TAKEN_BACK_AT_ONCE,
                now,
            ),
            nothing: Allowance::new(
                limits::NOTHING_ASKED_A_SECOND,
                limits::NOTHING_ASKED_AT_ONCE,
                now,
            ),
        }
    }

    /// The peer has cut a stream short.
    pub(super) fn cut(&mut self, cut: Cut, now: Instant) -> Verdict {
        match cut {
            // It was one of the open streams for this long, which bounds how many there are.
            Cut::WorkTakenBack(age) if age >= limits::RAPID_RESET => Verdict::Continue,
            Cut::WorkTakenBack(_) => {
                self.work.spend(now);
                if self.work.is_spent(now) {
                    Verdict::Pace
                } else {
                    Verdict::Continue
                }
            }
            Cut::NothingAsked => {
                self.nothing.spend(now);
                if self.nothing.is_spent(now) {
                    Verdict::Flood
                } else {
                    Verdict::Continue
                }
            }
        }
    }

    /// The time from which the peer's next request is served.
    pub(super) fn resumes(&self) -> Instant {
        self.work.free_from().min(self.work.latest)
    }
}

/// This many events at once, and this many per second (the generic cell rate algorithm), kept as the time at
/// which all past events would have been allowed one by one.
#[derive(Debug)]
struct Allowance {
    each: Duration,
    at_once: Duration,
    paid: Instant,
    /// The end of the longest pause.
    latest: Instant,
}

impl Allowance {
    fn new(a_second: u32, at_once: u32, now: Instant) -> Self {
        let each = Duration::from_secs(1) / a_second;
        Self {
            each,
            at_once: each * at_once,
            paid: now,
            latest: now,
        }
    }

    fn spend(&mut self, now: Instant) {
        self.latest = now + limits::PACE_MAX;
        let most = self.latest + self.at_once;
        self.paid = (self.paid.max(now) + self.each).min(most);
    }

    fn is_spent(&self, now: Instant) -> bool {
        self.free_from() > now
    }

    fn free_from(&self) -> Instant {
        self.paid.checked_sub(self.at_once).unwrap_or(self.paid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Cut = Cut::WorkTakenBack(Duration::from_millis(40));
    const LATE: Cut = Cut::WorkTakenBack(limits::RAPID_RESET);

    #[test]
    fn callers_that_give_up_soon_are_borne_as_long_as_they_come_no_faster_than_the_rate() {
        let start = Instant::now();
        let mut guard = ResetGuard::new(start);
        for n in 0..limits::WORK_TAKEN_BACK_AT_ONCE {
            assert_eq!(guard.cut(SOON, start), Verdict::Continue, "{n}");
        }
        let each = Duration::from_secs(1) / limits::WORK_TAKEN_BACK_A_SECOND;
        for n in 1..100_000 {
            assert_eq!(guard.cut(SOON, start + each * n), Verdict::Continue, "{n}");
        }
    }

    #[test]
    fn a_peer_that_takes_back_all_it_asks_is_served_no_more_than_the_rate_and_never_closed() {
        let start = Instant::now();
        let mut guard = ResetGuard::new(start);
        let (mut now, mut served) = (start, 0_u32);
        let end = start + Duration::from_secs(10);
        while now < end {
            served += 1;
            match guard.cut(SOON, now) {
                Verdict::Continue => {}
                Verdict::Pace => now = guard.resumes(),
                Verdict::Flood => panic!("closed after {served}"),
            }
        }
        let most = limits::WORK_TAKEN_BACK_AT_ONCE + 10 * limits::WORK_TAKEN_BACK_A_SECOND;
        assert!(served <= most + 1, "{served}");
    }

    #[test]
    fn after_however_many_cancellations_at_once_the_pause_is_short() {
        let start = Instant::now();
        let mut guard = ResetGuard::new(start);
        for _ in 0..100_000 {
            guard.cut(SOON, start);
        }
        assert_eq!(guard.resumes(), start + limits::PACE_MAX);
        let later = start + limits::PACE_MAX + Duration::from_secs(1);
        assert_eq!(guard.cut(SOON, later), Verdict::Continue);
    }

    #[test]
    fn requests_that_held_their_places_for_long_are_no_rapid_resets() {
        let start = Instant::now();
        let mut guard = ResetGuard::new(start);
        for _ in 0..100_000 {
            assert_eq!(guard.cut(LATE, start), Verdict::Continue);
        }
    }

    #[test]
    fn more_streams_that_ask_nothing_than_may_be_open_at_once_are_a_flood() {
        let start = Instant::now();
        let mut guard = ResetGuard::new(start);
        for n in 0..limits::NOTHING_ASKED_AT_ONCE {
            assert_eq!(
                guard.cut(Cut::NothingAsked, start),
                Verdict::Continue,
                "{n}"
            );
        }
        assert_eq!(guard.cut(Cut::NothingAsked, start), Verdict::Flood);
    }
}
