//! One request of the application, in the order of its life: plan, filters, attempts, relay.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use weft_transport::locks::lock;

use super::attempt::Answered;
use super::exchange::Exchange;
use super::{Client, filters, plan};
use crate::failure::Failure;
use crate::http::body::ResponseBody;
use crate::http::{answer, fields, is_event_stream, is_grpc, request_id};
use crate::idle::Idle;
use crate::record::Record;
use crate::resilience::deadline::GRPC_TIMEOUT;

/// Serves one request; the response streams after this returns.
pub(super) async fn serve(
    client: Client,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let started = Instant::now();
    let worker = &client.listener.worker;
    worker.shard.lag.work();
    let (mut head, body) = request.into_parts();
    let version = head.version;
    let grpc = is_grpc(&head.headers);
    let id = request_id::ensure(&mut head.headers, || {
        rand::RngExt::random(&mut *lock(&worker.random))
    });
    let (counted, observers) = (Arc::clone(&worker.unrouted), Arc::clone(&worker.observers));
    let mut record = Record::new(counted, observers, started, &head, Some(id));
    let mut exchange = match plan::request(&client, head, grpc, &mut record) {
        Ok(exchange) => exchange,
        Err(failure) => return Ok(refuse(failure, record, grpc)),
    };
    let answered = match filters::apply(&mut exchange, started).await {
        Ok(now) => {
            exchange.take_body(body);
            exchange.answer(&mut record, now).await
        }
        Err(failure) => Err(failure),
    };
    Ok(match answered {
        Ok(answered) => relay(&exchange, answered, record, version),
        Err(failure) => refuse(failure, record, grpc),
    })
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

/// Makes what the destination answered the application's.
fn relay(
    exchange: &Exchange,
    answered: Answered,
    mut record: Record,
    version: Version,
) -> Response<ResponseBody> {
    exchange.settle();
    let idle = Idle::new(exchange.idle()).until(deadline_of_body(exchange, &answered));
    let (mut head, ()) = answered.response.into_parts();
    record.failure = answer::told(&head.headers, head.status);
    fields::strip(&mut head.headers);
    record.status = head.status.as_u16();
    let (ended, length) = (
        answered.body.is_end_stream(),
        answered.body.size_hint().exact(),
    );
    let ends_with_connection = !ended && length.is_none() && !record.has_no_content();
    // hyper's HTTP/1.1 side panics on HTTP/3 as version.
    head.version = match version {
        Version::HTTP_2 => Version::HTTP_2,
        // Else hyper would say `keep-alive` to a client that asked for it, and close all the same.
        Version::HTTP_10 if ends_with_connection => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    record.trailers(&head.headers);
    record.flight = Some(answered.flight);
    let pump = answered.upward.into_pump();
    let body = ResponseBody::peer(answered.body, pump, idle, record, version);
    Response::from_parts(head, body)
}

/// When the response's body has to be over: a stream whose end no client waits for may go on.
fn deadline_of_body(exchange: &Exchange, answered: &Answered) -> Option<Instant> {
    let endless = if exchange.is_grpc() {
        // gRPC's own deadline is of the whole call; without it a call may be a stream.
        !exchange.head.headers.contains_key(GRPC_TIMEOUT)
    } else {
        is_event_stream(answered.response.headers())
    };
    answered.deadline.filter(|_| !endless)
}
