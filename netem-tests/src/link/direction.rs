//! One direction of a link: the parts of an impairment in their order. Pure.
//!
//! Black hole and blackout, the bottleneck with cross traffic, loss, duplication, delay, corruption. All
//! random decisions about a packet depend on its number in this direction. The numbers of faults count only
//! the packets that [`Match`](super::Match) selects, so that other traffic does not change them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Instant;

use super::bottleneck::Bottleneck;
use super::cross::Cross;
use super::fate::{Fate, Purpose};
use super::jitter::CorrelatedJitter;
use super::{Counters, GilbertElliott, Impairment, Loss, Order, Packet, Seed};
use crate::limits;

/// One direction of a link.
#[derive(Debug)]
pub struct Direction<P> {
    impairment: Impairment,
    fate: Fate,
    /// Packets so far: the number of the next one.
    next: u64,
    /// Packets so far that faults apply to.
    next_faulty: u64,
    /// Of these, since the impairment was set.
    matched: u64,
    burst: bool,
    wander: CorrelatedJitter,
    /// A waiting item without a packet is cross traffic.
    bottleneck: Option<Bottleneck<Option<Numbered<P>>>>,
    cross: Cross,
    path: BinaryHeap<Reverse<OnItsWay<P>>>,
    /// When the last packet that keeps its order leaves.
    last_due: Option<Instant>,
    /// Orders packets that leave at the same moment.
    sequence: u64,
    /// Bytes in `bottleneck` and `path`.
    bytes: usize,
    packets: usize,
    counters: Counters,
}

/// A packet that leaves the link.
#[derive(Debug)]
pub struct Departure<P> {
    /// When it should leave: the difference to the present is the caller's lateness.
    pub due: Instant,
    /// The packet.
    pub packet: P,
}

#[derive(Debug)]
struct Numbered<P> {
    number: u64,
    /// Its number among the packets that faults apply to.
    faulty: Option<u64>,
    packet: P,
}

#[derive(Debug)]
struct OnItsWay<P> {
    due: Instant,
    sequence: u64,
    packet: P,
}

impl<P: Packet> Direction<P> {
    /// A direction without packets.
    pub fn new(seed: Seed, impairment: Impairment, now: Instant) -> Self {
        let fate = Fate::new(seed);
        let mut cross = Cross::default();
        cross.set(now, cross_rate(&impairment), fate);
        let bottleneck = impairment
            .rate
            .clone()
            .map(|rate| Bottleneck::new(rate, impairment.queue, now));
        Self {
            impairment,
            fate,
            next: 0,
            next_faulty: 0,
            matched: 0,
            burst: false,
            wander: CorrelatedJitter::default(),
            bottleneck,
            cross,
            path: BinaryHeap::new(),
            last_due: None,
            sequence: 0,
            bytes: 0,
            packets: 0,
            counters: Counters::default(),
        }
    }

    /// Changes the impairment. Packets behind the bottleneck keep their fate; those before it leave it at the
    /// new rate and meet the new impairments behind it.
    pub fn set(&mut self, now: Instant, impairment: Impairment) {
        self.transmit(now);
        match (&mut self.bottleneck, impairment.rate.clone()) {
            (Some(bottleneck), Some(rate)) => bottleneck.set(now, rate, impairment.queue),
            (None, Some(rate)) => {
                self.bottleneck = Some(Bottleneck::new(rate, impairment.queue, now));
            }
            // Waiting packets leave at once.
            (Some(bottleneck), None) => {
                bottleneck.set(now, super::Rate::Constant(limits::RATE_MAX), None);
            }
            (None, None) => {}
        }
        self.cross.set(now, cross_rate(&impairment), self.fate);
        self.impairment = impairment;
        self.matched = 0;
    }

