//! Serves peers that call the application behind this sidecar: `accept (proven peer) -> authorise (Permit) ->
//! deliver (needs a Permit) -> relay`.
//!
//! [`listen`] leads down to one request; [`request`] and [`tunnel`] go on from there. [`mod@authorise`]
//! decides, and decides again about running requests when the table changes.

pub(crate) mod authorise;
pub(crate) mod callers;
pub(crate) mod leaves;
pub(crate) mod meant;
mod request;
pub(crate) mod served;
mod tunnel;

#[cfg(test)]
pub(crate) use request::prepare;
pub(crate) use request::{expired, unanswered, while_wanted};

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use futures_util::FutureExt as _;
use http::HeaderValue;
use tokio::sync::watch;
use weft_config::table::{self, Priority, ServiceName};
use weft_transport::alone::alone;
use weft_transport::guards::Guarded;
use weft_transport::identity::{PeerId, SpiffeId};
use weft_transport::wire::{Accepted, Incoming, Listener, Reason as Why, TurnedAway};

use crate::application::{Application, Reached};
use crate::directory::Directory;
use crate::failure::{Failure, Reason};
use crate::http::fields::{HIGH, LOW, WEFT_PRIORITY, is_twin_of};
use crate::http::is_grpc;
use crate::limits;
use crate::metrics::{Counted, Decision};
use crate::resilience::limit::{Ask, Caller, Limits};
use crate::resilience::overload::classes::Class;
use crate::worker::Worker;
use authorise::{Call, Permit, authorise};
use leaves::{Leaves, Receiver};
use meant::Meant;
use served::{InFlight, Rated, ServedService};
use weft_transport::locks::lock;

/// The serving side of one worker.
pub(crate) struct Inbound {
    worker: Arc<Worker>,
    /// Parallel to the served services.
    applications: Vec<Option<Arc<Application>>>,
}

/// One connected peer.
struct Peer {
    inbound: Arc<Inbound>,
    id: PeerId,
    /// Its SPIFFE ID as the application gets it.
    header: HeaderValue,
    /// The service that it is an endpoint of, as a label.
    service: Arc<str>,
    /// Where its requests are counted, by service. A sidecar serves few.
    counted: Mutex<Vec<Arc<Counted>>>,
    /// The number of the caller, by the place of the service among those served.
    callers: Mutex<Vec<Option<Caller>>>,
}

