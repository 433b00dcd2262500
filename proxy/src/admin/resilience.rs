//! Resilience as operators see it: the state of each endpoint and its cause, and the counts and gauges of
//! balancing, retries and limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value, json};
use weft_config::table::{RequestTraffic, Table};
use weft_transport::metrics::{
    ADAPTIVE_ACTING, EGRESS_LOOKUPS, ENDPOINTS, IN_FLIGHT, IN_FLIGHT_MAX, RETRY_BUDGET, Sample,
    TRACES, WAITING,
};

use crate::cluster::{self, Cluster, Endpoint};
use crate::inbound::authorise::takes_plaintext;
use crate::inbound::served::ServedService;
use crate::resilience::limit::Limits;
use crate::run::table::Snapshots;
use crate::worker::Shared;

/// The endpoints of every destination, as each worker sees them: why an endpoint is out of rotation, which
/// requests took it out, and until when. Also the state of the limits of the served services.
pub(super) fn endpoints(shared: &Shared, snapshots: &Snapshots) -> Value {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let (mut rows, mut without) = (Vec::new(), Vec::new());
    for (worker, snapshot) in snapshots.iter().enumerate() {
        let directory = snapshot.borrow().clone();
        for cluster in directory.shown() {
            if worker == 0 && cluster.endpoints.is_empty() {
                without.push(json!({
                    "destination": &*cluster.label,
                    "why": cluster.absence.to_string(),
                }));
            }
            for endpoint in &cluster.endpoints {
                rows.push(row(worker, cluster, endpoint, now, wall));
            }
        }
    }
    let table = newest_table(snapshots);
    let served: Vec<Value> = shared
        .served
        .iter()
        .map(|service| {
            let limits = limits_of(shared, service, table.as_deref());
            let adaptive = service.adaptive(now);
            let since = wall - now.saturating_duration_since(adaptive.since);
            let since = jiff::Timestamp::try_from(since).map(|time| time.to_string());
            json!({
                "service": &*service.label,
                "in_flight": service.concurrency.in_flight(),
                "limit": limits.max,
                "waiting": adaptive.waiting,
                "health": service.health.to_json(now, wall),
                "plaintext": service.plaintext.to_json(
                    takes_plaintext(table.as_deref(), &service.name).is_ok(),
                    now,
                    wall,
                ),
                "adaptive": {
                    "mode": limits.adaptive,
                    "acting": adaptive.limit.is_some(),
                    "limit": adaptive.limit,
                    "since": since.unwrap_or_default(),
                },
            })
        })
        .collect();
    json!({ "endpoints": rows, "without_endpoints": without, "served": served })
}

fn newest_table(snapshots: &Snapshots) -> Option<Arc<Table>> {
    snapshots.first()?.borrow().table.clone()
}

/// The limits of the requests of a served service.
fn limits_of(shared: &Shared, service: &ServedService, table: Option<&Table>) -> Limits {
    let policy = service.port_of(table);
    let policy = policy.map(|port| port.traffic.concurrency.clone());
    let cap = u32::try_from(shared.in_flight_max).unwrap_or(u32::MAX);
    Limits::of(&policy.unwrap_or_default(), cap, true)
}

fn row(
    worker: usize,
    cluster: &Cluster,
    endpoint: &Endpoint,
    now: Instant,
    wall: SystemTime,
) -> Value {
    let status = endpoint
        .standing
        .status(now, cluster.traffic.balance.slow_start);
    let out = status.out.map(|out| {
        let until = wall + out.until.saturating_duration_since(now);
        let until = jiff::Timestamp::try_from(until).map(|time| time.to_string());
        json!({
            "cause": out.cause.as_str(),
            "until": until.unwrap_or_default(),
            "times": out.times,
        })
    });
    let state = match status.out {
        None if status.share < 1.0 => "spared",
        None => "in",
        Some(out) if !out.enforced => "observed",
        Some(out) if out.probing => "probing",
        Some(_) => "out",
    };
    json!({
        "destination": &*cluster.label,
        "workload": &*endpoint.workload,
        "address": endpoint.place.address().to_string(),
        "identity": endpoint.place.identity(),
        "worker": worker,
        "weight": endpoint.details.weight,
        "metadata": endpoint.details.metadata,
        "distance": endpoint.distance,
        "state": state,
        "in_flight": status.load,
        "latency_ms": status.latency.map(|seconds| (seconds * 1e6).round() / 1e3),
        "share": status.share,
        "out": out,
    })
}

