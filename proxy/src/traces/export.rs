//! The one task that sends spans: every few seconds, or as soon as a worker has enough for an export. It
//! tries an export again while that may help and there is time; what waits meanwhile is bounded by the
//! queues.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;
use weft_config::settings::Traces;
use weft_transport::backoff::{Backoff, Spread};

use super::answer::Answer;
use super::collector::Collector;
use super::queue::SpanQueue;
use super::resource::Frame;
use super::{Dropped, Tracing};
use crate::limits;
use crate::visible::{cut, escape};

/// See the module's documentation.
pub(crate) struct Exporter {
    tracing: Arc<Tracing>,
    queues: Vec<Arc<SpanQueue>>,
    frame: Frame,
    collector: Collector,
    backoff: Backoff,
    random: StdRng,
    /// The last export did not arrive, which the log says once.
    is_failing: bool,
}

/// Spans that go together.
struct Batch {
    export: Bytes,
    spans: usize,
}

impl Exporter {
    /// Of the queues of all workers.
    pub(crate) fn new(
        settings: &Traces,
        tracing: Arc<Tracing>,
        queues: Vec<Arc<SpanQueue>>,
        frame: Frame,
        random: StdRng,
    ) -> Self {
        let (first, most) = (limits::EXPORT_RETRY_MIN, limits::EXPORT_RETRY_MAX);
        Self {
            tracing,
            queues,
            frame,
            collector: Collector::new(settings),
            backoff: Backoff::new(first, most, Spread::Half),
            random,
            is_failing: false,
        }
    }

    /// Sends until `stop`, and then what is left, each export once. The caller bounds the time of that.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let tracing = Arc::clone(&self.tracing);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tracing.full.notified() => {}
                () = tokio::time::sleep(limits::SPANS_INTERVAL) => {}
            }
            while let Some(batch) = self.gather() {
                self.deliver(batch, &stop).await;
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    /// What waits, up to the size of an export.
    fn gather(&self) -> Option<Batch> {
        let (mut parts, mut spans) = (Vec::new(), 0);
        for queue in &self.queues {
            if spans < limits::SPANS_BATCH_MAX
                && let Some(chunk) = queue.take()
            {
                spans += chunk.spans;
                parts.push(chunk.bytes);
            }
        }
        let export = || self.frame.request(&parts).into();
        (spans > 0).then(|| Batch {
            export: export(),
            spans,
        })
    }

    async fn deliver(&mut self, batch: Batch, stop: &CancellationToken) {
        let (spans, began) = (batch.spans, Instant::now());
        let counts = |tracing: &Tracing, sent: usize| {
            tracing
                .counts
                .exported
                .fetch_add(sent as u64, Ordering::Relaxed);
        };
        loop {
            let (asked, words) = match self.collector.send(batch.export.clone()).await {
                Answer::Taken { rejected, words } => {
                    let rejected = usize::try_from(rejected).unwrap_or(spans).min(spans);
                    counts(&self.tracing, spans - rejected);
                    self.tracing.drop_spans(Dropped::Rejected, rejected);
                    return self.arrived(rejected, &words);
                }
                Answer::Never(words) => {
                    self.failed(&words);
                    return self.tracing.drop_spans(Dropped::Refused, spans);
                }
                Answer::Later(asked, words) => (asked, words),
            };
            self.failed(&words);
            let wait = self
                .backoff
                .next(&mut self.random)
                .max(asked.unwrap_or(Duration::ZERO));
            let is_late = began.elapsed() + wait > limits::EXPORT_TRIED_MAX;
            if is_late
                || stop
                    .run_until_cancelled(tokio::time::sleep(wait))
                    .await
                    .is_none()
            {
                return self.tracing.drop_spans(Dropped::Unreachable, spans);
            }
        }
    }

    fn arrived(&mut self, rejected: usize, words: &str) {
        self.backoff.reset();
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("spans arrive at the collector again");
        }
        if rejected > 0 {
            tracing::debug!(rejected, words = %shown(words), "the collector does not want some spans");
        }
    }

    fn failed(&mut self, words: &str) {
        self.tracing.counts.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(error = %shown(words), "spans do not arrive at the collector (traces.otlp): they are lost when no room is left");
        }
    }
}

/// What a collector says, as logs may show it.
fn shown(words: &str) -> String {
    escape(&cut(words, limits::SPAN_TEXT_BYTES_MAX)).into_owned()
}

#[cfg(test)]
mod tests;
