//! Finds the service that a request is for, and the cluster that takes it. Pure: the snapshot, the request
//! and randomness are arguments.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use rand::Rng;
use weft_config::table::{Asked, Egress, Protocol, RequestTraffic, ServiceName};
use weft_transport::identity::SpiffeId;

use super::hello::Wanted as WantedHost;
use super::session::{Seat, Session};
use crate::cluster::Cluster;
use crate::directory::{Chain, Directory, Port, Rule};
use crate::failure::{Failure, Reason};
use crate::http::authority::Authority;
use crate::resilience::balance::pick_weighted;
use crate::resilience::destination::Event;

/// The destination of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// One port of one service, whatever the request says.
    Service {
        /// The service.
        name: ServiceName,
        /// The same as text.
        text: Box<str>,
        /// Its port.
        port: u16,
    },
    /// The service that the authority names.
    ByHost {
        /// The namespace of names without one.
        namespace: Box<str>,
        /// The listener's own port, which clients write into Host without a meaning.
        listener_port: Option<u16>,
    },
}

/// Where a request goes.
#[derive(Clone)]
pub(crate) struct Route {
    /// The backend's endpoints.
    pub(crate) cluster: Arc<Cluster>,
    /// The addressed service, if a route chose another.
    pub(crate) parent: Option<Arc<Cluster>>,
    /// The rule's name.
    pub(crate) name: Option<Arc<str>>,
    /// How the request is treated.
    pub(crate) traffic: Arc<RequestTraffic>,
    /// What the rule and the backend do to it; none for most.
    pub(crate) chain: Option<Arc<Chain>>,
    /// Its session; none for most. Boxed for that.
    pub(crate) session: Option<Box<Session>>,
}

/// A call that leads to no port.
#[derive(Debug)]
pub(crate) struct Astray {
    /// Why.
    pub(crate) failure: Failure,
    /// The service that was meant.
    pub(crate) wanted: Wanted,
}

/// The service that a call without a matching port was for, as far as that can be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The name in the call cannot be that of a service.
    Unknown,
    /// The settings or the table name it, so it may be a label of metrics.
    Known(String),
    /// Only the request names it.
    Named(String),
}

impl Astray {
    fn of(reason: Reason, detail: &'static str, wanted: Wanted) -> Self {
        let failure = Failure::new(reason, detail);
        Self { failure, wanted }
    }
}

/// Finds the port that the application addressed. `own` is the identity that asks.
pub(crate) fn address<'d>(
    directory: &'d Directory,
    destination: &Destination,
    authority: Option<&Authority<'_>>,
    own: &SpiffeId,
) -> Result<&'d Port, Astray> {
    let is_ready = directory.table.is_some();
    let not_ready = |wanted| {
        let detail = "no table from the config service yet";
        Astray::of(Reason::NotReady, detail, wanted)
    };
    match destination {
        Destination::Service { name, text, port } => {
            let wanted = || Wanted::Known(format!("{text}:{port}"));
            if !is_ready {
                return Err(not_ready(wanted()));
            }
            let service = directory.service(text);
            let found = service.and_then(|service| service.port(*port));
            found.ok_or_else(|| Astray {
                failure: refusal(directory, Some(name), &format!("{name}:{port}"), own),
                wanted: wanted(),
            })
        }
        Destination::ByHost {
            namespace,
            listener_port,
        } => {
            let authority = authority.ok_or_else(|| {
                Astray::of(Reason::BadRequest, "no Host to route by", Wanted::Unknown)
            })?;
            let wanted = || ServiceName::parse_in(namespace, &authority.host).ok();
            if !is_ready {
                let named = wanted().map(|name| Wanted::Named(name.to_string()));
                return Err(not_ready(named.unwrap_or(Wanted::Unknown)));
            }
            by_host(directory, namespace, *listener_port, authority).ok_or_else(|| {
                let name = wanted();
                let failure = refusal(directory, name.as_ref(), authority.text, own);
                let wanted = match &name {
                    None => Wanted::Unknown,
                    Some(name) if directory.forbidden(name).is_some() => {
                        Wanted::Known(name.to_string())
                    }
                    Some(name) => Wanted::Named(name.to_string()),
                };
                Astray { failure, wanted }
            })
        }
    }
}

