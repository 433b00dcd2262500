//! HTTP/1.1, HTTP/2 and gRPC on one port, with TLS or without: hyper tells them apart by their first bytes.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_transport::external::TlsServer;

use super::ThreadContext;
use crate::limits;
use crate::tasks::Tracked;

/// The protocols over TLS, in the order of preference (RFC 7301 section 3.1).
pub(super) const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Accepts connections and answers on each; over TLS if there is a `tls`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsServer>,
    context: ThreadContext,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let streams = Tracked::default();
    let body = Bytes::from(vec![b'x'; context.behaviour.body]);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Serving a connection finds out if it has gone.
                    let _ = stream.set_nodelay(true);
                    let builder = auto::Builder::new(streams.clone());
                    let (context, body, tls) = (context.clone(), body.clone(), tls.clone());
                    connections.spawn(async move {
                        let Some(tls) = tls else {
                            return connection(stream, builder, context, body).await;
                        };
                        let handshake = timeout(limits::CONNECT_TIMEOUT, tls.accept(stream));
                        if let Ok(Ok(stream)) = handshake.await {
                            connection(stream, builder, context, body).await;
                        }
                    });
                }
                Err(error) => accept_failed(&context, &error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    builder: auto::Builder<Tracked>,
    context: ThreadContext,
    body: Bytes,
) {
    let service = service_fn(|request| answer(context.clone(), body.clone(), request));
    // Errors of a connection are the peer's affair.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Without a free descriptor `accept` would fail again and again at once.
pub(super) async fn accept_failed(context: &ThreadContext, _error: &io::Error) {
    context
        .alarms
        .at(context.clock.now() + limits::SERVE_ACCEPT_PAUSE)
        .await;
}

/// One request: read completely, then answered at its time.
async fn answer(
    context: ThreadContext,
    body: Bytes,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let (came, fate) = context.receive();
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_grpc =
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let mut upload = request.into_body();
    while let Some(Ok(_)) = upload.frame().await {}
    context.wait(came + fate.first_byte).await;
    let response = if is_grpc {
        grpc_response(body, fate.fails)
    } else {
        response(body, fate.fails)
    };
    Ok(response.map(|pieces| Answer {
        wait: (fate.complete > fate.first_byte)
            .then(|| -> Wait { Box::pin(async move { context.wait(came + fate.complete).await }) }),
        pieces,
    }))
}

fn response(body: Bytes, fails: bool) -> Response<Pieces> {
    let mut response = Response::new(Pieces {
        data: (!fails && !body.is_empty()).then_some(body),
        trailers: None,
    });
    if fails {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// One message without compression, and the status in the trailers (gRPC over HTTP/2, "Responses").
fn grpc_response(body: Bytes, fails: bool) -> Response<Pieces> {
    // 14 is UNAVAILABLE.
    let status = HeaderValue::from_static(if fails { "14" } else { "0" });
    let mut message = BytesMut::with_capacity(body.len() + 5);
    message.put_u8(0);
    message.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    message.put(body);
    let trailers = HeaderMap::from_iter([(limits::GRPC_STATUS, status)]);
    let mut response = Response::new(Pieces {
        data: (!fails).then(|| message.freeze()),
        trailers: Some(trailers),
    });
    let content_type = HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The part of a response that is still to be sent.
struct Pieces {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

/// A body whose bytes come at their time.
struct Answer {
    wait: Option<Wait>,
    pieces: Pieces,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(wait) = &mut self.wait {
            if wait.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.wait = None;
        }
        let pieces = &mut self.pieces;
        let frame = match pieces.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => pieces.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.data.is_none() && self.pieces.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.data.as_ref().map_or(0, Bytes::len) as u64)
    }
}
