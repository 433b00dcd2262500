//! Callers without mutual TLS, while their service takes them (`mutualTls: Permissive`): `accept -> authorise
//! (Permit) -> deliver -> relay`, as for peers, and connections as those of the application.
//!
//! [`serve`] leads down to one [`request`] or one [`tunnel`]. Such a caller has no identity, only an address:
//! [`crate::inbound::authorise`] decides what that may do, and [`crate::inbound::callers`] keeps who came.
//! Without the permission, and when it is withdrawn, connections are refused with the reason, and end.

mod request;
mod tunnel;
mod unread;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use weft_config::table::Protocol;
use weft_transport::limited_log::LimitedLog;
use weft_transport::shares::Source;

use crate::directory::Directory;
use crate::failure::Failure;
use crate::inbound::authorise::{Call, authorise, takes_plaintext};
use crate::inbound::callers::PlaintextCaller;
use crate::inbound::meant::Meant;
use crate::inbound::served::{Rated, ServedService};
use crate::inbound::{Inbound, Who};
use crate::limits::{self, Http2Bounds};
use crate::metrics::Counted;
use crate::outbound::response_body::ResponseBody;
use crate::outbound::{
    ClientProtocol, Requests, Socket, accept, detect, http1, refusal, serve_http2,
};
use crate::resilience::limit::Caller;
use crate::stream::ApplicationStream;
use crate::worker::Worker;
use unread::Answers;

/// The listener of one served service at one worker.
pub(crate) struct Listener {
    inbound: Arc<Inbound>,
    service: Arc<ServedService>,
    /// Where its requests are counted, and its tunnels.
    requests: Arc<Counted>,
    tunnels: Arc<Counted>,
    refusals: LimitedLog,
}

/// A connection of a caller.
#[derive(Clone)]
struct Client(Arc<Of>);

struct Of {
    listener: Arc<Listener>,
    /// As those of the listener, with its address for the log.
    requests: Arc<Counted>,
    tunnels: Arc<Counted>,
    /// The address as limits count it, as text.
    source: String,
    caller: Caller,
    seen: Arc<PlaintextCaller>,
    answers: Answers,
    finish: CancellationToken,
    rest: CancellationToken,
}

impl Listener {
    /// For callers of `service`.
    pub(crate) fn new(inbound: Arc<Inbound>, service: Arc<ServedService>) -> Self {
        let worker = inbound.worker();
        let labels = || worker.arriving("", &worker.no_service, &service.label);
        Self {
            requests: worker.shard.requests(labels()),
            tunnels: worker.shard.tunnels(labels()),
            inbound,
            service,
            refusals: LimitedLog::by_callers(),
        }
    }

    fn worker(&self) -> &Arc<Worker> {
        self.inbound.worker()
    }

    fn client(self: Arc<Self>, address: IpAddr, seen: Arc<PlaintextCaller>) -> Client {
        let source = Source::from(address);
        let worker = self.worker();
        Client(Arc::new(Of {
            finish: worker.finish.child_token(),
            rest: worker.rest.child_token(),
            requests: Arc::new(self.requests.of_source(address)),
            tunnels: Arc::new(self.tunnels.of_source(address)),
            source: source.to_string(),
            caller: self.service.concurrency.caller_at(source),
            seen,
            answers: Answers::default(),
            listener: self,
        }))
    }

    fn log_refusal(&self, address: IpAddr, failure: &Failure) {
        self.refusals.log(|left_out| {
            tracing::warn!(caller = %address, why = %failure.detail, left_out,
                "a caller without mutual TLS is refused");
        });
    }
}

impl Requests for Client {
    const HTTP2: Http2Bounds = limits::PLAINTEXT_HTTP2;

    fn worker(&self) -> &Arc<Worker> {
        self.0.listener.worker()
    }

    fn finish(&self) -> &CancellationToken {
        &self.0.finish
    }

    fn rest(&self) -> &CancellationToken {
        &self.0.rest
    }

    fn unread(&self) -> &Arc<Counted> {
        &self.0.requests
    }

    fn serve(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send {
        request::serve(self, request)
    }
}

impl Of {
    fn who(&self) -> Who<'_> {
        Who {
            identity: None,
            rated: Rated::Source(&self.source),
            caller: &self.caller,
        }
    }
}

/// Accepts connections until the worker finishes.
pub(crate) async fn listen(listener: Arc<Listener>, socket: Socket, room: Arc<Semaphore>) {
    let worker = Arc::clone(listener.worker());
    let serve = |stream| serve(Arc::clone(&listener), stream);
    accept(
        worker,
        socket,
        room,
        "a connection without mutual TLS",
        serve,
    )
    .await;
}

