//! The snapshot by which a worker routes: one table, prepared so that a request finds its service without an
//! allocation.
//!
//! A snapshot never changes. A new table makes a new one, which keeps the state of endpoints that stay
//! ([`crate::cluster`]). Pure: [`crate::outbound::route`] and `cluster/pick.rs` decide by it, and on the
//! serving side [`crate::inbound::authorise`].

mod endpoints;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use weft_config::table::{
    self, Filters, Forbidden, Locality, MirrorShare, Persistence, RouteRule, Router, ServiceName,
    SessionKey, Table, Tokens,
};
use weft_transport::identity::SpiffeId;

use crate::application::outside::Outside;
use crate::cluster::{self, Cluster};
use crate::outside::OutsideService;
use crate::outside::names::Answers;
use crate::resilience::destination::Destinations;
use endpoints::{Making, outside, peer};

/// What one worker knows of the mesh. The default holds no table yet: it answers "not ready" rather than "no
/// such service".
#[derive(Default)]
pub(crate) struct Directory {
    /// The table from which this snapshot was made; none until the first table arrives.
    pub(crate) table: Option<Arc<Table>>,
    /// By name, as `orders.shop`.
    services: HashMap<Box<str>, Service>,
    /// The services outside of the mesh by the names that applications write, as `api.example.com`.
    hosts: HashMap<Box<str>, Box<str>>,
    /// Their endpoints, which are swept.
    outside: Vec<Arc<Outside>>,
    /// Those that callers send through this sidecar, by label.
    leaving: HashMap<Box<str>, Arc<Leaving>>,
}

/// A port of a service outside of the mesh that callers send through a service of this sidecar.
pub(crate) struct Leaving {
    /// The service outside.
    pub(crate) name: ServiceName,
    /// Its port.
    pub(crate) number: u16,
    /// Its addresses.
    pub(crate) cluster: Arc<Cluster>,
    /// The service and port of the mesh that it is sent through.
    pub(crate) via: (ServiceName, u16),
}

/// A service that may be called.
pub(crate) struct Service {
    ports: BTreeMap<u16, Port>,
}

/// One port of a service, with the routes that apply to requests addressed to it.
pub(crate) struct Port {
    /// Its own endpoints, which routes to it use as well.
    pub(crate) cluster: Arc<Cluster>,
    /// In the table's order: the first rule that matches decides.
    pub(crate) rules: Vec<Rule>,
    /// Finds that rule; none where there are no rules.
    pub(crate) router: Option<Arc<Router>>,
}

/// A rule of a route with its backends looked up.
pub(crate) struct Rule {
    /// The table's rule.
    pub(crate) rule: Arc<RouteRule>,
    /// Its name, for metrics and logs.
    pub(crate) route: Arc<str>,
    /// What is done to all of its requests, if anything is.
    pub(crate) stage: Option<Arc<Stage>>,
    /// Its sessions, if it has any.
    pub(crate) sessions: Option<Arc<Sessions>>,
    /// Parallel to the rule's backends.
    pub(crate) backends: Vec<Led>,
}

/// The sessions of a rule.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// What the rule says of them.
    pub(crate) persistence: Arc<Persistence>,
    /// Seals and opens their tokens.
    pub(crate) tokens: Tokens,
}

impl Sessions {
    /// None without a key, as no token could be read or made.
    fn new(persistence: &Arc<Persistence>, keys: &[SessionKey]) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            persistence: Arc::clone(persistence),
            tokens: Tokens::new(keys)?,
        }))
    }
}

/// A backend of a rule.
pub(crate) struct Led {
    /// `None` for one that is not visible.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// What is done to requests that go there, if anything is.
    pub(crate) chain: Option<Arc<Chain>>,
}

/// What is done to a request that a rule sent to one of its backends.
pub(crate) struct Chain {
    /// By the rule, first.
    pub(crate) rule: Option<Arc<Stage>>,
    /// By the backend.
    pub(crate) backend: Option<Arc<Stage>>,
}

/// The filters of a rule, or of one of its backends.
pub(crate) struct Stage {
    /// As the table says them.
    pub(crate) filters: Arc<Filters>,
    /// Who gets copies. Those of a service that is not visible are left out: its requests are unharmed.
    pub(crate) mirrors: Vec<(MirrorShare, Arc<Cluster>)>,
}