/// The policy of every port and route, with all defaults filled in: the table leaves out values that equal
/// their default.
pub(super) fn in_force(table: &Table) -> Value {
    let mut ports = Map::new();
    for (name, service) in &table.services {
        for (number, port) in &service.ports {
            let traffic = &port.traffic;
            let mut routes = Map::new();
            for rule in &port.routes {
                routes.insert(rule.route.clone(), request(&rule.traffic));
            }
            let value = json!({
                "request": request(&traffic.request),
                "routes": routes,
                "balance": traffic.balance,
                "retry_budget": traffic.retry_budget,
                "breaker": traffic.breaker,
                "failover": traffic.failover,
                "concurrency": traffic.concurrency,
                "rate_limits": traffic.rate_limits,
                "caller_rate_limits": traffic.caller_rate_limits,
            });
            ports.insert(cluster::label(name, *number).to_string(), value);
        }
    }
    Value::Object(ports)
}

fn request(traffic: &RequestTraffic) -> Value {
    json!({
        "timeouts": traffic.timeouts,
        "retry": traffic.retry,
        "hedge": traffic.hedge,
        "fault": traffic.fault,
        "priority": traffic.priority,
        "rate_limits": traffic.rate_limits,
        "overrides": traffic.overrides,
    })
}

/// Counts and gauges, to be scraped.
pub(super) fn samples(shared: &Shared, snapshots: &Snapshots) -> Vec<Sample> {
    let now = Instant::now();
    let mut samples = Vec::new();
    for (label, destination) in shared.destinations.all() {
        let counts = destination.counts.iter().filter(|(_, count)| *count > 0);
        samples.extend(counts.map(|((metric, labels), count)| {
            metric.sample(&[&[&*label], labels].concat(), count as f64)
        }));
    }
    for (worker, snapshot) in snapshots.iter().enumerate() {
        let directory = snapshot.borrow().clone();
        let number = worker.to_string();
        for cluster in directory.shown() {
            let endpoints = cluster.endpoints.iter();
            let out = endpoints.filter(|one| one.standing.is_out()).count();
            for (state, count) in [("in", cluster.endpoints.len() - out), ("out", out)] {
                let labels = [&cluster.label, number.as_str(), state];
                samples.push(ENDPOINTS.sample(&labels, count as f64));
            }
            if worker == 0 {
                let budget = &cluster.destination.budget;
                let left = budget.left(now, &cluster.traffic.retry_budget);
                samples.push(RETRY_BUDGET.sample(&[&cluster.label], left));
            }
        }
    }
    let names = &shared.names;
    for (result, count) in [
        ("answered", &names.answered),
        ("failed", &names.failed),
        ("forgotten", &names.forgotten),
    ] {
        let count = count.load(Ordering::Relaxed);
        if count > 0 {
            samples.push(EGRESS_LOOKUPS.sample(&[result], count as f64));
        }
    }
    let table = newest_table(snapshots);
    for service in shared.served.iter() {
        let limits = limits_of(shared, service, table.as_deref());
        let (label, concurrency) = (&*service.label, &service.concurrency);
        let adaptive = service.adaptive(now);
        let limit = adaptive.limit.unwrap_or(limits.max).min(limits.max);
        let acting = u32::from(adaptive.limit.is_some());
        samples.extend([
            IN_FLIGHT.sample(&[label], concurrency.in_flight().into()),
            IN_FLIGHT_MAX.sample(&[label, "fixed"], limits.max.into()),
            IN_FLIGHT_MAX.sample(&[label, "adaptive"], limit.into()),
            WAITING.sample(&[label], adaptive.waiting.into()),
            ADAPTIVE_ACTING.sample(&[label], acting.into()),
        ]);
        samples.extend(service.health.samples(label));
        samples.extend(service.plaintext.samples(label, now));
    }
    samples.push(TRACES.sample(&[], shared.propagation.len() as f64));
    samples.extend(shared.tracing.iter().flat_map(|tracing| tracing.samples()));
    samples
}
