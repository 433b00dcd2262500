//! Who gets a call of a peer that is permitted: the application behind this sidecar, or a service outside of
//! the mesh, whose addresses are dialled here for all callers.
//!
//! A call that reached no address may have another one. Whether it is sent again otherwise is for the
//! caller's sidecar to decide, as for any call.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Response};
use weft_transport::locks::lock;

use super::request::prepare;
use crate::application::body::Outgoing;
use crate::application::interim::Interims;
use crate::application::outside::{Outside, ending};
use crate::application::{Answered, Application};
use crate::cluster::pick::{Criteria, TriedEndpoints, pick};
use crate::cluster::{Flight, Place};
use crate::directory::Leaving;
use crate::failure::{Failure, Reason};
use crate::http::fields::check_expectation;
use crate::http::response;
use crate::limits;
use crate::outside::{Link, Speaks};
use crate::resilience::deadline::Clock;
use crate::resilience::limit::Caller;
use crate::resilience::standing::Outcome;
use crate::resilience::verdict::{Ending, Evidence};
use crate::worker::Worker;

/// See the module's documentation.
pub(crate) enum Receiver {
    /// The application.
    Here(Arc<Application>),
    /// An address outside. Boxed, because most calls are for the application.
    Outside(Box<Leaves>),
}

/// A call on its way out of the mesh.
pub(crate) struct Leaves {
    leaving: Arc<Leaving>,
    worker: Arc<Worker>,
    criteria: Criteria,
    dialled: usize,
    /// Its use of the address that was picked last.
    flight: Option<Flight>,
}

impl Receiver {
    /// Rewrites the head as the receiver should see it, or refuses it. `client` is the caller, who is told to
    /// applications only.
    pub(super) fn prepare(
        &self,
        head: &mut Parts,
        client: &HeaderValue,
        multiplexed: bool,
    ) -> Result<(), Failure> {
        match self {
            Self::Here(_) => prepare(head, client, multiplexed),
            Self::Outside(leaves) => {
                *head = leaves.head(head, multiplexed)?;
                Ok(())
            }
        }
    }

    /// Sends a request of `caller`. `interims` takes interim responses.
    pub(crate) async fn send(
        &mut self,
        caller: &Caller,
        request: &mut Outgoing,
        multiplexed: bool,
        interims: Option<&Interims>,
    ) -> Result<Answered, Failure> {
        match self {
            Self::Here(application) => {
                send(application, caller, request, multiplexed, interims).await
            }
            Self::Outside(leaves) => {
                Box::pin(leaves.send(caller, request, multiplexed, interims)).await
            }
        }
    }

    /// Connects, for bytes.
    pub(crate) async fn link(&mut self) -> Result<Link, Failure> {
        match self {
            Self::Here(application) => application.connect().await.map(Link::Left),
            Self::Outside(leaves) => Box::pin(leaves.link()).await,
        }
    }

    /// The call ended without an answer, for this reason.
    pub(super) fn failed(&mut self, failure: &Failure, now: Instant) {
        if let Self::Outside(leaves) = self {
            leaves.failed(failure, now);
        }
    }
}

async fn send(
    client: &Arc<Application>,
    caller: &Caller,
    request: &mut Outgoing,
    multiplexed: bool,
    interims: Option<&Interims>,
) -> Result<Answered, Failure> {
    match multiplexed {
        true => client.send_multiplexed(caller, request, interims).await,
        false => client.send(caller, request).await,
    }
}

impl Leaves {
    /// No address is picked yet.
    pub(super) fn new(leaving: Arc<Leaving>, worker: Arc<Worker>) -> Self {
        Self {
            leaving,
            worker,
            criteria: Criteria {
                tried: TriedEndpoints::default(),
                key: None,
                preferred: None,
                repeatable: true,
            },
            dialled: 0,
            flight: None,
        }
    }

    /// The head as it leaves the mesh, which is the same at each address.
    fn head(&self, head: &Parts, multiplexed: bool) -> Result<Parts, Failure> {
        let cluster = &self.leaving.cluster;
        if !cluster.protocol.has_requests() {
            let detail = format!("{} takes connections, not requests", cluster.label);
            return Err(Failure::new(Reason::BadRequest, detail));
        }
        check_expectation(&head.headers)?;
        let first = cluster.outsides().next().ok_or_else(|| self.nowhere())?;
        first.head(head, multiplexed)
    }

