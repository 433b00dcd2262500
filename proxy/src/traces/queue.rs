//! The spans of one worker that wait for the exporter, as OTLP writes them. A worker takes its own lock,
//! which the exporter takes a few times in a second at most.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use weft_transport::locks::lock;

use super::{Dropped, Tracing, encode, span};
use crate::limits;
use crate::record::{Finished, Observer};

/// The field of `ScopeSpans` that a span is.
const SPANS: u32 = 2;

/// See the module's documentation.
pub(crate) struct SpanQueue {
    tracing: Arc<Tracing>,
    waiting: Mutex<Waiting>,
}

/// Spans that go in one piece.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Each as a field of `ScopeSpans`.
    pub(super) bytes: Vec<u8>,
    pub(super) spans: usize,
}

#[derive(Default)]
struct Waiting {
    /// Those with enough for an export.
    full: VecDeque<Chunk>,
    open: Chunk,
    spans: usize,
    bytes: usize,
    scratch: Vec<u8>,
}

impl SpanQueue {
    /// Of one worker.
    pub(crate) fn new(tracing: &Arc<Tracing>) -> Self {
        Self {
            tracing: Arc::clone(tracing),
            waiting: Mutex::default(),
        }
    }

    /// The oldest spans, at most as many as an export has.
    pub(super) fn take(&self) -> Option<Chunk> {
        lock(&self.waiting).take()
    }
}

impl Observer for Arc<SpanQueue> {
    fn observe(&self, finished: &Finished<'_>) {
        let Some(traced) = finished.record.traced.as_deref() else {
            return;
        };
        let spans = span::count(finished, traced);
        let mut waiting = lock(&self.waiting);
        if !waiting.has_room(spans) {
            drop(waiting);
            self.tracing.drop_spans(Dropped::QueueFull, spans);
            return;
        }
        let mut scratch = std::mem::take(&mut waiting.scratch);
        span::write(finished, traced, &mut scratch, &mut |span| {
            waiting.put(span)
        });
        waiting.scratch = scratch;
        let is_full = waiting.close();
        drop(waiting);
        if is_full {
            self.tracing.full.notify_one();
        }
    }
}

impl Waiting {
    fn has_room(&self, spans: usize) -> bool {
        self.spans + spans <= limits::SPANS_QUEUED_MAX
            && self.bytes < limits::SPANS_QUEUED_BYTES_MAX
    }

    fn put(&mut self, span: &[u8]) {
        let before = self.open.bytes.len();
        encode::bytes(&mut self.open.bytes, SPANS, span);
        self.open.spans += 1;
        self.spans += 1;
        self.bytes += self.open.bytes.len() - before;
    }

    /// Whether what is open has become an export. Spans of one exchange stay together.
    fn close(&mut self) -> bool {
        let is_full = self.open.spans >= limits::SPANS_BATCH_MAX;
        if is_full {
            self.full.push_back(std::mem::take(&mut self.open));
        }
        is_full
    }

    fn take(&mut self) -> Option<Chunk> {
        let chunk = match self.full.pop_front() {
            Some(full) => full,
            None => std::mem::take(&mut self.open),
        };
        self.spans -= chunk.spans;
        self.bytes -= chunk.bytes.len();
        (chunk.spans > 0).then_some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_number_and_in_bytes_and_taken_in_order() {
        let mut waiting = Waiting::default();
        let mut put = 0;
        while waiting.has_room(1) {
            waiting.put(&[put as u8; 8]);
            waiting.close();
            put += 1;
        }
        assert_eq!(put, limits::SPANS_QUEUED_MAX);
        let first = waiting.take().unwrap();
        assert_eq!(first.spans, limits::SPANS_BATCH_MAX);
        assert_eq!(first.bytes[..4], [SPANS as u8 * 8 + 2, 8, 0, 0]);
        assert!(waiting.has_room(limits::SPANS_BATCH_MAX));
        while waiting.take().is_some() {}
        assert_eq!((waiting.spans, waiting.bytes), (0, 0));

        let large = vec![0; limits::SPANS_QUEUED_BYTES_MAX / 4];
        (0..4).for_each(|_| waiting.put(&large));
        assert!(!waiting.has_room(1));
    }
}
