//! Sums up what came on edges for operators: `weft stat`. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use weft_transport::identity::SpiffeId;

use super::past::{Past, SidecarKey, slot_at};
use crate::limits;
use crate::operator::{Grouping, Security, StatRequest, StatRow};
use crate::signals::{EdgeCounts, EdgeKey, Side, is_named, workload};
use crate::table::ServiceName;

/// What makes calls a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    from: String,
    from_identity: Arc<str>,
    /// As `orders.shop`.
    to: String,
    port: Option<u16>,
    route: Arc<str>,
    namespace: String,
    instance: Arc<str>,
    direction: &'static str,
}

/// What is known of a row beside its counts.
#[derive(Debug, Default)]
struct Sum {
    counts: EdgeCounts,
    identities: BTreeSet<Arc<str>>,
    is_plaintext: bool,
}

/// An edge that a sidecar's settings name, whether there were calls or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Declared {
    pub(in crate::server) from: SpiffeId,
    pub(in crate::server) to: ServiceName,
}

/// The rows for a request, in the order of their names, and the time that they cover: the present slot, as
/// far as it has come, and those before it. `now` is the time since the service started.
pub(super) fn rows(
    past: &Past,
    now: Duration,
    request: &StatRequest,
    declared: &[Declared],
) -> (Duration, Vec<StatRow>) {
    let slot = slot_at(now);
    let slots = slots_before(request.window_ms).min(slot);
    let since = limits::SIGNAL_SLOT * (slot - slots);
    let covered = now.saturating_sub(since).max(Duration::from_secs(1));
    let (now, seconds) = (slot, covered.as_secs_f64());
    let mut sums = BTreeMap::<RowKey, Sum>::new();
    if request.by == Grouping::Sidecars {
        for (sidecar, counts) in past.sidecars(now, slots) {
            let sum = sums.entry(of_sidecar(sidecar)).or_default();
            sum.counts.merge(&counts);
            sum.identities.insert(Arc::from(sidecar.identity.as_str()));
        }
    } else {
        let wanted = |edge: &EdgeKey| {
            let from = request
                .from
                .as_deref()
                .is_none_or(|from| is_named(&caller(edge), from));
            let to = request
                .to
                .as_deref()
                .is_none_or(|to| is_named(split(&edge.to).0, to));
            from && to
        };
        for (edge, counts) in past.edges(now, slots, wanted) {
            let sum = sums.entry(of_edge(request.by, edge)).or_default();
            sum.counts.merge(&counts);
            if !edge.to_identity.is_empty() {
                sum.identities.insert(Arc::clone(&edge.to_identity));
            }
            sum.is_plaintext |= edge.side == Side::Service && edge.from_identity.is_empty();
        }
    }
    if request.silent && request.by == Grouping::Edges {
        add_silent(&mut sums, request, declared);
    }
    let rows = sums
        .into_iter()
        .map(|(key, sum)| row(key, sum, request.by, seconds));
    (covered, rows.collect())
}

/// How many slots a window has before the present one.
fn slots_before(window_ms: u64) -> u32 {
    let slots = window_ms.div_ceil(limits::SIGNAL_SLOT.as_millis() as u64);
    u32::try_from(slots).unwrap_or(u32::MAX).saturating_sub(1)
}

fn add_silent(sums: &mut BTreeMap<RowKey, Sum>, request: &StatRequest, declared: &[Declared]) {
    for Declared { from, to } in declared {
        let (caller, to) = (workload(from), to.to_string());
        let asked = request
            .from
            .as_deref()
            .is_none_or(|name| is_named(&caller, name))
            && request.to.as_deref().is_none_or(|name| is_named(&to, name));
        let is_known = sums
            .keys()
            .any(|key| *key.from_identity == *from.as_str() && key.to == to);
        if asked && !is_known {
            let key = RowKey {
                from: caller,
                from_identity: Arc::from(from.as_str()),
                namespace: namespace(&to).to_owned(),
                to,
                ..RowKey::default()
            };
            sums.entry(key).or_default();
        }
    }
}

fn of_edge(by: Grouping, edge: &EdgeKey) -> RowKey {
    let (to, port) = split(&edge.to);
    let namespace = namespace(to).to_owned();
    let mut key = RowKey {
        namespace,
        ..RowKey::default()
    };
    match by {
        Grouping::Namespaces | Grouping::Sidecars => {}
        Grouping::Services => to.clone_into(&mut key.to),
        Grouping::Routes => {
            to.clone_into(&mut key.to);
            key.port = port;
            key.route = Arc::clone(&edge.route);
        }
        Grouping::Edges => {
            key.from = caller(edge);
            key.from_identity = Arc::clone(&edge.from_identity);
            to.clone_into(&mut key.to);
            key.port = port;
        }
    }
    key
}

fn of_sidecar(sidecar: &SidecarKey) -> RowKey {
    let parts = sidecar.identity.workload();
    RowKey {
        from: workload(&sidecar.identity),
        namespace: parts.map_or_else(String::new, |one| one.namespace.to_owned()),
        from_identity: Arc::from(sidecar.identity.as_str()),
        instance: Arc::clone(&sidecar.instance),
        direction: match sidecar.side {
            Side::Caller => "outbound",
            Side::Service => "inbound",
        },
        ..RowKey::default()
    }
}

