//! Where a request would go, and why: what `weft explain` prints. It asks the code that sidecars run: the
//! rules and their order, the filters' answers and rewrites, and the decision of the sidecar that would
//! deliver. Pure.
//!
//! Not here: what a request meets on its way (endpoints that fail, limits that are reached); `weft endpoints`
//! and the metrics show that.

pub(crate) mod described;
mod passed_over;

use std::borrow::Cow;
use std::sync::Arc;

use http::header::LOCATION;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Uri};
use serde::Serialize;
use weft_config::table::{Backend, Filters, RouteRule, Router, Service, ServiceName, Table};
use weft_transport::identity::SpiffeId;
use weft_transport::units::format_duration;

use described::described;

use super::filters::{Addressed, rewrite, routed};
use super::instead::Instead;
use crate::failure::Reason;
use crate::inbound::authorise::{Call, would_allow};

/// What is asked.
pub struct Question<'a> {
    /// The identity of the workload that calls.
    pub caller: &'a SpiffeId,
    /// The table that its sidecar runs.
    pub table: &'a Table,
    /// The service that it addresses.
    pub service: &'a ServiceName,
    /// And the port.
    pub port: u16,
    /// The request's head, with a URI in origin form, or in absolute form for the authority.
    pub head: &'a Parts,
    /// The host that a client of TLS asks for, where routes of the port go by it.
    pub server_name: Option<&'a str>,
}

/// Where the request would go. Its parts are named as in the output of `weft explain -o json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// The service and port that is addressed, as `orders.shop:80`.
    pub service: String,
    /// The route whose rule takes the request, as `HTTPRoute/shop/orders`; none where no route is in force.
    pub route: Option<String>,
    /// That rule, by its name or its place in the route.
    pub rule: Option<String>,
    /// The rules before it, and why each does not take the request.
    pub passed_over: Vec<PassedOver>,
    /// How requests of one client come to one endpoint, where the rule says so: it comes before the shares of
    /// the backends.
    pub session: Option<String>,
    /// Where the requests of the rule go. Empty where the mesh answers.
    pub backends: Vec<Share>,
    /// The one backend that gets all of them, if there is one.
    pub backend: Option<String>,
    /// The status that the mesh answers with, if it answers itself.
    pub status: Option<u16>,
    /// Why the mesh answers, or with which URL.
    pub answer: Option<String>,
    /// What the rule's filters do.
    pub filters: Vec<String>,
    /// How long it may take, and when it is sent again.
    pub treatment: Option<Treatment>,
    /// Whether each sidecar that could deliver it would.
    pub authorized: Option<bool>,
    /// What each of them would say.
    pub decisions: Vec<Decision>,
}

/// A rule that does not take the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The rule, as in logs.
    pub rule: String,
    /// The first of its conditions that does not hold.
    pub because: String,
}

/// A backend of the rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The service and port, as `orders-v2.shop:80`.
    pub backend: String,
    /// Its part of the requests, in percent.
    pub percent: f64,
    /// Its endpoints, as far as they are known.
    pub endpoints: Option<usize>,
    /// Where it is, if it is outside of the mesh.
    pub outside: Option<Outside>,
    /// What its own filters do, after those of the rule.
    pub filters: Vec<String>,
    /// What the application would see; none where the mesh answers, and for a connection.
    pub delivered: Option<Delivered>,
    /// The status of its requests, where the mesh answers them.
    pub status: Option<u16>,
    /// Why.
    pub answer: Option<String>,
}

/// A backend outside of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outside {
    /// The names that it is called by.
    pub hosts: Vec<String>,
    /// Its addresses, where it has its own; else the first of its names is resolved.
    pub addresses: Vec<String>,
    /// The name that its certificate has to prove, where TLS is spoken to it.
    pub tls: Option<String>,
    /// The service and port whose sidecars send it outside, as `egress.infra:80`; none where the caller's own
    /// sidecar does.
    pub via: Option<String>,
}

/// The head as the application sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivered {
    /// Its path and query.
    pub path: String,
    /// Its host.
    pub host: String,
}

/// How the caller's sidecar treats the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Treatment {
    /// All attempts together; `none` is without end.
    pub request_timeout: String,
    /// One attempt.
    pub attempt_timeout: String,
    /// Attempts after the first.
    pub retries: u32,
    /// Statuses that lead to another attempt.
    pub retried_codes: Vec<u16>,
}

/// What the sidecar of a service would say of the call, or the one that sends it out of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The service whose policies are asked.
    pub service: String,
    /// Whether they allow it.
    pub allowed: bool,
    /// The policy that decides; none if the default does.
    pub policy: Option<String>,
    /// Why, where they do not.
    pub because: Option<String>,
}

