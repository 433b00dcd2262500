//! A request that had to be read to be seen, because it came on a connection that carries others too (HTTP/2), waits
//! for its turn while the worker is behind. Those of HTTP/1.1 waited unread.

use std::time::Instant;

use http::Version;

use super::super::exchange::Exchange;
use crate::resilience::deadline::LONGEST;

/// Whether it waits.
pub(super) fn is_due(exchange: &Exchange) -> bool {
    exchange.head.version == Version::HTTP_2 && exchange.worker.shard.intake.is_limited()
}

/// Until its turn or its deadline.
pub(super) async fn wait(exchange: &Exchange, now: Instant) {
    let end = exchange.deadline.end.unwrap_or_else(|| now + LONGEST);
    let turn = exchange.worker.shard.intake.turn();
    // Without its turn by then the deadline has passed, which is told before the first attempt.
    let _ = tokio::time::timeout_at(end.into(), turn).await;
}
