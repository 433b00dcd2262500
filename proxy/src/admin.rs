//! The admin endpoint: operators and supervisors ask a sidecar here. It runs on the control runtime: no
//! request of the data path passes it, and it never shows a private key.
//!
//! Each socket answers its own set of paths: [`reads`], [`changes`] and [`observe`]. `guard.rs` decides which
//! callers get an answer, `server.rs` serves them, and `run/admin.rs` says which socket has which set.

mod guard;
pub(crate) mod outlook;
mod resilience;
mod routes;
pub(crate) mod server;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use weft_transport::credentials::Credentials;
use weft_transport::metrics::{
    CONFIG_CONNECTED, CONGESTION_EVENTS, CONGESTION_WINDOW, CONNECTIONS, GIVEN_UP_STREAMS, GUARDS,
    LOST_PACKETS, Page, ROUND_TRIP, SENT_PACKETS, STREAMS, Sample, TABLE_REVISION, TABLES,
};
use weft_transport::pool::{PeerStatus, Pool};

use crate::limits;
use crate::metrics::{Minute, Shard, expose, lock, totals};
use crate::run::table::{Snapshots, Updates, in_force, is_everywhere};
use crate::run::{ControlPlane, Process};
use crate::worker::Shared;

use outlook::Listening;

/// The state that the endpoint shows and changes.
pub(crate) struct State {
    credentials: Credentials,
    control: Arc<dyn ControlPlane>,
    shards: Vec<Arc<Shard>>,
    pools: Vec<Pool>,
    snapshots: Snapshots,
    shared: Arc<Shared>,
    listening: Listening,
    process: Option<Arc<dyn Process>>,
    updates: Arc<Updates>,
    draining: CancellationToken,
    /// What rules got a while ago.
    minute: Mutex<Minute>,
}

impl State {
    pub(crate) fn new(
        credentials: Credentials,
        control: Arc<dyn ControlPlane>,
        shards: Vec<Arc<Shard>>,
        pools: Vec<Pool>,
        snapshots: Snapshots,
        (shared, listening): (Arc<Shared>, Listening),
        process: Option<Arc<dyn Process>>,
    ) -> Self {
        Self {
            credentials,
            control,
            shards,
            pools,
            snapshots,
            shared,
            listening,
            process,
            updates: Arc::default(),
            draining: CancellationToken::new(),
            minute: Mutex::default(),
        }
    }

    /// Cancelling it begins the drain.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Counts the tables that the sidecar took or refused; the task that acknowledges tables keeps the
    /// counts.
    pub(crate) fn updates(&self) -> Arc<Updates> {
        Arc::clone(&self.updates)
    }

    /// The state that all workers share.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The snapshot by which each worker decides.
    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Notes again and again what rules got, so that the last minute can be shown. Never ends.
    pub(crate) async fn note_rules(self: Arc<Self>) {
        loop {
            let totals = totals(&self.shards);
            lock(&self.minute).note(Instant::now(), totals);
            tokio::time::sleep(limits::MINUTE_NOTE_INTERVAL).await;
        }
    }

    fn peers(&self) -> impl Iterator<Item = (usize, PeerStatus)> {
        self.pools
            .iter()
            .enumerate()
            .flat_map(|(worker, pool)| pool.status().into_iter().map(move |peer| (worker, peer)))
    }
}