/// The name and port outside of the mesh that a call means which leads to no port, where the mesh lets it
/// pass. A name of the mesh never leads outside, whether it may be called or not; nor does one without a dot.
pub(crate) fn passing<'a>(
    directory: &Directory,
    destination: &Destination,
    authority: Option<&'a Authority<'_>>,
    astray: &Astray,
) -> Option<(&'a str, u16, Egress)> {
    let table = directory.table.as_ref()?;
    let egress = table.egress;
    let (Destination::ByHost { namespace, .. }, Some(authority)) = (destination, authority) else {
        return None;
    };
    let host: &str = &authority.host;
    let is_known = ServiceName::parse_in(namespace, host)
        .is_ok_and(|name| directory.service(&name.to_string()).is_some());
    let may_pass = !egress.is_deny()
        && astray.failure.reason == Reason::UnknownService
        && host.contains(['.', ':'])
        && !is_known
        && directory.by_host(host).is_none()
        && !table.closed_hosts.contains(host);
    may_pass.then(|| (host, authority.port.unwrap_or(HTTP_PORT), egress))
}

/// The port of a URL without one (RFC 9110 section 4.2.1).
const HTTP_PORT: u16 = 80;

fn by_host<'d>(
    directory: &'d Directory,
    namespace: &str,
    listener_port: Option<u16>,
    authority: &Authority<'_>,
) -> Option<&'d Port> {
    let service = match authority.host.contains('.') {
        true => directory.service(&authority.host),
        false => directory.service(&format!("{}.{namespace}", authority.host)),
    };
    let service = service.or_else(|| directory.by_host(&authority.host));
    service.and_then(|service| match authority.port {
        None => service.default_port(),
        Some(number) => service.port(number).or_else(|| {
            service
                .default_port()
                .filter(|_| Some(number) == listener_port)
        }),
    })
}

/// Why `shown` is refused: no callable port has that name.
fn refusal(
    directory: &Directory,
    name: Option<&ServiceName>,
    shown: &str,
    own: &SpiffeId,
) -> Failure {
    if let Some(forbidden) = name.and_then(|name| directory.forbidden(name)) {
        let ban = &forbidden.ban;
        let detail = format!("{own} may not call {shown}: {ban}");
        return Failure::new(Reason::Denied, detail).by(ban.policy());
    }
    let service = name.and_then(|name| directory.service(&name.to_string()));
    let Some(service) = service else {
        let detail = format!("no service {shown} in the mesh that {own} may know of");
        return Failure::new(Reason::UnknownService, detail);
    };
    let ports: Vec<String> = service.ports().map(|port| port.to_string()).collect();
    let detail = format!(
        "{shown} is no port of the service; it has {}",
        ports.join(", ")
    );
    Failure::new(Reason::UnknownService, detail)
}

/// The protocol of the service that a listener leads to, as far as it is known. It is also given for a
/// service that may not be called, because the client has to understand the refusal.
pub(crate) fn protocol(directory: &Directory, destination: &Destination) -> Option<Protocol> {
    let Destination::Service { name, text, port } = destination else {
        return Some(Protocol::Http);
    };
    let service = directory.service(text);
    let found = service.and_then(|service| service.port(*port));
    match found {
        Some(port) => Some(port.cluster.protocol),
        None => directory.forbidden(name)?.ports.get(port).copied(),
    }
}

/// The rule of the addressed port that takes the request; none where the port has no routes. `authority` is
/// whom the client wrote.
pub(crate) fn rule<'p>(
    port: &'p Port,
    head: &Parts,
    authority: Option<&str>,
) -> Result<Option<&'p Rule>, Failure> {
    match port.cluster.protocol {
        Protocol::Http | Protocol::Grpc => {}
        Protocol::Tcp => {
            let label = &port.cluster.label;
            let detail = format!("{label} is a TCP service: it needs a listener of its own");
            return Err(Failure::new(Reason::BadRequest, detail));
        }
    }
    let Some(router) = &port.router else {
        return Ok(None);
    };
    let found = router.find(&Asked {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        authority,
        headers: &head.headers,
    });
    let rule = found.and_then(|place| port.rules.get(place));
    rule.map(Some).ok_or_else(|| no_route(port, "request"))
}

/// Whether the rule of a connection to this destination depends on the host that its client asks for.
pub(crate) fn asks_for_hosts(directory: &Directory, destination: &Destination) -> bool {
    let Destination::Service { text, port, .. } = destination else {
        return false;
    };
    let service = directory.service(text);
    let port = service.and_then(|service| service.port(*port));
    let router = port.and_then(|port| port.router.as_ref());
    router.is_some_and(|router| router.asks_for_hosts())
}

