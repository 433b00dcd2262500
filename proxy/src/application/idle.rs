//! Idle HTTP/1.1 connections to one application, and for which caller each may be used again. Pure.
//!
//! A connection carries requests of one caller only. HTTP/1.1 matches responses to requests by order alone.
//! So if an application sends bytes behind a response, they become the response to the next request on the
//! connection. That request must not come from another caller.

use std::time::{Duration, Instant};

/// Idle connections; the one used last is at the end.
#[derive(Debug)]
pub(super) struct IdleConnections<K, C> {
    connections: Vec<Idle<K, C>>,
    /// How long one may be idle.
    life: Duration,
    /// How many are kept.
    most: usize,
}

#[derive(Debug)]
struct Idle<K, C> {
    connection: C,
    caller: K,
    since: Instant,
}

impl<K: PartialEq, C> IdleConnections<K, C> {
    /// Keeps at most `most` connections, each for at most `life`.
    pub(super) fn new(life: Duration, most: usize) -> Self {
        Self {
            connections: Vec::new(),
            life,
            most,
        }
    }

    /// Keeps a connection of this caller. If too many are kept, the least recently used one is closed.
    pub(super) fn put(&mut self, caller: K, connection: C, now: Instant) {
        if self.connections.len() >= self.most && !self.connections.is_empty() {
            self.connections.remove(0);
        }
        self.connections.push(Idle {
            connection,
            caller,
            since: now,
        });
    }

    /// The most recently used connection of this caller that `judge` finds [`Fit::Now`]; `judge` gets the
    /// connection and its idle time. Connections that are [`Fit::Never`] again are dropped.
    pub(super) fn take(
        &mut self,
        caller: &K,
        now: Instant,
        mut judge: impl FnMut(&C, Duration) -> Fit,
    ) -> Option<C> {
        for index in (0..self.connections.len()).rev() {
            let one = &self.connections[index];
            if one.caller != *caller {
                continue;
            }
            let idle = now.saturating_duration_since(one.since);
            let fit = if idle < self.life {
                judge(&one.connection, idle)
            } else {
                Fit::Never
            };
            match fit {
                Fit::Now => return Some(self.connections.remove(index).connection),
                Fit::NotNow => {}
                // The entries after this one in the vector were looked at already.
                Fit::Never => drop(self.connections.remove(index)),
            }
        }
        None
    }

    /// Removes the least recently used connection, of whichever caller.
    pub(super) fn take_oldest(&mut self) -> Option<C> {
        (!self.connections.is_empty()).then(|| self.connections.remove(0).connection)
    }

    /// Drops those that were idle for too long or are not `usable`.
    pub(super) fn sweep(&mut self, now: Instant, mut usable: impl FnMut(&C) -> bool) {
        self.connections.retain(|idle| {
            now.saturating_duration_since(idle.since) < self.life && usable(&idle.connection)
        });
    }
}

/// Whether a connection can carry a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The connection can carry a request now.
    Now,
    /// It may carry another request, or this one later.
    NotNow,
    /// The connection is over.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(1);

    fn any(_: &i32, _: Duration) -> Fit {
        Fit::Now
    }

    #[test]
    fn a_connection_is_used_again_only_for_the_caller_that_it_served() {
        let (mut idle, now) = (IdleConnections::new(LIFE, 8), Instant::now());
        idle.put("a", 1, now);
        idle.put("b", 2, now);
        idle.put("a", 3, now);
        assert_eq!(idle.take(&"c", now, any), None);
        assert_eq!(idle.take(&"b", now, any), Some(2));
        assert_eq!(idle.take(&"a", now, any), Some(3));
        assert_eq!(idle.take(&"a", now, any), Some(1));
        assert_eq!(idle.take(&"a", now, any), None);
    }

    #[test]
    fn what_is_too_old_or_not_usable_is_dropped_on_the_way() {
        let (mut idle, now) = (IdleConnections::new(LIFE, 8), Instant::now());
        idle.put("a", 1, now);
        idle.put("a", 2, now + LIFE / 2);
        idle.put("a", 3, now + LIFE / 2);
        let usable = |one: &i32, _| if *one == 3 { Fit::Never } else { Fit::Now };
        assert_eq!(idle.take(&"a", now + LIFE, usable), Some(2));
        assert_eq!(idle.take(&"a", now + LIFE, any), None);
        assert!(idle.connections.is_empty());
    }

    #[test]
    fn where_too_many_are_kept_the_one_used_least_recently_goes() {
        let (mut idle, now) = (IdleConnections::new(LIFE, 2), Instant::now());
        for (account, connection) in [("a", 1), ("a", 2), ("b", 3)] {
            idle.put(account, connection, now);
        }
        assert_eq!(idle.take(&"b", now, any), Some(3));
        assert_eq!(idle.take(&"a", now, any), Some(2));
        assert_eq!(idle.take(&"a", now, any), None);
    }

    #[test]
    fn a_sweep_leaves_what_may_be_used_again() {
        let (mut idle, now) = (IdleConnections::new(LIFE, 8), Instant::now());
        idle.put("a", 1, now);
        idle.put("a", 2, now + LIFE / 2);
        idle.put("a", 3, now + LIFE / 2);
        idle.sweep(now + LIFE, |one| *one != 2);
        assert_eq!(idle.connections.len(), 1);
        assert_eq!(idle.take(&"a", now + LIFE, any), Some(3));
    }

    #[test]
    fn one_that_does_not_serve_for_this_request_is_left_for_others() {
        let (mut idle, now) = (IdleConnections::new(LIFE, 8), Instant::now());
        idle.put("a", 1, now);
        idle.put("a", 2, now + LIFE / 2);
        let rested = |_: &i32, idle: Duration| match idle >= LIFE / 2 {
            true => Fit::Now,
            false => Fit::NotNow,
        };
        assert_eq!(idle.take(&"a", now + LIFE / 2, rested), Some(1));
        assert_eq!(idle.take(&"a", now + LIFE / 2, rested), None);
        assert_eq!(idle.take_oldest(), Some(2));
        assert_eq!(idle.take_oldest(), None);
    }
}
