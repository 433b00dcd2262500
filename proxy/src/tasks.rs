//! Gives hyper's background work an owner.

use std::future::Future;

use tokio_util::task::TaskTracker;

/// Runs what hyper spawns (streams of HTTP/2) under the worker's tracker, which the drain waits for.
#[derive(Clone)]
pub(crate) struct Tracked(pub(crate) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}
