//! One TCP connection of the application to a TCP service, carried by CONNECT.
//!
//! No byte of the client is read before the far side has accepted, so a refused connection loses nothing
//! and looks refused: it is reset.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::TryFutureExt as _;
use http::request::Parts;
use http::{Method, Request, Response, Uri};
use weft_transport::wire::{ReceiveError, ResponseHalf, SendHalf};

use super::attempt::{judge, renew, with_standing};
use super::open::{NotOpened, Opened, choose as choose_endpoint, open};
use super::pick::{self, Tried, Wish};
use super::route::{Astray, Route, address, route_tunnel};
use super::{Listener, source_of};
use crate::cluster::Flight;
use crate::failure::{Failure, Reason};
use crate::http::answer;
use crate::http::fields::{WEFT_ROUTE_PARENT, WEFT_SERVICE};
use crate::inbound::tunnel_failure;
use crate::limits;
use crate::mesh::stream_failure;
use crate::metrics::{Counted, Direction, Shard, lock};
use crate::record::Record;
use crate::relay::{Carried, tunnel};
use crate::resilience::deadline::Clock;
use crate::resilience::destination::Event;
use crate::resilience::retry::{Attempts, Facts, Next, Setback, Trouble, Word};
use crate::resilience::standing::Outcome;
use crate::stream::ApplicationStream;
use crate::worker::Worker;

/// Carries one connection to its end.
pub(super) async fn serve(listener: &Listener, application: ApplicationStream) {
    let worker = &listener.worker;
    let started = Instant::now();
    let (counted, route) = choose(listener, started);
    let mut head = Request::new(()).into_parts().0;
    head.method = Method::CONNECT;
    let mut record = Record::new(counted, Arc::clone(&worker.log), started, &head, None);
    let connected = match route {
        Ok(route) => {
            connect(
                listener,
                source_of(listener, &application),
                route,
                head,
                &mut record,
            )
            .await
        }
        Err(failure) => Err(failure),
    };
    let Connected {
        send,
        response,
        flight,
    } = match connected {
        Ok(connected) => connected,
        Err(failure) => {
            application.reset_on_close();
            record.status = failure.reason.status().as_u16();
            return record.end(Err(failure));
        }
    };
    record.status = 200;
    record.flight = Some(flight);
    let carried = Carried::new(Direction::Outbound, record.open_tunnel());
    let idle = worker.shared.timeouts.tunnel_idle;
    let tunnel = tunnel(&application, send, response.into_body(), idle, &carried);
    let tunnel = tunnel.map_err(|error| tunnel_failure(&error, "the application"));
    let outcome = worker.until_cut(pin!(tunnel)).await;
    if worker.cut.is_cancelled() {
        application.reset_on_close();
    }
    record.sent = carried.sent();
    record.received = carried.received();
    record.end(outcome);
}

/// Where the connection goes, and where it is counted.
fn choose(listener: &Listener, now: Instant) -> (Arc<Counted>, Result<Route, Failure>) {
    let worker = &listener.worker;
    let directory = worker.directory();
    let own = &worker.shared.identity;
    let port = match address(&directory, &listener.destination, None, own) {
        Ok(port) => port,
        Err(Astray { failure, wanted }) => {
            return (worker.lost(&wanted, Shard::tunnels), Err(failure));
        }
    };
    let route = route_tunnel(port, now, &mut *lock(&worker.random));
    let (cluster, name) = match &route {
        Ok(route) => (&route.cluster, route.name.as_ref()),
        Err(_) => (&port.cluster, None),
    };
    (worker.leaving(cluster, None, name, Shard::tunnels), route)
}

/// A tunnel that the far side accepted.
struct Connected {
    send: SendHalf,
    response: ResponseHalf,
    flight: Flight,
}

