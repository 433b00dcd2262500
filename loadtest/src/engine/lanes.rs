//! Decides which lane the next request of a thread takes.
//!
//! The lane that was returned last is taken first: few connections stay busy and warm, and more are made only
//! when all are in use. A lane that has lost its connection is taken last: as long as other lanes have one,
//! no new connection is made. Not here: what a lane is ([`crate::client`]).

use std::collections::VecDeque;

use crate::client::{Lane, Maker};

/// The lanes of one thread.
pub(crate) struct Lanes {
    maker: Maker,
    free: Free<Lane>,
    made: usize,
    most: usize,
}

impl Lanes {
    /// At most `most` lanes, made when they are needed.
    pub(crate) fn new(maker: Maker, most: usize) -> Self {
        Self {
            maker,
            free: Free(VecDeque::new()),
            made: 0,
            most,
        }
    }

    /// A free lane, or `None` when all are in use.
    pub(crate) fn take(&mut self) -> Option<Lane> {
        if let Some(lane) = self.free.take() {
            return Some(lane);
        }
        if self.made == self.most {
            return None;
        }
        self.made += 1;
        Some(self.maker.lane())
    }

    /// Whether there is a lane that was returned.
    pub(crate) fn has_free(&self) -> bool {
        !self.free.0.is_empty()
    }

    /// Gives a lane back.
    pub(crate) fn give(&mut self, lane: Lane) {
        let is_connected = lane.is_connected();
        self.free.give(lane, is_connected);
    }
}

/// Lanes that were returned; the next to take is the last.
struct Free<L>(VecDeque<L>);

impl<L> Free<L> {
    fn take(&mut self) -> Option<L> {
        self.0.pop_back()
    }

    fn give(&mut self, lane: L, is_connected: bool) {
        if is_connected {
            self.0.push_back(lane);
        } else {
            self.0.push_front(lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_is_first_and_one_without_a_connection_is_last() {
        let mut free = Free(VecDeque::new());
        for (lane, is_connected) in [(1, true), (2, false), (3, true), (4, false)] {
            free.give(lane, is_connected);
        }
        let taken: Vec<_> = std::iter::from_fn(|| free.take()).collect();
        assert_eq!(taken, [3, 1, 2, 4]);
    }
}
