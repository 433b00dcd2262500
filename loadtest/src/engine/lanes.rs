//! Which lane the next request of a thread takes.
//!
//! The lane that was given back last is taken first: few connections stay busy and warm, and more are made
//! only when all are in use. Not here: what a lane is ([`crate::client`]).

use crate::client::{Lane, Maker};

/// The lanes of one thread.
pub(crate) struct Lanes {
    maker: Maker,
    free: Vec<Lane>,
    made: usize,
    most: usize,
}

impl Lanes {
    /// At most `most` lanes, made when they are needed.
    pub(crate) fn new(maker: Maker, most: usize) -> Self {
        Self {
            maker,
            free: Vec::new(),
            made: 0,
            most,
        }
    }

    /// A free lane, or `None` when all are in use.
    pub(crate) fn take(&mut self) -> Option<Lane> {
        if let Some(lane) = self.free.pop() {
            return Some(lane);
        }
        if self.made == self.most {
            return None;
        }
        self.made += 1;
        Some(self.maker.lane())
    }

    /// Whether there is a lane that was given back.
    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Gives a lane back.
    pub(crate) fn give(&mut self, lane: Lane) {
        self.free.push(lane);
    }
}
