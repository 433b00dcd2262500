//! Ends what does not move: a future that runs for as long as it likes, but not without progress.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A deadline that progress moves. It costs nothing until it is first polled, which is when the guarded
/// work had to wait: most requests never make a timer.
pub(crate) struct Idle {
    timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    seen: u64,
}

/// Nothing moved for the timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stalled;

impl Idle {
    /// Begins to count at the first poll.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            sleep: None,
            seen: 0,
        }
    }

    /// Ready when `moved` has not changed for the timeout. Call it after the work returned pending.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, moved: u64) -> Poll<Stalled> {
        let timeout = self.timeout;
        let sleep = self.sleep.get_or_insert_with(|| {
            self.seen = moved;
            Box::pin(tokio::time::sleep(timeout))
        });
        while sleep.as_mut().poll(context).is_ready() {
            if moved == self.seen {
                return Poll::Ready(Stalled);
            }
            // Between one and two timeouts pass before a stall is seen; moving the timer with every byte
            // would cost more than that precision is worth.
            self.seen = moved;
            sleep.as_mut().reset(Instant::now() + timeout);
        }
        Poll::Pending
    }
}

/// Runs `work`, which is borrowed as a copy would double the memory of the caller's future, until it ends or what `moved` tells stands still for `timeout`.
pub(crate) async fn while_moving<F: Future>(
    timeout: Duration,
    moved: impl Fn() -> u64,
    mut work: Pin<&mut F>,
) -> Result<F::Output, Stalled> {
    let mut idle = Idle::new(timeout);
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
            while_moving(SECOND, || moved.load(Ordering::Relaxed), pin!(work)).await,
            Ok(7)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_stands_still_is_ended() {
        let began = Instant::now();
        assert_eq!(
            while_moving(SECOND, || 0, pin!(std::future::pending::<()>())).await,
            Err(Stalled)
        );
        assert_eq!(began.elapsed(), SECOND);
    }
}
