//! Opens a stream to one endpoint of a cluster: picks it, dials it if there is no connection, and sends the
//! head. The caller decides whether to try another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use tokio::time::timeout_at;
use weft_transport::locks::lock;
use weft_transport::wire::{ClientConnection, DialError, OpenError, ResponseHalf, SendHalf};

use crate::application::outside::Outside;
use crate::cluster::pick::{Criteria, pick};
use crate::cluster::{Cluster, Flight, Place};
use crate::failure::{Failure, Reason};
use crate::limits;
use crate::record::attempt::Attempt;
use crate::resilience::deadline::{self, Clock};
use crate::resilience::destination::Event;
use crate::resilience::retry::RetryCause;
use crate::resilience::verdict::{Ending, Verdict};
use crate::transport_failure::{dial_failure, open_failure};
use crate::worker::Worker;

/// A stream whose head is sent.
pub(super) struct Opened {
    pub(super) send: SendHalf,
    pub(super) response: ResponseHalf,
}

/// No stream. No peer has seen the request.
pub(super) struct NotOpened {
    pub(super) failure: Failure,
    /// None if another attempt would fail in the same way.
    pub(super) cause: Option<RetryCause>,
}

/// An endpoint that takes the next attempt, which counts as its load from here on.
pub(super) struct Picked {
    index: usize,
    pub(super) flight: Flight,
    /// No other endpoint is left to try.
    last: bool,
    /// The request may be sent again.
    repeatable: bool,
}

impl Picked {
    /// The same for a request that may be sent again (`repeatable`): where another endpoint is left, it does
    /// not wait for one that goes away or does not answer.
    pub(super) fn repeatable(self, repeatable: bool) -> Self {
        Self { repeatable, ..self }
    }

    /// The endpoint, if it is outside of the mesh.
    pub(super) fn outside<'c>(&self, cluster: &'c Cluster) -> Option<&'c Arc<Outside>> {
        match &cluster.endpoints.get(self.index)?.place {
            Place::Outside(outside) => Some(outside),
            Place::Peer(_) => None,
        }
    }

    /// Its address.
    pub(super) fn address(&self, cluster: &Cluster) -> Option<SocketAddr> {
        Some(match &cluster.endpoints.get(self.index)?.place {
            Place::Peer(target) => target.address,
            Place::Outside(outside) => outside.way().address(),
        })
    }

    /// Whether no other endpoint is left to try.
    pub(super) fn is_last(&self) -> bool {
        self.last
    }

    /// Whether the request may go to another endpoint.
    pub(super) fn has_alternative(&self) -> bool {
        self.repeatable && !self.last
    }
}

/// Picks an endpoint, and notes it in the criteria.
pub(super) fn pick_endpoint(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    criteria: &mut Criteria,
    now: Instant,
) -> Result<Picked, NotOpened> {
    let picked = pick(cluster, criteria, now, &mut *lock(&worker.random));
    let started = picked.and_then(|index| Some((index, cluster.start(index, now)?)));
    let Some((index, flight)) = started else {
        return Err(NotOpened {
            failure: Failure::new(
                Reason::NoEndpoint,
                format!(
                    "no healthy endpoint of {}: {}",
                    cluster.label,
                    cluster.why_absent()
                ),
            ),
            cause: None,
        });
    };
    criteria.tried.add(index);
    Ok(Picked {
        index,
        flight,
        last: criteria.tried.all(cluster.endpoints.len()),
        repeatable: false,
    })
}

