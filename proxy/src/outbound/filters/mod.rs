//! What is done to a request between its plan and its first attempt, in one order, written here.
//!
//! A filter is one file with one function. It changes the exchange (its head, its route's traffic, its deadline), holds
//! it back, or refuses it with a [`Failure`], which is the answer then. One that waits is asked first whether it is
//! in force, and boxed: such are rare, and not worth room in every request. Filters see no bytes of the body. Tunnels
//! have none: what they carry is not the mesh's to read.
//!
//! A new one is a file beside these, its type in `weft_config::table`, and its line in [`apply`]. Not here: what no
//! destination may be asked ([`super::prepare`]), and where a request goes ([`super::route`]).

mod deadline;
mod fault;
mod forward;
pub(super) mod overrides;
mod rate_limit;
mod turn;

use std::time::Instant;

use super::exchange::Exchange;
use crate::failure::Failure;

/// Applies all of them to a request that came in at `started`. Returns the time at which its first attempt begins.
pub(super) async fn apply(exchange: &mut Exchange, started: Instant) -> Result<Instant, Failure> {
    let mut now = started;
    overrides::apply(exchange);
    // By the timeouts that hold after that.
    deadline::apply(exchange, started);
    // As early as it can be: a request that waits here has cost little.
    if turn::is_due(exchange) {
        Box::pin(turn::wait(exchange, now)).await;
        now = Instant::now();
    }
    forward::apply(exchange)?;
    // What is over its rate meets no fault.
    rate_limit::apply(exchange)?;
    if fault::is_set(exchange) {
        Box::pin(fault::apply(exchange)).await?;
        now = Instant::now();
    }
    Ok(now)
}
