//! The services that this sidecar serves, and which of them a request means. Pure except for the counts of
//! calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use weft_config::settings::{HealthCheck, LocalAddress};
use weft_config::table::{Port, Protocol, RetryBudget, ServiceName, Table, Traffic};

use super::callers::PlaintextCallers;
use crate::cluster;
use crate::failure::{Failure, Reason};
use crate::health::ShownHealth;
use crate::http::authority;
use crate::http::fields::{WEFT_ROUTE_PARENT, WEFT_SERVICE};
use crate::resilience::destination::{Destination, Destinations, Event};
use crate::resilience::limit::{AdaptiveState, Ask, Caller, Concurrency, Kind, Limits};
use crate::resilience::overload::watch::Sign;
use crate::resilience::overload::{Change, Outcome, Ticket};
use crate::resilience::rate::{self, NamedRates, Rates};

/// One port of a service that the application behind this sidecar serves.
pub(crate) struct ServedService {
    /// The service.
    pub(crate) name: ServiceName,
    /// Its port.
    pub(crate) port: u16,
    /// `orders.shop:80`.
    pub(crate) label: Arc<str>,
    /// Where the application listens; none where calls only pass, to services outside of the mesh.
    pub(crate) application: Option<LocalAddress>,
    /// Whether it gets `Via`.
    pub(crate) send_via: bool,
    /// Calls under way, and how many may be.
    pub(crate) concurrency: Concurrency,
    /// Rate limits over all callers and for each.
    rates: Rates,
    caller_rates: NamedRates,
    /// The same by source address, so that many addresses leave identities their own.
    source_rates: NamedRates,
    /// Callers without mutual TLS.
    pub(crate) plaintext: PlaintextCallers,
    /// Where refused calls are counted.
    pub(crate) destination: Arc<Destination>,
    /// Whether the application is able to serve.
    pub(crate) health: ShownHealth,
}

impl ServedService {
    /// A service with nothing under way.
    pub(crate) fn new(
        name: ServiceName,
        port: u16,
        (application, check): (Option<LocalAddress>, Option<HealthCheck>),
        destinations: &Destinations,
        now: Instant,
    ) -> Self {
        let label = cluster::label(&name, port);
        let destination = destinations.get(&label, &RetryBudget::default(), now);
        Self {
            name,
            port,
            label,
            application,
            send_via: true,
            concurrency: Concurrency::new(now),
            rates: Rates::default(),
            caller_rates: NamedRates::default(),
            source_rates: NamedRates::default(),
            plaintext: PlaintextCallers::default(),
            destination,
            health: ShownHealth::new(check, now),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(name: ServiceName, port: u16) -> Self {
        let application = LocalAddress::Tcp(([127, 0, 0, 1], 1).into());
        let now = std::time::Instant::now();
        let check = HealthCheck::connects(application.clone(), Duration::from_secs(1));
        let destinations = Destinations::default();
        let both = (Some(application), Some(check));
        Self::new(name, port, both, &destinations, now)
    }

    /// Counts one more call, unless too many are under way, of its caller or of all.
    pub(crate) fn start(
        self: &Arc<Self>,
        limits: &Limits,
        ask: &Ask<'_>,
    ) -> Result<InFlight, Failure> {
        let verdict = self.concurrency.begin(limits, ask);
        self.tell(verdict.change);
        if let Some(full) = verdict.observed {
            self.destination.counts.add(full.event(false));
        }
        match verdict.outcome {
            Ok(ticket) => Ok(InFlight {
                service: Arc::clone(self),
                caller: ask.caller.clone(),
                ticket,
            }),
            Err(full) => {
                self.destination.counts.add(full.event(true));
                let (limit, label) = (full.limit, &self.label);
                let detail = match full.kind {
                    Kind::Fixed => format!("{limit} calls of {label} are under way"),
                    Kind::Adaptive => format!(
                        "the application of {label} is overloaded: {limit} calls may wait for it"
                    ),
                    Kind::Share => {
                        format!("this caller has its share of the {limit} calls of {label} at once")
                    }
                };
                Err(Failure::new(Reason::Overloaded, detail))
            }
        }
    }

    /// The state of the adaptive limit.
    pub(crate) fn adaptive(&self, now: Instant) -> AdaptiveState {
        let (state, change) = self.concurrency.adaptive(now);
        self.tell(change);
        state
    }

    /// Logs that the adaptive limit begins or stops acting.
    fn tell(&self, change: Option<Change>) {
        let service = &*self.label;
        match change {
            None => {}
            Some(Change::Acts(sign)) => {
                self.destination.counts.add(Event::AdaptiveActs);
                let why = match sign {
                    Sign::Loss => "callers give up on requests that wait in its queue",
                    Sign::Growth => "its queue grows without end",
                };
                tracing::warn!(
                    service,
                    why,
                    "the application is overloaded: the adaptive limit acts"
                );
            }
            Some(Change::Over) => {
                tracing::info!(
                    service,
                    "the overload is over: the adaptive limit acts no more"
                );
            }
            Some(Change::Useless) => {
                tracing::warn!(
                    service,
                    "the adaptive limit did not help and acts no more for a while"
                );
            }
        }
    }

    /// Takes a token for one more call of this caller, if the policy limits its rate.
    pub(crate) fn take_rate(&self, caller: Rated<'_>, policy: &Traffic) -> Result<(), Failure> {
        let counts = &self.destination.counts;
        let judge = |verdict: rate::Verdict, refused: Event, observed: Event, whose: &str| {
            if verdict.observed {
                counts.add(observed);
            }
            if !verdict.refused {
                return Ok(());
            }
            counts.add(refused);
            let label = &self.label;
            Err(Failure::new(
                Reason::RateLimited,
                format!("the rate of {whose} to {label} is over its limit"),
            ))
        };
        if !policy.rate_limits.is_empty() {
            let verdict = self.rates.take(&policy.rate_limits);
            judge(verdict, Event::RefusedRate, Event::ObservedRate, "calls")?;
        }
        if !policy.caller_rate_limits.is_empty() {
            let limits = &policy.caller_rate_limits;
            let verdict = match caller {
                Rated::Identity(name) => self.caller_rates.take(name, limits),
                Rated::Source(name) => self.source_rates.take(name, limits),
            };
            let (refused, observed) = (Event::RefusedCallerRate, Event::ObservedCallerRate);
            judge(verdict, refused, observed, "this caller")?;
        }
        Ok(())
    }

    /// The time without progress after which its streams are reset, if the policy sets one.
    pub(crate) fn stream_idle(&self, table: Option<&Table>) -> Option<Duration> {
        self.port_of(table)?.traffic.request.timeouts.stream_idle
    }

    /// The service's part of the table.
    pub(crate) fn port_of<'t>(&self, table: Option<&'t Table>) -> Option<&'t Port> {
        table?.services.get(&self.name)?.ports.get(&self.port)
    }

