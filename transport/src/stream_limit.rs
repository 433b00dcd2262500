//! How many streams a peer may have open on one connection. Pure.
//!
//! quinn keeps state for each allowed stream, so the allowance starts small and doubles while at
//! least half is in use.
//!
//! While a worker does not keep up, the allowance does not rise. While it is behind, it allows about as many
//! streams as the worker finishes in a fifth of a second, so that none waits for much longer (Little's law).

use crate::lag::Pace;
use crate::tuning::Tuning;

/// The allowance of one connection, raised by [`StreamLimit::opened`]. [`StreamLimit::behind`] may lower it,
/// but QUIC cannot take credit back (RFC 9000 section 4.6): no more is given until fewer streams are open.
#[derive(Debug)]
pub(crate) struct StreamLimit {
    streams: u32,
    streams_max: u32,
}

impl StreamLimit {
    pub(crate) fn new(tuning: &Tuning) -> Self {
        let settings = tuning.settings();
        Self {
            streams: settings.streams,
            streams_max: settings.streams_max,
        }
    }

    /// `open` streams are open, on a worker with this pace. Returns the new allowance, if it rises.
    pub(crate) fn opened(&mut self, open: u32, pace: Pace) -> Option<u32> {
        if !self.wants_streams(open) || pace != Pace::Well {
            return None;
        }
        self.streams = self.streams.saturating_mul(2).min(self.streams_max);
        Some(self.streams)
    }

    /// Whether more streams are wanted than the allowance will soon let through.
    pub(crate) fn wants_streams(&self, open: u32) -> bool {
        open >= self.streams.div_ceil(2) && self.streams != self.streams_max
    }

    /// The worker is behind and may have `fresh` streams of this connection under way beside the `settled`
    /// ones. Returns how many may be open from here on.
    pub(crate) fn behind(&mut self, fresh: u32, settled: u32) -> u32 {
        self.streams = fresh.saturating_add(settled).min(self.streams_max);
        self.streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::TransportSettings;

    fn limit() -> StreamLimit {
        let settings = TransportSettings {
            streams: 8,
            streams_max: 20,
            ..TransportSettings::default()
        };
        StreamLimit::new(&settings.validate().unwrap())
    }

    #[test]
    fn streams_double_when_half_are_in_use_and_stop_at_the_bound() {
        let mut limit = limit();
        assert_eq!(limit.opened(3, Pace::Well), None);
        let raised: Vec<u32> = (4..20)
            .filter_map(|open| limit.opened(open, Pace::Well))
            .collect();
        assert_eq!(raised, [16, 20]);
    }

    #[test]
    fn a_worker_that_is_late_raises_nothing() {
        let mut limit = limit();
        assert_eq!(limit.opened(8, Pace::Late), None);
        assert!(limit.wants_streams(8) && !limit.wants_streams(3));
        assert_eq!(limit.opened(8, Pace::Well), Some(16));
    }

    #[test]
    fn a_worker_that_is_behind_sets_the_limit_and_use_raises_it_again() {
        let mut limit = limit();
        assert_eq!(limit.behind(5, 1), 6);
        assert_eq!(limit.behind(300, 0), 20);
        assert_eq!(limit.behind(3, 1), 4);
        assert_eq!(limit.opened(2, Pace::Behind), None);
        assert_eq!(limit.opened(2, Pace::Well), Some(8));
    }
}
