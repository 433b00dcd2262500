//! Requests that wait until the peer allows one more stream, in the order in which they came.
//!
//! quinn wakes all who wait for credit whenever there is some; here one at a time asks for it, so that a
//! queue costs nothing while it stands. How long to wait is the callers' decision: [`Turns::crowded_for`].

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turn: tokio::sync::Mutex<()>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    /// Since when there has always been somebody.
    since: Option<Instant>,
}

impl Turns {
    /// Opens a stream when it is this one's turn and there is credit. Cancel-safe if what `open` makes is.
    pub(super) async fn take<F: Future>(&self, open: impl Fn() -> F) -> F::Output {
        // Usually there is credit, and nobody who waits for it.
        if let Ok(_turn) = self.turn.try_lock()
            && let Some(opened) = open().now_or_never()
        {
            return opened;
        }
        // Rare, and not worth room in every request.
        Box::pin(async {
            let _waits = Waits::new(self, Instant::now());
            let _turn = self.turn.lock().await;
            open().await
        })
        .await
    }

    /// How long somebody has been waiting without a break; zero if nobody does.
    pub(super) fn crowded_for(&self, now: Instant) -> Duration {
        let since = self.waiting().since;
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits, counted.
struct Waits<'a>(&'a Turns);

impl<'a> Waits<'a> {
    fn new(turns: &'a Turns, now: Instant) -> Self {
        let mut waiting = turns.waiting();
        waiting.count += 1;
        waiting.since.get_or_insert(now);
        Self(turns)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.count -= 1;
        if waiting.count == 0 {
            waiting.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn who_has_a_stream_at_once_was_never_in_the_queue() {
        let turns = Turns::default();
        assert_eq!(turns.take(|| ready(7)).now_or_never(), Some(7));
        assert_eq!(turns.crowded_for(Instant::now()), Duration::ZERO);
    }

    #[test]
    fn nobody_overtakes_and_who_gives_up_leaves_the_queue() {
        let turns = Turns::default();
        let now = Instant::now();
        let mut first = Box::pin(turns.take(pending::<()>));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(turns.take(|| ready(())));
        assert!(second.as_mut().now_or_never().is_none());
        let later = now + Duration::from_secs(2);
        assert!(turns.crowded_for(later) > Duration::from_secs(1));
        drop(first);
        // Somebody waits still.
        assert!(turns.crowded_for(later) > Duration::from_secs(1));
        assert_eq!(second.now_or_never(), Some(()));
        assert_eq!(turns.crowded_for(later), Duration::ZERO);
    }
}
