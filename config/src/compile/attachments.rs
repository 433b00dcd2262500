//! Which routes act on which ports of Services (GEP-1294). Pure. Tables, status and warnings all ask here.
//!
//! Routes of a Service's own namespace (producers) hold for all callers; routes of another namespace
//! (consumers) hold for callers of that namespace, and there in place of the producers'. Within such a group,
//! routes of one kind act on a port.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::resources::{Key, Kind, Metadata, ParentRef, Route, ServiceSpec, Set};
use crate::table::{Protocol, ServiceName};

/// The routes of all ports.
pub(crate) struct Attachments<'a> {
    set: &'a Set,
    /// Which kinds are attached to a port, by group, with the first route of each.
    kinds: BTreeMap<(ServiceName, u16, Group<'a>), BTreeMap<u8, Route<'a>>>,
}

/// Routes that are merged with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group<'a> {
    /// Those of the Service's namespace.
    Producers,
    /// Those of this other namespace.
    Consumers(&'a str),
}

/// What a reference to a parent means.
pub(crate) enum Fit {
    /// There is no such Service.
    NoService,
    /// The route has rules, and none of them is valid.
    NoRule,
    /// No port of it fits.
    NoPort(Misfit),
    /// These ports.
    Ports(BTreeSet<u16>),
}

/// Why no port fits.
pub(crate) struct Misfit {
    /// The field of the reference at fault.
    pub(crate) field: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) hint: String,
}

/// What becomes of a route on a port.
pub(crate) enum Act<'a> {
    /// It takes its share of the traffic.
    Acts,
    /// Routes of another kind act, such as this one.
    Conflicts(&'a Key),
    /// An older route of its kind acts, and only one may.
    IsYounger(&'a Key),
}

impl<'a> Attachments<'a> {
    pub(crate) fn new(set: &'a Set) -> Self {
        let mut kinds: BTreeMap<_, BTreeMap<u8, Route<'a>>> = BTreeMap::new();
        for route in set.routes() {
            for parent in route.parents {
                let Fit::Ports(ports) = fit(set, &route, parent) else {
                    continue;
                };
                let (name, group) = (parent_name(&route, parent), group(&route, parent));
                for port in ports {
                    let of_port = kinds.entry((name.clone(), port, group)).or_default();
                    let first = of_port.entry(rank(route.key.kind)).or_insert(route);
                    if precedence(route.metadata, first.metadata) == Ordering::Less {
                        *first = route;
                    }
                }
            }
        }
        Self { set, kinds }
    }

    /// The ports that a reference means.
    pub(crate) fn fit(&self, route: &Route<'a>, parent: &'a ParentRef) -> Fit {
        fit(self.set, route, parent)
    }

    /// What becomes of a route on a port to which it is attached.
    pub(crate) fn act(&self, route: &Route<'a>, parent: &'a ParentRef, port: u16) -> Act<'a> {
        let place = (parent_name(route, parent), port, group(route, parent));
        let first = self
            .kinds
            .get(&place)
            .and_then(|kinds| kinds.first_key_value());
        match first {
            Some((_, other)) if other.key.kind != route.key.kind => Act::Conflicts(other.key),
            Some((_, other)) if route.key.kind == Kind::TcpRoute && other.key != route.key => {
                Act::IsYounger(other.key)
            }
            _ => Act::Acts,
        }
    }
}

/// The Service that a reference names.
pub(crate) fn parent_name<'a>(route: &Route<'a>, parent: &'a ParentRef) -> ServiceName {
    ServiceName {
        namespace: route.namespace_of(parent).to_owned(),
        name: parent.name.clone(),
    }
}

/// The group to which a route belongs at a parent.
pub(crate) fn group<'a>(route: &Route<'a>, parent: &'a ParentRef) -> Group<'a> {
    if route.namespace_of(parent) == route.key.namespace {
        Group::Producers
    } else {
        Group::Consumers(&route.key.namespace)
    }
}

/// Which of two routes comes first where both take a request by equal conditions (Gateway API v1,
/// HTTPRouteRule.matches): the older one, then by the text `NAMESPACE/NAME`.
pub(crate) fn precedence(one: &Metadata, other: &Metadata) -> Ordering {
    let text = |metadata: &Metadata| format!("{}/{}", metadata.namespace, metadata.name);
    // One of before ages were kept has none, and comes first.
    let age = one.creation_timestamp.cmp(&other.creation_timestamp);
    age.then_with(|| text(one).cmp(&text(other)))
}

