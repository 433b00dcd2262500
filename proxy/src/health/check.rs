//! One check of an application: a connection of its own, one question, one answer. The IO of health checks;
//! `state.rs` decides what results mean.
//!
//! Whatever the application does, a check ends by its timeout, which covers connection, head, body and
//! trailers, and holds no more than the bounds of `limits.rs`: `HEALTH_HEAD_BYTES_MAX`,
//! `HEALTH_BODY_BYTES_MAX` and `HEALTH_GRPC_BYTES_MAX`. Nothing that it answers is followed or kept.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use weft_config::settings::{HealthCheck, LocalAddress, Question};

use super::grpc::{self, Answer};
use crate::limits;
use crate::resilience::retry;
use crate::stream::{ApplicationStream, close};

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// There was no connection.
    #[error("accepts no connection: {0}")]
    Refused(#[source] io::Error),
    /// It accepted the connection, and its answer was not whole in time.
    #[error("gave no whole answer within {0:?}")]
    Late(Duration),
    /// Of HTTP.
    #[error("answered {0}{hint}", hint = hint(*.0))]
    Status(StatusCode),
    /// Of gRPC.
    #[error("answered with gRPC status {0}{hint}", hint = grpc_hint(*.0))]
    GrpcStatus(u8),
    /// By its own word.
    #[error("answered that it does not serve ({0:?})")]
    NotServing(Answer),
    /// What came is no answer, or broke off.
    #[error("gave no answer that can be understood: {0}")]
    Broken(String),
}

impl Failed {
    /// The value of the metric's label.
    pub(super) fn result(&self) -> CheckResult {
        match self {
            Self::Refused(_) => CheckResult::Refused,
            Self::Late(_) => CheckResult::Late,
            Self::Status(_) | Self::GrpcStatus(_) => CheckResult::Status,
            Self::NotServing(_) => CheckResult::NotServing,
            Self::Broken(_) => CheckResult::Broken,
        }
    }
}

/// How a check ended, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckResult {
    Passed,
    Refused,
    Late,
    Status,
    NotServing,
    Broken,
}

impl CheckResult {
    /// Every result, with its label.
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Passed, "passed"),
        (Self::Refused, "refused"),
        (Self::Late, "late"),
        (Self::Status, "status"),
        (Self::NotServing, "not_serving"),
        (Self::Broken, "broken"),
    ];
}

fn hint(status: StatusCode) -> &'static str {
    match status.is_redirection() {
        true => ": redirects are not followed, name the path that answers itself",
        false => "",
    }
}

fn grpc_hint(code: u8) -> &'static str {
    match code {
        5 => " (NOT_FOUND): it does not know the service that health.service names",
        12 => " (UNIMPLEMENTED): it does not have the service grpc.health.v1.Health",
        _ => "",
    }
}

/// Asks an application once.
pub(super) async fn check(check: &HealthCheck) -> Result<(), Failed> {
    let until = Instant::now() + check.timeout;
    let stream = ApplicationStream::connect(&check.address, check.timeout);
    let stream = stream.await.map_err(Failed::Refused)?;
    let asked = async {
        match &check.question {
            Question::Tcp => {
                close(stream).await;
                Ok(())
            }
            Question::Http { path, host } => http(stream, path, host).await,
            Question::Grpc { service } => {
                let authority = match &check.address {
                    LocalAddress::Tcp(address) => address.to_string(),
                    LocalAddress::Unix(_) => "localhost".to_owned(),
                };
                grpc(stream, service, &authority).await
            }
        }
    };
    match timeout_at(until, asked).await {
        Ok(result) => result,
        Err(_) => Err(Failed::Late(check.timeout)),
    }
}

/// As access logs of applications show it.
const AGENT: HeaderValue = HeaderValue::from_static("weft-health");

async fn http(stream: ApplicationStream, path: &str, host: &str) -> Result<(), Failed> {
    let request = Request::builder()
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(broken)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(limits::HEALTH_HEAD_BYTES_MAX)
        .max_headers(limits::FIELDS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(Failed::Status(status));
        }
        // An answer that breaks off is none. One that is long has said enough.
        let (mut body, mut read) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            read += frame.map_err(broken)?.data_ref().map_or(0, Bytes::len);
            if read > limits::HEALTH_BODY_BYTES_MAX {
                break;
            }
        }
        Ok(())
    };
    driven_by(exchange, connection).await
}

async fn grpc(stream: ApplicationStream, service: &str, authority: &str) -> Result<(), Failed> {
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(())
        .map_err(broken)?;
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(limits::HTTP2_HEAD_BYTES_READ)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(broken)?;
    let message = Bytes::from(grpc::request(service));
    let exchange = async move {
        let mut sender = sender.ready().await.map_err(broken)?;
        let (answer, mut body) = sender.send_request(request, false).map_err(broken)?;
        body.send_data(message, true).map_err(broken)?;
        let (head, mut body) = answer.await.map_err(broken)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(Failed::Status(head.status));
        }
        let mut message = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(broken)?;
            // It fails only on a stream that is over.
            let _ = body.flow_control().release_capacity(data.len());
            if message.len() + data.len() > limits::HEALTH_GRPC_BYTES_MAX {
                return Err(Failed::Broken("its message is too long".to_owned()));
            }
            message.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.map_err(broken)?;
        judge(&message, &head.headers, trailers.as_ref())
    };
    driven_by(exchange, connection).await
}

/// The meaning of an answer of gRPC. One without a message has its status in the head.
fn judge(message: &[u8], head: &HeaderMap, trailers: Option<&HeaderMap>) -> Result<(), Failed> {
    let code = trailers.and_then(retry::grpc_code);
    match code.or_else(|| retry::grpc_code(head)) {
        None => Err(Failed::Broken("it has no grpc-status".to_owned())),
        Some(0) => match grpc::answer(message) {
            Some(Answer::Serving) => Ok(()),
            Some(other) => Err(Failed::NotServing(other)),
            None => Err(Failed::Broken("it is no HealthCheckResponse".to_owned())),
        },
        Some(code) => Err(Failed::GrpcStatus(code)),
    }
}

/// The exchange, while its connection is driven. The end of the connection need not be that of the answer:
/// it may have been read already.
async fn driven_by<T>(exchange: impl Future<Output = T>, connection: impl Future) -> T {
    match select(pin!(exchange), pin!(connection)).await {
        Either::Left((result, _)) => result,
        Either::Right((_, exchange)) => exchange.await,
    }
}

fn broken(error: impl std::error::Error) -> Failed {
    let mut said = error.to_string();
    if let Some(source) = error.source() {
        said = format!("{said}: {source}");
    }
    Failed::Broken(said)
}

#[cfg(test)]
mod tests;
