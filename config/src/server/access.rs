//! Access control: which identity may make which call, decided before a byte of the call's body is read; and
//! how long a call may take.
//!
//! Identities `ns/weft/sa/operator-*` may call everything; every other identity of the mesh may only
//! subscribe, and tell what it saw. An operator's call takes its [`Turn`] before its body is read, so that
//! only a few large bodies are in memory at once. The handler takes the [`OperatorCall`] that was left with
//! the request; this tells the access control that the body has arrived. A subscription has its own deadlines
//! (`subscribe.rs`).

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::{Request, Status};
use tower::{Layer, Service};
use weft_ca::connection::Caller;
use weft_transport::alone::alone;
use weft_transport::identity::{PeerId, SpiffeId};
use weft_transport::limited_log::LimitedLog;
use weft_transport::shares::{Turn, Turns};
use weft_transport::tasks::Tasks;

use crate::limits;
use crate::proto::{discovery_server, observation_server};
use crate::validate::RESERVED_NAMESPACE;

/// The prefix of an operator's service account.
const OPERATOR_PREFIX: &str = "operator-";

type HttpRequest = http::Request<Body>;
type HttpResponse = http::Response<Body>;

/// Puts the access control in front of services.
#[derive(Clone)]
pub(super) struct AccessLayer(Arc<AccessControl>);

/// The access control, and the service behind it.
#[derive(Clone)]
pub(super) struct AccessControlled<S> {
    access: Arc<AccessControl>,
    inner: S,
}

struct AccessControl {
    /// The turns of operators' calls, by the name of the operator.
    turns: Turns<String>,
    refusals: LimitedLog,
    tracker: Tasks,
    shutdown: CancellationToken,
}

/// An operator's call under way.
#[derive(Clone)]
pub(super) struct OperatorCall(Arc<Call>);

struct Call {
    author: String,
    place: std::sync::Mutex<Option<Turn>>,
    arrived: CancellationToken,
}

/// The caller's role.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CallerRole {
    /// A sidecar that subscribes.
    Subscribe,
    /// The operator of this name.
    Operate(String),
}

impl AccessLayer {
    /// Tasks that watch replies belong to `tracker` and end with `shutdown`.
    pub(super) fn new(tracker: Tasks, shutdown: CancellationToken) -> Self {
        Self(Arc::new(AccessControl {
            turns: Turns::new(limits::OPERATOR_CALLS),
            refusals: LimitedLog::by_callers(),
            tracker,
            shutdown,
        }))
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessControlled<S>;

    fn layer(&self, inner: S) -> AccessControlled<S> {
        AccessControlled {
            access: Arc::clone(&self.0),
            inner,
        }
    }
}

impl<S> Service<HttpRequest> for AccessControlled<S>
where
    S: Service<HttpRequest, Response = HttpResponse, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        // The service that was polled is ready; its clone need not be.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let access = Arc::clone(&self.access);
        Box::pin(async move {
            let answered = access.pass(request, inner).await;
            Ok(answered.unwrap_or_else(Status::into_http))
        })
    }
}

impl AccessControl {
    async fn pass<S>(&self, request: HttpRequest, mut inner: S) -> Result<HttpResponse, Status>
    where
        S: Service<HttpRequest, Response = HttpResponse, Error = Infallible>,
    {
        let caller = request.extensions().get::<Caller>().cloned();
        let peer = caller.as_ref().and_then(|caller| caller.peer.as_ref());
        let proven = peer.map(|peer| (peer.id(), peer.not_after()));
        let right = judge(proven, request.uri().path(), SystemTime::now());
        let author = match right {
            Ok(CallerRole::Subscribe) => return Ok(called(inner.call(request).await)),
            Ok(CallerRole::Operate(author)) => author,
            Err(status) => {
                self.refuse(peer, request.uri().path(), &status);
                return Err(status);
            }
        };
        let hang_up = caller.map(|caller| caller.hang_up);
        self.operate(author, hang_up, request, inner).await
    }

