//! A running sidecar until its end: by a drain, after which its services are gone, or by a takeover, after
//! which another process serves them.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use weft_config::settings::{Drain, LocalAddress};
use weft_transport::endpoint::{self, Reading};
use weft_transport::private_socket::{Opening, SocketPlace};
use weft_transport::tasks::TaskSet;

use super::traces::SpanExport;
use super::{ControlPlane, Process, RunError, table};
use crate::admin::State;
use crate::admin::server::Servers;
use crate::limits;
use crate::takeover::{
    Incumbent, MeshPortRight, Released, Settled, Successor, TakeoverError, Undone,
};

/// A sidecar that runs, and has not yet told its predecessor so.
pub struct Running {
    /// To read the mesh port and to accept.
    pub(super) right: MeshPortRight,
    pub(super) serving: Serving,
}

/// The parts of it that serve.
pub(super) struct Serving {
    pub(super) state: Arc<State>,
    pub(super) control: Arc<dyn ControlPlane>,
    pub(super) drain: Drain,
    pub(super) outbound: Vec<LocalAddress>,
    pub(super) mesh: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) signals: Signals,
    pub(super) handed_over: CancellationToken,
    pub(super) workers: Vec<oneshot::Receiver<()>>,
    /// The reader of the mesh port, for each worker.
    pub(super) readings: Vec<Arc<Reading>>,
    /// The sockets that a successor may take over, if the settings have a socket for it.
    pub(super) incumbent: Option<Incumbent>,
    /// The handle to tell the service manager.
    pub(super) process: Option<Arc<dyn Process>>,
    /// Control work: table, health.
    pub(super) tasks: TaskSet<()>,
    /// Sends spans.
    pub(super) spans: SpanExport,
    /// The admin endpoint.
    pub(super) servers: Servers,
    /// The path of its Unix socket, if it has one.
    pub(super) admin_place: Option<SocketPlace>,
    /// Gives that socket its path.
    pub(super) admin_opening: Option<Opening>,
}

/// The signals to the workers, in this order.
pub(super) struct Signals {
    /// Cancelled when connections may be accepted.
    pub(super) go: CancellationToken,
    /// Cancelled when connections shall end after what they have under way.
    pub(super) finish: CancellationToken,
    /// Cancelled when idle connections of the application shall end, too.
    pub(super) rest: CancellationToken,
    /// Cancelled when new peers are to be refused.
    pub(super) refuse: CancellationToken,
    /// When running work is cut off; known once the drain begins.
    pub(super) deadline: watch::Sender<Option<Instant>>,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self {
            go: CancellationToken::new(),
            finish: CancellationToken::new(),
            rest: CancellationToken::new(),
            refuse: CancellationToken::new(),
            deadline: watch::Sender::new(None),
        }
    }
}

impl Running {
    /// Where the application connects, in the order of the settings.
    pub fn outbound(&self) -> &[LocalAddress] {
        &self.serving.outbound
    }

    /// The UDP address of the mesh side.
    pub fn mesh(&self) -> SocketAddr {
        self.serving.mesh
    }

    /// The address of the admin endpoint.
    pub fn admin(&self) -> SocketAddr {
        self.serving.admin
    }

    /// Waits until every worker decides by a table: from then on the sidecar serves requests.
    pub fn served(&self) -> impl Future<Output = ()> + Send + use<> {
        table::everywhere(self.serving.state.snapshots().clone())
    }

    /// Cancelled when another process has taken over: from then on the state directory belongs to that
    /// process.
    pub fn handed_over(&self) -> CancellationToken {
        self.serving.handed_over.clone()
    }

    /// Waits for `shutdown`, `POST /drain` or a successor, then lets running work finish and cuts it off at
    /// the deadline. A predecessor ends only from here on, after the service manager was told of this
    /// process.
    ///
    /// # Errors
    /// When the predecessor has gone back to its work, because this process was too slow. The predecessor has
    /// everything, so this process must end at once.
    pub async fn until(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let Self { right, serving } = self;
        let before = serving.settle(right).await?;
        serving.until(before, shutdown).await;
        Ok(())
    }
}

