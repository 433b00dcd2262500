//! The demo's applications: small HTTP and TCP servers that know nothing of the mesh.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::failure::{Code, Failure};

/// The header in which the demo's requests carry their secret.
pub const SECRET_HEADER: &str = "x-card-number";

/// A running application. Dropping it ends it with its connections.
pub struct Application {
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests or connections served.
    pub served: Arc<AtomicU64>,
    /// Of those, how many carried the secret in the clear.
    pub secrets: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// An HTTP application that answers every request with `name`.
pub async fn http(name: &'static str, secret: &'static str) -> Result<Application, Failure> {
    start(move |stream, served, secrets| async move {
        let answer = service_fn(move |request: Request<Incoming>| {
            served.fetch_add(1, Ordering::Relaxed);
            if request.headers().get(SECRET_HEADER).is_some_and(|value| value == secret) {
                secrets.fetch_add(1, Ordering::Relaxed);
            }
            let body = format!("{name}: order {} for card {secret}\n", request.uri().path());
            async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(body)))) }
        });
        // An error of a connection is the client's affair.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer)
            .await;
    })
    .await
}

/// A TCP application that speaks first and then echoes.
pub async fn echo(greeting: &'static str) -> Result<Application, Failure> {
    start(move |mut stream, served, _| async move {
        served.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(greeting.as_bytes()).await.is_err() {
            return;
        }
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn start<F, S>(serve: S) -> Result<Application, Failure>
where
    S: Fn(TcpStream, Arc<AtomicU64>, Arc<AtomicU64>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let refuse = |error| Failure::new(Code::Failed, format!("cannot listen on loopback: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(refuse)?;
    let address = listener.local_addr().map_err(refuse)?;
    let (served, secrets) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counters = (Arc::clone(&served), Arc::clone(&secrets));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    // Nagle's algorithm must not affect the measured latency; without the option it is merely
                    // worse.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream, Arc::clone(&counters.0), Arc::clone(&counters.1)));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok(Application {
        address,
        served,
        secrets,
        _tasks: tasks,
    })
}
