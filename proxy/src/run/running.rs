//! A sidecar that runs, to its end: by a drain, after which its services are gone, or by a takeover, after
//! which another process serves them.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use weft_config::settings::{Drain, LocalAddress};
use weft_transport::endpoint::{Epoch, Reading};
use weft_transport::private_socket::SocketPlace;

use super::{ControlPlane, table};
use crate::admin::State;
use crate::admin::server::Servers;
use crate::limits;
use crate::takeover::{Incumbent, Predecessor, Successor};

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
    /// Control work: table, health.
    pub(super) tasks: JoinSet<()>,
    /// The admin endpoint.
    pub(super) servers: Servers,
    /// The path of its Unix socket, if it has one.
    pub(super) admin_place: Option<SocketPlace>,
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
    /// manager is to be told of this one before.
    pub async fn until(mut self, shutdown: CancellationToken) {
        if let Some(predecessor) = &mut self.predecessor {
            // Whoever called this has told the service manager of this process.
            predecessor.release().await;
        }
        let draining = self.state.draining();
        let successor = tokio::select! {
            () = shutdown.cancelled() => None,
            () = draining.cancelled() => None,
            successor = self.successor() => Some(successor),
            never = self.tell_end_of_predecessor() => match never {},
        };
        let deadline = Instant::now() + self.drain.deadline;
        self.deadline.send_replace(Some(deadline));
        match successor {
            None => self.withdraw(draining).await,
            Some(successor) => {
                let mut open = self.hand_over(successor).await;
                self.finished(deadline).await;
                open.settled().await;
                drop(open);
                tracing::info!("ended: another process has taken over");
                return;
            }
        }
        self.finished(deadline).await;
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

    /// Logs that the process before this one has ended, and what it was sent.
    async fn tell_end_of_predecessor(&self) -> Infallible {
        if let Some(predecessor) = &self.predecessor {
            predecessor.gone().await;
            let counts = self.readings.iter().map(|reading| reading.forwarded());
            let (forwarded, dropped) =
                counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
            tracing::info!(
                forwarded,
                dropped,
                "the process that was taken over has ended"
            );
        }
        std::future::pending().await
    }

    async fn successor(&self) -> Successor {
        let Some(incumbent) = &self.incumbent else {
            return std::future::pending().await;
        };
        let earlier = || -> Vec<Epoch> {
            let predecessor = self.predecessor.as_ref();
            predecessor.map(Predecessor::epochs).unwrap_or_default()
        };
        incumbent.successor(earlier, &self.control).await
    }

    /// The drain: deregister, and go on accepting while callers still have the old endpoints.
    async fn withdraw(&mut self, draining: CancellationToken) {
        // Whoever starts from here on finds nobody to take over from.
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

    /// The takeover: from here on this process only finishes. What is returned is to be kept to the end,
    /// by which the successor learns of it.
    async fn hand_over(&mut self, mut successor: Successor) -> Successor {
        tracing::info!(
            deadline_s = self.drain.deadline.as_secs(),
            "another process takes over: finishing what runs"
        );
        // The successor registers and answers for the state directory and the admin endpoint.
        self.control.hand_over();
        self.handed_over.cancel();
        // The path of its Unix socket stays, for the successor's own.
        self.servers.stop().await;
        self.tasks.shutdown().await;
        let relays = std::mem::take(&mut successor.relays);
        let both = self.readings.iter().zip(relays);
        let all = join_all(both.map(|(reading, relay)| reading.hand_over(relay)));
        if timeout(limits::HAND_OVER_TIMEOUT, all).await.is_err() {
            tracing::warn!("a worker still reads the mesh port");
        }
        // The listening sockets live on in the successor.
        self.incumbent = None;
        self.finish.cancel();
        if let Err(error) = successor.confirm().await {
            tracing::error!(%error, "the process that takes over is gone: this one ends nevertheless");
        }
        successor
    }

    /// Waits until everything is finished, at most until the deadline; a process before this one, whose
    /// datagrams this one sends on, included.
    async fn finished(&mut self, deadline: Instant) {
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
        if let Some(predecessor) = &self.predecessor {
            let _ = timeout_at(deadline, predecessor.gone()).await;
        }
    }
}
