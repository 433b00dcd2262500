//! One connection per peer sidecar, for one worker.
//!
//! [`Pool::get`] hands out the connection to a peer, and dials it first if there is none. Each peer has one
//! task, its keeper ([`keeper`]), which dials, replaces and closes; a caller only reads what the keeper
//! published. Not here: which peer a request goes to (`weft_proxy`).

mod keeper;
mod stats;
#[cfg(test)]
mod tests;

pub use stats::PeerStatus;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::alone::alone;
use crate::guards::{Guarded, Guards};
use crate::identity::SpiffeId;
use crate::limits;
use crate::tasks::Tasks;
use crate::wire::{ClientConnection, DialError, Dialler, Driver};

/// A peer: its address, and the identity that it must prove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// UDP address of its mesh side.
    pub address: SocketAddr,
    /// The identity that the routing table gives for this address.
    pub identity: SpiffeId,
}

/// The connections of one worker. Clones are handles to the same pool.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    dialler: Dialler,
    peers: Mutex<HashMap<Target, Peer>>,
    keepers: Tasks,
    shutdown: CancellationToken,
    guards: Guards,
}

#[derive(Clone)]
struct Peer {
    state: watch::Receiver<State>,
    demand: Arc<Notify>,
}

/// The state that a keeper publishes.
#[derive(Clone)]
enum State {
    /// Unknown: no attempt was made yet, or the last one is forgotten.
    Dialling,
    /// Take this one.
    Ready(ClientConnection),
    /// The last attempt failed, and the next one waits: callers fail at once, and may try another endpoint.
    Failed(DialError),
}

impl Pool {
    /// An empty pool over a worker's dialler. Call it inside the worker's runtime.
    pub fn new(dialler: impl Into<Dialler>) -> Self {
        Self {
            shared: Arc::new(Shared {
                dialler: dialler.into(),
                peers: Mutex::default(),
                keepers: Tasks::default(),
                shutdown: CancellationToken::new(),
                guards: Guards::default(),
            }),
        }
    }

    /// The connection to a peer. Waits for a handshake when there is none.
    ///
    /// # Errors
    /// When the peer is not reached, or a recent attempt failed and the next one is not due.
    pub async fn get(&self, target: &Target) -> Result<ClientConnection, DialError> {
        loop {
            let Peer { mut state, demand } = self.peer(target)?;
            if let State::Ready(connection) = &*state.borrow()
                && connection.is_usable()
            {
                return Ok(connection.clone());
            }
            demand.notify_one();
            match self.published(target, &mut state).await {
                Some(result) => return result,
                // The keeper ended between the look-up and the wait: the next turn starts one.
                None => continue,
            }
        }
    }

    /// As [`Self::get`], for a request that may go to another peer instead: it does not wait for a peer that
    /// is shutting down or does not acknowledge, and only for a limited time for a handshake.
    ///
    /// # Errors
    /// As [`Self::get`]; [`DialError::Doubtful`].
    pub async fn get_unless_doubtful(
        &self,
        target: &Target,
    ) -> Result<ClientConnection, DialError> {
        let doubtful = DialError::Doubtful(target.address);
        let Peer { state, demand } = self.peer(target)?;
        if let State::Ready(connection) = &*state.borrow() {
            if connection.is_doubtful() {
                // The keeper looks for a successor.
                demand.notify_one();
                return Err(doubtful);
            }
            if connection.is_usable() {
                return Ok(connection.clone());
            }
        }
        // Boxed: few requests wait for a handshake, and the others should not carry its size.
        Box::pin(timeout(limits::ELSEWHERE_AFTER, self.get(target)))
            .await
            .unwrap_or(Err(doubtful))
    }

    async fn published(
        &self,
        target: &Target,
        state: &mut watch::Receiver<State>,
    ) -> Option<Result<ClientConnection, DialError>> {
        let answer = async {
            loop {
                match &*state.borrow_and_update() {
                    State::Ready(connection) if connection.is_usable() => {
                        return Some(Ok(connection.clone()));
                    }
                    State::Failed(error) => return Some(Err(error.clone())),
                    State::Ready(_) | State::Dialling => {}
                }
                if state.changed().await.is_err() {
                    return None;
                }
            }
        };
        // One handshake of the keeper, and a little for its scheduling.
        let patience = self.shared.dialler.times().handshake;
        timeout(patience + Duration::from_millis(100), answer)
            .await
            .unwrap_or(Some(Err(DialError::Timeout(target.address))))
    }

    fn peer(&self, target: &Target) -> Result<Peer, DialError> {
        let mut peers = self.shared.peers();
        if let Some(peer) = peers.get(target)
            && peer.state.has_changed().is_ok()
        {
            return Ok(peer.clone());
        }
        if self.shared.shutdown.is_cancelled() {
            return Err(DialError::ShuttingDown);
        }
        if peers.len() >= limits::PEERS_MAX && !peers.contains_key(target) {
            return Err(DialError::TooManyPeers);
        }
        let (publish, state) = watch::channel(State::Dialling);
        let peer = Peer {
            state,
            demand: Arc::new(Notify::new()),
        };
        peers.insert(target.clone(), peer.clone());
        let keeper = keeper::Keeper::new(
            Arc::clone(&self.shared),
            target.clone(),
            publish,
            Arc::clone(&peer.demand),
        );
        // If it panics, the next request for this peer starts another.
        self.shared
            .keepers
            .spawn(alone("keeping a peer", keeper.run()));
        Ok(peer)
    }

    /// The state of each peer, for the admin endpoint and the metrics.
    pub fn status(&self) -> Vec<PeerStatus> {
        let peers = self.shared.peers();
        peers
            .iter()
            .map(|(target, peer)| stats::status(target, &peer.state.borrow()))
            .collect()
    }

    /// Connections that were closed for their peers' behaviour.
    pub fn guarded(&self) -> BTreeMap<Guarded, u64> {
        self.shared.guards.counts()
    }

    /// Ends every keeper and closes every connection. Streams under way are lost, so call it once they are
    /// drained. Waits until the peers know of it, at most for `patience`.
    pub async fn close(&self, patience: Duration) {
        self.shared.shutdown.cancel();
        self.shared.keepers.close();
        self.shared.dialler.close(patience).await;
        self.shared.keepers.wait().await;
    }
}

impl Shared {
    /// Runs a connection to its end, and logs if it was closed for the peer's behaviour.
    async fn drive(self: Arc<Self>, driver: Driver, target: Target) {
        let error = driver.await;
        if let Some(guarded) = Guarded::of(&error)
            && self.guards.count(guarded, std::time::Instant::now())
        {
            tracing::warn!(peer = %target.address, identity = %target.identity, %error,
                "closed a mesh connection for what the serving peer did");
        }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<Target, Peer>> {
        // A panic while it was held left the map complete: every change is one insert or remove.
        crate::locks::lock(&self.peers)
    }
}
