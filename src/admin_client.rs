//! Asks a running sidecar's admin endpoint: small requests, small answers, on this host.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::failure::{Code, Failure, chain};

/// An answer is waited for this long: the endpoint does not compute anything.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer; a dump of 10 000 endpoints fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the endpoint said.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    /// The document. A sidecar that has none, because it waits for something, says why.
    pub fn json(&self) -> Result<serde_json::Value, Failure> {
        if !self.status.is_success() {
            let said = String::from_utf8_lossy(&self.body);
            return Err(Failure::new(Code::Failed, said.trim()));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("the admin endpoint's answer is no JSON: {error}"),
            )
        })
    }
}

/// GET `path`.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer, Failure> {
    ask(address, Method::GET, path).await
}

/// POST `path` with an empty body.
pub async fn post(address: SocketAddr, path: &str) -> Result<Answer, Failure> {
    ask(address, Method::POST, path).await
}

async fn ask(address: SocketAddr, method: Method, path: &str) -> Result<Answer, Failure> {
    let unreachable = |what: String| {
        Failure::new(
            Code::Unreachable,
            format!(
                "the sidecar's admin endpoint {address} {what}: is it running there? (--admin says where)"
            ),
        )
    };
    match tokio::time::timeout(PATIENCE, exchange(address, method, path)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unreachable(format!("does not answer ({})", chain(&*error)))),
        Err(_) => Err(unreachable(format!(
            "does not answer within {}s",
            PATIENCE.as_secs()
        ))),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(address: SocketAddr, method: Method, path: &str) -> Result<Answer, AnyError> {
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await?
            .to_bytes();
        Ok(Answer { status, body })
    };
    // The connection must be driven while the exchange waits; it ends with it.
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}
