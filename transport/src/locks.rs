//! Locks of state that stays usable when a holder panics. Not here: which code may hold which lock, and in
//! which order.
//!
//! A panic ends one stream or task, and the process goes on unless it needs that task ([`crate::vital`]).
//! Locks in weft guard counts, queues and maps, and every change of them is complete in itself: at worst one
//! number is off. So this file takes a lock whether or not a holder panicked. No other file does that.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Takes it.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes it for reading, beside other readers.
pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Takes it for writing.
pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panicking_holder_left_is_still_there_for_others() {
        let count = Mutex::new(1);
        let ended = std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                *lock(&count) += 1;
                let _held = lock(&count);
                panic!("on purpose");
            });
            holder.join()
        });
        assert!(ended.is_err() && count.is_poisoned());
        assert_eq!(*lock(&count), 2);
    }
}
