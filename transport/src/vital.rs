//! Tasks that a process depends on for as long as it runs: one that follows the table, accepts, or keeps an
//! identity. Without such a task the process would go on in its last state, and no symptom would show it. So
//! its unexpected end is logged with its name and ends the process with [`EXIT`]; the service manager starts
//! it anew.
//!
//! [`until`] is for work that ends when it is told to, [`unbroken`] for work that may also end by itself, and
//! [`thread`] for the work of a thread without a runtime. Dropping a task is no unexpected end. Tasks that
//! may die alone are in [`mod@crate::alone`].

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;

/// Exit code of a process that ended because one of its tasks did (EX_SOFTWARE of sysexits.h).
pub const EXIT: u8 = 70;

/// Runs work that may only end once `ending` is cancelled.
pub fn until<T>(
    name: &'static str,
    ending: CancellationToken,
    work: impl Future<Output = T>,
) -> Vital<impl Future<Output = T>> {
    let work = unbroken(name, work).map(move |value| {
        if ending.is_cancelled() {
            return value;
        }
        end_process(name, "it ended before it was told to")
    });
    Vital { work }
}

/// Runs work that may end, but not by a panic.
pub fn unbroken<T>(
    name: &'static str,
    work: impl Future<Output = T>,
) -> Vital<impl Future<Output = T>> {
    // The process ends: no code sees state that a panic left half-changed.
    let ended = AssertUnwindSafe(work).catch_unwind();
    let work = ended.map(move |ended| match ended {
        Ok(value) => value,
        Err(panic) => end_process(name, said(&*panic)),
    });
    Vital { work }
}

pin_project! {
    /// Work whose panic, or early end, ends the process.
    #[must_use = "it does nothing until it is spawned or awaited"]
    pub struct Vital<W> {
        #[pin]
        work: W,
    }
}

impl<W: Future> Future for Vital<W> {
    type Output = W::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<W::Output> {
        self.project().work.poll(context)
    }
}

/// The same for the work of a thread.
pub fn thread<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => value,
        Err(panic) => end_process(name, said(&*panic)),
    }
}

/// The words of a panic.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it panicked")
}

fn end_process(task: &str, reason: &str) -> ! {
    tracing::error!(
        task,
        reason,
        "a task that this process needs is gone: ending, to be started anew"
    );
    std::process::exit(i32::from(EXIT))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::process::Command;

    use super::*;

    /// Says which of the ends below this process should have; absent in the process that checks.
    const ROLE: &str = "WEFT_TEST_VITAL_ROLE";

    fn told() -> CancellationToken {
        let ending = CancellationToken::new();
        ending.cancel();
        ending
    }

    #[tokio::test]
    async fn a_task_that_ends_on_request_or_is_dropped_ends_nothing_else() {
        assert_eq!(until("told", told(), ready(7)).await, 7);
        assert_eq!(unbroken("by itself", ready(8)).await, 8);
        assert_eq!(thread("a thread", || 9), 9);
        drop(until("dropped", CancellationToken::new(), pending::<()>()));
    }

    /// Plays the process that ends; does nothing among other tests.
    #[tokio::test]
    #[allow(
        clippy::disallowed_methods,
        reason = "the process that looks says it so"
    )]
    async fn role() {
        let Ok(role) = std::env::var(ROLE) else {
            return;
        };
        match role.as_str() {
            "early" => until("early bird", CancellationToken::new(), ready(())).await,
            "panic" => until("broken", told(), async { panic!("by a fault") }).await,
            "thread" => thread("broken thread", || panic!("by a fault")),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_end_before_its_time_and_a_panic_end_the_process_with_a_code_of_their_own() {
        for role in ["early", "panic", "thread"] {
            let ended = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "vital::tests::role", "--nocapture"])
                .env(ROLE, role)
                .output()
                .unwrap();
            assert_eq!(
                ended.status.code(),
                Some(i32::from(EXIT)),
                "{role}: {ended:?}"
            );
        }
    }
}
