//! How many connections there may be to one application, and how requests wait for one, or for a stream of
//! one: for a bounded time, and in bounded number.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use weft_transport::locks::lock;
use weft_transport::shares::leaves_room;

use crate::limits;

/// Places for connections. No holder may take all of them: see [`leaves_room`].
pub(super) struct Places<K> {
    most: u32,
    taken: Mutex<Taken<K>>,
    /// The requests that wait for a connection, or for a stream.
    pub(super) queue: Queue,
}

struct Taken<K> {
    all: u32,
    /// Of each holder that has any.
    each: Vec<(K, u32)>,
}

/// A place, held until it is dropped.
pub(super) struct Place<K: PartialEq> {
    places: Arc<Places<K>>,
    holder: K,
}

impl<K: PartialEq + Clone> Places<K> {
    /// This many places, all free.
    pub(super) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::new(Taken {
                all: 0,
                each: Vec::new(),
            }),
            queue: Queue::default(),
        })
    }

    /// A place for `holder`, if enough places are left to others.
    pub(super) fn take(self: &Arc<Self>, holder: &K) -> Option<Place<K>> {
        let mut taken = lock(&self.taken);
        let known = taken.each.iter().position(|(one, _)| one == holder);
        let held = known.map_or(0, |index| taken.each[index].1);
        if !leaves_room(self.most, taken.all, held) {
            return None;
        }
        taken.all += 1;
        match known {
            Some(index) => taken.each[index].1 += 1,
            None => taken.each.push((holder.clone(), 1)),
        }
        Some(Place {
            places: Arc::clone(self),
            holder: holder.clone(),
        })
    }
}

impl<K: PartialEq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        taken.all -= 1;
        if let Some(index) = taken.each.iter().position(|(one, _)| *one == self.holder) {
            taken.each[index].1 -= 1;
            if taken.each[index].1 == 0 {
                taken.each.swap_remove(index);
            }
        }
        drop(taken);
        self.places.queue.free();
    }
}

/// The requests that wait.
#[derive(Default)]
pub(super) struct Queue {
    freed: Notify,
    waiting: AtomicUsize,
}

impl Queue {
    /// A place is free: all who wait look again.
    pub(super) fn free(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// To be created before a look: a place that is freed after that wakes it.
    pub(super) fn ticket(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Begins to wait, unless too many wait already.
    pub(super) fn join(&self) -> Option<Waiting<'_>> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let joined = Waiting {
            queue: self,
            until: Instant::now() + limits::APPLICATION_WAIT,
        };
        // The guard counts the request out when it is dropped.
        (waiting < limits::APPLICATION_WAITERS_MAX).then_some(joined)
    }
}

/// One request that waits.
pub(super) struct Waiting<'a> {
    queue: &'a Queue,
    until: Instant,
}

impl Waiting<'_> {
    /// Ready with true when it is time to look again, with false when it has waited for too long.
    pub(super) async fn turn(&self, ticket: Notified<'_>) -> bool {
        let now = Instant::now();
        if now >= self.until {
            return false;
        }
        let until = self.until.min(now + limits::APPLICATION_WAIT_STEP);
        // Elapsed means to look again, too.
        let _ = tokio::time::timeout_at(until, ticket).await;
        true
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_place_that_is_left_is_free_again_and_one_holder_leaves_some_to_others() {
        let places = Places::new(34);
        let held: Vec<_> = std::iter::from_fn(|| places.take(&"a")).collect();
        assert_eq!(held.len(), 33);
        let other = places.take(&"b");
        assert!(other.is_some() && places.take(&"c").is_none());
        drop(held);
        assert_eq!(lock(&places.taken).all, 1);
        assert!(places.take(&"a").is_some());
        drop(other);
        assert!(lock(&places.taken).each.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_looks_again_when_a_place_is_free_and_gives_up_in_the_end() {
        let places = Places::new(1);
        let place = places.take(&"a");
        let waiting = places.queue.join().unwrap();
        let began = Instant::now();
        let ticket = places.queue.ticket();
        drop(place);
        assert!(waiting.turn(ticket).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        while waiting.turn(places.queue.ticket()).await {}
        assert_eq!(began.elapsed(), limits::APPLICATION_WAIT);
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let queue = Queue::default();
        let most = limits::APPLICATION_WAITERS_MAX;
        let mut waiting: Vec<_> = (0..most).map(|_| queue.join()).collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(queue.join().is_none());
        waiting.pop();
        assert!(queue.join().is_some());
    }
}