/// Which kind acts where several are attached to a port (GEP-1294): the least.
fn rank(kind: Kind) -> u8 {
    let order = [
        Kind::GrpcRoute,
        Kind::HttpRoute,
        Kind::TlsRoute,
        Kind::TcpRoute,
    ];
    let at = order.iter().position(|one| *one == kind);
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

/// The protocols of ports for a kind of routes, and a hint to use one.
pub(super) fn needs(kind: Kind) -> (&'static str, &'static str) {
    if kind == Kind::TcpRoute {
        ("tcp", "a TCPRoute needs a tcp port")
    } else if kind == Kind::TlsRoute {
        ("tcp", "a TLSRoute needs a tcp port")
    } else if kind == Kind::GrpcRoute {
        ("http or grpc", "a GRPCRoute needs an http or grpc port")
    } else {
        ("http or grpc", "an HTTPRoute needs an http or grpc port")
    }
}

fn fit<'a>(set: &Set, route: &Route<'a>, parent: &'a ParentRef) -> Fit {
    let namespace = route.namespace_of(parent);
    let Some(service) = set.destination(parent.target_kind(), namespace, &parent.name) else {
        return Fit::NoService;
    };
    match ports(route.key.kind, parent, &service) {
        Ok(_) if route.is_without_valid_rule() => Fit::NoRule,
        Ok(ports) => Fit::Ports(ports),
        Err(misfit) => Fit::NoPort(misfit),
    }
}

fn ports(kind: Kind, parent: &ParentRef, service: &ServiceSpec) -> Result<BTreeSet<u16>, Misfit> {
    let (name, of) = (&parent.name, &parent.kind);
    let misfit = |field, message, hint: String| Misfit {
        field,
        message,
        hint,
    };
    let by_name = |wanted: &String| {
        service
            .ports
            .iter()
            .filter(|port| port.name.as_ref() == Some(wanted))
            .collect::<Vec<_>>()
    };
    let mut found: Vec<_> = match &parent.section_name {
        Some(wanted) => by_name(wanted),
        None => service.ports.iter().collect(),
    };
    if let (Some(wanted), true) = (&parent.section_name, found.is_empty()) {
        let names: Vec<&str> = service
            .ports
            .iter()
            .filter_map(|port| port.name.as_deref())
            .collect();
        let hint = match names.is_empty() {
            true => "its ports have no names; name one by its number".to_owned(),
            false => format!("it has {}", names.join(", ")),
        };
        let message = format!("{of} {name} has no port of the name {wanted}");
        return Err(misfit("sectionName", message, hint));
    }
    if let Some(number) = parent.port {
        found.retain(|port| port.port == number);
        if found.is_empty() {
            let (message, hint) = match &parent.section_name {
                Some(section) => (
                    format!("port {section} of {of} {name} is not {number}"),
                    "both must fit".to_owned(),
                ),
                None => {
                    let all = service.ports.iter();
                    let all: Vec<String> = all.map(|port| port.port.to_string()).collect();
                    let message = format!("{of} {name} has no port {number}");
                    (message, format!("it has {}", all.join(", ")))
                }
            };
            return Err(misfit("port", message, hint));
        }
    }
    let suits = |protocol: Protocol| protocol.has_requests() != kind.is_of_connections();
    let suiting: BTreeSet<u16> = found
        .iter()
        .filter(|port| suits(port.protocol))
        .map(|port| port.port)
        .collect();
    if !suiting.is_empty() {
        return Ok(suiting);
    }
    let (wanted, hint) = needs(kind);
    Err(
        match (found.as_slice(), parent.port, &parent.section_name) {
            ([port], Some(_), _) => {
                let message = format!("port {} of {of} {name} is {}", port.port, port.protocol);
                misfit("port", message, hint.to_owned())
            }
            ([port], None, Some(_)) => {
                let message = format!("port {} of {of} {name} is {}", port.port, port.protocol);
                misfit("sectionName", message, hint.to_owned())
            }
            _ => {
                let message = format!("{of} {name} has no {wanted} port");
                misfit("name", message, hint.to_owned())
            }
        },
    )
}
