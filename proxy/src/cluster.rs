//! The endpoints of one port of one service as one worker sees them, and a request's use of one of them.
//!
//! A cluster does not change, except for the state of its endpoints: a new table makes a new cluster, which
//! keeps the state of endpoints that stay. `cluster/pick.rs` decides which endpoint takes a request.

pub(crate) mod copies;
mod named;
pub(crate) mod pick;
#[cfg(test)]
mod pick_simulations;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Instant;

use http::HeaderValue;
use weft_config::table::{Absence, Details, Mode, Protocol, ServiceName, Traffic};
use weft_transport::locks::lock;
use weft_transport::pool::Target;

use copies::Copies;
use named::Named;
pub(crate) use named::name_of;

use crate::application::outside::Outside;
use crate::limits;
use crate::metrics::Counted;
use crate::outside::OutsideService;
use crate::resilience::breaker::{Admission, Cause};
use crate::resilience::destination::{Destination, Event};
use crate::resilience::load::Slice;
use crate::resilience::standing::{Begun, Change, Outcome, Standing, is_late};
use crate::resilience::times::Times;
use crate::resilience::verdict::Evidence;
use crate::resilience::weights::Weights;

/// See the module's documentation.
pub(crate) struct Cluster {
    /// `orders.shop:80`, as `weft-service` carries it.
    pub(crate) wire: HeaderValue,
    /// The same as text, for metrics and logs.
    pub(crate) label: Arc<str>,
    /// The protocol that its applications speak.
    pub(crate) protocol: Protocol,
    /// The traffic policy of the cluster.
    pub(crate) traffic: Traffic,
    /// What it is outside of the mesh; none for a service of the mesh.
    pub(crate) outside: Option<Arc<OutsideService>>,
    /// Where it runs.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Why no endpoint runs, if none does.
    pub(crate) absence: Absence,
    /// The distance of the nearest endpoint, if others are farther away.
    pub(crate) nearest: Option<u8>,
    /// The weights of the endpoints, if they differ.
    pub(crate) weights: Option<Weights>,
    /// Where calls that reached no endpoint are counted.
    pub(crate) unreached: ByRoute,
    /// The state that all workers share about it.
    pub(crate) destination: Arc<Destination>,
    /// The state that stays when a new table comes.
    pub(crate) lasting: Arc<Lasting>,
    /// Its endpoints by the names that tokens of sessions have for them.
    pub(crate) named: Named,
    /// The service that takes over when no endpoint is healthy. Two services may stand in for each other, so
    /// neither owns the other.
    failover: OnceLock<Weak<Self>>,
}

/// The state that one worker keeps of a cluster over all tables.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    /// The endpoint whose turn it is.
    pub(crate) turn: AtomicUsize,
    /// How many endpoints are out of rotation, counting those of older snapshots that are still in use. While
    /// it is 0, a pick skips the search for such endpoints.
    pub(crate) out: Arc<AtomicUsize>,
    /// How long recent responses took; kept only if hedges need a percentile.
    pub(crate) times: Mutex<Times>,
    /// Copies of requests on their way to it.
    pub(crate) copies: Copies,
}

/// One endpoint.
pub(crate) struct Endpoint {
    /// Where it is.
    pub(crate) place: Place,
    /// The name of its sidecar.
    pub(crate) workload: Box<str>,
    /// What it says of itself.
    pub(crate) details: Details,
    /// Its distance from here, see [`weft_config::table::Locality::distance`].
    pub(crate) distance: u8,
    /// This worker's view of its health and load.
    pub(crate) standing: Arc<Standing>,
    /// Where calls to it are counted.
    pub(crate) counted: ByRoute,
}

/// Where an endpoint is. Nothing makes one of the other: a peer has an identity to prove, and what is outside
/// of the mesh has none.
#[derive(Clone)]
pub(crate) enum Place {
    /// A sidecar of the mesh: its address, and the identity expected there.
    Peer(Target),
    /// An address outside of the mesh.
    Outside(Arc<Outside>),
}