/// The rule of a TCP service. Those for hosts take what is for them; others have no conditions, so that the
/// first takes each connection. `wanted` is what the client asks for, where its first bytes were read.
pub(crate) fn rule_of_tunnels<'p>(
    port: &'p Port,
    wanted: Option<&WantedHost>,
) -> Result<Option<&'p Rule>, Failure> {
    if let Some(router) = &port.router
        && router.asks_for_hosts()
    {
        let label = &port.cluster.label;
        let host = match wanted {
            Some(WantedHost::Host(host)) => host,
            Some(WantedHost::Unsaid(why)) => return Err(why.failure(label)),
            Some(WantedHost::NoHost) | None => {
                let detail = format!("no route of {label} takes a client that names no host");
                return Err(Failure::new(Reason::NoRoute, detail));
            }
        };
        let found = router.find_by_host(host);
        let rule = found.and_then(|place| port.rules.get(place));
        return rule.map(Some).ok_or_else(|| {
            let detail = format!("no route of {label} takes a client that asks for {host}");
            Failure::new(Reason::NoRoute, detail)
        });
    }
    let mut rules = port.rules.iter();
    match rules.find(|rule| rule.rule.matches.is_empty()) {
        None if !port.rules.is_empty() => Err(no_route(port, "connection")),
        found => Ok(found),
    }
}

fn no_route(port: &Port, what: &str) -> Failure {
    let detail = format!("no route of {} takes this {what}", port.cluster.label);
    Failure::new(Reason::NoRoute, detail)
}

/// Where the rule sends this one: to the endpoint of its session, if it has one, or else drawn by weight.
/// Without a rule it goes to the port's own endpoints.
pub(crate) fn lead(
    port: &Port,
    rule: Option<&Rule>,
    seat: Option<&Seat>,
    now: Instant,
    random: &mut impl Rng,
) -> Result<Route, Failure> {
    let Some(rule) = rule else {
        return Ok(to(port, &port.cluster, now));
    };
    let backends = &rule.rule.backends;
    let weights = || backends.iter().map(|backend| backend.weight);
    let drawn = match seat {
        Some(seat) => Some(seat.backend),
        None => pick_weighted(weights(), random),
    };
    let drawn = drawn.and_then(|index| Some((backends.get(index)?, rule.backends.get(index)?)));
    let Some((backend, led)) = drawn else {
        let detail = format!("{} has no backend", rule.route);
        return Err(Failure::new(Reason::NoBackend, detail));
    };
    let unusable = |why: &str| {
        let (service, port, route) = (&backend.service, backend.port, &rule.route);
        let detail = format!("{service}:{port}, a backend of {route}, {why}");
        Failure::new(Reason::NoBackend, detail)
    };
    // Its share is never moved to others (Gateway API, HTTPBackendRef).
    if let Some(broken) = backend.broken {
        return Err(unusable(&format!("is not to be used: {}", broken.as_str())));
    }
    let cluster = led.cluster.as_ref();
    let cluster = cluster.ok_or_else(|| unusable("may not be called from here"))?;
    Ok(Route {
        name: Some(Arc::clone(&rule.route)),
        traffic: Arc::clone(&rule.rule.traffic),
        chain: led.chain.clone(),
        ..match seat {
            Some(seat) => at(port, Arc::clone(&seat.cluster)),
            None => to(port, cluster, now),
        }
    })
}

/// To the backend, or to the one that takes over for it.
fn to(port: &Port, backend: &Arc<Cluster>, now: Instant) -> Route {
    let cluster = match backend.failover(now) {
        Some(other) => {
            backend.destination.counts.add(Event::FailedOver);
            other
        }
        None => Arc::clone(backend),
    };
    at(port, cluster)
}

