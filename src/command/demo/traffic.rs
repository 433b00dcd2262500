//! The demo's callers: an HTTP client that keeps its connection, and one TCP conversation.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::services::SECRET_HEADER;
use crate::failure::{Code, Failure, chain};

/// No call of the demo may take longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// An HTTP/1.1 client with one connection, as an application has it.
pub struct Client {
    sender: SendRequest<Empty<Bytes>>,
    host: &'static str,
    secret: &'static str,
    _connection: JoinSet<()>,
}

/// The response.
pub struct Reply {
    pub status: StatusCode,
    pub body: String,
}

impl Client {
    /// Connects to `address`; requests will name `host` and carry `secret`.
    pub async fn connect(
        address: SocketAddr,
        host: &'static str,
        secret: &'static str,
    ) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its error also ends the request that waits for it.
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            host,
            secret,
            _connection: driver,
        })
    }

    /// Sends one request and reads the whole reply.
    pub async fn call(&mut self, method: Method, path: &str) -> Result<Reply, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.host)
            .header(SECRET_HEADER, self.secret)
            .body(Empty::new())
            .map_err(|error| failed(&error))?;
        let exchange = async {
            self.sender.ready().await.map_err(|error| failed(&error))?;
            let response = self
                .sender
                .send_request(request)
                .await
                .map_err(|error| failed(&error))?;
            let status = response.status();
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(|error| failed(&error))?;
            Ok(Reply {
                status,
                body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            })
        };
        in_time(exchange).await
    }

    /// The median time of `count` equal requests, after a tenth of them as warm-up.
    pub async fn median(&mut self, path: &str, count: usize) -> Result<Duration, Failure> {
        let mut times = Vec::with_capacity(count);
        for index in 0..count + count / 10 {
            let start = now();
            let reply = self.call(Method::GET, path).await?;
            let taken = start.elapsed();
            if !reply.status.is_success() {
                return Err(Failure::new(
                    Code::Failed,
                    format!("{path} answered {}", reply.status),
                ));
            }
            if index >= count / 10 {
                times.push(taken);
            }
        }
        times.sort();
        Ok(times[times.len() / 2])
    }
}

/// Reads a server's greeting, sends `text`, closes this side and expects `text` back.
pub async fn converse(address: SocketAddr, greeting: &str, text: &str) -> Result<bool, Failure> {
    let exchange = async {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|error| failed(&error))?;
        let mut first = vec![0; greeting.len()];
        stream
            .read_exact(&mut first)
            .await
            .map_err(|error| failed(&error))?;
        stream
            .write_all(text.as_bytes())
            .await
            .map_err(|error| failed(&error))?;
        stream.shutdown().await.map_err(|error| failed(&error))?;
        let mut rest = Vec::new();
        stream
            .read_to_end(&mut rest)
            .await
            .map_err(|error| failed(&error))?;
        Ok(first == greeting.as_bytes() && rest == text.as_bytes())
    };
    in_time(exchange).await
}

async fn in_time<T>(exchange: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| {
            Err(Failure::new(
                Code::Failed,
                format!("no answer within {}s", PATIENCE.as_secs()),
            ))
        })
}

/// A stopwatch at the shell.
fn now() -> Instant {
    Instant::now()
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::new(Code::Failed, chain(error))
}