    async fn send(
        &mut self,
        caller: &Caller,
        request: &mut Outgoing,
        multiplexed: bool,
        interims: Option<&Interims>,
    ) -> Result<Answered, Failure> {
        loop {
            let client = self.dial()?;
            let sent = send(&client, caller, request, multiplexed, interims).await;
            let now = Instant::now();
            match sent {
                Ok(answered) => return Ok(self.answered(answered, multiplexed, now)),
                Err(failure) if self.is_last(&failure) || !request.is_whole() => {
                    self.failed(&failure, now);
                    return Err(failure);
                }
                Err(failure) => self.failed(&failure, now),
            }
        }
    }

    async fn link(&mut self) -> Result<Link, Failure> {
        loop {
            let client = self.dial()?;
            let linked = client.link(Speaks::Bytes).await;
            let now = Instant::now();
            match linked {
                Ok(link) => {
                    self.judge(Evidence::Answered(Some(Outcome::Well)), now);
                    return Ok(link);
                }
                Err(failure) if self.is_last(&failure) => {
                    self.failed(&failure, now);
                    return Err(failure);
                }
                Err(failure) => self.failed(&failure, now),
            }
        }
    }

    /// Picks an address that was not dialled yet, if one is left.
    fn dial(&mut self) -> Result<Arc<Application>, Failure> {
        let (cluster, now) = (&self.leaving.cluster, Instant::now());
        let index = pick(
            cluster,
            &self.criteria,
            now,
            &mut *lock(&self.worker.random),
        );
        let index = index.ok_or_else(|| self.nowhere())?;
        let endpoint = cluster.endpoints.get(index);
        let Some(Place::Outside(outside)) = endpoint.map(|endpoint| &endpoint.place) else {
            let detail = "what is outside of the mesh is no peer";
            return Err(Failure::new(Reason::Internal, detail));
        };
        self.criteria.tried.add(index);
        self.dialled += 1;
        self.flight = cluster.start(index, now);
        Ok(Arc::clone(self.client(outside)))
    }

    fn client<'o>(&self, outside: &'o Outside) -> &'o Arc<Application> {
        let worker = &self.worker;
        let counts = &self.leaving.cluster.destination.counts;
        outside.client(&worker.shared.timeouts, counts, &worker.room, &worker.tasks)
    }

    fn nowhere(&self) -> Failure {
        let cluster = &self.leaving.cluster;
        let detail = format!("no address of {}: {}", cluster.label, cluster.why_absent());
        Failure::new(Reason::NoEndpoint, detail)
    }

    /// Whether another address would not help, or none is left.
    fn is_last(&self, failure: &Failure) -> bool {
        ending(failure) != Ending::Unreached
            || self.dialled >= limits::LEAVING_DIALS_MAX
            || self
                .criteria
                .tried
                .all(self.leaving.cluster.endpoints.len())
    }

    fn answered(&mut self, mut answered: Answered, grpc: bool, now: Instant) -> Answered {
        let (head, body) = answered.response.into_parts();
        // What the answer's way back will refuse tells as much of the address.
        let evidence = match response::judge(&head) {
            Ok(()) => Evidence::Answered(Outcome::of(&head, grpc)),
            Err(_) => {
                Ending::Malformed
                    .verdict(&Clock::default(), false, now)
                    .evidence
            }
        };
        self.judge(evidence, now);
        answered.response = Response::from_parts(head, body);
        answered
    }

    /// What a failure tells of the address. Only the first evidence of a use counts.
    fn failed(&mut self, failure: &Failure, now: Instant) {
        let ending = match failure.reason == Reason::DeadlineExceeded {
            true => Ending::Late,
            false => ending(failure),
        };
        let verdict = ending.verdict(&Clock::default(), true, now);
        self.judge(verdict.evidence, now);
    }

    fn judge(&mut self, evidence: Evidence, now: Instant) {
        if let Some(flight) = &mut self.flight {
            flight.judge(evidence, now);
        }
    }
}
