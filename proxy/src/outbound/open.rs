//! Opens a stream to one endpoint of a cluster: picks it, dials it if there is no connection, and sends the
//! head. Whether another one is tried is the caller's decision.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use weft_transport::http3::{OpenError, ResponseHalf, SendHalf};

use super::pick::{Wish, pick};
use crate::cluster::{Cluster, Flight};
use crate::failure::{Failure, Reason};
use crate::limits;
use crate::mesh::{dial_failure, open_failure};
use crate::metrics::lock;
use crate::resilience::retry::Trouble;
use crate::resilience::standing::Outcome;
use crate::worker::Worker;

/// A stream whose head is sent.
pub(super) struct Opened {
    pub(super) send: SendHalf,
    pub(super) response: ResponseHalf,
    pub(super) flight: Flight,
}

/// No stream. No peer has seen the request.
pub(super) struct NotOpened {
    pub(super) failure: Failure,
    /// None where another attempt would fare no better.
    pub(super) trouble: Option<Trouble>,
}

/// Picks, dials if needed, sends the head. What was picked is noted in the wish.
pub(super) async fn open(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    head: &Parts,
    end: bool,
    wish: &mut Wish,
    now: Instant,
) -> Result<Opened, NotOpened> {
    let picked = pick(cluster, wish, now, &mut *lock(&worker.random));
    let chosen = picked.and_then(|pick| {
        let endpoint = cluster.endpoints.get(pick.index)?;
        Some((pick, endpoint, cluster.start(pick.index, now)?))
    });
    let Some((pick, endpoint, mut flight)) = chosen else {
        return Err(NotOpened {
            failure: Failure::new(
                Reason::NoEndpoint,
                format!("no healthy endpoint of {}", cluster.label),
            ),
            trouble: None,
        });
    };
    wish.tried.add(pick.index);
    let connection = match worker.pool.get(&endpoint.target).await {
        Ok(connection) => connection,
        Err(error) => {
            flight.tell(Outcome::Badly, now);
            return Err(NotOpened {
                failure: dial_failure(&error),
                // Dialling the same one again at once would only double the wait.
                trouble: (!wish.tried.all(cluster.endpoints.len())).then_some(Trouble::NotReached),
            });
        }
    };
    let opened = tokio::time::timeout(limits::STREAM_WAIT, connection.open(head, end)).await;
    let (failure, outcome) = match opened {
        Ok(Ok((send, response))) => {
            return Ok(Opened {
                send,
                response,
                flight,
            });
        }
        Ok(Err(error)) => {
            let failure = open_failure(&error);
            match error {
                OpenError::ConnectionLost(_) => (failure, Some(Outcome::Badly)),
                // It goes away in good order.
                OpenError::Draining | OpenError::Stopped(_) => (failure, None),
                OpenError::InvalidHead(_) => {
                    return Err(NotOpened {
                        failure,
                        trouble: None,
                    });
                }
            }
        }
        Err(_) => {
            let failure = Failure::new(Reason::Overloaded, "the peer allows no more streams");
            (failure, Some(Outcome::Busy(limits::SPARED)))
        }
    };
    if let Some(outcome) = outcome {
        flight.tell(outcome, now);
    }
    Err(NotOpened {
        failure,
        trouble: Some(Trouble::Unprocessed),
    })
}