fn row(key: RowKey, sum: Sum, by: Grouping, seconds: f64) -> StatRow {
    let Sum {
        counts,
        identities,
        is_plaintext,
    } = sum;
    let security = match (counts.is_empty(), is_plaintext, identities.is_empty()) {
        (true, _, _) => Security::NoCalls,
        (false, true, _) => Security::Plaintext,
        (false, false, false) => Security::MutualTls,
        (false, false, true) if calls(&counts) > counts.failures => Security::Outside,
        (false, false, true) => Security::Unreached,
    };
    let calls = calls(&counts);
    let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
    let millis = |micros: Option<f64>| micros.map(|micros| micros / 1_000.0);
    let identities: Vec<&str> = identities.iter().map(|one| &**one).collect();
    StatRow {
        from: key.from,
        from_identity: key.from_identity.to_string(),
        to: key.to,
        port: key.port,
        namespace: key.namespace,
        route: key.route.to_string(),
        identity: identities.join(", "),
        instance: key.instance.to_string(),
        direction: key.direction.to_owned(),
        security: (by == Grouping::Edges).then_some(security),
        success: share(calls.saturating_sub(counts.failures), calls),
        rps: counts.requests as f64 / seconds,
        p50_ms: millis(counts.latency.quantile(0.5)),
        p95_ms: millis(counts.latency.quantile(0.95)),
        p99_ms: millis(counts.latency.quantile(0.99)),
        mesh_p50_ms: millis(counts.mesh.quantile(0.5)),
        mesh_p99_ms: millis(counts.mesh.quantile(0.99)),
        mesh_share: share(counts.mesh_micros, counts.latency_micros)
            .filter(|_| !counts.mesh.is_empty()),
        requests: counts.requests,
        failures: counts.failures,
        reasons: counts.reasons,
        retries: counts.retries,
        deadlines: counts.deadlines,
        sent: counts.sent,
        received: counts.received,
        opened: counts.opened,
        closed: counts.closed,
    }
}

/// Requests, and connections whether they opened or not.
fn calls(counts: &EdgeCounts) -> u64 {
    // A connection that did not open is a failure that is no request's.
    (counts.requests + counts.opened).max(counts.failures)
}

/// The caller, by its service if it is known, else by its identity.
fn caller(edge: &EdgeKey) -> String {
    match edge.from.is_empty() {
        true if edge.from_identity.is_empty() => "unknown".to_owned(),
        true => workload_of(&edge.from_identity),
        false => edge.from.to_string(),
    }
}

/// `frontend.shop` for the identity of a workload.
fn workload_of(identity: &str) -> String {
    let id = identity.parse::<SpiffeId>();
    id.map_or_else(|_| identity.to_owned(), |id| workload(&id))
}

/// `orders.shop:80` in its parts. A name without a port has none.
fn split(to: &str) -> (&str, Option<u16>) {
    let parts = to.rsplit_once(':');
    let parts = parts.and_then(|(name, port)| Some((name, port.parse().ok()?)));
    parts.map_or((to, None), |(name, port)| (name, Some(port)))
}

