//! Injects the faults that a policy asks for to test callers: delays requests, or answers them with an error.
//! [`crate::resilience::fault`] draws which requests.

use std::time::Instant;

use weft_transport::locks::lock;

use super::super::exchange::Exchange;
use crate::failure::Failure;
use crate::resilience::deadline::earlier;
use crate::resilience::destination::Event;
use crate::resilience::fault::draw;

/// Whether a policy injects faults.
pub(super) fn is_set(exchange: &Exchange) -> bool {
    let fault = &exchange.route.traffic.fault;
    fault.delay.is_some() || fault.abort.is_some()
}

/// A delay is never longer than the deadline.
pub(super) async fn apply(exchange: &Exchange) -> Result<(), Failure> {
    let route = &exchange.route;
    let counts = &route.cluster.destination.counts;
    let drawn = draw(&route.traffic.fault, &mut *lock(&exchange.worker.random));
    if let Some(delay) = drawn.delay {
        counts.add(Event::FaultDelay);
        let until = earlier(Some(Instant::now() + delay), exchange.deadline.end);
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }
    match drawn.abort {
        Some(failure) => {
            counts.add(Event::FaultAbort);
            Err(failure)
        }
        None => Ok(()),
    }
}
