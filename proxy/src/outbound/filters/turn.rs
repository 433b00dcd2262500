//! On a connection that carries many requests at once (HTTP/2), the sidecar must read a request to know of
//! it. While the worker is behind, such a request waits here for its turn. Requests of HTTP/1.1 have waited
//! before, unread in the kernel.

use std::time::Instant;

use http::Version;

use super::super::exchange::Exchange;
use crate::resilience::deadline::LONGEST;

/// Whether the exchange waits here.
pub(super) fn is_due(exchange: &Exchange) -> bool {
    exchange.head.version == Version::HTTP_2 && exchange.worker.shard.intake.is_limited()
}

/// Until its turn or its deadline.
pub(super) async fn wait(exchange: &Exchange, now: Instant) {
    let end = exchange.deadline.end.unwrap_or_else(|| now + LONGEST);
    let turn = exchange.worker.shard.intake.turn();
    // If its turn has not come by then, the deadline has passed; the first attempt reports that.
    let _ = tokio::time::timeout_at(end.into(), turn).await;
}
