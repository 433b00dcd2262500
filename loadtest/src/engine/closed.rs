//! The closed loop: every lane sends its next request after the answer to the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep_until;

use super::Share;
use super::worker::Worker;
use crate::client::Lane;
use crate::plan::arrivals::Choice;
use crate::plan::{End, Plan};

/// Keeps all lanes of this thread busy until the end, or until the run is stopped.
pub(super) async fn run(
    worker: &Arc<Worker>,
    plan: &Arc<Plan>,
    share: Share,
    end: End,
    sent: &Arc<AtomicU64>,
) {
    tokio::time::sleep(worker.clock.lead()).await;
    let (until, most) = match end {
        End::After(length) => (Some(plan.warm_up + length), u64::MAX),
        End::Requests(requests) => (None, requests),
    };
    let mut number = 0;
    while let Some(lane) = worker.take_lane() {
        let choices = Choices {
            plan: Arc::clone(plan),
            // Lanes choose targets independently of each other.
            seed: plan.seed ^ ((share.index as u64) << 32 | number),
        };
        number += 1;
        let budget = Budget {
            sent: Arc::clone(sent),
            most,
            warm_up: plan.warm_up,
        };
        let lane = drive(Arc::clone(worker), lane, choices, budget);
        worker.tasks.spawn(lane);
    }
    worker.tasks.close();
    let over = async {
        match until {
            Some(until) => sleep_until(worker.clock.instant(until)).await,
            None => worker.tasks.wait().await,
        }
    };
    tokio::select! {
        () = worker.stop.cancelled() => {}
        () = over => worker.stop.cancel(),
    }
}

struct Choices {
    plan: Arc<Plan>,
    seed: u64,
}

/// How many requests all threads together may still send.
struct Budget {
    sent: Arc<AtomicU64>,
    most: u64,
    warm_up: Duration,
}

impl Budget {
    /// Takes one request out of it, unless it is spent. Requests of the warm-up are free.
    fn take(&self, now: Duration) -> bool {
        // Without a bound no counter is shared between the threads.
        self.most == u64::MAX
            || now < self.warm_up
            || self.sent.fetch_add(1, Ordering::Relaxed) < self.most
    }
}

async fn drive(worker: Arc<Worker>, mut lane: Lane, choices: Choices, budget: Budget) {
    let mut choice = Choice::new(&choices.plan.targets, choices.seed);
    while !worker.stop.is_cancelled() {
        let now = worker.clock.now();
        if !budget.take(now) {
            return;
        }
        worker.exchange(&mut lane, now, choice.next(), false).await;
    }
}