/// Dials if needed, waits for a stream, sends the head. The attempt's clock, which began with the pick, runs
/// over all of it; the head tells the next hop how much time is left when it is sent.
pub(super) async fn open(
    worker: &Worker,
    cluster: &Cluster,
    picked: &mut Picked,
    head: &Parts,
    end: bool,
    clock: &Clock,
    parts: &mut Attempt,
) -> Result<Opened, NotOpened> {
    let has_alternative = picked.has_alternative();
    let Picked {
        index,
        ref mut flight,
        last,
        ..
    } = *picked;
    let Some(endpoint) = cluster.endpoints.get(index) else {
        return Err(NotOpened {
            failure: Failure::new(Reason::Internal, "an endpoint was picked that is not there"),
            cause: None,
        });
    };
    let Place::Peer(target) = &endpoint.place else {
        return Err(NotOpened {
            failure: Failure::new(
                Reason::Internal,
                "the wire of the mesh does not lead outside",
            ),
            cause: None,
        });
    };
    let end_of_clock = clock.end_or_never(flight.began());
    parts.picked(target.address, Instant::now());
    let connection = async {
        match has_alternative {
            true => worker.pool.get_unless_doubtful(target).await,
            false => worker.pool.get(target).await,
        }
    };
    let dialled = timeout_at(end_of_clock.into(), connection).await;
    let connection = match dialled {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let ending = match error {
                DialError::Doubtful(_) => Ending::Doubtful,
                DialError::TooManyPeers | DialError::ShuttingDown => Ending::Undialled,
                DialError::Timeout(_)
                | DialError::Closed(_)
                | DialError::Refused { .. }
                | DialError::WrongIdentity { .. }
                | DialError::Expired { .. }
                | DialError::Local { .. } => Ending::Unreached,
            };
            let verdict = (ending, dial_failure(&error));
            return Err(judged(verdict, flight, clock, last));
        }
        Err(_) => {
            let failure = too_late(clock, Instant::now());
            let verdict = (Ending::UnreachedInTime, failure);
            return Err(judged(verdict, flight, clock, last));
        }
    };
    // The duration of a handshake does not predict that of the next response.
    let now = Instant::now();
    flight.sent(now);
    parts.dialled(now);
    let patience = now + patience(worker, &connection, now);
    let opened = timeout_at(
        patience.min(end_of_clock).into(),
        send(&connection, head, end, clock),
    )
    .await;
    let verdict = match opened {
        Ok(Ok((send, response))) => {
            parts.sent(Instant::now());
            return Ok(Opened { send, response });
        }
        Ok(Err(error)) => {
            let ending = match error {
                OpenError::ConnectionLost(_) => Ending::LostUnasked,
                OpenError::Draining | OpenError::Stopped(_) => Ending::Leaving,
                OpenError::InvalidHead(_) => Ending::Own,
            };
            (ending, open_failure(&error))
        }
        Err(_) => {
            let now = Instant::now();
            if end_of_clock <= now {
                (Ending::UnaskedInTime, too_late(clock, now))
            } else {
                cluster.destination.counts.add(Event::RefusedStreams);
                let full = "the peer allows no more streams";
                (Ending::NoRoom, Failure::new(Reason::Overloaded, full))
            }
        }
    };
    Err(judged(verdict, flight, clock, last))
}

/// Reports what an attempt without a stream tells about its endpoint, and whether another attempt is
/// worthwhile. `last` if no other endpoint is left for it.
fn judged(
    (ending, failure): (Ending, Failure),
    flight: &mut Flight,
    clock: &Clock,
    last: bool,
) -> NotOpened {
    let now = Instant::now();
    let Verdict { cause, evidence } = ending.verdict(clock, last, now);
    flight.judge(evidence, now);
    NotOpened { failure, cause }
}

/// Waits for a stream and sends the head, with what is left of the deadline by then.
async fn send(
    connection: &ClientConnection,
    head: &Parts,
    end: bool,
    clock: &Clock,
) -> Result<(SendHalf, ResponseHalf), OpenError> {
    let reserved = connection.reserve().await?;
    let left = clock
        .request
        .map(|request| request.saturating_duration_since(Instant::now()));
    match left {
        Some(left) if !deadline::is_told(&head.headers, left) => {
            // Boxed, because few requests need it and the others should not carry its size.
            Box::pin(async {
                let mut head = head.clone();
                deadline::tell(&mut head.headers, left);
                reserved.send(&head, Bytes::new(), end).await
            })
            .await
        }
        Some(_) | None => reserved.send(head, Bytes::new(), end).await,
    }
}

/// The clock ran out before a stream was open; no peer has seen the request.
fn too_late(clock: &Clock, now: Instant) -> Failure {
    if clock.is_over(now) {
        let passed = "the deadline passed before the peer could be asked";
        return Failure::new(Reason::DeadlineExceeded, passed);
    }
    let slow = "the peer could not be asked within the time of an attempt";
    Failure::new(Reason::ConnectionTimeout, slow)
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

/// How long to wait for a stream, given for how long requests have waited for one without a break and whether
/// this worker itself is slow.
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
