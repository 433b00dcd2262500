//! What the config service is told of calls: what each edge counted since it was told last. The counts are
//! beside those of `/metrics` ([`crate::metrics`]) and end with the same record. [`Calls`] reads the shards
//! of all workers; `weft_config::client` asks for it every few seconds, and for [`crate::recent`] when an
//! operator asks why.

use std::sync::Arc;
use std::time::Instant;

use weft_config::client::CallSource;
use weft_config::signals::{EdgeCounts, EdgeKey, RecentFilter, Side};

use crate::metrics::{Direction, Labels, Shard};
use crate::recent::Recent;

/// The calls of all workers.
#[derive(Debug)]
pub(crate) struct Calls {
    shards: Vec<Arc<Shard>>,
    recent: Arc<Recent>,
}

impl Calls {
    /// Those that these count.
    pub(crate) fn new(shards: Vec<Arc<Shard>>, recent: Arc<Recent>) -> Self {
        Self { shards, recent }
    }
}

impl CallSource for Calls {
    fn take(&self) -> Vec<(EdgeKey, EdgeCounts)> {
        let mut edges = std::collections::HashMap::<EdgeKey, EdgeCounts>::new();
        self.recent.look(Instant::now());
        for shard in &self.shards {
            shard.take_untold(|labels, counts| {
                edges.entry(edge(labels)).or_default().merge(&counts);
            });
        }
        edges.into_iter().collect()
    }

    fn recent(&self, wanted: &RecentFilter) -> Vec<Vec<u8>> {
        self.recent.lines(wanted, Instant::now())
    }
}

fn edge(labels: &Labels) -> EdgeKey {
    EdgeKey {
        side: match labels.direction {
            Direction::Outbound => Side::Caller,
            Direction::Inbound => Side::Service,
        },
        from: Arc::clone(&labels.source_service),
        from_identity: Arc::clone(&labels.source_principal),
        to: Arc::clone(&labels.destination_service),
        to_identity: Arc::clone(&labels.destination_principal),
        route: Arc::clone(&labels.route),
    }
}
