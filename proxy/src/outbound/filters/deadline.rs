//! The time after which the answer is no longer wanted: the earliest of the application's deadline, the
//! policy's timeout, and the deadline of the request that the application is serving.

use std::time::Instant;

use super::super::exchange::Exchange;
use crate::resilience::deadline::{earlier, said};

pub(super) fn apply(exchange: &mut Exchange, started: Instant) {
    let said = said(&exchange.head.headers).map(|left| started + left);
    let timeout = exchange.route.traffic.timeouts.request;
    let own = timeout.map(|timeout| started + timeout);
    let propagation = &exchange.worker.shared.propagation;
    let linked = exchange.trace.and_then(|trace| propagation.deadline(trace));
    let deadline = &mut exchange.deadline;
    deadline.end = earlier(earlier(said, own), linked);
    deadline.policy = own;
}
