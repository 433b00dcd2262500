//! The first stage of an exchange: finds the service that the application wants, and where it is. Nothing is
//! sent, and nothing waits.
//!
//! The result is an [`Exchange`]; a request then passes the filters ([`super::filters`]), a tunnel has none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::request::Parts;
use http::uri::Authority;
use http::{Method, Request, Uri};
use weft_config::table::Egress;
use weft_transport::locks::lock;

use super::exchange::{Carries, Exchange};
use super::filters::{Addressed, routed};
use super::hello::Wanted;
use super::instead::Instead;
use super::passing::observed;
use super::route::{self, Astray, Route, address};
use super::session::{self, Session};
use super::{Client, Listener, prepare};
use crate::cluster::pick::{self, Criteria, TriedEndpoints};
use crate::directory::{Directory, Rule};
use crate::failure::{Failure, Reason};
use crate::http::authority::canonical;
use crate::http::fields::{WEFT_ROUTE_PARENT, WEFT_SERVICE};
use crate::limits;
use crate::metrics::{Counted, Shard};
use crate::record::Record;
use crate::resilience::deadline::Deadline;

/// Identifies and routes a request. The record gets each fact as it becomes known.
pub(super) fn request(
    client: &Client,
    mut head: Parts,
    grpc: bool,
    record: &mut Record,
) -> Result<Exchange, Instead> {
    let worker = &client.listener.worker;
    match target(&client.listener, &mut head, record) {
        Ok(route) => {
            let criteria = Criteria {
                tried: TriedEndpoints::default(),
                key: pick::key(&route.cluster, &head.headers, client.source),
                preferred: route.session.as_ref().and_then(|one| one.preferred()),
                repeatable: head.method.is_idempotent(),
            };
            Ok(Exchange {
                worker: Arc::clone(worker),
                trace: worker.trace_of(&head),
                head,
                route,
                criteria,
                carries: Carries::Request { body: None, grpc },
                deadline: Deadline::of_request(None, None),
                grant: None,
                mirrored: None,
            })
        }
        Err(instead) => {
            record.name_authority(&head);
            Err(instead)
        }
    }
}

fn target(listener: &Listener, head: &mut Parts, record: &mut Record) -> Result<Route, Instead> {
    prepare::check(head, &listener.worker.shared.via)?;
    prepare::mean_whole_server(head);
    let (route, authority) = find_route(listener, head, record)?;
    prepare::aim(head, authority)?;
    record.uri = head.uri.clone();
    Ok(route)
}

/// Finds the service that the application wants, the cluster that takes the request, and the authority to
/// send.
fn find_route(
    listener: &Listener,
    head: &Parts,
    record: &mut Record,
) -> Result<(Route, Authority), Instead> {
    let worker = &listener.worker;
    let directory = worker.directory();
    record.revision = directory.revision();
    let authority = canonical(head)?;
    prepare::check_target(head, &listener.destination, authority.as_ref())?;
    let own = &worker.shared.identity;
    let port = address(&directory, &listener.destination, authority.as_ref(), own);
    let port = match port {
        Ok(port) => port,
        Err(astray) => {
            let destination = &listener.destination;
            let passing = route::passing(&directory, destination, authority.as_ref(), &astray);
            if let Some(named) = passing {
                return pass(listener, named, authority.as_ref(), record);
            }
            record.counted = worker.lost(&astray.wanted, Shard::requests);
            return Err(Instead::from(astray.failure));
        }
    };
    let written = authority.as_ref().map(|authority| authority.text);
    let rule = route::rule(port, head, written);
    let name = name_of(&rule);
    record.counted = worker.leaving(&port.cluster, None, name, Shard::requests);
    let rule = rule?;
    if let Some(rule) = rule
        && let Some(stage) = &rule.stage
    {
        let addressed = Addressed {
            authority: written,
            label: &port.cluster.label,
        };
        let answered = routed::answer(&stage.filters, head, addressed, &rule.route);
        answered.inspect_err(|instead| instead.count(&port.cluster.destination.counts))?;
    }
    let route = match rule.and_then(|rule| Some((rule, rule.sessions.as_ref()?))) {
        // Most requests have none.
        None => route::lead(port, rule, None, record.started, &mut *lock(&worker.random))?,
        Some((rule, sessions)) => {
            let (wall, counts) = (wall_clock(), &port.cluster.destination.counts);
            let now = record.started;
            let sought = session::seek(rule, sessions, &head.headers, (wall, now), counts);
            let session = Session::new(rule, sessions, &sought, wall, counts);
            let random = &mut *lock(&worker.random);
            Route {
                session: Some(Box::new(session)),
                ..route::lead(port, Some(rule), sought.seat.as_ref(), now, random)?
            }
        }
    };
    let authority = prepare::authority_to_send(authority.as_ref(), &route)?;
    Ok((route, authority))
}

