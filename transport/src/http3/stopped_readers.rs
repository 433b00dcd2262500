//! Decides which streams to give up when stopped readers leave the others no room. Pure.
//!
//! All streams of a connection share the bytes that a peer may have in flight (RFC 9000 section 4.1). A
//! stream whose reader stopped keeps its part, so enough such streams block every other stream. The window
//! grows with the number of streams up to its bound ([`crate::stream_limit`]); beyond that, the streams whose
//! readers stood still longest must go.
//!
//! This code does not know how much each stream holds, so it needs three signs: more readers have stopped
//! than leave room if each holds the maximum, a reader waits, and no bytes come.
//!
//! Time is counted in looks, one every [`limits::STOPPED_LOOK_INTERVAL`], so that a read costs a relaxed
//! store and no clock. The streams themselves are in [`super::shared`].

use std::cmp::Reverse;

use super::limits;

/// When a stream was last read, in looks; [`WAITING`] when all received bytes were read.
pub(super) type LastRead = u32;

/// The reader waits for the peer: it holds nothing.
pub(super) const WAITING: LastRead = u32::MAX;

/// Checks one connection at intervals.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looks: u32,
    /// STREAM frames that had come at the last look.
    frames: u64,
}

impl Watch {
    /// The number with which reads are stamped until the next look.
    pub(super) fn looks(&self) -> u32 {
        self.looks
    }

    /// The streams to give up. `frames` counts the STREAM frames that came so far, `allowed` is the number
    /// of stopped readers that leave room for others, `streams` gives the ID and the last read of each open
    /// stream.
    ///
    /// An eighth of the stopped ones at a time, longest first: few enough to spare those that only paused,
    /// enough to end the others' wait within a second or two.
    pub(super) fn look(
        &mut self,
        frames: u64,
        allowed: usize,
        streams: impl Iterator<Item = (u64, LastRead)>,
    ) -> Vec<u64> {
        self.looks = self.looks.saturating_add(1);
        let quiet = std::mem::replace(&mut self.frames, frames) == frames;
        if !quiet {
            return Vec::new();
        }
        let mut waiting = false;
        let mut stopped: Vec<(Reverse<u32>, u64)> = Vec::new();
        for (id, last) in streams {
            let still = self.looks.saturating_sub(last);
            if last == WAITING {
                waiting = true;
            } else if still >= limits::STOPPED_LOOKS {
                stopped.push((Reverse(still), id));
            }
        }
        if !waiting || stopped.len() <= allowed {
            return Vec::new();
        }
        stopped.sort_unstable();
        stopped.truncate(stopped.len().div_ceil(8));
        stopped.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A_STREAM_WAITS: (u64, LastRead) = (400, WAITING);

    const ALLOWED: usize = 2;

    /// One frame came, long ago.
    fn watch() -> Watch {
        let mut watch = Watch::default();
        for _ in 0..limits::STOPPED_LOOKS {
            assert!(watch.look(1, ALLOWED, std::iter::empty()).is_empty());
        }
        watch
    }

    /// Stopped since the beginning.
    fn stopped(count: u64) -> impl Iterator<Item = (u64, LastRead)> {
        (0..count).map(|n| (n * 4, 0))
    }

    #[test]
    fn as_many_stopped_readers_as_leave_room_stay() {
        let streams = stopped(2).chain([A_STREAM_WAITS]);
        assert!(watch().look(1, ALLOWED, streams).is_empty());
    }

    #[test]
    fn one_more_stream_is_given_up_while_a_reader_waits_and_nothing_comes() {
        let streams = || stopped(3).chain([A_STREAM_WAITS]);
        assert_eq!(watch().look(1, ALLOWED, streams()), [0]);
        assert!(
            watch().look(2, ALLOWED, streams()).is_empty(),
            "something came"
        );
        assert!(
            watch().look(1, ALLOWED, stopped(3)).is_empty(),
            "no stream waits"
        );
    }

    #[test]
    fn readers_that_took_something_lately_are_spared() {
        let mut watch = watch();
        let lately = watch.looks();
        let streams = [(4, lately), (8, lately), (12, lately), A_STREAM_WAITS];
        assert!(watch.look(1, ALLOWED, streams.into_iter()).is_empty());
    }

    #[test]
    fn those_that_stand_still_longest_go_first_an_eighth_at_a_time() {
        let streams = (0..17u64).map(|n| (n * 4, u32::from(n != 9)));
        assert_eq!(
            watch().look(1, ALLOWED, streams.chain([A_STREAM_WAITS])),
            [36, 0, 4]
        );
    }
}
