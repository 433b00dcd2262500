//! Runs a plan: threads that send requests when they are due, and their measurements.
//!
//! Each thread has a runtime of its own, its share of the arrivals (every n-th), lanes and measurements;
//! threads share no state on the path of a request. [`open`] sends requests at their time, [`closed`] after
//! the last answer. A thread ends when its requests have, or when its grace has; requests still open are
//! recorded with their age.
//!
//! Not here: what a request is ([`crate::client`]), when it is due ([`crate::schedule`]).

mod closed;
mod lanes;
mod open;
mod queue;
mod reach;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_transport::external::ExternalError;

pub use self::reach::{ReachError, reach};
use self::worker::{Room, Worker};
use crate::client::Client;
use crate::client::dial::Dial;
use crate::clock::Clock;
use crate::limits;
use crate::measurements::{Measurements, Snapshot};
use crate::plan::{Load, Plan};

/// A run under way.
pub struct Run {
    threads: Vec<Thread>,
    clock: Clock,
    warm_up: Duration,
    length: Option<Duration>,
    stop: CancellationToken,
    stopped: Option<Duration>,
    total: Measurements,
    spare: Measurements,
}

/// A run that is over.
#[derive(Debug)]
pub struct Finished {
    /// Everything that was measured.
    pub measurements: Measurements,
    /// How long requests were due after the warm-up, or until the run was stopped.
    pub measured: Duration,
}

/// Why a run did not begin or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel refused a thread or a descriptor.
    #[error("cannot start the generator: {0}")]
    System(#[from] io::Error),
    /// TLS or QUIC cannot be set up as the plan wants them.
    #[error(transparent)]
    Tls(#[from] ExternalError),
    /// A thread ended by a defect.
    #[error("a thread of the generator ended by a defect")]
    Defect,
}

struct Thread {
    worker: Arc<Worker>,
    handle: JoinHandle<io::Result<()>>,
}

impl Run {
    /// Starts the threads of `plan`; `addresses` are those of its endpoints.
    ///
    /// # Errors
    /// When the kernel has no thread left.
    pub fn start(plan: &Arc<Plan>, addresses: Vec<SocketAddr>) -> Result<Self, RunError> {
        let client = Client::new(plan, Dial::new(plan, addresses)?)?;
        let clock = Clock::beginning_in(limits::LEAD);
        let stop = CancellationToken::new();
        let sent = Arc::new(AtomicU64::new(0));
        let count = threads(plan);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let worker = Arc::new(Worker::new(
                client.maker(),
                clock,
                stop.child_token(),
                plan.deadline,
                plan.warm_up,
                room(plan, index, count),
            ));
            let handle = std::thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn({
                    let (worker, plan, sent) =
                        (Arc::clone(&worker), Arc::clone(plan), Arc::clone(&sent));
                    let share = Share { index, count };
                    move || work(&worker, &plan, share, &sent)
                });
            match handle {
                Ok(handle) => threads.push(Thread { worker, handle }),
                Err(error) => {
                    stop.cancel();
                    return Err(error.into());
                }
            }
        }
        Ok(Self {
            threads,
            clock,
            warm_up: plan.warm_up,
            length: plan.measured(),
            stop,
            stopped: None,
            total: Measurements::new(plan.warm_up),
            spare: Measurements::new(plan.warm_up),
        })
    }

    /// No further request is sent; open ones get their grace.
    pub fn stop(&mut self) {
        self.stopped.get_or_insert(self.clock.now());
        self.stop.cancel();
    }

    /// Whether all threads have ended.
    pub fn is_finished(&self) -> bool {
        self.threads
            .iter()
            .all(|thread| thread.handle.is_finished())
    }

    /// How long the run has been going, warm-up included.
    pub fn elapsed(&self) -> Duration {
        self.clock.now()
    }

    /// What has been measured so far. Stops no thread for longer than a swap takes.
    pub fn progress(&mut self) -> Snapshot {
        self.collect();
        self.total.snapshot()
    }

    /// Waits for the threads.
    ///
    /// # Errors
    /// When a thread could not do its work.
    pub fn finish(mut self) -> Result<Finished, RunError> {
        let mut result = Ok(());
        let mut workers = Vec::new();
        for thread in self.threads.drain(..) {
            workers.push(thread.worker);
            match thread.handle.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(error.into()),
                Err(_) => result = Err(RunError::Defect),
            }
        }
        for worker in &workers {
            merge(worker, &mut self.total, &mut self.spare);
        }
        // A closed loop that counts its requests ends with the last of them.
        let measured = self.length.unwrap_or(self.total.counts.last_end);
        let stopped = self.stopped.map(|at| at.saturating_sub(self.warm_up));
        result.map(|()| Finished {
            measured: stopped.map_or(measured, |stopped| stopped.min(measured)),
            measurements: self.total,
        })
    }

    fn collect(&mut self) {
        for thread in &self.threads {
            merge(&thread.worker, &mut self.total, &mut self.spare);
        }
    }
}

fn merge(worker: &Worker, total: &mut Measurements, spare: &mut Measurements) {
    worker.swap(spare);
    total.merge(spare);
    spare.clear();
}

/// Which arrivals are a thread's.
#[derive(Clone, Copy, Debug)]
struct Share {
    index: usize,
    count: usize,
}

impl Share {
    /// This thread's part of `whole`, so that all parts add up to `whole`.
    fn of(self, whole: usize) -> usize {
        whole / self.count + usize::from(self.index < whole % self.count)
    }
}

/// A thread, from its first request to its last.
fn work(
    worker: &Arc<Worker>,
    plan: &Arc<Plan>,
    share: Share,
    sent: &Arc<AtomicU64>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match &plan.load {
            Load::Open { .. } | Load::Replay { .. } => open::run(worker, plan, share).await?,
            Load::Closed { end, .. } => closed::run(worker, plan, share, *end, sent).await,
        }
        worker.tasks.close();
        // Requests open by then are recorded when the runtime drops them.
        let _ = timeout(plan.grace, worker.tasks.wait()).await;
        Ok(())
    });
    worker.give_up();
    drop(runtime);
    result
}

/// A thread without a connection would have no work.
fn threads(plan: &Plan) -> usize {
    let connections = match &plan.load {
        Load::Open { connections, .. } | Load::Replay { connections, .. } => {
            connections.unwrap_or(usize::MAX)
        }
        Load::Closed { connections, .. } => *connections,
    };
    let in_flight = match &plan.load {
        Load::Open { in_flight_max, .. } | Load::Replay { in_flight_max, .. } => *in_flight_max,
        Load::Closed { .. } => usize::MAX,
    };
    plan.threads.min(connections).min(in_flight).max(1)
}

fn room(plan: &Plan, index: usize, count: usize) -> Room {
    let share = Share { index, count };
    match &plan.load {
        Load::Open {
            in_flight_max,
            connections,
            streams,
            ..
        }
        | Load::Replay {
            in_flight_max,
            connections,
            streams,
            ..
        } => {
            let requests = share.of(*in_flight_max);
            let lanes = connections.map_or(requests, |connections| {
                share.of(connections).saturating_mul(*streams)
            });
            Room { lanes, requests }
        }
        Load::Closed {
            connections,
            streams,
            ..
        } => {
            let lanes = share.of(*connections) * streams;
            Room {
                lanes,
                requests: lanes,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_threads_are_the_whole() {
        for whole in [0, 1, 7, 10_000] {
            for count in 1..9 {
                let sum: usize = (0..count)
                    .map(|index| Share { index, count }.of(whole))
                    .sum();
                assert_eq!(sum, whole);
            }
        }
    }
}
