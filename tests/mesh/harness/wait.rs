//! Waiting for conditions instead of for time: every wait polls its condition and has a deadline.

use std::time::{Duration, Instant};

/// The pause between two polls.
const POLL: Duration = Duration::from_millis(20);

/// Polls `look` until it returns a value. Panics with `what` when `patience` is over.
pub(crate) fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        pause(POLL);
    }
}

/// [`wait_until`] for a condition, with a patience that suits most cases: machines are slow at times.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    wait_until(what, Duration::from_secs(20), || holds().then_some(()));
}

/// Lets time pass in tests about time itself (a slow client, a load's rate).
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a test sleeps"
)]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
