//! Tasks whose panic ends only their own work: the task of one stream, connection, call or peer. If it
//! panics, the stream or call that it served ends with it, its neighbours are not affected, and the next
//! request for it starts a new one. The panic is logged with the task's name and counted. Tasks that the
//! process depends on are in [`crate::vital`]; every task that the crates of a sidecar, the CA and the config
//! service spawn is of one kind or the other ([`crate::tasks`]).

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use pin_project_lite::pin_project;

use crate::limited_log::LimitedLog;
use crate::vital::said;

/// Runs `work` under the name by which its panic is counted: one name for each place that spawns.
///
/// State that a panic leaves half-changed belongs to this task alone, or is behind a lock whose users
/// document that they accept it.
pub fn alone(
    name: &'static str,
    work: impl Future<Output = ()>,
) -> Alone<impl Future<Output = ()>> {
    // Not an async block: its future would hold `work` twice.
    let ended = AssertUnwindSafe(work).catch_unwind();
    let work = ended.map(move |ended| {
        if let Err(panic) = ended {
            *counts().entry(name).or_default() += 1;
            let reason = said(&*panic);
            LINES.log(|left_out| {
                tracing::error!(
                    task = name,
                    reason,
                    left_out,
                    "a task has panicked: what it served ended with it"
                );
            });
        }
    });
    Alone { work }
}

pin_project! {
    /// Work whose panic ends nothing else.
    #[must_use = "it does nothing until it is spawned or awaited"]
    pub struct Alone<W> {
        #[pin]
        work: W,
    }
}

impl<W: Future> Future for Alone<W> {
    type Output = W::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<W::Output> {
        self.project().work.poll(context)
    }
}

/// How many tasks of each name have panicked since the process started; names of none are left out.
pub fn died() -> Vec<(&'static str, u64)> {
    let counts = counts();
    counts.iter().map(|(name, count)| (*name, *count)).collect()
}

/// One table for the whole process, because tasks and the code that reads the counts have no other owner in
/// common. It has one entry per name in the source.
static COUNTS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// A peer may find a way to make tasks panic.
static LINES: LazyLock<LimitedLog> = LazyLock::new(LimitedLog::by_callers);

fn counts() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    crate::locks::lock(&COUNTS)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::tasks::Tasks;

    fn count(of: &str) -> u64 {
        let died = died();
        let found = died.iter().find(|(name, _)| *name == of);
        found.map_or(0, |(_, count)| *count)
    }

    #[tokio::test]
    async fn a_panic_is_counted_by_name_and_leaves_the_neighbours_and_their_owner() {
        let tasks = Tasks::default();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn(alone("a neighbour of a panic", async {
            let _ = sender.send(7);
        }));
        tasks.spawn(alone("panics alone", async { panic!("by a fault") }));
        tasks.close();
        tasks.wait().await;
        assert_eq!(receiver.await, Ok(7));
        assert_eq!(count("panics alone"), 1);
        assert_eq!(count("a neighbour of a panic"), 0);
        drop(alone("dropped", pending()));
        assert_eq!(count("dropped"), 0);
    }

    #[test]
    fn the_wrapping_has_no_room_for_the_work_twice() {
        let bare = size_of_val(&work([0; 4096]));
        let wrapped = size_of_val(&alone("large", work([0; 4096])));
        assert!(wrapped <= bare + 64, "{wrapped} of {bare}");
    }

    async fn work(room: [u8; 4096]) {
        pending::<()>().await;
        std::hint::black_box(room);
    }
}
