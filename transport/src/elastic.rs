//! How many streams and how many bytes a peer may have open on one connection. Pure.
//!
//! quinn keeps state for each allowed stream, so the allowance starts small and doubles while at
//! least half is in use. The connection window grows with the number of open streams: each may be
//! a stopped reader that holds a whole stream window, and the next one must still get through.

use crate::tuning::Tuning;

/// Stream windows that stay free when all other open streams are stopped.
const FREE_STREAM_WINDOWS: u64 = 4;

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
        };
        (raise.streams.is_some() || raise.window.is_some()).then_some(raise)
    }

    fn raise_streams(&mut self, open: u32) -> Option<u32> {
        if open < self.streams.div_ceil(2) || self.streams == self.streams_max {
            return None;
        }
        self.streams = self.streams.saturating_mul(2).min(self.streams_max);
        Some(self.streams)
    }

    fn raise_window(&mut self, open: u32) -> Option<u64> {
        let needed = (u64::from(open) + FREE_STREAM_WINDOWS) * self.stream_window;
        if needed <= self.window || self.window == self.window_max {
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
        for open in 1..=40 {
            if let Some(raised) = elastic.opened(open).and_then(|raise| raise.window) {
                window = raised;
            }
            assert!(window >= (u64::from(open) + 4) * MIB, "{open} streams");
        }
    }

    #[test]
    fn the_window_stops_at_its_bound() {
        let mut elastic = elastic();
        assert_eq!(elastic.opened(1000).unwrap().window, Some(50 * MIB));
        assert_eq!(elastic.opened(2000).and_then(|raise| raise.window), None);
    }
}
