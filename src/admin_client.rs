//! Asks a running sidecar's admin endpoint: small requests with small answers, on this host. `admin_place.rs`
//! finds the endpoint.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use weft_transport::private_socket;

use crate::failure::{Code, Failure, chain};

/// The time limit for an answer: the endpoint computes little.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer; a dump of 10 000 endpoints fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The place of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Socket(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The endpoint's answer.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    /// The document. A sidecar that has none yet reports for which event it waits.
    pub fn json(&self) -> Result<serde_json::Value, Failure> {
        self.good()?;
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("the admin endpoint's answer is no JSON: {error}"),
            )
        })
    }

    /// The text of an answer that is not a refusal.
    pub fn good(&self) -> Result<String, Failure> {
        let said = String::from_utf8_lossy(&self.body).trim().to_owned();
        if self.status.is_success() {
            return Ok(said);
        }
        let code = match self.status {
            StatusCode::FORBIDDEN => Code::NotPermitted,
            StatusCode::BAD_REQUEST => Code::BadData,
            _ => Code::Failed,
        };
        Err(match said.is_empty() {
            true => Failure::new(code, format!("the sidecar answered {}", self.status)),
            false => Failure::new(code, said),
        })
    }
}

/// GET `path` at the first of the targets that can be connected to.
pub async fn get(targets: &[Target], path: &str) -> Result<Answer, Failure> {
    ask(targets, Method::GET, path, Bytes::new()).await
}

/// Asks the first of the targets that can be connected to.
pub async fn ask(
    targets: &[Target],
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Answer, Failure> {
    connect(targets).await?.ask(method, path, body).await
}

/// Connects to the first of the targets that allows it.
pub async fn connect(targets: &[Target]) -> Result<Connection, Failure> {
    let mut refusals = Vec::new();
    for target in targets {
        match tokio::time::timeout(PATIENCE, Connection::open(target)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => refusals.push((target, error)),
            Err(_) => refusals.push((target, io::ErrorKind::TimedOut.into())),
        }
    }
    Err(not_connected(&refusals))
}

fn not_connected(refusals: &[(&Target, io::Error)]) -> Failure {
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let denied = refusals.iter().any(|(_, error)| is_denied(error));
    let each: Vec<String> = refusals
        .iter()
        .map(|(target, error)| {
            let why = match (target, error.kind()) {
                (Target::Socket(_), io::ErrorKind::NotFound) => {
                    "there is no such socket".to_owned()
                }
                (Target::Socket(_), io::ErrorKind::ConnectionRefused) => {
                    "left over: no process listens there".to_owned()
                }
                (Target::Socket(_), io::ErrorKind::PermissionDenied) => {
                    "only the user that the sidecar runs as, and root, may use it".to_owned()
                }
                _ => error.to_string(),
            };
            format!("{target} ({why})")
        })
        .collect();
    let code = if denied {
        Code::NotPermitted
    } else {
        Code::Unreachable
    };
    let line = format!(
        "no sidecar answers at {}: is it running? (--state-dir, --config or --admin says which)",
        each.join(", nor at ")
    );
    Failure::new(code, line)
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection for one request.
pub struct Connection {
    target: Target,
    stream: Box<dyn Stream>,
    process: Option<i32>,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    async fn open(target: &Target) -> io::Result<Self> {
        let (stream, process): (Box<dyn Stream>, _) = match target {
            Target::Tcp(address) => (Box::new(TcpStream::connect(address).await?), None),
            Target::Socket(path) => {
                let stream = private_socket::connect(path).await?;
                let process = stream.peer_cred()?.pid();
                (Box::new(stream), process)
            }
        };
        Ok(Self {
            target: target.clone(),
            stream,
            process,
        })
    }

    /// The process that listens, if the kernel names it.
    pub fn process(&self) -> Option<i32> {
        self.process
    }

    /// Asks.
    pub async fn ask(self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let target = self.target.clone();
        let unreachable = |what: String| {
            let line = format!(
                "the sidecar's admin endpoint {target} {what}: is it running there? (--state-dir, --config or --admin says which)"
            );
            Failure::new(Code::Unreachable, line)
        };
        match tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unreachable(format!("does not answer ({})", chain(&*error)))),
            Err(_) => Err(unreachable(format!(
                "does not answer within {}s",
                PATIENCE.as_secs()
            ))),
        }
    }

    async fn exchange(self, method: Method, path: &str, body: Bytes) -> Result<Answer, AnyError> {
        let host = match &self.target {
            Target::Tcp(address) => address.to_string(),
            Target::Socket(_) => "localhost".to_owned(),
        };
        let io = TokioIo::new(self.stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, host)
            .body(Full::new(body))?;
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
}
