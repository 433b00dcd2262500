//! The open loop: every request is sent at its time, however earlier ones ended.

use std::io;
use std::sync::Arc;

use super::Share;
use super::worker::Worker;
use crate::early_wake::EarlyWake;
use crate::limits;
use crate::pacer::{Pacer, awake_until};
use crate::plan::arrivals::{Arrival, arrivals};
use crate::plan::{Load, Plan};

/// Sends this thread's share of the arrivals, until the last or until the run is stopped.
pub(super) async fn run(worker: &Arc<Worker>, plan: &Plan, share: Share) -> io::Result<()> {
    match &plan.load {
        Load::Open {
            course,
            arrivals: spread,
            requests,
            ..
        } => {
            let (targets, warm_up) = (&plan.targets, plan.warm_up);
            let all = arrivals(targets, course, *spread, warm_up, *requests, plan.seed);
            send(worker, all, share).await
        }
        Load::Replay { arrivals, .. } => send(worker, arrivals.iter().copied(), share).await,
        Load::Closed { .. } => Ok(()),
    }
}

async fn send(
    worker: &Arc<Worker>,
    all: impl Iterator<Item = Arrival>,
    share: Share,
) -> io::Result<()> {
    let pacer = Pacer::new(worker.clock)?;
    let mut early = EarlyWake::new();
    pacer.origin().await?;
    let mut in_a_row = 0;
    for arrival in all.skip(share.index).step_by(share.count) {
        if worker.clock.now() < arrival.at {
            in_a_row = 0;
            tokio::select! {
                biased;
                () = worker.stop.cancelled() => return Ok(()),
                waited = pacer.wake_early(arrival.at, &mut early) => waited?,
            }
            // Before it is due, only requests that are certain to be sent then leave this loop.
            if !worker.is_ready() {
                awake_until(worker.clock, arrival.at).await;
            }
        }
        worker.dispatch(arrival);
        in_a_row += 1;
        if in_a_row == limits::BURST {
            in_a_row = 0;
            if worker.stop.is_cancelled() {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
