//! One request of a caller without mutual TLS: authorise it, deliver it, relay the response. Its sibling for
//! peers is in `inbound/request.rs`.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, VIA};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use weft_transport::locks::lock;

use super::unread::Answer;
use super::{Client, disallowed};
use crate::application::Answered;
use crate::application::body::{Moved, Outgoing, RequestBody};
use crate::application::head::{declare, shape};
use crate::application::interim;
use crate::failure::{Failure, Reason};
use crate::http::authority::canonical;
use crate::http::content::Content;
use crate::http::fields;
use crate::http::upload::Upload;
use crate::http::{is_event_stream, is_grpc, request_id, response};
use crate::idle::{Idle, while_moving};
use crate::inbound::meant::Meant;
use crate::inbound::{Admitted, expired, unanswered, while_wanted};
use crate::outbound::answer_stream::AnswerStream;
use crate::outbound::outside_body::{Ended, OutsideBody};
use crate::outbound::response_body::ResponseBody;
use crate::outbound::{Instead, Requests as _, prepare, version_to};
use crate::record::Record;
use crate::resilience::deadline;
use crate::resilience::overload::Outcome;
use crate::worker::Worker;

/// Serves one request; the response streams after this returns.
pub(super) async fn serve(
    client: Client,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let started = Instant::now();
    let worker = client.worker();
    worker.shard.lag.work();
    client.0.seen.calls(started);
    let (mut head, body) = request.into_parts();
    let version = head.version;
    let grpc = is_grpc(&head.headers);
    let id = request_id::ensure(&mut head.headers, || {
        rand::RngExt::random(&mut *lock(&worker.random))
    });
    let counted = Arc::clone(&client.0.requests);
    let observers = Arc::clone(&worker.observers);
    let mut record = Record::new(counted, observers, started, &head, Some(id));
    worker.begin_trace(&mut head.headers, &mut record, grpc);
    // Boxed, because hyper reserves space for this future for as long as it serves.
    match Box::pin(exchange(&client, head, body, grpc, &mut record)).await {
        Ok(passed) => Ok(relay(passed, record, version)),
        Err(failure) => Ok(Instead::from(failure).respond(record, grpc)),
    }
}

/// An answer of the application on its way to the caller.
struct Passed {
    head: http::response::Parts,
    body: OutsideBody,
    idle: Idle,
}

/// A call that waits for the head of its answer. Its caller may go away at any time: that drops it.
struct Waiting {
    /// None once there is an answer.
    admitted: Option<Admitted>,
    moved: Arc<Moved>,
}

impl Waiting {
    /// What has become of it, for the limits of the service.
    fn over(&mut self, outcome: Outcome) -> Option<Admitted> {
        self.moved.answered();
        let mut admitted = self.admitted.take()?;
        admitted.in_flight.answered(outcome, Instant::now());
        Some(admitted)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.admitted.is_some() {
            let gone = Failure::new(Reason::CallerGone, "the caller went away");
            self.over(unanswered(&gone, &self.moved));
        }
    }
}

async fn exchange(
    client: &Client,
    mut head: Parts,
    body: Incoming,
    grpc: bool,
    record: &mut Record,
) -> Result<Passed, Failure> {
    let (worker, service) = (client.worker(), &client.0.listener.service);
    let mut policy = worker.directory.clone();
    let directory = Arc::clone(&policy.borrow_and_update());
    record.revision = directory.revision();
    let intake = &worker.shard.intake;
    if head.version == Version::HTTP_2 && intake.is_limited() {
        // As `outbound/filters/turn.rs` has it for the application.
        let end = record.started + deadline::LONGEST;
        let _ = tokio::time::timeout_at(end.into(), intake.turn()).await;
    }
    prepare::check(&head, &worker.shared.via)?;
    aim(client, &mut head)?;
    record.uri = head.uri.clone();
    // Before anything is decided by the head: nothing that the mesh says of a caller is for this one to say.
    fields::strip_request(&mut head.headers)?;
    let deadline = deadline::said(&head.headers).map(|left| record.started + left);
    let inbound = &client.0.listener.inbound;
    let whom = (client.0.who(), None);
    let meant = Meant::own(service);
    let admitted = inbound.admit(&directory, &meant, &head, whom, record.started)?;
    let multiplexed = grpc || service.is_multiplexed(directory.table.as_deref());
    let stream_idle = service.stream_idle(directory.table.as_deref());
    drop(directory);
    let idle = || Idle::new(stream_idle.unwrap_or(worker.shared.timeouts.stream_idle));

    let asked = (head.method.clone(), head.uri.clone());
    let again = Some(asked.clone());
    let mut ended: Ended = Box::pin(disallowed(policy, Arc::clone(service), again));
    let declared = head.headers.contains_key(CONTENT_LENGTH);
    let call_is_bounded = head.headers.contains_key(deadline::GRPC_TIMEOUT);
    let moved = Arc::new(Moved::default());
    let mut waiting = Waiting {
        admitted: Some(admitted),
        moved: Arc::clone(&moved),
    };
    write(worker, &mut head, service.send_via);
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(record.started);
        deadline::tell(&mut head.headers, left);
    }
    let is_empty = body.is_end_stream();
    declare(
        &head.method.clone(),
        &mut head.headers,
        is_empty,
        multiplexed,
    );
    shape(&mut head, Scheme::HTTP, multiplexed);
    let content = (!is_empty).then(|| {
        let content = Content::new(body, worker.tasks.clone());
        Upload::new(content, 0, Arc::clone(&worker.room)).attempt()
    });
    let body = RequestBody::own(content, Arc::clone(&moved));
    let request = Request::from_parts(head, body);
    let answered = {
        let delivery = pin!(deliver(&mut waiting, client, request, multiplexed));
        let paced = declared.then_some(&*moved);
        // hyper drops this when the caller goes away.
        let gone = pin!(std::future::pending());
        let delivery = pin!(while_wanted(gone, paced, delivery));
        let idle = idle().until(deadline);
        let moving = pin!(while_moving(idle, || moved.total(), delivery));
        tokio::select! {
            biased;
            moved = moving => moved.unwrap_or_else(|why| Err(expired(why))),
            failure = &mut ended => Err(failure),
        }
    };
    record.sent = moved.sent.load(Ordering::Relaxed);
    let answered = match answered {
        Ok(answered) => answered,
        Err(failure) => {
            waiting.over(unanswered(&failure, &moved));
            return Err(failure);
        }
    };
    let outcome = match answered.response.status().as_u16() {
        ..400 => Outcome::Answered,
        400..500 => Outcome::Declined,
        500.. => Outcome::Other,
    };
    let admitted = waiting.over(outcome);
    let to_head = record.method == Method::HEAD;
    let (head, body) = checked(answered, to_head, Arc::clone(&moved), worker)?;
    let endless = match grpc {
        true => !call_is_bounded,
        false => is_event_stream(&head.headers),
    };
    let still = stream_idle.unwrap_or(worker.shared.timeouts.stream_idle);
    let limits = (still, deadline.filter(|_| !endless));
    let answer = Answer::new(moved, asked, limits, Instant::now());
    client.0.answers.add(&answer);
    let ended: Ended = Box::pin(async move {
        // It is under way until its answer is over.
        let _under_way = (admitted, answer);
        ended.await
    });
    Ok(Passed {
        head,
        body: body.until(ended),
        idle: idle().until(deadline.filter(|_| !endless)),
    })
}

