//! One call to the CA: connects to its addresses in turn, asks, and distinguishes a refusal from an absent
//! CA. `agent.rs` decides when to call.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use weft_transport::credentials::{Credentials, Fingerprint};
use weft_transport::hosts;
use weft_transport::identity::SpiffeId;
use weft_transport::tcp::{TlsConnector, TlsError};

use crate::limits::{ANSWER_BYTES_MAX, CALL_TIMEOUT, CONNECT_TIMEOUT};
use crate::proto::certificate_authority_client::CertificateAuthorityClient;
use crate::proto::{SignRequest, SignResponse};
use crate::token::TokenSecret;

/// The proof with which a certificate is requested.
#[derive(Clone)]
pub(crate) enum RequestProof<'a> {
    /// A join token: the server is known by its root's fingerprint.
    Token {
        anchor: Fingerprint,
        secret: &'a TokenSecret,
    },
    /// The certificate in force, or one in its renewal grace.
    Svid(&'a Credentials),
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// A CA that proved its identity refused: asking again is of no use.
    #[error("the CA at {address} refuses: {reason}")]
    Refused { address: String, reason: String },
    /// No CA answered, or none could help at present; another attempt may succeed. An impostor counts as
    /// absent: its refusal must not end a process.
    #[error("{0}")]
    Unreachable(String),
}

/// Asks the CAs at `addresses` in turn, until one answers or refuses.
pub(crate) async fn sign(
    addresses: &[String],
    server: &SpiffeId,
    proof: &RequestProof<'_>,
    csr: &[u8],
) -> Result<SignResponse, CallError> {
    let connector = match proof {
        RequestProof::Token { anchor, .. } => TlsConnector::pinned(*anchor, server.clone()),
        RequestProof::Svid(credentials) => TlsConnector::mutual(credentials, server.clone()),
    };
    let connector = connector.map_err(|error| CallError::Unreachable(error.to_string()))?;
    let mut failures = Vec::new();
    for address in addresses {
        match ask(address, &connector, proof, csr).await {
            Ok(answer) => return Ok(answer),
            Err(AskError::Refused(reason)) => {
                return Err(CallError::Refused {
                    address: address.clone(),
                    reason,
                });
            }
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(CallError::Unreachable(format!(
        "no CA answers ({})",
        failures.join("; ")
    )))
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Refused(String),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("{0}")]
    Tls(TlsError),
    #[error("the server there is of another mesh than the {0}: {1}")]
    OtherMesh(&'static str, TlsError),
    #[error("{0}")]
    Channel(tonic::transport::Error),
    #[error("{0}")]
    Temporary(String),
}

async fn ask(
    address: &str,
    connector: &TlsConnector,
    proof: &RequestProof<'_>,
    csr: &[u8],
) -> Result<SignResponse, AskError> {
    let of_mesh = match proof {
        RequestProof::Token { .. } => "join token",
        RequestProof::Svid(_) => "identity in the state directory",
    };
    let channel = timeout(CONNECT_TIMEOUT, connect(address, connector, of_mesh))
        .await
        .map_err(|_| AskError::Timeout(CONNECT_TIMEOUT))??;
    let token_secret = match proof {
        RequestProof::Token { secret, .. } => secret.as_bytes().to_vec(),
        RequestProof::Svid(_) => Vec::new(),
    };
    let request = SignRequest {
        csr: csr.to_vec(),
        token_secret,
    };
    let mut client =
        CertificateAuthorityClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let answer = timeout(CALL_TIMEOUT, client.sign(request))
        .await
        .map_err(|_| AskError::Timeout(CALL_TIMEOUT))?;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| judge(&status))
}

async fn connect(
    address: &str,
    connector: &TlsConnector,
    of_mesh: &'static str,
) -> Result<Channel, AskError> {
    let stream = hosts::connect(address).await.map_err(AskError::Connect)?;
    // One small request, one small answer; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    let connected = connector.connect(stream).await;
    let mut stream = Some(connected.map_err(|error| match error.is_of_another_mesh() {
        true => AskError::OtherMesh(of_mesh, error),
        false => AskError::Tls(error),
    })?);
    let once = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        async { stream.ok_or_else(|| io::Error::other("the connection is used up")) }
    });
    // The name has no meaning: the handshake checked the server's identity.
    Endpoint::from_static("http://ca.weft")
        .connect_with_connector(once)
        .await
        .map_err(AskError::Channel)
}

/// Distinguishes the CA's final refusal from a temporary failure, as `authority.proto` defines it.
fn judge(status: &Status) -> AskError {
    let message = status.message().to_owned();
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => AskError::Refused(message),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => AskError::Temporary(message),
    }
}