    async fn operate<S>(
        &self,
        author: String,
        hang_up: Option<CancellationToken>,
        mut request: HttpRequest,
        mut inner: S,
    ) -> Result<HttpResponse, Status>
    where
        S: Service<HttpRequest, Response = HttpResponse, Error = Infallible>,
    {
        let place = timeout(limits::TURN_WAIT_MAX, self.turns.enter(&author))
            .await
            .map_err(|_| {
                let wait = limits::TURN_WAIT_MAX.as_secs();
                Status::resource_exhausted(format!(
                    "other operators' calls were under way for {wait} s: try again"
                ))
            })?;
        let call = OperatorCall(Arc::new(Call {
            author,
            place: std::sync::Mutex::new(Some(place)),
            arrived: CancellationToken::new(),
        }));
        request.extensions_mut().insert(call.clone());
        let mut answering = pin!(inner.call(request));
        let in_time = async {
            tokio::select! {
                () = call.0.arrived.cancelled() => {}
                () = sleep(limits::BODY_TIMEOUT) => return Err("its body did not come"),
            }
            sleep(limits::CALL_TIMEOUT).await;
            Err::<Infallible, _>("it was not answered")
        };
        let answer = tokio::select! {
            answer = &mut answering => called(answer),
            Err(what) = in_time => {
                return Err(Status::deadline_exceeded(format!("the call took too long: {what} in time")));
            }
        };
        Ok(answer.map(|body| self.watch(body, call, hang_up)))
    }

    /// The reply's body keeps the call's place. A caller that does not take its reply loses its connection,
    /// because the connection holds the rest of the reply.
    fn watch(&self, body: Body, call: OperatorCall, hang_up: Option<CancellationToken>) -> Body {
        let taken = CancellationToken::new();
        if let Some(hang_up) = hang_up {
            let (taken, shutdown) = (taken.clone(), self.shutdown.clone());
            let watching = async move {
                tokio::select! {
                    () = taken.cancelled() => {}
                    () = shutdown.cancelled() => {}
                    () = sleep(limits::REPLY_TIMEOUT) => hang_up.cancel(),
                }
            };
            self.tracker.spawn(alone("a reply", watching));
        }
        Body::new(Reply {
            body,
            _call: call,
            _taken: taken.drop_guard(),
        })
    }

    fn refuse(&self, peer: Option<&PeerId>, path: &str, status: &Status) {
        let who = peer.map_or_else(|| "none".to_owned(), |peer| peer.id().to_string());
        self.refusals.log(|left_out| {
            tracing::warn!(peer = who, call = ?path.get(..CALL_SHOWN).unwrap_or(path), left_out,
                reason = status.message(), "a call was refused");
        });
    }
}

/// Bytes of a called path that the log shows; those that exist are shorter.
const CALL_SHOWN: usize = 64;

/// Whether a call may be made at all, given the identity and the expiry of its certificate. Pure.
fn judge(
    proven: Option<(&SpiffeId, SystemTime)>,
    path: &str,
    now: SystemTime,
) -> Result<CallerRole, Status> {
    let Some((id, not_after)) = proven else {
        return Err(Status::unauthenticated("no identity was proven"));
    };
    if not_after <= now {
        return Err(Status::unauthenticated(
            "the certificate that opened this connection has ended: connect again",
        ));
    }
    if let Some(name) = operator(id) {
        return Ok(match is_subscription(path) {
            true => CallerRole::Subscribe,
            false => CallerRole::Operate(name.to_owned()),
        });
    }
    if is_subscription(path) {
        return Ok(CallerRole::Subscribe);
    }
    Err(Status::permission_denied(format!(
        "{id} is not an operator"
    )))
}

fn is_subscription(path: &str) -> bool {
    let path = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    path.is_some_and(|(service, _)| {
        [
            discovery_server::SERVICE_NAME,
            observation_server::SERVICE_NAME,
        ]
        .contains(&service)
    })
}

/// The name of an operator.
fn operator(id: &SpiffeId) -> Option<&str> {
    let workload = id.workload()?;
    let is_reserved = workload.namespace == RESERVED_NAMESPACE;
    workload
        .service_account
        .strip_prefix(OPERATOR_PREFIX)
        .filter(|_| is_reserved)
}

