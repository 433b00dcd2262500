//! Whom a request is for, and which cluster takes it. Pure: the snapshot, the request and randomness are
//! arguments.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use rand::Rng;
use weft_config::table::{RequestTraffic, ServiceName};

use crate::cluster::Cluster;
use crate::directory::{Directory, Port};
use crate::failure::{Failure, Reason};
use crate::http::authority::Authority;
use crate::resilience::balance::pick_weighted;
use crate::resilience::destination::Event;

/// What a listener leads to.
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
        /// The listener's own port, which clients put into Host although they mean none.
        listener_port: Option<u16>,
    },
}

/// Where a request goes.
pub(crate) struct Route {
    /// The backend's endpoints.
    pub(crate) cluster: Arc<Cluster>,
    /// The addressed service, where a route chose another.
    pub(crate) parent: Option<Arc<Cluster>>,
    /// The rule's name.
    pub(crate) name: Option<Arc<str>>,
    /// How the request is treated.
    pub(crate) traffic: Arc<RequestTraffic>,
}

/// Finds the port that the application addressed.
pub(crate) fn address<'d>(
    directory: &'d Directory,
    destination: &Destination,
    authority: Option<&Authority<'_>>,
) -> Result<&'d Port, Failure> {
    if directory.table.is_none() {
        return Err(Failure::new(
            Reason::NotReady,
            "no table from the config service yet",
        ));
    }
    match destination {
        Destination::Service { name, text, port } => directory
            .service(text)
            .and_then(|service| service.port(*port))
            .ok_or_else(|| unknown(directory, Some(name), &format!("{name}:{port}"))),
        Destination::ByHost {
            namespace,
            listener_port,
        } => {
            let authority =
                authority.ok_or_else(|| Failure::new(Reason::BadRequest, "no Host to route by"))?;
            by_host(directory, namespace, *listener_port, authority)
        }
    }
}

fn by_host<'d>(
    directory: &'d Directory,
    namespace: &str,
    listener_port: Option<u16>,
    authority: &Authority<'_>,
) -> Result<&'d Port, Failure> {
    let service = match authority.host.contains('.') {
        true => directory.service(&authority.host),
        false => directory.service(&format!("{}.{namespace}", authority.host)),
    };
    let port = service.and_then(|service| match authority.port {
        None => service.default_port(),
        Some(number) => service.port(number).or_else(|| {
            service
                .default_port()
                .filter(|_| Some(number) == listener_port)
        }),
    });
    port.ok_or_else(|| {
        let name = ServiceName::parse_in(namespace, &authority.host).ok();
        unknown(directory, name.as_ref(), authority.text)
    })
}

fn unknown(directory: &Directory, name: Option<&ServiceName>, shown: &str) -> Failure {
    if name.is_some_and(|name| directory.is_forbidden(name)) {
        return Failure::new(
            Reason::Denied,
            format!("this workload may not call {shown}"),
        );
    }
    Failure::new(
        Reason::UnknownService,
        format!("no service {shown} in the mesh"),
    )
}

/// Applies the routes of the addressed port.
pub(crate) fn route(
    port: &Port,
    head: &Parts,
    now: Instant,
    random: &mut impl Rng,
) -> Result<Route, Failure> {
    if !port.cluster.protocol.has_requests() {
        return Err(Failure::new(
            Reason::BadRequest,
            format!(
                "{} is a TCP service: it needs a listener of its own",
                port.cluster.label
            ),
        ));
    }
    choose(
        port,
        head.method.as_str(),
        head.uri.path(),
        &|name, value| has_line(head, name, value),
        now,
        random,
    )
}

/// Applies the routes of a TCP service: only rules without conditions can match.
pub(crate) fn route_tunnel(
    port: &Port,
    now: Instant,
    random: &mut impl Rng,
) -> Result<Route, Failure> {
    choose(port, "CONNECT", "", &|_, _| false, now, random)
}

fn choose(
    port: &Port,
    method: &str,
    path: &str,
    header: &dyn Fn(&str, &str) -> bool,
    now: Instant,
    random: &mut impl Rng,
) -> Result<Route, Failure> {
    if port.rules.is_empty() {
        let traffic = Arc::clone(&port.cluster.traffic.request);
        return Ok(lead(port, Arc::clone(&port.cluster), None, traffic, now));
    }
    let rule = port
        .rules
        .iter()
        .find(|rule| rule.rule.matches(method, path, header))
        .ok_or_else(|| {
            Failure::new(
                Reason::NoRoute,
                format!("no route of {} takes this request", port.cluster.label),
            )
        })?;
    let index = pick_weighted(
        rule.rule.backends.iter().map(|backend| backend.weight),
        random,
    )
    .ok_or_else(|| Failure::new(Reason::NoBackend, format!("{} has no backend", rule.route)))?;
    let cluster = rule.backends.get(index).cloned().flatten().ok_or_else(|| {
        Failure::new(
            Reason::NoBackend,
            format!("a backend of {} may not be called from here", rule.route),
        )
    })?;
    let traffic = Arc::clone(&rule.rule.traffic);
    Ok(lead(
        port,
        cluster,
        Some(Arc::clone(&rule.route)),
        traffic,
        now,
    ))
}

/// To the backend, or to the one that takes over for it.
fn lead(
    port: &Port,
    backend: Arc<Cluster>,
    name: Option<Arc<str>>,
    traffic: Arc<RequestTraffic>,
    now: Instant,
) -> Route {
    let cluster = match backend.failover(now) {
        Some(other) => {
            backend.destination.counts.add(Event::FailedOver);
            other
        }
        None => backend,
    };
    let parent = (cluster.label != port.cluster.label).then(|| Arc::clone(&port.cluster));
    Route {
        cluster,
        parent,
        name,
        traffic,
    }
}

fn has_line(head: &Parts, name: &str, value: &str) -> bool {
    head.headers
        .get_all(name)
        .iter()
        .any(|line| line.as_bytes() == value.as_bytes())
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

    fn by_host(host: &str) -> Result<String, Reason> {
        let directory = directory();
        let destination = Destination::ByHost {
            namespace: "shop".into(),
            listener_port: Some(6142),
        };
        let head = head("/", host);
        let authority = authority::canonical(&head).unwrap();
        address(&directory, &destination, authority.as_ref())
            .map(|port| port.cluster.label.to_string())
            .map_err(|failure| failure.reason)
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
        let failure = address(&Directory::default(), &destination, None)
            .err()
            .unwrap();
        assert_eq!(failure.reason, Reason::NotReady);
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
            route_tunnel(db, Instant::now(), &mut random)
                .ok()
                .unwrap()
                .cluster
                .label
                .as_ref(),
            "db.shop:5432"
        );
    }
}
