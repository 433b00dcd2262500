//! Spans of requests and tunnels (OpenTelemetry), and their way to a collector: off unless the settings name
//! one.
//!
//! An exchange whose caller records its trace, or whose new trace is drawn ([`sampling`]), gets what spans
//! need in its record ([`crate::record::trace`]). The next hop is told the span that calls it. When the
//! record ends, its spans are written as OTLP has them ([`span`], [`encode`]) to the queue of its worker
//! ([`queue`]); one task on the control runtime sends them ([`export`], [`collector`], [`answer`]). Nothing
//! of that waits on the data path: what has no room is dropped and counted.
//!
//! By hand, because the SDK of OpenTelemetry brings a hundred packages, and its spans are built of many small
//! pieces where these are written once.
//!
//! Not here: how `traceparent` is read ([`crate::http::traceparent`]), and where spans are sent
//! (`weft_config::settings`).

mod answer;
mod collector;
mod encode;
pub(crate) mod export;
pub(crate) mod queue;
pub(crate) mod resource;
mod sampling;
mod span;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::HeaderMap;
use rand::{Rng, RngExt as _};
use tokio::sync::Notify;
use weft_transport::metrics::{SPAN_EXPORTS_FAILED, SPANS_DROPPED, SPANS_EXPORTED, Sample};

use crate::http::traceparent::{RANDOM, SAMPLED, TRACESTATE, TraceParent, trace_state};
use crate::record::Record;
use crate::record::trace::Traced;
use sampling::Ratio;

/// What all workers of a sidecar share, if it makes spans.
#[derive(Debug)]
pub(crate) struct Tracing {
    ratio: Ratio,
    counts: Counts,
    /// A worker has enough for an export.
    full: Notify,
}

/// Why spans did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    /// They had no room in the queue: the collector is away or slow.
    QueueFull,
    /// The collector did not answer while there was time.
    Unreachable,
    /// The collector refused their export for good.
    Refused,
    /// The collector took the export without them.
    Rejected,
}

impl Dropped {
    const ALL: [(Self, &'static str); 4] = [
        (Self::QueueFull, "queue_full"),
        (Self::Unreachable, "unreachable"),
        (Self::Refused, "refused"),
        (Self::Rejected, "rejected"),
    ];
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
    failures: AtomicU64,
}

impl Tracing {
    /// Records this share of the traces that begin here.
    pub(crate) fn new(ratio: f64) -> Self {
        Self {
            ratio: Ratio::new(ratio),
            counts: Counts::default(),
            full: Notify::new(),
        }
    }

    /// Decides whether a request has spans, and tells the next hop by its head. Without a valid context of
    /// its caller a new trace begins, and its decision holds for all that is called in turn.
    pub(crate) fn begin(
        &self,
        headers: &mut HeaderMap,
        record: &mut Record,
        is_grpc: bool,
        random: &mut impl Rng,
    ) {
        let caller = TraceParent::of(headers);
        if caller.is_some_and(|caller| !caller.is_sampled()) {
            return;
        }
        let context = match caller {
            Some(caller) => TraceParent {
                parent: span_id(random),
                ..caller
            },
            None => {
                // It belongs to a trace that is not known.
                headers.remove(TRACESTATE);
                self.root(random)
            }
        };
        headers.insert(crate::http::traceparent::TRACEPARENT, context.value());
        if !context.is_sampled() {
            return;
        }
        record.traced = Some(Box::new(Traced {
            context,
            caller: caller.map(|caller| caller.parent),
            state: caller.and_then(|_| trace_state(headers)),
            began: SystemTime::now(),
            user_agent: headers.get(http::header::USER_AGENT).cloned(),
            is_grpc,
            beside: Vec::new(),
        }));
    }

    fn root(&self, random: &mut impl Rng) -> TraceParent {
        let trace = random.random_range(1..=u128::MAX);
        let sampled = if self.ratio.takes(trace) { SAMPLED } else { 0 };
        TraceParent {
            trace,
            parent: span_id(random),
            flags: RANDOM | sampled,
        }
    }

    fn drop_spans(&self, why: Dropped, spans: usize) {
        let place = Dropped::ALL.iter().position(|(one, _)| *one == why);
        if let Some(count) = place.and_then(|place| self.counts.dropped.get(place)) {
            count.fetch_add(spans as u64, Ordering::Relaxed);
        }
    }

    /// The counts, for `/metrics`.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        let mut samples = vec![
            SPANS_EXPORTED.sample(&[], read(&self.counts.exported)),
            SPAN_EXPORTS_FAILED.sample(&[], read(&self.counts.failures)),
        ];
        let dropped = Dropped::ALL.iter().zip(&self.counts.dropped);
        samples.extend(dropped.map(|((_, why), count)| SPANS_DROPPED.sample(&[why], read(count))));
        samples
    }
}

/// The id of a new span.
pub(crate) fn span_id(random: &mut impl Rng) -> u64 {
    random.random_range(1..=u64::MAX)
}

#[cfg(test)]
mod tests;
