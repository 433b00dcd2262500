//! One purchase of a certificate: sends the request, and checks the answer. The agent decides when, and uses
//! the result; the call itself is `client.rs`.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use weft_transport::backoff::{Backoff, Spread};
use weft_transport::identity::SpiffeId;

use super::AgentError;
use super::state::{Bought, CaAddresses, StateDirectory};
use crate::client::{self, CallError, RequestProof};
use crate::limits::{BACKOFF_MIN, JOIN_BACKOFF_MAX};
use crate::subject;

/// Obtains a certificate for the pending key. It checks that the answer has this key and the expected name.
///
/// A token binds to the first key that spends it, so one is spent only for a key that survives a crash.
pub(super) async fn buy(
    state: &StateDirectory,
    ca: &CaAddresses,
    proof: &RequestProof<'_>,
    identity: &SpiffeId,
) -> Result<Bought, AgentError> {
    let mut pending = state.pending()?;
    if let Some(error) = pending.unsaved.take()
        && matches!(proof, RequestProof::Token { .. })
    {
        return Err(error.into());
    }
    let server = subject::authority(&ca.trust_domain);
    let answer = client::sign(&ca.addresses, &server, proof, &pending.csr).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(CallError::Unreachable(reason)) => return Err(AgentError::Unreachable(reason)),
        Err(CallError::Refused { address, reason }) => {
            // The CA will not certify this key, and a new attempt may use another proof.
            if let Err(error) = state.discard_pending() {
                tracing::debug!(%error, "the key of a refused request stays on disk");
            }
            return Err(AgentError::Refused {
                address,
                reason,
                identity: identity.clone(),
            });
        }
    };
    let bought = Bought {
        chain: answer.chain_pem,
        key: pending.key,
        bundle: answer.bundle_pem,
    };
    let unusable = |error: &dyn std::error::Error| AgentError::Answer(error.to_string());
    let svid = bought.svid().map_err(|error| unusable(&error))?;
    if svid.id() != identity {
        return Err(AgentError::Answer(format!(
            "it is for {}, not {identity}",
            svid.id()
        )));
    }
    bought
        .bundle(&ca.trust_domain)
        .map_err(|error| unusable(&error))?;
    Ok(bought)
}

/// How a start waits.
pub(super) struct Wait {
    /// Told what for.
    pub(super) told: watch::Sender<String>,
    /// For how long; for ever without it.
    pub(super) patience: Option<Duration>,
}

/// Repeats `attempt` while no CA answers, and tells `wait` why.
pub(super) async fn patiently<T, F: Future<Output = Result<T, AgentError>>>(
    attempt: impl Fn() -> F,
    wait: &Wait,
) -> Result<T, AgentError> {
    let mut last = String::new();
    let attempts = async {
        let mut backoff = Backoff::new(BACKOFF_MIN, JOIN_BACKOFF_MAX, Spread::Half);
        loop {
            let reason = match attempt().await {
                Err(AgentError::Unreachable(reason)) => reason,
                other => return other,
            };
            let pause = backoff.next(&mut rand::rng());
            if reason == last {
                tracing::debug!(%reason, "still waiting for the CA");
            } else {
                tracing::warn!(%reason, "waiting for the CA");
                wait.told.send_replace(format!("the CA: {reason}"));
                last.clone_from(&reason);
            }
            sleep(pause).await;
        }
    };
    let Some(patience) = wait.patience else {
        return attempts.await;
    };
    match timeout(patience, attempts).await {
        Ok(result) => result,
        Err(_) if last.is_empty() => Err(no_answer(patience)),
        Err(_) => Err(AgentError::Unreachable(last)),
    }
}

pub(super) fn no_answer(patience: Duration) -> AgentError {
    AgentError::Unreachable(format!("no CA answers within {} s", patience.as_secs()))
}
