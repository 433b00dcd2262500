//! Recognises rapid resets: streams opened only to be cancelled at once. Pure.
//!
//! Opening and resetting costs the peer a few bytes and this side a request. When of the last
//! [`limits::RESET_WINDOW`] closed halves of streams at least half died by the peer's doing
//! within [`limits::RAPID_RESET`] of opening, the connection should be closed with
//! `H3_EXCESSIVE_LOAD`. Halves are counted, not streams, because each ends by itself.

use std::time::Duration;

use super::limits;

/// The verdict on a peer after one more half of a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Bearable,
    Flood,
}

const WORDS: usize = limits::RESET_WINDOW.div_ceil(64);

/// A ring of the last endings.
#[derive(Debug)]
pub(super) struct ResetGuard {
    rapid: [u64; WORDS],
    next: usize,
    rapid_count: usize,
}

impl ResetGuard {
    pub(super) fn new() -> Self {
        Self {
            rapid: [0; WORDS],
            next: 0,
            rapid_count: 0,
        }
    }

    /// Counts one ended half: how long after the opening of its stream, and whether the peer
    /// ended it against the rules of good conduct (reset, stop, or malformed message).
    pub(super) fn ended(&mut self, age: Duration, by_peer: bool) -> Verdict {
        let rapid = by_peer && age < limits::RAPID_RESET;
        let bit = 1u64 << (self.next % 64);
        if let Some(word) = self.rapid.get_mut(self.next / 64) {
            let was_rapid = *word & bit != 0;
            *word = if rapid { *word | bit } else { *word & !bit };
            self.rapid_count = self.rapid_count + usize::from(rapid) - usize::from(was_rapid);
        }
        self.next = (self.next + 1) % limits::RESET_WINDOW;
        if rapid && self.rapid_count >= limits::RESET_WINDOW / 2 {
            return Verdict::Flood;
        }
        Verdict::Bearable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(2);

    #[test]
    fn half_of_the_window_reset_at_once_is_a_flood() {
        let mut guard = ResetGuard::new();
        for n in 1..limits::RESET_WINDOW / 2 {
            assert_eq!(guard.ended(SOON, true), Verdict::Bearable, "{n}");
        }
        assert_eq!(guard.ended(SOON, true), Verdict::Flood);
    }

    #[test]
    fn fewer_resets_and_late_ones_are_borne_for_ever() {
        let mut guard = ResetGuard::new();
        for n in 0..20 * limits::RESET_WINDOW {
            let by_peer = n % 5 < 2;
            assert_eq!(guard.ended(SOON, by_peer), Verdict::Bearable);
        }
        for _ in 0..20 * limits::RESET_WINDOW {
            assert_eq!(guard.ended(LATE, true), Verdict::Bearable);
        }
    }
}