fn at(port: &Port, cluster: Arc<Cluster>) -> Route {
    let parent = (cluster.label != port.cluster.label).then(|| Arc::clone(&port.cluster));
    Route {
        cluster,
        parent,
        name: None,
        traffic: Arc::clone(&port.cluster.traffic.request),
        chain: None,
        session: None,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::directory::tests::{directory, name};
    use crate::http::authority;

    fn head(uri: &str, host: &str) -> Parts {
        http::Request::builder()
            .uri(uri)
            .header("host", host)
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    fn own() -> SpiffeId {
        "spiffe://demo.test/ns/shop/sa/frontend".parse().unwrap()
    }

    fn by_host(host: &str) -> Result<String, Reason> {
        found(host).map_err(|astray| astray.failure.reason)
    }

    fn found(host: &str) -> Result<String, Astray> {
        let directory = directory();
        let destination = Destination::ByHost {
            namespace: "shop".into(),
            listener_port: Some(6142),
        };
        let head = head("/", host);
        let authority = authority::canonical(&head).unwrap();
        address(&directory, &destination, authority.as_ref(), &own())
            .map(|port| port.cluster.label.to_string())
    }

    #[test]
    fn a_refusal_names_the_caller_the_service_and_the_policy() {
        let denied = found("secret:99").unwrap_err();
        let failure = &denied.failure;
        assert_eq!(
            failure.detail,
            "spiffe://demo.test/ns/shop/sa/frontend may not call secret:99: \
             AuthorizationPolicy/shop/secret denies it"
        );
        assert_eq!(
            failure.policy.as_deref(),
            Some("AuthorizationPolicy/shop/secret")
        );
        // Its name is in the table, and so is bounded; the port and other names come from the request.
        assert_eq!(denied.wanted, Wanted::Known("secret.shop".into()));
        let unknown = found("nope").unwrap_err();
        assert_eq!(unknown.wanted, Wanted::Named("nope.shop".into()));
        assert_eq!(found("127.0.0.1").unwrap_err().wanted, Wanted::Unknown);
        let port = found("orders.shop:81").unwrap_err().failure;
        assert!(port.detail.ends_with("it has 80"), "{port}");
    }

    #[test]
    fn what_a_forbidden_service_speaks_is_known() {
        let to = |name: &str, port| Destination::Service {
            name: self::name(name),
            text: format!("{name}.shop").into(),
            port,
        };
        let protocol = |name, port| super::protocol(&directory(), &to(name, port));
        assert_eq!(protocol("secret", 5432), Some(Protocol::Tcp));
        assert_eq!(protocol("db", 5432), Some(Protocol::Tcp));
        assert_eq!(protocol("orders", 80), Some(Protocol::Http));
        assert_eq!(protocol("secret", 1), None);
        assert_eq!(protocol("nope", 80), None);
    }

    #[test]
    fn a_host_names_a_service_with_or_without_namespace_port_and_dot() {
        for host in [
            "orders.shop",
            "orders",
            "ORDERS.Shop",
            "orders.shop.",
            "orders.shop:80",
            "orders:80",
            "orders:6142",
        ] {
            assert_eq!(by_host(host).as_deref(), Ok("orders.shop:80"), "{host}");
        }
        assert_eq!(by_host("solo").as_deref(), Ok("solo.shop:8080"));
    }

    #[test]
    fn unknown_and_forbidden_hosts_differ() {
        for host in [
            "nope",
            "orders.other",
            "orders.shop:81",
            "example.com",
            "127.0.0.1",
            "db",
        ] {
            assert_eq!(by_host(host), Err(Reason::UnknownService), "{host}");
        }
        assert_eq!(by_host("secret"), Err(Reason::Denied));
    }

    #[test]
    fn without_a_table_nothing_is_ready() {
        let destination = Destination::Service {
            name: name("orders"),
            text: "orders.shop".into(),
            port: 80,
        };
        let astray = address(&Directory::default(), &destination, None, &own())
            .err()
            .unwrap();
        assert_eq!(astray.failure.reason, Reason::NotReady);
        assert_eq!(astray.wanted, Wanted::Known("orders.shop:80".into()));
    }

    /// As a request is routed.
    fn route(
        port: &Port,
        head: &Parts,
        now: Instant,
        random: &mut StdRng,
    ) -> Result<Route, Failure> {
        lead(port, rule(port, head, Some("orders"))?, None, now, random)
    }

    #[test]
    fn a_rule_splits_by_weight_and_names_the_parent() {
        let directory = directory();
        let port = directory.service("orders.shop").unwrap().port(80).unwrap();
        let mut random = StdRng::seed_from_u64(7);
        let mut second = 0;
        for _ in 0..1000 {
            let route = route(port, &head("/v/1?q", "orders"), Instant::now(), &mut random)
                .ok()
                .unwrap();
            assert_eq!(route.parent.unwrap().label.as_ref(), "orders.shop:80");
            second += usize::from(route.cluster.label.as_ref() == "orders-v2.shop:80");
        }
        assert!((60..140).contains(&second), "{second}");
    }

    #[test]
    fn routes_that_do_not_match_answer_404_and_tcp_needs_a_tunnel() {
        let directory = directory();
        let mut random = StdRng::seed_from_u64(7);
        let orders = directory.service("orders.shop").unwrap().port(80).unwrap();
        let failure = route(
            orders,
            &head("/other", "orders"),
            Instant::now(),
            &mut random,
        )
        .err()
        .unwrap();
        assert_eq!(failure.reason, Reason::NoRoute);
        let db = directory.service("db.shop").unwrap().port(5432).unwrap();
        assert_eq!(
            route(db, &head("/", "db"), Instant::now(), &mut random)
                .err()
                .unwrap()
                .reason,
            Reason::BadRequest
        );
        assert_eq!(
            lead(
                db,
                rule_of_tunnels(db, None).unwrap_or(None),
                None,
                Instant::now(),
                &mut random
            )
            .ok()
            .unwrap()
            .cluster
            .label
            .as_ref(),
            "db.shop:5432"
        );
    }
}
