//! How many streams and how many bytes a peer may have open on one connection. Pure.
//!
//! quinn keeps state for each allowed stream, so the allowance starts small and doubles while at
//! least half is in use. The connection window grows with the number of open streams: each may be
//! a stopped reader that holds a whole stream window, and the next one must still get through.
//!
//! While a worker does not keep up, no more streams are allowed than were; while it is behind, about as many as
//! it finishes in a fifth of a second, so that none waits for much longer (Little's law).

use crate::lag::Pace;
use crate::tuning::Tuning;

/// Stream windows that stay free when all other open streams are stopped.
const FREE_STREAM_WINDOWS: u64 = 4;

/// quinn tells the peer of new credit once it makes up this part of the window. What is free must be
/// more, or streams that are read would wait for ever for the rest to come free.
const ANNOUNCED_PART: u64 = 8;

/// The allowance of one connection, raised by [`Elastic::opened`]. [`Elastic::behind`] may lower that of streams,
/// but QUIC cannot take back credit (RFC 9000 section 4.1): there is no more of it until fewer are open.
#[derive(Debug)]
pub(crate) struct Elastic {
    streams: u32,
    streams_max: u32,
    window: u64,
    window_max: u64,
    stream_window: u64,
}

/// A new allowance for quinn to announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raise {
    /// Concurrent streams that the peer may open, when that rises.
    pub(crate) streams: Option<u32>,
    /// Bytes of the connection window, when that rises.
    pub(crate) window: Option<u64>,
    /// That window is the largest there will be.
    pub(crate) window_at_bound: bool,
}

impl Elastic {
    pub(crate) fn new(tuning: &Tuning) -> Self {
        let settings = tuning.settings();
        Self {
            streams: settings.streams,
            streams_max: settings.streams_max,
            window: settings.connection_window,
            window_max: settings.connection_window_max,
            stream_window: settings.stream_window,
        }
    }

    /// Streams are open, `open` of them, on a worker that fares so. `None` when the allowance suffices.
    pub(crate) fn opened(&mut self, open: u32, pace: Pace) -> Option<Raise> {
        let raise = Raise {
            streams: self.raise_streams(open, pace),
            window: self.raise_window(open),
            window_at_bound: self.window_is_at_bound(),
        };
        (raise.streams.is_some() || raise.window.is_some()).then_some(raise)
    }

    /// The worker is behind and may have `fresh` streams of this connection under way beside the `settled` ones.
    /// Returns how many may be open from here on.
    pub(crate) fn behind(&mut self, fresh: u32, settled: u32) -> u32 {
        self.streams = fresh.saturating_add(settled).min(self.streams_max);
        self.streams
    }

    /// How many streams may be stopped, each holding a whole window, without harm to the others
    /// when the connection's window is the largest.
    pub(crate) fn stopped_readers_bearable(&self) -> usize {
        let usable = self.window_max - self.window_max / ANNOUNCED_PART;
        let streams = (usable / self.stream_window).saturating_sub(FREE_STREAM_WINDOWS);
        usize::try_from(streams).unwrap_or(usize::MAX)
    }

    /// Whether the connection's window is the largest there will be.
    pub(crate) fn window_is_at_bound(&self) -> bool {
        self.window >= self.window_max
    }

    /// Whether more streams are wanted than the allowance lets through soon.
    pub(crate) fn wants_streams(&self, open: u32) -> bool {
        open >= self.streams.div_ceil(2) && self.streams != self.streams_max
    }

    fn raise_streams(&mut self, open: u32, pace: Pace) -> Option<u32> {
        if !self.wants_streams(open) || pace != Pace::Well {
            return None;
        }
        self.streams = self.streams.saturating_mul(2).min(self.streams_max);
        Some(self.streams)
    }

    fn raise_window(&mut self, open: u32) -> Option<u64> {
        let held = (u64::from(open) + FREE_STREAM_WINDOWS) * self.stream_window;
        let needed = held + held.div_ceil(ANNOUNCED_PART - 1);
        if needed <= self.window || self.window_is_at_bound() {
            return None;
        }
        // Doubling keeps the number of raises logarithmic.
        self.window = (self.window * 2).max(needed).min(self.window_max);
        Some(self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::TransportSettings;

    const MIB: u64 = 1 << 20;

    fn elastic() -> Elastic {
        let settings = TransportSettings {
            streams: 8,
            streams_max: 20,
            stream_window: MIB,
            connection_window: 10 * MIB,
            connection_window_max: 50 * MIB,
            ..TransportSettings::default()
        };
        Elastic::new(&settings.validate().unwrap())
    }

    #[test]
    fn streams_double_when_half_are_in_use_and_stop_at_the_bound() {
        let mut elastic = elastic();
        assert_eq!(elastic.opened(3, Pace::Well), None);
        let raised: Vec<u32> = (4..20)
            .filter_map(|open| elastic.opened(open, Pace::Well)?.streams)
            .collect();
        assert_eq!(raised, [16, 20]);
    }

    #[test]
    fn the_window_always_leaves_room_beside_stopped_readers() {
        let mut elastic = elastic();
        let mut window = 10 * MIB;
        for open in 1..=39 {
            if let Some(raised) = elastic
                .opened(open, Pace::Well)
                .and_then(|raise| raise.window)
            {
                window = raised;
            }
            let free = window - u64::from(open) * MIB;
            assert!(free >= window / 8 + 4 * MIB, "{open} streams");
        }
    }

    #[test]
    fn the_window_stops_at_its_bound() {
        let mut elastic = elastic();
        let window = |raise: Raise| raise.window;
        assert_eq!(
            elastic.opened(1000, Pace::Well).and_then(window),
            Some(50 * MIB)
        );
        assert_eq!(elastic.opened(2000, Pace::Well).and_then(window), None);
    }

    #[test]
    fn a_worker_that_is_late_raises_the_window_and_no_streams() {
        let mut elastic = elastic();
        let raise = elastic.opened(8, Pace::Late).unwrap();
        assert_eq!((raise.streams, raise.window), (None, Some(20 * MIB)));
        assert!(elastic.wants_streams(8) && !elastic.wants_streams(3));
        assert_eq!(elastic.opened(8, Pace::Well).unwrap().streams, Some(16));
    }

    #[test]
    fn a_worker_that_is_behind_sets_the_limit_and_use_raises_it_again() {
        let mut elastic = elastic();
        assert_eq!(elastic.behind(5, 1), 6);
        assert_eq!(elastic.behind(300, 0), 20);
        assert_eq!(elastic.behind(3, 1), 4);
        let streams = |raise: Raise| raise.streams;
        assert_eq!(elastic.opened(2, Pace::Behind).and_then(streams), None);
        assert_eq!(elastic.opened(2, Pace::Well).and_then(streams), Some(8));
    }
}