/// Accepts peers until the worker finishes and the last connection has been told.
pub(crate) async fn listen(inbound: Arc<Inbound>, listener: Arc<Listener>) {
    let finish = inbound.worker.finish.clone();
    let take = |incoming: Result<Incoming, TurnedAway>| match incoming {
        Ok(incoming) => {
            let accepted = accept(Arc::clone(&inbound), incoming);
            inbound
                .worker
                .tasks
                .spawn(alone("a connection of a peer", accepted));
        }
        Err(turned_away) => inbound.worker.shard.handshake(turned_away.reason()),
    };
    loop {
        let incoming = tokio::select! {
            biased;
            () = finish.cancelled() => break,
            incoming = listener.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        take(incoming);
    }
    // Connections whose first packet was read already have no other process to answer them.
    while let Some(Some(incoming)) = listener.accept().now_or_never() {
        take(incoming);
    }
}

async fn accept(inbound: Arc<Inbound>, incoming: Incoming) {
    let remote = incoming.remote_address();
    match incoming.handshake().await {
        Ok(accepted) => {
            inbound.worker.shard.handshake("ok");
            serve(inbound, accepted).await;
        }
        Err(error) => {
            inbound.worker.shard.handshake(error.reason());
            tracing::debug!(%remote, %error, "no mesh connection");
        }
    }
}

/// Serves one peer until the connection ends or this sidecar does.
async fn serve(inbound: Arc<Inbound>, accepted: Accepted) {
    let Accepted {
        http: mut connection,
        trust,
        ..
    } = accepted;
    let id = connection.peer().clone();
    let Ok(header) = HeaderValue::from_str(id.id().as_str()) else {
        return;
    };
    let worker = Arc::clone(&inbound.worker);
    let mut trust = pin!(trust.run());
    let mut trusted = true;
    let service = worker.directory().service_of(id.id()).unwrap_or_default();
    let peer = Arc::new(Peer {
        service: service.into(),
        inbound,
        id,
        header,
        counted: Mutex::default(),
        callers: Mutex::default(),
    });
    let mut finishing = false;
    loop {
        let request = tokio::select! {
            biased;
            () = worker.finish.cancelled(), if !finishing => {
                connection.shutdown();
                finishing = true;
                continue;
            }
            () = &mut trust, if trusted => {
                // The peer closed the connection, or it is over; accept reports it.
                trusted = false;
                continue;
            }
            request = connection.accept() => request,
        };
        if connection.has_moved() {
            worker.shard.migrations.fetch_add(1, Ordering::Relaxed);
        }
        if connection.was_paced() {
            guarded(&worker, &peer, Guarded::PACED);
        }
        match request {
            Ok(Some(request)) if SystemTime::now() < peer.id.not_after() => {
                let peer = Arc::clone(&peer);
                worker.shard.lag.work();
                // Two kinds of tasks, so that a request's task does not have the size of a tunnel's.
                if request.head.method == http::Method::CONNECT {
                    worker
                        .tasks
                        .spawn(alone("a tunnel", tunnel::serve(peer, request)));
                } else {
                    worker
                        .tasks
                        .spawn(alone("a request", request::serve(peer, request)));
                }
            }
            Ok(Some(expired)) => {
                // Running requests may end; new ones need a certificate that is still valid.
                expired.respond.reset(Why::Unprocessed);
                connection.shutdown();
            }
            Ok(None) => return,
            Err(error) => {
                match Guarded::of(&error) {
                    Some(what) => guarded(&worker, &peer, what),
                    None => {
                        tracing::debug!(peer = %peer.id.id(), %error, "mesh connection ended");
                    }
                }
                return;
            }
        }
    }
}

/// An action was taken against a peer for its behaviour.
fn guarded(worker: &Worker, peer: &Peer, what: Guarded) {
    if worker.shard.guards.count(what, Instant::now()) {
        let (peer, reason, action) = (peer.id.id(), what.reason, what.action.as_str());
        tracing::warn!(%peer, reason, action, "a peer went beyond a limit of the wire");
    }
}

/// A call that may be delivered, with all that is needed to decide again.
pub(crate) struct Admitted {
    /// Who gets it.
    pub(crate) receiver: Receiver,
    parent: Option<ServiceName>,
    /// Its place among the calls under way.
    pub(crate) in_flight: InFlight,
}

impl Inbound {
    /// The serving side over a worker.
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        let served = worker.shared.served.iter();
        let applications = served.map(|service| {
            let address = service.application.clone()?;
            Some(Arc::new(Application::new(
                Reached::Here(address),
                &worker.shared.timeouts,
                Arc::clone(&service.destination.counts),
                Arc::clone(&worker.room),
                worker.tasks.clone(),
            )))
        });
        let applications = applications.collect();
        Self {
            worker,
            applications,
        }
    }

    /// The worker.
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// The connections to the applications, to be swept.
    pub(crate) fn applications(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.applications.iter().flatten()
    }

    /// Who gets what is permitted. Without a permit there is no receiver, and so no delivery.
    fn receiver(&self, permit: &Permit) -> Result<Receiver, Failure> {
        if let Some(leaving) = permit.leaving() {
            let leaves = Leaves::new(Arc::clone(leaving), Arc::clone(&self.worker));
            return Ok(Receiver::Outside(Box::new(leaves)));
        }
        let place = self.place(permit.service());
        let application = place.and_then(|place| self.applications.get(place));
        let application = application
            .ok_or_else(|| Failure::new(Reason::Internal, "no application for a served service"))?;
        let Some(application) = application else {
            let label = &permit.service().label;
            let detail =
                format!("{label} has no application: its sidecars only send outside of the mesh");
            return Err(Failure::new(Reason::NoEndpoint, detail));
        };
        debug_assert_eq!(permit.service().application.as_ref(), application.address());
        Ok(Receiver::Here(Arc::clone(application)))
    }

    /// The place of a service among those served.
    fn place(&self, service: &Arc<ServedService>) -> Option<usize> {
        let mut served = self.worker.shared.served.iter();
        served.position(|one| Arc::ptr_eq(one, service))
    }
}

