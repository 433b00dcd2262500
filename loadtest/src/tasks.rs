//! Gives hyper's background work an owner: it ends with the runtime of its thread at the latest.

use std::future::Future;

use tokio_util::task::TaskTracker;

/// Runs what hyper spawns (streams and connections of HTTP/2) under a tracker.
#[derive(Clone, Default)]
pub(crate) struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

impl Tracked {
    /// Runs the connection that hyper handed out.
    pub(crate) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(work);
    }
}
