//! Waits that Ctrl-C may end between any two steps of a run.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use weft_transport::locks::lock;

/// A flag that is raised once and wakes all waiting threads. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

/// The run was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl Stop {
    /// Asks the run to end.
    pub fn raise(&self) {
        *self.flag() = true;
        self.0.1.notify_all();
    }

    /// Waits for `time`, or until the flag is raised.
    ///
    /// # Errors
    /// When the flag is raised.
    pub fn sleep(&self, time: Duration) -> Result<(), Stopped> {
        self.sleep_until(Instant::now() + time)
    }

    /// Waits until `time`, or until the flag is raised.
    ///
    /// # Errors
    /// When the flag is raised.
    pub fn sleep_until(&self, time: Instant) -> Result<(), Stopped> {
        let mut raised = self.flag();
        loop {
            if *raised {
                return Err(Stopped);
            }
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            raised = match self.0.1.wait_timeout(raised, left) {
                Ok((raised, _)) => raised,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn flag(&self) -> MutexGuard<'_, bool> {
        lock(&self.0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_flag_ends_a_wait_that_would_last() {
        let stop = Stop::default();
        assert_eq!(stop.sleep(Duration::ZERO), Ok(()));
        stop.raise();
        assert_eq!(stop.sleep(Duration::from_hours(1)), Err(Stopped));
    }
}
