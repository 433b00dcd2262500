//! An attempt that leaves the mesh: the caller's own sidecar decides, as no other will, and sends the request
//! to an address outside. [`super::attempt`] is its sibling for peers; what follows from how it ends is
//! decided alike ([`crate::resilience::verdict`]).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::header::EXPECT;
use http::request::Parts;
use http::{Method, Request, Response, Uri};

use super::answer_stream::AnswerStream;
use super::attempt::{Answered, Failed, Upward, read_clock};
use super::exchange::Exchange;
use super::open::Picked;
use super::outside_body::OutsideBody;
use super::route::Route;
use crate::application::body::{Moved, RequestBody};
use crate::application::head::declare;
use crate::application::interim;
use crate::application::outside::{Outside, ending};
use crate::application::{self, Application};
use crate::cluster::Cluster;
use crate::directory::Directory;
use crate::failure::{Failure, Reason};
use crate::http::content::Content;
use crate::http::response;
use crate::http::upload::Sending;
use crate::idle::{Expired, Idle, while_moving};
use crate::inbound::authorise::{Call, would_allow};
use crate::outside::{OutsideService, Speaks};
use crate::record::attempt::Attempt;
use crate::resilience::deadline::Clock;
use crate::resilience::standing::Outcome;
use crate::resilience::verdict::{Ending, Evidence};
use crate::worker::Worker;
use weft_config::table::{Protocol, Table};

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
        let permission = Permission::new(&self.worker, &self.route, Some(&self.head));
        if let Err(failure) = permission.judge() {
            picked.flight.judge(Evidence::Nothing, now);
            return Err(failed(failure, None, now, 0));
        }
        if self.is_tunnel() {
            return self.open_outside(&outside, picked, clock, parts).await;
        }
        let permission = Arc::new(permission);
        let moved = Arc::new(Moved::default());
        let multiplexed = self.is_grpc() || self.route.cluster.protocol == Protocol::Grpc;
        let head = match outside.head(&self.head, multiplexed) {
            Ok(mut head) => {
                // The content follows at once: no answer that would allow it is waited for.
                head.headers.remove(EXPECT);
                declare(&head.method, &mut head.headers, body.is_none(), multiplexed);
                head
            }
            Err(failure) => {
                picked.flight.judge(Evidence::Nothing, now);
                return Err(failed(failure, None, now, 0));
            }
        };
        let client = self.client_of(&outside);
        let body = RequestBody::own(body, Arc::clone(&moved));
        let mut request = Request::from_parts(head, body);
        if !multiplexed {
            interim::listen(&mut request, None);
        }
        let mut outgoing = client.outgoing(request);
        picked.flight.sent(now);
        let sending = pin!(permission.while_permitted(async {
            match multiplexed {
                true => {
                    client
                        .send_multiplexed(outside.caller(), &mut outgoing, None)
                        .await
                }
                false => client.send(outside.caller(), &mut outgoing).await,
            }
        }));
        let idle = Idle::new(self.idle()).until(clock.end());
        let answered = while_moving(idle, || moved.total(), sending).await;
        moved.answered();
        let at = read_clock();
        let sent = moved.sent.load(std::sync::atomic::Ordering::Relaxed);
        let (failure, ending) = match answered {
            Ok(Ok(answered)) => {
                parts.dialled(now);
                parts.sent(at);
                let watched = (moved, Arc::clone(&permission));
                return self.answered_outside(answered, watched, picked, clock, at);
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
        (moved, permission): (Arc<Moved>, Arc<Permission>),
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
        let body = body.until(Box::pin(permission.withdrawn()));
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

/// What was asked for when a call left the mesh. By it the call is judged again whenever the table changes:
/// no other sidecar will do that.
pub(super) struct Permission {
    worker: Arc<Worker>,
    cluster: Arc<Cluster>,
    /// The service whose route led outside.
    parent: Option<Arc<Cluster>>,
    /// Method and target; none for bytes.
    asked: Option<(Method, Uri)>,
}

impl Permission {
    /// Of a call on this route; `head` is that of a request.
    pub(super) fn new(worker: &Arc<Worker>, route: &Route, head: Option<&Parts>) -> Self {
        let head = head.filter(|head| head.method != Method::CONNECT);
        Self {
            worker: Arc::clone(worker),
            cluster: Arc::clone(&route.cluster),
            parent: route.parent.clone(),
            asked: head.map(|head| (head.method.clone(), head.uri.clone())),
        }
    }

    /// Decides whether this sidecar's own workload may make the call: by the policies of what is outside, and
    /// of the service whose route leads there.
    fn judge(&self) -> Result<(), Failure> {
        let directory = self.worker.directory();
        let Some(table) = directory.table.as_deref() else {
            let detail = "no table from the config service yet: all is denied";
            return Err(Failure::new(Reason::Denied, detail));
        };
        let asked = self.asked.as_ref();
        let call = Call {
            caller: Some(&self.worker.shared.identity),
            parent: None,
            request: asked.map(|(method, uri)| (method.as_str(), uri.path())),
        };
        if let Some(OutsideService { name: None, .. }) = self.cluster.outside.as_deref() {
            let host = self.cluster.outside.as_deref().map(OutsideService::host);
            return may_pass(&directory, table, host.unwrap_or_default());
        }
        let name = self.cluster.outside.as_deref();
        let name = name.and_then(|outside| outside.name.as_ref());
        let external = name.and_then(|name| table.services.get(name)?.external.as_deref());
        if external.is_some_and(|external| external.via.is_some()) {
            let detail = "it is sent through a service of the mesh now (spec.via)";
            return Err(Failure::new(Reason::Denied, detail));
        }
        for cluster in [Some(&self.cluster), self.parent.as_ref()]
            .into_iter()
            .flatten()
        {
            let Some(name) = service_of(cluster) else {
                return Err(Failure::new(Reason::Internal, "a service has no name"));
            };
            would_allow(table, &name, &call).1?;
        }
        Ok(())
    }

    /// Waits for a table that forbids the call.
    pub(super) async fn withdrawn(self: Arc<Self>) -> Failure {
        let mut directory = self.worker.directory.clone();
        loop {
            if directory.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Err(failure) = self.judge() {
                return failure;
            }
        }
    }

    /// Runs `work` as long as each new table permits the call.
    pub(super) async fn while_permitted<T>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            failure = Arc::clone(self).withdrawn() => Err(failure),
        }
    }
}

