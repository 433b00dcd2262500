//! One request of a peer: authorise it, deliver it, relay the response.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, VIA};
use http::request::Parts;
use http::{HeaderValue, Method, Request};
use http_body::{Body, Frame};
use weft_transport::wire::{Reason as Why, Responder, SendError, ServerRequest};

use super::leaves::Receiver;
use super::meant::Meant;
use super::{Admitted, Peer, while_allowed};
use crate::application::body::{self, Moved, Outgoing, RequestBody};
use crate::application::head::{declare_length, shape};
use crate::application::interim::{self, Interims};
use crate::application::pace::Pacer;
use crate::application::{AnswerBody, Answered, Lease, while_uploading};
use crate::failure::{Failure, Reason};
use crate::http::body::{PumpError, pump};
use crate::http::fields::{self, WEFT_CLIENT_ID, WEFT_SERVICE};
use crate::http::response::{self, ConnectionReuse};
use crate::http::upload::ReplayMemory;
use crate::http::{answer, is_event_stream, is_grpc, request_id};
use crate::idle::{Expired, Idle, while_moving};
use crate::record::Record;
use crate::resilience::deadline;
use crate::resilience::overload::Outcome;
use crate::resilience::propagation::Link;
use crate::resilience::retry::{self, SAFE, SPENT, WEFT_RETRY};
use crate::serving_time::ServingTime;
use crate::transport_failure::send_failure;

