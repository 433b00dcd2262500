//! An attempt that leaves the mesh: the caller's own sidecar decides, as no other will, and sends the request
//! to an address outside. [`super::attempt`] is its sibling for peers; what follows from how it ends is
//! decided alike ([`crate::resilience::verdict`]).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::header::{EXPECT, HOST, VIA};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri};

use super::attempt::{Answered, Failed, Upward, read_clock};
use super::content::Content;
use super::exchange::Exchange;
use super::open::Picked;
use super::route::Route;
use crate::cluster::Cluster;
use crate::failure::{Failure, Reason};
use crate::http::body::AnswerStream;
use crate::http::fields;
use crate::http::response;
use crate::http::upload::Sending;
use crate::idle::{Expired, Idle, while_moving};
use crate::inbound::authorise::{Call, would_allow};
use crate::inbound::body::{Moved, RequestBody};
use crate::inbound::{declare, shape};
use crate::outside::{Outside, OutsideBody, OutsideService, Speaks};
use crate::record::attempt::Attempt;
use crate::resilience::deadline::Clock;
use crate::resilience::standing::Outcome;
use crate::resilience::verdict::{Ending, Evidence};
use crate::worker::Worker;
use weft_config::table::Protocol;

impl Exchange {
    /// Makes one attempt at an endpoint outside of the mesh.
    pub(super) async fn attempt_outside(
        &self,
        outside: Arc<Outside>,
        body: Option<Sending<Content>>,
        mut picked: Picked,
        clock: &Clock,
        parts: &mut Attempt,
    ) -> Result<Answered, Failed> {
        let now = read_clock();
        parts.picked(outside.way().address(), now);
        if let Err(failure) = permit(&self.worker, &self.route, Some(&self.head)) {
            picked.flight.judge(Evidence::Nothing, now);
            return Err(failed(failure, None, now, 0));
        }
        if self.is_tunnel() {
            return self.open_outside(&outside, picked, clock, parts).await;
        }
        let moved = Arc::new(Moved::default());
        let multiplexed = self.is_grpc() || self.route.cluster.protocol == Protocol::Grpc;
        let prepared = prepare(&self.head, &outside, body.is_none(), multiplexed);
        let head = match prepared {
            Ok(head) => head,
            Err(failure) => {
                picked.flight.judge(Evidence::Nothing, now);
                return Err(failed(failure, None, now, 0));
            }
        };
        let counts = &self.route.cluster.destination.counts;
        let client = outside.client(&self.worker, counts);
        let body = RequestBody::own(body, Arc::clone(&moved));
        let mut outgoing = client.outgoing(Request::from_parts(head, body));
        picked.flight.sent(now);
        let sending = pin!(async {
            match multiplexed {
                true => {
                    client
                        .send_multiplexed(outside.caller(), &mut outgoing, None)
                        .await
                }
                false => client.send(outside.caller(), &mut outgoing).await,
            }
        });
        let idle = Idle::new(self.idle()).until(clock.end());
        let answered = while_moving(idle, || moved.total(), sending).await;
        moved.answered();
        let at = read_clock();
        let sent = moved.sent.load(std::sync::atomic::Ordering::Relaxed);
        let (failure, ending) = match answered {
            Ok(Ok(answered)) => {
                parts.dialled(now);
                parts.sent(at);
                return self.answered_outside(answered, moved, picked, clock, at);
            }
            Ok(Err(failure)) => {
                let ending = ending(&failure);
                (failure, ending)
            }
            Err(Expired::Deadline) => (self.late(clock, at), Ending::Late),
            Err(Expired::Stalled) => {
                let stalled = "no response within the idle timeout";
                let failure = Failure::new(Reason::ResponseTimeout, stalled);
                (failure, Ending::Stalled)
            }
        };
        let verdict = ending.verdict(clock, picked.is_last(), at);
        picked.flight.judge(verdict.evidence, at);
        Err(failed(failure, verdict.cause, at, sent))
    }

    /// Checks a head from outside, as one of an application, and judges it.
    fn answered_outside(
        &self,
        mut answered: crate::inbound::application::Answered,
        moved: Arc<Moved>,
        mut picked: Picked,
        clock: &Clock,
        at: Instant,
    ) -> Result<Answered, Failed> {
        let upload = answered.take_upload();
        let (response, lease) = answered.into_parts();
        let (mut head, body) = response.into_parts();
        let to_head = self.head.method == Method::HEAD;
        let afterwards = match response::check(&mut head, to_head) {
            Ok(afterwards) => afterwards,
            Err(failure) => {
                let verdict = Ending::Malformed.verdict(clock, false, at);
                picked.flight.judge(verdict.evidence, at);
                return Err(failed(failure, verdict.cause, at, moved.total()));
            }
        };
        let cause = self.judge(&head, &mut picked.flight, clock, at)?;
        let bodiless = to_head || response::is_bodiless(head.status);
        let lease = (lease, self.worker.tasks.clone());
        let body = OutsideBody::new(body, upload, moved, lease, (bodiless, afterwards));
        Ok(Answered {
            response: Response::from_parts(head, ()),
            body: AnswerStream::Outside(Box::new(body)),
            upward: Upward::Ended,
            flight: picked.flight,
            deadline: clock.end(),
            at,
            cause,
        })
    }

