//! Gives an owner to hyper's background tasks.

use std::future::Future;

use futures_util::FutureExt as _;
use weft_transport::alone::alone;
use weft_transport::tasks::Tasks;

/// Runs what hyper spawns (streams of HTTP/2) under the worker's tracker, which the drain waits for.
#[derive(Clone)]
pub(crate) struct Tracked(pub(crate) Tasks);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(alone("work of hyper", work.map(drop)));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Future;

    /// Bytes of the future that an async function of two arguments returns.
    pub(crate) fn future_size<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }
}
