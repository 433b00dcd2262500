//! A sidecar that runs, to its end: by a drain, after which its services are gone, or by a takeover, after
//! which another process serves them.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use weft_config::settings::{Drain, LocalAddress};
use weft_transport::endpoint::{self, Reading};
use weft_transport::private_socket::{Opening, SocketPlace};

use super::{ControlPlane, Process, RunError, table};
use crate::admin::State;
use crate::admin::server::Servers;
use crate::limits;
use crate::takeover::{Incumbent, Predecessor, Successor, TakeoverError};

/// A sidecar that runs.
pub struct Running {
    pub(super) state: Arc<State>,
    pub(super) control: Arc<dyn ControlPlane>,
    pub(super) drain: Drain,
    pub(super) outbound: Vec<LocalAddress>,
    pub(super) mesh: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Cancelled when connections shall end after what they have under way.
    pub(super) finish: CancellationToken,
    /// Cancelled when idle connections of the application shall end, too.
    pub(super) rest: CancellationToken,
    /// Cancelled when peers that dial are to be refused.
    pub(super) refuse: CancellationToken,
    pub(super) handed_over: CancellationToken,
    pub(super) deadline: watch::Sender<Option<Instant>>,
    pub(super) workers: Vec<oneshot::Receiver<()>>,
    /// Who reads the mesh port, for each worker.
    pub(super) readings: Vec<Arc<Reading>>,
    pub(super) predecessor: Option<Predecessor>,
    /// What another process may take over, if the settings have a socket for it.
    pub(super) incumbent: Option<Incumbent>,
    /// The process around this, to tell the service manager.
    pub(super) process: Option<Arc<dyn Process>>,
    /// Control work: table, health.
    pub(super) tasks: JoinSet<()>,
    /// The admin endpoint.
    pub(super) servers: Servers,
    /// The path of its Unix socket, if it has one.
    pub(super) admin_place: Option<SocketPlace>,
    /// Gives that socket its path.
    pub(super) admin_opening: Option<Opening>,
}

impl Running {
    /// Where the application connects, in the order of the settings.
    pub fn outbound(&self) -> &[LocalAddress] {
        &self.outbound
    }

    /// The UDP address of the mesh side.
    pub fn mesh(&self) -> SocketAddr {
        self.mesh
    }

    /// The address of the admin endpoint.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until every worker decides by a table: from then on requests are served.
    pub fn served(&self) -> impl Future<Output = ()> + Send + use<> {
        table::everywhere(self.state.snapshots().clone())
    }

    /// Cancelled when another process has taken over: the state directory is that one's from then on.
    pub fn handed_over(&self) -> CancellationToken {
        self.handed_over.clone()
    }

    /// Waits for `shutdown`, `POST /drain` or a process that takes over, then lets what runs finish and
    /// cuts it off at the deadline. A process that was taken over ends only from here on: the service
    /// manager is told of this one before.
    ///
    /// # Errors
    /// When the process that was to be taken over has gone back to its work, because this one was too slow. It has
    /// everything, so this one must end at once.
    pub async fn until(mut self, shutdown: CancellationToken) -> Result<(), RunError> {
        self.settle().await?;
        let draining = self.state.draining();
        let successor = loop {
            let successor = tokio::select! {
                () = shutdown.cancelled() => break None,
                () = draining.cancelled() => break None,
                successor = self.successor() => successor,
                () = self.end_of_predecessor() => {
                    self.predecessor = None;
                    continue;
                }
            };
            match self.give(successor).await {
                Ok(successor) => break Some(successor),
                Err(error) => tracing::warn!(%error, "not taken over: this process goes on"),
            }
        };
        let deadline = Instant::now() + self.drain.deadline;
        self.deadline.send_replace(Some(deadline));
        match successor {
            None => self.withdraw(draining).await,
            Some(successor) => {
                self.hand_over().await;
                self.finished().await;
                if !successor.knows_elders() {
                    self.predecessor_finished(deadline).await;
                }
                // By this it learns of the end of this process.
                drop(successor);
                tracing::info!("ended: another process has taken over");
                return Ok(());
            }
        }
        self.finished().await;
        // A process before this one hears by this that it is to read the mesh port again.
        self.readings.clear();
        self.predecessor_finished(deadline).await;
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
        Ok(())
    }

