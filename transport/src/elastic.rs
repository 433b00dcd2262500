//! How many streams and how many bytes a peer may have open on one connection. Pure.
//!
//! quinn keeps state for each allowed stream, so the allowance starts small and doubles while at
//! least half is in use. The connection window grows with the number of open streams: each may be
//! a stopped reader that holds a whole stream window, and the next one must still get through.

use crate::tuning::Tuning;

/// Stream windows that stay free when all other open streams are stopped.
const FREE_STREAM_WINDOWS: u64 = 4;

/// quinn tells the peer of new credit once it makes up this part of the window. What is free must be
/// more, or streams that are read would wait for ever for the rest to come free.
const ANNOUNCED_PART: u64 = 8;

/// The allowance of one connection, raised by [`Elastic::opened`], never lowered: QUIC cannot
/// take back credit (RFC 9000 section 4.1).
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

    /// Streams are open, `open` of them. `None` when the allowance suffices.
    pub(crate) fn opened(&mut self, open: u32) -> Option<Raise> {
        let raise = Raise {
            streams: self.raise_streams(open),
            window: self.raise_window(open),
            window_at_bound: self.window_is_at_bound(),
        };
        (raise.streams.is_some() || raise.window.is_some()).then_some(raise)
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

    fn raise_streams(&mut self, open: u32) -> Option<u32> {
        if open < self.streams.div_ceil(2) || self.streams == self.streams_max {
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
        assert_eq!(elastic.opened(3), None);
        let raised: Vec<u32> = (4..20)
            .filter_map(|open| elastic.opened(open)?.streams)
            .collect();
        assert_eq!(raised, [16, 20]);
    }

    #[test]
    fn the_window_always_leaves_room_beside_stopped_readers() {
        let mut elastic = elastic();
        let mut window = 10 * MIB;
        for open in 1..=39 {
            if let Some(raised) = elastic.opened(open).and_then(|raise| raise.window) {
                window = raised;
            }
            let free = window - u64::from(open) * MIB;
            assert!(free >= window / 8 + 4 * MIB, "{open} streams");
        }
    }

    #[test]
    fn the_window_stops_at_its_bound() {
        let mut elastic = elastic();
        assert_eq!(elastic.opened(1000).unwrap().window, Some(50 * MIB));
        assert_eq!(elastic.opened(2000).and_then(|raise| raise.window), None);
    }
}
