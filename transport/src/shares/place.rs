//! Places that tasks hold. Dropping a place leaves it, and its holder learns when it was taken back.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{Bounds, Shares, Ticket};
use crate::locks::lock;

/// Places that tasks share; clones share them, too.
#[derive(Clone, Debug)]
pub struct Places<K>(Arc<Mutex<Shares<K, CancellationToken>>>);

/// One place. Its holder must stop when [`Place::taken_back`] says so.
#[derive(Debug)]
pub struct Place<K: Ord + Clone> {
    places: Places<K>,
    holder: K,
    ticket: Ticket,
    taken_back: CancellationToken,
}

impl<K: Ord + Clone> Places<K> {
    /// All free.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Mutex::new(Shares::new(bounds))))
    }

    /// A place for `holder`. If the holder's share is used up, it loses its oldest place; if all places are
    /// taken, the holder with most does. The bound is exceeded only until the holder that lost a place has
    /// stopped.
    #[must_use]
    pub fn enter(&self, holder: K) -> Place<K> {
        let taken_back = CancellationToken::new();
        let (ticket, lost) = self.lock().enter(holder.clone(), taken_back.clone());
        if let Some(lost) = lost {
            lost.cancel();
        }
        Place {
            places: self.clone(),
            holder,
            ticket,
            taken_back,
        }
    }

    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.lock().taken
    }

    fn lock(&self) -> MutexGuard<'_, Shares<K, CancellationToken>> {
        lock(&self.0)
    }
}

impl<K: Ord + Clone> Place<K> {
    /// Ready once this place was given to another.
    pub fn taken_back(&self) -> WaitForCancellationFuture<'_> {
        self.taken_back.cancelled()
    }

    /// Whether it was.
    #[must_use]
    pub fn is_taken_back(&self) -> bool {
        self.taken_back.is_cancelled()
    }
}

impl<K: Ord + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        self.places.lock().leave(&self.holder, self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_holder_that_loses_a_place_learns_it_and_leaves_nothing_behind() {
        let places = Places::new(Bounds { places: 2, each: 2 });
        let (first, second) = (places.enter("a"), places.enter("a"));
        assert!(first.taken_back().now_or_never().is_none());
        let third = places.enter("b");
        assert!(first.is_taken_back() && first.taken_back().now_or_never().is_some());
        assert!(!second.is_taken_back() && !third.is_taken_back());
        drop(first);
        assert_eq!(places.taken(), 2);
        drop((second, third));
        assert_eq!(places.taken(), 0);
    }
}
