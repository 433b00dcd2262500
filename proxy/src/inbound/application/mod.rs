//! The application behind this sidecar, over HTTP/1.1 (a pool for each caller) or HTTP/2 (a connection for each).
//!
//! One per worker and served service. What may be delivered is decided before: see
//! [`super::authorise::Permit`]. Which responses let a connection of HTTP/1.1 live is said in
//! [`crate::http::response`]; for whom it is used again, in `idle.rs`. Callers share no connection of HTTP/2
//! either: its windows and its number of streams are the connection's, so one caller could take all of them.

mod greeting;
mod idle;
mod multiplexed;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::{Extensions, HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;
use weft_config::settings::{LocalAddress, Timeouts};

use super::body::RequestBody;
use crate::failure::{Failure, Reason};
use crate::limits;
use crate::metrics::lock;
use crate::resilience::limit::Caller;
use crate::stream::{ApplicationStream, Watch};
use crate::tasks::Tracked;
use greeting::{Greeted, Greeting};
use idle::IdleConnections;
use multiplexed::{Multiplexed, MultiplexedConnections};

/// The connections of one worker to one application.
pub(crate) struct Application {
    address: LocalAddress,
    connect: Duration,
    idle: Mutex<IdleConnections<Caller, Connection>>,
    multiplexed: Mutex<MultiplexedConnections<Caller, http2::SendRequest<RequestBody>, Failure>>,
    tasks: TaskTracker,
}

/// A connection of HTTP/1.1.
struct Connection {
    sender: http1::SendRequest<RequestBody>,
    watch: Watch,
}

impl Connection {
    /// Whether it may carry a request: hyper waits for one, and the application has sent nothing, not even an
    /// end, that is still unread.
    fn is_quiet(&self) -> bool {
        self.sender.is_ready() && self.watch.is_quiet()
    }
}

/// A response, and the connection that it comes over.
pub(crate) struct Answered {
    /// Head and body as hyper gives them; not yet checked.
    pub(crate) response: Response<Incoming>,
    lease: Lease,
}

/// A connection whose response is being read; nothing is leased of HTTP/2, whose streams are separate.
pub(crate) struct Lease(Option<Leased>);

struct Leased {
    application: Arc<Application>,
    caller: Caller,
    connection: Connection,
}

impl Answered {
    /// Splits off the lease, which must outlive the reading of the body.
    pub(crate) fn into_parts(self) -> (Response<Incoming>, Lease) {
        (self.response, self.lease)
    }
}

impl Lease {
    /// Gives the connection back after a response that lets it live was read to its end. Dropping the lease
    /// closes it.
    pub(crate) async fn give_back(self) {
        let Some(mut leased) = self.0 else {
            return;
        };
        // The connection's task becomes ready in its next turn.
        let ready = leased.connection.sender.ready();
        if tokio::time::timeout(limits::APPLICATION_READY_WAIT, ready)
            .await
            .is_ok_and(|ready| ready.is_ok())
        {
            let now = Instant::now();
            lock(&leased.application.idle).put(leased.caller, leased.connection, now);
        }
    }
}

impl Application {
    /// No connection yet. Connections are driven by `tasks`.
    pub(crate) fn new(address: LocalAddress, timeouts: &Timeouts, tasks: TaskTracker) -> Self {
        Self {
            address,
            connect: timeouts.application_connect,
            idle: Mutex::new(IdleConnections::new(
                timeouts.application_idle,
                limits::APPLICATION_IDLE_CONNECTIONS_MAX,
            )),
            multiplexed: Mutex::new(MultiplexedConnections::new(
                limits::APPLICATION_HTTP2_IDLE,
                limits::APPLICATION_HTTP2_CONNECTIONS_MAX,
            )),
            tasks,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &LocalAddress {
        &self.address
    }

    /// A raw connection, for tunnels.
    pub(crate) async fn connect(&self) -> Result<ApplicationStream, Failure> {
        ApplicationStream::connect(&self.address, self.connect)
            .await
            .map_err(|error| self.connect_failure(&error))
    }

    /// Sends a request of `caller` over HTTP/1.1. Where a reused connection turns out to be closed, the request
    /// goes out once more on a fresh one if the application cannot have seen it, or may see it twice.
    pub(crate) async fn send(
        self: &Arc<Self>,
        caller: &Caller,
        request: ToSend<'_>,
    ) -> Result<Answered, Failure> {
        let reused = lock(&self.idle).take(caller, Instant::now(), Connection::is_quiet);
        if let Some(mut connection) = reused {
            let spare = request.as_ref().and_then(spare);
            match connection.sender.try_send_request(taken(request)?).await {
                Ok(response) => return Ok(self.answered(response, caller, connection)),
                Err(mut refused) => {
                    let unsent = refused.take_message();
                    let error = refused.into_error();
                    if was_reset(&error) || unsent.is_some() {
                        *request = unsent.or_else(|| spare.map(repeated));
                    }
                    if request.is_none() {
                        return Err(response_failure(&error));
                    }
                }
            }
        }
        let mut connection = self.open().await?;
        let response = connection
            .sender
            .send_request(taken(request)?)
            .await
            .map_err(|error| response_failure(&error))?;
        Ok(self.answered(response, caller, connection))
    }

    /// Sends a request of `caller` over HTTP/2 with prior knowledge.
    pub(crate) async fn send_multiplexed(
        self: &Arc<Self>,
        caller: &Caller,
        request: ToSend<'_>,
    ) -> Result<Answered, Failure> {
        let mut again = true;
        loop {
            let mut sender = self.multiplexed(caller).await?;
            let mut refused = match sender.try_send_request(taken(request)?).await {
                Ok(response) => {
                    return Ok(Answered {
                        response,
                        lease: Lease(None),
                    });
                }
                Err(refused) => refused,
            };
            // The connection went away under us; nothing was sent.
            match refused.take_message() {
                Some(unsent) if again => *request = Some(unsent),
                Some(_) | None => return Err(response_failure(refused.error())),
            }
            again = false;
        }
    }

    /// The HTTP/2 connection of a caller. Requests that come while it is being made wait for the same attempt.
    fn multiplexed(
        self: &Arc<Self>,
        caller: &Caller,
    ) -> Multiplexed<http2::SendRequest<RequestBody>, Failure> {
        let make = || {
            let application = Arc::clone(self);
            async move { application.open_multiplexed().await }.boxed()
        };
        let usable = |sender: &http2::SendRequest<RequestBody>| !sender.is_closed();
        lock(&self.multiplexed).get(caller, Instant::now(), usable, make)
    }

    /// Drops connections that were idle for too long. Called about once a second.
    pub(crate) fn sweep(&self, now: Instant) {
        lock(&self.idle).sweep(now, |connection| !connection.sender.is_closed());
        lock(&self.multiplexed).sweep(now);
    }

    fn answered(
        self: &Arc<Self>,
        response: Response<Incoming>,
        caller: &Caller,
        connection: Connection,
    ) -> Answered {
        Answered {
            response,
            lease: Lease(Some(Leased {
                application: Arc::clone(self),
                caller: caller.clone(),
                connection,
            })),
        }
    }

    async fn open(&self) -> Result<Connection, Failure> {
        let stream = self.connect().await?;
        let watch = stream
            .watch()
            .map_err(|error| self.connect_failure(&error))?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(limits::HEAD_BYTES_MAX)
            .max_headers(limits::FIELDS_MAX)
            // RFC 9112 section 5.1: a proxy removes white space before the colon of a response's field.
            .allow_spaces_after_header_name_in_responses(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| response_failure(&error))?;
        // Its errors reach whoever waits for a response; those of an idle connection concern nobody.
        self.tasks.spawn(async move { drop(connection.await) });
        Ok(Connection { sender, watch })
    }

    async fn open_multiplexed(&self) -> Result<http2::SendRequest<RequestBody>, Failure> {
        let (stream, greeting) = Greeted::new(self.connect().await?);
        let (sender, connection) = http2::Builder::new(Tracked(self.tasks.clone()))
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits::HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| response_failure(&error))?;
        self.tasks.spawn(async move { drop(connection.await) });
        // Nothing of a caller goes to an application before that has shown that it speaks HTTP/2: to one that does
        // not, frames would be lines.
        match tokio::time::timeout(self.connect, greeting.heard()).await {
            Ok(Greeting::Http2) => Ok(sender),
            Ok(Greeting::Other) | Err(_) => Err(Failure::new(
                Reason::ResponseMalformed,
                format!("the application at {} does not speak HTTP/2", self.address),
            )),
        }
    }

    fn connect_failure(&self, error: &io::Error) -> Failure {
        let reason = if error.kind() == io::ErrorKind::TimedOut {
            Reason::ConnectionTimeout
        } else {
            Reason::ConnectionRefused
        };
        Failure::new(
            reason,
            format!(
                "the application at {} does not accept: {error}",
                self.address
            ),
        )
    }
}

/// A request that waits for its connection: lent, as each future that owned it would be larger by it.
pub(crate) type ToSend<'a> = &'a mut Option<Request<RequestBody>>;

fn taken(request: ToSend<'_>) -> Result<Request<RequestBody>, Failure> {
    request
        .take()
        .ok_or_else(|| Failure::new(Reason::Internal, "there is no request to send"))
}

/// A head, with who hears of interim responses to it.
type Spare = (Method, Uri, HeaderMap, Extensions);

/// A copy for a second attempt, where the application may see the request twice (RFC 9110 section 9.2.2).
fn spare(request: &Request<RequestBody>) -> Option<Box<Spare>> {
    if !request.method().is_idempotent() || !request.body().is_empty() {
        return None;
    }
    Some(Box::new((
        request.method().clone(),
        request.uri().clone(),
        request.headers().clone(),
        request.extensions().clone(),
    )))
}

fn repeated(spare: Box<Spare>) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::empty());
    (
        *request.method_mut(),
        *request.uri_mut(),
        *request.headers_mut(),
        *request.extensions_mut(),
    ) = *spare;
    request
}

/// The connection ended before any part of a response.
fn was_reset(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || io.is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionAborted
            )
        })
}

/// What hyper's error says about the application.
pub(crate) fn response_failure(error: &hyper::Error) -> Failure {
    let reason = if error.is_parse_too_large() {
        Reason::ResponseHeadTooLarge
    } else if error.is_parse() {
        Reason::ResponseMalformed
    } else if error.is_timeout() {
        Reason::ResponseTimeout
    } else if error.is_user() {
        // The body that we gave it broke: the caller went away.
        Reason::CallerGone
    } else {
        Reason::ConnectionTerminated
    };
    Failure::new(reason, format!("the application: {error}"))
}
