//! The state of one worker: its snapshot of the mesh, its connections to peers, its counts, its tasks. It
//! shares with other workers only values that never change.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue};
use rand::rngs::StdRng;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use weft_config::settings::Timeouts;
use weft_config::table::{Locality, Table};
use weft_transport::identity::{SpiffeId, TrustDomain};
use weft_transport::limited_log::LimitedLog;
use weft_transport::locks::lock;
use weft_transport::pool::Pool;
use weft_transport::tasks::Tasks;

use crate::cluster::Cluster;
use crate::directory::Directory;
use crate::failure::{Failure, Reason};
use crate::http::upload::ReplayMemory;
use crate::inbound::served::Served;
use crate::metrics::{Counted, Direction, Labels, Shard};
use crate::outbound::passing::Passing;
use crate::outbound::route::Wanted;
use crate::outside::names::{Answers, Names};
use crate::record::{Observers, Record};
use crate::resilience::destination::Destinations;
use crate::resilience::propagation::{Propagation, TraceId};
use crate::resilience::rate::NamedRates;
use crate::run::table;
use crate::traces::{Tracing, span_id};

/// The values that are the same for all workers of the process.
pub(crate) struct Shared {
    /// This sidecar's own SPIFFE ID, which is also that of the application beside it.
    pub(crate) identity: SpiffeId,
    /// The same, as a label.
    pub(crate) principal: Arc<str>,
    /// The one service that it serves, without a port, as a label; empty if there is none, or several.
    pub(crate) service: Arc<str>,
    /// Its entry in `Via`, without the protocol.
    pub(crate) via: Box<str>,
    /// Where this sidecar runs, if that was said.
    pub(crate) locality: Option<Locality>,
    /// The services that it serves.
    pub(crate) served: Served,
    /// From the settings.
    pub(crate) timeouts: Timeouts,
    /// Requests in flight per inbound service.
    pub(crate) in_flight_max: usize,
    /// The state that workers share about the services that are called.
    pub(crate) destinations: Arc<Destinations>,
    /// Rates of the calls that routes take.
    pub(crate) route_rates: NamedRates,
    /// Whether answers to the application name the revision by which they came.
    pub(crate) revision_header: bool,
    /// Whether the application is told where the time went.
    pub(crate) server_timing: bool,
    /// What names outside of the mesh lead to.
    pub(crate) names: Arc<Names>,
    /// Links what is asked of the application to what it asks.
    pub(crate) propagation: Arc<Propagation>,
    /// Makes spans, if the settings say where to send them.
    pub(crate) tracing: Option<Arc<Tracing>>,
    /// Whether it is asked anything and may ask anything, so that there is something to link.
    pub(crate) follows_traces: bool,
}

/// One worker.
pub(crate) struct Worker {
    /// The process.
    pub(crate) shared: Arc<Shared>,
    /// Connections to peers.
    pub(crate) pool: Pool,
    /// The mesh as it is now; a change wakes the tasks that must decide again.
    pub(crate) directory: watch::Receiver<Arc<Directory>>,
    /// Counts.
    pub(crate) shard: Arc<Shard>,
    /// Who is told of what is over.
    pub(crate) observers: Arc<Observers>,
    /// Owns every task of the data path; the drain waits for it.
    pub(crate) tasks: Tasks,
    /// Cancelled when connections shall end after what they have under way.
    pub(crate) finish: CancellationToken,
    /// Cancelled when idle connections of the application shall end, too.
    pub(crate) rest: CancellationToken,
    /// `Via` for requests that arrive over HTTP/1.1.
    pub(crate) via_http1: HeaderValue,
    /// `Via` for requests that arrive over HTTP/2.
    pub(crate) via_http2: HeaderValue,
    /// Cancelled when the drain's deadline is over: what still runs ends.
    pub(crate) cut: CancellationToken,
    /// For bodies that may be sent again.
    pub(crate) room: Arc<ReplayMemory>,
    /// Names outside of the mesh that the mesh lets pass.
    pub(crate) passing: Passing,
    /// For those that pass while that is observed.
    pub(crate) passing_log: LimitedLog,
    /// Places for copies of requests that routes mirror.
    pub(crate) mirrors: Arc<Semaphore>,
    /// Choices that need not be secret.
    pub(crate) random: Mutex<StdRng>,
    /// The label of calls that name no service.
    pub(crate) no_service: Arc<str>,
    /// Where requests are counted that name no service.
    pub(crate) unrouted: Arc<Counted>,
}

/// Takes the series of a label set: [`Shard::requests`] or [`Shard::tunnels`].
pub(crate) type Count = fn(&Shard, Labels) -> Arc<Counted>;

