//! Opens a stream to one endpoint of a cluster: picks it, dials it if there is no connection, and sends the
//! head. Whether another one is tried is the caller's decision.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use weft_transport::http3::{ClientConnection, OpenError, ResponseHalf, SendHalf};

use super::pick::{Wish, pick};
use crate::cluster::{Cluster, Flight};
use crate::failure::{Failure, Reason};
use crate::limits;
use crate::mesh::{dial_failure, open_failure};
use crate::metrics::lock;
use crate::resilience::destination::Event;
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
    let now = Instant::now();
    flight.sent(now);
    let patience = patience(worker, &connection, now);
    let opened = tokio::time::timeout(patience, connection.open(head, end)).await;
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
                OpenError::InvalidHead(_) | OpenError::Broken(_) => {
                    return Err(NotOpened {
                        failure,
                        trouble: None,
                    });
                }
            }
        }
        Err(_) => {
            cluster.destination.counts.add(Event::RefusedStreams);
            flight.tell(Outcome::Busy(limits::SPARED), Instant::now());
            return Err(NotOpened {
                failure: Failure::new(Reason::Overloaded, "the peer allows no more streams"),
                // The same one would let it wait as long again.
                trouble: (!last).then_some(Trouble::Unprocessed),
            });
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

/// How long to wait until the peer allows one more stream.
fn patience(worker: &Worker, connection: &ClientConnection, now: Instant) -> Duration {
    let crowded = connection.crowded_for(now);
    if crowded.is_zero() {
        return limits::STREAM_WAIT;
    }
    let is_slow = worker.shard.lag.is_behind() || worker.shard.intake.is_limited();
    patience_in(crowded, connection.round_trip(), is_slow)
}

/// The same, where others have been waiting for so long without a break, of a worker that is slow itself or not.
fn patience_in(crowded: Duration, round_trip: Duration, is_slow: bool) -> Duration {
    let stands = limits::CROWD_STANDING + limits::CROWD_ROUND_TRIPS * round_trip;
    match (crowded >= stands, is_slow) {
        (false, _) => limits::STREAM_WAIT,
        (true, false) => limits::CROWD_WAIT,
        (true, true) => limits::CROWD_WAIT_SLOW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_stands_is_not_waited_in_and_a_far_peer_has_time_to_raise_its_limit() {
        let millis = Duration::from_millis;
        let patience =
            |crowded, round_trip| patience_in(millis(crowded), millis(round_trip), false);
        assert_eq!(patience(99, 0), limits::STREAM_WAIT);
        assert_eq!(patience(101, 0), limits::CROWD_WAIT);
        assert_eq!(patience(101, 50), limits::STREAM_WAIT);
        assert_eq!(patience(301, 50), limits::CROWD_WAIT);
        let slow = patience_in(millis(101), millis(0), true);
        assert_eq!(slow, limits::CROWD_WAIT_SLOW);
    }
}