/// Serves one request to its end.
pub(super) async fn serve(peer: Arc<Peer>, request: ServerRequest) {
    let ServerRequest {
        mut head,
        recv,
        mut respond,
    } = request;
    let worker = &peer.inbound.worker;
    let started = Instant::now();
    let mut policy = worker.directory.clone();
    let directory = Arc::clone(&policy.borrow_and_update());
    let grpc = is_grpc(&head.headers);
    let id = request_id::ensure(&mut head.headers, || {
        rand::RngExt::random(&mut *weft_transport::locks::lock(&worker.random))
    });

    let meant = Meant::find(&worker.shared.served, &head, &directory);
    let counted = match &meant {
        Ok(meant) => peer.counted(meant.label()),
        Err(_) => peer.counted(&worker.no_service),
    };
    let mut record = Record::new(
        counted,
        Arc::clone(&worker.observers),
        started,
        &head,
        Some(id.clone()),
    );
    record.revision = directory.revision();
    worker.begin_trace(&mut head.headers, &mut record, grpc);
    let deadline = deadline::said(&head.headers).map(|left| started + left);
    let admitted = meant.and_then(|meant| {
        if deadline.is_some_and(|deadline| deadline <= started) {
            return Err(expired(Expired::Deadline));
        }
        let admitted = peer.admit(&directory, &meant, &head, started)?;
        Ok((meant, admitted))
    });
    let (meant, mut admitted) = match admitted {
        Ok(admitted) => admitted,
        Err(failure) => {
            body::stop(recv);
            return refuse(respond, failure, grpc, &id, record).await;
        }
    };

    let (method, uri) = (head.method.clone(), head.uri.clone());
    let asked = Some((method.as_str(), uri.path()));
    let (caller, parent) = (peer.id.id(), admitted.parent.take());
    let parent = parent.as_ref();
    let multiplexed = grpc || meant.is_multiplexed(directory.table.as_deref());
    let stream_idle = meant.stream_idle(directory.table.as_deref());
    drop(directory);
    let moved = Arc::new(Moved::default());
    let idle = || Idle::new(stream_idle.unwrap_or(worker.shared.timeouts.stream_idle));
    // Calls that the application makes for this request are linked to it while it is being served.
    let trace = worker.trace_of(&head);
    let link = trace.and_then(|trace| worker.shared.propagation.serve(trace, deadline));
    let call_is_bounded = head.headers.contains_key(deadline::GRPC_TIMEOUT);

    let declared = head.headers.contains_key(CONTENT_LENGTH);
    let interim = head.headers.contains_key(EXPECT) || !head.headers.contains_key(WEFT_SERVICE);
    if !meant.service.send_via {
        head.headers.remove(VIA);
    }
    let prepared = admitted
        .receiver
        .prepare(&mut head, &peer.header, multiplexed);
    if let Err(failure) = prepared {
        body::stop(recv);
        return refuse(respond, failure, grpc, &id, record).await;
    }
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(started);
        match &admitted.receiver {
            Receiver::Here(_) => deadline::tell(&mut head.headers, left),
            // The field of the mesh stays in the mesh; those of the application are told of the time.
            Receiver::Outside(_) => deadline::tell_present(&mut head.headers, left),
        }
    }
    let body = RequestBody::new(recv, Arc::clone(&moved));
    let mut request = Some(Request::from_parts(head, body));
    let delivered = {
        let gone = pin!(respond.stopped());
        let delivery = pin!(deliver(
            &mut admitted,
            (&mut request, &worker.room),
            &mut respond,
            multiplexed,
            interim
        ));
        let paced = declared.then_some(&*moved);
        let delivery = pin!(while_wanted(gone, paced, delivery));
        let idle = idle().until(deadline);
        let moving = pin!(while_moving(idle, || moved.total(), delivery));
        while_allowed(&mut policy, &meant, caller, parent, asked, moving).await
    };
    let delivered = delivered.and_then(|outcome| outcome.unwrap_or_else(|why| Err(expired(why))));
    let mut answered = match delivered {
        Ok(answered) => answered,
        Err(failure) => {
            let now = Instant::now();
            admitted.receiver.failed(&failure, now);
            admitted
                .in_flight
                .answered(unanswered(&failure, &moved), now);
            record.sent = moved.sent.load(Ordering::Relaxed);
            moved.answered();
            return refuse(respond, failure, grpc, &id, record).await;
        }
    };

    moved.answered();
    let now = Instant::now();
    let application = now.saturating_duration_since(answered.handed);
    let sidecar = now
        .saturating_duration_since(started)
        .saturating_sub(application);
    record.serving = Some(ServingTime::new(application, sidecar));
    let head = &answered.response;
    let outcome = match head.status().as_u16() {
        ..400 => Outcome::Answered,
        400..500 => Outcome::Declined,
        500.. => Outcome::Other,
    };
    admitted.in_flight.answered(outcome, now);
    let endless = if grpc {
        !call_is_bounded
    } else {
        is_event_stream(head.headers())
    };
    let spent = link.as_ref().is_some_and(Link::is_spent);
    let relayed = {
        let upload = answered.take_upload();
        let relay = pin!(relay(respond, answered, grpc, spent, &moved, &mut record));
        let relay = pin!(while_uploading(upload, relay));
        let idle = idle().until(deadline.filter(|_| !endless));
        let moving = pin!(while_moving(idle, || moved.total(), relay));
        while_allowed(&mut policy, &meant, caller, parent, asked, moving).await
    };
    let relayed = relayed.and_then(|outcome| outcome.unwrap_or_else(|why| Err(expired(why))));
    record.sent = moved.sent.load(Ordering::Relaxed);
    record.received = moved.received.load(Ordering::Relaxed);
    match relayed {
        Ok(lease) => {
            record.end(Ok(()));
            drop(admitted);
            if let Some(lease) = lease {
                lease.give_back().await;
            }
        }
        Err(failure) => record.end(Err(failure)),
    }
}

/// What a request without an answer tells of the application's queue: nothing if the application was waiting
/// for its body.
pub(crate) fn unanswered(failure: &Failure, moved: &Moved) -> Outcome {
    let given_up = matches!(
        failure.reason,
        Reason::CallerGone | Reason::DeadlineExceeded
    );
    if given_up && !moved.pace.is_waiting() {
        Outcome::GivenUp
    } else {
        Outcome::Other
    }
}

/// Why a request ends that makes no progress, or has no time left.
pub(crate) fn expired(why: Expired) -> Failure {
    match why {
        Expired::Stalled => Failure::new(
            Reason::ResponseTimeout,
            "no bytes passed for the stream's idle timeout",
        ),
        Expired::Deadline => Failure::new(Reason::DeadlineExceeded, "the deadline passed"),
    }
}

