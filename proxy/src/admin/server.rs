//! Serves an admin endpoint: HTTP/1.1 with bounds on all that a caller may take. `guard.rs` judges each
//! request first; the router answers it. The sidecar, its early endpoint, the CA and the config service each
//! have one router.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::future::poll_fn;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use weft_transport::alone::alone;
use weft_transport::limited_log::LimitedLog;
use weft_transport::private_socket::PrivateSocket;
use weft_transport::shares::{Place, Places, Source};
use weft_transport::tasks::TaskSet;
use weft_transport::vital;

use super::guard::{Peer, Reach, judge};
use crate::descriptors::Reserve;
use crate::limits;

/// A listener with the rule for its callers.
#[derive(Debug)]
pub struct Endpoint {
    listener: Listener,
    reach: Reach,
    places: Places<Holder>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(PrivateSocket),
}

/// The caller that holds the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Address(Source),
    User(u32),
}

impl Endpoint {
    /// TCP on loopback, for callers on this host.
    ///
    /// # Errors
    /// When the kernel does not tell the listener's address.
    pub(crate) fn loopback(listener: TcpListener) -> io::Result<Self> {
        let listen = listener.local_addr()?;
        Ok(Self {
            listener: Listener::Tcp(listener),
            reach: Reach::Loopback { listen },
            places: Places::new(limits::ADMIN_CONNECTIONS),
        })
    }

    /// TCP for other hosts. It only reads, and shows nothing secret. Callers may name it by any IP address,
    /// or by a name in `hosts`.
    pub(crate) fn observe(listener: TcpListener, hosts: Vec<String>) -> Self {
        Self {
            listener: Listener::Tcp(listener),
            reach: Reach::Elsewhere { hosts },
            places: Places::new(limits::OBSERVE_CONNECTIONS),
        }
    }

    /// TCP of a control-plane process. It only reads, too: on loopback it answers callers on this host,
    /// elsewhere other hosts.
    ///
    /// # Errors
    /// When the kernel does not tell the listener's address.
    pub fn control(listener: TcpListener, hosts: Vec<String>) -> io::Result<Self> {
        if listener.local_addr()?.ip().to_canonical().is_loopback() {
            return Self::loopback(listener);
        }
        Ok(Self::observe(listener, hosts))
    }

    /// A Unix socket, for this process's user and root.
    pub(crate) fn socket(socket: PrivateSocket) -> Self {
        Self {
            listener: Listener::Unix(socket),
            reach: Reach::Socket {
                owner: rustix::process::geteuid().as_raw(),
            },
            places: Places::new(limits::ADMIN_SOCKET_CONNECTIONS),
        }
    }

    /// Serves until `stop`; then finishes the running answers within a second.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let Self {
            listener,
            reach,
            places,
        } = self;
        let answers = Answers {
            router: router.layer(DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES_MAX)),
            reach: Arc::new(reach),
            stop: stop.clone(),
        };
        let mut connections = TaskSet::default();
        let (mut reserve, failures) = (Reserve::new(), LimitedLog::by_a_state());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => {
                    // Returns the first result that is ready.
                    reserve.restore();
                    continue;
                }
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let place = places.enter(match peer {
                        Peer::Address(address) => Holder::Address(address.into()),
                        Peer::User(user) => Holder::User(user),
                    });
                    let answering = answers.clone().converse(stream, peer, place);
                    connections.spawn(alone("an admin connection", answering));
                }
                Err(error) => {
                    if reserve.help(&error) {
                        continue;
                    }
                    reserve.restore();
                    failures.log(|left_out| {
                        tracing::warn!(%error, left_out, "the admin endpoint cannot accept a connection");
                    });
                    tokio::time::sleep(limits::ACCEPT_ERROR_PAUSE).await;
                }
            }
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        // A caller that reads an answer more slowly than this loses the rest of it.
        let _ = timeout(limits::ADMIN_FINISH, all).await;
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Box::new(stream), Peer::Address(address.ip())))
            }
            Self::Unix(socket) => {
                let stream = socket.accept().await?;
                let user = stream.peer_cred()?.uid();
                Ok((Box::new(stream), Peer::User(user)))
            }
        }
    }
}

#[derive(Clone)]
struct Answers {
    router: Router,
    reach: Arc<Reach>,
    stop: CancellationToken,
}

impl Answers {
    async fn converse(self, stream: Box<dyn Stream>, peer: Peer, place: Place<Holder>) {
        let stop = self.stop.clone();
        let answer = service_fn(move |request| {
            let answers = self.clone();
            async move { Ok::<_, std::convert::Infallible>(answers.answer(peer, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::ADMIN_HEAD_TIMEOUT)
            .max_buf_size(limits::ADMIN_HEAD_BYTES_MAX)
            .max_headers(limits::FIELDS_MAX)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = poll_fn(|context| connection.as_mut().poll(context)) => ended,
            () = place.taken_back() => return,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection of the admin endpoint ended");
        }
    }

    async fn answer(self, peer: Peer, request: Request<Incoming>) -> Response {
        let (head, body) = request.into_parts();
        let mut response = match judge(&self.reach, peer, &head) {
            Ok(()) => {
                let request = Request::from_parts(head, Body::new(body));
                let answered = timeout(limits::ADMIN_ANSWER_TIMEOUT, self.router.oneshot(request));
                match answered.await {
                    Ok(Ok(response)) => response,
                    Err(_) => (StatusCode::REQUEST_TIMEOUT, "too slow\n").into_response(),
                }
            }
            Err(refusal) => {
                tracing::debug!(?peer, %refusal, "the admin endpoint refused a request");
                (refusal.status(), format!("{refusal}\n")).into_response()
            }
        };
        // No answer is a page or a part of one, and each is valid only for its moment.
        for (name, value) in [
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CACHE_CONTROL, "no-store"),
            (
                CONTENT_SECURITY_POLICY,
                "default-src 'none'; frame-ancestors 'none'",
            ),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ),
        ] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// All servers for the operators of a process. They end together.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    stop: CancellationToken,
    tasks: TaskSet<()>,
}

impl Servers {
    /// Serves one more endpoint.
    pub(crate) fn serve(&mut self, endpoint: Endpoint, router: Router) {
        let serving = endpoint.serve(router, self.stop.clone());
        let (name, ending) = ("the admin endpoint", self.stop.clone());
        self.tasks.spawn(vital::until(name, ending, serving));
    }

    /// Closes all listeners and finishes the running answers.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
