//! What every edge and every sidecar of the mesh did of late: the rings of all, within the bounds of all.
//! Pure: time is an argument.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use weft_transport::identity::SpiffeId;

use super::rings::{PER_MINUTE, Rings, Slot};
use crate::limits;
use crate::signals::{EdgeCounts, EdgeKey, Side};

/// A sidecar, and from which side its calls are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SidecarKey {
    pub(super) identity: SpiffeId,
    pub(super) instance: Arc<str>,
    pub(super) side: Side,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Past {
    edges: HashMap<EdgeKey, Rings>,
    sidecars: HashMap<SidecarKey, Rings>,
    /// The minute at which it was tidied last.
    tidied: u32,
    /// Calls that were counted as those of `other`, because there were too many edges.
    pub(super) spilled: u64,
    /// Minutes and slots that were forgotten before their time, because there was no room.
    pub(super) forgotten: u64,
}

/// The name of everything that has no room of its own.
pub(super) const OTHER: &str = "other";

/// The slot at a time since the service started.
pub(super) fn slot_at(since_start: Duration) -> Slot {
    let slot = since_start.as_secs() / limits::SIGNAL_SLOT.as_secs();
    Slot::try_from(slot).unwrap_or(Slot::MAX)
}

impl Past {
    /// Counts what came on an edge.
    pub(super) fn note(&mut self, now: Slot, edge: EdgeKey, counts: &EdgeCounts) {
        let room = self.edges.len() < limits::SIGNAL_EDGES_MAX;
        let edge = match room || self.edges.contains_key(&edge) {
            true => edge,
            false => {
                self.spilled += counts.requests + counts.opened;
                other(edge.side)
            }
        };
        self.edges.entry(edge).or_default().note(now, counts);
    }

    /// Counts what came at a sidecar.
    pub(super) fn note_sidecar(&mut self, now: Slot, sidecar: SidecarKey, counts: &EdgeCounts) {
        let room = self.sidecars.len() < limits::SIGNAL_EDGES_MAX;
        if room || self.sidecars.contains_key(&sidecar) {
            self.sidecars.entry(sidecar).or_default().note(now, counts);
        }
    }

    /// Once a minute: closes and forgets slots, says which edges are the busiest, and keeps within
    /// [`limits::SIGNAL_BYTES_MAX`].
    pub(super) fn tidy(&mut self, now: Slot) {
        self.tidy_within(now, limits::SIGNAL_BYTES_MAX);
    }

    fn tidy_within(&mut self, now: Slot, bytes_max: usize) {
        if self.tidied == now / PER_MINUTE {
            return;
        }
        self.tidied = now / PER_MINUTE;
        let all = self.edges.values_mut().chain(self.sidecars.values_mut());
        all.for_each(|rings| rings.pass(now));
        self.edges.retain(|_, rings| !rings.is_empty());
        self.sidecars.retain(|_, rings| !rings.is_empty());
        let mut calls: Vec<(u64, &mut Rings)> = self
            .edges
            .values_mut()
            .map(|rings| (rings.calls(), rings))
            .collect();
        calls.sort_unstable_by_key(|(calls, _)| std::cmp::Reverse(*calls));
        for (place, (calls, rings)) in calls.iter_mut().enumerate() {
            // One that is silent keeps the day that it had.
            if *calls > 0 || place >= limits::SIGNAL_BUSIEST {
                rings.set_busy(place < limits::SIGNAL_BUSIEST);
            }
        }
        let mut bytes: usize = calls.iter().map(|(_, rings)| rings.bytes()).sum();
        // The least busy lose their day first; then all lose their oldest slots.
        for (_, rings) in calls.iter_mut().rev() {
            while bytes > bytes_max
                && let Some(forgotten) = rings.forget_oldest_minute()
            {
                bytes -= forgotten;
                self.forgotten += 1;
            }
        }
        let all = u32::try_from(limits::SIGNAL_SLOTS).unwrap_or(u32::MAX);
        for slot in now.saturating_sub(all)..now {
            if bytes <= bytes_max {
                break;
            }
            for (_, rings) in &mut calls {
                if let Some(forgotten) = rings.forget_slot(slot) {
                    bytes -= forgotten;
                    self.forgotten += 1;
                }
            }
        }
    }

    /// What came on each edge in the last `slots` slots. What both sidecars of a call counted is told once,
    /// as the caller's saw it.
    pub(super) fn edges(
        &self,
        now: Slot,
        slots: u32,
        wanted: impl Fn(&EdgeKey) -> bool,
    ) -> Vec<(&EdgeKey, EdgeCounts)> {
        let wanted = self.edges.iter().filter(|(edge, _)| wanted(edge));
        let came = wanted.map(|(edge, rings)| (edge, rings.since(now, slots)));
        let came: Vec<_> = came.filter(|(_, counts)| !counts.is_empty()).collect();
        let by_caller: HashSet<(&str, &str)> = came
            .iter()
            .filter(|(edge, _)| edge.side == Side::Caller)
            .map(|(edge, _)| (&*edge.from_identity, &*edge.to))
            .collect();
        came.iter()
            .filter(|(edge, _)| {
                edge.side == Side::Caller
                    || edge.from_identity.is_empty()
                    || !by_caller.contains(&(&*edge.from_identity, &*edge.to))
            })
            .map(|(edge, counts)| (*edge, counts.clone()))
            .collect()
    }