/// The paths that probes and scrapers read. None of them shows a secret.
fn observed() -> Router<Arc<State>> {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

/// The paths that other hosts may read.
pub(crate) fn observe(state: Arc<State>) -> Router {
    observed().with_state(state)
}

fn told() -> Router<Arc<State>> {
    observed()
        .route("/config_dump", get(config_dump))
        .route("/connections", get(connections))
        .route("/endpoints", get(endpoints))
        .route("/routes", get(routes_in_order))
        .route("/certs", get(certs))
        .route("/logging", get(logging))
}

/// All paths that only read. A request for a change gets `instead`, which says where changes are taken.
pub(crate) fn reads(state: Arc<State>, instead: &str) -> Router {
    let line = format!("{instead}\n");
    let refuse = move || std::future::ready((StatusCode::FORBIDDEN, line.clone()));
    told()
        .route("/logging", put(refuse.clone()))
        .route("/drain", post(refuse))
        .with_state(state)
}

/// All paths, for callers who may change the sidecar.
pub(crate) fn changes(state: Arc<State>) -> Router {
    told()
        .route("/logging", put(set_logging))
        .route("/drain", post(drain))
        .with_state(state)
}

/// Listeners are bound before this endpoint answers, and a sidecar starts only with an identity. It is ready
/// if it also has a table, its certificate is still valid, and it is not draining.
async fn ready(Extract(state): Extract<Arc<State>>) -> Response {
    let mut missing = Vec::new();
    if !is_everywhere(&state.snapshots) {
        let status = state.control.status();
        let reason = status["last_error"]
            .as_str()
            .map(|error| format!(" ({error})"));
        let reason = reason.unwrap_or_default();
        missing.push(format!("no table from the config service yet{reason}"));
    }
    if state.credentials.svid().not_after() <= SystemTime::now() {
        missing.push("the identity has expired".to_owned());
    }
    if state.draining.is_cancelled() {
        missing.push("draining".to_owned());
    }
    let concerns = state.process.as_ref().map(|process| process.concerns());
    match missing.is_empty() {
        true => match concerns.unwrap_or_default().join("; ") {
            concerns if concerns.is_empty() => "ready\n".into_response(),
            concerns => format!("ready, but {concerns}\n").into_response(),
        },
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}\n", missing.join("; ")),
        )
            .into_response(),
    }
}

async fn metrics(Extract(state): Extract<Arc<State>>) -> Response {
    let mut samples = samples(&state);
    if let Some(process) = &state.process {
        samples.extend(process.samples());
    }
    let page = expose(&state.shards, &samples);
    ([(CONTENT_TYPE, Page::CONTENT_TYPE)], page).into_response()
}

fn samples(state: &State) -> Vec<Sample> {
    let revision = state
        .control
        .tables()
        .borrow()
        .as_ref()
        .map_or(0, |table| table.revision.number);
    let counted = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    let unseen = state.control.refused_unseen() as f64;
    let mut samples = vec![
        TABLE_REVISION.sample(&[], revision as f64),
        CONFIG_CONNECTED.flag(state.control.is_connected()),
        TABLES.sample(&["applied"], counted(&state.updates.applied)),
        TABLES.sample(&["refused"], counted(&state.updates.refused) + unseen),
    ];
    samples.extend(resilience::samples(&state.shared, &state.snapshots));
    let dialled = state.pools.iter().map(|pool| ("dialled", pool.guarded()));
    let accepted = state
        .shards
        .iter()
        .map(|shard| ("accepted", shard.guards.counts()));
    let mut guarded: BTreeMap<_, u64> = BTreeMap::new();
    for (side, counts) in dialled.chain(accepted) {
        for (what, count) in counts {
            *guarded.entry((side, what)).or_default() += count;
        }
    }
    for ((side, what), count) in guarded {
        let reason = what.reason.replace(' ', "_");
        let labels = [side, &reason, what.action.as_str()];
        samples.push(GUARDS.sample(&labels, count as f64));
    }
    for (worker, peer) in state.peers() {
        let (worker, address) = (worker.to_string(), peer.address.to_string());
        let labels = [worker.as_str(), &peer.identity, &address];
        let ready = f64::from(u8::from(peer.state == "ready"));
        samples.push(CONNECTIONS.sample(&labels, ready));
        let Some(quic) = peer.connection else {
            continue;
        };
        samples.extend([
            ROUND_TRIP.sample(&labels, quic.rtt_seconds),
            CONGESTION_WINDOW.sample(&labels, quic.congestion_window_bytes as f64),
            STREAMS.sample(&labels, f64::from(quic.streams)),
            SENT_PACKETS.sample(&labels, quic.sent_packets as f64),
            LOST_PACKETS.sample(&labels, quic.lost_packets as f64),
            CONGESTION_EVENTS.sample(&labels, quic.congestion_events as f64),
            GIVEN_UP_STREAMS.sample(&labels, quic.given_up_streams as f64),
        ]);
    }
    samples
}

