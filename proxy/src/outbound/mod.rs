//! Serves the application's calls: `accept -> plan (which service, and where is it?) -> filters -> attempts
//! -> relay`.
//!
//! [`listen`] accepts and tells HTTP from TCP; [`http1`] serves a connection request by request; [`request`]
//! and [`tunnel`] run the stages. [`plan`] makes an [`exchange`], [`filters`] change it, and it makes
//! attempts until there is an answer: [`crate::cluster::pick`] picks an endpoint, [`open`] opens a stream to
//! it, and [`attempt`] sends the request. [`route`] and the pick are pure; [`crate::resilience`] decides
//! whether an exchange is sent again.

pub(crate) mod answer_stream;
mod attempt;
#[cfg(test)]
mod attempt_simulations;
mod connection;
mod exchange;
pub mod explain;
mod filters;
mod hedge;
mod hello;
pub(crate) mod http1;
mod instead;
pub(crate) mod intake;
mod open;
mod outside;
pub(crate) mod outside_body;
pub(crate) mod passing;
mod plan;
pub(crate) mod prepare;
mod presence;
pub(crate) mod refusal;
mod request;
pub(crate) mod response_body;
pub(crate) mod route;
pub(crate) mod session;
mod tunnel;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use weft_config::table::Protocol;

use weft_transport::alone::alone;
use weft_transport::limited_log::LimitedLog;

use crate::descriptors;
use crate::limits::{self, Http2Bounds};
use crate::metrics::Counted;
use crate::resilience::balance;
use crate::stream::ApplicationStream;
use crate::tasks::Tracked;
use crate::worker::Worker;
use connection::{Connection, may_be_http};
use intake::Acceptor;
use response_body::ResponseBody;
use route::Destination;

pub(crate) use connection::{ClientProtocol, detect};
pub(crate) use instead::Instead;
pub(crate) use request::version_to;

/// One listener of one worker.
pub(crate) struct Listener {
    /// The worker that it belongs to.
    pub(crate) worker: Arc<Worker>,
    /// The destination of its connections.
    pub(crate) destination: Destination,
}

/// Serves the requests of one connection of a client: those of the application on their way out, and those of
/// callers without mutual TLS ([`crate::plaintext`]).
pub(crate) trait Requests: Clone + Send + Unpin + 'static {
    /// What an HTTP/2 connection may have.
    const HTTP2: Http2Bounds;

    /// The worker that has the connection.
    fn worker(&self) -> &Arc<Worker>;

    /// Cancelled when the connection shall end after what it has under way.
    fn finish(&self) -> &CancellationToken;

    /// Cancelled when it shall end if it is idle, too.
    fn rest(&self) -> &CancellationToken;

    /// Where requests are counted that cannot be read.
    fn unread(&self) -> &Arc<Counted>;

    /// Serves one request; the response streams after this returns.
    fn serve(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send;
}

impl Requests for Client {
    const HTTP2: Http2Bounds = limits::HTTP2_OF_APPLICATION;

    fn worker(&self) -> &Arc<Worker> {
        &self.listener.worker
    }

    fn finish(&self) -> &CancellationToken {
        &self.listener.worker.finish
    }

    fn rest(&self) -> &CancellationToken {
        &self.listener.worker.rest
    }

    fn unread(&self) -> &Arc<Counted> {
        &self.listener.worker.unrouted
    }

    fn serve(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send {
        request::serve(self, request)
    }
}

/// A connection of the application.
#[derive(Clone)]
struct Client {
    /// The listener that accepted the connection.
    listener: Arc<Listener>,
    /// The number of its origin, for balancing by source.
    source: u64,
}

/// A bound socket.
pub(crate) enum Socket {
    /// One of several sockets that share the port, one per worker.
    Tcp(TcpListener),
    /// The only socket: Unix sockets cannot be shared that way, so one worker has it.
    Unix(UnixListener),
}

impl Socket {
    /// Lets this many connections wait until they are accepted. Those that wait already stay.
    fn listen(&self, backlog: u32) -> io::Result<()> {
        let backlog = backlog.min(limits::BACKLOG).cast_signed();
        match self {
            Self::Tcp(listener) => SockRef::from(listener).listen(backlog),
            Self::Unix(listener) => SockRef::from(listener).listen(backlog),
        }
    }

    async fn accept(&self) -> io::Result<ApplicationStream> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| ApplicationStream::tcp(stream)),
            Self::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| ApplicationStream::Unix(stream)),
        }
    }
}

/// Accepts connections of the application until the worker finishes.
pub(crate) async fn listen(listener: Arc<Listener>, socket: Socket, room: Arc<Semaphore>) {
    let worker = Arc::clone(&listener.worker);
    let serve = |stream| serve(Arc::clone(&listener), stream);
    accept(
        worker,
        socket,
        room,
        "a connection of the application",
        serve,
    )
    .await;
}

