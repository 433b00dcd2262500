//! One request of the application: whom it wants, where it goes, and the stream that carries it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::header::EXPECT;
use http::request::Parts;
use http::uri::Authority;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use weft_transport::http3::{RecvHalf, ResponseHalf, StreamError};

use super::open::{Attempts, Opened, open};
use super::route::{Route, address, route};
use super::{Listener, prepare};
use crate::directory::LoadGuard;
use crate::failure::{Failure, Reason};
use crate::http::authority::canonical;
use crate::http::body::{Pump, ResponseBody, poll_pump};
use crate::http::{answer, fields, is_grpc, request_id};
use crate::idle::Idle;
use crate::limits;
use crate::mesh::stream_failure;
use crate::metrics::{Shard, lock};
use crate::record::Record;

/// Where a gRPC call says how it ended.
const GRPC_STATUS: &str = "grpc-status";

/// Serves one request; the response streams after this returns.
pub(super) async fn serve(
    listener: Arc<Listener>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let started = Instant::now();
    let worker = &listener.worker;
    let (mut head, body) = request.into_parts();
    let version = head.version;
    let grpc = is_grpc(&head.headers);
    let id = request_id::ensure(&mut head.headers, || {
        rand::RngExt::random(&mut *lock(&worker.random))
    });
    let (counted, log) = (Arc::clone(&worker.unrouted), Arc::clone(&worker.log));
    let mut record = Record::new(counted, log, started, &head, Some(id));
    Ok(
        match forward(&listener, &mut head, body, &mut record).await {
            Ok(forwarded) => relay(&listener, forwarded, record, version),
            Err(failure) => refuse(failure, record, grpc),
        },
    )
}

/// Answers in the destination's place.
fn refuse(failure: Failure, mut record: Record, grpc: bool) -> Response<ResponseBody> {
    let to_head = record.method == http::Method::HEAD;
    let id = record.request_id.as_ref();
    let (response, text) = answer::answer(&failure, grpc, to_head, id);
    record.status = response.status().as_u16();
    record.failure = Some(failure);
    response.map(|()| ResponseBody::whole(text, record))
}

/// A request whose response head has arrived.
struct Forwarded {
    response: Response<()>,
    body: RecvHalf,
    pump: Option<Pump>,
    load: LoadGuard,
}

fn relay(
    listener: &Listener,
    forwarded: Forwarded,
    mut record: Record,
    version: Version,
) -> Response<ResponseBody> {
    let Forwarded {
        response,
        body,
        pump,
        load,
        ..
    } = forwarded;
    let (mut head, ()) = response.into_parts();
    // hyper's HTTP/1.1 side panics on HTTP/3 as version.
    head.version = if version == Version::HTTP_2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    fields::strip(&mut head.headers);
    record.status = head.status.as_u16();
    record.trailers(&head.headers);
    record.load = Some(load);
    let idle = listener.worker.shared.timeouts.stream_idle;
    Response::from_parts(head, ResponseBody::peer(body, pump, idle, record))
}

/// Identify, route, pick, open, and wait for the response head. What becomes known goes into the record.
async fn forward(
    listener: &Listener,
    head: &mut Parts,
    body: Incoming,
    record: &mut Record,
) -> Result<Forwarded, Failure> {
    let worker = &listener.worker;
    prepare::check(head, &worker.shared.via)?;
    let (route, authority) = choose(listener, head, record)?;
    let via = match head.version {
        Version::HTTP_2 => &worker.via_http2,
        _ => &worker.via_http1,
    };
    prepare::rewrite(head, &route, authority, via)?;
    record.uri = head.uri.clone();

    let end = body.is_end_stream();
    let wait = !end && head.headers.contains_key(EXPECT);
    let mut body = Some(body);
    let mut attempts = Attempts::default();
    loop {
        let opened = open(worker, &route.cluster, head, end, &mut attempts).await;
        record.counted = worker.leaving(
            &route.cluster,
            attempts.last(),
            route.name.as_ref(),
            Shard::requests,
        );
        let Opened {
            mut send,
            mut response,
            load,
        } = opened?;
        let mut pump = None;
        if let Some(body) = body.take_if(|_| !end) {
            pump = Some(Pump::new(body, send, wait));
        } else {
            // The end went with the head; what remains is to hear that all was well.
            send.finish()
                .await
                .map_err(|error| stream_failure(&error))?;
        }
        let answered =
            response_head(&mut response, &mut pump, worker.shared.timeouts.stream_idle).await;
        record.sent = pump.as_ref().map_or(0, Pump::moved);
        match answered {
            Ok(head) => {
                let mut body = response.into_body();
                if head.headers().contains_key(GRPC_STATUS) {
                    // Trailers-Only: gRPC clients want the end of the stream on this very head, so hyper
                    // must know of it in time. The peer sends both at once.
                    let end = std::future::poll_fn(|cx| body.poll_end(cx));
                    let _ = tokio::time::timeout(limits::TRAILERS_ONLY_WAIT, end).await;
                }
                return Ok(Forwarded {
                    response: head,
                    body,
                    pump,
                    load,
                });
            }
            // Without a body nothing is lost but the head, which is still here.
            Err(HeadError::Stream(error))
                if end && error.is_unprocessed() && attempts.may_go_on() => {}
            Err(HeadError::Stream(error)) => return Err(stream_failure(&error)),
            Err(HeadError::Own(failure)) => return Err(failure),
        }
    }
}

/// Whom the application wants, and who gets it under which authority.
fn choose(
    listener: &Listener,
    head: &Parts,
    record: &mut Record,
) -> Result<(Route, Authority), Failure> {
    let worker = &listener.worker;
    let directory = worker.directory();
    let authority = canonical(head)?;
    prepare::check_target(head, &listener.destination, authority.as_ref())?;
    let port = address(&directory, &listener.destination, authority.as_ref())?;
    record.counted = worker.leaving(&port.cluster, None, None, Shard::requests);
    let route = route(port, head, &mut *lock(&worker.random))?;
    let authority = prepare::authority_to_send(authority.as_ref(), &route)?;
    Ok((route, authority))
}

enum HeadError {
    Stream(StreamError),
    Own(Failure),
}

/// Waits for the final head, while the request body goes out.
async fn response_head(
    response: &mut ResponseHalf,
    pump: &mut Option<Pump>,
    timeout: std::time::Duration,
) -> Result<Response<()>, HeadError> {
    let mut idle = Idle::new(timeout);
    loop {
        let head = {
            let mut next = pin!(response.head());
            std::future::poll_fn(|cx| {
                if poll_pump(pump, cx).is_err() {
                    let gone =
                        Failure::new(Reason::CallerGone, "the application broke off its request");
                    return Poll::Ready(Err(HeadError::Own(gone)));
                }
                if let Poll::Ready(head) = next.as_mut().poll(cx) {
                    return Poll::Ready(head.map_err(HeadError::Stream));
                }
                let moved = pump.as_ref().map_or(0, Pump::moved);
                idle.poll(cx, moved).map(|_| {
                    Err(HeadError::Own(Failure::new(
                        Reason::ResponseTimeout,
                        "no response within the idle timeout",
                    )))
                })
            })
            .await?
        };
        if !head.status().is_informational() {
            return Ok(head);
        }
        // hyper's server side sends no other interim response, so 103 ends here.
        if head.status() == StatusCode::CONTINUE
            && let Some(pump) = pump
        {
            pump.go_on();
        }
    }
}