async fn config_dump(Extract(state): Extract<Arc<State>>) -> Response {
    let newest = state.control.tables().borrow().clone();
    let table = in_force(&state.snapshots, newest);
    let traffic = table.as_deref().map(resilience::in_force);
    let status = state.control.status();
    let first = state.snapshots.first();
    let directory = first.map(|snapshot| Arc::clone(&snapshot.borrow()));
    let directory = directory.unwrap_or_default();
    let mesh = state.listening.mesh.map(|address| address.to_string());
    Json(json!({
        "listen": mesh,
        "listeners": outlook::listeners(&state.listening, &directory, &state.shared),
        "registrations": outlook::registrations(&state.shared, &directory, &status),
        "control_plane": status,
        "table": table.as_deref(),
        "traffic": traffic,
    }))
    .into_response()
}

async fn connections(Extract(state): Extract<Arc<State>>) -> Response {
    let peers: Vec<_> = state
        .peers()
        .map(|(worker, peer)| json!({ "worker": worker, "peer": peer }))
        .collect();
    Json(json!({ "peers": peers })).into_response()
}

async fn endpoints(Extract(state): Extract<Arc<State>>) -> Response {
    Json(resilience::endpoints(&state.shared, &state.snapshots)).into_response()
}

async fn routes_in_order(Extract(state): Extract<Arc<State>>) -> Response {
    let first = state.snapshots.first();
    let directory = first.map(|snapshot| Arc::clone(&snapshot.borrow()));
    let directory = directory.unwrap_or_default();
    let Some(table) = &directory.table else {
        return Json(json!({ "seconds": 0, "ports": [] })).into_response();
    };
    let now = Instant::now();
    let since = lock(&state.minute).since(now, totals(&state.shards));
    Json(routes::routes(table, &directory, &since, now)).into_response()
}

async fn certs(Extract(state): Extract<Arc<State>>) -> Response {
    let (svid, bundle) = (state.credentials.svid(), state.credentials.bundle());
    let time = |time: SystemTime| {
        jiff::Timestamp::try_from(time)
            .map(|time| time.to_string())
            .unwrap_or_default()
    };
    let anchors: Vec<String> = bundle
        .fingerprints()
        .iter()
        .map(ToString::to_string)
        .collect();
    Json(json!({
        "identity": svid.id().to_string(),
        "serial": svid.serial(),
        "not_before": time(svid.not_before()),
        "not_after": time(svid.not_after()),
        "chain": svid.chain_pem(),
        "trust_domain": bundle.trust_domain().to_string(),
        "trust_anchors": anchors,
    }))
    .into_response()
}

async fn logging(Extract(state): Extract<Arc<State>>) -> Response {
    match &state.process {
        Some(process) => format!("{}\n", process.log_filter()).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            "the log filter of this process is fixed\n",
        )
            .into_response(),
    }
}

async fn set_logging(Extract(state): Extract<Arc<State>>, directives: String) -> Response {
    let process = state.process.as_ref();
    match process.map(|process| process.set_log_filter(directives.trim())) {
        Some(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Some(Err(error)) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            "the log filter of this process is fixed\n",
        )
            .into_response(),
    }
}

async fn drain(Extract(state): Extract<Arc<State>>) -> Response {
    tracing::info!("drain asked for");
    state.draining.cancel();
    (StatusCode::ACCEPTED, "draining\n").into_response()
}
