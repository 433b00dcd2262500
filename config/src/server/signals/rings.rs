//! The recent past of one edge, or of one sidecar: what came in each slot of 5 s for 10 minutes, and in each
//! minute for 10 minutes or, of the busiest, a day. Slots that are over are kept as encoded messages, which
//! take a tenth of the room. Pure: slots are numbered by the caller.

use std::collections::VecDeque;

use prost::Message as _;

use crate::limits;
use crate::proto;
use crate::signals::{Durations, EdgeCounts};

/// The number of a slot of 5 s since the service started.
pub(super) type Slot = u32;

/// Slots in a minute.
pub(super) const PER_MINUTE: u32 =
    (limits::SIGNAL_MINUTE.as_secs() / limits::SIGNAL_SLOT.as_secs()) as u32;

/// Minutes that every edge keeps.
pub(super) const MINUTES_OF_ALL: usize = limits::SIGNAL_SLOTS / PER_MINUTE as usize;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rings {
    /// What came in the present slot, and which it is.
    open: (Slot, EdgeCounts),
    /// What came in the present minute before the present slot.
    minute: (u32, EdgeCounts),
    slots: Kept,
    minutes: Kept,
    /// Calls of the minute before the present one.
    calls: u64,
    /// Whether a whole day is kept.
    is_busy: bool,
}

/// Slots that are over, in their order. Those in which nothing came are not kept.
#[derive(Debug, Default)]
struct Kept {
    slots: VecDeque<(u32, Box<[u8]>)>,
    bytes: usize,
}

/// Bytes of a slot beside its message: its place in the ring, and what the allocator adds.
const SLOT_BYTES: usize = 40;

impl Rings {
    /// Counts what came in the slot `now`.
    pub(super) fn note(&mut self, now: Slot, counts: &EdgeCounts) {
        self.pass(now);
        self.open.1.merge(counts);
    }

    /// Closes slots that are over, and forgets those that are too old.
    pub(super) fn pass(&mut self, now: Slot) {
        let minute = now / PER_MINUTE;
        if self.open.0 != now {
            let (slot, mut counts) = std::mem::take(&mut self.open);
            if !counts.is_empty() {
                self.pass_minute(slot / PER_MINUTE);
                self.minute.1.merge(&counts);
                counts.mesh = coarser(&counts.mesh);
                self.slots.push(slot, &counts);
            }
            self.open.0 = now;
        }
        self.pass_minute(minute);
        self.slots.forget(now, limits::SIGNAL_SLOTS);
        let kept = match self.is_busy {
            true => limits::SIGNAL_MINUTES,
            false => MINUTES_OF_ALL,
        };
        self.minutes.forget(minute, kept);
    }

    fn pass_minute(&mut self, now: u32) {
        if self.minute.0 == now {
            return;
        }
        let (minute, mut counts) = std::mem::take(&mut self.minute);
        self.calls = match minute + 1 == now {
            true => counts.requests + counts.opened,
            false => 0,
        };
        if !counts.is_empty() {
            counts.latency = coarser(&counts.latency);
            counts.mesh = coarser(&counts.mesh);
            self.minutes.push(minute, &counts);
        }
        self.minute.0 = now;
    }

    /// Calls of the last whole minute.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Keeps a whole day from here on, or no more than of every edge.
    pub(super) fn set_busy(&mut self, is_busy: bool) {
        self.is_busy = is_busy;
    }

    /// Forgets the oldest slot if it is this one, and says how many bytes it took.
    pub(super) fn forget_slot(&mut self, slot: Slot) -> Option<usize> {
        let oldest = self.slots.slots.front().map(|(oldest, _)| *oldest);
        (oldest == Some(slot)).then(|| self.slots.pop())?
    }

    /// Forgets the oldest minute, if there is one, and says how many bytes it took.
    pub(super) fn forget_oldest_minute(&mut self) -> Option<usize> {
        self.minutes.pop()
    }

    /// What came in the last `slots` slots before `now`, and in `now`. What is longer ago than a few minutes
    /// is known by minutes only.
    pub(super) fn since(&self, now: Slot, slots: u32) -> EdgeCounts {
        let from = now.saturating_sub(slots);
        let mut sum = EdgeCounts::default();
        let minute = from.div_ceil(PER_MINUTE);
        // Where a minute that is over begins within the span, its slots need not be read one by one.
        let by_minutes = slots > 2 * PER_MINUTE && minute < self.minute.0;
        if by_minutes {
            self.minutes.add_between(minute, self.minute.0, &mut sum);
            self.slots.add_between(from, minute * PER_MINUTE, &mut sum);
            sum.merge(&self.minute.1);
        } else {
            self.slots.add_between(from, now, &mut sum);
        }
        if self.open.0 >= from {
            sum.merge(&self.open.1);
        }
        sum
    }

    /// Bytes of what is kept.
    pub(super) fn bytes(&self) -> usize {
        self.slots.bytes + self.minutes.bytes
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        let open = self.open.1.is_empty() && self.minute.1.is_empty();
        open && self.slots.slots.is_empty() && self.minutes.slots.is_empty()
    }
}

