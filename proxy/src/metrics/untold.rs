//! What the config service has not been told of the calls of one label set: counted beside the series of
//! `/metrics` when a record ends, and taken by [`crate::signals`].

use std::time::Duration;

use weft_config::signals::{EdgeCounts, Ended};

use crate::failure::Reason;
use crate::record::Finished;

/// Counts a request that is over.
pub(super) fn count(counts: &mut EdgeCounts, finished: &Finished<'_>) {
    let (record, outcome) = (finished.record, finished.outcome);
    let of_application = match (record.grpc_status, outcome.status) {
        _ if !outcome.failed || !outcome.error.is_empty() => None,
        (Some(code), 200) => Some(format!("grpc {code}")),
        (_, status) => Some(format!("status {status}")),
    };
    let failure = match &of_application {
        Some(reason) => Some(&**reason),
        None => outcome.failed.then_some(outcome.error),
    };
    let reason = record.failure.as_ref().map(|failure| failure.reason);
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    counts.request(Ended {
        micros: micros(finished.duration()),
        mesh_micros: finished.mesh().map(micros),
        failure,
        late: reason == Some(Reason::DeadlineExceeded),
        retries: record.attempts.saturating_sub(1).into(),
        sent: record.sent,
        received: record.received,
    });
}