impl Serving {
    async fn until(self, mut before: Option<Released>, shutdown: CancellationToken) {
        let draining = self.state.draining();
        let settled = 'takeovers: loop {
            // Kept while other things happen: dropped, it would reset a process that is just asking.
            let mut successor = pin!(self.successor());
            let successor = loop {
                tokio::select! {
                    () = shutdown.cancelled() => break 'takeovers None,
                    () = draining.cancelled() => break 'takeovers None,
                    successor = &mut successor => break successor,
                    () = self.end_of(before.as_ref()) => before = None,
                }
            };
            match self.give(successor).await {
                Ok(settled) => break 'takeovers Some(settled),
                Err(error) => tracing::warn!(%error, "not taken over: this process goes on"),
            }
        };
        let deadline = Instant::now() + self.drain.deadline;
        self.signals.deadline.send_replace(Some(deadline));
        match settled {
            Some(settled) => self.give_up(settled, before, deadline).await,
            None => self.drain(before, draining, deadline).await,
        }
    }

    /// Ends in favour of another process, which serves.
    async fn give_up(mut self, settled: Settled, before: Option<Released>, deadline: Instant) {
        self.hand_over(&settled).await;
        self.finished().await;
        std::mem::take(&mut self.spans).flush().await;
        if !settled.knows_elders() {
            end_within(before.as_ref(), deadline).await;
        }
        // The other process learns from this that this one has ended.
        drop(settled);
        tracing::info!("ended: another process has taken over");
    }

    /// Ends for good.
    async fn drain(
        mut self,
        before: Option<Released>,
        draining: CancellationToken,
        deadline: Instant,
    ) {
        self.withdraw(draining).await;
        self.finished().await;
        std::mem::take(&mut self.spans).flush().await;
        // This tells the predecessor to read the mesh port again.
        self.readings.clear();
        end_within(before.as_ref(), deadline).await;
        for address in &self.outbound {
            if let LocalAddress::Unix(path) = address {
                let _ = std::fs::remove_file(path);
            }
        }
        self.servers.stop().await;
        if let Some(place) = &self.admin_place {
            place.clear();
        }
        self.tasks.shutdown().await;
        drop(self.control);
        tracing::info!("drained");
    }

    /// Makes this process the sidecar: for the service manager, for its predecessor, and for clients of its
    /// Unix sockets.
    async fn settle(&self, right: MeshPortRight) -> Result<Option<Released>, RunError> {
        if right.is_taken_over()
            && let Some(process) = &self.process
        {
            process.is_main();
        }
        let before = right.release().await?;
        if before.is_some() {
            tracing::info!(
                "took over from the running sidecar, which finishes what it has under way"
            );
        }
        if let Some(incumbent) = &self.incumbent
            && let Err(error) = incumbent.socket.open()
        {
            tracing::error!(%error, "no later process can take over from this one");
        }
        if let Some(Err(error)) = self.admin_opening.as_ref().map(Opening::open) {
            tracing::error!(%error, "changes to this sidecar cannot be asked for (admin.socket)");
        }
        Ok(before)
    }

    /// Waits for the end of the predecessor, and logs how many datagrams it was sent.
    async fn end_of(&self, before: Option<&Released>) {
        let Some(before) = before else {
            return std::future::pending().await;
        };
        before.gone().await;
        let counts = self.readings.iter().map(|reading| reading.forwarded());
        let (forwarded, dropped) = counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        tracing::info!(
            forwarded,
            dropped,
            "the process that was taken over has ended"
        );
    }

    async fn successor(&self) -> Successor {
        let Some(incumbent) = &self.incumbent else {
            return std::future::pending().await;
        };
        let elders = || endpoint::elders(self.readings.iter().map(|reading| &**reading));
        incumbent.successor(elders, &self.control).await
    }

    /// Gives the mesh port to a successor, and waits until it serves. If the takeover fails, this process
    /// reads the port again; nothing else has changed by then.
    async fn give(&self, successor: Successor) -> Result<Settled, TakeoverError> {
        let undone = match self.leave_port(successor).await {
            Ok(settled) => return Ok(settled),
            Err(undone) => undone,
        };
        // First, so that the two never read at once.
        let error = undone.refuse().await;
        for reading in &self.readings {
            reading.take_back();
        }
        if let Some(process) = &self.process {
            // The other process may have said so already.
            process.is_main();
        }
        Err(error)
    }

    async fn leave_port(&self, successor: Successor) -> Result<Settled, Undone> {
        let (relays, waiting) = successor.waits();
        let both = self.readings.iter().zip(relays);
        let all = join_all(both.map(|(reading, relay)| reading.hand_over(relay)));
        if timeout(limits::HAND_OVER_TIMEOUT, all).await.is_err() {
            return Err(waiting.undone(TakeoverError::Busy));
        }
        waiting.take().await?.settled().await
    }

    /// The drain: deregister, and accept on while callers still have the old endpoints.
    async fn withdraw(&mut self, draining: CancellationToken) {
        // A process that starts from here on finds no predecessor.
        if let Some(incumbent) = self.incumbent.take() {
            incumbent.socket.place().clear();
        }
        draining.cancel();
        tracing::info!(deadline_s = self.drain.deadline.as_secs(), "draining");
        // The health watch has withdrawn the services; callers learn of it within the grace period.
        sleep(self.drain.accept).await;
        self.signals.finish.cancel();
        self.signals.rest.cancel();
        self.signals.refuse.cancel();
    }

    /// The takeover: the other process has settled, so from here on this one only finishes.
    async fn hand_over(&mut self, _: &Settled) {
        tracing::info!(
            deadline_s = self.drain.deadline.as_secs(),
            "another process has taken over: finishing what runs"
        );
        // The successor registers, and owns the state directory and the admin endpoint.
        self.control.hand_over();
        self.handed_over.cancel();
        // The listening sockets live on in the successor.
        self.signals.finish.cancel();
        self.incumbent = None;
        // The path of its Unix socket stays, for the successor's own socket.
        self.servers.stop().await;
        self.tasks.shutdown().await;
    }

    /// Waits until everything is finished. The workers cut it off at the deadline.
    async fn finished(&mut self) {
        let rest = self.signals.rest.clone();
        let workers = std::mem::take(&mut self.workers);
        let over = async {
            for worker in workers {
                // A worker that died has ended, too.
                let _ = worker.await;
            }
        };
        let linger = async {
            sleep(limits::IDLE_LINGER).await;
            rest.cancel();
            std::future::pending().await
        };
        tokio::select! {
            () = over => {}
            () = linger => {}
        }
    }
}

/// Waits for the end of a process before this one, at most until the deadline.
async fn end_within(before: Option<&Released>, deadline: Instant) {
    if let Some(before) = before {
        let _ = timeout_at(deadline, before.gone()).await;
    }
}