impl Peer {
    /// Where calls for `service` are counted.
    fn counted(&self, service: &Arc<str>) -> Arc<Counted> {
        let mut counted = lock(&self.counted);
        if let Some(found) = counted
            .iter()
            .find(|one| one.labels.destination_service == *service)
        {
            return Arc::clone(found);
        }
        let worker = &self.inbound.worker;
        let fresh =
            worker
                .shard
                .requests(worker.arriving(self.id.id().as_str(), &self.service, service));
        counted.push(Arc::clone(&fresh));
        fresh
    }

    /// The number of the caller for `service`.
    fn caller_of(&self, service: &Arc<ServedService>) -> Caller {
        let find = || service.concurrency.caller(self.id.id());
        let Some(place) = self.inbound.place(service) else {
            return find();
        };
        let mut callers = lock(&self.callers);
        if callers.len() <= place {
            callers.resize_with(place + 1, || None);
        }
        callers[place].get_or_insert_with(find).clone()
    }

    /// Decides on a call and counts the decision.
    fn admit(
        &self,
        directory: &Directory,
        meant: &Meant<'_>,
        head: &http::request::Parts,
        now: Instant,
    ) -> Result<Admitted, Failure> {
        let parent = served::parent(head)?;
        let caller = self.caller_of(meant.service);
        let who = Who {
            identity: Some(self.id.id()),
            rated: Rated::Identity(self.id.id().as_str()),
            caller: &caller,
        };
        self.inbound
            .admit(directory, meant, head, (who, parent), now)
    }
}

/// Who makes a call.
#[derive(Clone, Copy)]
pub(crate) struct Who<'a> {
    /// The proven identity; none of a caller without mutual TLS.
    pub(crate) identity: Option<&'a SpiffeId>,
    /// By what its rate is limited.
    pub(crate) rated: Rated<'a>,
    /// By what its share is.
    pub(crate) caller: &'a Caller,
}