/// Serves one connection to its end, which is there when another needs its place, when it does not read an
/// answer that has to end, or soon after its service has become `Strict`.
async fn serve(listener: Arc<Listener>, stream: ApplicationStream) {
    let Some(address) = stream.remote_host().map(|host| host.to_canonical()) else {
        return;
    };
    let service = Arc::clone(&listener.service);
    let mut directory = listener.worker().directory.clone();
    let standing = standing(&mut directory, &service);
    let callers = &service.plaintext;
    let seen = callers.came(address, standing.is_ok(), Instant::now());
    if let Err(failure) = &standing {
        listener.log_refusal(address, failure);
    }
    let place = callers.places.enter(Source::from(address));
    let client = listener.client(address, seen);
    stream.give_up_after(client.worker().shared.timeouts.stream_idle);
    let mut serving = pin!(by_protocol(client.clone(), stream));
    if standing.is_ok() {
        tokio::select! {
            biased;
            () = &mut serving => return,
            () = place.taken_back() => return callers.made_room(),
            () = forbidden(&mut directory, &service) => {}
            () = client.0.answers.stuck(client.worker(), &service) => {}
        }
        client.0.rest.cancel();
    }
    client.0.finish.cancel();
    let end = tokio::time::sleep(limits::PLAINTEXT_ENDS_WITHIN);
    tokio::select! {
        () = &mut serving => {}
        () = place.taken_back() => {}
        () = end => {}
    }
}

fn standing(
    directory: &mut watch::Receiver<Arc<Directory>>,
    service: &ServedService,
) -> Result<(), Failure> {
    let newest = Arc::clone(&directory.borrow_and_update());
    takes_plaintext(newest.table.as_deref(), &service.name)
}

/// Done when the service takes no such callers any more.
async fn forbidden(directory: &mut watch::Receiver<Arc<Directory>>, service: &ServedService) {
    while directory.changed().await.is_ok() {
        if standing(directory, service).is_err() {
            return;
        }
    }
    // There are no more tables, as the sidecar ends.
    std::future::pending().await
}

async fn by_protocol(client: Client, stream: ApplicationStream) {
    let listener = &client.0.listener;
    let worker = client.worker();
    let protocol = listener
        .service
        .protocol(worker.directory().table.as_deref());
    match protocol {
        Some(Protocol::Http | Protocol::Grpc) => {}
        Some(Protocol::Tcp) => return Box::pin(tunnel::serve(&client, stream)).await,
        // There is no such service to ask for.
        None => return stream.reset_on_close(),
    }
    let mut first = BytesMut::new();
    let (intake, patience) = (&worker.shard.intake, worker.shared.timeouts.request_headers);
    let detection = tokio::select! {
        biased;
        detection = tokio::time::timeout(patience, detect(&stream, &mut first, intake)) => detection,
        // Nothing was asked on it.
        () = client.0.rest.cancelled() => return,
    };
    match detection {
        Ok(Ok(Some(ClientProtocol::Http1))) => http1::serve(client, stream, first).await,
        Ok(Ok(Some(ClientProtocol::Http2))) => {
            Box::pin(serve_http2(client, stream, first)).await;
        }
        // Part of a head has arrived, and the rest does not follow.
        Err(_) if !first.is_empty() => {
            let slow = refusal::slow(patience);
            Box::pin(refusal::refuse(&client, stream, &first, slow)).await;
        }
        Ok(Ok(None) | Err(_)) | Err(_) => {}
    }
}

/// Done when the policies allow a call no more, with the reason: each new table is asked. `directory` has
/// seen the one by which the call was allowed.
async fn disallowed(
    mut directory: watch::Receiver<Arc<Directory>>,
    service: Arc<ServedService>,
    request: Option<(http::Method, http::Uri)>,
) -> Failure {
    while directory.changed().await.is_ok() {
        let newest = Arc::clone(&directory.borrow_and_update());
        let request = request.as_ref();
        let request = request.map(|(method, uri)| (method.as_str(), uri.path()));
        if let Err(failure) = judge(&newest, &service, request) {
            return failure;
        }
    }
    std::future::pending().await
}

/// Decides on a call of a caller without identity, that is under way.
fn judge(
    directory: &Directory,
    service: &Arc<ServedService>,
    request: Option<(&str, &str)>,
) -> Result<(), Failure> {
    let call = Call {
        caller: None,
        parent: None,
        request,
    };
    let verdict = authorise(directory.table.as_deref(), &Meant::own(service), &call);
    verdict.outcome.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::tests::future_size;

    #[test]
    fn futures_stay_small() {
        let sizes = [
            ("connection", future_size(serve), 2048),
            ("request", future_size(request::serve), 3552),
        ];
        for (name, size, size_max) in sizes {
            assert!(size <= size_max, "{sizes:?} {name}");
        }
    }
}