/// Explains one request, or connection. `served` gives the table of a sidecar that serves a service.
pub fn explain(question: &Question<'_>, served: impl Fn(&ServiceName) -> Table) -> Explanation {
    let mut explanation = Explanation {
        service: format!("{}:{}", question.service, question.port),
        ..Explanation::default()
    };
    if let Some(forbidden) = question.table.forbidden.get(question.service) {
        explanation.authorized = Some(false);
        let because = format!("{} may not call it: {}", question.caller, forbidden.ban);
        return explanation.answered(Reason::Denied, because);
    }
    let service = question.table.services.get(question.service);
    let Some(port) = service.and_then(|service| service.ports.get(&question.port)) else {
        let because = match service {
            None => "the mesh has no such service".to_owned(),
            Some(service) => format!("it has the ports {}", ports(service)),
        };
        return explanation.answered(Reason::UnknownService, because);
    };
    if port.routes.is_empty() {
        explanation.treated(&port.traffic.request);
        let own = Backend::new(question.service.clone(), question.port, 1);
        let target = question.target();
        return explanation.led(question, &[own], &target, &served);
    }
    let router = Router::new(&port.routes);
    let found = match router.asks_for_hosts() {
        true => explanation.by_host(question, port, &router),
        false => explanation.by_request(question, port, &router),
    };
    let Some(rule) = found.and_then(|place| port.routes.get(place)) else {
        return explanation.answered(Reason::NoRoute, "no rule takes it".to_owned());
    };
    let (route, name) = split(&rule.route);
    explanation.route = Some(route);
    explanation.rule = name;
    explanation.filters = described(&rule.filters);
    explanation.session = rule.session.as_ref().map(|session| format!("{session}"));
    explanation.treated(&rule.traffic);
    explanation.by_rule(question, rule, &served)
}

impl Explanation {
    fn answered(mut self, reason: Reason, because: String) -> Self {
        self.status = Some(reason.status().as_u16());
        self.answer = Some(because);
        self
    }

    fn treated(&mut self, traffic: &weft_config::table::RequestTraffic) {
        let time =
            |time: Option<std::time::Duration>| time.map_or("none".to_owned(), format_duration);
        self.treatment = Some(Treatment {
            request_timeout: time(traffic.timeouts.request),
            attempt_timeout: time(traffic.timeouts.backend_request),
            retries: traffic.retry.attempts,
            retried_codes: traffic.retry.codes.clone(),
        });
    }

    fn by_rule(
        mut self,
        question: &Question<'_>,
        rule: &RouteRule,
        served: &impl Fn(&ServiceName) -> Table,
    ) -> Self {
        let target = question.target();
        if let Some((status, answer)) = answer_of(&rule.filters, question, &target, &self.service) {
            (self.status, self.answer) = (Some(status), Some(answer));
            return self;
        }
        let target = rewritten(target, &rule.filters);
        self.led(question, &rule.backends, &target, served)
    }

    /// To the backends, whose own filters come after those of the rule.
    fn led(
        mut self,
        question: &Question<'_>,
        backends: &[Backend],
        target: &Uri,
        served: &impl Fn(&ServiceName) -> Table,
    ) -> Self {
        let sum: u64 = backends.iter().map(|one| u64::from(one.weight)).sum();
        if sum == 0 {
            return self.answered(Reason::NoBackend, "the rule has no backend".to_owned());
        }
        for backend in backends.iter().filter(|one| one.weight > 0) {
            let percent = f64::from(backend.weight) * 100.0 / sum as f64;
            let table = deciding(question, &backend.service, served);
            let mut share = share_of(question, backend, percent, target, &self.service);
            share.outside = outside(&table, backend);
            if share.answer.is_none() {
                let delivered = share.delivered.as_ref();
                let path = delivered.map(|delivered| delivered.path.as_str());
                self.decide(question, backend, path, &table);
            }
            self.backends.push(share);
        }
        if let [only] = self.backends.as_slice() {
            (self.status, self.answer) = (only.status, only.answer.clone());
            self.backend = Some(only.backend.clone());
        }
        self
    }

    /// Asks the policies of the backend, and those of the service that was addressed.
    fn decide(
        &mut self,
        question: &Question<'_>,
        backend: &Backend,
        target: Option<&str>,
        table: &Table,
    ) {
        let path = target.and_then(|target| target.split('?').next());
        let parent = (backend.service != *question.service).then_some(question.service);
        let call = Call {
            caller: Some(question.caller),
            parent,
            request: path.map(|path| (question.head.method.as_str(), path)),
        };
        for name in std::iter::once(&backend.service).chain(parent) {
            let (policy, outcome) = would_allow(table, name, &call);
            let decision = Decision {
                service: name.to_string(),
                allowed: outcome.is_ok(),
                policy,
                because: outcome.err().map(|failure| failure.detail.into_owned()),
            };
            if !self.decisions.contains(&decision) {
                self.decisions.push(decision);
            }
        }
        self.authorized = Some(self.decisions.iter().all(|one| one.allowed));
    }
}