impl Chain {
    /// Both of its stages, in the order in which requests pass them.
    pub(crate) fn stages(&self) -> impl DoubleEndedIterator<Item = &Arc<Stage>> {
        self.rule.iter().chain(&self.backend)
    }
}

impl Directory {
    /// Prepares a table. `previous` gives the state of endpoints that stay, `destinations` the state that all
    /// workers share; `here` is where this sidecar runs, and `answers` where names outside of the mesh lead.
    pub(crate) fn new(
        table: Arc<Table>,
        previous: &Self,
        destinations: &Destinations,
        here: Option<&Locality>,
        answers: &Answers,
        now: Instant,
    ) -> Self {
        let known: HashMap<&str, &Cluster> = previous
            .clusters()
            .map(|cluster| (&*cluster.label, cluster))
            .collect();
        let mut clusters: HashMap<(&ServiceName, u16), Arc<Cluster>> = HashMap::new();
        let (mut hosts, mut outsides) = (HashMap::new(), Vec::new());
        let mut leaving = HashMap::new();
        let making = Making {
            destinations,
            here,
            now,
        };
        for (name, service) in &table.services {
            let external = service.external.as_ref().map(|external| {
                for host in &external.hosts {
                    hosts.insert(host.as_str().into(), name.to_string().into_boxed_str());
                }
                Arc::new(OutsideService {
                    name: Some(name.clone()),
                    external: Arc::clone(external),
                })
            });
            let via = service.external.as_ref();
            let via = via.and_then(|external| external.via.as_ref());
            for (number, port) in &service.ports {
                let label = cluster::label(name, *number);
                if let Some(external) = &external
                    && let Some(via) = via.filter(|via| via.here)
                    && let Some(through) = via.ports.get(number)
                {
                    let known = previous.leaving.get(&*label);
                    let known = known.map(|known| &*known.cluster);
                    // The same text stays, as calls are counted by it.
                    let label =
                        known.map_or_else(|| Arc::clone(&label), |one| Arc::clone(&one.label));
                    let places = outside(external, *number, known, answers);
                    let absence = table::Absence::default();
                    let cluster = making
                        .cluster(label, port, (places, absence), known)
                        .of_outside(Some(Arc::clone(external)));
                    outsides.extend(cluster.outsides());
                    let sent = Leaving {
                        name: name.clone(),
                        number: *number,
                        cluster: Arc::new(cluster),
                        via: (via.service.clone(), *through),
                    };
                    leaving.insert(Box::from(&*sent.cluster.label), Arc::new(sent));
                }
                let known = known.get(&*label).copied();
                let cluster = match &external {
                    Some(external) if via.is_none() => {
                        let places = outside(external, *number, known, answers);
                        let absence = table::Absence::default();
                        making
                            .cluster(label, port, (places, absence), known)
                            .of_outside(Some(Arc::clone(external)))
                    }
                    Some(_) | None => {
                        let peers = port.endpoints.iter().map(peer).collect();
                        making.cluster(label, port, (peers, port.absence), known)
                    }
                };
                outsides.extend(cluster.outsides());
                clusters.insert((name, *number), Arc::new(cluster));
            }
        }
        for cluster in clusters.values() {
            if let Some(to) = &cluster.traffic.failover
                && let Some(other) = clusters.get(&(&to.service, to.port))
            {
                cluster.fall_back_on(other);
            }
        }
        let services = table.services.iter().map(|(name, service)| {
            let ports = service.ports.iter().filter_map(|(number, port)| {
                let cluster = Arc::clone(clusters.get(&(name, *number))?);
                let routes = &port.routes;
                let router = (!routes.is_empty()).then(|| cluster.destination.router(routes));
                let rules = router.iter().flat_map(|router| router.rules());
                let rules = rules
                    .map(|rule| Rule::new(rule, &clusters, &table.session_keys))
                    .collect();
                let port = Port {
                    cluster,
                    rules,
                    router,
                };
                Some((*number, port))
            });
            (
                name.to_string().into_boxed_str(),
                Service {
                    ports: ports.collect(),
                },
            )
        });
        let services = services.collect();
        drop(clusters);
        Self {
            table: Some(table),
            services,
            hosts,
            outside: outsides,
            leaving,
        }
    }

