//! Connections of HTTP/2 to one application, one for each caller. Pure.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

/// A connection, or its making, which all requests that need it wait for.
pub(super) type Multiplexed<C, E> = Shared<BoxFuture<'static, Result<C, E>>>;

/// The connections, by caller. One that is left out goes on until its streams are over.
pub(super) struct MultiplexedConnections<K, C: Clone, E: Clone> {
    all: Vec<Used<K, C, E>>,
    /// How long one may be unused.
    life: Duration,
    /// How many are kept.
    most: usize,
}

struct Used<K, C: Clone, E: Clone> {
    caller: K,
    connection: Multiplexed<C, E>,
    since: Instant,
}

impl<K: PartialEq + Clone, C: Clone, E: Clone> MultiplexedConnections<K, C, E> {
    /// Keeps at most `most` connections, each for `life` after its last use.
    pub(super) fn new(life: Duration, most: usize) -> Self {
        Self {
            all: Vec::new(),
            life,
            most,
        }
    }

    /// The connection of `caller`: the one that it has, if that is being made or `usable`, or a new one. Where too
    /// many are kept, the one that was used least recently is left out.
    pub(super) fn get(
        &mut self,
        caller: &K,
        now: Instant,
        usable: impl Fn(&C) -> bool,
        make: impl FnOnce() -> BoxFuture<'static, Result<C, E>>,
    ) -> Multiplexed<C, E> {
        let is_good = |connection: &Multiplexed<C, E>| match connection.peek() {
            Some(Ok(made)) => usable(made),
            Some(Err(_)) => false,
            None => true,
        };
        if let Some(index) = self.all.iter().position(|one| one.caller == *caller) {
            if is_good(&self.all[index].connection) {
                self.all[index].since = now;
                return self.all[index].connection.clone();
            }
            self.all.swap_remove(index);
        }
        if self.all.len() >= self.most
            && let Some((oldest, _)) = self.all.iter().enumerate().min_by_key(|(_, one)| one.since)
        {
            self.all.swap_remove(oldest);
        }
        let connection = make().shared();
        self.all.push(Used {
            caller: caller.clone(),
            connection: connection.clone(),
            since: now,
        });
        connection
    }

    /// Leaves out those that were not used for too long.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.all
            .retain(|one| now.duration_since(one.since) < self.life);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(1);

    type Connections = MultiplexedConnections<&'static str, u32, ()>;

    /// What a caller gets, if a new connection would be `fresh`.
    fn get(all: &mut Connections, caller: &'static str, now: Instant, fresh: u32) -> u32 {
        let make = || std::future::ready(Ok(fresh)).boxed();
        let connection = all.get(&caller, now, |made| *made != 0, make);
        connection.now_or_never().unwrap().unwrap()
    }

    #[test]
    fn each_caller_has_its_own_and_keeps_it_while_it_is_usable() {
        let (mut all, now) = (Connections::new(LIFE, 8), Instant::now());
        assert_eq!(get(&mut all, "a", now, 1), 1);
        assert_eq!(get(&mut all, "b", now, 2), 2);
        assert_eq!(get(&mut all, "a", now, 3), 1);
        assert_eq!(get(&mut all, "c", now, 0), 0);
        assert_eq!(get(&mut all, "c", now, 4), 4);
    }

    #[test]
    fn what_was_not_used_for_long_or_is_one_too_many_is_left_out() {
        let (mut all, now) = (Connections::new(LIFE, 2), Instant::now());
        get(&mut all, "a", now, 1);
        get(&mut all, "b", now + LIFE / 2, 2);
        get(&mut all, "c", now + LIFE / 2, 3);
        assert_eq!(get(&mut all, "a", now + LIFE / 2, 4), 4);
        all.sweep(now + 2 * LIFE);
        assert!(all.all.is_empty());
    }
}