fn share_of(
    question: &Question<'_>,
    backend: &Backend,
    percent: f64,
    target: &Uri,
    label: &str,
) -> Share {
    let service = question.table.services.get(&backend.service);
    let port = service.and_then(|service| service.ports.get(&backend.port));
    let unusable = |why: String| Some((Reason::NoBackend.status().as_u16(), why));
    let answer = match (backend.broken, port) {
        (Some(broken), _) => unusable(broken.as_str().to_owned()),
        (None, None) => unusable(format!("{} may not call it", question.caller)),
        (None, Some(_)) => answer_of(&backend.filters, question, target, label),
    };
    let has_requests = port.is_none_or(|port| port.protocol.has_requests());
    let delivered = (answer.is_none() && has_requests).then(|| {
        let target = rewritten(target.clone(), &backend.filters);
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        Delivered {
            path: path.to_owned(),
            host: target
                .authority()
                .map_or(String::new(), ToString::to_string),
        }
    });
    let (status, answer) = answer.unzip();
    Share {
        backend: format!("{}:{}", backend.service, backend.port),
        percent: (percent * 100.0).round() / 100.0,
        endpoints: port
            .map(|port| port.endpoints.len())
            .filter(|count| *count > 0),
        outside: None,
        filters: described(&backend.filters),
        delivered,
        status,
        answer,
    }
}

/// The table of a sidecar that decides about calls to a service: one that serves it, or that sends it out of
/// the mesh.
fn deciding<'q>(
    question: &Question<'q>,
    service: &ServiceName,
    served: &impl Fn(&ServiceName) -> Table,
) -> Cow<'q, Table> {
    let known = question.table.services.get(service);
    match known.and_then(|known| known.external.as_ref()) {
        None => Cow::Owned(served(service)),
        Some(external) => match &external.via {
            None => Cow::Borrowed(question.table),
            Some(via) => Cow::Owned(served(&via.service)),
        },
    }
}

/// Where a backend is, if it is outside of the mesh.
fn outside(table: &Table, backend: &Backend) -> Option<Outside> {
    let service = table.services.get(&backend.service)?;
    let external = service.external.as_ref()?;
    let via = external.via.as_ref().map(|via| {
        let port = via.ports.get(&backend.port);
        port.map_or_else(
            || via.service.to_string(),
            |port| format!("{}:{port}", via.service),
        )
    });
    let addresses = external.addresses.iter();
    let tls = external.tls.get(&backend.port);
    Some(Outside {
        hosts: external.hosts.clone(),
        addresses: addresses.map(ToString::to_string).collect(),
        tls: tls.map(|tls| tls.server_name.clone()),
        via,
    })
}

/// What filters answer in place of a backend, as sidecars do.
fn answer_of(
    filters: &Filters,
    question: &Question<'_>,
    target: &Uri,
    label: &str,
) -> Option<(u16, String)> {
    let mut head = Request::new(()).into_parts().0;
    head.method = question.head.method.clone();
    head.headers = question.head.headers.clone();
    head.uri = target.clone();
    let authority = target.authority().map(|authority| authority.as_str());
    let addressed = Addressed { authority, label };
    match routed::answer(filters, &head, addressed, &Arc::from("the route")) {
        Ok(()) => None,
        Err(Instead::Failure(failure)) => Some((
            failure.reason.status().as_u16(),
            failure.detail.into_owned(),
        )),
        Err(Instead::Reply(reply)) => {
            let location = reply.headers.get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            let says = location.unwrap_or("its CORS filter answers the preflight");
            Some((reply.status.as_u16(), says.to_owned()))
        }
    }
}

/// The target after the filters. What cannot be rewritten fails in the sidecar; validation refuses such
/// filters.
fn rewritten(target: Uri, filters: &Filters) -> Uri {
    let mut changed = target.clone();
    match rewrite::apply(&mut changed, &filters.rewrite) {
        Ok(()) => changed,
        Err(_) => target,
    }
}

impl Question<'_> {
    /// The whole target, with the service as authority where the request names none.
    fn target(&self) -> Uri {
        let authority = authority(self.head);
        let authority = authority.map_or_else(|| self.service.to_string(), str::to_owned);
        let path = self.head.uri.path_and_query().cloned();
        let uri = Uri::builder().scheme("http").authority(authority);
        let uri = uri.path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        uri.build().unwrap_or_else(|_| self.head.uri.clone())
    }
}

fn authority(head: &Parts) -> Option<&str> {
    let of_uri = head.uri.authority().map(|authority| authority.as_str());
    of_uri.or_else(|| head.headers.get(http::header::HOST)?.to_str().ok())
}

/// `HTTPRoute/shop/orders/0` is a route and a rule of it.
fn split(name: &str) -> (String, Option<String>) {
    match name.match_indices('/').nth(2) {
        Some((at, _)) => (name[..at].to_owned(), Some(name[at + 1..].to_owned())),
        None => (name.to_owned(), None),
    }
}

fn ports(service: &Service) -> String {
    let ports: Vec<String> = service.ports.keys().map(u16::to_string).collect();
    ports.join(", ")
}

#[cfg(test)]
mod tests;