impl OperatorCall {
    /// The operator's call behind a request whose body has arrived.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let call = request.extensions().get::<Self>().cloned();
        let call = call.ok_or_else(|| Status::permission_denied("not an operator's call"))?;
        call.0.arrived.cancel();
        Ok(call)
    }

    /// The operator that calls.
    pub(super) fn author(&self) -> &str {
        &self.0.author
    }

    /// Gives up the place: no large body is held from here on.
    pub(super) fn give_up(&self) {
        let mut place = self.0.place.lock();
        let place = match &mut place {
            Ok(place) => place.take(),
            Err(poisoned) => poisoned.get_mut().take(),
        };
        drop(place);
    }
}

fn called<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
    }
}

/// A reply on its way.
struct Reply {
    body: Body,
    _call: OperatorCall,
    _taken: DropGuard,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;

    const SUBSCRIBE: &str = "/weft.config.v1.Discovery/Subscribe";
    const APPLY: &str = "/weft.config.v1.Operator/Apply";

    const END: SystemTime = SystemTime::UNIX_EPOCH;

    fn judged(path: &str, call: &str) -> Result<CallerRole, Code> {
        let id = format!("spiffe://demo.test/{path}").parse().unwrap();
        let now = END - Duration::from_secs(1);
        judge(Some((&id, END)), call, now).map_err(|status| status.code())
    }

    #[test]
    fn operators_may_call_everything_and_others_only_subscribe() {
        let anna = "ns/weft/sa/operator-anna";
        assert_eq!(judged(anna, APPLY), Ok(CallerRole::Operate("anna".into())));
        assert_eq!(judged(anna, SUBSCRIBE), Ok(CallerRole::Subscribe));
        for other in ["ns/shop/sa/operator-anna", "ns/weft/sa/config", "control"] {
            assert_eq!(judged(other, SUBSCRIBE), Ok(CallerRole::Subscribe));
            for call in [APPLY, "/", "", "/weft.config.v1.Discovery", "//x", "/a/b"] {
                assert_eq!(
                    judged(other, call),
                    Err(Code::PermissionDenied),
                    "{other} {call}"
                );
            }
        }
    }

    #[test]
    fn a_certificate_that_has_ended_or_none_allows_no_call() {
        let anna = "spiffe://demo.test/ns/weft/sa/operator-anna"
            .parse()
            .unwrap();
        for call in [SUBSCRIBE, APPLY] {
            for proven in [Some((&anna, END)), None] {
                let refused = judge(proven, call, END).unwrap_err();
                assert_eq!(refused.code(), Code::Unauthenticated);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_body_does_not_come_ends_and_gives_its_place_back() {
        let shutdown = CancellationToken::new();
        let AccessLayer(access) = AccessLayer::new(Tasks::default(), shutdown);
        let never = tower::service_fn(|_: HttpRequest| std::future::pending());
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..limits::OPERATOR_CALLS.each {
            let access = Arc::clone(&access);
            calls.spawn(async move {
                let request = http::Request::new(Body::empty());
                access.operate("anna".into(), None, request, never).await
            });
        }
        let begun = tokio::time::Instant::now();
        while let Some(ended) = calls.join_next().await {
            let status = ended.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded);
        }
        assert_eq!(begun.elapsed(), limits::BODY_TIMEOUT);
        let anna = "anna".to_owned();
        let again = timeout(Duration::from_secs(1), access.turns.enter(&anna));
        again.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_does_not_take_its_reply_loses_its_connection() {
        let AccessLayer(access) = AccessLayer::new(Tasks::default(), CancellationToken::new());
        let answer =
            tower::service_fn(|_: HttpRequest| async { Ok(HttpResponse::new(Body::new(Unread))) });
        let (taken, left) = (CancellationToken::new(), CancellationToken::new());
        for line in [&taken, &left] {
            let request = http::Request::new(Body::empty());
            let reply = access
                .operate("anna".into(), Some(line.clone()), request, answer)
                .await
                .unwrap();
            if std::ptr::eq(line, &taken) {
                drop(reply);
            } else {
                left.cancelled().await;
            }
        }
        assert!(!taken.is_cancelled());
    }

    /// A reply of which no byte is taken.
    struct Unread;

    impl http_body::Body for Unread {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }
}
