//! One sidecar's stream: its reports and acknowledgements in, its table and changes out.
//!
//! No message is queued for a slow sidecar: when it can take a message, the message is computed from the
//! newest view and from what it was sent before (`sent.rs`). A sidecar that takes none for too long loses its
//! connection, which frees HTTP/2's buffers for it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use weft_ca::connection::Caller;
use weft_transport::alone::alone;
use weft_transport::identity::{PeerId, SpiffeId};
use weft_transport::shares::Place as StreamPlace;
use weft_transport::tasks::Tasks;

use super::delivery::{Delivery, Outgoing, delivery};
use super::pace::Pace;
use super::registry::{Inbound, Reported, Workload};
use super::sent::{After, News, Next, NotSendable, Sent};
use super::sidecars::{About, Place, Stream, TooManyNames};
use super::state::{ServerState, View};
use crate::compile::Sidecar;
use crate::limits;
use crate::proto::discovery_server::Discovery;
use crate::proto::sidecar_message::Kind as In;
use crate::proto::{self, ServiceMessage, SidecarMessage};
use crate::table::{Features, NameError, Schema};

pub(super) struct Subscriptions {
    pub(super) state: Arc<ServerState>,
    pub(super) tracker: Tasks,
    pub(super) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl Discovery for Subscriptions {
    type SubscribeStream = Delivery;

    async fn subscribe(
        &self,
        request: Request<Streaming<SidecarMessage>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let Some((caller, peer)) = caller.and_then(|caller| {
            let peer = caller.peer.clone()?;
            Some((caller, peer))
        }) else {
            return Err(Status::unauthenticated("no identity was proven"));
        };
        let incoming = request.into_inner();
        let (outgoing, stream) = delivery();
        let (state, shutdown) = (self.state.clone(), self.shutdown.clone());
        let serving = async move {
            let place = state.streams.enter(peer.id().clone());
            let ended = tokio::select! {
                () = shutdown.cancelled() => Err(Status::unavailable("the config service stops")),
                ended = run(&state, &caller, &peer, &place, incoming, &outgoing) => ended,
            };
            let Err(status) = ended else { return };
            state.ended.log(|left_out| {
                tracing::info!(peer = %peer.id(), reason = status.message(), left_out, "subscription ended");
            });
            let asked =
                shutdown.run_until_cancelled(timeout(limits::GOODBYE_TIMEOUT, outgoing.asked()));
            let does_not_read = matches!(asked.await, Some(Err(_)));
            outgoing.send(Err(status));
            if does_not_read {
                caller.hang_up.cancel();
            }
        };
        self.tracker.spawn(alone("a subscription", serving));
        Ok(Response::new(stream))
    }
}

async fn run(
    state: &ServerState,
    caller: &Caller,
    peer: &PeerId,
    place: &StreamPlace<SpiffeId>,
    mut incoming: Streaming<SidecarMessage>,
    outgoing: &Outgoing,
) -> Result<(), Status> {
    let first = timeout(limits::HELLO_TIMEOUT, incoming.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello"))??;
    let Some(SidecarMessage {
        kind: Some(In::Hello(hello)),
    }) = first
    else {
        return Err(Status::invalid_argument(
            "the first message must be a hello",
        ));
    };
    let about = checked(&hello, caller, peer)?;
    let workload = Workload {
        identity: peer.id().clone(),
        instance: hello.instance,
    };
    let needs = Arc::new(Sidecar {
        identity: workload.identity.clone(),
        listens_for: BTreeSet::clone(&about.listens_for),
        serves: BTreeSet::new(),
        features: about.features,
    });
    let stream = state.connect(&workload, about).map_err(too_many_names)?;
    let subscriber = Subscriber {
        state,
        undelivered: state.undelivered.of(&workload.identity),
        workload,
        stream,
        needs,
        sent: Sent::nothing(Schema::unreadable_to(&hello.schemas)),
    };
    let (workload, number) = (subscriber.workload.clone(), subscriber.stream.number);
    let ended = subscriber.pump(peer, place, incoming, outgoing).await;
    state.disconnect(&workload, number, Instant::now());
    ended
}

struct Subscriber<'a> {
    state: &'a ServerState,
    workload: Workload,
    stream: Stream,
    /// The facts about the sidecar on which its table depends.
    needs: Arc<Sidecar>,
    /// The bytes that the sidecars of this identity may leave untaken.
    undelivered: Arc<Semaphore>,
    sent: Sent,
}

/// A message under way.
struct UnderWay {
    until: Instant,
    _bytes: Option<OwnedSemaphorePermit>,
}

impl Subscriber<'_> {
    async fn pump(
        mut self,
        peer: &PeerId,
        place: &StreamPlace<SpiffeId>,
        mut incoming: Streaming<SidecarMessage>,
        outgoing: &Outgoing,
    ) -> Result<(), Status> {
        let (mut views, mut recorded) = (self.state.views(), self.state.recorded());
        let mut pending = false;
        // The first report names the services of a sidecar. A table made before that report would deny all
        // calls to a service that the sidecar still serves.
        let mut reported = false;
        // It runs nothing that a later service would not know of.
        let mut is_recorded = false;
        let mut pace = Pace::new(Instant::now());
        let mut silent_until = Instant::now() + limits::SILENCE_MAX;
        let mut under_way: Option<UnderWay> = None;
        let (mut wanted, mut granted): (u32, Option<OwnedSemaphorePermit>) = (0, None);
        let life = peer.not_after().duration_since(SystemTime::now());
        let expiry = tokio::time::sleep(life.unwrap_or_default());
        tokio::pin!(expiry);
        loop {
            let paused = pace.paused(Instant::now());
            let until = |at: Option<Instant>| sleep_until(at.unwrap_or(silent_until));
            let taken_until = under_way.as_ref().map(|message| message.until);
            tokio::select! {
                () = &mut expiry => {
                    return Err(Status::unauthenticated("the certificate expired: connect again"));
                }
                () = self.stream.superseded.cancelled() => {
                    return Err(Status::aborted("this sidecar has subscribed anew"));
                }
                () = place.taken_back() => {
                    return Err(Status::resource_exhausted("too many sidecars are connected"));
                }
                () = sleep_until(silent_until) => {
                    return Err(Status::deadline_exceeded("the sidecar has not reported for too long"));
                }
                () = until(taken_until), if taken_until.is_some() => {
                    return Err(Status::deadline_exceeded("the sidecar does not read what it is sent"));
                }
                noted = recorded.wait_for(|last| *last >= self.stream.number), if !is_recorded => {
                    is_recorded = noted.is_ok();
                    pending = reported;
                }
                changed = views.changed(), if reported && is_recorded => match changed {
                    Ok(()) => pending = true,
                    Err(_) => return Ok(()),
                },
                () = until(paused), if paused.is_some() => {}
                message = incoming.message(), if paused.is_none() => match message? {
                    Some(message) => {
                        let now = Instant::now();
                        pace.count(now);
                        silent_until = now + limits::SILENCE_MAX;
                        reported |= matches!(message.kind, Some(In::Report(_)));
                        self.handle(message, now)?;
                        pending = reported && is_recorded;
                    }
                    None => return Ok(()),
                },
                permit = self.undelivered.clone().acquire_many_owned(wanted), if wanted > 0 => {
                    (wanted, granted) = (0, permit.ok());
                }
                asked = outgoing.asked(), if under_way.is_some() || pending && wanted == 0 => {
                    if asked.is_err() {
                        return Ok(());
                    }
                    under_way = None;
                    if !pending {
                        continue;
                    }
                    let view = views.borrow_and_update().clone();
                    let Some((message, after)) = self.next(&view)? else {
                        (pending, granted) = (false, None);
                        continue;
                    };
                    match self.room(&message, granted.take()) {
                        Ok(bytes) => {
                            let until = Instant::now() + limits::DELIVERY_TIMEOUT;
                            under_way = Some(UnderWay { until, _bytes: bytes });
                            outgoing.send(Ok(message));
                            self.went(after);
                        }
                        Err(bytes) => wanted = bytes,
                    }
                }
            }
        }
    }