    /// Takes a packet that entered at `now`.
    pub fn push(&mut self, now: Instant, packet: P) {
        self.transmit(now);
        let length = packet.length();
        self.counters.received += 1;
        self.counters.received_bytes += length as u64;
        let number = self.next;
        self.next += 1;
        let faulty = self.is_faulty(&packet).then(|| {
            self.next_faulty += 1;
            self.next_faulty - 1
        });
        if faulty.is_some() {
            if self.impairment.blackout {
                self.counters.blacked_out += 1;
                return;
            }
            let longest = self.impairment.black_hole.map_or(usize::MAX, usize::from);
            if length > longest {
                self.counters.too_long += 1;
                return;
            }
        }
        let full = self.packets >= limits::PACKETS_ON_THEIR_WAY_MAX
            || self.bytes + length > limits::BYTES_ON_THEIR_WAY_MAX;
        if full {
            self.counters.overflowed += 1;
            return;
        }
        self.packets += 1;
        self.bytes += length;
        let numbered = Numbered {
            number,
            faulty,
            packet,
        };
        let waits = self.impairment.rate.is_some()
            || self
                .bottleneck
                .as_ref()
                .is_some_and(|bottleneck| !bottleneck.is_empty());
        match &mut self.bottleneck {
            Some(bottleneck) if waits => {
                if bottleneck.push(now, length, Some(numbered)).is_err() {
                    self.counters.queue_full += 1;
                    self.forget(length);
                }
            }
            Some(_) | None => self.travel(now, numbered),
        }
    }

