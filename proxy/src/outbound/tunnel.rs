//! One TCP connection of the application to a TCP service, carried by CONNECT.
//!
//! No byte of the client is read before the far side has accepted, so a refused connection loses nothing
//! and looks refused: it is reset.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::header::HeaderValue;
use http::request::Parts;
use http::{Method, Request, Response, Uri};
use weft_config::table::Protocol;
use weft_transport::http3::{ResponseHalf, SendHalf};

use super::Listener;
use super::open::{Attempts, Opened, open};
use super::route::{Destination, Route, address, route_tunnel};
use crate::directory::LoadGuard;
use crate::failure::{Failure, Reason};
use crate::http::answer::PROXY_STATUS;
use crate::http::fields::{WEFT_ROUTE_PARENT, WEFT_SERVICE};
use crate::inbound::tunnel_failure;
use crate::limits;
use crate::mesh::stream_failure;
use crate::metrics::{Series, lock};
use crate::record::Record;
use crate::relay::{Carried, tunnel};
use crate::stream::ApplicationStream;

/// Whether the listener leads to a TCP service, as far as is known.
pub(super) fn is_wanted(listener: &Listener) -> bool {
    let directory = listener.worker.directory();
    matches!(listener.destination, Destination::Service { .. })
        && address(&directory, &listener.destination, None)
            .is_ok_and(|port| port.cluster.protocol == Protocol::Tcp)
}

/// Carries one connection to its end.
pub(super) async fn serve(listener: &Listener, application: ApplicationStream) {
    let worker = &listener.worker;
    let started = Instant::now();
    let outcome = connect(listener).await;
    let (label, principal, route) = match &outcome {
        Ok(connected) => (
            &connected.route.cluster.label,
            connected.principal.as_str(),
            connected.route.name.as_ref(),
        ),
        Err(refused) => (
            refused
                .label
                .as_ref()
                .unwrap_or(&worker.unrouted.labels.destination_service),
            "",
            None,
        ),
    };
    let counted = worker
        .shard
        .tunnels(worker.outbound_labels(label, principal, route));
    let head = head(label, None).unwrap_or_else(|_| Request::new(()).into_parts().0);
    let mut record = Record::new(counted, Arc::clone(&worker.log), started, &head, None);
    let connected = match outcome {
        Ok(connected) => connected,
        Err(Refused { failure, .. }) => {
            application.reset_on_close();
            record.status = failure.reason.status().as_u16();
            return record.end(Err(failure));
        }
    };
    record.status = 200;
    record.load = Some(connected.load);
    if let Series::Tunnels(series) = &record.counted.series {
        series.opened.fetch_add(1, Ordering::Relaxed);
    }
    let carried = Carried::default();
    let idle = worker.shared.timeouts.tunnel_idle;
    let body = connected.response.into_body();
    let outcome = tunnel(&application, connected.send, body, idle, &carried).await;
    record.sent = carried.sent.load(Ordering::Relaxed);
    record.received = carried.received.load(Ordering::Relaxed);
    record.end(outcome.map_err(|error| tunnel_failure(&error, "the application")));
}

/// A tunnel that the far side accepted.
struct Connected {
    route: Route,
    principal: String,
    send: SendHalf,
    response: ResponseHalf,
    load: LoadGuard,
}

/// Why there is none, and to which cluster.
struct Refused {
    label: Option<Arc<str>>,
    failure: Failure,
}

async fn connect(listener: &Listener) -> Result<Connected, Refused> {
    let worker = &listener.worker;
    let route = {
        let directory = worker.directory();
        address(&directory, &listener.destination, None)
            .and_then(|port| route_tunnel(port, &mut *lock(&worker.random)))
            .map_err(|failure| Refused {
                label: None,
                failure,
            })?
    };
    let refused = |failure| Refused {
        label: Some(Arc::clone(&route.cluster.label)),
        failure,
    };
    let head = head(&route.cluster.label, Some(&route)).map_err(refused)?;
    let mut attempts = Attempts::default();
    loop {
        let Opened {
            send,
            mut response,
            index,
            load,
        } = open(worker, &route.cluster, &head, false, &mut attempts)
            .await
            .map_err(refused)?;
        match tokio::time::timeout(limits::TUNNEL_OPEN_TIMEOUT, final_head(&mut response)).await {
            Ok(Ok(head)) if head.status().is_success() => {
                let principal = route
                    .cluster
                    .endpoints
                    .get(index)
                    .map(|one| one.target.identity.to_string());
                return Ok(Connected {
                    principal: principal.unwrap_or_default(),
                    route,
                    send,
                    response,
                    load,
                });
            }
            Ok(Ok(head)) => {
                let failure = refusal(&head);
                // Its application is down: another one's may be up, and no byte was taken yet.
                if failure.reason == Reason::ConnectionRefused && attempts.failed(index) {
                    continue;
                }
                return Err(refused(failure));
            }
            Ok(Err(error)) if error.is_unprocessed() && attempts.failed(index) => {}
            Ok(Err(error)) => return Err(refused(stream_failure(&error))),
            Err(_) => {
                let failure = Failure::new(
                    Reason::ConnectionTimeout,
                    "the peer did not answer CONNECT in time",
                );
                return Err(refused(failure));
            }
        }
    }
}

async fn final_head(
    response: &mut ResponseHalf,
) -> Result<Response<()>, weft_transport::http3::StreamError> {
    loop {
        let head = response.head().await?;
        if !head.status().is_informational() {
            return Ok(head);
        }
    }
}

/// What the peer's refusal means, in its own words.
fn refusal(head: &Response<()>) -> Failure {
    let reason = match head.status().as_u16() {
        403 => Reason::Denied,
        421 => Reason::Misdirected,
        502 => Reason::ConnectionRefused,
        503 => Reason::Overloaded,
        504 => Reason::ConnectionTimeout,
        _ => Reason::ConnectionTerminated,
    };
    let words = head
        .headers()
        .get(PROXY_STATUS)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("no reason given");
    Failure::new(
        reason,
        format!("the peer answered {}: {words}", head.status().as_u16()),
    )
}

/// The head of CONNECT (RFC 9114 section 4.4).
fn head(label: &Arc<str>, route: Option<&Route>) -> Result<Parts, Failure> {
    let invalid = |_| Failure::new(Reason::Internal, "a service's name is no authority");
    let uri = Uri::try_from(label.as_ref()).map_err(|error| invalid(error.to_string()))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri;
    if let Some(route) = route {
        let headers = request.headers_mut();
        headers.insert(WEFT_SERVICE, route.cluster.wire.clone());
        if let Some(parent) = &route.parent {
            headers.insert(WEFT_ROUTE_PARENT, HeaderValue::clone(&parent.wire));
        }
    }
    Ok(request.into_parts().0)
}