    /// Room for a message among those that the identity's sidecars have not taken, or the bytes that it
    /// needs.
    fn room(
        &self,
        message: &ServiceMessage,
        granted: Option<OwnedSemaphorePermit>,
    ) -> Result<Option<OwnedSemaphorePermit>, u32> {
        let bytes = message.encoded_len().min(limits::UNDELIVERED_BYTES_MAX);
        if bytes <= limits::SMALL_MESSAGE_BYTES {
            return Ok(None);
        }
        // A message that is larger than all room takes all of it.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Some(granted) = granted
            && granted.num_permits() >= usize::try_from(bytes).unwrap_or(usize::MAX)
        {
            return Ok(Some(granted));
        }
        let room = self.undelivered.clone().try_acquire_many_owned(bytes);
        room.map(Some).map_err(|_| bytes)
    }

    fn handle(&mut self, message: SidecarMessage, now: Instant) -> Result<(), Status> {
        let (workload, number) = (&self.workload, self.stream.number);
        match message.kind {
            Some(In::Report(report)) => {
                let leaving = report.leaving;
                let inbound = inbound(report)?;
                self.state
                    .report(workload, number, inbound, now)
                    .map_err(too_many_names)?;
                if leaving {
                    self.state.leave(workload, number);
                }
            }
            Some(In::Acknowledgement(acknowledgement)) => {
                let Some(revision) = acknowledgement.revision else {
                    return Err(Status::invalid_argument(
                        "an acknowledgement names a revision",
                    ));
                };
                if revision.store.len() > limits::INSTANCE_LENGTH_MAX {
                    return Err(Status::invalid_argument("there is no such store"));
                }
                let refusal = acknowledgement
                    .refusal
                    .chars()
                    .take(limits::REFUSAL_LENGTH_MAX)
                    .collect();
                self.state
                    .acknowledge(workload, number, revision.into(), refusal);
            }
            Some(In::Hello(_)) => return Err(Status::invalid_argument("a second hello")),
            // A later sidecar may send fields that this service does not know.
            None => {}
        }
        Ok(())
    }