impl Kept {
    fn push(&mut self, slot: u32, counts: &EdgeCounts) {
        let message = proto::EdgeCounts::from(counts)
            .encode_to_vec()
            .into_boxed_slice();
        self.bytes += message.len() + SLOT_BYTES;
        self.slots.push_back((slot, message));
    }

    /// Forgets the oldest, and says how many bytes it took.
    fn pop(&mut self) -> Option<usize> {
        let (_, message) = self.slots.pop_front()?;
        let bytes = message.len() + SLOT_BYTES;
        self.bytes -= bytes;
        Some(bytes)
    }

    /// Forgets what is `kept` slots older than `now`, or more.
    fn forget(&mut self, now: u32, kept: usize) {
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        while self
            .slots
            .front()
            .is_some_and(|(slot, _)| now.saturating_sub(*slot) > kept)
        {
            self.pop();
        }
    }

    /// Adds the slots from `from` on, and before `to`.
    fn add_between(&self, from: u32, to: u32, sum: &mut EdgeCounts) {
        let begin = self.slots.partition_point(|(slot, _)| *slot < from);
        for (_, message) in self.slots.range(begin..).take_while(|(slot, _)| *slot < to) {
            sum.merge(&decode(message));
        }
    }
}

fn decode(message: &[u8]) -> EdgeCounts {
    // It was encoded here.
    proto::EdgeCounts::decode(message)
        .unwrap_or_default()
        .into()
}

/// The same with two buckets in one, as what is longer ago needs to be less exact.
fn coarser(durations: &Durations) -> Durations {
    Durations::of(durations.iter().map(|(bucket, count)| (bucket & !1, count)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Ended;

    fn one(micros: u64) -> EdgeCounts {
        let mut counts = EdgeCounts::default();
        counts.request(Ended {
            micros,
            mesh_micros: Some(micros / 2),
            failure: None,
            late: false,
            retries: 0,
            sent: 1,
            received: 2,
        });
        counts
    }

    #[test]
    fn a_window_has_what_came_in_it_and_nothing_older() {
        let mut rings = Rings::default();
        for slot in 0..1_000 {
            rings.note(slot, &one(1_000));
        }
        for slots in [0, 1, 2, 11, 12, 23, 24, 25, 36, 47, 60, 100, 119] {
            let seen = rings.since(999, slots).requests;
            assert_eq!(seen, u64::from(slots) + 1, "{slots}");
        }
    }

    #[test]
    fn an_edge_that_is_silent_is_forgotten_after_ten_minutes_and_a_busy_one_after_a_day() {
        let (mut silent, mut busy) = (Rings::default(), Rings::default());
        busy.set_busy(true);
        for rings in [&mut silent, &mut busy] {
            rings.note(5, &one(1_000));
            rings.note(6, &one(1_000));
        }
        silent.pass(5 + 119);
        assert_eq!(silent.since(124, 119).requests, 2);
        silent.pass(200);
        assert!(silent.is_empty());
        assert_eq!(silent.bytes(), 0);
        busy.pass(1_440 * PER_MINUTE);
        assert_eq!(
            busy.since(1_440 * PER_MINUTE, 1_440 * PER_MINUTE).requests,
            2
        );
        busy.pass(1_442 * PER_MINUTE);
        assert!(busy.is_empty());
    }

    #[test]
    fn a_percentile_of_a_day_is_as_near_as_two_buckets() {
        let mut rings = Rings::default();
        rings.set_busy(true);
        for slot in 0..(PER_MINUTE * 60) {
            for micros in [900, 1_000, 1_100] {
                rings.note(slot, &one(micros));
            }
        }
        let seen = rings.since(PER_MINUTE * 60, PER_MINUTE * 60).latency;
        let median = seen.quantile(0.5).unwrap();
        assert!((850.0..=1_190.0).contains(&median), "{median}");
        assert_eq!(seen.count(), u64::from(PER_MINUTE) * 180);
    }

    #[test]
    fn ten_minutes_of_an_edge_take_less_than_fourteen_kilobytes() {
        let mut rings = Rings::default();
        for slot in 0..limits::SIGNAL_SLOTS as u32 {
            // A hundred requests from 1 to 100 ms.
            for number in 0..100 {
                rings.note(slot, &one(1_000 + u64::from(slot) + number * 1_000));
            }
            assert_eq!(rings.calls() > 0, slot >= PER_MINUTE, "{slot}");
        }
        assert!(rings.bytes() < 26_000, "{}", rings.bytes());
    }

    #[test]
    fn what_a_slot_takes_is_counted_and_given_back() {
        let mut rings = Rings::default();
        for slot in 0..50 {
            rings.note(slot, &one(u64::from(slot) * 1_000));
        }
        assert!(
            (50 * 40..50 * 140).contains(&rings.bytes()),
            "{}",
            rings.bytes()
        );
        while rings.forget_oldest_minute().is_some() {}
        rings.pass(10_000);
        assert_eq!(rings.bytes(), 0);
    }
}
