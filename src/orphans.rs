//! The duty of process 1 of a container: every process whose parent has ended becomes its child, and stays in
//! the process table until process 1 reads its exit status.

use std::convert::Infallible;
use std::future::pending;

use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// Reaps ended orphans for as long as it is polled, if this is process 1. `own` is a child that another part
/// of the process waits for, so its exit status is left alone.
pub async fn reap(own: Option<Pid>) -> Infallible {
    if std::process::id() != 1 {
        return pending().await;
    }
    let Ok(mut ended) = signal(SignalKind::child()) else {
        return pending().await;
    };
    loop {
        reap_ended(own);
        if ended.recv().await.is_none() {
            return pending().await;
        }
    }
}

fn reap_ended(own: Option<Pid>) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Some(pid) = waitid(Id::All, look).ok().and_then(|status| status.pid()) {
        // Orphans behind it are found when it is gone: by the signal for the next child, or by the next call
        // of `reap`.
        if Some(pid) == own || waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}
