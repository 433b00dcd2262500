//! How many requests are open, and which of them wait for a lane. Pure.
//!
//! An open loop must not grow without bound when the server stalls: a request that is due while the bound is
//! reached is refused, and counts as a failure.

use std::collections::VecDeque;

use crate::plan::arrivals::Arrival;

/// The open requests of one thread.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Arrival>,
    /// Requests with a lane and without one.
    open: usize,
    most: usize,
}

/// The decision about an arrival.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission<L> {
    /// It is sent on this lane.
    Send(L),
    /// The request waits for a lane.
    Wait,
    /// Too much is open.
    Refuse,
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            open: 0,
            most,
        }
    }

    /// Whether the next arrival would be refused.
    pub(super) fn is_full(&self) -> bool {
        self.open == self.most
    }

    /// Decides about an arrival; `free` gives a free lane if there is one.
    pub(super) fn admit<L>(
        &mut self,
        arrival: Arrival,
        free: impl FnOnce() -> Option<L>,
    ) -> Admission<L> {
        if self.is_full() {
            return Admission::Refuse;
        }
        self.open += 1;
        // A lane is free only when no request waits: see `finished`.
        match free() {
            Some(lane) => Admission::Send(lane),
            None => {
                self.waiting.push_back(arrival);
                Admission::Wait
            }
        }
    }

    /// A request ended: the next one for its lane, if one waits.
    pub(super) fn finished(&mut self) -> Option<Arrival> {
        self.open -= 1;
        self.waiting.pop_front()
    }

    /// Waiting requests that will not get a lane any more.
    pub(super) fn give_up(&mut self) -> Vec<Arrival> {
        self.open -= self.waiting.len();
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn arrival(number: u64) -> Arrival {
        Arrival {
            at: Duration::from_millis(number),
            target: 0,
        }
    }

    #[test]
    fn requests_take_a_lane_then_wait_in_order_then_are_refused() {
        let mut queue = Queue::new(3);
        assert_eq!(
            queue.admit(arrival(0), || Some("lane")),
            Admission::Send("lane")
        );
        let none = || None::<&str>;
        assert_eq!(queue.admit(arrival(1), none), Admission::Wait);
        assert_eq!(queue.admit(arrival(2), none), Admission::Wait);
        assert!(queue.is_full());
        assert_eq!(queue.admit(arrival(3), none), Admission::Refuse);
        // The first ends and its lane goes to the request that waited longest.
        assert_eq!(queue.finished(), Some(arrival(1)));
        assert_eq!(queue.admit(arrival(4), none), Admission::Wait);
        assert_eq!(queue.give_up(), [arrival(2), arrival(4)]);
        assert_eq!(queue.finished(), None);
        assert_eq!(
            queue.admit(arrival(5), || Some("lane")),
            Admission::Send("lane")
        );
    }
}
