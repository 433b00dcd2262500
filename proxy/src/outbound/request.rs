//! One request of the application, in the order of its life: plan, filters, attempts, relay.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use weft_transport::locks::lock;

use super::attempt::Answered;
use super::exchange::Exchange;
use super::filters::{self, mirror, routed};
use super::instead::Instead;
use super::response_body::ResponseBody;
use super::{Client, plan};
use crate::http::{answer, fields, is_event_stream, is_grpc, request_id};
use crate::idle::Idle;
use crate::record::Record;
use crate::resilience::deadline::GRPC_TIMEOUT;
use crate::serving_time::ServingTime;
use crate::worker::Worker;

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
    worker.begin_trace(&mut head.headers, &mut record, grpc);
    let mut exchange = match plan::request(&client, head, grpc, &mut record) {
        Ok(exchange) => exchange,
        Err(instead) => {
            let revision = record.revision;
            return Ok(by_revision(worker, revision, instead.respond(record, grpc)));
        }
    };
    let filtered = filters::apply(&mut exchange, started).await;
    routed::tell(&exchange, &mut record);
    let answered = match filtered {
        Ok(now) => {
            exchange.take_body(body);
            mirror::send_bodiless(&mut exchange);
            let answered = exchange.answer(&mut record, now).await;
            // Before the body is forgotten.
            mirror::send(&mut exchange);
            answered.map_err(Instead::from)
        }
        Err(instead) => Err(instead),
    };
    let revision = record.revision;
    let response = match answered {
        Ok(answered) => relay(&exchange, answered, record, version),
        Err(instead) => {
            let mut response = instead.respond(record, grpc);
            let _ = routed::apply_to_answer(&exchange, response.headers_mut(), true);
            response
        }
    };
    Ok(by_revision(worker, revision, response))
}

/// Names the revision that decided where the request went, where the settings ask for that.
fn by_revision(
    worker: &Worker,
    revision: Option<u64>,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    if let Some(revision) = revision
        && worker.shared.revision_header
    {
        let headers = response.headers_mut();
        headers.insert(fields::WEFT_REVISION, revision.into());
    }
    response
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
    record.serving = ServingTime::told(&head.headers);
    fields::strip(&mut head.headers);
    let is_of_mesh = record.failure.is_some();
    if let Some(acted) = routed::apply_to_answer(exchange, &mut head.headers, is_of_mesh) {
        record.routed().filters.push(acted);
    }
    if head.status.is_server_error()
        && let Some(id) = &record.request_id
    {
        // By which its user can ask why (`weft why`).
        head.headers
            .entry(fields::X_REQUEST_ID)
            .or_insert_with(|| id.clone());
    }
    if exchange.worker.shared.server_timing {
        say_times(&mut head.headers, &record);
    }
    if let Some(session) = &exchange.route.session {
        let (headers, random) = (&mut head.headers, &mut *lock(&exchange.worker.random));
        let became = session.conclude(&answered.flight, is_of_mesh, headers, random);
        if let Some(became) = became {
            record.routed().session(became);
        }
    }
    record.status = head.status.as_u16();
    let (ended, length) = (
        answered.body.is_end_stream(),
        answered.body.size_hint().exact(),
    );
    let ends_with_connection = !ended && length.is_none() && !record.has_no_content();
    head.version = version_to(version, ends_with_connection);
    record.trailers(&head.headers);
    record.flight = Some(answered.flight);
    let pump = answered.upward.into_pump();
    let body = ResponseBody::peer(answered.body, pump, idle, record, version);
    Response::from_parts(head, body)
}

/// Tells the application where the time until the head of its answer went (Server Timing, section 4), where
/// the settings ask for that.
fn say_times(headers: &mut HeaderMap, record: &Record) {
    let (Some(serving), Some(last)) = (record.serving, record.kept.last()) else {
        return;
    };
    let head = last.over().saturating_duration_since(record.started);
    let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let (application, mesh) = (
        serving.application(),
        head.saturating_sub(serving.application()),
    );
    let text = format!(
        "weft;dur={}, application;dur={}",
        millis(mesh),
        millis(application)
    );
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.append(SERVER_TIMING, value);
    }
}

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The version of an answer to a client of that version. hyper's HTTP/1.1 side panics on HTTP/3.
pub(crate) fn version_to(client: Version, ends_with_connection: bool) -> Version {
    match client {
        Version::HTTP_2 => Version::HTTP_2,
        // Otherwise hyper would say `keep-alive` to a client that asked for it, and close all the same.
        Version::HTTP_10 if ends_with_connection => Version::HTTP_10,
        _ => Version::HTTP_11,
    }
}

/// When the response's body must be over; a stream that the client reads without a deadline may go on.
fn deadline_of_body(exchange: &Exchange, answered: &Answered) -> Option<Instant> {
    let endless = if exchange.is_grpc() {
        // gRPC's own deadline covers the whole call; without it a call may be a stream.
        !exchange.head.headers.contains_key(GRPC_TIMEOUT)
    } else {
        is_event_stream(answered.response.headers())
    };
    answered.deadline.filter(|_| !endless)
}