/// Seconds since 1970, which sidecars have in common.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The way of a request to a name outside of the mesh that is no ExternalService, where the mesh lets it
/// pass.
fn pass(
    listener: &Listener,
    (host, port, egress): (&str, u16, Egress),
    authority: Option<&crate::http::authority::Authority<'_>>,
    record: &mut Record,
) -> Result<(Route, Authority), Instead> {
    let worker = &listener.worker;
    let destinations = &worker.shared.destinations;
    let cluster = worker
        .passing
        .cluster((host, port), destinations, record.started);
    record.counted = worker.leaving(&cluster, None, None, Shard::requests);
    worker.shard.egress_observed.fetch_add(1, Ordering::Relaxed);
    observed(&worker.passing_log, egress, host);
    let route = Route {
        traffic: Arc::clone(&cluster.traffic.request),
        cluster,
        parent: None,
        name: None,
        chain: None,
        session: None,
    };
    let authority = prepare::authority_to_send(authority, &route)?;
    Ok((route, authority))
}

/// Identifies and routes a connection that a tunnel will carry, `source` being its caller, and begins its
/// record. `wanted` is the host that its client asks for, where the snapshot's routes ask for it.
pub(super) fn tunnel(
    listener: &Listener,
    directory: &Directory,
    wanted: Option<&Wanted>,
    source: u64,
    started: Instant,
) -> (Record, Result<Exchange, Failure>) {
    let worker = &listener.worker;
    let (counted, route) = find_tunnel_route(listener, directory, wanted, started);
    let mut head = Request::new(()).into_parts().0;
    head.method = Method::CONNECT;
    let observers = Arc::clone(&worker.observers);
    let mut record = Record::new(counted, observers, started, &head, None);
    record.revision = directory.revision();
    worker.begin_trace(&mut head.headers, &mut record, false);
    let planned = route.and_then(|route| {
        address_to(&mut head, &route)?;
        record.uri = head.uri.clone();
        let criteria = Criteria {
            tried: TriedEndpoints::default(),
            key: pick::key(&route.cluster, &head.headers, source),
            preferred: None,
            // No byte is taken from the application before the far side has accepted.
            repeatable: true,
        };
        Ok(Exchange {
            worker: Arc::clone(worker),
            trace: None,
            head,
            route,
            criteria,
            carries: Carries::Tunnel,
            deadline: Deadline::of_tunnel(started + limits::TUNNEL_OPEN_TIMEOUT),
            grant: None,
            mirrored: None,
        })
    });
    (record, planned)
}

/// The destination of the connection, and where it is counted.
fn find_tunnel_route(
    listener: &Listener,
    directory: &Directory,
    wanted: Option<&Wanted>,
    now: Instant,
) -> (Arc<Counted>, Result<Route, Failure>) {
    let worker = &listener.worker;
    let own = &worker.shared.identity;
    let port = match address(directory, &listener.destination, None, own) {
        Ok(port) => port,
        Err(Astray { failure, wanted }) => {
            return (worker.lost(&wanted, Shard::tunnels), Err(failure));
        }
    };
    let rule = route::rule_of_tunnels(port, wanted);
    let name = name_of(&rule);
    let route = rule.and_then(|rule| {
        let random = &mut *lock(&worker.random);
        route::lead(port, rule, None, now, random)
    });
    let cluster = route.as_ref().map_or(&port.cluster, |route| &route.cluster);
    (worker.leaving(cluster, None, name, Shard::tunnels), route)
}

/// The name of the rule that was found, if one was.
fn name_of<'p>(rule: &Result<Option<&'p Rule>, Failure>) -> Option<&'p Arc<str>> {
    match rule {
        Ok(Some(rule)) => Some(&rule.route),
        Ok(None) | Err(_) => None,
    }
}

/// Makes the head of CONNECT say where to (RFC 9114 section 4.4).
fn address_to(head: &mut Parts, route: &Route) -> Result<(), Failure> {
    head.uri = Uri::try_from(route.cluster.label.as_ref())
        .map_err(|_| Failure::new(Reason::Internal, "a service's name is no authority"))?;
    let headers = &mut head.headers;
    headers.insert(WEFT_SERVICE, route.cluster.wire.clone());
    if let Some(parent) = &route.parent {
        headers.insert(WEFT_ROUTE_PARENT, parent.wire.clone());
    }
    Ok(())
}
