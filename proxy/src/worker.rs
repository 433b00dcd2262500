//! What one worker has: its snapshot of the mesh, its connections to peers, its counts, its tasks.
//! Nothing here is shared with another worker but what never changes.

use std::future::Future;
use std::sync::{Arc, Mutex};

use http::HeaderValue;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_config::settings::Timeouts;
use weft_config::table::Table;
use weft_transport::identity::TrustDomain;
use weft_transport::pool::Pool;

use crate::access_log::AccessLog;
use crate::directory::Directory;
use crate::inbound::served::Served;
use crate::metrics::{Counted, Direction, Labels, Shard};
use crate::run::table;

/// What is the same for all workers of the process.
pub(crate) struct Shared {
    /// This sidecar's own SPIFFE ID, as a label.
    pub(crate) principal: Arc<str>,
    /// Its entry in `Via`, without the protocol.
    pub(crate) via: Box<str>,
    /// What it serves.
    pub(crate) served: Served,
    /// From the settings.
    pub(crate) timeouts: Timeouts,
    /// Requests in flight per inbound service.
    pub(crate) in_flight_max: usize,
}

/// One worker.
pub(crate) struct Worker {
    /// The process.
    pub(crate) shared: Arc<Shared>,
    /// Connections to peers.
    pub(crate) pool: Pool,
    /// The mesh as it is now; a change wakes whoever must decide again.
    pub(crate) directory: watch::Receiver<Arc<Directory>>,
    /// Counts.
    pub(crate) shard: Arc<Shard>,
    /// The access log.
    pub(crate) log: Arc<AccessLog>,
    /// Owns every task of the data path; the drain waits for it.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when connections shall end after what they have under way.
    pub(crate) finish: CancellationToken,
    /// `Via` for requests that arrive over HTTP/1.1.
    pub(crate) via_http1: HeaderValue,
    /// `Via` for requests that arrive over HTTP/2.
    pub(crate) via_http2: HeaderValue,
    /// Choices that need not be secret.
    pub(crate) random: Mutex<StdRng>,
    /// Where requests are counted that found no endpoint.
    pub(crate) unrouted: Arc<Counted>,
}

impl Worker {
    /// The snapshot to decide by.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.borrow())
    }

    /// Labels of a call that leaves.
    pub(crate) fn outbound_labels(
        &self,
        service: &Arc<str>,
        principal: &str,
        route: Option<&Arc<str>>,
    ) -> Labels {
        Labels {
            direction: Direction::Outbound,
            source_principal: Arc::clone(&self.shared.principal),
            destination_service: Arc::clone(service),
            destination_principal: Arc::from(principal),
            route: route.map_or_else(|| Arc::from(""), Arc::clone),
        }
    }

    /// Labels of a call that arrives.
    pub(crate) fn inbound_labels(&self, caller: &str, service: &Arc<str>) -> Labels {
        Labels {
            direction: Direction::Inbound,
            source_principal: Arc::from(caller),
            destination_service: Arc::clone(service),
            destination_principal: Arc::clone(&self.shared.principal),
            route: Arc::from(""),
        }
    }
}

/// The snapshot of the newest table, which a worker has before it serves, and the work that keeps it in
/// step with later ones.
pub(crate) fn follow(
    mut tables: watch::Receiver<Option<Arc<Table>>>,
    own: TrustDomain,
) -> (watch::Receiver<Arc<Directory>>, impl Future<Output = ()>) {
    let newest = move |tables: &mut watch::Receiver<Option<Arc<Table>>>, old: &Directory| {
        let table = tables.borrow_and_update().clone()?;
        // Whoever acknowledges tells the refusal: see `run::table`.
        table::check(&table, &own).ok()?;
        Some(Arc::new(Directory::new(table, old)))
    };
    let first = newest(&mut tables, &Directory::default()).unwrap_or_default();
    let (snapshots, directory) = watch::channel(first);
    let keep = async move {
        while tables.changed().await.is_ok() {
            let next = newest(&mut tables, &snapshots.borrow());
            if let Some(next) = next {
                snapshots.send_replace(next);
            }
        }
    };
    (directory, keep)
}