/// Runs `work`, which is borrowed as in [`crate::idle::while_moving`], unless the caller goes away first, or
/// sends a body that is `paced` too slowly. Dropping `work` tells the application.
pub(crate) async fn while_wanted<T, F>(
    mut gone: Pin<&mut impl Future<Output = Option<Why>>>,
    paced: Option<&Moved>,
    mut work: Pin<&mut F>,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut pacer = Pacer::default();
    std::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        // Asked only when the work has to wait.
        if gone.as_mut().poll(cx).is_ready() {
            let failure = Failure::new(Reason::CallerGone, "the caller went away");
            return Poll::Ready(Err(failure));
        }
        if let Some(moved) = paced
            && let Some(bytes) = moved.sent_of_unfinished()
            && pacer.poll(cx, &moved.pace, bytes).is_ready()
        {
            let slow = "the request's body comes too slowly";
            return Poll::Ready(Err(Failure::new(Reason::RequestTooSlow, slow)));
        }
        Poll::Pending
    })
    .await
}

/// Answers in the application's place.
async fn refuse(
    respond: Responder,
    failure: Failure,
    grpc: bool,
    id: &HeaderValue,
    mut record: Record,
) {
    let (head, text) = answer::answer(&failure, grpc, record.method == Method::HEAD, Some(id));
    let (mut head, ()) = head.into_parts();
    head.version = http::Version::HTTP_3;
    answer::sign(&mut head.headers, &failure);
    if failure.reason.is_unprocessed() {
        head.headers.insert(WEFT_RETRY, SAFE);
    }
    record.status = head.status.as_u16();
    // The caller may be gone; the record keeps the answer that it would have had.
    let _ = respond.head_with(&head, text, true).await;
    record.end(Err(failure));
}

/// Hands the request to the application and waits for the head of its response. `interim`: the caller may
/// be waiting for interim responses.
async fn deliver(
    admitted: &mut Admitted,
    // Borrowed, because each future that owned it would be larger by its size.
    (request, room): (&mut Option<Request<RequestBody>>, &Arc<ReplayMemory>),
    respond: &mut Responder,
    multiplexed: bool,
    interim: bool,
) -> Result<Answered, Failure> {
    let (receiver, caller) = (&mut admitted.receiver, &admitted.in_flight.caller);
    let (interims, queue) = interim.then(Interims::new).unzip();
    let interims = interims.map(Arc::new);
    if let Some(request) = request {
        declare_length(request, multiplexed).await?;
        if !multiplexed {
            interim::listen(request, interims.clone());
        }
    }
    let request = request.take();
    let mut request = request
        .map(|request| Outgoing::new(request, room))
        .ok_or_else(|| Failure::new(Reason::Internal, "there is no request to send"))?;
    let mut sending = pin!(async {
        let interims = interims.as_deref();
        receiver
            .send(caller, &mut request, multiplexed, interims)
            .await
    });
    let Some(mut queue) = queue else {
        return sending.await;
    };
    let answered = tokio::select! {
        biased;
        Err(failure) = queue.forward(respond) => return Err(failure),
        answered = &mut sending => answered?,
    };
    queue.forward_rest(respond).await?;
    Ok(answered)
}

/// Rewrites the head as the application should see it, or refuses it.
pub(crate) fn prepare(
    head: &mut Parts,
    caller: &HeaderValue,
    multiplexed: bool,
) -> Result<(), Failure> {
    fields::check_expectation(&head.headers)?;
    fields::strip_request(&mut head.headers)?;
    head.headers.insert(WEFT_CLIENT_ID, caller.clone());
    shape(head, http::uri::Scheme::HTTP, multiplexed);
    Ok(())
}

