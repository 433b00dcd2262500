//! Small calls of a comparison: whether a server answers, and connections that are opened and then stay idle.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::failure::{Code, Failure, chain};

/// How long a step of a pair's start may take, on a busy machine too.
const STEP: Duration = Duration::from_secs(60);
/// How often that is checked.
const GLANCE: Duration = Duration::from_millis(50);
/// How long one small call may take.
const CALL: Duration = Duration::from_secs(10);

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Connections that were used once and are then kept open. Dropping it closes them.
pub struct HeldConnections {
    senders: Vec<SendRequest<Empty<Bytes>>>,
    connections: JoinSet<()>,
}

impl HeldConnections {
    /// Opens `count` connections, each of which carries one request, so that everything behind it exists.
    pub async fn open(address: SocketAddr, count: usize) -> Result<Self, Failure> {
        let mut held = Self {
            senders: Vec::new(),
            connections: JoinSet::new(),
        };
        for number in 0..count {
            if let Err(error) = held.one_more(address).await {
                let line = format!(
                    "idle connection {} of {count} to {address}: {error}",
                    number + 1
                );
                return Err(Failure::new(Code::Failed, line));
            }
        }
        Ok(held)
    }

    /// Fails if one of them was closed.
    pub fn check(&self) -> Result<(), Failure> {
        let closed = self
            .senders
            .iter()
            .filter(|sender| sender.is_closed())
            .count();
        if closed == 0 {
            return Ok(());
        }
        let line = format!(
            "{closed} of {} idle connections were closed",
            self.senders.len()
        );
        Err(Failure::new(Code::Failed, line))
    }

    async fn one_more(&mut self, address: SocketAddr) -> Result<(), String> {
        let opened = tokio::time::timeout(CALL, self.exchange(address)).await;
        let opened = opened.map_err(|_| "no answer in time".to_owned())?;
        opened.map_err(|error| chain(&*error))
    }

    async fn exchange(&mut self, address: SocketAddr) -> Result<(), AnyError> {
        let io = TokioIo::new(TcpStream::connect(address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        self.connections.spawn(async move {
            // Its end shows on the sender.
            let _ = connection.await;
        });
        let request = Request::builder()
            .uri("/")
            .header(header::HOST, address.to_string())
            .body(Empty::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        if !status.is_success() {
            return Err(format!("status {status}").into());
        }
        self.senders.push(sender);
        Ok(())
    }
}

/// Calls `address` until it answers with success; `check` says whether waiting still makes sense.
pub async fn until_answered(
    address: SocketAddr,
    mut check: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut last = String::new();
    let what = format!("{address} to answer");
    let result = until(&what, async || {
        check()?;
        match HeldConnections::open(address, 1).await {
            Ok(_) => Ok(true),
            Err(failure) => {
                last = failure.line;
                Ok(false)
            }
        }
    });
    let result = result.await;
    result.map_err(|failure| Failure {
        line: if last.is_empty() {
            failure.line
        } else {
            format!("{} ({last})", failure.line)
        },
        ..failure
    })
}

/// Looks until it is so.
pub async fn until(
    what: &str,
    mut is_so: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let start = Instant::now();
    while !is_so().await? {
        if start.elapsed() > STEP {
            let line = format!("waited {} s for {what}", STEP.as_secs());
            return Err(Failure::new(Code::Failed, line));
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}
