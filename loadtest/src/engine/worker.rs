//! One thread of the generator: its lanes, its measurements, its open requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_transport::locks::lock;

use super::lanes::Lanes;
use super::queue::{Admission, Queue};
use crate::client::{Lane, Maker};
use crate::clock::Clock;
use crate::measurements::Measurements;
use crate::pacer::awake_until;
use crate::plan::arrivals::Arrival;
use crate::sample::{ErrorKind, Outcome, Sample};

/// The state that the tasks of one thread share. Only this thread and the reporting one use it, so its locks
/// are rarely contended.
pub(super) struct Worker {
    pub(super) clock: Clock,
    /// Cancelled when no further request shall be sent.
    pub(super) stop: CancellationToken,
    /// The requests that are open; they end with the runtime at the latest.
    pub(super) tasks: TaskTracker,
    deadline: Duration,
    lanes: Mutex<Lanes>,
    queue: Mutex<Queue>,
    measurements: Mutex<Measurements>,
}

/// The numbers that a worker may have open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Lanes.
    pub(super) lanes: usize,
    /// Requests, including those that wait for a lane.
    pub(super) requests: usize,
}

impl Worker {
    pub(super) fn new(
        maker: Maker,
        clock: Clock,
        stop: CancellationToken,
        deadline: Duration,
        warm_up: Duration,
        room: Room,
    ) -> Self {
        Self {
            clock,
            stop,
            tasks: TaskTracker::new(),
            deadline,
            lanes: Mutex::new(Lanes::new(maker, room.lanes)),
            queue: Mutex::new(Queue::new(room.requests)),
            measurements: Mutex::new(Measurements::new(warm_up)),
        }
    }

    /// Swaps the measurements for the empty `other`, so that reading them stops no task.
    pub(super) fn swap(&self, other: &mut Measurements) {
        std::mem::swap(&mut *lock(&self.measurements), other);
    }

    /// Whether a lane is free for another request.
    pub(super) fn is_ready(&self) -> bool {
        !lock(&self.queue).is_full() && lock(&self.lanes).has_free()
    }

    /// Sends a request when it is due, or queues it for a lane, or counts it as unsent.
    pub(super) fn dispatch(self: &Arc<Self>, arrival: Arrival) {
        let admission = lock(&self.queue).admit(arrival, || lock(&self.lanes).take());
        match admission {
            Admission::Send(lane) => {
                let worker = Arc::clone(self);
                self.tasks.spawn(worker.serve(lane, arrival));
            }
            Admission::Wait => {}
            Admission::Refuse => {
                let now = self.clock.now();
                self.record(&Sample::unsent(arrival.at, now));
            }
        }
    }

    /// Takes a lane for good, for a loop of its own.
    pub(super) fn take_lane(&self) -> Option<Lane> {
        lock(&self.lanes).take()
    }

    /// One request, and then those that wait for its lane.
    async fn serve(self: Arc<Self>, mut lane: Lane, arrival: Arrival) {
        let mut next = arrival;
        let mut held_back = false;
        loop {
            // All preparation is done by now: touching memory that was unused for a while sometimes costs a
            // virtual machine more than a hundred microseconds.
            awake_until(self.clock, next.at).await;
            self.exchange(&mut lane, next.at, next.target, held_back)
                .await;
            // In one step, so that no request waits beside a free lane.
            let mut queue = lock(&self.queue);
            let Some(waiting) = queue.finished() else {
                lock(&self.lanes).give(lane);
                return;
            };
            (next, held_back) = (waiting, true);
        }
    }

    /// One request, from its begin to its entry in the measurements.
    pub(super) async fn exchange(
        &self,
        lane: &mut Lane,
        intended: Duration,
        target: usize,
        held_back: bool,
    ) {
        let sample = Sample {
            held_back,
            ..Sample::begin(intended, self.clock.now())
        };
        let mut open = Open {
            worker: self,
            sample,
        };
        // A user's patience begins when the request was due.
        let deadline = self.clock.instant(intended + self.deadline);
        let exchange = lane.exchange(target, self.clock, &mut open.sample);
        let outcome = timeout_at(deadline, exchange).await;
        open.sample.outcome = outcome.unwrap_or(Outcome::Failure(ErrorKind::Deadline));
    }

    /// Records the arrivals that wait for a lane when the run is over.
    pub(super) fn give_up(&self) {
        let now = self.clock.now();
        for arrival in lock(&self.queue).give_up() {
            self.record(&Sample {
                held_back: true,
                finished: now,
                ..Sample::begin(arrival.at, now)
            });
        }
    }

    fn record(&self, sample: &Sample) {
        lock(&self.measurements).record(sample);
    }
}

/// A request under way. It is recorded when this is dropped, so that a request that ends with the run is
/// recorded as well, with its age. A request that was left out would make the server look fast.
struct Open<'a> {
    worker: &'a Worker,
    sample: Sample,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.sample.finished = self.worker.clock.now();
        self.worker.record(&self.sample);
    }
}
