//! One tunnel of a peer (CONNECT, RFC 9114 section 4.4) to a TCP service of the application.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use http::{Response, StatusCode};
use weft_config::table::Protocol;
use weft_transport::wire::{RecvHalf, Responder, ServerRequest};

use super::meant::Meant;
use super::{Admitted, Peer, while_allowed};
use crate::directory::Directory;
use crate::failure::{Failure, Reason};
use crate::http::answer::PROXY_STATUS;
use crate::http::{answer, fields};
use crate::metrics::Direction;
use crate::outside::{Link, reset_on_close};
use crate::record::Record;
use crate::relay::{Carried, tunnel, tunnel_secured};
use crate::transport_failure::send_failure;

/// Serves one tunnel to its end.
pub(super) async fn serve(peer: Arc<Peer>, request: ServerRequest) {
    let ServerRequest {
        mut head,
        recv,
        respond,
    } = request;
    let worker = &peer.inbound.worker;
    let started = Instant::now();
    let mut policy = worker.directory.clone();
    let directory = Arc::clone(&policy.borrow_and_update());

    let meant = Meant::find(&worker.shared.served, &head, &directory);
    let label = meant
        .as_ref()
        .map_or(&worker.no_service, |meant| meant.label());
    let labels = worker.arriving(peer.id.id().as_str(), &peer.service, label);
    let counted = worker.shard.tunnels(labels);
    let id = head.headers.get(fields::X_REQUEST_ID).cloned();
    let observers = Arc::clone(&worker.observers);
    let mut record = Record::new(counted, observers, started, &head, id);
    record.revision = directory.revision();
    worker.begin_trace(&mut head.headers, &mut record, false);
    let opened = match meant {
        Ok(meant) => open(&peer, &directory, &meant, &head)
            .await
            .map(|opened| (meant, opened)),
        Err(failure) => Err(failure),
    };
    drop(directory);
    let (meant, opened) = match opened {
        Ok(opened) => opened,
        Err(failure) => return refuse(respond, failure, record).await,
    };
    record.status = StatusCode::OK.as_u16();
    let carried = Carried::new(Direction::Inbound, record.open_tunnel());
    let Opened { admitted, mut link } = opened;
    let (caller, parent) = (peer.id.id(), admitted.parent.as_ref());
    let outcome = {
        let running = pin!(run(
            &mut link,
            recv,
            respond,
            worker.shared.timeouts.tunnel_idle,
            &carried,
        ));
        let allowed = pin!(
            while_allowed(&mut policy, &meant, caller, parent, None, running).map(Result::flatten)
        );
        worker.until_cut(allowed).await
    };
    record.sent = carried.sent();
    record.received = carried.received();
    if outcome.is_err() {
        // The policy changed, or this sidecar ends: dropping the halves resets the stream, and the
        // application gets a reset too.
        reset_on_close(&link);
    }
    record.end(outcome);
}

/// A tunnel whose far end accepted.
struct Opened {
    admitted: Admitted,
    link: Link,
}

async fn open(
    peer: &Peer,
    directory: &Directory,
    meant: &Meant<'_>,
    head: &http::request::Parts,
) -> Result<Opened, Failure> {
    // A caller without permission learns nothing else about the service.
    let mut admitted = peer.admit(directory, meant, head, Instant::now())?;
    match meant.protocol(directory.table.as_deref()) {
        Some(Protocol::Http | Protocol::Grpc) => {
            return Err(Failure::new(
                Reason::MethodRefused,
                format!("{} takes requests, not tunnels", meant.label()),
            ));
        }
        Some(Protocol::Tcp) | None => {}
    }
    let link = admitted.receiver.link().await?;
    Ok(Opened { admitted, link })
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
    link: &mut Link,
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
    let carrying = match link {
        Link::Left(stream) => tunnel(stream, send, recv, idle, carried).await,
        // Boxed, because most tunnels lead to applications.
        Link::Right(stream) => Box::pin(tunnel_secured(stream, send, recv, idle, carried)).await,
    };
    carrying.map_err(|error| error.failure())
}
