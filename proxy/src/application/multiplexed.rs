//! Connections of HTTP/2 to one application, some for each caller that has requests. Pure.

use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Shared};

/// The making of a connection, which all requests that need it wait for.
pub(super) type Opening<E> = Shared<BoxFuture<'static, Result<(), E>>>;

/// The connections, by caller. A connection that is removed goes on until its streams have ended.
pub(super) struct MultiplexedConnections<K, C, E: Clone> {
    all: Vec<OfCaller<K, C, E>>,
    bounds: KeptBounds,
}

/// The bounds on the connections that are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptBounds {
    /// How long a connection may stay unused.
    pub(super) life: Duration,
    /// Of how many callers.
    pub(super) callers: usize,
    /// How many connections of each.
    pub(super) each: usize,
}

struct OfCaller<K, C, E: Clone> {
    caller: K,
    connections: Vec<Used<C>>,
    opening: Option<Opening<E>>,
    since: Instant,
}

struct Used<C> {
    connection: C,
    since: Instant,
}

/// What a request that needs a stream does next.
pub(super) enum Next<S, E: Clone> {
    /// The request takes this stream.
    Stream(S),
    /// Wait for a connection that is being made, and look again. `others`: the caller has other connections.
    Opening { opening: Opening<E>, others: bool },
    /// Waits until a stream ends, and looks again.
    Full,
}

impl<K: PartialEq + Clone, C, E: Clone> MultiplexedConnections<K, C, E> {
    pub(super) fn new(bounds: KeptBounds) -> Self {
        Self {
            all: Vec::new(),
            bounds,
        }
    }

    /// What a request of `caller` does next. `stream` opens a stream on a connection that has room;
    /// connections that are not `usable` are skipped. If none has room, one more is made. The search begins
    /// with the first connection, so that the later ones become idle and end.
    pub(super) fn next<S>(
        &mut self,
        caller: &K,
        now: Instant,
        mut usable: impl FnMut(&mut C) -> bool,
        stream: impl Fn(&C) -> Option<S>,
        make: impl FnOnce() -> Opening<E>,
    ) -> Next<S, E> {
        let each = self.bounds.each;
        let one = self.of_caller(caller, now);
        one.since = now;
        one.connections
            .retain_mut(|used| usable(&mut used.connection));
        for used in &mut one.connections {
            if let Some(stream) = stream(&used.connection) {
                used.since = now;
                return Next::Stream(stream);
            }
        }
        // A connection attempt that failed is not waited for twice.
        one.opening.take_if(|opening| opening.peek().is_some());
        if one.opening.is_none() && one.connections.len() >= each {
            return Next::Full;
        }
        Next::Opening {
            opening: one.opening.get_or_insert_with(make).clone(),
            others: !one.connections.is_empty(),
        }
    }

    /// A connection was made.
    pub(super) fn opened(&mut self, caller: &K, connection: C, now: Instant) {
        let one = self.of_caller(caller, now);
        one.opening = None;
        one.connections.push(Used {
            connection,
            since: now,
        });
    }

    /// The entry of a caller. If there are too many, the least recently used one is removed.
    fn of_caller(&mut self, caller: &K, now: Instant) -> &mut OfCaller<K, C, E> {
        let known = self.all.iter().position(|one| one.caller == *caller);
        let index = known.unwrap_or_else(|| {
            let oldest = self.all.iter().enumerate().min_by_key(|(_, one)| one.since);
            if let Some((oldest, _)) = oldest
                && self.all.len() >= self.bounds.callers
            {
                self.all.swap_remove(oldest);
            }
            self.all.push(OfCaller {
                caller: caller.clone(),
                connections: Vec::new(),
                opening: None,
                since: now,
            });
            self.all.len() - 1
        });
        &mut self.all[index]
    }

    /// Removes connections that were not used for too long.
    pub(super) fn sweep(&mut self, now: Instant) {
        let life = self.bounds.life;
        for one in &mut self.all {
            one.connections
                .retain(|used| now.saturating_duration_since(used.since) < life);
        }
        self.all
            .retain(|one| now.saturating_duration_since(one.since) < life);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt as _;

    use super::*;

    const LIFE: Duration = Duration::from_secs(1);

    type Connections = MultiplexedConnections<&'static str, Connection, ()>;

    /// Of this name, with room for this many streams; a negative number makes it unusable.
    struct Connection(u32, Cell<i32>);

    fn connections(callers: usize) -> Connections {
        Connections::new(KeptBounds {
            life: LIFE,
            callers,
            each: 2,
        })
    }

    /// What a caller gets, if a new connection (`fresh`) would have room for one stream.
    fn next(all: &mut Connections, caller: &'static str, now: Instant, fresh: u32) -> Option<u32> {
        let make = || std::future::ready(Ok(())).boxed().shared();
        let take = |one: &Connection| {
            let room = one.1.get();
            one.1.set(room - i32::from(room > 0));
            (room > 0).then_some(one.0)
        };
        let usable = |one: &mut Connection| one.1.get() >= 0;
        match all.next(&caller, now, usable, take, make) {
            Next::Stream(name) => Some(name),
            Next::Full => None,
            Next::Opening { opening, .. } => {
                opening.now_or_never();
                all.opened(&caller, Connection(fresh, Cell::new(1)), now);
                next(all, caller, now, fresh + 1)
            }
        }
    }

    #[test]
    fn each_caller_has_its_own_and_a_full_one_is_followed_by_another_up_to_a_bound() {
        let (mut all, now) = (connections(8), Instant::now());
        assert_eq!(next(&mut all, "a", now, 1), Some(1));
        assert_eq!(next(&mut all, "b", now, 10), Some(10));
        assert_eq!(next(&mut all, "a", now, 2), Some(2));
        assert_eq!(next(&mut all, "a", now, 3), None);
        // A stream of the first ended.
        all.all[0].connections[0].connection.1.set(1);
        assert_eq!(next(&mut all, "a", now, 3), Some(1));
        // The first goes away.
        all.all[0].connections[0].connection.1.set(-1);
        assert_eq!(next(&mut all, "a", now, 4), Some(4));
    }

    #[test]
    fn requests_that_come_meanwhile_wait_for_the_same_connection() {
        let (mut all, now) = (connections(8), Instant::now());
        let made = Cell::new(0);
        let mut ask = || {
            let make = || {
                made.set(made.get() + 1);
                std::future::pending().boxed().shared()
            };
            let none = |_: &Connection| None::<u32>;
            matches!(
                all.next(&"a", now, |_| true, none, make),
                Next::Opening { others: false, .. }
            )
        };
        assert!(ask() && ask());
        assert_eq!(made.get(), 1);
    }

    #[test]
    fn what_was_not_used_for_long_or_is_one_too_many_is_left_out() {
        let (mut all, now) = (connections(2), Instant::now());
        next(&mut all, "a", now, 1);
        next(&mut all, "b", now + LIFE / 2, 2);
        next(&mut all, "c", now + LIFE / 2, 3);
        assert_eq!(next(&mut all, "a", now + LIFE / 2, 4), Some(4));
        all.sweep(now + 2 * LIFE);
        assert!(all.all.is_empty());
    }
}
