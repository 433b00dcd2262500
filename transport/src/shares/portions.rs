//! A portion of equal size for each holder: what one holder takes is never another's. Holders that take
//! nothing are not kept. `turns.rs` also bounds what all holders take together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Semaphore;

use crate::locks::lock;

/// The portions of all holders.
#[derive(Debug)]
pub struct Portions<K> {
    size: usize,
    holders: Mutex<BTreeMap<K, Weak<Semaphore>>>,
}

impl<K: Ord + Clone> Portions<K> {
    /// Portions of `size` each.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            size,
            holders: Mutex::default(),
        }
    }

    /// The portion of a holder. It is kept as long as it is in use: by this, or by a permit of it.
    #[must_use]
    pub fn of(&self, holder: &K) -> Arc<Semaphore> {
        let mut holders = lock(&self.holders);
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
            drop(portions.of(&holder));
        }
        assert_eq!(portions.holders.lock().unwrap().len(), 1);
    }
}