    /// The next message that brings the sidecar nearer to `view`, if any is missing.
    fn next(&mut self, view: &View) -> Result<Option<(ServiceMessage, After)>, Status> {
        let (plan, number) = (view.tables.plan(), self.stream.number);
        let (serves, registrations) = self.state.serves(&self.workload, number, plan);
        if self.needs.serves != serves {
            self.needs = Arc::new(Sidecar {
                serves,
                ..Sidecar::clone(&self.needs)
            });
        }
        match self.sent.next(view, &self.needs, &registrations) {
            Ok(Next::Send(message, after)) => Ok(Some((message, after))),
            Ok(Next::Nothing) => Ok(None),
            Ok(Next::CannotRead(reason)) => {
                let revision = plan.revision.clone();
                self.state
                    .cannot_tell(&self.workload, number, revision, &reason);
                Ok(None)
            }
            Err(error @ NotSendable::TooLarge) => {
                Err(Status::resource_exhausted(error.to_string()))
            }
            Err(error @ NotSendable::Json(_)) => Err(Status::internal(error.to_string())),
        }
    }

    fn went(&mut self, after: After) {
        match self.sent.went(after) {
            Some(News::Problems) => self.state.log_problems(&self.workload),
            Some(News::Table(table)) => {
                let (workload, number) = (&self.workload, self.stream.number);
                self.state.withhold(workload, number, table.withheld());
            }
            None => {}
        }
    }
}

fn too_many_names(_: TooManyNames) -> Status {
    Status::resource_exhausted("the sidecars of this identity name too many services")
}

fn checked(hello: &proto::Hello, caller: &Caller, peer: &PeerId) -> Result<About, Status> {
    let names = [&hello.version, &hello.instance];
    if names
        .iter()
        .any(|name| name.is_empty() || name.len() > limits::INSTANCE_LENGTH_MAX)
    {
        return Err(invalid(&"version and instance have 1 to 64 characters"));
    }
    if hello.listens_for.len() > limits::LISTENS_FOR_MAX {
        return Err(invalid(&"too many services in listens_for"));
    }
    let listens_for = hello
        .listens_for
        .iter()
        .map(|name| name.parse())
        .collect::<Result<_, _>>()
        .map_err(|error: NameError| invalid(&error))?;
    if hello.schemas.len() > limits::FEATURES_MAX
        || hello.features.len() > limits::FEATURES_MAX
        || hello
            .features
            .iter()
            .any(|name| name.len() > limits::INSTANCE_LENGTH_MAX)
    {
        return Err(invalid(
            &"too many or too long names of features or schemas",
        ));
    }
    let address = match hello.advertise.as_str() {
        "" => None,
        text => Some(
            text.parse::<SocketAddr>()
                .map_err(|error| invalid(&error))?,
        ),
    };
    if address.is_some_and(|address| address.ip().is_unspecified() || address.port() == 0) {
        return Err(invalid(&"a wildcard address cannot be advertised"));
    }
    let locality = proto::locality(&hello.locality).map_err(|error| invalid(&error))?;
    Ok(About {
        source: Some(caller.source),
        not_after: peer.not_after(),
        version: hello.version.clone(),
        listens_for: Arc::new(listens_for),
        features: Features::named(hello.features.iter().map(String::as_str)),
        place: Place { address, locality },
    })
}

fn inbound(report: proto::Report) -> Result<Inbound, Status> {
    if report.inbound.len() > limits::INBOUND_MAX {
        return Err(invalid(&"too many services in a report"));
    }
    report
        .inbound
        .into_iter()
        .map(|one| {
            let service = one
                .service
                .parse()
                .map_err(|error: NameError| invalid(&error))?;
            let port = u16::try_from(one.port).map_err(|error| invalid(&error))?;
            let details = proto::details(one.weight, one.metadata);
            let reported = Reported {
                healthy: one.healthy,
                details: details.map_err(|error| invalid(&error))?,
                problem: one
                    .problem
                    .chars()
                    .take(limits::PROBLEM_LENGTH_MAX)
                    .collect(),
            };
            Ok(((service, port), reported))
        })
        .collect()
}

fn invalid(error: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}