    /// The number of the revision that its routes and policies are of; none without a table.
    pub(crate) fn revision(&self) -> Option<u64> {
        Some(self.table.as_ref()?.revision.number)
    }

    /// The service of that name, as `orders.shop`.
    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// The service outside of the mesh that this name means.
    pub(crate) fn by_host(&self, host: &str) -> Option<&Service> {
        self.service(self.hosts.get(host)?)
    }

    /// Whether any request may leave the mesh.
    pub(crate) fn lets_out(&self) -> bool {
        let table = self.table.as_ref();
        !self.outside.is_empty() || table.is_some_and(|table| !table.egress.is_deny())
    }

    /// Whether callers send anything outside of the mesh through this sidecar.
    pub(crate) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// The port outside of the mesh of that label, as `pay.shop:443`, if callers send to it through this
    /// sidecar.
    pub(crate) fn leaving(&self, label: &[u8]) -> Option<&Arc<Leaving>> {
        self.leaving.get(std::str::from_utf8(label).ok()?)
    }

    /// The clusters to be shown, one of each label: what callers send through this sidecar by its addresses
    /// outside of the mesh, and not by the endpoints that its own workload calls.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Cluster> {
        let called = self.clusters();
        let called = called.filter(|cluster| !self.leaving.contains_key(&*cluster.label));
        called.chain(self.leaving.values().map(|leaving| &*leaving.cluster))
    }

    /// The endpoints outside of the mesh.
    pub(crate) fn outside(&self) -> &[Arc<Outside>] {
        &self.outside
    }

    /// Why this sidecar may not call the service, which exists.
    pub(crate) fn forbidden(&self, name: &ServiceName) -> Option<&Forbidden> {
        self.table.as_ref()?.forbidden.get(name)
    }

    /// The one service that workloads of this identity are endpoints of, as far as is visible here.
    pub(crate) fn service_of(&self, identity: &SpiffeId) -> Option<String> {
        let mut names = self
            .table
            .iter()
            .flat_map(|table| &table.services)
            // The endpoints of what is outside are those of the service that it is sent through.
            .filter(|(_, service)| service.external.is_none())
            .filter(|(_, service)| {
                let mut endpoints = service.ports.values().flat_map(|port| &port.endpoints);
                endpoints.any(|endpoint| endpoint.identity == *identity)
            })
            .map(|(name, _)| name);
        match (names.next(), names.next()) {
            (Some(only), None) => Some(only.to_string()),
            (_, _) => None,
        }
    }

    /// The cluster that replaces `of`, a cluster of an earlier snapshot. None if nothing changed; also none
    /// if no endpoint is left, because the earlier endpoints are then worth another attempt.
    pub(crate) fn successor(&self, of: &Arc<Cluster>) -> Option<Arc<Cluster>> {
        let (service, port) = of.label.rsplit_once(':')?;
        let cluster = &self.service(service)?.port(port.parse().ok()?)?.cluster;
        let changed = !Arc::ptr_eq(cluster, of) && !cluster.endpoints.is_empty();
        changed.then(|| Arc::clone(cluster))
    }

    /// The endpoints of every port.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.services
            .values()
            .flat_map(|service| service.ports.values())
            .map(|port| &*port.cluster)
    }
}

impl Service {
    /// The port of that number.
    pub(crate) fn port(&self, number: u16) -> Option<&Port> {
        self.ports.get(&number)
    }

    /// The numbers of its ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// The port that a URL without a port means: 80, or else the only port that takes requests.
    pub(crate) fn default_port(&self) -> Option<&Port> {
        let mut with_requests = self
            .ports
            .values()
            .filter(|port| port.cluster.protocol.has_requests());
        match (
            self.ports.get(&80),
            with_requests.next(),
            with_requests.next(),
        ) {
            (Some(http), _, _) => Some(http),
            (None, Some(only), None) => Some(only),
            (None, _, _) => None,
        }
    }
}