fn namespace(service: &str) -> &str {
    service
        .split_once('.')
        .map_or("", |(_, namespace)| namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Ended;

    fn counts(requests: u64, failures: u64) -> EdgeCounts {
        let mut counts = EdgeCounts::default();
        for number in 0..requests {
            counts.request(Ended {
                micros: 10_000,
                mesh_micros: Some(1_000),
                failure: (number < failures).then_some("http_request_denied"),
                late: false,
                retries: 1,
                sent: 1,
                received: 2,
            });
        }
        counts
    }

    fn edge(from: &str, to: &str, route: &str) -> EdgeKey {
        EdgeKey {
            side: Side::Caller,
            from: Arc::from(""),
            from_identity: Arc::from(format!("spiffe://demo.test/ns/shop/sa/{from}")),
            to: Arc::from(to),
            to_identity: Arc::from("spiffe://demo.test/ns/shop/sa/orders"),
            route: Arc::from(route),
        }
    }

    /// The end of slot 20.
    const NOW: Duration = Duration::from_millis(104_999);

    fn past() -> Past {
        let mut past = Past::default();
        past.note(
            10,
            edge("frontend", "orders.shop:80", "r 0"),
            &counts(60, 6),
        );
        past.note(
            10,
            edge("frontend", "orders.shop:80", "r 1"),
            &counts(20, 0),
        );
        past.note(10, edge("admin", "orders.shop:81", ""), &counts(20, 20));
        past.note(11, edge("admin", "stock.depot:80", ""), &counts(12, 0));
        past
    }

    fn ask(by: Grouping) -> StatRequest {
        StatRequest {
            by,
            from: None,
            to: None,
            window_ms: 60_000,
            silent: false,
        }
    }

    fn shown(rows: &[StatRow]) -> Vec<String> {
        let rows = rows.iter().map(|row| {
            let port = row.port.map_or_else(String::new, |port| format!(":{port}"));
            format!(
                "{}>{}{port} {} {}/{}",
                row.from, row.to, row.route, row.failures, row.requests
            )
        });
        rows.collect()
    }

    #[test]
    fn each_grouping_has_every_call_once() {
        let past = past();
        let rows = |by| rows(&past, NOW, &ask(by), &[]).1;
        let wanted = [
            "admin.shop>orders.shop:81  20/20",
            "admin.shop>stock.depot:80  0/12",
            "frontend.shop>orders.shop:80  6/80",
        ];
        assert_eq!(shown(&rows(Grouping::Edges)), wanted);
        assert_eq!(
            shown(&rows(Grouping::Services)),
            [">orders.shop  26/100", ">stock.depot  0/12"]
        );
        assert_eq!(
            shown(&rows(Grouping::Routes)),
            [
                ">orders.shop:80 r 0 6/60",
                ">orders.shop:80 r 1 0/20",
                ">orders.shop:81  20/20",
                ">stock.depot:80  0/12"
            ]
        );
        let namespaces = rows(Grouping::Namespaces);
        let namespaces: Vec<_> = namespaces
            .iter()
            .map(|row| (&*row.namespace, row.requests))
            .collect();
        assert_eq!(namespaces, [("depot", 12), ("shop", 100)]);
    }

    #[test]
    fn rates_and_shares_are_those_of_the_window() {
        let (covered, found) = rows(&past(), NOW, &ask(Grouping::Services), &[]);
        assert_eq!(covered, Duration::from_millis(59_999));
        let orders = &found[0];
        assert_eq!(orders.success, Some(0.74));
        assert!((orders.rps - 100.0 / 60.0).abs() < 1e-3, "{}", orders.rps);
        let close =
            |seen: Option<f64>, wanted: f64| (0.9..=1.1).contains(&(seen.unwrap() / wanted));
        assert!(close(orders.p50_ms, 10.0) && close(orders.p99_ms, 10.0));
        assert!(close(orders.mesh_p50_ms, 1.0));
        assert_eq!((orders.mesh_share, orders.retries), (Some(0.1), 100));
        assert_eq!(orders.reasons["http_request_denied"], 26);
    }

    #[test]
    fn a_caller_or_a_service_or_a_namespace_may_be_asked_for() {
        let asked = |from: Option<&str>, to: Option<&str>| {
            let request = StatRequest {
                from: from.map(str::to_owned),
                to: to.map(str::to_owned),
                ..ask(Grouping::Edges)
            };
            rows(&past(), NOW, &request, &[]).1.len()
        };
        assert_eq!(asked(Some("admin.shop"), None), 2);
        assert_eq!(asked(None, Some("orders.shop")), 2);
        assert_eq!(asked(Some("admin.shop"), Some("*.depot")), 1);
        assert_eq!(asked(Some("*.depot"), None), 0);
    }

    #[test]
    fn what_a_sidecar_may_call_and_does_not_is_an_edge_without_calls() {
        let declared = |from: &str, to: &str| Declared {
            from: format!("spiffe://demo.test/ns/shop/sa/{from}")
                .parse()
                .unwrap(),
            to: to.parse().unwrap(),
        };
        let declared = [
            declared("admin", "stock.depot"),
            declared("audit", "stock.depot"),
        ];
        let request = StatRequest {
            silent: true,
            ..ask(Grouping::Edges)
        };
        let (_, rows) = rows(&past(), NOW, &request, &declared);
        let silent: Vec<_> = rows
            .iter()
            .filter(|row| row.security == Some(Security::NoCalls))
            .collect();
        assert_eq!((rows.len(), silent.len()), (4, 1));
        assert_eq!((&*silent[0].from, silent[0].success), ("audit.shop", None));
    }

    #[test]
    fn security_is_told_by_what_was_proven() {
        let mut past = past();
        let plain = EdgeKey {
            side: Side::Service,
            from_identity: Arc::from(""),
            ..edge("x", "orders.shop:80", "")
        };
        past.note(10, plain, &counts(1, 0));
        for (to, failures) in [("api.out:443", 0), ("gone.shop:80", 1)] {
            let key = EdgeKey {
                to_identity: Arc::from(""),
                ..edge("frontend", to, "")
            };
            past.note(10, key, &counts(1, failures));
        }
        let (_, rows) = rows(&past, NOW, &ask(Grouping::Edges), &[]);
        let of = |from: &str, to: &str| {
            let row = rows.iter().find(|row| row.from == from && row.to == to);
            row.and_then(|row| row.security)
        };
        assert_eq!(
            of("frontend.shop", "orders.shop"),
            Some(Security::MutualTls)
        );
        assert_eq!(of("unknown", "orders.shop"), Some(Security::Plaintext));
        assert_eq!(of("frontend.shop", "api.out"), Some(Security::Outside));
        assert_eq!(of("frontend.shop", "gone.shop"), Some(Security::Unreached));
    }
}
