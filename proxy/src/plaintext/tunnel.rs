//! One connection of a caller without mutual TLS to a TCP service of the application. Its sibling for peers
//! is in `inbound/tunnel.rs`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use http::request::Parts;
use http::{Method, Request, StatusCode, Uri};

use super::{Client, disallowed};
use crate::directory::Directory;
use crate::failure::{Failure, Reason};
use crate::inbound::Admitted;
use crate::inbound::meant::Meant;
use crate::metrics::Direction;
use crate::outbound::Requests as _;
use crate::outside::Link;
use crate::record::Record;
use crate::relay::{Carried, TunnelError, splice};
use crate::stream::ApplicationStream;

/// Carries one connection to its end.
pub(super) async fn serve(client: &Client, mut stream: ApplicationStream) {
    let started = Instant::now();
    let (worker, listener) = (client.worker(), &client.0.listener);
    client.0.seen.calls(started);
    let mut policy = worker.directory.clone();
    let directory = Arc::clone(&policy.borrow_and_update());
    let mut head = Request::new(()).into_parts().0;
    head.method = Method::CONNECT;
    head.uri = Uri::try_from(&*listener.service.label).unwrap_or_default();
    let (counted, observers) = (Arc::clone(&client.0.tunnels), Arc::clone(&worker.observers));
    let mut record = Record::new(counted, observers, started, &head, None);
    record.revision = directory.revision();
    worker.begin_trace(&mut head.headers, &mut record, false);
    let opened = open(client, &directory, &head, started).await;
    // Not kept while the connection lives.
    drop(directory);
    let (_admitted, application) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            stream.reset_on_close();
            record.status = failure.reason.status().as_u16();
            return record.end(Err(failure));
        }
    };
    record.status = StatusCode::OK.as_u16();
    let carried = Carried::new(Direction::Inbound, record.open_tunnel());
    let idle = worker.shared.timeouts.tunnel_idle;
    let outcome = {
        let carrying = splice(&application, BytesMut::new(), &mut stream, idle, &carried);
        let disallowed = disallowed(policy, Arc::clone(&listener.service), None);
        let allowed = pin!(async {
            tokio::select! {
                biased;
                carried = carrying => carried.map_err(|error| failure(&error)),
                failure = disallowed => Err(failure),
            }
        });
        worker.until_cut(allowed).await
    };
    record.sent = carried.sent();
    record.received = carried.received();
    if outcome.is_err() {
        // A broken connection is never passed on as a clean end.
        application.reset_on_close();
        stream.reset_on_close();
    }
    record.end(outcome);
}

async fn open(
    client: &Client,
    directory: &Directory,
    head: &Parts,
    now: Instant,
) -> Result<(Admitted, ApplicationStream), Failure> {
    let listener = &client.0.listener;
    let whom = (client.0.who(), None);
    let mut admitted =
        listener
            .inbound
            .admit(directory, &Meant::own(&listener.service), head, whom, now)?;
    match admitted.receiver.link().await? {
        Link::Left(application) => Ok((admitted, application)),
        Link::Right(_) => Err(Failure::new(
            Reason::Internal,
            "such a caller leaves the mesh",
        )),
    }
}

fn failure(error: &TunnelError) -> Failure {
    match error {
        TunnelError::Outside(kind) => Failure::new(
            Reason::ConnectionTerminated,
            format!("the caller's connection broke: {kind}"),
        ),
        other @ (TunnelError::Application(_)
        | TunnelError::Peer(_)
        | TunnelError::ToPeer(_)
        | TunnelError::Idle) => other.failure(),
    }
}