/// The endpoints of each port of the table.
type Clusters<'t> = HashMap<(&'t ServiceName, u16), Arc<Cluster>>;

impl Rule {
    fn new(
        rule: &Arc<RouteRule>,
        clusters: &Clusters<'_>,
        keys: &BTreeMap<String, Vec<SessionKey>>,
    ) -> Self {
        let stage = Stage::new(&rule.filters, clusters);
        let backends = rule.backends.iter().map(|backend| {
            let own = Stage::new(&backend.filters, clusters);
            let has_any = stage.is_some() || own.is_some();
            Led {
                cluster: clusters.get(&(&backend.service, backend.port)).cloned(),
                chain: has_any.then(|| {
                    Arc::new(Chain {
                        rule: stage.clone(),
                        backend: own,
                    })
                }),
            }
        });
        Self {
            route: Arc::from(rule.route.as_str()),
            backends: backends.collect(),
            stage: stage.clone(),
            sessions: rule.session.as_ref().and_then(|session| {
                let keys = keys.get(&session.scope)?;
                Sessions::new(session, keys)
            }),
            rule: Arc::clone(rule),
        }
    }
}

impl Stage {
    /// None where the filters do nothing.
    fn new(filters: &Arc<Filters>, clusters: &Clusters<'_>) -> Option<Arc<Self>> {
        let mirrors = filters.mirrors.iter().filter_map(|mirror| {
            let cluster = clusters.get(&(&mirror.service, mirror.port))?;
            Some((mirror.share, Arc::clone(cluster)))
        });
        (**filters != Filters::default()).then(|| {
            Arc::new(Self {
                filters: Arc::clone(filters),
                mirrors: mirrors.collect(),
            })
        })
    }
}

