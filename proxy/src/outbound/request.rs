//! One request of the application: whom it wants, where it goes, how often it is tried, and the stream that
//! carries it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::Authority;
use http::{Method, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use weft_config::table::RequestTraffic;

use super::attempt::{Answered, Call, Failed, with_standing};
use super::overrides::{self, Overridden};
use super::pick::{self, Tried, Wish};
use super::route::{Route, address, route};
use super::{Client, Listener, prepare};
use crate::failure::{Failure, Reason};
use crate::http::authority::canonical;
use crate::http::body::ResponseBody;
use crate::http::upload::Upload;
use crate::http::{answer, fields, is_grpc, request_id};
use crate::idle::Idle;
use crate::metrics::{Shard, lock};
use crate::record::Record;
use crate::resilience::deadline;
use crate::resilience::destination::Event;
use crate::resilience::fault;
use crate::resilience::retry::{self, Attempts, Facts, Next, Setback, Trouble, Why, Word};
use crate::resilience::traces::TraceId;
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
    let (counted, log) = (Arc::clone(&worker.unrouted), Arc::clone(&worker.log));
    let mut record = Record::new(counted, log, started, &head, Some(id));
    Ok(
        match forward(&client, &mut head, body, grpc, &mut record).await {
            Ok((answered, idle)) => relay(answered, idle, record, version),
            Err(failure) => {
                record.name_authority(&head);
                refuse(failure, record, grpc)
            }
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

fn relay(
    answered: Answered,
    idle: Idle,
    mut record: Record,
    version: Version,
) -> Response<ResponseBody> {
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
    let body = ResponseBody::peer(answered.body, answered.pump, idle, record, version);
    Response::from_parts(head, body)
}

/// Identify, route, and attempt until there is an answer to relay. What becomes known goes into the record.
async fn forward(
    client: &Client,
    head: &mut Parts,
    body: Incoming,
    grpc: bool,
    record: &mut Record,
) -> Result<(Answered, Idle), Failure> {
    let worker = &*client.listener.worker;
    prepare::check(head, &worker.shared.via)?;
    prepare::mean_whole_server(head);
    let (mut route, authority) = choose(&client.listener, head, record)?;
    let mut now = record.started;
    let by_policy = !override_traffic(worker, head, &mut route);
    let trace = worker.trace_of(head);
    let deadline = deadline(worker, head, &route.traffic, trace, record.started);
    // Others had to be read to see it; those of HTTP/1.1 waited unread.
    if head.version == Version::HTTP_2 && worker.shard.intake.is_limited() {
        let end = deadline.unwrap_or_else(|| now + deadline::LONGEST);
        let turn = worker.shard.intake.turn();
        // Without its turn by then the deadline has passed, which is told below.
        let _ = Box::pin(tokio::time::timeout_at(end.into(), turn)).await;
        now = Instant::now();
    }
    let own = route.traffic.timeouts.request;
    let policy_deadline = own.map(|timeout| record.started + timeout);
    let key = pick::key(&route.cluster, &head.headers, client.source);
    let via = match head.version {
        Version::HTTP_2 => &worker.via_http2,
        _ => &worker.via_http1,
    };
    prepare::rewrite(head, &route, authority, via)?;
    record.uri = head.uri.clone();

    let mut call = Call {
        worker,
        upload: upload(worker, &route.traffic, body),
        route,
        grpc,
        deadline,
        policy_deadline,
        by_policy,
    };
    let mut wish = Wish {
        tried: Tried::default(),
        key,
        repeatable: head.method.is_idempotent(),
    };
    if is_held_up(&call.route.traffic) {
        // Rare, and not worth room in every request.
        Box::pin(admit(worker, &call.route, deadline)).await?;
        now = Instant::now();
    }
    call.route
        .cluster
        .destination
        .budget
        .request(record.started);
    let mut attempts = Attempts::default();
    loop {
        if let Some(deadline) = deadline {
            let Some(left) = deadline
                .checked_duration_since(now)
                .filter(|left| !left.is_zero())
            else {
                let passed = "the deadline had passed before the request was sent";
                return Err(Failure::new(Reason::DeadlineExceeded, passed));
            };
            deadline::tell(&mut head.headers, left);
        }
        attempts.begin();
        record.attempts = attempts.made();
        let pause = {
            let outcome = match call.hedge(head) {
                // Rare, and large: most requests need no room for it.
                Some(hedge) => Box::pin(call.hedged(hedge, head, &mut wish, now)).await,
                None => match call.pick(&mut wish, now) {
                    Ok(picked) => {
                        let picked = picked.again(attempts.may_go_on(&call.route.traffic.retry));
                        call.attempt(head, call.body(), picked, now).await
                    }
                    Err(failed) => Err(failed),
                },
            };
            let (last, name) = (wish.tried.last(), call.route.name.as_ref());
            record.counted = worker.leaving(&call.route.cluster, last, name, Shard::requests);
            match again(&call, &outcome, attempts, &head.method, record, trace) {
                // Its stream is reset here, before the pause.
                Some(pause) => pause,
                None => {
                    return outcome
                        .map_err(|failed| with_standing(failed.failure, &call.route.cluster))
                        .map(|one| call.settle(head, one));
                }
            }
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        call.renew(&mut wish);
        now = Instant::now();
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
    let own = &worker.shared.identity;
    let port = address(&directory, &listener.destination, authority.as_ref(), own);
    let port = port.map_err(|astray| {
        record.counted = worker.lost(&astray.wanted, Shard::requests);
        astray.failure
    })?;
    record.counted = worker.leaving(&port.cluster, None, None, Shard::requests);
    let route = route(port, head, record.started, &mut *lock(&worker.random))?;
    let authority = prepare::authority_to_send(authority.as_ref(), &route)?;
    Ok((route, authority))
}

/// Treats the request as its own headers ask for, where a policy lets this application say so. Whether it does.
fn override_traffic(worker: &Worker, head: &Parts, route: &mut Route) -> bool {
    if route.traffic.overrides.callers.is_empty() {
        return false;
    }
    let counts = &route.cluster.destination.counts;
    match overrides::read(&head.headers, &worker.shared.identity, &route.traffic) {
        None => {}
        Some(Overridden::Forbidden) => counts.add(Event::OverrideForbidden),
        Some(Overridden::Allowed { traffic, senseless }) => {
            (0..senseless).for_each(|_| counts.add(Event::OverrideInvalid));
            if let Some(traffic) = traffic {
                counts.add(Event::OverrideTaken);
                route.traffic = Arc::from(traffic);
                return true;
            }
        }
    }
    false
}

/// Whether a policy limits the rate of these requests or injects faults.
fn is_held_up(traffic: &RequestTraffic) -> bool {
    let fault = &traffic.fault;
    !traffic.rate_limits.is_empty() || fault.delay.is_some() || fault.abort.is_some()
}

/// Refuses what is over the rate of its route, and does what a policy asks for to see who stands it.
async fn admit(worker: &Worker, route: &Route, deadline: Option<Instant>) -> Result<(), Failure> {
    let (traffic, counts) = (&route.traffic, &route.cluster.destination.counts);
    if let Some(name) = &route.name
        && !traffic.rate_limits.is_empty()
    {
        let verdict = worker.shared.route_rates.take(name, &traffic.rate_limits);
        if verdict.observed {
            counts.add(Event::ObservedRate);
        }
        if verdict.refused {
            counts.add(Event::RefusedRate);
            let over = format!("the rate of {name} is over its limit");
            return Err(Failure::new(Reason::RateLimited, over));
        }
    }
    let drawn = fault::draw(&traffic.fault, &mut *lock(&worker.random));
    if let Some(delay) = drawn.delay {
        counts.add(Event::FaultDelay);
        let until = deadline::earlier(Some(Instant::now() + delay), deadline);
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }
    match drawn.abort {
        Some(failure) => {
            counts.add(Event::FaultAbort);
            Err(failure)
        }
        None => Ok(()),
    }
}

/// When the answer is no longer wanted: by what the application says, by the policy, or by what was asked
/// of the application, whichever is first.
fn deadline(
    worker: &Worker,
    head: &Parts,
    traffic: &RequestTraffic,
    trace: Option<TraceId>,
    started: Instant,
) -> Option<Instant> {
    let said = deadline::said(&head.headers).map(|left| started + left);
    let own = traffic.timeouts.request.map(|timeout| started + timeout);
    let linked = trace.and_then(|trace| worker.shared.traces.deadline(trace));
    deadline::earlier(deadline::earlier(said, own), linked)
}

/// The body, kept for another attempt where there may be one and all of it may be kept.
fn upload(
    worker: &Worker,
    traffic: &RequestTraffic,
    body: Incoming,
) -> Option<Arc<Upload<Incoming>>> {
    if body.is_end_stream() {
        return None;
    }
    let retry = &traffic.retry;
    let most = match retry.attempts {
        0 => 0,
        _ if body.size_hint().lower() > u64::from(retry.body_replay) => 0,
        _ => usize::try_from(retry.body_replay).unwrap_or(0),
    };
    Some(Upload::new(body, most, Arc::clone(&worker.room)))
}

/// Whether the request is sent again, and after which pause; none if what came is the answer.
fn again(
    call: &Call<'_>,
    outcome: &Result<Answered, Failed>,
    attempts: Attempts,
    method: &Method,
    record: &mut Record,
    trace: Option<TraceId>,
) -> Option<Duration> {
    let (trouble, word, at, gamble, paid) = match outcome {
        Ok(answered) => {
            let response = &answered.response;
            let code = call.grpc.then(|| retry::grpc_code(response.headers()));
            let trouble = match code.flatten() {
                Some(code) if code != 0 => Some(Trouble::Grpc(code)),
                _ if response.status().as_u16() >= 400 => Some(Trouble::Status(response.status())),
                _ => return None,
            };
            let gamble = answered.flight.is_gamble();
            let word = Word::of(response.headers());
            (trouble, word, answered.at, gamble, false)
        }
        Err(failed) => {
            record.sent = failed.sent;
            (failed.trouble, Word::None, failed.at, false, failed.paid)
        }
    };
    let cluster = &call.route.cluster;
    let next = trouble.map_or(Next::End, |trouble| {
        let setback = Setback {
            trouble,
            word,
            facts: Facts {
                idempotent: method.is_idempotent(),
                repeatable: call.is_repeatable(),
                gamble,
            },
            left: call
                .deadline
                .map(|deadline| deadline.saturating_duration_since(at)),
        };
        let budget = &cluster.destination.budget;
        let spend = || paid || budget.spend(at, &cluster.traffic.retry_budget);
        let random = &mut *lock(&call.worker.random);
        let policy = &call.route.traffic.retry;
        let next = attempts.next(policy, &setback, spend, random);
        if let Some(event) = Event::of(&next, trouble) {
            cluster.destination.counts.add(event);
        }
        next
    });
    if let Next::Again(pause) = next {
        record.retried = Some(Arc::clone(&cluster.destination.counts));
        return Some(pause);
    }
    // Whoever called this application shall not multiply what was tried here.
    let spent = attempts.made() > 1 || word == Word::Never || next == Next::Withheld(Why::Budget);
    if spent && let Some(trace) = trace {
        call.worker.shared.traces.spend(trace);
    }
    None
}