    /// Makes this process the sidecar: for the service manager, for a process that it took over, and for those who
    /// look for it at its Unix sockets.
    async fn settle(&mut self) -> Result<(), RunError> {
        if let Some(predecessor) = &mut self.predecessor {
            if let Some(process) = &self.process {
                process.is_main();
            }
            predecessor.release().await?;
            tracing::info!(
                "took over from the running sidecar, which finishes what it has under way"
            );
        }
        if let Some(incumbent) = &self.incumbent
            && let Err(error) = incumbent.door.open()
        {
            tracing::error!(%error, "no later process can take over from this one");
        }
        if let Some(Err(error)) = self.admin_opening.as_ref().map(Opening::open) {
            tracing::error!(%error, "changes to this sidecar cannot be asked for (admin.socket)");
        }
        Ok(())
    }

    /// Waits for the end of the process before this one, and logs what it was sent.
    async fn end_of_predecessor(&self) {
        let Some(predecessor) = &self.predecessor else {
            return std::future::pending().await;
        };
        predecessor.gone().await;
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

    /// Gives the mesh port to a process that takes over, and waits until it serves. If it does not come to that, this
    /// process reads the port again. Nothing else has changed by then.
    async fn give(&self, mut successor: Successor) -> Result<Successor, TakeoverError> {
        let relays = std::mem::take(&mut successor.relays);
        let given = async {
            let both = self.readings.iter().zip(relays);
            let all = join_all(both.map(|(reading, relay)| reading.hand_over(relay)));
            let left = timeout(limits::HAND_OVER_TIMEOUT, all).await;
            left.map_err(|_| TakeoverError::Busy)?;
            successor.take().await?;
            successor.settled().await
        };
        let Err(error) = given.await else {
            return Ok(successor);
        };
        // First, so that the two never read at once.
        successor.refuse(&error).await;
        for reading in &self.readings {
            reading.take_back();
        }
        if let Some(process) = &self.process {
            // The other one may have said that it is.
            process.is_main();
        }
        Err(error)
    }

    /// The drain: deregister, and go on accepting while callers still have the old endpoints.
    async fn withdraw(&mut self, draining: CancellationToken) {
        // A process that starts from here on finds none to take over from.
        if let Some(incumbent) = self.incumbent.take() {
            incumbent.door.place().clear();
        }
        draining.cancel();
        tracing::info!(deadline_s = self.drain.deadline.as_secs(), "draining");
        // The health watch has withdrawn the services; callers learn it within the grace.
        sleep(self.drain.accept).await;
        self.finish.cancel();
        self.rest.cancel();
        self.refuse.cancel();
    }

    /// The takeover: from here on this process only finishes.
    async fn hand_over(&mut self) {
        tracing::info!(
            deadline_s = self.drain.deadline.as_secs(),
            "another process has taken over: finishing what runs"
        );
        // The successor registers and answers for the state directory and the admin endpoint.
        self.control.hand_over();
        self.handed_over.cancel();
        // The listening sockets live on in the successor.
        self.finish.cancel();
        self.incumbent = None;
        // The path of its Unix socket stays, for the successor's own.
        self.servers.stop().await;
        self.tasks.shutdown().await;
    }

    /// Waits until everything is finished. The workers cut it off at the deadline.
    async fn finished(&mut self) {
        let rest = self.rest.clone();
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

    /// Waits for the end of a process before this one, at most until the deadline.
    async fn predecessor_finished(&self, deadline: Instant) {
        if let Some(predecessor) = &self.predecessor {
            let _ = timeout_at(deadline, predecessor.gone()).await;
        }
    }
}
