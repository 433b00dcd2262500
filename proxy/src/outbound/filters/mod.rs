//! The filters that a request passes between its plan and its first attempt. This file fixes their order.
//!
//! A filter is one file with one function. It changes the exchange (its head, its route's traffic, its
//! deadline), holds it back, or ends it with an [`Instead`], which is the answer then. One that waits is
//! asked first whether it is in force, and boxed: such are rare, and not worth room in every request. Filters
//! see no bytes of the body. Tunnels have none: what they carry is not the mesh's to read.
//!
//! A new filter is a file beside these, its type in `weft_config::table`, and its line in [`apply`]. Not
//! here: requests that no destination accepts ([`super::prepare`]), and the choice of the destination
//! ([`super::route`]).

pub(super) mod cors;
mod deadline;
mod fault;
mod forward;
mod headers;
pub(super) mod mirror;
pub(super) mod overrides;
mod rate_limit;
mod redirect;
pub(super) mod rewrite;
pub(super) mod routed;
mod turn;

use std::time::Instant;

use super::exchange::Exchange;
use super::instead::Instead;

/// Whom the application addressed, for answers that name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addressed<'a> {
    /// As it wrote it, with or without a port; a client of HTTP/1.0 need not.
    pub(super) authority: Option<&'a str>,
    /// The Service and its port, as `orders.shop:80`.
    pub(super) label: &'a str,
}

impl Addressed<'_> {
    /// The host as it was written, else the name of the Service.
    fn host(&self) -> &str {
        let text = self.authority.unwrap_or(self.label);
        match text.rsplit_once(':') {
            // Not within an address of IPv6.
            Some((host, port)) if !port.contains(']') => host,
            _ => text,
        }
    }

    /// The port of the Service.
    fn port(&self) -> u16 {
        let port = self.label.rsplit_once(':').map(|(_, port)| port.parse());
        port.and_then(Result::ok).unwrap_or(80)
    }
}

/// Applies all of them to a request that came in at `started`. Returns the time at which its first attempt
/// begins. What the request's rule answers by itself it has answered before ([`routed::answer`]), as such a
/// rule has no backend.
pub(super) async fn apply(exchange: &mut Exchange, started: Instant) -> Result<Instant, Instead> {
    let mut now = started;
    overrides::apply(exchange);
    // By the timeouts that hold after that.
    deadline::apply(exchange, started);
    // As early as possible: a request that waits here has cost little so far.
    if turn::is_due(exchange) {
        Box::pin(turn::wait(exchange, now)).await;
        now = Instant::now();
    }
    // What is written for the next hop, and what must not cross, comes after what routes do.
    if routed::is_set(exchange) {
        routed::apply(exchange)?;
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
