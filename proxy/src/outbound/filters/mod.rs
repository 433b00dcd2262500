//! The filters that a request passes between its plan and its first attempt. This file fixes their order.
//!
//! A filter is one file with one function. It changes the exchange (its head, its route's traffic, its
//! deadline), delays it, or refuses it with a [`Failure`], which becomes the answer. A filter that waits is
//! first asked whether it applies, and its future is boxed: few requests need it, and others should not carry
//! its size. Filters see no bytes of the body. Tunnels pass no filters, because the mesh does not read their
//! bytes.
//!
//! A new filter is a file beside these, its type in `weft_config::table`, and its line in [`apply`]. Not
//! here: requests that no destination accepts ([`super::prepare`]), and the choice of the destination
//! ([`super::route`]).

mod deadline;
mod fault;
mod forward;
pub(super) mod overrides;
mod rate_limit;
mod turn;

use std::time::Instant;

use super::exchange::Exchange;
use crate::failure::Failure;

/// Applies all filters to a request that came in at `started`. Returns the time at which its first attempt
/// begins.
pub(super) async fn apply(exchange: &mut Exchange, started: Instant) -> Result<Instant, Failure> {
    let mut now = started;
    overrides::apply(exchange);
    // By the timeouts that hold after that.
    deadline::apply(exchange, started);
    // As early as possible: a request that waits here has cost little so far.
    if turn::is_due(exchange) {
        Box::pin(turn::wait(exchange, now)).await;
        now = Instant::now();
    }
    forward::apply(exchange)?;
    // A request over its rate gets no injected fault.
    rate_limit::apply(exchange)?;
    if fault::is_set(exchange) {
        Box::pin(fault::apply(exchange)).await?;
        now = Instant::now();
    }
    Ok(now)
}
