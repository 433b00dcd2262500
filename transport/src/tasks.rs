//! The owners of a process's tasks. They run only work that says what its end means: [`Alone`] may die by
//! itself, and the process depends on [`Vital`]. No other task can be spawned on them, and `tests/tidy` sees
//! to it that the crates of a sidecar, the CA and the config service have no other owner.

use std::future::Future;

use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::task::TaskTracker;

use crate::alone::Alone;
use crate::vital::Vital;

/// Work whose type says what its end means.
pub trait Supervised: Future + sealed::Sealed {}

impl<W: Future> Supervised for Alone<W> {}
impl<W: Future> Supervised for Vital<W> {}

mod sealed {
    /// Only this crate says what is supervised.
    #[expect(unnameable_types, reason = "no other crate may implement it")]
    pub trait Sealed {}

    impl<W> Sealed for super::Alone<W> {}
    impl<W> Sealed for super::Vital<W> {}
}

/// Tasks that are waited for: dropping it ends none. Its clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Starts a task.
    pub fn spawn<W>(&self, work: W) -> JoinHandle<W::Output>
    where
        W: Supervised<Output: Send + 'static> + Send + 'static,
    {
        self.0.spawn(work)
    }

    /// Lets [`Self::wait`] return once no task is left. Tasks may be started all the same.
    pub fn close(&self) {
        self.0.close();
    }

    /// Waits until it is closed and no task is left.
    pub async fn wait(&self) {
        self.0.wait().await;
    }

    /// How many tasks run.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no task runs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Tasks that end with their owner: dropping it ends them.
#[derive(Debug)]
pub struct TaskSet<T = ()>(JoinSet<T>);

impl<T> Default for TaskSet<T> {
    fn default() -> Self {
        Self(JoinSet::new())
    }
}

impl<T: Send + 'static> TaskSet<T> {
    /// Starts a task.
    pub fn spawn<W>(&mut self, work: W)
    where
        W: Supervised<Output = T> + Send + 'static,
    {
        self.0.spawn(work);
    }

    /// Waits until a task ends; `None` if there is none.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.0.join_next().await
    }

    /// Ends all tasks, and waits until they have ended.
    pub async fn shutdown(&mut self) {
        self.0.shutdown().await;
    }
}