    /// The next packet that leaves by `now`. Ask until it says `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Departure<P>> {
        self.transmit(now);
        let first = self.path.peek()?;
        if first.0.due > now {
            return None;
        }
        let OnItsWay { due, packet, .. } = self.path.pop()?.0;
        let length = packet.length();
        self.forget(length);
        self.counters.delivered += 1;
        self.counters.delivered_bytes += length as u64;
        Some(Departure { due, packet })
    }

    /// The earliest moment at which a packet may leave: poll again then. `None`: not before another
    /// packet enters.
    pub fn next_due(&self) -> Option<Instant> {
        let on_its_way = self.path.peek().map(|first| first.0.due);
        let transmitted = self.bottleneck.as_ref().and_then(Bottleneck::next);
        // With jitter a packet may be early; without, it cannot leave before the delay is over.
        let transmitted = transmitted.map(|done| match self.impairment.jitter {
            None => done + self.impairment.delay,
            Some(_) => done,
        });
        match (on_its_way, transmitted) {
            (Some(first), Some(second)) => Some(first.min(second)),
            (first, second) => first.or(second),
        }
    }

    /// Its present impairment.
    pub fn impairment(&self) -> &Impairment {
        &self.impairment
    }

    /// The counts of the packets so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether faults apply to this packet.
    fn is_faulty(&mut self, packet: &P) -> bool {
        let only = &self.impairment.only;
        let length = u16::try_from(packet.length()).unwrap_or(u16::MAX);
        let matches = only.length.contains(&length)
            && only.udp_port.is_none_or(|port| {
                packet
                    .udp_ports()
                    .is_some_and(|(from, to)| from == port || to == port)
            });
        if !matches {
            return false;
        }
        self.matched += 1;
        only.first.is_none_or(|first| self.matched <= first)
    }

    /// Moves the packets that the bottleneck has transmitted on to the path, and adds cross traffic, in the
    /// order of time.
    fn transmit(&mut self, now: Instant) {
        while let Some(at) = self.cross.arrival(now, self.fate) {
            self.transmit_own(at);
            if let Some(bottleneck) = &mut self.bottleneck {
                // If the queue is full, the packet of the cross traffic is lost.
                let _ = bottleneck.push(at, limits::CROSS_PACKET_BYTES, None);
            }
        }
        self.transmit_own(now);
    }

    fn transmit_own(&mut self, now: Instant) {
        while let Some((at, item)) = self
            .bottleneck
            .as_mut()
            .and_then(|bottleneck| bottleneck.pop(now))
        {
            if let Some(numbered) = item {
                self.travel(at, numbered);
            }
        }
    }

    /// The part behind the bottleneck.
    fn travel(&mut self, at: Instant, numbered: Numbered<P>) {
        let Numbered {
            number,
            faulty,
            mut packet,
        } = numbered;
        let mut due = self.due(at, number);
        let Some(faulty) = faulty else {
            self.keep_place(&mut due);
            self.depart(due, packet);
            return;
        };
        if self.is_lost(faulty) {
            self.counters.lost += 1;
            self.forget(packet.length());
            return;
        }
        let held_back = self.impairment.reorder.filter(|reorder| {
            self.fate
                .happens(reorder.probability, faulty, Purpose::Reorder)
        });
        match held_back {
            Some(reorder) => {
                self.counters.held_back += 1;
                due += reorder.by;
            }
            None => self.keep_place(&mut due),
        }
        let duplicate = self.impairment.duplicate;
        if self.fate.happens(duplicate, faulty, Purpose::Duplicate) {
            self.counters.duplicated += 1;
            let mut copy = packet.clone();
            self.packets += 1;
            self.bytes += copy.length();
            self.damage(
                &mut copy,
                faulty,
                [Purpose::CorruptCopy, Purpose::DamageCopy],
            );
            self.damage(&mut packet, faulty, [Purpose::Corrupt, Purpose::Damage]);
            self.depart(due, packet);
            self.depart(due, copy);
        } else {
            self.damage(&mut packet, faulty, [Purpose::Corrupt, Purpose::Damage]);
            self.depart(due, packet);
        }
    }

    /// When a packet that was transmitted at `at` leaves, if nothing holds it back.
    fn due(&mut self, at: Instant, number: u64) -> Instant {
        let mean = self.impairment.delay;
        at + match &self.impairment.jitter {
            Some(jitter) => self.wander.delay(mean, jitter, self.fate, number),
            None => mean,
        }
    }

    /// Puts `due` behind the packets before it, unless they may be overtaken.
    fn keep_place(&mut self, due: &mut Instant) {
        let overtakes = self
            .impairment
            .jitter
            .is_some_and(|jitter| jitter.order == Order::Overtake);
        if let Some(last) = self.last_due.filter(|last| last > due) {
            if !overtakes {
                *due = last;
            }
        } else {
            self.last_due = Some(*due);
        }
    }

    fn is_lost(&mut self, faulty: u64) -> bool {
        match self.impairment.loss {
            Loss::None => false,
            Loss::Random(probability) => self.fate.happens(probability, faulty, Purpose::Loss),
            Loss::Bursts(channel) => {
                self.burst = self.bursts_on(&channel, faulty);
                let probability = match self.burst {
                    true => channel.loss_bad,
                    false => channel.loss_good,
                };
                self.fate.happens(probability, faulty, Purpose::Loss)
            }
        }
    }

    /// The channel's state for this packet.
    fn bursts_on(&self, channel: &GilbertElliott, faulty: u64) -> bool {
        let happens = |probability| self.fate.happens(probability, faulty, Purpose::Burst);
        match self.burst {
            true => !happens(channel.to_good),
            false => happens(channel.to_bad),
        }
    }

    fn damage(&mut self, packet: &mut P, faulty: u64, purposes: [Purpose; 2]) {
        let [whether, how] = purposes;
        let Some(corruption) = self.impairment.corrupt else {
            return;
        };
        if !self.fate.happens(corruption.probability, faulty, whether) {
            return;
        }
        let payload = packet.payload();
        if payload.is_empty() {
            return;
        }
        let bits = self.fate.bits(faulty, how);
        // At least one bit of one byte: a mask of 0 would be no damage.
        let place = (bits >> 8) as usize % payload.len();
        payload[place] ^= (bits as u8).max(1);
        if corruption.fix_checksum {
            packet.fix_checksum();
        }
        self.counters.corrupted += 1;
    }

    fn depart(&mut self, due: Instant, packet: P) {
        self.sequence += 1;
        self.path.push(Reverse(OnItsWay {
            due,
            sequence: self.sequence,
            packet,
        }));
    }

    fn forget(&mut self, length: usize) {
        self.packets -= 1;
        self.bytes -= length;
    }
}

/// Without a bottleneck there is no capacity to compete for.
fn cross_rate(impairment: &Impairment) -> Option<u64> {
    impairment.rate.as_ref().and(impairment.cross)
}

impl<P> PartialEq for OnItsWay<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<P> Eq for OnItsWay<P> {}

impl<P> PartialOrd for OnItsWay<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for OnItsWay<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

#[cfg(test)]
mod tests;
