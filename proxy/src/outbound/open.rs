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

/// An endpoint that takes the next attempt, which counts as its load from here on.
pub(super) struct Picked {
    index: usize,
    flight: Flight,
    /// No other endpoint is left to try.
    last: bool,
}

/// Picks an endpoint, which is noted in the wish.
pub(super) fn choose(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    wish: &mut Wish,
    now: Instant,
) -> Result<Picked, NotOpened> {
    let picked = pick(cluster, wish, now, &mut *lock(&worker.random));
    let started = picked.and_then(|index| Some((index, cluster.start(index, now)?)));
    let Some((index, flight)) = started else {
        return Err(NotOpened {
            failure: Failure::new(
                Reason::NoEndpoint,
                format!("no healthy endpoint of {}", cluster.label),
            ),
            trouble: None,
        });
    };
    wish.tried.add(index);
    Ok(Picked {
        index,
        flight,
        last: wish.tried.all(cluster.endpoints.len()),
    })
}

/// Dials if needed, sends the head.
pub(super) async fn open(
    worker: &Worker,
    cluster: &Cluster,
    picked: Picked,
    head: &Parts,
    end: bool,
) -> Result<Opened, NotOpened> {
    let Picked {
        index,
        mut flight,
        last,
    } = picked;
    let Some(endpoint) = cluster.endpoints.get(index) else {
        return Err(NotOpened {
            failure: Failure::new(Reason::Internal, "an endpoint was picked that is not there"),
            trouble: None,
        });
    };
    let connection = match worker.pool.get(&endpoint.target).await {
        Ok(connection) => connection,
        Err(error) => {
            flight.tell(Outcome::Badly, Instant::now());
            return Err(NotOpened {
                failure: dial_failure(&error),
                // Dialling the same one again at once would only double the wait.
                trouble: (!last).then_some(Trouble::NotReached),
            });
        }
    };
    // What a handshake took says nothing about the next response.
    flight.sent(Instant::now());
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
        flight.tell(outcome, Instant::now());
    }
    Err(NotOpened {
        failure,
        trouble: Some(Trouble::Unprocessed),
    })
}