/// Accepts connections of clients until the worker finishes. Each is served by a task with this name.
pub(crate) async fn accept<F>(
    worker: Arc<Worker>,
    socket: Socket,
    room: Arc<Semaphore>,
    name: &'static str,
    serve: impl Fn(ApplicationStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let finish = worker.finish.clone();
    let intake = Arc::clone(&worker.shard.intake);
    let mut acceptor = Acceptor::new(socket, room, intake);
    let failures = LimitedLog::by_a_state();
    loop {
        let accepted = tokio::select! {
            biased;
            () = finish.cancelled() => return,
            accepted = acceptor.next() => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let is_one_of_the_last = descriptors::is_one_of_the_last(&stream);
                let serving = serve(stream).map(|()| drop(permit));
                worker.tasks.spawn(alone(name, serving));
                if is_one_of_the_last {
                    failures.log(|left_out| {
                        tracing::warn!(
                            left_out,
                            "few file descriptors are left (ulimit -n): connections wait to be accepted"
                        );
                    });
                    tokio::select! {
                        () = descriptors::plenty() => {}
                        () = finish.cancelled() => return,
                    }
                }
            }
            Err(error) => {
                // No descriptor is left, or the client is gone already. Clients that wait stay in the
                // backlog.
                failures.log(|left_out| tracing::warn!(%error, left_out, "cannot accept"));
                let pause = async {
                    tokio::time::sleep(limits::ACCEPT_ERROR_PAUSE).await;
                    // A descriptor that becomes free is reserved for essential uses first.
                    if descriptors::are_exhausted(&error) {
                        descriptors::plenty().await;
                    }
                };
                tokio::select! {
                    () = pause => {}
                    () = finish.cancelled() => return,
                }
            }
        }
    }
}

/// Serves one connection of the application to its end. State that only some connections need is boxed: most
/// connections are idle most of the time, and there may be thousands.
async fn serve(listener: Arc<Listener>, stream: ApplicationStream) {
    let protocol = route::protocol(&listener.worker.directory(), &listener.destination);
    let patience = match protocol {
        Some(Protocol::Tcp) => return Box::pin(tunnel::serve(&listener, stream)).await,
        Some(Protocol::Http | Protocol::Grpc) => limits::DETECT_TIMEOUT,
        None => limits::DETECT_UNKNOWN_TIMEOUT,
    };
    let mut first = BytesMut::new();
    let intake = &listener.worker.shard.intake;
    let detection = tokio::select! {
        biased;
        detection = tokio::time::timeout(patience, detect(&stream, &mut first, intake)) => detection,
        // Nothing was asked on it.
        () = listener.worker.rest.cancelled() => return,
    };
    match detection {
        // A client of a TCP service would take an HTTP answer for one of its server.
        Ok(Ok(Some(ClientProtocol::Http1))) if protocol.is_none() && !may_be_http(&first) => {
            Box::pin(tunnel::serve(&listener, stream)).await;
        }
        Ok(Ok(Some(ClientProtocol::Http1))) => {
            http1::serve(client(listener, &stream), stream, first).await;
        }
        Ok(Ok(Some(ClientProtocol::Http2))) => {
            Box::pin(serve_http2(client(listener, &stream), stream, first)).await;
        }
        // Part of a head has arrived, and the rest does not follow.
        Err(_) if !first.is_empty() => {
            let slow = refusal::slow(patience);
            let client = client(listener, &stream);
            Box::pin(refusal::refuse(&client, stream, &first, slow)).await;
        }
        // A client that stays silent is not an HTTP client: it is refused as TCP is.
        Err(_) if protocol.is_none() => Box::pin(tunnel::serve(&listener, stream)).await,
        Ok(Ok(None) | Err(_)) | Err(_) => {}
    }
}

fn client(listener: Arc<Listener>, stream: &ApplicationStream) -> Client {
    let source = source_of(&listener, stream);
    Client { listener, source }
}

/// The number of the caller: this workload, and the host from which its application connected.
fn source_of(listener: &Listener, stream: &ApplicationStream) -> u64 {
    let host = stream.remote_host();
    let workload = &listener.worker.shared.principal;
    balance::hash(format!("{workload} {host:?}").as_bytes())
}

/// Serves an HTTP/2 connection of which `first` was read already.
pub(crate) async fn serve_http2<R: Requests>(
    client: R,
    stream: ApplicationStream,
    first: BytesMut,
) {
    let connection = Connection::new(stream, first, None);
    let finish = client.finish().clone();
    let mut builder = http2::Builder::new(Tracked(client.worker().tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(R::HTTP2.streams)
        .max_header_list_size(limits::HTTP2_HEAD_BYTES_READ)
        .max_send_buf_size(R::HTTP2.send_bytes)
        .initial_stream_window_size(R::HTTP2.stream_window)
        .initial_connection_window_size(R::HTTP2.connection_window);
    let service = service_fn(move |request| client.clone().serve(request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(connection), service));
    tokio::select! {
        biased;
        _ = &mut connection => return,
        () = finish.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::tests::future_size;

    /// Per connection and per request: each byte counts some ten thousand times. The wire of tests is in
    /// these sizes, which makes them some 50 bytes larger than those of programs.
    #[test]
    fn futures_stay_small() {
        let sizes = [
            ("connection", future_size(serve), 800),
            ("request", future_size(request::serve), 3568),
            ("tunnel", future_size(tunnel::serve), 3952),
        ];
        for (name, size, size_max) in sizes {
            assert!(size <= size_max, "{sizes:?} {name}");
        }
    }
}
