//! The gRPC service that workloads call. Decisions are in `authority.rs`; sockets in `server.rs` and
//! `connection.rs`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use weft_transport::shares::Turns;

use crate::admin::blocking;
use crate::attest::Refusal;
use crate::authority::{self, Authority, Moment, Proof, SignError};
use crate::connection::{Caller, Holder};
use crate::limits::CALLS;
use crate::proto::certificate_authority_server::CertificateAuthority;
use crate::proto::{BundleRequest, BundleResponse, SignRequest, SignResponse};
use crate::token::TokenHash;

pub(crate) struct Service {
    authority: Arc<Authority>,
    calls: Turns<Holder>,
}

impl Service {
    pub(crate) fn new(authority: Arc<Authority>) -> Self {
        Self {
            authority,
            calls: Turns::new(CALLS),
        }
    }
}

#[tonic::async_trait]
impl CertificateAuthority for Service {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        // Every connection has a caller; without one, the limits of one unknown source apply.
        let caller = caller.unwrap_or(Caller {
            peer: None,
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            hang_up: CancellationToken::new(),
        });
        let call = self.calls.enter(&caller.holder()).await;
        let message = request.into_inner();
        let request = authority::Request {
            proof: proof(&message.token_secret, &caller),
            csr: message.csr,
            source: caller.source,
        };
        let authority = self.authority.clone();
        blocking(move || {
            let _call = call;
            let now = Moment {
                wall: SystemTime::now(),
                monotonic: Instant::now(),
            };
            let chain_pem = authority
                .sign(&request, now, &mut rand::rng())
                .map_err(|error| status(&error))?;
            let bundle_pem = authority.issuer().bundle_pem().to_owned();
            Ok(Response::new(SignResponse {
                chain_pem,
                bundle_pem,
            }))
        })
        .await
    }

    async fn bundle(&self, _: Request<BundleRequest>) -> Result<Response<BundleResponse>, Status> {
        let bundle_pem = self.authority.issuer().bundle_pem().to_owned();
        Ok(Response::new(BundleResponse { bundle_pem }))
    }
}

fn proof(token_secret: &[u8], caller: &Caller) -> Proof {
    if !token_secret.is_empty() {
        return Proof::Token(TokenHash::of(token_secret));
    }
    match &caller.peer {
        Some(peer) => Proof::Svid {
            id: peer.id().clone(),
            not_after: peer.not_after(),
        },
        None => Proof::None,
    }
}

fn status(error: &SignError) -> Status {
    let message = error.to_string();
    match error {
        SignError::Refused(refusal) => match refusal {
            Refusal::Csr(_) => Status::invalid_argument(message),
            Refusal::NoCredential
            | Refusal::TokenUnknown
            | Refusal::TokenExpired
            | Refusal::TokenRestored
            | Refusal::SvidExpired => Status::unauthenticated(message),
            Refusal::TokenUsed | Refusal::OtherTrustDomain | Refusal::KeyTaken => {
                Status::permission_denied(message)
            }
            Refusal::TooManySignatures => Status::resource_exhausted(message),
        },
        SignError::Issue(_) | SignError::Store(_) => {
            tracing::error!(%error, "cannot issue a certificate");
            // The reason is for the operator's log, not for strangers.
            Status::unavailable("the CA cannot issue certificates at present; its log says why")
        }
    }
}
