//! The run's time line: all threads measure from one origin.
//!
//! Only this file of the engine reads a clock; pure code takes times as arguments.

use std::time::{Duration, Instant};

/// Reads the time since the run's origin. Copies read the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A time line that begins after `lead`. Until then it stands at 0.
    pub(crate) fn beginning_in(lead: Duration) -> Self {
        Self {
            origin: Instant::now() + lead,
        }
    }

    /// How long the run has been going.
    pub(crate) fn now(self) -> Duration {
        // Saturates before the origin.
        self.origin.elapsed()
    }

    /// The place of `at` on the runtime's own time line.
    pub(crate) fn instant(self, at: Duration) -> tokio::time::Instant {
        (self.origin + at).into()
    }

    /// How long it is until the origin.
    pub(crate) fn lead(self) -> Duration {
        self.origin.saturating_duration_since(Instant::now())
    }
}