impl Worker {
    /// The snapshot to decide by.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.borrow())
    }

    /// The trace of a request, where it may be a link between what is asked of the application and what
    /// it asks.
    pub(crate) fn trace_of(&self, head: &http::request::Parts) -> Option<TraceId> {
        if !self.shared.follows_traces {
            return None;
        }
        TraceId::of(&head.headers)
    }

    /// Decides whether a request or tunnel has spans, which its record and its head tell from here on.
    pub(crate) fn begin_trace(&self, headers: &mut HeaderMap, record: &mut Record, grpc: bool) {
        if let Some(tracing) = &self.shared.tracing {
            tracing.begin(headers, record, grpc, &mut *lock(&self.random));
        }
    }

    /// The id of a new span.
    pub(crate) fn span_id(&self) -> u64 {
        span_id(&mut *lock(&self.random))
    }

    /// How a tunnel ended, which is cut if it outlives the drain.
    pub(crate) async fn until_cut(
        &self,
        tunnel: Pin<&mut impl Future<Output = Result<(), Failure>>>,
    ) -> Result<(), Failure> {
        tokio::select! {
            biased;
            outcome = tunnel => outcome,
            () = self.cut.cancelled() => Err(Failure::new(
                Reason::ConnectionTerminated,
                "this sidecar ends, and the tunnel outlived its drain (drain.deadline)",
            )),
        }
    }

    /// Where a call that leaves is counted: by its endpoint once one is tried, before by its service.
    pub(crate) fn leaving(
        &self,
        cluster: &Cluster,
        endpoint: Option<usize>,
        route: Option<&Arc<str>>,
        count: Count,
    ) -> Arc<Counted> {
        let endpoint = endpoint.and_then(|index| cluster.endpoints.get(index));
        let (counts, principal) = endpoint.map_or((&cluster.unreached, ""), |endpoint| {
            (&endpoint.counted, endpoint.place.identity())
        });
        counts.get(route, || {
            let labels = Labels {
                direction: Direction::Outbound,
                source_service: Arc::clone(&self.shared.service),
                source_principal: Arc::clone(&self.shared.principal),
                destination_service: Arc::clone(&cluster.label),
                destination_principal: Arc::from(principal),
                route: Arc::clone(route.unwrap_or(&self.no_service)),
            };
            count(&self.shard, labels)
        })
    }

    /// Where a call without a matching port is counted. Logs name the service even if it cannot be a label.
    pub(crate) fn lost(&self, wanted: &Wanted, count: Count) -> Arc<Counted> {
        let labels = |name: Arc<str>| Labels {
            destination_service: name,
            ..Self::astray(&self.shared, &self.no_service)
        };
        match wanted {
            Wanted::Unknown => count(&self.shard, labels(Arc::clone(&self.no_service))),
            Wanted::Known(name) => count(&self.shard, labels(name.as_str().into())),
            Wanted::Named(name) => {
                let counted = count(&self.shard, labels(Arc::clone(&self.no_service)));
                let labels = labels(name.as_str().into());
                Arc::new(counted.named(labels))
            }
        }
    }

    /// Labels of a call whose destination is unknown.
    pub(crate) fn astray(shared: &Shared, none: &Arc<str>) -> Labels {
        Labels {
            direction: Direction::Outbound,
            source_service: Arc::clone(&shared.service),
            source_principal: Arc::clone(&shared.principal),
            destination_service: Arc::clone(none),
            destination_principal: Arc::clone(none),
            route: Arc::clone(none),
        }
    }

    /// Labels of a call that arrives. A caller that proved no identity has no `principal`.
    pub(crate) fn arriving(
        &self,
        principal: &str,
        source: &Arc<str>,
        service: &Arc<str>,
    ) -> Labels {
        Labels {
            direction: Direction::Inbound,
            source_service: Arc::clone(source),
            source_principal: Arc::from(principal),
            destination_service: Arc::clone(service),
            destination_principal: Arc::clone(&self.shared.principal),
            route: Arc::clone(&self.no_service),
        }
    }
}

/// The snapshot of the newest table, which a worker has before it serves, and the work that keeps it in
/// step with later ones.
pub(crate) fn follow(
    mut tables: watch::Receiver<Option<Arc<Table>>>,
    own: TrustDomain,
    locality: Option<Locality>,
    destinations: Arc<Destinations>,
    mut answers: watch::Receiver<Arc<Answers>>,
) -> (watch::Receiver<Arc<Directory>>, impl Future<Output = ()>) {
    let swept = Arc::clone(&destinations);
    let newest = move |tables: &mut watch::Receiver<Option<Arc<Table>>>,
                       answers: &mut watch::Receiver<Arc<Answers>>,
                       old: &Directory| {
        let table = tables.borrow_and_update().clone()?;
        // The task that acknowledges tables reports the refusal: see `run::table`.
        table::check(&table, &own).ok()?;
        Some(Arc::new(snapshot(
            table,
            old,
            &destinations,
            locality.as_ref(),
            &answers.borrow_and_update(),
        )))
    };
    let first = newest(&mut tables, &mut answers, &Directory::default()).unwrap_or_default();
    let (snapshots, directory) = watch::channel(first);
    let keep = async move {
        loop {
            let changed = tokio::select! {
                changed = tables.changed() => changed,
                // Its sender lives as long as the sidecar.
                Ok(()) = answers.changed() => Ok(()),
            };
            if changed.is_err() {
                return;
            }
            let next = newest(&mut tables, &mut answers, &snapshots.borrow());
            if let Some(next) = next {
                snapshots.send_replace(next);
                swept.sweep();
            }
        }
    };
    (directory, keep)
}

/// The snapshot of a table that comes now.
fn snapshot(
    table: Arc<Table>,
    old: &Directory,
    destinations: &Destinations,
    locality: Option<&Locality>,
    answers: &Answers,
) -> Directory {
    Directory::new(
        table,
        old,
        destinations,
        locality,
        answers,
        std::time::Instant::now(),
    )
}
