//! Decides which of the connections that wait to be read is next. Pure.
//!
//! The oldest is first, which is fair, as long as callers wait. Once some that waited for long turn out to be
//! gone, the newest is next: its caller will still be there when the answer comes, and the caller of the
//! oldest will not. Even then one in eight is the oldest, or a connection could wait for ever.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::limits;

/// Those that wait, each with what wakes it.
#[derive(Debug)]
pub(super) struct Line<W> {
    waiting: BTreeMap<Place, Waiting<W>>,
    next: Place,
    /// When a connection that had waited for long was found to be gone.
    gone: Option<Instant>,
    /// How many were called since callers give up.
    called: u32,
}

/// The connections in order of arrival; a later one has a higher number.
pub(super) type Place = u64;

#[derive(Debug)]
struct Waiting<W> {
    since: Instant,
    waker: W,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
            gone: None,
            called: 0,
        }
    }
}

impl<W> Line<W> {
    pub(super) fn join(&mut self, waker: W, now: Instant) -> Place {
        let place = self.next;
        self.next += 1;
        self.waiting.insert(place, Waiting { since: now, waker });
        place
    }

    /// Wakes the connection at this place, while it waits.
    pub(super) fn waker(&mut self, place: Place) -> Option<&mut W> {
        self.waiting
            .get_mut(&place)
            .map(|waiting| &mut waiting.waker)
    }

    pub(super) fn leave(&mut self, place: Place) {
        self.waiting.remove(&place);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether callers give up before it is their turn.
    pub(super) fn callers_give_up(&self, now: Instant) -> bool {
        self.gone
            .is_some_and(|gone| now.saturating_duration_since(gone) < limits::INTAKE_PATIENCE)
    }

    /// A connection that was called is gone. Callers close idle connections, too, so this counts only if
    /// connections have waited for long.
    pub(super) fn gone(&mut self, now: Instant) {
        let oldest = self.waiting.first_key_value();
        let waited = oldest.map(|(_, oldest)| now.saturating_duration_since(oldest.since));
        if waited.is_some_and(|waited| waited >= limits::INTAKE_WAIT) {
            self.gone = Some(now);
        }
    }

    /// Calls the next.
    pub(super) fn next(&mut self, now: Instant) -> Option<W> {
        if self.is_empty() || !self.callers_give_up(now) {
            return self.oldest();
        }
        self.called = self.called.wrapping_add(1);
        if self.called.is_multiple_of(limits::INTAKE_OLDEST_ONE_IN) {
            return self.oldest();
        }
        self.waiting.pop_last().map(|(_, waiting)| waiting.waker)
    }

    /// Calls the connection that has waited longest.
    pub(super) fn oldest(&mut self) -> Option<W> {
        self.waiting.pop_first().map(|(_, waiting)| waiting.waker)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Twenty that came a millisecond apart, and the time at which the first has waited for long.
    fn twenty() -> (Line<u32>, Instant) {
        let (mut line, begin) = (Line::default(), Instant::now());
        for number in 0..20 {
            let after = Duration::from_millis(number.into());
            line.join(number, begin + after);
        }
        (line, begin + limits::INTAKE_WAIT)
    }

    fn called(line: &mut Line<u32>, now: Instant, count: usize) -> Vec<u32> {
        (0..count).filter_map(|_| line.next(now)).collect()
    }

    #[test]
    fn the_oldest_is_first_as_long_as_callers_wait() {
        let (mut line, now) = twenty();
        assert_eq!(called(&mut line, now, 3), [0, 1, 2]);
    }

    #[test]
    fn the_newest_is_first_when_callers_give_up_and_one_in_eight_is_the_oldest() {
        let (mut line, now) = twenty();
        line.gone(now);
        let order = called(&mut line, now, 9);
        assert_eq!(order, [19, 18, 17, 16, 15, 14, 13, 0, 12]);
        assert_eq!(line.oldest(), Some(1));
        let forgotten = now + limits::INTAKE_PATIENCE;
        assert_eq!(called(&mut line, forgotten, 2), [2, 3]);
    }

    #[test]
    fn a_call_that_nothing_waits_for_brings_the_turn_of_the_oldest_no_nearer() {
        let (mut line, now) = twenty();
        line.gone(now);
        assert_eq!(called(&mut line, now, 20).len(), 20);
        assert_eq!(line.next(now), None);
        for number in 0..5 {
            line.join(number, now);
        }
        // Twenty were called, so the fourth from here is the oldest.
        assert_eq!(called(&mut line, now, 4), [4, 3, 2, 0]);
    }

    #[test]
    fn a_client_that_left_counts_only_if_others_have_waited_for_long() {
        let (mut line, now) = twenty();
        line.gone(now.checked_sub(Duration::from_millis(1)).unwrap());
        assert!(!line.callers_give_up(now));
        line.gone(now);
        assert!(line.callers_give_up(now));
    }

    #[test]
    fn a_connection_that_leaves_is_not_called() {
        let mut line = Line::default();
        let now = Instant::now();
        let places = [7, 8].map(|number| line.join(number, now));
        line.leave(places[0]);
        assert_eq!(line.waker(places[0]), None);
        assert_eq!(line.waker(places[1]), Some(&mut 8));
        assert_eq!(called(&mut line, now, 2), [8]);
        assert!(line.is_empty());
    }
}
