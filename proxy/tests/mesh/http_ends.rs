//! Applications of HTTP and their clients, for the tests of this directory.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::sidecars::{Applications, Mesh, listener};
type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// Echoes the request's body and trailers, and shows what it saw in headers.
async fn echo(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let data = body.to_bytes();
    let mut response = Response::builder()
        .header("x-path", head.uri.path())
        .header(
            "x-host",
            head.headers
                .get("host")
                .cloned()
                .unwrap_or_else(|| http::HeaderValue::from_static("-")),
        )
        .header(
            "x-client",
            head.headers.get("weft-client-id").cloned().unwrap(),
        )
        .header(
            "x-weft-headers",
            head.headers
                .keys()
                .filter(|name| name.as_str().starts_with("weft-"))
                .count(),
        )
        .header("connection", "x-private")
        .header("x-private", "1");
    if trailers.is_some() {
        response = response.header("trailer", "x-sum");
    }
    let frames = [Some(Frame::data(data)), trailers.map(Frame::trailers)]
        .into_iter()
        .flatten()
        .map(Ok);
    let body = StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>()));
    Ok(response.body(BodyExt::boxed(body)).unwrap())
}

/// Runs an application until the set is dropped.
pub(crate) fn serve_http(tasks: &mut JoinSet<()>, listener: TcpListener) {
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(echo));
                let _ = connection.await;
            });
        }
    });
}

/// The same over HTTP/2. Tells of each connection that is no health probe.
pub(crate) fn serve_http2(
    tasks: &mut JoinSet<()>,
    listener: TcpListener,
    accepted: impl Fn() + Send + 'static,
) {
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            if stream.peek(&mut [0]).await.is_ok_and(|count| count > 0) {
                accepted();
            }
            connections.spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service_fn(echo))
                    .await;
            });
        }
    });
}

/// Answers every connection with these bytes, whatever it asks.
pub(crate) fn serve_raw(tasks: &mut JoinSet<()>, listener: TcpListener, answer: &'static [u8]) {
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = [0; 4096];
            // Health probes send nothing.
            if matches!(stream.read(&mut seen).await, Ok(count) if count > 0) {
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        }
    });
}

pub(crate) async fn mesh() -> (Mesh, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let (http, http_address) = listener().await;
    let (grpc, grpc_address) = listener().await;
    let (_, tcp) = listener().await;
    serve_http(&mut tasks, http);
    serve_http2(&mut tasks, grpc, || {});
    let mesh = Mesh::start(Applications {
        http: http_address,
        grpc: grpc_address,
        tcp,
    })
    .await;
    (mesh, tasks)
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

pub(crate) async fn call<B>(to: SocketAddr, request: Request<B>) -> Answer
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    answer(sender.send_request(request).await.unwrap()).await
}

pub(crate) async fn answer(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    Answer {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    }
}

pub(crate) fn get(host: &str, path: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .uri(path)
        .header("host", host)
        .body(Full::default())
        .unwrap()
}

type GrpcBody = StreamBody<futures_util::stream::Iter<std::array::IntoIter<GrpcFrame, 2>>>;
type GrpcFrame = Result<Frame<Bytes>, Infallible>;
pub(crate) type GrpcSender = hyper::client::conn::http2::SendRequest<GrpcBody>;

/// An HTTP/2 connection, which lives as long as the set.
pub(crate) async fn grpc_client(to: SocketAddr) -> (GrpcSender, JoinSet<()>) {
    let stream = TcpStream::connect(to).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    (sender, tasks)
}

/// A call with data and trailers, which the application echoes.
pub(crate) async fn grpc_call(sender: &mut GrpcSender, trailers: HeaderMap) -> Answer {
    let frames = [
        Ok(Frame::data(Bytes::from("data"))),
        Ok(Frame::trailers(trailers)),
    ];
    let request = Request::builder()
        .method("POST")
        .uri("http://grpc.shop/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = request.body(body).unwrap();
    answer(sender.send_request(request).await.unwrap()).await
}
