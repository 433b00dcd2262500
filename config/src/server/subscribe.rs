//! One sidecar's stream: its reports and acknowledgements in, its table and changes out.
//!
//! Nothing is queued for a slow sidecar: what to send is computed when it can take a message, from the
//! newest view and what it was sent last.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use weft_transport::identity::PeerId;

use super::mesh::{Mesh, Place, View};
use super::registry::{Inbound, Workload};
use crate::compile::Sidecar;
use crate::limits;
use crate::proto::discovery_server::Discovery;
use crate::proto::service_message::Kind as Out;
use crate::proto::sidecar_message::Kind as In;
use crate::proto::{self, ServiceMessage, SidecarMessage};
use crate::table::{NameError, ServiceName, Table};

pub(super) struct Subscriptions {
    pub(super) mesh: Arc<Mesh>,
    pub(super) tracker: TaskTracker,
    pub(super) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl Discovery for Subscriptions {
    type SubscribeStream = ReceiverStream<Result<ServiceMessage, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SidecarMessage>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let peer = super::peer(&request)?;
        let incoming = request.into_inner();
        let (outgoing, stream) = mpsc::channel(limits::SUBSCRIBER_QUEUE);
        let (mesh, shutdown) = (self.mesh.clone(), self.shutdown.clone());
        self.tracker.spawn(async move {
            let ended = tokio::select! {
                () = shutdown.cancelled() => Err(Status::unavailable("the config service stops")),
                ended = run(&mesh, &peer, incoming, &outgoing) => ended,
            };
            if let Err(status) = ended {
                tracing::info!(peer = %peer.id(), reason = status.message(), "subscription ended");
                // It waits for nothing: if the sidecar does not read, it need not know why.
                let _ = outgoing.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

async fn run(
    mesh: &Mesh,
    peer: &PeerId,
    mut incoming: Streaming<SidecarMessage>,
    outgoing: &mpsc::Sender<Result<ServiceMessage, Status>>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(limits::CONNECT_TIMEOUT, incoming.message())
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
    let (listens_for, place) = checked(&hello)?;
    let workload = Workload {
        identity: peer.id().clone(),
        instance: hello.instance.clone(),
    };
    let Some(number) = mesh.connect(&workload, peer, &hello, listens_for.clone(), place) else {
        return Err(Status::resource_exhausted(
            "too many sidecars are connected",
        ));
    };
    let subscriber = Subscriber {
        mesh,
        workload,
        listens_for,
        sent: None,
        told: None,
    };
    let workload = subscriber.workload.clone();
    let ended = subscriber.pump(peer, incoming, outgoing).await;
    mesh.disconnect(&workload, number);
    ended
}

struct Subscriber<'a> {
    mesh: &'a Mesh,
    workload: Workload,
    listens_for: BTreeSet<ServiceName>,
    /// The table that the sidecar has, if it took everything, and whether it was marked as settling.
    sent: Option<(Table, bool)>,
    told: Option<proto::Registrations>,
}

impl Subscriber<'_> {
    async fn pump(
        mut self,
        peer: &PeerId,
        mut incoming: Streaming<SidecarMessage>,
        outgoing: &mpsc::Sender<Result<ServiceMessage, Status>>,
    ) -> Result<(), Status> {
        let mut views = self.mesh.views();
        let mut pending = false;
        // What a sidecar serves is in its first report. A table without it would deny all calls to a
        // service that the sidecar goes on to serve.
        let mut reported = false;
        let life = peer
            .not_after()
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let expiry = tokio::time::sleep(life);
        tokio::pin!(expiry);
        loop {
            tokio::select! {
                () = &mut expiry => {
                    return Err(Status::unauthenticated("the certificate expired: connect again"));
                }
                changed = views.changed(), if reported => match changed {
                    Ok(()) => pending = true,
                    Err(_) => return Ok(()),
                },
                message = incoming.message() => match message? {
                    Some(message) => {
                        reported |= matches!(message.kind, Some(In::Report(_)));
                        self.handle(message)?;
                        pending = reported;
                    }
                    None => return Ok(()),
                },
                permit = outgoing.reserve(), if pending => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let view = views.borrow_and_update().clone();
                    match self.next(&view)? {
                        Some(kind) => permit.send(Ok(ServiceMessage { kind: Some(kind) })),
                        None => pending = false,
                    }
                }
            }
        }
    }

    fn handle(&mut self, message: SidecarMessage) -> Result<(), Status> {
        match message.kind {
            Some(In::Report(report)) => {
                let inbound = inbound(&report)?;
                self.mesh.report(&self.workload, inbound, Instant::now());
            }
            Some(In::Acknowledgement(acknowledgement)) => {
                let Some(revision) = acknowledgement.revision else {
                    return Err(Status::invalid_argument(
                        "an acknowledgement names a revision",
                    ));
                };
                let refusal = acknowledgement
                    .refusal
                    .chars()
                    .take(limits::REFUSAL_LENGTH_MAX)
                    .collect();
                self.mesh
                    .acknowledge(&self.workload, revision.into(), refusal);
            }
            Some(In::Hello(_)) => return Err(Status::invalid_argument("a second hello")),
            // A later sidecar may say more than this service understands.
            None => {}
        }
        Ok(())
    }

    /// The next message that brings the sidecar nearer to `view`, if any is missing.
    fn next(&mut self, view: &View) -> Result<Option<Out>, Status> {
        let (serves, registrations) = self.mesh.serves(&self.workload, &view.plan);
        if self.told.as_ref() != Some(&registrations) {
            self.told = Some(registrations.clone());
            return Ok(Some(Out::Registrations(registrations)));
        }
        let sidecar = Sidecar {
            identity: self.workload.identity.clone(),
            listens_for: self.listens_for.clone(),
            serves,
        };
        let table = view.plan.table(&sidecar, &view.endpoints);
        let settling = view.settling;
        let message = match &self.sent {
            Some((sent, was)) if *sent == table && *was == settling => None,
            // The end of settling needs the table whole: the sidecar kept endpoints that the service
            // never sent, and only a complete list removes them.
            Some((sent, was)) if *was == settling && same_but_endpoints(sent, &table) => {
                Some(Out::Endpoints(proto::EndpointChanges {
                    revision: Some((&table.revision).into()),
                    ports: changed_ports(sent, &table),
                    settling,
                }))
            }
            Some(_) | None => {
                let json = serde_json::to_vec(&table)
                    .map_err(|error| Status::internal(error.to_string()))?;
                if json.len() > limits::TABLE_MESSAGE_BYTES_MAX - 1024 {
                    return Err(Status::resource_exhausted(
                        "the table is too large to be sent",
                    ));
                }
                Some(Out::Table(proto::Table { json, settling }))
            }
        };
        if message.is_some() {
            self.sent = Some((table, settling));
        }
        Ok(message)
    }
}

fn checked(hello: &proto::Hello) -> Result<(BTreeSet<ServiceName>, Place), Status> {
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
    Ok((listens_for, Place { address, locality }))
}

fn inbound(report: &proto::Report) -> Result<Inbound, Status> {
    if report.inbound.len() > limits::INBOUND_MAX {
        return Err(invalid(&"too many services in a report"));
    }
    report
        .inbound
        .iter()
        .map(|one| {
            let service = one
                .service
                .parse()
                .map_err(|error: NameError| invalid(&error))?;
            let port = u16::try_from(one.port).map_err(|error| invalid(&error))?;
            Ok(((service, port), one.healthy))
        })
        .collect()
}

fn invalid(error: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Whether nothing but endpoints differs.
fn same_but_endpoints(a: &Table, b: &Table) -> bool {
    let same_service = |a: &crate::table::Service, b: &crate::table::Service| {
        a.authorization == b.authorization
            && a.ports.len() == b.ports.len()
            && a.ports
                .iter()
                .zip(&b.ports)
                .all(|((a_number, a), (b_number, b))| {
                    a_number == b_number && a.protocol == b.protocol && a.routes == b.routes
                })
    };
    a.revision == b.revision
        && a.trust_domain == b.trust_domain
        && a.forbidden == b.forbidden
        && a.services.len() == b.services.len()
        && a.services
            .iter()
            .zip(&b.services)
            .all(|((a_name, a), (b_name, b))| a_name == b_name && same_service(a, b))
}

fn changed_ports(before: &Table, after: &Table) -> Vec<proto::PortEndpoints> {
    let mut changed = Vec::new();
    for (name, service) in &after.services {
        for (number, port) in &service.ports {
            let old = before
                .services
                .get(name)
                .and_then(|service| service.ports.get(number));
            if old.is_none_or(|old| old.endpoints != port.endpoints) {
                changed.push(proto::PortEndpoints {
                    service: name.to_string(),
                    port: (*number).into(),
                    endpoints: port.endpoints.iter().map(Into::into).collect(),
                });
            }
        }
    }
    changed
}