/// Sends the response on; returns the application's connection if it may be used again.
async fn relay(
    respond: Responder,
    answered: Answered,
    grpc: bool,
    spent: bool,
    moved: &Moved,
    record: &mut Record,
) -> Result<Option<Lease>, Failure> {
    let to_head = record.method == Method::HEAD;
    let (response, lease) = answered.into_parts();
    let (mut head, mut body) = response.into_parts();
    let received = &moved.received;
    let bodiless = to_head || response::is_bodiless(head.status);
    let afterwards = response::check(&mut head, to_head);
    let checked = match afterwards {
        Ok(afterwards) if bodiless || body.is_end_stream() => Ok((afterwards, None)),
        Ok(afterwards) => first_frame(&mut body)
            .await
            .map(|first| (afterwards, first)),
        Err(failure) => Err(failure),
    };
    let (mut afterwards, first) = match checked {
        Ok(checked) => checked,
        Err(failure) => {
            let id = record.request_id.as_ref();
            let (answer, text) = answer::answer(&failure, grpc, to_head, id);
            let (mut answer, ()) = answer.into_parts();
            answer::sign(&mut answer.headers, &failure);
            record.status = answer.status.as_u16();
            let _ = respond.head_with(&answer, text, true).await;
            return Err(failure);
        }
    };
    record.status = head.status.as_u16();
    record.trailers(&head.headers);
    let failed =
        head.status.is_server_error() || record.grpc_status.is_some_and(retry::is_grpc_failure);
    if let Some(time) = record.serving {
        time.tell(&mut head.headers);
    }
    if spent && failed {
        // The application failed because a call of its own failed several times.
        head.headers.insert(WEFT_RETRY, SPENT);
    }
    let (first, trailers) = match first.map(Frame::into_data) {
        None => (Bytes::new(), None),
        Some(Ok(data)) => (data, None),
        // gRPC servers that fail after their headers.
        Some(Err(frame)) => (Bytes::new(), frame.into_trailers().ok()),
    };
    received.fetch_add(first.len() as u64, Ordering::Relaxed);
    let end = trailers.is_none() && (bodiless || body.is_end_stream());
    let send = respond.head_with(&head, first, end).await;
    let mut send = send.map_err(|error| send_failure(&error))?;
    if let Some(mut trailers) = trailers {
        afterwards = afterwards.behind(Some(&trailers));
        fields::strip_trailers(&mut trailers);
        record.trailers(&trailers);
        send.send_trailers(&trailers)
            .await
            .map_err(|error| send_failure(&error))?;
    } else if !end {
        let trailers = match pump(&mut body, &mut send, received).await {
            Ok(trailers) => trailers,
            Err(PumpError::Source(_)) => {
                let failure = broken_off(&mut body);
                if grpc {
                    // gRPC calls carry the failure in trailers after a partial response; other callers only
                    // see the stream break.
                    let mut trailers = answer::grpc_trailers(&failure);
                    record.trailers(&trailers);
                    answer::sign(&mut trailers, &failure);
                    let _ = send.send_trailers(&trailers).await;
                }
                return Err(failure);
            }
            Err(PumpError::Peer(SendError::Stopped(_))) => {
                return Err(Failure::new(Reason::CallerGone, "the caller went away"));
            }
            Err(PumpError::Peer(error)) => return Err(send_failure(&error)),
        };
        afterwards = afterwards.behind(trailers.as_ref());
        if let Some(trailers) = trailers {
            record.trailers(&trailers);
        }
    }
    Ok((afterwards == ConnectionReuse::Lives && moved.leaves_no_doubt()).then_some(lease))
}

/// The first frame of the body if it has arrived: head and small body then leave in one packet.
async fn first_frame(body: &mut AnswerBody) -> Result<Option<Frame<Bytes>>, Failure> {
    let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await;
    match polled {
        Poll::Ready(Some(frame)) => frame.map(Some).map_err(|_| broken_off(body)),
        Poll::Ready(None) | Poll::Pending => Ok(None),
    }
}

/// Why a response ended early.
fn broken_off(body: &mut AnswerBody) -> Failure {
    body.take_failure().unwrap_or_else(|| {
        Failure::new(
            Reason::ConnectionTerminated,
            "the application broke off its response",
        )
    })
}
