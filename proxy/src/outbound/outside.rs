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
use super::exchange::Exchange;
use super::open::Picked;
use super::route::Route;
use crate::cluster::Cluster;
use crate::failure::{Failure, Reason};
use crate::http::answer_stream::AnswerStream;
use crate::http::content::Content;
use crate::http::fields;
use crate::http::response;
use crate::http::upload::Sending;
use crate::idle::{Expired, Idle, while_moving};
use crate::inbound::application::{self, Application};
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
        let client = self.client_of(&outside);
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

    fn client_of<'o>(&self, outside: &'o Outside) -> &'o Arc<Application> {
        let worker = &self.worker;
        let counts = &self.route.cluster.destination.counts;
        outside.client(&worker.shared.timeouts, counts, &worker.room, &worker.tasks)
    }

    /// Checks a head from outside, as one of an application, and judges it.
    fn answered_outside(
        &self,
        mut answered: application::Answered,
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
        let client = self.client_of(outside);
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
    use Reason as R;
    let reason = failure.reason;
    if matches!(
        reason,
        R::ConnectionRefused | R::ConnectionTimeout | R::Identity
    ) {
        Ending::Unreached
    } else if reason == R::Overloaded {
        Ending::NoRoom
    } else if matches!(reason, R::ConnectionTerminated | R::StreamReset { .. }) {
        Ending::Lost
    } else if matches!(reason, R::ResponseMalformed | R::ResponseHeadTooLarge) {
        Ending::Malformed
    } else if reason == R::ResponseTimeout {
        Ending::Stalled
    } else {
        Ending::Own
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
        caller: Some(&worker.shared.identity),
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
    route: Option<&Route>,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_config::table::{External, ExternalTls};

    use super::*;

    fn outside(tls: bool, port: u16) -> Outside {
        let service = OutsideService {
            name: "pay.shop".parse().ok(),
            external: Arc::new(External {
                hosts: vec!["pay.example".into(), "pay.test".into()],
                ..External::default()
            }),
        };
        let tls = tls.then(|| ExternalTls {
            server_name: "pay.example".into(),
            roots: None,
            certificate: None,
        });
        Outside::new(Arc::new(service), ([192, 0, 2, 1], port).into(), tls)
    }

    fn head(authority: &str) -> Parts {
        Request::builder()
            .method("POST")
            .uri(format!("https://{authority}/a?b"))
            .header("weft-service", "pay.shop:443")
            .header("weft-route-parent", "orders.shop:80")
            .header("weft-timeout", "1s")
            .header("via", "1.1 weft-0")
            .header("expect", "100-continue")
            .header("accept", "text/plain")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    #[test]
    fn nothing_of_the_mesh_is_on_a_head_that_leaves_it() {
        for multiplexed in [false, true] {
            let outside = outside(true, 443);
            let left = prepare(&head("orders"), &outside, true, multiplexed).unwrap();
            let mut names: Vec<&str> = left.headers.keys().map(|name| name.as_str()).collect();
            names.sort_unstable();
            let wanted: &[&str] = match multiplexed {
                false => &["accept", "content-length", "host"],
                true => &["accept", "content-length"],
            };
            assert_eq!(names, wanted);
            let target = match multiplexed {
                false => "/a?b",
                true => "https://pay.example/a?b",
            };
            assert_eq!(left.uri, target);
        }
    }

    #[test]
    fn a_request_says_the_name_that_it_was_sent_to_or_the_first_of_the_service() {
        let host = |tls, port, authority: &str| {
            let left = prepare(&head(authority), &outside(tls, port), true, false).unwrap();
            left.headers[HOST].to_str().unwrap().to_owned()
        };
        assert_eq!(host(true, 443, "pay.shop"), "pay.example");
        assert_eq!(host(false, 80, "pay.shop"), "pay.example");
        assert_eq!(host(true, 8443, "127.0.0.1:5001"), "pay.example:8443");
        assert_eq!(host(false, 443, "pay.shop"), "pay.example:443");
        assert_eq!(host(true, 443, "PAY.test"), "PAY.test");
        assert_eq!(host(true, 443, "pay.test.:443"), "pay.test.:443");
    }

    #[test]
    fn an_attempt_that_reached_no_server_may_be_made_elsewhere_and_a_refusal_is_final() {
        let ends = |reason| ending(&Failure::new(reason, ""));
        assert_eq!(ends(Reason::ConnectionRefused), Ending::Unreached);
        assert_eq!(ends(Reason::ConnectionTimeout), Ending::Unreached);
        assert_eq!(ends(Reason::Identity), Ending::Unreached);
        assert_eq!(ends(Reason::ConnectionTerminated), Ending::Lost);
        assert_eq!(ends(Reason::Denied), Ending::Own);
        assert_eq!(ends(Reason::CallerGone), Ending::Own);
    }
}