async fn connect(
    listener: &Listener,
    source: u64,
    mut route: Route,
    mut head: Parts,
    record: &mut Record,
) -> Result<Connected, Failure> {
    let worker = &listener.worker;
    address_to(&mut head, &route)?;
    record.uri = head.uri.clone();
    let mut wish = Wish {
        tried: Tried::default(),
        key: pick::key(&route.cluster, &head.headers, source),
        // No byte is taken from the application before the far side has accepted.
        repeatable: true,
    };
    // The peer is not told: what is open has no deadline.
    let clock = Clock {
        request: None,
        attempt: Some(record.started + limits::TUNNEL_OPEN_TIMEOUT),
    };
    let budget = &Arc::clone(&route.cluster.destination).budget;
    budget.request(record.started);
    let mut attempts = Attempts::default();
    let mut now = record.started;
    loop {
        attempts.begin();
        record.attempts = attempts.made();
        let again = attempts.may_go_on(&route.traffic.retry);
        let attempted = attempt(worker, &route, &mut wish, &head, clock, now, again).await;
        let (last, name) = (wish.tried.last(), route.name.as_ref());
        record.counted = worker.leaving(&route.cluster, last, name, Shard::tunnels);
        let Refused { failure, trouble } = match attempted {
            Ok(connected) => return Ok(connected),
            Err(refused) => refused,
        };
        let failure = with_standing(failure, &route.cluster);
        now = Instant::now();
        let Some(trouble) = trouble else {
            return Err(failure);
        };
        let setback = Setback {
            trouble,
            word: Word::None,
            facts: Facts {
                idempotent: false,
                repeatable: true,
                gamble: false,
            },
            left: clock.end().map(|end| end.saturating_duration_since(now)),
        };
        let traffic = &route.cluster.traffic;
        let next = attempts.next(
            &route.traffic.retry,
            &setback,
            || budget.spend(now, &traffic.retry_budget),
            &mut *lock(&worker.random),
        );
        if let Some(event) = Event::of(&next, trouble) {
            route.cluster.destination.counts.add(event);
        }
        let Next::Again(pause) = next else {
            return Err(failure);
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        renew(worker, &mut route, &mut wish);
        now = Instant::now();
    }
}

/// The far side did not take the tunnel.
struct Refused {
    failure: Failure,
    /// None where another attempt would fare no better.
    trouble: Option<Trouble>,
}

/// Asks one endpoint.
async fn attempt(
    worker: &Worker,
    route: &Route,
    wish: &mut Wish,
    head: &Parts,
    clock: Clock,
    now: Instant,
    again: bool,
) -> Result<Connected, Refused> {
    let cluster = &route.cluster;
    let opened = match choose_endpoint(worker, cluster, wish, now) {
        Ok(picked) => open(worker, cluster, picked.again(again), head, false, clock).await,
        Err(failed) => Err(failed),
    };
    let Opened {
        send,
        mut response,
        mut flight,
    } = opened.map_err(|NotOpened { failure, trouble }| Refused { failure, trouble })?;
    accepted(&mut response, &mut flight, clock, now).await?;
    Ok(Connected {
        send,
        response,
        flight,
    })
}

/// Waits until the far side takes the tunnel.
async fn accepted(
    response: &mut ResponseHalf,
    flight: &mut Flight,
    clock: Clock,
    now: Instant,
) -> Result<(), Refused> {
    let end = clock.end_or_never(now);
    let answer = tokio::time::timeout_at(end.into(), final_head(response)).await;
    let now = Instant::now();
    let refused = match answer {
        Ok(Ok(head)) if head.status().is_success() => {
            flight.answered(Some(Outcome::Well), now);
            return Ok(());
        }
        Ok(Ok(head)) => {
            let failure = refusal(&head);
            // Its application is down: another one's may be up, and no byte was taken yet.
            let is_unprocessed = failure.reason.is_unprocessed();
            flight.answered(Outcome::of(&head.into_parts().0, false), now);
            Refused {
                failure,
                trouble: is_unprocessed.then_some(Trouble::Unprocessed),
            }
        }
        Ok(Err(error)) => {
            // One that goes away in good order is not ill.
            let (trouble, outcome) = judge(&error);
            if let Some(outcome) = outcome {
                flight.tell(outcome, now);
            }
            Refused {
                failure: stream_failure(&error),
                trouble,
            }
        }
        Err(_) => {
            flight.late(true, now);
            let late = "the peer did not answer CONNECT in time";
            Refused {
                failure: Failure::new(Reason::ConnectionTimeout, late),
                trouble: None,
            }
        }
    };
    Err(refused)
}

async fn final_head(response: &mut ResponseHalf) -> Result<Response<()>, ReceiveError> {
    loop {
        let head = response.head().await?;
        if !head.status().is_informational() {
            return Ok(head);
        }
    }
}

/// What the peer's refusal means, in its own words.
fn refusal(head: &Response<()>) -> Failure {
    if let Some(told) = answer::told(head.headers(), head.status()) {
        return told;
    }
    let reason = match head.status().as_u16() {
        403 => Reason::Denied,
        421 => Reason::Misdirected,
        502 => Reason::ConnectionRefused,
        503 => Reason::Overloaded,
        504 => Reason::ConnectionTimeout,
        _ => Reason::ConnectionTerminated,
    };
    let answered = format!("the peer answered {} to CONNECT", head.status().as_u16());
    Failure::new(reason, answered)
}

/// Makes the head of CONNECT say where to (RFC 9114 section 4.4).
fn address_to(head: &mut Parts, route: &Route) -> Result<(), Failure> {
    head.uri = Uri::try_from(route.cluster.label.as_ref())
        .map_err(|_| Failure::new(Reason::Internal, "a service's name is no authority"))?;
    let headers = &mut head.headers;
    headers.insert(WEFT_SERVICE, route.cluster.wire.clone());
    if let Some(parent) = &route.parent {
        headers.insert(WEFT_ROUTE_PARENT, parent.wire.clone());
    }
    Ok(())
}
