//! Places that are waited for, such as those of calls. Each holder has a few of its own, so that its calls
//! wait for each other and not for those of other holders. The server bounds how long and how many wait: it
//! limits the time of a call, and the calls of a connection.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Bounds, Portions};

/// The places. Those who wait get one in turn.
#[derive(Debug)]
pub struct Turns<K> {
    all: Arc<Semaphore>,
    own: Portions<K>,
}

/// A place, held until it is dropped. It moves into the work itself: a call that is given up goes on until
/// its work has ended.
#[derive(Debug)]
pub struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl<K: Ord + Clone> Turns<K> {
    /// All free.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            all: Arc::new(Semaphore::new(bounds.places)),
            own: Portions::new(bounds.each),
        }
    }

    /// Waits for a place of `holder`, then for one of all.
    pub async fn enter(&self, holder: &K) -> Turn {
        let own = self.own.of(holder);
        // Neither semaphore is ever closed.
        Turn {
            _own: own.acquire_owned().await.ok(),
            _of_all: Arc::clone(&self.all).acquire_owned().await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn enter(turns: &Turns<&'static str>, holder: &'static str) -> Option<Turn> {
        turns.enter(&holder).now_or_never()
    }

    #[test]
    fn a_holder_at_its_share_waits_for_itself_and_another_is_served() {
        let turns = Turns::new(Bounds { places: 4, each: 2 });
        let first = enter(&turns, "a").unwrap();
        let _second = enter(&turns, "a").unwrap();
        assert!(enter(&turns, "a").is_none(), "it has its share");
        let _other = enter(&turns, "b").unwrap();
        drop(first);
        assert!(enter(&turns, "a").is_some());
    }

    #[test]
    fn all_together_have_no_more_than_there_are() {
        let turns = Turns::new(Bounds { places: 2, each: 2 });
        let _both = (enter(&turns, "a").unwrap(), enter(&turns, "b").unwrap());
        assert!(enter(&turns, "c").is_none());
    }

    #[test]
    fn one_that_stops_waiting_leaves_its_place_to_the_next() {
        let turns = Turns::new(Bounds { places: 1, each: 1 });
        let held = enter(&turns, "a").unwrap();
        // Each has a place of its own and waits for one of all.
        assert!(enter(&turns, "b").is_none());
        assert!(enter(&turns, "c").is_none());
        drop(held);
        assert!(enter(&turns, "b").is_some());
    }
}
