//! One way of a link: the parts in order. Pure.

use std::marker::PhantomData;
use std::time::Instant;

use super::{Counters, Impairment, Packet, Seed};

/// One way of a link.
#[derive(Debug)]
pub struct Direction<P> {
    packets: PhantomData<P>,
    counters: Counters,
}

impl<P: Packet> Direction<P> {
    /// A direction without packets.
    pub fn new(seed: Seed, impairment: Impairment, now: Instant) -> Self {
        let _ = (seed, impairment, now);
        Self {
            packets: PhantomData,
            counters: Counters::default(),
        }
    }

    /// Changes what it does, from the next packet on. What is on its way stays on its way.
    pub fn set(&mut self, now: Instant, impairment: Impairment) {
        let _ = (now, impairment);
    }

    /// Takes a packet that entered at `now`.
    pub fn push(&mut self, now: Instant, packet: P) {
        let _ = (now, packet);
    }

    /// The next packet that leaves by `now`. Ask until it says `None`.
    pub fn poll(&mut self, now: Instant) -> Option<P> {
        let _ = now;
        None
    }

    /// When the next packet leaves.
    pub fn next_due(&mut self) -> Option<Instant> {
        None
    }

    /// What became of the packets so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
