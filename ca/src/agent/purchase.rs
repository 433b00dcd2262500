//! One purchase of a certificate: ask, check what comes back, put it on disk and in force. When to buy is decided by
//! the agent; the call itself is `client.rs`.

use std::future::Future;

use tokio::sync::watch;
use tokio::time::sleep;
use weft_transport::credentials::{Credentials, CredentialsError, Svid, TrustBundle};
use weft_transport::identity::SpiffeId;

use super::AgentError;
use super::state::{CaAddresses, StateDirectory};
use crate::client::{self, CallError, Right};
use crate::limits::JOIN_BACKOFF_MAX;
use crate::renewal::Backoff;
use crate::subject;

/// Buys a certificate for the pending key. What comes back is checked: the key is ours, the name is ours.
pub(super) async fn buy(
    state: &StateDirectory,
    ca: &CaAddresses,
    right: &Right<'_>,
    identity: &SpiffeId,
) -> Result<(Svid, TrustBundle), AgentError> {
    let pending = state.pending()?;
    let server = subject::authority(&ca.trust_domain);
    let answer = client::sign(&ca.addresses, &server, right, &pending.csr).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(CallError::Unreachable(reason)) => return Err(AgentError::Unreachable(reason)),
        Err(CallError::Refused { address, reason }) => {
            // This key will not be certified, and a new attempt may have a new right.
            state.discard_pending()?;
            return Err(AgentError::Refused {
                address,
                reason,
                identity: identity.clone(),
            });
        }
    };
    let svid = Svid::from_pem(answer.chain_pem.as_bytes(), pending.key())
        .map_err(|error| AgentError::Answer(error.to_string()))?;
    if svid.id() != identity {
        return Err(AgentError::Answer(format!(
            "it is for {}, not {identity}",
            svid.id()
        )));
    }
    let bundle = TrustBundle::from_pem(ca.trust_domain.clone(), answer.bundle_pem.as_bytes())
        .map_err(|error| AgentError::Answer(error.to_string()))?;
    Ok((svid, bundle))
}

/// Puts a bought certificate on disk and in force. The disk comes first: a process that crashes after using
/// the new certificate must find it again.
pub(super) fn accept(
    state: &StateDirectory,
    ca: &CaAddresses,
    svid: Svid,
    bundle: TrustBundle,
    current: Option<&Credentials>,
) -> Result<Credentials, AgentError> {
    let unusable = |error: CredentialsError| AgentError::Answer(error.to_string());
    // Checks that the chain leads to the bundle, before anything on disk changes.
    let checked = Credentials::new(svid, bundle).map_err(unusable)?;
    state.commit(&checked.svid(), &checked.bundle(), ca)?;
    let Some(current) = current else {
        return Ok(checked);
    };
    let Some(stored) = state.load()? else {
        return Err(AgentError::Answer(
            "it is not on disk after it was written".to_owned(),
        ));
    };
    current
        .replace(stored.svid, stored.bundle)
        .map_err(unusable)?;
    Ok(current.clone())
}

/// Repeats `attempt` while no CA answers, and tells `waiting` why.
pub(super) async fn patiently<T, F: Future<Output = Result<T, AgentError>>>(
    attempt: impl Fn() -> F,
    waiting: &watch::Sender<String>,
) -> Result<T, AgentError> {
    let mut backoff = Backoff::default();
    let mut last = String::new();
    loop {
        let reason = match attempt().await {
            Err(AgentError::Unreachable(reason)) => reason,
            other => return other,
        };
        let pause = backoff.next(JOIN_BACKOFF_MAX, &mut rand::rng());
        if reason == last {
            tracing::debug!(%reason, "still waiting for the CA");
        } else {
            tracing::warn!(%reason, "waiting for the CA");
            waiting.send_replace(format!("the CA: {reason}"));
            last = reason;
        }
        sleep(pause).await;
    }
}
