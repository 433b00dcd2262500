//! What one worker has: its snapshot of the mesh, its connections to peers, its counts, its tasks.
//! Nothing here is shared with another worker but what never changes.

use std::sync::{Arc, Mutex};

use http::HeaderValue;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_config::settings::Timeouts;
use weft_config::table::Table;
use weft_transport::pool::Pool;

use crate::access_log::AccessLog;
use crate::directory::Directory;
use crate::inbound::served::Served;
use crate::metrics::{Counted, Direction, Labels, Shard};

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

/// Keeps a worker's snapshot in step with the table.
pub(crate) async fn follow(
    mut tables: watch::Receiver<Option<Arc<Table>>>,
    snapshots: watch::Sender<Arc<Directory>>,
) {
    loop {
        let table = tables.borrow_and_update().clone();
        if let Some(table) = table {
            let next = Directory::new(table, &snapshots.borrow());
            snapshots.send_replace(Arc::new(next));
        }
        if tables.changed().await.is_err() {
            return;
        }
    }
}