    /// Whether its application takes every request over HTTP/2, as far as the table tells.
    pub(crate) fn is_multiplexed(&self, table: Option<&Table>) -> bool {
        self.port_of(table).is_some_and(Port::is_multiplexed)
    }

    /// The protocol of the port, as far as the table tells.
    pub(crate) fn protocol(&self, table: Option<&Table>) -> Option<Protocol> {
        self.port_of(table).map(|port| port.protocol)
    }
}

/// By what the rate of a caller is limited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rated<'a> {
    /// Its SPIFFE ID.
    Identity(&'a str),
    /// Its source address, if it proved no identity.
    Source(&'a str),
}

/// One call under way.
pub(crate) struct InFlight {
    service: Arc<ServedService>,
    /// The caller.
    pub(crate) caller: Caller,
    /// Held while it waits for the head of its answer, if that counts.
    ticket: Option<Ticket>,
}

impl InFlight {
    /// It no longer waits for the head of its answer.
    pub(crate) fn answered(&mut self, outcome: Outcome, now: Instant) {
        if let Some(ticket) = self.ticket.take() {
            let concurrency = &self.service.concurrency;
            let change = concurrency.answered(ticket, outcome, &self.caller, now);
            self.service.tell(change);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.answered(Outcome::Other, Instant::now());
        }
        self.service.concurrency.end(&self.caller);
    }
}

/// All services of this sidecar.
pub(crate) struct Served {
    services: Vec<Arc<ServedService>>,
    namespace: Box<str>,
}

impl Served {
    /// `namespace` is this sidecar's own.
    pub(crate) fn new(services: Vec<Arc<ServedService>>, namespace: &str) -> Self {
        Self {
            services,
            namespace: namespace.into(),
        }
    }

    /// The name of the service, if all are ports of one.
    pub(crate) fn only_name(&self) -> Option<&ServiceName> {
        let first = &self.services.first()?.name;
        self.services
            .iter()
            .all(|service| service.name == *first)
            .then_some(first)
    }

    /// In the order of the settings.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ServedService>> {
        self.services.iter()
    }

    /// The service that a request or tunnel is for: the one that `weft-service` names; without that field the
    /// one that the authority names; else, for a request, the only service that takes requests.
    ///
    /// The application sees the authority and may act on it. So an authority that names another service here
    /// than `weft-service` does is refused, unless a route led from that other service; its policies then
    /// count, too.
    pub(crate) fn identify(
        &self,
        head: &Parts,
        table: Option<&Table>,
    ) -> Result<&Arc<ServedService>, Failure> {
        let authority = authority::canonical(head)?;
        let mut named = head.headers.get_all(WEFT_SERVICE).iter();
        if let Some(first) = named.next() {
            if named.next().is_some() {
                return Err(Failure::new(
                    Reason::BadRequest,
                    "more than one weft-service",
                ));
            }
            let service = self
                .services
                .iter()
                .find(|service| service.label.as_bytes() == first.as_bytes())
                .ok_or_else(|| misdirected(&String::from_utf8_lossy(first.as_bytes())))?;
            let shown = authority.as_ref().and_then(|shown| self.shown(shown));
            if let Some(shown) = shown
                && *shown != service.name
                && parent(head)?.as_ref() != Some(shown)
            {
                return Err(Failure::new(
                    Reason::Misdirected,
                    "the authority names another service than weft-service",
                ));
            }
            return Ok(service);
        }
        if let Some(found) = authority
            .as_ref()
            .and_then(|authority| self.by_authority(authority))
        {
            return Ok(found);
        }
        let shown = authority.map_or("", |authority| authority.text);
        if head.method == http::Method::CONNECT {
            return Err(misdirected(shown));
        }
        let has_requests = |service: &&Arc<ServedService>| {
            service.protocol(table).is_some_and(Protocol::has_requests)
        };
        let mut with_requests = self.services.iter().filter(has_requests);
        match (with_requests.next(), with_requests.next()) {
            (Some(only), None) => Ok(only),
            (_, _) => Err(misdirected(shown)),
        }
    }

    /// The service of this sidecar that the authority names, whatever the port: callers write the port of
    /// their own listener.
    fn shown(&self, authority: &authority::Authority<'_>) -> Option<&ServiceName> {
        let host = &*authority.host;
        let (name, namespace) = host.split_once('.').unwrap_or((host, &self.namespace));
        self.services
            .iter()
            .map(|service| &service.name)
            .find(|served| served.name == name && served.namespace == namespace)
    }

    /// Whether the authority names a service of this sidecar other than `name`. The application sees the
    /// authority and may act on it.
    pub(crate) fn shows_other(
        &self,
        authority: &authority::Authority<'_>,
        name: &ServiceName,
    ) -> bool {
        self.shown(authority).is_some_and(|shown| shown != name)
    }

    fn by_authority(&self, authority: &authority::Authority<'_>) -> Option<&Arc<ServedService>> {
        let name = ServiceName::parse_in(&self.namespace, &authority.host).ok()?;
        let mut of_name = self.services.iter().filter(|service| service.name == name);
        match authority.port {
            Some(port) => of_name.find(|service| service.port == port),
            None => {
                let first = of_name.next()?;
                if of_name.next().is_none() {
                    Some(first)
                } else {
                    self.find_port(&name, 80)
                }
            }
        }
    }

    /// That port of that service, if this sidecar serves it.
    pub(super) fn find_port(&self, name: &ServiceName, port: u16) -> Option<&Arc<ServedService>> {
        self.services
            .iter()
            .find(|service| service.name == *name && service.port == port)
    }
}

/// The addressed service, if the caller says that a route led here.
pub(super) fn parent(head: &http::request::Parts) -> Result<Option<ServiceName>, Failure> {
    let mut values = head.headers.get_all(WEFT_ROUTE_PARENT).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let name = value
        .to_str()
        .ok()
        .map(|text| text.split_once(':').map_or(text, |(name, _)| name));
    match (name.map(str::parse), values.next()) {
        (Some(Ok(name)), None) => Ok(Some(name)),
        (_, _) => Err(Failure::new(
            Reason::BadRequest,
            "weft-route-parent is not one service",
        )),
    }
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-15.5.20
//# The 421 (Misdirected Request) status code indicates that the request was directed at a server that
//# is unable or unwilling to produce an authoritative response for the target URI.
fn misdirected(service: &str) -> Failure {
    Failure::new(
        Reason::Misdirected,
        format!("this sidecar does not serve {service}"),
    )
}

#[cfg(test)]
mod tests;
