//! Bounds of spans and of their export.

use std::time::Duration;

/// Spans of one export (the default of OpenTelemetry's SDKs). They are sent as soon as a worker has as many.
pub const SPANS_BATCH_MAX: usize = 512;

/// How long a span waits for others at most (the default of OpenTelemetry's SDKs).
pub const SPANS_INTERVAL: Duration = Duration::from_secs(5);

/// Spans of one worker that wait for the exporter: eight exports. Beyond that new ones are dropped.
pub const SPANS_QUEUED_MAX: usize = 8 * SPANS_BATCH_MAX;

/// Bytes that they may have: a usual span has 500 to 800.
pub const SPANS_QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Attempts of one request beside those of its record that have a span: copies of a hedge, and attempts
/// between the first three and the last.
pub const SPAN_ATTEMPTS_BESIDE_MAX: usize = 32;

/// Bytes of a text in a span that callers choose: a path, a method of gRPC, an authority, a user agent.
pub const SPAN_TEXT_BYTES_MAX: usize = 256;

/// The first wait after an export that failed, which doubles with each further one.
pub const EXPORT_RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest such wait, and the longest that a collector may ask for.
pub const EXPORT_RETRY_MAX: Duration = Duration::from_secs(30);

/// How long one export is tried again before its spans are dropped: a collector restarts within a minute.
pub const EXPORT_TRIED_MAX: Duration = Duration::from_secs(60);

/// For all exports that are left when the sidecar ends, within what supervisors wait for that.
pub const EXPORT_FLUSH_MAX: Duration = Duration::from_secs(2);

/// Bytes of a collector's answer that are read: it is a few fields.
pub const EXPORT_ANSWER_BYTES_MAX: usize = 64 * 1024;