/// Whether a call to a name that no ExternalService had may go on.
fn may_pass(directory: &Directory, table: &Table, host: &str) -> Result<(), Failure> {
    let is_taken = table.closed_hosts.contains(host) || directory.by_host(host).is_some();
    let why = match (is_taken, table.egress.is_deny()) {
        (false, false) => return Ok(()),
        (true, _) => "an ExternalService has this name now: its policies decide",
        (false, true) => "the mesh lets no name outside of it pass any more (egress: Deny)",
    };
    Err(Failure::new(Reason::Denied, why))
}

fn service_of(cluster: &Cluster) -> Option<weft_config::table::ServiceName> {
    cluster.label.rsplit_once(':')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use weft_config::table::{Egress, External};

    use super::*;
    use crate::directory::tests::{after, name, table};

    #[test]
    fn a_name_passes_until_an_external_service_takes_it_or_none_may_pass() {
        let passes = |change: &dyn Fn(&mut Table)| {
            let mut table = table();
            table.egress = Egress::Allow;
            change(&mut table);
            let directory = after(table, &Directory::default());
            let table = directory.table.as_deref().unwrap();
            may_pass(&directory, table, "pay.example").map_err(|failure| failure.detail)
        };
        assert_eq!(passes(&|_| {}), Ok(()));
        assert_eq!(passes(&|table| table.egress = Egress::Observe), Ok(()));
        // This sidecar may not call the service that has it.
        let closed = passes(&|table| table.closed_hosts = ["pay.example".to_owned()].into());
        // It may.
        let taken = passes(&|table| {
            let solo = Arc::make_mut(table.services.get_mut(&name("solo")).unwrap());
            solo.external = Some(Arc::new(External {
                hosts: vec!["pay.example".into()],
                ..External::default()
            }));
        });
        for taken in [closed, taken] {
            assert!(taken.unwrap_err().contains("ExternalService"));
        }
        let denied = passes(&|table| table.egress = Egress::Deny);
        assert!(denied.unwrap_err().contains("egress: Deny"));
    }
}
