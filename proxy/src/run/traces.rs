//! The spans of a sidecar, from its start to its end: the queue of each worker, and the task that empties
//! them.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;
use weft_config::settings::{ProxySettings, Traces};
use weft_transport::alone::alone;
use weft_transport::tasks::TaskSet;

use super::random;
use crate::limits;
use crate::record::Observer;
use crate::traces::export::Exporter;
use crate::traces::queue::SpanQueue;
use crate::traces::resource::{Frame, Process};
use crate::worker::Shared;

/// The queues, until the exporter starts.
#[derive(Default)]
pub(super) struct Queues(Vec<Arc<SpanQueue>>);

impl Queues {
    /// That of one more worker, as an observer of its records.
    pub(super) fn add(&mut self, shared: &Shared) -> Option<Box<dyn Observer + Send + Sync>> {
        let queue = Arc::new(SpanQueue::new(shared.tracing.as_ref()?));
        self.0.push(Arc::clone(&queue));
        Some(Box::new(queue))
    }
}

/// The exporter, if spans are made.
#[derive(Default)]
pub(super) struct SpanExport {
    tasks: TaskSet<()>,
    stop: CancellationToken,
}

impl SpanExport {
    /// Starts it.
    pub(super) fn start(queues: Queues, settings: &ProxySettings, shared: &Shared) -> Self {
        let mut export = Self::default();
        if let (Some(traces), Some(tracing)) = (&settings.traces, &shared.tracing) {
            let frame = frame(traces, settings, shared);
            let seed = StdRng::seed_from_u64(random(|random| random.random()));
            let exporter = Exporter::new(traces, Arc::clone(tracing), queues.0, frame, seed);
            let work = exporter.run(export.stop.clone());
            export.tasks.spawn(alone("exporting spans", work));
        }
        export
    }

    /// Sends what is left, for a short time.
    pub(super) async fn flush(mut self) {
        self.stop.cancel();
        let over = self.tasks.join_next();
        if tokio::time::timeout(limits::EXPORT_FLUSH_MAX, over)
            .await
            .is_err()
        {
            tracing::warn!("the last spans did not reach the collector in time");
        }
    }
}

fn frame(traces: &Traces, settings: &ProxySettings, shared: &Shared) -> Frame {
    let services = settings
        .inbound
        .iter()
        .flat_map(|inbound| &inbound.services);
    let mut versions = services.map(|one| {
        let mut labels = one.details.metadata.iter();
        labels.find_map(|(name, value)| (name == "version").then_some(value))
    });
    let service = shared
        .service
        .split('.')
        .next()
        .filter(|name| !name.is_empty());
    let process = Process {
        identity: &shared.identity,
        service,
        // Of several services none is the process's.
        version: versions.next().flatten().filter(|_| service.is_some()),
        instance: random(|random| random.random()),
    };
    Frame::new(&process, &traces.resource)
}