impl Place {
    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Peer(target) => target.address,
            Self::Outside(outside) => outside.way().address(),
        }
    }

    /// The identity that it proves; empty outside of the mesh.
    pub(crate) fn identity(&self) -> &str {
        match self {
            Self::Peer(target) => target.identity.as_str(),
            Self::Outside(_) => "",
        }
    }

    /// Whether both are the same endpoint, in tables of different times.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Peer(one), Self::Peer(other)) => one == other,
            (Self::Outside(one), Self::Outside(other)) => {
                one.way().address() == other.way().address()
            }
            (Self::Peer(_), Self::Outside(_)) | (Self::Outside(_), Self::Peer(_)) => false,
        }
    }
}

/// Where calls to one place are counted, by the route that led there. Such routes are few.
#[derive(Default)]
pub(crate) struct ByRoute(Mutex<Vec<RouteCount>>);

struct RouteCount {
    route: Option<Arc<str>>,
    counted: Arc<Counted>,
}

impl ByRoute {
    /// Where calls by `route` are counted; made at the first.
    pub(crate) fn get(
        &self,
        route: Option<&Arc<str>>,
        make: impl FnOnce() -> Arc<Counted>,
    ) -> Arc<Counted> {
        let mut counts = lock(&self.0);
        if let Some(found) = counts.iter().find(|one| one.route.as_ref() == route) {
            return Arc::clone(&found.counted);
        }
        let counted = make();
        counts.push(RouteCount {
            route: route.cloned(),
            counted: Arc::clone(&counted),
        });
        counted
    }
}

/// `orders.shop:80`.
pub(crate) fn label(service: &ServiceName, port: u16) -> Arc<str> {
    Arc::from(format!("{service}:{port}"))
}

/// The least distance; none if all are equally far.
fn nearest(endpoints: &[Endpoint]) -> Option<u8> {
    let distances = || endpoints.iter().map(|one| one.distance);
    distances()
        .min()
        .filter(|least| distances().any(|one| one > *least))
}

impl Cluster {
    /// Endpoints under a label.
    pub(crate) fn new(
        label: Arc<str>,
        protocol: Protocol,
        traffic: Traffic,
        (endpoints, absence): (Vec<Endpoint>, Absence),
        destination: Arc<Destination>,
        lasting: Arc<Lasting>,
    ) -> Self {
        Self {
            // DNS labels and digits are always a field value.
            wire: HeaderValue::try_from(&*label).unwrap_or(HeaderValue::from_static("-")),
            label,
            protocol,
            traffic,
            nearest: nearest(&endpoints),
            weights: Weights::of(endpoints.iter().map(|one| one.details.weight.get())),
            endpoints,
            absence,
            outside: None,
            unreached: ByRoute::default(),
            destination,
            lasting,
            named: Named::default(),
            failover: OnceLock::new(),
        }
    }

    /// The same outside of the mesh.
    pub(crate) fn of_outside(self, outside: Option<Arc<OutsideService>>) -> Self {
        Self { outside, ..self }
    }

    /// Its endpoints outside of the mesh.
    pub(crate) fn outsides(&self) -> impl Iterator<Item = Arc<Outside>> {
        self.endpoints.iter().filter_map(|one| match &one.place {
            Place::Outside(outside) => Some(Arc::clone(outside)),
            Place::Peer(_) => None,
        })
    }

    /// Counts a request that is sent to an endpoint.
    pub(crate) fn start(self: &Arc<Self>, index: usize, now: Instant) -> Option<Flight> {
        let endpoint = self.endpoints.get(index)?;
        let Begun { probe, on_trial } = endpoint.standing.begin(now, &self.traffic.breaker);
        Some(Flight {
            cluster: Arc::clone(self),
            index,
            began: now,
            probe,
            on_trial,
            judged: false,
            measured: false,
            answered: None,
        })
    }

    /// Why it has no endpoint, if it has none.
    pub(crate) fn why_absent(&self) -> String {
        match &self.outside {
            Some(outside) => format!("{} has led to no address so far", outside.host()),
            None => self.absence.to_string(),
        }
    }

    /// Whether any endpoint may be out of rotation.
    pub(crate) fn may_have_out(&self) -> bool {
        self.lasting.out.load(Ordering::Relaxed) > 0
    }

