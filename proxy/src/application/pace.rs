//! How quickly the body of a request comes. A caller that declares a body and sends it too slowly holds a
//! place of the service for nothing. Pure but for the timer of [`Pacer`].
//!
//! Only the time counts in which the application's connection waited for the caller: an application that
//! reads slowly must not make its caller look slow. A body of undeclared length is a stream, which may pause.
//! A body may also pause once the application has begun to answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use weft_transport::locks::lock;

use crate::limits::{BODY_BYTES_PER_SECOND_LEAST, BODY_PATIENCE};

/// The progress of one request's body.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    /// The time waited for the caller, not counting the present wait.
    waited: Duration,
    since: Option<Instant>,
}

impl Pace {
    /// The next piece was asked for and has not come.
    pub(super) fn waits(&self, now: Instant) {
        lock(&self.0).since.get_or_insert(now);
    }

    /// A piece came, or the end.
    pub(super) fn comes(&self, now: Instant) {
        let mut waits = lock(&self.0);
        if let Some(since) = waits.since.take() {
            waits.waited += now.duration_since(since);
        }
    }

    /// Whether a piece is being waited for.
    pub(crate) fn is_waiting(&self) -> bool {
        lock(&self.0).since.is_some()
    }

    /// The time left until these bytes must have come, if no more progress is made; none for a caller that is
    /// too slow.
    fn left(&self, bytes: u64, now: Instant) -> Duration {
        let waits = lock(&self.0);
        let waiting = waits.since.map(|since| now.duration_since(since));
        let waited = waits.waited + waiting.unwrap_or_default();
        let allowed = BODY_PATIENCE + Duration::from_secs(bytes / BODY_BYTES_PER_SECOND_LEAST);
        allowed.saturating_sub(waited)
    }
}

/// The timer of one body: it is checked when the time granted to it is over.
#[derive(Debug, Default)]
pub(crate) struct Pacer(Option<Pin<Box<Sleep>>>);

impl Pacer {
    /// Ready when the body comes too slowly. `bytes` of it have come so far. Call it after the work returned
    /// pending.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, pace: &Pace, bytes: u64) -> Poll<()> {
        let timer = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(BODY_PATIENCE)));
        while timer.as_mut().poll(cx).is_ready() {
            let now = tokio::time::Instant::now();
            let left = pace.left(bytes, now.into_std());
            if left.is_zero() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(now + left);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn only_time_in_which_the_caller_is_waited_for_counts() {
        let (pace, start) = (Pace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.left(0, at(1000)), BODY_PATIENCE);
        pace.waits(at(1000));
        pace.waits(at(1003));
        assert_eq!(
            pace.left(0, at(1005)),
            BODY_PATIENCE - Duration::from_secs(5)
        );
        pace.comes(at(1005));
        assert_eq!(
            pace.left(0, at(9000)),
            BODY_PATIENCE - Duration::from_secs(5)
        );
        pace.waits(at(9000));
        assert_eq!(pace.left(0, at(9000) + BODY_PATIENCE), Duration::ZERO);
    }

    #[test]
    fn what_came_buys_time() {
        let (pace, now) = (Pace::default(), Instant::now());
        let bytes = 60 * BODY_BYTES_PER_SECOND_LEAST;
        assert_eq!(
            pace.left(bytes, now),
            BODY_PATIENCE + Duration::from_secs(60)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_too_slow_and_one_that_comes_is_not() {
        let (pace, start) = (Pace::default(), tokio::time::Instant::now());
        pace.waits(start.into_std());
        let mut pacer = Pacer::default();
        std::future::poll_fn(|cx| pacer.poll(cx, &pace, 0)).await;
        assert_eq!(start.elapsed().as_secs(), BODY_PATIENCE.as_secs());

        let (pace, came) = (Pace::default(), AtomicU64::new(0));
        let sender = async {
            for _ in 0..60 {
                pace.waits(tokio::time::Instant::now().into_std());
                tokio::time::sleep(Duration::from_secs(2)).await;
                pace.comes(tokio::time::Instant::now().into_std());
                came.fetch_add(2 * BODY_BYTES_PER_SECOND_LEAST, Ordering::Relaxed);
            }
        };
        let mut pacer = Pacer::default();
        let slow = std::future::poll_fn(|cx| pacer.poll(cx, &pace, came.load(Ordering::Relaxed)));
        tokio::select! {
            () = sender => {}
            () = slow => panic!("too slow"),
        }
    }
}