/// Makes the target name the authority that the caller wrote, or the service if it wrote none.
fn aim(client: &Client, head: &mut Parts) -> Result<(), Failure> {
    prepare::mean_whole_server(head);
    let authority = canonical(head)?;
    let service = &client.0.listener.service;
    let served = &client.worker().shared.served;
    if let Some(authority) = &authority
        && served.shows_other(authority, &service.name)
    {
        return Err(Failure::new(
            Reason::Misdirected,
            format!("this listener leads to {} only", service.label),
        ));
    }
    let text = authority.map_or(&*service.label, |authority| authority.text);
    let authority = Authority::try_from(text)
        .map_err(|_| Failure::new(Reason::BadRequest, "Host is not an authority"))?;
    prepare::aim(head, authority)
}

/// Writes the fields as the application gets them. `weft-client-id` is not among them: the caller proved no
/// identity.
fn write(worker: &Worker, head: &mut Parts, send_via: bool) {
    let via = match head.version {
        Version::HTTP_2 => &worker.via_http2,
        _ => &worker.via_http1,
    };
    match send_via {
        true => drop(head.headers.append(VIA, via.clone())),
        false => drop(head.headers.remove(VIA)),
    }
    // The target has it.
    head.headers.remove(HOST);
    // The content follows at once: no answer that would allow it is waited for.
    head.headers.remove(EXPECT);
}

/// Hands the request to the application and waits for the head of its response.
async fn deliver(
    waiting: &mut Waiting,
    client: &Client,
    mut request: Request<RequestBody>,
    multiplexed: bool,
) -> Result<Answered, Failure> {
    let admitted = waiting.admitted.as_mut();
    // Without a permit there is no receiver, and so no delivery.
    let admitted = admitted.ok_or_else(|| Failure::new(Reason::Internal, "no permit"))?;
    if !multiplexed {
        interim::listen(&mut request, None);
    }
    let mut outgoing = Outgoing::new(request, &client.worker().room);
    let caller = &client.0.caller;
    admitted
        .receiver
        .send(caller, &mut outgoing, multiplexed, None)
        .await
}

/// Checks the head of an answer, as one for a peer.
fn checked(
    mut answered: Answered,
    to_head: bool,
    moved: Arc<Moved>,
    worker: &Worker,
) -> Result<(http::response::Parts, OutsideBody), Failure> {
    let upload = answered.take_upload();
    let (response, lease) = answered.into_parts();
    let (mut head, body) = response.into_parts();
    let afterwards = response::check(&mut head, to_head)?;
    let bodiless = to_head || response::is_bodiless(head.status);
    let lease = (lease, worker.tasks.clone());
    let body = OutsideBody::new(body, upload, moved, lease, (bodiless, afterwards));
    Ok((head, body))
}

/// Makes the application's answer the caller's.
fn relay(passed: Passed, mut record: Record, version: Version) -> Response<ResponseBody> {
    let Passed {
        mut head,
        body,
        idle,
    } = passed;
    record.status = head.status.as_u16();
    let (ended, length) = (body.is_end_stream(), body.size_hint().exact());
    let ends_with_connection = !ended && length.is_none() && !record.has_no_content();
    head.version = version_to(version, ends_with_connection);
    record.trailers(&head.headers);
    let body = AnswerStream::Outside(Box::new(body));
    let body = ResponseBody::peer(body, None, idle, record, version);
    Response::from_parts(head, body)
}