impl Inbound {
    /// Decides on a call and counts the decision. `parent` is the service that was addressed, as the caller
    /// states it, if a route led here.
    pub(crate) fn admit(
        &self,
        directory: &Directory,
        meant: &Meant<'_>,
        head: &http::request::Parts,
        (who, parent): (Who<'_>, Option<ServiceName>),
        now: Instant,
    ) -> Result<Admitted, Failure> {
        let request =
            (head.method != http::Method::CONNECT).then(|| (head.method.as_str(), head.uri.path()));
        let call = Call {
            caller: who.identity,
            parent: parent.as_ref(),
            request,
        };
        let verdict = authorise(directory.table.as_deref(), meant, &call);
        let shard = &self.worker.shard;
        for policy in verdict.audited {
            shard.decision(Decision::Audit, policy);
        }
        shard.decision(
            if verdict.outcome.is_ok() {
                Decision::Allow
            } else {
                Decision::Deny
            },
            verdict.policy.unwrap_or(""),
        );
        let permit = verdict.outcome?;
        let receiver = self.receiver(&permit)?;
        let in_flight = self.start(directory, meant.service, head, who, now)?;
        Ok(Admitted {
            receiver,
            parent,
            in_flight,
        })
    }

    /// Counts one more call under way, unless the limits of its service refuse it. Rates come first: calls
    /// that a rate refuses were never under way.
    fn start(
        &self,
        directory: &Directory,
        service: &Arc<ServedService>,
        head: &http::request::Parts,
        who: Who<'_>,
        now: Instant,
    ) -> Result<InFlight, Failure> {
        let is_request = head.method != http::Method::CONNECT;
        let max = if is_request {
            self.worker.shared.in_flight_max
        } else {
            limits::INBOUND_TUNNELS_MAX
        };
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let mut ask = Ask {
            caller: who.caller,
            priority: Priority::Normal,
            class: is_request.then(|| {
                Class::of(
                    head.method.as_str(),
                    head.uri.path(),
                    is_grpc(&head.headers),
                )
            }),
            now,
        };
        let Some(port) = service.port_of(directory.table.as_deref()) else {
            let limits = Limits::of(&table::Concurrency::default(), max, is_request);
            return service.start(&limits, &ask);
        };
        service.take_rate(who.rated, &port.traffic)?;
        let policy = &port.traffic.concurrency;
        ask.priority = priority(head, policy, who.identity.is_none())?;
        service.start(&Limits::of(policy, max, is_request), &ask)
    }
}

/// How important a request is: by the header that the policy names, else by its caller's route. Refuses a
/// field that the application could take for that header. A stranger does not say itself that its calls are
/// important.
fn priority(
    head: &http::request::Parts,
    policy: &table::Concurrency,
    is_stranger: bool,
) -> Result<Priority, Failure> {
    if let Some(by) = &policy.priority
        && let Some(twin) = head
            .headers
            .keys()
            .find(|name| is_twin_of(name.as_str(), &by.header))
    {
        let detail = format!("some applications take the field {twin} for {}", by.header);
        return Err(Failure::new(Reason::BadRequest, detail));
    }
    if is_stranger {
        return Ok(Priority::Normal);
    }
    let named = policy.priority.as_ref().and_then(|by| {
        let value = head.headers.get(by.header.as_str())?.to_str().ok()?;
        let is = |values: &[String]| values.iter().any(|one| one == value);
        if is(&by.high) {
            return Some(Priority::High);
        }
        is(&by.low).then_some(Priority::Low)
    });
    Ok(
        named.unwrap_or_else(|| match head.headers.get(WEFT_PRIORITY) {
            Some(value) if *value == HIGH => Priority::High,
            Some(value) if *value == LOW => Priority::Low,
            Some(_) | None => Priority::Normal,
        }),
    )
}

/// Runs `work`, which is borrowed as in [`crate::idle::while_moving`], for as long as the policy allows the
/// call: each new table is asked.
async fn while_allowed<F: Future>(
    policy: &mut watch::Receiver<Arc<Directory>>,
    meant: &Meant<'_>,
    caller: &SpiffeId,
    parent: Option<&ServiceName>,
    request: Option<(&str, &str)>,
    mut work: Pin<&mut F>,
) -> Result<F::Output, Failure> {
    loop {
        tokio::select! {
            biased;
            output = &mut work => return Ok(output),
            changed = policy.changed() => {
                if changed.is_err() {
                    return Ok(work.await);
                }
                let directory = Arc::clone(&policy.borrow_and_update());
                let call = Call { caller: Some(caller), parent, request };
                authorise(directory.table.as_deref(), meant, &call).outcome?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::tests::future_size;

    /// Each request and each tunnel is a task of this size, which is moved when it is spawned.
    #[test]
    fn futures_stay_small() {
        let sizes = [
            ("request", future_size(request::serve), 6704),
            ("tunnel", future_size(tunnel::serve), 5 * 1024),
            ("peer", future_size(accept), 4 * 1024),
        ];
        for (name, size, size_max) in sizes {
            assert!(size <= size_max, "{sizes:?} {name}");
        }
    }

    #[test]
    fn the_priority_is_that_of_the_header_or_the_route_and_a_stranger_states_none() {
        let policy = table::Concurrency {
            priority: Some(table::PriorityHeader {
                header: "x-importance".into(),
                high: vec!["gold".into()],
                low: vec!["lead".into()],
            }),
            ..table::Concurrency::default()
        };
        let stated = |fields: &[(&str, &str)], is_stranger| {
            let mut head = http::Request::get("/");
            for (name, value) in fields {
                head = head.header(*name, *value);
            }
            let head = head.body(()).unwrap().into_parts().0;
            priority(&head, &policy, is_stranger).map_err(|failure| failure.reason)
        };
        for (fields, of_peer) in [
            (&[("x-importance", "gold")][..], Priority::High),
            (&[("x-importance", "lead")], Priority::Low),
            (&[("weft-priority", "high")], Priority::High),
            (&[("weft-priority", "low")], Priority::Low),
            (&[], Priority::Normal),
        ] {
            assert_eq!(stated(fields, false), Ok(of_peer), "{fields:?}");
            assert_eq!(stated(fields, true), Ok(Priority::Normal), "{fields:?}");
        }
        let twin = [("x_importance", "gold")];
        for is_stranger in [false, true] {
            assert_eq!(stated(&twin, is_stranger), Err(Reason::BadRequest));
        }
    }
}
