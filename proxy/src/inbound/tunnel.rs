//! One tunnel of a peer (CONNECT, RFC 9114 section 4.4) to a TCP service of the application.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use http::{Response, StatusCode};
use weft_config::table::Protocol;
use weft_transport::wire::{Reason as Why, ReceiveError, RecvHalf, Responder, ServerRequest};

use super::served::ServedService;
use super::{Admitted, Peer, while_allowed};
use crate::directory::Directory;
use crate::failure::{Failure, Reason};
use crate::http::answer::PROXY_STATUS;
use crate::http::{answer, fields};
use crate::metrics::Direction;
use crate::record::Record;
use crate::relay::{Carried, TunnelError, tunnel};
use crate::stream::ApplicationStream;
use crate::transport_failure::{send_failure, stream_failure};

/// Serves one tunnel to its end.
pub(super) async fn serve(peer: Arc<Peer>, request: ServerRequest) {
    let ServerRequest {
        head,
        recv,
        respond,
    } = request;
    let worker = &peer.inbound.worker;
    let started = Instant::now();
    let mut policy = worker.directory.clone();
    let directory = Arc::clone(&policy.borrow_and_update());

    let service = worker
        .shared
        .served
        .identify(&head, directory.table.as_deref());
    let label = service
        .as_ref()
        .map_or(&worker.no_service, |service| &service.label);
    let labels = worker.arriving(peer.id.id().as_str(), &peer.service, label);
    let counted = worker.shard.tunnels(labels);
    let id = head.headers.get(fields::X_REQUEST_ID).cloned();
    let observers = Arc::clone(&worker.observers);
    let mut record = Record::new(counted, observers, started, &head, id);
    record.revision = directory.revision();
    let opened = match service {
        Ok(service) => open(&peer, &directory, service, &head).await,
        Err(failure) => Err(failure),
    };
    drop(directory);
    let opened = match opened {
        Ok(opened) => opened,
        Err(failure) => return refuse(respond, failure, record).await,
    };
    record.status = StatusCode::OK.as_u16();
    let carried = Carried::new(Direction::Inbound, record.open_tunnel());
    let service = Arc::clone(opened.admitted.permit.service());
    let (caller, parent) = (peer.id.id(), opened.admitted.parent.as_ref());
    let running = pin!(run(
        &opened,
        recv,
        respond,
        worker.shared.timeouts.tunnel_idle,
        &carried,
    ));
    let allowed = pin!(
        while_allowed(&mut policy, &service, caller, parent, None, running).map(Result::flatten)
    );
    let outcome = worker.until_cut(allowed).await;
    record.sent = carried.sent();
    record.received = carried.received();
    if outcome.is_err() {
        // The policy changed, or this sidecar ends: dropping the halves resets the stream, and the
        // application gets a reset too.
        opened.application.reset_on_close();
    }
    record.end(outcome);
}

/// A tunnel whose application accepted.
struct Opened {
    admitted: Admitted,
    application: ApplicationStream,
}

async fn open(
    peer: &Peer,
    directory: &Directory,
    service: &Arc<ServedService>,
    head: &http::request::Parts,
) -> Result<Opened, Failure> {
    // A caller without permission learns nothing else about the service.
    let admitted = peer.admit(directory, service, head, Instant::now())?;
    match service.protocol(directory.table.as_deref()) {
        Some(Protocol::Http | Protocol::Grpc) => {
            return Err(Failure::new(
                Reason::MethodRefused,
                format!("{} takes requests, not tunnels", service.label),
            ));
        }
        Some(Protocol::Tcp) | None => {}
    }
    let application = admitted.application.connect().await?;
    Ok(Opened {
        admitted,
        application,
    })
}

async fn refuse(respond: Responder, failure: Failure, mut record: Record) {
    let mut response = Response::new(());
    *response.status_mut() = failure.reason.status();
    response
        .headers_mut()
        .insert(PROXY_STATUS, answer::proxy_status(&failure));
    answer::sign(response.headers_mut(), &failure);
    let (head, ()) = response.into_parts();
    record.status = head.status.as_u16();
    let _ = respond.head(&head, true).await;
    record.end(Err(failure));
}

async fn run(
    opened: &Opened,
    recv: RecvHalf,
    respond: Responder,
    idle: std::time::Duration,
    carried: &Carried,
) -> Result<(), Failure> {
    let (head, ()) = Response::new(()).into_parts();
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.4
    //# Once this connection is successfully established, the proxy sends a HEADERS frame containing a 2xx
    //# series status code to the client
    let send = respond
        .head(&head, false)
        .await
        .map_err(|error| send_failure(&error))?;
    tunnel(&opened.application, send, recv, idle, carried)
        .await
        .map_err(|error| tunnel_failure(&error, "the application"))
}

/// What a broken tunnel means; `near` names the program at the TCP side.
pub(crate) fn tunnel_failure(error: &TunnelError, near: &str) -> Failure {
    match error {
        TunnelError::Application(kind) => Failure::new(
            Reason::ConnectionTerminated,
            format!("{near}'s connection broke: {kind}"),
        ),
        TunnelError::Peer(ReceiveError::Reset(Why::TunnelBroke)) => Failure::new(
            Reason::ConnectionTerminated,
            "the far side's connection broke",
        ),
        TunnelError::Peer(error) => stream_failure(error),
        TunnelError::ToPeer(error) => send_failure(error),
        TunnelError::Outside(kind) => Failure::new(
            Reason::ConnectionTerminated,
            format!("the connection out of the mesh broke: {kind}"),
        ),
        TunnelError::Idle => Failure::new(
            Reason::ResponseTimeout,
            "no bytes passed for the tunnel's idle timeout",
        ),
    }
}