    /// What came at each sidecar in the last `slots` slots.
    pub(super) fn sidecars(
        &self,
        now: Slot,
        slots: u32,
    ) -> impl Iterator<Item = (&SidecarKey, EdgeCounts)> {
        let all = self.sidecars.iter();
        let came = all.map(move |(sidecar, rings)| (sidecar, rings.since(now, slots)));
        came.filter(|(_, counts)| !counts.is_empty())
    }

    /// Edges that are kept, and the bytes of their slots.
    pub(super) fn size(&self) -> (usize, usize) {
        let all = self.edges.values().chain(self.sidecars.values());
        (self.edges.len(), all.map(Rings::bytes).sum())
    }
}

fn other(side: Side) -> EdgeKey {
    let other: Arc<str> = Arc::from(OTHER);
    let none: Arc<str> = Arc::from("");
    EdgeKey {
        side,
        from: Arc::clone(&other),
        from_identity: Arc::clone(&none),
        to: other,
        to_identity: Arc::clone(&none),
        route: none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Ended;

    fn requests(count: u64) -> EdgeCounts {
        let mut counts = EdgeCounts::default();
        for _ in 0..count {
            counts.request(Ended {
                micros: 1_000,
                mesh_micros: None,
                failure: None,
                late: false,
                retries: 0,
                sent: 0,
                received: 0,
            });
        }
        counts
    }

    fn edge(from: &str, side: Side) -> EdgeKey {
        EdgeKey {
            side,
            from: Arc::from(from),
            from_identity: Arc::from(format!("spiffe://demo.test/ns/shop/sa/{from}")),
            to: Arc::from("orders.shop:80"),
            to_identity: Arc::from(""),
            route: Arc::from(""),
        }
    }

    #[test]
    fn a_call_that_both_sides_counted_is_told_once_as_its_caller_saw_it() {
        let mut past = Past::default();
        past.note(3, edge("frontend", Side::Caller), &requests(10));
        past.note(3, edge("frontend", Side::Service), &requests(9));
        past.note(3, edge("stranger", Side::Service), &requests(4));
        let seen = past.edges(4, 12, |_| true);
        let mut seen: Vec<_> = seen
            .iter()
            .map(|(edge, counts)| (&*edge.from, counts.requests))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [("frontend", 10), ("stranger", 4)]);
    }

    #[test]
    fn edges_beyond_the_bound_are_counted_as_one_and_none_of_their_calls_is_lost() {
        let mut past = Past::default();
        let more = 50;
        for number in 0..limits::SIGNAL_EDGES_MAX + more {
            past.note(1, edge(&number.to_string(), Side::Caller), &requests(1));
        }
        let seen = past.edges(1, 12, |_| true);
        let all: u64 = seen.iter().map(|(_, counts)| counts.requests).sum();
        assert_eq!(all, (limits::SIGNAL_EDGES_MAX + more) as u64);
        assert_eq!(past.spilled, more as u64);
        assert!(past.size().0 <= limits::SIGNAL_EDGES_MAX + 1);
    }

    #[test]
    fn where_there_is_no_room_the_least_busy_lose_their_day_first() {
        let mut past = Past::default();
        for minute in 0..100 {
            let now = minute * PER_MINUTE;
            past.note(now, edge("busy", Side::Caller), &requests(5));
            past.note(now, edge("calm", Side::Caller), &requests(1));
            past.tidy_within(now, 5_000);
        }
        let (_, bytes) = past.size();
        assert!(bytes <= 5_000 + 200, "{bytes}");
        assert!(past.forgotten > 0);
        let day = past.edges(99 * PER_MINUTE, 1_440 * PER_MINUTE, |_| true);
        let of = |name: &str| {
            let found = day.iter().find(|(edge, _)| &*edge.from == name);
            found.map_or(0, |(_, counts)| counts.requests)
        };
        assert!(
            of("busy") / 5 > of("calm") + 20,
            "{} {}",
            of("busy"),
            of("calm")
        );
    }

    #[test]
    fn however_busy_all_edges_are_the_bound_holds() {
        let mut past = Past::default();
        for slot in 0..30 {
            for number in 0..40 {
                past.note(slot, edge(&number.to_string(), Side::Caller), &requests(3));
            }
            past.tidy_within(slot, 20_000);
        }
        past.tidy_within(36, 20_000);
        assert!(past.size().1 <= 20_000, "{}", past.size().1);
        // What is left is the newest.
        assert_eq!(past.edges(29, 1, |_| true).len(), 40);
    }

    #[test]
    fn what_was_silent_for_long_leaves_nothing_behind() {
        let mut past = Past::default();
        let sidecar = SidecarKey {
            identity: "spiffe://demo.test/ns/shop/sa/frontend".parse().unwrap(),
            instance: Arc::from("1"),
            side: Side::Caller,
        };
        past.note(0, edge("frontend", Side::Caller), &requests(1));
        past.note_sidecar(0, sidecar, &requests(1));
        past.tidy(3_000 * PER_MINUTE);
        assert_eq!(past.size(), (0, 0));
        assert_eq!(past.sidecars(3_000 * PER_MINUTE, 12).count(), 0);
    }
}