    /// Whether every endpoint is out of rotation. One of them then gets the request nevertheless.
    pub(crate) fn is_all_out(&self) -> bool {
        let mut endpoints = self.endpoints.iter();
        self.may_have_out() && endpoints.all(|one| one.standing.is_out())
    }

    /// Logs the service that takes over, once.
    pub(crate) fn fall_back_on(&self, other: &Arc<Self>) {
        self.failover.get_or_init(|| Arc::downgrade(other));
    }

    /// The service that takes over when it must, whether it does so now or not.
    pub(crate) fn stand_in(&self) -> Option<Arc<Self>> {
        self.failover.get()?.upgrade()
    }

    /// The service that takes over, if one is needed and available.
    pub(crate) fn failover(&self, now: Instant) -> Option<Arc<Self>> {
        let other = self.failover.get()?;
        if self.is_healthy(now) {
            return None;
        }
        other.upgrade().filter(|other| other.is_healthy(now))
    }

    /// Whether requests can be sent at all: at least one endpoint is in rotation or due for a probe.
    fn is_healthy(&self, now: Instant) -> bool {
        if !self.may_have_out() {
            return !self.endpoints.is_empty();
        }
        self.endpoints
            .iter()
            .any(|one| one.standing.admission(now) != Admission::No)
    }

    /// Whether the remaining endpoints suffice if one more leaves rotation. With a failover service, all may
    /// leave.
    fn can_spare_one(&self) -> bool {
        if self.traffic.failover.is_some() {
            return true;
        }
        let all = self.endpoints.len();
        let out = self
            .endpoints
            .iter()
            .filter(|one| one.standing.is_out())
            .count();
        let most = self.traffic.breaker.ejected_percent_max.fraction() * all as f64;
        out + 1 < all && (out + 1) as f64 <= most
    }

    fn note(&self, endpoint: &Endpoint, change: Change) {
        let counts = &self.destination.counts;
        let (workload, address) = (&endpoint.workload, endpoint.place.address());
        match change {
            Change::Out(cause) => {
                let enforced = self.traffic.breaker.mode == Mode::Enforce;
                counts.add(match (cause, enforced) {
                    (Cause::Consecutive, true) => Event::EjectedConsecutive,
                    (Cause::SuccessRate, true) => Event::EjectedSuccessRate,
                    (Cause::Consecutive, false) => Event::ObservedConsecutive,
                    (Cause::SuccessRate, false) => Event::ObservedSuccessRate,
                });
                tracing::info!(
                    destination = %self.label, %workload, %address, cause = cause.as_str(), enforced,
                    "an endpoint is out of rotation"
                );
            }
            Change::Back => {
                counts.add(Event::Returned);
                tracing::info!(
                    destination = %self.label, %workload, %address,
                    "an endpoint is back in rotation"
                );
            }
        }
    }
}

/// One request or tunnel at an endpoint. It counts as load until it is dropped, and reports how the request
/// ended.
pub(crate) struct Flight {
    cluster: Arc<Cluster>,
    index: usize,
    began: Instant,
    /// This request is the probe by which the endpoint may return to rotation, and its result is not reported
    /// yet.
    probe: bool,
    /// It went to an endpoint that came back to rotation recently.
    on_trial: bool,
    /// The evidence about the endpoint has been reported.
    judged: bool,
    /// Its duration is known, or does not matter.
    measured: bool,
    /// When the response's head came.
    answered: Option<Slice>,
}

impl Flight {
    /// When it began, or when it was sent.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The attempt has ended with this evidence about its endpoint.
    pub(crate) fn judge(&mut self, evidence: Evidence, now: Instant) {
        match evidence {
            Evidence::Nothing => {}
            Evidence::Outcome(outcome) => self.tell(outcome, now),
            Evidence::Answered(outcome) => self.answered(outcome, now),
            Evidence::Unreached => self.unreached(now),
            Evidence::Late { by_policy } => self.late(by_policy, now),
        }
    }

