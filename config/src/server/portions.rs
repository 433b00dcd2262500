//! A portion of something for each holder, of equal size: what one holder takes is never another's. Holders
//! that take nothing are not kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// The portions of all holders.
#[derive(Debug)]
pub(super) struct Portions<K> {
    size: usize,
    holders: Mutex<BTreeMap<K, Weak<Semaphore>>>,
}

impl<K: Ord + Clone> Portions<K> {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            holders: Mutex::default(),
        }
    }

    /// The portion of a holder, for as long as somebody has it in hand.
    pub(super) fn of(&self, holder: &K) -> Arc<Semaphore> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(portion) = holders.get(holder).and_then(Weak::upgrade) {
            return portion;
        }
        holders.retain(|_, portion| portion.strong_count() > 0);
        let portion = Arc::new(Semaphore::new(self.size));
        holders.insert(holder.clone(), Arc::downgrade(&portion));
        portion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_one_portion_and_is_forgotten_with_it() {
        let portions = Portions::new(3);
        let (one, again) = (portions.of(&"a"), portions.of(&"a"));
        assert!(Arc::ptr_eq(&one, &again) && one.available_permits() == 3);
        drop((one, again));
        for holder in ["b", "c", "d"] {
            portions.of(&holder);
        }
        assert_eq!(portions.holders.lock().unwrap().len(), 1);
    }
}
