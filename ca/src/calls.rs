//! Places of signing calls: each holder has its own few, so that the calls of one wait for each other and not those
//! of others for them. A call that waits is bounded by its deadline, and by the calls that a connection may open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use weft_transport::shares::Bounds;

use crate::connection::Holder;

/// The places; calls wait for one in their order.
#[derive(Debug)]
pub(crate) struct Calls {
    all: Arc<Semaphore>,
    each: usize,
    /// The places of holders that have a call, or wait for one.
    holders: Mutex<BTreeMap<Holder, Arc<Semaphore>>>,
}

/// A place. It goes to the work itself: a call that is given up goes on until its work has ended.
#[derive(Debug)]
pub(crate) struct Call {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Calls {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            all: Arc::new(Semaphore::new(bounds.places)),
            each: bounds.each,
            holders: Mutex::default(),
        }
    }

    /// Waits for a place of `holder`, then for one of all.
    pub(crate) async fn enter(&self, holder: Holder) -> Result<Call, AcquireError> {
        Ok(Call {
            _own: self.places_of(holder).acquire_owned().await?,
            _of_all: self.all.clone().acquire_owned().await?,
        })
    }

    fn places_of(&self, holder: Holder) -> Arc<Semaphore> {
        // Every change of the map is complete in itself.
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        // Permits and waiting calls hold their semaphore; there are no more of them than of connections' calls.
        holders.retain(|_, places| Arc::strong_count(places) > 1);
        holders
            .entry(holder)
            .or_insert_with(|| Arc::new(Semaphore::new(self.each)))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt as _;

    use super::*;

    fn holder(last: u8) -> Holder {
        Holder::Source(IpAddr::from([192, 0, 2, last]).into())
    }

    #[test]
    fn one_holder_waits_for_its_own_calls_while_another_is_served() {
        let calls = Calls::new(Bounds { places: 4, each: 2 });
        let enter = |who| calls.enter(holder(who)).now_or_never();
        let first = enter(1).unwrap().unwrap();
        let _second = enter(1).unwrap().unwrap();
        assert!(enter(1).is_none(), "it has its share");
        let _other = enter(2).unwrap().unwrap();
        drop(first);
        assert!(enter(1).is_some());
    }

    #[test]
    fn all_together_have_no_more_than_there_are() {
        let calls = Calls::new(Bounds { places: 2, each: 2 });
        let enter = |who| calls.enter(holder(who)).now_or_never();
        let _calls = (enter(1).unwrap(), enter(2).unwrap());
        assert!(enter(3).is_none());
    }

    #[test]
    fn nothing_is_kept_of_holders_without_calls() {
        let calls = Calls::new(Bounds { places: 2, each: 1 });
        for who in 0..100 {
            drop(calls.enter(holder(who)).now_or_never().unwrap().unwrap());
        }
        assert_eq!(calls.holders.lock().unwrap().len(), 1);
    }
}