    /// The attempt was given up before there was a connection. A handshake that takes so long counts as a
    /// failure, although only a more patient caller would see how it ends.
    fn unreached(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) >= limits::UNREACHED {
            self.given_up(now);
            self.tell(Outcome::Badly, now);
        }
    }

    /// It is sent now: the time before was spent on finding an endpoint.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.began = now;
    }

    /// The response's head has come, with this evidence, if it has any. The head always decides a probe: the
    /// stream may go on for hours.
    pub(crate) fn answered(&mut self, outcome: Option<Outcome>, now: Instant) {
        self.measured = true;
        if self.answered.is_none()
            && let Some(endpoint) = self.endpoint()
        {
            let took = now.saturating_duration_since(self.began);
            let well = outcome.is_none_or(|outcome| outcome == Outcome::Well);
            self.answered = Some(endpoint.standing.answered(took, well, now));
        }
        match outcome {
            Some(outcome) => self.tell(outcome, now),
            // The end of the call is reported later, and counts then.
            None if self.probe => self.report(Outcome::Well, now),
            None => {}
        }
    }

    /// The time limit passed without an answer, or the endpoint answered that the deadline has passed.
    /// `policy` if an operator set that limit.
    pub(crate) fn late(&mut self, policy: bool, now: Instant) {
        let waited = now.saturating_duration_since(self.began);
        let own = self.endpoint().and_then(|one| one.standing.usual());
        // An endpoint that has never answered is judged by the usual time of the others.
        let usual = own.or_else(|| {
            let others = self.cluster.endpoints.iter();
            others.filter_map(|one| one.standing.usual()).max()
        });
        if is_late(waited, usual, policy) {
            self.given_up(now);
            self.tell(Outcome::Badly, now);
        }
    }

    /// Whether the request went to an endpoint that came back to rotation recently, so that the pick may be
    /// the cause of its failure.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.on_trial
    }

    /// An answer would have taken at least this long.
    fn given_up(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.measured, true)
            && let Some(endpoint) = self.endpoint()
        {
            let took = now.saturating_duration_since(self.began);
            endpoint.standing.given_up(took, now);
        }
    }

    /// Reports the outcome of the request. Only the first report counts, because the head and the end of a
    /// gRPC call can both report the same failure.
    pub(crate) fn tell(&mut self, outcome: Outcome, now: Instant) {
        if !std::mem::replace(&mut self.judged, true) {
            self.report(outcome, now);
        }
    }

    fn report(&mut self, outcome: Outcome, now: Instant) {
        let probe = std::mem::take(&mut self.probe);
        self.measured = true;
        let Some(endpoint) = self.endpoint() else {
            return;
        };
        let policy = &self.cluster.traffic.breaker;
        let change = endpoint
            .standing
            .report(outcome, probe, now, policy, || self.cluster.can_spare_one());
        if let Some(change) = change {
            self.cluster.note(endpoint, change);
        }
    }

    /// Where it is: the cluster and the endpoint.
    pub(crate) fn place(&self) -> Option<(&Cluster, &Endpoint)> {
        Some((&self.cluster, self.endpoint()?))
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        self.cluster.endpoints.get(self.index)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.given_up(Instant::now());
        if let Some(endpoint) = self.endpoint() {
            endpoint.standing.end(self.answered, self.probe);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::tests::cluster;

    #[test]
    fn a_failure_that_the_head_and_the_end_of_a_call_tell_counts_once() {
        let now = Instant::now();
        let two = cluster(2, Traffic::default());
        let fail = || {
            let mut flight = two.start(0, now).unwrap();
            flight.judge(Evidence::Answered(Some(Outcome::Badly)), now);
            flight.tell(Outcome::Badly, now);
            two.endpoints[0].standing.is_out()
        };
        let out: Vec<bool> = (0..5).map(|_| fail()).collect();
        assert_eq!(out, [false, false, false, false, true]);
    }

    #[test]
    fn the_head_of_a_call_brings_an_endpoint_back_and_its_end_still_counts() {
        let now = Instant::now();
        let two = cluster(2, Traffic::default());
        let is_out = || two.endpoints[0].standing.is_out();
        for _ in 0..5 {
            two.start(0, now).unwrap().tell(Outcome::Badly, now);
        }
        assert!(is_out());
        let due = now + Duration::from_secs(3);
        let mut probe = two.start(0, due).unwrap();
        probe.judge(Evidence::Answered(None), due);
        assert!(!is_out());
        // The endpoint is on trial.
        probe.tell(Outcome::Badly, due);
        assert!(is_out());
    }
}
