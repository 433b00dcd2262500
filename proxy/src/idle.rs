//! Ends work that makes no progress, or whose result is no longer wanted: a future may run for as long as it
//! likes while it makes progress and its deadline has not passed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A time limit that progress renews, and a deadline that it does not. Both share one timer. The timer is
/// made when the work is first polled and has to wait, which most requests never do.
pub(crate) struct Idle {
    timeout: Duration,
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    seen: u64,
}

/// Why the work was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// Nothing moved for the timeout.
    Stalled,
    /// The deadline has passed.
    Deadline,
}

impl Idle {
    /// Counting begins at the first poll.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            deadline: None,
            sleep: None,
            seen: 0,
        }
    }

    /// The same, and over at the deadline even if there is progress.
    pub(crate) fn until(self, deadline: Option<std::time::Instant>) -> Self {
        Self {
            deadline: deadline.map(Instant::from_std),
            ..self
        }
    }

    /// Ready when `moved` has not changed for the timeout, or at the deadline. Call it after the work
    /// returned pending.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, moved: u64) -> Poll<Expired> {
        let (timeout, deadline) = (self.timeout, self.deadline);
        let earlier = |stall: Instant| deadline.map_or(stall, |deadline| deadline.min(stall));
        let sleep = self.sleep.get_or_insert_with(|| {
            self.seen = moved;
            Box::pin(tokio::time::sleep_until(earlier(Instant::now() + timeout)))
        });
        while sleep.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Expired::Deadline);
            }
            if moved == self.seen {
                return Poll::Ready(Expired::Stalled);
            }
            // A stall is noticed after one to two timeouts; moving the timer with every byte would cost more
            // than that precision is worth.
            self.seen = moved;
            sleep.as_mut().reset(earlier(now + timeout));
        }
        Poll::Pending
    }
}

/// Runs `work` until it ends or `idle` does; `moved` reports progress to `idle`. `work` is borrowed, because
/// a copy would double the size of the caller's future.
pub(crate) async fn while_moving<F: Future>(
    mut idle: Idle,
    moved: impl Fn() -> u64,
    mut work: Pin<&mut F>,
) -> Result<F::Output, Expired> {
    std::future::poll_fn(move |context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => idle.poll(context, moved()).map(Err),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn work_that_moves_outlives_the_timeout() {
        let moved = AtomicU64::new(0);
        let work = async {
            for _ in 0..10 {
                tokio::time::sleep(SECOND / 2).await;
                moved.fetch_add(1, Ordering::Relaxed);
            }
            7
        };
        assert_eq!(
            while_moving(
                Idle::new(SECOND),
                || moved.load(Ordering::Relaxed),
                pin!(work)
            )
            .await,
            Ok(7)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_stands_still_is_ended() {
        let began = Instant::now();
        assert_eq!(
            while_moving(Idle::new(SECOND), || 0, pin!(std::future::pending::<()>())).await,
            Err(Expired::Stalled)
        );
        assert_eq!(began.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_work_that_moves() {
        let (began, moved) = (Instant::now(), AtomicU64::new(0));
        let work = async {
            loop {
                tokio::time::sleep(SECOND / 2).await;
                moved.fetch_add(1, Ordering::Relaxed);
            }
        };
        let deadline = (began + SECOND * 3).into_std();
        let idle = Idle::new(SECOND).until(Some(deadline));
        let moved = || moved.load(Ordering::Relaxed);
        let outcome: Result<(), _> = while_moving(idle, moved, pin!(work)).await;
        assert_eq!(outcome, Err(Expired::Deadline));
        assert_eq!(began.elapsed(), SECOND * 3);
    }
}