    /// Opens a connection for bytes.
    async fn open_outside(
        &self,
        outside: &Arc<Outside>,
        mut picked: Picked,
        clock: &Clock,
        parts: &mut Attempt,
    ) -> Result<Answered, Failed> {
        let counts = &self.route.cluster.destination.counts;
        let client = outside.client(&self.worker, counts);
        let end = clock.end_or_never(picked.flight.began());
        let linked = tokio::time::timeout_at(end.into(), client.link(Speaks::Bytes)).await;
        let at = read_clock();
        parts.dialled(at);
        let (failure, ending) = match linked {
            Ok(Ok(link)) => {
                parts.sent(at);
                picked
                    .flight
                    .judge(Evidence::Answered(Some(Outcome::Well)), at);
                return Ok(Answered {
                    response: Response::new(()),
                    body: AnswerStream::None,
                    upward: Upward::Outside(Box::new(link)),
                    flight: picked.flight,
                    deadline: None,
                    at,
                    cause: None,
                });
            }
            Ok(Err(failure)) => {
                let ending = ending(&failure);
                (failure, ending)
            }
            Err(_) => (self.late(clock, at), Ending::UnreachedInTime),
        };
        let verdict = ending.verdict(clock, picked.is_last(), at);
        picked.flight.judge(verdict.evidence, at);
        Err(failed(failure, verdict.cause, at, 0))
    }
}

fn failed(
    failure: Failure,
    cause: Option<crate::resilience::retry::RetryCause>,
    at: Instant,
    sent: u64,
) -> Failed {
    Failed {
        failure,
        cause,
        at,
        sent,
        paid: false,
    }
}

/// How an attempt ended that got no answer, by the failure that the client of applications reports.
fn ending(failure: &Failure) -> Ending {
    match failure.reason {
        Reason::ConnectionRefused | Reason::ConnectionTimeout | Reason::Identity => {
            Ending::Unreached
        }
        Reason::Overloaded => Ending::NoRoom,
        Reason::ConnectionTerminated | Reason::StreamReset { .. } => Ending::Lost,
        Reason::ResponseMalformed | Reason::ResponseHeadTooLarge => Ending::Malformed,
        Reason::ResponseTimeout => Ending::Stalled,
        _ => Ending::Own,
    }
}

/// Decides whether this sidecar's own workload may make the call: by the policies of what is outside, and of
/// the service whose route leads there. No request has been sent, and no other sidecar will be asked.
fn permit(worker: &Worker, route: &Route, head: Option<&Parts>) -> Result<(), Failure> {
    let directory = worker.directory();
    let Some(table) = directory.table.as_deref() else {
        let detail = "no table from the config service yet: all is denied";
        return Err(Failure::new(Reason::Denied, detail));
    };
    let request = head
        .filter(|head| head.method != Method::CONNECT)
        .map(|head| (head.method.as_str(), head.uri.path()));
    let call = Call {
        caller: &worker.shared.identity,
        parent: None,
        request,
    };
    if let Some(OutsideService { name: None, .. }) = route.cluster.outside.as_deref() {
        if !table.egress.is_deny() {
            return Ok(());
        }
        let detail = "the mesh lets no name outside of it pass any more (egress: Deny)";
        return Err(Failure::new(Reason::Denied, detail));
    }
    let parent = route.parent.as_ref();
    for cluster in [Some(&route.cluster), parent].into_iter().flatten() {
        let Some(name) = service_of(cluster) else {
            return Err(Failure::new(Reason::Internal, "a service has no name"));
        };
        would_allow(table, &name, &call).1?;
    }
    Ok(())
}

fn service_of(cluster: &Cluster) -> Option<weft_config::table::ServiceName> {
    cluster.label.rsplit_once(':')?.0.parse().ok()
}

/// Runs a tunnel as long as the policies permit it.
pub(super) async fn while_permitted(
    worker: &Worker,
    route: &Option<Route>,
    tunnel: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let mut tunnel = pin!(tunnel);
    let mut directory = worker.directory.clone();
    loop {
        let changed = async {
            if directory.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            outcome = &mut tunnel => return outcome,
            () = changed => {}
        }
        if let Some(route) = route {
            permit(worker, route, None)?;
        }
    }
}

/// The head as it leaves the mesh: nothing of the mesh's own is on it.
fn prepare(
    head: &Parts,
    outside: &Outside,
    is_empty: bool,
    multiplexed: bool,
) -> Result<Parts, Failure> {
    let mut head = head.clone();
    fields::strip_request(&mut head.headers)?;
    head.headers.remove(VIA);
    head.headers.remove(HOST);
    // The content follows at once: no answer that would allow it is waited for.
    head.headers.remove(EXPECT);
    let way = outside.way();
    let hosts = &way.service().external.hosts;
    let says_host = head.uri.authority().is_some_and(|written| {
        let host = written.host().to_ascii_lowercase();
        hosts.iter().any(|one| *one == host.trim_end_matches('.'))
    });
    if !says_host {
        let standard = if way.is_encrypted() { 443 } else { 80 };
        let (host, port) = (way.service().host(), way.address().port());
        let text = match port == standard {
            true => host.to_owned(),
            false => format!("{host}:{port}"),
        };
        let bad = |_| Failure::new(Reason::Internal, "a host is no authority");
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.authority = Some(Authority::try_from(text).map_err(bad)?);
        head.uri = Uri::from_parts(parts)
            .map_err(|_| Failure::new(Reason::Internal, "a host is no authority"))?;
    }
    let scheme = match way.is_encrypted() {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    };
    declare(
        &head.method.clone(),
        &mut head.headers,
        is_empty,
        multiplexed,
    );
    shape(&mut head, scheme, multiplexed);
    Ok(head)
}