#[cfg(test)]
mod fuzz_tests;

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use weft_config::table::Protocol;

    use super::*;
    use crate::resilience::standing::Outcome;

    /// A table with `orders.shop:80` split 90/10 over two versions, `db.shop:5432`, and `solo.shop:8080`.
    pub(crate) fn table() -> Table {
        let port = |protocol, routes, endpoints| table::Port {
            h2c: false,
            protocol,
            routes,
            endpoints,
            absence: table::Absence::default(),
            traffic: table::Traffic::default(),
        };
        let service = |number, port| {
            Arc::new(table::Service {
                ports: [(number, port)].into(),
                external: None,
                authorization: None,
            })
        };
        let split = table::RouteRule {
            route: "HTTPRoute/shop/split".into(),
            matches: vec![table::HttpMatch {
                path: Some(table::PathMatch::Prefix("/v".into())),
                ..table::HttpMatch::default()
            }],
            backends: [("orders-v1", 90), ("orders-v2", 10)]
                .map(|(name, weight)| table::Backend::new(self::name(name), 80, weight))
                .into(),
            ..table::RouteRule::default()
        };
        Table {
            schema: table::Schema,
            revision: table::Revision {
                store: "s".into(),
                number: 1,
            },
            trust_domain: "demo.test".parse().unwrap(),
            services: [
                (
                    name("orders"),
                    service(80, port(Protocol::Http, vec![split], vec![])),
                ),
                (
                    name("orders-v1"),
                    service(80, port(Protocol::Http, vec![], vec![endpoint(1)])),
                ),
                (
                    name("orders-v2"),
                    service(
                        80,
                        port(Protocol::Http, vec![], vec![endpoint(2), endpoint(3)]),
                    ),
                ),
                (
                    name("db"),
                    service(5432, port(Protocol::Tcp, vec![], vec![endpoint(4)])),
                ),
                (
                    name("solo"),
                    service(8080, port(Protocol::Grpc, vec![], vec![])),
                ),
            ]
            .into(),
            forbidden: [(
                name("secret"),
                Forbidden {
                    ports: [(5432, Protocol::Tcp)].into(),
                    ban: table::Ban::DeniedBy("AuthorizationPolicy/shop/secret".into()),
                },
            )]
            .into(),
            session_keys: [].into(),
            egress: table::Egress::Deny,
            closed_hosts: std::collections::BTreeSet::new(),
        }
    }

    pub(crate) fn name(name: &str) -> ServiceName {
        ServiceName::new("shop", name).unwrap()
    }

    fn endpoint(number: u8) -> table::Endpoint {
        table::Endpoint {
            workload: format!("w{number}"),
            address: ([10, 0, 0, number], 6143).into(),
            identity: format!("spiffe://demo.test/ns/shop/sa/w{number}")
                .parse()
                .unwrap(),
            locality: None,
            details: table::Details::default(),
        }
    }

    /// A cluster with this many endpoints.
    pub(crate) fn cluster(endpoints: u8, traffic: table::Traffic) -> Arc<Cluster> {
        placed(&vec![None; endpoints.into()], None, traffic)
    }

    /// A cluster of endpoints at these places, as it is seen from `here`.
    pub(crate) fn placed(
        places: &[Option<&str>],
        here: Option<&str>,
        traffic: table::Traffic,
    ) -> Arc<Cluster> {
        let mut table = table();
        let endpoints = places
            .iter()
            .zip(0..)
            .map(|(place, number)| table::Endpoint {
                locality: place.map(|place| place.parse().unwrap()),
                ..endpoint(number)
            });
        let port = table::Port {
            h2c: false,
            protocol: Protocol::Http,
            routes: vec![],
            endpoints: endpoints.collect(),
            absence: table::Absence::default(),
            traffic,
        };
        let service = table::Service {
            ports: [(80, port)].into(),
            external: None,
            authorization: None,
        };
        table.services.insert(name("many"), Arc::new(service));
        let here: Option<Locality> = here.map(|here| here.parse().unwrap());
        let directory = Directory::new(
            Arc::new(table),
            &Directory::default(),
            &Destinations::default(),
            here.as_ref(),
            &Answers::default(),
            Instant::now(),
        );
        Arc::clone(
            &directory
                .service("many.shop")
                .unwrap()
                .port(80)
                .unwrap()
                .cluster,
        )
    }

    /// A cluster of endpoints with these weights.
    pub(crate) fn weighted(weights: &[u32], traffic: table::Traffic) -> Arc<Cluster> {
        let mut table = table();
        let endpoints = weights.iter().zip(0..).map(|(weight, number)| {
            let mut endpoint = endpoint(number);
            endpoint.details.weight = (*weight).try_into().unwrap();
            endpoint
        });
        let service = Arc::make_mut(table.services.get_mut(&name("solo")).unwrap());
        let port = service.ports.get_mut(&8080).unwrap();
        (port.endpoints, port.traffic) = (endpoints.collect(), traffic);
        let directory = after(table, &Directory::default());
        let service = directory.service("solo.shop").unwrap();
        Arc::clone(&service.port(8080).unwrap().cluster)
    }

    pub(crate) fn directory() -> Directory {
        after(table(), &Directory::default())
    }

    /// The snapshot that follows `previous`.
    pub(crate) fn after(table: impl Into<Arc<Table>>, previous: &Directory) -> Directory {
        let destinations = Destinations::default();
        let answers = Answers::default();
        Directory::new(
            table.into(),
            previous,
            &destinations,
            None,
            &answers,
            Instant::now(),
        )
    }

    #[test]
    fn a_cluster_of_an_earlier_snapshot_is_found_again_unless_it_is_the_same_or_empty() {
        let destinations = Destinations::default();
        let build = |table: Table, previous: &Directory| {
            Directory::new(
                Arc::new(table),
                previous,
                &destinations,
                None,
                &Answers::default(),
                Instant::now(),
            )
        };
        let cluster = |directory: &Directory, name: &str, port| {
            let service = directory.service(name).unwrap();
            Arc::clone(&service.port(port).unwrap().cluster)
        };
        let before = build(table(), &Directory::default());
        let db = cluster(&before, "db.shop", 5432);
        assert!(before.successor(&db).is_none());
        let mut moved = table();
        let port = |number| table::Port {
            h2c: false,
            protocol: Protocol::Tcp,
            routes: vec![],
            endpoints: number,
            absence: table::Absence::default(),
            traffic: table::Traffic::default(),
        };
        let service = |endpoints| {
            Arc::new(table::Service {
                ports: [(5432, port(endpoints))].into(),
                external: None,
                authorization: None,
            })
        };
        moved
            .services
            .insert(name("db"), service(vec![endpoint(9)]));
        let after = build(moved.clone(), &before);
        let found = after.successor(&db).unwrap();
        assert!(Arc::ptr_eq(&found, &cluster(&after, "db.shop", 5432)));
        moved.services.insert(name("db"), service(vec![]));
        assert!(build(moved.clone(), &before).successor(&db).is_none());
        moved.services.remove(&name("db"));
        assert!(build(moved, &before).successor(&db).is_none());
    }

    #[test]
    fn a_new_table_keeps_the_standing_of_endpoints_that_stay() {
        let old = directory();
        let cluster = |directory: &Directory| {
            Arc::clone(
                &directory
                    .service("db.shop")
                    .unwrap()
                    .port(5432)
                    .unwrap()
                    .cluster,
            )
        };
        let flight = cluster(&old).start(0, Instant::now());
        let new = after(table(), &old);
        let load = || {
            let standing = &cluster(&new).endpoints[0].standing;
            standing.status(Instant::now(), Duration::ZERO).load
        };
        assert_eq!(load(), 1);
        drop(flight);
        assert_eq!(load(), 0);
    }

    #[test]
    fn a_return_that_an_old_snapshot_sees_does_not_hide_that_others_are_out() {
        let db = |numbers: &[u8]| {
            let mut table = table();
            let mut service = (*table.services[&name("db")]).clone();
            let port = service.ports.get_mut(&5432).unwrap();
            port.endpoints = numbers.iter().map(|number| endpoint(*number)).collect();
            table.services.insert(name("db"), Arc::new(service));
            table
        };
        let cluster = |directory: &Directory| {
            let service = directory.service("db.shop").unwrap();
            Arc::clone(&service.port(5432).unwrap().cluster)
        };
        let now = Instant::now();
        let put_out = |cluster: &Arc<Cluster>, index| {
            for _ in 0..5 {
                cluster.start(index, now).unwrap().tell(Outcome::Badly, now);
            }
        };
        let before = after(db(&[1, 2]), &directory());
        let newer = after(db(&[1, 2, 3, 4]), &before);
        let (old, new) = (cluster(&before), cluster(&newer));
        put_out(&new, 0);
        put_out(&new, 3);
        let late = now + Duration::from_secs(3);
        old.start(0, late).unwrap().tell(Outcome::Well, late);
        assert!(!new.endpoints[0].standing.is_out());
        assert!(new.may_have_out() && old.may_have_out());
        // Endpoints that are in no snapshot any more do not count either.
        drop((before, old, newer, new));
        let again = cluster(&after(db(&[1]), &Directory::default()));
        assert!(!again.may_have_out());
        let newer = after(db(&[1, 2, 3, 4]), &Directory::default());
        put_out(&cluster(&newer), 3);
        let newest = after(db(&[1, 2, 3]), &newer);
        drop(newer);
        assert!(!cluster(&newest).may_have_out());
    }

    #[test]
    fn an_identity_names_a_service_only_if_it_serves_just_one() {
        let mut table = table();
        let shared = Arc::clone(&table.services[&name("db")]);
        let directory = directory();
        let id = |account: &str| {
            format!("spiffe://demo.test/ns/shop/sa/{account}")
                .parse()
                .unwrap()
        };
        assert_eq!(directory.service_of(&id("w4")).as_deref(), Some("db.shop"));
        assert_eq!(directory.service_of(&id("frontend")), None);
        table.services.insert(name("db-too"), shared);
        let directory = after(table, &directory);
        assert_eq!(directory.service_of(&id("w4")), None);
    }

    #[test]
    fn the_default_port_is_80_or_the_only_one_with_requests() {
        let directory = directory();
        let label = |name: &str| {
            directory
                .service(name)
                .unwrap()
                .default_port()
                .map(|port| port.cluster.label.to_string())
        };
        assert_eq!(label("orders.shop").as_deref(), Some("orders.shop:80"));
        assert_eq!(label("solo.shop").as_deref(), Some("solo.shop:8080"));
        assert_eq!(label("db.shop"), None);
    }
}
