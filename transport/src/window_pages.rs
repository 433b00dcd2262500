//! Pages of memory that the connections of a worker share, by the identity of the peer. Pure.
//!
//! The windows of connections consist of them ([`crate::send_window`], [`crate::receive_window`]). Three
//! bounds hold, so that later connections still get some:
//!
//! - an identity holds at most its share of all pages;
//! - it leaves room for other identities ([`leaves_room`]);
//! - a connection holds at most as many as its identity could still take. The first connections of an
//!   identity get all that they ask for, later ones half of what the one before got, and so on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::identity::SpiffeId;
use crate::limits::WINDOW_PAGE;
use crate::locks::lock;
use crate::shares::leaves_room;

/// The state that all connections of a worker share. Clones share it, too.
#[derive(Clone, Debug)]
pub(crate) struct PagePool(Arc<Mutex<Pool>>);

#[derive(Debug)]
struct Pool {
    all: u32,
    /// Of one identity.
    each: u32,
    taken: u32,
    /// By identity; one that holds none is not kept.
    held: BTreeMap<SpiffeId, u32>,
}

/// The pages of one connection. Dropping it returns them.
#[derive(Debug)]
pub(crate) struct Pages {
    /// The pool, and the identity that takes from it; `None` if pages are unlimited.
    shared: Option<(PagePool, SpiffeId)>,
    count: u32,
}

impl PagePool {
    /// With this many bytes, of which one identity may hold `each`.
    pub(crate) fn new(all: u64, each: u64) -> Self {
        Self(Arc::new(Mutex::new(Pool {
            all: whole(all),
            each: whole(each),
            taken: 0,
            held: BTreeMap::new(),
        })))
    }

    /// The pages of a connection with `peer`: none yet.
    pub(crate) fn pages(&self, peer: &SpiffeId) -> Pages {
        Pages {
            shared: Some((self.clone(), peer.clone())),
            count: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        lock(&self.0)
    }
}

impl Pool {
    /// Takes up to `wanted` pages for a connection of `peer` that has `here`; returns how many it took.
    fn take(&mut self, peer: &SpiffeId, here: u32, wanted: u32) -> u32 {
        let held = self.held.get(peer).copied().unwrap_or(0);
        let mut got = 0;
        while got < wanted
            && self.each.saturating_sub(held + got) > here + got
            && leaves_room(self.all, self.taken + got, held + got)
        {
            got += 1;
        }
        self.taken += got;
        if got > 0 {
            self.held.insert(peer.clone(), held + got);
        }
        got
    }

    fn give_back(&mut self, peer: &SpiffeId, pages: u32) {
        self.taken = self.taken.saturating_sub(pages);
        if let Some(held) = self.held.get_mut(peer) {
            *held = held.saturating_sub(pages);
            if *held == 0 {
                self.held.remove(peer);
            }
        }
    }
}

impl Pages {
    /// Of a connection that shares with no other: it gets all that it asks for.
    pub(crate) fn unshared() -> Self {
        Self {
            shared: None,
            count: 0,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        WINDOW_PAGE * u64::from(self.count)
    }

    /// Takes pages until they hold `bytes`, as far as there are any. Returns whether it got some.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> bool {
        let more = whole(bytes).saturating_sub(self.count);
        if more == 0 {
            return false;
        }
        let got = match &self.shared {
            Some((pool, peer)) => pool.lock().take(peer, self.count, more),
            None => more,
        };
        self.count += got;
        got > 0
    }

    /// Whether others could use its pages.
    pub(crate) fn keeps_from_others(&self) -> bool {
        self.shared.is_some() && self.count > 0
    }

    /// Returns all pages to the pool.
    pub(crate) fn give_back(&mut self) {
        if let Some((pool, peer)) = &self.shared {
            let pages = std::mem::take(&mut self.count);
            pool.lock().give_back(peer, pages);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn whole(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(WINDOW_PAGE)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FRONTEND, ORDERS};

    /// A pool of so many pages, and two identities.
    fn pool(all: u64, each: u64) -> (PagePool, [SpiffeId; 2]) {
        (
            PagePool::new(all * WINDOW_PAGE, each * WINDOW_PAGE),
            [ORDERS, FRONTEND].map(|id| id.parse().unwrap()),
        )
    }

    fn taken(pool: &PagePool, peer: &SpiffeId, pages: u64) -> Pages {
        let mut taken = pool.pages(peer);
        taken.grow_to(pages * WINDOW_PAGE);
        taken
    }

    fn count(pages: &[Pages]) -> Vec<u32> {
        pages.iter().map(|pages| pages.count).collect()
    }

    #[test]
    fn the_first_connections_get_what_they_ask_for_and_later_ones_half_of_what_is_left() {
        let (pool, [orders, _]) = pool(10_000, 128);
        let pages: Vec<_> = (0..10).map(|_| taken(&pool, &orders, 32)).collect();
        assert_eq!(count(&pages), [32, 32, 32, 16, 8, 4, 2, 1, 1, 0]);
    }

    #[test]
    fn an_identity_leaves_room_for_another() {
        let (pool, [orders, frontend]) = pool(170, 1000);
        let greedy: Vec<_> = (0..1000).map(|_| taken(&pool, &orders, 100)).collect();
        let held: u32 = count(&greedy).iter().sum();
        assert!((155..170).contains(&held), "{held}");
        assert_eq!(taken(&pool, &frontend, 4).count, 4);
    }

    #[test]
    fn what_a_connection_held_goes_back_with_it() {
        let (pool, [orders, frontend]) = pool(170, 100);
        for _ in 0..100 {
            assert_eq!(taken(&pool, &orders, 50).count, 50);
            let mut pages = taken(&pool, &frontend, 50);
            assert!(pages.keeps_from_others());
            pages.give_back();
            assert_eq!(pages.bytes(), 0);
        }
        let pool = pool.lock();
        assert_eq!((pool.taken, pool.held.len()), (0, 0));
    }

    #[test]
    fn a_connection_that_shares_with_no_other_gets_all() {
        let mut pages = Pages::unshared();
        assert!(pages.grow_to(1 << 40));
        assert_eq!(pages.bytes(), 1 << 40);
        assert!(!pages.keeps_from_others());
        pages.give_back();
        assert_eq!(pages.bytes(), 1 << 40);
    }
}
